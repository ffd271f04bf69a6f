package mailbox

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"postroad/internal/store"
)

func (h house) acl(name string) string {
	h.Helper()
	list, err := h.as(ann).ACL(name)
	h.must(err)
	var words []string
	for _, g := range list {
		words = append(words, g.Identifier, g.Rights.letters())
	}
	return strings.Join(words, " ")
}

func TestSetACL(t *testing.T) {
	const all = "lrswipkxtea"
	type set struct {
		who    string
		mod    byte
		rights string
	}
	for _, c := range []struct {
		what string
		sets []set
		want string
	}{
		{"none", nil, "ann@x.test " + all},
		{"given", []set{{"BOB@x.test", 0, "lr"}}, "ann@x.test " + all + " bob@x.test lr"},
		{"replaced", []set{{"bob@x.test", 0, "lr"}, {"bob@x.test", 0, "l"}}, "ann@x.test " + all + " bob@x.test l"},
		{"more", []set{{"bob@x.test", '+', "lr"}, {"bob@x.test", '+', "d"}}, "ann@x.test " + all + " bob@x.test lrte"},
		{"fewer", []set{{"bob@x.test", 0, all}, {"bob@x.test", '-', "cd"}}, "ann@x.test " + all + " bob@x.test lrswipa"},
		{"fewer than none", []set{{"bob@x.test", '-', "lr"}}, "ann@x.test " + all},
		{"emptied", []set{{"bob@x.test", 0, "lr"}, {"bob@x.test", 0, ""}}, "ann@x.test " + all},
		{"anyone", []set{{"anyone", 0, "lrp"}}, "ann@x.test " + all + " anyone lrp"},
		{"taken", []set{{"-bob@x.test", 0, "w"}, {"bob@x.test", 0, "lw"}}, "ann@x.test " + all + " -bob@x.test w bob@x.test lw"},
		{"the owner's fewer", []set{{"ann@x.test", '-', "xte"}}, "ann@x.test lrswipka"},
		{"the owner's none", []set{{"ann@x.test", 0, ""}}, "ann@x.test "},
		{"the owner's taken", []set{{"-ann@x.test", 0, "te"}}, "ann@x.test " + all + " -ann@x.test te"},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := open(t, Options{})
			h.box("a")
			for _, s := range c.sets {
				r, err := ParseRights(s.rights)
				h.must(err)
				h.must(h.as(ann).SetACL("a", s.who, s.mod, r))
			}
			if got := h.acl("a"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestIdentifiers(t *testing.T) {
	h := open(t, Options{})
	h.box("a")
	for _, who := range []string{"nobody@x.test", "", "-", "--bob@x.test", "Anyone", "bob"} {
		if err := h.as(ann).SetACL("a", who, 0, RightRead); !errors.Is(err, ErrIdentifier) {
			t.Errorf("set %q: %v", who, err)
		}
		if err := h.as(ann).DeleteACL("a", who); !errors.Is(err, ErrIdentifier) {
			t.Errorf("delete %q: %v", who, err)
		}
	}
	always, optional, err := h.as(ann).ListRights("a", "ann@x.test")
	if err != nil || always.String() != "la" || strings.Join(optional, " ") != "r s w i p k x t e c d" {
		t.Errorf("the owner's: %v, %v, %v", always, optional, err)
	}
	always, optional, err = h.as(ann).ListRights("a", "-ann@x.test")
	if err != nil || always != 0 || strings.Join(optional, " ") != "l r s w i p k x t e a c d" {
		t.Errorf("what is taken from the owner: %v, %v, %v", always, optional, err)
	}
}

// Rights can be passed on by who may do so, and are taken where both are said.
func TestGrantsMeet(t *testing.T) {
	h := open(t, Options{})
	h.box("a")
	h.grant("a", "bob@x.test", "la")
	h.grant("a", "anyone", "lrw")
	h.grant("a", "-anyone", "w")
	h.must(h.as(bob).SetACL(anns+"a", "c/*=l@x.test", 0, RightInsert|RightWrite))
	for who, want := range map[Owner]string{bob: "lra", carl: "lri"} {
		if r, err := h.as(who).MyRights(anns + "a"); err != nil || r.String() != want {
			t.Errorf("%d has %s, %v, want %s", who, r, err, want)
		}
	}
}

func TestGrantsAreBounded(t *testing.T) {
	h := open(t, Options{})
	h.box("a")
	many := people{"ann@x.test": ann}
	for i := range maxGrants + 1 {
		many[fmt.Sprintf("%d@x.test", i)] = Owner(100 + i)
	}
	a := h.For(ann, many)
	for i := range maxGrants {
		h.must(a.SetACL("a", fmt.Sprintf("%d@x.test", i), 0, RightRead))
	}
	if err := a.SetACL("a", fmt.Sprintf("%d@x.test", maxGrants), 0, RightRead); !errors.Is(err, ErrLimit) {
		t.Errorf("one more gives %v", err)
	}
	h.must(a.SetACL("a", "5@x.test", 0, RightLookup))
	h.must(a.DeleteACL("a", "5@x.test"))
	h.must(a.SetACL("a", fmt.Sprintf("%d@x.test", maxGrants), 0, RightRead))
}

// With an account go what it was given, its private annotations everywhere, and what it gave.
func TestRemoveAllOfShared(t *testing.T) {
	h := open(t, Options{})
	h.box("a")
	h.box("b")
	for _, name := range []string{"a", "b"} {
		h.grant(name, "bob@x.test", "lr")
		h.grant(name, "-bob@x.test", "w")
		h.must(h.as(bob).SetMetadata(anns+name, []Annotation{{"/private/comment", []byte("x")}}))
	}
	h.grant("a", "c/*=l@x.test", "lr")
	h.must(h.as(bob).SetMetadata("", []Annotation{{"/private/vendor/x/y", []byte("z")}}))
	_, err := h.as(bob).Create("mine", "")
	h.must(err)
	h.must(h.as(bob).SetACL("mine", "ann@x.test", 0, RightLookup))
	h.must(h.as(ann).Subscribe(OthersPrefix+"bob@x.test/mine", true))
	h.must(h.as(ann).SetMetadata("a", []Annotation{{"/shared/comment", []byte("y")}}))

	h.must(h.RemoveAll(t.Context(), bob))
	h.sound()
	if got := h.acl("a"); got != "ann@x.test lrswipkxtea c/*=l@x.test lr" {
		t.Errorf("a has %s", got)
	}
	list, err := h.as(ann).List()
	h.must(err)
	equal(t, "ann's list", names(list), []string{"a", "b"})
	h.must(h.st.View(func(r store.Reader) error {
		for _, table := range []string{"mg", "mx", "my"} {
			prefix := store.NewKey(table).Uint(uint64(bob))
			for k := range r.Scan(prefix, prefix.End()) {
				t.Errorf("%q is left", k)
			}
		}
		return nil
	}))
	h.must(h.RemoveAll(t.Context(), ann))
	h.must(h.st.View(func(r store.Reader) error {
		for k := range r.Scan([]byte("m"), []byte("n")) {
			t.Errorf("%q is left", k)
		}
		return nil
	}))
}
