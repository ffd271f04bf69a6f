package mailbox

import (
	"bytes"
	"errors"
	"iter"

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
		var item Item
		for m, err := range s.Messages(id, uids) {
			if err != nil {
				yield(nil, err)
				return
			}
			item = Item{Message: m}
			item.Err = s.fetch(&item, want)
			if errors.Is(item.Err, store.ErrNoBody) {
				continue
			}
			more := yield(&item, nil)
			if item.Body != nil {
				item.Body.Close()
			}
			if !more {
				return
			}
		}
	}
}

// fetch adds to an item what is wanted of its body.
func (s *Service) fetch(item *Item, want Want) (err error) {
	if want&Bodies != 0 {
		if item.Body, err = s.OpenBody(item.Message.Body); err != nil {
			return err
		}
	}
	if want&Notes != 0 {
		item.Stored, err = s.stored(item.Message.Body)
	}
	return err
}

// stored returns the structure of a body as it is stored, or would be.
func (s *Service) stored(body store.ID) (kept mime.Stored, err error) {
	err = s.st.View(func(r store.Reader) error {
		note, err := store.Note(r, body)
		if err == nil {
			kept, err = mime.Open(bytes.Clone(note))
		}
		return err
	})
	if !errors.Is(err, mime.ErrRecord) && !errors.Is(err, store.ErrRecord) {
		return kept, err
	}
	st, err := s.scan(body)
	if err != nil {
		return kept, err
	}
	note, err := st.AppendBinary(nil)
	if err != nil {
		return kept, err
	}
	return mime.Open(note)
}

// Set returns the messages of a mailbox that have a system flag, named in any case, without reading the messages.
// ErrFlag when the name is not that of a system flag.
func (s *Service) Set(id ID, flag string) (*roaring.Bitmap, error) {
	bit := systemBit(flag)
	if bit == 0 {
		return nil, ErrFlag
	}
	found := roaring.New()
	for m, err := range s.Messages(id, nil) {
		if err != nil {
			return nil, err
		}
		if m.Flags.Has(flag) {
			found.Add(m.UID)
		}
	}
	return found, nil
}

// FirstUnseen returns the UID of the first message without \Seen; 0 when there is none.
func (s *Service) FirstUnseen(id ID) (UID, error) {
	for m, err := range s.Messages(id, nil) {
		if err != nil {
			return 0, err
		}
		if !m.Flags.Has(`\Seen`) {
			return m.UID, nil
		}
	}
	return 0, nil
}

// RecentCount is how many messages of a mailbox no view has claimed (STATUS RECENT, RFC 3501, 6.3.10).
func (s *Service) RecentCount(id ID) (n uint64, err error) {
	err = s.st.View(func(r store.Reader) error {
		b, err := loadBox(r, id)
		if err != nil {
			return err
		}
		unclaimed := roaring.New()
		addUIDs(unclaimed, r, id, max(b.claimed, s.hub.claimed(id)))
		n = unclaimed.GetCardinality()
		return nil
	})
	return n, err
}

// ChangedSince returns the messages of uids (nil: all) that came or changed after a modseq (RFC 7162, 3.1.4).
func (s *Service) ChangedSince(id ID, since uint64, uids *roaring.Bitmap) (*roaring.Bitmap, error) {
	found := roaring.New()
	for m, err := range s.Messages(id, uids) {
		if err != nil {
			return nil, err
		}
		if m.ModSeq > since {
			found.Add(m.UID)
		}
	}
	return found, nil
}
