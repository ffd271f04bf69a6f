// Package trace keeps the life of each message: who brought it, when it was queued,
// each attempt with the other side's reply, and where it ended. Events are written
// in the transaction that makes them true. They are kept for a bounded time and
// number; the oldest go first.
//
//	tr  message id, time in nanoseconds   one event
package trace

import (
	"context"
	"slices"
	"strings"
	"time"

	"postroad/internal/store"
)

// Kind says what happened.
type Kind string

// The kinds of events.
const (
	Received   Kind = "received"   // accepted from a peer; our 250 follows this
	Appended   Kind = "appended"   // stored by an IMAP client or an import
	Generated  Kind = "generated"  // written by ourselves: a report, a welcome
	Attempt    Kind = "attempt"    // tried, and to be tried again
	Delivered  Kind = "delivered"  // in a local mailbox
	Saved      Kind = "saved"      // copied into its sender's mailbox for sent mail
	Relayed    Kind = "relayed"    // accepted by the next hop
	Bounced    Kind = "bounced"    // refused for good; the sender was told where that is allowed
	Expired    Kind = "expired"    // given up after the whole schedule
	Delayed    Kind = "delayed"    // the sender was told of the delay
	Unreported Kind = "unreported" // the sender was not told what became of it; Reply says why
	Held       Kind = "held"       // stopped, by an administrator or for damage
	Released   Kind = "released"   // no longer held
	Retried    Kind = "retried"    // made due at once by an administrator
	Rerouted   Kind = "rerouted"   // sent another way by an administrator
	Edited     Kind = "edited"     // what it needs was changed by an administrator
	Removed    Kind = "removed"    // taken out of the queue by an administrator

	Expanded   Kind = "expanded"   // led to several addresses, as the sender was told
	Discarded  Kind = "discarded"  // dropped by a named rule; nobody was told
	Suppressed Kind = "suppressed" // not tried, as its address is on the suppression list; the sender was told
)

// Event is one thing that happened to a message.
type Event struct {
	ID   store.ID  `json:"-"`
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`

	From      string   `json:"from,omitempty"`       // reverse-path; "<>" when null
	To        []string `json:"to,omitempty"`         // forward-paths this event is about
	Given     []string `json:"given,omitempty"`      // forward-paths of the sender's that led to others: aliases, forwards ...
	MessageID string   `json:"message_id,omitempty"` // the Message-ID field
	Size      int64    `json:"size,omitempty"`

	Protocol string `json:"protocol,omitempty"` // ESMTPSA, LMTP, IMAP ...
	Peer     string `json:"peer,omitempty"`     // address, and the name it gave
	TLS      string `json:"tls,omitempty"`      // version and cipher suite
	Account  string `json:"account,omitempty"`  // who was logged in

	Reply   string `json:"reply,omitempty"`   // what the other side said
	Mailbox string `json:"mailbox,omitempty"` // owner and name
	UID     uint32 `json:"uid,omitempty"`
	By      string `json:"by,omitempty"`      // who ordered it
	Next    string `json:"next,omitempty"`    // when it will be tried again, RFC 3339
	Related string `json:"related,omitempty"` // another message: the report, or what it reports on

	Dialogue string `json:"dialogue,omitempty"` // what was said in an attempt, a line each, "> " ours and "< " theirs; bounded, no secrets
}

// Limits bound what is kept.
type Limits struct {
	Age    time.Duration // 0 is 30 days
	Events int           // 0 is 2,000,000
}

// Log is the trace of one store. Any number of goroutines.
type Log struct {
	st     *store.Store
	limits Limits
}

// New returns the trace kept in st.
func New(st *store.Store, limits Limits) *Log {
	if limits.Age <= 0 {
		limits.Age = 30 * 24 * time.Hour
	}
	if limits.Events <= 0 {
		limits.Events = 2_000_000
	}
	return &Log{st, limits}
}

// Record adds an event within tx. Time and Kind must be set.
func Record(tx store.Tx, id store.ID, e Event) {
	at := uint64(e.Time.UnixNano())
	for tx.Get(eventKey(id, at)) != nil {
		at++
	}
	tx.Put(eventKey(id, at), e.encode())
}

// Message returns a message's events in order.
func (l *Log) Message(id store.ID) ([]Event, error) {
	var events []Event
	err := l.st.View(func(r store.Reader) error {
		events = nil
		from := store.NewKey(table).Uint(uint64(id))
		for k, v := range r.Scan(from, from.End()) {
			e, err := decode(k, v)
			if err != nil {
				return err
			}
			events = append(events, e)
		}
		return nil
	})
	return events, err
}

// page bounds the entries that one transaction looks at.
const page = 2000

// Find returns the ids, newest first, of at most max messages that have the
// Message-ID, reverse-path or forward-path named by what. The case of letters and
// angle brackets do not matter.
func (l *Log) Find(ctx context.Context, what string, max int) ([]store.ID, error) {
	var found []store.ID
	seen := map[store.ID]bool{}
	before := store.NewKey(table).End()
	for before != nil && len(found) < max && ctx.Err() == nil {
		err := l.st.View(func(r store.Reader) error {
			last := before
			before = nil
			n := 0
			for k, v := range r.ScanBack(store.NewKey(table), last) {
				if n++; n > page {
					break
				}
				before = append(store.Key(nil), k...)
				e, err := decode(k, v)
				if err == nil && !seen[e.ID] && len(found) < max && e.names(what) {
					seen[e.ID] = true
					found = append(found, e.ID)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, ctx.Err()
}

// names reports whether the event has what as Message-ID or address.
func (e *Event) names(what string) bool {
	what = bare(what)
	if strings.EqualFold(bare(e.MessageID), what) || strings.EqualFold(bare(e.From), what) {
		return what != ""
	}
	is := func(address string) bool { return strings.EqualFold(bare(address), what) }
	return slices.ContainsFunc(e.To, is) || slices.ContainsFunc(e.Given, is)
}

func bare(s string) string {
	return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
}

// Prune drops what is too old or too much, in bounded steps, and returns the number
// of events dropped. Age is that of the message.
func (l *Log) Prune(ctx context.Context, now time.Time) (int, error) {
	extra, err := l.count(ctx)
	if err != nil {
		return 0, err
	}
	extra -= l.limits.Events
	oldest := store.ID(now.Add(-l.limits.Age).UnixMicro())
	dropped := 0
	for ctx.Err() == nil {
		n, err := l.dropStep(oldest, extra-dropped)
		dropped += n
		if err != nil || n == 0 {
			return dropped, err
		}
	}
	return dropped, ctx.Err()
}

// dropStep deletes up to a page of events from the front: those of messages before
// oldest, and as many as there are too many.
func (l *Log) dropStep(oldest store.ID, extra int) (n int, err error) {
	err = l.st.Update(func(tx store.Tx) error {
		var keys []store.Key
		for k := range tx.Scan(store.NewKey(table), store.NewKey(table).End()) {
			id, _ := store.TakeUint(k[len(table):])
			if len(keys) == page || store.ID(id) >= oldest && len(keys) >= extra {
				break
			}
			keys = append(keys, append(store.Key(nil), k...))
		}
		for _, k := range keys {
			tx.Delete(k)
		}
		n = len(keys)
		return nil
	})
	return n, err
}

// count returns the number of events, reading in pages.
func (l *Log) count(ctx context.Context) (int, error) {
	n := 0
	from := store.NewKey(table)
	for from != nil && ctx.Err() == nil {
		err := l.st.View(func(r store.Reader) error {
			start := from
			from = nil
			seen := 0
			for k := range r.Scan(start, store.NewKey(table).End()) {
				if seen++; seen > page {
					from = append(store.Key(nil), k...)
					break
				}
				n++
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return n, ctx.Err()
}
