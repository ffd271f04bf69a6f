package mailbox

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/mime"
	"postroad/internal/store"
)

// Arrival is a message that is to be added: its body is referenced or a draft in the same transaction.
type Arrival struct {
	Body      store.ID
	Size      int64
	Structure []byte    // mime.Structure.AppendBinary's; computed outside of the transaction
	Internal  time.Time // zero is now
	Flags     []string
}

// Placed says where a message went.
type Placed struct {
	Mailbox     ID
	Name        string
	UIDValidity uint32
	UID         UID
}

// Add puts a message into a mailbox by name (INBOX is made when missing) within a transaction, and takes a body
// reference. It is how mail is delivered; the quota is not asked, because mail that was accepted is not turned
// away. Keywords for which the mailbox has no room are left out.
func (s *Service) Add(tx store.Tx, o Owner, name string, a Arrival) (Placed, error) {
	name, err := lookupName(name)
	if err != nil {
		return Placed{}, err
	}
	var b *box
	if name == inbox && named(tx, o, name) == 0 {
		b, err = s.create(tx, o, name, "")
	} else {
		b, err = loadNamed(tx, o, name)
	}
	if err != nil {
		return Placed{}, err
	}
	return s.arrive(tx, b, a)
}

// arrive puts a message into b.
func (s *Service) arrive(tx store.Tx, b *box, a Arrival) (Placed, error) {
	e := s.edit(tx, b)
	p, err := e.arrive(a)
	if err != nil {
		return Placed{}, err
	}
	return p, e.save()
}

func (e *edit) arrive(a Arrival) (Placed, error) {
	set, _, err := e.flagSet(a.Flags)
	if err != nil {
		return Placed{}, err
	}
	if a.Internal.IsZero() {
		a.Internal = e.s.o.Now()
	}
	m := record{body: a.Body, size: a.Size, flags: set}
	m.setInternal(a.Internal)
	if err := e.add(&m, a.Structure); err != nil {
		return Placed{}, err
	}
	return Placed{Mailbox: e.box.ID, Name: e.box.Name, UIDValidity: e.box.UIDValidity, UID: m.uid}, nil
}

// A NewMessage is a message that AppendAll is to add. Its draft is taken, whatever the result.
type NewMessage struct {
	Draft     *store.Draft
	Structure *mime.Structure
	Internal  time.Time // zero is now
	Flags     []string  // keywords for which the mailbox has no room are left out
}

// Replaced is a message that is expunged when others take its place (RFC 8508).
type Replaced struct {
	Mailbox ID
	UID     UID
}

// AppendAll commits drafts as messages of a mailbox, all or none (RFC 3502). With replaces, that message is expunged
// in the same transaction; ErrExpunged when it is gone already. also, if not nil, runs in the transaction too.
// ErrOverQuota, ErrNotFound, ErrFlag, ErrLimit, store.ErrFull.
func (s *Service) AppendAll(id ID, msgs []NewMessage, replaces *Replaced, also func(store.Tx, []Placed) error) ([]Placed, error) {
	arrivals, drafts, err := arrivalsOf(msgs)
	if err != nil {
		for _, d := range drafts {
			d.Discard()
		}
		return nil, err
	}
	var placed []Placed
	err = s.st.Update(func(tx store.Tx) error {
		if placed, err = s.appendAll(tx, id, arrivals, replaces); err != nil || also == nil {
			return err
		}
		return also(tx, placed)
	}, drafts...)
	if err != nil {
		return nil, err
	}
	return placed, nil
}

// arrivalsOf does what need not be done within the transaction.
func arrivalsOf(msgs []NewMessage) (as []Arrival, drafts []*store.Draft, err error) {
	for _, m := range msgs {
		structure, failed := m.Structure.AppendBinary(nil)
		err = errors.Join(err, failed)
		drafts = append(drafts, m.Draft)
		as = append(as, Arrival{
			Body: m.Draft.ID(), Size: m.Draft.Size(), Structure: structure, Internal: m.Internal, Flags: m.Flags,
		})
	}
	return as, drafts, err
}

func (s *Service) appendAll(tx store.Tx, id ID, as []Arrival, replaces *Replaced) ([]Placed, error) {
	b, err := loadBox(tx, id)
	if err != nil {
		return nil, err
	}
	target := s.edit(tx, b)
	if replaces != nil {
		if err := target.replace(*replaces); err != nil {
			return nil, err
		}
	}
	more := Quota{target.used.octets, target.used.messages + int64(len(as))} // less what was replaced here
	for i := range as {
		more.Octets += as[i].Size
	}
	if err := s.fits(tx, b.Owner, more); err != nil {
		return nil, err
	}
	placed := make([]Placed, len(as))
	for i := range as {
		if placed[i], err = target.arrive(as[i]); err != nil {
			return nil, err
		}
	}
	return placed, target.save()
}

// replace expunges a message whose place others take.
func (e *edit) replace(old Replaced) error {
	source := e
	if old.Mailbox != e.box.ID {
		b, err := loadBox(e.tx, old.Mailbox)
		if err != nil {
			return err
		}
		source = e.s.edit(e.tx, b)
	}
	m, ok, err := getRecord(e.tx, old.Mailbox, old.UID)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: UID %d of %q", ErrExpunged, old.UID, source.box.Name)
	}
	source.remove(m)
	if source == e {
		return nil
	}
	return source.save()
}

// Append is AppendAll of one message.
func (s *Service) Append(id ID, draft *store.Draft, st *mime.Structure, internal time.Time, flags []string, also func(store.Tx, Placed) error) (Placed, error) {
	var each func(store.Tx, []Placed) error
	if also != nil {
		each = func(tx store.Tx, placed []Placed) error { return also(tx, placed[0]) }
	}
	placed, err := s.AppendAll(id, []NewMessage{{Draft: draft, Structure: st, Internal: internal, Flags: flags}}, nil, each)
	if err != nil {
		return Placed{}, err
	}
	return placed[0], nil
}

// pick reads up to most messages from a UID on, those of uids, or all when uids is nil. Fewer than
// most means that there are no more.
func pick(r store.Reader, id ID, uids *roaring.Bitmap, from UID, most int) ([]record, error) {
	if uids == nil {
		return pickAll(r, id, from, most)
	}
	var page []record
	wanted := uids.Iterator()
	wanted.AdvanceIfNeeded(from)
	for wanted.HasNext() && len(page) < most {
		var err error
		if page, err = pickRun(r, id, wanted, page, most); err != nil {
			return page, err
		}
	}
	return page, nil
}

func pickAll(r store.Reader, id ID, from UID, most int) ([]record, error) {
	var page []record
	for k, v := range r.Scan(messageKey(id, from), messagesOf(id).End()) {
		m, err := decodeRecord(id, UID(lastUint(k)), v)
		if err != nil {
			return nil, err
		}
		if page = append(page, m); len(page) == most {
			break
		}
	}
	return page, nil
}

// pickRun scans from the next wanted UID until it meets too many unwanted messages in a row. When
// the mailbox ends, so does wanted.
func pickRun(r store.Reader, id ID, wanted roaring.IntPeekable, page []record, most int) ([]record, error) {
	const unwanted = 16 // about what finding a place in the tree costs
	missed := 0
	for k, v := range r.Scan(messageKey(id, wanted.PeekNext()), messagesOf(id).End()) {
		uid := UID(lastUint(k))
		wanted.AdvanceIfNeeded(uid)
		if !wanted.HasNext() {
			return page, nil
		}
		if wanted.PeekNext() != uid {
			if missed++; missed == unwanted {
				return page, nil
			}
			continue
		}
		m, err := decodeRecord(id, wanted.Next(), v)
		if err != nil {
			return page, err
		}
		if page, missed = append(page, m), 0; len(page) == most || !wanted.HasNext() {
			return page, nil
		}
	}
	for wanted.HasNext() {
		wanted.AdvanceIfNeeded(^UID(0))
		wanted.Next()
	}
	return page, nil
}

// inSteps changes messages of a mailbox, so many in a transaction. step may run more than once;
// done is called after each commit.
func (s *Service) inSteps(ctx context.Context, id ID, uids *roaring.Bitmap, step func(*edit, []record) error, done func()) error {
	for from, more := UID(1), true; more; done() {
		if err := ctx.Err(); err != nil {
			return err
		}
		next := from
		err := s.st.Update(func(tx store.Tx) error {
			b, err := loadBox(tx, id)
			if err != nil {
				return err
			}
			page, err := pick(tx, id, uids, from, bulkStep)
			if err != nil {
				return err
			}
			if more = len(page) == bulkStep; more {
				next = page[len(page)-1].uid + 1
			}
			e := s.edit(tx, b)
			if err := step(e, page); err != nil {
				return err
			}
			return e.save()
		})
		if err != nil {
			return err
		}
		from = next
	}
	return nil
}

// find returns the messages among uids (nil: all) for which ok is true. It reads in pages.
func (s *Service) find(ctx context.Context, id ID, uids *roaring.Bitmap, ok func(*record) bool) (*roaring.Bitmap, error) {
	found := roaring.New()
	for from, more := UID(1), true; more; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := s.st.View(func(r store.Reader) error {
			if _, err := loadBox(r, id); err != nil {
				return err
			}
			page, err := pick(r, id, uids, from, pageSize)
			for i := range page {
				if from = page[i].uid + 1; ok(&page[i]) {
					found.Add(page[i].uid)
				}
			}
			more = len(page) == pageSize
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Store changes flags of messages in bounded steps and returns the changed messages (also those whose flags were so
// already, without a new modseq). unchangedSince, if not 0, leaves alone messages with a higher modseq and returns their
// UIDs (RFC 7162). After an error the steps before it stay and are returned. What is returned takes some 100 octets for
// each message; a caller for whom that is too much asks for fewer at a time. ErrNotFound, ErrFlag, ErrLimit.
func (s *Service) Store(ctx context.Context, id ID, uids *roaring.Bitmap, op FlagOp, flags []string, unchangedSince uint64) (changed []Message, modified *roaring.Bitmap, err error) {
	modified = roaring.New()
	var told []Message
	var newer []UID
	step := func(e *edit, page []record) (err error) {
		told, newer, err = e.store(page, op, flags, unchangedSince)
		return err
	}
	err = s.inSteps(ctx, id, uids, step, func() {
		changed = append(changed, told...)
		modified.AddMany(newer)
	})
	return changed, modified, err
}

func (e *edit) store(page []record, op FlagOp, flags []string, unchangedSince uint64) (told []Message, newer []UID, err error) {
	set, err := e.wanted(op, flags)
	if err != nil {
		return nil, nil, err
	}
	words, err := e.keywords()
	if err != nil {
		return nil, nil, err
	}
	shower := flagShower{keywords: words}
	for _, m := range page {
		if unchangedSince != 0 && m.modseq > unchangedSince {
			newer = append(newer, m.uid)
			continue
		}
		e.reflag(&m, m.flags.apply(op, set))
		told = append(told, m.message(&shower))
	}
	return told, newer, nil
}

// wanted reads the flags of a Store. One that takes flags away makes no new keywords.
func (e *edit) wanted(op FlagOp, flags []string) (flagSet, error) {
	if op == RemoveFlags {
		return e.knownFlags(flags)
	}
	set, over, err := e.flagSet(flags)
	if len(over) > 0 {
		err = fmt.Errorf("%w: %q has %d keywords already, and %s would be another", ErrLimit, e.box.Name, e.s.o.Keywords, over[0])
	}
	return set, err
}

// knownFlags reads flags without making new keywords.
func (e *edit) knownFlags(flags []string) (flagSet, error) {
	system, names, err := splitFlags(flags)
	set := flagSet{system: system}
	if err != nil || len(names) == 0 {
		return set, err
	}
	words, err := e.keywords()
	if err != nil {
		return set, err
	}
	for _, name := range names {
		if place := words.find(name); place >= 0 {
			set.keywords = union(set.keywords, []uint16{uint16(place)})
		}
	}
	return set, nil
}

// Expunge removes those of the messages that have \Deleted, in bounded steps, and returns them. nil uids means all.
// After an error the steps before it stay and are returned.
func (s *Service) Expunge(ctx context.Context, id ID, uids *roaring.Bitmap) (*roaring.Bitmap, error) {
	m, err := s.ByID(id)
	if err != nil || m.Deleted == 0 {
		return roaring.New(), err
	}
	isDeleted := func(m *record) bool { return m.flags.has(deleted) }
	uids, err = s.find(ctx, id, uids, isDeleted)
	if err != nil || uids.IsEmpty() {
		return roaring.New(), err
	}
	return s.expunge(ctx, id, uids, isDeleted)
}

// expunge removes those of the messages for which ok is true.
func (s *Service) expunge(ctx context.Context, id ID, uids *roaring.Bitmap, ok func(*record) bool) (*roaring.Bitmap, error) {
	gone := roaring.New()
	var removed []UID
	step := func(e *edit, page []record) error {
		removed = nil
		for _, m := range page {
			if !ok(&m) {
				continue
			}
			e.remove(m)
			removed = append(removed, m.uid)
		}
		return nil
	}
	err := s.inSteps(ctx, id, uids, step, func() { gone.AddMany(removed) })
	return gone, err
}

// Messages yields messages of a mailbox in order of UID, those of uids, or all when uids is nil. It reads in
// pages; no transaction is open while the caller has a message. A message that is gone is passed over.
func (s *Service) Messages(id ID, uids *roaring.Bitmap) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		page := make([]Message, 0, pageSize)
		for from, more := UID(1), true; more; {
			var err error
			page, err = s.page(id, uids, from, page[:0])
			if err != nil {
				yield(Message{}, err)
				return
			}
			for _, m := range page {
				if from = m.UID + 1; !yield(m, nil) {
					return
				}
			}
			more = len(page) == pageSize
		}
	}
}

// page appends up to pageSize messages to page.
func (s *Service) page(id ID, uids *roaring.Bitmap, from UID, page []Message) ([]Message, error) {
	err := s.st.View(func(r store.Reader) error {
		if _, err := loadBox(r, id); err != nil {
			return err
		}
		records, err := pick(r, id, uids, from, pageSize)
		if err != nil {
			return err
		}
		words, err := loadKeywords(r, id)
		shower := flagShower{keywords: words}
		for i := range records {
			page = append(page, records[i].message(&shower))
		}
		return err
	})
	return page, err
}

// Message returns one message. ErrNotFound, ErrExpunged.
func (s *Service) Message(id ID, uid UID) (Message, error) {
	for m, err := range s.Messages(id, roaring.BitmapOf(uid)) {
		return m, err
	}
	return Message{}, ErrExpunged
}

// Structure returns a body's MIME structure. One that was not kept, or by another version, is worked
// out from the body. store.ErrNoBody.
func (s *Service) Structure(body store.ID) (*mime.Structure, error) {
	var kept *mime.Structure
	err := s.st.View(func(r store.Reader) (err error) {
		kept, err = structure(r, body)
		return err
	})
	if errors.Is(err, store.ErrRecord) {
		return s.scan(body)
	}
	return kept, err
}

// structure reads the structure that was kept. store.ErrRecord means that there is none to be read.
func structure(r store.Reader, body store.ID) (*mime.Structure, error) {
	note, err := store.Note(r, body)
	if err != nil {
		return nil, err
	}
	kept, err := mime.Decode(note)
	if err != nil {
		return nil, fmt.Errorf("the structure of body %s: %w: %w", body, store.ErrRecord, err)
	}
	return kept, nil
}

func (s *Service) scan(body store.ID) (*mime.Structure, error) {
	b, err := s.st.OpenBody(body)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return mime.Scan(b.Reader())
}

// OpenBody opens a message's bytes. store.ErrNoBody.
func (s *Service) OpenBody(body store.ID) (*store.Body, error) { return s.st.OpenBody(body) }

// Keywords returns the keywords that messages of a mailbox have had, in the order in which they came.
func (s *Service) Keywords(id ID) (names []string, err error) {
	err = s.st.View(func(r store.Reader) error {
		if _, err := loadBox(r, id); err != nil {
			return err
		}
		words, err := loadKeywords(r, id)
		if err == nil {
			names = words.names
		}
		return err
	})
	return names, err
}

// References yields the body references of all messages and of the full-text index, for store.Check.
func (s *Service) References(r store.Reader) iter.Seq[store.ID] {
	return func(yield func(store.ID) bool) {
		all := store.NewKey("mm")
		for k, v := range r.Scan(all, all.End()) {
			m, err := decodeRecord(0, UID(lastUint(k)), v)
			if err == nil && !yield(m.body) {
				return
			}
		}
		all = store.NewKey("mi")
		for k, v := range r.Scan(all, all.End()) {
			b, err := decodeBlock(k, v)
			if err == nil && !yield(b.body) {
				return
			}
		}
	}
}
