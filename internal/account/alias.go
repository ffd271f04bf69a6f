package account

import (
	"errors"
	"fmt"
	"slices"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// maxTargets bounds what one recipient may become, and maxDepth how often an alias
// may lead to another.
const (
	maxTargets = 1000
	maxDepth   = 10
)

type aliasRecord struct {
	Targets []string `json:"targets"`
}

func (rec aliasRecord) targets() ([]envelope.Address, error) {
	list := make([]envelope.Address, len(rec.Targets))
	for i, t := range rec.Targets {
		var err error
		if list[i], err = envelope.ParseAddress(t); err != nil {
			return nil, fmt.Errorf("alias target %q: %w", t, err)
		}
	}
	return list, nil
}

// SetAlias makes or replaces an alias. An address without local part is the domain's
// catch-all. ErrNoDomain; ErrExists when an account has the address.
func (d *Directory) SetAlias(addr envelope.Address, targets []envelope.Address) (Alias, error) {
	addr = addr.Canonical()
	if len(targets) == 0 || len(targets) > maxTargets {
		return Alias{}, fmt.Errorf("alias %s: it needs 1 to %d targets", addr, maxTargets)
	}
	var rec aliasRecord
	for _, t := range targets {
		rec.Targets = append(rec.Targets, t.String())
	}
	err := d.st.Update(func(tx store.Tx) error {
		if !isLocal(tx, addr.Domain) {
			return fmt.Errorf("%s: %w", addr.Domain, ErrNoDomain)
		}
		if addr.Local != "" && tx.Get(nameKey(addr)) != nil {
			return fmt.Errorf("%s: %w", addr, ErrExists)
		}
		put(tx, aliasKey(addr), rec)
		return nil
	})
	return Alias{addr, targets}, err
}

// RemoveAlias deletes an alias. ErrNotFound.
func (d *Directory) RemoveAlias(addr envelope.Address) error {
	addr = addr.Canonical()
	return d.st.Update(func(tx store.Tx) error {
		if tx.Get(aliasKey(addr)) == nil {
			return fmt.Errorf("alias %s: %w", addr, ErrNotFound)
		}
		tx.Delete(aliasKey(addr))
		return nil
	})
}

// Aliases lists the aliases of a domain, or all when domain is empty, by address.
func (d *Directory) Aliases(domain string) (list []Alias, err error) {
	from := store.NewKey("al")
	if domain != "" {
		from = inDomain("al", envelope.Address{Domain: domain}.Canonical().Domain)
	}
	err = d.st.View(func(r store.Reader) error {
		list = nil
		for k := range r.Scan(from, from.End()) {
			a := Alias{}
			rest := k[2:]
			a.Address.Domain, rest = store.TakeText(rest)
			a.Address.Local, _ = store.TakeText(rest)
			targets, _, err := aliasOf(r, a.Address)
			if err != nil {
				return err
			}
			a.Targets = targets
			list = append(list, a)
		}
		return nil
	})
	return list, err
}

// aliasOf returns the targets of the alias at exactly addr; false when there is none.
func aliasOf(r store.Reader, addr envelope.Address) ([]envelope.Address, bool, error) {
	var rec aliasRecord
	ok, err := get(r, aliasKey(addr), &rec)
	if err != nil || !ok {
		return nil, false, err
	}
	targets, err := rec.targets()
	return targets, err == nil, err
}

// Resolve follows aliases from a recipient to where its mail goes, each target once.
// An address in a domain of ours that leads nowhere is ErrUnknown; one in a foreign
// domain is its own remote Target. Mail for postmaster (RFC 5321, 4.5.1), alone or
// at a domain of ours, goes to the oldest account when nothing else is set.
func (d *Directory) Resolve(addr envelope.Address) (targets []Target, err error) {
	err = d.st.View(func(r store.Reader) error {
		v := resolver{r: r, seen: map[envelope.Address]bool{}}
		err := v.follow(addr, 0)
		targets = v.targets
		return err
	})
	return targets, err
}

// resolver is one walk along aliases.
type resolver struct {
	r       store.Reader
	seen    map[envelope.Address]bool
	targets []Target
}

func (v *resolver) follow(addr envelope.Address, depth int) error {
	c := addr.Canonical()
	if v.seen[c] {
		return nil
	}
	v.seen[c] = true
	if depth > maxDepth || len(v.targets) >= maxTargets {
		return fmt.Errorf("%s: %w", addr, ErrLoop)
	}
	if c.Domain != "" && !isLocal(v.r, c.Domain) {
		v.targets = append(v.targets, Target{Address: addr})
		return nil
	}
	if id := v.r.Get(nameKey(c)); len(id) == 8 {
		v.local(id, c)
		return nil
	}
	targets, err := v.alias(c)
	if err != nil {
		return err
	}
	return v.followAll(targets, c, depth)
}

// followAll follows an alias's targets. One that leads nowhere does not stop the
// others; when all lead nowhere, so does the alias.
func (v *resolver) followAll(targets []envelope.Address, from envelope.Address, depth int) error {
	before := len(v.targets)
	for _, t := range targets {
		if err := v.follow(t, depth+1); err != nil && !errors.Is(err, ErrUnknown) {
			return err
		}
	}
	if len(v.targets) == before && depth == 0 {
		return fmt.Errorf("%s: %w", from, ErrUnknown)
	}
	return nil
}

func (v *resolver) local(id []byte, c envelope.Address) {
	n, _ := store.TakeUint(id)
	t := Target{ID(n), c}
	if !slices.Contains(v.targets, t) {
		v.targets = append(v.targets, t)
	}
}

// alias returns the targets set for an address, or for all unknown ones of its domain.
func (v *resolver) alias(c envelope.Address) ([]envelope.Address, error) {
	targets, ok, err := aliasOf(v.r, c)
	if err != nil || ok {
		return targets, err
	}
	if c.Local == "postmaster" {
		return v.postmaster(c)
	}
	targets, ok, err = aliasOf(v.r, envelope.Address{Domain: c.Domain})
	if err == nil && !ok {
		err = fmt.Errorf("%s: %w", c, ErrUnknown)
	}
	return targets, err
}

// postmaster returns the oldest account: there is always somebody to write to.
func (v *resolver) postmaster(c envelope.Address) ([]envelope.Address, error) {
	for k := range v.r.Scan(store.NewKey("aa"), store.NewKey("aa").End()) {
		id, _ := store.TakeUint(k[2:])
		a, _, err := byID(v.r, ID(id))
		return []envelope.Address{a.Address}, err
	}
	return nil, fmt.Errorf("%s: %w", c, ErrUnknown)
}

// MaySend reports whether the account may use addr as sender: its own address, and
// those whose mail leads to it. One that is disabled or removed may use none.
func (d *Directory) MaySend(id ID, addr envelope.Address) (bool, error) {
	if a, err := d.ByID(id); errors.Is(err, ErrNotFound) || a.Disabled {
		return false, nil
	}
	targets, err := d.Resolve(addr)
	if errors.Is(err, ErrUnknown) || errors.Is(err, ErrLoop) {
		return false, nil
	}
	return slices.ContainsFunc(targets, func(t Target) bool { return t.Account == id }), err
}
