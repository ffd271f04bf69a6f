package control

import (
	"context"
	"iter"
	"time"
)

// DomainTLS is what is known of the TLS that a domain's mail hosts must show.
type DomainTLS struct {
	Domain string        `json:"domain"`
	MTASTS *MTASTSPolicy `json:"mta_sts,omitempty"`
	Memory *TLSMemory    `json:"memory,omitempty"`
}

// MTASTSPolicy is the MTA-STS policy that a domain published last.
type MTASTSPolicy struct {
	ID      string    `json:"id,omitempty"`
	Mode    string    `json:"mode"` // "enforce", "testing", or "none"
	Hosts   []string  `json:"mx"`
	Fetched time.Time `json:"fetched"`
	Expires time.Time `json:"expires"`
	Trouble string    `json:"trouble,omitempty"` // why it could not be refreshed
}

// TLSMemory is how a domain's mail hosts have shown themselves so far.
type TLSMemory struct {
	Since       time.Time `json:"since"` // in all sessions since then with a good certificate
	Last        time.Time `json:"last"`
	Sessions    int       `json:"sessions"`
	Established bool      `json:"established"`          // long enough for mail to wait when it changes
	Failing     time.Time `json:"failing,omitzero"`     // since when it is not so any more
	Until       time.Time `json:"waits_until,omitzero"` // mail waits until then
	Trouble     string    `json:"trouble,omitempty"`
}

func (c *Client) TLSDomains(ctx context.Context) iter.Seq2[DomainTLS, error] {
	return items[DomainTLS](ctx, c, "TLSDomains", none{})
}

func (c *Client) TLSDomain(ctx context.Context, domain string) (DomainTLS, error) {
	return ask[DomainTLS](ctx, c, "TLSDomain", domain, reply{})
}

func (c *Client) ForgetTLS(ctx context.Context, domain string) error {
	return tell(ctx, c, "ForgetTLS", domain)
}
