package mailbox

import (
	"strings"
	"testing"
	"time"

	"postroad/internal/store"
)

func TestAddNamed(t *testing.T) {
	for _, c := range []struct {
		name, detail string
		create       bool
		want         string
	}{
		{"there", "Lists/Go", false, "Lists/Go"},
		{"there in another case", "lists/gO", false, "Lists/Go"},
		{"not there", "News", false, inbox},
		{"INBOX itself", "inbox", false, inbox},
		{"below INBOX", "Inbox/x", false, inbox},
		{"made", "News/World", true, "News/World"},
		{"not made when there is one in another case", "LISTS", true, "Lists"},
		{"a name that is none", "a//b", true, inbox},
		{"a name with a wildcard", "a*", true, inbox},
		{"too long a name", strings.Repeat("x", maxName+1), true, inbox},
		{"too many levels", strings.Repeat("x/", maxLevels) + "x", true, inbox},
		{"Sent is not for strangers", "Sent", true, inbox},
		{"nor is Trash in another case", "trash", true, inbox},
		{"nor Drafts", "Drafts", false, inbox},
		{"Junk is", "Junk", false, "Junk"},
		{"Archive is", "archive", false, "Archive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := open(t, Options{})
			h.must(h.st.Update(func(tx store.Tx) error { return h.CreateDefaults(tx, owner) }))
			h.box("Lists/Go")
			if got := h.addNamed(c.detail, c.create); got.Name != c.want || got.UID != 1 {
				t.Errorf("it is in %q as %d, want %q", got.Name, got.UID, c.want)
			}
			if box, err := h.Get(owner, c.want); err != nil || box.Messages != 1 || c.create && !box.Subscribed && !strings.HasPrefix(c.want, "Lists") {
				t.Errorf("%+v %v", box, err)
			}
		})
	}
}

// When there are as many mailboxes as there may be, mail still arrives.
func TestAddNamedAtTheLimit(t *testing.T) {
	h := open(t, Options{Mailboxes: 3})
	for _, c := range [][2]string{{"a", "a"}, {"b", "b"}, {"INBOX", inbox}, {"c", inbox}, {"x/y/z", inbox}, {"A", "a"}} {
		if got := h.addNamed(c[0], true); got.Name != c[1] {
			t.Errorf("%s: it is in %q", c[0], got.Name)
		}
	}
}

func (h house) addNamed(detail string, create bool) (p Placed) {
	h.Helper()
	d, structure := h.draft("Subject: x\r\n\r\ny\r\n")
	note, err := structure.AppendBinary(nil)
	h.must(err)
	id, size := d.ID(), d.Size()
	h.must(h.st.Update(func(tx store.Tx) (err error) {
		p, err = h.AddNamed(tx, owner, detail, create, Arrival{Body: id, Size: size, Structure: note, Internal: time.Now()})
		return err
	}, d))
	return p
}
