package account

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// A Suppression is an address that an account's mail is not sent to, since its server has said that there is no such
// mailbox, or because an administrator wants it so.
//
//	ax  account id, domain, local part   a suppression
//	ay  account id                       how many there are, those that are over included
type Suppression struct {
	Address envelope.Address // canonical
	Since   time.Time
	Until   time.Time // zero is until it is removed
	Reply   string    // what the server said, or the administrator's reason
	By      string    // who ordered it; empty for the account's own mail
}

// Most suppressions of one account. Beyond it those that are over go, and the oldest: a tenth at a time.
const maxSuppressions = 10_000

func suppressionsOf(id ID) store.Key { return store.NewKey("ax").Uint(uint64(id)) }
func suppressionCount(id ID) store.Key {
	return store.NewKey("ay").Uint(uint64(id))
}

func suppressionKey(id ID, addr envelope.Address) store.Key {
	return suppressionsOf(id).Text(addr.Domain).Text(addr.Local)
}

func (s *Suppression) encode() []byte {
	var e store.Encoder
	e.Text(s.Address.Local)
	e.Text(s.Address.Domain)
	e.Time(s.Since)
	e.Time(s.Until)
	e.Text(s.Reply)
	e.Text(s.By)
	return e
}

func decodeSuppression(b []byte) (s Suppression, err error) {
	d := store.NewDecoder(b)
	s.Address = envelope.Address{Local: d.Text(), Domain: d.Text()}
	s.Since, s.Until = d.Time(), d.Time()
	s.Reply, s.By = d.Text(), d.Text()
	return s, d.Err()
}

// over reports whether the suppression has run out.
func (s *Suppression) over(now time.Time) bool { return !s.Until.IsZero() && !now.Before(s.Until) }

// IDOf returns the account of an address within a transaction; false when there is none.
func IDOf(r store.Reader, address string) (ID, bool) {
	addr, err := envelope.ParseAddress(address)
	if err != nil {
		return 0, false
	}
	v := r.Get(nameKey(addr.Canonical()))
	if len(v) != 8 {
		return 0, false
	}
	id, _ := store.TakeUint(v)
	return ID(id), true
}

// Suppress enters a suppression for an account, within a transaction. One of an administrator's is not replaced by
// what a server says.
func Suppress(tx store.Tx, id ID, s Suppression) {
	s.Address = s.Address.Canonical()
	key := suppressionKey(id, s.Address)
	old := tx.Get(key)
	if was, err := decodeSuppression(old); old != nil && err == nil && was.By != "" && s.By == "" && !was.over(s.Since) {
		return
	}
	tx.Put(key, s.encode())
	if old != nil {
		return
	}
	n := countSuppressions(tx, id) + 1
	if n > maxSuppressions {
		n -= makeRoom(tx, id, s.Since, maxSuppressions/10)
	}
	putCount(tx, id, n)
}

func countSuppressions(r store.Reader, id ID) int64 {
	v := r.Get(suppressionCount(id))
	if v == nil {
		return 0
	}
	return store.NewDecoder(v).Int()
}

func putCount(tx store.Tx, id ID, n int64) {
	if n <= 0 {
		tx.Delete(suppressionCount(id))
		return
	}
	var e store.Encoder
	e.Int(n)
	tx.Put(suppressionCount(id), e)
}

// makeRoom drops suppressions that are over, and of the others the oldest until most are gone. It returns how many.
func makeRoom(tx store.Tx, id ID, now time.Time, most int) int64 {
	type entry struct {
		key   store.Key
		since time.Time
	}
	var over, others []entry
	from := suppressionsOf(id)
	for k, v := range tx.Scan(from, from.End()) {
		s, err := decodeSuppression(v)
		e := entry{slices.Clone(store.Key(k)), s.Since}
		if err != nil || s.over(now) {
			over = append(over, e)
		} else {
			others = append(others, e)
		}
	}
	slices.SortFunc(others, func(a, b entry) int { return a.since.Compare(b.since) })
	gone := append(over, others[:min(max(most-len(over), 0), len(others))]...)
	for _, e := range gone {
		tx.Delete(e.key)
	}
	return int64(len(gone))
}

// Suppressed returns the suppression that keeps an account's mail from an address, within a transaction. A record that
// cannot be read keeps nothing back.
func Suppressed(r store.Reader, id ID, addr envelope.Address, now time.Time) (Suppression, bool) {
	v := r.Get(suppressionKey(id, addr.Canonical()))
	if v == nil {
		return Suppression{}, false
	}
	s, err := decodeSuppression(v)
	return s, err == nil && !s.over(now)
}

// Suppressions lists those of an account that hold, by domain and local part.
func (d *Directory) Suppressions(id ID) (list []Suppression, err error) {
	now := d.now()
	err = d.st.View(func(r store.Reader) error {
		list = nil
		from := suppressionsOf(id)
		for _, v := range r.Scan(from, from.End()) {
			s, err := decodeSuppression(v)
			if err != nil {
				return fmt.Errorf("a suppression of account %d: %w", id, err)
			}
			if !s.over(now) {
				list = append(list, s)
			}
		}
		return nil
	})
	return list, err
}

// AddSuppression enters a suppression for an account; its Since is now. ErrNotFound.
func (d *Directory) AddSuppression(id ID, s Suppression) (Suppression, error) {
	s.Address, s.Since = s.Address.Canonical(), d.now()
	err := d.st.Update(func(tx store.Tx) error {
		if !Exists(tx, id) {
			return ErrNotFound
		}
		Suppress(tx, id, s)
		return nil
	})
	return s, err
}

// ErrNotSuppressed means that an account's mail to an address is not kept back.
var ErrNotSuppressed = errors.New("is not on the account's suppression list")

// RemoveSuppression lets an account's mail go to an address again. ErrNotSuppressed.
func (d *Directory) RemoveSuppression(id ID, addr envelope.Address) error {
	addr = addr.Canonical()
	return d.st.Update(func(tx store.Tx) error {
		if _, ok := Suppressed(tx, id, addr, d.now()); !ok {
			return fmt.Errorf("%s %w", addr, ErrNotSuppressed)
		}
		tx.Delete(suppressionKey(id, addr))
		putCount(tx, id, countSuppressions(tx, id)-1)
		return nil
	})
}

// dropSuppressions forgets those of an account.
func dropSuppressions(tx store.Tx, id ID) {
	forget(tx, suppressionsOf(id), suppressionsOf(id).End(), maxSuppressions+1)
	tx.Delete(suppressionCount(id))
}
