package store

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// Any engine has to pass this: it is what the store expects of one.
func TestEngines(t *testing.T) {
	t.Run("bolt", func(t *testing.T) {
		dir := t.TempDir()
		testEngine(t, func() engine {
			e, err := openBolt(dir)
			if err != nil {
				t.Fatal(err)
			}
			return e
		})
	})
	t.Run("mem", func(t *testing.T) {
		e := &MemEngine{}
		testEngine(t, func() engine { e, _ := e.Open(); return e })
	})
}

func testEngine(t *testing.T, open func() engine) {
	e := open()
	defer func() { _ = e.Close() }()
	c := &conformance{t: t, e: e, want: map[string]string{}, r: rand.New(rand.NewPCG(1, 2))}
	c.emptyValues()
	c.errorUndoes()
	c.panicUndoes()
	c.viewIsASnapshot()
	for range 60 {
		c.randomUpdate()
	}
	c.emptyPagesInAScan()
	c.clean()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.View(func(Reader) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("a view after Close: %v", err)
	}
	c.e = open()
	e = c.e
	c.compare("after opening again")
	c.clean()
}

type conformance struct {
	t    *testing.T
	e    engine
	want map[string]string
	r    *rand.Rand
}

func (c *conformance) update(fn func(writer) error) {
	c.t.Helper()
	if err := c.e.Update(fn); err != nil {
		c.t.Fatal(err)
	}
}

func (c *conformance) clean() {
	c.t.Helper()
	if err := c.e.Check(c.t.Context(), func(text string) { c.t.Error(text) }); err != nil {
		c.t.Error(err)
	}
}

func (c *conformance) emptyValues() {
	c.update(func(w writer) error {
		w.Put([]byte("empty"), nil)
		if v := w.Get([]byte("empty")); v == nil {
			c.t.Error("an empty value reads as none within its transaction")
		}
		if v := w.Get([]byte("none")); v != nil {
			c.t.Errorf("a key that is not there has the value %q", v)
		}
		return nil
	})
	c.want["empty"] = ""
	c.compare("with an empty value")
}

func (c *conformance) errorUndoes() {
	mine := errors.New("mine")
	err := c.e.Update(func(w writer) error {
		w.Put([]byte("undone"), []byte("x"))
		w.Delete([]byte("empty"))
		return mine
	})
	if err != mine {
		c.t.Errorf("the function's error comes back as %v", err)
	}
	c.compare("after an error")
}

func (c *conformance) panicUndoes() {
	func() {
		defer func() {
			if p := recover(); p != "mine" {
				c.t.Errorf("the function's panic comes back as %v", p)
			}
		}()
		_ = c.e.Update(func(w writer) error {
			w.Put([]byte("undone"), []byte("x"))
			panic("mine")
		})
	}()
	c.compare("after a panic")
}

func (c *conformance) viewIsASnapshot() {
	err := c.e.View(func(r Reader) error {
		c.update(func(w writer) error { w.Put([]byte("later"), []byte("x")); return nil })
		if r.Get([]byte("later")) != nil {
			c.t.Error("a view shows what was committed after it began")
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.want["later"] = "x"
	c.compare("after the view")
}

// randomUpdate does some hundred writes and looks at the outcome inside and after.
func (c *conformance) randomUpdate() {
	draft := maps.Clone(c.want)
	fail := c.r.IntN(4) == 0
	err := c.e.Update(func(w writer) error {
		for range c.r.IntN(300) {
			k := fmt.Sprintf("%c%d", 'a'+c.r.IntN(3), c.r.IntN(1000))
			if c.r.IntN(3) == 0 {
				w.Delete([]byte(k))
				delete(draft, k)
			} else {
				v := fmt.Sprint(c.r.IntN(100))
				w.Put([]byte(k), []byte(v))
				draft[k] = v
			}
		}
		compareReader(c.t, "within an update", w, draft, c.r)
		if fail {
			return errUnchanged
		}
		return nil
	})
	if !fail {
		c.want = draft
	}
	if fail != errors.Is(err, errUnchanged) || (!fail && err != nil) {
		c.t.Fatal(err)
	}
	c.compare("after a random update")
}

// emptyPagesInAScan empties whole pages within a transaction and scans across the gap.
func (c *conformance) emptyPagesInAScan() {
	key := func(i int) []byte { return fmt.Appendf(nil, "page%05d", i) }
	c.update(func(w writer) error {
		for i := range 3000 {
			w.Put(key(i), bytes.Repeat([]byte("v"), 20))
			c.want[string(key(i))] = "vvvvvvvvvvvvvvvvvvvv"
		}
		return nil
	})
	c.update(func(w writer) error {
		for i := 100; i < 2900; i++ {
			w.Delete(key(i))
			delete(c.want, string(key(i)))
		}
		compareReader(c.t, "with emptied pages", w, c.want, c.r)
		return nil
	})
	c.compare("after emptying pages")
}

func (c *conformance) compare(when string) {
	c.t.Helper()
	err := c.e.View(func(r Reader) error {
		compareReader(c.t, when, r, c.want, c.r)
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// compareReader holds gets and scans of random ranges against a map.
func compareReader(t *testing.T, when string, r Reader, want map[string]string, rnd *rand.Rand) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(want))
	for _, k := range keys {
		if got := r.Get([]byte(k)); string(got) != want[k] || got == nil {
			t.Fatalf("%s: %q is %q, should be %q", when, k, got, want[k])
		}
	}
	bounds := [][]byte{nil, []byte("a"), []byte("b5"), []byte("page00100"), []byte("page01500"), []byte("zz")}
	for range 6 {
		from, to := bounds[rnd.IntN(len(bounds))], bounds[rnd.IntN(len(bounds))]
		var in []string
		for _, k := range keys {
			if k >= string(from) && before([]byte(k), to) {
				in = append(in, k)
			}
		}
		compareScan(t, fmt.Sprintf("%s: scan %q to %q", when, from, to), r.Scan(from, to), in, want)
		slices.Reverse(in)
		compareScan(t, fmt.Sprintf("%s: scan back %q to %q", when, from, to), r.ScanBack(from, to), in, want)
	}
	for range r.Scan(nil, nil) {
		break // a scan may end early
	}
}

func compareScan(t *testing.T, when string, scan iter.Seq2[[]byte, []byte], keys []string, want map[string]string) {
	t.Helper()
	i := 0
	for k, v := range scan {
		if i >= len(keys) || string(k) != keys[i] || string(v) != want[keys[i]] {
			t.Fatalf("%s: entry %d is %q=%q", when, i, k, v)
		}
		i++
	}
	if i != len(keys) {
		t.Fatalf("%s: %d entries instead of %d", when, i, len(keys))
	}
}

// Pages come to lie where zeros were written before, also after the file was opened again.
func TestIndexIsLaidAhead(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		e, err := openBolt(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			key := NewKey("te").Uint(uint64(round)).Uint(uint64(i))
			if err := e.Update(func(w writer) error { w.Put(key, make([]byte, 20_000)); return nil }); err != nil {
				t.Fatal(err)
			}
			if used := e.Size(); e.laid < used {
				t.Fatalf("%d octets are in use, and zeros were laid up to %d", used, e.laid)
			}
		}
		if err := e.Check(t.Context(), func(text string) { t.Error(text) }); err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}
