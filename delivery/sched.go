package delivery

import (
	"fmt"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/spool"
)

// Limits of what is in memory and under way.
const (
	// laneWaiting is how many recipients of one class a lane holds at most: enough to be busy while more are read.
	laneWaiting = 256
	// unsettled is how many attempts may have ended whose outcomes are not durable yet: their connections go on
	// meanwhile. After a crash their messages are sent again.
	unsettled = 128
)

// share is the part of Limits.Waiting and Limits.Attempts that is open to a class, in eighths: what is less urgent, or
// failed before, leaves room.
var share = [spool.Classes]int{spool.Urgent: 8, spool.UrgentAgain: 4, spool.Normal: 8, spool.NormalAgain: 4, spool.Bulk: 6, spool.BulkAgain: 4}

// load counts what the classes have of something.
type load struct {
	sum   int
	class [spool.Classes]int
}

func (l *load) add(c spool.Class, n int) { l.sum += n; l.class[c] += n }

func (l *load) again() (n int) {
	for c, k := range l.class {
		if spool.Class(c).Again() {
			n += k
		}
	}
	return n
}

// open reports whether a class may have one more, of most in all.
func (l *load) open(c spool.Class, most int) bool {
	own := l.class[c]
	if c.Again() {
		own = l.again()
	}
	return l.sum < most && own < part(c, most)
}

func part(c spool.Class, most int) int { return max(most*share[c]/8, 1) }

// mayWait reports whether more recipients of a class have room in memory. A little is open to every class, so that none
// starves. mu must be held.
func (r *Runner) mayWait(c spool.Class) bool {
	most := r.cfg.Limits.Waiting
	return r.waiting.open(c, most) || r.waiting.class[c] < most/16
}

// laneRoom is how many recipients of one class a lane holds.
func (r *Runner) laneRoom() int { return max(min(r.cfg.Limits.Waiting/4, laneWaiting), 1) }

// room is the spool.Room of all lanes.
func (r *Runner) room(key string, c spool.Class) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key == spool.Local {
		return r.localRoom()
	}
	if !r.mayWait(c) {
		r.shut[c] = true
		return -1
	}
	l := r.lanes[key]
	if l == nil {
		return r.laneRoom()
	}
	n := r.laneRoom() - len(l.queue[c])
	switch {
	case l.suspended:
		n = 0
	case l.dead != nil:
		n = l.dead.room(r.cfg.Now())
	}
	if n <= 0 {
		l.full = true
	}
	return max(n, 0)
}

// roomAgain tells the spool of room that there is again. mu must be held.
func (r *Runner) roomAgain(l *lane) {
	if l.full && l.hasRoom(r.laneRoom()) {
		l.full = false
		r.cfg.Spool.Release(l.key)
	}
	for c := range spool.Class(spool.Classes) {
		if r.shut[c] && r.mayWait(c) && r.waiting.class[c] <= part(c, r.cfg.Limits.Waiting)/2 {
			r.shut[c] = false
			r.cfg.Spool.Wake()
		}
	}
}

// hasRoom reports whether a lane that was full takes more. mu must be held.
func (l *lane) hasRoom(most int) bool {
	switch {
	case l.suspended:
		return false
	case l.dead != nil:
		return !l.dead.probing
	}
	return l.waiting() <= most/2
}

// sorted are recipients that are due and cannot enter a lane now.
type sorted struct {
	back    []spool.Due // their destination is being probed, or suspended
	refile  []spool.Due // they stand in another lane's queue, and their own takes no more
	nowhere []spool.Due // their route is not there
	dead    []putOff
}

// putOff is a recipient that is due later, without an attempt.
type putOff struct {
	due   spool.Due
	until time.Time
	reply envelope.Reply // why its destination cannot be reached
}

// enqueue puts remote recipients into the queues of their destinations.
func (r *Runner) enqueue(due []spool.Due) {
	if len(due) == 0 {
		return
	}
	var out sorted
	now := r.cfg.Now()
	r.mu.Lock()
	for _, d := range due {
		r.admit(&out, d, now)
	}
	r.schedule()
	r.mu.Unlock()
	r.cfg.Spool.GiveBack(out.back...)
	r.refile(out.refile)
	r.hold(r.hard, r.ours("4.3.5", "its route is not configured; give it another one (`postroad queue reroute`), or release it when the route is there"), out.nowhere...)
	r.putOff(out.dead)
}

// admit puts one recipient into its lane, or says in out why not. mu must be held.
func (r *Runner) admit(out *sorted, d spool.Due, now time.Time) {
	a, ok := r.way(&d)
	if !ok {
		d.Recipient.Reason = fmt.Sprintf("its route %q is not in the configuration", d.Recipient.Transport)
		out.nowhere = append(out.nowhere, d)
		return
	}
	l, c := r.lane(a), d.Message.Class(&d.Recipient)
	switch {
	case d.Recipient.Lane != l.key && (l.suspended || len(l.queue[c]) >= r.laneRoom()):
		out.refile = append(out.refile, d)
		return
	case l.suspended || l.dead != nil && l.dead.probing:
		l.full = true
		out.back = append(out.back, d)
		return
	case l.dead != nil && now.Before(l.dead.until):
		out.dead = append(out.dead, putOff{d, r.afterProbe(l, d.Message.ID), l.dead.reply})
		return
	case l.dead != nil:
		l.dead.probing = true
	}
	l.queue[c] = append(l.queue[c], d)
	r.waiting.add(c, 1)
	r.giveTurn(l)
}

// refile sends recipients back to the spool that stand in the queue of another lane than theirs: the routes changed.
func (r *Runner) refile(due []spool.Due) {
	r.change(due, func(tx store.Tx, d spool.Due) { r.cfg.Spool.Refile(tx, d) })
}

// change does something to claimed recipients in the spool; they go back untouched when the store refuses.
func (r *Runner) change(due []spool.Due, fn func(store.Tx, spool.Due)) {
	if len(due) == 0 {
		return
	}
	err := r.cfg.Store.Update(func(tx store.Tx) error {
		for _, d := range due {
			fn(tx, d)
		}
		return nil
	})
	if err != nil {
		r.storeTrouble(r.hard, err, due...)
	}
}

// giveTurn lines a lane up for what it may begin. mu must be held.
func (r *Runner) giveTurn(l *lane) {
	if l.active >= l.limit.now || r.stopped {
		return
	}
	waits := false
	for c := range spool.Class(spool.Classes) {
		waits = waits || len(l.queue[c]) > 0
	}
	if !waits || r.tooSoon(l) {
		return
	}
	for c := range spool.Class(spool.Classes) {
		if len(l.queue[c]) > 0 && !l.turn[c] {
			l.turn[c] = true
			r.turns[c] = append(r.turns[c], l)
		}
	}
}

// tooSoon reports whether the lane's rate forbids another attempt now; its turn comes then by itself. mu must be held.
func (r *Runner) tooSoon(l *lane) bool {
	wait := l.next.Sub(r.cfg.Now())
	if l.gap == 0 || wait <= 0 {
		return false
	}
	if l.timer == nil && !r.stopped {
		l.timer = time.AfterFunc(wait, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			l.timer = nil
			r.giveTurn(l)
			r.forget(l)
			r.schedule()
		})
	}
	return true
}

// schedule begins what may begin, one message of each lane in turn. mu must be held.
func (r *Runner) schedule() {
	may := func(c spool.Class) bool { return len(r.turns[c]) > 0 && r.active.open(c, r.cfg.Limits.Attempts) }
	for !r.stopped && r.unsettled < unsettled {
		c, ok := r.order.Next(may)
		if !ok {
			return
		}
		l := r.turns[c][0]
		r.turns[c][0] = nil
		r.turns[c] = r.turns[c][1:]
		l.turn[c] = false
		if len(l.queue[c]) > 0 && l.active < l.limit.now && !r.tooSoon(l) {
			r.begin(l, c, stint{since: r.cfg.Now()})
		}
		r.giveTurn(l)
	}
}

// stint is how long a lane has had its turn: it may go on with a connection that is open, for a while.
type stint struct {
	since    time.Time
	messages int
}

// Bounds of one turn.
const (
	stintMessages = 10
	stintTime     = time.Second
)

// goesOn reports whether a lane may use the rest of its turn for another message. mu must be held.
func (r *Runner) goesOn(l *lane, c spool.Class, s stint) bool {
	return !r.stopped && r.unsettled < unsettled && len(l.queue[c]) > 0 && len(l.idle) > 0 && l.active < l.limit.now && l.gap == 0 &&
		s.messages < stintMessages && r.cfg.Now().Sub(s.since) < stintTime && r.active.open(c, r.cfg.Limits.Attempts) &&
		(c == spool.Urgent || len(r.turns[spool.Urgent]) == 0)
}

// begin starts the attempt for the lane's next message of a class. mu must be held.
func (r *Runner) begin(l *lane, c spool.Class, s stint) {
	s.messages++
	batch := l.take(c)
	r.waiting.add(c, -len(batch))
	r.active.add(c, 1)
	l.active++
	r.unsettled++
	if l.gap > 0 {
		l.next = r.cfg.Now().Add(l.gap)
	}
	r.roomAgain(l)
	mark := r.markAhead(l, c, batch)
	r.inWorker(func() {
		contact, settle := r.attempt(l, batch, mark)
		r.finish(l, c, contact, s)
		settle()
		r.settled()
	})
}

// inWorker runs fn in a goroutine that is done with another one, if there is any: its stack has grown already.
func (r *Runner) inWorker(fn func()) {
	r.work.Add(1)
	select {
	case r.jobs <- fn:
	default:
		r.workers.Go(func() { r.worker(fn) })
	}
}

func (r *Runner) worker(fn func()) {
	for fn != nil {
		fn()
		r.work.Done()
		fn = <-r.jobs
	}
}

// contact is what an attempt showed of its destination.
type contact struct {
	kind  contactKind
	reply envelope.Reply // the last
}

type contactKind uint8

const (
	nothing   contactKind = iota
	unreached             // no host could be reached
	troubled              // a host broke off
	answered              // whatever it said
)

// finish ends the conversation of an attempt. When no host of the destination could be
// reached, what waits for it is not tried one by one: it waits for a probe.
func (r *Runner) finish(l *lane, c spool.Class, got contact, s stint) {
	r.mu.Lock()
	r.active.add(c, -1)
	l.active--
	var off []putOff
	switch got.kind {
	case nothing:
		if l.dead != nil {
			l.dead.probing = false
		}
	case unreached:
		off = r.died(l, got.reply)
	case troubled:
		l.limit.trouble()
		r.lives(l)
	case answered:
		l.limit.answered()
		r.lives(l)
	}
	if got.kind != nothing {
		l.last = got.reply
	}
	r.roomAgain(l)
	if got.kind == answered && r.goesOn(l, c, s) {
		r.begin(l, c, s)
	}
	r.giveTurn(l)
	r.forget(l)
	r.schedule()
	r.mu.Unlock()
	r.putOff(off)
}

// settled lets go of an attempt whose outcomes are recorded.
func (r *Runner) settled() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unsettled--
	r.schedule()
}

// forget drops a lane of which there is nothing to remember. mu must be held.
func (r *Runner) forget(l *lane) {
	if l.active == 0 && len(l.idle) == 0 && l.dead == nil && !l.full && l.waiting() == 0 && !r.tooSoon(l) {
		delete(r.lanes, l.key)
	}
}

// stop gives back what waits and closes what idles. Attempts under way go on.
func (r *Runner) stop() {
	r.mu.Lock()
	r.stopped = true
	var back []spool.Due
	var idle []*idleConn
	for _, l := range r.lanes {
		back = append(back, l.takeAll()...)
		idle = append(idle, l.idle...)
		l.idle = nil
		if l.timer != nil {
			l.timer.Stop()
		}
	}
	r.mu.Unlock()
	r.giveBack(back)
	for _, c := range idle {
		if c.timer.Stop() {
			go func() {
				defer r.work.Done()
				c.conn.Close()
			}()
		}
	}
}

// Reconsider takes note of destinations that were suspended or resumed.
func (r *Runner) Reconsider() {
	r.mu.Lock()
	var back []spool.Due
	for _, l := range r.lanes {
		if l.suspended {
			l.suspended = r.suspends(l.suspect)
			r.roomAgain(l)
			r.forget(l)
			continue
		}
		for c := range spool.Class(spool.Classes) {
			back = append(back, r.withdraw(l, c)...)
		}
		r.roomAgain(l)
		r.forget(l)
	}
	r.mu.Unlock()
	r.giveBack(back)
}

// withdraw takes those out of a lane's queue whose destination is suspended by now. mu must be held.
func (r *Runner) withdraw(l *lane, c spool.Class) (out []spool.Due) {
	kept := l.queue[c][:0]
	for _, d := range l.queue[c] {
		if a, _ := r.way(&d); a.suspended != "" {
			out = append(out, d)
			delete(l.marks, d.Message)
		} else {
			kept = append(kept, d)
		}
	}
	clear(l.queue[c][len(kept):])
	l.queue[c] = kept
	r.waiting.add(c, -len(out))
	if len(out) > 0 && l.dead != nil { // it may have been the probe
		l.dead.probing = false
	}
	return out
}

func (r *Runner) suspends(destination string) bool {
	_, is := r.cfg.Rules.Suspended(destination)
	return is
}
