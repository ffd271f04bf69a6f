package mailbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/fulltext"
	"postroad/internal/store"
)

// The full-text index of a mailbox is blocks: each is a body in the store, and covers a range of UIDs. The table mi says
// which. A block says of each message in its range that was there when it was built whether it may have a text; messages
// do not change and UIDs only grow, so a block is right as long as it is there. What no block covers is looked at
// itself. So an index that is missing, or has not come as far as the mailbox, only costs time.
//
// Index builds blocks of new messages and merges small ones into larger ones, so that a mailbox of any size has a few
// dozen, and each message is written again three times at most.
const (
	indexedMessages = 256     // smaller mailboxes are looked at as quickly,
	indexedOctets   = 4 << 20 // unless they hold more than this
	waitingMessages = 32      // so many wait for a block,
	waitingOctets   = 1 << 20 // or so much
	blockMessages   = 2_048   // in a block that is built from messages
	blockGrams      = 1 << 20 // about 4 MiB while it is built
	maxSmall        = 8       // blocks below the first size that lie side by side
	wholeGrams      = 1 << 16 // distinct grams of a message; with more it is always a candidate
	urgentMessages  = 512     // without a block, and a search does not wait for the mailbox to be quiet

	// A mailbox is indexed when it has been quiet for indexPause, or has waited for indexPatience: while mail pours in
	// the processor is for taking it, and one large block costs less than many small ones that are merged.
	indexPause    = time.Second
	indexPatience = 30 * time.Second
)

// blockSizes are how many messages make a block of the next size, when blocks side by side have them together.
var blockSizes = [...]uint64{256, 2_048, 16_384, 65_536}

func blocksOf(id ID) store.Key            { return store.NewKey("mi").Uint(uint64(id)) }
func blockKey(id ID, first UID) store.Key { return blocksOf(id).Uint(uint64(first)) }

// A blockRecord is a block of a mailbox's index.
type blockRecord struct {
	first, last UID // the range that it covers
	messages    uint64
	octets      int64
	body        store.ID
}

func (b *blockRecord) put(tx store.Tx, id ID) {
	var e store.Encoder
	e.Uint(recordVersion)
	e.Uint(uint64(b.last))
	e.Uint(b.messages)
	e.Int(b.octets)
	e.Uint(uint64(b.body))
	tx.Put(blockKey(id, b.first), e)
}

func decodeBlock(k, v []byte) (blockRecord, error) {
	d := store.NewDecoder(v)
	version := d.Uint()
	b := blockRecord{first: UID(lastUint(k)), last: UID(d.Uint()), messages: d.Uint(), octets: d.Int(), body: store.ID(d.Uint())}
	if d.Err() != nil || version != recordVersion || b.last < b.first {
		return b, fmt.Errorf("a block of the full-text index: %w", store.ErrRecord)
	}
	return b, nil
}

// loadBlocks reads the blocks of a mailbox, in order. One that cannot be read counts as not there.
func loadBlocks(r store.Reader, id ID) (blocks []blockRecord) {
	for k, v := range r.Scan(blocksOf(id), blocksOf(id).End()) {
		b, err := decodeBlock(k, v)
		if err == nil && (len(blocks) == 0 || blocks[len(blocks)-1].last < b.first) {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// A reading is the blocks that one search has open.
type reading struct {
	loaded bool
	blocks []openBlock
}

type openBlock struct {
	blockRecord
	tried bool
	body  *store.Body
	block *fulltext.Block // nil when it cannot be read
}

func (r *reading) close() {
	for _, b := range r.blocks {
		if b.body != nil {
			_ = b.body.Close() // only read
		}
	}
}

// missing counts the messages that no block covers.
func (r *reading) missing(within *roaring.Bitmap) uint64 {
	n := within.GetCardinality()
	for _, b := range r.blocks {
		n -= livingIn(within, b.first, b.last)
	}
	return n
}

// candidates returns a set that has those of within that have all grams.
func (s *Service) candidates(r *reading, id ID, grams []fulltext.Gram, within *roaring.Bitmap) (*roaring.Bitmap, error) {
	if !r.loaded {
		err := s.st.View(func(tx store.Reader) error {
			r.blocks = r.blocks[:0]
			for _, b := range loadBlocks(tx, id) {
				r.blocks = append(r.blocks, openBlock{blockRecord: b})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		r.loaded = true
		if r.missing(within) > urgentMessages {
			s.index.urge(id)
		}
	}
	found := within.Clone()
	for i := range r.blocks {
		b := &r.blocks[i]
		asked := roaring.New()
		asked.AddRange(uint64(b.first), uint64(b.last)+1)
		if asked.And(found); asked.IsEmpty() {
			continue
		}
		may, err := s.ask(id, b, grams)
		if err != nil {
			s.index.damaged(id, b.blockRecord)
			continue
		}
		asked.AndNot(may)
		found.AndNot(asked)
	}
	return found, nil
}

// ask asks one block, which it opens the first time.
func (s *Service) ask(id ID, b *openBlock, grams []fulltext.Gram) (*roaring.Bitmap, error) {
	if !b.tried {
		b.tried = true
		if err := s.openBlock(b); err != nil {
			return nil, err
		}
	}
	if b.block == nil {
		return nil, fulltext.ErrDamaged
	}
	return b.block.Candidates(grams)
}

func (s *Service) openBlock(b *openBlock) (err error) {
	if b.body, err = s.st.OpenBody(b.blockRecord.body); err != nil {
		return err
	}
	b.block, err = fulltext.Open(b.body, b.body.Size())
	return err
}

// An indexer knows what Index has to do.
type indexer struct {
	wake chan struct{} // capacity 1

	mu      sync.Mutex // guards what follows
	running bool
	changed map[ID]change           // mailboxes that have changed
	broken  map[ID]map[UID]store.ID // blocks that could not be read
	done    map[ID]UID              // UIDNEXT when there was nothing to do

	working sync.Mutex // held for one step of work on any mailbox
}

// A change is what is known of the changes of a mailbox that was not looked at since.
type change struct {
	first, last time.Time
	urgent      bool // a search would like them indexed
}

func (c change) due(now time.Time) bool {
	return c.urgent || now.Sub(c.last) >= indexPause || now.Sub(c.first) >= indexPatience
}

func newIndexer() *indexer {
	return &indexer{
		wake: make(chan struct{}, 1), changed: map[ID]change{}, broken: map[ID]map[UID]store.ID{}, done: map[ID]UID{},
	}
}

// note has a mailbox looked at once it is quiet, when Index is running.
func (x *indexer) note(id ID) { x.change(id, false) }

// urge has a mailbox looked at without waiting for quiet.
func (x *indexer) urge(id ID) { x.change(id, true) }

func (x *indexer) change(id ID, urgent bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.running {
		return
	}
	c, now := x.changed[id], time.Now()
	if c.first.IsZero() {
		c.first = now
	}
	c.last, c.urgent = now, c.urgent || urgent
	x.changed[id] = c
	x.awake()
}

func (x *indexer) awake() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// damaged has a block built again.
func (x *indexer) damaged(id ID, b blockRecord) {
	x.mu.Lock()
	if x.broken[id] == nil {
		x.broken[id] = map[UID]store.ID{}
	}
	x.broken[id][b.first] = b.body
	x.mu.Unlock()
	x.urge(id)
}

// take returns the mailboxes whose turn it is, and forgets their changes.
func (x *indexer) take(now time.Time) (ids []ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, c := range x.changed {
		if c.due(now) {
			ids = append(ids, id)
			delete(x.changed, id)
		}
	}
	if len(x.changed) > 0 {
		x.awake() // those left are looked at again after a pause
	}
	slices.Sort(ids)
	return ids
}

func (x *indexer) takeBroken(id ID) map[UID]store.ID {
	x.mu.Lock()
	defer x.mu.Unlock()
	broken := x.broken[id]
	if len(broken) > 0 {
		delete(x.broken, id)
		delete(x.done, id)
	}
	return broken
}

// doneAt returns the UIDNEXT with which a mailbox had nothing to do.
func (x *indexer) doneAt(id ID) UID {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.done[id]
}

// setDone keeps the UIDNEXT with which a mailbox has nothing to do; 0 forgets it.
func (x *indexer) setDone(id ID, next UID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if next == 0 {
		delete(x.done, id)
	} else {
		x.done[id] = next
	}
}

func (x *indexer) run(on bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.running = on
}

// Index keeps the full-text index up to date until ctx is done: first of all mailboxes, then of those that change, once
// they are quiet, have waited for long, or are searched. It works in bounded steps with pauses between, so that nobody
// waits for it, and loses nothing when it is interrupted. The error of one mailbox is told to log, and tried again when
// it changes.
func (s *Service) Index(ctx context.Context, log func(id ID, err error)) error {
	s.index.run(true)
	defer s.index.run(false)
	p := &pace{ctx: ctx, rest: true}
	index := func(id ID) {
		if err := caught(func() error { return s.indexMailbox(p, id) }); err != nil && ctx.Err() == nil && !errors.Is(err, ErrNotFound) {
			log(id, err)
		}
	}
	if err := s.eachMailbox(ctx, index); err != nil && ctx.Err() == nil {
		return err
	}
	for p.wait(s.index.wake) {
		for _, id := range s.index.take(time.Now()) {
			index(id)
		}
	}
	return nil
}

// caught makes an error of a panic: a message that brings the index down must not bring the server down, and again at
// each start. Searches look at the messages themselves until the mailbox is indexed.
func caught(work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return work()
}

// eachMailbox calls fn for each mailbox that there is.
func (s *Service) eachMailbox(ctx context.Context, fn func(ID)) error {
	for next := ID(0); ctx.Err() == nil; {
		var ids []ID
		err := s.st.View(func(r store.Reader) error {
			ids = ids[:0]
			for k := range r.Scan(boxKey(next), store.NewKey("mb").End()) {
				if ids = append(ids, ID(lastUint(k))); len(ids) == pageSize {
					break
				}
			}
			return nil
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			if ctx.Err() == nil {
				fn(id)
			}
		}
		next = ids[len(ids)-1] + 1
	}
	return ctx.Err()
}

// A pace ends work when its context does, and with rest keeps it from taking a processor for itself.
type pace struct {
	ctx   context.Context
	rest  bool
	since time.Time // when the last rest ended
}

// step is called every few milliseconds of work.
func (p *pace) step() error {
	const stretch = 10 * time.Millisecond
	if err := p.ctx.Err(); err != nil || !p.rest {
		return err
	}
	worked := time.Since(p.since)
	if worked < stretch {
		return nil
	}
	p.sleep(2 * min(worked, 5*stretch))
	p.since = time.Now()
	return p.ctx.Err()
}

func (p *pace) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
}

// wait waits for work, and then a moment for more of it.
func (p *pace) wait(wake <-chan struct{}) bool {
	select {
	case <-wake:
		p.sleep(indexPause)
	case <-p.ctx.Done():
	}
	return p.ctx.Err() == nil
}

// indexMailbox brings the index of one mailbox up to date.
func (s *Service) indexMailbox(p *pace, id ID) error {
	if err := s.dropBroken(id, s.index.takeBroken(id)); err != nil {
		return err
	}
	for {
		if more, err := s.indexStep(p, id); err != nil || !more {
			return err
		}
	}
}

func (s *Service) indexStep(p *pace, id ID) (more bool, err error) {
	s.index.working.Lock()
	defer s.index.working.Unlock()
	work, err := s.plan(id)
	if errors.Is(err, ErrNotFound) {
		s.index.setDone(id, 0)
	}
	if err != nil || work == nil {
		return false, err
	}
	return true, s.do(p, id, work)
}

// dropBroken takes blocks away that cannot be read.
func (s *Service) dropBroken(id ID, broken map[UID]store.ID) error {
	if len(broken) == 0 {
		return nil
	}
	return s.st.UpdateSoon(func(tx store.Tx) error {
		for _, b := range loadBlocks(tx, id) {
			if broken[b.first] == b.body {
				tx.Delete(blockKey(id, b.first))
				tx.Unref(b.body)
			}
		}
		return nil
	})
}

// work is one step of indexing: a block that takes the place of others, or is made of messages that none covers.
type work struct {
	replaced []blockRecord
	build    *roaring.Bitmap // messages to build a block of; nil is to merge
	living   *roaring.Bitmap // all messages of the mailbox
}

// plan returns what has to be done next, or nil.
func (s *Service) plan(id ID) (*work, error) {
	var b *box
	var blocks []blockRecord
	living := roaring.New()
	err := s.st.View(func(r store.Reader) (err error) {
		if b, err = loadBox(r, id); err != nil {
			return err
		}
		if s.index.doneAt(id) == b.UIDNext {
			return nil
		}
		blocks = loadBlocks(r, id)
		if len(blocks) == 0 && b.Messages < indexedMessages && b.Octets < indexedOctets {
			return nil
		}
		living, err = present(r, id)
		return err
	})
	if err != nil || living.IsEmpty() && len(blocks) == 0 {
		return nil, err
	}
	if run := toMerge(blocks, living); run != nil { // first, so that there are never more than a few dozen
		return &work{replaced: run, living: living}, nil
	}
	if gap := firstGap(blocks, living); s.worthwhile(id, gap) {
		return &work{build: gap, living: living}, nil
	}
	s.index.setDone(id, b.UIDNext)
	return nil, nil
}

// firstGap returns messages side by side that no block covers: the first there are, at most as many as a block has.
func firstGap(blocks []blockRecord, living *roaring.Bitmap) *roaring.Bitmap {
	from := UID(0) // as far as the blocks reach without a gap
	for _, b := range blocks {
		if b.first > from && livingIn(living, from, b.first-1) > 0 {
			return firstOf(living, from, b.first-1)
		}
		from = b.last + 1
	}
	return firstOf(living, from, math.MaxUint32)
}

// firstOf returns the first messages from one UID to another, as many as a block has.
func firstOf(living *roaring.Bitmap, first, last UID) *roaring.Bitmap {
	some := roaring.New()
	it := living.Iterator()
	it.AdvanceIfNeeded(first)
	for n := 0; n < blockMessages && it.HasNext() && it.PeekNext() <= last; n++ {
		some.Add(it.Next())
	}
	return some
}

// worthwhile reports whether messages are enough for a block.
func (s *Service) worthwhile(id ID, gap *roaring.Bitmap) bool {
	if gap.GetCardinality() >= waitingMessages {
		return true
	}
	octets := int64(0)
	for m, err := range s.Messages(id, gap) {
		if err != nil {
			return false
		}
		octets += m.Size
	}
	return octets >= waitingOctets
}

// toMerge returns blocks side by side that are to become one, or one of which most messages are gone.
func toMerge(blocks []blockRecord, living *roaring.Bitmap) []blockRecord {
	for i, b := range blocks {
		if 2*livingIn(living, b.first, b.last) < b.messages {
			return blocks[i : i+1]
		}
	}
	for size, most := range blockSizes {
		for from := 0; from < len(blocks); {
			to, sum := from, uint64(0)
			for to < len(blocks) && blocks[to].messages < most && (to == from || adjacent(blocks[to-1], blocks[to], living)) && sum < most {
				sum += blocks[to].messages
				to++
			}
			if to-from > 1 && (sum >= most || size == 0 && to-from >= maxSmall) {
				return blocks[from:to]
			}
			from = max(to, from+1)
		}
	}
	return nil
}

// adjacent reports whether there is no message between two blocks.
func adjacent(a, b blockRecord, living *roaring.Bitmap) bool {
	return b.first == a.last+1 || livingIn(living, a.last+1, b.first-1) == 0
}

// livingIn counts the messages from one UID to another.
func livingIn(living *roaring.Bitmap, first, last UID) uint64 {
	n := living.Rank(last)
	if first > 0 {
		n -= living.Rank(first - 1)
	}
	return n
}

// do does a step.
func (s *Service) do(p *pace, id ID, w *work) (err error) {
	draft := s.st.NewDraft()
	defer draft.Discard()
	var b blockRecord
	if w.build != nil {
		b, err = s.build(p, id, w.build, draft)
	} else {
		b, err = s.merge(p, id, w, draft)
	}
	if err != nil {
		return err
	}
	b.body, b.octets = draft.ID(), draft.Size()
	if b.messages == 0 {
		return s.replace(id, w.replaced, nil)
	}
	return s.replace(id, w.replaced, &b, draft)
}

// build writes a block of messages.
func (s *Service) build(p *pace, id ID, uids *roaring.Bitmap, out io.Writer) (blockRecord, error) {
	b := blockRecord{first: uids.Minimum(), last: uids.Minimum()}
	var builder fulltext.Builder
	x := &examiner{tier: ofBody}
	var grams fulltext.Grams
	for item, err := range s.Read(id, uids, Notes|Bodies) {
		if err == nil {
			err = p.step()
		}
		if err != nil {
			return b, err
		}
		x.begin(item)
		grams.Reset()
		switch err := x.grams(&grams); {
		case errors.Is(err, errManyGrams) || errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrRecord):
			builder.AddWhole(item.UID)
		case err != nil:
			return b, err
		default:
			builder.Add(item.UID, grams.List())
		}
		if b.last = item.UID; builder.Grams() >= blockGrams {
			break
		}
	}
	if b.messages = uint64(builder.Messages()); b.messages == 0 {
		return b, nil
	}
	_, err := builder.WriteTo(out)
	return b, err
}

var errManyGrams = errors.New("a message of too many grams")

// grams gathers the grams of all that a search looks for texts in.
func (x *examiner) grams(g *fulltext.Grams) error {
	if x.Err != nil {
		return x.Err
	}
	add := func(folded []byte) {
		g.Add(folded)
		g.Break()
	}
	many := func() bool { return len(g.List()) > wholeGrams }
	hear := hearing{stop: many, text: add, part: func(r io.Reader) error {
		defer g.Break()
		return x.finder.pieces.read(r, func(piece []byte, last bool) bool {
			g.Add(piece)
			return !many()
		})
	}}
	if err := x.texts(&hear, true); err != nil {
		return err
	}
	e, err := x.Stored.DecodeEnvelope()
	if err != nil {
		return err
	}
	add(fold(string(x.Stored.Subject())))
	for _, list := range [...][]byte{addressText(e.From), addressText(e.To), addressText(e.Cc), addressText(e.Bcc)} {
		add(fold(string(list)))
	}
	if many() {
		return errManyGrams
	}
	return nil
}

// merge writes one block of several. When one of them is damaged they are given up, and built again.
func (s *Service) merge(p *pace, id ID, w *work, out io.Writer) (blockRecord, error) {
	b := blockRecord{first: w.replaced[0].first, last: w.replaced[len(w.replaced)-1].last}
	r := reading{}
	defer r.close()
	var blocks []*fulltext.Block
	for _, part := range w.replaced {
		r.blocks = append(r.blocks, openBlock{blockRecord: part})
		open := &r.blocks[len(r.blocks)-1]
		if err := s.openBlock(open); err != nil {
			return b, s.giveUp(id, part, err)
		}
		blocks = append(blocks, open.block)
		b.messages += roaring.And(open.block.Numbers(), w.living).GetCardinality()
	}
	if b.messages == 0 {
		return b, nil
	}
	_, err := fulltext.Merge(out, blocks, w.living, p.step)
	if errors.Is(err, fulltext.ErrDamaged) {
		for _, part := range w.replaced {
			err = s.giveUp(id, part, err)
		}
	}
	return b, err
}

// giveUp has a damaged block built again.
func (s *Service) giveUp(id ID, b blockRecord, err error) error {
	s.index.damaged(id, b)
	return fmt.Errorf("block %d to %d of the full-text index, which is now built again: %w", b.first, b.last, err)
}

// replace commits a block, if there is one, in the place of others. When those are not as they were, or the mailbox is
// going, nothing is done.
func (s *Service) replace(id ID, old []blockRecord, b *blockRecord, drafts ...*store.Draft) error {
	return s.st.UpdateSoon(func(tx store.Tx) error {
		if _, err := loadBox(tx, id); err != nil {
			return err
		}
		now := loadBlocks(tx, id)
		for _, o := range old {
			if !slices.Contains(now, o) {
				return errIndexChanged
			}
			tx.Delete(blockKey(id, o.first))
			tx.Unref(o.body)
		}
		if b == nil {
			return nil
		}
		for _, o := range now {
			if o.first <= b.last && b.first <= o.last && !slices.Contains(old, o) {
				return errIndexChanged
			}
		}
		tx.Ref(b.body)
		b.put(tx, id)
		return nil
	}, drafts...)
}

var errIndexChanged = errors.New("the full-text index changed meanwhile; it is looked at again")

// dropBlocks removes up to most blocks of a mailbox's index and returns how many it did.
func dropBlocks(tx store.Tx, id ID, most int) int {
	blocks := loadBlocks(tx, id)
	for _, b := range blocks[:min(len(blocks), most)] {
		tx.Delete(blockKey(id, b.first))
		tx.Unref(b.body)
	}
	return min(len(blocks), most)
}

// Reindex builds the full-text index of a mailbox again. Searches look at the messages meanwhile. ErrNotFound.
func (s *Service) Reindex(ctx context.Context, id ID) error {
	if err := s.unindex(id); err != nil {
		return err
	}
	return s.indexMailbox(&pace{ctx: ctx}, id)
}

// unindex drops the index of a mailbox.
func (s *Service) unindex(id ID) error {
	s.index.working.Lock()
	defer s.index.working.Unlock()
	s.index.setDone(id, 0)
	return s.st.Update(func(tx store.Tx) error {
		if _, err := loadBox(tx, id); err != nil {
			return err
		}
		dropBlocks(tx, id, bulkStep)
		return nil
	})
}

// IndexStatus is how far the full-text index of a mailbox is.
type IndexStatus struct {
	Messages uint64 // in the mailbox
	Octets   int64  // of them
	Indexed  uint64 // messages that a block covers
	Blocks   int
	Size     int64 // octets of the blocks
}

// IndexStatus tells how far the index of a mailbox is. ErrNotFound.
func (s *Service) IndexStatus(id ID) (st IndexStatus, err error) {
	err = s.st.View(func(r store.Reader) error {
		b, err := loadBox(r, id)
		if err != nil {
			return err
		}
		living, err := present(r, id)
		if err != nil {
			return err
		}
		st = IndexStatus{Messages: living.GetCardinality(), Octets: b.Octets}
		for _, b := range loadBlocks(r, id) {
			st.Indexed += livingIn(living, b.first, b.last)
			st.Blocks++
			st.Size += b.octets
		}
		return nil
	})
	return st, err
}

// A coveredBlock is a block, and the messages that it must know of.
type coveredBlock struct {
	box    *box
	block  blockRecord
	living *roaring.Bitmap // in the mailbox
}

// blocks looks at the table of the full-text index of a mailbox. What is in the blocks index looks at.
func (c *checker) blocks(b *box) {
	end := UID(0)
	var living *roaring.Bitmap
	for k, v := range c.r.Scan(blocksOf(b.ID), blocksOf(b.ID).End()) {
		block, err := decodeBlock(k, v)
		switch {
		case err != nil:
			c.problem(b.String(), "%v; index rebuild makes it again", err)
			continue
		case block.first <= end || block.last >= b.UIDNext:
			c.problem(b.String(), "a block of the full-text index covers %d to %d, after one that ends at %d, below UIDNEXT %d",
				block.first, block.last, end, b.UIDNext)
		}
		end = max(end, block.last)
		if living == nil {
			if living, err = present(c.r, b.ID); err != nil {
				return // sheetsOf has told
			}
		}
		if !b.removed {
			c.covered = append(c.covered, coveredBlock{b, block, living})
		}
	}
}

// index opens the blocks: a message that a block covers and does not know of is never found. Those that went meanwhile are
// passed over.
func (c *checker) index(s *Service) error {
	for _, covered := range c.covered {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		b := covered.block
		err := s.inBlock(b, func(known *roaring.Bitmap) {
			must := roaring.New()
			must.AddRange(uint64(b.first), uint64(b.last)+1)
			must.And(covered.living)
			if must.AndNot(known); !must.IsEmpty() {
				c.problem(covered.box.String(), "the block %d to %d of the full-text index does not know %d messages, as %d; index rebuild makes it again",
					b.first, b.last, must.GetCardinality(), must.Minimum())
			}
		})
		if err != nil && !errors.Is(err, store.ErrNoBody) {
			c.problem(covered.box.String(), "the block %d to %d of the full-text index: %v; index rebuild makes it again", b.first, b.last, err)
		}
	}
	return nil
}

// inBlock calls fn with the messages that a block knows of.
func (s *Service) inBlock(b blockRecord, fn func(*roaring.Bitmap)) error {
	r := reading{blocks: []openBlock{{blockRecord: b}}}
	defer r.close()
	if err := s.openBlock(&r.blocks[0]); err != nil {
		return err
	}
	fn(r.blocks[0].block.Numbers())
	return nil
}
