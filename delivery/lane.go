package delivery

import (
	"slices"
	"time"

	"postroad/delivery/smtpc"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/spool"
)

// lane is one destination: what waits for it, and the connections to it. All
// destinations take turns, so that none waits for another's backlog.
type lane struct {
	// Set when it is made, never changed.
	key    string
	domain string // of the recipients, in A-labels; of a route, its pattern
	route  *Route // nil: by MX

	// Guarded by Runner.mu.
	queue  []spool.Due
	turn   bool // it stands in Runner.turns
	active int  // attempts under way
	limit  int  // of active: it grows with success, and shrinks to 1 when no host can be reached
	idle   []*idleConn

	since time.Time // when the queue last began to fill
	done  int       // recipients that were tried since then
	until time.Time // the turn of the last one that was pushed back
}

// idleConn is a connection that waits for another message.
type idleConn struct {
	conn  *smtpc.Conn
	sent  int // messages
	kept  kept
	timer *time.Timer
}

// startLimit is how many conversations are begun with a destination of which nothing is known.
const startLimit = 2

// How long a recipient waits in the spool when too many for its destination, or in
// all, wait in memory; and how long one recipient takes where none was tried yet.
const (
	pushBack    = 2 * time.Minute
	minPushBack = time.Second
	guess       = 10 * time.Millisecond
)

// enqueue puts remote recipients into the queues of their destinations.
func (r *Runner) enqueue(due []spool.Due) {
	if len(due) == 0 {
		return
	}
	var tooMany []outcome
	now := r.cfg.Now()
	r.mu.Lock()
	for _, d := range due {
		l := r.lane(&d)
		switch {
		case r.waiting >= r.cfg.Limits.Waiting:
			tooMany = append(tooMany, outcome{due: d, verdict: deferred, next: now.Add(pushBack)})
			continue
		case len(l.queue) >= max(r.cfg.Limits.Waiting/4, 1):
			tooMany = append(tooMany, outcome{due: d, verdict: deferred, next: l.turnFrom(now)})
			continue
		case len(l.queue) == 0:
			l.since, l.done = now, 0
		}
		l.queue = append(l.queue, d)
		r.waiting++
		r.giveTurn(l)
	}
	r.schedule()
	r.mu.Unlock()
	r.putOff(tooMany)
}

// turnFrom returns when a recipient is to come back for which there is no room: one
// after the other, as fast as the destination takes them, from when half of those in
// memory are gone. Then it is never without work while its mail waits, and hardly any
// recipient comes back in vain. Runner.mu must be held.
func (l *lane) turnFrom(now time.Time) time.Time {
	each := guess
	if elapsed := now.Sub(l.since); l.done > 0 {
		each = elapsed / time.Duration(l.done)
		if elapsed > time.Minute { // what was long ago counts less and less
			l.since, l.done = now.Add(-elapsed/2), l.done/2
		}
	}
	l.until = later(l.until, now.Add(each*time.Duration(len(l.queue))/2)).Add(each)
	if most := now.Add(pushBack); l.until.After(most) {
		l.until = most
	}
	return later(l.until, now.Add(minPushBack))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// lane returns the destination's lane. mu must be held.
func (r *Runner) lane(d *spool.Due) *lane {
	to, _ := d.Recipient.To.ASCII()
	domain, key := to.Domain, to.Domain
	route, _ := r.route(d)
	switch {
	case route == nil:
	case route.Kind == MX:
		key += " by route " + route.Name
	default:
		key, domain = "route "+route.Name, route.Domain
	}
	if d.Message.Envelope.RequireTLS { // never on a connection that was made under a weaker rule
		key += " with TLS"
	} else if d.Message.Envelope.TLSOptional {
		key += " without policies"
	}
	l := r.lanes[key]
	if l == nil {
		l = &lane{key: key, domain: domain, route: route, limit: min(startLimit, r.cfg.Limits.PerDestination)}
		r.lanes[key] = l
	}
	return l
}

// giveTurn lines a lane up if it has something to do. mu must be held.
func (r *Runner) giveTurn(l *lane) {
	if !l.turn && len(l.queue) > 0 && l.active < l.limit {
		l.turn = true
		r.turns = append(r.turns, l)
	}
}

// schedule begins what may begin, one message of each lane in turn. mu must be held.
func (r *Runner) schedule() {
	for passed := 0; passed < len(r.turns) && !r.stopped && r.active < r.cfg.Limits.Attempts; {
		l := r.turns[0]
		r.turns = r.turns[1:]
		l.turn = false
		if len(l.queue) > 0 && !r.mayBegin(l) {
			r.giveTurn(l)
			passed++
			continue
		}
		if len(l.queue) > 0 && l.active < l.limit {
			r.begin(l)
			passed = 0
		}
		r.giveTurn(l)
	}
}

// mayBegin keeps half of all attempts for messages that were not tried yet: those
// that wait for dead hosts could take all of them. mu must be held.
func (r *Runner) mayBegin(l *lane) bool {
	return l.queue[0].Recipient.Attempts == 0 || r.retries < max(r.cfg.Limits.Attempts/2, 1)
}

// begin starts the attempt for the lane's next message. mu must be held.
func (r *Runner) begin(l *lane) {
	batch := r.take(l)
	retry := batch[0].Recipient.Attempts > 0
	r.active++
	l.active++
	if retry {
		r.retries++
	}
	r.work.Go(func() {
		reached, reply := r.attempt(l, batch)
		r.finish(l, len(batch), retry, reached, reply)
	})
}

// take removes the recipients of one message from the front of the queue, at most as
// many as every server takes (RFC 5321, 4.5.3.1.8). mu must be held.
func (r *Runner) take(l *lane) []spool.Due {
	n := 1
	for n < len(l.queue) && n < 100 && l.queue[n].Message.ID == l.queue[0].Message.ID {
		n++
	}
	batch := slices.Clone(l.queue[:n])
	clear(l.queue[:n]) // let go of the messages
	l.queue = l.queue[n:]
	r.waiting -= n
	return batch
}

// finish ends an attempt for n recipients. When no host of the destination could be
// reached, what waits for it is not tried one by one: it shares the fate.
func (r *Runner) finish(l *lane, n int, retry, reached bool, reply envelope.Reply) {
	var shared []spool.Due
	r.mu.Lock()
	l.done += n
	if reached {
		l.limit = min(l.limit+1, r.cfg.Limits.PerDestination)
	} else {
		l.limit = 1
		shared = r.takeAll(l)
	}
	r.mu.Unlock()
	r.shareFate(shared, reply)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.active--
	l.active--
	if retry {
		r.retries--
	}
	r.giveTurn(l)
	r.forget(l)
	r.schedule()
}

// takeAll empties the queue. mu must be held.
func (r *Runner) takeAll(l *lane) []spool.Due {
	due := l.queue
	l.queue = nil
	r.waiting -= len(due)
	return due
}

func (r *Runner) shareFate(due []spool.Due, reply envelope.Reply) {
	for len(due) > 0 {
		n := 1
		for n < len(due) && due[n].Message.ID == due[0].Message.ID {
			n++
		}
		var outcomes []outcome
		for _, d := range due[:n] {
			outcomes = append(outcomes, outcome{due: d, reply: reply})
		}
		r.record(r.hard, outcomes)
		due = due[n:]
	}
}

// forget drops a lane of which there is nothing to remember. mu must be held.
func (r *Runner) forget(l *lane) {
	if l.active == 0 && len(l.queue) == 0 && len(l.idle) == 0 && !l.turn {
		delete(r.lanes, l.key)
	}
}

// putOff sends recipients back into the spool for a while; this is no attempt.
func (r *Runner) putOff(outcomes []outcome) {
	if len(outcomes) == 0 {
		return
	}
	err := r.cfg.Store.Update(func(tx store.Tx) error {
		for i := range outcomes {
			r.apply(tx, &outcomes[i])
		}
		return nil
	})
	if err == nil {
		return
	}
	r.cfg.Log.Error("the store refuses; mail stays in the queue", "err", err)
	for _, o := range outcomes {
		r.cfg.Spool.GiveBack(o.due)
	}
}

// borrow returns a connection that waited for the lane's next message, or nil.
func (r *Runner) borrow(l *lane) *idleConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(l.idle) > 0 {
		c := l.idle[len(l.idle)-1]
		l.idle = l.idle[:len(l.idle)-1]
		if c.timer.Stop() { // otherwise its time is up, and expire has it
			r.idle--
			r.work.Done()
			return c
		}
	}
	return nil
}

// keep lets a connection wait for another message, or closes it. The caller is an attempt.
func (r *Runner) keep(l *lane, c *idleConn) {
	if !r.park(l, c) {
		c.conn.Close()
	}
}

func (r *Runner) park(l *lane, c *idleConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || c.conn.Broken() || c.sent >= r.cfg.Limits.MessagesPerConnection || r.idle >= r.cfg.Limits.Attempts {
		return false
	}
	r.idle++
	r.work.Add(1) // until it is borrowed or closed
	c.timer = time.AfterFunc(r.cfg.Limits.Idle, func() { r.expire(l, c) })
	l.idle = append(l.idle, c)
	return true
}

// expire closes a connection that waited in vain.
func (r *Runner) expire(l *lane, c *idleConn) {
	defer r.work.Done()
	r.mu.Lock()
	r.idle--
	l.idle = slices.DeleteFunc(l.idle, func(x *idleConn) bool { return x == c })
	r.forget(l)
	r.mu.Unlock()
	c.conn.Close()
}

// stop gives back what waits and closes what idles. Attempts under way go on.
func (r *Runner) stop() {
	r.mu.Lock()
	r.stopped = true
	var back []spool.Due
	var idle []*idleConn
	for _, l := range r.lanes {
		back = append(back, r.takeAll(l)...)
		idle = append(idle, l.idle...)
		l.idle = nil
	}
	r.mu.Unlock()
	r.cfg.Spool.GiveBack(back...)
	for _, c := range idle {
		if c.timer.Stop() {
			go func() {
				defer r.work.Done()
				c.conn.Close()
			}()
		}
	}
}
