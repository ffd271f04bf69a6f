package control

import (
	"context"
	"iter"
)

// Webhook is an application that the running server tells of events.
type Webhook struct {
	Name     string   `json:"name"`
	URL      string   `json:"url"`              // without what may be secret in it
	Events   []string `json:"events,omitempty"` // none is all
	Accounts []string `json:"accounts,omitempty"`
	KeyID    string   `json:"key_id"`  // of the key that signs
	Waiting  int64    `json:"waiting"` // posts of events in the queue
}

// WebhookAnswer is what an application said to a test.
type WebhookAnswer struct {
	Code int    `json:"code"` // of HTTP; 2xx takes an event
	Text string `json:"text,omitempty"`
	TLS  string `json:"tls,omitempty"`
	Peer string `json:"peer,omitempty"`
}

func (c *Client) Webhooks(ctx context.Context) iter.Seq2[Webhook, error] {
	return items[Webhook](ctx, c, "Webhooks", none{})
}

func (c *Client) TestWebhook(ctx context.Context, name string) (WebhookAnswer, error) {
	return ask[WebhookAnswer](ctx, c, "TestWebhook", name, reply{})
}
