package store

import (
	"sync"
	"time"
)

const (
	// maxBatch and maxBatchOctets bound what is committed together.
	maxBatch       = 512
	maxBatchOctets = 4 << 20
	// patienceGather is how long the committer waits at most for as many updates as there were callers lately: those
	// just woken are about to come back, over the network. It never waits longer than the last commit took. Measured
	// with 10 SMTP connections, it makes batches of 9 to 10 out of such of 4 to 5, which need half the flushes.
	patienceGather = time.Millisecond
	// patienceSoon is how long UpdateSoon waits for another update to commit with.
	patienceSoon = 2 * time.Millisecond
)

// An op is one Update on its way through the committer.
type op struct {
	// Set before it is queued.
	fn     func(Tx) error
	drafts []*Draft
	inner  bool // the store's own; may use the reserve
	soon   bool // waits a little for company

	// The committer's, until done is closed.
	err      error
	panicked any
	hooks    []func()
	finished bool
	done     chan struct{}
}

// seal completes the drafts; large ones are synced here, so that nobody waits for them.
func (o *op) seal() error {
	for _, d := range o.drafts {
		if err := d.seal(); err != nil {
			return err
		}
	}
	return nil
}

func (o *op) discard() {
	for _, d := range o.drafts {
		d.Discard()
	}
}

// octets is what the op's drafts add to the shared segment.
func (o *op) octets() (n int64) {
	for _, d := range o.drafts {
		if !d.large {
			n += int64(len(d.buf))
		}
	}
	return n
}

// A queue holds the updates that wait for the committer.
type queue struct {
	mu      sync.Mutex
	some    sync.Cond // urgent or closed is set, or ops are enough; L is &mu
	ops     []*op
	urgent  bool        // one of ops is not to wait any longer
	hurried int         // how many of ops are not soon
	enough  int         // so many of those end gather; 0 when it does not wait
	timer   *time.Timer // runs while ops are all in no hurry; sets urgent
	closed  bool
}

// add queues o, unless the store is closed.
func (q *queue) add(o *op) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.ops = append(q.ops, o)
	switch {
	case !o.soon:
		if q.hurried++; q.hurried == q.enough {
			q.some.Signal()
		}
		q.hurry()
	case !q.urgent && q.timer == nil:
		q.timer = time.AfterFunc(patienceSoon, q.patienceEnded)
	}
	return true
}

// hurry has the committer take what waits. mu must be held.
func (q *queue) hurry() {
	if !q.urgent {
		q.urgent = true
		q.some.Signal()
	}
}

func (q *queue) patienceEnded() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.ops) > 0 {
		q.hurry()
	}
}

// close lets the committer end once the queue is empty.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Signal()
}

// callers counts the ops that wait and are in a hurry.
func (q *queue) callers() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.hurried
}

// callers counts the ops that somebody waits for who is likely to come back.
func callers(ops []*op) (n int) {
	for _, o := range ops {
		if !o.soon {
			n++
		}
	}
	return n
}

// take appends the next batch to into: all that wait, within the bounds. It waits for
// one that is urgent, and then as long as patience while fewer are in a hurry than
// expected. Nothing when closed.
func (q *queue) take(into []*op, expected int, patience time.Duration) []*op {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.urgent && !q.closed {
		q.some.Wait()
	}
	q.gather(min(expected, maxBatch), patience)
	n := bounded(q.ops)
	into = append(into, q.ops[:n]...)
	rest := copy(q.ops, q.ops[n:])
	clear(q.ops[rest:])
	q.ops = q.ops[:rest]
	q.hurried = callers(q.ops)
	q.urgent = rest > 0
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	return into
}

// gather waits until there are enough ops that are in a hurry, the queue is closed, or
// patience has passed. mu must be held.
func (q *queue) gather(enough int, patience time.Duration) {
	if q.hurried >= enough || patience <= 0 {
		return
	}
	late := false
	timer := time.AfterFunc(patience, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		late = true
		q.some.Signal()
	})
	defer timer.Stop()
	q.enough = enough
	for q.hurried < enough && !q.closed && !late {
		q.some.Wait()
	}
	q.enough = 0
}

// bounded is how many of ops make up a batch; the first always does.
func bounded(ops []*op) int {
	var octets int64
	for i, o := range ops {
		octets += o.octets()
		if i == maxBatch || (i > 0 && octets > maxBatchOctets) {
			return i
		}
	}
	return len(ops)
}
