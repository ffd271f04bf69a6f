package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/spool"
)

// Mail of an account to an address that has refused its mail for good is not handed to its destination: it is returned
// at once.

// suppressions returns what keeps each recipient from its destination, nil for nothing; none at all when that is so for all.
// It looks into the store once, or not at all.
func (r *Runner) suppressions(due []spool.Due) []*account.Suppression {
	if !slices.ContainsFunc(due, func(d spool.Due) bool { return ownSend(&d) }) {
		return nil
	}
	var all []*account.Suppression
	err := r.cfg.Store.View(func(tx store.Reader) error {
		all = nil
		for i := range due {
			s, ok := r.suppression(tx, &due[i])
			if ok && all == nil {
				all = make([]*account.Suppression, len(due))
			}
			if ok {
				all[i] = &s
			}
		}
		return nil
	})
	if err != nil { // the store has worse troubles, which others meet
		r.cfg.Log.Error("the suppression lists cannot be read", "err", err)
	}
	return all
}

func isLocal(d *spool.Due) bool { return d.Recipient.Here() }

// ownSend reports whether an account of ours sends the message to this very address: not to one that forwards to it.
func ownSend(d *spool.Due) bool {
	return d.Message.Origin.Account != "" && d.Recipient.Via.IsZero() && !isLocal(d)
}

func (r *Runner) suppression(tx store.Reader, d *spool.Due) (account.Suppression, bool) {
	if !ownSend(d) {
		return account.Suppression{}, false
	}
	id, ok := account.IDOf(tx, d.Message.Origin.Account)
	if !ok {
		return account.Suppression{}, false
	}
	return account.Suppressed(tx, id, d.Recipient.To, r.cfg.Now())
}

// returnSuppressed settles those that are suppressed, and returns those of the others that are local.
func (r *Runner) returnSuppressed(ctx context.Context, due []spool.Due) (rest []spool.Due) {
	why := r.suppressions(due)
	var outcomes []outcome
	for i, d := range due {
		switch {
		case why != nil && why[i] != nil:
			outcomes = append(outcomes, outcome{due: d, verdict: suppressed, reply: r.suppressedReply(&d, why[i])})
		case isLocal(&d):
			rest = append(rest, d)
		default: // it was suppressed a moment ago
			r.cfg.Spool.GiveBack(d)
		}
	}
	r.recordAll(ctx, outcomes)
	return rest
}

// suppressedReply tells the sender why its mail was not sent, and what to do.
func (r *Runner) suppressedReply(d *spool.Due, s *account.Suppression) envelope.Reply {
	var b strings.Builder
	since := s.Since.UTC().Format(dateFormat)
	if s.By == "" {
		fmt.Fprintf(&b, "not sent: mail of yours to this address was refused for good on %s", since)
	} else {
		fmt.Fprintf(&b, "not sent: the administrator has put this address on your suppression list on %s", since)
	}
	if s.Reply != "" {
		fmt.Fprintf(&b, " (%s)", s.Reply)
	}
	if !s.Until.IsZero() {
		fmt.Fprintf(&b, ". It is not tried again before %s", s.Until.UTC().Format(dateFormat))
	}
	fmt.Fprintf(&b, ". If the address is good now, ask the administrator for: postroad suppression remove %s %s",
		d.Message.Origin.Account, d.Recipient.To)
	reply := r.ours("5.1.1", "")
	if s.By != "" {
		reply.Enhanced = "5.7.1" // which says nothing of the address
	}
	reply.Code, reply.Text = 550, envelope.Sanitize(b.String(), 1000)
	return reply
}

// gone are the codes by which a server says that an address is none, and will not be one (RFC 3463, RFC 7505).
var gone = []string{"5.1.1", "5.1.3", "5.1.6", "5.1.10", "5.2.1"}

// suppress remembers addresses that were refused for good, in the transaction that settles them, so that later mail of the
// same account is not sent to them: who keeps on sending to addresses that are none looks like a spammer. Only what was
// said of the address itself counts, not what was said of the message.
func (r *Runner) suppress(tx store.Tx, outcomes []outcome) {
	if r.cfg.SuppressFor <= 0 {
		return
	}
	now := r.cfg.Now()
	for i := range outcomes {
		o := &outcomes[i]
		ofAddress := o.refused || o.reply.From == "" // what we say ourselves of an address is what the DNS says of its domain
		if o.verdict != failed || o.by != "" || !ofAddress || !slices.Contains(gone, o.reply.Enhanced) || !ownSend(&o.due) {
			continue
		}
		id, ok := account.IDOf(tx, o.due.Message.Origin.Account)
		if !ok {
			continue
		}
		account.Suppress(tx, id, account.Suppression{
			Address: o.due.Recipient.To, Since: now, Until: now.Add(r.cfg.SuppressFor), Reply: o.reply.String(),
		})
	}
}
