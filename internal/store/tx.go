package store

import (
	"bytes"
	"fmt"
	"iter"
)

// A batch is the index transaction that commits many updates. Each update's changes
// can be undone without touching the others'; references are counted in memory and
// written once at the end.
type batch struct {
	s       *Store
	w       writer
	bodies  []bodyChange
	index   map[ID]int // into bodies
	changed bool
	values  []byte // of the records that are written at the end; reused
	dirty   []*segment
	dropped []uint64 // segments without a record, whose files can go
	tx      tx
}

// A bodyChange is a body that a batch touches.
type bodyChange struct {
	id        ID
	was, is   bodyRecord
	note      []byte // if noted
	noted     bool   // the note is another than the index has
	stored    bool   // the index has a record: was
	forgotten bool   // no longer a body
}

// run executes the batch's functions within the engine's transaction.
func (b *batch) run(s *Store, w writer, ops []*op) error {
	b.begin(s, w)
	for _, o := range ops {
		if o.err == nil && o.panicked == nil {
			b.runOne(o)
		}
	}
	if !b.changed {
		return errUnchanged
	}
	b.writeBodies()
	b.writeSegments()
	b.writeSuper()
	return nil
}

// maxKept is how many bodies a batch may touch without the next one giving back the memory:
// emptying a map costs what it once held.
const maxKept = 16 * maxBatch

func (b *batch) begin(s *Store, w writer) {
	b.s, b.w = s, w
	if b.index == nil || len(b.bodies) > maxKept {
		b.bodies, b.values, b.index = nil, nil, map[ID]int{}
	}
	clear(b.index)
	b.bodies = b.bodies[:0]
	b.values = b.values[:0]
	b.dropped = b.dropped[:0]
	b.changed = false
}

// runOne executes one update and undoes it when it fails.
func (b *batch) runOne(o *op) {
	t := &b.tx
	t.begin(b)
	for _, d := range o.drafts {
		t.offer(d)
	}
	o.hooks = nil
	o.panicked, o.err = t.call(o.fn)
	if o.err != nil || o.panicked != nil {
		t.undo()
		return
	}
	o.hooks = t.hooks
	b.changed = b.changed || t.changed()
	t.forgetUnreferenced()
}

// find returns the place of a body in b.bodies, or -1 when there is no such body.
func (b *batch) find(id ID) (int, error) {
	if i, ok := b.index[id]; ok {
		if b.bodies[i].forgotten {
			return -1, nil
		}
		return i, nil
	}
	v := b.w.Get(bodyKey(id))
	if v == nil {
		return -1, nil
	}
	r, err := parseBody(v)
	if err != nil {
		return -1, fmt.Errorf("body %s: %w", id, err)
	}
	return b.add(bodyChange{id: id, was: r, is: r, stored: true}), nil
}

func (b *batch) add(c bodyChange) int {
	b.bodies = append(b.bodies, c)
	b.index[c.id] = len(b.bodies) - 1
	return len(b.bodies) - 1
}

// value keeps a record's bytes until the transaction ends.
func (b *batch) value(r interface{ append([]byte) []byte }) []byte {
	start := len(b.values)
	b.values = r.append(b.values)
	return b.values[start:len(b.values):len(b.values)]
}

// writeBodies writes the records of all bodies that changed.
func (b *batch) writeBodies() {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	for i := range b.bodies {
		c := &b.bodies[i]
		moved := c.was.location != c.is.location
		if c.stored && (c.forgotten || moved) {
			b.lose(c.was.location)
		}
		if !c.forgotten && (!c.stored || moved) {
			b.gain(c.is.location)
		}
		switch {
		case c.forgotten && c.stored:
			b.w.Delete(bodyKey(c.id))
			b.w.Delete(noteKey(c.id))
		case !c.forgotten:
			b.writeBody(c)
		}
	}
}

// writeBody writes what has changed of a body.
func (b *batch) writeBody(c *bodyChange) {
	if c.was != c.is {
		b.w.Put(bodyKey(c.id), b.value(c.is))
	}
	switch {
	case !c.noted:
	case len(c.note) > 0:
		b.w.Put(noteKey(c.id), c.note)
	case c.stored:
		b.w.Delete(noteKey(c.id))
	}
}

// gain and lose keep a segment's sums; mu must be held.
func (b *batch) gain(l location) {
	g := b.s.segments[l.segment]
	if g == nil { // only a large draft's is not there yet
		g = &segment{number: l.segment, own: true}
		b.s.segments[l.segment] = g
	}
	g.live += l.taken()
	g.bodies++
	g.end = max(g.end, l.end())
	b.touch(g)
}

func (b *batch) lose(l location) {
	g := b.s.segments[l.segment]
	if g == nil {
		return // its record was lost; Check tells
	}
	g.live -= l.taken()
	g.bodies--
	b.touch(g)
}

// touch has a segment's record written.
func (b *batch) touch(g *segment) {
	if !g.dirty {
		g.dirty = true
		b.dirty = append(b.dirty, g)
	}
}

// writeSegments writes the records of the segments that changed, and drops those in
// which nothing lives and which no longer grow.
func (b *batch) writeSegments() {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	for _, g := range b.dirty {
		g.dirty = false
		growing := g == b.s.out.now
		if growing {
			g.end = max(g.end, b.s.out.size)
		}
		if g.bodies <= 0 && !growing {
			b.w.Delete(segmentKey(g.number))
			b.dropped = append(b.dropped, g.number)
		} else {
			b.w.Put(segmentKey(g.number), b.value(g))
		}
	}
	b.dirty = b.dirty[:0]
}

// lastIDAhead is how far ahead the last ID is stored, in microseconds: it costs one
// record a second, and a restart after a crash makes IDs at most so much too late.
const lastIDAhead = 1 << 20

// writeSuper stores what must never be handed out again.
func (b *batch) writeSuper() {
	last := ID(b.s.last.Load())
	if last <= b.s.super.lastID && b.s.out.next <= b.s.super.nextSegment {
		return
	}
	b.s.super = superRecord{max(last+lastIDAhead, b.s.super.lastID), b.s.out.next}
	b.w.Put(NewKey(tableSuper), b.value(b.s.super))
}

// committed forgets dropped segments.
func (b *batch) committed(s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, number := range b.dropped {
		delete(s.segments, number)
	}
}

// removeDropped unlinks the files of dropped segments.
func (b *batch) removeDropped(s *Store) {
	for _, number := range b.dropped {
		s.removeSegment(number)
	}
	b.dropped = b.dropped[:0]
}

// tx is one update within a batch.
type tx struct {
	b     *batch
	err   error // the first thing that no method could return
	undos []undo
	refs  []refChange
	moves []move
	notes []noteChange
	mine  []int // the drafts' places in b.bodies
	hooks []func()
}

type (
	undo      struct{ key, old []byte } // nil old: the key was not there
	refChange struct {
		body int
		by   int64
	}
	noteChange struct {
		body  int
		old   []byte
		noted bool
	}
	move struct {
		body int
		from location
	}
)

func (t *tx) begin(b *batch) {
	*t = tx{b: b, undos: t.undos[:0], refs: t.refs[:0], moves: t.moves[:0], notes: t.notes[:0], mine: t.mine[:0]}
}

// call runs fn and returns its panic or its error. An engine's fault goes on to the engine.
func (t *tx) call(fn func(Tx) error) (panicked any, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case engineFault, interface{ Addr() uintptr }:
			panic(p)
		default:
			panicked = p
			t.b.s.logPanic(p)
		}
	}()
	if err := fn(t); err != nil {
		return nil, err
	}
	return nil, t.err
}

// offer makes a draft known as a body without references.
func (t *tx) offer(d *Draft) {
	if d.moved {
		return
	}
	i := t.b.add(bodyChange{id: d.id, is: bodyRecord{location: d.at}})
	t.mine = append(t.mine, i)
}

func (t *tx) changed() bool { return len(t.undos)+len(t.refs)+len(t.moves)+len(t.notes) > 0 }

// undo takes back all that the update did.
func (t *tx) undo() {
	for i := len(t.undos) - 1; i >= 0; i-- {
		if u := t.undos[i]; u.old == nil {
			t.b.w.Delete(u.key)
		} else {
			t.b.w.Put(u.key, u.old)
		}
	}
	for _, r := range t.refs {
		t.b.bodies[r.body].is.refs -= r.by
	}
	for _, m := range t.moves {
		t.b.bodies[m.body].is.location = m.from
	}
	for i := len(t.notes) - 1; i >= 0; i-- {
		n := t.notes[i]
		t.b.bodies[n.body].note, t.b.bodies[n.body].noted = n.old, n.noted
	}
	for _, i := range t.mine {
		t.b.bodies[i].forgotten = true
	}
}

// forgetUnreferenced ends the bodies that the update left without a reference.
func (t *tx) forgetUnreferenced() {
	for _, r := range t.refs {
		c := &t.b.bodies[r.body]
		c.forgotten = c.is.refs == 0
	}
	for _, i := range t.mine {
		c := &t.b.bodies[i]
		c.forgotten = c.is.refs == 0
	}
}

func (t *tx) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *tx) Get(key []byte) []byte { return t.b.w.Get(key) }

func (t *tx) Scan(from, to []byte) iter.Seq2[[]byte, []byte] { return t.b.w.Scan(from, to) }

func (t *tx) ScanBack(from, to []byte) iter.Seq2[[]byte, []byte] { return t.b.w.ScanBack(from, to) }

func (t *tx) Put(key, value []byte) {
	if err := validKey(key); err != nil {
		t.fail(err)
		return
	}
	old := t.b.w.Get(key)
	if old != nil && bytes.Equal(old, value) {
		return
	}
	t.undos = append(t.undos, undo{key, old})
	t.b.w.Put(key, value)
}

func (t *tx) Delete(key []byte) {
	if err := validKey(key); err != nil {
		t.fail(err)
		return
	}
	old := t.b.w.Get(key)
	if old == nil {
		return
	}
	t.undos = append(t.undos, undo{bytes.Clone(key), old})
	t.b.w.Delete(key)
}

const maxKey = 32768

func validKey(key []byte) error {
	switch {
	case len(key) == 0 || len(key) > maxKey:
		return fmt.Errorf("a key of %d octets (1 to %d are possible)", len(key), maxKey)
	case ownTable(key):
		return fmt.Errorf("table %q belongs to the store", key[:2])
	}
	return nil
}

func (t *tx) Ref(id ID) { t.count(id, 1) }

func (t *tx) Unref(id ID) { t.count(id, -1) }

func (t *tx) count(id ID, by int64) {
	i, err := t.body(id)
	if err == nil && t.b.bodies[i].is.refs+by < 0 {
		err = fmt.Errorf("body %s: %w", id, ErrNoBody)
	}
	if err != nil {
		t.fail(err)
		return
	}
	t.b.bodies[i].is.refs += by
	t.refs = append(t.refs, refChange{i, by})
}

func (t *tx) SetNote(id ID, note []byte) {
	i, err := t.body(id)
	if err != nil {
		t.fail(err)
		return
	}
	c := &t.b.bodies[i]
	if kept := t.b.noteOf(c); !bytes.Equal(kept, note) {
		t.notes = append(t.notes, noteChange{i, c.note, c.noted})
		c.note, c.noted = note, true
	}
}

// noteOf is the note that a body has now.
func (b *batch) noteOf(c *bodyChange) []byte {
	if c.noted || !c.stored {
		return c.note
	}
	return b.w.Get(noteKey(c.id))
}

// note is Note within the transaction.
func (t *tx) note(id ID) ([]byte, error) {
	i, err := t.body(id)
	if err != nil {
		return nil, err
	}
	return t.b.noteOf(&t.b.bodies[i]), nil
}

// body returns the place of a body in b.bodies.
func (t *tx) body(id ID) (int, error) {
	i, err := t.b.find(id)
	if err == nil && i < 0 {
		err = fmt.Errorf("body %s: %w", id, ErrNoBody)
	}
	return i, err
}

// relocate moves a body from where compaction read it to its copy, if it still is there.
func (t *tx) relocate(id ID, from, to location) {
	i, err := t.b.find(id)
	switch {
	case err != nil:
		t.fail(err)
	case i >= 0 && t.b.bodies[i].is.location == from:
		t.b.bodies[i].is.location = to
		t.moves = append(t.moves, move{i, from})
	}
}

func (t *tx) OnCommit(fn func()) { t.hooks = append(t.hooks, fn) }
