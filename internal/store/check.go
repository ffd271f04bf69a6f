package store

import "iter"

// References yields every body reference that a package's tables hold, once for each Ref.
type References func(r Reader) iter.Seq[ID]

// Problem is one thing that Check found wrong.
type Problem struct {
	What string // "segment 3", "body 01jc..."
	Text string // what is wrong and what it means
}

// CheckResult is what Check saw.
type CheckResult struct {
	Bodies   int64
	Octets   int64
	Segments int
	Keys     int64
	Problems []Problem // at most 1,000
}
