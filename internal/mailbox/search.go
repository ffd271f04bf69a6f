package mailbox

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/fulltext"
	"postroad/internal/store"
)

// Criterion is one test of a message, or a combination of tests (RFC 9051, 6.4.4). The zero Criterion is ALL.
// All that it says must hold.
type Criterion struct {
	And []Criterion
	Or  []Criterion // at least one; empty is no test
	Not *Criterion

	UIDs   *roaring.Bitmap // nil is no test
	Has    []string        // flags that are set
	HasNot []string

	Since, Before           time.Time      // INTERNALDATE, by its day
	SentSince, SentBefore   time.Time      // the Date field, by its day; a message without date meets neither
	SavedSince, SavedBefore time.Time      // when it came into the mailbox, by its day in UTC (RFC 8514)
	Younger, Older          *time.Duration // INTERNALDATE, seen from now; what is just as old is both (RFC 5032)
	Larger, Smaller         *int64         // octets
	ModSeq                  uint64         // at least (RFC 7162)
	EmailID, ThreadID       string         // RFC 8474

	Header   []HeaderTest // fields as they stand in the header, unfolded and decoded
	Envelope []HeaderTest // From, To, Cc, Bcc or Subject of the envelope
	Body     []string     // substring of decoded text, any case
	Text     []string     // of header or body

	// Fuzzy has Header, Envelope, Body and Text ask for the words of their texts, in any order and without regard to
	// marks on letters (RFC 6203).
	Fuzzy bool
}

// HeaderTest asks for a header field that contains a text; an empty text asks for the field.
type HeaderTest struct{ Field, Text string }

// Search returns the messages among uids (nil: all) that meet the criterion. It reads in pages and can be cancelled.
// Cheap tests come first: flags and sets are sets, the full-text index narrows, and a body is opened only when
// nothing else has decided. Text is compared as i;unicode-casemap does (RFC 5051); header fields are unfolded and their
// encoded-words decoded. Text that lies within parts whose encoding cannot be undone is not found, nor is a message
// that cannot be read. Memory is bounded whatever the messages are. ErrNotFound.
func (s *Service) Search(ctx context.Context, id ID, uids *roaring.Bitmap, c Criterion) (*roaring.Bitmap, error) {
	found, _, err := s.Rank(ctx, id, uids, c)
	return found, err
}

// Rank is Search that also tells how well messages meet the fuzzy tests (RFC 6203): from 1 to 100. Messages of which no
// fuzzy test was asked are not in it.
func (s *Service) Rank(ctx context.Context, id ID, uids *roaring.Bitmap, c Criterion) (*roaring.Bitmap, map[UID]uint8, error) {
	living, err := s.uids(id)
	if err != nil {
		return nil, nil, err
	}
	q := &inquiry{s: s, ctx: ctx, id: id, now: s.o.Now(), ranks: map[UID]uint8{}}
	defer q.index.close()
	root := q.compile(&c)
	within := narrow(living, uids)
	must, may, err := q.bounds(root, within)
	if err != nil {
		return nil, nil, err
	}
	found, err := q.decide(root, must, may)
	return found, q.ranks, err
}

// uids returns the messages of a mailbox.
func (s *Service) uids(id ID) (uids *roaring.Bitmap, err error) {
	err = s.st.View(func(r store.Reader) error {
		if _, err := loadBox(r, id); err != nil {
			return err
		}
		uids, err = present(r, id)
		return err
	})
	return uids, err
}

// narrow returns what is in both sets; nil is all.
func narrow(a, b *roaring.Bitmap) *roaring.Bitmap {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return roaring.And(a, b)
}

// An inquiry is one search under way.
type inquiry struct {
	s     *Service
	ctx   context.Context
	id    ID
	now   time.Time
	index reading
	ranks map[UID]uint8
}

// A cost is what a test has to read.
type cost int

const (
	ofSet    cost = iota // nothing: the messages that meet it are known
	ofRecord             // the message's record
	ofNote               // its stored structure
	ofHeader             // its header
	ofBody
)

// A node is a test, or a combination of nodes.
type node struct {
	op   op
	kids []*node // the cheapest first
	cost cost    // of the dearest leaf

	// Of a leaf.
	set   func() (*roaring.Bitmap, error) // the messages that meet it, when that can be told at once
	match func(*examiner) (bool, error)   // otherwise
	texts [][]byte                        // folded: a message without all of them does not match

	known *roaring.Bitmap // what set returned
	maybe *roaring.Bitmap // those that the index did not rule out; nil is all
}

type op uint8

const (
	leaf op = iota
	all
	anyOf
	not1
)

// combine makes a node of others.
func combine(op op, kids ...*node) *node {
	n := &node{op: op, kids: kids}
	slices.SortStableFunc(n.kids, func(a, b *node) int { return cmp.Compare(a.rank(), b.rank()) })
	for _, k := range kids {
		n.cost = max(n.cost, k.cost)
	}
	return n
}

// rank orders nodes: what narrows without reading messages is first.
func (n *node) rank() int {
	if n.op == leaf && len(n.texts) == 0 {
		return int(n.cost)
	}
	return 2*int(n.cost) + 1
}

// costs reports whether a leaf has this cost.
func (n *node) costs(c cost) bool {
	if n.op == leaf {
		return n.cost == c && n.known == nil
	}
	return slices.ContainsFunc(n.kids, func(k *node) bool { return k.costs(c) })
}

// bounds returns those of within that surely meet n, and those that may.
func (q *inquiry) bounds(n *node, within *roaring.Bitmap) (must, may *roaring.Bitmap, err error) {
	switch n.op {
	case all:
		return q.boundsOfAll(n, within)
	case anyOf:
		return q.boundsOfAny(n, within)
	case not1:
		must, may, err := q.bounds(n.kids[0], within)
		if err != nil {
			return nil, nil, err
		}
		return roaring.AndNot(within, may), roaring.AndNot(within, must), nil
	}
	if err := q.ctx.Err(); err != nil {
		return nil, nil, err
	}
	return q.boundsOfLeaf(n, within)
}

func (q *inquiry) boundsOfLeaf(n *node, within *roaring.Bitmap) (must, may *roaring.Bitmap, err error) {
	if n.set != nil {
		if n.known, err = n.set(); err != nil {
			return nil, nil, err
		}
		met := roaring.And(within, n.known)
		return met, met, nil
	}
	if len(n.texts) > 0 {
		if n.maybe, err = q.candidates(n.texts, within); err != nil {
			return nil, nil, err
		}
	}
	return roaring.New(), narrow(within, n.maybe), nil
}

func (q *inquiry) boundsOfAll(n *node, within *roaring.Bitmap) (must, may *roaring.Bitmap, err error) {
	must, may = within, within
	for _, k := range n.kids {
		m, y, err := q.bounds(k, may)
		if err != nil {
			return nil, nil, err
		}
		must, may = roaring.And(must, m), y
	}
	return must, may, nil
}

func (q *inquiry) boundsOfAny(n *node, within *roaring.Bitmap) (must, may *roaring.Bitmap, err error) {
	must, may = roaring.New(), roaring.New()
	for _, k := range n.kids {
		m, y, err := q.bounds(k, within)
		if err != nil {
			return nil, nil, err
		}
		must.Or(m)
		may.Or(y)
	}
	return must, may, nil
}

// candidates returns a set that has those of within that have all texts, or nil when that would not help.
func (q *inquiry) candidates(texts [][]byte, within *roaring.Bitmap) (*roaring.Bitmap, error) {
	const few = 8 // messages that are looked at as quickly
	if within.GetCardinality() <= few {
		return nil, nil
	}
	var g fulltext.Grams
	for _, t := range texts {
		g.Add(t)
		g.Break()
	}
	if len(g.List()) == 0 {
		return nil, nil
	}
	return q.s.candidates(&q.index, q.id, g.List(), within)
}

// decide looks at the messages that may meet the root: first at what is cheap to read of all that are undecided.
func (q *inquiry) decide(root *node, must, may *roaring.Bitmap) (*roaring.Bitmap, error) {
	found := must.Clone()
	undecided := roaring.AndNot(may, must)
	want := Facts
	for _, tier := range []struct {
		cost cost
		want Want
	}{{ofRecord, Facts}, {ofNote, Notes}, {ofHeader, Bodies}, {ofBody, Notes | Bodies}} {
		if undecided.IsEmpty() || !root.costs(tier.cost) {
			continue
		}
		want |= tier.want
		yes, no, err := q.look(root, undecided, tier.cost, want)
		if err != nil {
			return nil, err
		}
		found.Or(yes)
		undecided.AndNot(yes)
		undecided.AndNot(no)
	}
	return found, nil
}

// look reads messages and returns those that meet the root and those that do not, as far as what costs no more
// than tier can tell.
func (q *inquiry) look(root *node, uids *roaring.Bitmap, tier cost, want Want) (yes, no *roaring.Bitmap, err error) {
	yes, no = roaring.New(), roaring.New()
	x := &examiner{tier: tier}
	for item, err := range q.s.Read(q.id, uids, want) {
		if err == nil {
			err = q.ctx.Err()
		}
		if err != nil {
			return nil, nil, err
		}
		x.begin(item)
		v, err := x.eval(root)
		switch {
		case errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrRecord):
		case err != nil:
			return nil, nil, err
		case v == met:
			yes.Add(item.UID)
			q.rank(x)
		case v == unmet:
			no.Add(item.UID)
		}
	}
	return yes, no, nil
}

// rank keeps how well a message meets the fuzzy tests.
func (q *inquiry) rank(x *examiner) {
	if x.ranked > 0 {
		q.ranks[x.UID] = uint8(max(1, x.ranks/x.ranked))
	}
}

// A verdict is what is known of a message and a test.
type verdict uint8

const (
	unknown verdict = iota
	met
	unmet
)

func verdictOf(ok bool) verdict {
	if ok {
		return met
	}
	return unmet
}

// eval holds the message against n.
func (x *examiner) eval(n *node) (verdict, error) {
	switch n.op {
	case all:
		return x.each(n.kids, met, unmet)
	case anyOf:
		return x.each(n.kids, unmet, met)
	case not1:
		v, err := x.eval(n.kids[0])
		return [...]verdict{unknown: unknown, met: unmet, unmet: met}[v], err
	}
	switch {
	case n.known != nil:
		return verdictOf(n.known.Contains(x.UID)), nil
	case n.maybe != nil && !n.maybe.Contains(x.UID):
		return unmet, nil
	case n.cost > x.tier:
		return unknown, nil
	case x.Err != nil && n.cost > ofRecord:
		return unknown, x.Err
	}
	ok, err := n.match(x)
	return verdictOf(ok), err
}

// each asks nodes until one says last; when all say usual, so does it.
func (x *examiner) each(nodes []*node, usual, last verdict) (verdict, error) {
	out := usual
	for _, n := range nodes {
		v, err := x.eval(n)
		if err != nil || v == last {
			return v, err
		}
		if v == unknown {
			out = unknown
		}
	}
	return out, nil
}

// compile makes a node of a criterion.
func (q *inquiry) compile(c *Criterion) *node {
	nodes := slices.Concat(q.setTests(c), recordTests(c, q.now), noteTests(c), headerTests(c), textTests(c))
	for i := range c.And {
		nodes = append(nodes, q.compile(&c.And[i]))
	}
	if len(c.Or) > 0 {
		or := make([]*node, len(c.Or))
		for i := range c.Or {
			or[i] = q.compile(&c.Or[i])
		}
		nodes = append(nodes, combine(anyOf, or...))
	}
	if c.Not != nil {
		nodes = append(nodes, combine(not1, q.compile(c.Not)))
	}
	if len(nodes) == 1 {
		return nodes[0]
	}
	return combine(all, nodes...)
}

// setTests are the tests whose messages are known without reading any.
func (q *inquiry) setTests(c *Criterion) (nodes []*node) {
	add := func(set func() (*roaring.Bitmap, error)) { nodes = append(nodes, &node{set: set}) }
	if c.UIDs != nil {
		add(func() (*roaring.Bitmap, error) { return c.UIDs, nil })
	}
	for _, f := range c.Has {
		add(func() (*roaring.Bitmap, error) { return q.s.flagged(q.id, f, true) })
	}
	for _, f := range c.HasNot {
		add(func() (*roaring.Bitmap, error) { return q.s.flagged(q.id, f, false) })
	}
	if c.ModSeq > 0 {
		add(func() (*roaring.Bitmap, error) { return q.s.ChangedSince(q.id, c.ModSeq-1, nil) })
	}
	return nodes
}

// recordTests are the tests that the message's record decides.
func recordTests(c *Criterion, now time.Time) (nodes []*node) {
	add := func(asked bool, match func(*Message) bool) {
		if asked {
			nodes = append(nodes, &node{cost: ofRecord, match: func(x *examiner) (bool, error) { return match(&x.Message), nil }})
		}
	}
	add(c.Larger != nil, func(m *Message) bool { return m.Size > *c.Larger })
	add(c.Smaller != nil, func(m *Message) bool { return m.Size < *c.Smaller })
	add(!c.Since.IsZero(), func(m *Message) bool { return day(m.Internal) >= day(c.Since) })
	add(!c.Before.IsZero(), func(m *Message) bool { return day(m.Internal) < day(c.Before) })
	add(!c.SavedSince.IsZero(), func(m *Message) bool { return day(m.Saved) >= day(c.SavedSince) })
	add(!c.SavedBefore.IsZero(), func(m *Message) bool { return day(m.Saved) < day(c.SavedBefore) })
	age := func(m *Message) time.Duration { return time.Duration(now.Unix()-m.Internal.Unix()) * time.Second }
	add(c.Younger != nil, func(m *Message) bool { return age(m) <= *c.Younger })
	add(c.Older != nil, func(m *Message) bool { return age(m) >= *c.Older })
	add(c.EmailID != "", func(m *Message) bool { return m.EmailID() == c.EmailID })
	add(c.ThreadID != "", func(m *Message) bool { return m.ThreadID() == c.ThreadID })
	return nodes
}

// day is a date as a number, in the time's own zone: the tests disregard time and zone (RFC 9051, 6.4.4).
func day(t time.Time) int {
	y, m, d := t.Date()
	return (y*100+int(m))*100 + d
}

// noteTests are the tests that the stored structure decides.
func noteTests(c *Criterion) (nodes []*node) {
	sent := func(asked bool, ok func(sent int) bool) {
		if asked {
			nodes = append(nodes, &node{cost: ofNote, match: func(x *examiner) (bool, error) {
				t, dated := x.Stored.Sent()
				return dated && ok(day(t)), nil
			}})
		}
	}
	sent(!c.SentSince.IsZero(), func(sent int) bool { return sent >= day(c.SentSince) })
	sent(!c.SentBefore.IsZero(), func(sent int) bool { return sent < day(c.SentBefore) })
	for _, h := range c.Envelope {
		w := wantedOf(h.Text, c.Fuzzy)
		nodes = append(nodes, &node{cost: ofNote, texts: w.texts, match: func(x *examiner) (bool, error) {
			return x.envelopeHas(h.Field, w)
		}})
	}
	return nodes
}

// headerTests are the tests that the message's header decides.
func headerTests(c *Criterion) (nodes []*node) {
	for _, h := range c.Header {
		w := wantedOf(h.Text, c.Fuzzy)
		nodes = append(nodes, &node{cost: ofHeader, texts: w.texts, match: func(x *examiner) (bool, error) {
			return x.hasField(h.Field, w)
		}})
	}
	return nodes
}

// textTests look into the body, or the header and the body.
func textTests(c *Criterion) (nodes []*node) {
	add := func(texts []string, header bool) {
		for _, t := range texts {
			w := wantedOf(t, c.Fuzzy)
			nodes = append(nodes, &node{cost: ofBody, texts: w.texts, match: func(x *examiner) (bool, error) {
				return x.hasText(w, header)
			}})
		}
	}
	add(c.Body, false)
	add(c.Text, true)
	return nodes
}

// wanted is what a test looks for.
type wanted struct {
	texts [][]byte // folded: the text, or when fuzzy its words
	fuzzy bool
}

func wantedOf(text string, fuzzy bool) wanted {
	folded := fold(text)
	if !fuzzy || len(folded) == 0 {
		return wanted{texts: [][]byte{folded}}
	}
	w := wanted{texts: words(folded), fuzzy: true}
	if len(w.texts) == 0 { // signs only
		return wanted{texts: [][]byte{folded}}
	}
	return w
}

// isField compares the names of header fields.
func isField(a, b string) bool { return strings.EqualFold(a, b) }
