package account

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// maxMembers bounds a list: its members get a message in one transaction, which 10,000 make a tenth of a second long.
const maxMembers = 10_000

// maxTitle bounds a list's title, in octets.
const maxTitle = 200

// ownerSuffix makes of a list's local part that of its owners' address.
const ownerSuffix = "-owner"

// Poster says who may write to a list.
type Poster string

// Who may write to a list, by the reverse-path.
const (
	PostMembers Poster = "members" // and its owners
	PostOwners  Poster = "owners"
	PostAnyone  Poster = "anyone"
)

// List is one address for many. What its members get comes from the owners' address, so that they hear of
// what cannot be delivered.
type List struct {
	Address envelope.Address // canonical, ASCII, without need of quotes
	Owners  []envelope.Address
	Post    Poster
	Title   string // for people; may be empty
	Created time.Time
	Members int
}

// Owner is the address that leads to a list's owners.
func (l List) Owner() envelope.Address {
	return envelope.Address{Local: l.Address.Local + ownerSuffix, Domain: l.Address.Domain}
}

type listRecord struct {
	Owners  []string  `json:"owners"`
	Post    Poster    `json:"post"`
	Title   string    `json:"title,omitempty"`
	Created time.Time `json:"created"`
	Members int       `json:"members"`
}

func listKey(a envelope.Address) store.Key   { return store.NewKey("li").Text(a.Domain).Text(a.Local) }
func membersOf(a envelope.Address) store.Key { return store.NewKey("lm").Text(a.Domain).Text(a.Local) }
func memberKey(list, member envelope.Address) store.Key {
	c := member.Canonical()
	return membersOf(list).Text(c.Domain).Text(c.Local)
}

func isList(r store.Reader, c envelope.Address) bool { return r.Get(listKey(c)) != nil }

// listAt reads the list at a canonical address. ErrNotFound.
func listAt(r store.Reader, c envelope.Address) (List, error) {
	var rec listRecord
	ok, err := get(r, listKey(c), &rec)
	if err == nil && !ok {
		err = ErrNotFound
	}
	if err != nil {
		return List{}, fmt.Errorf("list %s: %w", c, err)
	}
	owners, err := parseAll(rec.Owners)
	return List{c, owners, rec.Post, rec.Title, rec.Created, rec.Members}, err
}

// ownersAt returns the owners of a list when c is their address.
func ownersAt(r store.Reader, c envelope.Address) ([]envelope.Address, bool, error) {
	local, ok := strings.CutSuffix(c.Local, ownerSuffix)
	if !ok {
		return nil, false, nil
	}
	l, err := listAt(r, envelope.Address{Local: local, Domain: c.Domain})
	if errors.Is(err, ErrNotFound) {
		return nil, false, nil
	}
	return l.Owners, err == nil, err
}

func (l *List) put(tx store.Tx) {
	put(tx, listKey(l.Address), listRecord{writeAll(l.Owners), l.Post, l.Title, l.Created, l.Members})
}

// check says what is wrong with a list's settings.
func (l *List) check() error {
	switch a := l.Address; {
	case !envelope.IsASCII(a.Local) || strings.ContainsAny(a.String(), `"[`):
		return fmt.Errorf("list %s: %w: its address must be ASCII and need no quotes, as it stands in List-Id", a, ErrSetting)
	case strings.HasSuffix(a.Local, ownerSuffix):
		return fmt.Errorf("list %s: %w: addresses that end in %s are those of lists' owners", a, ErrSetting, ownerSuffix)
	case len(l.Owner().Local) > 64:
		return fmt.Errorf("list %s: %w: the name is too long", a, ErrSetting)
	case len(l.Owners) == 0 || len(l.Owners) > 100:
		return fmt.Errorf("list %s: %w: it needs 1 to 100 owners", a, ErrSetting)
	case slices.ContainsFunc(l.Owners, func(o envelope.Address) bool {
		c := o.Canonical()
		return c == a || c == l.Owner()
	}):
		return fmt.Errorf("list %s: %w: it cannot be its own owner", a, ErrSetting)
	case l.Post != PostMembers && l.Post != PostOwners && l.Post != PostAnyone:
		return fmt.Errorf("list %s: %w: who may post is %q, %q or %q", a, ErrSetting, PostMembers, PostOwners, PostAnyone)
	case l.Title != envelope.Sanitize(l.Title, maxTitle):
		return fmt.Errorf("list %s: %w: a title is one line of at most %d octets", a, ErrSetting, maxTitle)
	}
	return nil
}

// AddList makes a list with members. ErrExists, ErrNoDomain, ErrSetting, ErrTargets; ErrUnknown or ErrLoop when an owner
// leads nowhere.
func (d *Directory) AddList(l List, members ...envelope.Address) (List, error) {
	l.Address, l.Created = l.Address.Canonical(), d.now()
	if err := l.check(); err != nil {
		return List{}, err
	}
	err := d.st.Update(func(tx store.Tx) error {
		if err := isOwn(tx, l.Address.Domain); err != nil {
			return err
		}
		if isTaken(tx, l.Address) || isTaken(tx, l.Owner()) {
			return fmt.Errorf("%s or %s: %w", l.Address, l.Owner(), ErrExists)
		}
		if err := d.ownersLead(tx, &l); err != nil {
			return err
		}
		l.Members = 0 // it may run again
		if err := l.add(tx, members); err != nil {
			return err
		}
		l.put(tx)
		return nil
	})
	return l, err
}

// ChangeList lets fn change a list's owners, title and who may post. ErrNotFound, ErrSetting, ErrUnknown, ErrLoop.
func (d *Directory) ChangeList(addr envelope.Address, fn func(*List)) (l List, err error) {
	err = d.st.Update(func(tx store.Tx) error {
		if l, err = listAt(tx, addr.Canonical()); err != nil {
			return err
		}
		was := l
		fn(&l)
		l.Address, l.Created, l.Members = was.Address, was.Created, was.Members
		if err := l.check(); err != nil {
			return err
		}
		l.put(tx)
		return d.ownersLead(tx, &l)
	})
	return l, err
}

// ownersLead refuses owners of whom one leads nowhere: somebody has to hear of what fails.
func (d *Directory) ownersLead(r store.Reader, l *List) error {
	for _, o := range l.Owners {
		if _, err := d.resolve(r, o); err != nil {
			return fmt.Errorf("list %s: its owner %w", l.Address, err)
		}
	}
	return nil
}

// RemoveList deletes a list with its members. ErrNotFound.
func (d *Directory) RemoveList(addr envelope.Address) error {
	c := addr.Canonical()
	return d.st.Update(func(tx store.Tx) error {
		if !isList(tx, c) {
			return fmt.Errorf("list %s: %w", c, ErrNotFound)
		}
		var keys []store.Key
		for k := range tx.Scan(membersOf(c), membersOf(c).End()) {
			keys = append(keys, append(store.Key(nil), k...))
		}
		for _, k := range keys {
			tx.Delete(k)
		}
		tx.Delete(listKey(c))
		return nil
	})
}

// AddMembers adds members to a list; who is one already stays. All or none are added. ErrNotFound, ErrTargets.
func (d *Directory) AddMembers(addr envelope.Address, members []envelope.Address) (List, error) {
	return d.changeMembers(addr, func(tx store.Tx, l *List) error { return l.add(tx, members) })
}

func (l *List) add(tx store.Tx, members []envelope.Address) error {
	for _, m := range members {
		if m.Canonical() == l.Address || m.Canonical() == l.Owner() {
			return fmt.Errorf("list %s: %w: it cannot be its own member", l.Address, ErrSetting)
		}
		key := memberKey(l.Address, m)
		if tx.Get(key) == nil {
			l.Members++
			tx.Put(key, []byte(m.String()))
		}
	}
	if l.Members > maxMembers {
		return fmt.Errorf("list %s: %w: a list has at most %d members", l.Address, ErrTargets, maxMembers)
	}
	return nil
}

// RemoveMembers takes members from a list. All or none are taken. ErrNotFound.
func (d *Directory) RemoveMembers(addr envelope.Address, members []envelope.Address) (List, error) {
	return d.changeMembers(addr, func(tx store.Tx, l *List) error {
		for _, m := range members {
			key := memberKey(l.Address, m)
			if tx.Get(key) == nil {
				return fmt.Errorf("%s is no member of %s: %w", m, l.Address, ErrNotFound)
			}
			l.Members--
			tx.Delete(key)
		}
		return nil
	})
}

func (d *Directory) changeMembers(addr envelope.Address, fn func(store.Tx, *List) error) (l List, err error) {
	err = d.st.Update(func(tx store.Tx) error {
		if l, err = listAt(tx, addr.Canonical()); err != nil {
			return err
		}
		if err := fn(tx, &l); err != nil {
			return err
		}
		l.put(tx)
		return nil
	})
	return l, err
}

// List returns a list. ErrNotFound.
func (d *Directory) List(addr envelope.Address) (l List, err error) {
	err = d.st.View(func(r store.Reader) error {
		l, err = listAt(r, addr.Canonical())
		return err
	})
	return l, err
}

// Lists returns the lists of a domain, or all when domain is empty, by address.
func (d *Directory) Lists(domain string) (lists []List, err error) {
	from := store.NewKey("li")
	if domain != "" {
		from = inDomain("li", envelope.Address{Domain: domain}.Canonical().Domain)
	}
	err = d.st.View(func(r store.Reader) error {
		lists = nil
		for k := range r.Scan(from, from.End()) {
			var c envelope.Address
			var rest []byte
			c.Domain, rest = store.TakeText(k[2:])
			c.Local, _ = store.TakeText(rest)
			l, err := listAt(r, c)
			if err != nil {
				return err
			}
			lists = append(lists, l)
		}
		return nil
	})
	return lists, err
}

// Members returns a list's members as they were given, by domain. ErrNotFound.
func (d *Directory) Members(addr envelope.Address) (members []envelope.Address, err error) {
	err = d.st.View(func(r store.Reader) error {
		members, err = membersAt(r, addr.Canonical())
		return err
	})
	return members, err
}

func membersAt(r store.Reader, c envelope.Address) (members []envelope.Address, err error) {
	if !isList(r, c) {
		return nil, fmt.Errorf("list %s: %w", c, ErrNotFound)
	}
	for _, v := range r.Scan(membersOf(c), membersOf(c).End()) {
		m, err := envelope.ParseAddress(string(v))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w: %w", c, store.ErrRecord, err)
		}
		members = append(members, m)
	}
	return members, nil
}

// MayPost reports whether mail with this reverse-path may go to a list. The null one may not: reports are not for all.
// ErrNotFound.
func (d *Directory) MayPost(list, from envelope.Address) (may bool, err error) {
	err = d.st.View(func(r store.Reader) error {
		l, err := listAt(r, list.Canonical())
		if err == nil {
			may, err = mayPost(r, &l, from)
		}
		return err
	})
	return may, err
}

func mayPost(r store.Reader, l *List, from envelope.Address) (bool, error) {
	if from.IsZero() || l.Post == PostAnyone {
		return !from.IsZero(), nil
	}
	names, err := namesOf(r, from)
	return err == nil && slices.ContainsFunc(names, func(c envelope.Address) bool {
		return l.isOwner(c) || l.Post == PostMembers && r.Get(memberKey(l.Address, c)) != nil
	}), err
}

func (l *List) isOwner(c envelope.Address) bool {
	return slices.ContainsFunc(l.Owners, func(o envelope.Address) bool { return o.Canonical() == c })
}

// Expand returns a list and what its members lead to when from writes to it, each target once, and those members that
// lead nowhere. ErrNotFound when there is no such list, ErrPost when from may not, ErrTargets.
func (d *Directory) Expand(list, from envelope.Address) (l List, targets []Target, lost []envelope.Address, err error) {
	err = d.st.View(func(r store.Reader) error {
		if l, err = listAt(r, list.Canonical()); err != nil {
			return err
		}
		may, err := mayPost(r, &l, from)
		if err != nil {
			return err
		}
		if !may {
			return fmt.Errorf("%s to %s: %w", from, l.Address, ErrPost)
		}
		members, err := membersAt(r, l.Address)
		if err != nil {
			return err
		}
		targets, lost, err = d.resolveAll(r, members)
		return err
	})
	return l, targets, lost, err
}

// maxExpanded bounds what the members of a list lead to, all together.
const maxExpanded = 2 * maxMembers

func (d *Directory) resolveAll(r store.Reader, members []envelope.Address) (targets []Target, lost []envelope.Address, err error) {
	found := map[Target]bool{}
	for _, m := range members {
		list, err := d.resolve(r, m)
		switch {
		case errors.Is(err, ErrUnknown), errors.Is(err, ErrLoop), errors.Is(err, ErrTargets):
			lost = append(lost, m)
		case err != nil:
			return nil, nil, err
		}
		for _, t := range list {
			key := t
			key.Address, key.Via = t.Address.Canonical(), envelope.Address{}
			if !found[key] {
				found[key] = true
				targets = append(targets, t)
			}
		}
		if len(targets) > maxExpanded {
			return nil, nil, fmt.Errorf("members lead to more than %d addresses: %w", maxExpanded, ErrTargets)
		}
	}
	return targets, lost, nil
}
