package delivery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/spool"
)

// openRules is the Rules of the fixture's store, which the next start has.
func (f *fixture) openRules() *Rules {
	f.cfg.Rules = openRules(f.t, f.st)
	f.sp.CatchBy(f.cfg.Rules.Hold)
	return f.cfg.Rules
}

// resume ends a suspension as an administrator does.
func (f *fixture) resume(name string) {
	f.t.Helper()
	if _, err := f.cfg.Rules.Resume(name); err != nil {
		f.t.Fatal(err)
	}
	choose := func(m *spool.Message, r *spool.Recipient) bool { return f.run.GoesTo(m, r, name) }
	if _, err := f.sp.Retry(f.t.Context(), spool.Filter{Choose: choose}, "root"); err != nil {
		f.t.Fatal(err)
	}
	f.run.Reconsider()
	settle()
}

// Nothing is tried, returned or told of a destination that is suspended, over restarts too; others are not touched. What
// waits goes in order when it is resumed.
func TestSuspension(t *testing.T) {
	for name, what := range map[string]string{"a domain": "y.test", "a route": "relay"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				y, z := f.site("y.test", public(1), &peer{}), f.site("z.test", public(2), &peer{})
				if what == "relay" {
					f.cfg.Routes = []Route{{Name: "relay", Domain: "y.test", Kind: SMTP, Host: public(1)}}
				}
				f.openRules()
				f.start()
				if _, err := f.cfg.Rules.Suspend(what, "moving", "root"); err != nil {
					t.Fatal(err)
				}
				f.run.Reconsider()
				for i := range 5 {
					f.submit("<alice@a.test>", fmt.Sprintf("u%d@y.test", i), "x@z.test")
				}
				f.pass(time.Hour)
				f.halt()
				f.reopen()
				f.openRules()
				f.start()
				f.pass(6 * 24 * time.Hour)
				if len(y.got()) != 0 || len(z.got()) != 5 || len(f.mail("alice")) != 0 {
					t.Fatalf("suspended: %d, the other: %d, reports: %q", len(y.got()), len(z.got()), f.mail("alice"))
				}
				if list := f.run.Destinations(); !slices.ContainsFunc(list, func(d Destination) bool { return d.Suspended }) {
					t.Errorf("destinations: %+v", list)
				}
				f.resume(what)
				f.drained()
				var order []string
				for _, m := range y.got() {
					order = append(order, m.to...)
				}
				slices.Sort(order) // two go at a time
				if strings.Join(order, " ") != "u0@y.test u1@y.test u2@y.test u3@y.test u4@y.test" {
					t.Errorf("got %q", order)
				}
			})
		})
	}
}

// What is being tried when its destination is suspended goes on, what waits does not.
func TestSuspensionWhileMailWaits(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "450 4.2.0 later"}})
		f.openRules()
		f.start()
		f.submit("<alice@a.test>", "one@y.test")
		f.pass(time.Minute)
		asked := count(p.commands(), "RCPT")
		f.cfg.Rules.Suspend("y.test", "", "root")
		f.run.Reconsider()
		p.answers("RCPT", "")
		f.pass(24 * time.Hour)
		if got := count(p.commands(), "RCPT"); got != asked {
			t.Errorf("it was tried %d times more", got-asked)
		}
		f.resume("y.test")
		f.drained()
		if len(p.got()) != 1 {
			t.Errorf("the peer has %q", p.got())
		}
	})
}

// A rule holds mail before its first attempt, local mail too, and what is released is not caught again.
func TestHoldRules(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		rules := f.openRules()
		rules.AddHold(HoldRule{Sender: "@x.test"})
		f.start()
		f.submit("<a@x.test>", "one@y.test", "bob@a.test")
		f.submit("<a@other.test>", "two@y.test")
		f.pass(time.Hour)
		if q := f.queue(); !slices.Equal(q, []string{"one@y.test hold", "bob@a.test hold"}) || len(p.got()) != 1 {
			t.Fatalf("the queue holds %q, the peer %q", q, p.got())
		}
		f.halt()
		f.reopen()
		f.openRules()
		f.start()
		if n, err := f.sp.Resume(t.Context(), spool.Filter{}, "root"); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		f.drained()
		if len(p.got()) != 2 || len(f.mail("bob")) != 1 {
			t.Errorf("released: the peer has %q, bob %q", p.got(), f.mail("bob"))
		}
	})
}

func TestForget(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.dns.MX("y.test", "mx.y.test")
		f.dns.Host("mx.y.test", public(1))
		f.start()
		f.submit("<alice@a.test>", "one@y.test")
		f.pass(time.Minute)
		d, ok := f.run.Destination("y.test")
		if !ok || d.DeadSince.IsZero() {
			t.Fatalf("%+v", d)
		}
		f.net.peer(public(1)+":25", &peer{})
		f.run.Forget("y.test")
		if d, _ := f.run.Destination("y.test"); !d.DeadSince.IsZero() {
			t.Errorf("%+v", d)
		}
		if _, err := f.sp.Retry(t.Context(), spool.Filter{}, "root"); err != nil {
			t.Fatal(err)
		}
		f.drained()
	})
}

func TestExplain(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "450 4.2.0 greylisted"}})
		f.cfg.Routes = []Route{{Name: "spare", Host: "192.0.2.1", Port: 2525}}
		rules := f.openRules()
		f.start()
		id := f.submit("<alice@a.test>", "one@y.test")
		f.pass(time.Minute)
		said := func(parts ...string) {
			t.Helper()
			e, err := f.sp.Get(id)
			if err != nil {
				t.Fatal(err)
			}
			words := strings.Join(f.run.Explain(&e.Message, &e.Recipients[0], true), "\n")
			for _, part := range parts {
				if !strings.Contains(words, part) {
					t.Errorf("%q is missing in\n%s", part, words)
				}
			}
		}
		said("the next attempt is due at 2000-01-01 00:0", "the last attempt of 1, at 2000-01-01 00:00:00 UTC", "450 4.2.0 greylisted", "it is given up at 2000-01-06")
		rules.Suspend("y.test", "moving", "root")
		f.run.Reconsider()
		said("all mail for y.test is suspended since 2000-01-01 00:01:00 UTC by root (moving)")
		f.sp.Reroute(t.Context(), spool.Filter{}, "root", "spare")
		f.sp.Hold(t.Context(), spool.Filter{}, "root", "looks odd")
		said("it is on hold (looks odd)", "it goes by the route spare, which an administrator has chosen for it, to 192.0.2.1 port 2525")
		f.sp.EditTLS(t.Context(), spool.Filter{}, "root", true, false)
		said("verified TLS only")
	})
}

// Explain tells what a host has said from what was found there.
func TestExplainTellsWhoSaid(t *testing.T) {
	for want, say := range map[string]map[string]string{
		": 4.4.2 greeting: ":       {"greeting": "FIN"},
		" said: 450 4.3.2 not now": {"RCPT": "450 4.3.2 not now"},
	} {
		bubble(t, func(t *testing.T, f *fixture) {
			f.site("y.test", public(1), &peer{say: say})
			f.openRules()
			f.start()
			id := f.submit("<alice@a.test>", "one@y.test")
			settle()
			e, err := f.sp.Get(id)
			if err != nil {
				t.Fatal(err)
			}
			words := strings.Join(f.run.Explain(&e.Message, &e.Recipients[0], true), "\n")
			if !strings.Contains(words, ")"+want) {
				t.Errorf("%q is missing in\n%s", want, words)
			}
		})
	}
}

// What waits in memory for its turn, behind a slow attempt, is not tried once an administrator wants it otherwise.
func TestRecall(t *testing.T) {
	for what, change := range map[string]func(*fixture) (int, error){
		"held":    func(f *fixture) (int, error) { return f.sp.Hold(f.t.Context(), spool.Filter{}, "root", "") },
		"removed": func(f *fixture) (int, error) { return f.sp.Remove(f.t.Context(), spool.Filter{}, "root") },
		"rerouted": func(f *fixture) (int, error) {
			return f.sp.Reroute(f.t.Context(), spool.Filter{}, "root", "void")
		},
		"returned": func(f *fixture) (int, error) { return f.run.Bounce(f.t.Context(), spool.Filter{}, "root", "") },
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				p := f.site("y.test", public(1), &peer{})
				open := make(chan bool)
				p.before = func(phase string) {
					if phase == "MAIL" {
						<-open
					}
				}
				f.cfg.Limits.PerDestination = 1
				f.cfg.Routes = []Route{{Name: "void", Kind: Discard}}
				f.start()
				for range 5 {
					f.submit("<x@elsewhere.test>", "one@y.test")
				}
				settle()
				if n, err := change(f); n != 5 || err != nil {
					t.Fatal(n, err)
				}
				f.run.Recall()
				close(open)
				f.pass(time.Hour)
				if got := p.got(); len(got) > 1 {
					t.Errorf("%d of 5 were sent", len(got))
				}
				if d := f.run.waiting; d.sum != 0 {
					t.Errorf("%+v wait", d)
				}
			})
		})
	}
}
