package mailbox

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/mime"
)

// SortKey is one thing that messages are put in order by.
type SortKey struct {
	By      SortBy
	Reverse bool // from the greatest to the least; equal ones stay in order of UID
}

// SortBy is what messages are compared by.
type SortBy uint8

// The sort criteria. Texts compare as i;unicode-casemap.
const (
	ByArrival     SortBy = iota // INTERNALDATE (RFC 5256)
	ByCc                        // the mailbox of the first address
	ByDate                      // the Date field, or INTERNALDATE without one that can be read
	ByFrom                      //
	BySize                      //
	BySubject                   // the base subject
	ByTo                        //
	ByDisplayFrom               // the name of the first address, or the address (RFC 5957)
	ByDisplayTo                 //
	ByRelevancy                 // the most relevant first (RFC 6203)
)

// maxSortKey bounds the octets of a text by which messages are compared.
const maxSortKey = 512

// Sort returns the messages of uids in order of the keys, and those that are equal in all in order of UID. ranks, which
// Rank told, is for ByRelevancy. It reads in pages and can be cancelled. Its memory is 8 octets a message and key, and the
// texts: some dozen octets each, at most 512. All that sort and thread at once have a million messages, or one of them has
// more; others wait. ErrNotFound.
func (s *Service) Sort(ctx context.Context, id ID, uids *roaring.Bitmap, keys []SortKey, ranks map[UID]uint8) ([]UID, error) {
	_, leave, err := s.gathering(ctx, id, uids)
	if err != nil {
		return nil, err
	}
	defer leave()
	t := sorting{keys: keys, columns: make([]column, len(keys)), ranks: ranks}
	for item, err := range s.Read(id, uids, t.want()) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		t.add(item)
	}
	return t.sorted(ctx)
}

// gathering waits until there is memory for something of each of the messages, which leave gives back, and tells how
// many they are.
func (s *Service) gathering(ctx context.Context, id ID, uids *roaring.Bitmap) (n int, leave func(), err error) {
	if uids != nil {
		n = int(uids.GetCardinality())
	} else if m, err := s.ByID(id); err == nil {
		n = int(m.Messages)
	} else {
		return 0, nil, err
	}
	weight := int64(min(n, maxGathered))
	if err := s.gathered.Acquire(ctx, weight); err != nil {
		return 0, nil, err
	}
	return n, func() { s.gathered.Release(weight) }, nil
}

// A sorting is messages that are being sorted.
type sorting struct {
	keys    []SortKey
	columns []column // one for each key
	uids    []UID
	ranks   map[UID]uint8
	folder  folder
	text    []byte
}

// A column is the values of one key: numbers, or texts in one piece.
type column struct {
	numbers []int64
	texts   []byte
	ends    []int
}

func (c *column) addText(text []byte) {
	c.texts = append(c.texts, text...)
	c.ends = append(c.ends, len(c.texts))
}

func (c *column) text(i uint32) []byte {
	from := 0
	if i > 0 {
		from = c.ends[i-1]
	}
	return c.texts[from:c.ends[i]]
}

func (c *column) compare(i, j uint32) int {
	if c.numbers != nil {
		return cmp.Compare(c.numbers[i], c.numbers[j])
	}
	return bytes.Compare(c.text(i), c.text(j))
}

// want is what is to be read of each message.
func (t *sorting) want() Want {
	want := Want(0)
	for _, k := range t.keys {
		switch k.By {
		case ByArrival, BySize:
			want |= Facts
		case ByRelevancy:
		default:
			want |= Notes
		}
	}
	return want
}

func (t *sorting) add(item *Item) {
	t.uids = append(t.uids, item.UID)
	for i, k := range t.keys {
		c := &t.columns[i]
		switch k.By {
		case ByArrival:
			c.numbers = append(c.numbers, item.Internal.Unix())
		case ByDate:
			c.numbers = append(c.numbers, sentDate(item))
		case BySize:
			c.numbers = append(c.numbers, item.Size)
		case ByRelevancy:
			c.numbers = append(c.numbers, -int64(t.ranks[item.UID]))
		default:
			t.text = t.textOf(t.text[:0], item, k.By)
			c.addText(t.text[:min(len(t.text), maxSortKey)])
		}
	}
}

// sentDate is the sent date of RFC 5256 section 2.2, in Unix time.
func sentDate(item *Item) int64 {
	if sent, ok := item.Stored.Sent(); ok {
		return sent.Unix()
	}
	return item.Internal.Unix()
}

// textOf appends a message's text as it is compared.
func (t *sorting) textOf(dst []byte, item *Item, by SortBy) []byte {
	switch by {
	case BySubject:
		dst, _ = subjectKey(&t.folder, dst, item.Stored.Subject())
		return dst
	case ByFrom, ByTo, ByCc:
		_, mailbox, _ := item.Stored.First(fieldOf(by))
		return t.folder.append(dst, mailbox)
	}
	name, mailbox, host := item.Stored.First(fieldOf(by))
	if len(name) > 0 {
		return t.folder.append(dst, name)
	}
	dst = t.folder.append(dst, mailbox)
	if len(host) > 0 {
		dst = t.folder.append(append(dst, '@'), host)
	}
	return dst
}

func fieldOf(by SortBy) mime.AddressField {
	switch by {
	case ByFrom, ByDisplayFrom:
		return mime.From
	case ByTo, ByDisplayTo:
		return mime.To
	}
	return mime.Cc
}

// sorted puts the messages in order.
func (t *sorting) sorted(ctx context.Context) ([]UID, error) {
	order := make([]uint32, len(t.uids))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, t.compare)
	uids := make([]UID, len(order))
	for i, at := range order {
		uids[i] = t.uids[at]
	}
	return uids, ctx.Err()
}

func (t *sorting) compare(i, j uint32) int {
	for k := range t.keys {
		c := t.columns[k].compare(i, j)
		if t.keys[k].Reverse {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(i, j)
}
