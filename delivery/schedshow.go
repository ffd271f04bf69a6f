package delivery

import (
	"cmp"
	"slices"
	"time"

	"postroad/internal/envelope"
	"postroad/spool"
)

// Destination is what the Runner knows of one destination at a moment.
type Destination struct {
	Key       string // names it, as spool.Recipient.Lane does
	Domain    string // of the recipients, in A-labels; of a route to one host, the route's pattern
	Route     string // its name; empty is by MX
	Waiting   int    // recipients in memory; others may wait in the spool
	Active    int    // attempts under way
	Limit     int    // of them, as the destination has answered so far
	Idle      int    // connections that wait for another message
	PerMinute int    // attempts; 0 is no limit
	Last      envelope.Reply
	Next      time.Time // no attempt begins before, by its rate
	Suspended bool      // by the administrator

	// When no host of it could be reached; else zero.
	DeadSince time.Time
	DeadUntil time.Time // then one recipient tries whether it lives
	Probing   bool      // one does now
}

// Destinations returns those that something waits for, is being sent to, or is remembered of, by key.
func (r *Runner) Destinations() []Destination {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Destination, 0, len(r.lanes))
	for _, l := range r.lanes {
		list = append(list, l.show())
	}
	slices.SortFunc(list, func(a, b Destination) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

// Destination returns one of Destinations by its key.
func (r *Runner) Destination(key string) (Destination, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lanes[key]
	if l == nil {
		return Destination{}, false
	}
	return l.show(), true
}

// DestinationOf returns the key of the destination that a recipient goes to.
func (r *Runner) DestinationOf(m *spool.Message, rcpt *spool.Recipient) string {
	return r.laneName(m, rcpt)
}

// show describes the lane. mu must be held.
func (l *lane) show() Destination {
	d := Destination{
		Key: l.key, Domain: l.domain, Waiting: l.waiting(), Active: l.active, Limit: l.limit.now, Idle: len(l.idle),
		Last: l.last, Next: l.next, Suspended: l.suspended,
	}
	if l.route != nil {
		d.Route = l.route.Name
	}
	if l.gap > 0 {
		d.PerMinute = int(time.Minute / l.gap)
	}
	if l.dead != nil {
		d.DeadSince, d.DeadUntil, d.Probing = l.dead.since, l.dead.until, l.dead.probing
		d.Last = l.dead.reply
	}
	return d
}
