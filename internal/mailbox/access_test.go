package mailbox

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// people are the accounts of tests, by their addresses.
type people map[string]Owner

const (
	ann  = Owner(7) // whose mailboxes tests make
	bob  = Owner(8)
	carl = Owner(9)
)

func (p people) Owner(address string) (Owner, bool, error) {
	o, ok := p[strings.ToLower(address)]
	return o, ok, nil
}

func (p people) Address(o Owner) (string, error) {
	for address, owner := range p {
		if owner == o {
			return address, nil
		}
	}
	return "", nil
}

var everyone = people{"ann@x.test": ann, "bob@x.test": bob, "c/*=l@x.test": carl}

func (h house) as(o Owner) *Access { return h.For(o, everyone) }

// grant lets bob, or who else, do something with one of ann's mailboxes.
func (h house) grant(name, who, rights string) {
	h.Helper()
	r, err := ParseRights(rights)
	h.must(err)
	h.must(h.as(ann).SetACL(name, who, 0, r))
}

const anns = OthersPrefix + "ann@x.test/"

// The account sees what it was given, by the owner's address.
func TestShared(t *testing.T) {
	h := open(t, Options{})
	for _, name := range []string{"INBOX", "a/b", "a/c"} {
		h.box(name)
	}
	h.grant("inbox", "bob@x.test", "lr")
	h.grant("a/b", "anyone", "l")
	h.grant("a/c", "anyone", "r")
	list, err := h.as(bob).List()
	h.must(err)
	equal(t, "bob's list", names(list), []string{anns + "INBOX", anns + "a/b"})
	list, err = h.as(carl).List()
	h.must(err)
	equal(t, "carl's list", names(list), []string{anns + "a/b"})
	list, err = h.as(ann).List()
	h.must(err)
	equal(t, "ann's list", names(list), []string{"INBOX", "a", "a/b", "a/c"})
	m, err := h.as(bob).Mailbox(OthersPrefix+"ANN@x.test/inbox", RightRead)
	if err != nil || m.Rights != RightLookup|RightRead || m.Owner != ann {
		t.Errorf("bob reads %+v, %v", m, err)
	}
	if m, err := h.as(ann).Mailbox("inbox", AllRights); err != nil || m.Rights != AllRights {
		t.Errorf("ann reads %+v, %v", m, err)
	}
}

// What may not be seen is refused in the words of what is not there.
func TestNoOracle(t *testing.T) {
	h := open(t, Options{})
	h.box("hidden")
	for _, name := range []string{
		anns + "hidden", anns + "nothing", OthersPrefix + "nobody@x.test/hidden", anns + "hidden/below",
		OthersPrefix + "bob@x.test/INBOX", OthersPrefix, others, OthersPrefix + "ann@x.test", anns, OthersPrefix + "=/x",
	} {
		_, err := h.as(bob).Mailbox(name, 0)
		want := fmt.Sprintf("%v: %q", ErrNotFound, name)
		if !errors.Is(err, ErrNotFound) || err.Error() != want {
			t.Errorf("%s gives %q, want %q", name, err, want)
		}
	}
}
