package imapd

import (
	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// replace is REPLACE: an APPEND and the expunge of one message at once (RFC 8508, 3). The APPENDUID comes before the
// message is told to be gone.
func (s *session) replace(c *wire.Replace) reply {
	sel, err := s.writable(mailbox.RightTrash | mailbox.RightExpunge)
	if err != nil {
		return s.refuse("replace the message", err)
	}
	uid, err := s.one(c)
	if err != nil {
		return s.refuse("replace the message", err)
	}
	to, err := s.destination(c.Mailbox)
	if err != nil {
		return s.refuse("replace the message", err)
	}
	old, err := s.srv.Mailboxes.Message(sel.id, uid)
	if err != nil {
		return s.refuse("replace the message", err)
	}
	in := &incoming{session: s, to: to}
	if sel.mailbox.Owner == to.Owner {
		in.freed = old.Size
	}
	defer in.discard()
	if err := in.receiveAll(); err != nil {
		return s.notReceived(err)
	}
	placed, err := in.commit(&mailbox.Replaced{Mailbox: sel.id, UID: uid})
	if err != nil {
		return s.refuse("replace the message", err)
	}
	if code := appended(to, placed); code != "" {
		s.out.Raw("* OK [").Raw(code).Raw("] in its place").CRLF()
	}
	return s.upToDate()
}

// one returns the message that is to be replaced.
func (s *session) one(c *wire.Replace) (mailbox.UID, error) {
	uids, err := s.resolve(wire.Set{Ranges: []wire.Range{{From: c.Number, To: c.Number}}}, c.UID)
	if err != nil {
		return 0, err
	}
	if uids.IsEmpty() {
		return 0, no(codeNonExistent, "there is no such message")
	}
	return uids.Minimum(), nil
}
