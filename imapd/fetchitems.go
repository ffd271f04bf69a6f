package imapd

import (
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"postroad/internal/mailbox"
	"postroad/internal/mime"
)

// A plan is what a FETCH asks for.
type plan struct {
	o        *imap.FetchOptions
	sections []section // of o.BodySection, o.BinarySection and o.BinarySectionSize, in this order
	opens    bool      // something without PEEK
	flat     bool      // nothing that the message's octets or structure are needed for
	headers  bool      // no octets but those of headers

	newlySeen *roaring.Bitmap // the messages that this FETCH marked; their flags are told in any case
}

func newPlan(o *imap.FetchOptions) (*plan, error) {
	p := &plan{o: o, newlySeen: roaring.New()}
	for _, b := range o.BodySection {
		p.opens = p.opens || !b.Peek
		p.sections = append(p.sections, bodySection(b))
	}
	for _, b := range o.BinarySection {
		p.opens = p.opens || !b.Peek
		p.sections = append(p.sections, section{part: b.Part, text: decoded, partial: toPartial(b.Partial)})
	}
	for _, b := range o.BinarySectionSize {
		p.sections = append(p.sections, section{part: b.Part, text: decoded})
	}
	p.flat = len(p.sections) == 0 && !o.Envelope && o.BodyStructure == nil
	p.headers = !slices.ContainsFunc(p.sections, func(sec section) bool { return !sec.text.isHeader() })
	for _, sec := range p.sections {
		switch {
		case sec.text == mimeHeader && len(sec.part) == 0:
			return nil, bad("MIME needs the number of a part")
		case sec.partial != nil && sec.partial.offset > math.MaxUint32:
			return nil, bad("that is beyond the end of any message")
		}
	}
	return p, nil
}

func bodySection(b *imap.FetchItemBodySection) section {
	sec := section{part: b.Part, partial: toPartial(b.Partial)}
	switch {
	case len(b.HeaderFields) > 0:
		sec.text, sec.fields = someFields, b.HeaderFields
	case len(b.HeaderFieldsNot) > 0:
		sec.text, sec.fields = otherFields, b.HeaderFieldsNot
	case b.Specifier == imap.PartSpecifierHeader:
		sec.text = header
	case b.Specifier == imap.PartSpecifierText:
		sec.text = body
	case b.Specifier == imap.PartSpecifierMIME:
		sec.text = mimeHeader
	}
	return sec
}

func toPartial(p *imap.SectionPartial) *partial {
	if p == nil {
		return nil
	}
	return &partial{p.Offset, p.Size}
}

// prepare gets ready all that can fail, before the first octet of the response is written.
func (p *plan) prepare(src *source) (st *mime.Structure, contents []content, err error) {
	if p.o.Envelope || p.o.BodyStructure != nil {
		if st, err = src.structure(); err != nil {
			return nil, nil, err
		}
	}
	for _, sec := range p.sections {
		c, err := src.content(sec)
		if err == nil && c.size > 0 {
			_, err = src.body()
		}
		if err != nil {
			return nil, nil, err
		}
		contents = append(contents, c)
	}
	return st, contents, nil
}

// items writes the items of one response.
func (f *fetch) items(r *imapserver.FetchResponseWriter, m mailbox.Message, st *mime.Structure, contents []content) error {
	o := f.plan.o
	if o.UID {
		r.WriteUID(imap.UID(m.UID))
	}
	if o.Flags || f.plan.opens && f.plan.newlySeen.Contains(m.UID) {
		f.flags = toFlags(f.flags[:0], m.Flags)
		r.WriteFlags(f.flags)
	}
	if o.InternalDate {
		r.WriteInternalDate(m.Internal)
	}
	if o.RFC822Size {
		r.WriteRFC822Size(m.Size)
	}
	if o.Envelope {
		r.WriteEnvelope(toEnvelope(&st.Envelope))
	}
	if o.BodyStructure != nil {
		r.WriteBodyStructure(toBodyStructure(&st.Root))
	}
	return f.sections(r, contents)
}

// sections writes the contents that prepare made.
func (f *fetch) sections(r *imapserver.FetchResponseWriter, contents []content) error {
	o := f.plan.o
	for _, b := range o.BodySection {
		if err := f.copyTo(r.WriteBodySection(b, contents[0].size), contents[0]); err != nil {
			return err
		}
		contents = contents[1:]
	}
	for _, b := range o.BinarySection {
		if err := f.copyTo(r.WriteBinarySection(b, contents[0].size), contents[0]); err != nil {
			return err
		}
		contents = contents[1:]
	}
	for _, b := range o.BinarySectionSize {
		r.WriteBinarySectionSize(b, uint32(min(contents[0].size, math.MaxUint32)))
		contents = contents[1:]
	}
	return nil
}
