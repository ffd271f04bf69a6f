package delivery

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"

	"postroad/internal/bench"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// BenchmarkDrain relays a backlog of messages of 4 KB to a sink, for one and for many destinations. TMPDIR says on which disk.
func BenchmarkDrain(b *testing.B) {
	for _, destinations := range []int{1, 1000} {
		b.Run(fmt.Sprintf("destinations=%d", destinations), func(b *testing.B) { benchmarkDrain(b, destinations) })
	}
}

func benchmarkDrain(b *testing.B, destinations int) {
	st, err := store.Open(b.TempDir(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	sink := bench.NewSink(0)
	ctx, cancel := context.WithCancel(b.Context())
	served := make(chan error, 1)
	go func() { served <- sink.Serve(ctx, l) }()
	sp := spool.Open(st, nil)
	port := l.Addr().(*net.TCPAddr).Port
	var routes []Route
	for i := range destinations {
		routes = append(routes, Route{Domain: fmt.Sprintf("d%d.test", i), Host: "127.0.0.1", Port: port})
	}
	r := New(Config{Store: st, Spool: sp, Routes: routes})
	fillSpool(b, st, sp, b.N, func(i int) string { return fmt.Sprintf("d%d.test", i%destinations) })
	b.ResetTimer()
	cpu, commits := cpuNow(), st.Stats().Commits
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	if err := sink.Wait(ctx, int64(b.N)); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(cpuNow()-cpu)/1e3/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(st.Stats().Commits-commits)/float64(b.N), "commits/op")
	b.ReportMetric(float64(sink.Conns())/float64(b.N), "conns/op")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
	<-served
}

func cpuNow() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return syscall.TimevalToNsec(u.Utime) + syscall.TimevalToNsec(u.Stime)
}

// fillSpool queues n messages of 4 KB, many in one transaction.
func fillSpool(t testing.TB, st *store.Store, sp *spool.Spool, n int, domain func(int) string) {
	t.Helper()
	text := append([]byte("Return-Path: <a@x.test>\r\nMessage-ID: <1@x.test>\r\nSubject: x\r\n\r\n"),
		bytes.Repeat([]byte("words and words and words again\r\n"), 122)...)
	for done := 0; done < n; {
		some := min(500, n-done)
		drafts := make([]*store.Draft, some)
		for i := range drafts {
			drafts[i] = st.NewDraft()
			if _, err := drafts[i].Write(text); err != nil {
				t.Fatal(err)
			}
		}
		err := st.Update(func(tx store.Tx) error {
			for i, d := range drafts {
				m := &spool.Message{ID: d.ID(), Size: d.Size(), Skip: 25, Envelope: envelope.Envelope{From: path("<a@x.test>")}}
				to := envelope.Recipient{To: envelope.Address{Local: "b", Domain: domain(done + i)}}
				if err := sp.Add(tx, m, []spool.Recipient{{Recipient: to}}, trace.Received); err != nil {
					return err
				}
			}
			return nil
		}, drafts...)
		if err != nil {
			t.Fatal(err)
		}
		done += some
	}
}
