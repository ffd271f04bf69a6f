package store

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
)

// MemEngine is an engine in memory, for tests: it commits at once, keeps its keys when
// it is closed and "opened" again, and fails those commits that it is told to.
type MemEngine struct {
	mu      sync.RWMutex
	entries []memEntry // never changed, only replaced
	closed  bool

	Commits int
	FailAt  int  // the number of the commit that fails; 0 is none
	Done    bool // it fails after it was done
}

type memEntry struct{ key, value []byte }

// Open opens it again.
func (e *MemEngine) Open() (*MemEngine, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = false
	return e, nil
}

func (e *MemEngine) View(fn func(Reader) error) error {
	e.mu.RLock()
	t, closed := &memTx{e.entries}, e.closed
	e.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	return fn(t)
}

var errCommit = errors.New("the commit failed")

func (e *MemEngine) Update(fn func(writer) error) error {
	e.mu.RLock()
	t, closed := &memTx{slices.Clone(e.entries)}, e.closed
	e.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	if err := fn(t); err != nil {
		return err
	}
	for i := range t.entries { // the caller may use the memory again
		t.entries[i] = memEntry{bytes.Clone(t.entries[i].key), append([]byte{}, t.entries[i].value...)}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Commits++
	if fails := e.Commits == e.FailAt; fails && !e.Done {
		return errCommit
	}
	e.entries = t.entries
	if e.Commits == e.FailAt {
		return errCommit
	}
	return nil
}

func (e *MemEngine) Check(context.Context, func(string)) error { return nil }

func (e *MemEngine) Size() int64 { return 0 }

func (e *MemEngine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	return nil
}

type memTx struct{ entries []memEntry }

func (t *memTx) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(t.entries, key, func(e memEntry, k []byte) int { return bytes.Compare(e.key, k) })
}

func (t *memTx) Get(key []byte) []byte {
	if i, ok := t.find(key); ok {
		return t.entries[i].value
	}
	return nil
}

func (t *memTx) Put(key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	i, ok := t.find(key)
	if !ok {
		t.entries = slices.Insert(t.entries, i, memEntry{key: bytes.Clone(key)})
	}
	t.entries[i].value = value
}

func (t *memTx) Delete(key []byte) {
	if i, ok := t.find(key); ok {
		t.entries = slices.Delete(t.entries, i, i+1)
	}
}

// within is the range of the entries with from <= key < to.
func (t *memTx) within(from, to []byte) []memEntry {
	i, _ := t.find(from)
	j := len(t.entries)
	if to != nil {
		j, _ = t.find(to)
	}
	return t.entries[i:max(i, j)]
}

func (t *memTx) Scan(from, to []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		for _, e := range t.within(from, to) {
			if !yield(e.key, e.value) {
				return
			}
		}
	}
}

func (t *memTx) ScanBack(from, to []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		for _, e := range slices.Backward(t.within(from, to)) {
			if !yield(e.key, e.value) {
				return
			}
		}
	}
}
