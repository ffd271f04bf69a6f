package store

import "errors"

// With returns options with another engine than bbolt.
func (o Options) With(open func() (*MemEngine, error)) Options {
	o.engine = func() (engine, error) { return open() }
	return o
}

// Waiting is how many updates are queued.
func (s *Store) Waiting() int { return int(s.queue.waiting.Load()) }

// Abandon ends the store as a killed process does: nothing more is written.
func (s *Store) Abandon() {
	s.fail(errors.New("killed"))
	_ = s.Close()
}
