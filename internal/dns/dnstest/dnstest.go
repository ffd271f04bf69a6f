// Package dnstest is a resolver for tests: what it is told is all there is.
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
	mu    sync.Mutex // guards all below
	mx    map[string][]dns.MX
	hosts map[string][]netip.Addr
	fail  map[string]error
	asked map[string]int
}

// MX gives domain mail hosts, the first with preference 10, the second 20 and so on.
func (r *Resolver) MX(domain string, hosts ...string) {
	var mxs []dns.MX
	for i, h := range hosts {
		mxs = append(mxs, dns.MX{Host: h, Preference: uint16(10 * (i + 1))})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	set(&r.mx, domain, mxs)
}

// Host gives host addresses. It panics when one is malformed.
func (r *Resolver) Host(host string, ips ...string) {
	var addrs []netip.Addr
	for _, ip := range ips {
		addrs = append(addrs, netip.MustParseAddr(ip))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	set(&r.hosts, host, addrs)
}

// Fail makes every question about name end with err; nil lets it be answered again.
func (r *Resolver) Fail(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set(&r.fail, name, err)
}

// Asked returns how many questions there were about name.
func (r *Resolver) Asked(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[name]
}

// LookupMX is dns.Resolver's.
func (r *Resolver) LookupMX(ctx context.Context, domain string) ([]dns.MX, error) {
	return lookup(ctx, r, &r.mx, domain)
}

// LookupHost is dns.Resolver's.
func (r *Resolver) LookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	return lookup(ctx, r, &r.hosts, host)
}

func lookup[T any](ctx context.Context, r *Resolver, table *map[string][]T, name string) ([]T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set(&r.asked, name, r.asked[name]+1)
	if err := cmp.Or(ctx.Err(), r.fail[name]); err != nil {
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	found := (*table)[name]
	if len(found) == 0 {
		return nil, fmt.Errorf("look up %s: %w", name, dns.ErrNotFound)
	}
	return found, nil
}

func set[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = make(map[string]V)
	}
	(*m)[key] = v
}
