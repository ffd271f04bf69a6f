package store

import (
	"testing"
	"testing/synctest"
	"time"
)

// The committer waits for as many updates as there were callers lately, and for no longer than it is told to.
func TestGather(t *testing.T) {
	const patience = time.Duration(1000)
	soon := time.Duration(1) // comes at once, in no hurry
	for _, c := range []struct {
		name     string
		expected int
		at       []time.Duration // when updates come
		close    time.Duration   // when the queue is closed; 0 is not
		batch    int
		after    time.Duration
	}{
		{"nobody else expected", 1, []time.Duration{0, 100}, 0, 1, 0},
		{"all come", 3, []time.Duration{0, 300, 600, 700}, 0, 3, 600},
		{"one stays away", 3, []time.Duration{0, 300, 5000}, 0, 2, patience},
		{"all stay away", 600, []time.Duration{0}, 0, 1, patience},
		{"one in no hurry", 2, []time.Duration{0, soon, 300}, 0, 3, 300},
		{"closed", 3, []time.Duration{0}, 200, 1, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := &queue{}
				q.some.L = &q.mu
				for _, at := range c.at {
					time.AfterFunc(at, func() { q.add(&op{soon: at == soon}) })
				}
				if c.close > 0 {
					time.AfterFunc(c.close, q.close)
				}
				began := time.Now()
				batch := q.take(nil, c.expected, patience)
				if took := time.Since(began); len(batch) != c.batch || took != c.after {
					t.Errorf("%d updates after %s, want %d after %s", len(batch), took, c.batch, c.after)
				}
				time.Sleep(time.Second) // the rest comes
			})
		})
	}
}
