package imapd

import (
	"github.com/RoaringBitmap/roaring/v2"
	"github.com/emersion/go-imap/v2"
)

// resolve returns the messages of a set that the client knows. With strict, a sequence number beyond the
// last message is an error (RFC 9051, 9: seq-number); a range that ends with "*" never is.
func (sel *selected) resolve(set imap.NumSet, strict bool) (*roaring.Bitmap, error) {
	known := sel.view.UIDs()
	if imap.IsSearchRes(set) {
		if sel.result == nil {
			return roaring.New(), nil
		}
		return roaring.And(sel.result, known), nil
	}
	switch set := set.(type) {
	case imap.UIDSet:
		return uidsOf(set, known), nil
	case imap.SeqSet:
		return numbered(set, known, strict)
	}
	return nil, bad("not a set of messages")
}

// uidsOf returns the messages of known that a set of UIDs names. "*" is the greatest.
func uidsOf(set imap.UIDSet, known *roaring.Bitmap) *roaring.Bitmap {
	named := roaring.New()
	if known.IsEmpty() {
		return named
	}
	greatest := known.Maximum()
	for _, r := range set {
		from, to := bounds(uint32(r.Start), uint32(r.Stop), greatest)
		named.AddRange(uint64(from), uint64(to)+1)
	}
	named.And(known)
	return named
}

// bounds puts numbers for "*", which the library has as 0, and orders them.
func bounds(start, stop, star uint32) (from, to uint32) {
	if start == 0 {
		start = star
	}
	if stop == 0 {
		stop = star
	}
	return min(start, stop), max(start, stop)
}

// numbered returns the messages of known that a set of sequence numbers names.
func numbered(set imap.SeqSet, known *roaring.Bitmap, strict bool) (*roaring.Bitmap, error) {
	named := roaring.New()
	count := uint32(known.GetCardinality())
	for _, r := range set {
		if strict && r.Stop != 0 && r.Stop > count {
			return nil, bad("there are not so many messages")
		}
		from, to := bounds(r.Start, r.Stop, count)
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
func (s *sequence) of(uid uint32) uint32 {
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

func (s *sequence) here(uid uint32) uint32 {
	if s.next.HasNext() && s.next.PeekNext() == uid {
		return s.seq
	}
	return 0
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

// uidSet returns messages as the library has them.
func uidSet(uids *roaring.Bitmap) imap.UIDSet {
	set := imap.UIDSet{}
	runs(uids.Iterator(), func(uid uint32) uint32 { return uid }, func(first, last uint32) {
		set = append(set, imap.UIDRange{Start: imap.UID(first), Stop: imap.UID(last)})
	})
	return set
}

// seqSet returns messages by their sequence numbers.
func seqSet(uids, known *roaring.Bitmap) imap.SeqSet {
	set := imap.SeqSet{}
	seqs := newSequence(known)
	runs(uids.Iterator(), seqs.of, func(first, last uint32) {
		set = append(set, imap.SeqRange{Start: first, Stop: last})
	})
	return set
}

// runs calls add with each run of consecutive numbers.
func runs(it roaring.IntPeekable, number func(uint32) uint32, add func(first, last uint32)) {
	var first, last uint32
	for it.HasNext() {
		n := number(it.Next())
		switch {
		case n == 0:
		case first != 0 && n == last+1:
			last = n
		default:
			if first != 0 {
				add(first, last)
			}
			first, last = n, n
		}
	}
	if first != 0 {
		add(first, last)
	}
}
