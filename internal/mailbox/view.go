package mailbox

import (
	"errors"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/store"
)

// View is what one reader has been told of a mailbox: the UIDs it knows and the modseq up to which it has
// followed. One goroutine. It costs a few hundred octets besides the UIDs, which are shared.
type View struct {
	// Set by Service.View, never changed.
	s    *Service
	id   ID
	room *room
	o    ViewOptions

	at     snapshot        // what the reader knows; uids may have held ones besides
	held   *roaring.Bitmap // expunged, and still known to the reader; nil is none
	heldAt uint64          // at.modseq before the first of them was kept back
	recent *roaring.Bitmap // nil is none
}

// ViewOptions are the settings of a View.
type ViewOptions struct {
	// Recent has the view claim messages: of all views that do, one sees a message as recent (RFC 3501, 2.3.2).
	// Without it, messages that nobody has claimed yet are recent for the view and stay so for others, as
	// EXAMINE wants it. After a restart of the server messages may be recent once more.
	Recent bool
	// Changed, if not nil, is called after each commit that changed the mailbox: Sync has something to tell. Any
	// goroutine calls it, perhaps before Service.View has returned. It must not block and must not call this package.
	Changed func()
}

// View opens a view of a mailbox's present state. The caller closes it.
func (s *Service) View(id ID, o ViewOptions) (*View, Mailbox, error) {
	v := &View{s: s, id: id, o: o}
	v.room = s.hub.enter(v)
	m, err := v.open()
	if err != nil {
		v.Close()
		return nil, Mailbox{}, err
	}
	return v, m, nil
}

// open reads the mailbox's state. The latest snapshot is fetched before the transaction
// begins, so that it is never newer than what the transaction sees.
func (v *View) open() (m Mailbox, err error) {
	v.room.loading.Lock()
	defer v.room.loading.Unlock()
	known := v.s.hub.latest(v.room)
	var claimed UID
	err = v.s.st.View(func(r store.Reader) error {
		b, err := loadBox(r, v.id)
		if err != nil {
			return err
		}
		m, claimed = b.mailbox(r), b.claimed
		v.at, err = v.snapshot(r, b, known)
		return err
	})
	if err != nil {
		return m, err
	}
	v.at = v.s.hub.publish(v.room, v.at)
	v.claim(claimed, v.at.uids)
	return m, nil
}

// claim makes those of the messages recent that nobody has claimed.
func (v *View) claim(claimed UID, uids *roaring.Bitmap) {
	first := v.s.hub.claim(v.id, claimed, v.at.next, v.o.Recent)
	if first >= v.at.next {
		return
	}
	below := roaring.New()
	below.AddRange(0, uint64(first))
	unclaimed := roaring.AndNot(uids, below) // shares what it can with a snapshot, as And does not
	if unclaimed.IsEmpty() {
		return
	}
	if v.recent == nil {
		v.recent = roaring.New()
	}
	v.recent.Or(unclaimed)
}

// snapshot returns the UIDs of b, from an earlier snapshot if there is one.
func (v *View) snapshot(r store.Reader, b *box, known snapshot) (snapshot, error) {
	at := snapshot{known.uids, b.ModSeq, b.UIDNext}
	switch {
	case known.uids == nil:
		uids, err := present(r, b.ID)
		if err != nil {
			return at, err
		}
		at.uids = share(uids)
	case known.modseq != b.ModSeq:
		h, err := v.history(r, b, known.modseq)
		if err != nil {
			return at, err
		}
		at.uids = known.after(h.gone.bitmap(), h.changed.bitmap())
	}
	return at, nil
}

// history is what happened in b after a modseq. Of what happened lately it is known where to look.
func (v *View) history(r store.Reader, b *box, since uint64) (history, error) {
	if numbers, known := v.s.hub.touched(v.room, since, b.ModSeq); known {
		h := newHistory()
		whole, err := v.s.someSheets(r, b.ID, numbers, func(b *sheet) { h.add(b, since) })
		if whole || err != nil {
			return h, err
		}
	}
	h := newHistory()
	return h, h.read(r, b.ID, since)
}

// UIDs are the messages the view knows, in order: position + 1 is the sequence number. Not to be changed; a
// Sync leaves it as it is and makes another.
func (v *View) UIDs() *roaring.Bitmap { return v.at.uids }

// ModSeq is the modseq up to which the view has followed.
func (v *View) ModSeq() uint64 { return v.at.modseq }

// Told is the modseq up to which the view has followed and kept nothing back: below that of any expunged message that the
// reader does not know of (RFC 7162, 3.2).
func (v *View) Told() uint64 {
	if v.held != nil {
		return v.heldAt
	}
	return v.at.modseq
}

// Recent are those of UIDs that are \Recent for this view. Not to be changed; a Sync changes it.
func (v *View) Recent() *roaring.Bitmap {
	if v.recent == nil {
		return roaring.New()
	}
	return v.recent
}

// Close lets go of the view. It may be called again.
func (v *View) Close() { v.s.hub.leave(v) }

// Changes is what happened to a mailbox since a view last followed.
type Changes struct {
	Expunged *roaring.Bitmap // known to the view before
	New      *roaring.Bitmap // greater than all those known before
	Flags    *roaring.Bitmap // known to the view before and now, with other flags; Read tells which
	Removed  bool            // the mailbox is gone
	Held     bool            // expunged messages are kept back
}

// Sync brings the view up to date and tells what is new. With expunge false, expunged messages stay
// in the view until a Sync with expunge true (RFC 9051, 5.5 and 7.5.1).
func (v *View) Sync(expunge bool) (Changes, error) {
	known := v.s.hub.latest(v.room)
	var f follower
	err := v.s.st.View(func(r store.Reader) error { return f.follow(r, v) })
	if errors.Is(err, ErrNotFound) {
		return Changes{Removed: true}, nil
	}
	if err != nil {
		return Changes{}, err
	}
	return v.advance(&f, known, expunge), nil
}

// A follower is what one Sync has read.
type follower struct {
	Changes
	box *box
}

// follow reads what the reader was not told. What came and went is not told, and what came and changed is new.
func (f *follower) follow(r store.Reader, v *View) (err error) {
	f.Changes = Changes{Expunged: roaring.New(), New: roaring.New(), Flags: roaring.New()}
	f.box, err = loadBox(r, v.id)
	if err != nil || f.box.ModSeq == v.at.modseq {
		return err
	}
	h, err := v.history(r, f.box, v.at.modseq)
	if err != nil {
		return err
	}
	changed := h.changed.bitmap()
	f.New.AddRange(uint64(v.at.next), uint64(f.box.UIDNext))
	f.New.And(changed)
	f.Flags = roaring.AndNot(changed, f.New)
	f.Expunged = roaring.And(h.gone.bitmap(), v.at.uids)
	if v.held != nil {
		f.Expunged.AndNot(v.held)
	}
	return nil
}

// advance makes what was read the state of the view.
func (v *View) advance(f *follower, known snapshot, expunge bool) Changes {
	c := f.Changes
	if expunge {
		v.release(c.Expunged)
	} else {
		c.Expunged = v.hold(c.Expunged)
	}
	c.Held = v.held != nil
	at := snapshot{v.at.uids, f.box.ModSeq, f.box.UIDNext}
	if !c.Held && known.modseq == at.modseq {
		at.uids = known.uids
	} else {
		at.uids = v.at.after(c.Expunged, c.New)
	}
	if !c.Held { // the view is what the mailbox is
		at = v.s.hub.publish(v.room, at)
	}
	v.at = at
	if v.recent != nil {
		v.recent.AndNot(c.Expunged)
	}
	if !c.New.IsEmpty() {
		v.claim(f.box.claimed, c.New)
	}
	return c
}

// hold keeps expunged messages for a Sync that may tell them.
func (v *View) hold(expunged *roaring.Bitmap) *roaring.Bitmap {
	if v.held != nil {
		v.held.Or(expunged)
	} else if !expunged.IsEmpty() {
		v.held, v.heldAt = expunged, v.at.modseq
	}
	return roaring.New()
}

// release adds to the expunged messages those that were held.
func (v *View) release(expunged *roaring.Bitmap) {
	if v.held != nil {
		expunged.Or(v.held)
		v.held = nil
	}
}
