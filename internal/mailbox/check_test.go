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
		{"a sheet that is gone", func(tx store.Tx, b *box) { tx.Delete(sheetKey(b.ID, 0)) }},
		{"a sheet that cannot be read", func(tx store.Tx, b *box) { tx.Put(sheetKey(b.ID, 0), []byte{sheetRecord, 1}) }},
		{"a sheet too many", func(tx store.Tx, b *box) { tx.Put(sheetKey(b.ID, 1), (&sheet{dead: 1}).append(nil)) }},
		{"a sheet of the dead that is not there", func(tx store.Tx, b *box) { tx.Put(sheetKey(b.ID, 1), (&sheet{}).append(nil)) }},
		{"a message without record", func(tx store.Tx, b *box) { alter(tx, b, func(k *sheet) { k.present.set(3) }) }},
		{"a record without message", func(tx store.Tx, b *box) { alter(tx, b, func(k *sheet) { k.present.unset(1); b.Messages-- }) }},
		{"a message to come", func(tx store.Tx, b *box) { alter(tx, b, func(k *sheet) { k.present.set(9) }) }},
		{"one UID too many", func(tx store.Tx, b *box) { alter(tx, b, func(k *sheet) { k.came++ }) }},
		{"a flag of nothing", func(tx store.Tx, b *box) { alter(tx, b, func(k *sheet) { k.of(flagged).set(3) }) }},
		{"a keyword of nothing", func(tx store.Tx, b *box) { alter(tx, b, func(k *sheet) { k.word(0).set(3) }) }},
		{"an unknown keyword", func(tx store.Tx, b *box) { alter(tx, b, func(k *sheet) { k.word(7).set(1) }) }},
		{"no modseq", func(tx store.Tx, b *box) { alter(tx, b, func(k *sheet) { k.modseqs[2] = 0 }) }},
		{"a modseq to come", func(tx store.Tx, b *box) { alter(tx, b, func(k *sheet) { k.modseqs[2] = 99 }) }},
		{"a modseq above the mailbox's", func(tx store.Tx, b *box) { alter(tx, b, func(k *sheet) { k.modseqs[2], k.highest = 99, 99 }) }},
		{"what nobody would drop", func(tx store.Tx, b *box) { tx.Delete(doomedKey(b.ID, 0)) }},
		{"entries of no mailbox", func(tx store.Tx, b *box) { tx.Put(doomedKey(b.ID+1, 1), []byte{1}) }},
		{"sheets of no mailbox", func(tx store.Tx, b *box) { tx.Put(sheetKey(b.ID+1, 1), []byte{1}) }},
		{"keywords of no mailbox", func(tx store.Tx, b *box) { tx.Put(keywordsKey(^ID(0)), []byte{1, 0}) }},
		{"a structure that is gone", func(tx store.Tx, b *box) { tx.SetNote(bodyOf(tx, b), nil) }},
		{"a structure that cannot be read", func(tx store.Tx, b *box) { tx.SetNote(bodyOf(tx, b), []byte{9}) }},
		{"sums", func(tx store.Tx, b *box) { usage{1, 2, 3, 0}.put(tx, b.Owner) }},
		{"sums that are gone", func(tx store.Tx, b *box) { tx.Delete(usageKey(b.Owner)) }},
		{"sums of nobody", func(tx store.Tx, b *box) { usage{1, 2, 3, 0}.put(tx, b.Owner+1) }},
		{"no last UIDVALIDITY", func(tx store.Tx, b *box) { tx.Delete(validityKey(b.Owner)) }},
		{"a block that cannot be read", func(tx store.Tx, b *box) { tx.Put(blockKey(b.ID, 1), []byte{9}) }},
		{"a block of messages to come", func(tx store.Tx, b *box) { (&blockRecord{first: 1, last: 99}).put(tx, b.ID) }},
		{"a block of no mailbox", func(tx store.Tx, b *box) { (&blockRecord{first: 1, last: 1}).put(tx, b.ID+1) }},
		{"threads of nobody", func(tx store.Tx, b *box) { tx.Put(threadKey(b.Owner+1, 0, 7), make([]byte, 8)) }},
		{"threads to come", func(tx store.Tx, b *box) { tx.Put(threadKey(b.Owner, 1, 7), make([]byte, 8)) }},
		{"a block that is no block", func(tx store.Tx, b *box) {
			message := bodyOf(tx, b)
			tx.Ref(message)
			(&blockRecord{first: 1, last: 2, body: message}).put(tx, b.ID)
		}},
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
			if _, err = h.Store(t.Context(), id, set(1), AddFlags, []string{`\Flagged`}, nil); err != nil {
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

// A message that a block of the index covers and does not know of would never be found.
func TestCheckFindsWhatNoSearchWould(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, indexedMessages)
	h.must(h.Reindex(t.Context(), id))
	h.sound()
	h.append(id, small)
	stretch := func(by UID) {
		h.must(h.st.Update(func(tx store.Tx) error {
			b := loadBlocks(tx, id)[0]
			b.last += by
			b.put(tx, id)
			return nil
		}))
	}
	stretch(1)
	problems, err := h.Check(t.Context())
	h.must(err)
	stretch(^UID(0))
	if len(problems) != 1 {
		t.Errorf("found %v", problems)
	}
}

// alter writes the first sheet anew.
func alter(tx store.Tx, b *box, fn func(*sheet)) {
	var k sheet
	if err := decodeSheet(&k, b.ID, 0, tx.Get(sheetKey(b.ID, 0)), andModSeqs); err != nil {
		panic(err)
	}
	fn(&k)
	tx.Put(sheetKey(b.ID, 0), k.append(nil))
	b.put(tx)
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
