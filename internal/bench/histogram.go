package bench

import (
	"math/bits"
	"time"
)

const (
	subBits    = 5 // 32 buckets to each doubling: values are right within 1.6 %
	subBuckets = 1 << subBits
	octaves    = 32 - subBits + 1
)

// A Histogram counts durations in buckets whose width grows with the value: a
// microsecond at the bottom, about three percent above. It has a fixed size, and
// its smallest and largest values are exact. The zero value is empty. Not safe for
// concurrent use: every worker has its own, merged at the end.
type Histogram struct {
	buckets  [octaves * subBuckets]uint64
	count    uint64
	min, max time.Duration
}

// Add counts one duration. Beyond 71 minutes only the largest is kept exactly.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	if h.count == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.count++
	h.buckets[bucketOf(d)]++
}

// Merge adds all that other has counted.
func (h *Histogram) Merge(other *Histogram) {
	if other.count == 0 {
		return
	}
	if h.count == 0 || other.min < h.min {
		h.min = other.min
	}
	h.max = max(h.max, other.max)
	h.count += other.count
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
}

// Count is the number of durations added.
func (h *Histogram) Count() int64 { return int64(h.count) }

// Quantile is the duration that a share q (0 to 1) of all stay within; 0 when
// nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := uint64(q * float64(h.count))
	if float64(rank) < q*float64(h.count) {
		rank++
	}
	rank = min(max(rank, 1), h.count)
	if rank == h.count {
		return h.max
	}
	var below uint64
	for i, n := range h.buckets {
		if below += n; below >= rank {
			return min(max(middleOf(i), h.min), h.max)
		}
	}
	return h.max
}

// bucketOf counts whole microseconds up to 32, then 32 steps to each doubling.
func bucketOf(d time.Duration) int {
	us := uint64(min(d/time.Microsecond, 1<<32-1))
	if us < subBuckets {
		return int(us)
	}
	octave := bits.Len64(us) - subBits
	return octave*subBuckets + int(us>>(octave-1)) - subBuckets
}

func middleOf(bucket int) time.Duration {
	octave, sub := bucket/subBuckets, bucket%subBuckets
	if octave == 0 {
		return time.Duration(sub)*time.Microsecond + time.Microsecond/2
	}
	width := time.Microsecond << (octave - 1)
	return time.Duration(subBuckets+sub)*width + width/2
}

// A Latency is a histogram in the words of a report, in milliseconds.
type Latency struct {
	Best float64 `json:"best_ms"`
	P50  float64 `json:"p50_ms"`
	P90  float64 `json:"p90_ms"`
	P99  float64 `json:"p99_ms"`
	Max  float64 `json:"max_ms"`
}

// Latency sums the histogram up; nil when nothing was counted.
func (h *Histogram) Latency() *Latency {
	if h.count == 0 {
		return nil
	}
	return &Latency{
		Best: millis(h.min), P50: millis(h.Quantile(.50)), P90: millis(h.Quantile(.90)),
		P99: millis(h.Quantile(.99)), Max: millis(h.max),
	}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
