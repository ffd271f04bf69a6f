package account

import (
	"errors"
	"fmt"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

type aliasRecord struct {
	Targets []string `json:"targets"`
}

// parseAll reads addresses as writeAll wrote them.
func parseAll(texts []string) ([]envelope.Address, error) {
	list := make([]envelope.Address, len(texts))
	for i, t := range texts {
		var err error
		if list[i], err = envelope.ParseAddress(t); err != nil {
			return nil, fmt.Errorf("%w: %w", store.ErrRecord, err)
		}
	}
	return list, nil
}

func writeAll(list []envelope.Address) []string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return texts
}

// SetAlias makes or replaces an alias. An address without local part is the domain's
// catch-all. ErrNoDomain; ErrExists when an account or a list has the address; ErrLoop when mail
// would come back to it and to nobody else; ErrTargets.
func (d *Directory) SetAlias(addr envelope.Address, targets []envelope.Address) (Alias, error) {
	addr = addr.Canonical()
	if len(targets) == 0 || len(targets) > maxTargets {
		return Alias{}, fmt.Errorf("alias %s: %w: it needs 1 to %d targets", addr, ErrSetting, maxTargets)
	}
	rec := aliasRecord{writeAll(targets)}
	err := d.st.Update(func(tx store.Tx) error {
		if err := isOwn(tx, addr.Domain); err != nil {
			return err
		}
		if addr.Local != "" && (accountAt(tx, addr) != 0 || isList(tx, addr)) {
			return fmt.Errorf("%s: %w", addr, ErrExists)
		}
		put(tx, aliasKey(addr), rec)
		return d.leads(tx, addr)
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
	targets, err := parseAll(rec.Targets)
	return targets, err == nil, err
}

// leads refuses an address that leads only back to itself, over too many aliases, or to too many addresses.
// What leads nowhere may do so: its target may be made later.
func (d *Directory) leads(r store.Reader, addr envelope.Address) error {
	if addr.Local == "" {
		return nil // a catch-all: where it leads depends on who is written to
	}
	if _, err := d.resolve(r, addr); !errors.Is(err, ErrUnknown) {
		return err
	}
	return nil
}
