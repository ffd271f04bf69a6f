package mailbox

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
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
	thread, err := e.conversation(&a)
	if err != nil {
		return Placed{}, err
	}
	m := record{body: a.Body, size: a.Size, thread: thread, flags: set}
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
	doomed, i, err := source.present(old.UID)
	if err != nil {
		return err
	}
	var one bitset
	one.set(i)
	if err := source.remove(doomed, &one); err != nil {
		return err
	}
	if source == e {
		return nil
	}
	return source.save()
}

// present returns the sheet of a message and its place there. ErrExpunged.
func (e *edit) present(uid UID) (*sheet, uint, error) {
	if uid < e.box.UIDNext {
		b, err := getSheet(e.tx, e.box.ID, uid)
		if err != nil {
			return nil, 0, err
		}
		if _, i := sheetOf(uid); b != nil && b.present.has(i) {
			return e.sheet(uid)
		}
	}
	return nil, 0, fmt.Errorf("%w: UID %d of %q", ErrExpunged, uid, e.box.Name)
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

// A stepper changes messages of a mailbox from a UID on, some of them, and returns where the next step
// begins; 0 is the end.
type stepper func(e *edit, from UID) (next UID, err error)

// inSteps changes messages of a mailbox, a bounded number in a transaction. step may run more than once;
// done is called after each commit.
func (s *Service) inSteps(ctx context.Context, id ID, step stepper, done func()) error {
	for from := UID(1); from != 0; done() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var next UID
		err := s.st.Update(func(tx store.Tx) error {
			b, err := loadBox(tx, id)
			if err != nil {
				return err
			}
			e := s.edit(tx, b)
			if next, err = step(e, from); err != nil {
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

// some calls fn with sheets and the messages in them that are among uids, from a UID on, and returns where to go on when
// it ends because there were enough of them.
func (e *edit) some(uids *roaring.Bitmap, from UID, how depth, enough int, fn func(*sheet, *bitset) error) (next UID, err error) {
	n := 0
	err = walk(e.tx, e.box.ID, uids, from, how, func(b *sheet, wanted *bitset) (bool, error) {
		if n >= enough {
			next = b.first()
			return false, nil
		}
		n += wanted.count()
		return true, fn(b, wanted)
	})
	return next, err
}

// Stored is what a Store did. The sets are the caller's.
type Stored struct {
	Done     *roaring.Bitmap // messages that have the flags now
	Changed  *roaring.Bitmap // those of them that did not have them before
	Modified *roaring.Bitmap // messages left alone because they have changed since (RFC 7162, 3.1.3)
	ModSeqs  []uint64        // the modseqs that those of Changed have got, rising
}

// Store changes flags of messages, those of uids that are there, or all when it is nil, in bounded steps.
// unchangedSince, if not nil, leaves alone messages with a higher modseq (RFC 7162). After an error the steps before it
// stay and are returned. ErrNotFound, ErrFlag, ErrLimit.
func (s *Service) Store(ctx context.Context, id ID, uids *roaring.Bitmap, op FlagOp, flags []string, unchangedSince *uint64) (Stored, error) {
	var g *storing
	step := func(e *edit, from UID) (UID, error) {
		g = &storing{done: newGatherer(), changed: newGatherer(), modified: newGatherer()}
		return g.step(e, uids, from, op, flags, unchangedSince)
	}
	all := Stored{Done: roaring.New(), Changed: roaring.New(), Modified: roaring.New()}
	err := s.inSteps(ctx, id, step, func() {
		all.Done.Or(g.done.bitmap())
		all.Changed.Or(g.changed.bitmap())
		all.Modified.Or(g.modified.bitmap())
		if g.modseq != 0 {
			all.ModSeqs = append(all.ModSeqs, g.modseq)
		}
	})
	return all, err
}

// storing is one step of a Store.
type storing struct {
	done, changed, modified *gatherer
	modseq                  uint64
}

func (g *storing) step(e *edit, uids *roaring.Bitmap, from UID, op FlagOp, flags []string, unchangedSince *uint64) (UID, error) {
	set, err := e.wanted(op, flags)
	if err != nil {
		return 0, err
	}
	next, err := e.some(uids, from, presence, flagStep, func(b *sheet, wanted *bitset) error {
		b, _, err := e.sheet(b.first())
		if err != nil {
			return err
		}
		target := *wanted
		if unchangedSince != nil {
			newer := b.newer(wanted, *unchangedSince)
			g.modified.add(b, &newer)
			target.remove(&newer)
		}
		changed := e.reflag(b, &target, op, set)
		g.done.add(b, &target)
		g.changed.add(b, &changed)
		return nil
	})
	if e.changed {
		g.modseq = e.box.ModSeq
	}
	return next, err
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
// After an error the steps before it stay and are returned. What the messages leave behind Run drops.
func (s *Service) Expunge(ctx context.Context, id ID, uids *roaring.Bitmap) (*roaring.Bitmap, error) {
	m, err := s.ByID(id)
	if err != nil || m.Deleted == 0 {
		return roaring.New(), err
	}
	return s.expunge(ctx, id, uids, func(b *sheet) *bitset { return b.of(deleted) })
}

// expunge removes messages: of each sheet, those among uids and those that only returns.
func (s *Service) expunge(ctx context.Context, id ID, uids *roaring.Bitmap, only func(*sheet) *bitset) (*roaring.Bitmap, error) {
	all := roaring.New()
	var gone *gatherer
	step := func(e *edit, from UID) (UID, error) {
		gone = newGatherer()
		sheets := map[uint32]bitset{}
		next, err := e.some(uids, from, andFlags, expungeStep, func(b *sheet, wanted *bitset) error {
			if doomed := wanted.and(only(b)); !doomed.empty() {
				sheets[b.number] = doomed
				gone.add(b, &doomed)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		return next, e.removeAll(sheets)
	}
	err := s.inSteps(ctx, id, step, func() { all.Or(gone.bitmap()) })
	return all, err
}

// removeAll expunges messages of several sheets. Nothing is written while sheets are read.
func (e *edit) removeAll(doomed map[uint32]bitset) error {
	for _, number := range slices.Sorted(maps.Keys(doomed)) {
		b, _, err := e.sheet(number * sheetUIDs)
		if err != nil {
			return err
		}
		gone := doomed[number]
		if err := e.remove(b, &gone); err != nil {
			return err
		}
	}
	return nil
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

// MaxKeywords is how many keywords a mailbox can have.
func (s *Service) MaxKeywords() int { return s.o.Keywords }

// References yields the body references of all messages and of the full-text index, for store.Check.
func (s *Service) References(r store.Reader) iter.Seq[store.ID] {
	return func(yield func(store.ID) bool) {
		all := store.NewKey("mm")
		for k, v := range r.Scan(all, all.End()) {
			var m record
			if m.decode(0, UID(lastUint(k)), v) == nil && !yield(m.body) {
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
