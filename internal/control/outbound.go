package control

import (
	"context"
	"iter"
	"time"
)

// What an administrator orders of mail that goes out.

// HoldQueue puts recipients on hold.
type HoldQueue struct {
	QueueFilter
	Reason string `json:"reason,omitempty"`
}

// BounceQueue returns recipients to their senders.
type BounceQueue struct {
	QueueFilter
	Reason string `json:"reason,omitempty"` // that the senders are told
}

// RerouteQueue sends recipients by another route.
type RerouteQueue struct {
	QueueFilter
	Route string `json:"route"` // its name; "mx" for the hosts that DNS names, "default" for what is configured
}

// EditQueue changes what messages need. All recipients of a message are changed as soon as the filter chooses one.
type EditQueue struct {
	QueueFilter
	TLS string `json:"tls"` // require: verified TLS or no delivery; optional: TLS does not matter; default
}

// Explanation says why each recipient of a message is not yet delivered.
type Explanation struct {
	ID         string                 `json:"id"`
	Recipients []RecipientExplanation `json:"recipients"`     // at most 100
	More       int                    `json:"more,omitempty"` // others that wait too
}

// RecipientExplanation is what is known of one recipient.
type RecipientExplanation struct {
	QueueRecipient
	Why         []string     `json:"why"` // sentences, the most important first
	Destination *Destination `json:"destination,omitempty"`
}

// Destination is where mail goes: a domain by DNS, or a route.
type Destination struct {
	Name        string    `json:"name"`                 // the domain, or the route's name
	Route       string    `json:"route,omitempty"`      // what kind of route it is; empty is by DNS
	TLS         []string  `json:"tls,omitempty"`        // what is known of its TLS
	Waiting     int       `json:"waiting,omitempty"`    // recipients that are due and wait for their turn
	Active      int       `json:"active,omitempty"`     // attempts under way
	Limit       int       `json:"limit,omitempty"`      // of these, now
	Idle        int       `json:"idle,omitempty"`       // connections that wait for another message
	PerMinute   int       `json:"per_minute,omitempty"` // attempts at most
	DeadSince   time.Time `json:"dead_since,omitzero"`  // no host could be reached
	DeadUntil   time.Time `json:"dead_until,omitzero"`  // then one recipient tries it
	Probing     bool      `json:"probing,omitempty"`    // one does now
	Reply       string    `json:"reply,omitempty"`      // the last
	ReplyAt     time.Time `json:"reply_at,omitzero"`    // when it came
	Throttled   time.Time `json:"throttled,omitzero"`   // the rate that is configured lets the next message go then
	Suspended   time.Time `json:"suspended,omitzero"`   // since when
	Reason      string    `json:"reason,omitempty"`     // of the suspension
	SuspendedBy string    `json:"suspended_by,omitempty"`
}

// SuspendDestination stops all attempts at a destination.
type SuspendDestination struct {
	Name   string `json:"name"` // a domain, or the name of a route
	Reason string `json:"reason,omitempty"`
}

// HoldRule puts new mail on hold. Fields that are empty match all.
type HoldRule struct {
	Number    uint64    `json:"number"`
	Sender    string    `json:"sender,omitempty"`    // an address, "@domain", or "<>"
	Recipient string    `json:"recipient,omitempty"` // an address or "@domain"
	Account   string    `json:"account,omitempty"`   // who sends it
	Reason    string    `json:"reason,omitempty"`
	Since     time.Time `json:"since"`
	By        string    `json:"by,omitempty"`
}

// Suppression is an address that an account's mail is not sent to.
type Suppression struct {
	Account string    `json:"account"`
	Address string    `json:"address"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"`
	Reply   string    `json:"reply,omitempty"` // what its server said, or the reason of who entered it
	By      string    `json:"by,omitempty"`    // empty: the account's own mail came back
}

// NewSuppression is a suppression to be made.
type NewSuppression struct {
	Account string  `json:"account"`
	Address string  `json:"address"`
	For     Seconds `json:"for,omitempty"` // 0 is until it is removed
	Reason  string  `json:"reason,omitempty"`
}

// The methods of Client for what goes out, each as Service says.

func (c *Client) HoldQueue(ctx context.Context, h HoldQueue) (Changed, error) {
	return ask[Changed](ctx, c, "HoldQueue", h, reply{})
}

func (c *Client) ExpireQueue(ctx context.Context, f QueueFilter) (Changed, error) {
	return ask[Changed](ctx, c, "ExpireQueue", f, reply{})
}

func (c *Client) BounceQueue(ctx context.Context, b BounceQueue) (Changed, error) {
	return ask[Changed](ctx, c, "BounceQueue", b, reply{})
}

func (c *Client) RerouteQueue(ctx context.Context, r RerouteQueue) (Changed, error) {
	return ask[Changed](ctx, c, "RerouteQueue", r, reply{})
}

func (c *Client) EditQueue(ctx context.Context, e EditQueue) (Changed, error) {
	return ask[Changed](ctx, c, "EditQueue", e, reply{})
}

func (c *Client) ExplainQueue(ctx context.Context, id string) (Explanation, error) {
	return ask[Explanation](ctx, c, "ExplainQueue", id, reply{})
}

func (c *Client) Destinations(ctx context.Context, name string) iter.Seq2[Destination, error] {
	return items[Destination](ctx, c, "Destinations", name)
}

func (c *Client) SuspendDestination(ctx context.Context, s SuspendDestination) (Destination, error) {
	return ask[Destination](ctx, c, "SuspendDestination", s, reply{})
}

func (c *Client) ResumeDestination(ctx context.Context, name string) (Changed, error) {
	return ask[Changed](ctx, c, "ResumeDestination", name, reply{})
}

func (c *Client) ForgetDestination(ctx context.Context, name string) error {
	return tell(ctx, c, "ForgetDestination", name)
}

func (c *Client) HoldRules(ctx context.Context) iter.Seq2[HoldRule, error] {
	return items[HoldRule](ctx, c, "HoldRules", none{})
}

func (c *Client) AddHoldRule(ctx context.Context, h HoldRule) (HoldRule, error) {
	return ask[HoldRule](ctx, c, "AddHoldRule", h, reply{})
}

func (c *Client) RemoveHoldRule(ctx context.Context, number uint64) error {
	return tell(ctx, c, "RemoveHoldRule", number)
}

func (c *Client) Suppressions(ctx context.Context, account string) iter.Seq2[Suppression, error] {
	return items[Suppression](ctx, c, "Suppressions", account)
}

func (c *Client) AddSuppression(ctx context.Context, n NewSuppression) (Suppression, error) {
	return ask[Suppression](ctx, c, "AddSuppression", n, reply{})
}

func (c *Client) RemoveSuppression(ctx context.Context, s Suppression) error {
	return tell(ctx, c, "RemoveSuppression", s)
}
