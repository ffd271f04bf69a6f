package imapd

import (
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// Bounds of a LIST's patterns.
const (
	maxPatterns      = 100
	maxPatternOctets = 4 << 10 // of all, with the reference before each
)

// list is LIST (RFC 9051, 6.3.9; RFC 5258). The reference is put before each pattern.
func (s *session) list(c *wire.List) reply {
	if !c.Extended && len(c.Patterns) == 1 && c.Patterns[0] == "" {
		s.listRoot(c.Reference)
		return reply{}
	}
	match, err := matcher(c.Reference, c.Patterns)
	if err != nil {
		return s.refuse("list the mailboxes", err)
	}
	tree, err := s.tree()
	if err != nil {
		return s.refuse("list the mailboxes", err)
	}
	if c.ReturnStatus&wire.StatusHighestModSeq != 0 {
		s.followModSeqs()
	}
	chosen := choose(tree, match, selection(c))
	for _, n := range chosen.nodes {
		if err := s.listOne(c, n, &chosen); err != nil {
			return s.refuseMetadata("list the mailboxes", err)
		}
	}
	return reply{}
}

// listRoot answers LIST "" "", which asks for the hierarchy's delimiter and the root of a reference.
func (s *session) listRoot(reference string) {
	root := ""
	if strings.HasPrefix(reference, mailbox.OthersPrefix) {
		root = mailbox.OthersPrefix
	}
	s.out.Raw(`* LIST (\Noselect) "/" `).Mailbox(root).CRLF()
}

// lsub is LSUB (RFC 3501, 6.3.9): the subscribed names, and those that match in place of subscribed ones below them
// that do not. Both have \Noselect where there is nothing to select.
func (s *session) lsub(c *wire.List) reply {
	match, err := matcher(c.Reference, c.Patterns)
	if err != nil {
		return s.refuse("list the subscriptions", err)
	}
	tree, err := s.tree()
	if err != nil {
		return s.refuse("list the subscriptions", err)
	}
	for _, n := range choose(tree, match, criteria{subscribed: true, recursive: true}).nodes {
		s.out.Raw("* LSUB ")
		if n.subscribed && n.mailbox != nil {
			s.out.Flags(nil)
		} else {
			s.out.Flags([]string{`\Noselect`})
		}
		s.out.Raw(` "/" `).Mailbox(n.name).CRLF()
	}
	return reply{}
}

// matcher reports whether a name matches one of the patterns.
func matcher(ref string, patterns []string) (func(name string) bool, error) {
	octets := len(patterns) * len(ref)
	for _, p := range patterns {
		octets += len(p)
	}
	if len(patterns) > maxPatterns || octets > maxPatternOctets {
		return nil, no(codeLimit, "the patterns are too many or too long")
	}
	var ready []*pattern
	for _, p := range patterns {
		if p != "" { // of an extended LIST it matches nothing (RFC 5258, 3)
			ready = append(ready, newPattern(norm.NFC.String(ref+p)))
		}
	}
	return func(name string) bool {
		return slices.ContainsFunc(ready, func(p *pattern) bool { return p.match(name) })
	}, nil
}

// A node is a name in the tree of mailboxes: a mailbox, a subscription without one, or a level above others.
type node struct {
	name       string
	mailbox    *mailbox.Mailbox // nil when there is none
	subscribed bool
	children   bool // there are mailboxes below
	above      *node

	// Of a choice.
	chosen bool // it meets the criteria
	below  bool // another below it does
	hidden bool // another below it does, and matches no pattern
}

// tree returns all names that the account sees, each after those above it, INBOX and what is below it first.
func (s *session) tree() ([]*node, error) {
	all, err := s.access.List()
	if err != nil {
		return nil, err
	}
	subscribed, err := s.access.Subscriptions()
	if err != nil {
		return nil, err
	}
	return grow(all, subscribed), nil
}

func grow(all []mailbox.Mailbox, subscribed []string) []*node {
	f := make(forest, len(all))
	for i := range all {
		n := f.node(all[i].Name)
		n.mailbox = &all[i]
		for up := n.above; up != nil && !up.children; up = up.above {
			up.children = true
		}
	}
	for _, name := range subscribed {
		f.node(name).subscribed = true
	}
	return f.sorted()
}

type forest map[string]*node

// node returns the node of a name, and makes it and those above it where they are missing.
func (f forest) node(name string) *node {
	n := f[name]
	if n == nil {
		n = &node{name: name}
		f[name] = n
		if i := strings.LastIndexByte(name, '/'); i > 0 {
			n.above = f.node(name[:i])
		}
	}
	return n
}

func (f forest) sorted() []*node {
	nodes := make([]*node, 0, len(f))
	for _, n := range f {
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b *node) int { return compareNames(a.name, b.name) })
	return nodes
}

// compareNames puts INBOX first and what is below a name next to it: "/" comes before all other octets.
func compareNames(a, b string) int {
	if a, b := inInbox(a), inInbox(b); a != b {
		if a {
			return -1
		}
		return 1
	}
	for i := 0; i < len(a) && i < len(b); i++ {
		switch {
		case a[i] == b[i]:
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		default:
			return int(a[i]) - int(b[i])
		}
	}
	return len(a) - len(b)
}

func inInbox(name string) bool { return name == "INBOX" || strings.HasPrefix(name, "INBOX/") }

// criteria are the selection options of a LIST (RFC 5258, 3.1; RFC 6154, 2). REMOTE adds nothing: all mailboxes
// are here.
type criteria struct {
	subscribed, specialUse, recursive bool
}

func selection(c *wire.List) criteria { return criteria{c.Subscribed, c.SpecialUse, c.RecursiveMatch} }

func (c criteria) meets(n *node) bool {
	switch {
	case c.subscribed && !n.subscribed:
		return false
	case c.specialUse:
		return n.mailbox != nil && n.mailbox.Role != ""
	case c.subscribed:
		return true
	}
	return n.mailbox != nil || n.children
}

// A choice is what a LIST tells of.
type choice struct {
	nodes     []*node
	childInfo string // the extended data item for those above others
}

// choose marks and returns the nodes that a LIST tells of: those that match a pattern and meet the criteria, and with
// recursive those that match and stand for others below them that do not.
func choose(tree []*node, match func(string) bool, c criteria) choice {
	matches := make([]bool, len(tree))
	for i, n := range tree {
		matches[i] = match(n.name)
		if n.chosen = c.meets(n); n.chosen {
			n.tellAbove(!matches[i])
		}
	}
	chosen := choice{childInfo: c.childInfo()}
	for i, n := range tree {
		if matches[i] && (n.chosen || c.recursive && n.hidden) {
			chosen.nodes = append(chosen.nodes, n)
		}
	}
	return chosen
}

// tellAbove marks the nodes above a chosen one.
func (n *node) tellAbove(hidden bool) {
	for up := n.above; up != nil && (!up.below || hidden && !up.hidden); up = up.above {
		up.below = true
		up.hidden = up.hidden || hidden
	}
}

// childInfo is the extended data item of RFC 5258, 3.5, or nothing.
func (c criteria) childInfo() string {
	var options []string
	if c.subscribed {
		options = append(options, `"SUBSCRIBED"`)
	}
	if c.specialUse {
		options = append(options, `"SPECIAL-USE"`)
	}
	if !c.recursive {
		return ""
	}
	return ` ("CHILDINFO" (` + strings.Join(options, " ") + "))"
}

// listOne tells of one name, and what else was asked of it.
func (s *session) listOne(c *wire.List, n *node, chosen *choice) error {
	s.out.Raw("* LIST ").Flags(s.attributes(c, n)).Raw(` "/" `).Mailbox(n.name)
	if n.below {
		s.out.Raw(chosen.childInfo)
	}
	s.out.CRLF()
	if n.mailbox == nil || !n.chosen { // it stands for others (RFC 5819, 3; RFC 9590, 4)
		return nil
	}
	if c.ReturnStatus != 0 && n.mailbox.Rights.Has(mailbox.RightRead) { // RFC 5819, 2
		if err := s.tellStatus(n.name, n.mailbox, c.ReturnStatus); err != nil {
			return err
		}
	}
	if c.ReturnMyRights { // RFC 8440
		s.tellMyRights(n.name, n.mailbox.Rights)
	}
	if len(c.ReturnMetadata) > 0 {
		return s.listMetadata(n, c.ReturnMetadata)
	}
	return nil
}

// attributes are what LIST tells of a name. What is no mailbox is \NonExistent to those who asked for more than
// RFC 3501 has; others know only \Noselect.
func (s *session) attributes(c *wire.List, n *node) []string {
	var attrs []string
	switch {
	case n.mailbox != nil:
	case c.Extended || s.enabled.has(rev2):
		attrs = append(attrs, `\NonExistent`)
	default:
		attrs = append(attrs, `\Noselect`)
	}
	if n.children {
		attrs = append(attrs, `\HasChildren`)
	} else {
		attrs = append(attrs, `\HasNoChildren`)
	}
	if n.subscribed && (c.Subscribed || c.ReturnSubscribed) {
		attrs = append(attrs, `\Subscribed`)
	}
	if n.mailbox != nil {
		for _, role := range n.mailbox.Role.Roles() {
			attrs = append(attrs, string(role))
		}
	}
	return attrs
}
