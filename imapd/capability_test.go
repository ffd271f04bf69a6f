package imapd

import (
	"slices"
	"strings"
	"testing"

	"postroad/internal/account"
	"postroad/internal/envelope"
)

func TestHidden(t *testing.T) {
	for _, c := range []struct {
		hide, name string
		want       bool
	}{
		{"IDLE", "IDLE", true}, {"IMAP4REV2", "IMAP4rev2", true}, {"SORT", "SORT=DISPLAY", true}, {"THREAD", "THREAD=REFS", true},
		{"THREAD=REFS", "THREAD=REFERENCES", false}, {"SORT=DISPLAY", "SORT", false}, {"LITERAL+", "LITERAL-", false}, {"ID", "IDLE", false},
	} {
		s := &session{account: account.Account{Hidden: []string{"ACL", c.hide}}}
		if got := s.hidden(c.name); got != c.want {
			t.Errorf("%s hidden hides %s: %v", c.hide, c.name, got)
		}
	}
}

func TestAnnouncedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range (&session{srv: &Server{}, conn: &conn{}, owner: 1}).announced() {
		if seen[c.name] {
			t.Errorf("%s is announced twice", c.name)
		}
		seen[c.name] = true
	}
}

func TestHideable(t *testing.T) {
	list := Hideable()
	for _, name := range []string{"IDLE", "IMAP4REV2", "ENABLE"} {
		if !slices.Contains(list, name) {
			t.Errorf("%s cannot be hidden", name)
		}
	}
	for _, name := range []string{"IMAP4REV1", "STARTTLS", "AUTH", ""} {
		if slices.Contains(list, name) {
			t.Errorf("%q can be hidden", name)
		}
	}
}

// What is hidden from an account's clients is not announced, not enabled, and its commands are not known.
func TestHiddenIsNotUsable(t *testing.T) {
	h := newHouse(t)
	addr, err := envelope.ParseAddress(user)
	h.must(err)
	_, err = h.config.Accounts.Set(addr, account.Settings{Hide: []string{"IDLE", "COMPRESS", "QRESYNC", "IMAP4rev2", "REPLACE"}})
	h.must(err)
	c := h.raw()
	c.expect("* OK ...")
	c.send("a LOGIN " + user + ` "` + password + "\"\r\n")
	line := c.line()
	for _, name := range []string{" IDLE", "COMPRESS", "QRESYNC", "IMAP4rev2", "REPLACE"} {
		if strings.Contains(line, name) {
			t.Errorf("%s is announced: %q", name, line)
		}
	}
	c.dialog(`
		> b ENABLE QRESYNC IMAP4rev2 CONDSTORE
		< * ENABLED CONDSTORE
		< b OK ...
		> c IDLE
		< c BAD ...
		> d COMPRESS DEFLATE
		< d BAD ...
		> e SELECT INBOX
		< * FLAGS ...`)
	for line := ""; !strings.HasPrefix(line, "e OK"); line = c.line() {
	}
	c.dialog(`
		> f UID REPLACE 1 INBOX {3+}
		> a:b
		< f BAD ...
		> g NOOP
		< g OK ...`)
}
