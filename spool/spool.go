// Package spool holds accepted mail until each recipient is settled. A message is
// in the spool from the transaction in which it was accepted to the one in which
// its last recipient was delivered, relayed, bounced or removed.
//
//	qm  message id                                  the message: envelope, origin
//	qr  message id, number                          one recipient that is not settled
//	qd  lane, class, due time, message id, number   the order in which recipients fall due
//	qb  deadline, message id, number                 those that are to leave by a time
//	qs  message id, number                          when an attempt was about to send it to its end
//	qc                                              how many there are
//
// A lane is what delivers the recipient: a destination, or the mailboxes here. Each has queues of its own, one for each
// class, so that what waits for one is never in the way of another. A held recipient has no entry in qd.
// Recipients of one message have numbers from 0.
// The spool holds one body reference for each message.
package spool

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
)

// ErrNotFound means that a message is not in the spool.
var ErrNotFound = errors.New("not in the queue")

// Origin is how a message reached us.
type Origin struct {
	Protocol string // ESMTP, ESMTPS, ESMTPSA, LMTP ... (RFC 3848); empty for our own
	Peer     string // its address; of our own, that of the stranger who wrote to the list that sends it on
	Helo     string // the name it gave
	TLS      string // version and cipher suite; empty for none
	Account  string // who was logged in
}

// Message is an accepted message. Its ID is also its body's.
type Message struct {
	ID        store.ID
	Size      int64 // octets of the stored body, trace headers included
	Skip      int64 // octets at the start that only final delivery shows: the Return-Path field
	Arrived   time.Time
	Envelope  envelope.Envelope
	Origin    Origin
	MessageID string             // the Message-ID field, for the trace; may be empty
	About     string             // the id of the message that this one reports on; only the trace keeps it
	Given     []envelope.Address // the recipients as the sender named them; only the trace keeps them

	recipients int // when it was accepted
}

// Ready is when delivery may begin: on arrival, or at the release time that the sender asked for. What becomes of a
// message that is late counts from here.
func (m *Message) Ready() time.Time {
	if m.Envelope.Release.After(m.Arrived) {
		return m.Envelope.Release
	}
	return m.Arrived
}

// turn is the state in which a recipient begins, and when it falls due.
func (m *Message) turn(now time.Time) (State, time.Time) {
	if r := m.Envelope.Release; r.After(m.Arrived) && r.After(now) {
		return Deferred, r.Truncate(time.Microsecond)
	}
	return Active, now.Truncate(time.Microsecond)
}

// State is what is to happen to a recipient next.
type State uint8

// The states of a recipient in the spool; settled ones have left it.
const (
	Active   State = iota // due, or being tried
	Deferred              // has a next attempt, or waits for the message's release time
	Hold                  // waits for an administrator
)

// String returns the state's word.
func (s State) String() string { return [...]string{"active", "deferred", "hold"}[s] }

// Recipient is one recipient that is not settled.
type Recipient struct {
	envelope.Recipient
	N        int    // its number in the message
	Account  uint64 // the local account, or 0 when the mail goes elsewhere
	Mailbox  string // into this mailbox of the account if it is there, else into the INBOX; empty is the INBOX
	List     bool   // To is a list of ours: its members get the message, from its owner
	Expanded bool   // To is an address of ours that led to several, who are recipients too: its sender is told that, no more
	State    State
	Next     time.Time      // the next attempt
	Attempts int            // made so far
	Last     envelope.Reply // of the last attempt
	Delayed  bool           // the sender has been told of the delay

	Via       envelope.Address // our address that forwards the message here; zero when the sender named To, or a list did
	Lane      string           // where it waits; the spool sets it (Spool.Lanes)
	Transport string           // the route that an administrator chose for this recipient, by name; empty is as configured
	Reason    string           // why it is on hold; empty for none
	Sent      time.Time        // of a claimed one: when an attempt was about to send it to its end, of which there is no record; else zero
}

// Due is one recipient that is due, with its message. It belongs to the caller until
// it is settled, deferred, held or given back.
type Due struct {
	Message   *Message // shared by the recipients of one message; not to be changed
	Recipient Recipient
}

func (d *Due) ref() ref { return ref{d.Message.ID, d.Recipient.N} }

// ref names a recipient.
type ref struct {
	id store.ID
	n  int
}

// Spool is the queue of one store. Any number of goroutines.
type Spool struct {
	// Set by Open, never changed.
	st       *store.Store
	now      func() time.Time
	wake     chan struct{} // capacity 1: something may be due
	deadline chan struct{} // capacity 1: there is another deadline

	claiming sync.Mutex // one Claim at a time

	lanes atomic.Pointer[Lanes]
	catch atomic.Pointer[Catch] // nil catches nothing

	mu       sync.Mutex
	busy     map[ref]spot // claimed, and not yet settled, deferred, held or given back; where they stand in qd
	queues   queues
	walking  bool         // a Claim is under way
	freed    map[ref]bool // no longer busy since it began: what its view shows of them is old
	released []string     // lanes that got room since it began
}

// Lanes names the lane of a recipient that is delivered elsewhere. The name is kept with the recipient until it is
// deferred, held or changed, also when Lanes would name another by then.
type Lanes func(*Message, *Recipient) string

// Local is the lane of recipients that are delivered here.
const Local = ""

// Open returns the spool kept in st. now is the clock; nil is time.Now.
func Open(st *store.Store, now func() time.Time) *Spool {
	if now == nil {
		now = time.Now
	}
	s := &Spool{st: st, now: now, wake: make(chan struct{}, 1), deadline: make(chan struct{}, 1), busy: map[ref]spot{}, freed: map[ref]bool{}, queues: newQueues()}
	s.Lanes(byDomain)
	s.wake <- struct{}{} // what earlier processes left may be due
	return s
}

// Lanes sets how lanes are named from now on. Before, it is by domain.
func (s *Spool) Lanes(name Lanes) { s.lanes.Store(&name) }

func byDomain(_ *Message, r *Recipient) string { return strings.ToLower(r.To.Domain) }

// Here reports whether delivery to the recipient ends in this server.
func (r *Recipient) Here() bool { return r.Account != 0 || r.List || r.Expanded }

// lane names the lane of a recipient.
func (s *Spool) lane(m *Message, r *Recipient) string {
	if r.Here() {
		return Local
	}
	return (*s.lanes.Load())(m, r)
}

// Accept makes the message ours: draft, envelope and recipients are durable when it
// returns nil. It sets m.ID, m.Size and m.Arrived, and numbers the recipients. They are
// due at once, or deferred until the time that the envelope asks for (m.Ready). The
// trace tells of it. with, if not nil, runs in the same transaction, after the message is in: when it fails,
// nothing is accepted, and its error is wrapped. Like any transaction's function it may run again.
func (s *Spool) Accept(m *Message, rcpts []Recipient, draft *store.Draft, with func(store.Tx) error) error {
	m.ID, m.Size = draft.ID(), draft.Size()
	err := s.st.Update(func(tx store.Tx) error {
		if err := s.Add(tx, m, rcpts, trace.Received); err != nil || with == nil {
			return err
		}
		return with(tx)
	}, draft)
	if err != nil {
		return fmt.Errorf("accept %s: %w", m.ID, err)
	}
	return nil
}

// Add is Accept within a transaction that takes the draft too; m.ID and m.Size are
// set. kind says in the trace how the message came to be.
func (s *Spool) Add(tx store.Tx, m *Message, rcpts []Recipient, kind trace.Kind) error {
	if len(rcpts) == 0 {
		return errors.New("a message without recipients cannot be queued")
	}
	m.Arrived = s.now().Truncate(time.Microsecond)
	m.recipients = len(rcpts)
	tx.Put(messageKey(m.ID), m.encode())
	tx.Ref(m.ID)
	for i := range rcpts {
		r := &rcpts[i]
		r.N = i
		r.State, r.Next = m.turn(m.Arrived)
		s.hold(m, r)
		s.file(tx, m, r)
		s.putDeadline(tx, m, r)
	}
	count(tx, func(c *Counts) { c.arrived(rcpts) })
	trace.Record(tx, m.ID, received(m, rcpts, kind))
	caught(tx, m, rcpts)
	return nil
}

// received is the event of a message's arrival. It names at most 100 recipients.
func received(m *Message, rcpts []Recipient, kind trace.Kind) trace.Event {
	e := trace.Event{
		Time: m.Arrived, Kind: kind, From: m.Envelope.From.Path(), MessageID: m.MessageID, Size: m.Size,
		Protocol: m.Origin.Protocol, Peer: m.Origin.Peer, TLS: m.Origin.TLS, Account: m.Origin.Account, Related: m.About,
	}
	if m.Origin.Helo != "" {
		e.Peer += " (" + m.Origin.Helo + ")"
	}
	if m.Ready().After(m.Arrived) {
		e.Next = m.Ready().UTC().Format(time.RFC3339)
	}
	for _, r := range rcpts[:min(len(rcpts), 100)] {
		e.To = append(e.To, r.To.String())
	}
	e.Given = elsewhere(m.Given[:min(len(m.Given), 100)], e.To)
	return e
}

// elsewhere returns those of given that are not among to: what leads to others.
func elsewhere(given []envelope.Address, to []string) (names []string) {
	for _, a := range given {
		name := a.String()
		if !slices.ContainsFunc(to, func(t string) bool { return strings.EqualFold(t, name) }) {
			names = append(names, name)
		}
	}
	return names
}

// file writes a recipient, and enters it into the order of what is due unless it is held. Claim knows of it once that
// has committed.
func (s *Spool) file(tx store.Tx, m *Message, r *Recipient) {
	r.Lane = s.lane(m, r)
	tx.Put(recipientKey(m.ID, r.N), r.encode())
	if r.State == Hold {
		return
	}
	at := spotOf(m, r)
	tx.Put(at.key(), []byte{})
	tx.OnCommit(func() { s.added(at) })
}

// added makes the next Claim look at an entry.
func (s *Spool) added(at spot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues.add(at, s.now(), s.walking) {
		s.signal()
	}
}

func (s *Spool) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Settle removes the recipient; with the last one the message leaves the spool and
// gives up its body reference. It reports false when the recipient is no longer
// there: an administrator has removed it, and the transaction must not deliver it.
func (s *Spool) Settle(tx store.Tx, d Due) bool {
	s.doneOnCommit(tx, d)
	_, ok := s.drop(tx, d.Message, d.Recipient.N)
	return ok
}

// drop takes a recipient out of the spool and returns it as it was.
func (s *Spool) drop(tx store.Tx, m *Message, n int) (Recipient, bool) {
	now, ok := current(tx, m.ID, n)
	if !ok {
		return now, false
	}
	tx.Delete(recipientKey(m.ID, n))
	unmark(tx, m.ID, &now)
	dropDeadline(tx, m, n)
	if now.State != Hold {
		tx.Delete(spotOf(m, &now).key())
	}
	last := m.recipients == 1 || !anyRecipient(tx, m.ID)
	if last {
		tx.Delete(messageKey(m.ID))
		tx.Unref(m.ID)
	}
	count(tx, func(c *Counts) {
		c.add(now.State, -1)
		if last {
			c.Messages--
		}
	})
	return now, true
}

// current reads a recipient as it is in the transaction. A record that cannot be
// read counts as gone: it is never delivered by guess, and Check names it.
func current(r store.Reader, id store.ID, n int) (Recipient, bool) {
	v := r.Get(recipientKey(id, n))
	if v == nil {
		return Recipient{}, false
	}
	rcpt, err := decodeRecipient(n, v)
	return rcpt, err == nil
}

func anyRecipient(r store.Reader, id store.ID) bool {
	from := recipientsOf(id)
	for range r.Scan(from, from.End()) {
		return true
	}
	return false
}

// Defer puts the recipient off until next, with what was learned: d.Recipient's
// Attempts, Last and Delayed are stored. A recipient that was put on hold meanwhile
// stays there, and one that was ordered to be due (Retry, Resume) is due as that says:
// what came before the order is no answer to it. It reports false as Settle does.
func (s *Spool) Defer(tx store.Tx, d Due, next time.Time) bool {
	unmark(tx, d.Message.ID, &d.Recipient)
	if !s.now().Before(d.Message.Envelope.DeliverBy.Deadline) {
		dropDeadline(tx, d.Message, d.Recipient.N)
	}
	return s.change(tx, d, func(r *Recipient) {
		r.Attempts, r.Last, r.Delayed = d.Recipient.Attempts, d.Recipient.Last, d.Recipient.Delayed
		if r.State != Hold && r.Next.Equal(d.Recipient.Next) {
			r.State, r.Next = Deferred, next.Truncate(time.Microsecond)
		}
	})
}

// Refile puts the recipient into the queue of its lane as Lanes names it now, and ends the claim. It reports false as
// Settle does.
func (s *Spool) Refile(tx store.Tx, d Due) bool { return s.change(tx, d, func(*Recipient) {}) }

// Suspend puts a claimed recipient on hold: it needs a person's eye. It reports
// false as Settle does.
func (s *Spool) Suspend(tx store.Tx, d Due) bool {
	unmark(tx, d.Message.ID, &d.Recipient)
	return s.change(tx, d, func(r *Recipient) {
		r.State, r.Attempts, r.Last, r.Reason = Hold, d.Recipient.Attempts, d.Recipient.Last, d.Recipient.Reason
	})
}

func (s *Spool) change(tx store.Tx, d Due, fn func(*Recipient)) bool {
	s.doneOnCommit(tx, d)
	r, ok := current(tx, d.Message.ID, d.Recipient.N)
	if ok {
		s.put(tx, d.Message, r, fn)
	}
	return ok
}

// put applies fn to a stored recipient and keeps the order of what is due in step.
func (s *Spool) put(tx store.Tx, m *Message, r Recipient, fn func(*Recipient)) {
	if r.State != Hold {
		tx.Delete(spotOf(m, &r).key())
	}
	was := r.State
	fn(&r)
	s.file(tx, m, &r)
	if r.State != was {
		count(tx, func(c *Counts) { c.add(was, -1); c.add(r.State, 1) })
	}
}

// doneOnCommit ends the claim on d when the transaction has committed.
func (s *Spool) doneOnCommit(tx store.Tx, d Due) {
	tx.OnCommit(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free(d.ref())
	})
}

// free ends the claim on a recipient. mu must be held.
func (s *Spool) free(r ref) {
	delete(s.busy, r)
	if s.walking {
		s.freed[r] = true
	}
}

// GiveBack returns claimed recipients untouched: their transaction failed, or there
// is no time left. They may be claimed again at once.
func (s *Spool) GiveBack(due ...Due) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range due {
		at, ok := s.busy[d.ref()]
		s.free(d.ref())
		if ok && s.queues.add(at, s.now(), s.walking) {
			s.signal()
		}
	}
}

// isBusy reports whether a recipient is claimed.
func (s *Spool) isBusy(r ref) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.busy[r]
	return ok || s.freed[r]
}
