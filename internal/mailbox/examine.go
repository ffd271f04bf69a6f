package mailbox

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"postroad/internal/mime"
)

// maxHeader bounds what is read of a header.
const maxHeader = 1 << 20

// An examiner holds one message after the other against tests. What a message needs is read when the first test asks
// for it; the memory serves the next message too.
type examiner struct {
	*Item
	tier cost // what may be asked

	ranks, ranked int // how well the fuzzy tests were met, together, and how many there were

	head    []byte // nil until needed
	headBuf []byte
	partBuf []byte
	field   []byte
	finder  finder
}

func (x *examiner) begin(item *Item) {
	x.Item, x.head = item, nil
	x.ranks, x.ranked = 0, 0
}

// seek begins to look for what a test wants.
func (x *examiner) seek(w wanted) *finder {
	x.finder.start(w.texts, w.fuzzy)
	return &x.finder
}

// sought ends looking, and keeps how well what was found fits.
func (x *examiner) sought() bool {
	f := &x.finder
	if !f.all() {
		return false
	}
	if f.fuzzy {
		x.ranks += f.rank()
		x.ranked++
	}
	return true
}

// header reads up to where the header ends. Most do so within the first few kilobytes.
func (x *examiner) header() (_ []byte, err error) {
	if x.head != nil {
		return x.head, nil
	}
	size := x.Body.Size()
	for n := int64(4 << 10); ; n *= 4 {
		n = min(n, size, maxHeader)
		if x.headBuf, err = readAt(x.Body, x.headBuf, mime.Span{Len: n}); err != nil {
			return nil, err
		}
		if n == size || n == maxHeader || hasBlankLine(x.headBuf) {
			x.head = x.headBuf
			return x.head, nil
		}
	}
}

func hasBlankLine(b []byte) bool {
	return bytes.Contains(b, []byte("\n\r\n")) || bytes.Contains(b, []byte("\n\n")) ||
		bytes.HasPrefix(b, []byte("\r\n")) || bytes.HasPrefix(b, []byte("\n"))
}

// readAt reads a span into buf's memory, or more.
func readAt(r io.ReaderAt, buf []byte, span mime.Span) ([]byte, error) {
	buf = slices.Grow(buf[:0], int(span.Len))[:span.Len]
	n, err := r.ReadAt(buf, span.Off)
	if n == len(buf) || errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:n], err
}

// hasField looks for a text in the header fields of a name. An empty one asks for the field.
func (x *examiner) hasField(field string, w wanted) (bool, error) {
	header, err := x.header()
	if err != nil {
		return false, err
	}
	for name, raw := range mime.HeaderFields(header) {
		if !isField(name, field) {
			continue
		}
		f := x.seek(w)
		x.field = f.pieces.folder.append(x.field[:0], []byte(mime.DecodeHeader(mime.Unfold(raw))))
		if f.text(x.field); x.sought() {
			return true, nil
		}
	}
	return false, nil
}

// hasText looks for a text in the text parts and in the headers of messages within the message, and with header in
// those of the message and its parts too.
func (x *examiner) hasText(w wanted, header bool) (bool, error) {
	f := x.seek(w)
	hear := hearing{
		stop: f.done,
		text: func(folded []byte) { f.text(folded) },
		part: func(r io.Reader) error { return f.read(r) },
	}
	if err := x.texts(&hear, header); err != nil {
		return false, err
	}
	return x.sought(), nil
}

// A hearing is who hears the texts of a message.
type hearing struct {
	stop func() bool
	text func(folded []byte)     // one that is whole: a header field with its name
	part func(r io.Reader) error // a text part's, decoded, not folded
}

// texts goes through all that TEXT looks into, or BODY without header. The index holds the same texts.
func (x *examiner) texts(h *hearing, header bool) error {
	if header {
		head, err := x.header()
		if err != nil {
			return err
		}
		if x.fields(h, head); h.stop() {
			return nil
		}
	}
	structure, err := x.Stored.Structure()
	if err != nil {
		return err
	}
	return x.within(h, &structure.Root, header)
}

// fields tells the fields of a header.
func (x *examiner) fields(h *hearing, header []byte) {
	folder := &x.finder.pieces.folder
	for name, raw := range mime.HeaderFields(header) {
		x.field = append(folder.append(x.field[:0], []byte(name)), ": "...)
		x.field = folder.append(x.field, []byte(mime.DecodeHeader(mime.Unfold(raw))))
		if h.text(x.field); h.stop() {
			return
		}
	}
}

// within goes through a part and those below it.
func (x *examiner) within(h *hearing, p *mime.Part, header bool) error {
	if h.stop() {
		return nil
	}
	if p.Message != nil {
		if err := x.headerAt(h, p.Message.Root.Header); err != nil {
			return err
		}
		return x.within(h, &p.Message.Root, header)
	}
	for i := range p.Parts {
		if header {
			if err := x.headerAt(h, p.Parts[i].Header); err != nil {
				return err
			}
		}
		if err := x.within(h, &p.Parts[i], header); err != nil {
			return err
		}
	}
	if text, ok := textOf(p, io.NewSectionReader(x.Body, p.Body.Off, p.Body.Len)); ok {
		return h.part(text)
	}
	return nil
}

// textOf returns the text of a part that has any: one of text, and one of message that is no message itself, as a
// delivery report's.
func textOf(p *mime.Part, body io.Reader) (io.Reader, bool) {
	if p.Type == "message" {
		text := *p
		text.Type = "text"
		return mime.TextReader(&text, body)
	}
	return mime.TextReader(p, body)
}

// headerAt tells the fields of the header of a part or of a message within the message.
func (x *examiner) headerAt(h *hearing, span mime.Span) (err error) {
	if h.stop() {
		return nil
	}
	span.Len = min(span.Len, maxHeader)
	if x.partBuf, err = readAt(x.Body, x.partBuf, span); err != nil {
		return err
	}
	x.fields(h, x.partBuf)
	return nil
}

// envelopeHas looks for a text in a field of the envelope. An empty text asks for the field.
func (x *examiner) envelopeHas(field string, w wanted) (bool, error) {
	value, there := x.Stored.Subject(), false
	if isField(field, "Subject") {
		there = x.Stored.HasSubject()
	} else {
		var err error
		if value, err = x.addresses(field, w); err != nil {
			return false, err
		}
	}
	if len(value) == 0 && !there {
		return false, nil
	}
	f := x.seek(w)
	x.field = f.pieces.folder.append(x.field[:0], value)
	f.text(x.field)
	return x.sought(), nil
}

// addresses returns the addresses of a field as people write them, or nothing when they cannot have what is wanted.
func (x *examiner) addresses(field string, w wanted) ([]byte, error) {
	if !mayHave(x.Stored.Envelope(), w) {
		return nil, nil
	}
	e, err := x.Stored.DecodeEnvelope()
	for _, list := range []struct {
		name string
		list []mime.Address
	}{{"From", e.From}, {"To", e.To}, {"Cc", e.Cc}, {"Bcc", e.Bcc}} {
		if isField(field, list.name) {
			return addressText(list.list), err
		}
	}
	return nil, err
}

// mayHave looks quickly whether an envelope can have what is wanted in a name or an address. It knows plain ASCII only,
// where the longest run of letters stands as it is.
func mayHave(envelope []byte, w wanted) bool {
	if asciiPrefix(envelope) < len(envelope) || bytes.Contains(envelope, []byte("=?")) {
		return true
	}
	capitals := appendCapitals(make([]byte, 0, 1024), envelope)
	for _, t := range w.texts {
		if !bytes.Contains(capitals, longestRun(t)) {
			return false
		}
	}
	return true
}

// longestRun returns the longest run of ASCII letters and digits of a text.
func longestRun(t []byte) (longest []byte) {
	plain := func(c byte) bool { return 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' }
	for from := 0; from < len(t); from++ {
		to := from
		for to < len(t) && plain(t[to]) {
			to++
		}
		if to-from > len(longest) {
			longest = t[from:to]
		}
		from = to
	}
	return longest
}

// addressText writes addresses as people write them: names decoded, without quotes.
func addressText(list []mime.Address) (b []byte) {
	for _, a := range list {
		switch {
		case a.GroupStart():
			b = append(append(b, mime.DecodeHeader(a.Mailbox)...), ": "...)
			continue
		case a.GroupEnd():
			b = append(bytes.TrimSuffix(b, []byte(", ")), "; "...)
			continue
		case a.Name != "":
			b = append(append(b, mime.DecodeHeader(a.Name)...), ' ')
		}
		b = append(append(b, '<'), a.Mailbox...)
		b = append(append(append(b, '@'), a.Host...), ">, "...)
	}
	return b
}
