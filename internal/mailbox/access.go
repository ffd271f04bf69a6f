package mailbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postroad/internal/store"
)

// OthersPrefix is what the names of other accounts' mailboxes begin with (RFC 2342): "Other Users/", the
// owner's address, "/", and the name that the owner sees.
const OthersPrefix = others + "/"

const others = "Other Users"

// Names is what an Access has to know of accounts. Owner finds one by its address, in any form; Address returns
// the address of one in canonical form, or "" when there is no such account.
type Names interface {
	Owner(address string) (Owner, bool, error)
	Address(Owner) (string, error)
}

// An Access is the mailboxes as one account may see and change them: its own by their names, those of others
// under OthersPrefix, each by the rights that it has there (RFC 4314). What it may not see is ErrNotFound, in the
// same words as what is not there; what it may see and not do is ErrRights. An Access keeps no state.
type Access struct {
	s     *Service
	owner Owner
	names Names
}

// For returns the access of an account. A session has its own, by which events tell its changes from others'.
func (s *Service) For(o Owner, names Names) *Access {
	ours := *s
	a := &Access{s: &ours, owner: o, names: names}
	ours.by = a
	return a
}

// Owner returns whose access it is.
func (a *Access) Owner() Owner { return a.owner }

// A place is a name resolved.
type place struct {
	owner  Owner  // 0 when there is no such account
	name   string // as its owner sees it, clean
	prefix string // what stands before it in the name that the account sees: OthersPrefix, address, "/"
}

func (p place) String() string { return p.prefix + p.name }

// place resolves a name. An account that is not there gives a place where nothing is, so that looking
// there costs the same. ErrName.
func (a *Access) place(seen string) (place, error) {
	rest, foreign := strings.CutPrefix(seen, OthersPrefix)
	if !foreign {
		name, err := cleanName(seen)
		return place{owner: a.owner, name: name}, err
	}
	level, name, _ := strings.Cut(rest, "/")
	name, err := cleanName(name)
	if err != nil {
		return place{}, err
	}
	address, err := unescapeLevel(level)
	if err != nil {
		return place{}, err
	}
	owner, ok, err := a.names.Owner(address)
	if !ok || owner == a.owner { // its own are seen under one name only
		owner = 0
	}
	return place{owner, name, OthersPrefix + level + "/"}, err
}

// find is place for a name that is looked up: one that is impossible is not there.
func (a *Access) find(seen string) (place, error) {
	p, err := a.place(seen)
	if errors.Is(err, ErrName) {
		err = notFound(seen)
	}
	return p, err
}

// load returns the mailbox at a place, with the account's rights, when it has those that are needed; none means
// that it must be visible.
func (a *Access) load(r store.Reader, p place, need Rights) (*box, error) {
	b, err := loadNamed(r, p.owner, p.name)
	if errors.Is(err, ErrNotFound) {
		return nil, notFound(p.String())
	}
	if err != nil {
		return nil, err
	}
	return b, a.permit(r, b, p.String(), need)
}

// permit sets the account's rights on b and checks them.
func (a *Access) permit(r store.Reader, b *box, seen string, need Rights) error {
	l, err := loadACL(r, b.Owner, b.ID)
	if err != nil {
		return err
	}
	b.Rights = l.rights(a.owner, b.Owner)
	switch missing := atLeast(need) &^ b.Rights; {
	case missing == 0:
		return nil
	case b.Rights.Has(RightLookup):
		return fmt.Errorf("%w: %q needs %q", ErrRights, seen, missing.letters())
	}
	return notFound(seen)
}

// atLeast is need, and being visible where nothing else is needed.
func atLeast(need Rights) Rights {
	if need == 0 {
		return RightLookup
	}
	return need
}

// view reads a mailbox by name.
func (a *Access) view(name string, need Rights, fn func(store.Reader, *box) error) error {
	p, err := a.find(name)
	if err != nil {
		return err
	}
	return a.s.st.View(func(r store.Reader) error {
		b, err := a.load(r, p, need)
		if err != nil {
			return err
		}
		return fn(r, b)
	})
}

// update is view in a transaction that writes.
func (a *Access) update(name string, need Rights, fn func(store.Tx, *box) error) error {
	p, err := a.find(name)
	if err != nil {
		return err
	}
	return a.s.st.Update(func(tx store.Tx) error {
		b, err := a.load(tx, p, need)
		if err != nil {
			return err
		}
		return fn(tx, b)
	})
}

// Mailbox returns a mailbox by name, with the account's rights, when it has those that are needed; 0 asks only that it
// be visible. "inbox" in any case is INBOX. ErrNotFound, ErrRights.
func (a *Access) Mailbox(name string, need Rights) (m Mailbox, err error) {
	p, err := a.find(name)
	if err != nil {
		return m, err
	}
	err = a.s.st.View(func(r store.Reader) error {
		b, err := a.load(r, p, need)
		if err == nil {
			m = a.shown(b, p.String())
			m.Subscribed = r.Get(subscriptionKey(a.owner, m.Name)) != nil
		}
		return err
	})
	return m, err
}

// Check is Mailbox for one that was found before: as it is now, by the name that it has now. ErrNotFound, ErrRights.
func (a *Access) Check(id ID, need Rights) (m Mailbox, err error) {
	err = a.s.st.View(func(r store.Reader) error {
		b, err := loadBox(r, id)
		if err == nil {
			err = a.permit(r, b, b.Name, need)
		}
		if err == nil {
			m = a.shown(b, b.Name)
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = ErrNotFound // without its name
	}
	if err != nil {
		return Mailbox{}, err
	}
	m.Name, err = a.Seen(m.Owner, m.Name)
	return m, err
}

// shown is a mailbox as the account sees it. The special uses of another's are not its own.
func (a *Access) shown(b *box, name string) Mailbox {
	m := b.Mailbox
	m.Name = name
	if m.Owner != a.owner {
		m.Role = ""
	}
	return m
}

// MyRights returns the account's rights on a mailbox, which it may ask for with one of those that RFC 4314, 4 lists.
// ErrNotFound, ErrRights.
func (a *Access) MyRights(name string) (rights Rights, err error) {
	p, err := a.find(name)
	if err != nil {
		return 0, err
	}
	err = a.s.st.View(func(r store.Reader) error {
		b, err := a.load(r, p, RightLookup)
		if b != nil && b.Rights&(RightLookup|RightRead|RightInsert|RightCreate|RightDelete|RightAdmin) != 0 {
			rights = b.Rights
			return nil
		}
		return err
	})
	return rights, err
}

// Seen returns the name by which the account sees an owner's mailbox.
func (a *Access) Seen(o Owner, name string) (string, error) {
	if o == a.owner {
		return name, nil
	}
	address, err := a.names.Address(o)
	if err == nil && address == "" {
		err = ErrNotFound
	}
	return OthersPrefix + escapeLevel(address) + "/" + name, err
}

// List returns all mailboxes that the account sees, with its rights: its own in the order of their names, INBOX
// first, and then those of others.
func (a *Access) List() ([]Mailbox, error) {
	var own, shared []Mailbox
	var subscribed map[string]bool
	err := a.s.st.View(func(r store.Reader) (err error) {
		subscribed = map[string]bool{}
		for _, name := range subscriptions(r, a.owner) {
			subscribed[name] = true
		}
		if own, err = a.own(r); err == nil {
			shared, err = a.shared(r)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if shared, err = a.named(shared); err != nil {
		return nil, err
	}
	all := append(own, shared...)
	for i := range all {
		all[i].Subscribed = subscribed[all[i].Name]
	}
	return all, nil
}

// own reads the account's own mailboxes.
func (a *Access) own(r store.Reader) ([]Mailbox, error) {
	lists := map[ID]acl{}
	for k, v := range r.Scan(aclsOf(a.owner), aclsOf(a.owner).End()) {
		id := ID(lastUint(k))
		l, err := decodeACL(id, v)
		if err != nil {
			return nil, err
		}
		lists[id] = l
	}
	list, err := ownList(r, a.owner)
	for i := range list {
		list[i].Rights = lists[list[i].ID].rights(a.owner, a.owner)
	}
	return list, err
}

// shared reads the mailboxes of others that the account sees, as their owners name them.
func (a *Access) shared(r store.Reader) ([]Mailbox, error) {
	refs := append(grantRefs(r, a.owner, 0), grantRefs(r, anyone, 0)...)
	slices.SortFunc(refs, grantRef.compare)
	var list []Mailbox
	for _, ref := range slices.Compact(refs) {
		if ref.owner == a.owner {
			continue
		}
		b, err := loadBox(r, ref.id)
		if err != nil {
			return nil, err
		}
		if err := a.permit(r, b, "", RightLookup); errors.Is(err, ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		list = append(list, a.shown(b, b.Name))
	}
	return list, nil
}

// named gives shared mailboxes the names that the account sees. Those of an account that is about to be
// removed are left out.
func (a *Access) named(shared []Mailbox) ([]Mailbox, error) {
	prefixes := map[Owner]string{}
	list := shared[:0]
	for _, m := range shared {
		prefix, ok := prefixes[m.Owner]
		if !ok {
			seen, err := a.Seen(m.Owner, "")
			if err != nil && !errors.Is(err, ErrNotFound) {
				return nil, err
			}
			if err == nil {
				prefix = seen
			}
			prefixes[m.Owner] = prefix
		}
		if prefix != "" {
			m.Name = prefix + m.Name
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b Mailbox) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Create makes a mailbox, and the missing ones above it. A trailing "/" is dropped. In another's tree it takes the right to
// create on the nearest mailbox above, and no special use. ErrName, ErrExists, ErrLimit, ErrRole, ErrNotFound, ErrRights.
func (a *Access) Create(name string, role Role) (m Mailbox, err error) {
	p, err := a.place(strings.TrimSuffix(name, "/"))
	if err != nil {
		return m, err
	}
	err = a.s.st.Update(func(tx store.Tx) error {
		if b, err := a.load(tx, p, RightLookup); b != nil && err == nil {
			return fmt.Errorf("%w: %q", ErrExists, p)
		}
		if err := a.permitCreate(tx, p); err != nil {
			return err
		}
		if role != "" && p.owner != a.owner {
			return fmt.Errorf("%w: %q belongs to another account", ErrRole, p)
		}
		b, err := a.s.createPath(tx, p.owner, p.name, role)
		if err != nil {
			return err
		}
		if err = a.permit(tx, b, "", 0); errors.Is(err, ErrNotFound) { // it may make what it does not see
			err = nil
		}
		m = a.shown(b, p.String())
		m.Subscribed = tx.Get(subscriptionKey(a.owner, m.Name)) != nil
		return err
	})
	return m, err
}

// permitCreate asks the nearest mailbox above a place whether one may be made there. The account's own
// tree has a root of its own, others' have none that it could write to.
func (a *Access) permitCreate(r store.Reader, p place) error {
	id := nearest(r, p.owner, p.name)
	if id == 0 && p.owner == a.owner {
		return nil
	}
	if id == 0 {
		return notFound(p.String())
	}
	b, err := loadBox(r, id)
	if err != nil {
		return err
	}
	err = a.permit(r, b, p.prefix+b.Name, RightCreate)
	if errors.Is(err, ErrNotFound) {
		return notFound(p.String())
	}
	return err
}

// Remove deletes a mailbox with its messages; those below it stay. ErrNotFound, ErrRights, ErrInbox; ErrChildren for a
// name that is none of a mailbox but has mailboxes below it (RFC 9051, 6.3.5).
func (a *Access) Remove(ctx context.Context, name string) error {
	p, err := a.find(name)
	if err != nil {
		return err
	}
	err = a.s.st.Update(func(tx store.Tx) error {
		b, err := a.load(tx, p, RightDelete)
		if errors.Is(err, ErrNotFound) && a.seesBelow(tx, p) {
			return fmt.Errorf("%w: %q", ErrChildren, p)
		}
		if err != nil {
			return err
		}
		if b.Name == inbox {
			return ErrInbox
		}
		return a.s.unname(tx, b)
	})
	if err != nil {
		return err
	}
	return a.s.sweep(ctx, ownerRemoved(p.owner))
}

// seesBelow reports whether the account sees a mailbox below a place.
func (a *Access) seesBelow(r store.Reader, p place) bool {
	for _, id := range family(r, p.owner, p.name) {
		if b, err := loadBox(r, id); err == nil && b.Name != p.name && a.permit(r, b, "", RightLookup) == nil {
			return true
		}
	}
	return false
}

// Rename renames a mailbox and all below it. It takes the right to delete it, and that to create on the nearest mailbox above its
// new name. INBOX only its owner can rename: its messages move to a new mailbox. ErrNotFound, ErrRights, ErrName, ErrExists, ErrLimit,
// ErrOwner.
func (a *Access) Rename(ctx context.Context, from, to string) error {
	p, err := a.find(strings.TrimSuffix(from, "/"))
	if err != nil {
		return err
	}
	q, err := a.place(strings.TrimSuffix(to, "/"))
	if err != nil {
		return err
	}
	if p.name == inbox && p.owner == a.owner {
		err := a.s.st.View(func(r store.Reader) error { return a.permitRename(r, p, q) })
		if err != nil {
			return err
		}
		return a.s.renameInbox(ctx, a.owner, q.name)
	}
	return a.s.st.Update(func(tx store.Tx) error {
		if err := a.permitRename(tx, p, q); err != nil {
			return err
		}
		return a.s.rename(tx, p.owner, p.name, q.name)
	})
}

func (a *Access) permitRename(r store.Reader, p, q place) error {
	ids := family(r, p.owner, p.name)
	if len(ids) == 0 {
		return notFound(p.String())
	}
	if named(r, p.owner, p.name) != 0 {
		ids = ids[:1] // the mailbox itself answers for those below
	}
	for _, id := range ids {
		b, err := loadBox(r, id)
		if err != nil {
			return err
		}
		err = a.permit(r, b, p.String(), RightDelete)
		if err != nil {
			return err
		}
	}
	switch {
	case p.prefix != q.prefix:
		return fmt.Errorf("%w: %q to %q", ErrOwner, p, q)
	case p.name == inbox && p.owner != a.owner:
		return fmt.Errorf("%w: only its owner can rename %q", ErrRights, p)
	}
	return a.permitCreate(r, q)
}

// Subscribe sets or clears a subscription; the name need not exist. A trailing "/" is dropped. ErrName, ErrLimit.
func (a *Access) Subscribe(name string, on bool) error {
	name, err := a.Clean(name)
	if err != nil {
		return err
	}
	return a.s.subscribe(a.owner, name, on)
}

// Clean returns the form of a name in which List has it, whether or not there is such a mailbox. A trailing "/" is
// dropped. ErrName.
func (a *Access) Clean(name string) (string, error) {
	p, err := a.place(strings.TrimSuffix(name, "/"))
	if err != nil || p.owner == a.owner || p.owner == 0 {
		return p.String(), err
	}
	return a.Seen(p.owner, p.name)
}

// CleanTop is Clean for what may also be a name above all mailboxes of others, or of one of them. ErrName.
func (a *Access) CleanTop(name string) (string, error) {
	name = strings.TrimSuffix(name, "/")
	if name == others {
		return name, nil
	}
	level, foreign := strings.CutPrefix(name, OthersPrefix)
	if !foreign || strings.Contains(level, "/") {
		return a.Clean(name)
	}
	below, err := a.Clean(name + "/" + inbox)
	return strings.TrimSuffix(below, "/"+inbox), err
}

// Subscriptions returns the subscribed names, in order, also those without a mailbox.
func (a *Access) Subscriptions() ([]string, error) { return a.s.Subscriptions(a.owner) }

// escapeLevel makes one level of an address: "/", the wildcards, "=" and what cannot be printed become "=" and two
// hexadecimal digits for each octet.
func escapeLevel(address string) string {
	var b strings.Builder
	for i := range len(address) {
		if c := address[i]; c <= ' ' || c == 0x7f || strings.IndexByte("/*%=", c) >= 0 {
			fmt.Fprintf(&b, "=%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescapeLevel reads what escapeLevel wrote. ErrName.
func unescapeLevel(level string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(level); i++ {
		if level[i] != '=' {
			b.WriteByte(level[i])
			continue
		}
		var c byte
		if i+3 > len(level) {
			return "", fmt.Errorf("%w: %q has an \"=\" without two digits", ErrName, level)
		}
		if _, err := fmt.Sscanf(level[i+1:i+3], "%02x", &c); err != nil {
			return "", fmt.Errorf("%w: %q has an \"=\" without two digits", ErrName, level)
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String(), nil
}
