package postroad

import (
	"context"
	"errors"
	"iter"
	"net/url"

	"postroad/delivery"
	"postroad/internal/control"
	"postroad/internal/envelope"
	"postroad/internal/event"
	"postroad/internal/hook"
	"postroad/spool"
)

// errNoHooks is for a data directory without a server: which webhooks one has is for its config to say.
var errNoHooks = control.Errorf(control.Unavailable, "no server runs here, and only a running one has webhooks").
	WithHint("start it: postroad serve")

// Webhooks lists the applications that the running server tells of events.
func (a *Admin) Webhooks(ctx context.Context) iter.Seq2[control.Webhook, error] {
	return func(yield func(control.Webhook, error) bool) {
		if a.c.Listeners == nil {
			yield(control.Webhook{}, errNoHooks)
			return
		}
		for _, h := range a.c.Runner.Webhooks() {
			shown, err := a.showWebhook(ctx, &h)
			if !yield(shown, adminError(err)) || err != nil {
				return
			}
		}
	}
}

func (a *Admin) showWebhook(ctx context.Context, h *delivery.Webhook) (control.Webhook, error) {
	shown := control.Webhook{Name: h.Name, Accounts: h.Accounts}
	if u, err := url.Parse(h.URL); err == nil {
		u.RawQuery = ""
		shown.URL = u.String()
	}
	for _, kind := range h.Kinds {
		shown.Events = append(shown.Events, string(kind))
	}
	key, err := hook.ParseKey(h.Secret)
	if err != nil {
		return shown, err
	}
	shown.KeyID = key.ID()
	for e, err := range a.queue(ctx, spool.Filter{Recipient: event.Address(h.Name).String()}) {
		if err != nil {
			return shown, err
		}
		shown.Waiting += int64(len(e.Recipients))
	}
	return shown, nil
}

// TestWebhook posts a sample event, now and once.
func (a *Admin) TestWebhook(ctx context.Context, name string) (control.WebhookAnswer, error) {
	if a.c.Listeners == nil {
		return control.WebhookAnswer{}, errNoHooks
	}
	answer, err := a.c.Runner.TestWebhook(ctx, name)
	if errors.Is(err, delivery.ErrNoWebhook) {
		return control.WebhookAnswer{}, control.Errorf(control.NotFound, "there is no webhook %q", name).WithHint("see `postroad webhook list`")
	}
	if err != nil {
		return control.WebhookAnswer{}, control.Errorf(control.Unavailable, "the webhook does not answer: %v", err)
	}
	return control.WebhookAnswer{Code: answer.Code, Text: envelope.Sanitize(answer.Text, 500), TLS: answer.TLS, Peer: answer.Peer}, nil
}
