package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A store of another version is neither read by guess nor changed.
func TestAnotherFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := openBolt(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = e.Update(func(w writer) error {
		other := Encoder(nil)
		other.Uint(Format + 1)
		other.Text("whatever it means there")
		w.Put(NewKey(tableSuper), other)
		return nil
	})
	if err := errors.Join(err, e.Close()); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(dir, indexName)
	before, _ := os.ReadFile(index)
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("Open: %v, want ErrFormat", err)
	}
	if after, _ := os.ReadFile(index); !bytes.Equal(before, after) {
		t.Error("the index was changed")
	}
}
