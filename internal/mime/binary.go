package mime

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The stored form is
//
//	version     1 octet
//	size        number
//	preview     string
//	root        message: envelope, part
//
// where a number is a uvarint, a string is its length and its octets, and a list is its length and its members. A part's
// header is stored as its distance from where the part's parent has its body.
const version = 1

// ErrRecord says that a stored structure is damaged or of a version that this program does not know.
var ErrRecord = errors.New("stored message structure is damaged")

// AppendBinary appends the stored form of s to b. The error is always nil.
func (s *Structure) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, version)
	b = binary.AppendUvarint(b, uint64(s.Size))
	b = appendString(b, s.Preview)
	b = appendEnvelope(b, &s.Envelope)
	return appendPart(b, &s.Root, 0), nil
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendList[T any](b []byte, list []T, member func([]byte, *T) []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		b = member(b, &list[i])
	}
	return b
}

func appendEnvelope(b []byte, e *Envelope) []byte {
	for _, s := range [...]string{e.Date, e.Subject, e.InReplyTo, e.MessageID} {
		b = appendString(b, s)
	}
	b = appendList(b, e.From, appendAddress)
	b = appendList(b, unlessSame(e.Sender, e.From), appendAddress)
	b = appendList(b, unlessSame(e.ReplyTo, e.From), appendAddress)
	b = appendList(b, e.To, appendAddress)
	b = appendList(b, e.Cc, appendAddress)
	return appendList(b, e.Bcc, appendAddress)
}

// unlessSame leaves out a list that complete would put in again.
func unlessSame(list, from []Address) []Address {
	if len(list) != len(from) {
		return list
	}
	for i := range list {
		if list[i] != from[i] {
			return list
		}
	}
	return nil
}

func appendAddress(b []byte, a *Address) []byte {
	for _, s := range [...]string{a.Name, a.Route, a.Mailbox, a.Host} {
		b = appendString(b, s)
	}
	return b
}

func appendParam(b []byte, p *Param) []byte {
	return appendString(appendString(b, p.Name), p.Value)
}

func appendTag(b []byte, s *string) []byte { return appendString(b, *s) }

func appendPart(b []byte, p *Part, base int64) []byte {
	for _, s := range [...]string{p.Type, p.Subtype, p.Encoding, p.ID, p.Description, p.Disposition, p.Location, p.MD5} {
		b = appendString(b, s)
	}
	b = appendList(b, p.Params, appendParam)
	b = appendList(b, p.DispositionParams, appendParam)
	b = appendList(b, p.Language, appendTag)
	for _, n := range [...]int64{p.Header.Off - base, p.Header.Len, p.Body.Len, p.Lines} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	switch {
	case p.Multipart():
		return appendList(b, p.Parts, func(b []byte, child *Part) []byte { return appendPart(b, child, p.Body.Off) })
	case p.isMessage():
		b = appendEnvelope(b, &p.Message.Envelope)
		return appendPart(b, &p.Message.Root, p.Body.Off)
	}
	return b
}

// Decode reads a stored form. The structure keeps every promise of the package, or there is an error that is ErrRecord. It
// does not keep b.
func Decode(b []byte) (*Structure, error) {
	if len(b) == 0 || b[0] != version {
		return nil, fmt.Errorf("%w: unknown version", ErrRecord)
	}
	d := decoding{rest: string(b[1:]), parts: 2 * maxParts}
	s := new(Structure)
	s.Size = d.number()
	s.Preview = d.string()
	s.Envelope = d.envelope()
	s.Root = d.part(Span{0, s.Size}, 0)
	if d.bad || d.rest != "" || s.Root.Header.Off != 0 || s.Root.Body.End() != s.Size {
		return nil, ErrRecord
	}
	return s, nil
}

// decoding is the state of Decode. Once bad is set, everything read is empty.
type decoding struct {
	rest  string
	parts int // that may still come
	bad   bool
}

func (d *decoding) fail() {
	d.bad, d.rest = true, ""
}

func (d *decoding) number() int64 {
	var n uint64
	for shift := 0; shift < 63 && shift/7 < len(d.rest); shift += 7 {
		c := d.rest[shift/7]
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			d.rest = d.rest[shift/7+1:]
			return int64(n)
		}
	}
	d.fail()
	return 0
}

func (d *decoding) string() string {
	n := d.number()
	if n > int64(len(d.rest)) {
		d.fail()
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

// decodeList reads a list whose members take at least size octets each, so that a length alone reserves nothing.
func decodeList[T any](d *decoding, size int64, member func() T) []T {
	n := d.number()
	if n > int64(len(d.rest))/size {
		d.fail()
	}
	if n == 0 || d.bad {
		return nil
	}
	list := make([]T, 0, n)
	for range n {
		list = append(list, member())
	}
	return list
}

func (d *decoding) envelope() Envelope {
	e := Envelope{Date: d.string(), Subject: d.string(), InReplyTo: d.string(), MessageID: d.string()}
	for _, list := range [...]*[]Address{&e.From, &e.Sender, &e.ReplyTo, &e.To, &e.Cc, &e.Bcc} {
		*list = decodeList(d, 4, d.address)
	}
	e.complete()
	return e
}

func (d *decoding) address() Address {
	return Address{Name: d.string(), Route: d.string(), Mailbox: d.string(), Host: d.string()}
}

func (d *decoding) param() Param { return Param{Name: d.string(), Value: d.string()} }

// part reads a part that lies within the span, at the depth.
func (d *decoding) part(within Span, depth int) Part {
	var p Part
	if d.parts--; d.parts < 0 || depth > maxDepth {
		d.fail()
		return p
	}
	for _, s := range [...]*string{&p.Type, &p.Subtype, &p.Encoding, &p.ID, &p.Description, &p.Disposition, &p.Location, &p.MD5} {
		*s = d.string()
	}
	p.Params = decodeList(d, 2, d.param)
	p.DispositionParams = decodeList(d, 2, d.param)
	p.Language = decodeList(d, 1, d.string)
	d.spans(&p, within)
	d.inside(&p, depth+1)
	return p
}

// spans reads where the part is.
func (d *decoding) spans(p *Part, within Span) {
	off, header, body, lines := d.number(), d.number(), d.number(), d.number()
	if off > within.Len || header > within.Len-off || body > within.Len-off-header || lines > body {
		d.fail()
		return
	}
	p.Header = Span{within.Off + off, header}
	p.Body = Span{p.Header.End(), body}
	p.Lines = lines
}

// inside reads what the part holds.
func (d *decoding) inside(p *Part, depth int) {
	switch {
	case d.bad || p.Type == "" || p.Subtype == "" || p.Encoding == "":
		d.fail()
	case p.Multipart():
		const smallest = 15 // octets of a part
		p.Parts = decodeList(d, smallest, func() Part { return d.part(p.Body, depth) })
		if p.Parts == nil {
			d.fail()
		}
	case p.isMessage():
		p.Message = &Message{Envelope: d.envelope()}
		p.Message.Root = d.part(p.Body, depth)
	}
}
