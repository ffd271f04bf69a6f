package postroad

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math"
	"time"

	"postroad/internal/control"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// queuePage is how many messages of the queue are read at a time.
const queuePage = 200

// Queue lists what waits.
func (a *Admin) Queue(ctx context.Context, f control.QueueFilter) iter.Seq2[control.QueueEntry, error] {
	return func(yield func(control.QueueEntry, error) bool) {
		filters, err := a.parseFilter(f)
		if err != nil {
			yield(control.QueueEntry{}, err)
			return
		}
		left := f.Limit
		if left <= 0 {
			left = math.MaxInt
		}
		for _, filter := range filters {
			for e, err := range a.queue(ctx, filter) {
				if left == 0 || !yield(a.showEntry(e), adminError(err)) || err != nil {
					return
				}
				left--
			}
		}
	}
}

// queue yields what one filter chooses, page by page.
func (a *Admin) queue(ctx context.Context, f spool.Filter) iter.Seq2[spool.Entry, error] {
	return func(yield func(spool.Entry, error) bool) {
		var after store.ID
		for {
			page, err := a.c.Spool.List(ctx, f, after, queuePage)
			if err != nil {
				yield(spool.Entry{}, err)
				return
			}
			for _, e := range page {
				after = e.Message.ID
				if !yield(e, nil) {
					return
				}
			}
			if len(page) < queuePage || f.ID != 0 {
				return
			}
		}
	}
}

// parseFilter turns a filter into the spool's, one for each id.
func (a *Admin) parseFilter(f control.QueueFilter) ([]spool.Filter, error) {
	filter := spool.Filter{
		State: f.State, Account: f.Account,
		OlderThan: time.Duration(f.OlderThan), YoungerThan: time.Duration(f.YoungerThan),
	}
	var err error
	if f.Domain != "" {
		if filter.Domain, err = parseDomain(f.Domain); err != nil {
			return nil, err
		}
	}
	if filter.Sender, err = pattern(f.Sender); err != nil {
		return nil, err
	}
	if filter.Recipient, err = pattern(f.Recipient); err != nil {
		return nil, err
	}
	if f.Destination != "" {
		name, err := a.destinationName(f.Destination)
		if err != nil {
			return nil, err
		}
		filter.Choose = a.goesTo(name)
	}
	switch f.State {
	case "", spool.Active.String(), spool.Deferred.String(), spool.Hold.String():
	default:
		return nil, control.Errorf(control.Invalid, "%q is not a state; use active, deferred or hold", f.State)
	}
	if f.OlderThan < 0 || f.YoungerThan < 0 {
		return nil, control.Errorf(control.Invalid, "an age cannot be negative")
	}
	return withIDs(filter, f.IDs)
}

func withIDs(filter spool.Filter, ids []string) ([]spool.Filter, error) {
	if len(ids) == 0 {
		return []spool.Filter{filter}, nil
	}
	var all []spool.Filter
	for _, s := range ids {
		id, err := parseID(s)
		if err != nil {
			return nil, err
		}
		filter.ID = id
		all = append(all, filter)
	}
	return all, nil
}

// pattern reads an address, "@domain", "<>", or nothing.
func pattern(s string) (string, error) {
	switch {
	case s == "" || s == "<>":
		return s, nil
	case s[0] == '@':
		domain, err := parseDomain(s[1:])
		return "@" + domain, err
	}
	addr, err := parseAddress(s)
	return addr.String(), err
}

func (a *Admin) showEntry(e spool.Entry) control.QueueEntry {
	m := e.Message
	if m.ID == 0 {
		return control.QueueEntry{}
	}
	shown := control.QueueEntry{
		ID: m.ID.String(), Arrived: m.Arrived, Size: m.Size, From: m.Envelope.From.Path(), MessageID: text(m.MessageID),
		Protocol: m.Origin.Protocol, Peer: m.Origin.Peer, TLS: m.Origin.TLS, Account: m.Origin.Account,
		Asked:      showAsked(m.Envelope),
		Recipients: make([]control.QueueRecipient, len(e.Recipients)),
	}
	if !m.Envelope.From.IsZero() {
		shown.From = m.Envelope.From.String()
	}
	for i := range e.Recipients {
		shown.Recipients[i] = a.showRecipient(&m, &e.Recipients[i])
	}
	return shown
}

func showAsked(e envelope.Envelope) control.QueueAsked {
	asked := control.QueueAsked{
		Release: e.Release, Deadline: e.DeliverBy.Deadline, Priority: e.Priority, Body: string(e.Body), UTF8: e.UTF8,
		RequireTLS: e.RequireTLS, TLSOptional: e.TLSOptional, Return: string(e.Return), EnvelopeID: text(e.ID), Solicit: text(e.Solicit),
	}
	if !asked.Deadline.IsZero() {
		asked.DeadlineMode = e.DeliverBy.Mode()
	}
	return asked
}

func (a *Admin) showRecipient(m *spool.Message, r *spool.Recipient) control.QueueRecipient {
	shown := control.QueueRecipient{
		To: r.To.String(), State: r.State.String(), Local: r.Account != 0, Next: r.Next, Attempts: r.Attempts,
		Mailbox: text(r.Mailbox), List: r.List,
		Notify: r.Notify.String(), Original: text(r.Original), ValidSince: r.ValidSince, ValidContinue: r.ValidContinue,
	}
	if !r.Via.IsZero() {
		shown.Via = r.Via.String()
	}
	if r.State == spool.Hold {
		shown.Next, shown.Reason = time.Time{}, text(r.Reason)
	}
	a.showRoute(&shown, m, r)
	if r.Last != (envelope.Reply{}) {
		shown.Reply = text(r.Last.String())
	}
	return shown
}

// showRoute shows how a recipient goes out, and whether that is suspended.
func (a *Admin) showRoute(shown *control.QueueRecipient, m *spool.Message, r *spool.Recipient) {
	shown.Chosen = r.Transport != ""
	if shown.Local || shown.List {
		return
	}
	switch route, ok := a.c.Runner.RouteOf(m, r); {
	case !ok:
		shown.Route = r.Transport
	case route != nil:
		shown.Route = route.Name
	case shown.Chosen:
		shown.Route = "mx"
	}
	if s, ok := a.c.Runner.Suspension(m, r); ok {
		shown.Waits = text("suspended: " + cmp.Or(s.Reason, "mail for "+s.Destination))
	}
}

// QueueEntry returns one message that waits.
func (a *Admin) QueueEntry(ctx context.Context, id string) (control.QueueEntry, error) {
	parsed, err := parseID(id)
	if err != nil {
		return control.QueueEntry{}, err
	}
	e, err := a.c.Spool.Get(parsed)
	if err != nil {
		return control.QueueEntry{}, adminError(err)
	}
	return a.showEntry(e), nil
}

// RetryQueue makes recipients due now.
func (a *Admin) RetryQueue(ctx context.Context, f control.QueueFilter) (control.Changed, error) {
	return a.changeQueue(ctx, f, a.c.Runner.Retry)
}

// ReleaseQueue ends a hold.
func (a *Admin) ReleaseQueue(ctx context.Context, f control.QueueFilter) (control.Changed, error) {
	return a.changeQueue(ctx, f, a.c.Spool.Resume)
}

// RemoveQueue takes recipients out for good.
func (a *Admin) RemoveQueue(ctx context.Context, f control.QueueFilter) (control.Changed, error) {
	return a.changeQueue(ctx, f, a.c.Spool.Remove)
}

type queueChange func(ctx context.Context, f spool.Filter, by string) (int, error)

// changeQueue applies a change to what the filter chooses. An id that is not in the
// queue is an error, after which the others have been changed.
func (a *Admin) changeQueue(ctx context.Context, f control.QueueFilter, change queueChange) (c control.Changed, err error) {
	filters, err := a.parseFilter(f)
	if err != nil {
		return c, err
	}
	defer func() {
		if c.Recipients > 0 { // what waits in memory is as it was
			a.c.Runner.Recall()
		}
	}()
	var missing error
	for _, filter := range filters {
		if filter.ID != 0 {
			if _, err := a.c.Spool.Get(filter.ID); errors.Is(err, spool.ErrNotFound) {
				missing = errors.Join(missing, err)
				continue
			}
		}
		n, err := change(ctx, filter, control.Caller(ctx))
		c.Recipients += n
		if err != nil {
			return c, adminError(err)
		}
	}
	return c, adminError(missing)
}

// maxLives is how many messages Trace tells of when nothing else is asked for.
const maxLives = 20

// Trace tells the lives of messages.
func (a *Admin) Trace(ctx context.Context, q control.TraceQuery) iter.Seq2[control.Life, error] {
	return func(yield func(control.Life, error) bool) {
		ids, err := a.find(ctx, q)
		if err != nil {
			yield(control.Life{}, adminError(err))
			return
		}
		for _, id := range ids {
			life, err := a.life(id)
			if !yield(life, adminError(err)) || err != nil {
				return
			}
		}
	}
}

// find returns the ids that a query names: itself, or what the trace knows of it.
func (a *Admin) find(ctx context.Context, q control.TraceQuery) ([]store.ID, error) {
	if q.Limit <= 0 {
		q.Limit = maxLives
	}
	if id, err := store.ParseID(q.What); err == nil {
		events, err := a.c.Trace.Message(id)
		if err != nil || len(events) > 0 {
			return []store.ID{id}, err
		}
	}
	ids, err := a.c.Trace.Find(ctx, q.What, q.Limit)
	if err == nil && len(ids) == 0 {
		err = control.Errorf(control.NotFound, "the trace knows nothing of %q", q.What).
			WithHint("give a message's id, its Message-ID, or the address of its sender or a recipient")
	}
	return ids, err
}

// life is all that is known of one message.
func (a *Admin) life(id store.ID) (control.Life, error) {
	events, err := a.c.Trace.Message(id)
	life := control.Life{ID: id.String(), Events: make([]control.Event, len(events))}
	for i, e := range events {
		life.Events[i] = showEvent(e)
	}
	if err != nil {
		return life, err
	}
	e, err := a.c.Spool.Get(id)
	switch {
	case err == nil:
		shown := a.showEntry(e)
		life.Queue = &shown
	case errors.Is(err, spool.ErrNotFound):
		err = nil
	}
	return life, err
}

func showEvent(e trace.Event) control.Event {
	return control.Event{
		Time: e.Time, Kind: string(e.Kind), From: e.From, To: e.To, Given: e.Given, MessageID: e.MessageID, Size: e.Size,
		Protocol: e.Protocol, Peer: e.Peer, TLS: e.TLS, Account: e.Account,
		Reply: e.Reply, Mailbox: e.Mailbox, UID: e.UID, By: e.By, Next: e.Next, Related: e.Related,
		Dialogue: text(e.Dialogue),
	}
}
