package account

import (
	"fmt"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// Forward sends an account's mail on. It ends with the account.
type Forward struct {
	Targets []envelope.Address // local or remote; none is no forward at all
	Keep    bool               // the account's own mailboxes get a copy
}

// forwardRecord is stored under the account's id.
type forwardRecord struct {
	Targets []string `json:"targets"`
	Keep    bool     `json:"keep,omitempty"`
}

func forwardKey(id ID) store.Key { return store.NewKey("af").Uint(uint64(id)) }

// ForwardOf returns where an account's mail is sent on. ErrNotFound.
func (d *Directory) ForwardOf(addr envelope.Address) (f Forward, err error) {
	err = d.st.View(func(r store.Reader) error {
		f, _, err = forwardOf(r, addr.Canonical())
		return err
	})
	return f, err
}

func forwardOf(r store.Reader, c envelope.Address) (Forward, ID, error) {
	a, _, err := lookup(r, c)
	if err != nil {
		return Forward{}, 0, err
	}
	var rec forwardRecord
	if _, err := get(r, forwardKey(a.ID), &rec); err != nil {
		return Forward{}, 0, err
	}
	targets, err := parseAll(rec.Targets)
	return Forward{targets, rec.Keep}, a.ID, err
}

// ChangeForward lets fn change where an account's mail is sent on, and returns what it then is. ErrNotFound;
// ErrLoop when mail would come back to the account and to nobody else; ErrTargets.
func (d *Directory) ChangeForward(addr envelope.Address, fn func(*Forward) error) (f Forward, err error) {
	c := addr.Canonical()
	err = d.st.Update(func(tx store.Tx) error {
		var id ID
		if f, id, err = forwardOf(tx, c); err != nil {
			return err
		}
		if err := fn(&f); err != nil {
			return err
		}
		if len(f.Targets) == 0 {
			f = Forward{}
			tx.Delete(forwardKey(id))
			return nil
		}
		if len(f.Targets) > maxTargets {
			return fmt.Errorf("%s: %w", c, ErrTargets)
		}
		put(tx, forwardKey(id), forwardRecord{writeAll(f.Targets), f.Keep})
		return d.leads(tx, c)
	})
	return f, err
}
