package postroad

import (
	"cmp"
	"time"

	"postroad/internal/account"
	"postroad/internal/mailbox"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/smtpd"
)

// sentCopy is the copy that an account keeps of a message that it sends.
type sentCopy struct {
	*mailbox.SentCopy
	id      account.ID
	owner   string // the account's address, for the trace
	now     func() time.Time
	missing error // why the last Put has put nothing
}

// sentCopy begins a copy, for smtpd.
func (h *house) sentCopy(a account.Account) smtpd.SentCopy {
	return &sentCopy{SentCopy: h.mailboxes.SentCopy(mailbox.Owner(a.ID)), id: a.ID, owner: a.Address.String(), now: h.now}
}

// Put adds the copy, unless the account is gone or has no room for it.
func (c *sentCopy) Put(tx store.Tx, body store.ID) error {
	if !account.Exists(tx, c.id) {
		c.missing = account.ErrNotFound
		return nil
	}
	placed, missing, err := c.SentCopy.Put(tx, body)
	if c.missing = missing; cmp.Or(err, missing) != nil {
		return err
	}
	trace.Record(tx, body, trace.Event{
		Time: c.now(), Kind: trace.Saved, To: []string{c.owner}, Mailbox: c.owner + " " + placed.Name, UID: placed.UID,
	})
	return nil
}

// Missing is why there is no copy.
func (c *sentCopy) Missing() error { return c.missing }
