package mime

import (
	"bytes"
	"html"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
)

// TextReader returns the text of a text part as UTF-8, given a reader of the part's Body. It reports false for a part that is
// no text. Damaged encodings give what can be read of them; text in an unknown charset or encoding comes as it is. Errors
// are those of body.
func TextReader(p *Part, body io.Reader) (io.Reader, bool) {
	if p.Type != "text" {
		return nil, false
	}
	r, _ := p.Decoded(body)
	if isUTF8(p.Param("charset")) {
		return r, true
	}
	if text, err := charset.Reader(p.Param("charset"), r); err == nil {
		return text, true
	}
	return r, true
}

// Decoded returns the octets that the transfer encoding of p stands for, given a reader of p's Body. Damaged encodings give what
// can be read of them. In an encoding that nobody here knows they come as they are, and Decoded reports false. Errors are
// those of body.
func (p *Part) Decoded(body io.Reader) (io.Reader, bool) {
	if d := decoderOf(p.Encoding); d != nil {
		return &codingReader{src: body, coder: d}, true
	}
	return body, p.identity()
}

// decoderOf returns what undoes a transfer encoding, or nil if nothing has to or can.
func decoderOf(encoding string) coder {
	switch encoding {
	case "base64":
		return new(base64Decoder)
	case "quoted-printable":
		return new(quotedDecoder)
	}
	return nil
}

// A codingReader reads what a coder makes of src.
type codingReader struct {
	src   io.Reader
	coder coder
	in    [2048]byte
	out   []byte // what coder made
	ready []byte // the part of out that nobody has read
	err   error
}

// A coder undoes a transfer encoding piece by piece, or makes one. It never fails: what makes no sense is skipped or kept as it is.
type coder interface {
	code(out, in []byte) []byte // adds to out what becomes of in
	finish(out []byte) []byte   // adds what was held back
}

func (r *codingReader) Read(p []byte) (int, error) {
	for len(r.ready) == 0 && r.err == nil {
		var n int
		n, r.err = r.src.Read(r.in[:])
		r.out = r.coder.code(r.out[:0], r.in[:n])
		if r.err != nil {
			r.out = r.coder.finish(r.out)
		}
		r.ready = r.out
	}
	if len(r.ready) == 0 {
		return 0, r.err
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// A base64Decoder skips what is not base64. Padding ends a run of octets; another may follow.
type base64Decoder struct {
	bits uint32
	n    int // sextets in bits
}

func (d *base64Decoder) code(out, in []byte) []byte {
	for _, c := range in {
		v := sextet(c)
		if c == '=' {
			out = d.finish(out)
		}
		if v < 0 {
			continue
		}
		d.bits = d.bits<<6 | uint32(v)
		if d.n++; d.n == 4 {
			out = append(out, byte(d.bits>>16), byte(d.bits>>8), byte(d.bits))
			d.bits, d.n = 0, 0
		}
	}
	return out
}

func (d *base64Decoder) finish(out []byte) []byte {
	switch d.n {
	case 2:
		out = append(out, byte(d.bits>>4))
	case 3:
		out = append(out, byte(d.bits>>10), byte(d.bits>>2))
	}
	d.bits, d.n = 0, 0
	return out
}

func sextet(c byte) int {
	switch {
	case 'A' <= c && c <= 'Z':
		return int(c - 'A')
	case 'a' <= c && c <= 'z':
		return int(c-'a') + 26
	case '0' <= c && c <= '9':
		return int(c-'0') + 52
	case c == '+':
		return 62
	case c == '/':
		return 63
	}
	return -1
}

// A quotedDecoder undoes quoted-printable. An "=" that quotes nothing stands for itself.
type quotedDecoder struct {
	held [80]byte // "=" and what followed it, until that makes sense
	n    int
}

func (d *quotedDecoder) code(out, in []byte) []byte {
	for len(in) > 0 {
		if d.n > 0 || in[0] == '=' {
			out, in = d.octet(out, in[0]), in[1:]
			continue
		}
		n := bytes.IndexByte(in, '=')
		if n < 0 {
			n = len(in)
		}
		out, in = append(out, in[:n]...), in[n:]
	}
	return out
}

func (d *quotedDecoder) octet(out []byte, c byte) []byte {
	switch {
	case d.n == 0 && c != '=':
		return append(out, c)
	case d.n == 0:
	case c == '\n' && unhex(d.held[d.n-1]) < 0:
		d.n = 0
		return out
	case d.n == 2 && unhex(d.held[1]) >= 0 && unhex(c) >= 0:
		d.n = 0
		return append(out, byte(unhex(d.held[1])<<4|unhex(c)))
	case d.n == 1 && unhex(c) >= 0:
	case !isSpace(c) || d.n == len(d.held) || unhex(d.held[d.n-1]) >= 0:
		return d.octet(d.finish(out), c)
	}
	d.held[d.n] = c
	d.n++
	return out
}

func (d *quotedDecoder) finish(out []byte) []byte {
	n := d.n
	d.n = 0
	return append(out, d.held[:n]...)
}

// wanted reports whether the preview may come from p.
func (s *Scanner) wanted(p *Part) bool {
	return s.preview == "" && s.tries < maxPreviewTries && p.Disposition != "attachment" &&
		p.Type == "text" && (p.Subtype == "plain" || p.Subtype == "html")
}

// gather keeps the start of the body that the preview is made of.
func (s *Scanner) gather(p []byte) {
	if !s.sampling {
		return
	}
	limit := maxSample
	if s.top().part.Subtype == "html" {
		limit = maxSampleHTML
	}
	s.sample = append(s.sample, p[:min(len(p), limit-len(s.sample))]...)
}

// takePreview makes the preview of p, whose end is now known, from the sample. The sample may reach over the end.
func (s *Scanner) takePreview(p *Part) {
	text := s.sample[:min(int64(len(s.sample)), p.Body.Len)]
	s.sampling, s.sample = false, s.sample[:0]
	if len(text) == 0 {
		return
	}
	s.tries++
	if d := decoderOf(p.Encoding); d != nil {
		text = d.finish(d.code(make([]byte, 0, len(text)), text))
	}
	if cs := p.Param("charset"); !isUTF8(cs) {
		converted, _ := toUTF8(cs, string(text))
		text = []byte(converted)
	}
	if p.Subtype == "html" {
		text = []byte(html.UnescapeString(string(htmlText(text))))
	}
	s.preview = squeeze(text)
}

// squeeze returns the first characters of text, with runs of white space as one space and without what cannot be shown.
func squeeze(text []byte) string {
	out := make([]byte, 0, min(len(text), maxPreview*5/4))
	for n := 0; len(text) > 0 && n < maxPreview; {
		r, size := rune(text[0]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(text)
		}
		text = text[size:]
		switch {
		case ' ' < r && r < 0x7f:
			out = append(out, byte(r))
			n++
		case unicode.IsSpace(r):
			if len(out) > 0 && out[len(out)-1] != ' ' {
				out = append(out, ' ')
				n++
			}
		case r == utf8.RuneError && size == 1 || !unicode.IsGraphic(r):
		default:
			out = utf8.AppendRune(out, r)
			n++
		}
	}
	return string(bytes.TrimRight(out, " "))
}

// htmlText returns what stands between the tags, roughly: entities are left, and what cannot be read ends it.
func htmlText(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		open := bytes.IndexByte(b, '<')
		if open < 0 {
			return append(out, b...)
		}
		out, b = append(out, b[:open]...), b[open:]
		tag, n := tagAt(b)
		if n == 0 {
			return out
		}
		b = b[n:]
		if !inline(tag) {
			out = append(out, ' ')
		}
		if hidden(tag) {
			b = b[hiddenEnd(b, tag):]
		}
	}
	return out
}

// tagAt returns the lower-case name of the tag that b starts with, with the "/" of an end tag, and the tag's length, 0 if it
// does not end.
func tagAt(b []byte) (string, int) {
	if bytes.HasPrefix(b, []byte("<!--")) {
		n := bytes.Index(b, []byte("-->"))
		if n < 0 {
			return "", 0
		}
		return "", n + len("-->")
	}
	n := bytes.IndexByte(b, '>') + 1
	if n == 0 {
		return "", 0
	}
	name := string(b[1:min(n-1, 12)])
	if i := strings.IndexAny(name, " \t\r\n"); i >= 0 {
		name = name[:i]
	}
	return lower(name), n
}

// inline reports whether text goes on through a tag.
func inline(tag string) bool {
	switch strings.Trim(tag, "/") {
	case "a", "b", "i", "u", "em", "strong", "span", "font", "small", "big", "sup", "sub":
		return true
	}
	return false
}

// hidden reports whether nobody sees what is in the element.
func hidden(tag string) bool { return tag == "style" || tag == "script" || tag == "title" }

// hiddenEnd returns where the element that nobody sees ends.
func hiddenEnd(b []byte, tag string) int {
	for at := 0; ; at++ {
		n := bytes.IndexByte(b[at:], '<')
		if n < 0 {
			return len(b)
		}
		at += n
		if end := at + len("</") + len(tag); end <= len(b) && lower(string(b[at:end])) == "</"+tag {
			return at
		}
	}
}
