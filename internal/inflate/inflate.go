// Package inflate reads DEFLATE (RFC 1951) as a compressed layer of a protocol needs it (RFC 4978): what can be
// decoded of the octets that have arrived is given out before more of them are waited for. compress/flate keeps
// the end of a block back until an empty stored block follows, which a client that flushes as zlib does with
// Z_PARTIAL_FLUSH never sends.
//
// What is promised: a Read gives out no more than was asked for, however much a few octets become. Memory is the
// window, which grows with what was read up to 32 KiB, and within a block 4 KiB of codes, and while much arrives at
// once a buffer of 4 KiB. An error of the reader below does no harm: the next Read goes on where it was.
package inflate

import (
	"errors"
	"io"
	"sync"
)

// ErrCorrupt is the error for what is not DEFLATE. It stays.
var ErrCorrupt = errors.New("the compressed stream is corrupt")

// A Reader decodes a stream. It is not safe for use by several goroutines.
type Reader struct {
	source
	err error // ErrCorrupt, or io.EOF after the last block

	step    step
	final   bool // the block is the last
	flushed bool // what was read last is an empty stored block, with which a writer flushes
	codes   *codes
	copy    match

	window window
	out    []byte // where Read wants it; what is filled is cut off
}

// NewReader returns a Reader of what r gives.
func NewReader(r io.Reader) *Reader { return &Reader{source: source{from: r}, step: (*Reader).header} }

// A step decodes something, as far as there is room in out. When it lacks input it changes nothing but what it
// has done already, and is called again.
type step func(*Reader) error

// errMore says that a step lacks input.
var errMore = errors.New("more input is needed")

// Read gives out what can be decoded now, and waits for input only when that is nothing.
func (z *Reader) Read(p []byte) (int, error) {
	z.out = p
	defer func() { z.out = nil }()
	for len(z.out) > 0 && z.err == nil {
		err := z.step(z)
		if err == errMore {
			if len(z.out) < len(p) {
				break
			}
			if err := z.fill(); err != nil {
				return 0, err
			}
			continue
		}
		z.err = err
		if z.flushed && len(z.out) < len(p) {
			break
		}
	}
	if n := len(p) - len(z.out); n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, z.err
}

// End reads the stream to its end, when its writer has said that it writes no more: to the end of the last block, or to the
// empty stored block of a flush. It returns what was read from below that comes after. ErrCorrupt when there is more in the
// stream. After an error of the reader below it can be called again.
func (z *Reader) End() (rest []byte, err error) {
	for z.err == nil && !z.flushed {
		var more [1]byte
		z.out = more[:]
		err := z.step(z)
		full := len(z.out) == 0
		z.out = nil
		switch {
		case full:
			z.err = ErrCorrupt
		case err != errMore:
			z.err = err
		default:
			if err := z.fill(); err != nil {
				return nil, err
			}
		}
	}
	if z.err != nil && z.err != io.EOF {
		return nil, z.err
	}
	return z.unused(), nil
}

// header begins a block (RFC 1951, 3.2.3).
func (z *Reader) header() error {
	if z.final {
		return io.EOF
	}
	if !z.have(3) {
		return errMore
	}
	z.final, z.flushed = z.take(1) == 1, false
	switch z.take(2) {
	case 0:
		z.take(z.n % 8)
		z.step = (*Reader).storedHeader
	case 1:
		z.codes = fixedCodes()
		z.step = (*Reader).symbols
	case 2:
		z.codes = &codes{}
		z.step = (*Reader).codesHeader
	default:
		return ErrCorrupt
	}
	return nil
}

// end ends a block.
func (z *Reader) end() error {
	z.codes = nil
	z.step = (*Reader).header
	return nil
}

// storedHeader is the length of a block that is not compressed, twice (RFC 1951, 3.2.4).
func (z *Reader) storedHeader() error {
	if !z.have(32) {
		return errMore
	}
	n, not := z.take(16), z.take(16)
	if n != ^not&0xffff {
		return ErrCorrupt
	}
	z.copy.length, z.flushed = int(n), n == 0
	z.step = (*Reader).stored
	return nil
}

// stored gives out the octets of such a block.
func (z *Reader) stored() error {
	for ; z.copy.length > 0; z.copy.length-- {
		switch {
		case len(z.out) == 0:
			return nil
		case !z.have(8):
			return errMore
		}
		z.put(byte(z.take(8)))
	}
	return z.end()
}

// put gives out an octet. There must be room.
func (z *Reader) put(b byte) {
	z.out[0] = b
	z.out = z.out[1:]
	z.window.put(b)
}

// A match is what is copied from what was given out before.
type match struct{ length, back int }

// symbols gives out the octets of a compressed block (RFC 1951, 3.2.5).
func (z *Reader) symbols() error {
	for len(z.out) > 0 {
		if z.copy.length > 0 {
			z.repeat()
			continue
		}
		z.gather()
		s, n := z.codes.literal.decode(z.bits)
		switch {
		case n > z.n:
			return errMore
		case n == 0:
			return ErrCorrupt
		case s < 256:
			z.take(n)
			z.put(byte(s))
		case s == 256:
			z.take(n)
			return z.end()
		default:
			if err := z.match(s, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// match reads a match whose length has symbol s, a code of n bits: all of it or nothing.
func (z *Reader) match(s, n uint) error {
	if s > 285 {
		return ErrCorrupt
	}
	length := lengths[s-257]
	bits, have := z.bits>>n, int(z.n-n)
	count := int(length.base) + int(bits&(1<<length.extra-1))
	bits, have = bits>>length.extra, have-int(length.extra)
	s, n = z.codes.distance.decode(bits)
	switch {
	case have < 0 || int(n) > have:
		return errMore
	case n == 0 || s > 29:
		return ErrCorrupt
	}
	distance := distances[s]
	bits, have = bits>>n, have-int(n)
	back := int(distance.base) + int(bits&(1<<distance.extra-1))
	have -= int(distance.extra)
	switch {
	case have < 0:
		return errMore
	case !z.window.has(back):
		return ErrCorrupt
	}
	z.take(z.n - uint(have))
	z.copy = match{count, back}
	return nil
}

// repeat gives out a match, as far as there is room.
func (z *Reader) repeat() {
	n := min(z.copy.length, len(z.out))
	for range n {
		z.put(z.window.at(z.copy.back))
	}
	z.copy.length -= n
}

// A source is the input as bits.
type source struct {
	from  io.Reader
	small [64]byte // what a waiting Reader reads into
	block *block   // and one to which much came
	in    []byte   // read and not used; part of small or block
	much  bool     // the last read filled its buffer

	bits uint64 // taken from in and not used, the next one lowest; zero above n
	n    uint   // how many
}

type block [4096]byte

var blocks = sync.Pool{New: func() any { return new(block) }}

// fill reads more. All of in must have been used.
func (s *source) fill() error {
	buf := s.small[:]
	switch {
	case s.much && s.block == nil:
		s.block = blocks.Get().(*block)
	case !s.much && s.block != nil:
		blocks.Put(s.block)
		s.block = nil
	}
	if s.block != nil {
		buf = s.block[:]
	}
	s.much = false // a read that waits has the small buffer
	n, err := s.from.Read(buf)
	if n > 0 {
		s.in, s.much = buf[:n], n == len(buf)
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// gather takes as many bits from the input as there is room for.
func (s *source) gather() {
	for s.n <= 56 && len(s.in) > 0 {
		s.bits |= uint64(s.in[0]) << s.n
		s.n += 8
		s.in = s.in[1:]
	}
}

// have reports whether there are n bits.
func (s *source) have(n uint) bool {
	if s.n < n {
		s.gather()
	}
	return s.n >= n
}

// take uses n bits, of those that there are.
func (s *source) take(n uint) uint {
	b := uint(s.bits & (1<<n - 1))
	s.bits >>= n
	s.n -= n
	return b
}

// unused returns the octets that were read from below and not decoded, and forgets them.
func (s *source) unused() (rest []byte) {
	for s.take(s.n % 8); s.n > 0; {
		rest = append(rest, byte(s.take(8)))
	}
	rest = append(rest, s.in...)
	s.in = nil
	return rest
}

// A window is the last octets that were given out, as many as a match may reach back to.
type window struct {
	ring  []byte // a power of two, or empty
	count int    // octets that came; no more than maxWindow are counted beyond what the place needs
}

const (
	minWindow = 512
	maxWindow = 32 << 10
)

func (w *window) put(b byte) {
	if w.count == len(w.ring) && w.count < maxWindow {
		ring := make([]byte, max(minWindow, 2*len(w.ring)))
		copy(ring, w.ring)
		w.ring = ring
	}
	w.ring[w.count&(len(w.ring)-1)] = b
	if w.count++; w.count == 2*maxWindow {
		w.count = maxWindow
	}
}

// has reports whether an octet is known that came so far back.
func (w *window) has(back int) bool { return back <= min(w.count, maxWindow) }

func (w *window) at(back int) byte { return w.ring[(w.count-back)&(len(w.ring)-1)] }
