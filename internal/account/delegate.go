package account

import (
	"errors"
	"fmt"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// Delegation lets an account send as an address that is not its own.
type Delegation struct {
	As       envelope.Address // canonical, in a domain of ours; without local part it is all of the domain
	Delegate envelope.Address // the account's
}

func delegationsOf(as envelope.Address) store.Key {
	return store.NewKey("ag").Text(as.Domain).Text(as.Local)
}
func delegationKey(as envelope.Address, id ID) store.Key { return delegationsOf(as).Uint(uint64(id)) }

// Delegate lets an account send as an address, or as all of a domain when the address has no local part.
// Nothing need be at the address. ErrNotFound, ErrNoDomain.
func (d *Directory) Delegate(as, delegate envelope.Address) (Delegation, error) {
	as = as.Canonical()
	var got Delegation
	err := d.st.Update(func(tx store.Tx) error {
		a, _, err := lookup(tx, delegate.Canonical())
		if err != nil {
			return err
		}
		if !isLocal(tx, as.Domain) {
			return fmt.Errorf("%s: %w", as.Domain, ErrNoDomain)
		}
		tx.Put(delegationKey(as, a.ID), []byte{1})
		got = Delegation{as, a.Address}
		return nil
	})
	return got, err
}

// Undelegate takes that back. ErrNotFound.
func (d *Directory) Undelegate(as, delegate envelope.Address) error {
	as = as.Canonical()
	return d.st.Update(func(tx store.Tx) error {
		a, _, err := lookup(tx, delegate.Canonical())
		if err != nil {
			return err
		}
		key := delegationKey(as, a.ID)
		if tx.Get(key) == nil {
			return fmt.Errorf("%s as %s: %w", a.Address, as, ErrNotFound)
		}
		tx.Delete(key)
		return nil
	})
}

// Delegations lists who may send as what, by address.
func (d *Directory) Delegations() (list []Delegation, err error) {
	err = d.st.View(func(r store.Reader) error {
		list = nil
		return eachDelegation(r, func(_ store.Key, as envelope.Address, id ID) error {
			a, _, err := byID(r, id)
			if err == nil {
				list = append(list, Delegation{as, a.Address})
			}
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			return err
		})
	})
	return list, err
}

func eachDelegation(r store.Reader, fn func(key store.Key, as envelope.Address, id ID) error) error {
	for k := range r.Scan(store.NewKey("ag"), store.NewKey("ag").End()) {
		var as envelope.Address
		var rest []byte
		as.Domain, rest = store.TakeText(k[2:])
		as.Local, rest = store.TakeText(rest)
		id, _ := store.TakeUint(rest)
		if err := fn(k, as, ID(id)); err != nil {
			return err
		}
	}
	return nil
}

// dropDelegations removes those that match chooses.
func dropDelegations(tx store.Tx, match func(as envelope.Address, id ID) bool) {
	var keys []store.Key
	_ = eachDelegation(tx, func(k store.Key, as envelope.Address, id ID) error {
		if match(as, id) {
			keys = append(keys, append(store.Key(nil), k...))
		}
		return nil
	})
	for _, k := range keys {
		tx.Delete(k)
	}
}

// delegated reports whether id may send as addr by delegation: of the address, of it without its detail, or
// of its domain, here or where a domain alias leads.
func (d *Directory) delegated(r store.Reader, id ID, addr envelope.Address) (bool, error) {
	names, err := namesOf(r, addr)
	if err != nil {
		return false, err
	}
	for _, c := range names {
		for _, local := range d.forms(c.Local) {
			if r.Get(delegationKey(envelope.Address{Local: local, Domain: c.Domain}, id)) != nil {
				return true, nil
			}
		}
	}
	return false, nil
}

// namesOf returns an address, canonical, and what it is where its domain is an alias.
func namesOf(r store.Reader, addr envelope.Address) ([]envelope.Address, error) {
	c := addr.Canonical()
	dom, _, err := domainAt(r, c.Domain)
	if err != nil || dom.Alias == "" {
		return []envelope.Address{c}, err
	}
	return []envelope.Address{c, {Local: c.Local, Domain: dom.Alias}}, nil
}

// forms are a local part, what it is without its detail, and the empty one, which is the whole domain.
func (d *Directory) forms(local string) []string {
	if user, _, ok := d.sub.split(local); ok {
		return []string{local, user, ""}
	}
	return []string{local, ""}
}
