package mailbox

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// owner is whose mailboxes most tests use.
const owner = Owner(7)

// house is a service on a real store. When the test ends, both are checked.
type house struct {
	testing.TB
	*Service
}

func open(t testing.TB, o Options) house {
	t.Helper()
	references := new(Service).References // needs no store
	h := house{t, New(storetest.Open(t, references), o)}
	t.Cleanup(func() { h.sound() })
	return h
}

// sound has Check find nothing wrong.
func (h house) sound() {
	h.Helper()
	problems, err := h.Check(context.Background())
	if err != nil {
		h.Errorf("check: %v", err)
	}
	for _, p := range problems {
		h.Errorf("check: %s: %s", p.What, p.Text)
	}
}

func (h house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// box makes a mailbox.
func (h house) box(name string) Mailbox {
	h.Helper()
	m, err := h.Create(owner, name, "")
	h.must(err)
	return m
}

func (h house) now(id ID) Mailbox {
	h.Helper()
	m, err := h.ByID(id)
	h.must(err)
	return m
}

// draft makes a body of a message.
func (h house) draft(text string) (*store.Draft, *mime.Structure) {
	h.Helper()
	structure, err := mime.Scan(strings.NewReader(text))
	h.must(err)
	d := h.st.NewDraft()
	_, err = d.Write([]byte(text))
	h.must(err)
	return d, structure
}

const small = "Subject: hello\r\n\r\nworld\r\n"

func (h house) append(id ID, text string, flags ...string) UID {
	h.Helper()
	d, structure := h.draft(text)
	placed, err := h.Append(id, d, structure, time.Unix(1e9, 0), flags, nil)
	h.must(err)
	return placed.UID
}

// fill appends n messages with one body in one transaction, as tests of bulk work want it.
func (h house) fill(id ID, n int, flags ...string) {
	h.Helper()
	d, structure := h.draft(small)
	b, err := structure.AppendBinary(nil)
	h.must(err)
	a := Arrival{Body: d.ID(), Size: d.Size(), Structure: b, Internal: time.Unix(1e9, 0), Flags: flags}
	h.must(h.st.Update(func(tx store.Tx) error {
		box, err := loadBox(tx, id)
		if err != nil {
			return err
		}
		e := h.edit(tx, box)
		set, _, err := e.flagSet(flags)
		if err != nil {
			return err
		}
		for range n {
			m := record{body: a.Body, size: a.Size, flags: set}
			m.setInternal(a.Internal)
			if err := e.add(&m, a.Structure); err != nil {
				return err
			}
		}
		return e.save()
	}, d))
}

// all reads a mailbox.
func (h house) all(id ID) []Message {
	h.Helper()
	return h.some(id, nil)
}

// some reads messages of a mailbox.
func (h house) some(id ID, uids *roaring.Bitmap) []Message {
	h.Helper()
	var list []Message
	for m, err := range h.Messages(id, uids) {
		h.must(err)
		list = append(list, m)
	}
	return list
}

// show says what is in a mailbox: "1 2\Seen".
func (h house) show(id ID) string {
	h.Helper()
	return show(h.all(id))
}

func show(list []Message) string {
	var words []string
	for _, m := range list {
		words = append(words, fmt.Sprint(m.UID)+strings.Join(m.Flags, ""))
	}
	return strings.Join(words, " ")
}

func (h house) mark(id ID, op FlagOp, flag string, uids ...UID) []Message {
	h.Helper()
	done, err := h.Store(context.Background(), id, set(uids...), op, []string{flag}, nil)
	h.must(err)
	return h.some(id, done.Done)
}

// kill expunges messages.
func (h house) kill(id ID, uids ...UID) {
	h.Helper()
	h.mark(id, AddFlags, `\Deleted`, uids...)
	_, err := h.Expunge(context.Background(), id, set(uids...))
	h.must(err)
}

// A watcher is a view whose wake-ups can be waited for.
type watcher struct {
	*View
	wakes chan struct{} // capacity 1
}

func watch(s *Service, id ID, recent bool) (*watcher, error) {
	w := &watcher{wakes: make(chan struct{}, 1)}
	changed := func() {
		select {
		case w.wakes <- struct{}{}:
		default:
		}
	}
	var err error
	w.View, _, err = s.View(id, ViewOptions{Recent: recent, Changed: changed})
	return w, err
}

// waiting reports whether the view was woken since it was last asked.
func waiting(w *watcher) bool {
	select {
	case <-w.wakes:
		return true
	default:
		return false
	}
}

func (h house) view(id ID) *watcher {
	h.Helper()
	v, err := watch(h.Service, id, true)
	h.must(err)
	h.Cleanup(v.Close)
	return v
}

func (h house) sync(v *watcher, expunge bool) Changes {
	h.Helper()
	waiting(v)
	c, err := v.Sync(expunge)
	h.must(err)
	return c
}

// shown shows some messages as they are now.
func (h house) shown(id ID, uids *roaring.Bitmap) string {
	h.Helper()
	return show(h.some(id, uids))
}

// getRecord reads a message as the index has it; false when it is gone.
func getRecord(r store.Reader, id ID, uid UID) (found record, ok bool, err error) {
	err = walk(r, id, set(uid), 1, andModSeqs, func(b *sheet, wanted *bitset) (bool, error) {
		return false, facts(r, id, b, *wanted, func(m *record) error {
			found, ok = *m, true
			found.flags, found.modseq = b.flags(wanted.lowest()), b.modseqs[wanted.lowest()]
			return nil
		})
	})
	return found, ok, err
}

func set(uids ...UID) *roaring.Bitmap { return roaring.BitmapOf(uids...) }

func names(list []Mailbox) []string {
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
	}
	return names
}

func equal[T comparable](t testing.TB, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// stopAfter is a context that is cancelled when it was asked n times.
type stopAfter struct {
	context.Context
	n *int
}

func stop(t testing.TB, n int) context.Context { return stopAfter{t.Context(), &n} }

func (c stopAfter) Err() error {
	if *c.n--; *c.n < 0 {
		return context.Canceled
	}
	return nil
}
