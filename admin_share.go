package postroad

import (
	"context"
	"errors"

	"postroad/internal/account"
	"postroad/internal/control"
	"postroad/internal/envelope"
	"postroad/internal/mailbox"
	"postroad/internal/store"
)

// names tells mailboxes of accounts.
type names struct{ accounts *account.Directory }

// Owner finds an account by its address.
func (n names) Owner(address string) (mailbox.Owner, bool, error) {
	addr, err := envelope.ParseAddress(address)
	if err != nil {
		return 0, false, nil
	}
	a, err := n.accounts.Get(addr)
	if errors.Is(err, account.ErrNotFound) {
		return 0, false, nil
	}
	return mailbox.Owner(a.ID), err == nil, err
}

// Address returns an account's address, or "" when there is none any more.
func (n names) Address(o mailbox.Owner) (string, error) {
	a, err := n.accounts.ByID(account.ID(o))
	if errors.Is(err, account.ErrNotFound) {
		return "", nil
	}
	return a.Address.String(), err
}

// mailboxOptions are what mailboxes have to know of accounts.
func mailboxOptions(d *account.Directory) mailbox.Options {
	return mailbox.Options{
		Quota: func(r store.Reader, o mailbox.Owner) mailbox.Quota {
			return mailbox.Quota(account.QuotaOf(r, account.ID(o)))
		},
		SetQuota: func(o mailbox.Owner, q mailbox.Quota) error { return d.SetQuota(account.ID(o), account.Quota(q)) },
		Admin:    func(r store.Reader, o mailbox.Owner) bool { return account.IsAdmin(r, account.ID(o)) },
	}
}

// words are rights by what people want of them. The letters are those of RFC 4314.
var words = map[string]mailbox.Rights{
	"read": mailbox.RightLookup | mailbox.RightRead | mailbox.RightSeen,
	"write": mailbox.RightLookup | mailbox.RightRead | mailbox.RightSeen | mailbox.RightWrite | mailbox.RightInsert |
		mailbox.RightTrash | mailbox.RightExpunge,
	"all": mailbox.AllRights,
}

// Shares lists who may do what with a mailbox.
func (a *Admin) Shares(ctx context.Context, m control.MailboxName) ([]control.Share, error) {
	access, err := a.access(m.Account)
	if err != nil {
		return nil, err
	}
	grants, err := access.ACL(m.Mailbox)
	list := make([]control.Share, 0, len(grants))
	for _, g := range grants {
		list = append(list, control.Share{With: g.Identifier, Rights: g.Rights.String()})
	}
	return list, adminError(err)
}

// access is that of a mailbox's owner, for whom the administrator acts.
func (a *Admin) access(address string) (*mailbox.Access, error) {
	owner, _, err := a.owner(address)
	return a.c.Mailboxes.For(owner, names{a.c.Accounts}), err
}

// ShareMailbox says what somebody else may do with a mailbox.
func (a *Admin) ShareMailbox(ctx context.Context, s control.ShareMailbox) (control.Share, error) {
	access, err := a.access(s.Account)
	if err != nil {
		return control.Share{}, err
	}
	rights, ok := words[s.Rights]
	if !ok {
		if rights, err = mailbox.ParseRights(s.Rights); err != nil {
			return control.Share{}, adminError(err)
		}
	}
	if rights == 0 {
		return control.Share{With: s.With}, adminError(access.DeleteACL(s.Mailbox, s.With))
	}
	return control.Share{With: s.With, Rights: rights.String()}, adminError(access.SetACL(s.Mailbox, s.With, 0, rights))
}
