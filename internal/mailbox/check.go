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

// Check recounts every mailbox and returns what does not agree, at most 1,000 problems: numbers against messages,
// messages against the history of changes, sums against owners; and whether the structures can be read.
// It reads everything in one transaction, so that the figures belong together, and keeps 8 octets for each message.
func (s *Service) Check(ctx context.Context) ([]store.Problem, error) {
	var c *checker
	err := s.st.View(func(r store.Reader) error {
		c = &checker{ctx: ctx, r: r, boxes: map[ID]*box{}, used: map[Owner]usage{}, validity: map[Owner]uint32{}}
		return c.check()
	})
	if err != nil {
		return nil, err
	}
	return c.problems, nil
}

type checker struct {
	ctx      context.Context
	r        store.Reader
	problems []store.Problem

	boxes    map[ID]*box
	bodies   []store.ID // one for each message
	used     map[Owner]usage
	validity map[Owner]uint32 // the highest
}

func (c *checker) check() error {
	steps := []func(){c.readBoxes, c.readNames, c.readRemoved, c.strays, c.structures, c.usages, c.validities, c.grants, c.annotations}
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

// box holds one mailbox's numbers against its messages.
func (c *checker) box(b *box) {
	words, err := loadKeywords(c.r, b.ID)
	if err != nil {
		c.problem(b.String(), "%v", err)
		words = &keywords{}
	}
	counted := &box{}
	var changed uint32
	var arrived uint64 // the modseq of the last arrival that never changed
	prefix := messagesOf(b.ID)
	for k, v := range c.r.Scan(prefix, prefix.End()) {
		if c.ctx.Err() != nil {
			return
		}
		m, err := decodeRecord(b.ID, UID(lastUint(k)), v)
		if err != nil {
			c.problem(b.String(), "%v", err)
			continue
		}
		counted.count(&m, 1)
		c.bodies = append(c.bodies, m.body)
		c.message(b, &m, words)
		switch {
		case m.changed:
			changed++
		case m.modseq <= arrived:
			c.problem(b.String(), "message %d has modseq %d, not above those that came before it", m.uid, m.modseq)
		default:
			arrived = m.modseq
		}
	}
	c.history(b, changed)
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

func (c *checker) message(b *box, m *record, words *keywords) {
	if m.uid == 0 || m.uid >= b.UIDNext {
		c.problem(b.String(), "message %d is not below UIDNEXT %d", m.uid, b.UIDNext)
	}
	if m.modseq > b.ModSeq {
		c.problem(b.String(), "message %d has modseq %d, above the mailbox's %d", m.uid, m.modseq, b.ModSeq)
	}
	if m.changed && !c.knows(b.ID, m) {
		c.problem(b.String(), "message %d has modseq %d, and the history knows nothing of it", m.uid, m.modseq)
	}
	for _, k := range m.flags.keywords {
		if int(k) >= len(words.names) {
			c.problem(b.String(), "message %d has keyword %d of %d", m.uid, k, len(words.names))
		}
	}
}

// knows says whether the history has the last change of a message.
func (c *checker) knows(id ID, m *record) bool {
	v := c.r.Get(changeKey(id, m.modseq))
	return v != nil && decodeChange(v) == change{uid: m.uid}
}

// history looks for changes without a message, and ends of messages that live. Each message that has changed
// was found to have its entry, so the number of entries shows whether there are others.
func (c *checker) history(b *box, changed uint32) {
	var living uint32
	prefix := changesOf(b.ID)
	for k, v := range c.r.Scan(prefix, prefix.End()) {
		ch := decodeChange(v)
		if modseq := lastUint(k); modseq > b.ModSeq {
			c.problem(b.String(), "the history has modseq %d, above the mailbox's %d", modseq, b.ModSeq)
		}
		if ch.uid == 0 || ch.uid >= b.UIDNext {
			c.problem(b.String(), "the history has message %d, not below UIDNEXT %d", ch.uid, b.UIDNext)
		}
		if !ch.gone {
			living++
		} else if c.r.Get(messageKey(b.ID, ch.uid)) != nil {
			c.problem(b.String(), "message %d is there, and was expunged", ch.uid)
		}
	}
	if living != changed {
		c.problem(b.String(), "the history has %d living messages, and %d of the mailbox have changed", living, changed)
	}
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
	for _, table := range []string{"mm", "mc", "mk", "mi"} {
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
		if err != nil || has != c.used[owner] {
			c.problem(fmt.Sprintf("owner %d", owner), "the sums say %+v, and there are %+v (%v)", has, c.used[owner], err)
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
