package delivery

import (
	"context"
	"math/rand/v2"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/spool"
)

// A destination of which no host could be reached is remembered as dead. What falls due for it waits, untried, until one
// recipient has tried whether it lives again: the probe.

// death is what is remembered of a dead destination. Runner.mu guards it.
type death struct {
	since   time.Time
	last    time.Time // the last attempt
	until   time.Time // nothing is tried before
	probing bool      // an attempt is waiting or under way that decides
	ordered bool      // that one may have begun before somebody ordered a try: when it fails, the next follows at once
	reply   envelope.Reply
}

// Bounds of the memory of dead destinations.
const (
	maxDead    = 20_000
	deadMemory = time.Hour   // after until, a destination that nobody wrote to is forgotten
	longestOut = time.Hour   // without a probe: new mail waits for it
	afterward  = time.Minute // within which what waited for a probe falls due
	atOnce     = time.Second // after the probe's time, when the first of them does
)

// room is how many recipients may come now: all of them, to be put off, or one to try.
func (d *death) room(now time.Time) int {
	switch {
	case d.probing:
		return 0
	case now.Before(d.until):
		return laneWaiting
	}
	return 1
}

// died remembers that no host of a lane could be reached, and returns what waited for it. mu must be held.
func (r *Runner) died(l *lane, reply envelope.Reply) (off []putOff) {
	now := r.cfg.Now()
	switch {
	case l.dead == nil:
		l.dead = &death{since: now}
	case !l.dead.probing: // begun before it was known to be dead
		return nil
	}
	d := l.dead
	d.last, d.reply, d.probing = now, reply, false
	if d.until = now; !d.ordered {
		d.until = now.Add(r.outFor(l, now.Sub(d.since)))
	}
	d.ordered = false
	l.limit.now = 1
	clear(l.marks)
	r.bury(l)
	for c := range l.queue {
		for _, due := range l.queue[c] {
			off = append(off, putOff{due, r.afterProbe(l, due.Message.ID), reply})
		}
		r.waiting.add(spool.Class(c), -len(l.queue[c]))
		l.queue[c] = nil
	}
	return off
}

// outFor is how long a destination is left alone that could not be reached for some time: a little less than a message
// of that age waits, so that the message is the probe.
func (r *Runner) outFor(l *lane, age time.Duration) time.Duration {
	s := r.scheduleOfLane(l)
	wait := min(max(age, s.Min), s.Max, max(longestOut, s.Min))
	if s.Jitter > 0 {
		wait -= time.Duration(s.Jitter * float64(wait))
	}
	return wait
}

func (r *Runner) scheduleOfLane(l *lane) Schedule {
	if l.route != nil && l.route.Schedule != nil {
		return l.route.Schedule.or(r.cfg.Schedule)
	}
	return r.cfg.Schedule
}

// afterProbe returns a time shortly after the next probe of a lane: one time for all recipients of a message, which so go
// in one transaction. mu must be held.
func (r *Runner) afterProbe(l *lane, message store.ID) time.Time {
	spread := min(afterward, l.dead.until.Sub(l.dead.last)/8)
	chance := rand.New(rand.NewPCG(uint64(message), 0)).Float64()
	return l.dead.until.Add(atOnce + time.Duration(chance*float64(spread)))
}

// Retry is Spool's, also for destinations that were found dead: the first recipient finds out whether they live again.
func (r *Runner) Retry(ctx context.Context, f spool.Filter, by string) (int, error) {
	chosen := f.Choose
	f.Choose = func(m *spool.Message, rcpt *spool.Recipient) bool {
		if chosen != nil && !chosen(m, rcpt) {
			return false
		}
		r.probeNow(rcpt.Lane)
		return true
	}
	return r.cfg.Spool.Retry(ctx, f, by)
}

func (r *Runner) probeNow(lane string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, now := r.lanes[lane], r.cfg.Now()
	switch {
	case l == nil || l.dead == nil:
	case l.dead.probing:
		l.dead.ordered = true
	case now.Before(l.dead.until):
		l.dead.until = now
	}
}

// lives forgets that a lane was dead. mu must be held.
func (r *Runner) lives(l *lane) { l.dead = nil }

// obituary says when a lane was last found dead.
type obituary struct {
	lane *lane
	at   time.Time
}

// bury takes note of a death and forgets the oldest ones. mu must be held.
func (r *Runner) bury(l *lane) {
	r.deaths = append(r.deaths, obituary{l, l.dead.last})
	for len(r.deaths) > 0 {
		first := r.deaths[0]
		d := first.lane.dead
		stale := d == nil || !d.last.Equal(first.at)
		old := !stale && !d.probing && l.dead.last.After(d.until.Add(deadMemory))
		if !stale && !old && len(r.deaths) <= maxDead {
			return
		}
		r.deaths = r.deaths[1:]
		if !stale {
			r.lives(first.lane)
			r.roomAgain(first.lane)
			r.forget(first.lane)
		}
	}
}

// putOff sends recipients back into the spool for a while; this is no attempt. Those whose senders are to be told
// something by now get that.
func (r *Runner) putOff(list []putOff) {
	now := r.cfg.Now()
	var rest, told []putOff
	for _, p := range list {
		if r.wordDue(&p.due, now) {
			told = append(told, p)
		} else {
			rest = append(rest, p)
		}
	}
	r.byClock(told)
	if len(rest) == 0 {
		return
	}
	err := r.cfg.Store.Update(func(tx store.Tx) error {
		for _, p := range rest {
			d := p.due
			if d.Recipient.Last == (envelope.Reply{}) {
				d.Recipient.Last = p.reply
			}
			r.cfg.Spool.Defer(tx, d, r.beforeWord(&d, now, p.until))
		}
		return nil
	})
	if err != nil {
		var back []spool.Due
		for _, p := range rest {
			back = append(back, p.due)
		}
		r.storeTrouble(r.hard, err, back...)
	}
}

// wordDue reports whether a sender is to be told something about a recipient although it is not tried.
func (r *Runner) wordDue(d *spool.Due, now time.Time) bool {
	s, ready := r.scheduleOf(d), d.Message.Ready()
	return missed(d, now) || now.Sub(ready) >= s.Expire || !d.Recipient.Delayed && s.late(ready, now)
}

// beforeWord cuts a wait short at the time when wordDue will be true.
func (r *Runner) beforeWord(d *spool.Due, now, next time.Time) time.Time {
	s, ready := r.scheduleOf(d), d.Message.Ready()
	if end := ready.Add(s.Expire); end.Before(next) {
		next = end
	}
	if late := ready.Add(s.DelayAfter); s.DelayAfter > 0 && !d.Recipient.Delayed && late.Before(next) {
		next = late
	}
	return beforeDeadline(d.Message, now, next)
}

// byClock judges recipients without an attempt.
func (r *Runner) byClock(list []putOff) {
	var outcomes []outcome
	for _, p := range list {
		for _, d := range r.deadlines(r.hard, []spool.Due{p.due}) {
			outcomes = append(outcomes, outcome{due: d, reply: p.reply, untried: true})
		}
	}
	r.recordAll(r.hard, outcomes)
}
