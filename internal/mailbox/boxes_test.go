package mailbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/store"
)

func TestDefaults(t *testing.T) {
	h := open(t, Options{})
	h.must(h.st.Update(func(tx store.Tx) error { return h.CreateDefaults(tx, owner) }))
	list, err := h.List(owner)
	h.must(err)
	equal(t, "mailboxes", names(list), []string{"INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"})
	for _, m := range list {
		if want := Role(`\` + m.Name); m.Role != want && m.Name != inbox {
			t.Errorf("%s has role %s", m.Name, m.Role)
		}
		if !m.Subscribed || m.ModSeq != 1 || m.UIDNext != 1 || m.UIDValidity == 0 || m.Owner != owner {
			t.Errorf("%s begins as %+v", m.Name, m)
		}
	}
	if again := h.st.Update(func(tx store.Tx) error { return h.CreateDefaults(tx, owner) }); !errors.Is(again, ErrExists) {
		t.Errorf("a second time gives %v", again)
	}
}

func TestCreate(t *testing.T) {
	h := open(t, Options{Mailboxes: 6})
	m, err := h.Create(owner, "a/b/c/", Archive)
	h.must(err)
	if m.Name != "a/b/c" || m.Role != Archive {
		t.Errorf("made %+v", m)
	}
	for _, c := range []struct {
		name string
		want error
	}{
		{"a/b", ErrExists},
		{"a//b", ErrName},
		{"inbox", nil},
		{"INBOX", ErrExists},
		{"inbox/x", nil},
		{"x/y", ErrLimit}, // two more, and one is left
		{"x", nil},
		{"y", ErrLimit},
	} {
		if _, err := h.Create(owner, c.name, ""); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("create %s gives %v, want %v", c.name, err, c.want)
		}
	}
	list, err := h.List(owner)
	h.must(err)
	equal(t, "mailboxes", names(list), []string{"INBOX", "INBOX/x", "a", "a/b", "a/b/c", "x"})
	if got, err := h.Get(owner, "Inbox/x"); err != nil || got.Name != "INBOX/x" {
		t.Errorf("get Inbox/x: %+v, %v", got, err)
	}
	if _, err := h.Get(owner+1, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("another owner's mailbox: %v", err)
	}
	for _, name := range []string{"", "a*", "b"} {
		if _, err := h.Get(owner, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("get %q: %v", name, err)
		}
	}
}

// A name that is made again never has an old UIDVALIDITY, also when all happens within a
// second, and when the clock goes back.
func TestUIDValidityRises(t *testing.T) {
	now := time.Unix(2e9, 0)
	h := open(t, Options{Now: func() time.Time { return now }})
	var last uint32
	for i := range 10 {
		if i == 5 {
			now = now.Add(-24 * time.Hour)
		}
		m := h.box("a")
		if m.UIDValidity <= last {
			t.Fatalf("UIDVALIDITY %d after %d", m.UIDValidity, last)
		}
		last = m.UIDValidity
		h.append(m.ID, small)
		h.must(h.Remove(t.Context(), owner, "a"))
	}
	now = time.Unix(1<<40, 0)
	if m := h.box("a"); m.UIDValidity <= last {
		t.Errorf("UIDVALIDITY %d after %d", m.UIDValidity, last)
	}
	h.box("b")
}

func TestRename(t *testing.T) {
	for _, c := range []struct {
		what, have, from, to, want string
		err                        error
	}{
		{"alone", "a", "a", "b", "b", nil},
		{"with those below", "a/x/y ab", "a", "b", "ab b b/x b/x/y", nil},
		{"makes those above", "a", "a", "b/c/a", "b b/c b/c/a", nil},
		{"out of its place", "a/x/y", "a/x", "x", "a x x/y", nil},
		{"below inbox", "a", "a", "Inbox/a", "INBOX INBOX/a", nil},
		{"into itself", "a", "a", "a/b", "", ErrName},
		{"to what is there", "a b", "a", "b", "", ErrExists},
		{"to inbox", "a INBOX", "a", "inbox", "", ErrExists},
		{"to itself", "a", "a", "a", "", ErrExists},
		{"what is not there", "a", "b", "c", "", ErrNotFound},
		{"an impossible name", "a", "a", "b%", "", ErrName},
		{"an impossible name from", "a", "a%", "b", "", ErrNotFound},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := open(t, Options{})
			for _, name := range strings.Fields(c.have) {
				h.append(h.box(name).ID, small)
			}
			before, _ := h.List(owner)
			err := h.Rename(t.Context(), owner, c.from, c.to)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("gives %v, want %v", err, c.err)
			}
			want := strings.Fields(c.want)
			if c.err != nil {
				want = names(before)
			}
			list, err := h.List(owner)
			h.must(err)
			equal(t, "mailboxes", names(list), want)
		})
	}
}

func TestRenameKeepsIdentity(t *testing.T) {
	h := open(t, Options{})
	m := h.box("a/b")
	h.append(m.ID, small)
	before := h.now(m.ID)
	h.must(h.Rename(t.Context(), owner, "a", "c"))
	got := h.now(m.ID)
	if before.Name = "c/b"; got != before {
		t.Errorf("got %+v, want %+v", got, before)
	}
}

// What is below a mailbox that was removed can be renamed with the name above it, and a
// name below that is taken stops all.
func TestRenameOfNoMailbox(t *testing.T) {
	h := open(t, Options{})
	h.box("a/b")
	h.must(h.Remove(t.Context(), owner, "a"))
	h.must(h.Rename(t.Context(), owner, "a", "c"))
	h.box("d/b")
	h.must(h.Remove(t.Context(), owner, "d"))
	if err := h.Rename(t.Context(), owner, "c", "d"); !errors.Is(err, ErrExists) {
		t.Errorf("gives %v", err)
	}
	list, err := h.List(owner)
	h.must(err)
	equal(t, "mailboxes", names(list), []string{"c/b", "d/b"})
}

func TestRenameTooDeep(t *testing.T) {
	h := open(t, Options{})
	h.box("a/" + strings.Repeat("x/", maxLevels-2) + "x")
	if err := h.Rename(t.Context(), owner, "a", "b/c"); !errors.Is(err, ErrName) {
		t.Errorf("gives %v", err)
	}
	if _, err := h.Get(owner, "a"); err != nil {
		t.Errorf("the rename did half: %v", err)
	}
}

func TestRenameInbox(t *testing.T) {
	h := open(t, Options{})
	m := h.box("inbox")
	h.box("inbox/below")
	h.fill(m.ID, bulkStep+1, "work")
	h.must(h.Rename(t.Context(), owner, "InBox", "old/mail"))
	old, err := h.Get(owner, "old/mail")
	h.must(err)
	now := h.now(m.ID)
	if now.Messages != 0 || now.UIDNext != bulkStep+2 || now.UIDValidity != m.UIDValidity || old.Messages != bulkStep+1 {
		t.Errorf("INBOX %+v, old %+v", now, old)
	}
	if _, err := h.Get(owner, "INBOX/below"); err != nil {
		t.Errorf("what is below INBOX: %v", err)
	}
	if err := h.Rename(t.Context(), owner, "INBOX", "old"); !errors.Is(err, ErrExists) {
		t.Errorf("to what is there: %v", err)
	}
}

func TestRemove(t *testing.T) {
	h := open(t, Options{})
	m := h.box("a")
	h.box("a/b")
	h.append(m.ID, small)
	h.must(h.Subscribe(owner, "a", true))
	h.must(h.Remove(t.Context(), owner, "a"))
	if _, err := h.ByID(m.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is there: %v", err)
	}
	for _, c := range []struct {
		name string
		want error
	}{{"a", ErrNotFound}, {"InBox", ErrInbox}, {"a*", ErrNotFound}} {
		if err := h.Remove(t.Context(), owner, c.name); !errors.Is(err, c.want) {
			t.Errorf("remove %s gives %v", c.name, err)
		}
	}
	list, err := h.List(owner)
	h.must(err)
	equal(t, "mailboxes", names(list), []string{"a/b"})
	subscribed, err := h.Subscriptions(owner)
	h.must(err)
	equal(t, "subscriptions", subscribed, []string{"a"})
	if octets, messages, err := h.Usage(owner); octets != 0 || messages != 0 || err != nil {
		t.Errorf("usage %d, %d, %v", octets, messages, err)
	}
}

// Wherever a removal stops, the mailbox is out of sight, everything agrees, and the next
// removal or Sweep finishes it.
func TestRemoveInterrupted(t *testing.T) {
	for _, finish := range []string{"sweep", "another removal"} {
		for n := range 6 {
			t.Run(fmt.Sprint(finish, n), func(t *testing.T) {
				h := open(t, Options{})
				m := h.box("a")
				h.fill(m.ID, 2*bulkStep+1)
				err := h.Remove(stop(t, n), owner, "a")
				if n < 5 && !errors.Is(err, context.Canceled) {
					t.Errorf("stopped after %d steps: %v", n, err)
				}
				if _, err := h.Get(owner, "a"); !errors.Is(err, ErrNotFound) {
					t.Errorf("it is there: %v", err)
				}
				h.sound()
				h.box("a")
				if finish == "sweep" {
					h.must(h.Sweep(t.Context()))
				} else {
					h.must(h.Remove(t.Context(), owner, "a"))
				}
				if _, messages, _ := h.Usage(owner); messages != 0 {
					t.Errorf("%d messages are left", messages)
				}
				if s := h.st.Stats(); s.Bodies != 0 {
					t.Errorf("%d bodies are left", s.Bodies)
				}
			})
		}
	}
}

func TestRemoveAll(t *testing.T) {
	h := open(t, Options{})
	for i := range 20 {
		h.append(h.box(fmt.Sprint("a", i)).ID, small)
	}
	h.must(h.Subscribe(owner, "elsewhere", true))
	kept, err := h.Create(owner+1, "a", "")
	h.must(err)
	h.append(kept.ID, small)
	h.must(h.RemoveAll(t.Context(), owner))
	h.must(h.RemoveAll(t.Context(), owner))
	left := 0
	h.must(h.st.View(func(r store.Reader) error {
		left = 0
		for range r.Scan([]byte("m"), []byte("n")) {
			left++
		}
		return nil
	}))
	if left != 6 { // the other owner's mb, mf, mn, mm, mu and mv
		t.Errorf("the tables hold %d entries", left)
	}
	if list, err := h.List(owner); len(list) != 0 || err != nil {
		t.Errorf("left: %v, %v", names(list), err)
	}
	if got := h.show(kept.ID); got != "1" {
		t.Errorf("the other owner's mailbox has %q", got)
	}
}

func TestSubscribe(t *testing.T) {
	h := open(t, Options{Mailboxes: 3})
	for _, name := range []string{"b/", "inbox", "a/c"} {
		h.must(h.Subscribe(owner, name, true))
	}
	h.must(h.Subscribe(owner, "b", true))
	if err := h.Subscribe(owner, "d", true); !errors.Is(err, ErrLimit) {
		t.Errorf("a fourth gives %v", err)
	}
	if err := h.Subscribe(owner, "d%", true); !errors.Is(err, ErrName) {
		t.Errorf("an impossible name gives %v", err)
	}
	got, err := h.Subscriptions(owner)
	h.must(err)
	equal(t, "subscriptions", got, []string{"INBOX", "a/c", "b"})
	h.must(h.Subscribe(owner, "a/c", false))
	h.must(h.Subscribe(owner, "a/c", false))
	if m := h.box("b"); !m.Subscribed {
		t.Error("a mailbox under a subscribed name is subscribed")
	}
	if m := h.box("a/c"); m.Subscribed {
		t.Error("a mailbox under another name is not")
	}
}

// Mailbox ids are not used again, also by the next process, whose clock may be behind.
func TestIDsAreNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		seen := map[ID]bool{}
		for range 3 {
			st, err := store.Open(dir, store.Options{Reserve: 1})
			if err != nil {
				t.Fatal(err)
			}
			s := New(st, Options{})
			for range 3 {
				m, err := s.Create(owner, "a", "")
				if err != nil || seen[m.ID] {
					t.Fatalf("%+v, %v", m, err)
				}
				seen[m.ID] = true
				if err := s.Remove(t.Context(), owner, "a"); err != nil {
					t.Fatal(err)
				}
			}
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
