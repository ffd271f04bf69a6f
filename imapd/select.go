package imapd

import (
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// selectMailbox is SELECT (RFC 9051, 6.3.2).
func (s *session) selectMailbox(c *wire.Select) reply { return s.open(c, false) }

// examine is EXAMINE (RFC 9051, 6.3.3).
func (s *session) examine(c *wire.Select) reply { return s.open(c, true) }

// open opens a mailbox. Whatever comes of it, the one before is closed. Who has no right that changes anything
// gets it read-only (RFC 4314, 5.2).
func (s *session) open(c *wire.Select, readOnly bool) reply {
	if r := s.mayResync(c.QResync); r != (reply{}) {
		return r
	}
	if s.sel != nil {
		s.unselect()
		s.out.Raw("* OK [CLOSED] the mailbox before is closed").CRLF()
	}
	mb, err := s.access.Mailbox(c.Mailbox, mailbox.RightRead)
	if err != nil {
		return s.refuse("open the mailbox", err)
	}
	if c.CondStore || c.QResync != nil {
		s.followModSeqs()
	}
	readOnly = readOnly || !mb.Rights.Writable()
	words, err := s.view(mb, readOnly)
	if err == nil {
		err = s.describe(words, c.Mailbox)
	}
	if err == nil {
		err = s.resync(c.QResync)
	}
	if err != nil {
		s.unselect()
		return s.refuse("open the mailbox", err)
	}
	if readOnly {
		return ok("READ-ONLY", "")
	}
	return ok("READ-WRITE", "")
}

// mayResync refuses QRESYNC to a client that has not enabled it (RFC 7162, 3.2.5), and message numbers in it to one
// that wants none (RFC 9586, 3.3).
func (s *session) mayResync(q *wire.QResync) reply {
	switch {
	case q == nil:
		return reply{}
	case !s.enabled.has(qresync):
		return bad(codeClientBug, "ENABLE QRESYNC comes first")
	case s.enabled.has(uidOnly) && len(q.SeqMatch.Ranges) > 0:
		return uidRequired()
	}
	return reply{}
}

// resync tells what happened since the client was here last: first what is expunged, then what is changed or new
// (RFC 7162, 3.2.5). All that was ever expunged is remembered, so that the message numbers that a client may offer
// need not narrow it (3.2.5.2). What happens while this is told is told after it.
func (s *session) resync(q *wire.QResync) error {
	if q == nil || q.UIDValidity != s.sel.mailbox.UIDValidity {
		return nil
	}
	once := all(q.Known, s.sel.mailbox.UIDNext)
	gone, err := s.srv.Mailboxes.Vanished(s.sel.id, q.ModSeq, once)
	if err != nil {
		return err
	}
	gone.AndNot(s.known())
	s.tellEarlier(gone)
	changed, err := s.srv.Mailboxes.ChangedSince(s.sel.id, q.ModSeq, roaring.And(once, s.known()))
	if err != nil {
		return err
	}
	return s.tellChanged(changed, nil)
}

// tellEarlier tells of messages that were expunged before the mailbox was opened, or before anybody asked
// (RFC 7162, 3.2.10).
func (s *session) tellEarlier(gone *roaring.Bitmap) {
	if !gone.IsEmpty() {
		s.out.Raw("* VANISHED (EARLIER) ").Set(gone).CRLF()
	}
}

// view opens the view of a mailbox, and returns the keywords that it has had.
func (s *session) view(mb mailbox.Mailbox, readOnly bool) ([]string, error) {
	s.stale.Store(false)
	view, now, err := s.srv.Mailboxes.View(mb.ID, mailbox.ViewOptions{Recent: !readOnly, Changed: s.changed})
	if err != nil {
		return nil, err
	}
	words, err := s.srv.Mailboxes.Keywords(mb.ID)
	if err != nil {
		view.Close()
		return nil, err
	}
	now.Name, now.Rights = mb.Name, mb.Rights
	s.sel = &selected{view: view, id: mb.ID, readOnly: readOnly, keywords: len(words), mailbox: now}
	return words, nil
}

// describe tells of the mailbox that was opened, by a name that may be another than its own (RFC 9051, 6.3.2; RFC 3501,
// 6.3.1; RFC 7162, 3.1.2; RFC 8474, 4.2).
func (s *session) describe(words []string, asked string) error {
	unseen, err := s.firstUnseen()
	if err != nil {
		return err
	}
	mb := &s.sel.mailbox
	s.tellFlagNames(words)
	s.tellPermanentFlags(words)
	s.out.Raw("* ").Number(s.known().GetCardinality()).Raw(" EXISTS").CRLF()
	s.sel.recent = s.sel.view.Recent().GetCardinality()
	s.tellRecent()
	if unseen != 0 {
		s.out.Raw("* OK [UNSEEN ").Number(unseen).Raw("] the first message that is not seen").CRLF()
	}
	s.out.Raw("* OK [UIDVALIDITY ").Number(uint64(mb.UIDValidity)).Raw("] UIDs are valid").CRLF()
	s.out.Raw("* OK [UIDNEXT ").Number(uint64(mb.UIDNext)).Raw("] the next UID").CRLF()
	s.tellHighest("the highest modseq")
	s.out.Raw("* OK [MAILBOXID (").Raw(mailboxObject(mb.ID)).Raw(")] the mailbox's id").CRLF()
	s.tellName(mb.Name, asked)
	return nil
}

// firstUnseen is the number of the first message without \Seen, which IMAP4rev1 wants to know; 0 is none.
func (s *session) firstUnseen() (uint64, error) {
	if s.enabled.has(rev2 | uidOnly) {
		return 0, nil
	}
	uid, err := s.srv.Mailboxes.FirstUnseen(s.sel.id)
	if err != nil || !s.known().Contains(uid) {
		return 0, err
	}
	return s.known().Rank(uid), nil
}

// tellPermanentFlags tells which flags the client may change.
func (s *session) tellPermanentFlags(words []string) {
	text := "flags that you can change"
	may := s.permanentFlags(words)
	if may == "" {
		text = "you can change no flags"
	}
	s.out.Raw("* OK [PERMANENTFLAGS (").Raw(may).Raw(")] ").Raw(text).CRLF()
}

// permanentFlags are the flags that the client may change, by its rights (RFC 4314, 5.1.1).
func (s *session) permanentFlags(words []string) string {
	if s.sel.readOnly {
		return ""
	}
	var may []string
	for _, f := range flagNames(words) {
		if s.sel.mailbox.Rights.Has(mailbox.OfFlag(f)) {
			may = append(may, f)
		}
	}
	if s.sel.mailbox.Rights.Has(mailbox.RightWrite) && len(words) < s.srv.Mailboxes.MaxKeywords() {
		may = append(may, `\*`)
	}
	return strings.Join(may, " ")
}

// tellFlagNames tells which flags messages in the mailbox may have.
func (s *session) tellFlagNames(words []string) {
	s.out.Raw("* FLAGS ").Flags(flagNames(words)).CRLF()
}

// flagNames are the system flags and the keywords.
func flagNames(words []string) []string {
	return append([]string{`\Answered`, `\Flagged`, `\Deleted`, `\Seen`, `\Draft`}, words...)
}

// unselect closes the selected mailbox, if there is one.
func (s *session) unselect() {
	if s.sel != nil {
		s.sel.view.Close()
		s.sel = nil
	}
}

// unselectMailbox is UNSELECT (RFC 9051, 6.4.2).
func (s *session) unselectMailbox() reply {
	s.unselect()
	return reply{}
}

// closeMailbox is CLOSE (RFC 9051, 6.4.1): as UNSELECT, but the messages with \Deleted are removed and nothing is
// told of it. Who may not remove them closes the mailbox all the same (RFC 4314, 4).
func (s *session) closeMailbox() reply {
	if sel, err := s.writable(mailbox.RightExpunge); err == nil {
		if _, err := s.srv.Mailboxes.Expunge(s.ctx, sel.id, nil); err != nil {
			return s.refuse("expunge messages", err)
		}
	}
	s.unselect()
	return reply{}
}

// selection returns the selected mailbox, or why the command cannot be done. The rights to somebody else's may have
// been taken away since.
func (s *session) selection() (sel *selected, err error) {
	if s.sel == nil || s.sel.gone {
		return nil, no(codeNonExistent, removed)
	}
	if s.sel.mailbox.Owner != s.owner {
		_, err = s.access.Check(s.sel.id, mailbox.RightRead)
	}
	return s.sel, err
}

// writable is selection for commands that change the mailbox, and need rights for it.
func (s *session) writable(need mailbox.Rights) (*selected, error) {
	sel, err := s.selection()
	if err == nil && sel.readOnly {
		err = no("READ-ONLY", "the mailbox is open for reading only")
	}
	if err == nil {
		_, err = s.access.Check(sel.id, need)
	}
	return sel, err
}
