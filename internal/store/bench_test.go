package store_test

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"postroad/internal/store"
)

// BenchmarkUpdate measures accepting a message: the body, its record, and two more
// records, by a number of callers that each wait for their own commit.
func BenchmarkUpdate(b *testing.B) {
	for _, size := range []int{0, 4096} {
		for _, callers := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("body=%d/callers=%d", size, callers), func(b *testing.B) {
				benchmarkUpdate(b, size, callers)
			})
		}
	}
}

func benchmarkUpdate(b *testing.B, size, callers int) {
	s, err := store.Open(b.TempDir(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	body := bytes.Repeat([]byte("twenty octets or so\n"), size/20+1)[:size]
	before := s.Stats()
	cpu := cpuTime()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := acceptOne(s, body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	st := s.Stats()
	b.ReportMetric(float64(cpuTime()-cpu)/1e3/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(st.Flushes-before.Flushes)/float64(b.N), "flushes/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

func acceptOne(s *store.Store, body []byte) error {
	var drafts []*store.Draft
	id := store.ID(0)
	if len(body) > 0 {
		d := s.NewDraft()
		if _, err := d.Write(body); err != nil {
			return err
		}
		id = d.ID()
		drafts = append(drafts, d)
	} else {
		id = s.NewID()
	}
	return s.Update(func(tx store.Tx) error {
		tx.Put(store.NewKey("qm").Uint(uint64(id)), make([]byte, 150))
		tx.Put(store.NewKey("qn").Uint(uint64(id)).Uint(1), make([]byte, 20))
		if len(drafts) > 0 {
			tx.Ref(id)
		}
		return nil
	}, drafts...)
}

func cpuTime() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	runtime.KeepAlive(&u)
	return syscall.TimevalToNsec(u.Utime) + syscall.TimevalToNsec(u.Stime)
}

// BenchmarkOpenBody measures reading a message of 4 KiB, from the look at the index on.
func BenchmarkOpenBody(b *testing.B) {
	s, err := store.Open(b.TempDir(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var ids []store.ID
	for i := range 200 {
		ids = append(ids, put(b, s, octets(4096, uint64(i))))
	}
	p := make([]byte, 4096)
	for i := 0; b.Loop(); i++ {
		body, err := s.OpenBody(ids[i%len(ids)])
		if err != nil {
			b.Fatal(err)
		}
		if _, err := body.ReadAt(p, 0); err != nil {
			b.Fatal(err)
		}
		if err := body.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
