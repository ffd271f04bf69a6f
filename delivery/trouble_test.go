package delivery

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/mailbox"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/spool"
)

// TestDiskFull: with no room for reports, mail is still delivered and relayed, nobody
// is failed without a word, and the reports come when there is room.
func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := storetest.NewFaultFS()
		f := newFixtureOn(t, disk)
		refuses := f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "550 5.1.1 no"}})
		takes := f.site("z.test", public(2), &peer{})
		f.submit("<alice@a.test>", "one@y.test")
		rcpts := f.rcpts("two@z.test", "bob@a.test")
		rcpts[0].Notify, rcpts[1].Notify = envelope.NotifySuccess, envelope.NotifySuccess
		f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}, letter, rcpts...)
		disk.SetFree(0)
		f.start()
		f.pass(time.Minute)
		if q := f.queue(); len(q) != 1 || q[0] != "one@y.test deferred" {
			t.Errorf("the queue holds %q", q)
		}
		if len(f.mail("bob")) != 1 || len(takes.got()) != 1 || len(f.mail("alice")) != 0 {
			t.Errorf("bob has %d, the peer %d, alice %d", len(f.mail("bob")), len(takes.got()), len(f.mail("alice")))
		}
		if n := count(refuses.commands(), "RCPT TO:<one@y.test>"); n != 1 {
			t.Errorf("%d attempts in a minute", n)
		}
		disk.SetFree(1 << 40)
		f.pass(time.Hour)
		f.drained()
		if got := f.mail("alice"); len(got) != 1 || !strings.Contains(got[0], "Status: 5.1.1") {
			t.Errorf("alice has %q", got)
		}
	})
}

func count(list []string, what string) (n int) {
	for _, s := range list {
		if s == what {
			n++
		}
	}
	return n
}

// TestFailedSync: at every operation of the disk that fails during a delivery with a
// report, nothing is lost and nothing is in both places once the store is open again.
func TestFailedSync(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.NotDone, storetest.Done, storetest.Half, storetest.Full} {
		op := 0
		for tripped := true; tripped; op++ {
			synctest.Test(t, func(t *testing.T) { tripped = failAt(t, op, fault) })
		}
		if op < 3 {
			t.Errorf("%s: only %d operations were there to fail", fault, op-1)
		}
	}
}

func failAt(t *testing.T, op int, fault storetest.Fault) bool {
	disk := storetest.NewFaultFS()
	f := newFixtureOn(t, disk)
	p := f.site("y.test", public(1), &peer{say: map[string]string{"RCPT no@y.test": "550 5.1.1 no"}})
	id := f.submit("<alice@a.test>", "bob@a.test", "no@y.test", "yes@y.test")
	disk.FailAt(len(disk.Ops())+op, fault, true)
	f.start()
	f.pass(2 * time.Second)
	tripped := disk.Tripped()
	disk.FailAt(-1, fault, false)
	f.reopen()
	f.start()
	f.pass(time.Hour)
	f.drained()
	if len(f.mail("bob")) != 1 || len(f.mail("alice")) != 1 {
		t.Errorf("%s at operation %d: bob has %d, alice %d", fault, op, len(f.mail("bob")), len(f.mail("alice")))
	}
	if n := len(p.got()); n != 1 && !tripped || n > 2 {
		t.Errorf("%s at operation %d: the peer has %d", fault, op, n)
	} else if doubt := strings.Contains(strings.Join(f.events(id), "\n"), "possibly delivered"); n == 2 && !doubt {
		t.Errorf("%s at operation %d: the peer has it twice, and nothing says so: %q", fault, op, f.events(id))
	}
	return tripped
}

// TestPoison: one recipient whose mailbox does not take the message has no influence
// on the others of the batch.
func TestPoison(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		_, err := f.ac.Add(path("carol@a.test"), "secret secret", func(tx store.Tx, a account.Account) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		carol, err := f.ac.Get(path("carol@a.test"))
		if err != nil {
			t.Fatal(err)
		}
		f.mb = mailbox.New(f.st, mailbox.Options{Mailboxes: 1})
		if _, err := f.mb.Create(mailbox.Owner(carol.ID), "other", ""); err != nil {
			t.Fatal(err)
		}
		f.submit("<s@x.test>", "alice@a.test", "carol@a.test", "bob@a.test")
		f.start()
		settle()
		if q := f.queue(); !slices.Equal(q, []string{"carol@a.test deferred"}) {
			t.Errorf("the queue holds %q", q)
		}
		if len(f.mail("alice")) != 1 || len(f.mail("bob")) != 1 {
			t.Errorf("alice has %d, bob %d", len(f.mail("alice")), len(f.mail("bob")))
		}
		f.mb.Remove(t.Context(), mailbox.Owner(carol.ID), "other")
		f.pass(time.Hour)
		f.drained()
		if len(f.mail("carol")) != 1 {
			t.Errorf("carol has %d", len(f.mail("carol")))
		}
	})
}

func TestGuarded(t *testing.T) {
	r := New(Config{})
	err := r.guarded("test", func() error { panic("unforeseen") })
	if _, refused := errors.AsType[*refusal](err); !refused || !strings.Contains(err.Error(), "unforeseen") {
		t.Error(err) // the store's trouble is tried again at once; this must not be
	}
}
