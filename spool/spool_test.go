package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
)

// fixture is a spool on a real store whose clock the test moves.
type fixture struct {
	t   testing.TB
	dir string
	st  *store.Store
	s   *Spool
	now time.Time
}

func open(t testing.TB, dir string) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: dir, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	f.open()
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	st, err := store.Open(f.dir, store.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	f.st, f.s = st, Open(st, func() time.Time { return f.now })
}

// close checks that all is in order, and closes.
func (f *fixture) close() {
	f.t.Helper()
	problems, err := f.s.Check(context.Background())
	if err != nil || len(problems) > 0 {
		f.t.Errorf("spool check: %v %v", problems, err)
	}
	res, err := f.st.Check(context.Background(), []store.References{f.s.References}, nil)
	if err != nil || len(res.Problems) > 0 {
		f.t.Errorf("store check: %v %v", res.Problems, err)
	}
	if err := f.st.Close(); err != nil {
		f.t.Error(err)
	}
}

func (f *fixture) accept(to ...string) store.ID { return f.acceptAs(0, to...) }

func (f *fixture) acceptAs(priority int, to ...string) store.ID {
	f.t.Helper()
	d := f.st.NewDraft()
	io.WriteString(d, "Return-Path: <a@x.test>\r\nSubject: x\r\n\r\nbody\r\n")
	m := &Message{Envelope: envelope.Envelope{From: addr("a@x.test"), Priority: priority}, Skip: 25, MessageID: "<m@x.test>"}
	var rcpts []Recipient
	for _, a := range to {
		rcpts = append(rcpts, Recipient{Recipient: envelope.Recipient{To: addr(a)}})
	}
	if err := f.s.Accept(m, rcpts, d, nil); err != nil {
		f.t.Fatal(err)
	}
	return m.ID
}

func addr(s string) envelope.Address {
	a, err := envelope.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func (f *fixture) claim() []Due {
	f.t.Helper()
	due, err := f.s.Claim(100)
	if err != nil {
		f.t.Fatal(err)
	}
	return due
}

// claims claims and returns the recipients' addresses.
func (f *fixture) claims() []string {
	f.t.Helper()
	return names(f.claim())
}

func names(due []Due) []string {
	var list []string
	for _, d := range due {
		list = append(list, d.Recipient.To.String())
	}
	return list
}

func (f *fixture) update(fn func(tx store.Tx)) {
	f.t.Helper()
	if err := f.st.Update(func(tx store.Tx) error { fn(tx); return nil }); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) expect(what string, got []string, want ...string) {
	f.t.Helper()
	if !slices.Equal(got, want) {
		f.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestAMessageIsInTheSpoolUntilItsLastRecipientIsSettled(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	id := f.accept("b@y.test", "c@y.test")
	due := f.claim()
	f.expect("claim", names(due), "b@y.test", "c@y.test")
	if due[0].Message != due[1].Message || due[0].Message.Skip != 25 || due[0].Message.ID != id {
		t.Errorf("message: %+v", due[0].Message)
	}
	f.expect("claimed twice", f.claims())

	f.update(func(tx store.Tx) { f.s.Settle(tx, due[0]) })
	if e, err := f.s.Get(id); err != nil || len(e.Recipients) != 1 {
		t.Errorf("after the first settled: %+v %v", e, err)
	}
	f.update(func(tx store.Tx) { f.s.Settle(tx, due[1]) })
	if _, err := f.s.Get(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("after the last settled: %v", err)
	}
	if _, err := f.st.OpenBody(id); !errors.Is(err, store.ErrNoBody) {
		t.Errorf("its body: %v", err)
	}
}

func TestAcceptWithoutRecipientsIsRefused(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	d := f.st.NewDraft()
	if err := f.s.Accept(&Message{}, nil, d, nil); err == nil {
		t.Error("a message nobody gets was accepted")
	}
}

func TestWhatIsAcceptedSurvivesAReopen(t *testing.T) {
	f := open(t, t.TempDir())
	id := f.accept("b@y.test")
	f.claim() // being tried when the process ends
	before, _ := f.s.Get(id)
	f.close()
	f.open()
	defer f.close()
	after, err := f.s.Get(id)
	if err != nil || !reflect.DeepEqual(after.Message, before.Message) {
		t.Errorf("got %+v, want %+v (%v)", after.Message, before.Message, err)
	}
	f.expect("claim", f.claims(), "b@y.test")
}

func TestADeferredRecipientFallsDueAtItsTime(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.accept("b@y.test")
	d := f.claim()[0]
	d.Recipient.Attempts, d.Recipient.Last = 1, envelope.Reply{Code: 451, Text: "later"}
	f.update(func(tx store.Tx) { f.s.Defer(tx, d, f.now.Add(5*time.Minute)) })
	f.accept("c@y.test")
	f.expect("at once", f.claims(), "c@y.test")
	f.now = f.now.Add(5*time.Minute - time.Second)
	f.expect("too early", f.claims())
	f.now = f.now.Add(time.Second)
	due := f.claim()
	f.expect("in time", names(due), "b@y.test")
	if r := due[0].Recipient; r.Attempts != 1 || r.Last.Code != 451 || r.State != Deferred {
		t.Errorf("what was learned is lost: %+v", r)
	}
}

func TestGiveBackMakesItClaimableAtOnce(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.accept("b@y.test")
	f.accept("c@y.test")
	due := f.claim()
	f.s.GiveBack(due[0])
	f.expect("claim", f.claims(), "b@y.test")
}

func TestClaimGoesOnAfterItsLimit(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	for i := range 5 {
		f.now = f.now.Add(time.Second)
		f.accept(fmt.Sprintf("r%d@y.test", i))
	}
	var got []string
	for range 3 {
		due, err := f.s.Claim(2)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, names(due)...)
	}
	f.expect("all", got, "r0@y.test", "r1@y.test", "r2@y.test", "r3@y.test", "r4@y.test")
}

// An entry that commits with an earlier time than those already claimed must not be
// passed over, whether it commits before a claim or while one reads an older view.
func TestAnEntryThatCommitsBehindTheCursorIsClaimed(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.accept("b@y.test")
	d := f.claim()[0]
	f.now = f.now.Add(time.Hour)
	f.accept("late@y.test")
	f.expect("claim", f.claims(), "late@y.test")
	f.update(func(tx store.Tx) { f.s.Defer(tx, d, f.now.Add(-30*time.Minute)) })
	f.expect("behind", f.claims(), "b@y.test")

	room := func(string, Class) int { // a claim has taken its view; now an earlier entry commits
		f.now = f.now.Add(-2 * time.Hour)
		f.accept("clock-went-back@y.test")
		f.now = f.now.Add(4 * time.Hour)
		return 100
	}
	f.accept("d@y.test")
	due, err := f.s.ClaimFor(100, room)
	f.expect("meanwhile", names(due), "d@y.test")
	if err != nil {
		t.Error(err)
	}
	f.expect("during", f.claims(), "clock-went-back@y.test")
}

func TestFailedTransactionsKeepTheClaim(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.accept("b@y.test")
	d := f.claim()[0]
	boom := errors.New("boom")
	err := f.st.Update(func(tx store.Tx) error {
		f.s.Settle(tx, d)
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	f.expect("still claimed", f.claims())
	f.s.GiveBack(d)
	f.expect("given back", f.claims(), "b@y.test")
}

func TestWaitReturnsWhenSomethingFallsDue(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		f := &fixture{t: t, st: st, s: Open(st, nil)}
		f.accept("b@y.test")
		d := f.claim()[0]
		f.update(func(tx store.Tx) { f.s.Defer(tx, d, time.Now().Add(90*time.Second)) })
		start := time.Now()
		for len(f.claim()) == 0 {
			if err := f.s.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if waited := time.Since(start); waited != 90*time.Second {
			t.Errorf("waited %v, want 90s", waited)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for f.s.Wait(ctx) == nil {
			t.Fatal("Wait goes on after its context is done")
		}
	})
}

func TestTheAdministratorsHand(t *testing.T) {
	ctx := context.Background()
	f := open(t, t.TempDir())
	defer f.close()
	id := f.accept("b@y.test", "c@z.test")
	if n, err := f.s.Hold(ctx, Filter{Recipient: "@y.test"}, "root", ""); n != 1 || err != nil {
		t.Fatalf("hold: %d %v", n, err)
	}
	f.expect("the other", f.claims(), "c@z.test")
	if n, _ := f.s.Retry(ctx, Filter{ID: id, State: "hold"}, "root"); n != 0 {
		t.Error("retry freed what is on hold")
	}
	if n, _ := f.s.Resume(ctx, Filter{ID: id}, "root"); n != 1 {
		t.Errorf("resume changed %d", n)
	}
	f.expect("resumed", f.claims(), "b@y.test")
	if n, _ := f.s.Retry(ctx, Filter{Recipient: "c@z.test"}, "root"); n != 1 {
		t.Errorf("retry changed %d", n)
	}
	if n, _ := f.s.Remove(ctx, Filter{Sender: "a@x.test"}, "root"); n != 2 {
		t.Errorf("remove changed %d", n)
	}
	if _, err := f.s.Get(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("after remove: %v", err)
	}
	var kinds []string
	events, err := trace.New(f.st, trace.Limits{}).Message(id)
	for _, e := range events {
		kinds = append(kinds, string(e.Kind)+" "+e.By)
	}
	f.expect("trace", kinds, "received ", "held root", "released root", "retried root", "removed root")
	if err != nil {
		t.Error(err)
	}
}

// What an administrator changed while an attempt was under way decides.
func TestTheAdministratorOverrulesAnAttempt(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name   string
		order  func(*Spool) (int, error)
		settle bool // what Settle and Defer report
		state  State
	}{
		{"removed: not delivered", func(s *Spool) (int, error) { return s.Remove(ctx, Filter{}, "x") }, false, 0},
		{"held: stays on hold", func(s *Spool) (int, error) { return s.Hold(ctx, Filter{}, "x", "") }, true, Hold},
		{"retried: due as ordered", func(s *Spool) (int, error) { return s.Retry(ctx, Filter{}, "x") }, true, Active},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t, t.TempDir())
			defer f.close()
			id := f.accept("b@y.test")
			d := f.claim()[0]
			f.now = f.now.Add(time.Second)
			if n, err := c.order(f.s); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			var ok bool
			f.update(func(tx store.Tx) { ok = f.s.Defer(tx, d, f.now.Add(time.Hour)) })
			if ok != c.settle {
				t.Fatalf("Defer reported %v", ok)
			}
			if e, err := f.s.Get(id); c.settle && (err != nil || e.Recipients[0].State != c.state) {
				t.Errorf("got %+v %v", e, err)
			}
			f.update(func(tx store.Tx) { ok = f.s.Settle(tx, d) })
			if ok != c.settle {
				t.Errorf("Settle reported %v", ok)
			}
		})
	}
}

// An order to try again that comes while an attempt is under way is answered by the next one, and by that alone.
func TestAnOrderToRetryIsNotLost(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.accept("b@y.test")
	before := f.claim()[0]
	f.now = f.now.Add(time.Second)
	if n, err := f.s.Retry(context.Background(), Filter{}, "x"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if due := f.claim(); len(due) != 0 {
		t.Fatalf("%d are claimed twice", len(due))
	}
	before.Recipient.Attempts = 1
	f.update(func(tx store.Tx) { f.s.Defer(tx, before, f.now.Add(time.Hour)) })
	due := f.claim()
	if len(due) != 1 || due[0].Recipient.Attempts != 1 {
		t.Fatalf("after the attempt under way, %+v are due", due)
	}
	f.update(func(tx store.Tx) { f.s.Defer(tx, due[0], f.now.Add(time.Hour)) })
	if due := f.claim(); len(due) != 0 {
		t.Errorf("%d are due after the attempt that was ordered", len(due))
	}
}

// A message that came before the clock was set back can be ordered to be tried: nobody was promised that it waits.
func TestRetryAfterTheClockWasSetBack(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.accept("b@y.test")
	d := f.claim()[0]
	f.update(func(tx store.Tx) { f.s.Defer(tx, d, f.now.Add(time.Hour)) })
	f.now = f.now.Add(-time.Hour)
	if n, err := f.s.Retry(context.Background(), Filter{}, "x"); n != 1 || err != nil {
		t.Errorf("%d recipients, %v", n, err)
	}
	if due := f.claim(); len(due) != 1 {
		t.Errorf("%d are due", len(due))
	}
}

func TestADamagedRecordDoesNotStopTheOthers(t *testing.T) {
	f := open(t, t.TempDir())
	bad := f.accept("bad@y.test")
	f.accept("good@y.test")
	f.update(func(tx store.Tx) { tx.Put(recipientKey(bad, 0), []byte{recordVersion, 0xff}) })
	due, err := f.s.Claim(10)
	f.expect("claim", names(due), "good@y.test")
	if !errors.Is(err, store.ErrRecord) {
		t.Errorf("the damage is not told: %v", err)
	}
	problems, err := f.s.Check(context.Background())
	if len(problems) != 1 || err != nil {
		t.Errorf("Check: %v %v", problems, err)
	}
	f.st.Close()
}

func TestFilter(t *testing.T) {
	ctx := context.Background()
	f := open(t, t.TempDir())
	defer f.close()
	first := f.accept("b@y.test")
	f.now = f.now.Add(time.Hour)
	f.accept("c@z.test", "d@z.test")
	for _, c := range []struct {
		name string
		f    Filter
		want int // recipients
	}{
		{"everything", Filter{}, 3},
		{"one message", Filter{ID: first}, 1},
		{"sender", Filter{Sender: "A@X.test"}, 3},
		{"sender's domain", Filter{Sender: "@x.test"}, 3},
		{"another sender", Filter{Sender: "<>"}, 0},
		{"recipient", Filter{Recipient: "c@z.test"}, 1},
		{"domain", Filter{Domain: "Z.test"}, 2},
		{"older", Filter{OlderThan: time.Minute}, 1},
		{"younger", Filter{YoungerThan: time.Minute}, 2},
		{"state", Filter{State: "deferred"}, 0},
	} {
		list, err := f.s.List(ctx, c.f, 0, 100)
		n := 0
		for _, e := range list {
			n += len(e.Recipients)
		}
		if n != c.want || err != nil {
			t.Errorf("%s: %d recipients, want %d (%v)", c.name, n, c.want, err)
		}
	}
	if list, _ := f.s.List(ctx, Filter{}, first, 100); len(list) != 1 || list[0].Message.ID == first {
		t.Errorf("after the first: %v", list)
	}
	if c, err := f.s.Counts(); c != (Counts{2, 3, 0, 0}) || err != nil {
		t.Errorf("counts: %+v %v", c, err)
	}
}

// A model of the spool: what is queued, and what is claimed. Whatever happens in
// whatever order, no recipient is lost, none is handed out twice.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := open(t, t.TempDir())
		defer func() { f.close() }()
		most := rapid.SampledFrom([]int{3, maxQueues}).Draw(rt, "queues in memory")
		f.s.queues.most = most
		full := map[string]bool{} // lanes that take nothing
		room := func(lane string, c Class) int {
			if full[lane] {
				return 0
			}
			return rapid.IntRange(-1, 4).Filter(func(n int) bool { return n != 0 }).Draw(rt, "room")
		}
		waiting := map[string]time.Time{} // due
		claimed := map[string]Due{}
		next := 0
		pick := func() (string, bool) {
			var all []string
			for k := range claimed {
				all = append(all, k)
			}
			if len(all) == 0 {
				return "", false
			}
			slices.Sort(all)
			return rapid.SampledFrom(all).Draw(rt, "which"), true
		}
		rt.Repeat(map[string]func(*rapid.T){
			"accept": func(rt *rapid.T) {
				var to []string
				for range rapid.IntRange(1, 3).Draw(rt, "recipients") {
					next++
					to = append(to, fmt.Sprintf("r%d@d%d.test", next, rapid.IntRange(0, 5).Draw(rt, "domain")))
					waiting[to[len(to)-1]] = f.now
				}
				f.acceptAs(rapid.IntRange(-1, 1).Draw(rt, "priority"), to...)
			},
			"claim": func(rt *rapid.T) {
				due, err := f.s.ClaimFor(rapid.IntRange(1, 4).Draw(rt, "max"), room)
				if err != nil {
					rt.Fatal(err)
				}
				for _, d := range due {
					name := d.Recipient.To.String()
					if at, ok := waiting[name]; !ok || at.After(f.now) {
						rt.Fatalf("%s was handed out: waiting %v, due %v, now %v", name, ok, at, f.now)
					}
					delete(waiting, name)
					claimed[name] = d
				}
			},
			"settle": func(rt *rapid.T) {
				if name, ok := pick(); ok {
					f.update(func(tx store.Tx) {
						if !f.s.Settle(tx, claimed[name]) {
							rt.Fatalf("%s is gone", name)
						}
					})
					delete(claimed, name)
				}
			},
			"defer": func(rt *rapid.T) {
				if name, ok := pick(); ok {
					at := f.now.Add(time.Duration(rapid.IntRange(-60, 600).Draw(rt, "seconds")) * time.Second)
					f.update(func(tx store.Tx) { f.s.Defer(tx, claimed[name], at) })
					delete(claimed, name)
					waiting[name] = at
				}
			},
			"give back": func(rt *rapid.T) {
				if name, ok := pick(); ok {
					f.s.GiveBack(claimed[name])
					waiting[name] = claimed[name].Recipient.Next
					delete(claimed, name)
				}
			},
			"fill": func(rt *rapid.T) {
				full[fmt.Sprintf("d%d.test", rapid.IntRange(0, 5).Draw(rt, "lane"))] = true
			},
			"empty": func(rt *rapid.T) {
				lane := fmt.Sprintf("d%d.test", rapid.IntRange(0, 5).Draw(rt, "lane"))
				delete(full, lane)
				f.s.Release(lane)
			},
			"other routes": func(rt *rapid.T) {
				shift := rapid.IntRange(0, 5).Draw(rt, "shift")
				f.s.Lanes(func(_ *Message, r *Recipient) string {
					return fmt.Sprintf("d%d.test", (int(r.To.Domain[1]-'0')+shift)%6)
				})
			},
			"refile": func(rt *rapid.T) {
				if name, ok := pick(); ok {
					f.update(func(tx store.Tx) { f.s.Refile(tx, claimed[name]) })
					waiting[name] = claimed[name].Recipient.Next
					delete(claimed, name)
				}
			},
			"retry all": func(rt *rapid.T) {
				if _, err := f.s.Retry(context.Background(), Filter{}, "root"); err != nil {
					rt.Fatal(err)
				}
				for name := range waiting {
					waiting[name] = f.now
				}
				for name, d := range claimed { // its turn has moved under it
					d.Recipient.Next = f.now
					claimed[name] = d
				}
			},
			"time": func(rt *rapid.T) {
				f.now = f.now.Add(time.Duration(rapid.IntRange(-30, 300).Draw(rt, "seconds")) * time.Second)
			},
			"reopen": func(rt *rapid.T) {
				f.close()
				f.open()
				f.s.queues.most = most
				for name, d := range claimed {
					waiting[name] = d.Recipient.Next
				}
				clear(claimed)
			},
		})
		f.now = f.now.Add(time.Hour)
		for lane := range full {
			f.s.Release(lane)
		}
		for range 1000 { // as Run does: as long as Wait has no reason to wait
			select {
			case <-f.s.wake:
			default:
				if f.s.untilNext() > 0 {
					continue
				}
			}
			for _, d := range f.claim() {
				delete(waiting, d.Recipient.To.String())
			}
		}
		if len(waiting) > 0 {
			rt.Fatalf("never due again: %v", waiting)
		}
	})
}

func FuzzRecords(f *testing.F) {
	m := &Message{Size: 1, Arrived: time.UnixMicro(5), Envelope: envelope.Envelope{From: envelope.Address{Local: "a", Domain: "x.test"}}}
	r := &Recipient{Recipient: envelope.Recipient{To: envelope.Address{Local: "b", Domain: "y.test"}}, Next: time.UnixMicro(7)}
	f.Add(m.encode(), r.encode())
	fill(reflect.ValueOf(&m.Envelope).Elem())
	fill(reflect.ValueOf(r).Elem())
	f.Add(m.encode(), r.encode())
	f.Fuzz(func(t *testing.T, mb, rb []byte) {
		if m, err := decodeMessage(1, mb); err == nil {
			again, err := decodeMessage(1, m.encode())
			if err != nil || !reflect.DeepEqual(again, m) {
				t.Errorf("%+v became %+v (%v)", m, again, err)
			}
		}
		if r, err := decodeRecipient(0, rb); err == nil {
			again, err := decodeRecipient(0, r.encode())
			if err != nil || again != r {
				t.Errorf("%+v became %+v (%v)", r, again, err)
			}
		}
	})
}
