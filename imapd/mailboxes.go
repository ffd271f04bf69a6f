package imapd

import (
	"errors"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// create is CREATE (RFC 9051, 6.3.4; RFC 6154, 3; RFC 8474, 4.1). The mailboxes above it are made too.
func (s *session) create(c *wire.Create) reply {
	role, err := mailbox.ParseRole(c.Use)
	if err != nil {
		return no(codeUseAttr, "that special use is not to be had here")
	}
	m, err := s.access.Create(c.Mailbox, role)
	if err != nil {
		return s.refuse("create the mailbox", err)
	}
	s.tellOldName(m.Name, c.Mailbox)
	return ok("MAILBOXID ("+mailboxObject(m.ID)+")", "")
}

// tellOldName tells a client of IMAP4rev2 that a mailbox has another name than it gave or knew (RFC 9051, 6.3.4 and 6.3.9.7).
func (s *session) tellOldName(name, old string) {
	if name != old {
		s.tellName(name, old)
	}
}

// tellName tells a client of IMAP4rev2 the name of a mailbox, and which it gave or knew when that was another.
func (s *session) tellName(name, old string) {
	if !s.enabled.has(rev2) {
		return
	}
	s.out.Raw(`* LIST () "/" `).Mailbox(name)
	if name != old {
		s.out.Raw(` ("OLDNAME" (`).Mailbox(old).Raw("))")
	}
	s.out.CRLF()
}

// remove is DELETE (RFC 9051, 6.3.5). Mailboxes below it stay.
func (s *session) remove(c *wire.Mailbox) reply {
	m, err := s.access.Mailbox(c.Name, mailbox.RightDelete)
	if err == nil || errors.Is(err, mailbox.ErrNotFound) { // which may be a name with mailboxes below it
		err = s.access.Remove(s.ctx, c.Name)
	}
	if err == nil && s.sel != nil && s.sel.id == m.ID {
		s.sel.gone = true
	}
	return s.refuse("delete the mailbox", err)
}

// rename is RENAME (RFC 9051, 6.3.6). Those below it go with it.
func (s *session) rename(c *wire.Rename) reply {
	err := s.access.Rename(s.ctx, c.From, c.To)
	if err != nil {
		return s.refuse("rename the mailbox", err)
	}
	if m, err := s.access.Mailbox(c.To, 0); err == nil {
		s.tellOldName(m.Name, c.From)
	}
	return reply{}
}

// subscribe is SUBSCRIBE (RFC 9051, 6.3.7), whether or not there is a mailbox.
func (s *session) subscribe(c *wire.Mailbox) reply {
	return s.refuse("subscribe", s.access.Subscribe(c.Name, true))
}

// unsubscribe is UNSUBSCRIBE (RFC 9051, 6.3.8).
func (s *session) unsubscribe(c *wire.Mailbox) reply {
	return s.refuse("unsubscribe", s.access.Subscribe(c.Name, false))
}

// namespace is NAMESPACE (RFC 9051, 6.3.10): the account's own mailboxes, and those that others share with it.
func (s *session) namespace() reply {
	s.out.Raw(`* NAMESPACE (("" "/")) ((`).Quoted(mailbox.OthersPrefix).Raw(` "/")) NIL`).CRLF()
	return reply{}
}

// statusOf is STATUS (RFC 9051, 6.3.11).
func (s *session) statusOf(c *wire.Status) reply {
	m, err := s.access.Mailbox(c.Mailbox, mailbox.RightRead)
	if err == nil {
		if c.Items&wire.StatusHighestModSeq != 0 {
			s.followModSeqs()
		}
		err = s.tellStatus(c.Mailbox, &m, c.Items)
	}
	return s.refuse("count the mailbox", err)
}

// A statusItem is an item of STATUS, and how it is counted.
type statusItem struct {
	item  wire.StatusItems
	name  string
	value func(*session, *mailbox.Mailbox) (uint64, error)
}

// counted makes the value of an item of what every Mailbox has.
func counted(value func(*mailbox.Mailbox) uint64) func(*session, *mailbox.Mailbox) (uint64, error) {
	return func(_ *session, m *mailbox.Mailbox) (uint64, error) { return value(m), nil }
}

// statusItems are the items whose values are numbers (RFC 9051, 6.3.11; RFC 3501, 6.3.10; RFC 7162, 3.1.7; RFC 7889, 5; RFC
// 9208, 5.2).
var statusItems = [...]statusItem{
	{wire.StatusMessages, "MESSAGES", counted(func(m *mailbox.Mailbox) uint64 { return uint64(m.Messages) })},
	{wire.StatusRecent, "RECENT", (*session).recentCount},
	{wire.StatusUIDNext, "UIDNEXT", counted(func(m *mailbox.Mailbox) uint64 { return uint64(m.UIDNext) })},
	{wire.StatusUIDValidity, "UIDVALIDITY", counted(func(m *mailbox.Mailbox) uint64 { return uint64(m.UIDValidity) })},
	{wire.StatusUnseen, "UNSEEN", counted(func(m *mailbox.Mailbox) uint64 { return uint64(m.Unseen) })},
	{wire.StatusDeleted, "DELETED", counted(func(m *mailbox.Mailbox) uint64 { return uint64(m.Deleted) })},
	{wire.StatusSize, "SIZE", counted(func(m *mailbox.Mailbox) uint64 { return uint64(m.Octets) })},
	{wire.StatusHighestModSeq, "HIGHESTMODSEQ", counted(func(m *mailbox.Mailbox) uint64 { return m.ModSeq })},
	{wire.StatusAppendLimit, "APPENDLIMIT", (*session).appendLimit},
	{wire.StatusDeletedStorage, "DELETED-STORAGE", (*session).reclaimable},
}

// tellStatus tells of a mailbox what was asked.
func (s *session) tellStatus(name string, m *mailbox.Mailbox, items wire.StatusItems) error {
	var values [len(statusItems)]uint64
	for i, it := range statusItems { // before the response begins: an error must not leave half of one
		if items&it.item != 0 {
			var err error
			if values[i], err = it.value(s, m); err != nil {
				return err
			}
		}
	}
	s.out.Raw("* STATUS ").Mailbox(name).Begin()
	for i, it := range statusItems {
		if items&it.item != 0 {
			s.out.Atom(it.name).Number(values[i])
		}
	}
	if items&wire.StatusMailboxID != 0 {
		s.out.Atom("MAILBOXID").Begin().Atom(mailboxObject(m.ID)).End()
	}
	s.out.End().CRLF()
	return nil
}

func (s *session) recentCount(m *mailbox.Mailbox) (uint64, error) {
	n, err := s.srv.Mailboxes.RecentCount(m.ID)
	return uint64(n), err
}

func (s *session) appendLimit(*mailbox.Mailbox) (uint64, error) {
	return uint64(s.srv.Limits.MessageSize), nil
}

// reclaimable is how many octets EXPUNGE would free (RFC 9208, 5.2).
func (s *session) reclaimable(m *mailbox.Mailbox) (octets uint64, err error) {
	if m.Deleted == 0 {
		return 0, nil
	}
	deleted, err := s.srv.Mailboxes.Set(m.ID, `\Deleted`)
	if err != nil {
		return 0, err
	}
	for msg, err := range s.srv.Mailboxes.Messages(m.ID, deleted) {
		if err != nil {
			return 0, err
		}
		octets += uint64(msg.Size)
	}
	return octets, nil
}
