package spool

import (
	"context"
	"slices"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
)

// What is caught is on hold before anybody can claim it, with its reason, and once released stays released.
func TestNewMailIsCaught(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.s.CatchBy(func(_ *Message, r *Recipient) string {
		if r.To.Domain == "y.test" {
			return "rule 1"
		}
		return ""
	})
	id := f.accept("a@y.test", "b@z.test", "c@y.test")
	if got := f.claims(); !slices.Equal(got, []string{"b@z.test"}) {
		t.Errorf("claimed: %q", got)
	}
	e, err := f.s.Get(id)
	if err != nil || e.Recipients[0].State != Hold || e.Recipients[0].Reason != "rule 1" || e.Recipients[1].Reason != "" {
		t.Errorf("%+v, %v", e.Recipients, err)
	}
	if c, _ := f.s.Counts(); c != (Counts{Messages: 1, Active: 1, Hold: 2}) {
		t.Errorf("counts: %+v", c)
	}
	events, err := trace.New(f.st, trace.Limits{}).Message(id)
	if err != nil || len(events) != 2 || events[1].Kind != trace.Held || events[1].By != "rule 1" || len(events[1].To) != 2 {
		t.Errorf("trace: %+v, %v", events, err)
	}
	if n, err := f.s.Resume(context.Background(), Filter{}, "root"); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if got := f.claims(); len(got) != 2 {
		t.Errorf("released: %q", got)
	}
	if e, _ := f.s.Get(id); e.Recipients[0].Reason != "" {
		t.Errorf("the reason is left: %+v", e.Recipients[0])
	}
}

func TestHoldHasAReason(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	id := f.accept("a@y.test")
	if n, err := f.s.Hold(context.Background(), Filter{}, "root", "looks odd"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if e, _ := f.s.Get(id); e.Recipients[0].Reason != "looks odd" {
		t.Errorf("%+v", e.Recipients[0])
	}
}

func TestReroute(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.s.Lanes(func(_ *Message, r *Recipient) string { return r.To.Domain + " " + r.Transport })
	id := f.accept("a@y.test", "b@y.test", "c@y.test")
	ctx := context.Background()
	f.s.Hold(ctx, Filter{Recipient: "c@y.test"}, "root", "")
	due := f.claim()
	f.update(func(tx store.Tx) {
		for _, d := range due {
			f.s.Defer(tx, d, f.now.Add(time.Hour))
		}
	})
	if n, err := f.s.Reroute(ctx, Filter{Recipient: "b@y.test"}, "root", "spare"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := f.s.Reroute(ctx, Filter{Recipient: "c@y.test"}, "root", "spare"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	e, _ := f.s.Get(id)
	for i, want := range []struct {
		transport, lane string
		state           State
	}{{"", "y.test ", Deferred}, {"spare", "y.test spare", Active}, {"spare", "y.test spare", Hold}} {
		if r := e.Recipients[i]; r.Transport != want.transport || r.Lane != want.lane || r.State != want.state {
			t.Errorf("%d: %+v", i, r)
		}
	}
	if got := f.claims(); !slices.Equal(got, []string{"b@y.test"}) {
		t.Errorf("due: %q", got)
	}
	f.s.Reroute(ctx, Filter{}, "root", "")
	if e, _ := f.s.Get(id); e.Recipients[2].Transport != "" {
		t.Error("it does not end")
	}
}

func TestEditTLS(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.s.Lanes(func(m *Message, r *Recipient) string {
		if m.Envelope.RequireTLS {
			return r.To.Domain + " with TLS"
		}
		return r.To.Domain
	})
	ctx := context.Background()
	id := f.accept("a@y.test", "b@y.test")
	f.s.Hold(ctx, Filter{Recipient: "b@y.test"}, "root", "")
	if n, err := f.s.EditTLS(ctx, Filter{Recipient: "a@y.test"}, "root", true, false); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	e, _ := f.s.Get(id)
	if !e.Message.Envelope.RequireTLS || e.Recipients[0].Lane != "y.test with TLS" || e.Recipients[1].State != Hold {
		t.Errorf("%+v", e)
	}
	due := f.claim()
	if len(due) != 1 || !due[0].Message.Envelope.RequireTLS {
		t.Errorf("claimed: %+v", due)
	}
	if n, err := f.s.EditTLS(ctx, Filter{ID: id}, "root", false, true); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if e, _ := f.s.Get(id); e.Message.Envelope.RequireTLS || !e.Message.Envelope.TLSOptional {
		t.Errorf("%+v", e.Message.Envelope)
	}
}

func TestFiltersByAccountAndChoice(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.accept("a@y.test")
	d := f.st.NewDraft()
	m := &Message{Origin: Origin{Account: "ann@x.test"}}
	rcpts := []Recipient{{Recipient: envelope.Recipient{To: addr("b@y.test")}}, {Recipient: envelope.Recipient{To: addr("c@y.test")}}}
	if err := f.s.Accept(m, rcpts, d, nil); err != nil {
		t.Fatal(err)
	}
	count := func(filter Filter) (n int) {
		list, err := f.s.List(context.Background(), filter, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			n += len(e.Recipients)
		}
		return n
	}
	if n := count(Filter{Account: "Ann@X.test"}); n != 2 {
		t.Errorf("of the account: %d", n)
	}
	if n := count(Filter{Choose: func(_ *Message, r *Recipient) bool { return r.To.Local != "b" }}); n != 2 {
		t.Errorf("chosen: %d", n)
	}
}
