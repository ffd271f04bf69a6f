package mailbox

import (
	"slices"
	"strings"

	"postroad/internal/store"
)

// AddNamed is Add for a mailbox that the sender has named, as in user+detail: the mailbox of exactly that name, or of that name in
// another case, as addresses are often written; with create, one that is made and subscribed. Where that cannot be, it is INBOX: a
// name that no mailbox can have, too many mailboxes, or one that is not for strangers to write to.
func (s *Service) AddNamed(tx store.Tx, o Owner, detail string, create bool, a Arrival) (Placed, error) {
	return s.Add(tx, o, s.namedBySender(tx, o, detail, create), a)
}

func (s *Service) namedBySender(tx store.Tx, o Owner, detail string, create bool) string {
	name, err := cleanName(detail)
	if err != nil {
		return inbox
	}
	if named(tx, o, name) == 0 {
		if other := inOtherCase(tx, o, name); other != "" {
			name = other
		} else if !create || !s.invite(tx, o, name) {
			return inbox
		}
	}
	if !openTo(tx, o, name) {
		return inbox
	}
	return name
}

// openTo reports whether a mailbox is there and mail from outside may go into it: what is in Sent and Drafts is the owner's own
// work, and what is in Trash is about to go.
func openTo(r store.Reader, o Owner, name string) bool {
	b, err := loadNamed(r, o, name)
	return err == nil && !slices.Contains([]Role{Drafts, Sent, Trash}, b.Role)
}

// inOtherCase returns the first mailbox whose name differs in the case of letters only.
func inOtherCase(r store.Reader, o Owner, name string) string {
	from := ownerNames(o)
	for k := range r.Scan(from, from.End()) {
		if n, _ := store.TakeText(k[len(from):]); strings.EqualFold(n, name) {
			return n
		}
	}
	return ""
}

// invite makes a mailbox that a sender has named, subscribed, if it can be made.
func (s *Service) invite(tx store.Tx, o Owner, name string) bool {
	if _, err := s.createPath(tx, o, name, ""); err != nil {
		return false
	}
	tx.Put(subscriptionKey(o, name), []byte{recordVersion})
	return true
}
