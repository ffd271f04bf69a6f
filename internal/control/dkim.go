package control

import (
	"context"
	"iter"
	"time"
)

// DKIMKey is a key that signs mail, without its private half.
type DKIMKey struct {
	Domain    string    `json:"domain"`
	Selector  string    `json:"selector"`
	Algorithm string    `json:"algorithm"` // rsa-sha256, ed25519-sha256
	Bits      int       `json:"bits"`
	State     string    `json:"state"` // waiting, active, old, retired
	Made      time.Time `json:"made"`
	Since     time.Time `json:"since"`            // when it came to its state
	Until     time.Time `json:"until,omitzero"`   // when an old one is retired
	Checked   time.Time `json:"checked,omitzero"` // when its record was last looked for
	Finding   string    `json:"finding,omitempty"`
	Name      string    `json:"name"`   // of its record in the DNS
	Record    string    `json:"record"` // the text of that
	Zone      string    `json:"zone"`   // the same as a line of a zone file
}

// NewDKIMKeys says which keys are to be made.
type NewDKIMKeys struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector,omitempty"` // empty: one is chosen
	Algorithm string `json:"algorithm"`          // rsa, ed25519, both
}

// DKIMKeyName names keys of a domain: one, or all when Selector is empty.
type DKIMKeyName struct {
	Domain   string `json:"domain"`
	Selector string `json:"selector,omitempty"`
	Force    bool   `json:"force,omitempty"` // without a look at the DNS
}

// DKIMImport is a private key that another program has made.
type DKIMImport struct {
	Domain   string `json:"domain"`
	Selector string `json:"selector"`
	PEM      string `json:"pem"`
}

func (c *Client) DKIMKeys(ctx context.Context, domain string) iter.Seq2[DKIMKey, error] {
	return items[DKIMKey](ctx, c, "DKIMKeys", domain)
}

func (c *Client) AddDKIMKeys(ctx context.Context, n NewDKIMKeys) ([]DKIMKey, error) {
	return ask[[]DKIMKey](ctx, c, "AddDKIMKeys", n, reply{})
}

func (c *Client) ImportDKIMKey(ctx context.Context, i DKIMImport) (DKIMKey, error) {
	return ask[DKIMKey](ctx, c, "ImportDKIMKey", i, reply{})
}

func (c *Client) RotateDKIMKeys(ctx context.Context, domain string) ([]DKIMKey, error) {
	return ask[[]DKIMKey](ctx, c, "RotateDKIMKeys", domain, reply{})
}

func (c *Client) CheckDKIMKeys(ctx context.Context, domain string) ([]DKIMKey, error) {
	return ask[[]DKIMKey](ctx, c, "CheckDKIMKeys", domain, reply{})
}

func (c *Client) ActivateDKIMKeys(ctx context.Context, n DKIMKeyName) ([]DKIMKey, error) {
	return ask[[]DKIMKey](ctx, c, "ActivateDKIMKeys", n, reply{})
}

func (c *Client) RemoveDKIMKeys(ctx context.Context, n DKIMKeyName) error {
	return tell(ctx, c, "RemoveDKIMKeys", n)
}
