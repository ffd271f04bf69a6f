// Package account knows who is local: domains, accounts and aliases, and whose
// password is right. Passwords are kept as argon2id hashes; one that was verified is
// remembered for minutes, in memory, as a keyed hash.
//
//	ad  domain               a domain whose mail ends here
//	aa  account id           an account, as JSON
//	an  domain, local part   the account's id
//	al  domain, local part   an alias, as JSON; an empty local part is the catch-all
//
// Domains and local parts are in canonical form (envelope.Address.Canonical).
package account

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// Errors that callers branch on.
var (
	ErrNotFound    = errors.New("there is no such account, alias or domain")
	ErrExists      = errors.New("it exists already")
	ErrNoDomain    = errors.New("the domain is not one of ours")
	ErrNotEmpty    = errors.New("the domain still has accounts or aliases")
	ErrCredentials = errors.New("wrong address or password")
	ErrBusy        = errors.New("too many logins at once; try again later")
	ErrUnknown     = errors.New("no such address here")
	ErrLoop        = errors.New("the aliases lead too deep or back to themselves")
	ErrPassword    = errors.New("a password has 1 to 1024 octets")
)

// ID names an account for ever; it is never used again.
type ID uint64

// Account is a person or program that has mailboxes and may log in.
type Account struct {
	ID       ID
	Address  envelope.Address // canonical
	Disabled bool             // may not log in; mail is still accepted for it
	Created  time.Time
	Quota    int64 // octets; 0 is no limit
}

// Alias sends mail for one address, or for a domain's unknown ones, elsewhere.
type Alias struct {
	Address envelope.Address   // canonical; Local is empty for a catch-all
	Targets []envelope.Address // local or remote
}

// Target is where mail for an address goes: a local account, or elsewhere.
type Target struct {
	Account ID               // 0 when remote
	Address envelope.Address // the account's address, or the remote one
}

// Domain is a domain whose mail ends here.
type Domain struct {
	Name     string
	Created  time.Time
	Accounts int
	Aliases  int
}

// Directory answers and changes who is local. Any number of goroutines.
type Directory struct {
	st       *store.Store
	now      func() time.Time
	verifier *verifier
}

// Open returns the directory kept in st. now is the clock; nil is time.Now.
func Open(st *store.Store, now func() time.Time) *Directory {
	if now == nil {
		now = time.Now
	}
	return &Directory{st: st, now: now, verifier: newVerifier(now)}
}

// record is an account as it is stored.
type record struct {
	Local    string    `json:"local"`
	Domain   string    `json:"domain"`
	Hash     string    `json:"hash"`
	Disabled bool      `json:"disabled,omitempty"`
	Created  time.Time `json:"created"`
	Quota    int64     `json:"quota,omitempty"`
}

func (r *record) account(id ID) Account {
	return Account{
		ID: id, Address: envelope.Address{Local: r.Local, Domain: r.Domain},
		Disabled: r.Disabled, Created: r.Created, Quota: r.Quota,
	}
}

func domainKey(name string) store.Key         { return store.NewKey("ad").Text(name) }
func accountKey(id ID) store.Key              { return store.NewKey("aa").Uint(uint64(id)) }
func nameKey(a envelope.Address) store.Key    { return store.NewKey("an").Text(a.Domain).Text(a.Local) }
func aliasKey(a envelope.Address) store.Key   { return store.NewKey("al").Text(a.Domain).Text(a.Local) }
func inDomain(table, domain string) store.Key { return store.NewKey(table).Text(domain) }

// put stores v as JSON; v is one of this package's plain records.
func put(tx store.Tx, key store.Key, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("account: a record of plain fields cannot be written: %v", err))
	}
	tx.Put(key, b)
}

// get reads what put stored; false when there is nothing.
func get(r store.Reader, key store.Key, v any) (bool, error) {
	b := r.Get(key)
	if b == nil {
		return false, nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("%w: %w", store.ErrRecord, err)
	}
	return true, nil
}

type domainRecord struct {
	Created time.Time `json:"created"`
}

// AddDomain makes a domain ours: its mail ends here. ErrExists.
func (d *Directory) AddDomain(name string) (Domain, error) {
	name, err := envelope.ParseDomain(name)
	if err != nil {
		return Domain{}, err
	}
	rec := domainRecord{d.now()}
	err = d.st.Update(func(tx store.Tx) error {
		if tx.Get(domainKey(name)) != nil {
			return fmt.Errorf("domain %s: %w", name, ErrExists)
		}
		put(tx, domainKey(name), rec)
		return nil
	})
	return Domain{Name: name, Created: rec.Created}, err
}

// RemoveDomain gives a domain up. ErrNotFound; ErrNotEmpty while it has accounts or aliases.
func (d *Directory) RemoveDomain(name string) error {
	name, err := envelope.ParseDomain(name)
	if err != nil {
		return err
	}
	return d.st.Update(func(tx store.Tx) error {
		if tx.Get(domainKey(name)) == nil {
			return fmt.Errorf("domain %s: %w", name, ErrNotFound)
		}
		if count(tx, "an", name)+count(tx, "al", name) > 0 {
			return fmt.Errorf("domain %s: %w", name, ErrNotEmpty)
		}
		tx.Delete(domainKey(name))
		return nil
	})
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
	var rec domainRecord
	if _, err := get(r, domainKey(dom.Name), &rec); err != nil {
		return fmt.Errorf("domain %s: %w", dom.Name, err)
	}
	dom.Created = rec.Created
	dom.Accounts, dom.Aliases = count(r, "an", dom.Name), count(r, "al", dom.Name)
	return nil
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

// Add makes an account. created, if not nil, runs in the same transaction: the
// mailboxes that every account has are made there. ErrExists, ErrNoDomain, ErrPassword.
func (d *Directory) Add(addr envelope.Address, password string, created func(store.Tx, Account) error) (Account, error) {
	addr = addr.Canonical()
	hash, err := hashPassword(password)
	if err != nil {
		return Account{}, err
	}
	rec := record{Local: addr.Local, Domain: addr.Domain, Hash: hash, Created: d.now()}
	a := rec.account(ID(d.st.NewID()))
	err = d.st.Update(func(tx store.Tx) error {
		if !isLocal(tx, addr.Domain) {
			return fmt.Errorf("%s: %w", addr.Domain, ErrNoDomain)
		}
		if tx.Get(nameKey(addr)) != nil || tx.Get(aliasKey(addr)) != nil {
			return fmt.Errorf("%s: %w", addr, ErrExists)
		}
		put(tx, accountKey(a.ID), rec)
		tx.Put(nameKey(addr), store.Key{}.Uint(uint64(a.ID)))
		if created != nil {
			return created(tx, a)
		}
		return nil
	})
	return a, err
}

// Remove deletes an account and its credentials; removed, if not nil, runs in the
// same transaction. Its mailboxes are the caller's to remove. ErrNotFound.
func (d *Directory) Remove(addr envelope.Address, removed func(store.Tx, Account) error) error {
	return d.change(addr, func(tx store.Tx, a Account, rec *record) error {
		tx.Delete(accountKey(a.ID))
		tx.Delete(nameKey(a.Address))
		*rec = record{}
		if removed != nil {
			return removed(tx, a)
		}
		return nil
	})
}

// change lets fn change an account's record in a transaction; a zero record is not stored.
func (d *Directory) change(addr envelope.Address, fn func(store.Tx, Account, *record) error) error {
	addr = addr.Canonical()
	return d.st.Update(func(tx store.Tx) error {
		a, rec, err := lookup(tx, addr)
		if err != nil {
			return err
		}
		if err := fn(tx, a, &rec); err != nil || rec == (record{}) {
			return err
		}
		put(tx, accountKey(a.ID), rec)
		return nil
	})
}

// lookup finds an account by its canonical address.
func lookup(r store.Reader, addr envelope.Address) (Account, record, error) {
	v := r.Get(nameKey(addr))
	if len(v) != 8 {
		return Account{}, record{}, fmt.Errorf("%s: %w", addr, ErrNotFound)
	}
	id, _ := store.TakeUint(v)
	return byID(r, ID(id))
}

func byID(r store.Reader, id ID) (Account, record, error) {
	var rec record
	ok, err := get(r, accountKey(id), &rec)
	if err == nil && !ok {
		err = ErrNotFound
	}
	if err != nil {
		return Account{}, record{}, fmt.Errorf("account %d: %w", id, err)
	}
	return rec.account(id), rec, nil
}

// SetPassword replaces the password. ErrNotFound, ErrPassword.
func (d *Directory) SetPassword(addr envelope.Address, password string) error {
	hash, err := hashPassword(password)
	if err != nil {
		return err
	}
	return d.change(addr, func(_ store.Tx, _ Account, rec *record) error {
		rec.Hash = hash
		return nil
	})
}

// SetDisabled says whether the account may log in and send. ErrNotFound.
func (d *Directory) SetDisabled(addr envelope.Address, disabled bool) error {
	return d.change(addr, func(_ store.Tx, _ Account, rec *record) error {
		rec.Disabled = disabled
		return nil
	})
}

// SetQuota sets the octets that the account's mailboxes may hold; 0 is no limit. ErrNotFound.
func (d *Directory) SetQuota(addr envelope.Address, octets int64) error {
	return d.change(addr, func(_ store.Tx, _ Account, rec *record) error {
		rec.Quota = max(octets, 0)
		return nil
	})
}

// Get returns an account by its own address. ErrNotFound.
func (d *Directory) Get(addr envelope.Address) (a Account, err error) {
	err = d.st.View(func(r store.Reader) error {
		a, _, err = lookup(r, addr.Canonical())
		return err
	})
	return a, err
}

// ByID returns an account. ErrNotFound.
func (d *Directory) ByID(id ID) (a Account, err error) {
	err = d.st.View(func(r store.Reader) error {
		a, _, err = byID(r, id)
		return err
	})
	return a, err
}

// Exists reports whether the account is there, within a transaction. A disabled one is.
func Exists(r store.Reader, id ID) bool { return r.Get(accountKey(id)) != nil }

// Quota returns the account's quota within a transaction: octets, or 0 for no limit.
func Quota(r store.Reader, id ID) int64 {
	a, _, err := byID(r, id)
	if err != nil {
		return 0
	}
	return a.Quota
}

// Accounts lists the accounts of a domain, or all when domain is empty, by address.
func (d *Directory) Accounts(domain string) (list []Account, err error) {
	from := store.NewKey("an")
	if domain != "" {
		from = inDomain("an", envelope.Address{Domain: domain}.Canonical().Domain)
	}
	err = d.st.View(func(r store.Reader) error {
		list = nil
		for _, v := range r.Scan(from, from.End()) {
			id, _ := store.TakeUint(v)
			a, _, err := byID(r, ID(id))
			if err != nil {
				return err
			}
			list = append(list, a)
		}
		return nil
	})
	return list, err
}
