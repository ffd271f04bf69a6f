// Package dnstest is a resolver for tests, and a DNS server: what they are told is all there is.
package dnstest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"postroad/internal/dns"
)

// ErrServFail is a temporary failure, as when a domain's name servers do not answer.
var ErrServFail = errors.New("server failure")

// Resolver is a dns.Resolver whose zero value knows no names. Any number of goroutines.
type Resolver struct {
	mu     sync.Mutex // guards all below
	mx     map[string][]dns.MX
	hosts  map[string][]netip.Addr
	texts  map[string][]string
	tlsa   map[string][]dns.TLSA
	names  map[string][]string // of addresses
	fail   map[string]error
	secure map[string]bool
	asked  map[string]int
}

// MX gives domain mail hosts, the first with preference 10, the second 20 and so on.
func (r *Resolver) MX(domain string, hosts ...string) {
	var mxs []dns.MX
	for i, h := range hosts {
		mxs = append(mxs, dns.MX{Host: h, Preference: uint16(10 * (i + 1))})
	}
	give(r, &r.mx, domain, mxs)
}

// Host gives host addresses. It panics when one is malformed.
func (r *Resolver) Host(host string, ips ...string) {
	var addrs []netip.Addr
	for _, ip := range ips {
		addrs = append(addrs, netip.MustParseAddr(ip))
	}
	give(r, &r.hosts, host, addrs)
}

// TXT gives name texts.
func (r *Resolver) TXT(name string, texts ...string) { give(r, &r.texts, name, texts) }

// TLSA gives name records.
func (r *Resolver) TLSA(name string, records ...dns.TLSA) { give(r, &r.tlsa, name, records) }

// Addr gives an address names.
func (r *Resolver) Addr(ip string, names ...string) { give(r, &r.names, ip, names) }

// Secure makes all that is said of names validated, also that there is nothing.
func (r *Resolver) Secure(names ...string) {
	for _, name := range names {
		give(r, &r.secure, name, true)
	}
}

// Fail makes every question about name end with err; nil lets it be answered again.
func (r *Resolver) Fail(name string, err error) { give(r, &r.fail, name, err) }

// Asked returns how many questions there were about name.
func (r *Resolver) Asked(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[name]
}

// LookupMX is dns.Resolver's.
func (r *Resolver) LookupMX(ctx context.Context, domain string) (dns.Answer[dns.MX], error) {
	return lookup(ctx, r, &r.mx, domain)
}

// LookupHost is dns.Resolver's.
func (r *Resolver) LookupHost(ctx context.Context, host string) (dns.Answer[netip.Addr], error) {
	return lookup(ctx, r, &r.hosts, host)
}

// LookupTXT is dns.Resolver's.
func (r *Resolver) LookupTXT(ctx context.Context, name string) (dns.Answer[string], error) {
	return lookup(ctx, r, &r.texts, name)
}

// LookupTLSA is dns.Resolver's.
func (r *Resolver) LookupTLSA(ctx context.Context, name string) (dns.Answer[dns.TLSA], error) {
	return lookup(ctx, r, &r.tlsa, name)
}

// LookupAddr is dns.Resolver's.
func (r *Resolver) LookupAddr(ctx context.Context, ip netip.Addr) (dns.Answer[string], error) {
	return lookup(ctx, r, &r.names, ip.String())
}

func lookup[T any](ctx context.Context, r *Resolver, table *map[string][]T, name string) (dns.Answer[T], error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set(&r.asked, name, r.asked[name]+1)
	a := dns.Answer[T]{Records: (*table)[name], Secure: r.secure[name], Name: name}
	if err := cmp.Or(ctx.Err(), r.fail[name]); err != nil {
		return dns.Answer[T]{Name: name}, fmt.Errorf("look up %s: %w", name, err)
	}
	if len(a.Records) == 0 {
		return a, fmt.Errorf("look up %s: %w", name, dns.ErrNotFound)
	}
	return a, nil
}

// give sets an entry of one of r's tables.
func give[V any](r *Resolver, m *map[string]V, key string, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set(m, key, v)
}

func set[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = make(map[string]V)
	}
	(*m)[key] = v
}
