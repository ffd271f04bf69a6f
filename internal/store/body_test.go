package store_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// goneFS says once that a segment does not exist, as when compaction has just removed it.
type goneFS struct {
	store.FS
	gone atomic.Bool
}

func (f *goneFS) OpenFile(name string, flag int, perm fs.FileMode) (store.File, error) {
	if strings.HasPrefix(name, "bodies/") && f.gone.CompareAndSwap(true, false) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return f.FS.OpenFile(name, flag, perm)
}

func TestOpenBodyLooksAgainWhenTheSegmentWent(t *testing.T) {
	dir := t.TempDir()
	gone := &goneFS{FS: store.DirFS(dir)}
	s := storetest.OpenDir(t, dir, store.Options{FS: gone})
	id := put(t, s, []byte("body"))
	gone.gone.Store(true)
	if got := read(t, s, id); string(got) != "body" || gone.gone.Load() {
		t.Errorf("the body came back as %q", got)
	}
}

func TestBodyReads(t *testing.T) {
	s := storetest.Open(t)
	want := octets(5000, 1)
	put(t, s, octets(100, 2)) // so that it does not lie at the beginning, nor at the end
	id := put(t, s, want)
	put(t, s, octets(100, 3))
	b, err := s.OpenBody(id)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Size() != 5000 || b.ID() != id {
		t.Errorf("size %d, id %s", b.Size(), b.ID())
	}
	if err := b.Verify(); err != nil {
		t.Error(err)
	}
	if err := iotest.TestReader(b.Reader(), want); err != nil {
		t.Error(err)
	}
	if err := iotest.TestReader(io.NewSectionReader(b, 0, b.Size()), want); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		off  int64
		n    int
		want []byte
		err  error
	}{
		{0, 5000, want, nil},
		{0, 5001, want, io.EOF},
		{4990, 100, want[4990:], io.EOF},
		{5000, 1, nil, io.EOF},
		{9000, 1, nil, io.EOF},
	} {
		p := make([]byte, c.n)
		if n, err := b.ReadAt(p, c.off); !bytes.Equal(p[:n], c.want) || err != c.err {
			t.Errorf("%d octets at %d: %d, %v", c.n, c.off, n, err)
		}
	}
	if _, err := b.ReadAt(make([]byte, 1), -1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("at -1: %v", err)
	}
}

// An archive can be listed with grep, whatever the messages hold.
func TestSegmentsAreLegible(t *testing.T) {
	disk := storetest.NewFaultFS()
	s := storetest.OpenDir(t, t.TempDir(), store.Options{FS: disk, Reserve: 1})
	id := put(t, s, []byte("no line end"))
	put(t, s, nil)
	got := string(disk.File("bodies/00000001"))
	if want := "postroad " + id.String() + " 000000000011 "; !strings.HasPrefix(got, want) {
		t.Errorf("the segment begins %q, should begin %q", got[:min(len(got), 50)], want)
	}
	if n := strings.Count("\n"+got, "\npostroad "); n != 2 {
		t.Errorf("%d headers at the beginning of lines, in %q", n, got)
	}
}

// More segments than stay open, read by many at once.
func TestManySegments(t *testing.T) {
	s := storetest.OpenDir(t, t.TempDir(), store.Options{FS: storetest.NewFaultFS(), SegmentSize: 1})
	bodies := map[store.ID][]byte{}
	for i := range 150 {
		body := octets(i, uint64(i))
		bodies[put(t, s, body)] = body
	}
	var open []*store.Body
	for id, want := range bodies {
		b, err := s.OpenBody(id)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, b)
		if got, err := io.ReadAll(b.Reader()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, b := range open {
		if err := b.Verify(); err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}
