package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

var errMine = errors.New("mine")

// together has all fns committed in one batch, in order: while an update holds the
// committer they gather behind it. It returns what each Update returned or panicked with.
func together(t *testing.T, s *store.Store, fns []func(store.Tx) error, drafts ...[]*store.Draft) []any {
	t.Helper()
	before := s.Stats().Commits
	held, letGo := make(chan struct{}), make(chan struct{})
	outcomes := make([]any, len(fns))
	var wg sync.WaitGroup
	wg.Go(func() {
		once := sync.OnceFunc(func() { close(held); <-letGo })
		if err := s.Update(func(tx store.Tx) error { once(); tx.Put([]byte("held"), []byte(time.Now().String())); return nil }); err != nil {
			t.Error(err)
		}
	})
	<-held
	for i, fn := range fns {
		var ds []*store.Draft
		if i < len(drafts) {
			ds = drafts[i]
		}
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					outcomes[i] = p
				}
			}()
			if err := s.Update(fn, ds...); err != nil {
				outcomes[i] = err
			}
		})
		for s.Waiting() != i+1 {
			runtime.Gosched()
		}
	}
	close(letGo)
	wg.Wait()
	if n := s.Stats().Commits - before; n > 2 {
		t.Fatalf("%d commits instead of 2", n)
	}
	return outcomes
}

func set(key, value string) func(store.Tx) error {
	return func(tx store.Tx) error { tx.Put([]byte(key), []byte(value)); return nil }
}

func get(t *testing.T, s *store.Store, key string) (value string) {
	t.Helper()
	err := s.View(func(r store.Reader) error { value = string(r.Get([]byte(key))); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestOneFailsTheOthersCommit(t *testing.T) {
	s := storetest.Open(t, refs)
	id := put(t, s, []byte("body"))
	d := s.NewDraft()
	fmt.Fprint(d, "of the one that fails")
	out := together(t, s, []func(store.Tx) error{
		set("te-a", "1"),
		func(tx store.Tx) error {
			tx.Put([]byte("te-a"), []byte("2"))
			tx.Put([]byte("te-b"), []byte("2"))
			tx.Put([]byte("te-b"), []byte("3"))
			tx.Delete([]byte("te-a"))
			tx.Ref(d.ID())
			tx.Ref(id)
			tx.Unref(id)
			tx.Unref(id)
			tx.SetNote(id, []byte("undone"))
			tx.SetNote(id, []byte("undone as well"))
			return errMine
		},
		func(tx store.Tx) error {
			tx.Delete([]byte("te-a"))
			tx.Put([]byte("te-c"), []byte("4"))
			panic("mine")
		},
		func(tx store.Tx) error {
			tx.Put([]byte("te-seen"), append([]byte("a="), tx.Get([]byte("te-a"))...))
			return nil
		},
	}, nil, []*store.Draft{d})
	if want := []any{nil, errMine, "mine", nil}; !slices.Equal(out, want) {
		t.Errorf("outcomes %v, should be %v", out, want)
	}
	for key, want := range map[string]string{"te-a": "1", "te-b": "", "te-c": "", "te-seen": "a=1"} {
		if got := get(t, s, key); got != want {
			t.Errorf("%s is %q, should be %q", key, got, want)
		}
	}
	if _, err := s.OpenBody(d.ID()); !errors.Is(err, store.ErrNoBody) {
		t.Errorf("the body of the failed update: %v", err)
	}
	if got := read(t, s, id); string(got) != "body" {
		t.Errorf("the body that the failed update touched: %q", got)
	}
	if got := noteOf(t, s, id); got != "" {
		t.Errorf("the note of the failed update: %q", got)
	}
	_ = s.Update(func(tx store.Tx) error { // so that Check's references agree
		for _, k := range []string{"te-a", "te-seen"} {
			tx.Delete([]byte(k))
		}
		return nil
	})
}

func noteOf(t testing.TB, s *store.Store, id store.ID) (note string) {
	t.Helper()
	err := s.View(func(r store.Reader) error {
		b, err := store.Note(r, id)
		note = string(b)
		return err
	})
	if err != nil {
		t.Errorf("the note of %s: %v", id, err)
	}
	return note
}

// A note lives as long as its body, whoever refers to that.
func TestNotes(t *testing.T) {
	s := storetest.Open(t)
	d := s.NewDraft()
	id := d.ID()
	noted := func(note string) func(tx store.Tx) error {
		return func(tx store.Tx) error {
			tx.SetNote(id, []byte(note))
			if got, err := store.Note(tx, id); string(got) != note || err != nil {
				t.Errorf("within the update the note is %q, %v", got, err)
			}
			return nil
		}
	}
	ref := func(tx store.Tx) error { tx.Ref(id); return nil }
	unref := func(tx store.Tx) error { tx.Unref(id); return nil }
	both := func(tx store.Tx) error { tx.Ref(id); return noted("first")(tx) }
	if err := s.Update(both, d); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		fns  []func(store.Tx) error
		want string
	}{
		{"nothing else", nil, "first"},
		{"another reference", []func(store.Tx) error{ref}, "first"},
		{"another note", []func(store.Tx) error{noted("second")}, "second"},
		{"a failure after a note", []func(store.Tx) error{
			noted("third"), func(tx store.Tx) error { return errors.Join(noted("4")(tx), errMine) },
		}, "third"},
		{"one reference less", []func(store.Tx) error{unref}, "third"},
		{"none", []func(store.Tx) error{noted("")}, ""},
		{"one again", []func(store.Tx) error{noted("fifth")}, "fifth"},
	} {
		together(t, s, step.fns)
		if got := noteOf(t, s, id); got != step.want {
			t.Errorf("after %s the note is %q, should be %q", step.what, got, step.want)
		}
	}
	if err := s.Update(unref); err != nil {
		t.Fatal(err)
	}
	err := s.View(func(r store.Reader) error { _, err := store.Note(r, id); return err })
	if !errors.Is(err, store.ErrNoBody) {
		t.Errorf("the note of no body: %v", err)
	}
	late := func(tx store.Tx) error { tx.SetNote(id, []byte("late")); return nil }
	if err := s.Update(late); !errors.Is(err, store.ErrNoBody) {
		t.Errorf("a note for no body: %v", err)
	}
}

func TestReferences(t *testing.T) {
	s := storetest.Open(t)
	id := put(t, s, []byte("x"))
	twice := func(tx store.Tx) error { tx.Ref(id); return nil }
	if err := s.Update(twice); err != nil {
		t.Fatal(err)
	}
	once := func(tx store.Tx) error { tx.Unref(id); return nil }
	if err := s.Update(once); err != nil {
		t.Fatal(err)
	}
	read(t, s, id)
	moved := func(tx store.Tx) error { tx.Unref(id); tx.Ref(id); return nil }
	if err := s.Update(moved); err != nil {
		t.Fatal(err)
	}
	read(t, s, id)
	out := together(t, s, []func(store.Tx) error{once, twice, once})
	for i, ok := range []bool{true, false, false} {
		if err, _ := out[i].(error); ok != (err == nil) || !ok && !errors.Is(err, store.ErrNoBody) {
			t.Errorf("update %d after the last reference went: %v", i, out[i])
		}
	}
	if _, err := s.OpenBody(id); !errors.Is(err, store.ErrNoBody) {
		t.Errorf("the body without references: %v", err)
	}
}

func TestUpdateRefuses(t *testing.T) {
	s := storetest.Open(t)
	id := put(t, s, []byte("x"))
	for name, fn := range map[string]func(tx store.Tx){
		"an empty key":         func(tx store.Tx) { tx.Put(nil, nil) },
		"a key too long":       func(tx store.Tx) { tx.Put(make([]byte, 32769), nil) },
		"the store's tables":   func(tx store.Tx) { tx.Put(store.NewKey("bo").Uint(uint64(id)), nil) },
		"their deletion":       func(tx store.Tx) { tx.Delete(store.NewKey("sg").Uint(1)) },
		"a body never made":    func(tx store.Tx) { tx.Ref(7) },
		"an unref too many":    func(tx store.Tx) { tx.Unref(id); tx.Unref(id) },
		"an unref of no body":  func(tx store.Tx) { tx.Unref(s.NewID()) },
		"the first of several": func(tx store.Tx) { tx.Ref(7); tx.Put([]byte("x"), nil) },
	} {
		err := s.Update(func(tx store.Tx) error { tx.Put([]byte("undone"), []byte("x")); fn(tx); return nil })
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if got := get(t, s, "undone"); got != "" {
		t.Errorf("a refused update left %q", got)
	}
	read(t, s, id)
}

func TestOnCommit(t *testing.T) {
	s := storetest.Open(t)
	ran := 0
	hook := func(err error) func(store.Tx) error {
		return func(tx store.Tx) error { tx.OnCommit(func() { ran++ }); return err }
	}
	_ = s.Update(hook(errMine))
	if ran != 0 {
		t.Error("a hook ran though its update failed")
	}
	_ = s.Update(hook(nil))
	if ran != 1 {
		t.Error("a hook did not run before Update returned")
	}
	defer func() {
		if p := recover(); p != "mine" {
			t.Errorf("a hook's panic came back as %v", p)
		}
	}()
	_ = s.Update(func(tx store.Tx) error { tx.OnCommit(func() { panic("mine") }); return nil })
}

func TestNothingToWriteIsNoCommit(t *testing.T) {
	s := storetest.Open(t)
	put(t, s, []byte("x"))
	if err := s.Update(set("k", "v")); err != nil {
		t.Fatal(err)
	}
	before := s.Stats()
	for _, fn := range []func(store.Tx) error{
		func(store.Tx) error { return nil },
		set("k", "v"), // as it is
		func(tx store.Tx) error { tx.Delete([]byte("none")); return nil },
	} {
		if err := s.Update(fn); err != nil {
			t.Fatal(err)
		}
	}
	if after := s.Stats(); after.Flushes != before.Flushes {
		t.Errorf("%d flushes for nothing", after.Flushes-before.Flushes)
	}
}

func TestGoexitInAnUpdateFailsTheStoreOnly(t *testing.T) {
	dir := t.TempDir()
	s := storetest.OpenDir(t, dir, store.Options{})
	id := put(t, s, []byte("before"))
	err := s.Update(func(tx store.Tx) error { tx.Put([]byte("k"), []byte("v")); runtime.Goexit(); return nil })
	if !errors.Is(err, store.ErrFailed) {
		t.Errorf("Update returned %v", err)
	}
	if err := s.Update(set("k", "v")); !errors.Is(err, store.ErrFailed) {
		t.Errorf("the next Update returned %v", err)
	}
	read(t, s, id)
}

func TestDraftsAreUsedOnce(t *testing.T) {
	for _, n := range []int{10, 200 << 10} {
		s := storetest.Open(t)
		d := s.NewDraft()
		d.Write(octets(n, 1))
		if err := s.Update(keep(d.ID()), d); err != nil {
			t.Fatal(err)
		}
		if err := s.Update(keep(d.ID()), d); err == nil {
			t.Error("a draft is committed twice")
		}
		if _, err := d.Write([]byte("x")); err == nil {
			t.Error("a committed draft can be written")
		}
		d.Discard()
		if got := read(t, s, d.ID()); !bytes.Equal(got, octets(n, 1)) {
			t.Error("Discard after Update took the body away")
		}
		lost := s.NewDraft()
		lost.Write(octets(n, 2))
		lost.Discard()
		lost.Discard()
		if err := s.Update(keep(lost.ID()), lost); err == nil {
			t.Error("a discarded draft is committed")
		}
		unkept := s.NewDraft()
		unkept.Write(octets(n, 3))
		if err := s.Update(set("k", "v"), unkept); err != nil {
			t.Fatal(err)
		}
		if _, err := s.OpenBody(unkept.ID()); !errors.Is(err, store.ErrNoBody) {
			t.Errorf("a draft without a reference: %v", err)
		}
	}
}

func TestClosedStore(t *testing.T) {
	s := storetest.Open(t)
	id := put(t, s, []byte("x"))
	b, err := s.OpenBody(id)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Verify(); err != nil {
		t.Errorf("an open body after Close: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("close a body after Close: %v", err)
	}
	d := s.NewDraft()
	for what, err := range map[string]error{
		"Update": s.Update(keep(d.ID()), d),
		"View":   s.View(func(store.Reader) error { return nil }),
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	if _, err := s.OpenBody(id); !errors.Is(err, store.ErrClosed) {
		t.Errorf("OpenBody after Close: %v", err)
	}
}

// IDs rise whatever the clock does and whatever becomes of the process.
func TestIDsRise(t *testing.T) {
	l := newLedger(t)
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var last store.ID
	next := func(when string, id store.ID) {
		if id <= last {
			t.Errorf("%s: %s does not follow %s", when, id, last)
		}
		last = id
	}
	open := func() {
		s, err := store.Open(l.dir, store.Options{FS: l.fs, Reserve: 1, Now: func() time.Time { return clock }}.With(l.mem.Open))
		if err != nil {
			t.Fatal(err)
		}
		l.s = s
	}
	open()
	if id := l.s.NewID(); uint64(id) != uint64(clock.UnixMicro()) {
		t.Errorf("the first id is %d, not the clock's", id)
	}
	for i, step := range []time.Duration{0, time.Second, -time.Hour, -10 * 365 * 24 * time.Hour, 24 * time.Hour, 0} {
		clock = clock.Add(step)
		ids := l.put(10)
		next(fmt.Sprintf("step %d", i), ids[0])
		l.drop(ids[0])
		next(fmt.Sprintf("step %d, not committed", i), l.s.NewID())
		clock = clock.Add(time.Minute)
		next(fmt.Sprintf("step %d, a minute later", i), l.put(10)[0])
		if i%2 == 0 {
			l.close()
		} else {
			l.crash()
		}
		open()
	}
	if got := time.UnixMicro(int64(l.s.NewID())).Sub(clock); got < 0 {
		t.Errorf("ids are %v behind the clock", -got)
	}
	l.close()
}

func TestBatchesAreBounded(t *testing.T) {
	s := storetest.Open(t, refs)
	var fns []func(store.Tx) error
	var drafts [][]*store.Draft
	for i := range 50 {
		d := s.NewDraft()
		d.Write(octets(100<<10, uint64(i)))
		drafts = append(drafts, []*store.Draft{d})
		fns = append(fns, keep(d.ID()))
	}
	before := s.Stats().Commits
	held, letGo := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.Update(func(store.Tx) error { close(held); <-letGo; return nil })
	})
	<-held
	for i := range fns {
		wg.Go(func() {
			if err := s.Update(fns[i], drafts[i]...); err != nil {
				t.Error(err)
			}
		})
	}
	for s.Waiting() != len(fns) {
		runtime.Gosched()
	}
	close(letGo)
	wg.Wait()
	if n := s.Stats().Commits - before; n != 2 { // 5 MiB, 4 MiB at a time
		t.Errorf("%d commits instead of 2", n)
	}
}
