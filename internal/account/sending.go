package account

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// Allowance is how much an account may send in a day, which begins at 00:00 UTC; 0 is no limit.
type Allowance struct {
	Messages   int64
	Recipients int64 // RCPT commands, one address in one message once
	New        int64 // of these, addresses in domains of others that the account has not written to before
}

// OwnAllowance is what of an Allowance was set for one account; what is nil is as it is configured for all.
type OwnAllowance struct{ Messages, Recipients, New *int64 }

// Over is what counts for the account where a is configured for all.
func (o OwnAllowance) Over(a Allowance) Allowance {
	set(&a.Messages, o.Messages)
	set(&a.Recipients, o.Recipients)
	set(&a.New, o.New)
	return a
}

// Switch is a setting that an account may have of its own.
type Switch string

// The settings of a switch.
const (
	AsConfigured Switch = ""
	On           Switch = "on"
	Off          Switch = "off"
)

// Or is what counts where something is configured for all.
func (s Switch) Or(configured bool) bool { return s == On || s == AsConfigured && configured }

// Configured in Settings takes back what was set for one account: what is configured for all counts again.
const Configured = -1

// A Spent is the error that an account has sent all that it may today.
type Spent struct {
	What string // that it has sent, with its number
	Ends time.Time
}

// Error says so to the account's owner.
func (e *Spent) Error() string {
	return fmt.Sprintf("your account has sent %s today; more of this is possible from %s UTC on", e.What, e.Ends.Format("2006-01-02 15:04"))
}

// Sent is what an account has sent in a day.
type Sent struct{ Messages, Recipients, New int64 }

// over says of what the account would have sent more than it may; nil for nothing.
func (a Allowance) over(s Sent, ends time.Time) error {
	for _, x := range []struct {
		sent, most int64
		what       string
	}{
		{s.Messages, a.Messages, "%d messages"},
		{s.Recipients, a.Recipients, "to %d recipients"},
		{s.New, a.New, "to %d recipients that it had not written to before"},
	} {
		if x.most > 0 && x.sent > x.most {
			return &Spent{fmt.Sprintf(x.what, x.most), ends}
		}
	}
	return nil
}

// tally is the record of what an account sends.
//
//	au  account id                      today's tally
//	ar  account id, generation, hash    an address that the account has written to
//
// A generation has 5,000 addresses, and two are kept: an address is remembered until the account has written to
// at least 5,000 others. Older ones go, a few with each new one.
type tally struct {
	Sent
	day   uint64 // since 1970
	known int64  // addresses that were ever entered in ar
}

const (
	generation = 5000
	forgetting = 16
)

func tallyKey(id ID) store.Key { return store.NewKey("au").Uint(uint64(id)) }
func knownTo(id ID) store.Key  { return store.NewKey("ar").Uint(uint64(id)) }
func knownKey(id ID, g int64, hash uint64) store.Key {
	return knownTo(id).Uint(uint64(g)).Uint(hash)
}

// dayOf is the day of a time, and when it ends.
func dayOf(at time.Time) (day uint64, ends time.Time) {
	start := at.UTC().Truncate(24 * time.Hour)
	return uint64(max(start.Unix(), 0) / 86_400), start.Add(24 * time.Hour)
}

// loadTally reads the tally of a day; a record of any other day counts for nothing.
func loadTally(r store.Reader, id ID, day uint64) (t tally, err error) {
	t.day = day
	v := r.Get(tallyKey(id))
	if v == nil {
		return t, nil
	}
	d := store.NewDecoder(v)
	was, sent := d.Uint(), Sent{d.Int(), d.Int(), d.Int()}
	t.known = d.Int()
	if d.Err() != nil {
		return t, fmt.Errorf("what account %d has sent: %w", id, store.ErrRecord)
	}
	if was == day {
		t.Sent = sent
	}
	return t, nil
}

func (t *tally) put(tx store.Tx, id ID) {
	var e store.Encoder
	e.Uint(t.day)
	for _, n := range []int64{t.Messages, t.Recipients, t.New, t.known} {
		e.Int(n)
	}
	tx.Put(tallyKey(id), e)
}

// knows reports whether the account has written to an address, and in the present generation.
func (t *tally) knows(r store.Reader, id ID, hash uint64) (known, lately bool) {
	g := t.known / generation
	if r.Get(knownKey(id, g, hash)) != nil {
		return true, true
	}
	return g > 0 && r.Get(knownKey(id, g-1, hash)) != nil, false
}

// remember enters an address, for the first time or as one that is still written to.
func (t *tally) remember(tx store.Tx, id ID, hash uint64) {
	g := t.known / generation
	tx.Put(knownKey(id, g, hash), []byte{})
	t.known++
	if g >= 2 {
		forget(tx, knownTo(id), knownTo(id).Uint(uint64(g-1)), forgetting)
	}
}

// forget drops the first keys of a range, at most so many.
func forget(tx store.Tx, from, to store.Key, most int) {
	var keys [][]byte
	for k := range tx.Scan(from, to) {
		if len(keys) == most {
			break
		}
		keys = append(keys, slices.Clone(k))
	}
	for _, k := range keys {
		tx.Delete(k)
	}
}

// A Sending is one message that an account sends, held against its allowance. Of a nil Sending nothing is counted.
// One goroutine's.
type Sending struct {
	d     *Directory
	id    ID
	may   Allowance
	rcpts []uint64 // hashes of the addresses
	away  []uint64 // of these, those in domains of others
	fresh int64    // of these, addresses that the account had not written to before
}

// Sending begins a message of an account, where configured is what all may send; nil when the account has no limit.
// The error is a *Spent when it may send none any more today.
func (d *Directory) Sending(a Account, configured Allowance) (*Sending, error) {
	may := a.Daily.Over(configured)
	if may == (Allowance{}) {
		return nil, nil
	}
	s := &Sending{d: d, id: a.ID, may: may}
	return s, s.ask(func(store.Reader, *tally) {})
}

// To adds a recipient. The error is a *Spent when the account may not write to it today; other messages may be under
// way, so Count has the last word.
func (s *Sending) To(addr envelope.Address) error {
	if s == nil {
		return nil
	}
	hash := addressHash(addr)
	if slices.Contains(s.rcpts, hash) {
		return nil
	}
	fresh, away := s.fresh, false
	err := s.ask(func(r store.Reader, t *tally) {
		fresh, away = s.fresh, !isOurs(r, addr)
		if known, _ := t.knows(r, s.id, hash); away && !known && s.may.New > 0 {
			fresh++
		}
		t.Recipients += int64(len(s.rcpts)) + 1
		t.New += fresh
	})
	if err != nil {
		return err
	}
	s.rcpts, s.fresh = append(s.rcpts, hash), fresh
	if away {
		s.away = append(s.away, hash)
	}
	return nil
}

// isOurs reports whether an address is in a domain of ours, or in none, which is ours too.
func isOurs(r store.Reader, addr envelope.Address) bool {
	domain := addr.Canonical().Domain
	return domain == "" || r.Get(domainKey(domain)) != nil
}

// ask holds one more message, with what add says of it, against what the account has sent today.
func (s *Sending) ask(add func(store.Reader, *tally)) error {
	return s.d.st.View(func(r store.Reader) error {
		day, ends := dayOf(s.d.now())
		t, err := loadTally(r, s.id, day)
		if err != nil {
			return err
		}
		t.Messages++
		add(r, &t)
		return s.may.over(t.Sent, ends)
	})
}

// Count counts the message, in the transaction that accepts it. The error is a *Spent, and then it must not be
// accepted: that the account sends no more than it may does not depend on how many connections it has.
func (s *Sending) Count(tx store.Tx) error {
	if s == nil || !Exists(tx, s.id) {
		return nil
	}
	day, ends := dayOf(s.d.now())
	t, err := loadTally(tx, s.id, day)
	if err != nil {
		return err
	}
	t.Messages++
	t.Recipients += int64(len(s.rcpts))
	if s.may.New > 0 {
		s.meet(tx, &t)
	}
	t.put(tx, s.id)
	return s.may.over(t.Sent, ends)
}

// meet enters the recipients elsewhere into those that the account knows.
func (s *Sending) meet(tx store.Tx, t *tally) {
	for _, hash := range s.away {
		known, lately := t.knows(tx, s.id, hash)
		if !known {
			t.New++
		}
		if !lately {
			t.remember(tx, s.id, hash)
		}
	}
}

// addressHash stands for an address: what is kept of whom an account writes to says no more than it must.
func addressHash(addr envelope.Address) uint64 {
	sum := sha256.Sum256([]byte(addr.Canonical().String()))
	return binary.BigEndian.Uint64(sum[:8])
}

// SentToday is what an account has sent since 00:00 UTC, as far as its allowance had a limit.
func (d *Directory) SentToday(id ID) (sent Sent, err error) {
	err = d.st.View(func(r store.Reader) error {
		day, _ := dayOf(d.now())
		t, err := loadTally(r, id, day)
		sent = t.Sent
		return err
	})
	return sent, err
}

// reached reports whether one of the limits leaves nothing today.
func (a Allowance) reached(s Sent) bool {
	at := func(sent, most int64) bool { return most > 0 && sent >= most }
	return at(s.Messages, a.Messages) || at(s.Recipients, a.Recipients) || at(s.New, a.New)
}

// SpentToday lists accounts that have reached a daily limit, where configured is what all may send; at most so many.
func (d *Directory) SpentToday(configured Allowance, most int) (list []envelope.Address, err error) {
	day, _ := dayOf(d.now())
	err = d.st.View(func(r store.Reader) error {
		list = nil
		for k := range r.Scan(store.NewKey("au"), store.NewKey("au").End()) {
			id, _ := store.TakeUint(k[2:])
			t, err := loadTally(r, ID(id), day)
			if err != nil || t.Sent == (Sent{}) {
				continue // who sends meets the error
			}
			a, _, err := byID(r, ID(id))
			if err == nil && a.Daily.Over(configured).reached(t.Sent) {
				if list = append(list, a.Address); len(list) == most {
					break
				}
			}
		}
		return nil
	})
	return list, err
}

// dropTally forgets what an account has sent, and to whom.
func dropTally(tx store.Tx, id ID) {
	tx.Delete(tallyKey(id))
	forget(tx, knownTo(id), knownTo(id).End(), 3*generation)
}
