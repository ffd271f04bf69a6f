// Package storetest helps the tests of store and of the packages that keep their
// tables in it: a real store that is checked when the test ends, and a file layer
// that fails, tears and forgets as disks do.
package storetest

import (
	"context"
	"os"
	"testing"

	"postroad/internal/store"
)

// Open opens a real store in a directory of the test's own. When the test ends the
// store is closed and opened again, so that recovery runs, and Check must find nothing
// wrong; with refs, the reference counts are checked too.
func Open(t testing.TB, refs ...store.References) *store.Store {
	return OpenDir(t, MemoryDir(t), store.Options{}, refs...)
}

// MemoryDir is a directory of the test's own in memory, where there is one with much room, and else on the disk. With it a
// test that is not about the disk does not wait for the disk.
func MemoryDir(t interface {
	Fatal(...any)
	Cleanup(func())
}) string {
	const much = 1 << 30
	parent := "/dev/shm"
	if free, err := store.DirFS(parent).Free(); err != nil || free < much {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "postroad-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// OpenDir is Open with a directory and options. The test may close the store itself.
func OpenDir(t testing.TB, dir string, o store.Options, refs ...store.References) *store.Store {
	t.Helper()
	if o.Reserve == 0 {
		o.Reserve = 1 // the test's disk may be any
	}
	s, err := store.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		open := s.View(func(store.Reader) error { return nil }) == nil
		if open && s.Failed() == nil {
			Check(t, s, refs...)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
		again, err := store.Open(dir, o)
		if err != nil {
			t.Errorf("open the store again: %v", err)
			return
		}
		Check(t, again, refs...)
		if err := again.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s
}

// Check has Check find nothing wrong.
func Check(t testing.TB, s *store.Store, refs ...store.References) store.CheckResult {
	t.Helper()
	r, err := s.Check(context.Background(), refs, nil) // the test's own context ends before its cleanup
	if err != nil {
		t.Errorf("check the store: %v", err)
	}
	for _, p := range r.Problems {
		t.Errorf("check: %s: %s", p.What, p.Text)
	}
	return r
}
