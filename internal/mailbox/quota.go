package mailbox

import (
	"errors"
	"fmt"

	"postroad/internal/store"
)

// Quota is how much an owner's mailboxes hold, or may hold; as a limit, 0 is no limit.
type Quota struct {
	Octets   int64
	Messages int64
}

// QuotaUse is a quota root: what may be held and what is held there (RFC 9208).
type QuotaUse struct {
	Root        string // the owner's address
	Limit, Used Quota
}

// limit returns what an owner may hold.
func (s *Service) limit(r store.Reader, o Owner) Quota {
	if s.o.Quota == nil {
		return Quota{}
	}
	return s.o.Quota(r, o)
}

// fits says ErrOverQuota when an owner may not have more. What does not grow fits.
func (s *Service) fits(r store.Reader, o Owner, more Quota) error {
	limit := s.limit(r, o)
	if limit == (Quota{}) {
		return nil
	}
	u, err := loadUsage(r, o)
	switch {
	case err != nil:
		return err
	case limit.Octets > 0 && more.Octets > 0 && u.octets+more.Octets > limit.Octets:
		return fmt.Errorf("%w: %d of %d octets are used, and this needs %d", ErrOverQuota, u.octets, limit.Octets, more.Octets)
	case limit.Messages > 0 && more.Messages > 0 && u.messages+more.Messages > limit.Messages:
		return fmt.Errorf("%w: there are %d of %d messages, and this adds %d", ErrOverQuota, u.messages, limit.Messages, more.Messages)
	}
	return nil
}

// QuotaUse returns what an owner holds and may hold; without a root's name.
func (s *Service) QuotaUse(o Owner) (q QuotaUse, err error) {
	err = s.st.View(func(r store.Reader) error {
		u, err := loadUsage(r, o)
		q.Limit, q.Used = s.limit(r, o), Quota{u.octets, u.messages}
		return err
	})
	return q, err
}

// QuotaRoot returns the root that a mailbox counts against: its owner's address. A name of the account's own need not
// exist; another's takes the right to read it. ErrNotFound, ErrRights.
func (a *Access) QuotaRoot(name string) (string, error) {
	p, err := a.find(name)
	if err == nil && p.owner != a.owner {
		_, err = a.Mailbox(name, RightRead)
	}
	if err != nil {
		return "", err
	}
	return a.names.Address(p.owner)
}

// Quota returns a root's state: of the account's own, of one in which it may read a mailbox, and for an administrator of
// any. ErrNotFound.
func (a *Access) Quota(root string) (QuotaUse, error) {
	o, err := a.quotaOwner(root)
	if err != nil {
		return QuotaUse{}, err
	}
	q, err := a.s.QuotaUse(o)
	if err == nil {
		q.Root, err = a.names.Address(o)
	}
	return q, err
}

// quotaOwner returns whose root it is, when the account may know.
func (a *Access) quotaOwner(root string) (Owner, error) {
	o, ok, err := a.names.Owner(root)
	if err != nil {
		return 0, err
	}
	if !ok {
		o = 0
	}
	may := o == a.owner
	err = a.s.st.View(func(r store.Reader) (err error) {
		if !may {
			may, err = a.readsOf(r, o)
		}
		may = may || o != 0 && a.s.admin(r, a.owner)
		return err
	})
	if err == nil && !may {
		err = fmt.Errorf("%w: there is no quota root %q", ErrNotFound, root)
	}
	return o, err
}

// readsOf reports whether the account may read one of an owner's mailboxes.
func (a *Access) readsOf(r store.Reader, o Owner) (bool, error) {
	for _, who := range []Owner{a.owner, anyone} {
		for _, ref := range grantRefsOf(r, who, o) {
			l, err := loadACL(r, ref.owner, ref.id)
			if err != nil || l.rights(a.owner, o).Has(RightRead) {
				return err == nil, err
			}
		}
	}
	return false, nil
}

func (s *Service) admin(r store.Reader, o Owner) bool { return s.o.Admin != nil && s.o.Admin(r, o) }

// SetQuota changes what an owner may hold; it is for administrators. ErrNotFound, ErrRights.
func (a *Access) SetQuota(root string, limit Quota) error {
	o, err := a.quotaOwner(root)
	if err != nil {
		return err
	}
	var may bool
	err = a.s.st.View(func(r store.Reader) error {
		may = a.s.admin(r, a.owner)
		return nil
	})
	if err == nil && (!may || a.s.o.SetQuota == nil) {
		err = fmt.Errorf("%w: quotas are set by administrators", ErrRights)
	}
	if err != nil {
		return err
	}
	if limit.Octets < 0 || limit.Messages < 0 {
		return errors.New("a quota is 0 or more")
	}
	return a.s.o.SetQuota(o, limit)
}
