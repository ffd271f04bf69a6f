package store

import "errors"

// With returns options with another engine than bbolt.
func (o Options) With(open func() (*MemEngine, error)) Options {
	o.engine = func() (engine, error) { return open() }
	return o
}

// Waiting is how many updates are queued.
func (s *Store) Waiting() int {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return len(s.queue.ops)
}

// Abandon ends the store as a killed process does: nothing more is written.
func (s *Store) Abandon() {
	s.fail(errors.New("killed"))
	_ = s.Close()
}
