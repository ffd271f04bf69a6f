package mailbox

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/store"
)

// letters are messages that differ: each has a number, and words of which some are rare.
func letters(from, to int) (texts []string) {
	for i := from; i < to; i++ {
		r := rand.New(rand.NewPCG(uint64(i), 0))
		text := fmt.Sprintf("From: Sender %d <s%d@example.test>\r\nSubject: =?utf-8?q?N=C2=BA?= %d\r\n\r\n", i%10, i%10, i)
		for range 30 {
			text += fmt.Sprintf("word%x ", r.IntN(1000)*7919)
		}
		switch i % 100 {
		case 7:
			text += "Übergröße Съешь ещё 東京都"
		case 8:
			text += "needle in a haystack"
		}
		texts = append(texts, text+"\r\n")
	}
	return texts
}

func (h house) appendAll(id ID, texts []string) {
	h.Helper()
	for part := range slices.Chunk(texts, 500) {
		var msgs []NewMessage
		for _, text := range part {
			d, structure := h.draft(text)
			msgs = append(msgs, NewMessage{Draft: d, Structure: structure, Internal: time.Unix(1e9, 0)})
		}
		_, err := h.AppendAll(id, msgs, nil, nil)
		h.must(err)
	}
}

func (h house) index(id ID) {
	h.Helper()
	h.must(h.indexMailbox(&pace{ctx: context.Background()}, id))
}

func (h house) indexed(id ID) IndexStatus {
	h.Helper()
	st, err := h.IndexStatus(id)
	h.must(err)
	return st
}

// queries are of all kinds that the index may be asked.
var queries = []Criterion{
	text("needle"), body("needle in a hay"), text("word1eef"), text("wor"), text("rd"), text("ö"), text("ÜBERGRÖSSE"),
	body("übergröße"), text("съешь"), text("東京"), text("京都"), text("京"), text(""), text("from: sender 3"), body("no such text"),
	{Envelope: []HeaderTest{{"From", "sender 4 <s4@example"}}}, {Envelope: []HeaderTest{{"Subject", "º 12"}}},
	header("Subject", "Nº 99"), header("x-none", "needle"), not(text("needle")), not(not(text("word1eef"))),
	{Or: []Criterion{text("needle"), body("東京都")}}, {And: []Criterion{text("needle"), not(text("word3dde"))}},
	{Text: []string{"gröss uberg"}, Fuzzy: true}, {Text: []string{"ubergroße"}, Fuzzy: true}, {Text: []string{"haystack needle"}, Fuzzy: true},
	{Text: []string{"\xff"}}, {Text: []string{"needle\xff"}}, {Body: []string{"needle", "word"}},
}

// answers are what the queries find.
func (h house) answers(id ID) (all []string) {
	h.Helper()
	for i := range queries {
		found, err := h.Search(context.Background(), id, nil, queries[i])
		h.must(err)
		all = append(all, fmt.Sprint(i, found.ToArray()))
	}
	return all
}

// Whatever is indexed and however, searches find what they find without an index.
func TestIndexIsNoDifference(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.appendAll(id, letters(0, 1000)) // as many as fill blocks
	want := h.answers(id)
	h.index(id)
	if st := h.indexed(id); st.Indexed != 1000 || st.Blocks > 4 || st.Size == 0 {
		t.Errorf("indexed: %+v", st)
	}
	equal(t, "indexed", h.answers(id), want)

	h.appendAll(id, letters(1000, 1020)) // too few for a block
	h.index(id)
	if st := h.indexed(id); st.Indexed != 1000 {
		t.Errorf("indexed: %+v", st)
	}
	tail := h.answers(id)
	h.must(h.unindex(id))
	equal(t, "with a tail", tail, h.answers(id))
	h.index(id)

	h.kill(id, 8, 9, 108, 500)
	gone := h.answers(id)
	h.must(h.unindex(id))
	equal(t, "expunged", gone, h.answers(id))
}

// Blocks grow into larger ones, and shrink when most of their messages are gone.
func TestIndexMerges(t *testing.T) {
	if testing.Short() {
		t.Skip("it is long under the race detector, and one goroutine's work")
	}
	h := open(t, Options{})
	id := h.box("a").ID
	for i := range 80 {
		h.appendAll(id, letters(i*40, i*40+40))
		h.index(id)
	}
	st := h.indexed(id)
	if st.Indexed != 3200 || st.Blocks > 12 {
		t.Errorf("indexed one after the other: %+v", st)
	}
	want := h.answers(id)
	all, err := h.uids(id)
	h.must(err)
	kill := all.Clone()
	for uid := range roaring.Values(all) {
		if uid%10 == 0 {
			kill.Remove(uid)
		}
	}
	h.kill(id, kill.ToArray()...)
	h.appendAll(id, letters(5000, 5001))
	h.index(id)
	if after := h.indexed(id); after.Size*2 > st.Size {
		t.Errorf("the index stays large: %+v, was %+v", after, st)
	}
	found := h.answers(id)
	if slices.Equal(found, want) {
		t.Error("what is expunged is found")
	}
	h.must(h.unindex(id))
	equal(t, "after expunging", found, h.answers(id))
}

func TestIndexSmallMailboxes(t *testing.T) {
	h := open(t, Options{})
	small, large := h.box("small").ID, h.box("large").ID
	h.appendAll(small, letters(0, 200))
	h.appendAll(large, []string{"\r\n" + strings.Repeat("some text\r\n", indexedOctets/11), "\r\nmore text\r\n"})
	h.index(small)
	h.index(large)
	if st := h.indexed(small); st.Blocks != 0 {
		t.Errorf("small: %+v", st)
	}
	if st := h.indexed(large); st.Blocks != 1 || st.Size > st.Octets/100 {
		t.Errorf("large: %+v", st)
	}
}

// A damaged block makes no difference to what is found, and is built again.
func TestIndexDamaged(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.appendAll(id, letters(0, 300))
	want := h.answers(id)
	h.index(id)
	// The block of another text takes the place of the first.
	d := h.st.NewDraft()
	_, err := d.Write([]byte("this is no block of an index"))
	h.must(err)
	h.must(h.st.Update(func(tx store.Tx) error {
		b := loadBlocks(tx, id)[0]
		tx.Unref(b.body)
		b.body = d.ID()
		tx.Ref(b.body)
		b.put(tx, id)
		return nil
	}, d))
	equal(t, "damaged", h.answers(id), want)
	h.index(id)
	if st := h.indexed(id); st.Indexed != 300 {
		t.Errorf("built again: %+v", st)
	}
	equal(t, "built again", h.answers(id), want)
}

// The index goes with its mailbox.
func TestIndexRemoved(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.appendAll(id, letters(0, 600))
	h.index(id)
	if h.st.Stats().Bodies <= 600 {
		t.Error("there is no index")
	}
	h.must(h.Remove(t.Context(), owner, "a"))
	if n := h.st.Stats().Bodies; n != 0 {
		t.Errorf("%d bodies stay", n)
	}
	if err := h.Reindex(t.Context(), id); err != ErrNotFound {
		t.Errorf("index what is gone: %v", err)
	}
}

// Index finds what was there before it started, and what comes later, and ends when it is told to.
func TestIndexRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, Options{})
		id := h.box("a").ID
		h.appendAll(id, letters(0, 300))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Index(ctx, func(id ID, err error) { t.Errorf("index: %v", err) }) }()
		time.Sleep(time.Minute)
		if st := h.indexed(id); st.Indexed != 300 {
			t.Errorf("at first: %+v", st)
		}
		h.appendAll(id, letters(300, 350))
		time.Sleep(time.Minute)
		if st := h.indexed(id); st.Indexed != 350 {
			t.Errorf("later: %+v", st)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("index: %v", err)
		}
	})
}

// A mailbox that mail pours into is left alone until it is quiet, or has waited for long, or a search meets what is missing.
func TestIndexWaits(t *testing.T) {
	const indexed, step = 300, 400 * time.Millisecond
	pour := func(t *testing.T, h house, id ID, d time.Duration) {
		for i := indexed; d > 0; d -= step {
			h.appendAll(id, letters(i, i+40))
			i += 40
			time.Sleep(step)
		}
	}
	search := func(t *testing.T, h house, id ID) {
		if _, err := h.Search(t.Context(), id, nil, text("needle")); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, h house, id ID)
		more bool // is indexed then
	}{
		{"busy", func(t *testing.T, h house, id ID) { pour(t, h, id, indexPatience/2) }, false},
		{"busy for long", func(t *testing.T, h house, id ID) { pour(t, h, id, indexPatience+3*time.Second) }, true},
		{"quiet", func(t *testing.T, h house, id ID) { pour(t, h, id, step); time.Sleep(3 * time.Second) }, true},
		{"busy and searched", func(t *testing.T, h house, id ID) {
			pour(t, h, id, 8*time.Second)
			search(t, h, id)
			pour(t, h, id, 2*time.Second)
		}, true},
		{"searched, little missing", func(t *testing.T, h house, id ID) {
			pour(t, h, id, 2*time.Second)
			search(t, h, id)
			pour(t, h, id, 2*time.Second)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := open(t, Options{})
				id := h.box("a").ID
				h.appendAll(id, letters(0, indexed))
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- h.Index(ctx, func(id ID, err error) { t.Errorf("index: %v", err) }) }()
				time.Sleep(time.Minute)
				c.do(t, h, id)
				if st := h.indexed(id); (st.Indexed > indexed) != c.more {
					t.Errorf("%+v", st)
				}
				stop()
				if err := <-done; err != nil {
					t.Errorf("index: %v", err)
				}
			})
		})
	}
}

// The index of real mail is small, and makes no difference either: a word of each message finds it.
func TestIndexCorpus(t *testing.T) {
	texts := corpus(t)
	if testing.Short() {
		texts = texts[:len(texts)/8]
	}
	h := open(t, Options{})
	id := h.box("a").ID
	h.appendAll(id, texts)
	h.index(id)
	st := h.indexed(id)
	t.Logf("%d messages, %d octets, %d octets of index in %d blocks", st.Messages, st.Octets, st.Size, st.Blocks)
	if st.Size > st.Octets/2 {
		t.Errorf("the index is %d octets for %d", st.Size, st.Octets)
	}
	found := h.answers(id)
	h.must(h.unindex(id))
	equal(t, "indexed", found, h.answers(id))
}

// corpus is real mail, where it is there.
func corpus(t testing.TB) (texts []string) {
	t.Helper()
	const dir = "../../../shared/corpus/eml"
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".eml") {
			return err
		}
		raw, err := os.ReadFile(path)
		if len(raw) > 0 {
			texts = append(texts, string(raw))
		}
		return err
	})
	if err != nil {
		t.Skip("the corpus is not there")
	}
	return texts
}
