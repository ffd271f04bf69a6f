package spool

import (
	"bytes"
	"cmp"
	"container/heap"
	"slices"
	"time"

	"postroad/internal/store"
)

// What waits for one lane in one class stands in qd one after the other: a queue. Memory holds those queues that have
// something soon, and of each only how far it has been claimed. A lane whose recipients cannot be taken now costs
// nothing: its queue stands aside until Release names the lane.

// maxQueues bounds the queues in memory (about 250 octets each). Of more, those that fall due last stay on disk alone.
const maxQueues = 100_000

// turn is the rest of a qd key after lane and class: when a recipient falls due.
type turn struct {
	at uint64 // in microseconds
	id store.ID
	n  uint64
}

func (t turn) compare(u turn) int {
	return cmp.Or(cmp.Compare(t.at, u.at), cmp.Compare(t.id, u.id), cmp.Compare(t.n, u.n))
}

func (t turn) before(u turn) bool { return t.compare(u) < 0 }

func (t turn) ref() ref { return ref{t.id, int(t.n)} }

func (t turn) time() time.Time { return time.UnixMicro(int64(t.at)) }

// spot is where a recipient stands in qd.
type spot struct {
	lane  string
	class Class
	turn
}

func spotOf(m *Message, r *Recipient) spot {
	return spot{r.Lane, m.Class(r), turn{uint64(r.Next.UnixMicro()), m.ID, uint64(r.N)}}
}

func (s spot) key() store.Key { return s.turn.appendTo(queueKey(s.lane, s.class)) }

func (t turn) appendTo(k store.Key) store.Key { return k.Uint(t.at).Uint(uint64(t.id)).Uint(t.n) }

// queueKey begins the qd keys of one queue.
func queueKey(lane string, class Class) store.Key {
	return append(store.NewKey("qd").Text(lane), byte(class))
}

// readSpot reads a qd key. It is false for a key that putDue cannot have written.
func readSpot(k []byte) (spot, bool) {
	lane, rest := store.TakeText(k[2:])
	if len(rest) != 1+3*8 || rest[0] >= Classes {
		return spot{}, false
	}
	return spot{lane, Class(rest[0]), readTurn(rest[1:])}, true
}

func readTurn(b []byte) (t turn) {
	t.at, b = store.TakeUint(b)
	id, b := store.TakeUint(b)
	t.id = store.ID(id)
	t.n, _ = store.TakeUint(b)
	return t
}

// place says where a queue is.
type place uint8

const (
	nowhere place = iota // being claimed from, or forgotten
	asleep               // until next
	ready                // something is due
	aside                // its lane takes nothing now
)

// queue is what waits for one lane in one class.
type queue struct {
	prefix string // of its keys
	lane   string
	class  Class
	place  place
	index  int  // in queues.asleep
	cursor turn // every entry before it is busy
	next   turn // no entry from the cursor on falls due before; its time counts

	fresh   turn // the lowest entry made since the Claim under way began
	isFresh bool
}

// queues are those in memory. Spool.mu guards them.
type queues struct {
	all    map[string]*queue   // by prefix
	asleep sleepers            // a heap
	ready  [Classes][]*queue   // in the order of their turns
	aside  map[string][]*queue // by lane
	turns  Turns

	most    int       // of all: maxQueues, unless a test says otherwise
	fresh   []*queue  // those with isFresh
	partial bool      // some queues are on disk alone
	beyond  time.Time // when the first of those falls due
}

func newQueues() queues {
	return queues{all: map[string]*queue{}, aside: map[string][]*queue{}, most: maxQueues, partial: true}
}

// sleepers is a heap by next.
type sleepers []*queue

func (h sleepers) Len() int           { return len(h) }
func (h sleepers) Less(i, j int) bool { return h[i].next.at < h[j].next.at }
func (h sleepers) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *sleepers) Push(x any)        { q := x.(*queue); q.index = len(*h); *h = append(*h, q) }
func (h *sleepers) Pop() any {
	old := *h
	q := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return q
}

// add makes sure that an entry is not passed over. claiming says that a Claim is under way whose view may not have it.
// It reports whether that changes when there is something to claim.
func (s *queues) add(at spot, now time.Time, claiming bool) bool {
	prefix := queueKey(at.lane, at.class)
	q := s.all[string(prefix)]
	if q == nil {
		q = &queue{prefix: string(prefix), lane: at.lane, class: at.class, cursor: at.turn, next: at.turn}
		if s.partial { // it may be one that was left on disk
			q.cursor = turn{}
		}
		s.all[q.prefix] = q
		s.put(q, now)
		s.shrink()
		s.note(q, at.turn, claiming)
		return true
	}
	if at.before(q.cursor) {
		q.cursor = at.turn
	}
	s.note(q, at.turn, claiming)
	if !at.before(q.next) {
		return false
	}
	q.next = at.turn
	if q.place != asleep {
		return false
	}
	heap.Remove(&s.asleep, q.index)
	s.put(q, now)
	return true
}

func (s *queues) note(q *queue, t turn, claiming bool) {
	switch {
	case !claiming:
	case !q.isFresh:
		q.fresh, q.isFresh = t, true
		s.fresh = append(s.fresh, q)
	case t.before(q.fresh):
		q.fresh = t
	}
}

// put places a queue by the time of its next entry.
func (s *queues) put(q *queue, now time.Time) {
	if q.next.time().After(now) {
		q.place = asleep
		heap.Push(&s.asleep, q)
		return
	}
	q.place = ready
	s.ready[q.class] = append(s.ready[q.class], q)
}

// wake makes those ready whose time has come.
func (s *queues) wake(now time.Time) {
	for len(s.asleep) > 0 && !s.asleep[0].next.time().After(now) {
		s.put(heap.Pop(&s.asleep).(*queue), now)
	}
}

// pop takes the next queue of a class.
func (s *queues) pop(c Class) *queue {
	q := s.ready[c][0]
	s.ready[c][0] = nil
	s.ready[c] = s.ready[c][1:]
	q.place = nowhere
	return q
}

// setAside lets a queue wait until its lane is released.
func (s *queues) setAside(q *queue) {
	q.place = aside
	s.aside[q.lane] = append(s.aside[q.lane], q)
}

// release places the queues of a lane that stood aside, and reports whether there were any.
func (s *queues) release(lane string, now time.Time) bool {
	list := s.aside[lane]
	delete(s.aside, lane)
	for _, q := range list {
		s.put(q, now)
	}
	return len(list) > 0
}

// forget drops a queue without entries to claim.
func (s *queues) forget(q *queue) {
	q.place = nowhere
	delete(s.all, q.prefix)
}

// shrink leaves a part of the queues to the disk when there are too many: those that fall due last.
func (s *queues) shrink() {
	if len(s.all) <= s.most {
		return
	}
	slices.SortFunc(s.asleep, func(a, b *queue) int { return a.next.compare(b.next) })
	for i, q := range s.asleep {
		q.index = i // a sorted slice is a heap
	}
	for len(s.all) > s.most*3/4 && len(s.asleep) > 0 {
		last := s.asleep[len(s.asleep)-1]
		heap.Remove(&s.asleep, last.index)
		s.drop(last)
	}
	for c := Class(Classes); c > 0 && len(s.all) > s.most; c-- {
		for list := &s.ready[c-1]; len(*list) > 0 && len(s.all) > s.most*3/4; *list = (*list)[:len(*list)-1] {
			s.drop((*list)[len(*list)-1])
		}
	}
}

// drop leaves a queue to the disk.
func (s *queues) drop(q *queue) {
	s.forget(q)
	if at := q.next.time(); !s.partial || s.beyond.IsZero() || at.Before(s.beyond) {
		s.beyond = at
	}
	s.partial = true
}

// incomplete reports whether queues that have something due are on disk alone, and there is room for them.
func (s *queues) incomplete(now time.Time) bool {
	return s.partial && !s.beyond.After(now) && len(s.all) <= s.most/2
}

// some reports whether a class has a queue that is ready.
func (s *queues) some(c Class) bool { return len(s.ready[c]) > 0 }

// until returns when something falls due next; zero when nothing will.
func (s *queues) until() (next time.Time) {
	if len(s.asleep) > 0 {
		next = s.asleep[0].next.time()
	}
	if s.partial && (next.IsZero() || s.beyond.Before(next)) {
		next = s.beyond
	}
	return next
}

// load finds all queues on disk and keeps those that fall due first. One step along the index for each.
func (s *Spool) load() error {
	s.mu.Lock()
	s.queues.partial, s.queues.beyond = true, time.Time{} // until all are seen, none is known to be empty
	s.mu.Unlock()
	err := s.st.View(func(r store.Reader) error {
		end := store.NewKey("qd").End()
		for from := store.NewKey("qd"); from != nil; {
			from = s.loadNext(r, from, end)
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queues.partial = err != nil || !s.queues.beyond.IsZero()
	return err
}

// loadNext takes up the first queue from a key on, if not all of it is busy, and returns where the next may begin; nil at
// the end.
func (s *Spool) loadNext(r store.Reader, from, end store.Key) (next store.Key) {
	for k := range r.Scan(from, end) {
		at, ok := readSpot(k)
		if !ok { // Check names it
			return append(slices.Clone(store.Key(k)), 0)
		}
		if next != nil && bytes.Compare(k, next) >= 0 {
			return next
		}
		next = queueKey(at.lane, at.class).End()
		if !s.isBusy(at.ref()) {
			s.found(at)
			return next
		}
	}
	return next
}

// found takes up a queue whose first entry is at.
func (s *Spool) found(at spot) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	prefix := queueKey(at.lane, at.class)
	if s.queues.all[string(prefix)] != nil {
		return
	}
	q := &queue{prefix: string(prefix), lane: at.lane, class: at.class, next: at.turn}
	s.queues.all[q.prefix] = q
	s.queues.put(q, now)
	s.queues.shrink()
}
