package store_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// put stores a body with one reference, in the way the spool does.
func put(t testing.TB, s *store.Store, body []byte) store.ID {
	t.Helper()
	d := s.NewDraft()
	if _, err := d.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(keep(d.ID()), d); err != nil {
		t.Fatal(err)
	}
	return d.ID()
}

// keep refers to a body from the table "te".
func keep(id store.ID) func(store.Tx) error {
	return func(tx store.Tx) error {
		tx.Put(store.NewKey("te").Uint(uint64(id)), nil)
		tx.Ref(id)
		return nil
	}
}

func drop(id store.ID) func(store.Tx) error {
	return func(tx store.Tx) error {
		tx.Delete(store.NewKey("te").Uint(uint64(id)))
		tx.Unref(id)
		return nil
	}
}

func read(t testing.TB, s *store.Store, id store.ID) []byte {
	t.Helper()
	b, err := s.OpenBody(id)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got, err := io.ReadAll(b.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func octets(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(n)})
	r.Read(b)
	return b
}

func TestBodiesOfAllSizesComeBack(t *testing.T) {
	dir := t.TempDir()
	s := storetest.OpenDir(t, dir, store.Options{})
	bodies := map[store.ID][]byte{}
	for i, n := range []int{0, 1, 8146, 8147, 8191, 8192, 32722, 32723, 100_000, 128 << 10, 128<<10 + 1, 256 << 10, 1<<20 + 7, 5 << 20} {
		body := octets(n, uint64(i))
		bodies[put(t, s, body)] = body
	}
	for id, want := range bodies {
		if got := read(t, s, id); !bytes.Equal(got, want) {
			t.Errorf("a body of %d octets came back as another of %d", len(want), len(got))
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = storetest.OpenDir(t, dir, store.Options{})
	for id, want := range bodies {
		if got := read(t, s, id); !bytes.Equal(got, want) {
			t.Errorf("after reopening, a body of %d octets came back as another of %d", len(want), len(got))
		}
	}
}

func TestDroppedBodyIsGone(t *testing.T) {
	s := storetest.Open(t)
	for _, n := range []int{10, 200 << 10} {
		id := put(t, s, octets(n, 1))
		if err := s.Update(drop(id)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.OpenBody(id); !errors.Is(err, store.ErrNoBody) {
			t.Errorf("a dropped body of %d octets opens with %v", n, err)
		}
	}
}
