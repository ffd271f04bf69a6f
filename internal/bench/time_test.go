package bench

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgressTwiceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m meter
		var calls []Progress
		stop := m.show(func(p Progress) { calls = append(calls, p) })
		time.Sleep(600 * time.Millisecond) // before the first phase: nothing to say
		m.begin("send", 100)
		m.done.Add(20)
		m.errors.Add(1)
		time.Sleep(500 * time.Millisecond)
		m.done.Add(30)
		time.Sleep(500 * time.Millisecond)
		m.begin("drain", 0)
		time.Sleep(500 * time.Millisecond)
		stop()
		time.Sleep(time.Minute)
		want := []Progress{
			{"send", 400 * time.Millisecond, 20, 100, 50, 1},
			{"send", 900 * time.Millisecond, 50, 100, 60, 1},
			{"drain", 400 * time.Millisecond, 0, 0, 0, 1},
		}
		if len(calls) != len(want) {
			t.Fatalf("progress %+v", calls)
		}
		for i := range want {
			if calls[i] != want[i] {
				t.Errorf("call %d: %+v, want %+v", i, calls[i], want[i])
			}
		}
	})
}

func TestPushesThatDoNotComeAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan time.Time, 5)
		began := time.Now()
		go func() {
			for range 3 {
				time.Sleep(time.Second)
				told <- time.Now()
			}
			time.Sleep(time.Minute)
			told <- time.Now()
		}()
		var h Histogram
		missed, err := gather(t.Context(), told, 5, began, &h)
		if missed != 2 || err != nil || h.Count() != 3 || h.Latency().Best != 1000 || h.Latency().Max != 3000 {
			t.Errorf("%d missed, %v, %+v", missed, err, h.Latency())
		}
		if waited := time.Since(began); waited != pushTimeout {
			t.Errorf("waited %v", waited)
		}
		time.Sleep(time.Hour)
		if discard(told); len(told) != 0 {
			t.Error("a late push would be counted for the next message")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := gather(ctx, told, 1, began, &h); err == nil {
			t.Error("goes on after the end")
		}
	})
}

func TestSettleWaitsForIdleProcessesButNotForever(t *testing.T) {
	for _, c := range []struct {
		name       string
		busy, most time.Duration
		ticks      int // beyond the first 10
		waits      time.Duration
	}{
		{"not asked for", time.Hour, 0, 0, 0},
		{"idle", 0, time.Minute, 0, 2 * settleStep},
		{"busy for a while", 2 * time.Second, time.Minute, 200, 2*time.Second + 2*settleStep},
		{"busy for ever", time.Hour, 3 * time.Second, 300, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fakeSystem(t, map[string]string{"proc/10/stat": stat(10, 1, "server", 10)})
			synctest.Test(t, func(t *testing.T) {
				began, quit := time.Now(), make(chan struct{})
				go work(t, filepath.Join(s.proc, "10/stat"), c.busy, quit)
				o := &observation{Watch: Watch{Pids: []int{10}, Settle: c.most}, sys: s}
				cpu, err := o.settle(t.Context())
				waited := time.Since(began)
				close(quit)
				if err != nil || (waited-c.waits).Abs() > settleStep {
					t.Errorf("waited %v, %v; want %v", waited, err, c.waits)
				}
				if got := int(cpu/tick) - 10; got < c.ticks-5 || got > c.ticks+5 {
					t.Errorf("%d ticks, want %d", got, c.ticks)
				}
			})
		})
	}
}

// work pretends to use all of a processor for a while.
func work(t *testing.T, file string, busy time.Duration, quit <-chan struct{}) {
	began := time.Now()
	for time.Since(began) < busy {
		select {
		case <-quit:
			return
		case <-time.After(50 * time.Millisecond):
		}
		ticks := 10 + int(time.Since(began)/tick)
		next := file + ".new"
		if err := os.WriteFile(next, []byte(stat(10, 1, "server", ticks)), 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Error(err)
		}
	}
}
