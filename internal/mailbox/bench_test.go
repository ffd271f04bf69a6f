package mailbox

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/mime"
	"postroad/internal/store"
)

// BenchmarkAdd delivers to one mailbox, whose size must not matter. cpu-ns/op is the time within
// the transaction, without the commit.
func BenchmarkAdd(b *testing.B) {
	for _, size := range []int{0, 100_000} {
		for _, senders := range []int{1, 10} {
			b.Run(fmt.Sprintf("in=%d/senders=%d", size, senders), func(b *testing.B) { benchmarkAdd(b, size, senders) })
		}
	}
}

func benchmarkAdd(b *testing.B, size, senders int) {
	h := open(b, Options{})
	m := h.box(inbox)
	for n := 0; n < size; n += 10_000 {
		h.fill(m.ID, 10_000)
	}
	_, structure := h.draft(benchText)
	octets, err := structure.AppendBinary(nil)
	h.must(err)
	var within time.Duration // the committer runs one function at a time
	b.SetParallelism(max(senders/2, 1))
	one := func() {
		d := h.st.NewDraft()
		if _, err := d.Write([]byte(benchText)); err != nil {
			b.Error(err)
		}
		a := Arrival{Body: d.ID(), Size: d.Size(), Structure: octets, Internal: time.Now()}
		err := h.st.Update(func(tx store.Tx) error {
			start := time.Now()
			_, err := h.Add(tx, owner, inbox, a)
			within += time.Since(start)
			return err
		}, d)
		if err != nil {
			b.Error(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	if senders == 1 {
		for b.Loop() {
			one()
		}
	} else {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				one()
			}
		})
	}
	b.StopTimer()
	b.ReportMetric(float64(within.Nanoseconds())/float64(b.N), "add-ns/op")
}

const benchText = "From: Anna <anna@example.test>\r\nTo: Bob <bob@example.test>\r\nDate: Sat, 29 Feb 2020 23:30:00 -0800\r\n" +
	"Message-ID: <1234567890@example.test>\r\nSubject: the minutes of the meeting\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n\r\nworld\r\n"

// BenchmarkView opens views of a mailbox with a million messages: the first, and those that
// share what it has read.
func BenchmarkView(b *testing.B) {
	const size = 1_000_000
	h := open(b, Options{})
	id := h.box("a").ID
	h.bare(id, size)
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			v, _, err := h.View(id, ViewOptions{})
			h.must(err)
			v.Close()
		}
	})
	b.Run("further", func(b *testing.B) {
		h.view(id)
		for b.Loop() {
			v, _, err := h.View(id, ViewOptions{})
			h.must(err)
			v.Close()
		}
	})
	v := h.view(id)
	if n := v.UIDs().GetCardinality(); n != size {
		b.Errorf("%d messages", n)
	}
	b.Logf("%d octets for the UIDs", v.UIDs().GetSizeInBytes())
	h.must(h.Remove(b.Context(), owner, "a"))
}

// bare adds n messages with one body and without a structure each.
func (h house) bare(id ID, n int) {
	h.fill(id, 1)
	for n--; n > 0; n -= 50_000 {
		h.must(h.st.Update(func(tx store.Tx) error {
			box, err := loadBox(tx, id)
			if err != nil {
				return err
			}
			first, _, err := getRecord(tx, id, 1)
			e := h.edit(tx, box)
			for range min(n, 50_000) {
				m := first
				if err := e.add(&m, nil); err != nil {
					return err
				}
			}
			h.must(err)
			return e.save()
		}))
	}
}

// BenchmarkSync tells one new message to the views of a large mailbox: to the first, and to those that share what it
// has read. Half of the messages are gone, here and there, so that the UIDs take as much room as they can.
func BenchmarkSync(b *testing.B) {
	for _, size := range []int{10, 1_000_000} {
		h := open(b, Options{})
		id := h.box("a").ID
		h.bare(id, size)
		h.halve(id)
		for _, views := range []int{1, 50} {
			b.Run(fmt.Sprintf("in=%d/views=%d", size, views), func(b *testing.B) {
				all := make([]*watcher, views)
				for i := range all {
					all[i] = h.view(id)
				}
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					h.append(id, small)
					b.StartTimer()
					for _, v := range all {
						if c := h.sync(v, true); c.New.GetCardinality() != 1 {
							b.Fatalf("told %+v", c)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*views), "ns/view")
				for _, v := range all {
					v.Close()
				}
			})
		}
	}
}

// BenchmarkUnseen finds every fiftieth of a million messages.
func BenchmarkUnseen(b *testing.B) {
	const size, nth = 1_000_000, 50
	h := open(b, Options{})
	id := h.box("a").ID
	h.bare(id, size)
	some := roaring.New()
	for uid := UID(nth); uid <= size; uid += nth {
		some.Add(uid)
	}
	_, err := h.Store(b.Context(), id, nil, AddFlags, []string{`\Seen`}, nil)
	h.must(err)
	_, err = h.Store(b.Context(), id, some, RemoveFlags, []string{`\Seen`}, nil)
	h.must(err)
	b.ReportAllocs()
	for b.Loop() {
		found, err := h.Search(b.Context(), id, nil, Criterion{HasNot: []string{`\Seen`}})
		h.must(err)
		if found.GetCardinality() != size/nth {
			b.Fatalf("%d are unseen", found.GetCardinality())
		}
	}
}

// halve expunges every other message.
func (h house) halve(id ID) {
	h.Helper()
	half := roaring.New()
	for uid := UID(1); uid < h.now(id).UIDNext; uid += 2 {
		half.Add(uid)
	}
	_, err := h.Store(context.Background(), id, half, AddFlags, []string{`\Deleted`}, nil)
	h.must(err)
	_, err = h.Expunge(context.Background(), id, nil)
	h.must(err)
}

// BenchmarkWake is what a commit costs for each view that is open.
func BenchmarkWake(b *testing.B) {
	h := open(b, Options{})
	id := h.box("a").ID
	for range 1000 {
		h.view(id)
	}
	for b.Loop() {
		h.hub.changed(id, 1, nil)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/view")
}

// different appends n messages with a body each.
func (h house) different(id ID, n int) {
	drafts := make([]*store.Draft, n)
	var structure *mime.Structure
	for i := range drafts {
		drafts[i], structure = h.draft(benchText)
	}
	octets, err := structure.AppendBinary(nil)
	h.must(err)
	h.must(h.st.Update(func(tx store.Tx) error {
		for _, d := range drafts {
			b, err := loadBox(tx, id)
			if err != nil {
				return err
			}
			if _, err := h.arrive(tx, b, Arrival{Body: d.ID(), Size: d.Size(), Structure: octets}); err != nil {
				return err
			}
		}
		return nil
	}, drafts...))
}

// manyMessages is a mailbox of messages with a body each.
func manyMessages(b *testing.B, n int) (house, ID) {
	h := open(b, Options{})
	id := h.box("a").ID
	for have := 0; have < n; have += 1000 {
		h.different(id, 1000)
	}
	return h, id
}

// BenchmarkRead reads 10,000 messages of 100,000.
func BenchmarkRead(b *testing.B) {
	h, id := manyMessages(b, 100_000)
	uids := roaring.New()
	uids.AddRange(45_000, 55_000)
	for _, c := range []struct {
		what string
		want Want
	}{{"flags", 0}, {"facts", Facts}, {"notes", Notes}, {"bodies", Notes | Bodies}} {
		b.Run(c.what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for item, err := range h.Read(id, uids, c.want) {
					if err != nil || item.Err != nil {
						b.Fatal(err, item.Err)
					}
					n++
				}
				if n != 10_000 {
					b.Fatalf("%d messages", n)
				}
			}
		})
	}
}

// BenchmarkBulk changes 10,000 messages of 20,000 at once.
func BenchmarkBulk(b *testing.B) {
	const n = 10_000
	h, id := manyMessages(b, 2*n)
	some := roaring.New()
	some.AddRange(n/2, n/2+n)
	other := h.box("b").ID
	b.Run("store", func(b *testing.B) {
		op := AddFlags
		for b.Loop() {
			done, err := h.Store(b.Context(), id, some, op, []string{`\Flagged`}, nil)
			h.must(err)
			if done.Changed.GetCardinality() != n {
				b.Fatalf("changed %d", done.Changed.GetCardinality())
			}
			op = AddFlags + RemoveFlags - op
		}
	})
	b.Run("copy", func(b *testing.B) {
		for b.Loop() {
			_, pairs, err := h.Copy(b.Context(), id, some, other)
			h.must(err)
			if len(pairs) != n {
				b.Fatalf("copied %d", len(pairs))
			}
		}
	})
	b.Run("expunge", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			_, pairs, err := h.Copy(b.Context(), id, some, other)
			h.must(err)
			half := roaring.New()
			for i := 0; i < len(pairs); i += 2 {
				half.Add(pairs[i].To)
			}
			_, err = h.Store(b.Context(), other, half, AddFlags, []string{`\Deleted`}, nil)
			h.must(err)
			b.StartTimer()
			gone, err := h.Expunge(b.Context(), other, nil)
			h.must(err)
			if gone.GetCardinality() != n/2 {
				b.Fatalf("expunged %d", gone.GetCardinality())
			}
		}
	})
	b.Run("purge", func(b *testing.B) {
		for b.Loop() {
			h.must(h.Sweep(b.Context()))
		}
	})
	b.Run("move", func(b *testing.B) {
		from, to := id, h.box("c").ID
		for b.Loop() {
			_, pairs, err := h.Move(b.Context(), from, nil, to)
			h.must(err)
			if len(pairs) != 2*n {
				b.Fatalf("moved %d", len(pairs))
			}
			from, to = to, from
		}
	})
}
