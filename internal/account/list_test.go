package account

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"postroad/internal/envelope"
)

func TestMayPost(t *testing.T) {
	d := townWith(t, Subaddress{"+", false})
	news := addr("news@x.test") // its member is b@x.test and reader@far.test, its owners a@x.test and boss@far.test
	for _, c := range []struct {
		name, from string
		members    bool
		owners     bool
	}{
		{"a member", "B@x.test", true, false},
		{"a member elsewhere", "reader@FAR.test", true, false},
		{"a member by its domain's alias", "b@y.test", true, false},
		{"an owner", "a@x.test", true, true},
		{"an owner elsewhere", "Boss@far.test", true, true},
		{"an owner by its domain's alias", "a@y.test", true, true},
		{"a stranger", "c@x.test", false, false},
		{"who has a member's local part", "b@far.test", false, false},
		{"the owners' address", "news-owner@x.test", false, false},
		{"the list", "news@x.test", false, false},
	} {
		for post, want := range map[Poster]bool{PostMembers: c.members, PostOwners: c.owners, PostAnyone: true} {
			if _, err := d.ChangeList(news, func(l *List) { l.Post = post }); err != nil {
				t.Fatal(err)
			}
			if got, err := d.MayPost(addr("News@X.test"), addr(c.from)); got != want || err != nil {
				t.Errorf("%s where %s may: %v %v", c.name, post, got, err)
			}
			if _, _, _, err := d.Expand(news, addr(c.from)); errors.Is(err, ErrPost) == want {
				t.Errorf("%s where %s may: expanding gives %v", c.name, post, err)
			}
			if got, err := d.MayPost(news, envelope.Address{}); got || err != nil {
				t.Errorf("the null sender where %s may: %v %v", post, got, err)
			}
		}
	}
	if _, err := d.MayPost(addr("none@x.test"), addr("a@x.test")); !errors.Is(err, ErrNotFound) {
		t.Errorf("no list: %v", err)
	}
}

func TestExpand(t *testing.T) {
	d := townWith(t, Subaddress{})
	more := []envelope.Address{addr("info@x.test"), addr("A@y.test"), addr("e@x.test"), addr("nobody@x.test"), addr("Out@FAR.test")}
	if _, err := d.AddMembers(addr("news@x.test"), more); err != nil {
		t.Fatal(err)
	}
	l, targets, lost, err := d.Expand(addr("News@x.test"), addr("a@x.test"))
	if err != nil || l.Members != 7 || l.Owner() != addr("news-owner@x.test") {
		t.Fatal(l, err)
	}
	if got := show(targets); got != "Out@far.test Reader@far.test b@x.test e@x.test a@x.test" {
		t.Errorf("it leads to %s", got)
	}
	if fmt.Sprint(lost) != "[nobody@x.test]" {
		t.Errorf("lost: %v", lost)
	}
	if _, _, _, err := d.Expand(addr("none@x.test"), addr("a@x.test")); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestLists(t *testing.T) {
	d := townWith(t, Subaddress{})
	good := List{Address: addr("l@x.test"), Owners: []envelope.Address{addr("a@x.test")}, Post: PostAnyone}
	with := func(fn func(*List)) func() error {
		return func() error {
			l := good
			fn(&l)
			_, err := d.AddList(l)
			return err
		}
	}
	for _, c := range []struct {
		name string
		do   func() error
		want error
	}{
		{"one that is there", with(func(l *List) { l.Address = addr("NEWS@x.test") }), ErrExists},
		{"at an account", with(func(l *List) { l.Address = addr("b@x.test") }), ErrExists},
		{"at an alias", with(func(l *List) { l.Address = addr("info@x.test") }), ErrExists},
		{"in a foreign domain", with(func(l *List) { l.Address = addr("l@far.test") }), ErrNoDomain},
		{"without owners", with(func(l *List) { l.Owners = nil }), ErrSetting},
		{"with an owner that is not there", with(func(l *List) { l.Owners = append(l.Owners[:1:1], addr("nobody@x.test")) }), ErrUnknown},
		{"with one that is not there any more", func() error {
			_, err := d.ChangeList(addr("news@x.test"), func(l *List) { l.Owners = []envelope.Address{addr("nobody@y.test")} })
			return err
		}, ErrUnknown},
		{"with too many", with(func(l *List) { l.Owners = make([]envelope.Address, 101) }), ErrSetting},
		{"for nobody to write to", with(func(l *List) { l.Post = "" }), ErrSetting},
		{"not ASCII", with(func(l *List) { l.Address = addr("l\u00e4@x.test") }), ErrSetting},
		{"quoted", with(func(l *List) { l.Address = addr(`"l,k"@x.test`) }), ErrSetting},
		{"too long", with(func(l *List) { l.Address.Local = strings.Repeat("l", 59) }), ErrSetting},
		{"an owners' address", with(func(l *List) { l.Address = addr("x-Owner@x.test") }), ErrSetting},
		{"a title of two lines", with(func(l *List) { l.Title = "a\r\nBcc: b" }), ErrSetting},
		{"a title of 201 octets", with(func(l *List) { l.Title = strings.Repeat("x", 201) }), ErrSetting},
		{"an account where one is", func() error { _, err := d.Add(addr("news@x.test"), "secret", nil); return err }, ErrExists},
		{"an alias where one is", func() error { _, err := d.SetAlias(addr("news@x.test"), good.Owners); return err }, ErrExists},
		{"members of none", func() error { _, err := d.AddMembers(addr("x@x.test"), nil); return err }, ErrNotFound},
		{"too many members", func() error { _, err := d.AddMembers(addr("news@x.test"), crowd(maxMembers)); return err }, ErrTargets},
		{"a member that is none", func() error {
			_, err := d.RemoveMembers(addr("news@x.test"), []envelope.Address{addr("b@x.test"), addr("c@x.test")})
			return err
		}, ErrNotFound},
		{"none that is there", func() error { return d.RemoveList(addr("x@x.test")) }, ErrNotFound},
		{"its domain", func() error { return d.RemoveDomain("x.test") }, ErrNotEmpty},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if l, err := d.List(addr("news@x.test")); err != nil || l.Members != 2 {
		t.Errorf("what was refused was done: %+v %v", l, err)
	}
	if err := d.RemoveList(addr("news@x.test")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.AddList(List{Address: addr("news@x.test"), Owners: good.Owners, Post: PostAnyone}); err != nil {
		t.Fatal(err)
	}
	if m, err := d.Members(addr("news@x.test")); err != nil || len(m) != 0 {
		t.Errorf("a new list has the members of the one before: %v %v", m, err)
	}
}

func crowd(n int) (list []envelope.Address) {
	for i := range n {
		list = append(list, envelope.Address{Local: fmt.Sprint("m", i), Domain: "far.test"})
	}
	return list
}
