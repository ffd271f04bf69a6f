package wire

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// Errors after which a connection is of no use.
var (
	// ErrTooLong is the error of a line that has no end within its limit; the rest is not read (500, and close).
	ErrTooLong = errors.New("the line is too long")

	// ErrNotMail is the error of a line that is another protocol's: HTTP, TLS or SSH. What follows may be
	// commands that a web page put there, so that nothing more is to be read or said.
	ErrNotMail = errors.New("this is not SMTP")

	// ErrUnread is the error of a Reader whose content was not read to its end: what comes next is no command.
	ErrUnread = errors.New("content is unread")
)

// A SyntaxError is what is wrong with a line that was not a command. Its line counts as read.
type SyntaxError struct {
	What  string
	Octet bool // it has an octet that stands in no line of a mail program's, unlike one that a person has typed
}

func (e *SyntaxError) Error() string { return e.What }

// Reply is the reply to a command that is none.
func (e *SyntaxError) Reply() Reply { return Reply{500, "5.5.2", e.What} }

var (
	errBare    = &SyntaxError{"bare CR or LF: a line must end with CRLF", true}
	errControl = &SyntaxError{"the line has a control character", true}
	errUTF8    = &SyntaxError{"the line is not valid UTF-8", true}
	errVerb    = &SyntaxError{"the line does not begin with a command", false}
)

// Limits in octets, CRLF included, unless a Reader is told others.
const (
	// MaxCommand is four times what RFC 5321, 4.5.3.1.4 asks for: each extension may add to it.
	MaxCommand = 2048

	// MaxAuth is the length of AUTH with an initial response, and of a response (RFC 4954, 4 and 4.1).
	MaxAuth = 12288
)

// idleSize is what a waiting Reader reads into: few commands, pipelined, are longer.
const idleSize = 512

type (
	page  [4 << 10]byte
	block [32 << 10]byte
)

// Buffers for all Readers and Writers: only what is said in the moment needs one.
var (
	pages  = sync.Pool{New: func() any { return new(page) }}
	blocks = sync.Pool{New: func() any { return new(block) }}
)

// A Reader takes apart what a peer says. It is for one goroutine.
type Reader struct {
	// MaxCommand and MaxAuth bound a command and one that begins with AUTH. At most 32,768.
	MaxCommand, MaxAuth int

	// Flush, when set, is called before each read from the network: that is when replies must go out. Its
	// error ends the read.
	Flush func() error

	src     io.Reader
	pending error // given by src together with octets, due when those are used up

	buf    []byte // octets that were read and not used are buf[r:w]; small, page or block
	page   *page  // from the pool, or nil
	block  *block // from the pool, or nil
	r, w   int
	filled bool // the last read filled its buffer: more may be waiting

	spoiled int // octets of the present line that were read away; its fault was told
	content Content
	small   [idleSize]byte
}

// NewReader returns a Reader of what r gives.
func NewReader(r io.Reader) *Reader {
	return &Reader{MaxCommand: MaxCommand, MaxAuth: MaxAuth, src: r}
}

// Reset goes on with another source, as after STARTTLS. What was read and not used is gone: it came in the clear, from
// whomever (RFC 3207, 5).
func (r *Reader) Reset(src io.Reader) {
	r.release()
	r.src, r.pending, r.filled, r.spoiled, r.content = src, nil, false, 0, Content{}
}

// Buffered is how many octets were read and not used: what the peer sent without waiting for a reply.
func (r *Reader) Buffered() int { return r.w - r.r }

// release gives the pooled buffer back, with what is in it.
func (r *Reader) release() {
	if r.page != nil {
		pages.Put(r.page)
	}
	if r.block != nil {
		blocks.Put(r.block)
	}
	r.page, r.block, r.buf, r.r, r.w = nil, nil, nil, 0, 0
}

// fill reads more behind what is there. There must be room for it.
func (r *Reader) fill() error {
	r.makeRoom()
	n, err := r.read(r.buf[r.w:])
	r.w += n
	r.filled = r.w == len(r.buf)
	return err
}

// makeRoom makes room behind what is buffered.
func (r *Reader) makeRoom() {
	size, n := r.size(), r.Buffered()
	if len(r.buf) < size || n == 0 && len(r.buf) > size {
		r.move(size)
		return
	}
	copy(r.buf, r.buf[r.r:r.w])
	r.r, r.w = 0, n
}

// size is that of the buffer which the Reader needs now. Many wait, and few send much: a peer that sends no content is not
// to hold a block.
func (r *Reader) size() int {
	switch n := r.Buffered(); {
	case r.content.open || n >= len(page{}):
		return len(block{})
	case r.filled || n >= idleSize:
		return len(page{})
	}
	return idleSize
}

// move goes on in a buffer of another size.
func (r *Reader) move(size int) {
	var p *page
	var b *block
	to := r.small[:]
	switch size {
	case len(page{}):
		p = pages.Get().(*page)
		to = p[:]
	case len(block{}):
		b = blocks.Get().(*block)
		to = b[:]
	}
	n := copy(to, r.buf[r.r:r.w])
	r.release()
	r.page, r.block, r.buf, r.w = p, b, to, n
}

// read reads at least one octet from the source.
func (r *Reader) read(p []byte) (int, error) {
	if err := r.pending; err != nil {
		r.pending = nil
		return 0, err
	}
	if r.Flush != nil {
		if err := r.Flush(); err != nil {
			return 0, err
		}
	}
	for range 100 {
		n, err := r.src.Read(p)
		if n > 0 {
			r.pending = err
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// Line reads a line that is no command, such as a response of AUTH, of at most max octets with its CRLF, which is taken
// off. It is valid until the next call. Errors are those of Command.
func (r *Reader) Line(max int) ([]byte, error) {
	line, err := r.line(func([]byte) int { return max })
	if err == nil {
		err = check(line)
	}
	if err != nil {
		return nil, err
	}
	return line, nil
}

// line takes the next line up to its CRLF. The limit may depend on how the line begins.
func (r *Reader) line(limit func(begin []byte) int) ([]byte, error) {
	if err := r.ready(limit); err != nil {
		return nil, err
	}
	for seen := 0; ; {
		b := r.buf[r.r:r.w]
		max := min(limit(b), len(block{}))
		i := bytes.IndexByte(b[seen:], '\n') + seen
		switch {
		case foreign(b[:min(len(b), max)]):
			return nil, ErrNotMail
		case i < seen && len(b) >= max || i >= max:
			return nil, ErrTooLong
		case i >= seen:
			return r.take(b[:i+1])
		}
		seen = len(b)
		if err := r.fill(); err != nil {
			return nil, within(err, seen > 0)
		}
	}
}

// ready reads away what is left of a line whose fault was told before.
func (r *Reader) ready(limit func([]byte) int) error {
	if r.content.open {
		return ErrUnread
	}
	for r.spoiled > 0 {
		b := r.buf[r.r:r.w]
		i := bytes.Index(b, []byte("\r\n"))
		if i >= 0 && r.spoiled+i+2 <= limit(nil) {
			r.r, r.spoiled = r.r+i+2, 0
			return nil
		}
		keep := 0 // a CR may be half of the end
		if bytes.HasSuffix(b, []byte("\r")) {
			keep = 1
		}
		r.r += len(b) - keep
		if r.spoiled += len(b) - keep; r.spoiled > limit(nil) {
			return ErrTooLong
		}
		if err := r.fill(); err != nil {
			return within(err, true)
		}
	}
	return nil
}

// take uses up a line, which ends with LF. When no CR is before that, the line is not over; its fault is told at
// once, for a peer that ends all its lines like this waits for an answer.
func (r *Reader) take(line []byte) ([]byte, error) {
	r.r += len(line)
	if text, ok := bytes.CutSuffix(line, []byte("\r\n")); ok {
		return text, nil
	}
	r.spoiled = len(line)
	return nil, malformed(line, errBare)
}

// within tells the end of a connection between lines, io.EOF, from one within.
func within(err error, begun bool) error {
	if err == io.EOF && begun {
		return io.ErrUnexpectedEOF
	}
	return err
}
