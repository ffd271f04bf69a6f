package wire

import (
	"math"
	"strings"
)

// selectMailbox = SP mailbox [SP "(" select-param *(SP select-param) ")"] (RFC 9051, 6.3.2; RFC 7162, 7)
func (d *Decoder) selectMailbox() any {
	d.space()
	s := &Select{Mailbox: d.mailbox()}
	if !d.optional() {
		return s
	}
	d.some("parameters", func() {
		switch {
		case d.word("CONDSTORE"):
			s.CondStore = true
		case d.word("QRESYNC"):
			d.space()
			s.QResync = d.qresync()
		default:
			d.want("CONDSTORE or QRESYNC")
		}
	})
	return s
}

// qresync = "(" uidvalidity SP mod-sequence-value [SP known-uids] [SP seq-match-data] ")" (RFC 7162, 7)
func (d *Decoder) qresync() *QResync {
	q := &QResync{}
	d.expect('(')
	q.UIDValidity = uint32(d.nonZero("a UIDVALIDITY", math.MaxUint32))
	d.space()
	q.ModSeq = d.nonZero("a mod-sequence", math.MaxInt64)
	more := d.optional()
	if more && d.peek() != '(' {
		q.Known = d.fixedSet("known UIDs")
		more = d.optional()
	}
	if more {
		d.seqMatch(q)
		d.skipSpaces()
	}
	d.expect(')')
	return q
}

// seqMatch = "(" known-sequence-set SP known-uid-set ")"
func (d *Decoder) seqMatch(q *QResync) {
	d.expect('(')
	d.skipSpaces()
	q.SeqMatch = d.fixedSet("known message numbers")
	d.space()
	q.UIDMatch = d.fixedSet("the UIDs of the known message numbers")
	d.expect(')')
	if count(q.SeqMatch) != count(q.UIDMatch) {
		d.fail("", "not as many known UIDs as message numbers")
	}
}

// count is how many numbers a set without "*" names.
func count(s Set) (n uint64) {
	for _, r := range s.Ranges {
		n += uint64(max(r.From, r.To)) - uint64(min(r.From, r.To)) + 1
	}
	return n
}

// oneMailbox = SP mailbox
func (d *Decoder) oneMailbox() any {
	d.space()
	return &Mailbox{Name: d.mailbox()}
}

// rename = "RENAME" SP mailbox SP mailbox (RFC 9051, 6.3.6)
func (d *Decoder) rename() any {
	d.space()
	from := d.mailbox()
	d.space()
	return &Rename{From: from, To: d.mailbox()}
}

// create = "CREATE" SP mailbox [SP "(" "USE" SP "(" [use-attr *(SP use-attr)] ")" ")"] (RFC 6154, 6)
func (d *Decoder) create() any {
	d.space()
	c := &Create{Mailbox: d.mailbox()}
	if !d.optional() {
		return c
	}
	d.some("parameters", func() {
		if !d.word("USE") {
			d.want("USE")
		}
		d.space()
		c.Use = append(c.Use, d.flagList()...)
	})
	return c
}

// listMailboxes = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts] (RFC 9051, 6.3.9)
func (d *Decoder) listMailboxes() any {
	d.space()
	l := &List{}
	if d.peek() == '(' {
		l.Extended = true
		d.list(func() { d.selectOption(l) })
		d.space()
	}
	if l.RecursiveMatch && !l.Subscribed && !l.SpecialUse {
		d.fail("", "RECURSIVEMATCH needs an option to go with, as SUBSCRIBED")
	}
	l.Reference = d.mailbox()
	d.space()
	if d.peek() == '(' {
		l.Extended = true
		d.some("patterns", func() { d.pattern(l) })
	} else {
		d.pattern(l)
	}
	if d.optional() {
		l.Extended = true
		if !d.word("RETURN") {
			d.want("RETURN")
		}
		d.space()
		d.list(func() { d.returnOption(l) })
	}
	return l
}

// list-select-opt (RFC 5258, 6; RFC 6154, 6)
func (d *Decoder) selectOption(l *List) {
	switch {
	case d.word("SUBSCRIBED"):
		l.Subscribed = true
	case d.word("REMOTE"):
		l.Remote = true
	case d.word("RECURSIVEMATCH"):
		l.RecursiveMatch = true
	case d.word("SPECIAL-USE"):
		l.SpecialUse = true
	default:
		d.want("SUBSCRIBED, REMOTE, RECURSIVEMATCH or SPECIAL-USE")
	}
}

// return-option (RFC 5258, 6; RFC 5819; RFC 6154; RFC 8440; RFC 9590)
func (d *Decoder) returnOption(l *List) {
	switch {
	case d.word("SUBSCRIBED"):
		l.ReturnSubscribed = true
	case d.word("CHILDREN"):
		l.ReturnChildren = true
	case d.word("SPECIAL-USE"):
		l.ReturnSpecialUse = true
	case d.word("MYRIGHTS"):
		l.ReturnMyRights = true
	case d.word("STATUS"):
		d.space()
		l.ReturnStatus |= d.statusItems()
	case d.word("METADATA"):
		d.space()
		l.ReturnMetadata = append(l.ReturnMetadata, d.entries()...)
	default:
		d.want("SUBSCRIBED, CHILDREN, SPECIAL-USE, MYRIGHTS, STATUS or METADATA")
	}
}

// pattern = list-mailbox. One that can be no name in modified UTF-7 matches nothing, and is left out.
func (d *Decoder) pattern(l *List) {
	var raw string
	if c := d.peek(); c == '"' || c == '{' {
		raw = d.str("a pattern")
	} else if raw = string(d.take(isListChar)); raw == "" {
		d.want("a pattern")
	}
	if name, why := d.mailboxName(raw); why == "" {
		l.Patterns = append(l.Patterns, name)
	}
}

// lsub = "LSUB" SP mailbox SP list-mailbox (RFC 3501, 6.3.9)
func (d *Decoder) lsub() any {
	d.space()
	l := &List{Reference: d.mailbox()}
	d.space()
	d.pattern(l)
	return l
}

// status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")" (RFC 9051, 6.3.11)
func (d *Decoder) status() any {
	d.space()
	s := &Status{Mailbox: d.mailbox()}
	d.space()
	s.Items = d.statusItems()
	return s
}

func (d *Decoder) statusItems() (items StatusItems) {
	d.some("items", func() {
		from := d.pos
		item := statusItem(d.keyword("an item of STATUS"))
		if item == 0 {
			d.pos = from
			d.want("an item of STATUS")
		}
		items |= item
	})
	return items
}

func statusItem(name []byte) StatusItems {
	switch string(name) {
	case "MESSAGES":
		return StatusMessages
	case "RECENT":
		return StatusRecent
	case "UIDNEXT":
		return StatusUIDNext
	case "UIDVALIDITY":
		return StatusUIDValidity
	case "UNSEEN":
		return StatusUnseen
	case "DELETED":
		return StatusDeleted
	case "SIZE":
		return StatusSize
	case "HIGHESTMODSEQ":
		return StatusHighestModSeq
	case "APPENDLIMIT":
		return StatusAppendLimit
	case "MAILBOXID":
		return StatusMailboxID
	case "DELETED-STORAGE":
		return StatusDeletedStorage
	}
	return 0
}

// setACL = "SETACL" SP mailbox SP identifier SP mod-rights (RFC 4314, 7)
func (d *Decoder) setACL() any {
	a := d.identity().(*Identity)
	d.space()
	rights := d.astring("rights")
	set := &SetACL{Mailbox: a.Mailbox, Identifier: a.Identifier, Rights: rights}
	if rights != "" && (rights[0] == '+' || rights[0] == '-') {
		set.Mod, set.Rights = rights[0], rights[1:]
	}
	return set
}

// identity = SP mailbox SP identifier
func (d *Decoder) identity() any {
	d.space()
	mailbox := d.mailbox()
	d.space()
	return &Identity{Mailbox: mailbox, Identifier: d.astring("an identifier")}
}

// getMetadata = "GETMETADATA" [SP getmetadata-options] SP mailbox SP entries (RFC 5464, 5). The options may also be
// after the mailbox, as in the examples there.
func (d *Decoder) getMetadata() any {
	d.space()
	g := &GetMetadata{}
	d.metadataOptions(g)
	g.Mailbox = d.mailbox()
	d.space()
	if d.entriesNext() {
		g.Entries = d.entries()
		return g
	}
	d.metadataOptions(g)
	g.Entries = d.entries()
	return g
}

// entriesNext reports whether entries are next, rather than options.
func (d *Decoder) entriesNext() bool {
	rest := strings.TrimLeft(string(d.line[d.pos:min(len(d.line), d.pos+64)]), "( ")
	return d.peek() != '(' || rest == "" || strings.IndexByte(`/"{)`, rest[0]) >= 0
}

func (d *Decoder) metadataOptions(g *GetMetadata) {
	if d.peek() != '(' {
		return
	}
	d.some("options", func() { d.metadataOption(g) })
	d.space()
}

func (d *Decoder) metadataOption(g *GetMetadata) {
	switch {
	case d.word("MAXSIZE"):
		d.space()
		n := d.number32("a number of octets")
		g.MaxSize = &n
	case d.word("DEPTH"):
		d.space()
		g.Depth = d.depth()
	default:
		d.want("MAXSIZE or DEPTH")
	}
}

func (d *Decoder) depth() int {
	switch {
	case d.word("0"):
		return 0
	case d.word("1"):
		return 1
	case d.word("INFINITY"):
		return -1
	}
	d.want(`0, 1 or "infinity"`)
	return 0
}

// entries = entry / "(" entry *(SP entry) ")"
func (d *Decoder) entries() (names []string) {
	if d.peek() != '(' {
		return []string{d.entry()}
	}
	d.some("entries", func() { names = append(names, d.entry()) })
	return names
}

// entry is the name of an annotation (RFC 5464, 3.2): a slash, and ASCII without the wildcards.
func (d *Decoder) entry() string {
	name := d.astring("the name of an entry")
	for _, c := range []byte(name) {
		if c < ' ' || c > '~' || c == '*' || c == '%' {
			d.fail("", "the name of an entry is printable ASCII without wildcards")
		}
	}
	if !strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || strings.Contains(name, "//") {
		d.fail("", "the name of an entry begins with a slash, does not end in one, and never has two together")
	}
	return name
}

// setMetadata = "SETMETADATA" SP mailbox SP "(" entry SP value *(SP entry SP value) ")" (RFC 5464, 5)
func (d *Decoder) setMetadata() any {
	d.space()
	s := &SetMetadata{Mailbox: d.mailbox()}
	d.space()
	d.some("entries and values", func() {
		name := d.entry()
		d.space()
		s.Entries = append(s.Entries, Annotation{name, d.value()})
	})
	return s
}

// value = nstring / literal8
func (d *Decoder) value() []byte {
	if d.accept('~') {
		return d.literal()
	}
	text, ok := d.nstring("a value")
	if !ok {
		return nil
	}
	return []byte(text)
}

// getQuota = "GETQUOTA" SP quota-root-name (RFC 9208, 7)
func (d *Decoder) getQuota() any {
	d.space()
	return &GetQuota{Root: d.astring("a quota root")}
}

// setQuota = "SETQUOTA" SP quota-root-name SP "(" [resource-name SP limit ...] ")" (RFC 9208, 7)
func (d *Decoder) setQuota() any {
	d.space()
	s := &SetQuota{Root: d.astring("a quota root")}
	d.space()
	if d.peek() != '(' {
		d.want("a list of resources and limits")
	}
	d.list(func() {
		name := d.capital("the name of a resource")
		d.space()
		s.Limits = append(s.Limits, QuotaLimit{name, d.number64("a limit")})
	})
	return s
}

// notify = "NOTIFY" SP ("SET" [SP "STATUS"] SP event-groups / "NONE") (RFC 5465, 8)
func (d *Decoder) notify() any {
	d.space()
	if d.word("NONE") {
		return &Notify{None: true}
	}
	if !d.word("SET") {
		d.want("SET or NONE")
	}
	d.space()
	n := &Notify{}
	if d.word("STATUS") {
		n.Status = true
		d.space()
	}
	for more := true; more; more = d.optional() {
		d.count()
		n.Groups = append(n.Groups, d.notifyGroup())
	}
	return n
}

// event-group = "(" filter-mailboxes SP events ")"
func (d *Decoder) notifyGroup() (g NotifyGroup) {
	d.expect('(')
	d.skipSpaces()
	g.Filter = d.filter()
	d.space()
	if !d.word("NONE") {
		d.some("events", func() { d.notifyEvent(&g) })
	}
	d.skipSpaces()
	d.expect(')')
	return g
}

// event = "MessageNew" [SP "(" fetch-att *(SP fetch-att) ")"] / atom
func (d *Decoder) notifyEvent(g *NotifyGroup) {
	e := NotifyEvent{Name: eventName(string(d.atom("an event")))}
	if e.Name == "MessageNew" && d.beforeList() {
		e.Fetch = d.fetchItems()
	}
	g.Events = append(g.Events, e)
}

// eventName is the name of an event as RFC 5465 spells it.
func eventName(name string) string {
	for _, known := range []string{
		"MessageNew", "MessageExpunge", "FlagChange", "AnnotationChange", "MailboxName", "SubscriptionChange",
		"MailboxMetadataChange", "ServerMetadataChange",
	} {
		if strings.EqualFold(name, known) {
			return known
		}
	}
	return name
}

// filter-mailboxes (RFC 5465, 8; RFC 7377, 3)
func (d *Decoder) filter() Filter {
	switch {
	case d.word("SELECTED"):
		return Filter{Kind: FilterSelected}
	case d.word("SELECTED-DELAYED"):
		return Filter{Kind: FilterSelectedDelayed}
	case d.word("INBOXES"):
		return Filter{Kind: FilterInboxes}
	case d.word("PERSONAL"):
		return Filter{Kind: FilterPersonal}
	case d.word("SUBSCRIBED"):
		return Filter{Kind: FilterSubscribed}
	case d.word("SUBTREE"):
		return Filter{FilterSubtree, d.filterNames()}
	case d.word("SUBTREE-ONE"):
		return Filter{FilterSubtreeOne, d.filterNames()}
	case d.word("MAILBOXES"):
		return Filter{FilterMailboxes, d.filterNames()}
	}
	d.want("SELECTED, INBOXES, PERSONAL, SUBSCRIBED, SUBTREE, SUBTREE-ONE or MAILBOXES")
	return Filter{}
}

// filterNames = SP (mailbox / "(" mailbox *(SP mailbox) ")")
func (d *Decoder) filterNames() (names []string) {
	d.space()
	if d.peek() != '(' {
		return []string{d.mailbox()}
	}
	d.some("mailboxes", func() { names = append(names, d.mailbox()) })
	return names
}
