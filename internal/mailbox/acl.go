package mailbox

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"postroad/internal/store"
)

// Rights is what an account may do with a mailbox (RFC 4314, 2.1).
type Rights uint16

// The rights, in the order in which they are shown.
const (
	RightLookup  Rights = 1 << iota // l: see it in LIST
	RightRead                       // r: SELECT it, STATUS
	RightSeen                       // s: change \Seen
	RightWrite                      // w: change flags but \Seen and \Deleted
	RightInsert                     // i: APPEND, COPY into it
	RightPost                       // p: send mail to it; nothing here asks for it
	RightCreate                     // k: make mailboxes below it
	RightDelete                     // x: remove or rename it
	RightTrash                      // t: change \Deleted
	RightExpunge                    // e: EXPUNGE
	RightAdmin                      // a: change who has which rights

	AllRights = RightAdmin<<1 - 1

	// kept is what nobody can take from a mailbox's owner, who could not give it back otherwise.
	kept = RightLookup | RightAdmin
)

// rightLetters are the letters of the rights, in the order of their bits; the two after them are virtual.
const rightLetters = "lrswipkxtea"

// The virtual rights of RFC 2086 (RFC 4314, 2.1.1).
const (
	virtualCreate = RightCreate | RightDelete // c
	virtualDelete = RightTrash | RightExpunge // d
)

// ParseRights reads letters of rights, "c" and "d" included. ErrRight.
func ParseRights(s string) (Rights, error) {
	var r Rights
	for _, c := range []byte(s) {
		switch i := strings.IndexByte(rightLetters, c); {
		case c == 'c':
			r |= virtualCreate
		case c == 'd':
			r |= virtualDelete
		case i < 0:
			return 0, fmt.Errorf("%w: %q (there are %scd)", ErrRight, c, rightLetters)
		default:
			r |= 1 << i
		}
	}
	return r, nil
}

// String returns the letters, with "c" and "d" where a right belongs to them, as RFC 4314 wants it
// in responses.
func (r Rights) String() string {
	s := r.letters()
	if r&virtualCreate != 0 {
		s += "c"
	}
	if r&virtualDelete != 0 {
		s += "d"
	}
	return s
}

func (r Rights) letters() string {
	var b strings.Builder
	for i, c := range []byte(rightLetters) {
		if r&(1<<i) != 0 {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Has reports whether all of need is there.
func (r Rights) Has(need Rights) bool { return r&need == need }

// OfFlag returns the right that changing a flag takes (RFC 4314, 4).
func OfFlag(flag string) Rights {
	switch {
	case strings.EqualFold(flag, `\Seen`):
		return RightSeen
	case strings.EqualFold(flag, `\Deleted`):
		return RightTrash
	}
	return RightWrite
}

// Writable reports whether SELECT opens the mailbox READ-WRITE (RFC 4314, 5.2).
func (r Rights) Writable() bool {
	return r&(RightInsert|RightExpunge|RightSeen|RightTrash|RightWrite) != 0
}

// anyone is the owner that stands for all accounts in an access control list.
const anyone Owner = 0

// A grant is what one identifier of an access control list gives, or with minus set takes.
type grant struct {
	who    Owner
	minus  bool
	rights Rights
}

// An acl is a mailbox's grants: at most one for each identifier, in their order.
type acl []grant

// aclOf is the prefix of an owner's access control lists, grantsTo of the grants to an account.
//
//	ma  owner, mailbox id              who else may do what with it
//	mg  account, owner, mailbox id     its access control list names the account; 0 is anyone
func aclsOf(o Owner) store.Key        { return store.NewKey("ma").Uint(uint64(o)) }
func aclKey(o Owner, id ID) store.Key { return aclsOf(o).Uint(uint64(id)) }
func grantsTo(who Owner) store.Key    { return store.NewKey("mg").Uint(uint64(who)) }
func grantKey(who, o Owner, id ID) store.Key {
	return grantsTo(who).Uint(uint64(o)).Uint(uint64(id))
}

func loadACL(r store.Reader, o Owner, id ID) (acl, error) {
	v := r.Get(aclKey(o, id))
	if v == nil {
		return nil, nil
	}
	return decodeACL(id, v)
}

func decodeACL(id ID, v []byte) (acl, error) {
	d := store.NewDecoder(v)
	version := d.Uint()
	l := make(acl, d.Count())
	for i := range l {
		l[i] = grant{who: Owner(d.Uint()), minus: d.Bool(), rights: Rights(d.Uint()) & AllRights}
	}
	if d.Err() != nil || version != recordVersion {
		return nil, fmt.Errorf("access control list of mailbox %d: %w", id, store.ErrRecord)
	}
	return l, nil
}

// put replaces the list was, with its entries in the index of grants.
func (l acl) put(tx store.Tx, o Owner, id ID, was acl) {
	for _, g := range was {
		tx.Delete(grantKey(g.who, o, id))
	}
	if len(l) == 0 {
		tx.Delete(aclKey(o, id))
		return
	}
	var e store.Encoder
	e.Uint(recordVersion)
	e.Uint(uint64(len(l)))
	for _, g := range l {
		e.Uint(uint64(g.who))
		e.Bool(g.minus)
		e.Uint(uint64(g.rights))
		tx.Put(grantKey(g.who, o, id), []byte{recordVersion})
	}
	tx.Put(aclKey(o, id), e)
}

// rights returns what an account may do: what it and anyone are given, without what is taken from
// them. The mailbox's owner has all rights unless the list says otherwise, and some in any case.
func (l acl) rights(who, owner Owner) Rights {
	var give, take Rights
	if who == owner && l.find(who, false) < 0 {
		give = AllRights
	}
	for _, g := range l {
		switch {
		case g.who != who && g.who != anyone:
		case g.minus:
			take |= g.rights
		default:
			give |= g.rights
		}
	}
	if who == owner {
		return give&^take | kept
	}
	return give &^ take
}

// find returns the place of a grant, or -1.
func (l acl) find(who Owner, minus bool) int {
	return slices.IndexFunc(l, func(g grant) bool { return g.who == who && g.minus == minus })
}

// with returns the list with a grant in place of what its identifier had. Without rights it goes, but
// for the owner's, which would otherwise mean all rights.
func (l acl) with(g grant, owner Owner) acl {
	l = l.without(g.who, g.minus)
	if g.rights == 0 && (g.who != owner || g.minus) {
		return l
	}
	return append(l, g)
}

func (l acl) without(who Owner, minus bool) acl {
	return slices.DeleteFunc(slices.Clone(l), func(g grant) bool { return g.who == who && g.minus == minus })
}

// Grant is one entry of an access control list as people see it.
type Grant struct {
	Identifier string // an account's address or "anyone", after "-" when the rights are taken
	Rights     Rights
}

// An identifier names who has rights: an account or anyone.
type identifier struct {
	who   Owner
	minus bool
}

// identifier reads an identifier. ErrIdentifier.
func (a *Access) identifier(s string) (identifier, error) {
	name, minus := strings.CutPrefix(s, "-")
	if name == "anyone" {
		return identifier{anyone, minus}, nil
	}
	who, ok, err := a.names.Owner(name)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %q", ErrIdentifier, name)
	}
	return identifier{who, minus}, err
}

// ACL returns a mailbox's access control list, the owner's rights first. ErrNotFound, ErrRights.
func (a *Access) ACL(name string) ([]Grant, error) {
	var l acl
	var owner Owner
	err := a.view(name, RightAdmin, func(r store.Reader, b *box) (err error) {
		owner = b.Owner
		l, err = loadACL(r, b.Owner, b.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	if l.find(owner, false) < 0 {
		l = append(acl{{who: owner, rights: AllRights}}, l...)
	}
	return a.grants(l)
}

// grants shows a list with addresses. An account that is about to be removed has none any more.
func (a *Access) grants(l acl) ([]Grant, error) {
	var shown []Grant
	for _, g := range l {
		name, err := a.address(g.who)
		if err != nil {
			return nil, err
		}
		if name == "" {
			continue
		}
		if g.minus {
			name = "-" + name
		}
		shown = append(shown, Grant{name, g.rights})
	}
	return shown, nil
}

func (a *Access) address(who Owner) (string, error) {
	if who == anyone {
		return "anyone", nil
	}
	return a.names.Address(who)
}

// SetACL gives an identifier rights on a mailbox, or with mod '+' and '-' more or fewer than it had. Its
// owner cannot be locked out. ErrNotFound, ErrRights, ErrIdentifier, ErrLimit.
func (a *Access) SetACL(name, identifier string, mod byte, rights Rights) error {
	return a.changeACL(name, identifier, func(l acl, g grant, owner Owner) acl {
		if i := l.find(g.who, g.minus); i >= 0 {
			g.rights = l[i].rights
		} else if g.who == owner && !g.minus {
			g.rights = AllRights
		}
		switch mod {
		case '+':
			g.rights |= rights
		case '-':
			g.rights &^= rights
		default:
			g.rights = rights
		}
		return l.with(g, owner)
	})
}

// DeleteACL removes an identifier from a mailbox's access control list; without its own entry the owner has
// all rights. ErrNotFound, ErrRights, ErrIdentifier.
func (a *Access) DeleteACL(name, identifier string) error {
	return a.changeACL(name, identifier, func(l acl, g grant, _ Owner) acl { return l.without(g.who, g.minus) })
}

func (a *Access) changeACL(name, ident string, change func(acl, grant, Owner) acl) error {
	// An account that may not know of the mailbox learns nothing from the identifier either.
	if err := a.view(name, RightAdmin, func(store.Reader, *box) error { return nil }); err != nil {
		return err
	}
	id, err := a.identifier(ident)
	if err != nil {
		return err
	}
	return a.update(name, RightAdmin, func(tx store.Tx, b *box) error {
		was, err := loadACL(tx, b.Owner, b.ID)
		if err != nil {
			return err
		}
		l := change(was, grant{who: id.who, minus: id.minus}, b.Owner)
		if len(l) > maxGrants && len(l) > len(was) {
			return fmt.Errorf("%w: %q names %d accounts already", ErrLimit, b.Name, len(was))
		}
		l.put(tx, b.Owner, b.ID, was)
		a.s.announceBox(tx, Granted, b)
		return nil
	})
}

// ListRights returns which rights an identifier always has on a mailbox, and which it can be given, each on its
// own (RFC 4314, 3.7). ErrNotFound, ErrRights, ErrIdentifier.
func (a *Access) ListRights(name, identifier string) (always Rights, optional []string, err error) {
	var owner Owner
	err = a.view(name, RightAdmin, func(_ store.Reader, b *box) error {
		owner = b.Owner
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	id, err := a.identifier(identifier)
	if err != nil {
		return 0, nil, err
	}
	if id.who == owner && !id.minus {
		always = kept
	}
	return always, strings.Split((AllRights &^ always).String(), ""), nil
}

// inherit gives a new mailbox the access control list of the nearest one above it (RFC 4314, 4, CREATE).
func (b *box) inherit(tx store.Tx) error {
	id := nearest(tx, b.Owner, b.Name)
	if id == 0 {
		return nil
	}
	l, err := loadACL(tx, b.Owner, id)
	if err == nil && len(l) > 0 {
		l.put(tx, b.Owner, b.ID, nil)
	}
	return err
}

// nearest returns the nearest mailbox above a name, or 0.
func nearest(r store.Reader, o Owner, name string) ID {
	for _, up := range slices.Backward(above(name)) {
		if id := named(r, o, up); id != 0 {
			return id
		}
	}
	return 0
}

// dropACL forgets who had rights on a mailbox that is removed.
func (b *box) dropACL(tx store.Tx) error {
	l, err := loadACL(tx, b.Owner, b.ID)
	if err == nil {
		acl(nil).put(tx, b.Owner, b.ID, l)
	}
	return err
}

// dropGrants takes an account out of up to most access control lists, and says whether there may be more.
func dropGrants(tx store.Tx, who Owner, most int) (more bool, err error) {
	refs := grantRefs(tx, who, most)
	for _, ref := range refs {
		was, err := loadACL(tx, ref.owner, ref.id)
		if err != nil {
			return false, err
		}
		was.without(who, false).without(who, true).put(tx, ref.owner, ref.id, was)
		tx.Delete(grantKey(who, ref.owner, ref.id))
	}
	return len(refs) == most, nil
}

// A grantRef is a mailbox whose access control list names an account.
type grantRef struct {
	owner Owner
	id    ID
}

// grantRefs reads up to most of them, or all with most 0.
func grantRefs(r store.Reader, who Owner, most int) []grantRef {
	return scanGrants(r, grantsTo(who), most)
}

// grantRefsOf reads those of one owner.
func grantRefsOf(r store.Reader, who, owner Owner) []grantRef {
	return scanGrants(r, grantsTo(who).Uint(uint64(owner)), 0)
}

func scanGrants(r store.Reader, prefix store.Key, most int) []grantRef {
	var refs []grantRef
	for k := range r.Scan(prefix, prefix.End()) {
		_, rest := store.TakeUint(k[len("mg"):])
		owner, rest := store.TakeUint(rest)
		id, _ := store.TakeUint(rest)
		if refs = append(refs, grantRef{Owner(owner), ID(id)}); len(refs) == most {
			break
		}
	}
	return refs
}

func (g grantRef) compare(h grantRef) int {
	return cmp.Or(cmp.Compare(g.owner, h.owner), cmp.Compare(g.id, h.id))
}
