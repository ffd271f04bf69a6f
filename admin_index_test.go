package postroad

import (
	"testing"

	"postroad/internal/control"
)

// The index is made of what is worth it, told of, made again, and goes with its account.
func TestIndexIsRebuilt(t *testing.T) {
	a := newAdmin(t)
	if _, err := a.Import(t.Context(), inbox, letters(300, 2000, nil), nil); err != nil {
		t.Fatal(err)
	}
	indexed := func() (n uint64, octets int64) {
		for _, m := range collect(t, a.Index(t.Context(), inbox.Account)) {
			if m.Indexed > 0 && m.Mailbox != "INBOX" {
				t.Errorf("%s is indexed", m.Mailbox)
			}
			n, octets = n+m.Indexed, octets+m.IndexOctets
		}
		return n, octets
	}
	if n, octets := indexed(); n != 0 || octets != 0 {
		t.Errorf("%d messages are indexed before anybody did", n)
	}
	for range 2 {
		var told int
		done, err := a.RebuildIndex(t.Context(), inbox.Account, func(control.Progress) { told++ })
		if err != nil || done.Indexed != 300 || done.IndexOctets == 0 || told != done.Mailboxes {
			t.Errorf("rebuilt: %+v, %d told, %v", done, told, err)
		}
		if n, octets := indexed(); n != 300 || octets != done.IndexOctets {
			t.Errorf("%d messages in %d octets are indexed", n, octets)
		}
	}
	before := a.c.Store.Stats().Bodies
	if _, err := a.RebuildIndex(t.Context(), "", nil); err != nil || a.c.Store.Stats().Bodies != before {
		t.Errorf("all rebuilt: %d bodies, were %d, %v", a.c.Store.Stats().Bodies, before, err)
	}
	if err := firstError(a.Index(t.Context(), "nobody@example.test")); err == nil {
		t.Error("the index of nobody")
	}
	if err := a.RemoveAccount(t.Context(), inbox.Account); err != nil {
		t.Fatal(err)
	}
	if n := a.c.Store.Stats().Bodies; n != 0 {
		t.Errorf("%d bodies are left", n)
	}
}
