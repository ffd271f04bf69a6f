// Package dns answers where a domain's mail goes. All of postroad asks through one
// Resolver, which tests replace. Two kinds of failure are kept apart: ErrNotFound is
// the name system's own word that there is nothing, so mail for it can be returned;
// any other error is trouble, and the same question may have an answer later.
package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"postroad/internal/envelope"
)

// Errors that callers branch on.
var (
	// ErrNotFound means that the name, or the record asked for, does not exist
	// (NXDOMAIN, or an answer without data).
	ErrNotFound = errors.New("no such name in the DNS")
	// ErrNullMX means that the domain says it takes no mail (RFC 7505).
	ErrNullMX = errors.New("the domain takes no mail (null MX)")
)

// maxHosts bounds how many mail hosts of one domain are considered, whatever it lists.
const maxHosts = 20

// MX is a mail host of a domain. A Host of "." is the null MX.
type MX struct {
	Host       string
	Preference uint16
}

// Resolver looks names up. Names are in A-labels, without a final dot. An error
// wraps ErrNotFound, or is temporary. Any number of goroutines.
type Resolver interface {
	// LookupMX returns a domain's MX records, in no order.
	LookupMX(ctx context.Context, domain string) ([]MX, error)
	// LookupHost returns a host's addresses, of both families; aliases (CNAME) are followed.
	LookupHost(ctx context.Context, host string) ([]netip.Addr, error)
}

// Temporary reports whether asking again later may help.
func Temporary(err error) bool {
	return err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrNullMX)
}

// Hosts returns the hosts to try for a domain's mail, best first, in random order
// among equals: its MX hosts, or without any the domain itself (RFC 5321, 5.1). At
// most 20; names that no host can have are left out, and when none remains the
// domain's mail goes nowhere: ErrNotFound.
func Hosts(ctx context.Context, r Resolver, domain string) ([]string, error) {
	records, err := r.LookupMX(ctx, domain)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && len(records) == 0:
		return []string{domain}, nil
	case err != nil:
		return nil, err
	case len(records) == 1 && records[0].Host == ".":
		return nil, fmt.Errorf("%s: %w", domain, ErrNullMX)
	}
	hosts := usable(records)
	if len(hosts) == 0 {
		return nil, fmt.Errorf("mail hosts of %s: %w", domain, ErrNotFound)
	}
	return hosts, nil
}

// usable returns the good host names in the order in which they are tried, each once.
func usable(records []MX) []string {
	records = slices.Clone(records)
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	slices.SortStableFunc(records, func(a, b MX) int { return cmp.Compare(a.Preference, b.Preference) })
	var hosts []string
	for _, mx := range records {
		host, err := envelope.ParseDomain(strings.TrimSuffix(mx.Host, "."))
		if err != nil || host[0] == '[' || slices.Contains(hosts, host) {
			continue
		}
		if hosts = append(hosts, host); len(hosts) == maxHosts {
			break
		}
	}
	return hosts
}

// System returns a resolver that asks as the operating system is set up to.
func System() Resolver { return system{&net.Resolver{}} }

type system struct{ net *net.Resolver }

func (s system) LookupMX(ctx context.Context, domain string) ([]MX, error) {
	records, err := s.net.LookupMX(ctx, absolute(domain))
	if err != nil && len(records) == 0 { // with records, only some of them were malformed
		return nil, wrap("mail hosts of "+domain, err)
	}
	mxs := make([]MX, 0, len(records))
	for _, mx := range records {
		mxs = append(mxs, MX{Host: mx.Host, Preference: mx.Pref})
	}
	return mxs, nil
}

func (s system) LookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	ips, err := s.net.LookupNetIP(ctx, "ip", absolute(host))
	if err != nil && !strings.Contains(host, ".") {
		// One label, as a route may name: the hosts file has it without a final dot.
		ips, err = s.net.LookupNetIP(ctx, "ip", host)
	}
	if err != nil {
		return nil, wrap("addresses of "+host, err)
	}
	for i, ip := range ips {
		ips[i] = ip.Unmap()
	}
	return ips, nil
}

// absolute keeps the search list of the operating system out: a domain in an address is complete.
func absolute(name string) string { return strings.TrimSuffix(name, ".") + "." }

func wrap(what string, err error) error {
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return fmt.Errorf("%s: %w", what, err)
}
