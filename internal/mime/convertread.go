package mime

import (
	"io"
	"strings"
)

// An edit puts text, or what a span means in another transfer encoding, in the place of the span.
type edit struct {
	Span
	text string

	encoding string // "quoted-printable" or "base64"; "" when text is what counts
	from     string // the transfer encoding of the span
	last     bool   // no line end may follow: what is encoded ends in one
}

// reader reads what stands in the place of the span, given the span.
func (e edit) reader(span io.Reader) io.Reader {
	if e.encoding == "" {
		return io.MultiReader(&passedOver{span}, strings.NewReader(e.text))
	}
	if d := decoderOf(e.from); d != nil {
		span = &codingReader{src: span, coder: d}
	}
	if e.encoding == "base64" {
		return &codingReader{src: span, coder: &base64Encoder{last: e.last}}
	}
	return &codingReader{src: span, coder: &quotedEncoder{last: e.last}}
}

// passedOver is a span of which nothing is wanted.
type passedOver struct{ span io.Reader }

func (p *passedOver) Read([]byte) (int, error) {
	if _, err := io.Copy(io.Discard, p.span); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// convertedReader applies edits to a message.
type convertedReader struct {
	src   io.Reader
	edits []edit
	pos   int64     // in src, when piece is read
	piece io.Reader // nil between two
	tail  bool      // piece is the last one
}

func (r *convertedReader) Read(p []byte) (int, error) {
	for {
		if r.piece == nil {
			r.next()
		}
		n, err := r.piece.Read(p)
		if err == io.EOF && !r.tail {
			r.piece, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next begins the piece up to the next edit, or the edit.
func (r *convertedReader) next() {
	if len(r.edits) == 0 {
		r.piece, r.tail = r.src, true
		return
	}
	e := r.edits[0]
	if r.pos < e.Off {
		r.piece, r.pos = io.LimitReader(r.src, e.Off-r.pos), e.Off
		return
	}
	r.edits, r.pos = r.edits[1:], e.End()
	r.piece = e.reader(io.LimitReader(r.src, e.Len))
}

// maxEncodedLine is how long a line of an encoded body may be (RFC 2045, 6.7 and 6.8).
const maxEncodedLine = 76

// A base64Encoder writes base64 in lines (RFC 2045, 6.8).
type base64Encoder struct {
	last   bool
	held   [3]byte
	n      int
	column int
}

const base64Letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

func (e *base64Encoder) code(out, in []byte) []byte {
	for _, c := range in {
		e.held[e.n] = c
		if e.n++; e.n == 3 {
			out = e.group(out)
		}
	}
	return out
}

// group writes the octets that are held as four letters.
func (e *base64Encoder) group(out []byte) []byte {
	if e.column == maxEncodedLine {
		out, e.column = append(out, '\r', '\n'), 0
	}
	bits := uint(e.held[0])<<16 | uint(e.held[1])<<8 | uint(e.held[2])
	for i := range 4 {
		if i > e.n {
			out = append(out, '=')
			continue
		}
		out = append(out, base64Letters[bits>>(18-6*i)&63])
	}
	e.held, e.n = [3]byte{}, 0
	e.column += 4
	return out
}

func (e *base64Encoder) finish(out []byte) []byte {
	if e.n > 0 {
		out = e.group(out)
	}
	if e.last && e.column > 0 {
		out = append(out, '\r', '\n')
	}
	return out
}

// A quotedEncoder writes quoted-printable (RFC 2045, 6.7). Line ends stay line ends; a CR or LF alone is quoted, so that any
// octets come back as they were.
type quotedEncoder struct {
	last   bool
	column int
	held   byte // a space, a tab or a CR whose fate the next octet decides; 0 for none
}

func (e *quotedEncoder) code(out, in []byte) []byte {
	for _, c := range in {
		if e.held == '\r' && c == '\n' {
			out, e.column, e.held = append(out, '\r', '\n'), 0, 0
			continue
		}
		out = e.release(out, c == '\r')
		switch {
		case c == ' ' || c == '\t' || c == '\r':
			e.held = c
		default:
			out = e.put(out, c, c < ' ' || c > '~' || c == '=')
		}
	}
	return out
}

// release writes what was held. White space before a line end is quoted; so is a CR that begins none.
func (e *quotedEncoder) release(out []byte, lineEnds bool) []byte {
	c := e.held
	if e.held = 0; c == 0 {
		return out
	}
	return e.put(out, c, c == '\r' || lineEnds)
}

const hexDigits = "0123456789ABCDEF"

// put writes one octet, on a new line if the old one has no room for it and a soft line end. No line begins with "-": it
// could become a boundary.
func (e *quotedEncoder) put(out []byte, c byte, quoted bool) []byte {
	if e.column+widthOf(quoted) >= maxEncodedLine {
		out, e.column = append(out, '=', '\r', '\n'), 0
	}
	quoted = quoted || c == '-' && e.column == 0
	e.column += widthOf(quoted)
	if quoted {
		return append(out, '=', hexDigits[c>>4], hexDigits[c&15])
	}
	return append(out, c)
}

func widthOf(quoted bool) int {
	if quoted {
		return len("=2D")
	}
	return 1
}

func (e *quotedEncoder) finish(out []byte) []byte {
	out = e.release(out, true)
	if e.last && e.column > 0 {
		out = append(out, '=', '\r', '\n')
	}
	return out
}
