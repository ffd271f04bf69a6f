package mailbox

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"postroad/internal/store"
)

// keep puts a copy of a message whose body is there for another reason, as in the queue.
func (h house) keep(text string) (p Placed, refused error) {
	h.Helper()
	d, structure := h.draft(text)
	c := h.SentCopy(owner)
	for _, piece := range strings.SplitAfter(text, "e") {
		if _, err := c.Write([]byte(piece)); err != nil {
			h.Fatal(err)
		}
	}
	h.must(c.Finish())
	want, err := structure.AppendBinary(nil)
	h.must(err)
	if !slices.Equal(c.structure, want) {
		h.Errorf("the structure is not the message's")
	}
	h.must(h.st.Update(func(tx store.Tx) (err error) {
		tx.Ref(d.ID())
		if p, refused, err = c.Put(tx, d.ID()); err == nil {
			tx.Unref(d.ID()) // it leaves the queue
		}
		return err
	}, d))
	return p, refused
}

func TestSentCopyGoesWhereItBelongs(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(h house)
		want    string
	}{
		{"the mailbox of every account", func(h house) {
			h.must(h.st.Update(func(tx store.Tx) error { return h.CreateDefaults(tx, owner) }))
		}, "Sent"},
		{"one that has the special use", func(h house) {
			h.box("Sent")
			h.box("Z")
			_, err := h.Create(owner, "Papers/Out", Sent)
			h.must(err)
		}, "Papers/Out"},
		{"one that has two", func(h house) {
			_, err := h.Create(owner, "All mine", `\Archive \Sent`)
			h.must(err)
		}, "All mine"},
		{"one of the name", func(h house) { h.box("Sent") }, "Sent"},
		{"none: it is made", func(h house) { h.box("Other") }, "Sent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := open(t, Options{})
			c.prepare(h)
			for uid := range UID(2) {
				p, refused := h.keep(small)
				if refused != nil || p.Name != c.want || p.UID != uid+1 {
					t.Fatalf("put into %q as %d: %v", p.Name, p.UID, refused)
				}
			}
			m, err := h.Get(owner, c.want)
			if err != nil || m.Messages != 2 || m.Unseen != 0 || m.Octets != 2*int64(len(small)) {
				t.Errorf("%+v %v", m, err)
			}
		})
	}
	t.Run("a mailbox that was made is one for sent mail", func(t *testing.T) {
		h := open(t, Options{})
		h.keep(small)
		if m, err := h.Get(owner, "Sent"); err != nil || !m.Role.Has(Sent) || !m.Subscribed {
			t.Errorf("%+v %v", m, err)
		}
	})
}

// Without room there is no copy and nothing is changed.
func TestSentCopyWithoutRoom(t *testing.T) {
	quota := Quota{}
	for _, c := range []struct {
		name    string
		o       Options
		quota   Quota
		want    error
		prepare func(h house)
	}{
		{"octets", Options{}, Quota{Octets: int64(len(small)) - 1}, ErrOverQuota, func(h house) {}},
		{"messages", Options{}, Quota{Messages: 1}, ErrOverQuota, func(h house) { h.keep(small) }},
		{"mailboxes", Options{Mailboxes: 1}, Quota{}, ErrLimit, func(h house) { h.box("Other") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Quota = func(store.Reader, Owner) Quota { return quota }
			quota = c.quota
			h := open(t, c.o)
			c.prepare(h)
			before, err := h.List(owner)
			h.must(err)
			_, refused := h.keep(small)
			after, err := h.List(owner)
			h.must(err)
			if !errors.Is(refused, c.want) || !slices.Equal(before, after) {
				t.Errorf("%v; mailboxes were %v, are %v", refused, before, after)
			}
		})
	}
}
