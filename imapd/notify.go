package imapd

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// events are the kinds of events that a client wants to be told of (RFC 5465, 5).
type events struct {
	messages      bool // MessageNew and MessageExpunge, which go together
	flags         bool // FlagChange
	names         bool // MailboxName
	subscriptions bool // SubscriptionChange
	metadata      bool // MailboxMetadataChange
	server        bool // ServerMetadataChange

	fetch []wire.FetchItem // of new messages
}

// allEvents are those of the selected mailbox for a client that has not used NOTIFY.
var allEvents = events{messages: true, flags: true}

func (e events) ofMessages() bool { return e.messages || e.flags }

// ofMailboxes reports whether there is anything that needs rights on a mailbox.
func (e events) ofMailboxes() bool {
	return e.ofMessages() || e.names || e.subscriptions || e.metadata
}

// also is both.
func (e events) also(f events) events {
	return events{
		messages: e.messages || f.messages, flags: e.flags || f.flags, names: e.names || f.names,
		subscriptions: e.subscriptions || f.subscriptions, metadata: e.metadata || f.metadata, server: e.server || f.server,
	}
}

// A rule is which events of which mailboxes are told.
type rule struct {
	filter wire.Filter
	events events
}

// covers reports whether a name is among the rule's (RFC 5465, 6). Mail is delivered to INBOX.
func (r *rule) covers(name string, subscribed bool) bool {
	switch r.filter.Kind {
	case wire.FilterInboxes:
		return name == "INBOX"
	case wire.FilterPersonal:
		return !strings.HasPrefix(name, mailbox.OthersPrefix)
	case wire.FilterSubscribed:
		return subscribed
	case wire.FilterSubtree:
		return slices.ContainsFunc(r.filter.Names, func(top string) bool {
			return name == top || strings.HasPrefix(name, top+"/")
		})
	case wire.FilterSubtreeOne: // of ESEARCH (RFC 7377, 2.2)
		return slices.ContainsFunc(r.filter.Names, func(top string) bool {
			below, ok := strings.CutPrefix(name, top+"/")
			return name == top || ok && !strings.Contains(below, "/")
		})
	}
	return slices.Contains(r.filter.Names, name)
}

// rules are what NOTIFY SET asks for.
type rules struct {
	selected events // of the selected mailbox, whichever it is
	delayed  bool   // expunges of it wait for a command that allows them
	others   []rule // of those that are not selected
}

// wanted are the events of a name.
func (r *rules) wanted(name string, subscribed bool) (e events) {
	for i := range r.others {
		if r.others[i].covers(name, subscribed) {
			e = e.also(r.others[i].events)
		}
	}
	return e
}

// any are the events of all names.
func (r *rules) any() (e events) {
	for i := range r.others {
		e = e.also(r.others[i].events)
	}
	return e
}

// supportedEvents are the events of RFC 5465 that there are; there are no annotations of messages.
const supportedEvents = "MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange"

// rulesOf reads the groups of NOTIFY SET.
func (s *session) rulesOf(groups []wire.NotifyGroup) (*rules, error) {
	var r rules
	selected := false
	for _, g := range groups {
		e, err := eventsOf(g.Events)
		if err != nil {
			return nil, err
		}
		switch g.Filter.Kind {
		case wire.FilterSelected, wire.FilterSelectedDelayed:
			if selected {
				return nil, bad(codeClientBug, "SELECTED or SELECTED-DELAYED is said once")
			}
			if e.names || e.subscriptions || e.metadata || e.server {
				return nil, bad(codeClientBug, "SELECTED goes with events of messages")
			}
			selected, r.selected, r.delayed = true, e, g.Filter.Kind == wire.FilterSelectedDelayed
			continue
		case wire.FilterSubtreeOne:
			return nil, bad(codeClientBug, "SUBTREE-ONE is for searches")
		}
		if e.fetch != nil {
			return nil, bad(codeClientBug, "items of new messages are for SELECTED")
		}
		r.others = append(r.others, rule{wire.Filter{Kind: g.Filter.Kind, Names: s.cleanNames(g.Filter.Names)}, e})
	}
	return &r, nil
}

// eventsOf reads the events of one group (RFC 5465, 5 and 8).
func eventsOf(list []wire.NotifyEvent) (e events, err error) {
	var arrivals, expunges bool
	for _, event := range list {
		switch event.Name {
		case "MessageNew":
			arrivals, e.fetch = true, event.Fetch
		case "MessageExpunge":
			expunges = true
		case "FlagChange":
			e.flags = true
		case "MailboxName":
			e.names = true
		case "SubscriptionChange":
			e.subscriptions = true
		case "MailboxMetadataChange":
			e.metadata = true
		case "ServerMetadataChange":
			e.server = true
		default:
			return e, no("BADEVENT ("+supportedEvents+")", "there is no such event here")
		}
	}
	if arrivals != expunges || e.flags && !arrivals {
		return e, bad(codeClientBug, "MessageNew and MessageExpunge go together, and FlagChange with both")
	}
	e.messages = arrivals
	return e, nil
}

// cleanNames are names as lists have them; those that cannot be are left out, as what is not there is passed over.
func (s *session) cleanNames(names []string) (clean []string) {
	for _, name := range names {
		if c, err := s.access.CleanTop(name); err == nil {
			clean = append(clean, c)
		}
	}
	return clean
}

// notify is NOTIFY (RFC 5465). It tells at first what is known and was not told, as NOOP does.
func (s *session) notify(c *wire.Notify) reply {
	if c.None {
		s.stopNotices()
		s.rules = &rules{}
		return reply{}
	}
	r, err := s.rulesOf(c.Groups)
	if err != nil {
		return s.refuse("follow events", err)
	}
	s.rules = nil
	s.tell(true)
	s.stopNotices()
	s.rules = r
	if err := s.introduce(c.Status); err != nil {
		return s.refuse("read the mailboxes", err)
	}
	s.pushes.Store(true)
	return reply{}
}

// selectedEvents are the events of the selected mailbox that are told now. What a command itself brings about, and
// answers with, is told whatever NOTIFY said.
func (s *session) selectedEvents() events {
	switch {
	case s.rules == nil, s.name == "EXPUNGE", s.name == "MOVE", s.name == "REPLACE":
		return allEvents
	}
	return s.rules.selected
}

// pushesAlways reports whether the client is told of events while it gives no command.
func (s *session) pushesAlways() bool { return s.rules != nil && s.notices != nil }

// expungesAlways reports whether it is also told of messages that are gone.
func (s *session) expungesAlways() bool { return s.rules != nil && !s.rules.delayed }

// fetchNew tells of new messages what NOTIFY asked for (RFC 5465, 5.2). Nothing is marked as seen by that.
func (s *session) fetchNew(uids *roaring.Bitmap, items []wire.FetchItem) error {
	if len(items) == 0 {
		return nil
	}
	f := &fetching{session: s, uids: true, seqs: newSequence(s.known()), recent: s.recent(), marked: roaring.New()}
	defer f.release()
	f.plan(&wire.Fetch{Items: items})
	f.marks = false
	return f.run(uids)
}

// maxNotices is how many mailboxes and other things may have changed before they are told; more is an overflow.
const maxNotices = 1000

// notices are events on their way to a session.
type notices struct {
	stop func() // ends the watch
	wake func()
	own  mailbox.Owner
	by   *mailbox.Access // the session's: what it makes itself it need not be told of (RFC 5465, 5)

	mu       sync.Mutex             // guards the rest; a commit waits for it
	messages bool                   // events of messages are wanted
	owners   map[mailbox.Owner]bool // whose mailboxes they may be of; nil is everybody's
	pending  []mailbox.Event
	changed  map[mailbox.ID]int // places in pending of events of messages
	overflow bool

	// Of the session, under its mutex.
	shared     map[mailbox.ID]string // the mailboxes of others that it may follow, by their names
	subscribed map[string]bool
	renamed    [2]string // the last name that was, and what it became; nothing after a mailbox was made
}

// startNotices begins to follow events, before anything is read, so that none is missed.
func (s *session) startNotices() {
	if s.notices != nil {
		return
	}
	n := &notices{own: s.owner, by: s.access, wake: s.changed, changed: map[mailbox.ID]int{}}
	n.messages = s.rules != nil && s.rules.any().ofMessages()
	s.notices = n
	n.stop = s.srv.Mailboxes.Watch(n.note)
}

// stopNotices ends that.
func (s *session) stopNotices() {
	if s.notices != nil {
		s.notices.stop()
		s.notices = nil
	}
	s.pushes.Store(false)
}

// note takes down an event; it runs on the goroutine that commits. Many changes of one mailbox are one event.
func (n *notices) note(e mailbox.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.overflow || !n.concerns(&e) {
		return
	}
	if e.What == mailbox.Messages {
		if i, known := n.changed[e.Mailbox.ID]; known {
			was := &n.pending[i]
			was.Arrived, was.Expunged, was.Flagged = was.Arrived || e.Arrived, was.Expunged || e.Expunged, was.Flagged || e.Flagged
			return
		}
		n.changed[e.Mailbox.ID] = len(n.pending)
	}
	if n.pending = append(n.pending, e); len(n.pending) > maxNotices {
		n.overflow, n.pending, n.changed = true, nil, nil
	}
	n.wake()
}

// concerns reports whether an event can be the session's affair: of its own account, of somebody who shares mailboxes
// with it, or that somebody begins to.
func (n *notices) concerns(e *mailbox.Event) bool {
	switch e.What {
	case mailbox.Messages:
		return n.messages && n.knows(e.Owner) && e.By != n.by
	case mailbox.Granted:
		return e.Owner != n.own
	case mailbox.Subscribed:
		return e.Owner == n.own
	case mailbox.Annotated:
		return (e.Private == 0 || e.Private == n.own) && (e.Mailbox.ID == 0 || n.knows(e.Owner))
	}
	return n.knows(e.Owner)
}

func (n *notices) knows(o mailbox.Owner) bool { return n.owners == nil || n.owners[o] }

// take returns the events that wait.
func (n *notices) take() (list []mailbox.Event, overflow bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list = n.pending
	n.pending = nil
	clear(n.changed)
	return list, n.overflow
}

// only sets of whose mailboxes events are taken down.
func (n *notices) only(owners map[mailbox.Owner]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.owners = owners
}

// introduce learns which mailboxes there are, and tells of those that the rules are about: which of them the account
// may not follow, and with status how they are now (RFC 5465, 3.1).
func (s *session) introduce(status bool) error {
	all, err := s.learn()
	if err != nil {
		return err
	}
	for i := range all {
		m := &all[i]
		e := s.rules.wanted(m.Name, m.Subscribed)
		switch {
		case !e.ofMailboxes():
		case !m.Rights.Has(mailbox.RightRead):
			s.out.Raw(`* LIST (\NoAccess) "/" `).Mailbox(m.Name).CRLF()
		case status && e.ofMessages() && !s.isSelected(m.ID):
			if err := s.tellStatus(m.Name, m, introduction(e)); err != nil {
				return err
			}
		}
	}
	return nil
}

// introduction is what a STATUS has at first.
func introduction(e events) wire.StatusItems {
	items := wire.StatusMessages | wire.StatusUIDNext | wire.StatusUIDValidity
	if e.flags {
		items |= wire.StatusHighestModSeq
	}
	return items
}

func (s *session) isSelected(id mailbox.ID) bool { return s.sel != nil && s.sel.id == id }

// learn begins to follow what the account sees, and reads it.
func (s *session) learn() ([]mailbox.Mailbox, error) {
	s.startNotices()
	all, err := s.access.List()
	if err != nil {
		return nil, err
	}
	names, err := s.access.Subscriptions()
	if err != nil {
		return nil, err
	}
	n := s.notices
	n.shared, n.subscribed = map[mailbox.ID]string{}, make(map[string]bool, len(names))
	owners := map[mailbox.Owner]bool{s.owner: true}
	for _, m := range all {
		if m.Owner != s.owner && m.Rights.Has(mailbox.RightRead) {
			n.shared[m.ID] = m.Name
		}
		owners[m.Owner] = true
	}
	for _, name := range names {
		n.subscribed[name] = true
	}
	n.only(owners)
	return all, nil
}

// tellNotices tells of the events that wait.
func (s *session) tellNotices() {
	if s.notices == nil {
		return
	}
	list, overflow := s.notices.take()
	if overflow {
		s.overflow()
		return
	}
	t := teller{session: s, told: map[string]bool{}}
	for i := range list {
		if err := t.tell(&list[i]); err != nil {
			s.log().Error("cannot tell of an event", "mailbox", list[i].Mailbox.ID, "err", err)
		}
	}
}

// overflow gives up telling of events (RFC 5465, 5.8).
func (s *session) overflow() {
	s.stopNotices()
	s.rules = &rules{}
	s.out.Raw("* OK [NOTIFICATIONOVERFLOW] too much has happened; ask for events again").CRLF()
}

// A teller tells of some events that happened together.
type teller struct {
	*session
	nodes map[string]*node // nil until a LIST needs them
	told  map[string]bool  // names, as they are now
}

// own reports whether this session has made the change: of that it is not told (RFC 5465, 5).
func (t *teller) own(e *mailbox.Event) bool { return e.By == t.access }

// wanted are the events of a name that the client asked for.
func (t *teller) wanted(name string) events {
	var e events
	if t.rules != nil {
		e = t.rules.wanted(name, t.notices.subscribed[name])
	}
	e.metadata = e.metadata || t.enabled.has(metadata)
	return e
}

func (t *teller) tell(e *mailbox.Event) error {
	switch e.What {
	case mailbox.Messages:
		return t.messages(e)
	case mailbox.Created:
		return t.created(e)
	case mailbox.Removed:
		return t.removed(e)
	case mailbox.Renamed:
		return t.nameChanged(e)
	case mailbox.Granted:
		return t.granted(e)
	case mailbox.Subscribed:
		return t.subscription(e)
	}
	return t.annotated(e)
}

// nameOf returns the name by which the client knows a mailbox, or "" when it may not follow it.
func (t *teller) nameOf(e *mailbox.Event) string {
	if e.Owner == t.owner {
		return e.Name
	}
	return t.notices.shared[e.Mailbox.ID]
}

// follows returns a mailbox as it is, when the account may be told of it; all events take the rights to see and to read
// it (RFC 5465, 5).
func (t *teller) follows(id mailbox.ID) (m mailbox.Mailbox, ok bool, err error) {
	m, err = t.access.Check(id, mailbox.RightLookup|mailbox.RightRead)
	if errors.Is(err, mailbox.ErrNotFound) || errors.Is(err, mailbox.ErrRights) {
		return m, false, nil
	}
	return m, err == nil, err
}

// messages tells what came of the messages of a mailbox that is not selected.
func (t *teller) messages(e *mailbox.Event) error {
	name := t.nameOf(e)
	if name == "" || t.isSelected(e.Mailbox.ID) {
		return nil
	}
	items := t.statusOfChange(e, t.wanted(name))
	if items == 0 {
		return nil
	}
	m, ok, err := t.follows(e.Mailbox.ID)
	if !ok {
		return err
	}
	return t.tellStatus(m.Name, &m, items)
}

// statusOfChange is what a STATUS has of a change (RFC 5465, 5.1 to 5.3).
func (t *teller) statusOfChange(e *mailbox.Event, wanted events) (items wire.StatusItems) {
	if wanted.messages && (e.Arrived || e.Expunged) {
		items |= wire.StatusMessages | wire.StatusUIDNext
	}
	if wanted.flags && e.Flagged {
		items |= wire.StatusUIDValidity | wire.StatusUnseen
	}
	if items != 0 && t.enabled.has(condStore) {
		items |= wire.StatusHighestModSeq
	}
	return items
}

// created tells of a new mailbox, and of the one above it.
func (t *teller) created(e *mailbox.Event) error {
	t.notices.renamed = [2]string{}
	m, ok, err := t.follows(e.Mailbox.ID)
	if !ok {
		return err
	}
	if m.Owner != t.owner {
		t.notices.shared[m.ID] = m.Name
	}
	if t.own(e) {
		return nil
	}
	return t.tellName(m.Name)
}

// removed tells of a mailbox that is gone.
func (t *teller) removed(e *mailbox.Event) error {
	name := t.nameOf(e)
	delete(t.notices.shared, e.Mailbox.ID)
	if name == "" || t.own(e) {
		return nil
	}
	return t.tellName(name)
}

// nameChanged tells of a new name. Of those below a mailbox that was told of, nothing is told.
func (t *teller) nameChanged(e *mailbox.Event) error {
	was, is := e.OldName, e.Name
	if e.Owner != t.owner {
		m, ok, err := t.follows(e.Mailbox.ID)
		if !ok {
			return err
		}
		was, is = t.notices.shared[m.ID], m.Name
		t.notices.shared[m.ID] = is
	}
	above := t.notices.renamed
	if rest, below := strings.CutPrefix(was, above[0]+"/"); below && is == above[1]+"/"+rest {
		return nil
	}
	t.notices.renamed = [2]string{was, is}
	if t.own(e) || !t.wanted(was).names && !t.wanted(is).names {
		return nil
	}
	return t.listName(is, was)
}

// granted tells that a mailbox of another account can be followed now, or no longer (RFC 5465, 5.4 and 5.9).
func (t *teller) granted(e *mailbox.Event) error {
	m, ok, err := t.follows(e.Mailbox.ID)
	if err != nil {
		return err
	}
	was, followed := t.notices.shared[e.Mailbox.ID]
	switch {
	case ok == followed:
		return nil
	case ok:
		t.notices.shared[m.ID] = m.Name
		t.notices.also(m.Owner)
		if wanted := t.wanted(m.Name); wanted.names || wanted.ofMessages() {
			return t.listName(m.Name, "")
		}
		return nil
	}
	delete(t.notices.shared, e.Mailbox.ID)
	if wanted := t.wanted(was); wanted.ofMessages() && !wanted.names {
		t.out.Raw(`* LIST (\NoAccess) "/" `).Mailbox(was).CRLF()
		return nil
	}
	return t.tellName(was)
}

// also takes down events of another owner's mailboxes.
func (n *notices) also(o mailbox.Owner) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.owners[o] = true
}

// subscription tells that a subscription was set or cleared.
func (t *teller) subscription(e *mailbox.Event) error {
	wanted := t.wanted(e.Name)
	if e.On {
		t.notices.subscribed[e.Name] = true
	} else {
		delete(t.notices.subscribed, e.Name)
	}
	if t.own(e) || !wanted.also(t.wanted(e.Name)).subscriptions {
		return nil
	}
	return t.listName(e.Name, "")
}

// annotated tells which entries have changed.
func (t *teller) annotated(e *mailbox.Event) error {
	switch {
	case t.own(e):
		return nil
	case e.Mailbox.ID == 0:
		if t.rules != nil && t.rules.any().server || t.enabled.has(metadata) {
			t.tellEntries("", e.Entries)
		}
		return nil
	}
	name := t.nameOf(e)
	if name == "" || !t.wanted(name).metadata {
		return nil
	}
	m, ok, err := t.follows(e.Mailbox.ID)
	if ok {
		t.tellEntries(m.Name, e.Entries)
	}
	return err
}

// tellEntries is the METADATA response without values (RFC 5464, 4.4.2).
func (s *session) tellEntries(name string, entries []string) {
	s.out.Raw("* METADATA ").Mailbox(name)
	for _, e := range entries {
		s.out.SP().AString(e)
	}
	s.out.CRLF()
}

// tellName tells of a name that is new or gone, and of the one above it, where the client wants to know of names.
func (t *teller) tellName(name string) error {
	affected := []string{name}
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		affected = append(affected, name[:i])
	}
	for _, name := range affected {
		if t.told[name] || !t.wanted(name).names {
			continue
		}
		if err := t.listName(name, ""); err != nil {
			return err
		}
	}
	return nil
}

// listName tells of a name as it is now, and what it was before if it had another.
func (t *teller) listName(name, old string) error {
	n, err := t.node(name)
	if err != nil {
		return err
	}
	t.told[name] = true
	t.out.Raw("* LIST ").Flags(t.attributes(&wire.List{Extended: true, ReturnSubscribed: true}, n)).Raw(` "/" `).Mailbox(name)
	if old != "" {
		t.out.Raw(` ("OLDNAME" (`).Mailbox(old).Raw("))")
	}
	t.out.CRLF()
	return nil
}

// node returns the node of a name, which need not be in the tree.
func (t *teller) node(name string) (*node, error) {
	if t.nodes == nil {
		tree, err := t.tree()
		if err != nil {
			return nil, err
		}
		t.nodes = make(map[string]*node, len(tree))
		for _, n := range tree {
			t.nodes[n.name] = n
		}
	}
	if n := t.nodes[name]; n != nil {
		return n, nil
	}
	return &node{name: name}, nil
}
