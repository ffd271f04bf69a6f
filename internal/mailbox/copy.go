package mailbox

import (
	"context"

	"github.com/RoaringBitmap/roaring/v2"
)

// Pair is a message's UID before and after a copy.
type Pair struct{ From, To UID }

// Copy copies messages (a message already gone is passed over) to another mailbox: all or none. Up to 5,000 are one
// transaction. More go in bounded steps: others may see the first of them early, an error takes them back, and only
// a crash in between leaves them there. Keywords for which the target has no room are left out. ErrNotFound, ErrOverQuota.
func (s *Service) Copy(ctx context.Context, from ID, uids *roaring.Bitmap, to ID) (Mailbox, []Pair, error) {
	pairs, err := s.copyAll(ctx, from, uids, to, allFlags)
	if err != nil {
		return Mailbox{}, nil, err
	}
	m, err := s.ByID(to)
	return m, pairs, err
}

func (s *Service) copyAll(ctx context.Context, from ID, uids *roaring.Bitmap, to ID, rights Rights) ([]Pair, error) {
	pairs, err := s.transfer(ctx, from, uids, to, rights, (*transfer).copy)
	if err != nil {
		s.takeBack(ctx, to, pairs)
		return nil, err
	}
	return pairs, nil
}

// takeBack expunges the copies that a failed Copy had made. What fails here has its cause in
// the error that the caller returns.
func (s *Service) takeBack(ctx context.Context, to ID, pairs []Pair) {
	copies := roaring.New()
	for _, p := range pairs {
		copies.Add(p.To)
	}
	if !copies.IsEmpty() {
		_, _ = s.expunge(context.WithoutCancel(ctx), to, copies, (*sheet).all)
	}
}

// Move is Copy and expunge, each message in one transaction, many in bounded steps. After an error the
// steps before it stay and are returned. The quota is asked only when the mailboxes have different owners.
func (s *Service) Move(ctx context.Context, from ID, uids *roaring.Bitmap, to ID) (Mailbox, []Pair, error) {
	pairs, err := s.moveAll(ctx, from, uids, to, allFlags)
	if err != nil {
		return Mailbox{}, pairs, err
	}
	m, err := s.ByID(to)
	return m, pairs, err
}

func (s *Service) moveAll(ctx context.Context, from ID, uids *roaring.Bitmap, to ID, rights Rights) ([]Pair, error) {
	return s.transfer(ctx, from, uids, to, rights, (*transfer).move)
}

// A transfer is one step of a Copy or Move.
type transfer struct {
	rights         Rights         // in the target
	source, target *edit          // the same when a mailbox is copied to itself
	places         map[uint16]int // of the source's keywords in the target; -1 where there is no room
}

// transfer brings the messages that are there now to another mailbox, in steps.
func (s *Service) transfer(ctx context.Context, from ID, uids *roaring.Bitmap, to ID, rights Rights, way func(*transfer, []record) error) ([]Pair, error) {
	there, err := s.uids(from)
	if err != nil {
		return nil, err
	}
	uids = narrow(there, uids)
	if _, err := s.ByID(to); err != nil || uids.IsEmpty() {
		return nil, err
	}
	var pairs, step []Pair
	err = s.inSteps(ctx, from, func(source *edit, from UID) (UID, error) {
		page, next, err := source.pick(uids, from)
		if err != nil {
			return 0, err
		}
		t, err := source.transferTo(to, rights)
		if err == nil {
			step, err = t.page(page, way)
		}
		return next, err
	}, func() { pairs = append(pairs, step...) })
	return pairs, err
}

// pick reads some of the messages from a UID on.
func (e *edit) pick(uids *roaring.Bitmap, from UID) (page []record, next UID, err error) {
	next, err = e.some(uids, from, andWords, copyStep, func(b *sheet, wanted *bitset) error {
		return facts(e.tx, e.box.ID, b, *wanted, func(m *record) error {
			_, i := sheetOf(m.uid)
			m.flags = b.flags(i)
			page = append(page, *m)
			return nil
		})
	})
	return page, next, err
}

func (e *edit) transferTo(to ID, rights Rights) (*transfer, error) {
	t := &transfer{rights: rights, source: e, target: e, places: map[uint16]int{}}
	if to == e.box.ID {
		return t, nil
	}
	b, err := loadBox(e.tx, to)
	t.target = e.s.edit(e.tx, b)
	return t, err
}

// page brings a page of records to the target; they get the numbers that they have there.
func (t *transfer) page(page []record, way func(*transfer, []record) error) ([]Pair, error) {
	pairs := make([]Pair, len(page))
	for i := range page {
		pairs[i].From = page[i].uid
	}
	if err := way(t, page); err != nil {
		return nil, err
	}
	for i := range page {
		pairs[i].To = page[i].uid
	}
	if t.target == t.source {
		return pairs, nil
	}
	return pairs, t.target.save()
}

// copy adds the messages to the target, with references of their own to the bodies.
func (t *transfer) copy(page []record) error {
	if err := t.fits(page); err != nil {
		return err
	}
	for i := range page {
		if err := t.translate(&page[i]); err != nil {
			return err
		}
		if err := t.target.add(&page[i], nil); err != nil {
			return err
		}
	}
	return nil
}

// move takes the messages out of the source and puts them into the target, with their body references.
func (t *transfer) move(page []record) error {
	if t.source.box.Owner != t.target.box.Owner {
		if err := t.fits(page); err != nil {
			return err
		}
	}
	if err := t.source.takeAll(page); err != nil {
		return err
	}
	for i := range page {
		if err := t.translate(&page[i]); err != nil {
			return err
		}
		if err := t.target.place(&page[i]); err != nil {
			return err
		}
	}
	return nil
}

// takeAll takes messages out with their records.
func (e *edit) takeAll(page []record) error {
	for len(page) > 0 {
		b, _, err := e.sheet(page[0].uid)
		if err != nil {
			return err
		}
		var gone bitset
		var octets int64
		for len(page) > 0 && uint64(page[0].uid) < b.end() {
			_, i := sheetOf(page[0].uid)
			gone.set(i)
			octets += page[0].size
			e.tx.Delete(messageKey(e.box.ID, page[0].uid))
			page = page[1:]
		}
		e.take(b, &gone, octets)
	}
	return nil
}

// fits asks the quota of the target's owner.
func (t *transfer) fits(page []record) error {
	more := Quota{Messages: int64(len(page))}
	for i := range page {
		more.Octets += page[i].size
	}
	return t.target.s.fits(t.target.tx, t.target.box.Owner, more)
}

// translate gives m the flags that it has in the target.
func (t *transfer) translate(m *record) error {
	m.flags.system &= t.rights.systemFlags()
	if !t.rights.Has(RightWrite) {
		m.flags.keywords = nil
	}
	var set []uint16
	for _, k := range m.flags.keywords {
		place, err := t.place(k)
		if err != nil {
			return err
		}
		if place >= 0 {
			set = union(set, []uint16{uint16(place)})
		}
	}
	m.flags.keywords = set
	return nil
}

// systemFlags are those that may be changed.
func (r Rights) systemFlags() (may uint8) {
	for i := range systemFlags {
		if r.Has(OfFlag(systemFlag(i))) {
			may |= 1 << i
		}
	}
	return may
}

// place returns where the source's keyword k is in the target, or -1 when there is no room for it.
func (t *transfer) place(k uint16) (int, error) {
	if place, ok := t.places[k]; ok {
		return place, nil
	}
	ours, err := t.source.keywords()
	if err != nil {
		return -1, err
	}
	theirs, err := t.target.keywords()
	if err != nil || int(k) >= len(ours.names) {
		return -1, err
	}
	t.places[k] = theirs.add(ours.names[k], t.target.s.o.Keywords)
	return t.places[k], nil
}
