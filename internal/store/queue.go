package store

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxBatch and maxBatchOctets bound what is committed together.
	maxBatch       = 512
	maxBatchOctets = 4 << 20
	// gatherYields is how often the committer lets others run before it takes fewer
	// updates than there were callers lately: those just woken are about to come back.
	// It is not a wait: when nothing else can run, yielding takes no time. Measured with
	// 10 callers, it makes batches of 9 to 10 out of such of 5.
	gatherYields = 8
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
	waiting atomic.Int64 // len(ops), readable without the lock

	mu     sync.Mutex
	some   sync.Cond // urgent or closed is set; L is &mu
	ops    []*op
	urgent bool        // one of ops is not to wait any longer
	timer  *time.Timer // runs while ops are all in no hurry; sets urgent
	closed bool
}

// add queues o, unless the store is closed.
func (q *queue) add(o *op) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.ops = append(q.ops, o)
	q.waiting.Store(int64(len(q.ops)))
	switch {
	case !o.soon:
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

// take appends the next batch to into: all that wait, within the bounds. It waits for
// one that is urgent, and yields a little while there are fewer than expected. Nothing
// when closed.
func (q *queue) take(into []*op, expected int) []*op {
	q.wait()
	for range gatherYields {
		if q.waiting.Load() >= int64(expected) {
			break
		}
		runtime.Gosched()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n := bounded(q.ops)
	into = append(into, q.ops[:n]...)
	rest := copy(q.ops, q.ops[n:])
	clear(q.ops[rest:])
	q.ops = q.ops[:rest]
	q.waiting.Store(int64(rest))
	q.urgent = rest > 0
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	return into
}

func (q *queue) wait() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.urgent && !q.closed {
		q.some.Wait()
	}
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
