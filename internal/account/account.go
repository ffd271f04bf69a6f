// Package account knows who is local: domains, accounts and aliases, and whose
// password is right. Passwords are kept as argon2id hashes, and as what SCRAM needs; one
// that was verified is remembered for minutes, in memory, as a keyed hash.
//
//	ad  domain               a domain whose mail ends here, or an alias of one
//	aa  account id           an account, as JSON
//	an  domain, local part   the account's id
//	al  domain, local part   an alias, as JSON; an empty local part is the catch-all
//	af  account id           where the account forwards its mail, as JSON
//	ag  domain, local part, account id    the account may send as the address; an empty local part is the domain
//	li  domain, local part   a list, as JSON
//	lm  domain, local part, then the member's    a member of a list, as it was given
//	ap  account id, number   an app password, as JSON
//	au  account id           what the account has sent today
//	ar  account id, generation, hash      an address that the account has written to
//	ax  account id, domain, local part    an address that the account's mail is not sent to
//	ay  account id           how many of these there are
//	as                       the secret from which salts of unknown users are made
//	ak  address, network     until when the account knows a network that logged in to it
//
// Domains and local parts are in canonical form (envelope.Address.Canonical).
package account

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// Errors that callers branch on.
var (
	ErrNotFound    = errors.New("there is no such account, alias or domain")
	ErrExists      = errors.New("it exists already")
	ErrNoDomain    = errors.New("the domain is not one of ours")
	ErrNotEmpty    = errors.New("the domain still has accounts, aliases or lists")
	ErrCredentials = errors.New("wrong address or password")
	ErrBusy        = errors.New("too many logins at once; try again later")
	ErrUnknown     = errors.New("no such address here")
	ErrLoop        = errors.New("the aliases lead too deep or back to themselves")
	ErrDomainAlias = errors.New("is an alias")
	ErrPost        = errors.New("the sender may not write to the list")
	ErrTargets     = errors.New("it leads to too many addresses")
	ErrPassword    = errors.New("a password has 1 to 1024 octets")
	ErrSetting     = errors.New("the setting cannot be made")
)

// ID names an account for ever; it is never used again.
type ID uint64

// Account is a person or program that has mailboxes and may log in.
type Account struct {
	ID       ID
	Address  envelope.Address // canonical
	Disabled bool             // may not log in; mail is still accepted for it
	Created  time.Time
	Quota    Quota
	Admin    bool     // may set quotas over IMAP
	AppOnly  bool     // its own password opens nothing; app passwords do
	Hidden   []string // IMAP capabilities that its clients are not told of, in upper case and order
	SaveSent Switch   // whether what it sends is copied into its Sent mailbox
	Daily    OwnAllowance

	revision uint64 // counts the changes that end its sessions
}

// Quota is what an account's mailboxes may hold; 0 is no limit.
type Quota struct{ Octets, Messages int64 }

// Alias sends mail for one address, or for a domain's unknown ones, elsewhere.
type Alias struct {
	Address envelope.Address   // canonical; Local is empty for a catch-all
	Targets []envelope.Address // local or remote
}

// Target is where mail for an address goes: a local account, a list, or elsewhere.
type Target struct {
	Account ID               // 0 when remote or a list
	Address envelope.Address // the account's or list's address, or the remote one
	Mailbox string           // the detail of a subaddress, when mail for it goes to the mailbox of that name
	List    bool             // a list of ours: delivery expands it
	Via     envelope.Address // of a remote one, our address whose account or alias forwards to it; zero when nothing of ours does
	Return  bool             // a remote one is the sender of what we have forwarded: nothing but reports may go there
}

// Domain is a domain whose mail ends here.
type Domain struct {
	Name     string
	Created  time.Time
	Accounts int
	Aliases  int
	Lists    int
	Alias    string // the domain that this one is another name of; it has no accounts, aliases and lists of its own
}

// Directory answers and changes who is local. Any number of goroutines.
type Directory struct {
	st       *store.Store
	now      func() time.Time
	sub      Subaddress
	verifier *verifier
	ends     watchers
	// Set before use, never changed.
	sha1       bool // keys for SCRAM-SHA-1 are kept
	back       Reverser
	iterations int // of SCRAM, for new accounts
}

// Open returns the directory kept in st. now is the clock; nil is time.Now. Subaddresses are not taken apart.
func Open(st *store.Store, now func() time.Time) *Directory {
	return OpenWith(st, now, Subaddress{})
}

// OpenWith is Open with subaddresses.
func OpenWith(st *store.Store, now func() time.Time, sub Subaddress) *Directory {
	if now == nil {
		now = time.Now
	}
	return &Directory{st: st, now: now, sub: sub, verifier: newVerifier(now), iterations: scramIterations}
}

// KeepSHA1 has SCRAM-SHA-1 offered, and what it needs stored of passwords from then on. It is called before the
// directory is used.
func (d *Directory) KeepSHA1() { d.sha1 = true }

// Reverser reads addresses that lead back to the senders of what we have forwarded.
type Reverser interface {
	// Reverse returns the sender; false when the address is none that leads back. An address that leads back no more, or
	// was made by others, is an error that wraps ErrUnknown.
	Reverse(r store.Reader, addr envelope.Address) (envelope.Address, bool, error)
}

// LeadBack has addresses that lead back resolved. It is called before the directory is used.
func (d *Directory) LeadBack(r Reverser) { d.back = r }

// record is an account as it is stored.
type record struct {
	Local  string `json:"local"`
	Domain string `json:"domain"`
	Hash   string `json:"hash"`
	derivation
	Keys     keyring   `json:"keys"`
	AppOnly  bool      `json:"app_only,omitempty"`
	Disabled bool      `json:"disabled,omitempty"`
	Created  time.Time `json:"created"`
	Octets   int64     `json:"octets,omitempty"`
	Messages int64     `json:"messages,omitempty"`
	Admin    bool      `json:"admin,omitempty"`
	Hidden   []string  `json:"hidden,omitempty"`
	Revision uint64    `json:"revision,omitempty"` // raised by each change that ends sessions
	SaveSent Switch    `json:"save_sent,omitempty"`
	Daily    struct {
		Messages   *int64 `json:"messages,omitempty"`
		Recipients *int64 `json:"recipients,omitempty"`
		New        *int64 `json:"new,omitempty"`
	} `json:"daily,omitzero"`
}

func (r *record) account(id ID) Account {
	return Account{
		ID: id, Address: envelope.Address{Local: r.Local, Domain: r.Domain},
		Disabled: r.Disabled, Created: r.Created, Quota: Quota{r.Octets, r.Messages},
		Admin: r.Admin, AppOnly: r.AppOnly, Hidden: r.Hidden, SaveSent: r.SaveSent, Daily: OwnAllowance(r.Daily),
		revision: r.Revision,
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

// Add makes an account. created, if not nil, runs in the same transaction: the
// mailboxes that every account has are made there. ErrExists, ErrNoDomain, ErrPassword.
func (d *Directory) Add(addr envelope.Address, password string, created func(store.Tx, Account) error) (Account, error) {
	addr = addr.Canonical()
	hash, err := hashPassword(password)
	if err != nil {
		return Account{}, err
	}
	rec := record{Local: addr.Local, Domain: addr.Domain, Hash: hash, derivation: d.newDerivation(), Created: d.now()}
	rec.Keys = rec.keyring(d.sha1, password)
	a := rec.account(ID(d.st.NewID()))
	err = d.st.Update(func(tx store.Tx) error {
		if err := isOwn(tx, addr.Domain); err != nil {
			return err
		}
		if isTaken(tx, addr) {
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
	addr = addr.Canonical()
	var a Account
	err := d.st.Update(func(tx store.Tx) (err error) {
		if a, _, err = lookup(tx, addr); err != nil {
			return err
		}
		tx.Delete(accountKey(a.ID))
		tx.Delete(nameKey(a.Address))
		tx.Delete(forwardKey(a.ID))
		dropDelegations(tx, func(_ envelope.Address, id ID) bool { return id == a.ID })
		removeLogins(tx, a)
		dropTally(tx, a.ID)
		dropSuppressions(tx, a.ID)
		if removed != nil {
			return removed(tx, a)
		}
		return nil
	})
	if err == nil {
		d.ends.tell(a.ID)
	}
	return err
}

// change lets fn change an account's record in a transaction, and returns whose it is. Sessions end when fn raises the
// revision.
func (d *Directory) change(addr envelope.Address, fn func(*record)) (a Account, err error) {
	addr = addr.Canonical()
	ended := false
	err = d.st.Update(func(tx store.Tx) error {
		var rec record
		if a, rec, err = lookup(tx, addr); err != nil {
			return err
		}
		fn(&rec)
		ended = rec.Revision != a.revision
		a = rec.account(a.ID)
		put(tx, accountKey(a.ID), rec)
		return nil
	})
	if err == nil && ended {
		d.ends.tell(a.ID)
	}
	return a, err
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
	_, rec, err := d.record(addr)
	if err != nil {
		return err
	}
	keys := rec.keyring(d.sha1, password)
	_, err = d.change(addr, func(rec *record) {
		rec.Hash, rec.Keys = hash, keys
		rec.Revision++
	})
	return err
}

// SetDisabled says whether the account may log in and send. ErrNotFound.
func (d *Directory) SetDisabled(addr envelope.Address, disabled bool) error {
	_, err := d.change(addr, func(rec *record) {
		if rec.Disabled = disabled; disabled {
			rec.Revision++
		}
	})
	return err
}

// Settings are what an administrator may change of an account; what is nil stays.
type Settings struct {
	Octets, Messages *int64 // Quota
	Admin            *bool
	AppOnly          *bool    // setting it ends the sessions
	Hide, Show       []string // added to Hidden, and taken from it, in any case
	SaveSent         *Switch
	Daily            OwnAllowance // Configured takes a limit of its own back
}

// Set changes an account's settings and returns it as it then is. ErrNotFound, ErrSetting.
func (d *Directory) Set(addr envelope.Address, s Settings) (Account, error) {
	if err := s.check(); err != nil {
		return Account{}, err
	}
	return d.change(addr, func(rec *record) {
		set(&rec.Octets, s.Octets)
		set(&rec.Messages, s.Messages)
		set(&rec.Admin, s.Admin)
		set(&rec.AppOnly, s.AppOnly)
		rec.Hidden = without(union(rec.Hidden, s.Hide), s.Show)
		if s.AppOnly != nil && *s.AppOnly {
			rec.Revision++
		}
		set(&rec.SaveSent, s.SaveSent)
		setOwn(&rec.Daily.Messages, s.Daily.Messages)
		setOwn(&rec.Daily.Recipients, s.Daily.Recipients)
		setOwn(&rec.Daily.New, s.Daily.New)
	})
}

// SetQuota is Set for the quota alone, of an account by its ID. ErrNotFound, ErrSetting.
func (d *Directory) SetQuota(id ID, q Quota) error {
	a, err := d.ByID(id)
	if err != nil {
		return err
	}
	_, err = d.Set(a.Address, Settings{Octets: &q.Octets, Messages: &q.Messages})
	return err
}

func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// setOwn is set for what may be the account's own.
func setOwn(to **int64, v *int64) {
	switch {
	case v == nil:
	case *v == Configured:
		*to = nil
	default:
		*to = v
	}
}

// maxHidden bounds the capabilities that an account hides, and maxCapability each name.
const (
	maxHidden     = 100
	maxCapability = 64
)

func (s Settings) check() error {
	for _, n := range []*int64{s.Octets, s.Messages} {
		if n != nil && *n < 0 {
			return fmt.Errorf("%w: a quota cannot be negative", ErrSetting)
		}
	}
	for _, n := range []*int64{s.Daily.Messages, s.Daily.Recipients, s.Daily.New} {
		if n != nil && *n < Configured {
			return fmt.Errorf("%w: a daily limit cannot be negative", ErrSetting)
		}
	}
	if s.SaveSent != nil && !slices.Contains([]Switch{AsConfigured, On, Off}, *s.SaveSent) {
		return fmt.Errorf("%w: %q is neither on nor off", ErrSetting, *s.SaveSent)
	}
	if len(s.Hide) > maxHidden {
		return fmt.Errorf("%w: at most %d capabilities can be hidden", ErrSetting, maxHidden)
	}
	for _, name := range append(s.Hide[:len(s.Hide):len(s.Hide)], s.Show...) {
		if !isCapability(name) {
			return fmt.Errorf("%w: %q is not the name of a capability", ErrSetting, name)
		}
	}
	return nil
}

// isCapability reports whether a name has the form of a capability (RFC 9051, 9).
func isCapability(name string) bool {
	return name != "" && len(name) <= maxCapability && strings.IndexFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`(){%*"\]`, r)
	}) < 0
}

// union and without return sorted sets of names in upper case; they are nil when empty.
func union(a, b []string) (all []string) {
	for _, name := range slices.Concat(a, b) {
		all = append(all, strings.ToUpper(name))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func without(a, b []string) (rest []string) {
	for _, name := range a {
		if !slices.ContainsFunc(b, func(x string) bool { return strings.EqualFold(x, name) }) {
			rest = append(rest, name)
		}
	}
	return rest
}

// Get returns an account by its own address. ErrNotFound.
func (d *Directory) Get(addr envelope.Address) (Account, error) {
	a, _, err := d.record(addr)
	return a, err
}

func (d *Directory) record(addr envelope.Address) (a Account, rec record, err error) {
	err = d.st.View(func(r store.Reader) error {
		a, rec, err = lookup(r, addr.Canonical())
		return err
	})
	return a, rec, err
}

// removeLogins drops what only a login needs.
func removeLogins(tx store.Tx, a Account) {
	var keys [][]byte
	for _, from := range []store.Key{appsKey(a.ID), handsKey(a.Address.String())} {
		for k := range tx.Scan(from, from.End()) {
			keys = append(keys, slices.Clone(k))
		}
	}
	for _, k := range keys {
		tx.Delete(k)
	}
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

// QuotaOf returns the account's quota within a transaction.
func QuotaOf(r store.Reader, id ID) Quota {
	b := r.Get(accountKey(id))
	if !bytes.Contains(b, []byte(`"octets"`)) && !bytes.Contains(b, []byte(`"messages"`)) {
		return Quota{} // as most: it is asked for each recipient, and to read a whole record takes as long as all else
	}
	a, _, err := byID(r, id)
	if err != nil {
		return Quota{}
	}
	return a.Quota
}

// IsAdmin reports within a transaction whether the account is an administrator's.
func IsAdmin(r store.Reader, id ID) bool {
	a, _, err := byID(r, id)
	return err == nil && a.Admin && !a.Disabled
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
