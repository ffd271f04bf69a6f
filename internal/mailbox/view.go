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
		v.at = snapshotOf(r, b, known)
		return nil
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
	unclaimed := roaring.New()
	unclaimed.AddRange(uint64(first), uint64(v.at.next))
	unclaimed.And(uids)
	if unclaimed.IsEmpty() {
		return
	}
	if v.recent != nil {
		unclaimed.Or(v.recent)
	}
	v.recent = unclaimed
}

// snapshotOf returns the UIDs of b, from an earlier snapshot if there is one.
func snapshotOf(r store.Reader, b *box, known snapshot) snapshot {
	switch {
	case known.uids == nil:
		uids := roaring.New()
		addUIDs(uids, r, b.ID, 1)
		return snapshot{uids, b.ModSeq, b.UIDNext}
	case known.modseq == b.ModSeq:
		return known
	}
	uids := known.uids.Clone()
	for _, v := range r.Scan(changeKey(b.ID, known.modseq+1), changesOf(b.ID).End()) {
		if c := decodeChange(v); c.gone {
			uids.Remove(c.uid)
		}
	}
	addUIDs(uids, r, b.ID, known.next)
	return snapshot{uids, b.ModSeq, b.UIDNext}
}

// addUIDs reads the UIDs of a mailbox from one on, in runs.
func addUIDs(uids *roaring.Bitmap, r store.Reader, id ID, from UID) {
	var first, end uint64
	for k := range r.Scan(messageKey(id, from), messagesOf(id).End()) {
		uid := lastUint(k)
		if uid != end {
			uids.AddRange(first, end)
			first = uid
		}
		end = uid + 1
	}
	uids.AddRange(first, end)
	uids.RunOptimize()
}

// UIDs are the messages the view knows, in order: position + 1 is the sequence number. Not to be changed; a
// Sync leaves it as it is and makes another.
func (v *View) UIDs() *roaring.Bitmap { return v.at.uids }

// ModSeq is the modseq up to which the view has followed.
func (v *View) ModSeq() uint64 { return v.at.modseq }

// Recent are those of UIDs that are \Recent for this view. Not to be changed.
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
	f := follower{Changes: Changes{Expunged: roaring.New(), New: roaring.New(), Flags: roaring.New()}}
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

// follow reads what the reader was not told. New messages come from the messages and not from
// the changes, so that they are told whatever happened to them since.
func (f *follower) follow(r store.Reader, v *View) (err error) {
	f.box, err = loadBox(r, v.id)
	if err != nil || f.box.ModSeq == v.at.modseq {
		return err
	}
	f.arrivals(r, v.at.next)
	f.changes(r, v)
	return nil
}

// arrivals reads the messages from UID next on.
func (f *follower) arrivals(r store.Reader, next UID) {
	if f.box.UIDNext != next {
		addUIDs(f.New, r, f.box.ID, next)
	}
}

// changes reads what happened to messages that the reader knows.
func (f *follower) changes(r store.Reader, v *View) {
	for _, value := range r.Scan(changeKey(v.id, v.at.modseq+1), changesOf(v.id).End()) {
		c := decodeChange(value)
		switch {
		case !v.at.uids.Contains(c.uid): // new, or came and went
		case c.gone:
			f.Expunged.Add(c.uid)
		default:
			f.Flags.Add(c.uid)
		}
	}
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
	} else if !c.Expunged.IsEmpty() || !c.New.IsEmpty() {
		at.uids = roaring.AndNot(at.uids, c.Expunged)
		at.uids.Or(c.New)
	}
	if !c.Held { // the view is what the mailbox is
		at = v.s.hub.publish(v.room, at)
	}
	v.at = at
	if v.recent != nil && !c.Expunged.IsEmpty() {
		v.recent = roaring.AndNot(v.recent, c.Expunged)
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
		v.held = expunged
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

// Vanished returns which of the messages that were once given UIDs (of uids, or all when it is nil) were expunged
// after a modseq (RFC 7162, 3.2.10). It reads in pages.
func (s *Service) Vanished(id ID, since uint64, uids *roaring.Bitmap) (*roaring.Bitmap, error) {
	gone := roaring.New()
	for more := true; more; {
		err := s.st.View(func(r store.Reader) error {
			if _, err := loadBox(r, id); err != nil {
				return err
			}
			n := 0
			for k, v := range r.Scan(changeKey(id, since+1), changesOf(id).End()) {
				since = lastUint(k)
				if c := decodeChange(v); c.gone {
					gone.Add(c.uid)
				}
				if n++; n == maxHistory {
					break
				}
			}
			more = n == maxHistory
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if uids != nil {
		gone.And(uids)
	}
	return gone, nil
}
