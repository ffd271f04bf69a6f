package spool

import (
	"context"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// TestSending: a mark outlives the process, whoever claims next sees it, and whatever ends the attempt takes it away.
func TestSending(t *testing.T) {
	for name, end := range map[string]func(*fixture, store.Tx, Due){
		"settled":     func(f *fixture, tx store.Tx, d Due) { f.s.Settle(tx, d) },
		"deferred":    func(f *fixture, tx store.Tx, d Due) { f.s.Defer(tx, d, f.now) },
		"held":        func(f *fixture, tx store.Tx, d Due) { f.s.Suspend(tx, d) },
		"taken back":  func(f *fixture, tx store.Tx, d Due) { f.s.Sending(tx, d, time.Time{}) },
		"filed again": nil,
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, t.TempDir())
			defer func() { f.close() }()
			id := f.accept("one@y.test", "two@y.test")
			sent := f.now.Add(time.Second)
			due := f.claim()
			f.update(func(tx store.Tx) {
				if !f.s.Sending(tx, due[0], sent) {
					t.Error("the recipient is not there")
				}
			})
			f.close()
			f.open()
			due = f.claim()
			if len(due) != 2 || !due[0].Recipient.Sent.Equal(sent) || !due[1].Recipient.Sent.IsZero() {
				t.Fatalf("claimed %+v", due)
			}
			if end == nil {
				f.update(func(tx store.Tx) { f.s.Refile(tx, due[0]) })
				if again := f.claim(); len(again) != 1 || !again[0].Recipient.Sent.Equal(sent) {
					t.Errorf("claimed %+v", again)
				}
				return
			}
			f.update(func(tx store.Tx) { end(f, tx, due[0]) })
			f.s.GiveBack(due...)
			if _, err := f.s.Resume(context.Background(), Filter{ID: id}, "me"); err != nil {
				t.Fatal(err)
			}
			for _, d := range f.claim() {
				if !d.Recipient.Sent.IsZero() {
					t.Errorf("the mark is left on %s", d.Recipient.To)
				}
			}
		})
	}
}

// TestSendingNobody: there is no mark on who is not there.
func TestSendingNobody(t *testing.T) {
	f := open(t, t.TempDir())
	defer func() { f.close() }()
	f.accept("one@y.test")
	due := f.claim()
	if _, err := f.s.Remove(context.Background(), Filter{}, "me"); err != nil {
		t.Fatal(err)
	}
	f.update(func(tx store.Tx) {
		if f.s.Sending(tx, due[0], f.now) {
			t.Error("a removed recipient was marked")
		}
	})
}

// TestCheckFindsStrayMarks: Check names a mark that would never go away.
func TestCheckFindsStrayMarks(t *testing.T) {
	f := open(t, t.TempDir())
	defer func() { f.close() }()
	f.update(func(tx store.Tx) { tx.Put(sendingKey(7, 3), []byte{0}) })
	if problems, err := f.s.Check(context.Background()); err != nil || len(problems) != 1 {
		t.Errorf("found %v, %v", problems, err)
	}
	f.update(func(tx store.Tx) { tx.Delete(sendingKey(7, 3)) })
}

// TestClaimOverdue: what has missed its deadline is claimed whatever its lane has room for, unless it is held or claimed,
// and once it is put off it is not found again.
func TestClaimOverdue(t *testing.T) {
	f := open(t, t.TempDir())
	defer func() { f.close() }()
	f.s.Lanes(func(m *Message, r *Recipient) string { return r.To.Domain })
	accept := func(by time.Duration, to ...string) store.ID {
		m := &Message{Envelope: envelope.Envelope{DeliverBy: envelope.DeliverBy{Deadline: f.now.Add(by)}}}
		var rcpts []Recipient
		for _, a := range to {
			rcpts = append(rcpts, Recipient{Recipient: envelope.Recipient{To: addr(a)}})
		}
		d := f.st.NewDraft()
		d.Write([]byte("x"))
		if err := f.s.Accept(m, rcpts, d, nil); err != nil {
			t.Fatal(err)
		}
		return m.ID
	}
	accept(time.Hour, "one@y.test", "two@y.test")
	held := accept(time.Hour, "held@y.test")
	later := f.now.Add(2 * time.Hour)
	accept(2*time.Hour, "later@y.test")
	f.accept("never@y.test")
	if _, err := f.s.Hold(context.Background(), Filter{ID: held}, "me", ""); err != nil {
		t.Fatal(err)
	}
	if due, next, err := f.s.ClaimOverdue(10); err != nil || len(due) != 0 || !next.Equal(f.now.Add(time.Hour)) {
		t.Errorf("too early: %v %v %v", due, next, err)
	}
	f.now = f.now.Add(time.Hour)
	due, next, err := f.s.ClaimOverdue(10)
	if err != nil || len(due) != 2 || !next.Equal(later) {
		t.Fatalf("claimed %v %v %v", due, next, err)
	}
	if again, _, _ := f.s.ClaimOverdue(10); len(again) != 0 {
		t.Errorf("claimed twice: %v", again)
	}
	f.expect("others", f.claims(), "later@y.test", "never@y.test")
	f.update(func(tx store.Tx) {
		f.s.Settle(tx, due[0])
		f.s.Defer(tx, due[1], f.now)
	})
	if again, _, _ := f.s.ClaimOverdue(10); len(again) != 0 {
		t.Errorf("found again: %v", again)
	}
	f.expect("who was put off", f.claims(), "two@y.test")
}
