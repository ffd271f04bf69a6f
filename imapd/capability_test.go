package imapd

import (
	"slices"
	"testing"

	"postroad/internal/account"
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
