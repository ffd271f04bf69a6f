package delivery

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// Between the last octet of a message and the record of the reply to it, the next hop may have a message of which we know
// nothing. So an attempt puts a durable mark on its recipients before that octet leaves (spool.Sending), and the record
// of the outcome takes it away. A mark that a Claim meets is of an attempt that a crash cut off: its recipients are
// "possibly delivered", which the trace and the log say once, and are tried again.

// A mark is the word of one attempt that it is about to send a message to its end. It is written while the conversation
// goes on, in a commit that it shares with whoever else commits then: only wait costs time, and only what is left of it.
type mark struct {
	done chan struct{}
	err  error // set before done is closed
}

// mark begins to write the mark on recipients of one message.
func (r *Runner) mark(due []spool.Due) *mark {
	m := &mark{done: make(chan struct{})}
	at := r.cfg.Now()
	go func() {
		defer close(m.done)
		m.err = r.cfg.Store.Update(func(tx store.Tx) error {
			for _, d := range due {
				r.cfg.Spool.Sending(tx, d, at)
			}
			return nil
		})
	}()
	return m
}

// wait returns when the mark is durable. With an error nothing may be sent to its end.
func (m *mark) wait() error {
	<-m.done
	if m.err != nil {
		return fmt.Errorf("the store does not take the note that the message is being sent: %w", m.err)
	}
	return nil
}

// unmark gives back recipients of an attempt that came to no end, as they were before it. When even that cannot be
// recorded the mark stays, and the next attempt begins with a doubt too many.
func (r *Runner) unmark(due []spool.Due) {
	if len(due) == 0 {
		return
	}
	err := r.cfg.Store.Update(func(tx store.Tx) error {
		for _, d := range due {
			r.cfg.Spool.Sending(tx, d, time.Time{})
		}
		return nil
	})
	if err != nil {
		r.cfg.Log.Error("the store refuses; mail stays in the queue", "err", err)
	}
	r.cfg.Spool.GiveBack(due...)
}

// doubts tells of the marks that an earlier process left on recipients, and takes them away. It returns the recipients,
// or none when the store refuses.
func (r *Runner) doubts(ctx context.Context, due []spool.Due) []spool.Due {
	if !slices.ContainsFunc(due, marked) {
		return due
	}
	err := r.cfg.Store.Update(func(tx store.Tx) error {
		for _, d := range due {
			if marked(d) && r.cfg.Spool.Sending(tx, d, time.Time{}) {
				trace.Record(tx, d.Message.ID, doubt(r.cfg.Now(), d))
			}
		}
		return nil
	})
	if err != nil {
		r.storeTrouble(ctx, err, due...)
		return nil
	}
	for i := range due {
		if d := &due[i]; marked(*d) {
			r.cfg.Log.Warn(cutOff, "id", d.Message.ID, "from", d.Message.Envelope.From.Path(), "to", d.Recipient.To.String(),
				"outcome", string(trace.Attempt), "possibly_delivered", true, "sent", d.Recipient.Sent)
			d.Recipient.Sent = time.Time{}
		}
	}
	return due
}

func marked(d spool.Due) bool { return !d.Recipient.Sent.IsZero() }

// cutOff is said of a recipient whose attempt a crash cut off.
const cutOff = "possibly delivered: the server stopped before the reply to the message was recorded"

func doubt(now time.Time, d spool.Due) trace.Event {
	return trace.Event{
		Time: now, Kind: trace.Attempt, To: []string{d.Recipient.To.String()},
		Reply: cutOff + "; it was sent at " + d.Recipient.Sent.UTC().Format(time.RFC3339),
	}
}
