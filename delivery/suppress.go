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

// What keeps a recipient from being handed to its destination at all: the account that sends to it has had its mail
// returned from there for good (a suppression), or the route that an administrator chose for it is gone.

// A bar is why a recipient goes nowhere now.
type bar struct {
	suppressed *account.Suppression
	route      string // that is not in the configuration
}

// bars returns the bar of each recipient; nil when none has one. It looks into the store once.
func (r *Runner) bars(due []spool.Due) []*bar {
	var bars []*bar
	set := func(i int, b *bar) {
		if bars == nil {
			bars = make([]*bar, len(due))
		}
		bars[i] = b
	}
	sends := false
	for i := range due {
		d := &due[i]
		if isLocal(d) {
			continue
		}
		if _, ok := r.route(d); !ok {
			set(i, &bar{route: d.Recipient.Transport})
		}
		sends = sends || ownSend(d)
	}
	if !sends {
		return bars
	}
	err := r.cfg.Store.View(func(tx store.Reader) error {
		for i := range due {
			if s, ok := r.suppression(tx, &due[i]); ok {
				set(i, &bar{suppressed: &s})
			}
		}
		return nil
	})
	if err != nil { // the store has worse troubles, which others meet
		r.cfg.Log.Error("the suppression lists cannot be read", "err", err)
	}
	return bars
}

func isLocal(d *spool.Due) bool { return d.Recipient.Account != 0 || d.Recipient.List }

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

// barred settles those that have a bar, and returns those of the others that are local.
func (r *Runner) barred(ctx context.Context, due []spool.Due) []spool.Due {
	bars := r.bars(due)
	var rest []spool.Due
	var outcomes []outcome
	flush := func() {
		if len(outcomes) > 0 {
			r.record(ctx, outcomes)
		}
		outcomes = nil
	}
	for i, d := range due {
		var b *bar
		if bars != nil {
			b = bars[i]
		}
		switch {
		case b == nil && !isLocal(&d): // there was one a moment ago
			r.cfg.Spool.GiveBack(d)
		case b == nil:
			rest = append(rest, d)
		case b.suppressed != nil:
			if len(outcomes) > 0 && outcomes[0].due.Message.ID != d.Message.ID {
				flush()
			}
			outcomes = append(outcomes, outcome{due: d, verdict: suppressed, reply: r.suppressedReply(&d, b.suppressed)})
		default:
			r.holdForRoute(ctx, d)
		}
	}
	flush()
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
	reply.Code, reply.Text = 550, envelope.Sanitize(b.String(), 1000)
	return reply
}

// holdForRoute keeps mail for a route that is gone until an administrator says where it shall go: anywhere else would
// be a guess.
func (r *Runner) holdForRoute(ctx context.Context, d spool.Due) {
	d.Recipient.Reason = fmt.Sprintf("its route %q is not in the configuration any more", d.Recipient.Transport)
	r.hold(ctx, r.ours("4.3.5", d.Recipient.Reason+"; choose another with `postroad queue reroute`, then release it"), d)
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
