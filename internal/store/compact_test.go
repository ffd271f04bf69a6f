package store_test

import (
	"bytes"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

func TestCompact(t *testing.T) {
	s := storetest.OpenDir(t, t.TempDir(), store.Options{SegmentSize: 100_000}, refs)
	bodies := map[store.ID][]byte{}
	var dropped []store.ID
	for i := range 400 {
		body := octets(1000+i, uint64(i))
		id := put(t, s, body)
		if i%3 == 0 {
			bodies[id] = body
		} else {
			dropped = append(dropped, id)
		}
	}
	kept := slices.Collect(maps.Keys(bodies))
	err := s.Update(func(tx store.Tx) error {
		for _, id := range kept {
			tx.SetNote(id, bodies[id][:700])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	open, err := s.OpenBody(dropped[0])
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if n, err := s.Compact(t.Context()); n != 0 || err != nil {
		t.Errorf("nothing is dead, and %d octets are given back, %v", n, err)
	}
	for _, id := range dropped {
		if err := s.Update(drop(id)); err != nil {
			t.Fatal(err)
		}
	}
	before := s.Stats()
	n, err := s.Compact(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after := s.Stats()
	if n < before.DeadOctets/2 || after.DeadOctets > before.DeadOctets-n || after.Bodies != int64(len(bodies)) {
		t.Errorf("%d octets given back, from %+v to %+v", n, before, after)
	}
	for id, want := range bodies {
		if !bytes.Equal(read(t, s, id), want) {
			t.Errorf("%s is another after compaction", id)
		}
		if noteOf(t, s, id) != string(want[:700]) {
			t.Errorf("%s has another note after compaction", id)
		}
	}
	if got, err := io.ReadAll(open.Reader()); err != nil || !bytes.Equal(got, octets(1001, 1)) {
		t.Errorf("a body that was open when it was dropped: %v", err)
	}
}

func TestWhollyDeadSegmentsGoAtOnce(t *testing.T) {
	s := storetest.OpenDir(t, t.TempDir(), store.Options{SegmentSize: 10_000})
	var ids []store.ID
	for i := range 100 {
		ids = append(ids, put(t, s, octets(1000, uint64(i))))
	}
	ids = append(ids, put(t, s, octets(200<<10, 1)))
	for _, id := range ids {
		if err := s.Update(drop(id)); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); st.Segments != 1 || st.LiveOctets != 0 {
		t.Errorf("after dropping everything: %+v", st)
	}
}

// Many do everything at once; each looks after bodies of its own. Meant for -race.
func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := storetest.OpenDir(t, dir, store.Options{SegmentSize: 200_000}, refs)
	steps := 40
	if *full {
		steps = 400
	}
	var wg, background sync.WaitGroup
	stop := make(chan struct{})
	for _, fn := range []func(){
		func() { _, _ = s.Compact(t.Context()) },
		func() { storetest.Check(t, s, refs) },
		func() { s.Stats() },
	} {
		background.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					fn()
				}
			}
		})
	}
	for worker := range 12 {
		wg.Go(func() { liveALife(t, s, uint64(worker), steps) })
	}
	wg.Wait()
	close(stop)
	background.Wait()
}

// liveALife puts, reads and drops at random and holds the store against a map.
func liveALife(t *testing.T, s *store.Store, seed uint64, steps int) {
	r := rand.New(rand.NewPCG(seed, 5))
	mine := map[store.ID][]byte{}
	for range steps {
		size := r.IntN(9000)
		if r.IntN(20) == 0 {
			size = 128<<10 + r.IntN(100_000)
		}
		body := octets(size, r.Uint64())
		mine[put(t, s, body)] = body
		for id, want := range mine { // any one
			got, err := readAll(s, id)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d octets instead of %d, %v", id, len(got), len(want), err)
			}
			if r.IntN(3) > 0 {
				if err := s.Update(drop(id)); err != nil {
					t.Error(err)
				}
				delete(mine, id)
			}
			break
		}
	}
}
