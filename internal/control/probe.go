package control

import (
	"context"
	"time"
)

// ProbeQuery says what mail a probe is to find the way of.
type ProbeQuery struct {
	To   string `json:"to"`             // a domain or an address
	From string `json:"from,omitempty"` // who would send it, for routes by sender
}

// Probe is what sending mail somewhere would meet. Nothing was sent.
type Probe struct {
	Domain   string      `json:"domain"`
	Verdict  string      `json:"verdict"` // what would become of mail
	Local    bool        `json:"local,omitempty"`
	Route    string      `json:"route,omitempty"` // in words; empty is by DNS
	MX       []ProbeMX   `json:"mx,omitempty"`
	DNSSEC   bool        `json:"dnssec"` // the MX records, or that there are none, were validated
	Alias    string      `json:"alias,omitempty"`
	MTASTS   string      `json:"mta_sts,omitempty"`     // in words
	Memory   string      `json:"tls_memory,omitempty"`  // in words
	Reports  []string    `json:"tls_reports,omitempty"` // where they go, as URIs
	Hosts    []ProbeHost `json:"hosts,omitempty"`       // in the order in which they would be tried
	Duration float64     `json:"seconds"`
}

// ProbeMX is an MX record.
type ProbeMX struct {
	Host       string `json:"host"` // "." is the null MX
	Preference int    `json:"preference"`
}

// ProbeHost is a mail host.
type ProbeHost struct {
	Name       string      `json:"name"`
	Addresses  []string    `json:"addresses,omitempty"`
	DNSSEC     bool        `json:"dnssec"`                // the addresses were validated
	Needs      string      `json:"needs"`                 // of TLS: opportunistic, encrypted or verified
	Because    string      `json:"because,omitempty"`     // who wants that, in words
	TLSA       []string    `json:"tlsa,omitempty"`        // records
	Trouble    string      `json:"trouble,omitempty"`     // why it would not be tried
	RequireTLS string      `json:"require_tls,omitempty"` // why mail with REQUIRETLS could not go there
	Calls      []ProbeCall `json:"calls,omitempty"`
}

// ProbeCall is one connection.
type ProbeCall struct {
	Address      string             `json:"address,omitempty"`
	Trouble      string             `json:"trouble,omitempty"`
	Name         string             `json:"name,omitempty"` // that the host gives itself
	TLS          string             `json:"tls,omitempty"`  // version and cipher suite
	Verified     bool               `json:"verified"`       // the certificate is good by what is asked of it
	Unverified   string             `json:"unverified,omitempty"`
	Certificates []ProbeCertificate `json:"certificates,omitempty"`
	Extensions   []string           `json:"extensions,omitempty"`
	Dialogue     string             `json:"dialogue,omitempty"`
}

// ProbeCertificate is one of those that a host shows.
type ProbeCertificate struct {
	Names  []string  `json:"names,omitempty"`
	Issuer string    `json:"issuer"`
	From   time.Time `json:"from"`
	Until  time.Time `json:"until"`
	SHA256 string    `json:"sha256"`     // of the certificate
	Key    string    `json:"public_key"` // SHA-256 of its public key, as TLSA 3 1 1 has it
}

// Probe finds out what sending mail somewhere would meet, without sending any.
func (c *Client) Probe(ctx context.Context, q ProbeQuery) (Probe, error) {
	return ask[Probe](ctx, c, "Probe", q, reply{})
}
