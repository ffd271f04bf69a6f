package wire

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/RoaringBitmap/roaring/v2"
)

type page [32 << 10]byte

// pages are buffers for all Encoders: only the responses of the moment need one.
var pages = sync.Pool{New: func() any { return new(page) }}

var errLiteral = errors.New("a literal was not written as long as announced")

// An Encoder writes responses. It gathers them in one buffer and writes that when it is full, and in Flush; between them
// it holds none. Its first error stays: what is written after it goes nowhere, and Flush tells it.
//
// Items put a space between themselves and an item before them in the line or list. Raw, Bytes, Write and SP put what they
// are given, and the next item no space.
//
//	e.Raw("* ").Number(7).Raw(" FETCH ").Begin().Atom("UID").Number(12).Atom("FLAGS").Flags(flags).End().CRLF()
type Encoder struct {
	to   io.Writer
	page *page
	buf  []byte
	err  error
	utf8 bool
	item bool  // an item was before: another one needs a space
	left int64 // octets of the literal that are to come
}

// NewEncoder returns an Encoder that writes to w.
func NewEncoder(w io.Writer) *Encoder { return &Encoder{to: w} }

// UTF8 says whether UTF8=ACCEPT or IMAP4rev2 is enabled: quoted strings and names of mailboxes are then UTF-8.
func (e *Encoder) UTF8(on bool) { e.utf8 = on }

// Reset goes on with another writer. What was not flushed is lost.
func (e *Encoder) Reset(w io.Writer) {
	e.release()
	e.to, e.err, e.item, e.left = w, nil, false, 0
}

// Buffered is how many octets wait for Flush.
func (e *Encoder) Buffered() int { return len(e.buf) }

// Err is the first error.
func (e *Encoder) Err() error { return e.err }

// Flush writes what waits, and returns the first error there was.
func (e *Encoder) Flush() error {
	if e.left > 0 {
		e.fail(errLiteral)
	}
	e.drain()
	e.release()
	return e.err
}

func (e *Encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// drain writes the buffer.
func (e *Encoder) drain() {
	if len(e.buf) > 0 && e.err == nil {
		_, err := e.to.Write(e.buf)
		e.fail(err)
	}
	e.buf = e.buf[:0]
}

func (e *Encoder) release() {
	if e.page != nil {
		pages.Put(e.page)
	}
	e.page, e.buf = nil, nil
}

// room makes room for n octets, of which a page has enough.
func (e *Encoder) room(n int) {
	if e.page == nil {
		e.page = pages.Get().(*page)
		e.buf = e.page[:0]
	}
	if cap(e.buf)-len(e.buf) < n {
		e.drain()
	}
}

// put appends s, which may be larger than a page.
func put[T string | []byte](e *Encoder, s T) {
	for {
		e.room(min(len(s), 512))
		n := copy(e.buf[len(e.buf):cap(e.buf)], s)
		e.buf = e.buf[:len(e.buf)+n]
		if s = s[n:]; len(s) == 0 {
			return
		}
	}
}

func (e *Encoder) octet(c byte) {
	e.room(1)
	e.buf = append(e.buf, c)
}

// next begins an item.
func (e *Encoder) next() {
	if e.item {
		e.octet(' ')
	}
	e.item = true
}

// Raw writes s as it is.
func (e *Encoder) Raw(s string) *Encoder {
	put(e, s)
	e.item = false
	return e
}

// Bytes writes b as it is.
func (e *Encoder) Bytes(b []byte) *Encoder {
	put(e, b)
	e.item = false
	return e
}

// SP writes a space.
func (e *Encoder) SP() *Encoder { return e.Raw(" ") }

// CRLF ends a line.
func (e *Encoder) CRLF() {
	if e.left > 0 {
		e.fail(errLiteral)
	}
	e.left = 0
	e.Raw("\r\n")
}

// Begin begins a list.
func (e *Encoder) Begin() *Encoder {
	e.next()
	return e.Raw("(")
}

// End ends a list.
func (e *Encoder) End() *Encoder {
	e.octet(')')
	e.item = true
	return e
}

// Atom is an item that is written as it is: an atom, or something that was encoded before.
func (e *Encoder) Atom(s string) *Encoder {
	e.next()
	put(e, s)
	return e
}

// Encoded is Atom of octets.
func (e *Encoder) Encoded(b []byte) *Encoder {
	e.next()
	put(e, b)
	return e
}

// Number is a number.
func (e *Encoder) Number(n uint64) *Encoder {
	e.next()
	e.room(20)
	e.buf = strconv.AppendUint(e.buf, n, 10)
	return e
}

// Nil is NIL.
func (e *Encoder) Nil() *Encoder { return e.Atom("NIL") }

// String is a string: in quotes where it can be, and else a literal. NUL, which neither can have, becomes 0x80.
func (e *Encoder) String(s string) *Encoder {
	if e.quotable(s) {
		return e.Quoted(s)
	}
	return e.Literal(int64(len(s))).whole(strings.ReplaceAll(s, "\x00", "\x80"))
}

func (e *Encoder) whole(s string) *Encoder {
	put(e, s)
	e.left, e.item = 0, true
	return e
}

// quotable reports whether s is short and has only octets that a quoted string may have.
func (e *Encoder) quotable(s string) bool {
	wide := false
	for i := range len(s) {
		switch c := s[i]; {
		case c == 0 || c == '\r' || c == '\n':
			return false
		case c >= utf8.RuneSelf:
			wide = true
		}
	}
	return len(s) <= 1000 && (!wide || e.utf8 && utf8.ValidString(s))
}

// Quoted is a quoted string of s, which has neither NUL, CR nor LF.
func (e *Encoder) Quoted(s string) *Encoder {
	e.next()
	e.octet('"')
	for s != "" {
		i := strings.IndexAny(s, `"\`)
		if i < 0 {
			put(e, s)
			break
		}
		put(e, s[:i])
		e.octet('\\')
		e.octet(s[i])
		s = s[i+1:]
	}
	e.octet('"')
	return e
}

// AString is an atom if s can be one that nothing takes for something else, and else a string.
func (e *Encoder) AString(s string) *Encoder {
	if isSimple(s) {
		return e.Atom(s)
	}
	return e.String(s)
}

func isSimple(s string) bool {
	for i := range len(s) {
		if classes[s[i]]&isAtomChar == 0 {
			return false
		}
	}
	return s != "" && !strings.EqualFold(s, "NIL")
}

// Mailbox is the name of a mailbox, given as UTF-8 (RFC 9051, 5.1).
func (e *Encoder) Mailbox(name string) *Encoder {
	if e.utf8 || isItself(name) {
		return e.AString(name)
	}
	return e.AString(EncodeUTF7(name))
}

// Flags is a list of flags.
func (e *Encoder) Flags(flags []string) *Encoder {
	e.Begin()
	for _, f := range flags {
		e.Atom(f)
	}
	return e.End()
}

// Date is a date-time in quotes, in t's zone.
func (e *Encoder) Date(t time.Time) *Encoder {
	e.next()
	e.room(len(dateTimeLayout) + 2)
	e.buf = t.AppendFormat(e.buf, dateTimeLayout)
	return e
}

const dateTimeLayout = `"_2-Jan-2006 15:04:05 -0700"`

// Set is numbers as ranges in order, "1:4,7". It must not be empty.
func (e *Encoder) Set(numbers *roaring.Bitmap) *Encoder {
	e.next()
	var some [256]uint32
	from, to, begun := uint32(0), uint32(0), false
	for it := numbers.ManyIterator(); ; {
		n := it.NextMany(some[:])
		if n == 0 {
			break
		}
		for _, number := range some[:n] {
			switch {
			case begun && number == to+1:
				to++
				continue
			case begun:
				e.span(from, to)
				e.octet(',')
			}
			from, to, begun = number, number, true
		}
	}
	if begun {
		e.span(from, to)
	}
	return e
}

// span is one number or a range.
func (e *Encoder) span(from, to uint32) {
	e.room(21)
	e.buf = strconv.AppendUint(e.buf, uint64(from), 10)
	if to != from {
		e.buf = append(e.buf, ':')
		e.buf = strconv.AppendUint(e.buf, uint64(to), 10)
	}
}

// Text is text for a person, the rest of a line: CR, LF and other controls become spaces, and what is not ASCII "?",
// unless UTF-8 is enabled.
func (e *Encoder) Text(s string) *Encoder {
	e.next()
	for _, r := range s {
		switch {
		case r < ' ' || r == 0x7f:
			e.octet(' ')
		case r < utf8.RuneSelf:
			e.octet(byte(r))
		case e.utf8 && r != utf8.RuneError:
			e.room(utf8.UTFMax)
			e.buf = utf8.AppendRune(e.buf, r)
		default:
			e.octet('?')
		}
	}
	return e
}

// Status is a line of status, as "a1 NO [CANNOT] words". Code may be "".
func (e *Encoder) Status(tag, status, code, text string) {
	e.Atom(tag).Atom(status)
	if code != "" {
		e.SP().Raw("[").Text(code).Raw("] ")
	}
	if text == "" { // resp-text has at least one octet
		text = "done"
	}
	e.Text(text).CRLF()
}

// Literal begins a literal of size octets: they must follow, by Write or ReadFrom.
func (e *Encoder) Literal(size int64) *Encoder {
	e.next()
	return e.literal(size)
}

// Literal8 begins a literal8, which may have NUL (RFC 9051, 4.3.1).
func (e *Encoder) Literal8(size int64) *Encoder {
	e.next()
	e.octet('~')
	return e.literal(size)
}

func (e *Encoder) literal(size int64) *Encoder {
	e.octet('{')
	e.room(20)
	e.buf = strconv.AppendInt(e.buf, size, 10)
	put(e, "}\r\n")
	e.left = size
	return e
}

// Write writes octets of a literal. More than were announced are an error.
func (e *Encoder) Write(p []byte) (int, error) {
	n := int(min(int64(len(p)), e.left))
	if n < len(p) {
		e.fail(errLiteral)
	}
	if n >= len(page{}) && e.err == nil {
		e.drain()
		_, err := e.to.Write(p[:n])
		e.fail(err)
	} else {
		put(e, p[:n])
	}
	e.left -= int64(n)
	return n, e.err
}

// ReadFrom writes the rest of a literal from r, through the Encoder's one buffer. A reader that ends before is an error,
// after which nothing can be written any more: the client waits for octets that do not exist.
func (e *Encoder) ReadFrom(r io.Reader) (n int64, err error) {
	for e.left > 0 && e.err == nil {
		e.room(4096)
		space := e.buf[len(e.buf):cap(e.buf)]
		got, err := r.Read(space[:min(int64(len(space)), e.left)])
		e.buf = e.buf[:len(e.buf)+got]
		e.left -= int64(got)
		n += int64(got)
		if err != nil && e.left > 0 {
			e.fail(noEOF(err))
		}
	}
	return n, e.err
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
