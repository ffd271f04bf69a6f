package imapd

import (
	"fmt"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// known are the UIDs of the messages that the client knows; a sequence number is a rank in it. Not to be changed.
func (s *session) known() *roaring.Bitmap { return s.sel.view.UIDs() }

// resolve returns the messages of a set that the client knows. A sequence number beyond the last message is an
// error (RFC 9051, 9: seq-number); a range that ends with "*" never is. With UIDONLY there are no sequence
// numbers (RFC 9586, 3). The result is the caller's.
func (s *session) resolve(set wire.Set, uid bool) (*roaring.Bitmap, error) {
	known := s.known()
	switch {
	case !uid && s.enabled.has(uidOnly):
		return nil, uidRequired()
	case set.Saved && s.sel.result == nil:
		return roaring.New(), nil
	case set.Saved:
		return roaring.And(s.sel.result, known), nil
	case uid:
		return uidsOf(set, known), nil
	}
	return numbered(set, known)
}

// uidRequired refuses what speaks of sequence numbers to a client that wants none.
func uidRequired() reply { return bad(codeUIDRequired, "sequence numbers are not used since UIDONLY") }

// uidsOf returns the messages of known that a set of UIDs names. "*" is the greatest.
func uidsOf(set wire.Set, known *roaring.Bitmap) *roaring.Bitmap {
	named := roaring.New()
	if known.IsEmpty() {
		return named
	}
	greatest := known.Maximum()
	for _, r := range set.Ranges {
		from, to := bounds(r, greatest)
		named.AddRange(uint64(from), uint64(to)+1)
	}
	named.And(known)
	return named
}

// all returns the UIDs below next that a set names, whether there are messages or not; without ranges it is all of them.
func all(set wire.Set, next mailbox.UID) *roaring.Bitmap {
	below := roaring.New()
	below.AddRange(1, uint64(next))
	if len(set.Ranges) == 0 {
		return below
	}
	return uidsOf(set, below)
}

// bounds puts a number for "*", and orders the two.
func bounds(r wire.Range, star uint32) (from, to uint32) {
	if r.From == 0 {
		r.From = star
	}
	if r.To == 0 {
		r.To = star
	}
	return min(r.From, r.To), max(r.From, r.To)
}

// numbered returns the messages of known that a set of sequence numbers names.
func numbered(set wire.Set, known *roaring.Bitmap) (*roaring.Bitmap, error) {
	named := roaring.New()
	count := uint32(known.GetCardinality())
	for _, r := range set.Ranges {
		open := r.From == 0 || r.To == 0
		from, to := bounds(r, count)
		if to > count && !open {
			return nil, bad(codeClientBug, "there is no message %d: the last one is %d", to, count)
		}
		to = min(to, count)
		if from == 0 || from > to {
			continue
		}
		first, err1 := known.Select(from - 1)
		last, err2 := known.Select(to - 1)
		if err1 == nil && err2 == nil {
			named.AddRange(uint64(first), uint64(last)+1)
		}
	}
	named.And(known)
	return named, nil
}

// A sequence gives the sequence numbers of messages that are asked for in ascending order.
type sequence struct {
	known *roaring.Bitmap
	next  roaring.IntPeekable
	seq   uint32 // of what next gives
}

// near is how many messages are gone through one by one before the place of one is counted.
const near = 32

func newSequence(known *roaring.Bitmap) *sequence {
	return &sequence{known: known, next: known.Iterator(), seq: 1}
}

// of returns the number of a message, or 0 when it is not known.
func (s *sequence) of(uid mailbox.UID) uint32 {
	for range near {
		if !s.next.HasNext() || s.next.PeekNext() >= uid {
			return s.here(uid)
		}
		s.next.Next()
		s.seq++
	}
	s.next.AdvanceIfNeeded(uid)
	if s.next.HasNext() {
		s.seq = uint32(s.known.Rank(s.next.PeekNext()))
	}
	return s.here(uid)
}

func (s *sequence) here(uid mailbox.UID) uint32 {
	if s.next.HasNext() && s.next.PeekNext() == uid {
		return s.seq
	}
	return 0
}

// numbersOf returns the sequence numbers of messages, those that are known.
func numbersOf(uids, known *roaring.Bitmap) *roaring.Bitmap {
	numbers := roaring.New()
	seqs := newSequence(known)
	for it := uids.Iterator(); it.HasNext(); {
		if n := seqs.of(it.Next()); n != 0 {
			numbers.Add(n)
		}
	}
	return numbers
}

// pages calls fn with at most n of the messages at a time.
func pages(uids *roaring.Bitmap, n int, fn func(*roaring.Bitmap) error) error {
	buf := make([]uint32, n)
	it := uids.ManyIterator()
	for k := it.NextMany(buf); k > 0; k = it.NextMany(buf) {
		if err := fn(roaring.BitmapOf(buf[:k]...)); err != nil {
			return err
		}
	}
	return nil
}

// setText is numbers as a set, for a response code.
func setText(numbers *roaring.Bitmap) string {
	var b strings.Builder
	e := wire.NewEncoder(&b)
	e.Set(numbers)
	_ = e.Flush() // a Builder takes everything
	return b.String()
}

// mailboxObject is the MAILBOXID of a mailbox (RFC 8474, 4).
func mailboxObject(id mailbox.ID) string { return fmt.Sprintf("m%x", uint64(id)) }
