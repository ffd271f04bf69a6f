package imapd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"postroad/internal/mailbox"
)

// FuzzList holds what a LIST chooses against the words of RFC 5258, 3, said of each name by itself.
func FuzzList(f *testing.F) {
	f.Add("a/b a/c INBOX/x d", "a/b e/f/g a", "%", uint8(5))
	f.Add("foo2/bar1 foo2/bar2 baz2/bar2 eps2/mamba", "foo2/bar1 foo2/bar2 eps2 eps2/mamba qux2/bar2", "*2", uint8(5))
	f.Add("a a/b", "", "*", uint8(2))
	f.Fuzz(func(t *testing.T, boxes, subscribed, pattern string, options uint8) {
		if len(boxes)+len(subscribed) > 500 || len(pattern) > 50 {
			return
		}
		var all []mailbox.Mailbox
		for i, name := range unique(boxes) {
			m := mailbox.Mailbox{Name: name}
			if i%3 == 1 {
				m.Role = mailbox.Sent
			}
			all = append(all, m)
		}
		c := criteria{options&1 != 0, options&2 != 0, options&4 != 0}
		if !c.subscribed && !c.specialUse {
			c.recursive = false // refused by the parser
		}
		p := newPattern(pattern)
		tree := grow(all, unique(subscribed))
		if !slices.IsSortedFunc(tree, func(a, b *node) int { return compareNames(a.name, b.name) }) {
			t.Error("not in order")
		}
		var want, got []string
		for _, n := range tree {
			if wanted(n, tree, p.match, c) {
				want = append(want, n.name)
			}
		}
		for _, n := range choose(tree, p.match, c).nodes {
			got = append(got, n.name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("chosen %q, want %q", got, want)
		}
		for _, n := range tree {
			if below := hasBelow(n, tree, c.meets); n.below != below {
				t.Errorf("%q: another below it is chosen: %t, want %t", n.name, n.below, below)
			}
			if children := hasBelow(n, tree, func(n *node) bool { return n.mailbox != nil }); n.children != children {
				t.Errorf("%q has children: %t, want %t", n.name, n.children, children)
			}
		}
	})
}

func unique(words string) []string {
	list := strings.Fields(words)
	slices.Sort(list)
	return slices.Compact(list)
}

func wanted(n *node, tree []*node, match func(string) bool, c criteria) bool {
	if !match(n.name) {
		return false
	}
	return c.meets(n) || c.recursive && hasBelow(n, tree, func(b *node) bool { return c.meets(b) && !match(b.name) })
}

func hasBelow(n *node, tree []*node, is func(*node) bool) bool {
	return slices.ContainsFunc(tree, func(b *node) bool { return isBelow(b.name, n.name) && is(b) })
}

// isBelow says whether a name lies below another; neither begins with the delimiter.
func isBelow(name, top string) bool { return strings.HasPrefix(name, top+"/") }

// A bad pattern over many mailboxes costs a bounded number of steps (no regular expression, no backtracking).
func TestListManyMailboxes(t *testing.T) {
	var all []mailbox.Mailbox
	for i := range 10_000 {
		all = append(all, mailbox.Mailbox{Name: fmt.Sprintf("level/%d/%s", i, strings.Repeat("a", 40))})
	}
	match, err := matcher("", []string{strings.Repeat("*%a", 100) + "b"})
	if err != nil {
		t.Fatal(err)
	}
	if chosen := choose(grow(all, nil), match, criteria{}); len(chosen.nodes) != 0 {
		t.Errorf("%d match", len(chosen.nodes))
	}
	match, _ = matcher("level/", []string{"%"})
	if chosen := choose(grow(all, nil), match, criteria{}); len(chosen.nodes) != 10_000 {
		t.Errorf("%d match", len(chosen.nodes))
	}
}
