package mailbox

import (
	"slices"
	"testing"

	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// Each damage to the tables is found.
func TestCheckFinds(t *testing.T) {
	for _, c := range []struct {
		what   string
		damage func(tx store.Tx, b *box)
	}{
		{"nothing", nil},
		{"a count", func(tx store.Tx, b *box) { b.Messages++; b.put(tx) }},
		{"unseen", func(tx store.Tx, b *box) { b.Unseen--; b.put(tx) }},
		{"deleted", func(tx store.Tx, b *box) { b.Deleted++; b.put(tx) }},
		{"octets", func(tx store.Tx, b *box) { b.Octets++; b.put(tx) }},
		{"a modseq that is too low", func(tx store.Tx, b *box) { b.ModSeq -= 2; b.put(tx) }},
		{"a UIDNEXT that is too low", func(tx store.Tx, b *box) { b.UIDNext = 2; b.put(tx) }},
		{"a mailbox that is gone", func(tx store.Tx, b *box) { tx.Delete(boxKey(b.ID)) }},
		{"a mailbox that cannot be read", func(tx store.Tx, b *box) { tx.Put(boxKey(b.ID), []byte{9}) }},
		{"a removed mailbox with a name", func(tx store.Tx, b *box) { b.removed = true; b.put(tx) }},
		{"a name that is gone", func(tx store.Tx, b *box) { tx.Delete(nameKey(b.Owner, b.Name)) }},
		{"a name of nothing", func(tx store.Tx, b *box) { tx.Put(nameKey(b.Owner, "x"), []byte{1}) }},
		{"two names", func(tx store.Tx, b *box) { tx.Put(nameKey(b.Owner, "x"), tx.Get(nameKey(b.Owner, b.Name))) }},
		{"a message that is gone", func(tx store.Tx, b *box) { tx.Delete(messageKey(b.ID, 2)) }},
		{"a message that cannot be read", func(tx store.Tx, b *box) { tx.Put(messageKey(b.ID, 2), []byte{1}) }},
		{"a keyword without name", func(tx store.Tx, b *box) { tx.Delete(keywordsKey(b.ID)) }},
		{"keywords that cannot be read", func(tx store.Tx, b *box) { tx.Put(keywordsKey(b.ID), []byte{7}) }},
		{"an arrival out of order", func(tx store.Tx, b *box) { alter(tx, b, 4, func(m *record) { m.modseq = 2 }) }},
		{"a change that is not told", func(tx store.Tx, b *box) { alter(tx, b, 1, func(m *record) { m.changed = false }) }},
		{"a change without history", func(tx store.Tx, b *box) { alter(tx, b, 2, func(m *record) { m.changed = true }) }},
		{"a change that is gone", func(tx store.Tx, b *box) { tx.Delete(changeKey(b.ID, 7)) }},
		{"a change too many", func(tx store.Tx, b *box) { change{uid: 1}.put(tx, b.ID, 1) }},
		{"a change of another", func(tx store.Tx, b *box) { change{uid: 2}.put(tx, b.ID, 7) }},
		{"an end of a living message", func(tx store.Tx, b *box) { change{1, true}.put(tx, b.ID, 1) }},
		{"a change of a message to come", func(tx store.Tx, b *box) { change{99, true}.put(tx, b.ID, 1) }},
		{"entries of no mailbox", func(tx store.Tx, b *box) { change{1, true}.put(tx, b.ID+1, 1) }},
		{"keywords of no mailbox", func(tx store.Tx, b *box) { tx.Put(keywordsKey(^ID(0)), []byte{1, 0}) }},
		{"a structure that is gone", func(tx store.Tx, b *box) { tx.SetNote(bodyOf(tx, b), nil) }},
		{"a structure that cannot be read", func(tx store.Tx, b *box) { tx.SetNote(bodyOf(tx, b), []byte{9}) }},
		{"sums", func(tx store.Tx, b *box) { usage{1, 2, 3}.put(tx, b.Owner) }},
		{"sums that are gone", func(tx store.Tx, b *box) { tx.Delete(usageKey(b.Owner)) }},
		{"sums of nobody", func(tx store.Tx, b *box) { usage{1, 2, 3}.put(tx, b.Owner+1) }},
		{"no last UIDVALIDITY", func(tx store.Tx, b *box) { tx.Delete(validityKey(b.Owner)) }},
		{"a block that cannot be read", func(tx store.Tx, b *box) { tx.Put(blockKey(b.ID, 1), []byte{9}) }},
		{"a block of messages to come", func(tx store.Tx, b *box) { (&blockRecord{first: 1, last: 99}).put(tx, b.ID) }},
		{"a block of no mailbox", func(tx store.Tx, b *box) { (&blockRecord{first: 1, last: 1}).put(tx, b.ID+1) }},
		{"a removal of nothing", func(tx store.Tx, b *box) { tx.Put(removedKey(b.Owner, b.ID), []byte{1}) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := house{t, New(storetest.Open(t), Options{})}
			id := h.box("a").ID
			h.append(id, small, "x")
			h.append(id, small, `\Seen`, "y")
			h.append(id, small, `\Deleted`)
			h.kill(id, 3)
			_, _, err := h.Copy(t.Context(), id, set(1), id)
			h.must(err)
			if _, _, err = h.Store(t.Context(), id, set(1), AddFlags, []string{`\Flagged`}, 0); err != nil {
				t.Fatal(err)
			}
			if c.damage == nil {
				h.sound()
				return
			}
			h.must(h.st.Update(func(tx store.Tx) error {
				b, err := loadBox(tx, id)
				if err == nil {
					c.damage(tx, b)
				}
				return err
			}))
			problems, err := h.Check(t.Context())
			h.must(err)
			if len(problems) == 0 {
				t.Error("found nothing")
			}
		})
	}
}

// alter writes a message anew, without its mailbox knowing.
func alter(tx store.Tx, b *box, uid UID, fn func(*record)) {
	m, _, _ := getRecord(tx, b.ID, uid)
	fn(&m)
	m.put(tx, b.ID)
}

// bodyOf returns a body that b's messages have.
func bodyOf(r store.Reader, b *box) store.ID {
	m, _, _ := getRecord(r, b.ID, 1)
	return m.body
}

func TestCheckStops(t *testing.T) {
	h := open(t, Options{})
	h.box("a")
	if _, err := h.Check(stop(t, 2)); err == nil {
		t.Error("a cancelled check says that all is well")
	}
}

func TestReferences(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.append(id, small)
	h.append(id, small)
	_, _, err := h.Copy(t.Context(), id, set(1), h.box("b").ID)
	h.must(err)
	list := h.all(id)
	want := []store.ID{list[0].Body, list[0].Body, list[1].Body}
	var got []store.ID
	h.must(h.st.View(func(r store.Reader) error {
		got = slices.Sorted(h.References(r))
		return nil
	}))
	equal(t, "references", got, want)
}
