package mailbox

import (
	"fmt"
	"math"

	"postroad/internal/store"
)

// An edit changes one mailbox within a transaction. It keeps the mailbox's numbers, its sheets and
// the owner's sums together with the messages; save writes them, once.
type edit struct {
	s       *Service
	tx      store.Tx
	box     *box
	words   *keywords // nil until they are asked for
	used    usage     // how the owner's sums change
	event   Event     // which kinds of change there were
	changed bool      // then box.ModSeq is that of the changes, all of them
	sheets  []*sheet  // in the order in which they were first asked for
	doomed  bool      // something is left for purge
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
	touched, err := e.saveSheets()
	if err != nil {
		return err
	}
	id, modseq, hub := e.box.ID, e.box.ModSeq, e.s.hub
	e.box.claimed = max(e.box.claimed, hub.claimed(id))
	e.box.put(e.tx)
	claimed, doomed := e.box.claimed, e.doomed
	e.tx.OnCommit(func() {
		hub.recorded(id, claimed)
		hub.changed(id, modseq, touched)
		if doomed {
			e.s.wakePurge()
		}
	})
	e.announce()
	return changeUsage(e.tx, e.box.Owner, e.used)
}

// announce tells the watchers what happened to messages, but nothing of a removed mailbox.
func (e *edit) announce() {
	if b := e.box; !b.removed && (e.event.Arrived || e.event.Expunged || e.event.Flagged) {
		e.event.What, e.event.Owner, e.event.Mailbox, e.event.Name = Messages, b.Owner, b.Mailbox, b.Name
		e.s.announce(e.tx, e.event)
	}
}

// saveSheets writes the sheets and returns their numbers, unless one of them is no longer a record of its own.
func (e *edit) saveSheets() (touched []uint32, err error) {
	died := false
	for _, b := range e.sheets {
		touched = append(touched, b.number)
		if !b.isDead() {
			e.tx.Put(sheetKey(e.box.ID, b.number), b.append(nil))
		} else if err := bury(e.tx, e.box.ID, b); err != nil {
			return nil, err
		}
		died = died || b.isDead()
		e.s.sheets.Put(b)
	}
	e.sheets = nil
	if died {
		return nil, nil
	}
	return touched, nil
}

// bury makes one record of a sheet without messages and of those beside it.
func bury(tx store.Tx, id ID, b *sheet) error {
	tx.Delete(sheetKey(id, b.number))
	grave := sheet{number: b.number, dead: 1, highest: b.highest}
	var other sheet
	join := func(number uint32, v []byte) error {
		if err := decodeSheet(&other, id, number, v, presence); err != nil || other.dead == 0 {
			return err
		}
		if other.number+other.dead == grave.number || grave.number+grave.dead == other.number {
			tx.Delete(sheetKey(id, number))
			grave.number, grave.dead = min(grave.number, other.number), grave.dead+other.dead
			grave.highest = max(grave.highest, other.highest)
		}
		return nil
	}
	if number, v := lastSheetBefore(tx, id, b.number); v != nil {
		if err := join(number, v); err != nil {
			return err
		}
	}
	if v := tx.Get(sheetKey(id, b.number+1)); v != nil {
		if err := join(b.number+1, v); err != nil {
			return err
		}
	}
	tx.Put(sheetKey(id, grave.number), grave.append(nil))
	return nil
}

func lastSheetBefore(r store.Reader, id ID, number uint32) (uint32, []byte) {
	for k, v := range r.ScanBack(sheetsOf(id), sheetKey(id, number)) {
		return uint32(lastUint(k)), v
	}
	return 0, nil
}

// sheet returns the sheet of a UID, entire, and the message's place there.
func (e *edit) sheet(uid UID) (*sheet, uint, error) {
	number, i := sheetOf(uid)
	for n := len(e.sheets) - 1; n >= 0; n-- {
		if e.sheets[n].number == number {
			return e.sheets[n], i, nil
		}
	}
	b := e.s.takeSheet()
	if v := e.tx.Get(sheetKey(e.box.ID, number)); v == nil {
		*b = sheet{number: number, words: b.words[:0]}
	} else if err := decodeSheet(b, e.box.ID, number, v, andModSeqs); err != nil {
		return nil, 0, err
	} else if b.dead > 0 {
		return nil, 0, fmt.Errorf("message %d of mailbox %d, in a sheet without messages: %w", uid, e.box.ID, store.ErrRecord)
	}
	e.sheets = append(e.sheets, b)
	return b, i, nil
}

// modseq is that of the edit's changes: what happens in one transaction has one (RFC 7162, 3.1).
func (e *edit) modseq() uint64 {
	if !e.changed {
		e.changed = true
		e.box.ModSeq++
	}
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

// place gives m its UID and modseq in this mailbox, and counts it. Of its body it takes nothing.
func (e *edit) place(m *record) error {
	if e.box.UIDNext == math.MaxUint32 {
		return fmt.Errorf("%w: %q has used up its UIDs; make a new mailbox and move the messages there", ErrLimit, e.box.Name)
	}
	b, i, err := e.sheet(e.box.UIDNext)
	if err != nil {
		return err
	}
	m.uid, m.modseq, m.saved = e.box.UIDNext, e.modseq(), e.s.o.Now().Unix()
	e.event.Arrived = true
	e.box.UIDNext++
	b.place(i, m.flags, m.modseq)
	m.put(e.tx, e.box.ID)
	e.count(1, m.size)
	if !m.flags.has(seen) {
		e.box.Unseen++
	}
	if m.flags.has(deleted) {
		e.box.Deleted++
	}
	return nil
}

// count adds messages to the mailbox's numbers and the owner's.
func (e *edit) count(messages int, octets int64) {
	e.box.Messages += uint32(messages) // two's complement: adding a negative number takes off
	e.box.Octets += octets
	e.used.octets += octets
	e.used.messages += int64(messages)
}

// take takes messages of a sheet out. What they had besides is left where it is. octets is their size.
func (e *edit) take(b *sheet, gone *bitset, octets int64) {
	n := gone.count()
	isSeen, isDeleted := gone.and(b.of(seen)), gone.and(b.of(deleted))
	e.box.Unseen -= uint32(n - isSeen.count())
	e.box.Deleted -= uint32(isDeleted.count())
	e.count(-n, -octets)
	e.event.Expunged = true
	b.take(gone, e.modseq())
}

// remove expunges messages of a sheet. Their records and bodies are left for purge, which comes after the client was
// told: letting go of the bodies of many messages takes far longer than taking the messages out.
func (e *edit) remove(b *sheet, gone *bitset) error {
	octets, err := octets(e.tx, e.box.ID, b, gone)
	if err != nil {
		return err
	}
	e.take(b, gone, octets)
	e.tx.Put(doomedKey(e.box.ID, b.number), []byte{recordVersion})
	e.doomed = true
	return nil
}

// octets is the size of messages together.
func octets(r store.Reader, id ID, b *sheet, of *bitset) (n int64, err error) {
	err = facts(r, id, b, *of, func(m *record) error {
		n += m.size
		return nil
	})
	return n, err
}

// reflag changes the flags of messages of a sheet. Flags that are so already are no change.
func (e *edit) reflag(b *sheet, target *bitset, op FlagOp, f flagSet) (changed bitset) {
	unseen, doomed := b.present.without(b.of(seen)), *b.of(deleted)
	if changed = b.reflag(target, op, f, e.box.ModSeq+e.ahead()); changed.empty() {
		return changed
	}
	e.modseq()
	e.event.Flagged = true
	unseenNow := b.present.without(b.of(seen))
	e.box.Unseen += uint32(unseenNow.count() - unseen.count())
	e.box.Deleted += uint32(b.of(deleted).count() - doomed.count())
	return changed
}

// ahead is how far modseq would rise.
func (e *edit) ahead() uint64 {
	if e.changed {
		return 0
	}
	return 1
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
