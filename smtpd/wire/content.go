package wire

import (
	"bytes"
	"io"
	"math"
	"strconv"
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
	watch LineWatch
}

// Data is the content of DATA: dots that begin a line are taken off (RFC 5321, 4.5.2). A bare CR, a bare LF and a NUL
// are content like any other.
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

// Bare reports, at the end of DATA, whether a CR without LF or an LF without CR was in it. Of a chunk it says
// nothing: a line may go on in the next one; see LineWatch.
func (c *Content) Bare() bool { return c.watch.Bare }

// NUL reports, at the end of DATA, whether a NUL was in it.
func (c *Content) NUL() bool { return c.watch.NUL }

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
	c.left -= int64(n)
	c.open = c.left > 0
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

// piece uses up to max octets of the buffer and returns those that are content. None means that the content is over, or
// that more must be read.
func (c *Content) piece(max int) []byte {
	if c.left < 0 {
		return c.dataPiece(max)
	}
	piece := c.cut(int(min(int64(c.from.Buffered()), int64(max), c.left)))
	c.left -= int64(len(piece))
	c.open = c.left > 0
	return piece
}

func (c *Content) cut(n int) []byte {
	r := c.from
	r.r += n
	return r.buf[r.r-n : r.r]
}

const dataEnd = ".\r\n"

func (c *Content) dataPiece(max int) []byte {
	r := c.from
	b := r.buf[r.r:r.w]
	if c.start && len(b) > 0 && b[0] == '.' {
		if len(b) < len(dataEnd) && strings.HasPrefix(dataEnd, string(b)) {
			return nil
		}
		if bytes.HasPrefix(b, []byte(dataEnd)) {
			r.r += len(dataEnd)
			c.open = false
			return nil
		}
		r.r++
		b = b[1:]
	}
	if len(b) == 0 {
		return nil
	}
	n := c.lines(b[:min(len(b), max)])
	c.watch.Write(b[:n])
	return c.cut(n)
}

// lines is the length of the lines that begin b, up to one that begins with a dot. It remembers how they end.
func (c *Content) lines(b []byte) int {
	n := dotLine(b, c.cr)
	c.start = b[n-1] == '\n' && (n > 1 && b[n-2] == '\r' || n == 1 && c.cr)
	c.cr = b[n-1] == '\r'
	return n
}

// dotLine is where in b the first line begins that begins with a dot and follows a CRLF, or the length of b. cr tells that
// a CR is before b.
func dotLine(b []byte, cr bool) int {
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte("\n."))
		if i < 0 {
			return len(b)
		}
		at += i + 1
		if at > 1 && b[at-2] == '\r' || at == 1 && cr {
			return at
		}
	}
}

// LineWatch watches the lines of a message that comes in pieces. The zero LineWatch is at its beginning.
type LineWatch struct {
	Bare bool // a CR without LF, or an LF without CR, was seen
	NUL  bool // a NUL was seen

	cr bool // the last octet was a CR
}

// Write looks at the next octets.
func (l *LineWatch) Write(p []byte) {
	if len(p) == 0 {
		return
	}
	l.NUL = l.NUL || bytes.IndexByte(p, 0) >= 0
	if l.Bare {
		return
	}
	l.Bare = bare(p, l.cr)
	l.cr = p[len(p)-1] == '\r'
}

// bare reports whether p, which follows a CR if cr, has a CR or LF that is not part of CRLF. A CR at its end is
// still open.
func bare(p []byte, cr bool) bool {
	if cr && p[0] != '\n' {
		return true
	}
	crs := bytes.Count(p, []byte("\r")) // that are to be followed by LF
	if p[len(p)-1] == '\r' {
		crs--
	}
	for at := 0; ; crs-- {
		i := bytes.IndexByte(p[at:], '\n')
		if i < 0 {
			return crs != 0
		}
		if i > 0 && p[at+i-1] != '\r' || i == 0 && (at > 0 || !cr) {
			return true
		}
		if at += i + 1; at == 1 {
			crs++ // its CR is not in p
		}
	}
}

// End tells that the message is over.
func (l *LineWatch) End() { l.Bare = l.Bare || l.cr }

// ErrUncounted is the error of a BDAT whose size is not known. What follows cannot be told from commands: the session
// says so and closes.
var ErrUncounted error = refused("the size of the chunk is not a number")

// maxDigits are those of chunk-size in RFC 3030, 4.2.
const maxDigits = 20

// ParseBDAT reads the argument of BDAT: a size in octets, and LAST in any case behind the last chunk. The error is a
// *Reply: ErrUncounted, with a size of 0, or one behind which size octets follow that must be read.
func ParseBDAT(arg string) (size int64, last bool, err error) {
	number, word, _ := strings.Cut(arg, " ")
	if len(number) > maxDigits || strings.Trim(number, "0123456789") != "" {
		return 0, false, ErrUncounted
	}
	if size, err = strconv.ParseInt(number, 10, 64); err != nil {
		return 0, false, ErrUncounted
	}
	if word = strings.Trim(word, " "); strings.EqualFold(word, "LAST") {
		return size, true, nil
	}
	if word != "" {
		return size, false, refused("what follows the size can only be LAST")
	}
	return size, false, nil
}
