package spool

import (
	"context"
	"fmt"

	"postroad/internal/store"
)

// Counts are what the spool holds.
type Counts struct {
	Messages int64 `json:"messages"`
	Active   int64 `json:"active"`
	Deferred int64 `json:"deferred"`
	Hold     int64 `json:"hold"`
}

// add counts n recipients of a state.
func (c *Counts) add(state State, n int64) {
	switch state {
	case Active:
		c.Active += n
	case Deferred:
		c.Deferred += n
	case Hold:
		c.Hold += n
	}
}

// arrived counts a new message.
func (c *Counts) arrived(rcpts []Recipient) {
	c.Messages++
	for i := range rcpts {
		c.add(rcpts[i].State, 1)
	}
}

func (c *Counts) encode() []byte {
	e := make(store.Encoder, 0, 24)
	e.Uint(recordVersion)
	for _, n := range []int64{c.Messages, c.Active, c.Deferred, c.Hold} {
		e.Int(n)
	}
	return e
}

func decodeCounts(b []byte) (c Counts, err error) {
	if b == nil {
		return c, nil
	}
	d := store.NewDecoder(b)
	if d.Uint() != recordVersion {
		return c, store.ErrRecord
	}
	c = Counts{Messages: d.Int(), Active: d.Int(), Deferred: d.Int(), Hold: d.Int()}
	return c, d.Err()
}

func countsKey() store.Key { return store.NewKey("qc") }

// count changes the record of how many there are. A damaged one stays as it is: Check names it.
func count(tx store.Tx, change func(*Counts)) {
	if c, err := decodeCounts(tx.Get(countsKey())); err == nil {
		change(&c)
		tx.Put(countsKey(), c.encode())
	}
}

// Counts returns the present counts, of messages and of recipients by state.
func (s *Spool) Counts() (c Counts, err error) {
	err = s.st.View(func(r store.Reader) error {
		c, err = decodeCounts(r.Get(countsKey()))
		return err
	})
	if err != nil {
		return c, fmt.Errorf("read the counts of the queue: %w", err)
	}
	return c, nil
}

// counts holds the record against what is there.
func (c *checker) counts(ctx context.Context) {
	var real Counts
	for range c.r.Scan(store.NewKey("qm"), store.NewKey("qm").End()) {
		real.Messages++
	}
	for k, v := range c.r.Scan(store.NewKey("qr"), store.NewKey("qr").End()) {
		_, rest := store.TakeUint(k[2:])
		n, _ := store.TakeUint(rest)
		r, err := decodeRecipient(int(n), v)
		if err != nil || ctx.Err() != nil {
			return // the rest cannot be right
		}
		real.add(r.State, 1)
	}
	if kept, err := decodeCounts(c.r.Get(countsKey())); err != nil || kept != real {
		c.problems = append(c.problems, store.Problem{What: "queue", Text: fmt.Sprintf("the counts are %+v, not %+v", kept, real)})
	}
}
