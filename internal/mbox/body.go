package mbox

import (
	"bufio"
	"io"
)

// NewCRLF returns a reader of r in which every line ends in CRLF: a line feed alone
// gets its carriage return. Other octets are as they were.
func NewCRLF(r io.Reader) io.Reader { return newBody(r, false) }

// body turns the stored form of a message into the form in which it travels.
type body struct {
	in      *bufio.Reader
	unquote bool
	inBody  bool // "From " lines are quoted in the body only
	newLine bool // the next octet begins a line
	lastCR  bool
	out     []byte // made, not yet given out
	buf     []byte
	err     error
}

func newBody(r io.Reader, unquote bool) *body {
	return &body{in: bufio.NewReaderSize(r, 32<<10), unquote: unquote, newLine: true}
}

// Read reads octets of the message.
func (b *body) Read(p []byte) (int, error) {
	for len(b.out) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.fill()
	}
	n := copy(p, b.out)
	b.out = b.out[n:]
	return n, nil
}

// fill takes one line, or a part of a long one.
func (b *body) fill() {
	part, err := b.in.ReadSlice('\n')
	if err != nil && err != bufio.ErrBufferFull {
		b.err = err
	}
	if len(part) == 0 {
		return
	}
	if b.newLine && b.unquote && b.inBody && quotedFrom(part) {
		part = part[1:]
	}
	if b.newLine && (part[0] == '\n' || len(part) > 1 && part[0] == '\r' && part[1] == '\n') {
		b.inBody = true
	}
	b.out = b.ended(part)
	b.newLine = part[len(part)-1] == '\n'
	b.lastCR = part[len(part)-1] == '\r'
}

// ended returns part with its line feed, if it has one, behind a carriage return.
func (b *body) ended(part []byte) []byte {
	n := len(part)
	if part[n-1] != '\n' || n > 1 && part[n-2] == '\r' || n == 1 && b.lastCR {
		return part
	}
	b.buf = append(append(b.buf[:0], part[:n-1]...), '\r', '\n')
	return b.buf
}

// quotedFrom reports whether a line is "From " behind at least one ">".
func quotedFrom(line []byte) bool {
	i := 0
	for i < len(line) && line[i] == '>' {
		i++
	}
	return i > 0 && len(line) >= i+5 && string(line[i:i+5]) == "From "
}
