package mailbox

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"postroad/internal/store"
)

// diary notes events as words.
type diary struct {
	mu  sync.Mutex
	got []string
	by  []*Access
}

func (w *diary) note(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := map[What]string{
		Messages: "messages", Created: "created", Removed: "removed", Renamed: "renamed", Subscribed: "subscribed", Annotated: "annotated",
		Granted: "granted",
	}[e.What] + " " + e.Name
	switch e.What {
	case Messages:
		s += fmt.Sprint(" ", e.Mailbox.Messages, e.Arrived, e.Expunged, e.Flagged)
	case Renamed:
		s += " from " + e.OldName
	case Subscribed:
		s += fmt.Sprint(" ", e.On)
	case Annotated:
		s += fmt.Sprint(" ", e.Private, e.Entries)
	}
	w.got, w.by = append(w.got, s), append(w.by, e.By)
}

func (w *diary) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.got, "; ")
	w.got, w.by = nil, nil
	return s
}

// Everything that happens is told, once, after its commit, whoever does it.
func TestWatch(t *testing.T) {
	h := open(t, Options{})
	var w diary
	stop := h.Watch(w.note)
	a := h.as(ann)
	var m Mailbox
	for _, c := range []struct {
		what string
		do   func() error
		want string
	}{
		{"create", func() (err error) { m, err = a.Create("a/b", ""); return err }, "created a; created a/b"},
		{"create again", func() error { _, _ = a.Create("a", ""); return nil }, ""},
		{"append", func() error { h.append(m.ID, small); return nil }, "messages a/b 1 true false false"},
		{"deliver", func() error {
			d, _ := h.draft(small)
			return h.st.Update(func(tx store.Tx) error {
				_, err := h.Add(tx, ann, "INBOX", Arrival{Body: d.ID(), Size: d.Size()})
				return err
			}, d)
		}, "created INBOX; messages INBOX 1 true false false"},
		{"flags", func() error { h.mark(m.ID, AddFlags, `\Deleted`, 1); return nil }, "messages a/b 1 false false true"},
		{"the same flags", func() error { h.mark(m.ID, AddFlags, `\Deleted`, 1); return nil }, ""},
		{"expunge", func() error { _, err := h.Expunge(t.Context(), m.ID, nil); return err }, "messages a/b 0 false true false"},
		{"subscribe", func() error { return a.Subscribe("x", true) }, "subscribed x true"},
		{"subscribe again", func() error { return a.Subscribe("x", true) }, ""},
		{"unsubscribe", func() error { return a.Subscribe("x", false) }, "subscribed x false"},
		{"rename", func() error { return a.Rename(t.Context(), "a", "c") }, "renamed c from a; renamed c/b from a/b"},
		{"annotate", func() error {
			return a.SetMetadata("c", notes("/shared/comment", "x", "/private/x", "y", "/private/z", ""))
		}, "annotated c 7 [/private/x /private/z]; annotated c 0 [/shared/comment]"},
		{"annotate the server", func() error { return a.SetMetadata("", notes("/private/x", "y")) }, "annotated  7 [/private/x]"},
		{"grant", func() error { return a.SetACL("c", "anyone", 0, RightLookup) }, "granted c"},
		{"remove", func() error { return a.Remove(t.Context(), "c/b") }, "removed c/b"},
		{"remove all", func() error { return h.RemoveAll(t.Context(), ann) }, "removed INBOX; removed c"},
	} {
		h.must(c.do())
		if got := w.take(); got != c.want {
			t.Errorf("%s is told as %q, want %q", c.what, got, c.want)
		}
	}
	stop()
	h.box("d")
	if got := w.take(); got != "" {
		t.Errorf("after the end: %s", got)
	}
}

// An event says whose access made the change.
func TestWatchBy(t *testing.T) {
	h := open(t, Options{})
	var w diary
	h.Cleanup(h.Watch(w.note))
	mine, other := h.as(ann), h.as(ann)
	_, err := mine.Create("a", "")
	h.must(err)
	h.must(other.Subscribe("a", true))
	h.box("b")
	equal(t, "made by", w.by, []*Access{mine, other, nil})
}
