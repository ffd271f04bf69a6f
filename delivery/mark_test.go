package delivery

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/spool"
)

// crashed returns the data directory as a killed process would leave it now.
func (f *fixture) crashed() string {
	dir := f.dir + "-crashed"
	if err := os.CopyFS(dir, os.DirFS(f.dir)); err != nil {
		f.t.Error(err)
	}
	return dir
}

// marks is how many are kept.
func (f *fixture) marks() (n int) {
	err := f.st.View(func(r store.Reader) error {
		for range r.Scan(store.NewKey("qs"), store.NewKey("qs").End()) {
			n++
		}
		return nil
	})
	if err != nil {
		f.t.Error(err)
	}
	return n
}

// restart opens the house again as a crash has left it.
func (f *fixture) restart(dir string) {
	f.t.Helper()
	f.close()
	f.dir = dir
	f.open()
}

// TestCrash: wherever the server is killed, the message comes to its end, and when that is a second copy for the peer
// the trace says once that there may be one.
func TestCrash(t *testing.T) {
	for _, pipelining := range []bool{false, true} {
		for _, phase := range []string{"greeting", "EHLO", "MAIL", "RCPT", "DATA", "dot"} {
			t.Run(phase, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T, f *fixture) { testCrash(t, f, phase, pipelining) })
			})
		}
	}
}

func testCrash(t *testing.T, f *fixture, phase string, pipelining bool) {
	p := f.site("y.test", public(1), &peer{})
	if pipelining {
		p.extensions = []string{"PIPELINING"}
	}
	var dir string
	p.before = func(at string) {
		if at == phase && dir == "" {
			dir = f.crashed()
		}
	}
	f.start()
	id := f.submit("<alice@a.test>", "one@y.test", "two@y.test")
	f.drained()
	f.restart(dir)
	f.start()
	f.pass(time.Minute)
	f.drained()
	if got := p.got(); len(got) != 2 { // before and after the crash, which the peer has not seen
		t.Errorf("the peer has %q", got)
	}
	doubts := 0
	for _, e := range f.events(id) {
		if strings.Contains(e, "possibly delivered: the server stopped") {
			doubts++
		}
	}
	switch {
	case phase == "dot" && doubts != 2:
		t.Errorf("%d recipients are possibly delivered, want 2: %q", doubts, f.events(id))
	case (phase == "greeting" || phase == "EHLO") && doubts != 0:
		t.Errorf("%d recipients are possibly delivered although nothing was sent", doubts)
	}
}

// TestNoMarkNoEnd: when the store does not take the mark, the peer does not get the message, and nothing is lost.
func TestNoMarkNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := storetest.NewFaultFS()
		f := newFixtureOn(t, disk)
		p := f.site("y.test", public(1), &peer{})
		p.before = func(phase string) {
			if phase != "greeting" {
				return
			}
			disk.FailAt(len(disk.Ops()), storetest.NotDone, true)
			draft := f.st.NewDraft()
			draft.Write([]byte("x"))
			if err := f.sp.Accept(&spool.Message{}, f.rcpts("bob@a.test"), draft, nil); err == nil {
				t.Error("the store works")
			}
			disk.FailAt(-1, storetest.NotDone, false) // it reads, but writes no more
		}
		f.submit("<alice@a.test>", "one@y.test")
		f.start()
		f.pass(time.Minute)
		if got := p.got(); len(got) != 0 || count(p.commands(), "DATA") != 1 {
			t.Errorf("the peer has %q after %q", got, p.commands())
		}
		f.halt()
		p.before = nil
		f.reopen()
		f.start()
		f.pass(time.Hour)
		f.drained()
		if got := p.got(); len(got) != 1 {
			t.Errorf("the peer has %q", got)
		}
	})
}

// TestMarkIsTakenAway: whatever the outcome, no mark stays that a later start would take for a doubt.
func TestMarkIsTakenAway(t *testing.T) {
	for phase, say := range map[string]string{
		"MAIL": "451 4.3.0 later", "RCPT": "450 4.2.0 later", "DATA": "RST", "dot": "FIN", "RCPT two@y.test": "452 4.5.3 too many",
	} {
		bubble(t, func(t *testing.T, f *fixture) {
			f.site("y.test", public(1), &peer{say: map[string]string{phase: say}})
			f.start()
			id := f.submit("<alice@a.test>", "one@y.test", "two@y.test")
			f.pass(time.Minute)
			f.halt()
			entry, err := f.sp.Get(id)
			if err != nil {
				t.Fatal(err)
			}
			if left := f.marks(); len(entry.Recipients) == 0 || left != 0 {
				t.Errorf("%s %s: %d marks are left", phase, say, left)
			}
		})
	}
}

// TestStopTakesMarksAway: an attempt that is broken off as we stop leaves no doubt unless there is one.
func TestStopTakesMarksAway(t *testing.T) {
	for phase, want := range map[string]bool{"DATA": false, "dot": true} {
		bubble(t, func(t *testing.T, f *fixture) {
			p := f.site("y.test", public(1), &peer{say: map[string]string{phase: "silence"}})
			f.start()
			id := f.submit("<alice@a.test>", "one@y.test")
			f.pass(time.Second)
			f.halt() // after 10 s of grace
			if left := f.marks(); left != 0 {
				t.Errorf("%s: a mark is left", phase)
			}
			p.answers(phase, "")
			f.start()
			f.pass(time.Hour)
			f.drained()
			doubtful := strings.Contains(strings.Join(f.events(id), "\n"), "possibly delivered")
			if doubtful != want {
				t.Errorf("%s: possibly delivered: %v, want %v", phase, doubtful, want)
			}
		})
	}
}

func TestMarkError(t *testing.T) {
	refused := errors.New("disk gone")
	m := &mark{done: make(chan struct{}), err: refused}
	close(m.done)
	if err := m.wait(); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkRecord is what the record of a relayed recipient costs, without and with the mark before it, when so many
// attempts are under way. The network, in whose time the mark is written, is not there.
func BenchmarkRecord(b *testing.B) {
	for _, attempts := range []int{1, 20, 50} {
		for _, marks := range []bool{false, true} {
			b.Run(fmt.Sprintf("attempts=%d,mark=%v", attempts, marks), func(b *testing.B) { benchmarkRecord(b, attempts, marks) })
		}
	}
}

func benchmarkRecord(b *testing.B, attempts int, marks bool) {
	f := newFixture(b)
	r := New(Config{Store: f.st, Spool: f.sp, Mailboxes: f.mb, Accounts: f.ac})
	r.hard = b.Context()
	for range b.N {
		f.submit("<alice@a.test>", "one@y.test")
	}
	var due []spool.Due
	for len(due) < b.N {
		some, err := f.sp.Claim(b.N)
		if err != nil {
			b.Fatal(err)
		}
		due = append(due, some...)
	}
	before, cpu := f.st.Stats(), processTime()
	b.ReportAllocs()
	b.ResetTimer()
	var work sync.WaitGroup
	for part := range slices.Chunk(due, (b.N+attempts-1)/attempts) {
		work.Go(func() {
			for _, d := range part {
				if marks {
					r.mark([]spool.Due{d}).wait()
				}
				r.record(b.Context(), []outcome{{due: d, reply: envelope.Reply{Code: 250, Text: "queued"}}})
			}
		})
	}
	work.Wait()
	b.StopTimer()
	b.ReportMetric(float64(processTime()-cpu)/1e3/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(f.st.Stats().Commits-before.Commits)/float64(b.N), "commits/op")
}

// processTime is the processor's time of this process in nanoseconds.
func processTime() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return syscall.TimevalToNsec(u.Utime) + syscall.TimevalToNsec(u.Stime)
}
