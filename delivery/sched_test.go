package delivery

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/spool"
)

// urgent accepts a letter of a priority.
func (f *fixture) priority(n int, to string) {
	f.t.Helper()
	m := &spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), Priority: n}}
	f.accept(m, letter, f.rcpts(to)...)
}

// A dead destination with a backlog costs one attempt for each probe, however much falls due for it, and no attempt is
// counted for those that wait. When it lives again, all flows.
func TestDeadDestinationIsProbed(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{blackhole: true})
		for range 200 {
			f.submit("<alice@a.test>", "one@y.test")
		}
		f.start()
		f.pass(26 * time.Hour)
		dials := len(f.net.dialled())
		if dials < 20 || dials > 40 { // at 0, 5, 10, 20, 40, 80 minutes, then about every hour
			t.Errorf("%d attempts in a day", dials)
		}
		d, ok := f.run.Destination("y.test")
		if !ok || d.DeadSince.IsZero() || !d.DeadUntil.After(time.Now()) || d.Last.Enhanced != "4.4.1" {
			t.Errorf("what is known of it: %+v", d)
		}
		list, err := f.sp.List(t.Context(), spool.Filter{Domain: "y.test"}, 0, 1000)
		attempts := 0
		for _, e := range list {
			attempts += e.Recipients[0].Attempts
			if !e.Recipients[0].Delayed {
				t.Errorf("nobody was told of the delay of %s", e.Message.ID)
			}
		}
		if err != nil || len(list) != 200 || attempts > 2*dials+10 {
			t.Errorf("%d messages, %d attempts counted, %d made: %v", len(list), attempts, dials, err)
		}
		p := f.site("y.test", public(1), &peer{})
		f.pass(2 * time.Hour)
		if n := len(p.got()); n < 180 {
			t.Errorf("the peer has %d, soon after it lives", n)
		}
		f.pass(3 * time.Hour) // those that were probes themselves wait as long as any that is tried
		f.drained()
		if n := len(p.got()); n != 200 {
			t.Errorf("the peer has %d", n)
		}
		if d, ok := f.run.Destination("y.test"); ok && !d.DeadSince.IsZero() {
			t.Errorf("it is still taken for dead: %+v", d)
		}
	})
}

// What is ordered while a probe is on its way to nobody is done as soon as that has failed.
func TestRetryDuringAProbe(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{blackhole: true})
		for range 20 {
			f.submit("<alice@a.test>", "one@y.test")
		}
		f.start()
		f.pass(time.Minute)
		probing := func() bool { d, _ := f.run.Destination("y.test"); return d.Probing && d.Active > 0 }
		for range 3600 {
			if f.pass(time.Second); probing() {
				break
			}
		}
		if !probing() {
			t.Fatal("nobody probes")
		}
		p := f.site("y.test", public(1), &peer{})
		if _, err := f.run.Retry(t.Context(), spool.Filter{Domain: "y.test"}, "admin"); err != nil {
			t.Error(err)
		}
		f.pass(time.Minute)
		f.drained()
		if n := len(p.got()); n != 20 {
			t.Errorf("the peer has %d", n)
		}
	})
}

// What an administrator wants tried is tried, also where nobody was there a moment ago.
func TestRetryOfADeadDestination(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{blackhole: true})
		for range 20 {
			f.submit("<alice@a.test>", "one@y.test")
		}
		f.start()
		f.pass(200 * time.Minute)
		p := f.site("y.test", public(1), &peer{})
		if n, err := f.run.Retry(t.Context(), spool.Filter{Domain: "y.test"}, "admin"); n != 20 || err != nil {
			t.Errorf("%d recipients, %v", n, err)
		}
		f.pass(time.Minute)
		f.drained()
		if n := len(p.got()); n != 20 {
			t.Errorf("the peer has %d", n)
		}
	})
}

// Recipients of a message that were put off together are tried together, however much of the wait is left to chance.
func TestRecipientsStayTogether(t *testing.T) {
	for name, trouble := range map[string]*peer{
		"greylisted": {say: map[string]string{"RCPT": "450 4.2.0 greylisted"}},
		"dead":       {blackhole: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				f.cfg.Schedule.Jitter = 0.5
				f.site("y.test", public(1), trouble)
				f.start()
				f.submit("<alice@a.test>", "probe@y.test") // of a dead destination, it alone is tried
				settle()
				var to []string
				for i := range 30 {
					to = append(to, fmt.Sprintf("r%d@y.test", i))
				}
				f.submit("<alice@a.test>", to...)
				f.pass(time.Hour)
				p := f.site("y.test", public(1), &peer{})
				f.pass(6 * time.Hour)
				f.drained()
				var sizes []int
				for _, m := range p.got() {
					sizes = append(sizes, len(m.to))
				}
				if slices.Sort(sizes); len(sizes) > 6 || sizes[len(sizes)-1] < 25 { // each probe parts one from the others
					t.Errorf("transactions of %d recipients", sizes)
				}
			})
		})
	}
}

// What waits for a destination that never lives is given up in time, although it is hardly ever tried.
func TestDeadDestinationExpires(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{blackhole: true})
		f.start()
		for range 30 {
			f.submit("<alice@a.test>", "one@y.test")
			f.pass(time.Minute)
		}
		f.pass(5*24*time.Hour + 30*time.Minute)
		f.drained()
		if n := len(f.mail("alice")); n != 60 { // each delayed and expired
			t.Errorf("alice has %d reports", n)
		}
		f.pass(3 * time.Hour)
		if n := len(f.net.dialled()); n > 160 {
			t.Errorf("%d attempts", n)
		}
	})
}

// A dead and a slow destination beside a quick one.
func TestFairTurns(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("dead.test", public(1), &peer{blackhole: true})
		slow := f.site("slow.test", public(2), &peer{})
		slow.before = func(phase string) {
			if phase == "DATA" {
				time.Sleep(20 * time.Second)
			}
		}
		quick := f.site("quick.test", public(3), &peer{})
		f.cfg.Limits = Limits{Attempts: 12, PerDestination: 4, Waiting: 100}
		for range 300 {
			f.submit("<alice@a.test>", "one@dead.test", "one@slow.test")
		}
		f.start()
		f.pass(time.Second)
		for range 20 {
			n, began := len(quick.got()), time.Now()
			f.submit("<alice@a.test>", "one@quick.test")
			for len(quick.got()) == n {
				time.Sleep(time.Millisecond)
			}
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("the quick destination waited %s", took)
			}
		}
		f.halt()
		time.Sleep(time.Minute) // for the slow peer
	})
}

// An urgent message overtakes a bulk backlog for its own destination, wherever that stands.
func TestUrgentOvertakes(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		p.before = func(phase string) {
			if phase == "DATA" {
				time.Sleep(time.Second)
			}
		}
		f.cfg.Limits = Limits{PerDestination: 2}
		for range 1000 {
			f.priority(-4, "bulk@y.test")
		}
		f.start()
		f.pass(10 * time.Second)
		f.priority(4, "urgent@y.test")
		f.priority(0, "normal@y.test")
		f.pass(4 * time.Second)
		var got []string
		for _, m := range p.got() {
			got = append(got, m.to...)
		}
		if len(got) > 40 || !slices.Contains(got, "urgent@y.test") || !slices.Contains(got, "normal@y.test") {
			t.Errorf("the peer has %d: %q", len(got), got[max(0, len(got)-10):])
		}
	})
}

// A steady stream of urgent mail does not starve bulk.
func TestBulkIsNotStarved(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		p.before = func(phase string) {
			if phase == "DATA" {
				time.Sleep(time.Second)
			}
		}
		f.cfg.Limits = Limits{PerDestination: 1, Attempts: 1}
		f.priority(-4, "bulk@y.test")
		for range 100 {
			f.priority(4, "urgent@y.test")
		}
		f.start()
		f.pass(30 * time.Second)
		found := slices.ContainsFunc(p.got(), func(m mailed) bool { return m.to[0] == "bulk@y.test" })
		if n := len(p.got()); !found || n > 35 {
			t.Errorf("after %d messages bulk was sent: %v", n, found)
		}
	})
}

// A rate bounds attempts a minute, and what waits for it burns nothing.
func TestRate(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		quick := f.site("z.test", public(2), &peer{})
		f.cfg.Limits = Limits{PerMinute: 60}
		f.cfg.Routes = []Route{{Domain: "y.test", Kind: MX, PerMinute: 10}}
		f.start()
		for range 40 {
			f.submit("<alice@a.test>", "one@y.test", "one@z.test")
		}
		f.pass(90*time.Second - 100*time.Millisecond)
		if n, m := len(p.got()), len(quick.got()); n < 14 || n > 16 || m != 40 {
			t.Errorf("after a minute and a half %d came where 15 may, and %d where 90 may", n, m)
		}
		f.pass(3 * time.Minute)
		f.drained()
		f.pass(time.Minute)
		if list := f.run.Destinations(); len(list) > 0 {
			t.Errorf("remembered for nothing: %+v", list)
		}
	})
}

// The attempts at a time grow while a destination answers, and shrink when it breaks off.
func TestPace(t *testing.T) {
	p := newPace(20)
	for range 30 {
		p.answered()
	}
	if p.now != 20 {
		t.Errorf("after 30 answers it is %d", p.now)
	}
	p.trouble()
	if p.now != 10 {
		t.Errorf("after trouble it is %d", p.now)
	}
	for range 10 {
		p.answered()
	}
	if p.now != 11 {
		t.Errorf("after 10 more answers it is %d", p.now)
	}
	for range 10 {
		p.trouble()
	}
	if p.now != 1 {
		t.Errorf("after much trouble it is %d", p.now)
	}
}

func TestPaceFollowsTheDestination(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		p.before = func(phase string) {
			if phase == "DATA" {
				time.Sleep(100 * time.Millisecond)
			}
		}
		f.cfg.Limits = Limits{PerDestination: 8}
		f.start()
		for range 400 {
			f.submit("<alice@a.test>", "one@y.test")
		}
		f.pass(2 * time.Second)
		if d, _ := f.run.Destination("y.test"); d.Limit != 8 || d.Active != 8 {
			t.Errorf("it answers: %+v", d)
		}
		p.answers("DATA", "421 4.3.2 too many connections")
		f.pass(time.Second)
		if d, _ := f.run.Destination("y.test"); d.Limit > 4 {
			t.Errorf("it breaks off: %+v", d)
		}
	})
}

// What stands in the queue of a lane that a change of the routes left behind is sent all the same.
func TestRoutesChange(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.cfg.Limits = Limits{Waiting: 16}
		for i := range 50 {
			f.submit("<alice@a.test>", fmt.Sprintf("one@d%d.test", i%5))
		}
		p := f.net.peer("192.0.2.1:25", &peer{})
		f.cfg.Routes = []Route{{Name: "all", Domain: "*", Host: "192.0.2.1"}}
		f.start()
		f.pass(time.Minute)
		f.drained()
		if n := len(p.got()); n != 50 {
			t.Errorf("the smarthost has %d", n)
		}
	})
}
