package dns

import (
	"sync"
	"time"

	"github.com/miekg/dns"
)

// What is remembered is bounded in octets, as counted by known.size.
const maxCache = 8 << 20

// failTTL is how long a question without an answer is not asked again: the least that RFC 9520, 3.2, wants.
const failTTL = time.Second

// known is what was said to a question.
type known struct {
	found
	err   error
	since time.Time // when it was heard
	until time.Time
	size  int
}

// cache remembers answers, and which questions are being asked. Any number of goroutines.
type cache struct {
	now func() time.Time

	mu     sync.Mutex // guards all below
	of     *setup     // who gave the answers: others may answer otherwise
	known  map[question]*known
	size   int
	asking map[question]chan struct{} // closed when the answer is there, or given up
}

func newCache(now func() time.Time) *cache {
	return &cache{now: now, known: make(map[question]*known), asking: make(map[question]chan struct{})}
}

// begin returns the answer that was heard at a time or later, or a channel that is closed when another has it; with neither, the caller asks, and ends with give.
func (c *cache) begin(of *setup, q question, since time.Time) (*known, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetOthers(of)
	if k := c.known[q]; k != nil && !k.since.Before(since) && c.now().Before(k.until) {
		return k, nil
	}
	if others := c.asking[q]; others != nil {
		return nil, others
	}
	c.asking[q] = make(chan struct{})
	return nil, nil
}

// give ends a question; k is nil when it was given up.
func (c *cache) give(of *setup, q question, k *known) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if others := c.asking[q]; others != nil {
		close(others)
		delete(c.asking, q)
	}
	c.forget(q)
	if k == nil || c.of != of {
		return
	}
	if k.err != nil {
		k.ttl = failTTL
	}
	if k.ttl > 0 {
		k.since = c.now()
		k.until, k.size = k.since.Add(k.ttl), sizeOf(q, k)
		c.known[q] = k
		c.size += k.size
		c.makeRoom()
	}
}

// forgetOthers forgets what others said. mu must be held.
func (c *cache) forgetOthers(of *setup) {
	if c.of != of {
		clear(c.known)
		c.of, c.size = of, 0
	}
}

// forget must be called with mu held.
func (c *cache) forget(q question) {
	if k := c.known[q]; k != nil {
		c.size -= k.size
		delete(c.known, q)
	}
}

// makeRoom forgets one or the other until the bound is kept. mu must be held.
func (c *cache) makeRoom() {
	for q := range c.known {
		if c.size <= maxCache {
			return
		}
		c.forget(q)
	}
}

// sizeOf is about what an answer takes in memory.
func sizeOf(q question, k *known) int {
	size := 300 + 2*len(q.name)
	for _, rr := range k.records {
		size += 150 + dns.Len(rr)
	}
	return size
}
