package wire

import (
	"bytes"
	"math"
)

// expunge = "EXPUNGE", or "UID" SP "EXPUNGE" SP sequence-set (RFC 9051, 6.4.9)
func (d *Decoder) expunge() any {
	if !d.uid {
		return &Expunge{}
	}
	d.space()
	return &Expunge{UID: true, Set: d.set()}
}

// copyTo = SP sequence-set SP mailbox (RFC 9051, 6.4.7, 6.4.8)
func (d *Decoder) copyTo() any {
	d.space()
	c := &Copy{UID: d.uid, Set: d.set()}
	d.space()
	c.Mailbox = d.mailbox()
	return c
}

// store = "STORE" SP sequence-set [SP "(" store-modifier ")"] SP store-att-flags (RFC 9051, 6.4.6; RFC 7162, 7)
func (d *Decoder) store() any {
	d.space()
	s := &Store{UID: d.uid, Set: d.set()}
	d.space()
	if d.peek() == '(' {
		d.some("modifiers", func() { d.unchangedSince(s) })
		d.space()
	}
	d.storeItem(s)
	d.space()
	if d.peek() == '(' {
		s.Flags = d.flagList()
		return s
	}
	for more := true; more; more = d.optional() {
		d.count()
		s.Flags = append(s.Flags, d.flag())
	}
	return s
}

func (d *Decoder) unchangedSince(s *Store) {
	if !d.word("UNCHANGEDSINCE") {
		d.want("UNCHANGEDSINCE")
	}
	d.space()
	n := d.number64("a mod-sequence")
	s.UnchangedSince = &n
}

// storeItem = ["+" / "-"] "FLAGS" [".SILENT"]
func (d *Decoder) storeItem(s *Store) {
	if c := d.peek(); c == '+' || c == '-' {
		s.Op = c
		d.pos++
	}
	switch {
	case d.word("FLAGS"):
	case d.word("FLAGS.SILENT"):
		s.Silent = true
	default:
		d.want("FLAGS or FLAGS.SILENT")
	}
}

// fetch = "FETCH" SP sequence-set SP (macro / fetch-att / "(" fetch-att *(SP fetch-att) ")") [fetch-modifiers]
// (RFC 9051, 6.4.5)
func (d *Decoder) fetch() any {
	d.space()
	f := &Fetch{UID: d.uid, Set: d.set()}
	d.space()
	switch {
	case d.peek() == '(':
		f.Items = d.fetchItems()
	case d.word("ALL"):
		f.Items = attributes(FetchFlags, FetchInternalDate, FetchSize, FetchEnvelope)
	case d.word("FAST"):
		f.Items = attributes(FetchFlags, FetchInternalDate, FetchSize)
	case d.word("FULL"):
		f.Items = attributes(FetchFlags, FetchInternalDate, FetchSize, FetchEnvelope, FetchBody)
	default:
		f.Items = []FetchItem{d.fetchItem()}
	}
	if d.optional() {
		d.some("modifiers", func() { d.fetchModifier(f) })
	}
	if f.Vanished && (!f.UID || f.ChangedSince == 0) {
		d.fail("", "VANISHED is for UID FETCH with CHANGEDSINCE")
	}
	return f
}

func attributes(attrs ...FetchAttr) []FetchItem {
	items := make([]FetchItem, len(attrs))
	for i, a := range attrs {
		items[i].Attr = a
	}
	return items
}

// fetchModifier = "CHANGEDSINCE" SP mod-sequence-value / "VANISHED" / "PARTIAL" SP partial-range (RFC 7162, 7;
// RFC 9394, 4)
func (d *Decoder) fetchModifier(f *Fetch) {
	switch {
	case d.word("CHANGEDSINCE"):
		d.space()
		f.ChangedSince = max(1, d.number64("a mod-sequence")) // nothing has ever had 1, and clients begin with 0
	case d.word("VANISHED"):
		f.Vanished = true
	case d.word("PARTIAL"):
		d.space()
		f.Partial = d.partial()
	default:
		d.want("CHANGEDSINCE, VANISHED or PARTIAL")
	}
}

func (d *Decoder) fetchItems() (items []FetchItem) {
	items = make([]FetchItem, 0, 1+min(bytes.Count(d.line[d.pos:], []byte(" ")), 8))
	d.some("items", func() {
		if len(items) == maxFetch {
			d.fail("", "more than %d items for each message", maxFetch)
		}
		items = append(items, d.fetchItem())
	})
	return items
}

// fetch-att (RFC 9051, 9, and the extensions that FetchAttr names)
func (d *Decoder) fetchItem() FetchItem {
	from := d.pos
	name := d.takeName()
	switch string(name) {
	case "FLAGS":
		return FetchItem{Attr: FetchFlags}
	case "UID":
		return FetchItem{Attr: FetchUID}
	case "INTERNALDATE":
		return FetchItem{Attr: FetchInternalDate}
	case "RFC822.SIZE":
		return FetchItem{Attr: FetchSize}
	case "ENVELOPE":
		return FetchItem{Attr: FetchEnvelope}
	case "BODYSTRUCTURE":
		return FetchItem{Attr: FetchBodyStructure}
	case "MODSEQ":
		return FetchItem{Attr: FetchModSeq}
	case "EMAILID":
		return FetchItem{Attr: FetchEmailID}
	case "THREADID":
		return FetchItem{Attr: FetchThreadID}
	case "SAVEDATE":
		return FetchItem{Attr: FetchSaveDate}
	case "PREVIEW":
		return d.preview()
	case "RFC822":
		return FetchItem{Attr: FetchRFC822}
	case "RFC822.HEADER":
		return FetchItem{Attr: FetchRFC822Header, Peek: true}
	case "RFC822.TEXT":
		return FetchItem{Attr: FetchRFC822Text}
	case "BODY":
		if d.peek() != '[' {
			return FetchItem{Attr: FetchBody}
		}
		return d.section(FetchItem{Attr: FetchSection})
	case "BODY.PEEK":
		return d.section(FetchItem{Attr: FetchSection, Peek: true})
	case "BINARY":
		return d.section(FetchItem{Attr: FetchBinary})
	case "BINARY.PEEK":
		return d.section(FetchItem{Attr: FetchBinary, Peek: true})
	case "BINARY.SIZE":
		return d.section(FetchItem{Attr: FetchBinarySize, Peek: true})
	}
	d.pos = from
	d.want("an item of FETCH")
	return FetchItem{}
}

// takeName is the name of an item up to its section, in capitals.
func (d *Decoder) takeName() []byte {
	from := d.pos
	for c := d.peek(); classes[c]&isAtomChar != 0 && c != '['; c = d.peek() {
		d.pos++
	}
	return d.capitals(from, d.line[from:d.pos], "an item of FETCH")
}

// preview = "PREVIEW" [SP "(" "LAZY" ")"] (RFC 8970, 6). What follows may be the modifiers of the FETCH, too.
func (d *Decoder) preview() FetchItem {
	from := d.pos
	d.skipSpaces()
	if !d.accept('(') || !d.word("LAZY") {
		d.pos = from
		return FetchItem{Attr: FetchPreview}
	}
	d.skipSpaces()
	d.expect(')')
	return FetchItem{Attr: FetchPreview, Lazy: true}
}

// section = "[" [section-spec] "]" ["<" number64 "." nz-number64 ">"] (RFC 9051, 9; RFC 3516, 7)
func (d *Decoder) section(item FetchItem) FetchItem {
	s := &item.Section
	d.expect('[')
	dot := d.sectionPart(s)
	switch {
	case item.Attr != FetchSection && dot:
		d.want("the number of a part")
	case dot || item.Attr == FetchSection && len(s.Part) == 0 && d.peek() != ']':
		d.sectionText(s)
	}
	d.expect(']')
	if item.Attr != FetchBinarySize && d.accept('<') {
		d.cut(s)
	}
	return item
}

// sectionPart = nz-number *("." nz-number), and whether there is the dot before a text
func (d *Decoder) sectionPart(s *Section) (dot bool) {
	for classes[d.peek()]&isDigit != 0 {
		if len(s.Part) == maxDepth {
			d.fail("", "a part more than %d deep", maxDepth)
		}
		s.Part = append(s.Part, int(d.nonZero("the number of a part", math.MaxInt32)))
		if dot = d.accept('.'); !dot {
			return false
		}
	}
	return dot
}

// section-text = "HEADER" / "HEADER.FIELDS" [".NOT"] SP header-list / "TEXT" / "MIME"
func (d *Decoder) sectionText(s *Section) {
	switch {
	case d.word("HEADER"):
		s.Text = SectionHeader
	case d.word("TEXT"):
		s.Text = SectionTextPart
	case len(s.Part) > 0 && d.word("MIME"):
		s.Text = SectionMIME
	case d.word("HEADER.FIELDS"):
		s.Text = SectionFields
		d.headerList(s)
	case d.word("HEADER.FIELDS.NOT"):
		s.Text = SectionFieldsNot
		d.headerList(s)
	default:
		d.want("a section")
	}
}

// headerList = SP "(" astring *(SP astring) ")"
func (d *Decoder) headerList(s *Section) {
	d.space()
	d.some("header fields", func() { s.Fields = append(s.Fields, d.astring("the name of a header field")) })
}

// cut is a partial after its "<". It ends with 63 bits at the latest.
func (d *Decoder) cut(s *Section) {
	s.Cut = true
	s.From = int64(d.number64("the first octet"))
	d.expect('.')
	count := d.nonZero("a number of octets", math.MaxInt64)
	s.Count = min(int64(count), math.MaxInt64-s.From)
	d.expect('>')
}
