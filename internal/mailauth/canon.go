package mailauth

import (
	"bytes"
	"io"
	"strings"
)

// canonical appends a field as it is hashed (RFC 6376, 3.4.1 and 3.4.2), with its line end.
func canonical(dst []byte, raw []byte, relaxed bool) []byte {
	if !relaxed {
		dst = append(dst, raw...)
		if !bytes.HasSuffix(raw, []byte("\r\n")) { // the header ended without its empty line
			dst = append(dst, "\r\n"...)
		}
		return dst
	}
	name, body, _ := bytes.Cut(raw, []byte(":"))
	dst = append(dst, strings.ToLower(string(bytes.TrimRight(name, " \t")))...)
	dst = append(dst, ':')
	start := len(dst)
	space := false
	for _, c := range body {
		switch c {
		case '\r', '\n':
		case ' ', '\t':
			space = true
		default:
			if space && len(dst) > start {
				dst = append(dst, ' ')
			}
			space = false
			dst = append(dst, c)
		}
	}
	return append(dst, "\r\n"...)
}

// canonicalBody writes a body on as it is hashed (RFC 6376, 3.4.3 and 3.4.4). Close ends it. Lines end in CRLF; a bare CR
// or LF is an octet like others.
type canonicalBody struct {
	w       io.Writer // its errors are not looked at: it is a hash
	relaxed bool

	buf   []byte
	ends  int  // line ends that nothing has followed yet: at the end of the body they do not count
	space bool // white space that nothing has followed yet
	cr    bool // a CR that may be half a line end
	some  bool // there was something else than line ends
}

// blockSize is how much is handed to the hash at a time.
const blockSize = 4 << 10

// Write takes the next octets; it does not fail.
func (b *canonicalBody) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		rest = rest[b.next(rest):]
	}
	return len(p), nil
}

// next takes octets of one kind off the front, and returns how many.
func (b *canonicalBody) next(p []byte) int {
	if b.cr {
		b.cr = false
		if p[0] == '\n' {
			b.ends++
			b.space = false
			return 1
		}
		b.text([]byte{'\r'})
	}
	switch {
	case p[0] == '\r':
		b.cr = true
		return 1
	case b.relaxed && (p[0] == ' ' || p[0] == '\t'):
		b.space = true
		return 1
	}
	n := b.span(p)
	b.text(p[:n])
	return n
}

// span is how many octets stand for themselves.
func (b *canonicalBody) span(p []byte) int {
	if !b.relaxed {
		if i := bytes.IndexByte(p, '\r'); i >= 0 {
			return i
		}
		return len(p)
	}
	for i, c := range p {
		if c == ' ' || c == '\r' || c == '\t' {
			return i
		}
	}
	return len(p)
}

// text writes octets after what has waited for them.
func (b *canonicalBody) text(p []byte) {
	b.some = true
	for ; b.ends > 0; b.ends-- {
		b.put("\r\n")
	}
	if b.space {
		b.space = false
		b.put(" ")
	}
	b.buf = append(b.buf, p...)
	b.flush(blockSize)
}

func (b *canonicalBody) put(s string) {
	b.buf = append(b.buf, s...)
	b.flush(blockSize)
}

// flush writes on what was gathered once it is so much.
func (b *canonicalBody) flush(least int) {
	if len(b.buf) >= least {
		b.w.Write(b.buf)
		b.buf = b.buf[:0]
	}
}

// Close ends the body. An empty one is a line end when it is simple, and nothing when it is relaxed.
func (b *canonicalBody) Close() error {
	if b.cr {
		b.cr = false
		b.text([]byte{'\r'})
	}
	if b.some || !b.relaxed {
		b.put("\r\n")
	}
	b.flush(0)
	return nil
}
