package account

import (
	"fmt"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// Forward sends an account's mail on. It ends with the account.
type Forward struct {
	Account envelope.Address   // canonical
	Targets []envelope.Address // local or remote; none is no forward at all
	Keep    bool               // the account's own mailboxes get a copy
}

// forwardRecord is stored under the account's id.
type forwardRecord struct {
	Targets []string `json:"targets"`
	Keep    bool     `json:"keep,omitempty"`
}

func forwardKey(id ID) store.Key { return store.NewKey("af").Uint(uint64(id)) }

// Forwards lists the accounts of a domain, or of all when domain is empty, that send their mail on.
func (d *Directory) Forwards(domain string) (list []Forward, err error) {
	name := envelope.Address{Domain: domain}.Canonical().Domain
	err = d.st.View(func(r store.Reader) error {
		list = nil
		for k := range r.Scan(store.NewKey("af"), store.NewKey("af").End()) {
			id, _ := store.TakeUint(k[2:])
			f, err := forwardOf(r, ID(id))
			if err != nil {
				return err
			}
			if domain == "" || f.Account.Domain == name {
				list = append(list, f)
			}
		}
		return nil
	})
	return list, err
}

func forwardOf(r store.Reader, id ID) (Forward, error) {
	a, _, err := byID(r, id)
	if err != nil {
		return Forward{}, err
	}
	var rec forwardRecord
	if _, err := get(r, forwardKey(id), &rec); err != nil {
		return Forward{}, err
	}
	targets, err := parseAll(rec.Targets)
	return Forward{a.Address, targets, rec.Keep}, err
}

// ChangeForward lets fn change where an account's mail is sent on, and returns what it then is. ErrNotFound;
// ErrLoop when mail would come back to the account and to nobody else; ErrTargets.
func (d *Directory) ChangeForward(addr envelope.Address, fn func(*Forward) error) (f Forward, err error) {
	c := addr.Canonical()
	err = d.st.Update(func(tx store.Tx) error {
		a, _, err := lookup(tx, c)
		if err != nil {
			return err
		}
		if f, err = forwardOf(tx, a.ID); err != nil {
			return err
		}
		if err := fn(&f); err != nil {
			return err
		}
		if len(f.Targets) == 0 {
			f.Keep = false
			tx.Delete(forwardKey(a.ID))
			return nil
		}
		if len(f.Targets) > maxTargets {
			return fmt.Errorf("%s: %w", c, ErrTargets)
		}
		put(tx, forwardKey(a.ID), forwardRecord{writeAll(f.Targets), f.Keep})
		return d.leads(tx, c)
	})
	return f, err
}
