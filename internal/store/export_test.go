package store

// With returns options with another engine than bbolt.
func (o Options) With(open func() (*MemEngine, error)) Options {
	o.engine = func() (engine, error) { return open() }
	return o
}
