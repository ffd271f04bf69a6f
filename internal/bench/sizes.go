package bench

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	smallestSize = 512     // header fields need room
	largestSize  = 1 << 30 // what a server would refuse anyway
)

// A SizeMix is a set of message sizes in octets with weights.
type SizeMix struct {
	sizes []weighted
	total uint64
	text  string
}

type weighted struct {
	size int
	upTo uint64 // sum of the weights up to and including this one
}

// ParseSizes reads "4k", or sizes with weights such as "1k:30,4k:50,1m:5". A size
// is a number of octets, k or m after it multiplies by 1024 or 1024². A size
// without a weight has the weight 1.
func ParseSizes(s string) (SizeMix, error) {
	mix := SizeMix{text: s}
	for part := range strings.SplitSeq(s, ",") {
		size, weight, err := parseWeighted(strings.TrimSpace(part))
		if err != nil {
			return SizeMix{}, fmt.Errorf("message sizes %q: %w", s, err)
		}
		mix.total += weight
		mix.sizes = append(mix.sizes, weighted{size, mix.total})
	}
	return mix, nil
}

func parseWeighted(s string) (size int, weight uint64, err error) {
	text, share, found := strings.Cut(s, ":")
	if size, err = parseSize(text); err != nil {
		return 0, 0, err
	}
	if !found {
		return size, 1, nil
	}
	if weight, err = strconv.ParseUint(share, 10, 32); err != nil || weight == 0 {
		return 0, 0, fmt.Errorf("weight %q is not a number above 0", share)
	}
	return size, weight, nil
}

func parseSize(s string) (int, error) {
	digits, unit := s, 1
	switch {
	case strings.HasSuffix(s, "k"), strings.HasSuffix(s, "K"):
		digits, unit = s[:len(s)-1], 1<<10
	case strings.HasSuffix(s, "m"), strings.HasSuffix(s, "M"):
		digits, unit = s[:len(s)-1], 1<<20
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("size %q is not a number of octets such as 4096, 4k or 1m", s)
	}
	if n*uint64(unit) < smallestSize || n*uint64(unit) > largestSize {
		return 0, fmt.Errorf("size %q is outside %d octets to 1 GiB", s, smallestSize)
	}
	return int(n) * unit, nil
}

// String is the mix as it was written.
func (m SizeMix) String() string { return m.text }

// of is the size of the message with this number: the same in every run, and
// spread so that any stretch of numbers holds the sizes in their proportion.
func (m SizeMix) of(seq int64) int {
	at := scatter(uint64(seq)) % m.total
	for _, w := range m.sizes {
		if at < w.upTo {
			return w.size
		}
	}
	return m.sizes[len(m.sizes)-1].size
}

// scatter is the finalizer of splitmix64: neighbours land far apart.
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
