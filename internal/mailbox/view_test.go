package mailbox

import (
	"context"
	"errors"
	"testing"
)

func (c Changes) empty() bool {
	return c.Expunged.IsEmpty() && c.New.IsEmpty() && c.Flags.IsEmpty() && !c.Removed
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
	equal(t, "expunged", c.Expunged.ToArray(), []UID{3, 5})
	if h.shown(id, c.New) != "6x" || h.shown(id, c.Flags) != `2\Flagged\Seen 4\Seen` || c.Removed || c.Held {
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
	if h.shown(id, c.New) != `1\Seen 3\Seen` || !c.Flags.IsEmpty() || !c.Expunged.IsEmpty() {
		t.Errorf("told %+v", c)
	}
}

func TestSyncHoldsExpunged(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 4)
	v := h.view(id)
	h.kill(id, 2)
	if c := h.sync(v, false); !c.empty() || !c.Held {
		t.Errorf("told %+v", c)
	}
	if c := h.sync(v, false); !c.empty() || !c.Held {
		t.Errorf("told %+v", c)
	}
	equal(t, "uids", v.UIDs().ToArray(), []uint32{1, 2, 3, 4})
	h.kill(id, 1)
	h.append(id, small)
	c := h.sync(v, false)
	if h.shown(id, c.New) != "5" || !c.Expunged.IsEmpty() {
		t.Errorf("told %+v", c)
	}
	equal(t, "uids", v.UIDs().ToArray(), []uint32{1, 2, 3, 4, 5})
	h.kill(id, 4)
	c = h.sync(v, true)
	equal(t, "expunged", c.Expunged.ToArray(), []UID{1, 2, 4})
	equal(t, "uids", v.UIDs().ToArray(), []uint32{3, 5})
	if c := h.sync(v, true); !c.empty() {
		t.Errorf("told again %+v", c)
	}
}

// One message each is recent to one of the views that claim, also after they have closed.
func TestRecent(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	recent := func(what string, v *View, want ...UID) {
		t.Helper()
		equal(t, what, v.Recent().ToArray(), want)
	}
	count := func(want int) {
		t.Helper()
		if n, err := h.RecentCount(id); err != nil || n != want {
			t.Errorf("%d are recent (%v), want %d", n, err, want)
		}
	}
	h.fill(id, 3)
	count(3)
	peek, err := watch(h.Service, id, false)
	h.must(err)
	recent("one who only looks", peek.View, 1, 2, 3)
	a, b := h.view(id), h.view(id)
	recent("the first", a.View, 1, 2, 3)
	recent("the second", b.View)
	count(0)
	h.append(id, small)
	h.sync(peek, true)
	h.sync(b, true)
	h.sync(a, true)
	recent("one who only looks", peek.View, 1, 2, 3, 4)
	recent("the last to hear", a.View, 1, 2, 3)
	recent("the first to hear", b.View, 4)
	h.kill(id, 2)
	h.sync(a, true)
	recent("after an expunge", a.View, 1, 3)
	peek.Close()
	a.Close()
	b.Close()
	h.append(id, small)
	count(1)
	recent("a later view", h.view(id).View, 5)
	recent("the service after a restart, which has forgotten the last claim", restarted(h, id), 5)
	h.mark(id, AddFlags, `\Seen`, 1)
	recent("and after the next commit", restarted(h, id))
}

// restarted is a view of a service that has in memory nothing of what was before.
func restarted(h house, id ID) *View {
	h.Helper()
	v, _, err := New(h.st, Options{}).View(id, ViewOptions{Recent: true})
	h.must(err)
	return v
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
		if c := h.sync(v, true); !c.Removed || c.Expunged != nil {
			t.Errorf("told %+v", c)
		}
	}
	if _, _, err := h.View(id, ViewOptions{}); !errors.Is(err, ErrNotFound) {
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
		views := []*watcher{h.view(id), h.view(id), h.view(id)}
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
		v, err := watch(h.Service, id, true)
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
func follow(ctx context.Context, v *watcher, n UID) error {
	for !v.UIDs().Contains(n) {
		select {
		case <-v.wakes:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := v.Sync(true); err != nil {
			return err
		}
	}
	return nil
}
