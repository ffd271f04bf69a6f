package mailbox

import (
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
)

// A hub knows the open views of each mailbox and tells them after each commit. It holds no
// messages: a view reads what happened from the index.
type hub struct {
	mu     sync.Mutex // guards all here, and all in the rooms but loading
	rooms  map[ID]*room
	claims map[ID]UID // messages below it are claimed; the mailbox's record does not know yet
	index  *indexer   // learns of changes too
}

// A room is the open views of one mailbox. It ends with the last of them.
type room struct {
	views  []*View
	latest snapshot // the newest that any view has read

	loading sync.Mutex // held while a view opens, so that the UIDs are read once for all
}

// A snapshot is the UIDs of a mailbox at a modseq. Views share it: it is never changed.
type snapshot struct {
	uids   *roaring.Bitmap // nil when nothing was read yet
	modseq uint64
	next   UID // UIDNEXT
}

func newHub(index *indexer) *hub {
	return &hub{rooms: map[ID]*room{}, claims: map[ID]UID{}, index: index}
}

// changed wakes all views of a mailbox. It is called after the commit, for every change.
func (h *hub) changed(id ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if room := h.rooms[id]; room != nil {
		for _, v := range room.views {
			if v.o.Changed != nil {
				v.o.Changed()
			}
		}
	}
	h.index.note(id)
}

// enter adds a view to its mailbox's room. From now on no change escapes it.
func (h *hub) enter(v *View) *room {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[v.id]
	if r == nil {
		r = &room{}
		h.rooms[v.id] = r
	}
	r.views = append(r.views, v)
	return r
}

// leave takes a view away again.
func (h *hub) leave(v *View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(v.room.views, v)
	if i < 0 {
		return
	}
	last := len(v.room.views) - 1
	v.room.views[i] = v.room.views[last]
	v.room.views[last] = nil
	if v.room.views = v.room.views[:last]; last == 0 {
		delete(h.rooms, v.id)
	}
}

// latest returns the newest snapshot known.
func (h *hub) latest(r *room) snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return r.latest
}

// publish offers a snapshot to the room and returns the one to use, so that
// views that have followed equally far share one bitmap.
func (h *hub) publish(r *room, s snapshot) snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case r.latest.uids == nil || r.latest.modseq < s.modseq:
		r.latest = s
	case r.latest.modseq == s.modseq:
		return r.latest
	}
	return s
}

// claim returns the first UID that no view has claimed, given what the mailbox's record says, and
// with take claims all below next.
func (h *hub) claim(id ID, recorded, next UID, take bool) (first UID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first = max(recorded, h.claims[id])
	if take && next > first {
		h.claims[id] = next
	}
	return first
}

// claimed returns what is claimed and not recorded; 0 is nothing.
func (h *hub) claimed(id ID) UID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.claims[id]
}

// recorded is told what the mailbox's record knows now.
func (h *hub) recorded(id ID, claimed UID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.claims[id] <= claimed {
		delete(h.claims, id)
	}
}

// forget is told that a mailbox is gone.
func (h *hub) forget(id ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.claims, id)
}
