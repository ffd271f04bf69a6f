package mailbox

import (
	"fmt"
	"math"

	"postroad/internal/store"
)

// An edit changes one mailbox within a transaction. It keeps the mailbox's numbers and
// the owner's sums together with the messages; save writes them, once.
type edit struct {
	s       *Service
	tx      store.Tx
	box     *box
	words   *keywords // nil until they are asked for
	used    usage     // how the owner's sums change
	changed bool
	event   Event // which kinds of change there were
}

func (s *Service) edit(tx store.Tx, b *box) *edit { return &edit{s: s, tx: tx, box: b} }

// save ends the edit. Watchers are told after the commit.
func (e *edit) save() error {
	if e.words != nil {
		e.words.save(e.tx, e.box.ID)
	}
	if !e.changed {
		return nil
	}
	id, hub := e.box.ID, e.s.hub
	e.box.claimed = max(e.box.claimed, hub.claimed(id))
	e.box.put(e.tx)
	claimed := e.box.claimed
	e.tx.OnCommit(func() {
		hub.recorded(id, claimed)
		hub.changed(id)
	})
	e.announce()
	return changeUsage(e.tx, e.box.Owner, e.used)
}

// announce tells the watchers what happened, but nothing of a removed mailbox.
func (e *edit) announce() {
	if b := e.box; !b.removed {
		e.event.What, e.event.Owner, e.event.Mailbox, e.event.Name = Messages, b.Owner, b.Mailbox, b.Name
		e.s.announce(e.tx, e.event)
	}
}

// nextModSeq is the modseq of the next change; no two changes share one.
func (e *edit) nextModSeq() uint64 {
	e.changed = true
	e.box.ModSeq++
	return e.box.ModSeq
}

// add puts a message in and takes what it needs of its body: a reference and the
// structure, which may be nil when another message has the body already.
func (e *edit) add(m *record, structure []byte) error {
	if err := e.place(m); err != nil {
		return err
	}
	e.tx.Ref(m.body)
	if len(structure) > 0 {
		e.tx.SetNote(m.body, structure)
	}
	return nil
}

// remove expunges a message and lets go of its body.
func (e *edit) remove(m record) {
	e.take(m)
	e.tx.Unref(m.body)
}

// place gives m its UID and modseq in this mailbox, and counts it. Of its body it takes nothing.
func (e *edit) place(m *record) error {
	if e.box.UIDNext == math.MaxUint32 {
		return fmt.Errorf("%w: %q has used up its UIDs; make a new mailbox and move the messages there", ErrLimit, e.box.Name)
	}
	m.uid, m.modseq, m.saved = e.box.UIDNext, e.nextModSeq(), e.s.o.Now().Unix()
	m.changed = false
	e.event.Arrived = true
	e.box.UIDNext++
	m.put(e.tx, e.box.ID)
	e.count(m, 1)
	return nil
}

// take expunges m; the UID is remembered with the modseq of its end.
func (e *edit) take(m record) {
	e.tx.Delete(messageKey(e.box.ID, m.uid))
	e.forget(&m)
	e.event.Expunged = true
	change{uid: m.uid, gone: true}.put(e.tx, e.box.ID, e.nextModSeq())
	e.count(&m, -1)
}

// reflag gives m other flags. Flags that are so already are no change.
func (e *edit) reflag(m *record, set flagSet) {
	if m.flags.equal(set) {
		return
	}
	e.count(m, -1)
	e.forget(m)
	e.event.Flagged = true
	m.flags, m.modseq, m.changed = set, e.nextModSeq(), true
	m.put(e.tx, e.box.ID)
	change{uid: m.uid}.put(e.tx, e.box.ID, m.modseq)
	e.count(m, 1)
}

// forget takes m's last change out of the history.
func (e *edit) forget(m *record) {
	if m.changed {
		e.tx.Delete(changeKey(e.box.ID, m.modseq))
	}
}

// count adds m to the mailbox's numbers and the owner's, or with by -1 takes it off.
func (e *edit) count(m *record, by int64) {
	e.box.count(m, by)
	e.used.octets += by * m.size
	e.used.messages += by
}

func (b *box) count(m *record, by int64) {
	n := uint32(by) // two's complement: adding it also takes off
	b.Messages += n
	b.Octets += by * m.size
	if !m.flags.has(seen) {
		b.Unseen += n
	}
	if m.flags.has(deleted) {
		b.Deleted += n
	}
}

func (e *edit) keywords() (*keywords, error) {
	if e.words != nil {
		return e.words, nil
	}
	var err error
	e.words, err = loadKeywords(e.tx, e.box.ID)
	return e.words, err
}

// flagSet reads flags that are to be set. Keywords new to the mailbox enter its table; those
// for which it has no room are returned.
func (e *edit) flagSet(flags []string) (set flagSet, over []string, err error) {
	system, names, err := splitFlags(flags)
	set.system = system
	if err != nil || len(names) == 0 {
		return set, nil, err
	}
	words, err := e.keywords()
	if err != nil {
		return set, nil, err
	}
	for _, name := range names {
		if place := words.add(name, e.s.o.Keywords); place < 0 {
			over = append(over, name)
		} else {
			set.keywords = union(set.keywords, []uint16{uint16(place)})
		}
	}
	return set, over, nil
}
