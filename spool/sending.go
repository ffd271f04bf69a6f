package spool

import (
	"context"
	"time"

	"postroad/internal/store"
)

// The marks of attempts have a small table of their own: it holds no more than what is being sent, and its few pages are
// written in every commit anyway. In a recipient's record a mark would cost another page each time.

func sendingKey(id store.ID, n int) store.Key {
	return store.NewKey("qs").Uint(uint64(id)).Uint(uint64(n))
}

// Sending records that an attempt is about to send the message to its end, or, with a zero at, that it is not. When a
// recipient that is claimed has Sent set, the server ended before the outcome of that attempt was recorded: the next hop
// may have the message. Settle, Defer and Suspend take the mark away. It reports false as Settle does, and the claim goes on.
func (s *Spool) Sending(tx store.Tx, d Due, at time.Time) bool {
	id, n := d.Message.ID, d.Recipient.N
	switch {
	case tx.Get(recipientKey(id, n)) == nil:
		return false
	case at.IsZero():
		tx.Delete(sendingKey(id, n))
	default:
		var e store.Encoder
		e.Time(at)
		tx.Put(sendingKey(id, n), e)
	}
	return true
}

// sentAt is when an attempt was about to send to its end; zero when no attempt is unrecorded.
func sentAt(r store.Reader, id store.ID, n int) time.Time {
	v := r.Get(sendingKey(id, n))
	if v == nil {
		return time.Time{}
	}
	d := store.NewDecoder(v)
	at := d.Time()
	if d.Err() != nil {
		return time.Unix(1, 0) // one that cannot be read is a doubt too
	}
	return at
}

// unmark takes a mark away. There is none on what is delivered here.
func unmark(tx store.Tx, id store.ID, r *Recipient) {
	if !r.Here() {
		tx.Delete(sendingKey(id, r.N))
	}
}

// marks of recipients that are not there would never go away.
func (c *checker) marks(ctx context.Context) {
	for k := range c.r.Scan(store.NewKey("qs"), store.NewKey("qs").End()) {
		id, rest := store.TakeUint(k[2:])
		n, _ := store.TakeUint(rest)
		if c.r.Get(recipientKey(store.ID(id), int(n))) == nil {
			c.found(store.ID(id), "a mark is kept for recipient %d, which is not there", n)
		}
		if ctx.Err() != nil {
			return
		}
	}
}
