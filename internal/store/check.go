package store

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
)

// References yields every body reference that a package's tables hold, once for each Ref.
type References func(r Reader) iter.Seq[ID]

// Problem is one thing that Check found wrong.
type Problem struct {
	What string // "segment 3", "body 01jc..."
	Text string // what is wrong and what it means
}

// CheckResult is what Check saw.
type CheckResult struct {
	Bodies   int64
	Octets   int64
	Segments int
	Keys     int64
	Problems []Problem // at most 1,000
}

const maxProblems = 1000

// Check reads everything: the index's own structure, each body's checksum and first line,
// the segments' sums, and, when there are any refs, the reference counts against them.
// progress, if not nil, is called now and then with octets done and in all. It may run
// beside other work. The index is read in one view, the bodies in many short ones; memory
// is 8 octets for each reference.
func (s *Store) Check(ctx context.Context, refs []References, progress func(done, total int64)) (CheckResult, error) {
	c := &checker{s: s, ctx: ctx, refs: refs, progress: progress, total: s.Stats().LiveOctets}
	for _, step := range []func() error{c.structure, c.files, c.bodies, c.tables} {
		if err := step(); err != nil {
			return c.result, fmt.Errorf("check %s: %w", s.dir, err)
		}
	}
	return c.result, nil
}

type checker struct {
	s        *Store
	ctx      context.Context
	refs     []References
	progress func(done, total int64)

	done, total int64
	buf         []byte
	result      CheckResult
}

func (c *checker) problem(what, format string, args ...any) {
	if len(c.result.Problems) < maxProblems {
		c.result.Problems = append(c.result.Problems, Problem{what, fmt.Sprintf(format, args...)})
	}
}

// structure has the engine look at itself.
func (c *checker) structure() error {
	return c.s.engine.Check(c.ctx, func(text string) {
		c.problem("index", "%s: the index is damaged; restore it from a backup", text)
	})
}

// files looks for segments that are missing or cut off, and for what is not ours.
func (c *checker) files() error {
	entries, err := c.s.fs.ReadDir(bodiesDir)
	if err != nil {
		return err
	}
	for _, f := range entries {
		if _, ok := parseSegmentName(f.Name()); !ok && !isDraftName(f.Name()) {
			c.problem("file "+bodiesDir+"/"+f.Name(), "it is not ours; nothing is done to it")
		}
	}
	var segments map[uint64]*segment
	err = c.s.engine.View(func(r Reader) (err error) {
		segments, err = readSegments(r)
		return err
	})
	if errors.Is(err, ErrRecord) {
		c.problem("index", "%v", err)
		err = nil
	}
	for _, g := range segments {
		c.segment(g)
	}
	c.result.Segments = len(segments)
	return err
}

func (c *checker) segment(g *segment) {
	what := fmt.Sprintf("segment %d", g.number)
	length, err := c.segmentLength(g.number)
	switch {
	case err == nil && length >= g.end:
	case !c.stillThere(g.number): // dropped meanwhile
	case errors.Is(err, fs.ErrNotExist):
		c.problem(what, "%s is missing; %d messages are lost", segmentName(g.number), g.bodies)
	case err != nil:
		c.problem(what, "%v", err)
	default:
		c.problem(what, "%s is cut off after %d of %d octets", segmentName(g.number), length, g.end)
	}
}

func (c *checker) segmentLength(number uint64) (int64, error) {
	f, err := c.s.fs.OpenFile(segmentName(number), os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// stillThere says whether the index has the segment now.
func (c *checker) stillThere(number uint64) (there bool) {
	err := c.s.engine.View(func(r Reader) error {
		there = r.Get(segmentKey(number)) != nil
		return nil
	})
	return there || err != nil
}

// bodies reads each body.
func (c *checker) bodies() error {
	c.buf = make([]byte, 256<<10)
	return c.s.eachBody(c.ctx, func(id ID, r bodyRecord) error {
		c.body(id, r)
		c.done += r.taken()
		if c.progress != nil {
			c.progress(c.done, max(c.total, c.done))
		}
		return c.ctx.Err()
	})
}

// body tells what is wrong with a body, unless it went or moved meanwhile.
func (c *checker) body(id ID, r bodyRecord) {
	c.result.Bodies++
	c.result.Octets += r.size
	for range lookTwice {
		err := c.readBody(id, r.location)
		if err == nil {
			return
		}
		now, gone := c.s.locate(id)
		if errors.Is(gone, ErrNoBody) {
			return
		}
		if gone != nil || now == r.location {
			c.problem("body "+id.String(), "segment %d: %v", r.segment, err)
			return
		}
		r.location = now
	}
}

// readBody reads a body with its frame and holds it against its record.
func (c *checker) readBody(id ID, at location) error {
	file, err := c.s.files.open(c.s.fs, at.segment)
	if err != nil {
		return err
	}
	defer func() { _ = c.s.files.release(file) }() // only read
	var sum uint32
	var last byte
	for off := at.start(); off < at.end(); {
		p := c.buf[:min(int64(len(c.buf)), at.end()-off)]
		if n, err := file.ReadAt(p, off); n < len(p) {
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("its octets are missing")
			}
			return err
		}
		if off == at.start() {
			if err := sameHeader(p, id, at); err != nil {
				return err
			}
		}
		octets := p[max(at.offset-off, 0):min(int64(len(p)), at.offset+at.size-off)]
		sum = crc32.Update(sum, castagnoli, octets)
		last = p[len(p)-1]
		off += int64(len(p))
	}
	switch {
	case sum != at.crc:
		return errors.New("the checksum does not match: the message is damaged")
	case last != '\n':
		return errors.New("no line end follows it")
	}
	return nil
}

func sameHeader(line []byte, id ID, at location) error {
	gotID, size, sum, err := parseHeader(line)
	if err == nil && (gotID != id || size != at.size || sum != at.crc) {
		err = fmt.Errorf("the line before it is that of %s, %d octets", gotID, size)
	}
	return err
}

// tables holds reference counts and segment sums against each other, in one view.
func (c *checker) tables() error {
	return c.s.engine.View(func(r Reader) error {
		found, err := c.references(r)
		if err != nil {
			return err
		}
		sums := map[uint64]*segment{}
		from := NewKey(tableBody)
		for k, v := range r.Scan(from, from.End()) {
			n, rest, ok := takeID(k)
			rec, err := parseBody(v)
			if err != nil || !ok || len(rest) > 0 {
				c.problem("index", "the record of body %x cannot be read", k[2:])
				continue
			}
			found = c.counted(ID(n), rec.refs, found)
			addUp(sums, rec.location)
		}
		c.missing(found)
		c.notes(r)
		c.sums(r, sums)
		return c.keys(r)
	})
}

// notes looks for notes of bodies that do not exist.
func (c *checker) notes(r Reader) {
	from := NewKey(tableNote)
	for k := range r.Scan(from, from.End()) {
		if id, rest, ok := takeID(k); !ok || len(rest) > 0 || r.Get(bodyKey(ID(id))) == nil {
			c.problem("index", "there is a note of body %x, and no such body", k[2:])
		}
	}
}

// references lists all references in order.
func (c *checker) references(r Reader) (found []ID, err error) {
	for _, refs := range c.refs {
		for id := range refs(r) {
			found = append(found, id)
			if len(found)%pageKeys == 0 && c.ctx.Err() != nil {
				return nil, c.ctx.Err()
			}
		}
	}
	slices.Sort(found)
	return found, nil
}

// counted compares a body's count with the references at the front of found, takes
// those away, and tells of those to bodies before it, which do not exist.
func (c *checker) counted(id ID, refs int64, found []ID) (rest []ID) {
	if len(c.refs) == 0 {
		return nil
	}
	n, ok := slices.BinarySearch(found, id)
	c.missing(found[:n])
	found = found[n:]
	n = 0
	for ok && n < len(found) && found[n] == id {
		n++
	}
	if int64(n) != refs {
		c.problem("body "+id.String(), "%d references are counted and %d exist", refs, n)
	}
	return found[n:]
}

func (c *checker) missing(found []ID) {
	for _, id := range slices.Compact(slices.Clone(found)) {
		c.problem("body "+id.String(), "it is referred to, but the index does not have it: the message is lost")
	}
}

func addUp(sums map[uint64]*segment, at location) {
	g := sums[at.segment]
	if g == nil {
		g = &segment{}
		sums[at.segment] = g
	}
	g.live += at.taken()
	g.bodies++
	g.end = max(g.end, at.end())
}

// sums compares the segments' records with what was added up.
func (c *checker) sums(r Reader, sums map[uint64]*segment) {
	stored, err := readSegments(r)
	if err != nil {
		return // files has told
	}
	for number, g := range stored {
		sum := sums[number]
		if sum == nil {
			sum = &segment{}
		}
		if sum.live != g.live || sum.bodies != g.bodies || sum.end > g.end {
			c.problem(fmt.Sprintf("segment %d", number), "the index counts %d messages of %d octets and has %d of %d",
				g.bodies, g.live, sum.bodies, sum.live)
		}
		delete(sums, number)
	}
	for number := range sums {
		c.problem(fmt.Sprintf("segment %d", number), "messages lie in it, but the index does not have it")
	}
}

// keys counts all there are, in order.
func (c *checker) keys(r Reader) error {
	for range r.Scan(nil, nil) {
		c.result.Keys++
		if c.result.Keys%pageKeys == 0 && c.ctx.Err() != nil {
			return c.ctx.Err()
		}
	}
	return nil
}
