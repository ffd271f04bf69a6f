package account

import "sync"

// watchers are told of accounts whose sessions are to end.
type watchers struct {
	mu   sync.Mutex // guards what follows
	next int
	fns  map[int]func(ID)
}

// Stands reports whether nothing has ended the sessions of an account since it was read: it was not disabled or removed,
// and has no new password. A session that asks once Watch's fn knows of it misses no end.
func (d *Directory) Stands(a Account) bool {
	now, err := d.ByID(a.ID)
	return err == nil && now.revision == a.revision
}

// Watch calls fn after each commit that ends an account's sessions: it was disabled or
// removed, has a new password, or less of them. fn runs in the goroutine that made the change, before
// that is told of its success, and must not block. stop ends it.
func (d *Directory) Watch(fn func(ID)) (stop func()) { return d.ends.add(fn) }

func (w *watchers) add(fn func(ID)) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fns == nil {
		w.fns = map[int]func(ID){}
	}
	n := w.next
	w.next++
	w.fns[n] = fn
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.fns, n)
	}
}

func (w *watchers) tell(id ID) {
	w.mu.Lock()
	list := make([]func(ID), 0, len(w.fns))
	for _, fn := range w.fns {
		list = append(list, fn)
	}
	w.mu.Unlock()
	for _, fn := range list {
		fn(id)
	}
}
