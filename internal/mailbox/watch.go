package mailbox

import (
	"slices"
	"sync"

	"postroad/internal/store"
)

// What says what happened.
type What uint8

// What events tell.
const (
	Messages   What = iota // arrivals, expunges or flags: the Event says which
	Created                // a mailbox was made
	Removed                // a mailbox is gone
	Renamed                // the Event has the old name; each of those below is told of too, after it
	Subscribed             // a subscription was set or cleared
	Annotated              // annotations changed; without a mailbox they are the server's
	Granted                // somebody's rights on a mailbox changed
)

// An Event is something that happened, told after its commit (RFC 5465). Names are the owner's.
type Event struct {
	What    What
	Owner   Owner   // whose mailbox it is, or whose subscription
	Mailbox Mailbox // as the change left it; zero for what is no mailbox's
	Name    string  // the mailbox's name, or the one that a subscription is to as its owner sees it
	OldName string
	By      *Access // what made the change, when an Access did

	Arrived, Expunged, Flagged bool     // of Messages
	On                         bool     // of Subscribed: it was set
	Entries                    []string // of Annotated
	Private                    Owner    // of Annotated: whose private entries; 0 is for all
}

// watchers are those who follow events.
type watchers struct {
	mu  sync.RWMutex
	fns []*func(Event)
}

// Watch calls fn after each commit with what it changed, of all mailboxes, until stop is called. fn runs on the goroutine that
// commits: it must be quick, must not block and must not use the store. Events of one mailbox come in the order of their
// commits.
func (s *Service) Watch(fn func(Event)) (stop func()) {
	w := s.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fns = append(slices.Clone(w.fns), &fn)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fns = slices.DeleteFunc(slices.Clone(w.fns), func(f *func(Event)) bool { return f == &fn })
	}
}

func (w *watchers) list() []*func(Event) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.fns
}

func (w *watchers) tell(e Event) {
	for _, fn := range w.list() {
		(*fn)(e)
	}
}

// announce tells e after the commit of tx.
func (s *Service) announce(tx store.Tx, e Event) {
	e.By = s.by
	tx.OnCommit(func() { s.watchers.tell(e) })
}

// announceBox announces what happened to a mailbox.
func (s *Service) announceBox(tx store.Tx, what What, b *box) {
	s.announce(tx, Event{What: what, Owner: b.Owner, Mailbox: b.Mailbox, Name: b.Name})
}
