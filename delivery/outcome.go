package delivery

import (
	"context"
	"errors"
	"strings"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// verdict is what follows for a recipient from the reply it got.
type verdict uint8

const (
	undecided  verdict = iota
	delivered          // it is in a mailbox
	relayed            // the next hop has it
	deferred           // it will be tried again
	failed             // refused for good
	expired            // tried for as long as the schedule lasts, or until its deadline
	discarded          // dropped by a route's rule: nobody is told
	suppressed         // not tried: the address is on the suppression list
	expanded           // it led to others, who have the message or will
)

// kinds are the events that verdicts make, and the words for them in the log.
var kinds = [...]trace.Kind{
	delivered: trace.Delivered, relayed: trace.Relayed, deferred: trace.Attempt, failed: trace.Bounced, expired: trace.Expired,
	discarded: trace.Discarded, suppressed: trace.Suppressed, expanded: trace.Expanded,
}

// outcome is what one attempt brought for one recipient.
type outcome struct {
	due      spool.Due
	reply    envelope.Reply
	tls      string // of the connection
	reports  bool   // the next hop itself reports success (it offers DSN)
	refused  bool   // the reply was to this recipient alone, not to the message
	doubtful bool   // the reply to the whole message is missing: it may have been delivered
	quiet    bool   // no report is made: there is no room for one
	keeps    bool   // the next hop itself keeps the deadline (it offers DELIVERBY)
	final    bool   // the next hop is the end of the way: a store of mail behind LMTP, an application behind HTTP
	by       string // who ordered it, where that was a person
	untried  bool   // by the clock alone, without an attempt
	dialogue string // what was said in the attempt; the first outcome has it for all

	notBefore time.Time // when the next hop wants to hear of it again; zero when it did not say

	// Set by judge, unless the outcome is no other host's word.
	verdict verdict
	next    time.Time // for deferred
	delay   bool      // the sender is told of the delay now
	overdue bool      // the deadline has passed
}

// judge decides. Only a 5yz reply, the end of the schedule, or a deadline that the
// sender set (RFC 2852) fails a recipient.
func (s Schedule) judge(o *outcome, now time.Time) {
	if o.verdict != undecided {
		return
	}
	r, m := &o.due.Recipient, o.due.Message
	o.overdue = missed(&o.due, now)
	if !o.untried {
		r.Attempts++
	}
	r.Last = o.reply
	next, again := s.Next(m.Ready(), now)
	switch {
	case o.reply.Code/100 == 2:
		o.verdict = relayed
	case !o.reply.Temporary():
		o.verdict = failed
	case !again, o.overdue && m.Envelope.DeliverBy.Return:
		o.verdict = expired
	default:
		o.verdict, o.next = deferred, beforeDeadline(m, now, later(next, o.notBefore))
		o.delay = o.overdue || !r.Delayed && s.late(m.Ready(), now)
		r.Delayed = r.Delayed || o.delay
	}
}

// scheduleOf is the schedule of a recipient: its route's, with what that leaves open as the server's is.
func (r *Runner) scheduleOf(d *spool.Due) Schedule {
	if route, _ := r.route(d); route != nil && route.Schedule != nil {
		return route.Schedule.or(r.cfg.Schedule)
	}
	return r.cfg.Schedule
}

// recordAll records outcomes of any messages; those of one message together where they stand together.
func (r *Runner) recordAll(ctx context.Context, outcomes []outcome) {
	for len(outcomes) > 0 {
		n := 1
		for n < len(outcomes) && outcomes[n].due.Message.ID == outcomes[0].due.Message.ID {
			n++
		}
		r.record(ctx, outcomes[:n])
		outcomes = outcomes[n:]
	}
}

// record makes outcomes of one message durable, together with the reports that follow
// from them. An error of the store leaves all as it was, except that what the next
// hop has taken is recorded as soon as the store lets us: it must not be sent twice.
func (r *Runner) record(ctx context.Context, outcomes []outcome) {
	now := r.cfg.Now()
	chance := r.cfg.Schedule.Rand()
	for i := range outcomes {
		r.scheduleOf(&outcomes[i].due).with(chance).judge(&outcomes[i], now)
	}
	for len(outcomes) > 0 {
		removed, err := r.settle(outcomes)
		switch {
		case err == nil:
			r.logOutcomes(outcomes)
			return
		case errors.Is(err, errRemoved):
			r.noteLate(outcomes, removed)
			outcomes = without(outcomes, removed)
			r.cfg.Spool.GiveBack(removed...)
		case errors.Is(err, store.ErrFull) && !outcomes[0].quiet:
			r.cfg.Log.Error("no room for reports: what failed is kept and tried again", "id", outcomes[0].due.Message.ID, "err", err)
			r.withoutReports(outcomes, now)
		default:
			outcomes = r.postpone(ctx, err, outcomes)
		}
	}
}

// withoutReports changes outcomes so that they need no room: nobody is failed without
// a word to the sender, and reports of success are not made.
func (r *Runner) withoutReports(outcomes []outcome, now time.Time) {
	for i := range outcomes {
		o := &outcomes[i]
		switch kind := reportKind(o); {
		case kind == failed:
			o.verdict, o.next = deferred, now.Add(r.cfg.Schedule.vary(r.cfg.Schedule.Min))
		case kind == deferred:
			o.delay, o.due.Recipient.Delayed = false, false
		}
		o.quiet = true
	}
}

// postpone gives back all but what was relayed, and returns that after a pause;
// nothing when there is no more time or hope.
func (r *Runner) postpone(ctx context.Context, err error, outcomes []outcome) []outcome {
	var kept []outcome
	var back []spool.Due
	for _, o := range outcomes {
		if o.verdict == relayed {
			kept = append(kept, o)
		} else {
			back = append(back, o.due)
		}
	}
	r.storeTrouble(ctx, err, back...)
	if ctx.Err() == nil && r.cfg.Store.Failed() == nil {
		return kept
	}
	for _, o := range kept {
		r.cfg.Log.Error("relayed, but this could not be recorded: it will be sent again",
			"id", o.due.Message.ID, "to", o.due.Recipient.To.String(), "reply", o.reply.String())
		r.cfg.Spool.GiveBack(o.due)
	}
	return nil
}

// errRemoved means that recipients were removed by an administrator while they were
// tried, so that the reports must be written again without them.
var errRemoved = errors.New("recipients were removed meanwhile")

// noteLate tells of recipients that an administrator removed while the next hop took them, or may have taken them.
func (r *Runner) noteLate(outcomes []outcome, removed []spool.Due) {
	err := r.cfg.Store.Update(func(tx store.Tx) error {
		for i := range outcomes {
			o := &outcomes[i]
			if contains(removed, o.due) && (o.verdict == relayed || o.doubtful) {
				e := o.event(r.cfg.Now(), nil)
				e.Reply, e.Next = "when it was no longer in the queue: "+e.Reply, ""
				trace.Record(tx, o.due.Message.ID, e)
			}
		}
		return nil
	})
	if err != nil {
		r.cfg.Log.Error("an attempt that came too late is not in the trace", "id", outcomes[0].due.Message.ID, "err", err)
	}
}

// settle writes the reports and then commits all. No peer waits for that: it goes with what is committed anyway.
func (r *Runner) settle(outcomes []outcome) (removed []spool.Due, err error) {
	reports, err := r.reports(outcomes)
	if err != nil {
		return nil, err
	}
	err = r.cfg.Store.UpdateSoon(func(tx store.Tx) error {
		removed = removed[:0] // it may run again
		for i := range outcomes {
			if !r.apply(tx, &outcomes[i]) {
				removed = append(removed, outcomes[i].due)
			}
		}
		if len(removed) > 0 {
			return errRemoved
		}
		recordEvents(tx, r.cfg.Now(), outcomes, reports)
		r.suppress(tx, outcomes)
		r.tell(tx, r.cfg.Now(), outcomes)
		for _, rep := range reports {
			if err := r.addReport(tx, rep); err != nil {
				return err
			}
		}
		return nil
	}, drafts(reports...)...)
	return removed, err
}

// apply does to a recipient in the spool what its outcome asks for.
func (r *Runner) apply(tx store.Tx, o *outcome) bool {
	if o.verdict == deferred {
		o.next = beforeDeadline(o.due.Message, r.cfg.Now(), o.next)
		return r.cfg.Spool.Defer(tx, o.due, o.next)
	}
	return r.cfg.Spool.Settle(tx, o.due)
}

// recordEvents writes one event for each group of recipients with the same fate.
func recordEvents(tx store.Tx, now time.Time, outcomes []outcome, reports []*report) {
	var events []trace.Event
	for _, o := range outcomes {
		e := o.event(now, reports)
		if last := len(events) - 1; last >= 0 && sameFate(&events[last], &e) {
			events[last].To = append(events[last].To, e.To...)
			continue
		}
		events = append(events, e)
	}
	for _, e := range events {
		trace.Record(tx, outcomes[0].due.Message.ID, e)
	}
	for _, rep := range reports {
		if rep.kind == deferred && rep.sent() {
			trace.Record(tx, outcomes[0].due.Message.ID, trace.Event{Time: now, Kind: trace.Delayed, To: rep.about, Related: rep.id()})
		}
	}
}

func sameFate(a, b *trace.Event) bool {
	return a.Kind == b.Kind && a.Reply == b.Reply && a.Peer == b.Peer && a.Next == b.Next && a.Related == b.Related && a.By == b.By
}

func (o *outcome) event(now time.Time, reports []*report) trace.Event {
	e := trace.Event{
		Time: now, Kind: kinds[o.verdict], To: []string{o.due.Recipient.To.String()},
		Reply: o.reply.String(), Peer: o.reply.From, TLS: o.tls, By: o.by, Dialogue: o.dialogue,
	}
	if o.doubtful {
		e.Reply = strings.TrimSpace("possibly delivered: " + e.Reply)
	}
	if o.verdict == deferred {
		e.Next = o.next.UTC().Format(time.RFC3339)
	}
	for _, rep := range reports {
		if rep.kind == reportKind(o) && o.verdict != deferred {
			e.Related = rep.id()
		}
	}
	return e
}

func (r *Runner) logOutcomes(outcomes []outcome) {
	for i := range outcomes {
		o := &outcomes[i]
		args := []any{"id", o.due.Message.ID, "from", o.due.Message.Envelope.From.Path(), "to", o.due.Recipient.To.String(),
			"outcome", string(kinds[o.verdict]), "reply", o.reply.String(), "peer", o.reply.From}
		if o.verdict == deferred {
			args = append(args, "next", o.next)
		}
		if o.doubtful {
			args = append(args, "possibly_delivered", true)
		}
		r.cfg.Log.Info(o.verdict.String(), args...)
	}
}

// String returns the verdict's word.
func (v verdict) String() string {
	return [...]string{"undecided", "delivered", "relayed", "deferred", "failed", "expired", "discarded", "suppressed", "expanded"}[v]
}

func without(outcomes []outcome, removed []spool.Due) []outcome {
	var left []outcome
	for _, o := range outcomes {
		if !contains(removed, o.due) {
			left = append(left, o)
		}
	}
	return left
}

func contains(due []spool.Due, d spool.Due) bool {
	for _, x := range due {
		if x.Message.ID == d.Message.ID && x.Recipient.N == d.Recipient.N {
			return true
		}
	}
	return false
}
