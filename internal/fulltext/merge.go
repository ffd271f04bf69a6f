package fulltext

import (
	"io"

	"github.com/RoaringBitmap/roaring/v2"
)

// Merge writes one block of those messages of several blocks that are in keep. The blocks are in order and do not
// overlap, and at least one message is kept. Its memory is a bucket and 4 octets for each message of each block. pace
// is called after each bucket that was read, at most some 10 ms of work; its error ends the merging.
func Merge(w io.Writer, blocks []*Block, keep *roaring.Bitmap, pace func() error) (int64, error) {
	numbers, whole := roaring.New(), roaring.New()
	cursors := make([]*cursor, len(blocks))
	for i, b := range blocks {
		cursors[i] = newCursor(b, keep, uint32(numbers.GetCardinality()))
		numbers.Or(roaring.And(b.numbers, keep))
		whole.Or(roaring.And(b.whole, keep))
	}
	numbers.RunOptimize()
	m := merging{out: newWriter(w, numbers, whole), cursors: cursors, pace: pace}
	for _, c := range cursors {
		if err := c.next(pace); err != nil {
			return 0, err
		}
	}
	for {
		more, err := m.step()
		if err != nil {
			return 0, err
		}
		if !more {
			return m.out.finish()
		}
	}
}

type merging struct {
	out     *writer
	cursors []*cursor
	pace    func() error
	places  []uint32
}

// step writes the lowest gram that has not been written.
func (m *merging) step() (more bool, err error) {
	lowest := Gram(Space)
	for _, c := range m.cursors {
		if !c.ended {
			lowest = min(lowest, c.at.gram)
		}
	}
	if lowest == Space {
		return false, nil
	}
	m.places = m.places[:0]
	for _, c := range m.cursors {
		if c.ended || c.at.gram != lowest {
			continue
		}
		if m.places, err = c.take(m.places); err != nil {
			return false, err
		}
		if err := c.next(m.pace); err != nil {
			return false, err
		}
	}
	if len(m.places) > 0 {
		m.out.list(lowest, m.places)
	}
	return true, m.out.err
}

// A cursor reads a block's lists in order.
type cursor struct {
	b      *Block
	moved  []int32 // each place of the block in the new one; -1 is none
	bucket int     // the next one to read
	buf    []byte
	rest   []byte // of the bucket
	at     list
	ended  bool
	places []uint32
}

func newCursor(b *Block, keep *roaring.Bitmap, place uint32) *cursor {
	c := &cursor{b: b, moved: make([]int32, b.n)}
	i := 0
	for number := range roaring.Values(b.numbers) {
		c.moved[i] = -1
		if keep.Contains(number) {
			c.moved[i] = int32(place)
			place++
		}
		i++
	}
	return c
}

// next goes to the block's next list.
func (c *cursor) next(pace func() error) (err error) {
	last := c.at.gram
	for len(c.rest) == 0 {
		if c.bucket == len(c.b.directory) {
			c.ended = true
			return nil
		}
		if c.buf, err = c.b.bucket(c.bucket, c.buf); err != nil {
			return err
		}
		c.rest, last = c.buf, c.b.directory[c.bucket].first
		c.bucket++
		if err := pace(); err != nil {
			return err
		}
	}
	before := c.at
	c.at, c.rest, err = cutList(c.rest, last, c.b.n)
	if err == nil && (c.at.gram >= Space || before.count > 0 && c.at.gram <= before.gram) {
		err = ErrDamaged
	}
	return err
}

// take appends the new places of the present list's messages.
func (c *cursor) take(places []uint32) (_ []uint32, err error) {
	if c.places, err = c.at.places(c.places[:0], c.b.n); err != nil {
		return nil, err
	}
	for _, p := range c.places {
		if to := c.moved[p]; to >= 0 {
			places = append(places, uint32(to))
		}
	}
	return places, nil
}
