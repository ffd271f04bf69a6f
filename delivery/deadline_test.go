package delivery

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/spool"
)

// by is a message with a deadline.
func by(deadline time.Duration, mode string) *spool.Message {
	return &spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), DeliverBy: envelope.DeliverBy{
		Deadline: time.Now().Add(deadline), Return: mode[0] == 'R', Trace: strings.HasSuffix(mode, "T"),
	}}}
}

// reports returns the reports that alice has: "Action Status" of each recipient.
func (f *fixture) reports() (all []string) {
	f.t.Helper()
	for _, text := range f.mail("alice") {
		for line := range strings.SplitSeq(text, "\r\n") {
			if action, ok := strings.CutPrefix(line, "Action: "); ok {
				all = append(all, action)
			}
			if status, ok := strings.CutPrefix(line, "Status: "); ok {
				all[len(all)-1] += " " + status
			}
		}
	}
	return all
}

// TestDeadlineReturns: in mode R the recipient comes back at the deadline, to the second, however long the next wait is.
func TestDeadlineReturns(t *testing.T) {
	for _, mode := range []string{"R", "RT"} {
		bubble(t, func(t *testing.T, f *fixture) {
			p := f.site("y.test", public(1), &peer{extensions: []string{"DELIVERBY"}, say: map[string]string{"RCPT": "450 4.2.0 later"}})
			f.start()
			id := f.accept(by(3*time.Hour, mode), letter, f.rcpts("one@y.test")...)
			f.pass(3*time.Hour - time.Second)
			if got := f.reports(); len(got) != 0 {
				t.Errorf("too early: %q", got)
			}
			f.pass(2 * time.Second)
			f.drained()
			if got := f.reports(); !slices.Equal(got, []string{"failed 5.4.7"}) {
				t.Errorf("alice has %q", got)
			}
			if got := f.mail("alice")[0]; !strings.Contains(got, "450 4.2.0 later") {
				t.Errorf("the report does not say why: %s", got)
			}
			if len(p.got()) != 0 {
				t.Errorf("the peer has it")
			}
			if ev := f.events(id); !strings.HasPrefix(ev[len(ev)-1], "expired one@y.test") {
				t.Errorf("trace: %q", ev)
			}
		})
	}
}

// TestDeadlineTells: in mode N the sender hears at the deadline, once, and delivery goes on.
func TestDeadlineTells(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{extensions: []string{"DELIVERBY"}, say: map[string]string{"RCPT": "450 4.2.0 later"}})
		f.start()
		f.accept(by(10*time.Hour, "N"), letter, f.rcpts("one@y.test")...)
		f.pass(9 * time.Hour)
		if got := f.reports(); !slices.Equal(got, []string{"delayed 4.2.0"}) { // as for every message
			t.Errorf("alice has %q", got)
		}
		f.pass(time.Hour)
		if got := f.reports(); !slices.Equal(got, []string{"delayed 4.2.0", "delayed 4.4.7"}) {
			t.Errorf("alice has %q", got)
		}
		f.pass(24 * time.Hour)
		p.answers("RCPT", "")
		f.pass(5 * time.Hour)
		f.drained()
		if got := f.reports(); len(got) != 2 || len(p.got()) != 1 {
			t.Errorf("alice has %q, the peer %q", got, p.got())
		}
	})
}

// TestDeadlineHere: what waited here beyond its deadline is not delivered in mode R, and is in mode N.
func TestDeadlineHere(t *testing.T) {
	for mode, want := range map[string][]string{"R": {"failed 5.4.7"}, "N": {"delayed 4.4.7"}} {
		bubble(t, func(t *testing.T, f *fixture) {
			f.accept(by(time.Hour, mode), letter, f.rcpts("bob@a.test")...)
			f.pass(2 * time.Hour) // the server is off
			f.start()
			f.drained()
			if got := f.reports(); !slices.Equal(got, want) {
				t.Errorf("%s: alice has %q", mode, got)
			}
			if n := len(f.mail("bob")); n != map[string]int{"R": 0, "N": 1}[mode] {
				t.Errorf("%s: bob has %d", mode, n)
			}
		})
	}
}

// TestDeadlineRelay: what a next hop without DELIVERBY means, and when the sender hears of a relay.
func TestDeadlineRelay(t *testing.T) {
	for _, tt := range []struct {
		mode   string
		offers string // empty for nothing
		notify envelope.Notify
		taken  bool
		want   []string
	}{
		{"R", "DELIVERBY", 0, true, nil},
		{"R", "", 0, false, []string{"failed 5.3.3"}},
		{"R", "", envelope.NotifyNever, false, nil},
		{"R", "DELIVERBY 600", 0, true, nil},
		{"R", "DELIVERBY 7200", 0, false, []string{"failed 5.3.3"}},
		{"RT", "DELIVERBY", 0, true, []string{"relayed 2.0.0"}},
		{"N", "DELIVERBY", 0, true, nil},
		{"N", "", 0, true, []string{"relayed 2.0.0"}},
		{"N", "", envelope.NotifyFailure, true, []string{"relayed 2.0.0"}},
		{"N", "", envelope.NotifyNever, true, nil},
		{"NT", "DELIVERBY", 0, true, []string{"relayed 2.0.0"}},
		{"NT", "DELIVERBY", envelope.NotifyNever, true, nil},
	} {
		bubble(t, func(t *testing.T, f *fixture) {
			p := f.site("y.test", public(1), &peer{})
			if tt.offers != "" {
				p.extensions = []string{tt.offers}
			}
			f.start()
			rcpts := f.rcpts("one@y.test")
			rcpts[0].Notify = tt.notify
			f.accept(by(time.Hour, tt.mode), letter, rcpts...)
			f.drained()
			if got := f.reports(); !slices.Equal(got, tt.want) || len(p.got()) == 1 != tt.taken {
				t.Errorf("%+v: alice has %q, the peer %d", tt, got, len(p.got()))
			}
		})
	}
}

// TestValidSince: an address that may have changed hands goes only to a host that checks it, unless its sender let it.
func TestValidSince(t *testing.T) {
	for _, tt := range []struct {
		offers, goesOn bool
		want           []string
	}{{true, false, nil}, {false, true, nil}, {false, false, []string{"failed 5.7.19"}}} {
		bubble(t, func(t *testing.T, f *fixture) {
			p := f.site("y.test", public(1), &peer{})
			if tt.offers {
				p.extensions = []string{"RRVS"}
			}
			f.start()
			rcpts := f.rcpts("one@y.test", "two@y.test")
			rcpts[0].ValidSince, rcpts[0].ValidContinue = time.Now().Add(-time.Hour), tt.goesOn
			f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}, letter, rcpts...)
			f.drained()
			if got := f.reports(); !slices.Equal(got, tt.want) || len(p.got()) != 1 || len(p.got()[0].to) != 2-len(tt.want) {
				t.Errorf("%+v: alice has %q, the peer %q", tt, got, p.got())
			}
		})
	}
}

// TestDeadlineOfASuspendedDestination: a destination that takes nothing does not keep senders from hearing in time.
func TestDeadlineOfASuspendedDestination(t *testing.T) {
	for mode, want := range map[string][]string{"R": {"failed 5.4.7"}, "N": {"delayed 4.4.7"}} {
		bubble(t, func(t *testing.T, f *fixture) {
			p := f.site("y.test", public(1), &peer{})
			f.cfg.Rules = openRules(t, f.st)
			if _, err := f.cfg.Rules.Suspend("y.test", "their request", "root"); err != nil {
				t.Fatal(err)
			}
			f.start()
			f.accept(by(5*time.Hour, mode), letter, f.rcpts("one@y.test")...)
			f.submit("<alice@a.test>", "two@y.test")
			f.pass(5*time.Hour - time.Second)
			if got := f.reports(); len(got) != 0 {
				t.Errorf("%s: too early: %q", mode, got)
			}
			f.pass(time.Minute)
			if got := f.reports(); !slices.Equal(got, want) || len(p.got()) != 0 {
				t.Errorf("%s: alice has %q, the peer %q", mode, got, p.got())
			}
			if n := len(f.queue()); n != map[string]int{"R": 1, "N": 2}[mode] {
				t.Errorf("%s: %d are queued", mode, n)
			}
			f.pass(time.Hour)
			if got := f.reports(); !slices.Equal(got, want) {
				t.Errorf("%s: alice has %q", mode, got)
			}
		})
	}
}
