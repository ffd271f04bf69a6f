package inflate

// A code is a prefix code (RFC 1951, 3.2.2): a table for the codes that are short, and for the long ones
// the symbols in the order of their codes.
type code struct {
	short   [1 << shortBits]uint16 // by the next bits: symbol<<4 and length; 0 when the code is longer, or none
	count   [maxBits + 1]uint16    // of codes, by length
	symbols [288]uint16            // in the order of their codes
}

const (
	shortBits = 8
	maxBits   = 15
)

// codes are those of one block.
type codes struct {
	literal, distance code

	// While they are read.
	lengths  [288 + 32]uint8
	known    int // lengths that were read
	literals int // how many belong to literal; the rest are distance's
	all      int
	order    int // lengths of the code of lengths, which is in literal for the time being
}

// build makes a code of the lengths of its symbols' codes, and reports whether it can be one: complete, or with a
// single code of one bit, or none at all (RFC 1951, 3.2.7).
func (c *code) build(lengths []uint8) bool {
	*c = code{}
	for _, n := range lengths {
		c.count[n]++
	}
	c.count[0] = 0
	left, used := 1, 0
	var place [maxBits + 2]uint16 // in symbols, of the first code of each length
	var first [maxBits + 2]uint   // the first code of each length
	for n := 1; n <= maxBits; n++ {
		left = left<<1 - int(c.count[n])
		if left < 0 {
			return false
		}
		used += int(c.count[n])
		place[n+1] = place[n] + c.count[n]
		first[n+1] = (first[n] + uint(c.count[n])) << 1
	}
	if left > 0 && used > 0 && (used > 1 || c.count[1] == 0) {
		return false
	}
	for s, n := range lengths {
		if n == 0 {
			continue
		}
		c.symbols[place[n]] = uint16(s)
		place[n]++
		c.shorten(first[n], uint(n), uint16(s))
		first[n]++
	}
	return true
}

// shorten enters a code into the table. Its bits come the highest first, those of the table's index the lowest.
func (c *code) shorten(bits, n uint, symbol uint16) {
	if n > shortBits {
		return
	}
	for i := reverse(bits, n); i < 1<<shortBits; i += 1 << n {
		c.short[i] = symbol<<4 | uint16(n)
	}
}

func reverse(bits, n uint) (r uint) {
	for range n {
		r = r<<1 | bits&1
		bits >>= 1
	}
	return r
}

// decode returns the symbol that bits begin with, and the length of its code; 0 when there is no such code. When that
// is more than there are bits, it means nothing but that more are needed.
func (c *code) decode(bits uint64) (symbol, n uint) {
	if e := uint(c.short[bits&(1<<shortBits-1)]); e != 0 {
		return e >> 4, e & 15
	}
	var value, first, place uint
	for n := uint(1); n <= maxBits; n++ {
		value |= uint(bits & 1)
		bits >>= 1
		count := uint(c.count[n])
		if value < first+count {
			return uint(c.symbols[place+value-first]), n
		}
		place += count
		first = (first + count) << 1
		value <<= 1
	}
	return 0, 0
}

// lengthOrder is how the lengths of the code of lengths come (RFC 1951, 3.2.7).
var lengthOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// codesHeader is how many lengths of codes follow.
func (z *Reader) codesHeader() error {
	if !z.have(14) {
		return errMore
	}
	c := z.codes
	c.literals = int(z.take(5)) + 257
	c.all = c.literals + int(z.take(5)) + 1
	c.order = int(z.take(4)) + 4
	if c.literals > 286 || c.all-c.literals > 30 {
		return ErrCorrupt
	}
	z.step = (*Reader).lengthsOfLengths
	return nil
}

// lengthsOfLengths reads the code in which the lengths of the others are written.
func (z *Reader) lengthsOfLengths() error {
	c := z.codes
	for ; c.known < c.order; c.known++ {
		if !z.have(3) {
			return errMore
		}
		c.lengths[lengthOrder[c.known]] = uint8(z.take(3))
	}
	if !c.literal.build(c.lengths[:len(lengthOrder)]) {
		return ErrCorrupt
	}
	c.lengths, c.known = [len(c.lengths)]uint8{}, 0
	z.step = (*Reader).lengthsOfCodes
	return nil
}

// lengthsOfCodes reads the lengths of both codes, which are one sequence.
func (z *Reader) lengthsOfCodes() error {
	c := z.codes
	for c.known < c.all {
		z.gather()
		s, n := c.literal.decode(z.bits)
		extra, least := uint(0), uint(1)
		switch s {
		case 16:
			extra, least = 2, 3
		case 17:
			extra, least = 3, 3
		case 18:
			extra, least = 7, 11
		}
		switch {
		case n > z.n:
			return errMore
		case n == 0 || s == 16 && c.known == 0:
			return ErrCorrupt
		case n+extra > z.n:
			return errMore
		}
		z.take(n)
		if !c.again(s, int(least+z.take(extra))) {
			return ErrCorrupt
		}
	}
	if !c.literal.build(c.lengths[:c.literals]) || !c.distance.build(c.lengths[c.literals:c.all]) {
		return ErrCorrupt
	}
	z.step = (*Reader).symbols
	return nil
}

// again enters a length n times; symbol 16 means the one before, 17 and 18 mean 0.
func (c *codes) again(symbol uint, n int) bool {
	if c.known+n > c.all {
		return false
	}
	length := uint8(symbol)
	switch symbol {
	case 16:
		length = c.lengths[c.known-1]
	case 17, 18:
		length = 0
	}
	for range n {
		c.lengths[c.known] = length
		c.known++
	}
	return true
}

// fixedCodes are those of blocks that bring none (RFC 1951, 3.2.6).
func fixedCodes() *codes {
	c := &codes{}
	for s := range 288 {
		switch {
		case s < 144:
			c.lengths[s] = 8
		case s < 256:
			c.lengths[s] = 9
		case s < 280:
			c.lengths[s] = 7
		default:
			c.lengths[s] = 8
		}
	}
	for s := range 32 {
		c.lengths[288+s] = 5
	}
	c.literal.build(c.lengths[:288])
	c.distance.build(c.lengths[288:])
	return c
}

// A span is a base and how many bits that follow are added to it.
type span struct {
	base  uint16
	extra uint8
}

// lengths are those of the symbols from 257 on, distances those of the symbols from 0 on (RFC 1951, 3.2.5).
var (
	lengths = [29]span{
		{3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {8, 0}, {9, 0}, {10, 0}, {11, 1}, {13, 1}, {15, 1}, {17, 1},
		{19, 2}, {23, 2}, {27, 2}, {31, 2}, {35, 3}, {43, 3}, {51, 3}, {59, 3}, {67, 4}, {83, 4}, {99, 4}, {115, 4},
		{131, 5}, {163, 5}, {195, 5}, {227, 5}, {258, 0},
	}
	distances = [30]span{
		{1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 1}, {7, 1}, {9, 2}, {13, 2}, {17, 3}, {25, 3}, {33, 4}, {49, 4},
		{65, 5}, {97, 5}, {129, 6}, {193, 6}, {257, 7}, {385, 7}, {513, 8}, {769, 8}, {1025, 9}, {1537, 9},
		{2049, 10}, {3073, 10}, {4097, 11}, {6145, 11}, {8193, 12}, {12289, 12}, {16385, 13}, {24577, 13},
	}
)
