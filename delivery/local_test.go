package delivery

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/mailbox"
	"postroad/internal/store"
	"postroad/spool"
)

func TestLocalDelivery(t *testing.T) { synctest.Test(t, testLocalDelivery) }

func testLocalDelivery(t *testing.T) {
	f := newFixture(t)
	f.start()
	id := f.submit("<s@x.test>", "alice@a.test", "bob@a.test")
	f.drained()
	for _, name := range []string{"alice", "bob"} {
		if got := f.mail(name); len(got) != 1 || got[0] != letter {
			t.Errorf("%s has %q", name, got)
		}
	}
	got := f.events(id)
	if len(got) != 3 || !slices.Contains(got, "delivered alice@a.test") || !slices.Contains(got, "delivered bob@a.test") {
		t.Errorf("trace: %q", got)
	}
}

func TestManyLocalMessagesEachOnce(t *testing.T) { synctest.Test(t, testManyLocalMessagesEachOnce) }

func testManyLocalMessagesEachOnce(t *testing.T) {
	f := newFixture(t)
	want := make(map[string]bool)
	for i := range 300 {
		text := fmt.Sprintf("Return-Path: <s@x.test>\r\nSubject: %d\r\n\r\nx\r\n", i)
		want[text] = true
		f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<s@x.test>")}}, text, f.rcpts("alice@a.test", "bob@a.test")...)
	}
	f.start()
	f.drained()
	for _, name := range []string{"alice", "bob"} {
		got := make(map[string]bool)
		texts := f.mail(name)
		for _, s := range texts {
			got[s] = true
		}
		if len(texts) != 300 || len(got) != 300 {
			t.Errorf("%s has %d messages, %d different", name, len(texts), len(got))
		}
		for s := range want {
			if !got[s] {
				t.Errorf("%s lacks %q", name, s)
			}
		}
	}
}

// TestStopAnywhere ends the runner and the store at every moment of a busy time: each
// message is in each mailbox once in the end.
func TestStopAnywhere(t *testing.T) { synctest.Test(t, testStopAnywhere) }

func testStopAnywhere(t *testing.T) {
	f := newFixture(t)
	for i := range 200 {
		f.submit(fmt.Sprintf("<s%d@x.test>", i), "alice@a.test", "bob@a.test")
	}
	for range 20 {
		f.start()
		f.halt()
		f.reopen()
	}
	f.start()
	f.drained()
	if a, b := len(f.mail("alice")), len(f.mail("bob")); a != 200 || b != 200 {
		t.Errorf("alice has %d, bob %d", a, b)
	}
}

// TestClaimedAndNeverSettled: what a process had in its hands when it died is
// delivered by the next.
func TestClaimedAndNeverSettled(t *testing.T) { synctest.Test(t, testClaimedAndNeverSettled) }

func testClaimedAndNeverSettled(t *testing.T) {
	f := newFixture(t)
	f.submit("<s@x.test>", "alice@a.test")
	if due, err := f.sp.Claim(10); err != nil || len(due) != 1 {
		t.Fatal(due, err)
	}
	f.reopen()
	f.start()
	f.drained()
	if got := f.mail("alice"); len(got) != 1 {
		t.Errorf("alice has %d", len(got))
	}
}

func TestRemovedWhileClaimedIsNotDelivered(t *testing.T) {
	synctest.Test(t, testRemovedWhileClaimedIsNotDelivered)
}

func testRemovedWhileClaimedIsNotDelivered(t *testing.T) {
	f := newFixture(t)
	f.submit("<s@x.test>", "alice@a.test", "bob@a.test")
	due, err := f.sp.Claim(10)
	if err != nil || len(due) != 2 {
		t.Fatal(due, err)
	}
	if n, err := f.sp.Remove(t.Context(), spool.Filter{Recipient: "alice@a.test"}, "admin"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	r := f.runner()
	r.deliverLocal(t.Context(), due)
	if a, b := len(f.mail("alice")), len(f.mail("bob")); a != 0 || b != 1 {
		t.Errorf("alice has %d, bob %d", a, b)
	}
}

// runner is one that does not run by itself.
func (f *fixture) runner() *Runner {
	c := f.cfg
	c.Store, c.Spool, c.Mailboxes, c.Accounts, c.Resolver, c.Now, c.Hostname = f.st, f.sp, f.mb, f.ac, f.dns, time.Now, "mx.a.test"
	r := New(c)
	r.hard = f.t.Context()
	return r
}

func TestAccountGoneIsReported(t *testing.T) { synctest.Test(t, testAccountGoneIsReported) }

func testAccountGoneIsReported(t *testing.T) {
	f := newFixture(t)
	id := f.submit("<alice@a.test>", "bob@a.test")
	if err := f.ac.Remove(path("bob@a.test"), nil); err != nil {
		t.Fatal(err)
	}
	f.start()
	f.drained()
	got := f.mail("alice")
	if len(got) != 1 || !strings.Contains(got[0], "Status: 5.1.1") || !strings.Contains(got[0], "Final-Recipient: rfc822; bob@a.test") {
		t.Errorf("alice has %q", got)
	}
	if ev := f.events(id); !slices.Contains(ev, "bounced bob@a.test 550 5.1.1 the account no longer exists") {
		t.Errorf("trace: %q", ev)
	}
}

// What was not delivered is not reported as delivered, though that was asked for.
func TestNoSuccessOfAnAccountThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		rcpts := f.rcpts("bob@a.test")
		rcpts[0].Notify = envelope.NotifySuccess | envelope.NotifyFailure
		f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}, letter, rcpts...)
		if err := f.ac.Remove(path("bob@a.test"), nil); err != nil {
			t.Fatal(err)
		}
		f.start()
		f.drained()
		got := f.mail("alice")
		if len(got) != 1 || !strings.Contains(got[0], "Action: failed") {
			t.Errorf("alice has %q, want one report of failure", got)
		}
	})
}

func TestAccountGoneAndNullSender(t *testing.T) { synctest.Test(t, testAccountGoneAndNullSender) }

func testAccountGoneAndNullSender(t *testing.T) {
	f := newFixture(t)
	f.submit("<>", "bob@a.test", "alice@a.test")
	if err := f.ac.Remove(path("bob@a.test"), nil); err != nil {
		t.Fatal(err)
	}
	f.start()
	f.drained()
	if got := f.mail("alice"); len(got) != 1 || got[0] != letter {
		t.Errorf("alice has %q", got)
	}
}

func TestSuccessIsReported(t *testing.T) { synctest.Test(t, testSuccessIsReported) }

func testSuccessIsReported(t *testing.T) {
	f := newFixture(t)
	rcpts := f.rcpts("bob@a.test")
	rcpts[0].Notify = envelope.NotifySuccess
	rcpts[0].Original = "rfc822;bobby@a.test"
	f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), ID: "env-1"}}, letter, rcpts...)
	f.start()
	f.drained()
	if got := f.mail("bob"); len(got) != 1 || got[0] != letter {
		t.Errorf("bob has %q", got)
	}
	got := f.mail("alice")
	for _, want := range []string{"Return-Path: <>\r\n", "Action: delivered", "Status: 2.1.5", "Original-Recipient: rfc822; bobby@a.test", "Original-Envelope-Id: env-1"} {
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("alice's report lacks %q: %q", want, got)
		}
	}
}

// TestDamagedBodyIsHeld: a message whose bytes have changed is neither delivered
// nor dropped, and the others are delivered.
func TestDamagedBodyIsHeld(t *testing.T) { synctest.Test(t, testDamagedBodyIsHeld) }

func testDamagedBodyIsHeld(t *testing.T) {
	f := newFixture(t)
	bad := f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<s@x.test>")}}, "Return-Path: <>\r\nSubject: UNIQUE-MARK\r\n\r\nx\r\n", f.rcpts("alice@a.test")...)
	f.submit("<s@x.test>", "alice@a.test")
	flip(t, f.dir, "UNIQUE-MARK")
	f.start()
	settle()
	if q := f.queue(); len(q) != 1 || q[0] != "alice@a.test hold" {
		t.Errorf("the queue holds %q", q)
	}
	if got := f.mail("alice"); len(got) != 1 || got[0] != letter {
		t.Errorf("alice has %q", got)
	}
	if ev := f.events(bad); len(ev) != 2 || !strings.HasPrefix(ev[1], "held alice@a.test 4.3.0 the message cannot be read") {
		t.Errorf("trace: %q", ev)
	}
	f.halt()
	flip(t, f.dir, "uNIQUE-MARK") // back to what it was, for the check
	if n, err := f.sp.Resume(t.Context(), spool.Filter{ID: bad}, "admin"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	f.start()
	f.drained()
	if got := f.mail("alice"); len(got) != 2 {
		t.Errorf("alice has %q", got)
	}
}

// flip changes the case of mark's first letter where it is on the disk.
func flip(t *testing.T, dir, mark string) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "bodies", "*"))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.Index(string(b), mark); i >= 0 {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteAt([]byte{b[i] ^ 0x20}, int64(i))
			f.Close()
			return
		}
	}
	t.Fatalf("%s is not in %q", mark, files)
}

// TestStoreFailure: a store that refuses loses nothing.
func TestClosedStoreLosesNothing(t *testing.T) { synctest.Test(t, testClosedStoreLosesNothing) }

func testClosedStoreLosesNothing(t *testing.T) {
	f := newFixture(t)
	f.submit("<s@x.test>", "alice@a.test")
	due, err := f.sp.Claim(10)
	if err != nil || len(due) != 1 {
		t.Fatal(due, err)
	}
	r := f.runner()
	f.st.Close()
	done, cancel := contextDone(t)
	defer cancel()
	r.deliverLocal(done, due) // gives up at once, for it may not wait
	f.open()
	f.start()
	f.drained()
	if got := f.mail("alice"); len(got) != 1 {
		t.Errorf("alice has %d", len(got))
	}
}

func TestLargeMessage(t *testing.T) { synctest.Test(t, testLargeMessage) }

func testLargeMessage(t *testing.T) {
	f := newFixture(t)
	text := "Return-Path: <>\r\nSubject: big\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 200_000)
	f.accept(&spool.Message{}, text, f.rcpts("alice@a.test")...)
	f.start()
	f.drained()
	if got := f.mail("alice"); len(got) != 1 || got[0] != text {
		t.Errorf("%d messages", len(got))
	}
}

func BenchmarkLocal(b *testing.B) {
	f := newFixture(b)
	text := letter + strings.Repeat("0123456789 0123456789 0123456789\r\n", 120)
	const n = 1000
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		rcpts := f.rcpts("alice@a.test")
		for range n / 100 {
			drafts := make([]*store.Draft, 100)
			for i := range drafts {
				drafts[i] = f.st.NewDraft()
				drafts[i].Write([]byte(text))
			}
			if err := f.st.Update(func(tx store.Tx) error {
				for _, d := range drafts {
					m := &spool.Message{ID: d.ID(), Size: d.Size(), Skip: 17}
					if err := f.sp.Add(tx, m, slices.Clone(rcpts), "received"); err != nil {
						return err
					}
				}
				return nil
			}, drafts...); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		f.start()
		for len(f.queue()) > 0 {
			time.Sleep(time.Millisecond)
		}
		f.halt()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/delivery")
}

// Mail for a mailbox by name goes there when it can, and never nowhere.
func TestMailForAMailboxByName(t *testing.T) {
	for _, create := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			f.cfg.CreateMailboxes = create
			f.ac = account.OpenWith(f.st, time.Now, account.Subaddress{Delimiter: "+", Mailboxes: true})
			f.start()
			for _, to := range []string{"alice+archive@a.test", "alice+Lists/Go@a.test", "alice+sent@a.test", "alice+a//b@a.test", "alice@a.test"} {
				f.submit("<s@x.test>", to)
			}
			f.drained()
			made := 1
			if !create {
				made = 0
			}
			if a, l, i, s := f.count("alice", "Archive"), f.count("alice", "Lists/Go"), f.count("alice", "INBOX"), f.count("alice", "Sent"); a != 1 || l != made || i != 4-made || s != 0 {
				t.Errorf("create %v: Archive has %d, Lists/Go %d, INBOX %d, Sent %d", create, a, l, i, s)
			}
		})
	}
}

// count is how many messages a mailbox has; none where there is no mailbox.
func (f *fixture) count(name, box string) int {
	a, err := f.ac.Get(envelope.Address{Local: name, Domain: "a.test"})
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := f.mb.Get(mailbox.Owner(a.ID), box)
	if err != nil {
		return 0
	}
	return int(m.Messages)
}
