package mailbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// An operation is one of an Access, with the rights on the mailbox that it takes: all of need, and one of any.
type operation struct {
	name      string
	need, any Rights
	refusal   error // when not ErrRights for who sees the mailbox
	do        func(h house, a *Access, name string) error
}

const annotators = RightRead | RightSeen | RightWrite | RightInsert | RightPost

func operations() []operation {
	list := []operation{
		{"visible", RightLookup, 0, nil, func(_ house, a *Access, name string) error {
			_, err := a.Mailbox(name, 0)
			return err
		}},
		{"check", RightRead, 0, nil, func(h house, a *Access, name string) error {
			m, err := h.Get(ann, strings.TrimPrefix(name, anns))
			if err != nil {
				return ErrNotFound
			}
			_, err = a.Check(m.ID, RightRead)
			return err
		}},
		{"list", RightLookup, 0, ErrNotFound, func(_ house, a *Access, name string) error {
			list, err := a.List()
			if err == nil && !slices.Contains(names(list), name) {
				err = notFound(name)
			}
			return err
		}},
		{"create below", RightCreate, 0, nil, func(_ house, a *Access, name string) error {
			_, err := a.Create(name+"/new/er", "")
			if err != nil && errors.Is(err, ErrNotFound) {
				return notFound(name)
			}
			return err
		}},
		{"remove", RightDelete, 0, nil, func(h house, a *Access, name string) error {
			return a.Remove(h.Context(), name)
		}},
		{"rename", RightDelete, 0, nil, func(h house, a *Access, name string) error {
			return a.Rename(h.Context(), name, anns+"free/"+fmt.Sprint(len(name), name[len(name)-3:]))
		}},
		{"rename below", RightCreate, 0, nil, func(h house, a *Access, name string) error {
			h.box("movable")
			h.grant("movable", "bob@x.test", "lx")
			err := a.Rename(h.Context(), anns+"movable", name+"/moved")
			if err != nil {
				h.must(h.Remove(h.Context(), ann, "movable"))
			}
			if errors.Is(err, ErrNotFound) {
				return notFound(name)
			}
			return err
		}},
		{"acl", RightAdmin, 0, nil, func(_ house, a *Access, name string) error {
			_, err := a.ACL(name)
			return err
		}},
		{"set acl", RightAdmin, 0, nil, func(_ house, a *Access, name string) error {
			return a.SetACL(name, "anyone", '+', RightPost)
		}},
		{"set acl of nobody", RightAdmin, 0, nil, func(_ house, a *Access, name string) error {
			err := a.SetACL(name, "nobody@x.test", '+', RightPost)
			if errors.Is(err, ErrIdentifier) {
				return nil
			}
			return err
		}},
		{"delete acl", RightAdmin, 0, nil, func(_ house, a *Access, name string) error {
			return a.DeleteACL(name, "anyone")
		}},
		{"list rights", RightAdmin, 0, nil, func(_ house, a *Access, name string) error {
			_, _, err := a.ListRights(name, "anyone")
			return err
		}},
		{"my rights", 0, RightLookup | RightRead | RightInsert | RightCreate | RightDelete | RightAdmin, nil,
			func(_ house, a *Access, name string) error {
				_, err := a.MyRights(name)
				return err
			}},
		{"metadata", RightLookup, annotators, nil, func(_ house, a *Access, name string) error {
			_, _, err := a.Metadata(name, []string{"/shared/comment"}, 0, -1)
			return err
		}},
		{"set private metadata", RightLookup, annotators, nil, func(_ house, a *Access, name string) error {
			return a.SetMetadata(name, []Annotation{{"/private/comment", []byte("x")}})
		}},
		{"set shared metadata", RightLookup | RightWrite, annotators, nil, func(_ house, a *Access, name string) error {
			return a.SetMetadata(name, []Annotation{{"/shared/comment", []byte("x")}})
		}},
		{"quota root", RightRead, 0, nil, func(_ house, a *Access, name string) error {
			_, err := a.QuotaRoot(name)
			return err
		}},
		{"subscribe", 0, 0, nil, func(_ house, a *Access, name string) error { return a.Subscribe(name, true) }},
		{"unsubscribe", 0, 0, nil, func(_ house, a *Access, name string) error { return a.Subscribe(name, false) }},
	}
	for r := RightLookup; r <= RightAdmin; r <<= 1 {
		list = append(list, operation{"ask for " + r.letters(), r, 0, nil, func(_ house, a *Access, name string) error {
			_, err := a.Mailbox(name, r)
			return err
		}})
	}
	return list
}

// given are the rights that the matrix gives: none, all, each alone, each with lookup, and all but each.
func given() []Rights {
	sets := []Rights{0, AllRights}
	for r := RightLookup; r <= RightAdmin; r <<= 1 {
		sets = append(sets, r, r|RightLookup, AllRights&^r)
	}
	return sets
}

// verdict is what the rights that are given make of an operation.
func (o operation) verdict(has Rights) error {
	switch {
	case has.Has(o.need) && (o.any == 0 || has&o.any != 0):
		return nil
	case has.Has(RightLookup) && o.refusal == nil:
		return ErrRights
	}
	return ErrNotFound
}

// Every operation by every set of rights, given in each way that rights can be given, is allowed or refused as RFC 4314, 4 and RFC 5464,
// 3.3 say, and to who may not see the mailbox in the words of one that is not there.
func TestRightsMatrix(t *testing.T) {
	ways := []struct {
		name string
		give func(h house, box string, r Rights)
	}{
		{"by address", func(h house, box string, r Rights) { h.grant(box, "bob@x.test", r.letters()) }},
		{"by anyone", func(h house, box string, r Rights) { h.grant(box, "anyone", r.letters()) }},
		{"less what is taken", func(h house, box string, r Rights) {
			h.grant(box, "anyone", AllRights.letters())
			h.grant(box, "-bob@x.test", (AllRights &^ r).letters())
		}},
	}
	for _, o := range operations() {
		t.Run(o.name, func(t *testing.T) {
			h := open(t, Options{})
			h.box("free")
			h.grant("free", "anyone", "k")
			a := h.as(bob)
			for w, way := range ways {
				for i, r := range given() {
					box := fmt.Sprintf("box%d%02d", w, i)
					h.box(box)
					way.give(h, box, r)
					err, want := o.do(h, a, anns+box), o.verdict(r)
					if !errors.Is(err, want) || (err == nil) != (want == nil) {
						t.Errorf("with %q %s: %v, want %v", r.letters(), way.name, err, want)
					}
					absent := o.do(h, a, anns+"gone"+box)
					if want == ErrNotFound && (absent == nil || strings.ReplaceAll(absent.Error(), "gone", "") != err.Error()) {
						t.Errorf("with %q %s: %v, and what is not there gives %v", r.letters(), way.name, err, absent)
					}
				}
			}
		})
	}
}

// An owner may do all with a mailbox, but for what it has forbidden itself, and it can always take that back.
func TestOwnersRights(t *testing.T) {
	for _, o := range operations() {
		t.Run(o.name, func(t *testing.T) {
			h := open(t, Options{})
			h.box("free")
			own := o
			if err := own.do(h, h.as(ann), "free"); o.name != "rename" && o.name != "rename below" && err != nil {
				t.Errorf("the owner: %v", err)
			}
		})
	}
	for _, way := range []struct{ who, rights string }{{"ann@x.test", "r"}, {"-ann@x.test", "lswipkxtea"}, {"-anyone", "lswipkxtea"}} {
		h := open(t, Options{})
		h.box("a")
		h.grant("a", way.who, way.rights)
		m, err := h.as(ann).Mailbox("a", 0)
		h.must(err)
		if got := m.Rights.String(); got != "lra" {
			t.Errorf("%s %s leaves %s", way.who, way.rights, got)
		}
		if err := h.as(ann).Remove(t.Context(), "a"); !errors.Is(err, ErrRights) {
			t.Errorf("remove: %v", err)
		}
		h.must(h.as(ann).DeleteACL("a", way.who))
		h.must(h.as(ann).Remove(t.Context(), "a"))
	}
}

func TestParseRights(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"lrs", "lrs"}, {"", ""}, {"srl", "lrs"}, {"lrd", "lrted"}, {"c", "kxc"}, {"k", "kc"}, {"x", "xc"}, {"t", "td"}, {"e", "ed"},
		{"lrswipkxtea", "lrswipkxteacd"}, {"lrswipcda", "lrswipkxteacd"}, {"ll", "l"},
	} {
		r, err := ParseRights(c.in)
		if err != nil || r.String() != c.out {
			t.Errorf("%q gives %q, %v, want %q", c.in, r, err, c.out)
		}
	}
	for _, in := range []string{"L", "q", "l r", "0", "é"} {
		if _, err := ParseRights(in); !errors.Is(err, ErrRight) {
			t.Errorf("%q gives %v", in, err)
		}
	}
}
