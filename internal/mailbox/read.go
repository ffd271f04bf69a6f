package mailbox

import (
	"errors"
	"iter"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/mime"
	"postroad/internal/store"
)

// Want says what Read is to fetch of each message besides its UID, flags and modseq.
type Want uint8

// What can be wanted.
const (
	Facts  Want = 1 << iota // body id, size, dates, object ids
	Notes                   // the stored structure; includes Facts
	Bodies                  // the open body; includes Facts
)

// An Item is one message that Read yields. It is valid until the next one.
type Item struct {
	Message
	Stored mime.Stored // with Notes; one that was missing or old is worked out
	Body   *store.Body // with Bodies: open; closed when the next item comes
	Err    error       // why Stored or Body is missing: store.ErrDamaged, store.ErrRecord, or an I/O error
}

// Read yields messages of a mailbox in order of UID, those of uids, or all when uids is nil, each with what is wanted
// of it. It reads in pages; no transaction is open while the caller has an item. A message that is gone is passed over.
func (s *Service) Read(id ID, uids *roaring.Bitmap, want Want) iter.Seq2[*Item, error] {
	return func(yield func(*Item, error) bool) {
		p := pager{s: s, id: id, uids: uids, want: want, from: 1}
		for p.from != 0 {
			if err := p.next(); err != nil {
				yield(nil, err)
				return
			}
			if !p.yield(yield) {
				return
			}
		}
	}
}

// Messages is Read with Facts, of messages that are the caller's.
func (s *Service) Messages(id ID, uids *roaring.Bitmap) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for item, err := range s.Read(id, uids, Facts) {
			if err != nil {
				yield(Message{}, err)
				return
			}
			if !yield(item.Message, nil) {
				return
			}
		}
	}
}

// Message returns one message. ErrNotFound, ErrExpunged.
func (s *Service) Message(id ID, uid UID) (Message, error) {
	for m, err := range s.Messages(id, roaring.BitmapOf(uid)) {
		return m, err
	}
	return Message{}, ErrExpunged
}

// noteOctets is how much of notes a page has, and one more note.
const noteOctets = 256 << 10

// A pager reads the pages of a Read. Its memory is used again for each page.
type pager struct {
	s    *Service
	id   ID
	uids *roaring.Bitmap
	want Want

	from   UID // where the next page begins; 0 is the end
	page   []paged
	notes  []byte
	shower flagShower
	zone   *time.Location // of the last message that had one
	west   int64          // its minutes
	item   Item
	body   store.Body // of item, when that is open
}

// A paged is one message of a page.
type paged struct {
	Message
	note  int // where its note ends in notes
	place store.Place
	err   error
}

// next reads a page.
func (p *pager) next() error {
	p.page, p.notes = p.page[:0], p.notes[:0]
	return p.s.st.View(func(r store.Reader) error {
		if _, err := loadBox(r, p.id); err != nil {
			return err
		}
		var err error
		if p.shower.keywords, err = loadKeywords(r, p.id); err != nil {
			return err
		}
		if err := p.messages(r); err != nil {
			return err
		}
		if p.want&Notes != 0 {
			p.readNotes(r)
		}
		if p.want&Bodies != 0 {
			p.locate(r)
		}
		return nil
	})
}

// messages reads the messages of some sheets.
func (p *pager) messages(r store.Reader) error {
	from := p.from
	p.from = 0
	return walk(r, p.id, p.uids, from, andModSeqs, func(b *sheet, wanted *bitset) (bool, error) {
		if len(p.page) >= pageSize {
			p.from = b.first()
			return false, nil
		}
		p.shower.start()
		if p.want == 0 {
			for i := range wanted.all() {
				p.page = append(p.page, paged{Message: Message{UID: b.uid(i), Flags: p.shower.flags(b, i), ModSeq: b.modseqs[i]}})
			}
			return true, nil
		}
		return true, facts(r, p.id, b, *wanted, func(m *record) error {
			p.page = append(p.page, paged{Message: p.message(b, m)})
			return nil
		})
	})
}

func (p *pager) message(b *sheet, m *record) Message {
	_, i := sheetOf(m.uid)
	return Message{
		UID:      m.uid,
		Body:     m.body,
		Size:     m.size,
		Internal: time.Unix(m.internal, 0).In(p.location(m.zone)),
		Saved:    time.Unix(m.saved, 0).UTC(),
		Flags:    p.shower.flags(b, i),
		ModSeq:   b.modseqs[i],
		thread:   m.thread,
	}
}

// location makes a zone once for messages in a row.
func (p *pager) location(minutes int64) *time.Location {
	if minutes == 0 {
		return time.UTC
	}
	if p.zone == nil || p.west != minutes {
		p.zone, p.west = time.FixedZone("", int(minutes)*60), minutes
	}
	return p.zone
}

// readNotes adds the notes. When they are large, the page becomes shorter.
func (p *pager) readNotes(r store.Reader) {
	lookup := store.NewLookup(r)
	for i := range p.page {
		m := &p.page[i]
		if len(p.notes) > noteOctets {
			p.from, p.page = m.UID, p.page[:i]
			return
		}
		note, err := lookup.Note(m.Body)
		m.err = err
		p.notes = append(p.notes, note...)
		m.note = len(p.notes)
	}
}

// locate adds where the bodies lie.
func (p *pager) locate(r store.Reader) {
	lookup := store.NewLookup(r)
	for i := range p.page {
		place, err := lookup.Place(p.page[i].Body)
		p.page[i].place = place
		p.page[i].err = errors.Join(p.page[i].err, err)
	}
}

// yield gives the page to the reader and says whether it wants more.
func (p *pager) yield(yield func(*Item, error) bool) bool {
	start := 0
	for i := range p.page {
		m := &p.page[i]
		p.item = Item{Message: m.Message, Err: m.err}
		p.open(m, p.notes[start:max(m.note, start)])
		start = max(m.note, start)
		if errors.Is(p.item.Err, store.ErrNoBody) {
			continue // gone since the page was read
		}
		more := yield(&p.item, nil)
		if p.item.Body != nil {
			_ = p.item.Body.Close() // only read
		}
		if !more {
			return false
		}
	}
	return true
}

// open completes an item.
func (p *pager) open(m *paged, note []byte) {
	it := &p.item
	if p.want&Bodies != 0 && it.Err == nil {
		if it.Err = p.s.st.OpenAt(&p.body, m.Body, m.place); it.Err == nil {
			it.Body = &p.body
		}
	}
	if p.want&Notes == 0 || it.Err != nil && !errors.Is(it.Err, store.ErrRecord) {
		return
	}
	if it.Stored, it.Err = mime.Open(note); it.Err != nil {
		it.Stored, it.Err = p.s.scanned(m.Body)
	}
}

// scanned works out the structure of a body as it would be stored.
func (s *Service) scanned(body store.ID) (mime.Stored, error) {
	st, err := s.scan(body)
	if err != nil {
		return mime.Stored{}, err
	}
	note, err := st.AppendBinary(nil)
	if err != nil {
		return mime.Stored{}, err
	}
	return mime.Open(note)
}

// gather returns the messages of a mailbox that part picks from each sheet. It reads in one transaction.
func (s *Service) gather(id ID, how depth, part func(*sheet) bitset) (*roaring.Bitmap, error) {
	var g *gatherer
	err := s.st.View(func(r store.Reader) error {
		g = newGatherer()
		if _, err := loadBox(r, id); err != nil {
			return err
		}
		for b, err := range sheets(r, id, 0, how) {
			if err != nil {
				return err
			}
			if b.dead == 0 {
				some := part(b)
				g.add(b, &some)
			}
		}
		return nil
	})
	if err != nil {
		return roaring.New(), err
	}
	return g.scattered(), nil
}

// present returns the messages that a mailbox has.
func present(r store.Reader, id ID) (*roaring.Bitmap, error) {
	g := newGatherer()
	for b, err := range sheets(r, id, 0, presence) {
		if err != nil {
			return nil, err
		}
		if b.dead == 0 {
			g.add(b, &b.present)
		}
	}
	return g.bitmap(), nil
}

// Set returns the messages of a mailbox that have a system flag, named in any case, without reading the messages.
// ErrFlag when the name is not that of a system flag.
func (s *Service) Set(id ID, flag string) (*roaring.Bitmap, error) {
	bit := systemBit(flag)
	if bit == 0 {
		return nil, ErrFlag
	}
	return s.gather(id, andFlags, func(b *sheet) bitset { return *b.of(bit) })
}

// flagged returns the messages of a mailbox that have a flag of any kind, named in any case, or with on false those that
// have not.
func (s *Service) flagged(id ID, flag string, on bool) (*roaring.Bitmap, error) {
	with := func(b *sheet) bitset { return *b.of(systemBit(flag)) }
	how := andFlags
	if systemBit(flag) == 0 {
		names, err := s.Keywords(id)
		if err != nil {
			return nil, err
		}
		place := (&keywords{names: names}).find(flag)
		with = func(b *sheet) bitset { return b.with(place) }
		how = andWords
	}
	return s.gather(id, how, func(b *sheet) bitset {
		in := with(b)
		if !on {
			in = b.present.without(&in)
		}
		return in
	})
}

// FirstUnseen returns the UID of the first message without \Seen; 0 when there is none.
func (s *Service) FirstUnseen(id ID) (first UID, err error) {
	err = s.st.View(func(r store.Reader) error {
		first = 0
		b, err := loadBox(r, id)
		if err != nil || b.Unseen == 0 {
			return err
		}
		for b, err := range sheets(r, id, 0, andFlags) {
			if err != nil {
				return err
			}
			if unseen := b.present.without(b.of(seen)); b.dead == 0 && !unseen.empty() {
				first = b.uid(unseen.lowest())
				return nil
			}
		}
		return nil
	})
	return first, err
}

// RecentCount is how many messages of a mailbox no view has claimed (STATUS RECENT, RFC 3501, 6.3.10).
func (s *Service) RecentCount(id ID) (n int, err error) {
	err = s.st.View(func(r store.Reader) error {
		n = 0
		b, err := loadBox(r, id)
		if err != nil {
			return err
		}
		return walk(r, id, nil, max(b.claimed, s.hub.claimed(id)), presence, func(_ *sheet, unclaimed *bitset) (bool, error) {
			n += unclaimed.count()
			return true, nil
		})
	})
	return n, err
}

// ChangedSince returns the messages of uids (nil: all) that came or changed after a modseq (RFC 7162, 3.1.4).
func (s *Service) ChangedSince(id ID, since uint64, uids *roaring.Bitmap) (*roaring.Bitmap, error) {
	h, err := s.historyOf(id, since)
	changed := h.changed.bitmap()
	if uids != nil {
		changed.And(uids)
	}
	return changed, err
}

// Vanished returns which of the messages that were once given UIDs (of uids, or all when it is nil) were expunged
// after a modseq (RFC 7162, 3.2.10). Where of 512 UIDs in a row no message is left, it counts all of them as expunged when
// the last of them was.
func (s *Service) Vanished(id ID, since uint64, uids *roaring.Bitmap) (*roaring.Bitmap, error) {
	h, err := s.historyOf(id, since)
	gone := h.gone.bitmap()
	if uids != nil {
		gone.And(uids)
	}
	return gone, err
}

// A history is what happened in a mailbox after a modseq.
type history struct{ changed, gone *gatherer }

func newHistory() history { return history{newGatherer(), newGatherer()} }

func (s *Service) historyOf(id ID, since uint64) (h history, err error) {
	h = newHistory()
	err = s.st.View(func(r store.Reader) error {
		h = newHistory()
		if _, err := loadBox(r, id); err != nil {
			return err
		}
		return h.read(r, id, since)
	})
	return h, err
}

func (h history) read(r store.Reader, id ID, since uint64) error {
	for b, err := range changedSheets(r, id, since) {
		if err != nil {
			return err
		}
		if b.dead > 0 {
			h.gone.addDead(b)
			continue
		}
		h.add(b, since)
	}
	return nil
}

func (h history) add(b *sheet, since uint64) {
	changed, gone := b.since(since)
	h.changed.add(b, &changed)
	h.gone.add(b, &gone)
}
