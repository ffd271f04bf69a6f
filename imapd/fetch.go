package imapd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// A fetching is a FETCH under way.
type fetching struct {
	*session
	items  []fetchItem
	want   mailbox.Want
	marks  bool // messages are to be marked as seen
	uids   bool // the client knows messages by UID, and has no need to be told which are gone
	andUID bool // responses begin with the UID
	flags  bool // flags are told of every message
	modSeq bool // so is the modseq

	seqs   *sequence
	recent *roaring.Bitmap
	marked *roaring.Bitmap // messages that it has marked as seen: their flags are told in any case
	told   uint64          // messages
	src    source          // of the present message
	buf    *fetchBuffer    // nil until octets are needed

	trouble error // with some message; the others are told all the same
}

// A fetchItem is an item with the name that it has in responses.
type fetchItem struct {
	wire.FetchItem
	label string
}

// A fetchBuffer holds what is read of one message: it is what a FETCH costs besides the Encoder's page.
type fetchBuffer struct {
	octets [128 << 10]byte // a message of up to this size, or a header
	large  []byte          // a header that is larger; at most the MiB that package mime allows
	fields []byte          // the fields picked of a header
	piece  [8 << 10]byte   // what a part is decoded through
}

var fetchBuffers = sync.Pool{New: func() any { return new(fetchBuffer) }}

// markStep is how many messages are marked as seen in one go, before they are sent.
const markStep = 500

// fetch is FETCH and UID FETCH (RFC 9051, 6.4.5 and 6.4.9). Of a message that cannot be read nothing is told; the others
// are, and then the command fails.
func (s *session) fetch(c *wire.Fetch) reply {
	f, uids, err := s.newFetching(c)
	if err != nil {
		return s.refuse("fetch messages", err)
	}
	defer f.release()
	uids, code := s.withinLimit(uids)
	if err := f.run(uids); err != nil {
		return s.refuse("fetch messages", err)
	}
	return ok(code, "")
}

// newFetching prepares a FETCH, and finds the messages. What vanished is told here, before the rest (RFC 7162, 3.2.6).
func (s *session) newFetching(c *wire.Fetch) (*fetching, *roaring.Bitmap, error) {
	uids, err := s.resolve(c.Set, c.UID)
	if err != nil {
		return nil, nil, err
	}
	sel, err := s.selection()
	if err != nil {
		return nil, nil, err
	}
	now, err := s.access.Check(sel.id, mailbox.RightRead)
	if err != nil {
		return nil, nil, err
	}
	f := &fetching{
		session: s, uids: c.UID, andUID: c.UID && !s.enabled.has(uidOnly),
		seqs: newSequence(s.known()), recent: s.recent(), marked: roaring.New(),
	}
	f.plan(c)
	f.marks = f.marks && !sel.readOnly && now.Rights.Has(mailbox.RightSeen)
	if f.flags || f.marks {
		s.tellKeywords()
	}
	if c.Partial != nil { // before CHANGEDSINCE: of those in the range the changed ones (RFC 9394, 3.4)
		uids = partOf(uids, c.Partial)
	}
	if c.ChangedSince != 0 {
		if uids, err = f.changed(c, uids); err != nil {
			return nil, nil, err
		}
	}
	return f, uids, nil
}

// plan takes the items apart. Each is told once.
func (f *fetching) plan(c *wire.Fetch) {
	for _, item := range c.Items {
		f.marks = f.marks || opens(&item)
		f.want |= wants(&item)
		switch item.Attr {
		case wire.FetchUID:
			f.andUID = true
			continue
		case wire.FetchFlags:
			f.flags = true
			continue
		case wire.FetchModSeq:
			f.modSeq = true
			continue
		}
		label := labelOf(item)
		if !slices.ContainsFunc(f.items, func(other fetchItem) bool { return other.label == label }) {
			f.items = append(f.items, fetchItem{item, label})
		}
	}
	f.modSeq = f.modSeq || c.ChangedSince != 0 // RFC 7162, 3.1.4.1
	if f.modSeq {
		f.followModSeqs()
	}
}

// opens reports whether an item marks messages as seen.
func opens(item *wire.FetchItem) bool {
	switch item.Attr {
	case wire.FetchSection, wire.FetchBinary, wire.FetchRFC822, wire.FetchRFC822Text:
		return !item.Peek
	}
	return false
}

// wants is what has to be read for an item.
func wants(item *wire.FetchItem) mailbox.Want {
	switch item.Attr {
	case wire.FetchFlags, wire.FetchUID, wire.FetchModSeq:
		return 0
	case wire.FetchEnvelope, wire.FetchBody, wire.FetchBodyStructure, wire.FetchPreview:
		return mailbox.Notes
	case wire.FetchSection, wire.FetchBinary, wire.FetchBinarySize, wire.FetchRFC822, wire.FetchRFC822Header, wire.FetchRFC822Text:
		return mailbox.Notes | mailbox.Bodies
	}
	return mailbox.Facts
}

// labelOf is what stands before the value of an item. The section comes back as the client gave it, and of a partial
// its first octet (RFC 9051, 7.5.2).
func labelOf(item wire.FetchItem) string {
	switch item.Attr {
	case wire.FetchInternalDate:
		return "INTERNALDATE"
	case wire.FetchSize:
		return "RFC822.SIZE"
	case wire.FetchEnvelope:
		return "ENVELOPE"
	case wire.FetchBody:
		return "BODY"
	case wire.FetchBodyStructure:
		return "BODYSTRUCTURE"
	case wire.FetchEmailID:
		return "EMAILID"
	case wire.FetchThreadID:
		return "THREADID"
	case wire.FetchSaveDate:
		return "SAVEDATE"
	case wire.FetchPreview:
		return "PREVIEW"
	case wire.FetchRFC822:
		return "RFC822"
	case wire.FetchRFC822Header:
		return "RFC822.HEADER"
	case wire.FetchRFC822Text:
		return "RFC822.TEXT"
	case wire.FetchBinary:
		return "BINARY" + sectionLabel(&item.Section)
	case wire.FetchBinarySize:
		return "BINARY.SIZE" + sectionLabel(&item.Section)
	}
	return "BODY" + sectionLabel(&item.Section)
}

// sectionLabel is a section as responses name it.
func sectionLabel(sec *wire.Section) string {
	var b strings.Builder
	dot := "["
	for _, n := range sec.Part {
		b.WriteString(dot + strconv.Itoa(n))
		dot = "."
	}
	if text := sectionTexts[sec.Text]; text != "" {
		b.WriteString(dot + text)
	} else if dot == "[" {
		b.WriteString(dot)
	}
	if sec.Text == wire.SectionFields || sec.Text == wire.SectionFieldsNot {
		out := wire.NewEncoder(&b)
		out.SP().Begin()
		for _, name := range sec.Fields {
			out.AString(name)
		}
		out.End().Flush()
	}
	b.WriteString("]")
	if sec.Cut {
		fmt.Fprintf(&b, "<%d>", sec.From)
	}
	return b.String()
}

var sectionTexts = [...]string{
	wire.SectionHeader:    "HEADER",
	wire.SectionFields:    "HEADER.FIELDS",
	wire.SectionFieldsNot: "HEADER.FIELDS.NOT",
	wire.SectionTextPart:  "TEXT",
	wire.SectionMIME:      "MIME",
}

// changed narrows messages to those that came or changed after a modseq. With VANISHED it tells which of the set were
// expunged (RFC 7162, 3.1.4.1 and 3.2.6).
func (f *fetching) changed(c *wire.Fetch, uids *roaring.Bitmap) (*roaring.Bitmap, error) {
	switch {
	case c.Vanished && !f.enabled.has(qresync):
		return nil, bad(codeClientBug, "ENABLE QRESYNC comes before VANISHED")
	case c.Vanished && !c.Set.Saved:
		once := all(c.Set, f.nextUID())
		gone, err := f.srv.Mailboxes.Vanished(f.sel.id, c.ChangedSince, once)
		if err != nil {
			return nil, err
		}
		gone.AndNot(f.known())
		f.tellEarlier(gone)
	}
	if uids.IsEmpty() {
		return uids, nil // and not all
	}
	return f.srv.Mailboxes.ChangedSince(f.sel.id, c.ChangedSince, uids)
}

// nextUID is a UID above all that the client has heard of.
func (s *session) nextUID() mailbox.UID {
	if s.known().IsEmpty() {
		return s.sel.mailbox.UIDNext
	}
	return max(s.known().Maximum()+1, s.sel.mailbox.UIDNext)
}

// partOf returns the messages of a range, counted in their order from the first or the last (RFC 9394, 3.3).
func partOf(uids *roaring.Bitmap, p *wire.Partial) *roaring.Bitmap {
	n := int64(uids.GetCardinality())
	from, to := min(p.From, p.To), max(p.From, p.To)
	if from < 0 {
		from, to = n+1+from, n+1+to
	}
	from, to = max(from, 1), min(to, n)
	if from > to {
		return roaring.New()
	}
	return ranked(uids, from, to)
}

// ranked returns the messages that are the from-th to the to-th.
func ranked(uids *roaring.Bitmap, from, to int64) *roaring.Bitmap {
	first, _ := uids.Select(uint32(from - 1))
	last, _ := uids.Select(uint32(to - 1))
	some := roaring.New()
	some.AddRange(uint64(first), uint64(last)+1)
	some.And(uids)
	return some
}

// withinLimit returns as many of the messages as one command may speak of, the last ones, and the response code that
// says so (RFC 9738, 3.1).
func (s *session) withinLimit(uids *roaring.Bitmap) (_ *roaring.Bitmap, code string) {
	n, most := int64(uids.GetCardinality()), int64(s.srv.Limits.Messages)
	if n <= most {
		return uids, ""
	}
	some := ranked(uids, n-most+1, n)
	return some, fmt.Sprintf("MESSAGELIMIT %d %d", most, some.Minimum())
}

// release lets go of what the FETCH held.
func (f *fetching) release() {
	if f.buf != nil {
		f.buf.large, f.buf.fields = nil, nil // they can be a MiB each
		fetchBuffers.Put(f.buf)
	}
}

// body is a BODY without a section; it is not stored.
func (f *fetching) body(m *mailbox.Item) []byte {
	b, err := m.Stored.AppendBody(nil)
	if err != nil {
		f.src.fail(err)
	}
	return b
}

// run tells of messages.
func (f *fetching) run(uids *roaring.Bitmap) error {
	err := f.tellAll(uids)
	if err == nil {
		err = f.trouble
	}
	if err == nil && f.told < uids.GetCardinality() && !f.uids {
		err = mailbox.ErrExpunged // RFC 2180, 4.1.2
	}
	return err
}

// tellAll marks messages as seen, if that is to be, and tells of them.
func (f *fetching) tellAll(uids *roaring.Bitmap) error {
	if uids.IsEmpty() {
		return nil
	}
	if !f.marks {
		return f.tell(uids)
	}
	seen, err := f.srv.Mailboxes.Set(f.sel.id, `\Seen`)
	if err != nil {
		return err
	}
	unseen := roaring.AndNot(uids, seen)
	if unseen.IsEmpty() {
		return f.tell(uids)
	}
	return pages(uids, markStep, func(page *roaring.Bitmap) error {
		if err := f.mark(roaring.And(page, unseen)); err != nil {
			return err
		}
		return f.tell(page)
	})
}

// mark gives messages the flag \Seen.
func (f *fetching) mark(uids *roaring.Bitmap) error {
	if uids.IsEmpty() {
		return nil
	}
	f.marked = uids
	done, err := f.srv.Mailboxes.Store(f.ctx, f.sel.id, uids, mailbox.AddFlags, []string{`\Seen`}, nil)
	f.sel.own.note(&done)
	return err
}

// tell sends a response for each message.
func (f *fetching) tell(uids *roaring.Bitmap) error {
	for item, err := range f.srv.Mailboxes.Read(f.sel.id, uids, f.want) {
		if err == nil {
			err = errors.Join(f.ctx.Err(), f.out.Err())
		}
		if err != nil {
			return err
		}
		if seq := f.seqs.of(item.UID); seq != 0 {
			f.told++
			f.one(seq, item)
		}
	}
	return nil
}

// one tells of one message, or takes down why it cannot.
func (f *fetching) one(seq uint32, item *mailbox.Item) {
	f.src = source{item: item, f: f}
	err := item.Err
	if err == nil {
		err = f.prepare()
	}
	if err == nil {
		f.respond(seq, item)
		return
	}
	if _, told := errors.AsType[reply](err); !told {
		f.log().Error("cannot read a message", "mailbox", f.sel.id, "uid", item.UID, "id", item.Message.Body, "err", err)
	}
	f.trouble = err
}

// prepare makes sure of all that the items need, before the first octet of the response is written.
func (f *fetching) prepare() error {
	for i := range f.items {
		item := &f.items[i].FetchItem
		if wants(item)&mailbox.Bodies == 0 {
			continue
		}
		if err := f.src.prepare(item); err != nil {
			return err
		}
	}
	return nil
}

// respond writes the response of a message.
func (f *fetching) respond(seq uint32, item *mailbox.Item) {
	marked := f.marked.Contains(item.UID)
	if marked && !f.andUID {
		f.changeBegin(seq, item.UID, false)
	} else {
		f.fetchBegin(seq, item.UID, f.andUID)
	}
	if f.flags || marked {
		f.fetchFlags(&item.Message, f.recent.Contains(item.UID))
	}
	if f.modSeq || marked && f.enabled.has(condStore) {
		f.fetchModSeq(&item.Message)
	}
	for i := range f.items {
		if f.out.Err() != nil {
			return // nobody reads it any more
		}
		f.item(&f.items[i], item)
	}
	f.out.End().CRLF()
}

// item writes one item.
func (f *fetching) item(i *fetchItem, m *mailbox.Item) {
	f.out.Atom(i.label)
	switch i.Attr {
	case wire.FetchInternalDate:
		f.out.Date(m.Internal)
	case wire.FetchSize:
		f.out.Number(uint64(m.Size))
	case wire.FetchEnvelope:
		f.out.Encoded(m.Stored.Envelope())
	case wire.FetchBody:
		f.out.Encoded(f.body(m))
	case wire.FetchBodyStructure:
		f.out.Encoded(m.Stored.BodyStructure())
	case wire.FetchEmailID:
		f.out.Begin().Atom(m.EmailID()).End()
	case wire.FetchThreadID:
		f.out.Begin().Atom(m.ThreadID()).End()
	case wire.FetchSaveDate:
		f.out.Date(m.Saved)
	case wire.FetchPreview:
		f.out.String(string(m.Stored.Preview()))
	default:
		f.src.write(&i.FetchItem)
	}
}
