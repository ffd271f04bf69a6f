// Package srs lets mail that we forward leave under an address of ours from which reports find their way back to the sender
// (Sender Rewriting Scheme, as Mail::SRS and libsrs2 have it). Without it the next hop sees our host send mail of a foreign
// domain, which that domain's SPF record does not allow.
//
//	SRS0=hash=day=domain=local@ours     is local@domain
//	SRS1=hash=host==...@ours            is SRS0=...@host, an address that another forwarder made
//
// What is promised: such an address leads back to where it came from for 21 days, and nobody can make one but who has a
// key of ours: a way back is no way to send mail to anywhere. Upper and lower case are the same, as they do not survive
// everywhere. An address is valid for RFC 5321: what would not fit in 64 octets is kept here, and its address names it.
//
//	sr           the keys, in JSON
//	sl  token    an address that does not fit, and the day on which it was last used, in JSON
package srs

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// Errors of addresses that are none of ours any more, or never were.
var (
	ErrForged  = errors.New("this way back was not made here")
	ErrExpired = errors.New("this way back is too old")
)

const (
	day       = 24 * time.Hour
	valid     = 21      // days
	renew     = 180     // days, until another key takes a key's place
	epoch     = 1 << 10 // days, after which the written day begins again
	hashSize  = 6       // characters, of 5 bits each
	tokenSize = 16
	aside     = "~"
)

// letters is the alphabet of RFC 4648, 6, in which libraries write the day too.
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

var alphabet = base32.StdEncoding.WithPadding(base32.NoPadding)

// Rewriter makes such addresses and reads them. Any number of goroutines.
type Rewriter struct {
	st  *store.Store // set by Open, never changed
	now func() time.Time

	mu   sync.Mutex // guards keys
	keys []key      // newest first, as they are stored; nil until they were read
}

// key is what addresses are made with.
type key struct {
	Made   time.Time `json:"made"`
	Secret []byte    `json:"secret"`
}

// Open returns the Rewriter of a store. now is the clock; nil is time.Now.
func Open(st *store.Store, now func() time.Time) *Rewriter {
	if now == nil {
		now = time.Now
	}
	return &Rewriter{st: st, now: now}
}

// Forward returns the address in a domain of ours that leads back to from. The null reverse-path stays what it is.
func (r *Rewriter) Forward(from envelope.Address, domain string) (envelope.Address, error) {
	if from.IsZero() {
		return from, nil
	}
	k, err := r.current()
	if err != nil {
		return envelope.Address{}, err
	}
	from, _ = from.ASCII()
	a := r.address(k, from.Domain, from.Local, domain)
	if rest, ok := parse(from.Local); ok {
		a = again(k, from, rest, domain)
	}
	if fits(a) {
		return a, nil
	}
	token, err := r.keep(k, from)
	if err != nil {
		return envelope.Address{}, err
	}
	return r.address(k, aside, token, domain), nil
}

func fits(a envelope.Address) bool {
	_, err := envelope.ParseAddress(a.String())
	return err == nil
}

// address is SRS0.
func (r *Rewriter) address(k key, host, local, domain string) envelope.Address {
	text := days(r.now()) + "=" + host + "=" + local
	return envelope.Address{Local: "SRS0=" + k.hash("SRS0", text) + "=" + text, Domain: domain}
}

// again is SRS1: whoever made the SRS0 is asked to lead back, without those between.
func again(k key, from envelope.Address, rest, domain string) envelope.Address {
	text := from.Domain + "=" + from.Local[len("SRS0"):]
	if isAgain(from.Local) {
		if _, inner, ok := strings.Cut(rest, "="); ok {
			text = inner
		}
	}
	return envelope.Address{Local: "SRS1=" + k.hash("SRS1", text) + "=" + text, Domain: domain}
}

// parse reports whether a local part is written as SRS0 or SRS1, and what follows the separator.
func parse(local string) (rest string, ok bool) {
	if len(local) < 6 || !strings.EqualFold(local[:3], "SRS") || local[3] != '0' && local[3] != '1' || !strings.Contains("=+-", local[4:5]) {
		return "", false
	}
	return local[5:], true
}

func isAgain(local string) bool { return local[3] == '1' }

// days writes a day as two characters.
func days(t time.Time) string {
	n := number(t)
	return string([]byte{letters[n>>5], letters[n&31]})
}

func number(t time.Time) int { return int(t.Unix()/int64(day/time.Second)) % epoch }

// age reads how many days ago a day was.
func age(text string, now time.Time) (int, bool) {
	if len(text) != 2 {
		return 0, false
	}
	text = strings.ToUpper(text)
	high, low := strings.IndexByte(letters, text[0]), strings.IndexByte(letters, text[1])
	if high < 0 || low < 0 {
		return 0, false
	}
	return (number(now) - high<<5 - low + epoch) % epoch, true
}

func (k key) mac(text string) string {
	m := hmac.New(sha256.New, k.Secret)
	m.Write([]byte(strings.ToLower(text)))
	return alphabet.EncodeToString(m.Sum(nil))
}

// hash is over all that follows it. kind is SRS0 or SRS1: an address of one kind is none of the other.
func (k key) hash(kind, text string) string { return k.mac(kind + "=" + text)[:hashSize] }

// Reverse returns the address that one of ours leads back to; false when it is no such address at all. ErrForged,
// ErrExpired; other errors are the store's.
func (r *Rewriter) Reverse(rd store.Reader, a envelope.Address) (back envelope.Address, ok bool, err error) {
	rest, ok := parse(a.Local)
	if !ok {
		return back, false, nil
	}
	hash, text, _ := strings.Cut(rest, "=")
	if err := r.check(rd, a.Local[:4], hash, text); err != nil {
		return back, true, err
	}
	if isAgain(a.Local) {
		back, err = before(text)
	} else {
		back, err = r.original(rd, text)
	}
	return back, true, err
}

// check says whether we have made it.
func (r *Rewriter) check(rd store.Reader, kind, hash, text string) error {
	keys, err := read(rd)
	if err != nil {
		return err
	}
	hash = strings.ToUpper(hash)
	for _, k := range keys {
		if subtle.ConstantTimeCompare([]byte(hash), []byte(k.hash(kind, text))) == 1 {
			return nil
		}
	}
	return ErrForged
}

// before reads what follows the hash of an SRS1.
func before(text string) (envelope.Address, error) {
	host, rest, _ := strings.Cut(text, "=")
	return whole("SRS0"+rest, host)
}

// original reads what follows the hash of an SRS0.
func (r *Rewriter) original(rd store.Reader, text string) (envelope.Address, error) {
	parts := strings.SplitN(text, "=", 3)
	if len(parts) != 3 {
		return envelope.Address{}, ErrForged
	}
	switch days, ok := age(parts[0], r.now()); {
	case !ok:
		return envelope.Address{}, ErrForged
	case days > valid:
		return envelope.Address{}, ErrExpired
	case parts[1] == aside:
		return kept(rd, parts[2])
	}
	return whole(parts[2], parts[1])
}

// whole puts an address together that came apart.
func whole(local, domain string) (envelope.Address, error) {
	a, err := envelope.ParseAddress(envelope.Address{Local: local, Domain: domain}.String())
	if err != nil {
		return a, ErrForged
	}
	return a, nil
}

// current returns the key that addresses are made with. The first is made when it is needed.
func (r *Rewriter) current() (key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil {
		err := r.st.View(func(rd store.Reader) (err error) {
			r.keys, err = read(rd)
			return err
		})
		if err != nil {
			return key{}, err
		}
	}
	if len(r.keys) == 0 || r.now().Sub(r.keys[0].Made) > renew*day {
		if err := r.rotate(); err != nil {
			return key{}, err
		}
	}
	return r.keys[0], nil
}

// rotate puts a new key before those that are still needed. mu must be held.
func (r *Rewriter) rotate() error {
	fresh := key{Made: r.now(), Secret: make([]byte, 32)}
	rand.Read(fresh.Secret)
	keys := []key{fresh}
	if len(r.keys) > 0 {
		keys = append(keys, r.keys[0]) // what was made with the one before it is older than renew
	}
	err := r.st.Update(func(tx store.Tx) error {
		put(tx, store.NewKey("sr"), keys)
		return nil
	})
	if err != nil {
		return fmt.Errorf("keys of forwarded senders: %w", err)
	}
	r.keys = keys
	return nil
}

func read(rd store.Reader) (keys []key, err error) {
	v := rd.Get(store.NewKey("sr"))
	if v == nil {
		return nil, nil
	}
	if json.Unmarshal(v, &keys) != nil {
		return nil, fmt.Errorf("keys of forwarded senders: %w", store.ErrRecord)
	}
	return keys, nil
}

func put(tx store.Tx, k store.Key, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // what is stored here has no value that JSON lacks
	}
	tx.Put(k, b)
}

// long is an address that is kept.
type long struct {
	Address string    `json:"address"`
	Used    time.Time `json:"used"`
}

func longKey(token string) store.Key { return store.NewKey("sl").Text(strings.ToUpper(token)) }

// keep remembers an address and returns by what it is found again.
func (r *Rewriter) keep(k key, a envelope.Address) (token string, err error) {
	token = k.mac(a.String())[:tokenSize]
	fresh := false
	err = r.st.View(func(rd store.Reader) error {
		l, ok, err := longAt(rd, token)
		fresh = ok && r.now().Sub(l.Used) < day
		return err
	})
	if err != nil || fresh {
		return token, err
	}
	return token, r.st.Update(func(tx store.Tx) error {
		put(tx, longKey(token), long{a.String(), r.now()})
		return nil
	})
}

func longAt(rd store.Reader, token string) (l long, ok bool, err error) {
	v := rd.Get(longKey(token))
	if v == nil {
		return l, false, nil
	}
	if json.Unmarshal(v, &l) != nil {
		return l, false, fmt.Errorf("a forwarded sender: %w", store.ErrRecord)
	}
	return l, true, nil
}

func kept(rd store.Reader, token string) (envelope.Address, error) {
	l, ok, err := longAt(rd, token)
	switch {
	case err != nil:
		return envelope.Address{}, err
	case !ok:
		return envelope.Address{}, ErrExpired
	}
	return envelope.ParseAddress(l.Address)
}

// prunePage bounds what one transaction drops.
const prunePage = 1000

// Prune drops kept addresses that no way back leads to any more.
func (r *Rewriter) Prune() error {
	for {
		var old []store.Key
		err := r.st.View(func(rd store.Reader) error {
			old = nil
			for k, v := range rd.Scan(store.NewKey("sl"), store.NewKey("sl").End()) {
				var l long
				if json.Unmarshal(v, &l) == nil && r.now().Sub(l.Used) > (valid+2)*day {
					old = append(old, append(store.Key(nil), k...))
				}
				if len(old) == prunePage {
					break
				}
			}
			return nil
		})
		if err != nil || len(old) == 0 {
			return err
		}
		err = r.st.Update(func(tx store.Tx) error {
			for _, k := range old {
				tx.Delete(k)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}
