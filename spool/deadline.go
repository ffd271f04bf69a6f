package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postroad/internal/store"
)

// A recipient that leaves this server by a deadline (RFC 2852) stands in a second order, that of deadlines: its destination
// may take nothing for as long as it wants, and the sender is still to hear in time.

func deadlineKey(at time.Time, id store.ID, n int) store.Key {
	return store.NewKey("qb").Uint(uint64(at.UnixMicro())).Uint(uint64(id)).Uint(uint64(n))
}

// putDeadline enters a recipient into the order of deadlines, if it has one.
func (s *Spool) putDeadline(tx store.Tx, m *Message, r *Recipient) {
	by := m.Envelope.DeliverBy.Deadline
	if by.IsZero() || r.Lane == Local {
		return
	}
	tx.Put(deadlineKey(by, m.ID, r.N), []byte{})
	tx.OnCommit(func() {
		select {
		case s.deadline <- struct{}{}:
		default:
		}
	})
}

// WaitOverdue returns when ClaimOverdue may have something, after it said next.
func (s *Spool) WaitOverdue(ctx context.Context, next time.Time) {
	var passed <-chan time.Time
	if !next.IsZero() { // soon enough even when the clock is set, and not too often when nothing can be settled
		timer := time.NewTimer(min(max(next.Sub(s.now()), 100*time.Millisecond), time.Minute))
		defer timer.Stop()
		passed = timer.C
	}
	select {
	case <-s.deadline:
	case <-passed:
	case <-ctx.Done():
	}
}

// dropDeadline takes it out of that order.
func dropDeadline(tx store.Tx, m *Message, n int) {
	if by := m.Envelope.DeliverBy.Deadline; !by.IsZero() {
		tx.Delete(deadlineKey(by, m.ID, n))
	}
}

// ClaimOverdue claims recipients whose deadline has passed, at most max, whether their lanes have room or not; those on hold
// stay there. next is the first deadline to come; zero for none. A recipient that is put off after its deadline is
// not found again.
func (s *Spool) ClaimOverdue(max int) (due []Due, next time.Time, err error) {
	s.claiming.Lock()
	defer s.claiming.Unlock()
	c := claim{s: s}
	err = s.st.View(func(r store.Reader) error {
		c = claim{s: s, r: r, messages: map[store.ID]*Message{}, until: s.now()}
		next = c.overdue(max)
		return nil
	})
	if err != nil {
		return nil, next, fmt.Errorf("read the queue: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range c.due {
		s.busy[d.ref()] = spotOf(d.Message, &d.Recipient)
	}
	return c.due, next, errors.Join(c.damaged...)
}

// overdue takes those whose time has come, and returns the next deadline.
func (c *claim) overdue(max int) time.Time {
	for k := range c.r.Scan(store.NewKey("qb"), store.NewKey("qb").End()) {
		t := readTurn(k[2:])
		if t.time().After(c.until) {
			return t.time()
		}
		if len(c.due) == max {
			return c.until
		}
		r, ok := current(c.r, t.id, int(t.n))
		if !ok || r.State == Hold || c.s.isBusy(t.ref()) {
			continue
		}
		if err := c.take(t.id, int(t.n)); err != nil {
			c.damaged = append(c.damaged, err)
		}
	}
	return time.Time{}
}

// deadlines of recipients that are not there would be looked at for ever.
func (c *checker) deadlines(ctx context.Context) {
	for k := range c.r.Scan(store.NewKey("qb"), store.NewKey("qb").End()) {
		t := readTurn(k[2:])
		if c.r.Get(recipientKey(t.id, int(t.n))) == nil {
			c.found(t.id, "a deadline is kept for recipient %d, which is not there", t.n)
		}
		if ctx.Err() != nil {
			return
		}
	}
}
