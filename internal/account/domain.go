package account

import (
	"fmt"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

type domainRecord struct {
	Created time.Time `json:"created"`
	Alias   string    `json:"alias,omitempty"` // the domain that this is another name of
}

// domainAt reads a domain's record; false when it is not ours.
func domainAt(r store.Reader, name string) (rec domainRecord, ours bool, err error) {
	ours, err = get(r, domainKey(name), &rec)
	if err != nil {
		err = fmt.Errorf("domain %s: %w", name, err)
	}
	return rec, ours, err
}

// isOwn refuses a domain that cannot have accounts, aliases and lists.
func isOwn(r store.Reader, name string) error {
	rec, ours, err := domainAt(r, name)
	switch {
	case err != nil:
		return err
	case !ours:
		return fmt.Errorf("%s: %w", name, ErrNoDomain)
	case rec.Alias != "":
		return fmt.Errorf("%s %w of %s", name, ErrDomainAlias, rec.Alias)
	}
	return nil
}

// isTaken reports whether an account, an alias or a list has the address.
func isTaken(r store.Reader, addr envelope.Address) bool {
	return accountAt(r, addr) != 0 || r.Get(aliasKey(addr)) != nil || isList(r, addr)
}

// AddDomain makes a domain ours: its mail ends here. ErrExists.
func (d *Directory) AddDomain(name string) (Domain, error) {
	return d.addDomain(name, "", func(store.Reader) error { return nil })
}

// AliasDomain makes a domain another name of one of ours: each local part of it is the same in the other.
// The other must not be such an alias itself, so there are no chains and no loops. ErrExists when the domain is ours
// already, ErrNoDomain, ErrDomainAlias.
func (d *Directory) AliasDomain(name, of string) (Domain, error) {
	of, err := envelope.ParseDomain(of)
	if err != nil {
		return Domain{}, err
	}
	return d.addDomain(name, of, func(r store.Reader) error { return isOwn(r, of) })
}

func (d *Directory) addDomain(name, alias string, allowed func(store.Reader) error) (Domain, error) {
	name, err := envelope.ParseDomain(name)
	if err != nil {
		return Domain{}, err
	}
	rec := domainRecord{d.now(), alias}
	err = d.st.Update(func(tx store.Tx) error {
		if tx.Get(domainKey(name)) != nil {
			return fmt.Errorf("domain %s: %w", name, ErrExists)
		}
		if err := allowed(tx); err != nil {
			return err
		}
		put(tx, domainKey(name), rec)
		return nil
	})
	return Domain{Name: name, Created: rec.Created, Alias: alias}, err
}

// RemoveDomain gives a domain or domain alias up, and what was delegated in it. ErrNotFound; ErrNotEmpty while it has
// accounts, aliases, lists, or other domains are aliases of it.
func (d *Directory) RemoveDomain(name string) error {
	name, err := envelope.ParseDomain(name)
	if err != nil {
		return err
	}
	return d.st.Update(func(tx store.Tx) error {
		if tx.Get(domainKey(name)) == nil {
			return fmt.Errorf("domain %s: %w", name, ErrNotFound)
		}
		if count(tx, "an", name)+count(tx, "al", name)+count(tx, "li", name) > 0 {
			return fmt.Errorf("domain %s: %w", name, ErrNotEmpty)
		}
		if err := notAliased(tx, name); err != nil {
			return err
		}
		dropDelegations(tx, func(as envelope.Address, _ ID) bool { return as.Domain == name })
		tx.Delete(domainKey(name))
		return nil
	})
}

// notAliased refuses a domain that others are aliases of.
func notAliased(r store.Reader, name string) error {
	for k := range r.Scan(store.NewKey("ad"), store.NewKey("ad").End()) {
		other, _ := store.TakeText(k[2:])
		rec, _, err := domainAt(r, other)
		if err != nil {
			return err
		}
		if rec.Alias == name {
			return fmt.Errorf("domain %s: %w: %s is an alias of it", name, ErrNotEmpty, other)
		}
	}
	return nil
}

func count(r store.Reader, table, domain string) (n int) {
	from := inDomain(table, domain)
	for range r.Scan(from, from.End()) {
		n++
	}
	return n
}

// Domains lists the domains that are ours, by name.
func (d *Directory) Domains() (list []Domain, err error) {
	err = d.st.View(func(r store.Reader) error {
		list = nil
		for k := range r.Scan(store.NewKey("ad"), store.NewKey("ad").End()) {
			name, _ := store.TakeText(k[2:])
			list = append(list, Domain{Name: name})
		}
		for i := range list {
			if err := fillDomain(r, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

func fillDomain(r store.Reader, dom *Domain) error {
	rec, _, err := domainAt(r, dom.Name)
	dom.Created, dom.Alias = rec.Created, rec.Alias
	dom.Accounts, dom.Aliases, dom.Lists = count(r, "an", dom.Name), count(r, "al", dom.Name), count(r, "li", dom.Name)
	return err
}

// IsLocal reports whether a domain, in any form, is ours.
func (d *Directory) IsLocal(domain string) (local bool, err error) {
	name := envelope.Address{Domain: domain}.Canonical().Domain
	err = d.st.View(func(r store.Reader) error {
		local = isLocal(r, name)
		return nil
	})
	return local, err
}

func isLocal(r store.Reader, name string) bool { return r.Get(domainKey(name)) != nil }
