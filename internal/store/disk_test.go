package store_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

func TestFullDisk(t *testing.T) {
	disk := storetest.NewFaultFS()
	s := storetest.OpenDir(t, t.TempDir(), store.Options{FS: disk, Reserve: 64 << 20}, refs)
	id := put(t, s, octets(1000, 1))
	if !strings.Contains(strings.Join(disk.Names(), " "), "ballast") {
		t.Error("there is no ballast")
	}
	disk.SetFree(64<<20 - 1)
	small, large := s.NewDraft(), s.NewDraft()
	small.Write(octets(1000, 2))
	if _, err := large.Write(octets(200<<10, 2)); !errors.Is(err, store.ErrFull) {
		t.Errorf("a large draft on a full disk: %v", err)
	}
	large.Discard()
	out := together(t, s, []func(store.Tx) error{keep(small.ID()), set("k", "v"), drop(id)}, []*store.Draft{small})
	if err, _ := out[0].(error); !errors.Is(err, store.ErrFull) || out[1] != nil || out[2] != nil {
		t.Errorf("outcomes %v", out)
	}
	disk.SetFree(0)
	if err := s.Update(set("k", "w")); err != nil {
		t.Errorf("a change without a body at 0 octets free: %v", err)
	}
	if disk.File("ballast") != nil {
		t.Error("the ballast is still there at 0 octets free")
	}
	disk.SetFree(1 << 40)
	put(t, s, octets(1000, 3))
	put(t, s, octets(1000, 4)) // the ballast is laid after the first has returned
	if disk.File("ballast") == nil {
		t.Error("the ballast does not come back")
	}
}

// A write for which there is no room fails its own update, and the store goes on.
func TestNoRoomForAWrite(t *testing.T) {
	disk := storetest.NewFaultFS()
	s := storetest.OpenDir(t, t.TempDir(), store.Options{FS: disk}, refs)
	first := put(t, s, octets(1000, 1))
	for range 3 {
		d := s.NewDraft()
		d.Write(octets(1000, 2))
		disk.FailAt(len(disk.Ops()), storetest.Full, false)
		if err := s.Update(keep(d.ID()), d); !errors.Is(err, store.ErrFull) {
			t.Errorf("no room for a body: %v", err)
		}
		if !disk.Tripped() || s.Failed() != nil {
			t.Errorf("tripped %v, failed %v", disk.Tripped(), s.Failed())
		}
		second := put(t, s, octets(1000, 3))
		if !bytes.Equal(read(t, s, second), octets(1000, 3)) || !bytes.Equal(read(t, s, first), octets(1000, 1)) {
			t.Error("bodies around the failed write are damaged")
		}
	}
}

// After a failed fsync nothing is written, what was there is read, opening heals.
func TestFailedFsync(t *testing.T) {
	dir, disk := t.TempDir(), storetest.NewFaultFS()
	s := storetest.OpenDir(t, dir, store.Options{FS: disk}, refs)
	first := put(t, s, octets(1000, 1))
	d := s.NewDraft()
	d.Write(octets(1000, 2))
	disk.FailAt(len(disk.Ops())+1, storetest.NotDone, false)
	if err := s.Update(keep(d.ID()), d); !errors.Is(err, store.ErrFailed) || !disk.Tripped() {
		t.Errorf("a failed fsync: %v", err)
	}
	if err := s.Update(set("k", "v")); !errors.Is(err, store.ErrFailed) {
		t.Errorf("after a failed fsync: %v", err)
	}
	large := s.NewDraft()
	if _, err := large.Write(octets(200<<10, 1)); !errors.Is(err, store.ErrFailed) {
		t.Errorf("a large draft after a failed fsync: %v", err)
	}
	large.Discard()
	if !bytes.Equal(read(t, s, first), octets(1000, 1)) {
		t.Error("the first body cannot be read")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = storetest.OpenDir(t, dir, store.Options{FS: disk}, refs)
	put(t, s, octets(1000, 3))
	if _, err := s.OpenBody(d.ID()); !errors.Is(err, store.ErrNoBody) {
		t.Errorf("the body of the failed update: %v", err)
	}
}

func TestForeignFilesAreToldAndLeft(t *testing.T) {
	dir := t.TempDir()
	s := storetest.OpenDir(t, dir, store.Options{})
	id := put(t, s, octets(1000, 1))
	s.Close()
	foreign := []string{"notes.txt", "1", "00000001.bak", ".hidden", ".tmp", "000000001"}
	leftover := []string{"00000007", "." + id.String() + ".tmp"}
	for _, name := range append(foreign, leftover...) {
		if err := os.WriteFile(filepath.Join(dir, "bodies", name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	s, err := store.Open(dir, store.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // so that the check at the end finds nothing
		for _, name := range foreign {
			os.Remove(filepath.Join(dir, "bodies", name))
		}
	}()
	defer s.Close()
	r, err := s.Check(t.Context(), nil, nil)
	if err != nil || len(r.Problems) != len(foreign) {
		t.Errorf("Check tells %v, %v", r.Problems, err)
	}
	for _, name := range foreign {
		if b, err := os.ReadFile(filepath.Join(dir, "bodies", name)); string(b) != "mine" {
			t.Errorf("%s was touched: %v", name, err)
		}
		if !strings.Contains(log.String(), "bodies/"+name) {
			t.Errorf("%s is not in the log", name)
		}
	}
	for _, name := range leftover {
		if _, err := os.Stat(filepath.Join(dir, "bodies", name)); err == nil {
			t.Errorf("the leftover %s is still there", name)
		}
	}
}

func TestDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	s := storetest.OpenDir(t, dir, store.Options{})
	put(t, s, octets(10, 1))
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err == nil && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", path, st.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	storetest.OpenDir(t, dir, store.Options{})
	if _, err := store.Open(dir, store.Options{}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("the second Open: %v", err)
	}
}

// A crash while the store was first made leaves something that Open completes.
func TestFirstStartAfterACrash(t *testing.T) {
	for _, name := range []string{"index.db.tmp", "ballast"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		s := storetest.OpenDir(t, dir, store.Options{})
		put(t, s, octets(10, 1))
	}
}

// made returns a closed store with some bodies of both kinds.
func made(t *testing.T) (dir string, bodies map[store.ID][]byte) {
	dir, bodies = t.TempDir(), map[store.ID][]byte{}
	s, err := store.Open(dir, store.Options{SegmentSize: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		body := octets(1000+100*i, uint64(i))
		bodies[put(t, s, body)] = body
	}
	big := octets(140<<10, 99)
	bodies[put(t, s, big)] = big
	for i := range 300 {
		if err := s.Update(set(strings.Repeat("key", 1+i%20)+string(rune('a'+i%26)), strings.Repeat("v", i))); i%30 == 0 && err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, bodies
}

func TestMissingIndexIsNotANewStore(t *testing.T) {
	dir, bodies := made(t)
	index := filepath.Join(dir, "index.db")
	if err := os.Rename(index, index+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(dir, store.Options{}); !errors.Is(err, store.ErrIndex) {
		t.Errorf("without an index: %v", err)
	}
	if err := os.WriteFile(index, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(dir, store.Options{}); !errors.Is(err, store.ErrIndex) {
		t.Errorf("with an empty index: %v", err)
	}
	if err := os.Rename(index+".away", index); err != nil {
		t.Fatal(err)
	}
	s := storetest.OpenDir(t, dir, store.Options{})
	for id, want := range bodies {
		if !bytes.Equal(read(t, s, id), want) {
			t.Errorf("%s was lost", id)
		}
	}
}

// Whatever becomes of the files, nothing panics, Check tells, and no damaged body is
// served as a good one.
func TestDamageIsToldAndNeverServed(t *testing.T) {
	dir, bodies := made(t)
	files := map[string][]byte{}
	for _, pattern := range []string{"index.db", "bodies/*"} {
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = b
		}
	}
	rounds := 40
	if *full {
		rounds = 2000
	}
	r := rand.New(rand.NewPCG(7, 7))
	refused := 0
	for round := range rounds {
		var victim string
		for name, b := range files { // a random one, the index half the time
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if victim == "" || r.IntN(2) == 0 && !strings.HasSuffix(victim, "index.db") {
				victim = name
			}
		}
		hurt(t, victim, files[victim], r)
		s, err := store.Open(dir, store.Options{SegmentSize: 20_000})
		if err != nil {
			refused++
			continue
		}
		served := 0
		for id, want := range bodies {
			got, err := readAll(s, id)
			if err == nil && !bytes.Equal(got, want) {
				t.Errorf("round %d, %s: %s came back as other octets", round, victim, id)
			}
			if err == nil {
				served++
			}
		}
		res, err := s.Check(t.Context(), nil, nil)
		if err == nil && len(res.Problems) == 0 && served < len(bodies) {
			t.Errorf("round %d, %s: %d of %d bodies served and Check finds nothing", round, victim, served, len(bodies))
		}
		if strings.Contains(victim, "bodies") && served == 0 {
			t.Errorf("round %d: damage of %s took all bodies away", round, victim)
		}
		if err := s.Close(); err != nil && s.Failed() == nil && !errors.Is(err, store.ErrIndex) {
			t.Errorf("round %d, %s: close: %v", round, victim, err)
		}
	}
	t.Logf("%d rounds, %d times Open refused", rounds, refused)
	if refused == 0 || refused == rounds {
		t.Error("the damage was all of one kind")
	}
}

// hurt flips bits in a file, cuts it off, or removes it.
func hurt(t *testing.T, name string, b []byte, r *rand.Rand) {
	t.Helper()
	b = bytes.Clone(b)
	used := len(b)
	if strings.HasSuffix(name, "index.db") {
		used = min(used, 64<<10) // the rest was never written
	}
	switch r.IntN(6) {
	case 0:
		b = b[:r.IntN(used)]
	case 1:
		at := r.IntN(used)
		clear(b[at:min(at+4096, len(b))])
	default:
		for range 1 + r.IntN(20) {
			b[r.IntN(used)] ^= 1 << r.IntN(8)
		}
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readAll(s *store.Store, id store.ID) ([]byte, error) {
	b, err := s.OpenBody(id)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(b.Reader())
}

func TestDamagedBodies(t *testing.T) {
	disk := storetest.NewFaultFS()
	dir := t.TempDir()
	s, err := store.Open(dir, store.Options{FS: disk, Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	good, bad := put(t, s, octets(500, 1)), put(t, s, octets(500, 2))
	cut := put(t, s, octets(200<<10, 3))
	gone := put(t, s, octets(200<<10, 4))
	s.Close()
	shared := disk.File("bodies/00000001")
	shared[len(shared)-10] ^= 1
	disk.Put("bodies/00000001", shared)
	disk.Put("bodies/00000002", disk.File("bodies/00000002")[:1000])
	if err := disk.Remove("bodies/00000003"); err != nil {
		t.Fatal(err)
	}
	s, err = store.Open(dir, store.Options{FS: disk, Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !bytes.Equal(read(t, s, good), octets(500, 1)) {
		t.Error("the good body cannot be read")
	}
	for _, id := range []store.ID{bad, cut, gone} {
		if _, err := readAll(s, id); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%s: %v", id, err)
		}
	}
	r, err := s.Check(t.Context(), nil, nil)
	if err != nil || len(r.Problems) != 5 { // three bodies, two segments
		t.Errorf("Check: %v %v", r.Problems, err)
	}
	put(t, s, octets(10, 5))
	for _, id := range []store.ID{bad, cut, gone} {
		if err := s.Update(drop(id)); err != nil {
			t.Errorf("drop a damaged body: %v", err)
		}
	}
	storetest.Check(t, s)
}
