package wire

import (
	"bytes"
	"io"
	"math"
	"strings"
)

// Content is the content of one DATA or of one BDAT command. It is valid until the next command is read. Read and WriteTo
// end with io.EOF, and nil, only behind the true end; a peer that goes away gives io.ErrUnexpectedEOF.
type Content struct {
	from *Reader
	open bool  // its end was not read yet
	err  error // why it has none
	left int64 // octets of a chunk that are to come; -1 in DATA

	// Of DATA.
	start bool // of a line: what is next is a dot to take off, or the end
	cr    bool // the last octet was a CR
}

// Data is the content of DATA: dots that begin a line are taken off (RFC 5321, 4.5.2). A bare CR, a bare LF and a NUL
// are content like any other; LineWatch finds them. Servers that relay content with bare ones have disagreed with others
// on where it ends, so that what follows may be content to its sender: a session that refuses it should close.
func (r *Reader) Data() *Content {
	r.content = Content{from: r, open: true, left: -1, start: true}
	return &r.content
}

// Chunk is the content of BDAT: the next size octets as they are (RFC 3030, 2). A chunk that is refused must be read all
// the same.
func (r *Reader) Chunk(size int64) *Content {
	r.content = Content{from: r, open: size > 0, left: max(size, 0)}
	return &r.content
}

// Read implements io.Reader.
func (c *Content) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.open && c.err == nil && c.left > 0 && c.from.Buffered() == 0 && len(p) >= idleSize {
		return c.direct(p)
	}
	piece, err := c.next(len(p))
	return copy(p, piece), err
}

// WriteTo implements io.WriterTo. It writes what it reads without a copy. After an error of w, Read gives what follows
// the piece that was being written.
func (c *Content) WriteTo(w io.Writer) (total int64, err error) {
	for {
		piece, err := c.next(math.MaxInt)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(piece)
		total += int64(n)
		if err == nil && n < len(piece) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
	}
}

// direct reads a part of a chunk past the buffer.
func (c *Content) direct(p []byte) (int, error) {
	n, err := c.from.read(p[:min(int64(len(p)), c.left)])
	c.took(n)
	return n, c.fail(err)
}

// next is the next piece of the content, as it lies in the buffer.
func (c *Content) next(max int) ([]byte, error) {
	for c.open && c.err == nil {
		if piece := c.piece(max); len(piece) > 0 {
			return piece, nil
		} else if c.open {
			c.fail(c.from.fill())
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	return nil, io.EOF
}

// fail keeps an error: what comes after it cannot be told from commands.
func (c *Content) fail(err error) error {
	if err != nil {
		c.err = within(err, true)
	}
	return c.err
}

// piece uses up octets of the buffer and returns those that are content, at most max. None means that the content is
// over, or that more must be read.
func (c *Content) piece(max int) []byte {
	r := c.from
	b := r.buf[r.r:r.w]
	if c.left < 0 {
		n, used := c.unstuff(b, max)
		r.r += used
		return b[:n]
	}
	n := int(min(int64(len(b)), int64(max), c.left))
	r.r += n
	c.took(n)
	return b[:n]
}

// took counts n octets of a chunk.
func (c *Content) took(n int) {
	c.left -= int64(n)
	c.open = c.left > 0
}

const dataEnd = ".\r\n"

// unstuff moves content of DATA to the front of b, at most max octets of it: used octets became n. It stops where
// more must be seen to know whether a dot is the end, and behind the end.
func (c *Content) unstuff(b []byte, max int) (n, used int) {
	for used < len(b) && n < max {
		rest := b[used:]
		if c.start && rest[0] == '.' {
			if bytes.HasPrefix(rest, []byte(dataEnd)) {
				c.open = false
				return n, used + len(dataEnd)
			}
			if len(rest) < len(dataEnd) && strings.HasPrefix(dataEnd, string(rest)) {
				return n, used
			}
			used++
			rest = rest[1:]
		}
		k := c.lines(rest[:min(len(rest), max-n)])
		if n < used {
			copy(b[n:], rest[:k])
		}
		n, used = n+k, used+k
	}
	return n, used
}

// lines is the length of the lines that begin b, up to one that begins with a dot behind a CRLF. b is not empty; a dot that
// begins it is not looked at.
func (c *Content) lines(b []byte) (n int) {
	for c.start = false; n < len(b) && !(c.start && b[n] == '.'); {
		i := bytes.IndexByte(b[n:], '\n')
		if i < 0 {
			n, c.start = len(b), false
			break
		}
		n += i + 1
		c.start = n > 1 && b[n-2] == '\r' || n == 1 && c.cr
	}
	c.cr = b[n-1] == '\r'
	return n
}
