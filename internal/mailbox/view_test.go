package mailbox

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// waiting reports whether Changed has a value, and takes it.
func waiting(v *View) bool {
	select {
	case <-v.Changed():
		return true
	default:
		return false
	}
}

func (c Changes) empty() bool {
	return len(c.Expunged)+len(c.New)+len(c.Flags) == 0 && !c.Removed && !c.More
}

func TestSyncTells(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 5)
	v := h.view(id)
	equal(t, "uids", v.UIDs().ToArray(), []uint32{1, 2, 3, 4, 5})
	if c := h.sync(v, true); !c.empty() {
		t.Errorf("nothing happened: %+v", c)
	}
	if waiting(v) {
		t.Error("woken for nothing")
	}
	h.mark(id, AddFlags, `\Seen`, 4, 2)
	h.append(id, small, "x")
	h.kill(id, 5, 3)
	h.mark(id, AddFlags, `\Flagged`, 2)
	if !waiting(v) {
		t.Error("not woken")
	}
	c := h.sync(v, true)
	equal(t, "expunged", c.Expunged, []UID{3, 5})
	if show(c.New) != "6x" || show(c.Flags) != `2\Flagged\Seen 4\Seen` || c.Removed || c.More {
		t.Errorf("told %+v", c)
	}
	equal(t, "uids", v.UIDs().ToArray(), []uint32{1, 2, 4, 6})
	if v.ModSeq() != h.now(id).ModSeq {
		t.Errorf("followed to %d of %d", v.ModSeq(), h.now(id).ModSeq)
	}
	if c := h.sync(v, true); !c.empty() || waiting(v) {
		t.Errorf("told again %+v", c)
	}
	h.append(id, small)
	h.sync(v, true)
	if waiting(v) {
		t.Error("woken for what was told already")
	}
}

// What came and went is not told; what came and changed is new, as it is now.
func TestSyncCoalesces(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	v := h.view(id)
	h.fill(id, 3)
	h.mark(id, AddFlags, `\Seen`, 1)
	h.mark(id, AddFlags, `\Seen`, 3)
	h.kill(id, 2)
	c := h.sync(v, false)
	if show(c.New) != `1\Seen 3\Seen` || len(c.Flags)+len(c.Expunged) != 0 {
		t.Errorf("told %+v", c)
	}
}

func TestSyncHoldsExpunged(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 4)
	v := h.view(id)
	h.kill(id, 2)
	if c := h.sync(v, false); len(c.Expunged)+len(c.Flags) != 0 {
		t.Errorf("told %+v", c)
	}
	if !waiting(v) || waiting(v) {
		t.Error("what is held back is announced, once")
	}
	if c := h.sync(v, false); !c.empty() || waiting(v) {
		t.Error("and not again")
	}
	equal(t, "uids", v.UIDs().ToArray(), []uint32{1, 2, 3, 4})
	h.kill(id, 1)
	h.append(id, small)
	c := h.sync(v, false)
	if show(c.New) != "5" || len(c.Expunged) != 0 {
		t.Errorf("told %+v", c)
	}
	equal(t, "uids", v.UIDs().ToArray(), []uint32{1, 2, 3, 4, 5})
	h.kill(id, 4)
	c = h.sync(v, true)
	equal(t, "expunged", c.Expunged, []UID{1, 2, 4})
	equal(t, "uids", v.UIDs().ToArray(), []uint32{3, 5})
	if c := h.sync(v, true); !c.empty() {
		t.Errorf("told again %+v", c)
	}
}

// Much is told in parts: new messages always in order of UID, changes not lost, and the
// modseq never beyond what was told.
func TestSyncInParts(t *testing.T) {
	const n = 2*maxTold + 5
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, n)
	v := h.view(id)
	flags := func() map[UID]bool {
		_, _, err := h.Store(t.Context(), id, nil, AddFlags, []string{`\Seen`}, 0)
		h.must(err)
		return map[UID]bool{}
	}()
	h.fill(id, n)
	h.mark(id, AddFlags, `\Flagged`, n+1) // the first new message has the last change
	h.kill(id, 1, n+2, 2*n)
	var news []UID
	before := v.ModSeq()
	parts := 0
	for more := true; more; parts++ {
		c := h.sync(v, true)
		if len(c.New) > maxTold || len(c.Flags) > maxTold {
			t.Fatalf("told %d and %d at once", len(c.New), len(c.Flags))
		}
		for _, m := range c.New {
			news = append(news, m.UID)
		}
		for _, m := range c.Flags {
			flags[m.UID] = m.Flags.Has(`\Seen`)
		}
		if more = c.More; more && !waiting(v) {
			t.Error("there is more, and nobody is woken")
		}
		if more && len(news) < n-2 && v.ModSeq() != before {
			t.Error("the modseq is beyond what was told")
		}
	}
	if parts < 3 || !slices.IsSorted(news) || len(news) != n-2 {
		t.Errorf("%d new in %d parts", len(news), parts)
	}
	for uid := UID(2); uid <= n; uid++ {
		if !flags[uid] {
			t.Fatalf("not told of %d", uid)
		}
	}
	if v.ModSeq() != h.now(id).ModSeq || v.UIDs().GetCardinality() != 2*n-3 {
		t.Errorf("followed to %d, %d messages", v.ModSeq(), v.UIDs().GetCardinality())
	}
	fresh := h.view(id)
	if !fresh.UIDs().Equals(v.UIDs()) {
		t.Error("a new view knows other messages")
	}
}

func TestSyncOfRemoved(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 2)
	v, empty := h.view(id), h.view(h.box("b").ID)
	h.must(h.Remove(t.Context(), owner, "b"))
	h.must(h.Remove(t.Context(), owner, "a"))
	h.box("a")
	if !waiting(v) || !waiting(empty) {
		t.Error("nobody is woken")
	}
	for range 2 {
		if c := h.sync(v, true); !c.Removed || len(c.Expunged) != 0 {
			t.Errorf("told %+v", c)
		}
	}
	if _, _, err := h.View(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("a view of a removed mailbox: %v", err)
	}
	empty.Close()
	if v.Close(); len(h.hub.rooms) != 0 {
		t.Error("a room is left when the last view has closed")
	}
	v.Close()
}

// Views that have followed equally far share their UIDs, and what one does with them
// is not seen by another.
func TestViewsShare(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 100)
	a, b := h.view(id), h.view(id)
	if a.UIDs() != b.UIDs() {
		t.Error("new views do not share")
	}
	h.kill(id, 50)
	h.append(id, small)
	h.sync(a, true)
	if !b.UIDs().Contains(50) || b.UIDs().Contains(101) {
		t.Error("a view was changed by another's Sync")
	}
	late := h.view(id)
	h.sync(b, false)
	h.sync(b, true)
	if a.UIDs() != late.UIDs() || a.UIDs() != b.UIDs() {
		t.Error("views that have followed do not share")
	}
	h.kill(id, 60)
	stale := h.view(id) // nobody has followed yet
	if stale.UIDs().Contains(60) || !a.UIDs().Contains(60) {
		t.Error("a new view begins with an old state")
	}
}

// Whichever view closes, the others are still woken.
func TestCloseLeavesTheOthers(t *testing.T) {
	for closed := range 3 {
		h := open(t, Options{})
		id := h.box("a").ID
		views := []*View{h.view(id), h.view(id), h.view(id)}
		views[closed].Close()
		h.append(id, small)
		for i, v := range views {
			if waiting(v) != (i != closed) {
				t.Errorf("after view %d has closed: view %d", closed, i)
			}
		}
	}
}

// No wake-up is lost: a reader that sleeps until Changed sees every message, however the
// commits fall, also while views open. Run with -race.
func TestNoLostWakeUp(t *testing.T) {
	const messages, readers = 150, 8
	h := open(t, Options{})
	id := h.box("a").ID
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, readers)
	read := func() {
		v, _, err := h.View(id)
		if err != nil {
			done <- err
			return
		}
		defer v.Close()
		done <- follow(ctx, v, messages)
	}
	for i := range messages {
		if i < readers {
			go read()
		}
		h.append(id, small)
		if i%10 == 9 {
			h.kill(id, UID(i))
		}
	}
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// follow sleeps until Changed, and ends when the message n is known.
func follow(ctx context.Context, v *View, n UID) error {
	for !v.UIDs().Contains(n) {
		select {
		case <-v.Changed():
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := v.Sync(true); err != nil {
			return err
		}
	}
	return nil
}
