package store_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"testing"

	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// full has the campaigns take minutes instead of seconds: go test ./internal/store -full.
var full = flag.Bool("full", false, "run the fault, damage and kill campaigns in full")

// A ledger does what the server does, on a disk that may fail, and writes down what it
// was promised. audit holds the store against it after a restart.
type ledger struct {
	t   testing.TB
	dir string
	fs  *storetest.FaultFS
	mem *store.MemEngine
	s   *store.Store

	sent    map[store.ID][]byte // whatever may be there
	acked   map[store.ID]bool   // must be there
	gone    map[store.ID]bool   // must not be there
	unknown map[store.ID]bool   // there or not, but whole
}

func newLedger(t testing.TB) *ledger {
	disk := storetest.NewFaultFS()
	disk.SetFree(4 << 20) // too little for ballast, which has a test of its own
	return &ledger{
		t: t, dir: t.TempDir(), fs: disk, mem: &store.MemEngine{},
		sent: map[store.ID][]byte{}, acked: map[store.ID]bool{}, gone: map[store.ID]bool{}, unknown: map[store.ID]bool{},
	}
}

func (l *ledger) open() error {
	s, err := store.Open(l.dir, store.Options{FS: l.fs, SegmentSize: 3000, Reserve: 1}.With(l.mem.Open))
	if err != nil {
		return err
	}
	l.s = s
	return nil
}

func (l *ledger) close() {
	if l.s != nil {
		_ = l.s.Close() // the disk may be dead
		l.s = nil
	}
}

// put sends one body of each size in one update.
func (l *ledger) put(sizes ...int) (ids []store.ID) {
	var drafts []*store.Draft
	for _, n := range sizes {
		d := l.s.NewDraft()
		l.sent[d.ID()] = octets(n, uint64(d.ID()))
		ids = append(ids, d.ID())
		if _, err := d.Write(l.sent[d.ID()]); err != nil {
			d.Discard()
			l.gone[d.ID()] = true
			ids = ids[:len(ids)-1]
			continue
		}
		drafts = append(drafts, d)
	}
	l.told(ids, l.acked, l.gone, l.s.Update(func(tx store.Tx) error {
		for _, id := range ids {
			if err := keep(id)(tx); err != nil {
				return err
			}
			tx.SetNote(id, noteFor(l.sent[id]))
		}
		return nil
	}, drafts...))
	return ids
}

// told writes down the outcome of an update.
func (l *ledger) told(ids []store.ID, yes, no map[store.ID]bool, err error) {
	for _, id := range ids {
		switch {
		case err == nil:
			yes[id] = true
			delete(no, id)
		case errors.Is(err, store.ErrFailed):
			delete(yes, id)
			delete(no, id)
			l.unknown[id] = true
		default:
			no[id] = true
			delete(yes, id)
		}
	}
}

func (l *ledger) drop(id store.ID) {
	if !l.acked[id] {
		return
	}
	l.told([]store.ID{id}, l.gone, l.acked, l.s.Update(drop(id)))
}

// refs are the ledger's references in the index.
func refs(r store.Reader) iter.Seq[store.ID] {
	return func(yield func(store.ID) bool) {
		from := store.NewKey("te")
		for k := range r.Scan(from, from.End()) {
			id, _ := store.TakeUint(k[2:])
			if !yield(store.ID(id)) {
				return
			}
		}
	}
}

// work is a life of appends, large drafts, rotations, drops, compaction and restarts.
func (l *ledger) work() {
	if l.open() != nil {
		return
	}
	a := l.put(100)
	b := l.put(700, 900)
	big := l.put(150 << 10)
	c := l.put(500, 140<<10)
	for _, id := range append(a, b[:]...) {
		l.drop(id)
	}
	d := l.put(2500)
	l.put(1200, 1300, 1400)
	e := l.put(10)
	for _, id := range append(append(big, c[:]...), d...) {
		l.drop(id)
	}
	_, _ = l.s.Compact(l.t.Context())
	l.restart()
	f := l.put(2000, 2000)
	l.put(50)
	for _, id := range append(e, f...) {
		l.drop(id)
	}
	l.put(131 << 10)
	_, _ = l.s.Compact(l.t.Context())
	l.put(60)
	l.restart()
	l.put(1)
}

// restart opens the store again; when that fails it goes on with what there is.
func (l *ledger) restart() {
	l.close()
	if l.open() != nil {
		l.fs.FailAt(-1, "", false)
		if err := l.open(); err != nil {
			l.t.Fatalf("open without faults: %v", err)
		}
	}
}

// audit opens the store on a disk that works and looks whether all promises were kept.
func (l *ledger) audit() {
	l.t.Helper()
	l.fs.FailAt(-1, "", false)
	if err := l.open(); err != nil {
		l.t.Fatalf("open after the fault: %v", err)
	}
	there := map[store.ID]bool{}
	_ = l.s.View(func(r store.Reader) error {
		for id := range refs(r) {
			there[id] = true
		}
		return nil
	})
	for id := range l.acked {
		if !there[id] {
			l.t.Errorf("%s, %d octets: acknowledged and lost", id, len(l.sent[id]))
		}
	}
	for id := range there {
		if !l.acked[id] && !l.unknown[id] {
			l.t.Errorf("%s: it is there, but was refused or deleted", id)
		}
		l.same(id)
	}
	storetest.Check(l.t, l.s, refs)
	l.measure()
	l.afterwards(there)
	l.close()
}

// measure looks whether recovery left files exactly as long as the index says.
func (l *ledger) measure() {
	var octets int64
	for _, name := range l.fs.Names() {
		octets += int64(len(l.fs.File(name)))
	}
	if st := l.s.Stats(); octets != st.LiveOctets+st.DeadOctets {
		l.t.Errorf("%d octets in files %q, the index knows of %+v", octets, l.fs.Names(), st)
	}
}

// noteFor is a note that tells bodies apart.
func noteFor(body []byte) []byte { return body[:min(len(body), 40)] }

func (l *ledger) same(id store.ID) {
	if got := noteOf(l.t, l.s, id); got != string(noteFor(l.sent[id])) {
		l.t.Errorf("%s, %d octets: its note came back as %q", id, len(l.sent[id]), got)
	}
	b, err := l.s.OpenBody(id)
	if err != nil {
		l.t.Errorf("open %s: %v", id, err)
		return
	}
	defer b.Close()
	if got, err := io.ReadAll(b.Reader()); err != nil || !bytes.Equal(got, l.sent[id]) {
		l.t.Errorf("%s, %d octets: came back as other %d octets, %v", id, len(l.sent[id]), len(got), err)
	}
}

// afterwards looks whether the store works and nothing is left lying about.
func (l *ledger) afterwards(there map[store.ID]bool) {
	for id := range there {
		if err := l.s.Update(drop(id)); err != nil {
			l.t.Errorf("drop %s: %v", id, err)
		}
	}
	l.put(10)
	l.close()
	if err := l.open(); err != nil {
		l.t.Errorf("open at last: %v", err)
		return
	}
	if st := l.s.Stats(); st.Bodies != 1 || len(l.fs.Names()) > 2 {
		l.t.Errorf("one body should be left, with its segment: %+v, files %q", st, l.fs.Names())
	}
	storetest.Check(l.t, l.s, refs)
}

func TestWorkWithoutFaults(t *testing.T) {
	l := newLedger(t)
	l.work()
	l.close()
	if len(l.acked) != 7 || len(l.unknown) != 0 {
		t.Errorf("%d acknowledged, %d unknown", len(l.acked), len(l.unknown))
	}
	l.audit()
}

// Each operation on the disk fails in each form, once or from then on; then the process
// ends, with or without a power cut; then everything promised is there, and nothing else.
// Without -full each of these meets one form of the power cut, not all.
func TestFaultAtEachStep(t *testing.T) {
	clean := newLedger(t)
	clean.work()
	clean.close()
	ops := clean.fs.Ops()
	ends := append(storetest.Keeps, "") // "": no power cut
	points := 0
	for n, op := range ops {
		for i, fault := range storetest.Faults {
			for _, sticky := range []bool{false, true} {
				if sticky && fault == storetest.Cut {
					continue // a cut is for good
				}
				for j, end := range ends {
					if !*full && (n+2*i+j)%len(ends) != 0 {
						continue
					}
					points++
					name := fmt.Sprintf("%d %s: %s, sticky %v, keep %s", n, op, fault, sticky, end)
					t.Run(name, func(t *testing.T) { faultAt(t, n, fault, sticky, end) })
				}
			}
		}
	}
	t.Logf("%d operations, %d points", len(ops), points)
}

func faultAt(t *testing.T, n int, fault storetest.Fault, sticky bool, end storetest.Keep) {
	l := newLedger(t)
	l.fs.FailAt(n, fault, sticky)
	l.work()
	l.close()
	if end != "" {
		l.fs.Crash(end, uint64(n))
	}
	l.audit()
}

// Each commit of the index fails, before or after it was done.
func TestFailedCommitAtEachStep(t *testing.T) {
	clean := newLedger(t)
	clean.work()
	clean.close()
	for n := 1; n <= clean.mem.Commits; n++ {
		for _, done := range []bool{false, true} {
			for _, keep := range append(storetest.Keeps, "") {
				t.Run(fmt.Sprintf("%d, done %v, keep %s", n, done, keep), func(t *testing.T) {
					l := newLedger(t)
					l.mem.FailAt, l.mem.Done = n, done
					l.work()
					l.close()
					if keep != "" {
						l.fs.Crash(keep, uint64(n))
					}
					l.audit()
				})
			}
		}
	}
}

// crash ends the process without its consent.
func (l *ledger) crash() {
	l.s.Abandon()
	l.s = nil
}
