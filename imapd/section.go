package imapd

import (
	"bytes"
	"errors"
	"io"

	"postroad/internal/mime"
	"postroad/internal/store"
)

// A section is a part of a message that a client asks for (RFC 9051, 6.4.5; RFC 3516).
type section struct {
	part    []int // none is the message itself
	text    textKind
	fields  []string // of someFields and otherFields
	partial *partial
}

// textKind is what of a part is asked for.
type textKind uint8

const (
	everything  textKind = iota // BODY[], BODY[1]
	header                      // of the message, or of the message that the part is
	someFields                  // of that header
	otherFields                 // of that header: all but these
	body                        // of that message
	mimeHeader                  // of the part
	decoded                     // BINARY: the part without its transfer encoding
)

func (k textKind) isHeader() bool {
	return k == header || k == someFields || k == otherFields || k == mimeHeader
}

// A partial asks for a piece of a section.
type partial struct{ offset, size int64 }

// cut returns where the piece of n octets lies that is asked for. It may be empty.
func (p *partial) cut(n int64) (offset, size int64) {
	if p == nil {
		return 0, n
	}
	if p.offset >= n {
		return n, 0
	}
	return p.offset, min(p.size, n-p.offset)
}

// errEncoding means that a part is in a transfer encoding that we do not know.
var errEncoding = errors.New("unknown content transfer encoding")

// A content is what a section is of one message: so many octets, ready to be sent.
type content struct {
	size int64
	open func() (io.Reader, error) // of size octets
}

func (c content) reader() (io.Reader, error) {
	if c.size == 0 {
		return bytes.NewReader(nil), nil
	}
	return c.open()
}

// A source is a message that sections are taken from. Body and structure are fetched when first needed.
type source struct {
	size      int64
	body      func() (*store.Body, error)
	structure func() (*mime.Structure, error)
}

// content returns a section. What the message does not have is empty. errEncoding.
func (src *source) content(sec section) (content, error) {
	switch sec.text {
	case someFields, otherFields:
		return src.headerFields(sec)
	case decoded:
		return src.decoded(sec)
	}
	span, err := src.span(sec)
	if err != nil {
		return content{}, err
	}
	offset, size := sec.partial.cut(span.Len)
	return src.octets(mime.Span{Off: span.Off + offset, Len: size}), nil
}

// octets is a run of the stored octets.
func (src *source) octets(span mime.Span) content {
	return content{span.Len, func() (io.Reader, error) {
		b, err := src.body()
		if err != nil {
			return nil, err
		}
		return io.NewSectionReader(b, span.Off, span.Len), nil
	}}
}

// span is where a section lies that is a run of octets.
func (src *source) span(sec section) (mime.Span, error) {
	if len(sec.part) == 0 && sec.text == everything {
		return mime.Span{Len: src.size}, nil
	}
	st, err := src.structure()
	if err != nil {
		return mime.Span{}, err
	}
	return spanOf(st, sec), nil
}

// spanOf finds a section in a structure.
func spanOf(st *mime.Structure, sec section) mime.Span {
	p := st.Find(sec.part)
	if p == nil {
		return mime.Span{}
	}
	switch sec.text {
	case everything:
		return p.Body
	case mimeHeader:
		return p.Header
	}
	if len(sec.part) > 0 {
		if p.Message == nil {
			return mime.Span{}
		}
		p = &p.Message.Root
	}
	if sec.text == body {
		return p.Body
	}
	return p.Header
}

// headerFields picks fields from a header, which is bounded by mime's limit of 1 MiB.
func (src *source) headerFields(sec section) (content, error) {
	span, err := src.span(section{part: sec.part, text: header})
	if err != nil {
		return content{}, err
	}
	raw := make([]byte, span.Len)
	if span.Len > 0 {
		b, err := src.body()
		if err != nil {
			return content{}, err
		}
		if n, err := b.ReadAt(raw, span.Off); n < len(raw) {
			return content{}, err
		}
	}
	fields := mime.AppendFields(nil, raw, sec.fields, sec.text == otherFields)
	offset, size := sec.partial.cut(int64(len(fields)))
	return content{size, func() (io.Reader, error) { return bytes.NewReader(fields[offset : offset+size]), nil }}, nil
}

// decoded is a part without its transfer encoding. Its size is found by decoding it once more.
func (src *source) decoded(sec section) (content, error) {
	if len(sec.part) == 0 {
		return src.content(section{partial: sec.partial})
	}
	st, err := src.structure()
	if err != nil {
		return content{}, err
	}
	p := st.Find(sec.part)
	if p == nil {
		return content{}, nil
	}
	switch p.Encoding {
	case "7bit", "8bit", "binary":
		return src.content(section{part: sec.part, partial: sec.partial})
	case "base64", "quoted-printable":
		return src.undone(p, sec.partial)
	}
	if p.Multipart() {
		return src.content(section{part: sec.part, partial: sec.partial})
	}
	return content{}, errEncoding
}

// undone is what the transfer encoding of a part stands for.
func (src *source) undone(p *mime.Part, cut *partial) (content, error) {
	raw := src.octets(p.Body)
	r, err := raw.reader()
	if err != nil {
		return content{}, err
	}
	total, err := io.Copy(io.Discard, undo(p, r))
	if err != nil {
		return content{}, err
	}
	offset, size := cut.cut(total)
	return content{size, func() (io.Reader, error) {
		r, err := raw.reader()
		if err != nil {
			return nil, err
		}
		r = undo(p, r)
		_, err = io.CopyN(io.Discard, r, offset)
		return io.LimitReader(r, size), err
	}}, nil
}

// undo undoes a transfer encoding.
func undo(p *mime.Part, r io.Reader) io.Reader {
	r, _ = p.Decoded(r)
	return r
}
