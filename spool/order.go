package spool

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postroad/internal/store"
	"postroad/internal/trace"
)

// Catch says why a recipient of a new message is to be put on hold before its first attempt; empty when it is not. It is
// called within a transaction: it must be quick, and may be called again.
type Catch func(*Message, *Recipient) (reason string)

// CatchBy sets what new messages are held against from now on.
func (s *Spool) CatchBy(catch Catch) { s.catch.Store(&catch) }

// hold puts a recipient of a new message on hold when it is caught.
func (s *Spool) hold(m *Message, r *Recipient) {
	if catch := s.catch.Load(); catch != nil {
		if r.Reason = (*catch)(m, r); r.Reason != "" {
			r.State = Hold
		}
	}
}

// caught records which recipients of a new message were put on hold, an event for each reason.
func caught(tx store.Tx, m *Message, rcpts []Recipient) {
	if !slices.ContainsFunc(rcpts, func(r Recipient) bool { return r.State == Hold }) {
		return
	}
	var reasons []string
	to := map[string][]string{}
	for _, r := range rcpts {
		if r.State != Hold {
			continue
		}
		if to[r.Reason] == nil {
			reasons = append(reasons, r.Reason)
		}
		if len(to[r.Reason]) < 100 {
			to[r.Reason] = append(to[r.Reason], r.To.String())
		}
	}
	for _, reason := range reasons {
		trace.Record(tx, m.ID, trace.Event{Time: m.Arrived, Kind: trace.Held, To: to[reason], By: reason})
	}
}

// Reroute sends the chosen recipients by the route of a name, or as configured when it is empty, and returns how many. Those
// that are neither on hold nor wait for their release time are due now.
func (s *Spool) Reroute(ctx context.Context, f Filter, by, route string) (int, error) {
	words := "as configured"
	if route != "" {
		words = "by the route " + route
	}
	e := trace.Event{Kind: trace.Rerouted, By: by, Reply: words}
	return s.changeAll(ctx, f, e, func(tx store.Tx, m *Message, r Recipient) bool {
		if r.Here() {
			return false
		}
		s.put(tx, m, r, func(r *Recipient) {
			r.Transport = route
			if r.State != Hold {
				r.State, r.Next = m.turn(s.now())
			}
		})
		return true
	})
}

// EditTLS changes what the messages of the chosen recipients need of TLS, for all of their recipients, and returns how many
// these are. An attempt that is under way is not called back.
func (s *Spool) EditTLS(ctx context.Context, f Filter, by string, require, optional bool) (int, error) {
	total := 0
	err := s.eachPage(ctx, f, 0, func(entries []Entry) (bool, error) {
		changed := 0
		err := s.st.Update(func(tx store.Tx) error {
			changed = 0
			for i := range entries {
				changed += s.editTLS(tx, entries[i].Message.ID, by, require, optional)
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

func (s *Spool) editTLS(tx store.Tx, id store.ID, by string, require, optional bool) (changed int) {
	m, err := decodeMessage(id, tx.Get(messageKey(id)))
	if err != nil { // it has left the queue, or Check names it
		return 0
	}
	m.Envelope.RequireTLS, m.Envelope.TLSOptional = require, optional
	tx.Put(messageKey(id), m.encode())
	var all []Recipient
	for r := range recipients(tx, id) {
		all = append(all, r)
	}
	for _, r := range all { // each may belong to another lane now
		s.put(tx, m, r, func(*Recipient) {})
	}
	trace.Record(tx, id, trace.Event{Time: s.now(), Kind: trace.Edited, By: by, Reply: tlsWords(require, optional)})
	return len(all)
}

func tlsWords(require, optional bool) string {
	switch {
	case require:
		return "it needs verified TLS now"
	case optional:
		return "TLS is optional now"
	}
	return "it needs the TLS of its destination now"
}

// Claimed reports whether a recipient is being tried, or waits in memory for its turn.
func (s *Spool) Claimed(id store.ID, n int) bool { return s.isBusy(ref{id, n}) }

// An order is an event of what an administrator does to recipients.
func order(kind trace.Kind, by string) trace.Event { return trace.Event{Kind: kind, By: by} }

// occurs is the event as it happens now.
func occurs(e trace.Event, now time.Time, to []string) trace.Event {
	e.Time, e.To = now, to[:min(len(to), 100)]
	return e
}
