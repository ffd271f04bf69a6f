package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postroad/internal/store"
)

// Room says how many more recipients of a lane and class can be taken now. 0 sets the lane's queue of the class aside
// until Release names the lane; below 0, nothing of the class is claimed this time. It is called without locks of
// the spool, but within a transaction: it must be quick.
type Room func(lane string, class Class) int

// visit bounds what is claimed of one queue at a time: others have their turns in between.
const visit = 128

// Claim returns recipients that have fallen due, at most max, of every lane and class in turn, and marks
// them as being tried: no other Claim returns them until they are deferred or given
// back. With nothing due it returns none. An error may come beside them: it tells of
// damaged records, which are passed over and stay for Check to name.
func (s *Spool) Claim(max int) ([]Due, error) {
	return s.ClaimFor(max, func(string, Class) int { return max })
}

// ClaimFor is Claim for a caller that has not room for everything.
func (s *Spool) ClaimFor(max int, room Room) ([]Due, error) {
	s.claiming.Lock()
	defer s.claiming.Unlock()
	if err := s.beginClaim(); err != nil {
		return nil, fmt.Errorf("read the queue: %w", err)
	}
	c := claim{s: s, room: room, until: s.now()}
	err := s.st.View(func(r store.Reader) error {
		c.restart(r, max)
		c.walk()
		return nil
	})
	if err != nil {
		c.due, c.damaged = nil, nil
		err = fmt.Errorf("read the queue: %w", err)
	}
	s.endClaim(&c, err == nil)
	return c.due, errors.Join(err, errors.Join(c.damaged...))
}

// beginClaim finds what is ready. What commits from now on may be missing from the claim's view.
func (s *Spool) beginClaim() error {
	s.mu.Lock()
	now := s.now()
	s.walking = true
	load := s.queues.incomplete(now)
	if !load {
		s.queues.wake(now)
	}
	s.mu.Unlock()
	if !load {
		return nil
	}
	err := s.load()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queues.wake(s.now())
	if err != nil {
		s.settleFresh()
	}
	return err
}

// endClaim places the queues that were visited: as far as the walk went when it counts, else as they were.
func (s *Spool) endClaim(c *claim, counts bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range c.visits {
		if !counts {
			s.queues.put(v.queue, c.until)
			continue
		}
		v.queue.cursor, v.queue.next = v.cursor, v.next
		s.markBusy(v)
	}
	s.settleFresh()
	if counts {
		for _, v := range c.visits {
			s.replace(v, c.until)
		}
	}
	for _, lane := range s.released {
		s.queues.release(lane, c.until)
	}
	s.released = nil
	if s.goesOn(c) {
		s.signal()
	}
}

// goesOn reports whether another Claim would find something. mu must be held.
func (s *Spool) goesOn(c *claim) bool {
	for class, shut := range c.shut {
		if !shut && s.queues.some(Class(class)) {
			return true
		}
	}
	return s.queues.incomplete(c.until)
}

// markBusy remembers where busy recipients stand: those claimed now, and those that were moved while they were busy.
// mu must be held.
func (s *Spool) markBusy(v visited) {
	for _, t := range v.taken {
		s.busy[t.ref()] = spot{v.queue.lane, v.queue.class, t}
	}
	for _, t := range v.busy {
		if _, ok := s.busy[t.ref()]; ok {
			s.busy[t.ref()] = spot{v.queue.lane, v.queue.class, t}
		} else { // given back meanwhile
			s.queues.note(v.queue, t, true)
		}
	}
}

// settleFresh gives the entries that a walk may have missed back to their queues. mu must be held.
func (s *Spool) settleFresh() {
	s.walking = false
	clear(s.freed)
	for i, q := range s.queues.fresh {
		if q.fresh.before(q.cursor) {
			q.cursor = q.fresh
		}
		if q.place == nowhere && (q.next == turn{} || q.fresh.before(q.next)) {
			q.next = q.fresh
		}
		q.isFresh = false
		s.queues.fresh[i] = nil
	}
	s.queues.fresh = s.queues.fresh[:0]
}

// replace places a queue after a visit. mu must be held.
func (s *Spool) replace(v visited, now time.Time) {
	switch {
	case v.full:
		s.queues.setAside(v.queue)
	case v.queue.next == turn{}:
		s.queues.forget(v.queue)
	default:
		s.queues.put(v.queue, now)
	}
}

// Release tells that a lane has room again.
func (s *Spool) Release(lane string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.walking { // the queue may be on its way aside
		s.released = append(s.released, lane)
	}
	if s.queues.release(lane, s.now()) {
		s.signal()
	}
}

// Wake ends Wait: a class has room again.
func (s *Spool) Wake() { s.signal() }

// claim is one walk along the queues.
type claim struct {
	s        *Spool
	r        store.Reader
	room     Room
	left     int
	until    time.Time
	messages map[store.ID]*Message
	shut     [Classes]bool // Room wants none of them

	visits  []visited
	due     []Due
	damaged []error
}

// visited is what a walk found in one queue.
type visited struct {
	queue  *queue
	full   bool   // its lane takes nothing
	cursor turn   // after what was looked at
	next   turn   // the entry at the cursor; zero when there is none
	taken  []turn // by this claim
	busy   []turn // passed over
}

// restart begins the walk, also once more when the transaction runs again.
func (c *claim) restart(r store.Reader, max int) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for _, v := range c.visits {
		c.s.queues.put(v.queue, c.until)
	}
	*c = claim{s: c.s, r: r, room: c.room, left: max, until: c.until, messages: map[store.ID]*Message{}}
}

func (c *claim) walk() {
	for {
		class, ok := c.next()
		if !ok || c.left == 0 {
			return
		}
		c.visit(class)
	}
}

// next chooses the class whose turn it is.
func (c *claim) next() (Class, bool) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	has := func(k Class) bool { return !c.shut[k] && c.s.queues.some(k) }
	return c.s.queues.turns.Next(has)
}

// visit claims from the next queue of a class.
func (c *claim) visit(class Class) {
	c.s.mu.Lock()
	q := c.s.queues.pop(class)
	v := visited{queue: q, cursor: q.cursor, next: q.next}
	c.s.mu.Unlock()
	switch n := c.room(q.lane, class); {
	case n < 0:
		c.shut[class] = true
	case n == 0:
		v.full = true
	default:
		c.scan(&v, min(n, visit, c.left))
	}
	c.visits = append(c.visits, v)
}

func (c *claim) scan(v *visited, limit int) {
	prefix := store.Key(v.queue.prefix)
	from, end := v.cursor.appendTo(append(store.Key(nil), prefix...)), prefix.End()
	v.next = turn{}
	for k := range c.r.Scan(from, end) {
		t := readTurn(k[len(prefix):])
		if t.time().After(c.until) || limit == 0 {
			v.next = t
			break
		}
		if c.s.isBusy(t.ref()) {
			v.busy = append(v.busy, t)
		} else if err := c.take(t.id, int(t.n)); err != nil {
			c.damaged = append(c.damaged, err)
		} else {
			v.taken = append(v.taken, t)
			c.left--
			limit--
		}
		v.cursor = turn{t.at, t.id, t.n + 1}
	}
}

func (c *claim) take(id store.ID, n int) error {
	m, err := c.message(id)
	if err != nil {
		return err
	}
	r, err := decodeRecipient(n, c.r.Get(recipientKey(id, n)))
	if err != nil {
		return fmt.Errorf("recipient %d of %s: %w", n, id, err)
	}
	r.Sent = sentAt(c.r, id, n)
	c.due = append(c.due, Due{m, r})
	return nil
}

func (c *claim) message(id store.ID) (*Message, error) {
	if m := c.messages[id]; m != nil {
		return m, nil
	}
	m, err := decodeMessage(id, c.r.Get(messageKey(id)))
	if err != nil {
		return nil, fmt.Errorf("message %s: %w", id, err)
	}
	c.messages[id] = m
	return m, nil
}

// Wait returns when Claim may have something, or with ctx's error when it is done.
func (s *Spool) Wait(ctx context.Context) error {
	timer := time.NewTimer(s.untilNext())
	defer timer.Stop()
	select {
	case <-s.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// untilNext is how long nothing falls due. It is never long, because the clock may be set.
func (s *Spool) untilNext() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	const longest = time.Minute
	next := s.queues.until()
	if next.IsZero() {
		return longest
	}
	return min(next.Sub(s.now()), longest)
}
