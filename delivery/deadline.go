package delivery

import (
	"context"
	"slices"
	"strconv"
	"time"

	"postroad/delivery/smtpc"
	"postroad/internal/envelope"
	"postroad/spool"
)

// A sender may set a deadline (RFC 2852). What has not gone on by then is returned (mode R), or its sender is told and it
// is tried further (mode N). A recipient falls due at its deadline at the latest, so that this happens then.

// missed reports whether a recipient has missed its deadline without this having been noticed yet: in mode R it is
// not to be delivered any more, in mode N its sender is to be told once.
func missed(d *spool.Due, now time.Time) bool {
	by := d.Message.Envelope.DeliverBy
	if by.Deadline.IsZero() || now.Before(by.Deadline) {
		return false
	}
	return by.Return || d.Recipient.Last.At.Before(by.Deadline)
}

// beforeDeadline cuts a wait short at the message's deadline.
func beforeDeadline(m *spool.Message, now, next time.Time) time.Time {
	if deadline := m.Envelope.DeliverBy.Deadline; deadline.After(now) && deadline.Before(next) {
		return deadline
	}
	return next
}

// deadlines settles those that have missed their deadline: in mode R for good; in mode N their senders are told, and they
// are due again at once. It returns the others.
func (r *Runner) deadlines(ctx context.Context, due []spool.Due) []spool.Due {
	now := r.cfg.Now()
	late := func(d spool.Due) bool { return missed(&d, now) }
	if !slices.ContainsFunc(due, late) {
		return due
	}
	var rest []spool.Due
	var outcomes []outcome
	for _, d := range due {
		if late(d) {
			outcomes = append(outcomes, r.overdue(d, now))
		} else {
			rest = append(rest, d)
		}
	}
	r.recordAll(ctx, outcomes)
	return rest
}

// watchDeadlines settles those whose deadline passes while their destination takes nothing.
func (r *Runner) watchDeadlines(ctx context.Context) {
	for ctx.Err() == nil && r.cfg.Store.Failed() == nil {
		due, next, err := r.cfg.Spool.ClaimOverdue(claimSize)
		if err != nil {
			r.cfg.Log.Error("deadlines cannot be read", "err", err)
		}
		r.cfg.Spool.GiveBack(r.deadlines(ctx, due)...)
		r.cfg.Spool.WaitOverdue(ctx, next)
	}
}

// overdue is the outcome for a recipient that has missed its deadline.
func (r *Runner) overdue(d spool.Due, now time.Time) outcome {
	by := d.Message.Envelope.DeliverBy
	text := "not delivered by " + by.Deadline.UTC().Format(dateFormat) + ", which was its deadline"
	if last := d.Recipient.Last.String(); last != "" {
		text += "; the last attempt: " + last
	}
	o := outcome{due: d, overdue: true, verdict: expired, reply: r.ours("5.4.7", text)}
	if !by.Return {
		o.verdict, o.next, o.delay, o.reply.Enhanced = deferred, now, true, "4.4.7"
		o.due.Recipient.Delayed = true
	}
	o.due.Recipient.Last = o.reply
	return o
}

// mayRelay returns why a message with a deadline, or for one owner of an address, cannot go to a next hop by what that
// offers; a reply without a code when it can. Where the next hop is the end of the way, it need not promise anything.
func mayRelay(conn *smtpc.Conn, e *envelope.Envelope, rcpt *envelope.Recipient, now time.Time) (reply envelope.Reply) {
	refuse := func(status, text string) envelope.Reply {
		return envelope.Reply{Code: 550, Enhanced: status, Text: text, At: now}
	}
	by := e.DeliverBy
	returns := by.Return && !by.Deadline.IsZero()
	switch left := by.Deadline.Sub(now); {
	case returns && left < time.Second: // no BY can say that (RFC 2852, 4)
		return refuse("5.4.7", "the deadline has come")
	case returns && (!conn.Offers("DELIVERBY") || left < leastLeft(conn)): // RFC 2852, 4.1.4.2
		return refuse("5.3.3", "the next server does not promise to keep the deadline (DELIVERBY)")
	case !rcpt.ValidSince.IsZero() && !rcpt.ValidContinue && !conn.Offers("RRVS"): // RFC 7293, 3.1
		return refuse("5.7.19", "the next server does not check who has owned the address since when (RRVS)")
	}
	return reply
}

// leastLeft is how much time a server wants to have for a message that goes back at its deadline (RFC 2852, 3).
func leastLeft(conn *smtpc.Conn) time.Duration {
	seconds, err := strconv.ParseUint(conn.Param("DELIVERBY"), 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
