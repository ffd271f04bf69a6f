package delivery

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/spool"
)

// from is a message that names a sender and came in a way.
func from(sender string, o spool.Origin) *spool.Message {
	return &spool.Message{Envelope: envelope.Envelope{From: path(sender)}, Origin: o}
}

// TestC08WhoIsTold: a sender is told when we know it, or when something shows that the message is its own.
func TestC08WhoIsTold(t *testing.T) {
	stranger := spool.Origin{Protocol: "ESMTPS", Peer: "192.0.2.7", Helo: "x"}
	yes := func(context.Context, *spool.Message) (bool, error) { return true, nil }
	no := func(context.Context, *spool.Message) (bool, error) { return false, nil }
	unknown := func(context.Context, *spool.Message) (bool, error) { return false, errors.New("no answer") }
	for _, tt := range []struct {
		name   string
		origin spool.Origin
		proven func(context.Context, *spool.Message) (bool, error)
		told   bool
	}{
		{"one of ours", spool.Origin{Protocol: "ESMTPSA", Peer: "192.0.2.7", Account: "alice@a.test"}, no, true},
		{"ourselves", spool.Origin{}, no, true},
		{"a program here", spool.Origin{Protocol: "ESMTP", Peer: "127.0.0.1"}, no, true},
		{"a program here, by a socket", spool.Origin{Protocol: "ESMTP", Peer: "local"}, no, true},
		{"what a server before this one passes on", spool.Origin{Protocol: "LMTP", Peer: "local"}, no, false},
		{"a stranger who is who it says", stranger, yes, true},
		{"a stranger who is not", stranger, no, false},
		{"a stranger of whom nothing is known yet", stranger, unknown, true},
		{"a stranger where nothing is asked", stranger, nil, true},
		{"a stranger with a name of ours", stranger, no, false},
	} {
		bubble(t, func(t *testing.T, f *fixture) {
			f.cfg.Proven = tt.proven
			f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "550 5.1.1 no"}})
			home := f.site("s.test", public(2), &peer{})
			f.start()
			sender := "<s@s.test>"
			if strings.HasSuffix(tt.name, "name of ours") {
				sender = "<alice@a.test>"
			}
			id := f.accept(from(sender, tt.origin), letter, f.rcpts("one@y.test", "two@y.test")...)
			f.drained()
			if told := len(home.got())+len(f.mail("alice")) == 1; told != tt.told {
				t.Errorf("%s: told %v, want %v", tt.name, told, tt.told)
			}
			ev := f.events(id)
			unsent := slices.ContainsFunc(ev, func(e string) bool {
				return strings.HasPrefix(e, "unreported one@y.test,two@y.test neither SPF nor DKIM")
			})
			if unsent == tt.told {
				t.Errorf("%s: trace %q", tt.name, ev)
			}
		})
	}
}

// TestC08Bounds: strangers get so many reports a day and no more, each and all together; those whom we know have no bound.
func TestC08Bounds(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.cfg.Limits.ReportsPerSender, f.cfg.Limits.ReportsToStrangers = 3, 5
		f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "550 5.1.1 no"}})
		home := f.site("s.test", public(2), &peer{})
		f.start()
		send := func(sender string, n int) {
			for range n {
				f.accept(from(sender, spool.Origin{Protocol: "ESMTP", Peer: "192.0.2.7"}), letter, f.rcpts("one@y.test")...)
				f.pass(time.Second)
			}
		}
		send("<a@s.test>", 5)
		if n := len(home.got()); n != 3 {
			t.Errorf("one stranger has %d reports", n)
		}
		f.halt()
		f.reopen()
		f.start()
		send("<A@S.TEST>", 1) // a restart, and other letters of the domain, change nothing
		if n := len(home.got()); n > 4 {
			t.Errorf("after a restart one stranger has %d reports", n)
		}
		for _, s := range []string{"<b@s.test>", "<c@s.test>", "<d@s.test>", "<e@s.test>"} {
			send(s, 1)
		}
		if n := len(home.got()); n != 5 {
			t.Errorf("all strangers have %d reports", n)
		}
		for range 10 {
			f.submit("<alice@a.test>", "one@y.test")
		}
		f.pass(time.Minute)
		if n := len(f.mail("alice")); n != 10 {
			t.Errorf("alice has %d reports", n)
		}
		f.pass(24 * time.Hour)
		send("<a@s.test>", 1)
		if n := len(home.got()); n != 6 {
			t.Errorf("the next day all strangers have %d reports", n)
		}
	})
}

// TestC08SuccessIsBounded: who writes in another's name cannot have us write to that one by asking for reports of
// success more often than the bounds allow.
func TestC08SuccessIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		home := f.site("s.test", public(2), &peer{})
		f.start()
		for range 30 {
			rcpts := f.rcpts("bob@a.test")
			rcpts[0].Notify = envelope.NotifySuccess
			f.accept(from("<victim@s.test>", spool.Origin{Protocol: "ESMTP", Peer: "192.0.2.7"}), letter, rcpts...)
			f.pass(time.Second)
		}
		f.drained()
		if n := len(home.got()); n != 10 || len(f.mail("bob")) != 30 {
			t.Errorf("the victim has %d reports, bob %d messages", n, len(f.mail("bob")))
		}
	})
}
