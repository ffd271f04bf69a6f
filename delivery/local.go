package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// inbox is where mail for an account goes that is for no mailbox by name.
const inbox = "INBOX"

// arrival is one local recipient that is ready to be delivered.
type arrival struct {
	due       spool.Due
	structure []byte // of the message
	owner     string // the account's address, for the trace
}

// refusal is a mailbox's error about one message; other errors are the store's.
type refusal struct{ err error }

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

// deliverLocal delivers a batch of local recipients: accounts in one transaction, then lists. A message
// that cannot be delivered has no influence on the others.
func (r *Runner) deliverLocal(ctx context.Context, due []spool.Due) {
	due = r.returnSuppressed(ctx, r.deadlines(ctx, due))
	batch := &batch{r: r, structures: make(map[store.ID]read), owners: make(map[uint64]string)}
	var ready []arrival
	for _, d := range due {
		if d.Recipient.List || d.Recipient.Expanded {
			continue
		}
		a, err := batch.prepare(d)
		switch {
		case err != nil:
			r.unreadable(ctx, d, err)
		case d.Recipient.Notify.Wants(envelope.NotifySuccess) && !d.Message.Envelope.From.IsZero():
			r.deliverReported(ctx, a)
		default:
			ready = append(ready, a)
		}
	}
	if len(ready) > 0 {
		r.deliverAll(ctx, ready)
	}
	for _, d := range due {
		switch {
		case d.Recipient.List:
			r.expand(ctx, d)
		case d.Recipient.Expanded:
			r.record(ctx, []outcome{{due: d, verdict: expanded, reply: r.ours("2.1.5", "sent on to all that it leads to")}})
		}
	}
}

// batch remembers what several recipients share.
type batch struct {
	r          *Runner
	structures map[store.ID]read
	owners     map[uint64]string
	buf        []byte
}

type read struct {
	structure []byte
	err       error
}

func (b *batch) prepare(d spool.Due) (arrival, error) {
	id := d.Message.ID
	got, ok := b.structures[id]
	if !ok {
		got.err = b.r.guarded("read the structure of "+id.String(), func() (err error) {
			got.structure, err = b.structure(id)
			return err
		})
		b.structures[id] = got
	}
	return arrival{d, got.structure, b.owner(d.Recipient.Account)}, got.err
}

// owner is for people to read: when it cannot be told, the number has to do.
func (b *batch) owner(id uint64) string {
	name, ok := b.owners[id]
	if !ok {
		name = fmt.Sprint("account ", id)
		if a, err := b.r.cfg.Accounts.ByID(account.ID(id)); err == nil {
			name = a.Address.String()
		}
		b.owners[id] = name
	}
	return name
}

// structure reads a body once, with its checksum.
func (b *batch) structure(id store.ID) ([]byte, error) {
	body, err := b.r.cfg.Store.OpenBody(id)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if need := min(max(body.Size(), 512), 32<<10); int64(len(b.buf)) < need {
		b.buf = make([]byte, need)
	}
	scanner := mime.NewScanner()
	if _, err := io.CopyBuffer(scanner, body.Reader(), b.buf); err != nil {
		return nil, err
	}
	return scanner.Finish().AppendBinary(nil)
}

// deliverAll delivers together, or one by one when that fails.
func (r *Runner) deliverAll(ctx context.Context, as []arrival) {
	gone, err := r.deliver(as, nil)
	_, refused := errors.AsType[*refusal](err)
	switch {
	case err == nil:
		r.unknown(ctx, gone)
	case refused && len(as) > 1:
		for i := range as {
			r.deliverAll(ctx, as[i:i+1])
		}
	case refused:
		r.record(ctx, []outcome{{due: as[0].due, reply: r.ours("4.3.0", "the mailbox does not take the message: "+err.Error())}})
	default:
		r.storeTrouble(ctx, err, dues(as)...)
	}
}

// deliver puts messages into mailboxes and takes their recipients out of the spool,
// in one transaction. Recipients whose account is gone are left alone and returned.
// With a report, which is about one recipient alone, the sender is told in the same
// transaction.
func (r *Runner) deliver(as []arrival, rep *report) (gone []spool.Due, err error) {
	placed := make([]mailbox.Placed, len(as))
	err = r.guarded("deliver", func() error {
		return r.cfg.Store.UpdateSoon(func(tx store.Tx) error {
			gone = gone[:0] // it may run again
			clear(placed)
			for i := range as {
				if !account.Exists(tx, account.ID(as[i].due.Recipient.Account)) {
					gone = append(gone, as[i].due)
					continue
				}
				var err error
				if placed[i], err = r.place(tx, &as[i], rep); err != nil {
					return &refusal{err}
				}
			}
			if rep == nil || placed[0].UID == 0 {
				return nil // nothing was delivered that could be reported
			}
			return r.addReport(tx, rep)
		}, drafts(rep)...)
	})
	if err == nil {
		r.logDelivered(as, placed)
	}
	return gone, err
}

// place delivers one recipient. One that an administrator has removed meanwhile is
// not delivered, and its Placed stays empty.
func (r *Runner) place(tx store.Tx, a *arrival, rep *report) (mailbox.Placed, error) {
	d := &a.due
	if !r.cfg.Spool.Settle(tx, *d) {
		return mailbox.Placed{}, nil
	}
	now := r.cfg.Now()
	placed, err := r.put(tx, d, mailbox.Arrival{
		Body: d.Message.ID, Size: d.Message.Size, Structure: a.structure, Internal: now,
	})
	if err != nil {
		return placed, err
	}
	trace.Record(tx, d.Message.ID, trace.Event{
		Time: now, Kind: trace.Delivered, To: []string{d.Recipient.To.String()},
		Mailbox: a.owner + " " + placed.Name, UID: placed.UID, Related: rep.id(),
	})
	r.tellDelivered(tx, now, d, "delivered to the mailbox")
	return placed, nil
}

// put puts a message into the mailbox that is meant for it.
func (r *Runner) put(tx store.Tx, d *spool.Due, a mailbox.Arrival) (mailbox.Placed, error) {
	owner := mailbox.Owner(d.Recipient.Account)
	if d.Recipient.Mailbox == "" {
		return r.cfg.Mailboxes.Add(tx, owner, inbox, a)
	}
	return r.cfg.Mailboxes.AddNamed(tx, owner, d.Recipient.Mailbox, r.cfg.CreateMailboxes, a)
}

func (r *Runner) logDelivered(as []arrival, placed []mailbox.Placed) {
	for i, p := range placed {
		if p.UID != 0 {
			m := as[i].due.Message
			r.cfg.Log.Info("delivered", "id", m.ID, "from", m.Envelope.From.Path(), "to", as[i].due.Recipient.To.String(),
				"outcome", "delivered", "mailbox", p.Name, "uid", p.UID)
		}
	}
}

// deliverReported delivers to a recipient whose sender wants to hear of success.
// When there is no room for the report, the mail is delivered without one.
func (r *Runner) deliverReported(ctx context.Context, a arrival) {
	o := outcome{due: a.due, verdict: delivered, reply: r.ours("2.1.5", "delivered to the mailbox")}
	rep, err := r.report(a.due.Message, []outcome{o})
	var gone []spool.Due
	if err == nil {
		gone, err = r.deliver([]arrival{a}, rep)
	}
	_, refused := errors.AsType[*refusal](err)
	switch {
	case err == nil:
		r.unknown(ctx, gone)
	case refused || errors.Is(err, store.ErrFull):
		r.deliverAll(ctx, []arrival{a})
	default:
		r.storeTrouble(ctx, err, a.due)
	}
}

// unknown fails recipients whose account is gone since the message was accepted.
func (r *Runner) unknown(ctx context.Context, due []spool.Due) {
	for _, d := range due {
		reply := r.ours("5.1.1", "the account no longer exists")
		reply.Code = 550
		r.record(ctx, []outcome{{due: d, reply: reply}})
	}
}

// unreadable deals with a message whose body cannot be read. A damaged one needs a
// person's eye and is never dropped; other errors may pass.
func (r *Runner) unreadable(ctx context.Context, d spool.Due, err error) {
	reply := r.ours("4.3.0", "the message cannot be read: "+err.Error())
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrNoBody) {
		r.hold(ctx, reply, d)
		return
	}
	r.record(ctx, []outcome{{due: d, reply: reply}})
}

// hold stops recipients until an administrator resumes them.
func (r *Runner) hold(ctx context.Context, reply envelope.Reply, due ...spool.Due) {
	err := r.cfg.Store.Update(func(tx store.Tx) error {
		for _, d := range due {
			d.Recipient.Last = reply
			if r.cfg.Spool.Suspend(tx, d) {
				trace.Record(tx, d.Message.ID, trace.Event{
					Time: reply.At, Kind: trace.Held, To: []string{d.Recipient.To.String()}, Reply: reply.String(), By: "delivery",
				})
			}
		}
		return nil
	})
	if err != nil {
		r.storeTrouble(ctx, err, due...)
		return
	}
	for _, d := range due {
		r.cfg.Log.Error("held: the message needs a person's eye", "id", d.Message.ID, "to", d.Recipient.To.String(), "reply", reply.String())
	}
}

// storeTrouble gives back what the store did not let us settle, and slows down.
// Nothing is lost: the recipients are in the spool as they were.
func (r *Runner) storeTrouble(ctx context.Context, err error, due ...spool.Due) {
	r.cfg.Log.Error("the store refuses; mail stays in the queue", "err", err)
	r.pause(ctx)
	r.cfg.Spool.GiveBack(due...)
}

// ours is what we say where nobody else has spoken.
func (r *Runner) ours(status, text string) envelope.Reply {
	return envelope.Reply{Enhanced: status, Text: envelope.Sanitize(text, 500), At: r.cfg.Now()}
}

func dues(as []arrival) []spool.Due {
	due := make([]spool.Due, len(as))
	for i := range as {
		due[i] = as[i].due
	}
	return due
}
