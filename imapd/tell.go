package imapd

import (
	"errors"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// tell brings the client up to date (RFC 9051, 5.2): what is expunged, if expunge allows it, how many messages there
// are, and new flags; after NOTIFY what that asked for. What cannot be read now is told another time.
func (s *session) tell(expunge bool) {
	if s.sel != nil && !s.sel.gone {
		s.tellSelected(expunge, s.selectedEvents())
	}
	s.tellNotices()
}

// tellSelected brings the client up to date with the selected mailbox, as far as it wants to know.
func (s *session) tellSelected(expunge bool, wanted events) {
	if !wanted.messages {
		return
	}
	err := s.follow(expunge, wanted.fetch)
	if !wanted.flags {
		s.sel.changed = nil
	}
	if err == nil {
		err = s.tellNoted()
	}
	if err == nil {
		err = s.tellUpdates()
	}
	if err != nil {
		s.log().Error("cannot read what changed in a mailbox", "mailbox", s.sel.id, "err", err)
		return
	}
	s.sel.own = own{}
	if s.sel.held && s.enabled.has(qresync) { // what was told is not all up to its modseq (RFC 7162, 3.2 and 6)
		s.tellHighest("expunged messages are not told yet")
	}
}

// followModSeqs has the client told of modseqs from now on. The first command that asks for that learns how far the
// selected mailbox is (RFC 7162, 3.1).
func (s *session) followModSeqs() {
	if s.enabled.has(condStore) {
		return
	}
	s.enabled |= condStore
	if s.sel != nil && !s.sel.gone {
		s.tellHighest("modseqs are told from now on")
	}
}

// tellHighest tells the modseq up to which the client has heard of everything in the selected mailbox (RFC 7162, 3.1.2.1).
func (s *session) tellHighest(why string) {
	s.out.Raw("* OK [HIGHESTMODSEQ ").Number(s.sel.view.Told()).Raw("] ").Raw(why).CRLF()
}

// follow brings the view up to date. What is expunged and how many messages there are is told at once, with what is to
// be fetched of new ones; new flags are noted.
func (s *session) follow(expunge bool, fetch []wire.FetchItem) error {
	if !s.stillAllowed() {
		return nil
	}
	if !s.stale.Swap(false) && !(expunge && s.sel.held) {
		return nil // nothing was committed since
	}
	before := s.known()
	c, err := s.sel.view.Sync(expunge)
	switch {
	case err != nil:
		s.stale.Store(true)
		return err
	case c.Removed:
		s.conn.bye(removed)
		return nil
	}
	s.sel.held = c.Held
	s.tellRemoved(c.Expunged, before)
	s.tellExpunged(c.Expunged)
	s.sel.note(c.Flags)
	s.sel.noteUpdates(c.New, c.Flags)
	if !c.New.IsEmpty() {
		s.tellCount()
		if err := s.fetchNew(c.New, fetch); err != nil {
			return err
		}
	}
	return nil
}

// stillAllowed reports whether the client may know what happens in the selected mailbox. When it is somebody else's and
// may not be read any more, the session ends (RFC 4314, 5.2 leaves it open).
func (s *session) stillAllowed() bool {
	_, err := s.selection()
	if errors.Is(err, mailbox.ErrRights) || errors.Is(err, mailbox.ErrNotFound) {
		s.conn.bye("you have no right any more to read the selected mailbox")
		return false
	}
	return true
}

// tellExpunged tells of messages that are no longer in the view. All that came after them have greater UIDs, so the
// number of a message at the time is one more than the number of those below it that remain.
func (s *session) tellExpunged(expunged *roaring.Bitmap) {
	if expunged.IsEmpty() {
		return
	}
	if s.enabled.has(qresync | uidOnly) {
		s.out.Raw("* VANISHED ").Set(expunged).CRLF()
		return
	}
	for it := expunged.Iterator(); it.HasNext(); {
		s.out.Raw("* ").Number(s.known().Rank(it.Next()) + 1).Raw(" EXPUNGE").CRLF()
	}
}

// tellCount tells how many messages there are, and how many of them are recent when that is not what was last told.
func (s *session) tellCount() {
	s.out.Raw("* ").Number(s.known().GetCardinality()).Raw(" EXISTS").CRLF()
	if n := s.sel.view.Recent().GetCardinality(); n != s.sel.recent {
		s.sel.recent = n
		s.tellRecent()
	}
}

// tellRecent tells how many messages are recent, which only IMAP4rev1 knows (RFC 3501, 7.3.2).
func (s *session) tellRecent() {
	if !s.enabled.has(rev2) {
		s.out.Raw("* ").Number(s.sel.recent).Raw(" RECENT").CRLF()
	}
}

// note adds messages whose flags are to be told.
func (sel *selected) note(changed *roaring.Bitmap) {
	if sel.changed == nil {
		sel.changed = changed
	} else {
		sel.changed.Or(changed)
	}
}

// tellNoted tells the flags that follow noted, but for those that the client knows of, since it set them.
func (s *session) tellNoted() error {
	if s.sel.changed == nil || s.sel.changed.IsEmpty() {
		return nil
	}
	s.tellKeywords()
	err := s.tellChanged(s.sel.changed, s.sel.own.made)
	if err == nil {
		s.sel.changed = nil
	}
	return err
}

// tellChanged tells the flags of messages; but not of those for which but, if not nil, is true. One that has changed since
// the view followed has a modseq beyond that of changes which the client was not told of: it is told no more than the view's,
// since a client may take it for the one up to which it has heard everything. The message will be told once more.
func (s *session) tellChanged(changed *roaring.Bitmap, but func(*mailbox.Message) bool) error {
	if changed.IsEmpty() {
		return nil // and not all
	}
	seqs := newSequence(s.known())
	for item, err := range s.srv.Mailboxes.Read(s.sel.id, changed, 0) {
		if err != nil {
			return err
		}
		m := item.Message
		if seq := seqs.of(m.UID); seq != 0 && (but == nil || !but(&m)) {
			m.ModSeq = min(m.ModSeq, s.sel.view.ModSeq())
			s.tellFlags(seq, &m, s.rules != nil) // RFC 5465, 5.1
		}
	}
	return nil
}

// tellFlags tells the flags of a message, with what the client wants to know besides (RFC 7162, 3.1.4 and 3.2.4).
func (s *session) tellFlags(seq uint32, m *mailbox.Message, withUID bool) {
	s.changeBegin(seq, m.UID, withUID)
	s.fetchFlags(m, s.recent().Contains(m.UID))
	if s.enabled.has(condStore) {
		s.fetchModSeq(m)
	}
	s.out.End().CRLF()
}

// changeBegin begins a response that tells of a change. A client that is told of modseqs is told the UID, too (RFC 7162,
// 3.2.4); with UIDONLY it stands there already.
func (s *session) changeBegin(seq uint32, uid mailbox.UID, withUID bool) {
	s.fetchBegin(seq, uid, (withUID || s.enabled.has(condStore)) && !s.enabled.has(uidOnly))
}

// fetchBegin begins a FETCH response, or with UIDONLY a UIDFETCH (RFC 9586, 3.3), as far as the first item.
func (s *session) fetchBegin(seq uint32, uid mailbox.UID, withUID bool) {
	if s.enabled.has(uidOnly) {
		s.out.Raw("* ").Number(uint64(uid)).Raw(" UIDFETCH ").Begin()
	} else {
		s.out.Raw("* ").Number(uint64(seq)).Raw(" FETCH ").Begin()
	}
	if withUID {
		s.out.Atom("UID").Number(uint64(uid))
	}
}

// recent are the messages that are \Recent to the client, which are none but for IMAP4rev1. Not to be changed.
func (s *session) recent() *roaring.Bitmap {
	if s.enabled.has(rev2) {
		return roaring.New()
	}
	return s.sel.view.Recent()
}

// fetchFlags adds a message's flags to a FETCH response.
func (s *session) fetchFlags(m *mailbox.Message, recent bool) {
	s.out.Atom("FLAGS").Begin()
	for _, f := range m.Flags {
		s.out.Atom(f)
	}
	if recent {
		s.out.Atom(`\Recent`)
	}
	s.out.End()
}

// fetchModSeq adds a message's modseq to a FETCH response (RFC 7162, 3.1.4.2).
func (s *session) fetchModSeq(m *mailbox.Message) {
	s.out.Atom("MODSEQ").Begin().Number(m.ModSeq).End()
}

// tellKeywords tells of keywords that the mailbox did not have when they were last told. It comes before messages
// that have them.
func (s *session) tellKeywords() {
	words, err := s.srv.Mailboxes.Keywords(s.sel.id)
	if err != nil || len(words) == s.sel.keywords {
		return // told when it can be read
	}
	s.sel.keywords = len(words)
	s.tellFlagNames(words)
	s.tellPermanentFlags(words)
}

// own are the flag changes that the session made itself and that its client knows of.
type own struct {
	changed *roaring.Bitmap // nil for none
	modSeqs []uint64        // what they have got, rising
}

// note adds a change.
func (o *own) note(done *mailbox.Stored) {
	if o.changed == nil {
		o.changed = roaring.New()
	}
	o.changed.Or(done.Changed)
	o.modSeqs = append(o.modSeqs, done.ModSeqs...)
}

// made reports whether m is as this session left it.
func (o *own) made(m *mailbox.Message) bool {
	_, mine := slices.BinarySearch(o.modSeqs, m.ModSeq)
	return mine && o.changed.Contains(m.UID)
}
