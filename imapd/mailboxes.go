package imapd

import (
	"errors"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"postroad/internal/mailbox"
)

// Create makes a mailbox, and those above it (RFC 9051, 6.3.4; RFC 6154, 3).
func (s *session) Create(name string, o *imap.CreateOptions) error {
	role, err := roleOf(o.SpecialUse)
	if err != nil {
		return err
	}
	_, err = s.srv.Mailboxes.Create(s.owner, name, role)
	return s.refuse("create the mailbox", err)
}

// Delete removes a mailbox. Those below it stay.
func (s *session) Delete(name string) error {
	mb, err := s.srv.Mailboxes.Get(s.owner, name)
	if err != nil {
		return s.refuse("delete the mailbox", err)
	}
	err = s.srv.Mailboxes.Remove(s.ctx, s.owner, name)
	if err == nil && s.sel != nil && s.sel.id == mb.ID {
		s.sel.gone = true
	}
	return s.refuse("delete the mailbox", err)
}

// Rename renames a mailbox and those below it.
func (s *session) Rename(from, to string, _ *imap.RenameOptions) error {
	return s.refuse("rename the mailbox", s.srv.Mailboxes.Rename(s.ctx, s.owner, from, to))
}

// Subscribe subscribes to a name, whether or not there is a mailbox.
func (s *session) Subscribe(name string) error {
	return s.refuse("subscribe", s.srv.Mailboxes.Subscribe(s.owner, name, true))
}

// Unsubscribe is Subscribe's opposite.
func (s *session) Unsubscribe(name string) error {
	return s.refuse("unsubscribe", s.srv.Mailboxes.Subscribe(s.owner, name, false))
}

// Namespace tells that all mailboxes are the account's own.
func (s *session) Namespace() (*imap.NamespaceData, error) {
	return &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: '/'}}}, nil
}

// AppendLimit is the largest message that APPEND takes (RFC 7889).
func (s *session) AppendLimit() uint32 { return uint32(min(s.srv.Limits.MessageSize, 1<<32-1)) }

// Status counts a mailbox.
func (s *session) Status(name string, o *imap.StatusOptions) (*imap.StatusData, error) {
	if o.DeletedStorage {
		return nil, bad("there is no DELETED-STORAGE here")
	}
	mb, err := s.srv.Mailboxes.Get(s.owner, name)
	if err != nil {
		return nil, s.refuse("count the mailbox", err)
	}
	data := s.statusData(mb)
	data.Mailbox = name
	return data, nil
}

// Bounds of a LIST's patterns.
const (
	maxPatterns      = 100
	maxPatternOctets = 4 << 10 // of all, with the reference before each
)

// List tells of the mailboxes that match (RFC 9051, 6.3.9; RFC 5258). The reference is put before each pattern.
func (s *session) List(w *imapserver.ListWriter, ref string, patterns []string, o *imap.ListOptions) error {
	if len(patterns) == 0 { // LIST "" "" asks for the hierarchy's delimiter
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}, Delim: '/'})
	}
	match, err := matcher(ref, patterns)
	if err != nil {
		return err
	}
	if o.ReturnStatus != nil && o.ReturnStatus.DeletedStorage {
		return bad("there is no DELETED-STORAGE here")
	}
	tree, err := s.tree()
	if err != nil {
		return s.refuse("list the mailboxes", err)
	}
	chosen := choice{options: o, match: match, lsub: s.wire.cmd.name == "LSUB"}
	for _, n := range tree {
		if !chosen.has(n) {
			continue
		}
		if err := w.WriteList(s.listData(n, &chosen)); err != nil {
			return err
		}
	}
	return nil
}

// matcher reports whether a name matches one of the patterns.
func matcher(ref string, patterns []string) (func(name string) bool, error) {
	octets := len(patterns) * len(ref)
	for _, p := range patterns {
		octets += len(p)
	}
	if len(patterns) > maxPatterns || octets > maxPatternOctets {
		return nil, no(imap.ResponseCodeLimit, "the patterns are too many or too long")
	}
	var ready []*pattern
	for _, p := range patterns {
		ready = append(ready, newPattern(ref+p))
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
	below      []*node
}

// tree returns all names of the account in order, INBOX first.
func (s *session) tree() ([]*node, error) {
	all, err := s.srv.Mailboxes.List(s.owner)
	if err != nil {
		return nil, err
	}
	subscribed, err := s.srv.Mailboxes.Subscriptions(s.owner)
	if err != nil {
		return nil, err
	}
	f := forest{}
	for i := range all {
		f.node(all[i].Name).mailbox = &all[i]
		f.grow(all[i].Name)
	}
	for _, name := range subscribed {
		f.node(name).subscribed = true
		f.link(name)
	}
	return f.sorted(), nil
}

type forest map[string]*node

func (f forest) node(name string) *node {
	n := f[name]
	if n == nil {
		n = &node{name: name}
		f[name] = n
	}
	return n
}

// grow makes the levels above a mailbox.
func (f forest) grow(name string) {
	for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name, '/') {
		name = name[:i]
		f.node(name).children = true
	}
}

// link lets the levels above a subscription know of it.
func (f forest) link(name string) {
	n := f[name]
	for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name, '/') {
		name = name[:i]
		up := f.node(name)
		up.below = append(up.below, n)
	}
}

func (f forest) sorted() []*node {
	nodes := make([]*node, 0, len(f))
	for _, n := range f {
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b *node) int {
		switch {
		case a.name == b.name:
			return 0
		case a.name == "INBOX":
			return -1
		case b.name == "INBOX":
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	return nodes
}

// A choice says which names a LIST or LSUB tells of.
type choice struct {
	options *imap.ListOptions
	match   func(string) bool
	lsub    bool
}

func (c *choice) has(n *node) bool {
	o := c.options
	switch {
	case !c.match(n.name):
		return false
	case o.SelectSpecialUse && (n.mailbox == nil || n.mailbox.Role == ""):
		return false
	case o.SelectSubscribed:
		return n.subscribed || c.standsFor(n)
	}
	return n.mailbox != nil || n.children
}

// standsFor reports whether n is told in place of subscribed names below it that do not match themselves: in LSUB and with
// RECURSIVEMATCH.
func (c *choice) standsFor(n *node) bool {
	if !c.lsub && !c.options.SelectRecursiveMatch {
		return false
	}
	return slices.ContainsFunc(n.below, func(b *node) bool { return c.options.SelectRecursiveMatch || !c.match(b.name) })
}

// destination returns the mailbox that messages go to.
func (s *session) destination(name string) (mailbox.Mailbox, error) {
	mb, err := s.srv.Mailboxes.Get(s.owner, name)
	if errors.Is(err, mailbox.ErrNotFound) {
		return mb, no(imap.ResponseCodeTryCreate, "there is no such mailbox")
	}
	return mb, s.refuse("find the mailbox", err)
}
