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
	lately lately   // where changes were

	loading sync.Mutex // held while a view opens, so that the UIDs are read once for all
}

// A snapshot is the UIDs of a mailbox at a modseq. Views share it: it is never changed.
type snapshot struct {
	uids   *roaring.Bitmap // nil when nothing was read yet
	modseq uint64
	next   UID // UIDNEXT
}

// share returns uids, which are not to be changed from now on, as a bitmap whose pieces what is made of it shares: the
// next snapshot of a million messages copies what it changes of them, and not 128 KiB.
func share(uids *roaring.Bitmap) *roaring.Bitmap {
	uids.SetCopyOnWrite(true)
	shared := uids.Clone()       // marks each piece as shared
	shared.SetCopyOnWrite(false) // a Clone of it would mark them again, while others read the marks
	return shared
}

// after returns the UIDs with some gone and others come.
func (s snapshot) after(gone, come *roaring.Bitmap) *roaring.Bitmap {
	if gone.IsEmpty() && come.IsEmpty() {
		return s.uids
	}
	uids := roaring.AndNot(s.uids, gone)
	uids.Or(come)
	return share(uids)
}

// lately are the sheets of a mailbox in which something changed last, so that a view that has followed nearly to the end
// need not look at all of them.
type lately struct {
	begin  uint64    // all changes after this modseq
	end    uint64    // and up to this one are known
	sheets []touched // in the order of their last changes
}

type touched struct {
	sheet  uint32
	modseq uint64
}

// maxTouched bounds the sheets that a room knows of.
const maxTouched = 32

// note takes in the sheets that one change touched; without any it is not known which.
func (l *lately) note(modseq uint64, sheets []uint32) {
	if len(sheets) == 0 || len(sheets) > maxTouched {
		*l = lately{begin: modseq, end: modseq}
		return
	}
	if modseq != l.end+1 {
		*l = lately{begin: modseq - 1}
	}
	l.end = modseq
	l.sheets = slices.DeleteFunc(l.sheets, func(t touched) bool { return slices.Contains(sheets, t.sheet) })
	for _, number := range sheets {
		l.sheets = append(l.sheets, touched{number, modseq})
	}
	if over := len(l.sheets) - maxTouched; over > 0 {
		l.begin = l.sheets[over-1].modseq
		l.sheets = slices.Delete(l.sheets, 0, over)
	}
}

// since returns the sheets that changes after one modseq and up to another touched, and perhaps later ones too; false
// when that is not known.
func (l *lately) since(modseq, to uint64) (sheets []uint32, known bool) {
	if modseq < l.begin || to > l.end {
		return nil, false
	}
	for _, t := range l.sheets {
		if t.modseq > modseq {
			sheets = append(sheets, t.sheet)
		}
	}
	return sheets, true
}

func newHub(index *indexer) *hub {
	return &hub{rooms: map[ID]*room{}, claims: map[ID]UID{}, index: index}
}

// changed wakes all views of a mailbox. It is called after the commit, for every change, with its modseq and the sheets
// that it touched; none is to say that it is not known which.
func (h *hub) changed(id ID, modseq uint64, sheets []uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if room := h.rooms[id]; room != nil {
		room.lately.note(modseq, sheets)
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

// touched returns the sheets in which something changed after a modseq, up to another.
func (h *hub) touched(r *room, since, to uint64) (sheets []uint32, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return r.lately.since(since, to)
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
