// Package mbox reads mailboxes that other programs kept in one file, where each
// message begins with a "From " line.
//
// The format has four dialects and no mark that tells which one a file is in, so a
// line is taken for the start of a message only when everything says so:
//
//   - It begins with "From ", and what follows is a postmark: a date as asctime
//     writes it, or "-" (Mozilla), or one word after an empty line (Google Takeout).
//   - The line below it is a header field, a folded postmark's ">From " or empty.
//   - No Content-Length that has proved right says that it is within a message. One
//     has proved right when a message or the file ends exactly where it says. It is
//     looked at only in messages within which a line looks like a start, because
//     programs write it and others change the message without it.
//
// In the body, one ">" is taken from lines that begin with ">From ", ">>From " and
// so on (mboxrd), but not in a message whose end came from its Content-Length
// (mboxcl2 does not quote). The empty line before a start belongs to the format. Line
// ends become CRLF. Everything else comes out as it stands.
//
// Memory is bounded by the longest line looked at; messages are read in place.
package mbox

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

// ErrFormat means that a file does not begin with a "From " line.
var ErrFormat = errors.New(`not an mbox file: it does not begin with a "From " line`)

// Message is one message of a file.
type Message struct {
	Offset int64     // where its "From " line begins
	Date   time.Time // of its postmark; zero when there is none
	Flags  []string  // from Status and X-Status: IMAP's words
	Body   io.Reader // the message, lines ended by CRLF; to be read before the next is asked for
}

// Reader reads the messages of a file in order. One goroutine.
type Reader struct {
	r    io.ReaderAt
	size int64
	next int64 // the offset of the next message's "From " line
	mark postmark
}

const (
	maxPostmark = 1000      // octets of a "From " line; a longer one is text
	maxHeader   = 256 << 10 // octets of a header in which Content-Length and Status are looked for
)

// NewReader returns a reader of the size octets of r, or ErrFormat. Leading empty
// lines and a byte order mark are passed over. An empty file has no messages.
func NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	m := &Reader{r: r, size: size}
	sc := m.scan(0, size)
	for sc.next() {
		line := bytes.TrimPrefix(sc.line, []byte("\ufeff"))
		if blank(line) {
			continue
		}
		mark, ok := parsePostmark(line)
		if !ok || sc.long {
			return nil, ErrFormat
		}
		m.next, m.mark = sc.start, mark
		return m, nil
	}
	m.next = size
	return m, sc.err
}

// Next returns the next message, or io.EOF.
func (m *Reader) Next() (*Message, error) {
	if m.next >= m.size {
		return nil, io.EOF
	}
	start, mark := m.next, m.mark
	body, err := m.afterLine(start)
	if err != nil {
		return nil, err
	}
	head, err := m.header(body)
	if err != nil {
		return nil, err
	}
	end, quoted, err := m.end(body, head)
	if err != nil {
		return nil, err
	}
	return &Message{
		Offset: start,
		Date:   mark.date,
		Flags:  head.flags(),
		Body:   newBody(io.NewSectionReader(m.r, body, end-body), quoted),
	}, nil
}

// afterLine returns the offset behind the line at off.
func (m *Reader) afterLine(off int64) (int64, error) {
	sc := m.scan(off, m.size)
	sc.next()
	return sc.end, sc.err
}

// end finds where the message ends whose text begins at body, and sets the next
// one's start. quoted reports whether its "From " lines were quoted.
func (m *Reader) end(body int64, head header) (end int64, quoted bool, err error) {
	sc := m.scan(body, m.size)
	start, ok, err := sc.separator(body)
	if err != nil {
		return 0, false, err
	}
	if !ok {
		m.next = m.size
		return m.trimEnd(body, m.size), true, nil
	}
	if claimed := head.body + head.length; head.length > 0 && start.offset < claimed && claimed <= m.size {
		at, proved, err := m.proves(body, claimed)
		if err != nil {
			return 0, false, err
		}
		if proved {
			m.next, m.mark = at.offset, at.mark
			return claimed, false, nil
		}
	}
	m.next, m.mark = start.offset, start.mark
	return m.trimEnd(body, start.offset), true, nil
}

// proves reports whether a message or the file ends at the offset claimed, with at
// most one empty line behind it.
func (m *Reader) proves(body, claimed int64) (separator, bool, error) {
	sc := m.scan(claimed, m.size)
	for range 2 {
		if !sc.next() {
			return separator{offset: m.size}, sc.err == nil, sc.err
		}
		if mark, ok := sc.separates(true); ok {
			return separator{sc.start, mark}, true, sc.err
		}
		if !blank(sc.line) {
			return separator{}, false, sc.err
		}
	}
	return separator{offset: m.size}, sc.end == m.size, sc.err
}

// trimEnd drops one empty line in front of end.
func (m *Reader) trimEnd(body, end int64) int64 {
	tail := make([]byte, min(3, end-body))
	if _, err := m.r.ReadAt(tail, end-int64(len(tail))); err != nil && err != io.EOF {
		return end // reading the message will meet the error
	}
	switch {
	case bytes.HasSuffix(tail, []byte("\n\n")):
		return end - 1
	case bytes.HasSuffix(tail, []byte("\n\r\n")):
		return end - 2
	}
	return end
}

// separator is a "From " line that begins a message.
type separator struct {
	offset int64
	mark   postmark
}

// A scanner walks the lines of a part of the file and remembers the one before.
type scanner struct {
	in         *bufio.Reader
	line       []byte // without its end; at most maxPostmark octets of it
	long       bool   // line is only the beginning
	start, end int64  // the line's offsets, its end included
	afterBlank bool
	err        error
}

func (m *Reader) scan(from, to int64) *scanner {
	in := bufio.NewReaderSize(io.NewSectionReader(m.r, from, to-from), 8<<10)
	return &scanner{in: in, end: from}
}

// next reads a line, and reports whether there was one.
func (s *scanner) next() bool {
	s.afterBlank = s.end == s.start || blank(s.line) && !s.long
	s.start, s.line, s.long = s.end, s.line[:0], false
	for {
		part, err := s.in.ReadSlice('\n')
		s.end += int64(len(part))
		if room := maxPostmark - len(s.line); len(part) > room {
			s.line, s.long = append(s.line, part[:room]...), true
		} else {
			s.line = append(s.line, part...)
		}
		switch {
		case err == nil:
			s.line = trimLineEnd(s.line)
			return true
		case err == bufio.ErrBufferFull:
		case err == io.EOF:
			s.line = trimLineEnd(s.line)
			return s.end > s.start
		default:
			s.err = err
			return false
		}
	}
}

// separator finds the first line behind after that begins a message.
func (s *scanner) separator(after int64) (separator, bool, error) {
	for s.next() {
		if mark, ok := s.separates(s.afterBlank && s.start > after); ok {
			return separator{s.start, mark}, true, s.err
		}
	}
	return separator{}, false, s.err
}

// separates reports whether the present line begins a message.
func (s *scanner) separates(afterBlank bool) (postmark, bool) {
	if s.long {
		return postmark{}, false
	}
	mark, ok := parsePostmark(s.line)
	if !ok || mark.word && !afterBlank {
		return postmark{}, false
	}
	below, _ := s.in.Peek(maxFieldName)
	return mark, beginsHeader(below)
}

// maxFieldName is far more than any field's name has.
const maxFieldName = 200

// beginsHeader reports whether a message may begin so: a field, the rest of a
// postmark that was quoted, or nothing at all.
func beginsHeader(b []byte) bool {
	if len(b) == 0 || b[0] == '\n' || bytes.HasPrefix(b, []byte("\r\n")) || bytes.HasPrefix(b, []byte(">From ")) {
		return true
	}
	i := bytes.IndexByte(b, ':')
	return i > 0 && !bytes.ContainsFunc(bytes.TrimRight(b[:i], " \t"), func(r rune) bool { return r <= ' ' || r > '~' })
}

func blank(line []byte) bool { return len(line) == 0 }

func trimLineEnd(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

// A postmark is what follows "From ".
type postmark struct {
	date time.Time // zero when it has none
	word bool      // one word only: weak evidence
}

// parsePostmark reads a "From " line.
func parsePostmark(line []byte) (postmark, bool) {
	rest, ok := strings.CutPrefix(string(line), "From ")
	if !ok {
		return postmark{}, false
	}
	fields := strings.Fields(rest)
	if date, ok := postmarkDate(fields); ok {
		return postmark{date: date}, true
	}
	if len(fields) != 1 {
		return postmark{}, false
	}
	return postmark{word: fields[0] != "-"}, fields[0] == "-" || strings.Contains(fields[0], "@")
}

// postmarkDate reads the asctime date in a postmark's words. What stands before it
// is the sender, which may hold blanks; behind it are zones and notes of the
// transport ("remote from ...").
func postmarkDate(fields []string) (time.Time, bool) {
	for i, f := range fields {
		if len(f) == 3 && strings.Contains("SunMonTueWedThuFriSat", f) && len(fields)-i >= 5 {
			if t, ok := asctime(fields[i:]); ok {
				return t, true
			}
		}
	}
	return time.Time{}, false
}

// asctime reads "Fri Sep 27 12:03:19 1996", with or without seconds, and with a zone
// before or behind the year. A date without an offset is taken as UTC.
func asctime(f []string) (time.Time, bool) {
	month, day, clock := f[1], f[2], f[3]
	for i := 4; i < min(len(f), 6); i++ {
		year := f[i]
		if len(year) != 4 || year < "1970" || year > "2999" {
			continue
		}
		offset := "+0000"
		for _, z := range []int{4, i + 1} {
			if z < len(f) && z != i && len(f[z]) == 5 && (f[z][0] == '+' || f[z][0] == '-') {
				offset = f[z]
			}
		}
		for _, layout := range []string{"Jan 2 15:04:05 2006 -0700", "Jan 2 15:04 2006 -0700"} {
			if t, err := time.Parse(layout, strings.Join([]string{month, day, clock, year, offset}, " ")); err == nil {
				return t, true
			}
		}
	}
	return time.Time{}, false
}

// header is what an mbox keeps of its own in a message's header.
type header struct {
	body            int64 // the offset behind the header's empty line
	length          int64 // Content-Length; 0 when there is none that makes sense
	status, xstatus string
}

// header reads the header at off.
func (m *Reader) header(off int64) (h header, err error) {
	sc := m.scan(off, min(m.size, off+maxHeader))
	for sc.next() {
		if blank(sc.line) {
			h.body = sc.end
			return h, nil
		}
		name, value, _ := strings.Cut(string(sc.line), ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimRight(name, " \t")) {
		case "content-length":
			h.length, _ = strconv.ParseInt(value, 10, 48)
		case "status":
			h.status = value
		case "x-status":
			h.xstatus = value
		}
	}
	h.body, h.length = sc.end, 0 // without a body there is nothing to measure
	return h, sc.err
}

// flags are the IMAP flags that the status letters mean.
func (h header) flags() []string {
	var flags []string
	for _, f := range []struct {
		letter, in, flag string
	}{
		{"A", h.xstatus, `\Answered`}, {"T", h.xstatus, `\Draft`}, {"F", h.xstatus, `\Flagged`}, {"R", h.status, `\Seen`},
	} {
		if strings.Contains(f.in, f.letter) {
			flags = append(flags, f.flag)
		}
	}
	return flags
}
