package tlspolicy

import (
	"sync"
	"testing"

	"postroad/internal/store/storetest"
	"postroad/internal/tlsrpt"
)

// openPolicies opens policies on a store of their own.
func openPolicies(t testing.TB, c Config) *Policies {
	t.Helper()
	if c.Store == nil {
		c.Store = storetest.Open(t)
	}
	p, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// recorder remembers what is recorded.
type recorder struct {
	mu   sync.Mutex // guards list
	list []tlsrpt.Result
}

func (r *recorder) Record(x tlsrpt.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, x)
}

// failures returns and forgets the kinds of all that was recorded, successes too.
func (r *recorder) failures() (list []tlsrpt.Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.list {
		list = append(list, x.Failure)
	}
	return list
}
