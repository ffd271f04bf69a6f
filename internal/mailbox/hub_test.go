package mailbox

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
)

// What a room says of where changes were is never too little: it says nothing of what it has not heard of, has no
// longer room for, or was not told.
func TestLately(t *testing.T) {
	var l lately
	asked := func(since, to uint64, known bool, want ...uint32) {
		t.Helper()
		sheets, ok := l.since(since, to)
		slices.Sort(sheets)
		if ok != known || !slices.Equal(sheets, want) {
			t.Errorf("since %d to %d: %v, %v; want %v, %v", since, to, sheets, ok, want, known)
		}
	}
	asked(0, 1, false)
	l.note(7, []uint32{3})
	asked(5, 7, false)
	asked(6, 7, true, 3)
	asked(6, 8, false)
	l.note(8, []uint32{1, 4})
	l.note(9, []uint32{3})
	asked(6, 9, true, 1, 3, 4)
	asked(7, 8, true, 1, 3, 4) // 3 changed later too
	asked(8, 9, true, 3)
	asked(9, 9, true)
	l.note(11, []uint32{5}) // 10 was missed
	asked(9, 11, false)
	asked(10, 11, true, 5)
	l.note(12, nil)
	asked(11, 12, false)
	asked(12, 12, true)
	for i := range uint32(maxTouched + 2) {
		l.note(13+uint64(i), []uint32{i})
	}
	end := uint64(13 + maxTouched + 1)
	asked(13, end, false)
	if sheets, ok := l.since(14, end); !ok || len(sheets) != maxTouched {
		t.Errorf("%d sheets, %v", len(sheets), ok)
	}
	if l.note(end+1, make([]uint32, maxTouched+1)); len(l.sheets) > 0 {
		t.Error("more sheets than there is room for")
	}
}

// A snapshot stays as it is when the next one is made of it, and what is made copies only what it changes.
func TestSnapshotsShare(t *testing.T) {
	uids := roaring.New()
	for uid := range uint32(1 << 18) {
		uids.Add(4 * uid)
	}
	at := snapshot{uids: share(uids)}
	before := at.uids.ToArray()
	n := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			at.after(set(8), set(1<<20+1))
		}
	}).AllocedBytesPerOp()
	if n > 24<<10 {
		t.Errorf("%d octets for a snapshot with one message more and one less", n)
	}
	next := at.after(set(8), set(1<<20+1))
	if next.Contains(8) || !next.Contains(1<<20+1) || next.GetCardinality() != uint64(len(before)) {
		t.Error("the next snapshot is wrong")
	}
	next.AddRange(0, 1<<20) // nobody does; but even then
	equal(t, "the snapshot before", at.uids.ToArray(), before)
}

// A view that sees very many messages as recent, here and there, does not copy them.
func TestRecentShares(t *testing.T) {
	h := open(t, Options{})
	uids := roaring.New()
	for uid := UID(2); uid <= 1<<20; uid += 2 {
		uids.Add(uid)
	}
	at := snapshot{uids: share(uids), next: 1<<20 + 1}
	var v *View
	n := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v = &View{s: h.Service, id: 1, at: at}
			v.claim(5, at.uids)
		}
	}).AllocedBytesPerOp()
	if n > 40<<10 { // of 128 KiB
		t.Errorf("%d octets for a view's recent messages", n)
	}
	if got := v.Recent(); got.Contains(4) || got.GetCardinality() != 1<<19-2 {
		t.Errorf("%d messages are recent", got.GetCardinality())
	}
	v.recent.AndNot(set(6, 1<<20))
	if !at.uids.Contains(6) || v.Recent().Contains(6) {
		t.Error("the snapshot has changed with what is recent, or that has not")
	}
}

// Views that follow at once, each at its own pace, see what there is in the end, whichever snapshots they share.
func TestViewsFollowAtOnce(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 3*sheetUIDs)
	var stop atomic.Bool
	var followers sync.WaitGroup
	views := make([]*View, 6)
	for i := range views {
		views[i] = h.view(id).View
		followers.Go(func() {
			for !stop.Load() {
				if _, err := views[i].Sync(i%2 == 0); err != nil {
					t.Error(err)
					return
				}
				views[i].UIDs().Clone() // reads all of it
				views[i].Recent().GetCardinality()
			}
		})
	}
	for n := range UID(30) {
		h.append(id, small)
		h.kill(id, 1+7*n, 2+7*n, 3*sheetUIDs-n)
		h.mark(id, AddFlags, `\Seen`, 4+7*n)
	}
	stop.Store(true)
	followers.Wait()
	there, err := h.uids(id)
	h.must(err)
	for i, v := range views {
		_, err := v.Sync(true)
		h.must(err)
		if !v.UIDs().Equals(there) {
			t.Errorf("view %d: %d messages, want %d", i, v.UIDs().GetCardinality(), there.GetCardinality())
		}
	}
}
