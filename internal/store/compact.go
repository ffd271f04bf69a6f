package store

import (
	"context"
	"fmt"
	"io"
)

const (
	// stepBodies and stepOctets bound what one step of compaction moves, and so what it
	// holds in memory and how long others wait for it.
	stepBodies = 256
	stepOctets = maxBatchOctets
	// pageKeys is how many keys are read in one view.
	pageKeys = 1000
)

// Compact rewrites sealed segments that are mostly dead and returns the octets
// given back. It works in bounded steps beside other work: each copies some bodies to
// the growing segment, as if they were new, and moves their records in one transaction.
// A segment without bodies is removed with the transaction that took its last one. A
// body that cannot be read stays where it is, and its segment too.
func (s *Store) Compact(ctx context.Context) (int64, error) {
	s.compacting.Lock()
	defer s.compacting.Unlock()
	c := compaction{s: s, sparse: s.sparseSegments()}
	if len(c.sparse) == 0 {
		return 0, nil
	}
	err := s.eachBody(ctx, func(id ID, r bodyRecord) error {
		if c.sparse[r.segment] == 0 {
			return nil
		}
		return c.take(id, r)
	})
	if err == nil {
		err = c.move()
	}
	c.discard()
	return c.givenBack(), err
}

// sparseSegments returns those segments, with their lengths, that are sealed and more than
// half dead.
func (s *Store) sparseSegments() map[uint64]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := uint64(0)
	for _, g := range s.segments {
		if !g.own {
			newest = max(newest, g.number)
		}
	}
	sparse := map[uint64]int64{}
	for _, g := range s.segments {
		if !g.own && !g.damaged && g.number != newest && g.live*2 < g.end {
			sparse[g.number] = g.end
		}
	}
	return sparse
}

// A compaction gathers bodies for the next step.
type compaction struct {
	s      *Store
	sparse map[uint64]int64

	drafts []*Draft
	from   []location
	octets int64
	copied int64 // in all steps
}

// take copies one body into the next step, which it runs when it is large enough.
func (c *compaction) take(id ID, r bodyRecord) error {
	d, err := c.s.copyBody(id, r.location)
	if err != nil {
		c.s.log.Error("a body cannot be moved; it and its segment stay", "id", id, "segment", r.segment, "err", err)
		return nil
	}
	c.drafts = append(c.drafts, d)
	c.from = append(c.from, r.location)
	c.octets += r.taken()
	if len(c.drafts) < stepBodies && c.octets < stepOctets-smallDraft-int64(frameLen) {
		return nil
	}
	return c.move()
}

// copyBody reads a body into a draft of the same name.
func (s *Store) copyBody(id ID, at location) (*Draft, error) {
	file, err := s.files.open(s.fs, at.segment)
	if err != nil {
		return nil, err
	}
	b := &Body{id, at, file, s}
	defer b.Close()
	d := s.draft(id)
	d.moved = true
	if _, err := io.Copy(d, b.Reader()); err != nil {
		d.Discard()
		return nil, err
	}
	return d, nil
}

// move commits the step.
func (c *compaction) move() error {
	if len(c.drafts) == 0 {
		return nil
	}
	drafts, from := c.drafts, c.from
	err := c.s.submit(&op{
		inner:  true,
		drafts: drafts,
		done:   make(chan struct{}),
		fn: func(t Tx) error {
			for i, d := range drafts {
				t.(*tx).relocate(d.id, from[i], d.at)
			}
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	c.copied += c.octets
	c.drafts, c.from, c.octets = c.drafts[:0], c.from[:0], 0
	return nil
}

func (c *compaction) discard() {
	for _, d := range c.drafts {
		d.Discard()
	}
}

// givenBack is the length of the segments that are gone, less what was copied.
func (c *compaction) givenBack() int64 {
	back := -c.copied
	for number, length := range c.sparse {
		if !c.s.hasSegment(number) {
			back += length
		}
	}
	return max(back, 0)
}

// eachBody calls fn for each body, in views of bounded length. Bodies that come or go
// meanwhile may be missed.
func (s *Store) eachBody(ctx context.Context, fn func(ID, bodyRecord) error) error {
	type entry struct {
		id ID
		r  bodyRecord
	}
	page := make([]entry, 0, pageKeys)
	from, end := NewKey(tableBody), NewKey(tableBody).End()
	for from != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		page = page[:0]
		next := Key(nil)
		err := s.engine.View(func(r Reader) error {
			for k, v := range r.Scan(from, end) {
				if len(page) == pageKeys {
					next = append(Key(nil), k...)
					break
				}
				id, rest, ok := takeID(k)
				rec, err := parseBody(v)
				if err != nil || !ok || len(rest) > 0 {
					continue // Check tells
				}
				page = append(page, entry{ID(id), rec})
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, e := range page {
			if err := fn(e.id, e.r); err != nil {
				return err
			}
		}
		from = next
	}
	return nil
}
