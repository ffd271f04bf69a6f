package delivery

import (
	"cmp"
	"slices"
	"time"

	"postroad/internal/envelope"
	"postroad/spool"
)

// lane is one destination: what waits for it, and the connections to it. All
// destinations take turns, so that none waits for another's backlog. Memory holds a
// few of a lane's recipients; the rest waits in the lane's own queues in the spool.
type lane struct {
	// Set when it is made, never changed.
	key     string
	domain  string        // of the recipients, in A-labels; of a route, its pattern
	route   *Route        // nil: by MX
	gap     time.Duration // between attempts, at least; 0 is none
	suspect string        // what the administrator has suspended, for a lane of that; else empty

	// Guarded by Runner.mu.
	queue     [spool.Classes][]spool.Due
	turn      [spool.Classes]bool      // it stands in Runner.turns
	marks     map[*spool.Message]*mark // of those in queue that are marked ahead of their turn
	active    int                      // attempts under way
	limit     pace                     // of active
	next      time.Time                // no attempt begins before: the lane's rate
	timer     *time.Timer              // runs until next, while something waits
	idle      []*idleConn
	full      bool           // the spool set recipients aside that had no room here
	last      envelope.Reply // of the last attempt
	dead      *death         // nil: it can be reached, as far as we know
	suspended bool           // no attempt is made; only a lane with a suspect is
}

// way is what decides which lane a recipient takes: recipients of one lane may share connections.
type way struct {
	key       string
	domain    string
	route     *Route
	suspended string // what of it the administrator has suspended; empty for nothing
}

// way returns where a recipient goes; false when its Transport names a route that is not there.
func (r *Runner) way(d *spool.Due) (way, bool) {
	to, _ := d.Recipient.To.ASCII()
	a := way{key: to.Domain, domain: to.Domain}
	route, ok := r.route(d)
	switch {
	case !ok:
		a.key = "route " + d.Recipient.Transport
	case route == nil:
	case route.Kind == MX:
		a.key += " by route " + route.Name
	default:
		a.key, a.domain = "route "+route.Name, route.Domain
	}
	a.route = route
	switch { // what is suspended does not share a lane with what is not
	case r.suspends(to.Domain):
		a.suspended = to.Domain
	case route != nil && r.suspends(route.Name):
		a.suspended = route.Name
	}
	if a.suspended != "" {
		a.key = "suspended " + a.suspended
		return a, ok
	}
	switch { // never on a connection that was made under a weaker rule
	case d.Message.Envelope.RequireTLS:
		a.key += " with TLS"
	case d.Message.Envelope.TLSOptional:
		a.key += " without policies"
	}
	return a, ok
}

// laneName names lanes for the spool.
func (r *Runner) laneName(m *spool.Message, rcpt *spool.Recipient) string {
	a, _ := r.way(&spool.Due{Message: m, Recipient: *rcpt})
	return a.key
}

// lane returns the lane of a way. mu must be held.
func (r *Runner) lane(a way) *lane {
	l := r.lanes[a.key]
	if l == nil {
		l = &lane{key: a.key, domain: a.domain, route: a.route, suspect: a.suspended, suspended: a.suspended != "", marks: map[*spool.Message]*mark{}}
		most, perMinute := r.cfg.Limits.PerDestination, r.cfg.Limits.PerMinute
		if a.route != nil {
			most, perMinute = cmp.Or(a.route.PerDestination, most), cmp.Or(a.route.PerMinute, perMinute)
		}
		if perMinute > 0 {
			l.gap = time.Minute / time.Duration(perMinute)
		}
		l.limit = newPace(most)
		r.lanes[a.key] = l
	}
	return l
}

// waiting is how many recipients wait.
func (l *lane) waiting() (n int) {
	for _, q := range l.queue {
		n += len(q)
	}
	return n
}

// take removes recipients of one message from the front of a queue, at most as
// many as every server takes (RFC 5321, 4.5.3.1.8). Those that came by different
// addresses of ours do not go together: their reverse-paths differ.
func (l *lane) take(c spool.Class) []spool.Due {
	q, n := l.queue[c], 1
	for n < len(q) && n < 100 && together(&q[0], &q[n]) {
		n++
	}
	batch := slices.Clone(q[:n])
	clear(q[:n]) // let go of the messages
	l.queue[c] = q[n:]
	return batch
}

func together(a, b *spool.Due) bool {
	return a.Message.ID == b.Message.ID && a.Recipient.Via == b.Recipient.Via
}

// takeAll empties the queues.
func (l *lane) takeAll() (all []spool.Due) {
	for c := range l.queue {
		all = append(all, l.queue[c]...)
		l.queue[c] = nil
	}
	clear(l.marks)
	return all
}

// pace is how many attempts a destination takes at a time. It grows with every answer until the first trouble; from then
// on by one for as many answers as it stands at, and trouble halves it.
type pace struct {
	now, most int
	answers   int // since it grew
	troubled  bool
}

// startPace is how many conversations are begun with a destination of which nothing is known.
const startPace = 2

func newPace(most int) pace { return pace{now: min(startPace, most), most: most} }

func (p *pace) answered() {
	if p.answers++; p.now < p.most && (!p.troubled || p.answers >= p.now) {
		p.now++
		p.answers = 0
	}
}

func (p *pace) trouble() {
	p.now, p.answers, p.troubled = max(p.now/2, 1), 0, true
}
