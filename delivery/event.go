package delivery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/event"
	"postroad/internal/hook"
	"postroad/internal/store"
	"postroad/spool"
)

// Webhook is an application of the administrator's that hears what becomes of mail.
type Webhook struct {
	event.Hook
	URL, Secret string
}

// webhookSchedule is how events are retried: an application is soon back, and what is old is of no use to it.
var webhookSchedule = Schedule{Min: 30 * time.Second, Max: time.Hour, Expire: 3 * 24 * time.Hour}

// webhookRoutes are the routes that the Transports of events name.
func webhookRoutes(hooks []Webhook) []Route {
	var routes []Route
	for _, h := range hooks {
		routes = append(routes, Route{
			Name: event.Transport(h.Name), Kind: HTTP, URL: h.URL, Secret: h.Secret, posted: postedEvents, Schedule: &webhookSchedule,
		})
	}
	return routes
}

// Hooks returns what events each webhook wants, for event.Open.
func Hooks(hooks []Webhook) []event.Hook {
	var all []event.Hook
	for _, h := range hooks {
		all = append(all, h.Hook)
	}
	return all
}

// eventKinds are the events that verdicts make.
var eventKinds = map[verdict]event.Kind{
	delivered: event.Delivered, relayed: event.Delivered, deferred: event.Deferred, failed: event.Bounced, expired: event.Bounced,
	discarded: event.Discarded, suppressed: event.Suppressed, expanded: event.Delivered,
}

// tell records in tx what webhooks hear of outcomes.
func (r *Runner) tell(tx store.Tx, now time.Time, outcomes []outcome) {
	if r.cfg.Events == nil {
		return
	}
	for i := range outcomes {
		o := &outcomes[i]
		out := &event.Outcome{
			Kind: eventKinds[o.verdict], Time: now, Recipient: &o.due.Recipient, Reply: o.reply,
			Attempts: o.due.Recipient.Attempts, Doubtful: o.doubtful,
		}
		if o.verdict == deferred {
			out.Next = o.next
		}
		r.cfg.Events.Record(tx, o.due.Message, out)
	}
}

// tellDelivered records in tx that a recipient of ours has a message.
func (r *Runner) tellDelivered(tx store.Tx, now time.Time, d *spool.Due, words string) {
	r.cfg.Events.Record(tx, d.Message, &event.Outcome{
		Kind: event.Delivered, Time: now, Recipient: &d.Recipient, Attempts: d.Recipient.Attempts + 1, Local: true,
		Reply: envelope.Reply{Code: 250, Enhanced: "2.1.5", Text: words},
	})
}

// Webhooks are those that hear of events.
func (r *Runner) Webhooks() []Webhook { return r.cfg.Webhooks }

// ErrNoWebhook means that there is no webhook of a name.
var ErrNoWebhook = errors.New("no such webhook")

// TestWebhook posts a sample of an event and returns the answer, whatever it says. ErrNoWebhook, or why there is none.
func (r *Runner) TestWebhook(ctx context.Context, name string) (hook.Answer, error) {
	i := slices.IndexFunc(r.cfg.Webhooks, func(h Webhook) bool { return h.Name == name })
	if i < 0 {
		return hook.Answer{}, ErrNoWebhook
	}
	h := &r.cfg.Webhooks[i]
	key, err := hook.ParseKey(h.Secret)
	if err != nil {
		return hook.Answer{}, err
	}
	body := event.Sample(r.cfg.Now())
	return r.poster.apps.Post(ctx, &hook.Request{
		URL: h.URL, ID: "test-" + r.cfg.Store.NewID().String(), ContentType: "application/json", Size: int64(len(body)), Key: key,
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	})
}
