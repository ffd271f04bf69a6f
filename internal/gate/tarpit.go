package gate

import (
	"context"
	"sync/atomic"
	"time"
)

// What a reply to an error may wait, and how many may wait at once. When those are all taken, others are answered at once:
// who waits here shall not be what exhausts us.
const (
	maxSlow   = 5 * time.Second
	slowAtOne = 1000
)

// slots counts those that wait.
type slots struct{ taken atomic.Int32 }

func (s *slots) take() bool {
	if s.taken.Add(1) <= slowAtOne {
		return true
	}
	s.taken.Add(-1)
	return false
}

func (s *slots) free() { s.taken.Add(-1) }

// Erred tells of the n-th error of the connection, and returns how long to wait before it is answered. The time is that
// of Slow.
func (p *Pass) Erred(n int) time.Duration {
	if p.free() {
		return 0
	}
	v := p.state()
	v.pour(failures, 1)
	v.unlock()
	if p.g.limits.Tarpit < 0 {
		return 0
	}
	return min(time.Duration(max(n-p.g.limits.Tarpit, 0))*time.Second, maxSlow)
}

// Slow waits for d, or until ctx ends; not at all when too many wait already.
func (p *Pass) Slow(ctx context.Context, d time.Duration) {
	if p.free() || d <= 0 || !p.g.slowed.take() {
		return
	}
	defer p.g.slowed.free()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
