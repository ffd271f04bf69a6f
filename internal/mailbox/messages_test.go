package mailbox

import (
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/store"
)

func TestAppend(t *testing.T) {
	now := time.Unix(1.7e9, 5e8)
	h := open(t, Options{Now: func() time.Time { return now }})
	m := h.box("a")
	zone := time.FixedZone("", -(3*60+30)*60)
	internal := time.Date(2020, 2, 29, 23, 59, 58, 0, zone)
	d, structure := h.draft(small)
	var inTx Placed
	placed, err := h.Append(m.ID, d, structure, internal, []string{`\seen`, "Work"}, func(_ store.Tx, p Placed) error {
		inTx = p
		return nil
	})
	h.must(err)
	if want := (Placed{m.ID, "a", m.UIDValidity, 1}); placed != want || inTx != want {
		t.Errorf("placed %+v, in the transaction %+v, want %+v", placed, inTx, want)
	}
	got, err := h.Message(m.ID, 1)
	h.must(err)
	if got.Size != int64(len(small)) || got.ModSeq != 2 || show([]Message{got}) != `1Work\Seen` {
		t.Errorf("got %+v", got)
	}
	if !got.Internal.Equal(internal) || got.Internal.Format(time.RFC3339) != "2020-02-29T23:59:58-03:30" {
		t.Errorf("INTERNALDATE is %v", got.Internal)
	}
	if got.Saved.Unix() != now.Unix() {
		t.Errorf("saved at %v", got.Saved)
	}
	b, err := h.OpenBody(got.Body)
	h.must(err)
	defer b.Close()
	if text, err := io.ReadAll(b.Reader()); string(text) != small || err != nil {
		t.Errorf("the body is %q, %v", text, err)
	}
	if s, err := h.Structure(got.Body); err != nil || s.Envelope.Subject != "hello" {
		t.Errorf("the structure is %+v, %v", s, err)
	}
	box := h.now(m.ID)
	if box.Messages != 1 || box.Unseen != 0 || box.Octets != int64(len(small)) || box.UIDNext != 2 || box.ModSeq != 2 {
		t.Errorf("the mailbox is %+v", box)
	}
}

func TestAppendFails(t *testing.T) {
	refused := errors.New("refused")
	h := open(t, Options{Quota: func(store.Reader, Owner) Quota { return Quota{Octets: 2 * int64(len(small))} }})
	id := h.box("a").ID
	h.append(id, small)
	h.append(id, small)
	for _, c := range []struct {
		what  string
		id    ID
		flags []string
		want  error
	}{
		{"over quota", id, nil, ErrOverQuota},
		{"no such mailbox", id + 1, nil, ErrNotFound},
	} {
		d, structure := h.draft(small)
		if _, err := h.Append(c.id, d, structure, time.Now(), c.flags, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	h.kill(id, 1)
	before := h.now(id)
	for _, c := range []struct {
		what string
		flag string
		also func(store.Tx, Placed) error
		want error
	}{
		{"an impossible flag", "a b", nil, ErrFlag},
		{"refused in the transaction", "new", func(store.Tx, Placed) error { return refused }, refused},
	} {
		d, structure := h.draft(small)
		if _, err := h.Append(id, d, structure, time.Now(), []string{c.flag}, c.also); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if got := h.now(id); got != before {
		t.Errorf("the mailbox changed from %+v to %+v", before, got)
	}
	if s := h.st.Stats(); s.Bodies != 1 {
		t.Errorf("there are %d bodies", s.Bodies)
	}
}

// Mail is delivered by name, makes INBOX, and is not asked for the quota.
func TestAdd(t *testing.T) {
	h := open(t, Options{Quota: func(store.Reader, Owner) Quota { return Quota{Octets: 1} }})
	d, structure := h.draft(small)
	b, err := structure.AppendBinary(nil)
	h.must(err)
	a := Arrival{Body: d.ID(), Size: d.Size(), Structure: b}
	var first, second Placed
	h.must(h.st.Update(func(tx store.Tx) (err error) {
		if first, err = h.Add(tx, owner, "inbox", a); err != nil {
			return err
		}
		second, err = h.Add(tx, owner, "INBOX", a)
		return err
	}, d))
	if first.Name != inbox || first.UID != 1 || second.UID != 2 || second.Mailbox != first.Mailbox {
		t.Errorf("placed %+v and %+v", first, second)
	}
	// The same body again, in transactions of their own, to other owners.
	for o := owner; o < owner+3; o++ {
		h.must(h.st.Update(func(tx store.Tx) error {
			_, err := h.Add(tx, o, inbox, a)
			return err
		}))
	}
	if got := h.show(first.Mailbox); got != "1 2 3" {
		t.Errorf("INBOX has %s", got)
	}
	if m := h.all(first.Mailbox)[0]; time.Since(m.Internal) > time.Hour {
		t.Errorf("INTERNALDATE is %v", m.Internal)
	}
	if err := h.st.Update(func(tx store.Tx) error { _, err := h.Add(tx, owner, "other", a); return err }); !errors.Is(err, ErrNotFound) {
		t.Errorf("a mailbox that is not there: %v", err)
	}
	h.kill(first.Mailbox, 1, 2, 3)
	if s, err := h.Structure(a.Body); err != nil || s.Size != a.Size {
		t.Errorf("the structure while others have the body: %v", err)
	}
	h.must(h.RemoveAll(t.Context(), owner+1))
	h.must(h.RemoveAll(t.Context(), owner+2))
	if _, err := h.Structure(a.Body); !errors.Is(err, store.ErrNoBody) {
		t.Errorf("the structure after the last: %v", err)
	}
}

// A structure that was not kept, or that nobody can read, is worked out again.
func TestStructureIsWorkedOut(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.append(id, small)
	body := h.all(id)[0].Body
	keep := func(note []byte) {
		h.must(h.st.Update(func(tx store.Tx) error {
			tx.SetNote(body, note)
			return nil
		}))
	}
	s, err := h.Structure(body)
	h.must(err)
	good, err := s.AppendBinary(nil)
	h.must(err)
	defer keep(good) // Check wants it
	for _, kept := range [][]byte{nil, {0xff, 1, 2}} {
		keep(kept)
		if s, err := h.Structure(body); err != nil || s.Envelope.Subject != "hello" {
			t.Errorf("kept %x: %+v, %v", kept, s, err)
		}
	}
}

func TestUIDsUsedUp(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.must(h.st.Update(func(tx store.Tx) error {
		b, err := loadBox(tx, id)
		b.UIDNext = math.MaxUint32 - 1
		b.put(tx)
		return err
	}))
	if uid := h.append(id, small); uid != math.MaxUint32-1 {
		t.Errorf("the last UID is %d", uid)
	}
	if got := h.show(id); got != "4294967294" {
		t.Errorf("the mailbox has %s", got)
	}
	h.mark(id, AddFlags, `\Seen`, math.MaxUint32-1)
	d, structure := h.draft(small)
	if _, err := h.Append(id, d, structure, time.Now(), nil, nil); !errors.Is(err, ErrLimit) {
		t.Errorf("one more: %v", err)
	}
}

func TestModSeq(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	for range 4 {
		h.append(id, small)
	}
	h.mark(id, AddFlags, `\Seen`, 1, 3)
	h.mark(id, AddFlags, `\Seen`, 3, 4) // nothing new for 3
	var got []uint64
	for _, m := range h.all(id) {
		got = append(got, m.ModSeq)
	}
	equal(t, "modseqs", got, []uint64{6, 3, 7, 8})

	changed, modified, err := h.Store(t.Context(), id, nil, AddFlags, []string{`\Flagged`}, 6)
	h.must(err)
	if show(changed) != `1\Flagged\Seen 2\Flagged` {
		t.Errorf("changed %s", show(changed))
	}
	equal(t, "modified since", modified.ToArray(), []uint32{3, 4})
	h.kill(id, 2)
	if m := h.now(id); m.ModSeq != 12 { // \Deleted, and the end
		t.Errorf("the highest modseq is %d", m.ModSeq)
	}
	for _, c := range []struct {
		since uint64
		uids  *roaring.Bitmap
		want  []uint32
	}{{0, nil, []uint32{2}}, {11, nil, []uint32{2}}, {12, nil, nil}, {0, set(1, 3), nil}, {0, set(1, 2), []uint32{2}}} {
		gone, err := h.Vanished(id, c.since, c.uids)
		h.must(err)
		equal(t, "vanished", gone.ToArray(), c.want)
	}
}

func TestExpunge(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 5)
	h.mark(id, AddFlags, `\Deleted`, 1, 3, 5)
	gone, err := h.Expunge(t.Context(), id, set(1, 2, 9))
	h.must(err)
	equal(t, "expunged of some", gone.ToArray(), []uint32{1})
	gone, err = h.Expunge(t.Context(), id, nil)
	h.must(err)
	equal(t, "expunged of all", gone.ToArray(), []uint32{3, 5})
	if gone, err = h.Expunge(t.Context(), id, nil); !gone.IsEmpty() || err != nil {
		t.Errorf("expunged of none: %v, %v", gone, err)
	}
	if got := h.show(id); got != "2 4" {
		t.Errorf("left: %s", got)
	}
	if uid := h.append(id, small); uid != 6 {
		t.Errorf("the next UID is %d", uid)
	}
	if _, err := h.Expunge(t.Context(), id+1, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("no mailbox: %v", err)
	}
	if _, err := h.Message(id, 3); !errors.Is(err, ErrExpunged) {
		t.Errorf("an expunged message: %v", err)
	}
}

// Bulk work goes in steps; what is done when it stops is told.
func TestBulk(t *testing.T) {
	const n = 2*bulkStep + 7
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, n)
	changed, _, err := h.Store(stop(t, 2), id, nil, AddFlags, []string{`\Deleted`}, 0)
	if len(changed) != 2*bulkStep || err == nil {
		t.Errorf("stopped store changed %d, %v", len(changed), err)
	}
	changed, _, err = h.Store(t.Context(), id, nil, AddFlags, []string{`\Deleted`}, 0)
	h.must(err)
	if len(changed) != n || h.now(id).Deleted != n {
		t.Errorf("store changed %d, %+v", len(changed), h.now(id))
	}
	pages := n/pageSize + 1
	gone, err := h.Expunge(stop(t, pages+1), id, nil)
	if gone.GetCardinality() != bulkStep || err == nil || h.now(id).Messages != n-bulkStep {
		t.Errorf("stopped expunge removed %d, %v", gone.GetCardinality(), err)
	}
	h.sound()
	gone, err = h.Expunge(t.Context(), id, nil)
	h.must(err)
	if gone.GetCardinality() != n-bulkStep || h.now(id).Messages != 0 {
		t.Errorf("expunge removed %d, left %+v", gone.GetCardinality(), h.now(id))
	}
}

func TestCopy(t *testing.T) {
	h := open(t, Options{})
	from, to := h.box("a"), h.box("b")
	h.append(from.ID, small, "x", `\Seen`)
	h.append(from.ID, small+"more")
	h.append(from.ID, small, "y", "x")
	h.append(to.ID, small, "Y")
	h.kill(from.ID, 2)
	m, pairs, err := h.Copy(t.Context(), from.ID, set(1, 2, 3, 70), to.ID)
	h.must(err)
	equal(t, "pairs", pairs, []Pair{{1, 2}, {3, 3}})
	if m.ID != to.ID || m.Messages != 3 || m.UIDValidity != to.UIDValidity {
		t.Errorf("the target is %+v", m)
	}
	if got := h.show(to.ID); got != `1Y 2\Seenx 3Yx` {
		t.Errorf("the target has %s", got)
	}
	if got := h.show(from.ID); got != `1\Seenx 3xy` {
		t.Errorf("the source has %s", got)
	}
	if a, b := h.all(from.ID)[0], h.all(to.ID)[1]; a.Body != b.Body || !a.Internal.Equal(b.Internal) {
		t.Errorf("the copy is %+v of %+v", b, a)
	}
	_, pairs, err = h.Copy(t.Context(), from.ID, nil, from.ID)
	h.must(err)
	equal(t, "pairs within", pairs, []Pair{{1, 4}, {3, 5}})
	if _, pairs, err = h.Copy(t.Context(), from.ID, set(99), to.ID); len(pairs) != 0 || err != nil {
		t.Errorf("copy of none: %v, %v", pairs, err)
	}
	for _, ids := range [][2]ID{{from.ID, 1}, {1, to.ID}} {
		if _, _, err := h.Copy(t.Context(), ids[0], nil, ids[1]); !errors.Is(err, ErrNotFound) {
			t.Errorf("no mailbox: %v", err)
		}
	}
}

// A copy that fails on the way leaves nothing but used UIDs, which the history remembers.
func TestCopyIsAllOrNone(t *testing.T) {
	const n = 2*bulkStep + 1
	limit := int64(math.MaxInt64)
	h := open(t, Options{Quota: func(store.Reader, Owner) Quota { return Quota{Octets: limit} }})
	from, to := h.box("a").ID, h.box("b").ID
	h.fill(from, n)
	limit = (n + bulkStep + 10) * int64(len(small))
	if _, pairs, err := h.Copy(t.Context(), from, nil, to); !errors.Is(err, ErrOverQuota) || len(pairs) != 0 {
		t.Errorf("over quota: %d pairs, %v", len(pairs), err)
	}
	if got := h.now(to); got.Messages != 0 || got.UIDNext != bulkStep+1 {
		t.Errorf("the target is %+v", got)
	}
	limit = math.MaxInt64
	if _, pairs, err := h.Copy(stop(t, n/pageSize+1+2), from, nil, to); err == nil || len(pairs) != 0 {
		t.Errorf("cancelled: %d pairs, %v", len(pairs), err)
	}
	if got := h.now(to); got.Messages != 0 {
		t.Errorf("the target is %+v", got)
	}
	if _, pairs, err := h.Copy(t.Context(), from, nil, to); err != nil || len(pairs) != n {
		t.Errorf("then: %d pairs, %v", len(pairs), err)
	}
}

func TestMove(t *testing.T) {
	quota := int64(0)
	h := open(t, Options{Quota: func(store.Reader, Owner) Quota { return Quota{Octets: quota} }})
	from, to := h.box("a").ID, h.box("b").ID
	h.append(from, small, "x", `\Deleted`)
	h.append(from, small)
	quota = 1
	m, pairs, err := h.Move(t.Context(), from, set(1, 5), to)
	h.must(err)
	equal(t, "pairs", pairs, []Pair{{1, 1}})
	if m.ID != to || m.Messages != 1 || h.show(from) != "2" || h.show(to) != `1\Deletedx` {
		t.Errorf("from %s, to %s, %+v", h.show(from), h.show(to), m)
	}
	_, pairs, err = h.Move(t.Context(), to, nil, to)
	h.must(err)
	equal(t, "pairs within", pairs, []Pair{{1, 2}})
	gone, err := h.Vanished(to, 0, nil)
	h.must(err)
	equal(t, "vanished", gone.ToArray(), []uint32{1})
	other, err := h.Create(owner+1, "a", "")
	h.must(err)
	if _, _, err := h.Move(t.Context(), to, nil, other.ID); !errors.Is(err, ErrOverQuota) {
		t.Errorf("to an owner without room: %v", err)
	}
	quota = 0
	if _, _, err := h.Move(t.Context(), to, nil, other.ID); err != nil || h.show(other.ID) != `1\Deletedx` {
		t.Errorf("to another owner: %s, %v", h.show(other.ID), err)
	}
}

func TestBulkMoveStops(t *testing.T) {
	const n = 2*bulkStep + 1
	h := open(t, Options{})
	from, to := h.box("a").ID, h.box("b").ID
	h.fill(from, n)
	_, pairs, err := h.Move(stop(t, n/pageSize+1+2), from, nil, to)
	if err == nil || len(pairs) != 2*bulkStep || h.now(from).Messages != 1 || h.now(to).Messages != 2*bulkStep {
		t.Errorf("%d pairs, %v, from %+v, to %+v", len(pairs), err, h.now(from), h.now(to))
	}
}

// pick finds what a plain look at each UID finds, whatever the gaps.
func TestMessagesOfSets(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 1500)
	doomed := roaring.New()
	doomed.AddRange(100, 160)
	doomed.AddRange(700, 1300)
	doomed.AddMany([]uint32{1, 3, 5, 1500})
	_, _, err := h.Store(t.Context(), id, doomed, AddFlags, []string{`\Deleted`}, 0)
	h.must(err)
	_, err = h.Expunge(t.Context(), id, nil)
	h.must(err)
	there := roaring.New()
	there.AddRange(1, 1501)
	there.AndNot(doomed)

	sparse, dense, beyond := roaring.New(), roaring.New(), roaring.New()
	for uid := uint32(0); uid < 1600; uid += 37 {
		sparse.Add(uid)
	}
	dense.AddRange(50, 1400)
	beyond.AddRange(1450, 1<<32)
	for _, uids := range []*roaring.Bitmap{nil, roaring.New(), sparse, dense, beyond, set(0, 2, 99, 160, 699, 1300, math.MaxUint32)} {
		var got []uint32
		for m, err := range h.Messages(id, uids) {
			h.must(err)
			got = append(got, m.UID)
		}
		want := there.Clone()
		if uids != nil {
			want.And(uids)
		}
		if !slices.Equal(got, want.ToArray()) {
			t.Errorf("of %v got %v", uids, got)
		}
	}
}

func TestMessagesStopsEarly(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 3)
	for m, err := range h.Messages(id, nil) {
		h.must(err)
		h.kill(id, 2) // no transaction is open, and what the page holds is still yielded
		if m.UID == 2 {
			break
		}
	}
	for _, err := range h.Messages(id+1, nil) {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("no mailbox: %v", err)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte{1, 5, 10, 20, 0, 0, 4, 9, 1, 1, 3})
	f.Add([]byte{1, 0, 7, 5, 'I', 'N', 'B', 'O', 'X', 0, 1, 1, 1, 0, 0, 0, 0, 0})
	f.Add([]byte(strings.Repeat("\xff", 30)))
	f.Fuzz(func(t *testing.T, v []byte) {
		if m, err := decodeRecord(1, 2, v); err == nil && len(m.flags.keywords) > len(v) {
			t.Errorf("%d keywords from %d octets", len(m.flags.keywords), len(v))
		}
		if b, err := decodeBox(1, v); err == nil && len(b.Name) > len(v) {
			t.Errorf("a name of %d octets from %d", len(b.Name), len(v))
		}
		decodeChange(v)
	})
}
