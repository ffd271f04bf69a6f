package delivery

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/spool"
)

// send submits a letter as an account of ours does.
func (f *fixture) send(from string, to ...string) store.ID {
	f.t.Helper()
	m := &spool.Message{Envelope: envelope.Envelope{From: path("<" + from + ">")}, Origin: spool.Origin{Account: from}}
	return f.accept(m, letter, f.rcpts(to...)...)
}

// suppressions are the addresses that an account's mail is not sent to.
func (f *fixture) suppressions(name string) (list []string) {
	f.t.Helper()
	a, err := f.ac.Get(path("<" + name + ">"))
	if err != nil {
		f.t.Fatal(err)
	}
	all, err := f.ac.Suppressions(a.ID)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, s := range all {
		list = append(list, s.Address.String())
	}
	return list
}

// What an account's mail is refused for good as no address is not sent there again until that has an end.
func TestHardBouncesAreRemembered(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.cfg.SuppressFor = 30 * 24 * time.Hour
		p := f.site("y.test", public(1), &peer{say: map[string]string{"RCPT gone@y.test": "550 5.1.1 no such user"}})
		f.start()
		f.send("alice@a.test", "gone@y.test", "here@y.test")
		f.drained()
		if got := f.suppressions("alice@a.test"); !slices.Equal(got, []string{"gone@y.test"}) {
			t.Fatalf("suppressed: %q", got)
		}
		asked := len(p.commands())
		id := f.send("alice@a.test", "Gone@Y.test")
		f.drained()
		if got := p.commands(); len(got) != asked {
			t.Errorf("the peer was asked: %q", got[asked:])
		}
		ev := f.events(id)
		if last := ev[len(ev)-1]; !strings.HasPrefix(last, "suppressed Gone@y.test 550 5.1.1 not sent: mail of yours to this address was refused for good on ") {
			t.Errorf("trace: %q", ev)
		}
		mail := f.mail("alice")
		if last := mail[len(mail)-1]; !strings.Contains(last, "no such user") || !strings.Contains(last, "postroad suppression remove alice@a.test") {
			t.Errorf("alice has %s", last)
		}
		f.send("bob@a.test", "gone@y.test") // it is not his
		f.drained()
		if len(p.commands()) == asked {
			t.Error("bob's mail was not sent")
		}
		f.pass(30 * 24 * time.Hour)
		asked = len(p.commands())
		f.send("alice@a.test", "gone@y.test")
		f.drained()
		if len(p.commands()) == asked {
			t.Error("there is no end to it")
		}
	})
}

// What an administrator has entered is no word about the address.
func TestSuppressedByOrder(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		alice, err := f.ac.Get(path("<alice@a.test>"))
		if err != nil {
			t.Fatal(err)
		}
		entry := account.Suppression{Address: path("<bob@y.test>"), Reply: "unsubscribed", By: "root"}
		if _, err := f.ac.AddSuppression(alice.ID, entry); err != nil {
			t.Fatal(err)
		}
		f.start()
		f.send("alice@a.test", "bob@y.test")
		f.drained()
		mail := f.mail("alice")
		if len(mail) != 1 || !strings.Contains(mail[0], "Status: 5.7.1") || strings.Contains(mail[0], "no such address") {
			t.Errorf("alice has %q", mail)
		}
	})
}

// Only what a server says of the address counts, of mail that an account of ours sends to it.
func TestWhatIsNoHardBounce(t *testing.T) {
	for name, tt := range map[string]struct {
		say  map[string]string
		off  bool
		send func(*fixture)
	}{
		"a policy":              {say: map[string]string{"RCPT": "550 5.7.1 go away"}},
		"no code":               {say: map[string]string{"RCPT": "550 no"}},
		"a full mailbox":        {say: map[string]string{"RCPT": "552 5.2.2 full"}},
		"greylisting":           {say: map[string]string{"RCPT": "450 5.1.1 what"}},
		"the message":           {say: map[string]string{"dot": "550 5.1.1 spam"}},
		"the sender":            {say: map[string]string{"MAIL": "550 5.1.1 sender unknown"}},
		"it is turned off":      {say: map[string]string{"RCPT": "550 5.1.1 no"}, off: true},
		"mail from outside":     {say: map[string]string{"RCPT": "550 5.1.1 no"}, send: func(f *fixture) { f.submit("<x@z.test>", "one@y.test") }},
		"an address forwards":   {say: map[string]string{"RCPT": "550 5.1.1 no"}, send: (*fixture).sendByForward},
		"the domain is not DNS": {send: func(f *fixture) { f.send("alice@a.test", "one@nowhere.test") }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				if !tt.off {
					f.cfg.SuppressFor = time.Hour
				}
				f.site("y.test", public(1), &peer{say: tt.say})
				f.start()
				if tt.send == nil {
					tt.send = func(f *fixture) { f.send("alice@a.test", "one@y.test") }
				}
				tt.send(f)
				settle()
				if got := f.suppressions("alice@a.test"); len(got) != 0 {
					t.Errorf("suppressed: %q", got)
				}
			})
		})
	}
}

// sendByForward sends to an address of ours that leads elsewhere.
func (f *fixture) sendByForward() {
	if _, err := f.ac.SetAlias(path("<away@a.test>"), []envelope.Address{path("<one@y.test>")}); err != nil {
		f.t.Fatal(err)
	}
	f.send("alice@a.test", "away@a.test")
}

// A null MX is the domain's own word that it takes no mail.
func TestNullMXSuppresses(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.cfg.SuppressFor = time.Hour
		f.dns.MX("null.test", ".")
		f.start()
		f.send("alice@a.test", "one@null.test")
		f.drained()
		if got := f.suppressions("alice@a.test"); len(got) != 1 {
			t.Errorf("suppressed: %q", got)
		}
	})
}

// A recipient whose route is gone waits for a person, wherever its domain would lead.
func TestARouteThatIsGoneHolds(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		f.start()
		rcpts := f.rcpts("one@y.test")
		rcpts[0].Transport = "old"
		id := f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}, letter, rcpts...)
		settle()
		if q := f.queue(); !slices.Equal(q, []string{"one@y.test hold"}) || len(p.got()) != 0 {
			t.Fatalf("the queue holds %q, the peer %q", q, p.got())
		}
		e, err := f.sp.Get(id)
		if err != nil || e.Recipients[0].Reason != `its route "old" is not in the configuration` {
			t.Errorf("%+v, %v", e.Recipients, err)
		}
		f.halt()
		f.cfg.Routes = []Route{{Name: "old", Kind: MX}}
		f.start()
		if _, err := f.sp.Resume(t.Context(), spool.Filter{}, "root"); err != nil {
			t.Fatal(err)
		}
		f.drained()
		if len(p.got()) != 1 {
			t.Error("it was not sent when the route was back")
		}
	})
}
