package fulltext

import "math/bits"

// Numbers below n, in order and each once, are written as the gaps between them in Rice's code: the low k bits of a gap
// as they are, the rest as so many ones and a zero. k follows from n and how many numbers there are, and is not written.

// riceBits is the k with which count numbers below n take the least room, or nearly so.
func riceBits(n, count int) uint {
	gap := uint64(n-count) * 69 / (uint64(count) * 100) // of random gaps, half are below ln 2 of the mean
	return uint(bits.Len64(gap))
}

// A bitWriter appends bits, the lowest first.
type bitWriter struct {
	out  []byte
	acc  uint64
	fill uint
}

func (w *bitWriter) write(v uint64, n uint) {
	w.acc |= v << w.fill
	w.fill += n
	for w.fill >= 8 {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
		w.fill -= 8
	}
}

func (w *bitWriter) rice(v uint32, k uint) {
	q := v >> k
	for ; q >= 32; q -= 32 {
		w.write(1<<32-1, 32)
	}
	w.write(1<<q-1, uint(q)+1)
	w.write(uint64(v)&(1<<k-1), k)
}

func (w *bitWriter) end() []byte {
	if w.fill > 0 {
		w.out = append(w.out, byte(w.acc))
	}
	w.acc, w.fill = 0, 0
	return w.out
}

// appendList appends numbers below n.
func appendList(out []byte, list []uint32, n int) []byte {
	if len(list) == 0 {
		return out
	}
	k := riceBits(n, len(list))
	w := bitWriter{out: out}
	next := uint32(0)
	for _, v := range list {
		w.rice(v-next, k)
		next = v + 1
	}
	return w.end()
}

// readList appends the count numbers below n that appendList wrote to list. It reports false for what appendList
// never writes.
func readList(list []uint32, in []byte, count, n int) ([]uint32, bool) {
	if count == 0 {
		return list, true
	}
	k := riceBits(n, count)
	r := bitReader{in: in}
	next := uint32(0)
	for range count {
		gap, ok := r.rice(k)
		if !ok || uint64(next)+uint64(gap) >= uint64(n) {
			return list, false
		}
		list = append(list, next+gap)
		next += gap + 1
	}
	return list, true
}

// A bitReader reads what a bitWriter wrote.
type bitReader struct {
	in   []byte
	acc  uint64
	fill uint
}

// more has at least 32 bits ready, or all that are left.
func (r *bitReader) more() {
	for r.fill <= 56 && len(r.in) > 0 {
		r.acc |= uint64(r.in[0]) << r.fill
		r.in = r.in[1:]
		r.fill += 8
	}
}

func (r *bitReader) rice(k uint) (uint32, bool) {
	var q uint64
	for {
		r.more()
		ones := uint(bits.TrailingZeros64(^r.acc))
		if ones < r.fill {
			q += uint64(ones)
			r.acc >>= ones + 1
			r.fill -= ones + 1
			break
		}
		if q += uint64(r.fill); q > 1<<32 || len(r.in) == 0 {
			return 0, false
		}
		r.acc, r.fill = 0, 0
	}
	r.more()
	if r.fill < k {
		return 0, false
	}
	low := r.acc & (1<<k - 1)
	r.acc >>= k
	r.fill -= k
	v := q<<k | low
	return uint32(v), v < 1<<32
}
