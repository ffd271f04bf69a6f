package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postroad/internal/store"
)

// denied is a file layer on which one file belongs to somebody else.
type denied struct {
	store.FS
	name string
}

func (d denied) OpenFile(name string, flag int, perm fs.FileMode) (store.File, error) {
	if name == d.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return d.FS.OpenFile(name, flag, perm)
}

// A segment that may not be opened is not called damaged: the start is refused, and
// says what it is.
func TestAForeignSegmentRefusesTheStart(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := s.NewDraft()
	d.Write([]byte("x"))
	err = s.Update(func(tx store.Tx) error { tx.Ref(d.ID()); return nil }, d)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = store.Open(dir, store.Options{FS: denied{store.DirFS(dir), "bodies/00000001"}})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Open: %v, want permission denied", err)
	}
	s, err = store.Open(dir, store.Options{})
	if err != nil {
		t.Fatalf("afterwards: %v", err)
	}
	s.Close()
}

// An index that may not be read is not called damaged either.
func TestAForeignIndexIsNotCalledDamaged(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := t.TempDir()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), os.Chmod(filepath.Join(dir, "index.db"), 0)); err != nil {
		t.Fatal(err)
	}
	_, err = store.Open(dir, store.Options{})
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, store.ErrIndex) || strings.Count(err.Error(), "index.db") != 1 {
		t.Errorf("Open: %v", err)
	}
}
