package spool

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
)

// Filter chooses recipients. Zero fields choose all.
type Filter struct {
	ID          store.ID
	Sender      string // an address, "<>" for the null reverse-path, or "@domain"
	Recipient   string // an address, or "@domain"
	Domain      string // of the recipient
	State       string // active, deferred, hold
	Account     string // who has sent it, by address
	OlderThan   time.Duration
	YoungerThan time.Duration

	// Choose chooses among those that all else has chosen; nil chooses all of them. It is called within a transaction.
	Choose func(*Message, *Recipient) bool
}

func (f *Filter) message(m *Message, now time.Time) bool {
	age := now.Sub(m.Arrived)
	return (f.ID == 0 || f.ID == m.ID) &&
		(f.OlderThan == 0 || age > f.OlderThan) &&
		(f.YoungerThan == 0 || age < f.YoungerThan) &&
		(f.Account == "" || strings.EqualFold(f.Account, m.Origin.Account)) &&
		Matches(f.Sender, m.Envelope.From)
}

func (f *Filter) recipient(r *Recipient) bool {
	return (f.State == "" || f.State == r.State.String()) &&
		(f.Domain == "" || strings.EqualFold(f.Domain, r.To.Domain)) &&
		Matches(f.Recipient, r.To)
}

// Matches compares an address with a pattern: an address, "@domain", "<>" for none, or nothing, which matches all.
func Matches(pattern string, a envelope.Address) bool {
	switch {
	case pattern == "":
		return true
	case pattern == "<>":
		return a.IsZero()
	case strings.HasPrefix(pattern, "@"):
		return strings.EqualFold(pattern[1:], a.Domain)
	}
	return strings.EqualFold(pattern, a.String())
}

// Entry is a message with those of its recipients that a filter chose.
type Entry struct {
	Message    Message
	Recipients []Recipient
}

// page bounds the recipients that one transaction reads or changes.
const page = 1000

// List returns the entries that f chooses, in order of arrival, those after the
// message after, at most max.
func (s *Spool) List(ctx context.Context, f Filter, after store.ID, max int) ([]Entry, error) {
	var list []Entry
	err := s.each(ctx, f, after, func(e Entry) bool {
		list = append(list, e)
		return len(list) < max
	})
	return list, err
}

// each calls fn with what f chooses until fn returns false.
func (s *Spool) each(ctx context.Context, f Filter, after store.ID, fn func(Entry) bool) error {
	return s.eachPage(ctx, f, after, func(entries []Entry) (bool, error) {
		for _, e := range entries {
			if !fn(e) {
				return false, nil
			}
		}
		return true, nil
	})
}

// eachPage calls fn with what f chooses, about a page at a time, until it returns
// false or an error. No transaction is open while fn runs.
func (s *Spool) eachPage(ctx context.Context, f Filter, after store.ID, fn func([]Entry) (bool, error)) error {
	for more := true; more && ctx.Err() == nil; {
		var entries []Entry
		var last store.ID
		err := s.st.View(func(r store.Reader) error {
			entries, last, more = s.readPage(r, f, after)
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the queue: %w", err)
		}
		after = last
		if ok, err := fn(entries); err != nil || !ok {
			return err
		}
	}
	return ctx.Err()
}

// readPage reads on after a message, up to about a page of recipients. What cannot
// be read is passed over; Check names it.
func (s *Spool) readPage(r store.Reader, f Filter, after store.ID) (entries []Entry, last store.ID, more bool) {
	from := messageKey(after + 1)
	if f.ID != 0 {
		from = messageKey(max(f.ID, after+1))
	}
	seen := 0
	last = after
	now := s.now()
	for k, v := range r.Scan(from, store.NewKey("qm").End()) {
		id, _ := store.TakeUint(k[2:])
		if f.ID != 0 && store.ID(id) != f.ID {
			break
		}
		if seen >= page {
			return entries, last, true
		}
		last = store.ID(id)
		seen++
		m, err := decodeMessage(last, v)
		if err != nil || !f.message(m, now) {
			continue
		}
		e := Entry{Message: *m}
		for rcpt := range recipients(r, last) {
			seen++
			if f.recipient(&rcpt) && (f.Choose == nil || f.Choose(m, &rcpt)) {
				e.Recipients = append(e.Recipients, rcpt)
			}
		}
		if len(e.Recipients) > 0 {
			entries = append(entries, e)
		}
	}
	return entries, last, false
}

// recipients yields a message's recipients that can be read.
func recipients(r store.Reader, id store.ID) iter.Seq[Recipient] {
	return func(yield func(Recipient) bool) {
		from := recipientsOf(id)
		for k, v := range r.Scan(from, from.End()) {
			n, _ := store.TakeUint(k[10:])
			rcpt, err := decodeRecipient(int(n), v)
			if err == nil && !yield(rcpt) {
				return
			}
		}
	}
}

// Get returns one message with its recipients, or ErrNotFound.
func (s *Spool) Get(id store.ID) (Entry, error) {
	list, err := s.List(context.Background(), Filter{ID: id}, 0, 1)
	if err != nil {
		return Entry{}, err
	}
	if id == 0 || len(list) == 0 {
		return Entry{}, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	return list[0], nil
}

// Retry makes the chosen recipients due now, and returns how many. A held one stays
// held. So does one whose message waits for its release time: its sender was promised
// that, and "retry all" after an outage is not meant to break it.
func (s *Spool) Retry(ctx context.Context, f Filter, by string) (int, error) {
	return s.changeAll(ctx, f, order(trace.Retried, by), func(tx store.Tx, m *Message, r Recipient) bool {
		state, next := m.turn(s.now())
		if r.State == Hold || state == Deferred {
			return false
		}
		s.put(tx, m, r, func(r *Recipient) { r.State, r.Next = state, next })
		return true
	})
}

// Hold stops the chosen recipients until Resume, for a reason that may be empty, and returns how many. An attempt
// that is under way is not called back.
func (s *Spool) Hold(ctx context.Context, f Filter, by, reason string) (int, error) {
	e := order(trace.Held, by)
	e.Reply = reason
	return s.changeAll(ctx, f, e, func(tx store.Tx, m *Message, r Recipient) bool {
		if r.State == Hold {
			return false
		}
		s.put(tx, m, r, func(r *Recipient) { r.State, r.Reason = Hold, reason })
		return true
	})
}

// Resume ends the hold of the chosen recipients that are held, and returns how many.
// They are due now, or at their message's release time.
func (s *Spool) Resume(ctx context.Context, f Filter, by string) (int, error) {
	return s.changeAll(ctx, f, order(trace.Released, by), func(tx store.Tx, m *Message, r Recipient) bool {
		if r.State != Hold {
			return false
		}
		s.put(tx, m, r, func(r *Recipient) {
			r.State, r.Next = m.turn(s.now())
			r.Reason = ""
		})
		return true
	})
}

// Remove takes the chosen recipients out for good, telling nobody but the trace, and
// returns how many. An attempt that is under way is not called back.
func (s *Spool) Remove(ctx context.Context, f Filter, by string) (int, error) {
	return s.changeAll(ctx, f, order(trace.Removed, by), func(tx store.Tx, m *Message, r Recipient) bool {
		_, ok := s.drop(tx, m, r.N)
		return ok
	})
}

// changeAll applies fn to the recipients that f chooses, a page at a transaction,
// and records what it changed.
func (s *Spool) changeAll(ctx context.Context, f Filter, event trace.Event, fn func(store.Tx, *Message, Recipient) bool) (int, error) {
	total := 0
	err := s.eachPage(ctx, f, 0, func(entries []Entry) (bool, error) {
		changed := 0
		err := s.st.Update(func(tx store.Tx) error {
			changed = 0
			for i := range entries {
				changed += s.changeOne(tx, &entries[i], event, fn)
			}
			return nil
		})
		if err != nil {
			return false, fmt.Errorf("change the queue: %w", err)
		}
		total += changed
		return true, nil
	})
	return total, err
}

// changeOne applies fn to the recipients of e that are still as they were chosen.
func (s *Spool) changeOne(tx store.Tx, e *Entry, event trace.Event, fn func(store.Tx, *Message, Recipient) bool) int {
	var to []string
	for _, chosen := range e.Recipients {
		r, ok := current(tx, e.Message.ID, chosen.N)
		if ok && r.State == chosen.State && fn(tx, &e.Message, r) {
			to = append(to, r.To.String())
		}
	}
	if len(to) > 0 {
		trace.Record(tx, e.Message.ID, occurs(event, s.now(), to))
	}
	return len(to)
}

// References yields the body references of the spool, for store.Check.
func (s *Spool) References(r store.Reader) iter.Seq[store.ID] {
	return func(yield func(store.ID) bool) {
		for k := range r.Scan(store.NewKey("qm"), store.NewKey("qm").End()) {
			id, _ := store.TakeUint(k[2:])
			if !yield(store.ID(id)) {
				return
			}
		}
	}
}

// Check returns what does not agree in the spool: records that cannot be read,
// recipients without a message or without a turn, turns and marks without a recipient, wrong counts. The
// whole spool is read in one transaction.
func (s *Spool) Check(ctx context.Context) ([]store.Problem, error) {
	var c checker
	err := s.st.View(func(r store.Reader) error {
		c = checker{r: r}
		c.messages(ctx)
		c.recipients(ctx)
		c.turns(ctx)
		c.marks(ctx)
		c.deadlines(ctx)
		c.counts(ctx)
		return ctx.Err()
	})
	return c.problems, err
}

type checker struct {
	r        store.Reader
	problems []store.Problem
}

func (c *checker) found(id store.ID, format string, args ...any) {
	c.problems = append(c.problems, store.Problem{What: "queue " + id.String(), Text: fmt.Sprintf(format, args...)})
}

func (c *checker) messages(ctx context.Context) {
	for k, v := range c.r.Scan(store.NewKey("qm"), store.NewKey("qm").End()) {
		n, _ := store.TakeUint(k[2:])
		id := store.ID(n)
		if _, err := decodeMessage(id, v); err != nil {
			c.found(id, "the message's record cannot be read")
		}
		if !anyRecipient(c.r, id) {
			c.found(id, "the message has no recipient")
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func (c *checker) recipients(ctx context.Context) {
	for k, v := range c.r.Scan(store.NewKey("qr"), store.NewKey("qr").End()) {
		i, rest := store.TakeUint(k[2:])
		n, _ := store.TakeUint(rest)
		id := store.ID(i)
		r, err := decodeRecipient(int(n), v)
		switch {
		case err != nil:
			c.found(id, "recipient %d's record cannot be read", n)
		case c.r.Get(messageKey(id)) == nil:
			c.found(id, "recipient %d has no message", n)
		case !c.hasTurn(id, &r):
			c.found(id, "recipient %d will never have its turn", n)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// hasTurn reports whether a recipient stands in the order of what is due, if it has to. A message that cannot be read
// was told of.
func (c *checker) hasTurn(id store.ID, r *Recipient) bool {
	m, err := decodeMessage(id, c.r.Get(messageKey(id)))
	return err != nil || r.State == Hold || c.r.Get(spotOf(m, r).key()) != nil
}

// belongs reports whether a turn is that of the recipient whose record is v.
func (c *checker) belongs(at spot, v []byte) bool {
	m, err := decodeMessage(at.id, c.r.Get(messageKey(at.id)))
	if err != nil {
		return true
	}
	r, err := decodeRecipient(int(at.n), v)
	return err != nil || r.State != Hold && spotOf(m, &r) == at
}

func (c *checker) turns(ctx context.Context) {
	for k := range c.r.Scan(store.NewKey("qd"), store.NewKey("qd").End()) {
		at, ok := readSpot(k)
		v := c.r.Get(recipientKey(at.id, int(at.n)))
		switch {
		case !ok:
			c.found(at.id, "a turn cannot be read")
		case v == nil:
			c.found(at.id, "a turn is kept for recipient %d, which is not there", at.n)
		case !c.belongs(at, v):
			c.found(at.id, "recipient %d has a turn at another place too", at.n)
		}
		if ctx.Err() != nil {
			return
		}
	}
}
