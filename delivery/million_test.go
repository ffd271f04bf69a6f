package delivery

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/internal/bench"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

var (
	millionRecipients = flag.Int("deferred.recipients", 20_000, "how many deferred recipients are in the queue of TestManyDeferred")
	millionDomains    = flag.Int("deferred.domains", 1000, "and in how many domains")
)

// TestManyDeferred shows what recipients cost that wait for a later attempt: how long a start takes, how much memory, and
// how fast new mail comes in and goes out meanwhile, beside a queue with nothing in it. With
// -deferred.recipients=1000000 -v it prints the figures of docs/bench.md; TMPDIR says on which disk.
func TestManyDeferred(t *testing.T) {
	empty := openMany(t, filepath.Join(t.TempDir(), "empty"))
	alone := empty.freshTimes(t)
	empty.close(t)
	dir := filepath.Join(t.TempDir(), "data")
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	deferMany(t, st, *millionRecipients, *millionDomains)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	many := openMany(t, dir)
	defer many.close(t)
	opened := time.Since(began)
	st, sp, sink, ctx := many.st, many.sp, many.sink, t.Context()
	took := many.freshTimes(t)
	t.Logf("open %s, then the first message was out after %s", opened.Round(time.Millisecond), took.first.Round(time.Millisecond))
	t.Logf("a fresh message is out after %s (median), %s (p99); with an empty queue %s, %s", took.median, took.p99, alone.median, alone.p99)
	began = time.Now()
	counts, err := sp.Counts()
	if err != nil || counts.Deferred != int64(*millionRecipients) {
		t.Fatalf("counts: %+v, %v", counts, err)
	}
	t.Logf("counted in %s: %+v", time.Since(began), counts)
	used := heap()
	t.Logf("heap %.1f MB; resident %s", float64(used)/1e6, resident())
	if most := int64(30e6) + int64(*millionDomains)*600; used > most {
		t.Errorf("%d octets of heap, want at most %d", used, most)
	}
	fresh := min(5000, *millionRecipients)
	began = time.Now()
	fillSpool(t, st, sp, fresh, func(int) string { return "quick.test" })
	t.Logf("%.0f messages a second accepted, 500 in one commit", float64(fresh)/time.Since(began).Seconds())
	if err := sink.Wait(ctx, int64(50+fresh)); err != nil {
		t.Fatal(err)
	}
	t.Logf("and %.0f a second sent on", float64(fresh)/time.Since(began).Seconds())
}

// manyQueue is a queue that is sent from, to a sink.
type manyQueue struct {
	st    *store.Store
	sp    *spool.Spool
	sink  *bench.Sink
	stop  context.CancelFunc
	ended chan error
}

func openMany(t *testing.T, dir string) *manyQueue {
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	q := &manyQueue{st, spool.Open(st, nil), bench.NewSink(0), stop, make(chan error, 2)}
	go func() { q.ended <- q.sink.Serve(ctx, l) }()
	r := New(Config{Store: st, Spool: q.sp, Routes: []Route{{Domain: "quick.test", Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}}})
	go func() { q.ended <- r.Run(ctx) }()
	return q
}

func (q *manyQueue) close(t *testing.T) {
	q.stop()
	<-q.ended
	<-q.ended
	if err := q.st.Close(); err != nil {
		t.Error(err)
	}
}

// freshMessages go one after the other to see how long one takes.
const freshMessages = 300

type freshTimes struct{ first, median, p99 time.Duration }

func (q *manyQueue) freshTimes(t *testing.T) freshTimes {
	took := make([]time.Duration, freshMessages)
	for i := range took {
		began := time.Now()
		fillSpool(t, q.st, q.sp, 1, func(int) string { return "quick.test" })
		if err := q.sink.Wait(t.Context(), int64(i)+1); err != nil {
			t.Fatal(err)
		}
		took[i] = time.Since(began)
	}
	first := took[0]
	slices.Sort(took)
	return freshTimes{first, took[freshMessages/2], took[freshMessages*99/100]}
}

// deferMany queues recipients that wait for hours, ten to a message.
func deferMany(t *testing.T, st *store.Store, n, domains int) {
	sp := spool.Open(st, nil)
	for done := 0; done < n; {
		drafts := make([]*store.Draft, 0, 200)
		for range min(200, (n-done+9)/10) {
			d := st.NewDraft()
			fmt.Fprint(d, "Return-Path: <a@x.test>\r\nSubject: x\r\n\r\nbody\r\n")
			drafts = append(drafts, d)
		}
		first := done
		err := st.Update(func(tx store.Tx) error {
			done = first
			for i, d := range drafts {
				m := &spool.Message{ID: d.ID(), Size: d.Size(), Skip: 25, Envelope: envelope.Envelope{From: path("<a@x.test>")}}
				m.Envelope.Release = time.Now().Add(time.Hour + time.Duration(first+i)*time.Millisecond)
				var rcpts []spool.Recipient
				for range min(10, n-done) {
					to := envelope.Address{Local: "someone", Domain: fmt.Sprintf("d%d.dead.test", done*7919%domains)}
					rcpts = append(rcpts, spool.Recipient{Recipient: envelope.Recipient{To: to}})
					done++
				}
				if err := sp.Add(tx, m, rcpts, trace.Received); err != nil {
					return err
				}
			}
			return nil
		}, drafts...)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// resident is what the kernel says that this process has in memory; pages of files that are mapped count too.
func resident() string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	var of []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") || strings.HasPrefix(line, "RssFile") {
			of = append(of, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(of, ", ")
}
