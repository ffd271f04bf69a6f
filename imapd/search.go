package imapd

import (
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// search is SEARCH and UID SEARCH (RFC 9051, 6.4.4), and ESEARCH (RFC 7377). After ENABLE UTF8=ACCEPT no charset
// may be named (RFC 6855, 3); SORT and THREAD cannot be without one.
func (s *session) search(c *wire.Search) reply {
	if c.Charset != "" && s.enabled.has(utf8Accept) {
		return bad(codeClientBug, "no charset is to be named after ENABLE UTF8=ACCEPT")
	}
	if r := s.mayWatch(c.Return); r != (reply{}) {
		return r
	}
	if c.In != nil {
		return s.multiSearch(c)
	}
	f, err := s.find(c.Charset, &c.Key, c.UID)
	if err == nil {
		f.tells(c.Return)
		code := f.limit()
		if err = f.save(); err == nil {
			err = f.tell("SEARCH")
		}
		if err == nil {
			s.watch(f, c.Charset, &c.Key)
			return ok(code, "")
		}
	}
	return s.searchFailed(c.Return, err)
}

// searchFailed ends a command that has found nothing because it could not look. If its result was to be saved, nothing
// is (RFC 5182, 2.1).
func (s *session) searchFailed(ret *wire.SearchReturn, err error) reply {
	r := s.refuse("search", err)
	if r.status == statusNo && ret != nil && ret.Save && s.sel != nil {
		s.sel.result = nil
	}
	return r
}

// A finding is what a SEARCH or SORT has found, and what is to be told of it.
type finding struct {
	*session
	uid      bool // UIDs are told, not numbers
	selected bool // the mailbox is the selected one
	box      mailbox.Mailbox
	ret      *wire.SearchReturn // nil: the old response
	modSeq   bool               // the highest modseq is to be told
	fixed    bool               // what is looked for means something else later

	found *roaring.Bitmap
	order []mailbox.UID // of a SORT; nil is that of the UIDs
	keys  []mailbox.SortKey
	ranks map[mailbox.UID]uint8
}

// find searches the selected mailbox.
func (s *session) find(charset string, key *wire.SearchKey, uid bool) (*finding, error) {
	sel, err := s.selection()
	if err != nil {
		return nil, err
	}
	if !uid && s.enabled.has(uidOnly) {
		return nil, uidRequired()
	}
	if _, err := s.access.Check(sel.id, mailbox.RightRead); err != nil {
		return nil, err
	}
	c, err := s.newSearchKeys(charset)
	if err != nil {
		return nil, err
	}
	f := &finding{session: s, uid: uid, selected: true, box: sel.mailbox}
	return f, f.search(c, key, s.known())
}

// search looks for messages among uids; nil is all.
func (f *finding) search(c *searchKeys, key *wire.SearchKey, uids *roaring.Bitmap) error {
	criterion, err := c.of(key)
	if err != nil {
		return err
	}
	if f.modSeq, f.fixed = c.modSeq, c.fixed; f.modSeq {
		f.followModSeqs()
	}
	return f.during(func(ctx context.Context) (err error) {
		f.found, f.ranks, err = f.srv.Mailboxes.Rank(ctx, f.box.ID, uids, criterion)
		return err
	})
}

// tells says what is to be told. Without anything that can be told, that is all (RFC 4731, 3.1); IMAP4rev2 knows no
// SEARCH response (RFC 9051, 7.3).
func (f *finding) tells(ret *wire.SearchReturn) {
	if ret == nil && f.enabled.has(rev2) && f.order == nil {
		ret = &wire.SearchReturn{}
	}
	if ret == nil {
		return
	}
	r := *ret
	r.All = r.All || !(r.Min || r.Max || r.Count || r.Save || r.Partial != nil)
	f.ret = &r
}

// limit leaves as many messages as one command may speak of, and returns the response code that says so (RFC 9738).
func (f *finding) limit() (code string) {
	before := f.found.GetCardinality()
	if f.found, code = f.withinLimit(f.found); f.found.GetCardinality() < before {
		f.order = slices.DeleteFunc(f.order, func(uid mailbox.UID) bool { return !f.found.Contains(uid) })
	}
	return code
}

// count is how many messages were found.
func (f *finding) count() int64 { return int64(f.found.GetCardinality()) }

// run returns the messages found from one to another, counted from 1, in their order.
func (f *finding) run(from, to int64) []mailbox.UID {
	switch {
	case from > to:
		return nil
	case f.order != nil:
		return f.order[from-1 : to]
	}
	return ranked(f.found, from, to).ToArray()
}

// part returns the messages of a range of results, which may count from the end (RFC 9394, 3.1).
func (f *finding) part(p *wire.Partial) []mailbox.UID {
	from, to := min(p.From, p.To), max(p.From, p.To)
	if from < 0 {
		from, to = f.count()+1+from, f.count()+1+to
	}
	return f.run(max(from, 1), min(to, f.count()))
}

// told returns the messages that are told one by one; nil is all of them.
func (f *finding) told() []mailbox.UID {
	r := f.ret
	if r == nil || r.All || r.Count || !(r.Min || r.Max || r.Partial != nil) || f.count() == 0 {
		return nil
	}
	told := []mailbox.UID{}
	if r.Min {
		told = append(told, f.run(1, 1)...)
	}
	if r.Max {
		told = append(told, f.run(f.count(), f.count())...)
	}
	if r.Partial != nil {
		told = append(told, f.part(r.Partial)...)
	}
	return told
}

// save keeps the result for "$", if that is wanted: what is told, or all (RFC 5182, 2.4; RFC 9394, 3.3).
func (f *finding) save() error {
	if f.ret == nil || !f.ret.Save {
		return nil
	}
	if !f.selected {
		return bad(codeClientBug, "SAVE is for searches of the selected mailbox only")
	}
	f.sel.result = f.found
	if told := f.told(); told != nil {
		f.sel.result = roaring.BitmapOf(told...)
	}
	return nil
}

// tell tells what was found: as the old response of a name, or as ESEARCH.
func (f *finding) tell(name string) error {
	modSeq, err := f.highest()
	if err != nil {
		return err
	}
	if f.ret == nil {
		f.tellOld(name, modSeq)
		return nil
	}
	if r := *f.ret; r.Save && !(r.Min || r.Max || r.All || r.Count || r.Relevancy || r.Partial != nil) {
		return nil // RFC 5182, 2.1
	}
	f.tellExtended(modSeq)
	return nil
}

// highest is the highest modseq of what is told, or 0 when it is not wanted (RFC 7162, 3.1.5 and 3.1.10).
func (f *finding) highest() (highest uint64, err error) {
	if !f.modSeq || f.count() == 0 {
		return 0, nil
	}
	uids := f.found
	if told := f.told(); told != nil {
		uids = roaring.BitmapOf(told...)
	}
	for m, err := range f.srv.Mailboxes.Read(f.box.ID, uids, 0) {
		if err != nil {
			return 0, err
		}
		highest = max(highest, m.ModSeq)
	}
	return highest, nil
}

// tellOld tells all that was found, number by number (RFC 3501, 7.2.5; RFC 5256, 4).
func (f *finding) tellOld(name string, modSeq uint64) {
	f.out.Raw("* ").Atom(name)
	number := f.numbering()
	if f.order != nil {
		for _, uid := range f.order {
			f.out.Number(uint64(number(uid)))
		}
	} else {
		for uid := range roaring.Values(f.found) {
			f.out.Number(uint64(number(uid)))
		}
	}
	if modSeq > 0 {
		f.out.Begin().Atom("MODSEQ").Number(modSeq).End()
	}
	f.out.CRLF()
}

// numbering returns what messages are told as. It is quick for messages that come in order of UID.
func (f *finding) numbering() func(mailbox.UID) uint32 {
	switch {
	case f.uid:
		return func(uid mailbox.UID) uint32 { return uid }
	case f.order == nil:
		return newSequence(f.known()).of
	}
	return func(uid mailbox.UID) uint32 { return uint32(f.known().Rank(uid)) }
}

// tellExtended is an ESEARCH response (RFC 4731, 3.1; RFC 5267, 3; RFC 9394, 3.1; RFC 6203, 4).
func (f *finding) tellExtended(modSeq uint64) {
	f.begin()
	if n := f.count(); n > 0 {
		number := f.numbering()
		if f.ret.Min {
			f.out.Atom("MIN").Number(uint64(number(f.run(1, 1)[0])))
		}
		if f.ret.Max {
			f.out.Atom("MAX").Number(uint64(f.numbering()(f.run(n, n)[0])))
		}
		if f.ret.All {
			f.out.Atom("ALL")
			f.list(f.order, f.found)
		}
	}
	if p := f.ret.Partial; p != nil {
		f.tellPart(p)
	}
	if f.ret.Count {
		f.out.Atom("COUNT").Number(uint64(f.count()))
	}
	if modSeq > 0 {
		f.out.Atom("MODSEQ").Number(modSeq)
	}
	if f.ret.Relevancy && f.count() > 0 {
		f.tellRelevancy()
	}
	f.out.CRLF()
}

// begin begins an ESEARCH response with what it answers.
func (f *finding) begin() {
	f.correlate(f.tag, !f.selected)
}

// correlate begins an ESEARCH response; with box it says of which mailbox (RFC 7377, 2.1).
func (f *finding) correlate(tag string, box bool) {
	f.out.Raw("* ESEARCH ").Begin().Atom("TAG").Quoted(tag)
	if box {
		f.out.Atom("MAILBOX").Mailbox(f.box.Name).Atom("UIDVALIDITY").Number(uint64(f.box.UIDValidity))
	}
	if f.out.End(); f.uid {
		f.out.Atom("UID")
	}
}

// list writes messages as a set: in the order that is given, or in that of the UIDs.
func (f *finding) list(order []mailbox.UID, uids *roaring.Bitmap) {
	switch {
	case order != nil:
		f.ordered(order)
	case f.uid:
		f.out.Set(uids)
	default:
		f.out.Set(numbersOf(uids, f.known()))
	}
}

// ordered writes messages as a set that keeps their order: a range is of numbers that follow on one another.
func (f *finding) ordered(uids []mailbox.UID) {
	number, first := f.numbering(), true
	for i := 0; i < len(uids); {
		from := number(uids[i])
		to := from
		for i++; i < len(uids) && number(uids[i]) == to+1; i++ {
			to++
		}
		if !first {
			f.out.Raw(",")
		}
		first = false
		f.out.Number(uint64(from))
		if to > from {
			f.out.Raw(":").Number(uint64(to))
		}
	}
}

func (f *finding) tellPart(p *wire.Partial) {
	f.out.Atom("PARTIAL").Begin().Atom(partialRange(p))
	if part := f.part(p); len(part) == 0 {
		f.out.Nil()
	} else if f.order != nil {
		f.ordered(part)
	} else {
		f.list(nil, roaring.BitmapOf(part...))
	}
	f.out.End()
}

// tellRelevancy tells how well each message fits, in the order of the messages.
func (f *finding) tellRelevancy() {
	uids := f.run(1, f.count())
	if f.ret.Partial != nil && !f.ret.All {
		uids = f.part(f.ret.Partial)
	}
	f.out.Atom("RELEVANCY").Begin()
	for _, uid := range uids {
		f.out.Number(uint64(f.relevancy(uid)))
	}
	f.out.End()
}

// relevancy is how well a message fits; one of which nothing fuzzy was asked fits well.
func (f *finding) relevancy(uid mailbox.UID) uint8 {
	if r, ok := f.ranks[uid]; ok {
		return r
	}
	return 100
}
