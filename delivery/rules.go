package delivery

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"postroad/internal/store"
	"postroad/spool"
)

// Rules are what an administrator has ordered for mail to come: destinations that are suspended, and rules by which new
// mail is put on hold. What Suspend, Resume, AddHold and RemoveHold have done is durable when they return. A nil Rules has
// none. Any number of goroutines.
//
//	rs  destination   a suspension
//	rh  number        a rule to hold
//	rn                the last number that a rule had
type Rules struct {
	// Set by OpenRules, never changed.
	st  *store.Store
	now func() time.Time

	changing  sync.Mutex // held from reading what follows to replacing it; what it points to is never changed
	suspended atomic.Pointer[map[string]Suspension]
	holds     atomic.Pointer[[]HoldRule]
}

// Suspension stops all attempts at a destination until it is resumed. Its mail waits, and is neither returned nor reported
// as late meanwhile.
type Suspension struct {
	Destination string // a recipients' domain, in A-labels, or the name of a route
	Since       time.Time
	Reason      string
	By          string // who ordered it
}

// HoldRule puts recipients of new messages on hold, all of whose fields that are not empty match.
type HoldRule struct {
	Number    uint64 // never used again
	Sender    string // an address, "@domain", or "<>"
	Recipient string // an address or "@domain"
	Account   string // who sends it, by address
	Reason    string
	Since     time.Time
	By        string // who made it
}

// What is wrong with an order.
var (
	ErrSuspended    = errors.New("is not suspended")
	ErrNoHoldRule   = errors.New("there is no such rule")
	ErrTooManyRules = errors.New("there are too many; remove some first")
	ErrRuleReason   = errors.New("the reason is longer than 200 octets, or not plain text")
	ErrEmptyRule    = errors.New("it would hold all mail; say which")
)

// Bounds of all rules of a kind, and of each one's reason.
const (
	maxRules  = 1000
	maxReason = 200
)

func suspensionKey(destination string) store.Key { return store.NewKey("rs").Text(destination) }
func holdKey(number uint64) store.Key            { return store.NewKey("rh").Uint(number) }

// OpenRules reads the rules that the store has. now is the clock; nil is time.Now.
func OpenRules(st *store.Store, now func() time.Time) (*Rules, error) {
	if now == nil {
		now = time.Now
	}
	r := &Rules{st: st, now: now}
	suspended, holds := map[string]Suspension{}, []HoldRule{}
	err := st.View(func(tx store.Reader) error {
		for _, v := range tx.Scan(store.NewKey("rs"), store.NewKey("rs").End()) {
			s, err := decodeSuspension(v)
			if err != nil {
				return fmt.Errorf("a suspended destination: %w", err)
			}
			suspended[s.Destination] = s
		}
		for k, v := range tx.Scan(store.NewKey("rh"), store.NewKey("rh").End()) {
			h, err := decodeHold(v)
			if err != nil || len(k) != 10 {
				return fmt.Errorf("a rule to hold: %w", cmp.Or(err, store.ErrRecord))
			}
			h.Number, _ = store.TakeUint(k[2:])
			holds = append(holds, h)
		}
		return nil
	})
	r.suspended.Store(&suspended)
	r.holds.Store(&holds)
	return r, err
}

func (s *Suspension) encode() []byte {
	var e store.Encoder
	e.Text(s.Destination)
	e.Time(s.Since)
	e.Text(s.Reason)
	e.Text(s.By)
	return e
}

func decodeSuspension(b []byte) (Suspension, error) {
	d := store.NewDecoder(b)
	s := Suspension{Destination: d.Text(), Since: d.Time(), Reason: d.Text(), By: d.Text()}
	return s, d.Err()
}

func (h *HoldRule) encode() []byte {
	var e store.Encoder
	for _, text := range []string{h.Sender, h.Recipient, h.Account, h.Reason, h.By} {
		e.Text(text)
	}
	e.Time(h.Since)
	return e
}

func decodeHold(b []byte) (HoldRule, error) {
	d := store.NewDecoder(b)
	h := HoldRule{Sender: d.Text(), Recipient: d.Text(), Account: d.Text(), Reason: d.Text(), By: d.Text(), Since: d.Time()}
	return h, d.Err()
}

func checkReason(reason string) error {
	if len(reason) > maxReason || !utf8.ValidString(reason) || strings.ContainsFunc(reason, notPrint) {
		return ErrRuleReason
	}
	return nil
}

func notPrint(r rune) bool { return !unicode.IsPrint(r) }

// Suspended returns the suspension of a destination, if it is.
func (r *Rules) Suspended(destination string) (Suspension, bool) {
	if r == nil {
		return Suspension{}, false
	}
	s, ok := (*r.suspended.Load())[destination]
	return s, ok
}

// Suspensions lists the destinations that are suspended, by name.
func (r *Rules) Suspensions() []Suspension {
	if r == nil {
		return nil
	}
	var list []Suspension
	for _, s := range *r.suspended.Load() {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Suspension) int { return cmp.Compare(a.Destination, b.Destination) })
	return list
}

// Suspend suspends a destination; one that is suspended stays so since then, for the new reason. ErrTooManyRules,
// ErrRuleReason.
func (r *Rules) Suspend(destination, reason, by string) (Suspension, error) {
	if err := checkReason(reason); err != nil {
		return Suspension{}, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	old := *r.suspended.Load()
	s := Suspension{Destination: destination, Since: r.now(), Reason: reason, By: by}
	if was, ok := old[destination]; ok {
		s.Since = was.Since
	} else if len(old) >= maxRules {
		return Suspension{}, ErrTooManyRules
	}
	return s, r.replaceSuspended(suspensionKey(destination), func(all map[string]Suspension) []byte {
		all[destination] = s
		return s.encode()
	})
}

// Resume ends a suspension. ErrSuspended.
func (r *Rules) Resume(destination string) (Suspension, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	s, ok := (*r.suspended.Load())[destination]
	if !ok {
		return s, fmt.Errorf("%s %w", destination, ErrSuspended)
	}
	return s, r.replaceSuspended(suspensionKey(destination), func(all map[string]Suspension) []byte {
		delete(all, destination)
		return nil
	})
}

// replaceSuspended changes a copy, writes the record that change returns, and puts the copy in place. changing must be held.
func (r *Rules) replaceSuspended(key store.Key, change func(map[string]Suspension) []byte) error {
	all := map[string]Suspension{}
	for k, v := range *r.suspended.Load() {
		all[k] = v
	}
	if err := r.write(key, change(all)); err != nil {
		return err
	}
	r.suspended.Store(&all)
	return nil
}

// write stores a record, or deletes it when it is nil.
func (r *Rules) write(key store.Key, record []byte) error {
	return r.st.Update(func(tx store.Tx) error {
		if record == nil {
			tx.Delete(key)
		} else {
			tx.Put(key, record)
		}
		return nil
	})
}

// Holds lists the rules to hold, oldest first.
func (r *Rules) Holds() []HoldRule {
	if r == nil {
		return nil
	}
	return slices.Clone(*r.holds.Load())
}

// AddHold makes a rule; its Number and Since are set. ErrEmptyRule, ErrTooManyRules, ErrRuleReason.
func (r *Rules) AddHold(h HoldRule) (HoldRule, error) {
	if h.Sender == "" && h.Recipient == "" && h.Account == "" {
		return h, ErrEmptyRule
	}
	if err := checkReason(h.Reason); err != nil {
		return h, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	old := *r.holds.Load()
	if len(old) >= maxRules {
		return h, ErrTooManyRules
	}
	h.Since = r.now()
	err := r.st.Update(func(tx store.Tx) error {
		last := store.NewKey("rn")
		h.Number = 1
		if v := tx.Get(last); v != nil {
			h.Number = store.NewDecoder(v).Uint() + 1
		}
		var e store.Encoder
		e.Uint(h.Number)
		tx.Put(last, e)
		tx.Put(holdKey(h.Number), h.encode())
		return nil
	})
	if err == nil {
		all := append(slices.Clone(old), h)
		r.holds.Store(&all)
	}
	return h, err
}

// RemoveHold removes a rule; what it holds stays on hold. ErrNoHoldRule.
func (r *Rules) RemoveHold(number uint64) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	old := *r.holds.Load()
	i := slices.IndexFunc(old, func(h HoldRule) bool { return h.Number == number })
	if i < 0 {
		return fmt.Errorf("%d: %w", number, ErrNoHoldRule)
	}
	if err := r.write(holdKey(number), nil); err != nil {
		return err
	}
	all := slices.Delete(slices.Clone(old), i, i+1)
	r.holds.Store(&all)
	return nil
}

// Hold says why a recipient of a new message is to be put on hold; empty when it is not. It is spool.Spool's to ask.
func (r *Rules) Hold(m *spool.Message, rcpt *spool.Recipient) string {
	if r == nil {
		return ""
	}
	for _, h := range *r.holds.Load() {
		if h.matches(m, rcpt) {
			return h.words()
		}
	}
	return ""
}

func (h *HoldRule) matches(m *spool.Message, rcpt *spool.Recipient) bool {
	return spool.Matches(h.Sender, m.Envelope.From) && spool.Matches(h.Recipient, rcpt.To) &&
		(h.Account == "" || strings.EqualFold(h.Account, m.Origin.Account))
}

// words is the reason of a hold by this rule.
func (h *HoldRule) words() string {
	if h.Reason == "" {
		return fmt.Sprintf("hold rule %d", h.Number)
	}
	return fmt.Sprintf("hold rule %d: %s", h.Number, h.Reason)
}
