package account

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postroad/internal/envelope"
	"postroad/internal/sasl"
	"postroad/internal/store"
)

// The protocols that a client logs in for, and that an app password may be limited to.
const (
	SMTP = "smtp"
	IMAP = "imap"
)

// Errors of app passwords.
var (
	ErrNoAppPassword = errors.New("there is no such app password")
	ErrAppPassword   = errors.New("the app password cannot be made")
)

// AppPassword is one more password of an account, for one program or device. It is generated here, with 125 bits that
// nobody guesses, and works for some protocols only.
type AppPassword struct {
	Name      string   // unique in the account
	Protocols []string // sorted; not empty
	Created   time.Time
	Expires   time.Time // from when on nobody logs in by it, and its sessions end; zero is never
	Used      Use       // the last login by it; zero is none
}

// Use is a login. It is known to the minute.
type Use struct {
	At       time.Time  `json:"at"`
	From     netip.Addr `json:"from"` // invalid is this machine
	Protocol string     `json:"protocol"`
}

const (
	maxAppPasswords = 25 // of an account
	maxAppName      = 64 // characters
	appLength       = 25 // letters and digits: 125 bits
	appGroup        = 5
	waysToWrite     = 2 // with the separators, and without: what a SCRAM client may have derived its key from
	useRemembered   = time.Minute
)

// appRecord is an app password as it is stored, under ap, account, its number. The hash is a fast one: slow hashes are
// for what people think up.
type appRecord struct {
	Name      string    `json:"name"`
	Hash      []byte    `json:"hash"`
	Keys      keyring   `json:"keys"`
	Protocols []string  `json:"protocols"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires,omitzero"`
	Used      Use       `json:"used,omitzero"`
}

// opens says why the app password does not open the account that it is of; nil when it does. The error is
// ErrCredentials, with a reason for the log.
func (r *appRecord) opens(a Account, protocol string, now time.Time) error {
	why := ""
	switch {
	case a.Disabled:
		why = "is right, but the account is disabled"
	case !r.Expires.IsZero() && !now.Before(r.Expires):
		why = "expired at " + r.Expires.UTC().Format(time.RFC3339)
	case !slices.Contains(r.Protocols, protocol):
		why = "is not for " + protocol
	default:
		return nil
	}
	return fmt.Errorf("%w: app password %q %s", ErrCredentials, r.Name, why)
}

func (r *appRecord) shown() AppPassword {
	return AppPassword{Name: r.Name, Protocols: r.Protocols, Created: r.Created, Expires: r.Expires, Used: r.Used}
}

func appsKey(id ID) store.Key               { return store.NewKey("ap").Uint(uint64(id)) }
func appKey(id ID, number uint64) store.Key { return appsKey(id).Uint(number) }

// app is an app password with its number.
type app struct {
	number uint64
	appRecord
}

// appsOf reads an account's app passwords, oldest first.
func appsOf(r store.Reader, id ID) (list []app, err error) {
	from := appsKey(id)
	for k := range r.Scan(from, from.End()) {
		number, _ := store.TakeUint(k[len(from):])
		list = append(list, app{number: number})
	}
	for i := range list {
		if _, err := get(r, appKey(id, list[i].number), &list[i].appRecord); err != nil {
			return nil, fmt.Errorf("app passwords of account %d: %w", id, err)
		}
	}
	return list, nil
}

// newAppPassword returns one as it is shown: five groups of five.
func newAppPassword() string {
	return grouped(strings.ToLower(rand.Text())[:appLength])
}

func grouped(bare string) string {
	var groups []string
	for g := range slices.Chunk([]byte(bare), appGroup) {
		groups = append(groups, string(g))
	}
	return strings.Join(groups, "-")
}

// bareApp is an app password without what separates its groups, in whatever case it was typed; false when this cannot
// be one.
func bareApp(password string) (string, bool) {
	if len(password) > maxPassword {
		return "", false
	}
	bare := strings.Map(func(r rune) rune {
		if r == '-' || unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, password)
	letters := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '2' && r <= '7' }
	return bare, len(bare) == appLength && strings.IndexFunc(bare, func(r rune) bool { return !letters(r) }) < 0
}

// appHash is what is stored of an app password.
func appHash(salt []byte, bare string) []byte {
	h := hmac.New(sha256.New, salt)
	h.Write([]byte(bare))
	return h.Sum(nil)
}

// AddAppPassword gives an account one more password and returns it as it is to be typed: it is not kept, and cannot be
// shown again. Of p it takes Name, Protocols and Expires. ErrNotFound, ErrExists, ErrAppPassword.
func (d *Directory) AddAppPassword(addr envelope.Address, p AppPassword) (AppPassword, string, error) {
	protocols := slices.Compact(slices.Sorted(slices.Values(p.Protocols)))
	rec := appRecord{Name: p.Name, Protocols: protocols, Created: d.now(), Expires: p.Expires}
	if err := rec.check(); err != nil {
		return AppPassword{}, "", err
	}
	_, owner, err := d.record(addr)
	if err != nil {
		return AppPassword{}, "", err
	}
	text := newAppPassword()
	bare, _ := bareApp(text)
	rec.Hash, rec.Keys = appHash(owner.Salt, bare), owner.keyring(d.sha1, text, bare)
	err = d.st.Update(func(tx store.Tx) error {
		a, _, err := lookup(tx, addr.Canonical())
		if err != nil {
			return err
		}
		return d.putApp(tx, a, rec)
	})
	if err != nil {
		return AppPassword{}, "", err
	}
	return rec.shown(), text, nil
}

func (r *appRecord) check() error {
	printable := r.Name != "" && utf8.ValidString(r.Name) && strings.TrimSpace(r.Name) == r.Name &&
		strings.IndexFunc(r.Name, func(c rune) bool { return !unicode.IsPrint(c) }) < 0
	switch {
	case !printable || utf8.RuneCountInString(r.Name) > maxAppName:
		return fmt.Errorf("%w: its name has 1 to %d printable characters", ErrAppPassword, maxAppName)
	case len(r.Protocols) == 0:
		return fmt.Errorf("%w: it is for no protocol; there are %s and %s", ErrAppPassword, SMTP, IMAP)
	case !r.Expires.IsZero() && !r.Expires.After(r.Created):
		return fmt.Errorf("%w: it would have expired already", ErrAppPassword)
	}
	for _, p := range r.Protocols {
		if p != SMTP && p != IMAP {
			return fmt.Errorf("%w: %q is not a protocol to log in for; there are %s and %s", ErrAppPassword, p, SMTP, IMAP)
		}
	}
	return nil
}

func (d *Directory) putApp(tx store.Tx, a Account, rec appRecord) error {
	list, err := appsOf(tx, a.ID)
	switch {
	case err != nil:
		return err
	case slices.ContainsFunc(list, func(x app) bool { return x.Name == rec.Name }):
		return fmt.Errorf("app password %q of %s: %w", rec.Name, a.Address, ErrExists)
	case len(list) >= maxAppPasswords:
		return fmt.Errorf("%w: %s has %d of them; revoke one first", ErrAppPassword, a.Address, len(list))
	}
	put(tx, appKey(a.ID, uint64(d.st.NewID())), rec)
	return nil
}

// AppPasswords lists an account's app passwords, oldest first; expired ones too. ErrNotFound.
func (d *Directory) AppPasswords(addr envelope.Address) (list []AppPassword, err error) {
	err = d.st.View(func(r store.Reader) error {
		a, _, err := lookup(r, addr.Canonical())
		if err != nil {
			return err
		}
		apps, err := appsOf(r, a.ID)
		list = nil
		for _, x := range apps {
			list = append(list, x.shown())
		}
		return err
	})
	return list, err
}

// RevokeAppPassword takes an app password back, and ends the account's sessions: the programs that have another
// password come back by themselves. ErrNotFound, ErrNoAppPassword.
func (d *Directory) RevokeAppPassword(addr envelope.Address, name string) error {
	var a Account
	err := d.st.Update(func(tx store.Tx) (err error) {
		var rec record
		if a, rec, err = lookup(tx, addr.Canonical()); err != nil {
			return err
		}
		list, err := appsOf(tx, a.ID)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(x app) bool { return x.Name == name })
		if i < 0 {
			return fmt.Errorf("%q of %s: %w", name, a.Address, ErrNoAppPassword)
		}
		tx.Delete(appKey(a.ID, list[i].number))
		rec.Revision++
		put(tx, accountKey(a.ID), rec)
		return nil
	})
	if err == nil {
		d.ends.tell(a.ID)
	}
	return err
}

// holder is who a name stands for, with all that lets him in; the zero value is nobody.
type holder struct {
	Account
	record record
	apps   []app
}

// holder finds whom user names.
func (d *Directory) holder(user string) (*holder, error) {
	addr, err := envelope.ParseAddress(sasl.Prepare(user))
	if err != nil {
		return &holder{}, nil
	}
	var w holder
	err = d.st.View(func(r store.Reader) (err error) {
		w = holder{}
		if w.Account, w.record, err = lookup(r, addr.Canonical()); err == nil {
			w.apps, err = appsOf(r, w.ID)
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return &holder{}, nil
	}
	return &w, err
}

// ownPassword reports whether the account's own password may open it.
func (w *holder) ownPassword() bool { return w.ID != 0 && !w.Disabled && !w.AppOnly }

// app returns the app password that this is, whether it opens anything now or not; nil when it is none. All are compared.
func (w *holder) app(password string) (found *app) {
	bare, ok := bareApp(sasl.Prepare(password))
	if !ok {
		return nil
	}
	hash := appHash(w.record.Salt, bare)
	for i := range w.apps {
		if a := &w.apps[i]; subtle.ConstantTimeCompare(a.Hash, hash) == 1 {
			found = a
		}
	}
	return found
}

// keys are those of all passwords that a SCRAM client may prove to know. That one opens something now is asked after that.
func (w *holder) keys(sha1 bool) (list []sasl.Keys) {
	if w.ownPassword() {
		list = append(list, w.record.Keys.of(sha1)...)
	}
	for _, a := range w.apps {
		list = append(list, a.Keys.of(sha1)...)
	}
	return list
}

// appWith returns the app password that proven keys are of; else nil.
func (w *holder) appWith(k *sasl.Keys, sha1 bool) *app {
	for i := range w.apps {
		if a := &w.apps[i]; hold(a.Keys.of(sha1), k) {
			return a
		}
	}
	return nil
}

func hold(list []sasl.Keys, k *sasl.Keys) bool {
	return k != nil && slices.ContainsFunc(list, func(x sasl.Keys) bool { return subtle.ConstantTimeCompare(x.Stored, k.Stored) == 1 })
}

// noteUse stores the login by an app password, unless one within the last minute is known, and the keys that are missing
// of a password that the client has shown; else that is empty. The login does not depend on it.
func (d *Directory) noteUse(owner *holder, used *app, c Client, password string) {
	now := d.now()
	recent := func(r *appRecord) bool { return now.Sub(r.Used.At) < useRemembered }
	missing := password != "" && used.Keys.lacks(d.sha1)
	if recent(&used.appRecord) && !missing {
		return
	}
	var keys keyring
	if missing {
		bare, _ := bareApp(sasl.Prepare(password))
		keys = owner.record.keyring(d.sha1, grouped(bare), bare)
	}
	_ = d.st.Update(func(tx store.Tx) error {
		var rec appRecord
		key := appKey(owner.ID, used.number)
		if ok, err := get(tx, key, &rec); err != nil || !ok {
			return err
		}
		if !recent(&rec) {
			rec.Used = Use{now, c.From, c.Protocol}
		}
		if missing {
			rec.Keys = keys
		}
		put(tx, key, rec)
		return nil
	})
}
