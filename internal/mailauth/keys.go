package mailauth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"postroad/internal/dns"
	"postroad/internal/envelope"
	"postroad/internal/store"
)

// Errors that callers branch on.
var (
	ErrKeyExists   = errors.New("there is such a key already")
	ErrKeyNotFound = errors.New("there is no such key")
	ErrRotating    = errors.New("new keys wait for their records already")
	ErrKey         = errors.New("not a private key that can sign")
	ErrSelector    = errors.New("not a selector")
)

// KeyState is where a key is in its life.
type KeyState string

// The states of a key, in their order.
const (
	Waiting KeyState = "waiting" // made, and not seen in the DNS yet: it signs nothing
	Active  KeyState = "active"  // it signs
	Old     KeyState = "old"     // it signs no more; what it signed is still on its way, so its record must stay
	Retired KeyState = "retired" // its private half is destroyed; its record may be removed, and then it is forgotten
)

// Key is what may be known of a key.
type Key struct {
	Domain    string // in A-labels
	Selector  string
	Algorithm Algorithm
	Bits      int
	State     KeyState
	Made      time.Time
	Since     time.Time // when it came to its state
	Until     time.Time // of an old one: when it is retired
	Checked   time.Time // when its record was last looked for
	Finding   string    // what was wrong then; empty for nothing
	Public    []byte    // as p= has it
}

// Name is the name of the key's record in the DNS.
func (k *Key) Name() string { return k.Selector + "._domainkey." + k.Domain }

// Record is the text of the key's record in the DNS (RFC 6376, 3.6.1).
func (k *Key) Record() string {
	kind, _, _ := strings.Cut(string(k.Algorithm), "-")
	return "v=DKIM1; k=" + kind + "; p=" + base64.StdEncoding.EncodeToString(k.Public)
}

// Zone is the key's record as a line of a zone file. A string of a record has at most 255 octets (RFC 1035, 3.3.14).
func (k *Key) Zone() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. IN TXT (", k.Name())
	for text := k.Record(); text != ""; {
		n := min(len(text), 255)
		fmt.Fprintf(&b, " %q", text[:n])
		text = text[n:]
	}
	return b.String() + " )"
}

// row is a key as it is stored:
//
//	dk  domain, selector    row, in JSON
type row struct {
	Key
	Private []byte // PKCS #8; empty once it is retired
}

func rowKey(domain, selector string) store.Key { return store.NewKey("dk").Text(domain).Text(selector) }

// KeysConfig is what OpenKeys needs. Store and Resolver must be set.
type KeysConfig struct {
	Store    *store.Store
	Resolver dns.Resolver
	// Keep is how long an old key's record must stay: longer than what it signed can be on its way. 0 is 10 days.
	Keep time.Duration
	Now  func() time.Time
	Log  *slog.Logger // nil discards
}

// Keys are the DKIM keys of one store. Any number of goroutines.
type Keys struct {
	// Set by OpenKeys, never changed.
	cfg  KeysConfig
	wake chan struct{} // capacity 1: there are other keys than Run knows

	mu      sync.Mutex // guards all below
	signing map[string][]*SigningKey
	changes int // of signing, so that what was read before a change is not remembered after it
}

// OpenKeys returns the keys in a store. It starts nothing.
func OpenKeys(c KeysConfig) *Keys {
	if c.Keep == 0 {
		c.Keep = lifetime + 3*24*time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Keys{cfg: c, wake: make(chan struct{}, 1), signing: map[string][]*SigningKey{}}
}

// Signing returns the keys that sign for a domain, RSA first: its own, or those of the next domain above it that has some
// and of which says that it is ours.
func (k *Keys) Signing(domain string, ours func(domain string) (bool, error)) ([]*SigningKey, error) {
	for name := domain; strings.Contains(name, "."); _, name, _ = strings.Cut(name, ".") {
		keys, err := k.of(name)
		if err != nil {
			return nil, err
		}
		if len(keys) == 0 {
			continue
		}
		if ok, err := ours(name); ok || err != nil {
			return keys, err
		}
	}
	return nil, nil
}

// of returns the keys that sign for exactly this domain.
func (k *Keys) of(domain string) ([]*SigningKey, error) {
	k.mu.Lock()
	keys, ok := k.signing[domain]
	changes := k.changes
	k.mu.Unlock()
	if ok {
		return keys, nil
	}
	rows, err := k.rows(domain)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.State == Active {
			signer, err := parsePrivate(r.Private)
			if err != nil {
				return nil, fmt.Errorf("key %s of %s: %w", r.Selector, r.Domain, err)
			}
			keys = append(keys, &SigningKey{r.Domain, r.Selector, r.Algorithm, signer})
		}
	}
	slices.SortStableFunc(keys, func(a, b *SigningKey) int { return strings.Compare(string(b.Algorithm), string(a.Algorithm)) })
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.signing) >= maxRemembered {
		clear(k.signing)
	}
	if k.changes == changes {
		k.signing[domain] = keys
	}
	return keys, nil
}

// maxRemembered bounds the domains of which it is remembered what signs for them: authors of what lists send are in any.
const maxRemembered = 10_000

// changed forgets what was read.
func (k *Keys) changed() {
	select {
	case k.wake <- struct{}{}:
	default: // Run will look anyway
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	clear(k.signing)
}

// rows reads the keys of a domain; of all domains when it is empty.
func (k *Keys) rows(domain string) (rows []row, err error) {
	from := store.NewKey("dk")
	if domain != "" {
		from = from.Text(domain)
	}
	err = k.cfg.Store.View(func(r store.Reader) error {
		rows, err = readRows(r, from)
		return err
	})
	return rows, err
}

func readRows(r store.Reader, from store.Key) (rows []row, err error) {
	for _, v := range r.Scan(from, from.End()) {
		var one row
		if err := json.Unmarshal(v, &one); err != nil {
			return nil, fmt.Errorf("DKIM keys: %w", store.ErrRecord)
		}
		rows = append(rows, one)
	}
	return rows, nil
}

func putRow(tx store.Tx, r *row) {
	v, err := json.Marshal(r)
	if err != nil {
		panic(err) // it has no value that JSON lacks
	}
	tx.Put(rowKey(r.Domain, r.Selector), v)
}

// List returns the keys of a domain, of all domains when it is empty, by domain and selector.
func (k *Keys) List(domain string) ([]Key, error) {
	rows, err := k.rows(domain)
	list := make([]Key, len(rows))
	for i := range rows {
		list[i] = rows[i].Key
	}
	return list, err
}

// Add makes keys for a domain that wait for their records. selector is empty for one with the date; with several
// algorithms each has an own one, as a name in the DNS has one record. ErrKeyExists, ErrSelector.
func (k *Keys) Add(domain, selector string, algorithms ...Algorithm) ([]Key, error) {
	names, err := k.selectors(domain, selector, algorithms)
	if err != nil {
		return nil, err
	}
	var rows []row
	for i, a := range algorithms {
		signer, err := generate(a)
		if err != nil {
			return nil, err
		}
		r, err := k.newRow(domain, names[i], signer)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return k.insert(rows)
}

// Import takes a private key in PEM (PKCS #1 or #8) that another program made. ErrKey, ErrKeyExists, ErrSelector.
func (k *Keys) Import(domain, selector string, text []byte) (Key, error) {
	signer, err := parsePEM(text)
	if err != nil {
		return Key{}, err
	}
	if err := checkSelector(selector, domain); err != nil {
		return Key{}, err
	}
	r, err := k.newRow(domain, selector, signer)
	if err != nil {
		return Key{}, err
	}
	list, err := k.insert([]row{r})
	if err != nil {
		return Key{}, err
	}
	return list[0], nil
}

// insert stores new keys, all or none.
func (k *Keys) insert(rows []row) (list []Key, err error) {
	defer k.changed()
	err = k.cfg.Store.Update(func(tx store.Tx) error {
		list = nil
		for i := range rows {
			r := &rows[i]
			if tx.Get(rowKey(r.Domain, r.Selector)) != nil {
				return fmt.Errorf("%s of %s: %w", r.Selector, r.Domain, ErrKeyExists)
			}
			putRow(tx, r)
			list = append(list, r.Key)
		}
		return nil
	})
	return list, err
}

// Rotate makes a new key for each algorithm that signs for a domain. Each takes the old one's place once the DNS has it.
// ErrKeyNotFound when none signs, ErrRotating.
func (k *Keys) Rotate(domain string) ([]Key, error) {
	rows, err := k.rows(domain)
	if err != nil {
		return nil, err
	}
	var algorithms []Algorithm
	for _, r := range rows {
		switch {
		case r.State == Waiting:
			return nil, fmt.Errorf("%s: %w", domain, ErrRotating)
		case r.State == Active && !slices.Contains(algorithms, r.Algorithm):
			algorithms = append(algorithms, r.Algorithm)
		}
	}
	if len(algorithms) == 0 {
		return nil, fmt.Errorf("%s: %w", domain, ErrKeyNotFound)
	}
	return k.Add(domain, "", algorithms...)
}

// Remove drops keys of a domain at once: one, or all when selector is empty. ErrKeyNotFound.
func (k *Keys) Remove(domain, selector string) error {
	defer k.changed()
	return k.cfg.Store.Update(func(tx store.Tx) error {
		from := store.NewKey("dk").Text(domain)
		rows, err := readRows(tx, from)
		if err != nil {
			return err
		}
		found := false
		for _, r := range rows {
			if selector == "" || r.Selector == selector {
				tx.Delete(rowKey(r.Domain, r.Selector))
				found = true
			}
		}
		if !found {
			return fmt.Errorf("%s of %s: %w", selector, domain, ErrKeyNotFound)
		}
		return nil
	})
}

// selectors chooses a selector for each algorithm.
func (k *Keys) selectors(domain, selector string, algorithms []Algorithm) (names []string, err error) {
	base := selector
	if base == "" {
		base = k.cfg.Now().UTC().Format("20060102")
	}
	if err := checkSelector(base, domain); err != nil {
		return nil, err
	}
	for attempt := byte('a'); ; attempt++ {
		names = nil
		for _, a := range algorithms {
			name := base
			if selector == "" || len(algorithms) > 1 {
				name += "-" + map[Algorithm]string{RSA: "rsa", Ed25519: "ed"}[a]
			}
			if err := checkSelector(name, domain); err != nil {
				return nil, err
			}
			names = append(names, name)
		}
		taken, err := k.taken(domain, names)
		if err != nil || !taken || selector != "" || attempt == 'z' {
			return names, err
		}
		base = k.cfg.Now().UTC().Format("20060102") + string(attempt+1)
	}
}

func (k *Keys) taken(domain string, names []string) (bool, error) {
	rows, err := k.rows(domain)
	return slices.ContainsFunc(rows, func(r row) bool { return slices.Contains(names, r.Selector) }), err
}

func checkSelector(s, domain string) error {
	name := s + "._domainkey." + domain
	if parsed, err := envelope.ParseDomain(name); s == "" || err != nil || parsed != name {
		return fmt.Errorf("%q is %w: letters, digits and hyphens", envelope.Sanitize(s, 80), ErrSelector)
	}
	return nil
}

func (k *Keys) newRow(domain, selector string, signer crypto.Signer) (row, error) {
	r := row{Key: Key{Domain: domain, Selector: selector, State: Waiting, Made: k.cfg.Now(), Since: k.cfg.Now()}}
	var err error
	switch public := signer.Public().(type) {
	case *rsa.PublicKey:
		r.Algorithm, r.Bits = RSA, public.N.BitLen()
		r.Public, err = x509.MarshalPKIXPublicKey(public)
	case ed25519.PublicKey:
		r.Algorithm, r.Bits, r.Public = Ed25519, 8*len(public), public
	}
	if err == nil {
		r.Private, err = x509.MarshalPKCS8PrivateKey(signer)
	}
	return r, err
}

// bits is the size of RSA keys that are made (RFC 8301, 3.2).
const bits = 2048

func generate(a Algorithm) (crypto.Signer, error) {
	if a == Ed25519 {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return rsa.GenerateKey(rand.Reader, bits)
}

func parsePrivate(der []byte) (crypto.Signer, error) {
	if any, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		switch key := any.(type) {
		case *rsa.PrivateKey:
			return key, nil
		case ed25519.PrivateKey:
			return key, nil
		}
	}
	return nil, ErrKey
}

// parsePEM reads a private key. What it says of a failure has nothing of the text in it.
func parsePEM(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%w: it has no PEM block", ErrKey)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("%w: something follows the first PEM block", ErrKey)
	}
	signer, err := parsePrivate(block.Bytes)
	if err != nil {
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: it must be RSA or Ed25519, and not encrypted", ErrKey)
		}
		signer = key
	}
	if key, ok := signer.(*rsa.PrivateKey); ok && (key.N.BitLen() < minRSA || key.N.BitLen() > maxRSA) {
		return nil, fmt.Errorf("%w: it has %d bits; %d to %d can sign, %d should", ErrKey, key.N.BitLen(), minRSA, maxRSA, bits)
	}
	return signer, nil
}

// Activate lets waiting keys of a domain sign: one, or all when selector is empty. Unless forced, the DNS must have their
// records; what it has is in what is returned. ErrKeyNotFound.
func (k *Keys) Activate(ctx context.Context, domain, selector string, force bool) ([]Key, error) {
	rows, err := k.rows(domain)
	if err != nil {
		return nil, err
	}
	var list []Key
	for _, r := range rows {
		if r.State != Waiting || selector != "" && r.Selector != selector {
			continue
		}
		seen := sight{found: true}
		if !force {
			seen = k.look(k.anew(ctx), &r.Key)
		}
		now, err := k.note(r.Key, seen)
		if err != nil {
			return nil, err
		}
		list = append(list, now)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: %w that waits", domain, ErrKeyNotFound)
	}
	return list, nil
}
