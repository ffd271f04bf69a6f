// Package tlspolicy knows what TLS a mail host must show before mail goes there: what the domain has said by DANE (RFC
// 7672) and MTA-STS (RFC 8461), and what it has always done. What is promised:
//
//   - A policy that holds is never weakened by what an attacker on the way can do: a name server that does not answer, a
//     text record that is gone, a policy host that is blocked, STARTTLS that is not offered, a certificate of another.
//     Mail waits then.
//   - What is fetched is bounded in size and time, and only public addresses are asked.
//   - Policies and memory are in the store, and survive a restart. Both tables are bounded.
//
// In the store:
//
//	ts  domain   the MTA-STS policy that was last fetched
//	tm  domain   for how long the domain has always shown a good certificate
package tlspolicy

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"postroad/internal/dns"
	"postroad/internal/store"
	"postroad/internal/tlsrpt"
)

// Store is what is asked of the store.
type Store interface {
	View(fn func(store.Reader) error) error
	Update(fn func(store.Tx) error, drafts ...*store.Draft) error
	UpdateSoon(fn func(store.Tx) error, drafts ...*store.Draft) error
}

// Recorder counts what sessions showed of a domain's TLS, for the reports of RFC 8460. It must not block.
type Recorder interface {
	Record(tlsrpt.Result)
}

// Config is what Open needs. Store and Resolver must be set; zero values of the rest are ready for use.
type Config struct {
	Store    Store
	Resolver dns.Resolver
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error) // to policy hosts; nil is the operating system's
	RootCAs  *x509.CertPool                                                    // for policy hosts and mail hosts; nil is the system's
	Recorder Recorder                                                          // nil records nothing

	// AllowPrivate lets policy hosts have addresses inside. Otherwise anyone who controls a domain could have us ask there.
	AllowPrivate bool
	SMTPPort     int // of mail hosts, in the names of TLSA records; 0 is 25
	HTTPSPort    int // of policy hosts; 0 is 443

	// Memory is for how long mail is kept back from a domain that always showed a good certificate and does not any more,
	// from the first time that it did not; 0 remembers nothing.
	Memory time.Duration

	Now func() time.Time // nil is time.Now
	Log *slog.Logger     // nil discards
}

// Policies are those of all domains. Any number of goroutines.
type Policies struct {
	// Set by Open, never changed.
	cfg    Config
	sts    *table
	memory *table

	stamps [256]atomic.Uint32 // by a hash of the domain: they grow when what is known of it changes

	mu      sync.Mutex           // guards what follows
	flights map[string]*flight   // fetches under way
	failed  map[string]time.Time // when fetches failed, of those that are not tried again yet
}

// Open reads how much the store has; the tables themselves are read when they are asked. It starts nothing.
func Open(c Config) (*Policies, error) {
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.SMTPPort == 0 {
		c.SMTPPort = 25
	}
	if c.HTTPSPort == 0 {
		c.HTTPSPort = 443
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &Policies{
		cfg: c, sts: &table{name: "ts", most: maxPolicies}, memory: &table{name: "tm", most: maxMemories},
		flights: make(map[string]*flight), failed: make(map[string]time.Time),
	}
	return p, errors.Join(p.sts.open(c.Store), p.memory.open(c.Store))
}

// Policy is what one domain asks of its mail hosts, for one attempt.
type Policy struct {
	p      *Policies
	domain string
	mx     dns.Answer[string]
	sts    *STS    // nil: none, or one that says nothing
	unsure bool    // there may be one that cannot be had now
	memory *Memory // nil: nothing that is asked for
	at     time.Time
	stamp  uint32
}

// Domain returns what holds for a domain, in A-labels, whose mail hosts are mx (dns.Hosts): it asks for a new MTA-STS
// policy where the domain's text record tells of one. An error is the store's or ctx's, and temporary: what holds is not known.
func (p *Policies) Domain(ctx context.Context, domain string, mx dns.Answer[string]) (*Policy, error) {
	now := p.cfg.Now()
	d := &Policy{p: p, domain: domain, mx: mx, at: now, stamp: p.stamp(domain).Load()}
	var err error
	if d.sts, d.unsure, err = p.discover(ctx, domain, now); err != nil {
		return nil, err
	}
	if d.memory, err = p.remember(domain, now); err != nil {
		return nil, err
	}
	return d, ctx.Err()
}

// keepUsing is how long a connection serves the policy that it was made under: what DNS says may have changed.
const keepUsing = 5 * time.Minute

// Holds reports whether a connection that was made under the policy may carry more mail: nothing that is known of the
// domain has changed since.
func (d *Policy) Holds() bool {
	return d.p.stamp(d.domain).Load() == d.stamp && d.p.cfg.Now().Sub(d.at) < keepUsing
}

// stamp is the counter of changes that a domain shares with some others.
func (p *Policies) stamp(domain string) *atomic.Uint32 {
	hash := uint8(0)
	for i := range len(domain) {
		hash = hash*31 + domain[i]
	}
	return &p.stamps[hash]
}

// Run keeps policies fresh until ctx is done: each that is in use is asked for anew once a day, so that an attacker would
// have to block it for as long as it holds (RFC 8461, 10.2).
func (p *Policies) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEach)
	defer tick.Stop()
	for {
		if err := p.sweep(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Log.Error("refreshing MTA-STS policies failed; it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *Policies) record(r tlsrpt.Result) {
	if p.cfg.Recorder != nil {
		r.Time = p.cfg.Now()
		p.cfg.Recorder.Record(r)
	}
}

// Session is how one conversation with a host began, or why it did not. What has nothing to do with TLS is not reported.
type Session struct {
	Host       string
	IP         netip.Addr
	Local      netip.Addr // our end
	Need       Need       // as it was applied
	TLS        string     // version and cipher suite; empty for a connection in the clear
	Verified   error      // nil: Need.Verify found the certificate good
	Err        error      // why there is no connection, of those reasons that are about TLS
	NotOffered bool       // the host does not offer STARTTLS
}
