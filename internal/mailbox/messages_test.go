package mailbox

import (
	"context"
	"errors"
	"io"
	"math"
	"runtime"
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
	h.must(h.Sweep(t.Context()))
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
	h.must(h.Sweep(t.Context()))
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
		gone := &sheet{dead: b.UIDNext / sheetUIDs, highest: 1}
		last := &sheet{number: gone.dead, came: int(b.UIDNext % sheetUIDs), highest: 1}
		for i := range last.came {
			last.modseqs[i] = 1
		}
		tx.Put(sheetKey(b.ID, 0), gone.append(nil))
		tx.Put(sheetKey(b.ID, last.number), last.append(nil))
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
	equal(t, "modseqs", got, []uint64{6, 3, 6, 7})

	h.mark(id, AddFlags, `\Flagged`, 2)
	since := uint64(6)
	done, err := h.Store(t.Context(), id, nil, AddFlags, []string{`\Flagged`}, &since)
	h.must(err)
	if got := h.shown(id, done.Done); got != `1\Flagged\Seen 3\Flagged\Seen` {
		t.Errorf("changed %s", got)
	}
	equal(t, "modified since", done.Modified.ToArray(), []uint32{2, 4})
	equal(t, "modseqs given", done.ModSeqs, []uint64{9})
	since = 0
	done, err = h.Store(t.Context(), id, nil, AddFlags, []string{`\Answered`}, &since)
	h.must(err)
	equal(t, "modified since ever", done.Modified.ToArray(), []uint32{1, 2, 3, 4})
	h.kill(id, 2)
	if m := h.now(id); m.ModSeq != 11 { // \Deleted, and the end
		t.Errorf("the highest modseq is %d", m.ModSeq)
	}
	for _, c := range []struct {
		since uint64
		uids  *roaring.Bitmap
		want  []uint32
	}{{0, nil, []uint32{2}}, {10, nil, []uint32{2}}, {11, nil, nil}, {0, set(1, 3), nil}, {0, set(1, 2), []uint32{2}}} {
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
	const n = 2*flagStep + 700
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, n)
	seen, err := h.Store(stop(t, 2), id, nil, AddFlags, []string{`\Seen`}, nil)
	if got := seen.Changed.GetCardinality(); got < 2*flagStep || got >= n || err == nil || len(seen.ModSeqs) != 2 {
		t.Errorf("stopped store changed %d, %v", got, err)
	}
	doomed := roaring.New()
	doomed.AddRange(1, 2*expungeStep+700)
	done, err := h.Store(t.Context(), id, doomed, AddFlags, []string{`\Deleted`}, nil)
	h.must(err)
	if !done.Done.Equals(doomed) || h.now(id).Deleted != uint32(doomed.GetCardinality()) {
		t.Errorf("store changed %d, %+v", done.Done.GetCardinality(), h.now(id))
	}
	first, err := h.Expunge(stop(t, 1), id, nil)
	got := first.GetCardinality()
	if got < expungeStep || got >= expungeStep+sheetUIDs || err == nil || h.now(id).Messages != n-uint32(got) {
		t.Errorf("stopped expunge removed %d, %v", got, err)
	}
	h.sound()
	rest, err := h.Expunge(t.Context(), id, nil)
	h.must(err)
	if !roaring.Or(first, rest).Equals(doomed) || h.now(id).Messages != n-uint32(doomed.GetCardinality()) {
		t.Errorf("expunge removed %d, left %+v", rest.GetCardinality(), h.now(id))
	}
}

// What is expunged counts no longer at once; its body goes with Sweep.
func TestPurge(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	for range 3 {
		h.append(id, small)
	}
	bodies := h.st.Stats().Bodies
	h.kill(id, 1, 3)
	if octets, messages, err := h.Usage(owner); octets != int64(len(small)) || messages != 1 || err != nil {
		t.Errorf("%d octets and %d messages are used, %v", octets, messages, err)
	}
	h.sound()
	if h.st.Stats().Bodies != bodies {
		t.Error("the bodies went with the expunge")
	}
	h.must(h.Sweep(t.Context()))
	if got := h.st.Stats().Bodies; got != bodies-2 {
		t.Errorf("%d bodies are left of %d", got, bodies)
	}
	h.sound()
}

// Run drops what an expunge leaves behind.
func TestRun(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.append(id, small)
	h.append(id, small)
	h.kill(id, 1) // before Run
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		h.Run(ctx, func(err error) { t.Error(err) })
		close(done)
	}()
	h.kill(id, 2)
	for h.st.Stats().Bodies > 0 {
		runtime.Gosched()
	}
	cancel()
	<-done
}

// Many expunges leave one record behind, and the history tells of all that was there.
func TestDeadSheets(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	v := h.view(id)
	h.fill(id, 10*sheetUIDs)
	all := roaring.New()
	all.AddRange(1, 10*sheetUIDs+1)
	h.sync(v, true)
	count := func(want int) {
		t.Helper()
		n := 0
		h.must(h.st.View(func(r store.Reader) error {
			for _, err := range sheets(r, id, 0, presence) {
				h.must(err)
				n++
			}
			return nil
		}))
		if n != want {
			t.Errorf("there are %d records of sheets, want %d", n, want)
		}
	}
	expunge := func(from, to uint64) {
		t.Helper()
		some := roaring.New()
		some.AddRange(from, to)
		_, err := h.Store(t.Context(), id, some, AddFlags, []string{`\Deleted`}, nil)
		h.must(err)
		_, err = h.Expunge(t.Context(), id, some)
		h.must(err)
		h.sound()
		if c := h.sync(v, true); !c.Expunged.Equals(some) {
			t.Errorf("told %v", c.Expunged)
		}
	}
	before := h.now(id).ModSeq
	count(11)
	expunge(3*sheetUIDs, 4*sheetUIDs)
	expunge(6*sheetUIDs, 7*sheetUIDs)
	count(11)
	between := h.now(id).ModSeq
	expunge(4*sheetUIDs, 6*sheetUIDs)
	count(8)
	expunge(7*sheetUIDs, 10*sheetUIDs)
	expunge(2*sheetUIDs, 3*sheetUIDs)
	count(4)
	gone, err := h.Vanished(id, before, nil)
	h.must(err)
	want := roaring.New()
	want.AddRange(2*sheetUIDs, 10*sheetUIDs)
	if !gone.Equals(want) {
		t.Errorf("vanished since the beginning: %v", gone)
	}
	gone, err = h.Vanished(id, between, set(1, 2*sheetUIDs, 5*sheetUIDs))
	h.must(err)
	equal(t, "vanished of some", gone.ToArray(), []uint32{2 * sheetUIDs, 5 * sheetUIDs})
	h.must(h.Sweep(t.Context()))
	expunge(1, 2*sheetUIDs)
	count(2)
	if h.append(id, small) != 10*sheetUIDs+1 || h.now(id).Messages != 2 {
		t.Errorf("now %+v", h.now(id))
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
	const n = 2*copyStep + 1
	limit := int64(math.MaxInt64)
	h := open(t, Options{Quota: func(store.Reader, Owner) Quota { return Quota{Octets: limit} }})
	from, to := h.box("a").ID, h.box("b").ID
	h.fill(from, n)
	limit = (n + copyStep + sheetUIDs) * int64(len(small))
	if _, pairs, err := h.Copy(t.Context(), from, nil, to); !errors.Is(err, ErrOverQuota) || len(pairs) != 0 {
		t.Errorf("over quota: %d pairs, %v", len(pairs), err)
	}
	if got := h.now(to); got.Messages != 0 || got.UIDNext <= copyStep || got.UIDNext > copyStep+sheetUIDs {
		t.Errorf("the target is %+v", got)
	}
	limit = math.MaxInt64
	if _, pairs, err := h.Copy(stop(t, 1), from, nil, to); err == nil || len(pairs) != 0 {
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
	const n = 2*copyStep + 1
	h := open(t, Options{})
	from, to := h.box("a").ID, h.box("b").ID
	h.fill(from, n)
	_, pairs, err := h.Move(stop(t, 1), from, nil, to)
	done := uint32(len(pairs))
	if err == nil || done < copyStep || done >= n || h.now(from).Messages != n-done || h.now(to).Messages != done {
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
	_, err := h.Store(t.Context(), id, doomed, AddFlags, []string{`\Deleted`}, nil)
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
		var m record
		if err := m.decode(1, 2, v); err == nil && m.uid != 2 {
			t.Errorf("read %+v", m)
		}
		if b, err := decodeBox(1, v); err == nil && len(b.Name) > len(v) {
			t.Errorf("a name of %d octets from %d", len(b.Name), len(v))
		}
	})
}
