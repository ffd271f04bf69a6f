package event

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

const table = "ev"

// Bounds of one post.
const (
	maxEvents = 100
	maxOctets = 256 << 10
)

// pauseFor is how long nothing is moved after the store refused.
const pauseFor = 5 * time.Second

// Outbox has the events that are not in the spool yet. A nil Outbox is one without hooks. Any number of goroutines.
type Outbox struct {
	// Set by Open, never changed.
	st    *store.Store
	spool *spool.Spool
	hooks []Hook
	log   *slog.Logger
	wake  chan struct{} // capacity 1: something may have been recorded
}

// Open returns the outbox kept in st for the hooks. Without hooks it is nil.
func Open(st *store.Store, sp *spool.Spool, hooks []Hook, log *slog.Logger) *Outbox {
	if len(hooks) == 0 {
		return nil
	}
	o := &Outbox{st: st, spool: sp, hooks: hooks, log: log, wake: make(chan struct{}, 1)}
	o.wake <- struct{}{} // what an earlier process left
	return o
}

// Accepted records in tx that a message is in the spool, for each recipient.
func (o *Outbox) Accepted(tx store.Tx, m *spool.Message, rcpts []spool.Recipient) {
	if o == nil {
		return
	}
	for i := range rcpts {
		o.Record(tx, m, &Outcome{Kind: Accepted, Time: m.Arrived, Recipient: &rcpts[i]})
	}
}

// Record records in tx what has become of a message.
func (o *Outbox) Record(tx store.Tx, m *spool.Message, out *Outcome) {
	if o == nil || m.Origin.Protocol == "" { // our own
		return
	}
	var id store.ID
	var encoded []byte
	for i := range o.hooks {
		if !o.hooks[i].wants(out.Kind, m.Origin.Account) {
			continue
		}
		if encoded == nil {
			id = o.st.NewID()
			encoded = encode(id, m, out)
		}
		tx.Put(store.NewKey(table).Text(o.hooks[i].Name).Uint(uint64(id)), encoded)
	}
	if encoded != nil {
		tx.OnCommit(o.signal)
	}
}

func (o *Outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run moves what is recorded into the spool until ctx is done.
func (o *Outbox) Run(ctx context.Context) {
	if o == nil {
		return
	}
	o.dropOthers()
	for {
		select {
		case <-o.wake:
		case <-ctx.Done():
			return
		}
		if err := o.move(ctx); err != nil {
			o.trouble(ctx, err)
		}
	}
}

// trouble waits a while: what is recorded stays.
func (o *Outbox) trouble(ctx context.Context, err error) {
	o.log.Error("events wait: they cannot be queued", "err", err)
	t := time.NewTimer(pauseFor)
	defer t.Stop()
	select {
	case <-t.C:
		o.signal()
	case <-ctx.Done():
	}
}

// move empties the outbox, one hook after the other.
func (o *Outbox) move(ctx context.Context) error {
	for i := range o.hooks {
		for more := true; more && ctx.Err() == nil; {
			keys, events, err := o.read(o.hooks[i].Name)
			if err == nil && len(keys) > 0 {
				err = o.queue(o.hooks[i].Name, keys, events)
			}
			if err != nil {
				return fmt.Errorf("webhook %s: %w", o.hooks[i].Name, err)
			}
			more = len(keys) > 0
		}
	}
	return nil
}

// read copies the oldest events of a hook, as many as one post holds.
func (o *Outbox) read(hook string) (keys []store.Key, events [][]byte, err error) {
	err = o.st.View(func(r store.Reader) error {
		keys, events = nil, nil
		octets := 0
		from := store.NewKey(table).Text(hook)
		for k, v := range r.Scan(from, from.End()) {
			if octets += len(v); len(keys) == maxEvents || octets > maxOctets && len(keys) > 0 {
				break
			}
			keys, events = append(keys, append(store.Key(nil), k...)), append(events, append([]byte(nil), v...))
		}
		return nil
	})
	return keys, events, err
}

// queue makes a message of events, in the transaction that takes them out.
func (o *Outbox) queue(hook string, keys []store.Key, events [][]byte) error {
	draft := o.st.NewDraft()
	if _, err := draft.Write(batch(events)); err != nil {
		draft.Discard()
		return err
	}
	m := &spool.Message{ID: draft.ID(), Size: draft.Size()}
	rcpts := []spool.Recipient{{Recipient: envelope.Recipient{To: Address(hook)}, Transport: Transport(hook)}}
	return o.st.UpdateSoon(func(tx store.Tx) error {
		for _, k := range keys {
			tx.Delete(k)
		}
		return o.spool.Add(tx, m, rcpts, trace.Generated)
	}, draft)
}

// Transport is the spool.Recipient.Transport of what is for a hook.
func Transport(hook string) string { return "webhook " + hook }

// Address stands for a hook where an address has to be, in a domain that no mail can go to (RFC 2606).
func Address(hook string) envelope.Address {
	return envelope.Address{Local: strings.ToLower(hook), Domain: "webhook.invalid"}
}

// dropOthers drops what waits for hooks that are no longer configured: nobody would ever post it.
func (o *Outbox) dropOthers() {
	dropped := map[string]int{}
	err := o.st.Update(func(tx store.Tx) error {
		clear(dropped)
		var gone []store.Key
		for k := range tx.Scan(store.NewKey(table), store.NewKey(table).End()) {
			name, _ := store.TakeText(k[len(table):])
			if !o.has(name) && len(gone) < 10*maxEvents {
				gone = append(gone, append(store.Key(nil), k...))
				dropped[name]++
			}
		}
		for _, k := range gone {
			tx.Delete(k)
		}
		return nil
	})
	if err != nil {
		o.log.Error("events for webhooks that are no longer there stay", "err", err)
		return
	}
	for name, n := range dropped {
		o.log.Warn("events were dropped: there is no such webhook any more", "webhook", name, "events", n)
	}
}

func (o *Outbox) has(name string) bool {
	for i := range o.hooks {
		if o.hooks[i].Name == name {
			return true
		}
	}
	return false
}
