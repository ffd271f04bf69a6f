package mailbox

import (
	"cmp"
	"errors"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/store"
)

// View is what one reader has been told of a mailbox: the UIDs it knows and the modseq up to which it has
// followed. One goroutine, except for Changed. It costs kilobytes whatever the mailbox's size.
type View struct {
	// Set by Service.View, never changed.
	s     *Service
	id    ID
	room  *room
	wakes chan struct{} // capacity 1: a value waits when there may be something to tell

	at       snapshot        // what the reader knows; uids may have held ones besides
	followed uint64          // the change up to which Sync has read; beyond at.modseq while new messages are told in parts
	held     *roaring.Bitmap // expunged, and still known to the reader
}

// View opens a view of a mailbox's present state. The caller closes it.
func (s *Service) View(id ID) (*View, Mailbox, error) {
	v := &View{s: s, id: id, wakes: make(chan struct{}, 1), held: roaring.New()}
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
	err = v.s.st.View(func(r store.Reader) error {
		b, err := loadBox(r, v.id)
		if err != nil {
			return err
		}
		m = b.mailbox(r)
		v.at = snapshotOf(r, b, known)
		return nil
	})
	v.at = v.s.hub.publish(v.room, v.at)
	v.followed = v.at.modseq
	return m, err
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

// Changed delivers a value when Sync has something to tell, also from before the call, and now and then when it has
// nothing. A Sync(false) that keeps expunged messages back counts as something, once.
func (v *View) Changed() <-chan struct{} { return v.wakes }

func (v *View) wake() {
	select {
	case v.wakes <- struct{}{}:
	default:
	}
}

// Close lets go of the view. It may be called again.
func (v *View) Close() { v.s.hub.leave(v) }

// Changes is what happened to a mailbox since a view last followed.
type Changes struct {
	Expunged []UID     // known to the view before, in order
	New      []Message // in order of UID, all greater than those known before
	Flags    []Message // known to the view and changed, in order of UID
	Removed  bool      // the mailbox is gone
	More     bool      // there is more to tell at once; Changed says so too
}

// Sync brings the view up to date and tells what is new. With expunge false, expunged messages stay
// in the view until a Sync with expunge true (RFC 9051, 5.5 and 7.5.1). One Sync tells at most 10,000 new
// and 10,000 changed messages, so that its memory is bounded; the expunged ones are 4 octets each.
func (v *View) Sync(expunge bool) (Changes, error) {
	v.drain()
	known := v.s.hub.latest(v.room)
	var f *follower
	err := v.s.st.View(func(r store.Reader) (err error) {
		f, err = v.follow(r)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return Changes{Removed: true}, nil
	}
	if err != nil {
		v.wake()
		return Changes{}, err
	}
	return v.advance(f, known, expunge), nil
}

// drain forgets a wake-up. It comes before the index is read: what is committed after that wakes again.
func (v *View) drain() {
	select {
	case <-v.wakes:
	default:
	}
}

// A follower is what one Sync has read.
type follower struct {
	Changes
	box      *box
	shower   flagShower
	next     UID    // the new messages below it are told
	followed uint64 // the changes up to it are told
}

// follow reads what the reader was not told. New messages come from the messages and not from
// the changes, so that they are told in order of UID whatever happened to them since, also in parts.
func (v *View) follow(r store.Reader) (*follower, error) {
	b, err := loadBox(r, v.id)
	if err != nil {
		return nil, err
	}
	f := &follower{box: b, next: b.UIDNext, followed: b.ModSeq}
	if b.ModSeq == v.followed && b.UIDNext == v.at.next {
		return f, nil
	}
	if f.shower.keywords, err = loadKeywords(r, v.id); err != nil {
		return nil, err
	}
	if err := f.arrivals(r, v.at.next); err != nil {
		return nil, err
	}
	return f, f.changes(r, v)
}

// arrivals reads the messages from UID next on.
func (f *follower) arrivals(r store.Reader, next UID) error {
	if f.box.UIDNext == next {
		return nil
	}
	page, err := pick(r, f.box.ID, nil, next, maxTold)
	for i := range page {
		f.New = append(f.New, page[i].message(&f.shower))
	}
	if len(page) == maxTold {
		f.next, f.More = page[len(page)-1].uid+1, true
	}
	return err
}

// changes reads what happened to messages that the reader knows.
func (f *follower) changes(r store.Reader, v *View) error {
	for k, value := range r.Scan(changeKey(v.id, v.followed+1), changesOf(v.id).End()) {
		c := decodeChange(value)
		if !v.at.uids.Contains(c.uid) {
			continue // new, or came and went
		}
		if c.gone {
			f.Expunged = append(f.Expunged, c.uid)
			continue
		}
		m, ok, err := getRecord(r, v.id, c.uid)
		if err != nil {
			return err
		}
		if ok {
			f.Flags = append(f.Flags, m.message(&f.shower))
		}
		if len(f.Flags) == maxTold {
			f.followed, f.More = lastUint(k), true
			return nil
		}
	}
	return nil
}

// advance makes what was read the state of the view.
func (v *View) advance(f *follower, known snapshot, expunge bool) Changes {
	c := f.Changes
	slices.SortFunc(c.Flags, func(a, b Message) int { return cmp.Compare(a.UID, b.UID) })
	if expunge {
		c.Expunged = v.release(c.Expunged)
	} else {
		c.Expunged = v.hold(c.Expunged)
	}
	at := snapshot{v.at.uids, f.followed, f.next}
	v.followed = f.followed
	if f.next != f.box.UIDNext {
		at.modseq = v.at.modseq // not all new messages are told
	}
	exact := !c.More && v.held.IsEmpty() // the view is what the mailbox is
	if exact && known.modseq == at.modseq {
		at.uids = known.uids
	} else if len(c.Expunged)+len(c.New) > 0 {
		at.uids = changedUIDs(at.uids, c)
	}
	if exact {
		at = v.s.hub.publish(v.room, at)
	}
	v.at = at
	if c.More {
		v.wake()
	}
	return c
}

// hold keeps expunged messages for a Sync that may tell them.
func (v *View) hold(expunged []UID) []UID {
	if len(expunged) > 0 {
		v.held.AddMany(expunged)
		v.wake()
	}
	return nil
}

// release returns the expunged messages together with those held, in order.
func (v *View) release(expunged []UID) []UID {
	if v.held.IsEmpty() {
		slices.Sort(expunged)
		return expunged
	}
	v.held.AddMany(expunged)
	all := v.held.ToArray()
	v.held = roaring.New()
	return all
}

func changedUIDs(uids *roaring.Bitmap, c Changes) *roaring.Bitmap {
	uids = uids.Clone()
	for _, uid := range c.Expunged {
		uids.Remove(uid)
	}
	for i := range c.New {
		uids.Add(c.New[i].UID)
	}
	return uids
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
				if n++; n == maxTold {
					break
				}
			}
			more = n == maxTold
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
