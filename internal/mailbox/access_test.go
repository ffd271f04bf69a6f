package mailbox

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"postroad/internal/store"
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

// One's own mailboxes have one name only.
func TestOwnUnderOthers(t *testing.T) {
	h := open(t, Options{})
	h.box("a")
	h.grant("a", "anyone", "lr")
	if _, err := h.as(ann).Mailbox(anns+"a", 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("gives %v", err)
	}
	if _, err := h.as(ann).Create(others+"/x", ""); !errors.Is(err, ErrName) && !errors.Is(err, ErrNotFound) {
		t.Errorf("create: %v", err)
	}
	for _, name := range []string{others, others + "/x"} {
		if _, err := h.Create(ann, name, ""); !errors.Is(err, ErrName) {
			t.Errorf("create %s: %v", name, err)
		}
	}
}

// An address can have octets that a level cannot.
func TestEscapedLevel(t *testing.T) {
	h := open(t, Options{})
	carls := h.as(carl)
	_, err := carls.Create("a", "")
	h.must(err)
	h.must(carls.SetACL("a", "bob@x.test", 0, RightLookup))
	list, err := h.as(bob).List()
	h.must(err)
	const name = OthersPrefix + "c=2F=2A=3Dl@x.test/a"
	equal(t, "bob's list", names(list), []string{name})
	if m, err := h.as(bob).Mailbox(name, 0); err != nil || m.Name != name {
		t.Errorf("%+v, %v", m, err)
	}
}

func FuzzLevel(f *testing.F) {
	f.Add("a/b%*=\x00\"c d\"@x.test")
	f.Fuzz(func(t *testing.T, address string) {
		level := escapeLevel(address)
		if strings.ContainsAny(level, "/*% \x00\r\n") {
			t.Errorf("%q gives %q", address, level)
		}
		if got, err := unescapeLevel(level); got != address || err != nil {
			t.Errorf("%q gives %q and back %q, %v", address, level, got, err)
		}
		_, _ = unescapeLevel(address)
	})
}

// A new mailbox has the rights of the nearest above it, whoever makes it; renaming changes none.
func TestInherit(t *testing.T) {
	h := open(t, Options{})
	h.box("a")
	h.grant("a", "bob@x.test", "lrk")
	h.grant("a", "-anyone", "w")
	m, err := h.as(bob).Create(anns+"a/b/c/", "")
	h.must(err)
	if m.Name != anns+"a/b/c" || m.Owner != ann || m.Rights.String() != "lrkc" {
		t.Errorf("made %+v", m)
	}
	h.box("a/d")
	for _, name := range []string{"a", "a/b", "a/b/c", "a/d"} {
		if m, err := h.as(bob).Mailbox(anns+name, 0); err != nil || m.Rights.String() != "lrkc" {
			t.Errorf("%s: %v, %v", name, m.Rights, err)
		}
	}
	h.must(h.as(ann).Rename(t.Context(), "a/b", "elsewhere"))
	if m, err := h.as(bob).Mailbox(anns+"elsewhere/c", 0); err != nil || m.Rights.String() != "lrkc" {
		t.Errorf("renamed: %v, %v", m.Rights, err)
	}
	h.box("fresh")
	if _, err := h.as(bob).Mailbox(anns+"fresh", 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("at the top: %v", err)
	}
}

func TestAccessCreate(t *testing.T) {
	h := open(t, Options{Mailboxes: 5})
	h.box("a")
	h.box("full")
	h.grant("a", "bob@x.test", "lk")
	h.grant("full", "bob@x.test", "l")
	for _, c := range []struct {
		who  Owner
		name string
		role Role
		want error
	}{
		{bob, anns + "a/b", Sent, ErrRole},
		{bob, anns + "top", "", ErrNotFound},
		{bob, anns + "full/x", "", ErrRights},
		{bob, OthersPrefix + "nobody@x.test/x", "", ErrNotFound},
		{bob, OthersPrefix + "ann@x.test", "", ErrName},
		{bob, anns, "", ErrName},
		{bob, anns + "a/*", "", ErrName},
		{bob, anns + "a", "", ErrExists},
		{ann, "s/", Sent, nil},
		{ann, "s2", Sent, ErrRole},
		{ann, "inbox/a", "", nil},
		{ann, "t/u", "", ErrLimit},
		{bob, anns + "a/c", "", ErrLimit}, // ann's are counted
		{bob, "t", "", nil},
	} {
		_, err := h.as(c.who).Create(c.name, c.role)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("create %s gives %v, want %v", c.name, err, c.want)
		}
	}
}

// A mailbox goes and those below it stay; a name that only has mailboxes below it cannot be removed (RFC 9051, 6.3.5).
func TestAccessRemove(t *testing.T) {
	h := open(t, Options{})
	h.box("INBOX")
	h.append(h.box("a/b").ID, small)
	h.grant("a", "bob@x.test", "lx")
	h.grant("inbox", "bob@x.test", "lx")
	h.must(h.as(bob).Remove(t.Context(), anns+"a"))
	for _, c := range []struct {
		who  Owner
		name string
		want error
	}{
		{ann, "a", ErrChildren},
		{bob, anns + "a", ErrNotFound}, // it does not see what is below
		{bob, anns + "Inbox", ErrInbox},
		{ann, "inbox", ErrInbox},
		{ann, "a/b", nil},
		{ann, "a", ErrNotFound},
	} {
		if err := h.as(c.who).Remove(t.Context(), c.name); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("remove %s gives %v, want %v", c.name, err, c.want)
		}
	}
	h.box("a")
	if _, err := h.as(bob).Mailbox(anns+"a", 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("made again, it has the old rights: %v", err)
	}
}

func TestAccessRename(t *testing.T) {
	for _, c := range []struct {
		what     string
		who      Owner
		from, to string
		want     error
	}{
		{"own", ann, "a", "z/y", nil},
		{"own with trailing separators", ann, "a/", "z/", nil},
		{"to another's", ann, "a", OthersPrefix + "bob@x.test/a", ErrOwner},
		{"to nobody's", ann, "a", OthersPrefix + "nobody@x.test/a", ErrOwner},
		{"inbox to another's", ann, "INBOX", OthersPrefix + "bob@x.test/a", ErrOwner},
		{"another's to own", bob, anns + "a", "a", ErrOwner},
		{"another's", bob, anns + "a", anns + "k/a", nil},
		{"another's to the top", bob, anns + "a", anns + "z", ErrNotFound},
		{"another's to where it may not", bob, anns + "a", anns + "l/a", ErrRights},
		{"another's inbox", bob, anns + "inbox", anns + "k/a", ErrRights},
		{"a name above", ann, "only", "z", nil},
		{"another's name above", bob, anns + "only", anns + "k/z", ErrNotFound},
		{"what is not there", bob, anns + "none", anns + "k/z", ErrNotFound},
		{"what is not there to another's", bob, "none", anns + "k/z", ErrNotFound},
		{"impossible", bob, anns + "a", anns + "k//a", ErrName},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := open(t, Options{})
			for _, name := range []string{"INBOX", "a/b", "k", "l", "only/x", "only/y"} {
				h.box(name)
			}
			h.must(h.Remove(t.Context(), ann, "only"))
			h.must(h.Subscribe(bob, "x", true))
			h.grant("a", "bob@x.test", "lx")
			h.grant("inbox", "bob@x.test", "lx")
			h.grant("k", "bob@x.test", "lk")
			h.grant("l", "bob@x.test", "l")
			h.grant("only/x", "bob@x.test", "x")
			err := h.as(c.who).Rename(t.Context(), c.from, c.to)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("gives %v, want %v", err, c.want)
			}
		})
	}
}

func TestAccessSubscribe(t *testing.T) {
	h := open(t, Options{Mailboxes: 4})
	h.box("a")
	h.grant("a", "bob@x.test", "l")
	b := h.as(bob)
	for _, name := range []string{"inBox", OthersPrefix + "ANN@x.test/a/", OthersPrefix + "nobody@x.test/x", anns + "not/there"} {
		h.must(b.Subscribe(name, true))
	}
	if err := b.Subscribe("five", true); !errors.Is(err, ErrLimit) {
		t.Errorf("a fifth: %v", err)
	}
	got, err := b.Subscriptions()
	h.must(err)
	equal(t, "subscriptions", got, []string{"INBOX", anns + "a", anns + "not/there", OthersPrefix + "nobody@x.test/x"})
	list, err := b.List()
	h.must(err)
	if len(list) != 1 || !list[0].Subscribed {
		t.Errorf("list %+v", list)
	}
	if m, err := b.Mailbox(anns+"a", 0); err != nil || !m.Subscribed {
		t.Errorf("mailbox %+v, %v", m, err)
	}
	h.must(b.Subscribe(anns+"a", false))
	if m, err := b.Mailbox(anns+"a", 0); err != nil || m.Subscribed {
		t.Errorf("mailbox %+v, %v", m, err)
	}
	for _, name := range []string{"a*", anns + "%", OthersPrefix + "=zz/a", OthersPrefix + "=/a"} {
		if err := b.Subscribe(name, true); !errors.Is(err, ErrName) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What another account's mailbox is for is not told: its Sent is not where bob's mail is kept.
func TestRoleIsTheOwners(t *testing.T) {
	h := open(t, Options{})
	m, err := h.Create(ann, "s", Sent)
	h.must(err)
	h.grant("s", "anyone", "lr")
	for _, who := range []Owner{ann, bob} {
		list, err := h.as(who).List()
		h.must(err)
		checked, err := h.as(who).Check(m.ID, 0)
		h.must(err)
		named, err := h.as(who).Mailbox(list[0].Name, 0)
		h.must(err)
		for _, m := range []Mailbox{list[0], checked, named} {
			if (m.Role == Sent) != (who == ann) {
				t.Errorf("to %d %s has the role %q", who, m.Name, m.Role)
			}
		}
	}
}

func TestParseRole(t *testing.T) {
	for _, c := range []struct {
		uses []string
		want Role
		bad  bool
	}{
		{nil, "", false},
		{[]string{`\sent`}, Sent, false},
		{[]string{`\Archive`, `\JUNK`, `\Archive`}, `\Archive \Junk`, false},
		{[]string{`\All`}, "", true},
		{[]string{`\Sent`, `\Flagged`}, "", true},
		{[]string{`Sent`}, "", true},
	} {
		got, err := ParseRole(c.uses)
		if got != c.want || errors.Is(err, ErrRole) != c.bad {
			t.Errorf("%v gives %q, %v", c.uses, got, err)
		}
	}
	h := open(t, Options{})
	_, err := h.Create(ann, "a", `\Archive \Junk`)
	h.must(err)
	if _, err := h.Create(ann, "b", Junk); !errors.Is(err, ErrRole) {
		t.Errorf("a second \\Junk: %v", err)
	}
	h.must(h.Remove(t.Context(), ann, "a"))
	_, err = h.Create(ann, "b", Junk)
	h.must(err)
}

// A list of many mailboxes is one transaction and little for each.
func TestListMany(t *testing.T) {
	h := open(t, Options{})
	const n = 500
	h.must(h.st.Update(func(tx store.Tx) error {
		for i := range n {
			if _, err := h.create(tx, ann, fmt.Sprint("m", i), ""); err != nil {
				return err
			}
		}
		return nil
	}))
	a := h.as(ann)
	allocs := testing.AllocsPerRun(5, func() {
		list, err := a.List()
		if err != nil || len(list) != n {
			t.Errorf("%d mailboxes, %v", len(list), err)
		}
	})
	if allocs > 4*n {
		t.Errorf("%.1f allocations for each mailbox", allocs/n)
	}
}
