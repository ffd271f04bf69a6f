package postroad

import (
	"context"

	"postroad/imapd"
	"postroad/internal/account"
	"postroad/internal/control"
	"postroad/internal/mailbox"
	"postroad/internal/store"
)

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
	return a.c.Mailboxes.For(owner, imapd.Names{Accounts: a.c.Accounts}), err
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
