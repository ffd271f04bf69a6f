package mailbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"postroad/internal/store"
)

// maxProblems bounds what Check returns.
const maxProblems = 1000

// Check recounts every mailbox and returns what does not agree, at most 1,000 problems: numbers against sheets,
// sheets against messages, sums against owners; and whether the structures and the full-text index can be read.
// It reads everything but the index's blocks in one transaction, so that the figures belong together, and keeps 8 octets
// for each message.
func (s *Service) Check(ctx context.Context) ([]store.Problem, error) {
	var c *checker
	err := s.st.View(func(r store.Reader) error {
		c = &checker{ctx: ctx, r: r, boxes: map[ID]*box{}, used: map[Owner]usage{}, validity: map[Owner]uint32{}}
		return c.check()
	})
	if err == nil {
		err = c.index(s)
	}
	if err != nil {
		return nil, err
	}
	return c.problems, nil
}

type checker struct {
	ctx      context.Context
	r        store.Reader
	problems []store.Problem
	covered  []coveredBlock

	boxes    map[ID]*box
	bodies   []store.ID // one for each message
	used     map[Owner]usage
	validity map[Owner]uint32 // the highest
}

func (c *checker) check() error {
	steps := []func(){c.readBoxes, c.readNames, c.readRemoved, c.strays, c.structures, c.usages, c.conversations, c.validities, c.grants, c.annotations}
	for _, step := range steps {
		if step(); c.ctx.Err() != nil {
			return c.ctx.Err()
		}
	}
	return nil
}

func (c *checker) problem(what, format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, store.Problem{What: what, Text: fmt.Sprintf(format, args...)})
	}
}

func (b *box) String() string {
	return fmt.Sprintf("mailbox %d (%q of owner %d)", b.ID, b.Name, b.Owner)
}

// table yields the keys of a table without its name, until the check is cancelled.
func (c *checker) table(name string) func(yield func(key, value []byte) bool) {
	return func(yield func(key, value []byte) bool) {
		prefix := store.NewKey(name)
		for k, v := range c.r.Scan(prefix, prefix.End()) {
			if c.ctx.Err() != nil || !yield(k[len(prefix):], v) {
				return
			}
		}
	}
}

func (c *checker) readBoxes() {
	for k, v := range c.table("mb") {
		id := ID(lastUint(k))
		b, err := decodeBox(id, v)
		if err != nil {
			c.problem(fmt.Sprintf("mailbox %d", id), "%v", err)
			continue
		}
		c.boxes[id] = b
		c.box(b)
	}
}

// box holds one mailbox's numbers and sheets against its messages.
func (c *checker) box(b *box) {
	counted := &box{}
	if !b.removed {
		words, err := loadKeywords(c.r, b.ID)
		if err != nil {
			c.problem(b.String(), "%v", err)
			words = &keywords{}
		}
		c.sheetsOf(b, counted, len(words.names))
	}
	c.messages(b, counted)
	c.blocks(b)
	c.compare(b, counted)
	u := c.used[b.Owner]
	u.octets, u.messages = u.octets+counted.Octets, u.messages+int64(counted.Messages)
	if !b.removed {
		u.mailboxes++
	}
	c.used[b.Owner] = u
	c.validity[b.Owner] = max(c.validity[b.Owner], b.UIDValidity)
}

// sheetsOf looks at each sheet, and whether each UID that was given out is in one.
func (c *checker) sheetsOf(b, counted *box, words int) {
	next := uint64(0) // the UIDs below it were in the sheets before
	for k, err := range sheets(c.r, b.ID, 0, andModSeqs) {
		if err != nil {
			c.problem(b.String(), "%v", err)
			return
		}
		if uint64(k.first()) != next {
			c.problem(b.String(), "there is no sheet with message %d, and there is one with message %d", next, k.first())
		}
		if next = k.end(); k.dead == 0 {
			next = uint64(k.first()) + uint64(k.came)
			c.sheet(b, k, words)
			counted.count(k)
		}
		if k.highest > b.ModSeq {
			c.problem(b.String(), "the sheet of message %d has modseq %d, above the mailbox's %d", k.first(), k.highest, b.ModSeq)
		}
	}
	if next != uint64(b.UIDNext) && (next != 0 || b.UIDNext != 1) {
		c.problem(b.String(), "the sheets have the messages below %d, and UIDNEXT is %d", next, b.UIDNext)
	}
}

// count adds the messages of a sheet, but not their octets.
func (b *box) count(k *sheet) {
	unseen := k.present.without(k.of(seen))
	b.Messages += uint32(k.present.count())
	b.Unseen += uint32(unseen.count())
	b.Deleted += uint32(k.of(deleted).count())
}

// sheet looks at the sets and modseqs of one sheet.
func (c *checker) sheet(b *box, k *sheet, words int) {
	bad := func(format string, args ...any) {
		c.problem(b.String(), "the sheet of message %d: "+format, append([]any{k.first()}, args...)...)
	}
	var came bitset
	came.setRange(0, uint(k.came))
	if late := k.present.without(&came); !late.empty() || k.present.has(0) && k.number == 0 {
		bad("it has messages that never came")
	}
	for i := range k.system {
		if strange := k.system[i].without(&k.present); !strange.empty() {
			bad("%s is set of messages that are not there", systemFlag(i))
		}
	}
	for _, w := range k.words {
		if strange := w.in.without(&k.present); !strange.empty() || int(w.place) >= words {
			bad("keyword %d of %d is set, also of messages that are not there: %t", w.place, words, !strange.empty())
		}
	}
	for i, modseq := range k.modseqs[:k.came] {
		if uid := k.uid(uint(i)); uid != 0 && (modseq == 0 || modseq > k.highest) {
			bad("message %d has modseq %d, and the highest is %d", uid, modseq, k.highest)
		}
	}
	if k.isDead() {
		bad("it has no messages any more, and is not recorded as such")
	}
}

// messages reads what never changes of each message, and holds it against the sheets.
func (c *checker) messages(b, counted *box) {
	var there bitset
	number, found := ^uint32(0), uint32(0)
	prefix := messagesOf(b.ID)
	for k, v := range c.r.Scan(prefix, prefix.End()) {
		if c.ctx.Err() != nil {
			return
		}
		var m record
		if err := m.decode(b.ID, UID(lastUint(k)), v); err != nil {
			c.problem(b.String(), "%v", err)
			continue
		}
		c.bodies = append(c.bodies, m.body)
		n, i := sheetOf(m.uid)
		if n != number {
			number, there = n, c.present(b, n)
		}
		switch {
		case b.removed:
		case there.has(i):
			found++
			counted.Octets += m.size
		case c.r.Get(doomedKey(b.ID, n)) == nil:
			c.problem(b.String(), "message %d is not there, has a record, and nobody would drop that", m.uid)
		}
	}
	if found != counted.Messages {
		c.problem(b.String(), "%d messages are there, and %d of them have a record", counted.Messages, found)
	}
}

func (c *checker) present(b *box, number uint32) bitset {
	k, err := getSheet(c.r, b.ID, number*sheetUIDs)
	if err != nil || k == nil {
		return bitset{}
	}
	return k.present
}

func (c *checker) compare(b, counted *box) {
	equal := func(what string, has, counted int64) {
		if has != counted {
			c.problem(b.String(), "it says %d %s, and there are %d", has, what, counted)
		}
	}
	equal("messages", int64(b.Messages), int64(counted.Messages))
	equal("unseen messages", int64(b.Unseen), int64(counted.Unseen))
	equal("deleted messages", int64(b.Deleted), int64(counted.Deleted))
	equal("octets", b.Octets, counted.Octets)
}

// readNames holds the names against the mailboxes, both ways.
func (c *checker) readNames() {
	names := 0
	for k, v := range c.table("mn") {
		owner, rest := store.TakeUint(k)
		name, _ := store.TakeText(rest)
		b := c.boxes[idOf(v)]
		if b == nil || b.removed || b.Name != name || b.Owner != Owner(owner) {
			c.problem(fmt.Sprintf("name %q of owner %d", name, owner), "it leads to no mailbox of that name")
			continue
		}
		names++
	}
	for _, b := range c.boxes {
		if !b.removed {
			names--
		}
	}
	if names != 0 {
		c.problem("mailbox names", "%d mailboxes cannot be reached by name", -names)
	}
}

func idOf(v []byte) ID {
	if len(v) != 8 {
		return 0
	}
	return ID(lastUint(v))
}

// readRemoved looks for removed mailboxes that nobody would finish.
func (c *checker) readRemoved() {
	noted := map[ID]bool{}
	for k := range c.table("mr") {
		noted[ID(lastUint(k))] = true
	}
	for id, b := range c.boxes {
		if b.removed != noted[id] {
			c.problem(b.String(), "removed is %t, and noted as removed is %t", b.removed, noted[id])
		}
	}
}

// strays looks for entries of mailboxes that do not exist. It skips from mailbox to mailbox.
func (c *checker) strays() {
	for _, table := range []string{"mm", "mf", "md", "mk", "mi"} {
		end := store.NewKey(table).End()
		for id, ok := firstIn(c.r, store.NewKey(table), end); ok; {
			if c.boxes[id] == nil {
				c.problem(fmt.Sprintf("mailbox %d", id), "it does not exist, and table %s has entries of it", table)
			}
			if id == math.MaxUint64 {
				break
			}
			id, ok = firstIn(c.r, store.NewKey(table).Uint(uint64(id)+1), end)
		}
	}
}

func firstIn(r store.Reader, from, to store.Key) (ID, bool) {
	for k := range r.Scan(from, to) {
		id, _ := store.TakeUint(k[2:])
		return ID(id), true
	}
	return 0, false
}

// structures reads the structure of each body that messages have.
func (c *checker) structures() {
	slices.Sort(c.bodies)
	for _, body := range slices.Compact(c.bodies) {
		if c.ctx.Err() != nil {
			return
		}
		if _, err := structure(c.r, body); err != nil && !errors.Is(err, store.ErrNoBody) { // of that the store tells
			c.problem("body "+body.String(), "a message has it, and its structure cannot be read: %v", err)
		}
	}
}

func (c *checker) usages() {
	for k := range c.table("mu") {
		owner := Owner(lastUint(k))
		has, err := loadUsage(c.r, owner)
		found := c.used[owner]
		found.threads = has.threads
		if err != nil || has != found {
			c.problem(fmt.Sprintf("owner %d", owner), "the sums say %+v, and there are %+v (%v)", has, found, err)
		}
		delete(c.used, owner)
	}
	for owner, u := range c.used {
		if u != (usage{}) {
			c.problem(fmt.Sprintf("owner %d", owner), "there are no sums, and there are %+v", u)
		}
	}
}

func (c *checker) validities() {
	for owner, highest := range c.validity {
		v := c.r.Get(validityKey(owner))
		if len(v) != 8 || lastUint(v) < uint64(highest) {
			c.problem(fmt.Sprintf("owner %d", owner), "a mailbox has UIDVALIDITY %d, above the last one given out", highest)
		}
	}
}
