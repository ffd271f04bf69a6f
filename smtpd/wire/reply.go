package wire

import (
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"postroad/internal/envelope"
)

// A Reply is what a server says. A *Reply is an error too, so that a refusal can be passed up.
type Reply struct {
	Code     int    // 200 to 599
	Enhanced string // "2.1.0" (RFC 3463), of the code's class; empty for EHLO, 220, 334 and 354, which have none
	Text     string // "\n" between lines; may have what a peer said in it
}

// Error is "550 5.1.1 no such user here", on one line.
func (r *Reply) Error() string {
	return envelope.Sanitize(strconv.Itoa(r.Code)+" "+r.Enhanced+" "+r.Text, maxReplyLine)
}

// maxReplyLine is the length of a line of a reply, CRLF included (RFC 5321, 4.5.3.1.5).
const maxReplyLine = 512

// A Writer gathers replies and writes them in Flush, or when 4 KiB are together. Its first error stays: nothing is
// written after it, and Flush tells it. It is for one goroutine.
type Writer struct {
	dst  io.Writer
	page *page // nil when nothing is gathered
	n    int
	err  error
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{dst: w} }

// Reply writes a reply, with the enhanced code on each of its lines (RFC 2034, 4). Its text is made fit: control octets
// become spaces, each run of white space one, a character that is not ASCII "?", since only replies that we never give may
// have such (RFC 6531, 3.7.4), and a line that is too long is cut. A code that is none means that we
// made a mistake, which is said as 451 4.3.0; an enhanced code that is none, or of another class, is left out.
func (w *Writer) Reply(r Reply) {
	if r.Code < 200 || r.Code > 599 {
		r.Code, r.Enhanced = 451, "4.3.0"
	}
	if !isEnhanced(r.Enhanced, r.Code) {
		r.Enhanced = ""
	}
	text := strings.TrimRight(r.Text, "\r\n")
	for {
		line, rest, more := strings.Cut(text, "\n")
		w.line(r.Code, r.Enhanced, line, more)
		if !more {
			return
		}
		text = rest
	}
}

// Flush writes what was gathered, and returns the first error there was.
func (w *Writer) Flush() error {
	if w.n > 0 && w.err == nil {
		_, w.err = w.dst.Write(w.page[:w.n])
	}
	w.release()
	return w.err
}

func (w *Writer) release() {
	if w.page != nil {
		pages.Put(w.page)
	}
	w.page, w.n = nil, 0
}

// line gathers one line.
func (w *Writer) line(code int, enhanced, text string, more bool) {
	if w.n+maxReplyLine > len(page{}) {
		w.Flush()
	}
	if w.page == nil {
		w.page = pages.Get().(*page)
	}
	b := strconv.AppendInt(w.page[w.n:w.n], int64(code), 10)
	mark := byte(' ')
	if more {
		mark = '-'
	}
	b = append(b, mark)
	if enhanced != "" {
		b = append(append(b, enhanced...), ' ')
	}
	b = append(b, fit(text, maxReplyLine-len(b)-len("\r\n"))...)
	b = append(b, "\r\n"...)
	w.n += len(b)
}

// fit makes text fit for a line of at most max octets.
func fit(text string, max int) string {
	if len(text) <= max && isPlain(text) {
		return text
	}
	return strings.Map(toASCII, envelope.Sanitize(text, max))
}

func isPlain(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

func toASCII(r rune) rune {
	if r >= utf8.RuneSelf {
		return '?'
	}
	return r
}

// isEnhanced reports whether s is a status code (RFC 3463, 2) of the class of code.
func isEnhanced(s string, code int) bool {
	class, rest, _ := strings.Cut(s, ".")
	subject, detail, _ := strings.Cut(rest, ".")
	return class == strconv.Itoa(code/100) && code/100 != 3 && isNumber(subject) && isNumber(detail)
}

func isNumber(s string) bool {
	return 0 < len(s) && len(s) <= 3 && strings.Trim(s, "0123456789") == ""
}
