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
// how fast new mail comes in and goes out meanwhile. With -deferred.recipients=1000000 -v it prints the figures of
// docs/bench.md; TMPDIR says on which disk.
func TestManyDeferred(t *testing.T) {
	if testing.Short() {
		*millionRecipients = min(*millionRecipients, 2000)
	}
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
	if st, err = store.Open(dir, store.Options{}); err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	opened := time.Since(began)
	sp := spool.Open(st, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sink, ended := bench.NewSink(0), make(chan error, 2)
	go func() { ended <- sink.Serve(ctx, l) }()
	r := New(Config{Store: st, Spool: sp, Routes: []Route{{Domain: "quick.test", Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}}})
	go func() { ended <- r.Run(ctx) }()
	defer func() { cancel(); <-ended; <-ended }()

	var took []time.Duration
	for i := range 50 {
		took = append(took, oneQuick(t, st, sp, sink, int64(i+1)))
	}
	t.Logf("open %s, then the first message was out after %s", opened.Round(time.Millisecond), took[0].Round(time.Millisecond))
	slices.Sort(took)
	t.Logf("a fresh message is out after %s (median), %s (worst)", took[len(took)/2], took[len(took)-1])
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

func oneQuick(t *testing.T, st *store.Store, sp *spool.Spool, sink *bench.Sink, n int64) time.Duration {
	began := time.Now()
	fillSpool(t, st, sp, 1, func(int) string { return "quick.test" })
	if err := sink.Wait(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
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
