package imapd

import (
	"fmt"
	"hash/crc32"
	"io"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
)

// A source is a message that sections are taken from (RFC 9051, 6.4.5; RFC 3516). What is read is held against a checksum
// before the first octet is sent: of a message that is damaged nothing is.
type source struct {
	f    *fetching
	item *mailbox.Item

	held     []byte     // octets of the message that were read
	at       mime.Span  // which
	verified bool       // all of the message is as it was stored
	root     *mime.Part // its tree of parts, when that was needed
}

var (
	errEncoding = no(codeUnknownCTE, "the transfer encoding of a part is not known here")
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
)

// prepare reads what an item needs. errEncoding, store.ErrDamaged.
func (s *source) prepare(item *wire.FetchItem) error {
	sec := sectionOf(item)
	if item.Attr == wire.FetchBinary || item.Attr == wire.FetchBinarySize {
		return s.prepareBinary(sec)
	}
	if len(sec.Part) == 0 && sec.isHeader() {
		return s.readHeader()
	}
	if err := s.verify(); err != nil || len(sec.Part) == 0 {
		return err
	}
	return s.decode()
}

// A section is a section that an item asks for.
type section struct{ *wire.Section }

func (s section) isHeader() bool {
	return s.Text == wire.SectionHeader || s.isFields()
}

func (s section) isFields() bool {
	return s.Text == wire.SectionFields || s.Text == wire.SectionFieldsNot
}

// cut returns which octets of n are asked for. They may be none.
func (s section) cut(n int64) (off, size int64) {
	switch {
	case !s.Cut:
		return 0, n
	case s.From >= n:
		return n, 0
	}
	return s.From, min(s.Count, n-s.From)
}

// sectionOf is the section of an item; those of RFC 3501 that are no sections stand for one.
func sectionOf(item *wire.FetchItem) section {
	switch item.Attr {
	case wire.FetchRFC822Header:
		return section{&wire.Section{Text: wire.SectionHeader}}
	case wire.FetchRFC822Text:
		return section{&wire.Section{Text: wire.SectionTextPart}}
	}
	return section{&item.Section}
}

// readHeader reads the message's header.
func (s *source) readHeader() error {
	span, sum := s.item.Stored.Header()
	b, err := s.octets(span)
	if err == nil && !s.verified && crc32.Checksum(b, castagnoli) != sum {
		err = fmt.Errorf("%w: %s: the checksum of its header does not match", store.ErrDamaged, s.item.Body.ID())
	}
	return err
}

// octets reads some octets of the message: a header, or all of a message that is small enough. They are valid until others
// are read.
func (s *source) octets(span mime.Span) ([]byte, error) {
	if b := s.have(span); b != nil {
		return b, nil
	}
	b := s.f.buffer(span.Len)
	if _, err := s.item.Body.ReadAt(b, span.Off); err != nil && err != io.EOF {
		s.held = nil
		return nil, err
	}
	s.held, s.at = b, span
	return b, nil
}

// have returns octets that were read, or nil.
func (s *source) have(span mime.Span) []byte {
	if s.held == nil || span.Off < s.at.Off || span.End() > s.at.End() {
		return nil
	}
	return s.held[span.Off-s.at.Off : span.End()-s.at.Off]
}

// buffer is room for a header, or for a message that is small enough.
func (f *fetching) buffer(n int64) []byte {
	if f.buf == nil {
		f.buf = fetchBuffers.Get().(*fetchBuffer)
	}
	if n <= int64(len(f.buf.octets)) {
		return f.buf.octets[:n]
	}
	if n > int64(len(f.buf.large)) {
		f.buf.large = make([]byte, n)
	}
	return f.buf.large[:n]
}

// piece is room to decode a part through.
func (f *fetching) piece() []byte {
	f.buffer(0)
	return f.buf.piece[:]
}

// verify holds the message against its checksum. One of moderate size is read for good; of a larger one it is
// remembered that it is all right, since it is fetched piece by piece.
func (s *source) verify() error {
	switch size := s.item.Body.Size(); {
	case s.verified:
		return nil
	case size <= int64(len(fetchBuffer{}.octets)):
		return s.readWhole(size)
	case s.f.sel.verified != s.item.Body.ID():
		if err := s.item.Body.Verify(); err != nil {
			return err
		}
		s.f.sel.verified = s.item.Body.ID()
	}
	s.verified = true
	return nil
}

func (s *source) readWhole(size int64) error {
	b := s.f.buffer(size)
	r := s.item.Body.Reader()
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if _, err := r.Read(b[:0]); err != io.EOF { // the checksum is looked at in the end
		return err
	}
	s.held, s.at, s.verified = b, mime.Span{Len: size}, true
	return nil
}

// decode reads the tree of parts.
func (s *source) decode() (err error) {
	if s.root == nil {
		s.root, err = s.item.Stored.Root()
	}
	return err
}

// write writes the value of an item. All that it needs was prepared.
func (s *source) write(item *wire.FetchItem) {
	sec := sectionOf(item)
	switch item.Attr {
	case wire.FetchBinary:
		s.writeBinary(sec)
		return
	case wire.FetchBinarySize:
		n, _ := s.sizeOf(s.part(sec))
		s.f.out.Number(uint64(n))
		return
	}
	span, ok := s.span(sec)
	switch {
	case !ok:
		s.f.out.Nil()
	case sec.isFields():
		s.writeFields(sec, span)
	default:
		off, size := sec.cut(span.Len)
		s.f.out.Literal(size)
		s.copy(mime.Span{Off: span.Off + off, Len: size})
	}
}

// span is where a section lies, or false if the message has none such.
func (s *source) span(sec section) (mime.Span, bool) {
	header, _ := s.item.Stored.Header()
	switch {
	case len(sec.Part) > 0:
		return spanOf(s.root.Find(sec.Part), sec)
	case sec.Text == wire.SectionAll:
		return mime.Span{Len: s.item.Size}, true
	case sec.Text == wire.SectionTextPart:
		return mime.Span{Off: header.Len, Len: s.item.Size - header.Len}, true
	}
	return header, true
}

// spanOf is where a section of a part lies. HEADER and TEXT are those of the message that the part is.
func spanOf(p *mime.Part, sec section) (mime.Span, bool) {
	switch {
	case p == nil:
		return mime.Span{}, false
	case sec.Text == wire.SectionAll:
		return p.Body, true
	case sec.Text == wire.SectionMIME:
		return p.Header, true
	case p.Message == nil:
		return mime.Span{}, false
	case sec.Text == wire.SectionTextPart:
		return p.Message.Root.Body, true
	}
	return p.Message.Root.Header, true
}

// ReadAt reads octets of the message.
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	if b := s.have(mime.Span{Off: off, Len: int64(len(p))}); b != nil {
		return copy(p, b), nil
	}
	return s.item.Body.ReadAt(p, off)
}

// copy writes octets of the message, as the literal that was announced.
func (s *source) copy(span mime.Span) {
	if b := s.have(span); b != nil {
		s.f.out.Write(b)
		return
	}
	s.send(io.NewSectionReader(s.item.Body, span.Off, span.Len))
}

// send writes the literal that was announced.
func (s *source) send(r io.Reader) {
	watched := &watchedReader{r: r}
	if _, err := s.f.out.ReadFrom(watched); err != nil && watched.err != nil {
		s.fail(watched.err)
	}
}

// fail ends the connection, which is all that is left when octets cannot be read whose number was sent.
func (s *source) fail(err error) {
	s.f.log().Error("cannot read a message to its end",
		"mailbox", s.f.sel.id, "uid", s.item.UID, "id", s.item.Body.ID(), "err", err)
	s.f.conn.raw.Abort()
}

// A watchedReader tells an error in reading from one in writing.
type watchedReader struct {
	r   io.Reader
	err error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != io.EOF {
		w.err = err
	}
	return n, err
}

// writeFields picks fields from the header at span.
func (s *source) writeFields(sec section, span mime.Span) {
	header, err := s.octets(span)
	if err != nil {
		s.fail(err)
		return
	}
	b := &s.f.buf.fields
	*b = mime.AppendFields((*b)[:0], header, sec.Fields, sec.Text == wire.SectionFieldsNot)
	off, size := sec.cut(int64(len(*b)))
	s.f.out.Literal(size)
	s.f.out.Write((*b)[off : off+size])
}
