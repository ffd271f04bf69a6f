package delivery

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/spool"
)

// TestBounceAndExpire: an administrator ends what waits, whether a server runs or not, and the senders hear of it.
func TestBounceAndExpire(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "450 4.2.0 greylisted"}})
		f.start()
		a := f.submit("<alice@a.test>", "one@y.test", "two@y.test")
		b := f.submit("<alice@a.test>", "three@y.test")
		f.submit("<alice@a.test>", "four@y.test")
		f.pass(time.Minute)
		f.halt()
		n, err := f.run.Bounce(t.Context(), spool.Filter{ID: a}, "root", "the project is over")
		if n != 2 || err != nil {
			t.Fatal(n, err)
		}
		if n, err = f.run.Expire(t.Context(), spool.Filter{Recipient: "three@y.test"}, "root"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if n, err = f.run.Expire(t.Context(), spool.Filter{ID: a}, "root"); n != 0 || err != nil {
			t.Error("twice:", n, err)
		}
		if q := f.queue(); len(q) != 3 || !slices.Contains(q, "four@y.test deferred") {
			t.Errorf("the queue holds %q", q)
		}
		f.start()
		settle()
		if got := f.reports(); !slices.Equal(got, []string{"failed 5.7.1", "failed 5.7.1", "failed 4.4.7"}) {
			t.Errorf("alice has %q", got)
		}
		mail := strings.Join(f.mail("alice"), "")
		if !strings.Contains(mail, "the project is over") || !strings.Contains(mail, "greylisted") {
			t.Errorf("alice has %s", mail)
		}
		if ev := f.events(b); !strings.HasPrefix(ev[len(ev)-1], "expired three@y.test 450 4.2.0 greylisted") {
			t.Errorf("trace: %q", ev)
		}
	})
}

// TestTooLate: what the next hop took while an administrator ended it is in the trace, and is neither sent nor reported again.
func TestTooLate(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		p.before = func(phase string) {
			if phase != "dot" {
				return
			}
			if n, err := f.run.Bounce(t.Context(), spool.Filter{Recipient: "one@y.test"}, "root", ""); n != 1 || err != nil {
				t.Error(n, err)
			}
		}
		f.start()
		id := f.submit("<alice@a.test>", "one@y.test", "two@y.test")
		f.drained()
		if got := f.reports(); !slices.Equal(got, []string{"failed 5.7.1"}) || len(p.got()) != 1 {
			t.Errorf("alice has %q, the peer %q", got, p.got())
		}
		ev := f.events(id)
		if !slices.Contains(ev, "relayed one@y.test when it was no longer in the queue: 250 2.0.0 queued as 1") ||
			!slices.Contains(ev, "relayed two@y.test 250 2.0.0 queued as 1") {
			t.Errorf("trace: %q", ev)
		}
	})
}
