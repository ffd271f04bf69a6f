package delivery

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/spool"
)

func openRules(t testing.TB, st *store.Store) *Rules {
	t.Helper()
	r, err := OpenRules(st, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSuspensionsAreDurable(t *testing.T) {
	st := storetest.Open(t)
	r := openRules(t, st)
	first, err := r.Suspend("y.test", "their request", "root")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.Suspend("y.test", "until monday", "ann"); err != nil || !again.Since.Equal(first.Since) {
		t.Errorf("again: %+v, %v", again, err)
	}
	r.Suspend("a.test", "", "root")
	for what, rules := range map[string]*Rules{"now": r, "opened again": openRules(t, st)} {
		if s, ok := rules.Suspended("y.test"); !ok || s.Reason != "until monday" || s.By != "ann" {
			t.Errorf("%s: %+v, %v", what, s, ok)
		}
		if list := rules.Suspensions(); len(list) != 2 || list[0].Destination != "a.test" {
			t.Errorf("%s: %+v", what, list)
		}
		if _, ok := rules.Suspended("x.y.test"); ok {
			t.Errorf("%s: a domain below is suspended", what)
		}
	}
	if _, err := r.Resume("y.test"); err != nil {
		t.Error(err)
	}
	if _, err := r.Resume("y.test"); !errors.Is(err, ErrSuspended) {
		t.Errorf("twice: %v", err)
	}
	if _, ok := openRules(t, st).Suspended("y.test"); ok {
		t.Error("it is suspended again after a restart")
	}
}

func TestHoldRulesMatch(t *testing.T) {
	for _, tt := range []struct {
		rule                   HoldRule
		from, to, account, why string
	}{
		{HoldRule{Sender: "@x.test"}, "a@x.test", "b@y.test", "", "hold rule 1"},
		{HoldRule{Sender: "@x.test", Reason: "odd"}, "a@X.test", "b@y.test", "", "hold rule 1: odd"},
		{HoldRule{Sender: "@x.test"}, "a@sub.x.test", "b@y.test", "", ""},
		{HoldRule{Sender: "a@x.test"}, "a@x.test", "b@y.test", "", "hold rule 1"},
		{HoldRule{Sender: "<>"}, "", "b@y.test", "", "hold rule 1"},
		{HoldRule{Sender: "<>"}, "a@x.test", "b@y.test", "", ""},
		{HoldRule{Recipient: "@y.test"}, "", "b@y.test", "", "hold rule 1"},
		{HoldRule{Recipient: "c@y.test"}, "", "b@y.test", "", ""},
		{HoldRule{Account: "ann@x.test"}, "a@x.test", "b@y.test", "Ann@x.test", "hold rule 1"},
		{HoldRule{Account: "ann@x.test"}, "ann@x.test", "b@y.test", "", ""},
		{HoldRule{Account: "ann@x.test", Recipient: "@z.test"}, "a@x.test", "b@y.test", "ann@x.test", ""},
	} {
		r := openRules(t, storetest.Open(t))
		if _, err := r.AddHold(tt.rule); err != nil {
			t.Fatal(err)
		}
		m := &spool.Message{Origin: spool.Origin{Account: tt.account}}
		if tt.from != "" {
			m.Envelope.From = address(t, tt.from)
		}
		if why := r.Hold(m, &spool.Recipient{Recipient: envelope.Recipient{To: address(t, tt.to)}}); why != tt.why {
			t.Errorf("%+v: from %q to %q: %q", tt.rule, tt.from, tt.to, why)
		}
	}
}

func TestHoldRulesAreNumberedForEver(t *testing.T) {
	st := storetest.Open(t)
	r := openRules(t, st)
	for range 3 {
		if _, err := r.AddHold(HoldRule{Sender: "@x.test"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.RemoveHold(3); err != nil {
		t.Error(err)
	}
	if err := r.RemoveHold(3); !errors.Is(err, ErrNoHoldRule) {
		t.Errorf("got %v", err)
	}
	r = openRules(t, st)
	h, err := r.AddHold(HoldRule{Account: "a@x.test", By: "root", Reason: "why"})
	if err != nil || h.Number != 4 {
		t.Errorf("%+v, %v", h, err)
	}
	list := openRules(t, st).Holds()
	if len(list) != 3 || list[2].Number != 4 || list[2].Account != "a@x.test" || list[2].By != "root" || list[2].Reason != "why" || list[2].Since.IsZero() {
		t.Errorf("%+v", list)
	}
}

func TestRulesAreBounded(t *testing.T) {
	r := openRules(t, storetest.Open(t))
	if _, err := r.AddHold(HoldRule{Reason: "x"}); !errors.Is(err, ErrEmptyRule) {
		t.Errorf("got %v", err)
	}
	for _, reason := range []string{strings.Repeat("x", maxReason+1), "a\nb", "\xff"} {
		if _, err := r.AddHold(HoldRule{Sender: "<>", Reason: reason}); !errors.Is(err, ErrRuleReason) {
			t.Errorf("%.10q: %v", reason, err)
		}
		if _, err := r.Suspend("y.test", reason, ""); !errors.Is(err, ErrRuleReason) {
			t.Errorf("%.10q: %v", reason, err)
		}
	}
	many, holds := map[string]Suspension{}, make([]HoldRule, maxRules)
	for i := range maxRules {
		many[fmt.Sprint(i)] = Suspension{}
	}
	r.suspended.Store(&many)
	r.holds.Store(&holds)
	if _, err := r.Suspend("y.test", "", ""); !errors.Is(err, ErrTooManyRules) {
		t.Errorf("got %v", err)
	}
	if _, err := r.AddHold(HoldRule{Sender: "<>"}); !errors.Is(err, ErrTooManyRules) {
		t.Errorf("got %v", err)
	}
}

// What the store does not take is not in force either.
func TestRulesThatAreNotStoredDoNotCount(t *testing.T) {
	disk := storetest.NewFaultFS()
	st, err := store.Open(t.TempDir(), store.Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	r := openRules(t, st)
	r.Suspend("old.test", "", "")
	h, _ := r.AddHold(HoldRule{Sender: "@old.test"})
	st.Close()
	if _, err := r.Suspend("y.test", "", ""); err == nil {
		t.Error("a store that is closed took it")
	}
	if _, err := r.Resume("old.test"); err == nil {
		t.Error("a store that is closed took it")
	}
	if _, err := r.AddHold(HoldRule{Sender: "@y.test"}); err == nil {
		t.Error("a store that is closed took it")
	}
	if err := r.RemoveHold(h.Number); err == nil {
		t.Error("a store that is closed took it")
	}
	_, is := r.Suspended("y.test")
	_, was := r.Suspended("old.test")
	if is || !was || len(r.Holds()) != 1 {
		t.Errorf("in force: %v, %v, %+v", is, was, r.Holds())
	}
}

func TestDamagedRulesAreToldOf(t *testing.T) {
	for _, key := range []store.Key{suspensionKey("y.test"), holdKey(1)} {
		st := storetest.Open(t)
		err := st.Update(func(tx store.Tx) error { tx.Put(key, []byte{0xff}); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenRules(st, time.Now); !errors.Is(err, store.ErrRecord) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestNoRules(t *testing.T) {
	var r *Rules
	if _, ok := r.Suspended("y.test"); ok || r.Suspensions() != nil || r.Holds() != nil || r.Hold(&spool.Message{}, &spool.Recipient{}) != "" {
		t.Error("a nil Rules has some")
	}
}
