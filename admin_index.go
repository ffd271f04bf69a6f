package postroad

import (
	"context"
	"iter"

	"postroad/internal/account"
	"postroad/internal/control"
	"postroad/internal/mailbox"
)

// Index tells how far the full-text index of each mailbox is.
func (a *Admin) Index(ctx context.Context, address string) iter.Seq2[control.IndexedMailbox, error] {
	return func(yield func(control.IndexedMailbox, error) bool) {
		for m, err := range a.indexed(ctx, address) {
			if !yield(m.IndexedMailbox, adminError(err)) || err != nil {
				return
			}
		}
	}
}

// RebuildIndex makes the full-text index of mailboxes again.
func (a *Admin) RebuildIndex(ctx context.Context, address string, progress func(control.Progress)) (control.Reindexed, error) {
	var done control.Reindexed
	for m, err := range a.indexed(ctx, address) {
		if err != nil {
			return done, adminError(err)
		}
		if progress != nil {
			progress(control.Progress{What: m.Account + " " + m.Mailbox})
		}
		if err := a.c.Mailboxes.Reindex(ctx, m.id); err != nil {
			return done, adminError(err)
		}
		st, err := a.c.Mailboxes.IndexStatus(m.id)
		if err != nil {
			return done, adminError(err)
		}
		done.Mailboxes++
		done.Indexed += st.Indexed
		done.IndexOctets += st.Size
	}
	return done, nil
}

// indexedMailbox is a mailbox with its id.
type indexedMailbox struct {
	control.IndexedMailbox
	id mailbox.ID
}

// indexed lists the mailboxes of an account, or of all when address is empty.
func (a *Admin) indexed(ctx context.Context, address string) iter.Seq2[indexedMailbox, error] {
	return func(yield func(indexedMailbox, error) bool) {
		accounts, err := a.accountsOf(address)
		if err != nil {
			yield(indexedMailbox{}, err)
			return
		}
		for _, acct := range accounts {
			boxes, err := a.c.Mailboxes.List(mailbox.Owner(acct.ID))
			if err != nil {
				yield(indexedMailbox{}, err)
				return
			}
			for _, b := range boxes {
				if m, err := a.indexedMailbox(ctx, acct, b); !yield(m, err) || err != nil {
					return
				}
			}
		}
	}
}

func (a *Admin) indexedMailbox(ctx context.Context, acct account.Account, b mailbox.Mailbox) (indexedMailbox, error) {
	st, err := a.c.Mailboxes.IndexStatus(b.ID)
	if err == nil {
		err = ctx.Err()
	}
	return indexedMailbox{id: b.ID, IndexedMailbox: control.IndexedMailbox{
		Account: acct.Address.String(), Mailbox: b.Name,
		Messages: st.Messages, Octets: st.Octets, Indexed: st.Indexed, Blocks: st.Blocks, IndexOctets: st.Size,
	}}, err
}

// accountsOf returns the account of an address, or all.
func (a *Admin) accountsOf(address string) ([]account.Account, error) {
	if address == "" {
		return a.c.Accounts.Accounts("")
	}
	_, acct, err := a.owner(address)
	return []account.Account{acct}, err
}
