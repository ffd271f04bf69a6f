package gate

import "time"

// rule is how much a bucket holds, and how long it takes to drain when it is full.
type rule struct {
	most   float64
	within time.Duration
}

// cost is what n things take of a bucket, when factor times as many are allowed.
func (r rule) cost(n float64, factor int) int64 {
	return int64(n / (r.most * float64(factor)) * float64(r.within))
}

// bucket fills with what is counted and drains evenly. It is the moment on the gate's clock at which it will be empty.
type bucket int64

func (b bucket) level(now int64) int64 { return max(int64(b)-now, 0) }

// room reports whether n more fit in.
func (b bucket) room(now int64, r rule, n float64, factor int) bool {
	return b.level(now)+r.cost(n, factor) <= int64(r.within)
}

// take pours n in when they fit.
func (b *bucket) take(now int64, r rule, n float64, factor int) bool {
	ok := b.room(now, r, n, factor)
	if ok {
		b.pour(now, r, n, factor)
	}
	return ok
}

// pour pours n in, whether they fit or not: they have happened. What is poured over the brim is remembered as far as a
// second bucket would hold it.
func (b *bucket) pour(now int64, r rule, n float64, factor int) {
	*b = bucket(now + min(b.level(now)+r.cost(n, factor), 2*int64(r.within)))
}

// drain takes n out, of what is there.
func (b *bucket) drain(now int64, r rule, n float64, factor int) {
	*b = bucket(now + max(b.level(now)-r.cost(n, factor), 0))
}
