package wire

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strconv"
	"sync"
)

// ErrFlood is the error of a Decoder that would have to read away more than Limits.Discard allows to find the
// end of a command: the connection is of no use any more.
var ErrFlood = errors.New("too much input that is not part of a command")

// idleSize is what a waiting Decoder reads into: with hundreds of thousands of idle sessions each octet counts.
const idleSize = 64

type block [4096]byte

// blocks are buffers for all Decoders: only the commands of the moment need one.
var blocks = sync.Pool{New: func() any { return new(block) }}

// source is the octets of a connection as lines and literals. A line is whole in memory while it is parsed; a
// line that is longer than the command may be is known by its beginning only.
type source struct {
	from    io.Reader
	readErr error // given by from together with octets, due when those are used up

	buf   []byte // octets that were read and not used are buf[r:w]
	block *block // where buf began, from the pool
	r, w  int
	small [idleSize]byte

	line     []byte // the current line without its end; parts of buf
	pos      int    // in line
	overlong bool   // line is only the beginning of the line
	begun    bool   // an octet of the command was read
	used     int    // octets of the command so far
	wasted   int64  // octets of it that were read away
	tail     [32]byte
}

// fill reads more. A source that waits for a command does so with its small buffer only.
func (s *source) fill() error {
	if s.r == s.w && !s.begun {
		s.release()
		n, err := s.read(s.small[:])
		if err != nil {
			return err
		}
		s.hold()
		s.w = copy(s.buf, s.small[:n])
		return nil
	}
	s.makeRoom()
	n, err := s.read(s.buf[s.w:])
	s.w += n
	return err
}

func (s *source) hold() {
	s.block = blocks.Get().(*block)
	s.buf = s.block[:]
}

// release gives an empty buffer back.
func (s *source) release() {
	if s.block != nil {
		blocks.Put(s.block)
	}
	s.block, s.buf, s.r, s.w, s.line = nil, nil, 0, 0, nil
}

func (s *source) makeRoom() {
	switch {
	case s.buf == nil:
		s.hold()
	case s.r == s.w:
		s.r, s.w = 0, 0
	}
	if s.w < len(s.buf) {
		return
	}
	to := s.buf
	if s.r < len(s.buf)/2 {
		to = make([]byte, 2*len(s.buf))
	}
	s.w = copy(to, s.buf[s.r:s.w])
	s.r, s.buf = 0, to
}

// read reads at least one octet.
func (s *source) read(p []byte) (int, error) {
	for range 100 {
		if s.readErr != nil {
			return 0, s.endErr(s.readErr)
		}
		var n int
		n, s.readErr = s.from.Read(p)
		if n > 0 {
			s.begun = true
			return n, nil
		}
	}
	return 0, io.ErrNoProgress
}

// endErr tells the end of a connection between commands, io.EOF, from one within.
func (s *source) endErr(err error) error {
	if err == io.EOF && s.begun {
		return io.ErrUnexpectedEOF
	}
	return err
}

// nextLine makes the next line the current one, or its beginning when it has more than limit octets.
func (s *source) nextLine(limit int) error {
	seen := 0
	for {
		if i := bytes.IndexByte(s.buf[s.r+seen:s.w], '\n'); i >= 0 && seen+i <= limit+1 {
			s.setLine(trimCR(s.buf[s.r:s.r+seen+i]), false)
			s.r += seen + i + 1
			s.used += seen + i + 1
			return nil
		}
		if s.w-s.r > limit+1 {
			s.setLine(s.buf[s.r:s.r+limit], true)
			s.r += limit
			return nil
		}
		seen = s.w - s.r
		if err := s.fill(); err != nil {
			return err
		}
	}
}

func (s *source) setLine(line []byte, overlong bool) {
	s.line, s.pos, s.overlong, s.begun = line, 0, overlong, true
}

func trimCR(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}

// literal appends the n octets of a literal to b, which grows as they come.
func (s *source) literal(b []byte, n int) ([]byte, error) {
	s.used += n
	for n > 0 {
		if s.r == s.w {
			if err := s.fill(); err != nil {
				return b, err
			}
		}
		k := min(n, s.w-s.r)
		b = append(b, s.buf[s.r:s.r+k]...)
		s.r += k
		n -= k
	}
	return b, nil
}

// stream reads octets of a literal into p, past the buffer when that is empty.
func (s *source) stream(p []byte) (int, error) {
	if s.r == s.w {
		return s.read(p)
	}
	n := copy(p, s.buf[s.r:s.w])
	s.r += n
	return n, nil
}

// discard reads the rest of a command away: of the current line, and while a line ends by announcing a
// non-synchronising literal, that and the line after it (RFC 7888, 4). A client that announced a synchronising
// literal waits, so the command ends there.
func (s *source) discard(limit int64) error {
	if s.overlong {
		if err := s.skipLine(limit); err != nil {
			return err
		}
	}
	for {
		n, waits, ok := announced(s.line)
		if !ok || waits {
			s.line, s.pos = nil, 0
			return nil
		}
		if err := s.skip(n, limit); err != nil {
			return err
		}
		if err := s.skipLine(limit); err != nil {
			return err
		}
	}
}

// skip reads n octets away.
func (s *source) skip(n, limit int64) error {
	if n > limit-s.wasted {
		return ErrFlood
	}
	s.wasted += n
	for n > 0 {
		if s.r == s.w {
			if err := s.fill(); err != nil {
				return err
			}
		}
		k := min(n, int64(s.w-s.r))
		s.r += int(k)
		n -= k
	}
	return nil
}

// skipLine reads a line away, or the rest of an overlong one, and keeps its end as the current line.
func (s *source) skipLine(limit int64) error {
	tail, whole := s.tail[:0], !s.overlong
	for {
		chunk := s.buf[s.r:s.w]
		i := bytes.IndexByte(chunk, '\n')
		if i >= 0 {
			chunk = chunk[:i+1]
		}
		if s.wasted += int64(len(chunk)); s.wasted > limit {
			return ErrFlood
		}
		whole = whole && len(tail)+len(chunk) <= len(s.tail)
		tail = keepLast(tail, chunk)
		s.r += len(chunk)
		if i < 0 {
			if err := s.fill(); err != nil {
				return err
			}
			continue
		}
		s.setLine(trimCR(tail[:len(tail)-1]), false)
		if !whole && endless(s.line) {
			return ErrFlood
		}
		return nil
	}
}

// keepLast appends more to tail and keeps the last octets, as many as tail has room for.
func keepLast(tail, more []byte) []byte {
	if len(more) >= cap(tail) {
		return append(tail[:0], more[len(more)-cap(tail):]...)
	}
	if over := len(tail) + len(more) - cap(tail); over > 0 {
		tail = tail[:copy(tail, tail[over:])]
	}
	return append(tail, more...)
}

// announced is the literal that a line announces with its last octets, as in "{5}" or "{5+}". A size that is no
// number of 63 bits is the largest that is.
func announced(line []byte) (n int64, waits, ok bool) {
	rest, ok := bytes.CutSuffix(line, []byte("}"))
	if !ok {
		return 0, false, false
	}
	rest, plus := bytes.CutSuffix(rest, []byte("+"))
	digits := rest[len(bytes.TrimRight(rest, "0123456789")):]
	if before := rest[:len(rest)-len(digits)]; len(digits) == 0 || !bytes.HasSuffix(before, []byte("{")) {
		return 0, false, false
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		n = math.MaxInt64
	}
	return n, !plus, true
}

// endless reports whether the end of a line, all that is left of it, may announce a literal whose size began
// before it.
func endless(end []byte) bool {
	rest, ok := bytes.CutSuffix(end, []byte("+}"))
	return ok && len(bytes.TrimRight(rest, "0123456789")) == 0
}
