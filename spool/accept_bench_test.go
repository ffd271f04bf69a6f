package spool_test

import (
	"bytes"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

var benchDeferred = flag.Int("deferred", 0, "how many deferred recipients are in the queue of BenchmarkAccept")

// BenchmarkAccept is what accepting a message of 4 KB costs, one recipient each, by so many callers at a time, for a mailbox
// here and for one and many domains elsewhere; with -deferred=1000000 while so many wait. TMPDIR says on which disk.
func BenchmarkAccept(b *testing.B) {
	st, err := store.Open(b.TempDir(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	sp := spool.Open(st, nil)
	fillDeferred(b, st, sp, *benchDeferred)
	for _, domains := range []int{0, 1, 1000} {
		for _, callers := range []int{1, 10, 50} {
			b.Run(fmt.Sprintf("domains=%d/callers=%d", domains, callers), func(b *testing.B) {
				benchmarkAccept(b, st, sp, domains, callers)
			})
		}
	}
}

func benchmarkAccept(b *testing.B, st *store.Store, sp *spool.Spool, domains, callers int) {
	text := bytes.Repeat([]byte("words and words and words again\r\n"), 124)
	var next atomic.Int64
	accept := func(i int64) error {
		d := st.NewDraft()
		if _, err := d.Write(text); err != nil {
			return err
		}
		m := &spool.Message{Envelope: envelope.Envelope{From: envelope.Address{Local: "anna", Domain: "x.test"}},
			Origin: spool.Origin{Protocol: "ESMTP", Peer: "127.0.0.1:41234", Helo: "client.x.test"}, MessageID: "<1@x.test>"}
		r := spool.Recipient{Account: 1}
		r.To = envelope.Address{Local: "bob", Domain: "here.test"}
		if domains > 0 {
			r.Account, r.To.Domain = 0, fmt.Sprintf("d%d.test", i*7919%int64(domains))
		}
		return sp.Accept(m, []spool.Recipient{r}, d, nil)
	}
	b.ReportAllocs()
	b.ResetTimer()
	before, cpu := st.Stats(), cpuNow()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := accept(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	after, n := st.Stats(), float64(b.N)
	b.ReportMetric(float64(cpuNow()-cpu)/1e3/n, "cpu-us/op")
	b.ReportMetric(float64(after.Commits-before.Commits)/n, "commits/op")
	b.ReportMetric(float64(after.IndexOctets-before.IndexOctets)/n, "index-octets/op")
}

// fillDeferred queues recipients that wait for hours, ten to a message, in 1,000 domains.
func fillDeferred(b *testing.B, st *store.Store, sp *spool.Spool, n int) {
	for done := 0; done < n; {
		first, drafts := done, make([]*store.Draft, min(200, (n-done+9)/10))
		for i := range drafts {
			drafts[i] = st.NewDraft()
			fmt.Fprint(drafts[i], "Subject: x\r\n\r\nbody\r\n")
		}
		err := st.Update(func(tx store.Tx) error {
			done = first
			for _, d := range drafts {
				m := &spool.Message{ID: d.ID(), Size: d.Size()}
				m.Envelope.Release = time.Now().Add(5 * time.Hour)
				rcpts := make([]spool.Recipient, min(10, n-done))
				for i := range rcpts {
					rcpts[i].To = envelope.Address{Local: "someone", Domain: fmt.Sprintf("d%d.dead.test", done*7919%1000)}
					done++
				}
				if err := sp.Add(tx, m, rcpts, trace.Received); err != nil {
					return err
				}
			}
			return nil
		}, drafts...)
		if err != nil {
			b.Fatal(err)
		}
	}
}

func cpuNow() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return syscall.TimevalToNsec(u.Utime) + syscall.TimevalToNsec(u.Stime)
}
