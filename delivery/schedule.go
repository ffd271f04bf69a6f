package delivery

import (
	"cmp"
	"math/rand/v2"
	"time"
)

// Schedule says when a deferred recipient is tried again. The wait equals the age of
// the message, kept within [Min, Max], so no attempt counter is needed. A message whose
// sender asked for a release time has no age before that. Zero fields have the values
// given here.
type Schedule struct {
	Min        time.Duration  // 5 minutes
	Max        time.Duration  // 4 hours
	Expire     time.Duration  // given up after this long: 5 days
	DelayAfter time.Duration  // the sender is told of the delay after this long: 4 hours; negative is never
	Jitter     float64        // part of the wait by which it varies either way: 0.1; negative is none
	Rand       func() float64 // in [0, 1); nil is a random one
}

// WithDefaults returns s with its zero fields set.
func (s Schedule) WithDefaults() Schedule {
	if s.Rand == nil {
		s.Rand = rand.Float64
	}
	return Schedule{
		Min:        cmp.Or(s.Min, 5*time.Minute),
		Max:        cmp.Or(s.Max, 4*time.Hour),
		Expire:     cmp.Or(s.Expire, 5*24*time.Hour),
		DelayAfter: cmp.Or(s.DelayAfter, 4*time.Hour),
		Jitter:     cmp.Or(s.Jitter, 0.1),
		Rand:       s.Rand,
	}
}

// or returns s with its zero fields as in base.
func (s Schedule) or(base Schedule) Schedule {
	if s.Rand == nil {
		s.Rand = base.Rand
	}
	return Schedule{
		Min:        cmp.Or(s.Min, base.Min),
		Max:        cmp.Or(s.Max, base.Max),
		Expire:     cmp.Or(s.Expire, base.Expire),
		DelayAfter: cmp.Or(s.DelayAfter, base.DelayAfter),
		Jitter:     cmp.Or(s.Jitter, base.Jitter),
		Rand:       s.Rand,
	}
}

// Next returns when to try again, or false when the message has had its time. The
// last attempt comes when that time ends.
func (s Schedule) Next(ready, now time.Time) (time.Time, bool) {
	age := now.Sub(ready)
	if age >= s.Expire {
		return time.Time{}, false
	}
	wait := s.vary(min(max(age, s.Min), s.Max))
	if last := ready.Add(s.Expire); now.Add(wait).After(last) && age >= 0 {
		return last, true
	}
	return now.Add(wait), true
}

// with returns s with a chance that is drawn already: recipients of one attempt that share it are due together again, and
// go in one transaction again.
func (s Schedule) with(chance float64) Schedule {
	s.Rand = func() float64 { return chance }
	return s
}

// vary spreads what was deferred at the same time.
func (s Schedule) vary(wait time.Duration) time.Duration {
	if s.Jitter <= 0 {
		return wait
	}
	return wait + time.Duration((2*s.Rand()-1)*s.Jitter*float64(wait))
}

// late reports whether the sender is to be told that a message is delayed.
func (s Schedule) late(ready, now time.Time) bool {
	return s.DelayAfter > 0 && now.Sub(ready) >= s.DelayAfter
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
