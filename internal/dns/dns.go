// Package dns answers where a domain's mail goes. All of postroad asks through one
// Resolver, which tests replace. What is promised:
//
//   - Two kinds of failure are kept apart: ErrNotFound is the name system's own word
//     that there is nothing, so mail for it can be returned; any other error is
//     trouble, and the same question may have an answer later.
//   - An answer is Secure only when a validating server said so (the AD bit) and the
//     way to that server is trusted. Nothing is validated here.
//   - An answer is to the question that was asked, from the server that was asked, or
//     it does not count; one that breaks off or does not keep to the format is
//     trouble, never "there is nothing".
//   - Answers are remembered as long as they may be, an hour at most, in bounded memory.
package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	// ErrLoop means that the one who asks is the domain's best mail host.
	ErrLoop = errors.New("mail for this domain leads back to this server")
)

// maxHosts bounds how many mail hosts of one domain are considered, whatever it lists.
const maxHosts = 20

// MX is a mail host of a domain. A Host of "." is the null MX.
type MX struct {
	Host       string
	Preference uint16
}

// TLSA is what a host's certificate is held against (RFC 6698).
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// Answer is what the name system says.
type Answer[T any] struct {
	Records []T
	// Secure means that all of it, aliases on the way too, was validated by DNSSEC, and that the way to who
	// validated it is trusted.
	Secure bool
	Name   string // where aliases (CNAME) led; the name that was asked for when there was none
}

// Resolver looks names up. Names are in A-labels, without a final dot; aliases (CNAME) are followed. An error wraps
// ErrNotFound, or is temporary; with ErrNotFound, the answer's Secure says whether that was validated. Records come in
// no order. Any number of goroutines.
type Resolver interface {
	// LookupMX returns a domain's MX records.
	LookupMX(ctx context.Context, domain string) (Answer[MX], error)
	// LookupHost returns a host's addresses, of both families.
	LookupHost(ctx context.Context, host string) (Answer[netip.Addr], error)
	// LookupTXT returns TXT records, the strings of each joined.
	LookupTXT(ctx context.Context, name string) (Answer[string], error)
	// LookupTLSA returns the records at a name such as _25._tcp.mx.example.org.
	LookupTLSA(ctx context.Context, name string) (Answer[TLSA], error)
	// LookupAddr returns the names of an address.
	LookupAddr(ctx context.Context, ip netip.Addr) (Answer[string], error)
}

// Temporary reports whether asking again later may help.
func Temporary(err error) bool {
	return err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrNullMX) && !errors.Is(err, ErrLoop)
}

// Hosts returns the hosts to try for a domain's mail, best first, in random order among equals: its MX hosts, or without
// any the domain itself (RFC 5321, 5.1). At most 20; names that no host can have are left out, and when none remains the
// domain's mail goes nowhere: ErrNotFound. A host named own, and those that are no better, are not tried either, so that
// mail does not go round; when none is better, that is ErrLoop.
func Hosts(ctx context.Context, r Resolver, domain, own string) (Answer[string], error) {
	mx, err := r.LookupMX(ctx, domain)
	hosts := Answer[string]{Secure: mx.Secure, Name: cmp.Or(mx.Name, domain)}
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && len(mx.Records) == 0:
		mx.Records = []MX{{Host: domain}}
	case err != nil:
		return hosts, err
	case len(mx.Records) == 1 && mx.Records[0].Host == ".":
		return hosts, fmt.Errorf("%s: %w", domain, ErrNullMX)
	}
	good := usable(mx.Records)
	if len(good) == 0 {
		return hosts, fmt.Errorf("mail hosts of %s: %w", domain, ErrNotFound)
	}
	hosts.Records = names(better(good, own))
	if len(hosts.Records) == 0 {
		return hosts, fmt.Errorf("%s: %w", domain, ErrLoop)
	}
	return hosts, nil
}

// usable returns those with good host names in the order in which they are tried.
func usable(records []MX) (good []MX) {
	for _, mx := range records {
		host, err := envelope.ParseDomain(strings.TrimSuffix(mx.Host, "."))
		if err == nil && host[0] != '[' {
			good = append(good, MX{host, mx.Preference})
		}
	}
	rand.Shuffle(len(good), func(i, j int) { good[i], good[j] = good[j], good[i] })
	slices.SortStableFunc(good, func(a, b MX) int { return cmp.Compare(a.Preference, b.Preference) })
	return good
}

// better are those of a sorted list that come before the host named own.
func better(sorted []MX, own string) []MX {
	i := slices.IndexFunc(sorted, func(mx MX) bool { return strings.EqualFold(mx.Host, own) })
	if i < 0 {
		return sorted
	}
	worst := sorted[i].Preference
	return slices.DeleteFunc(sorted, func(mx MX) bool { return mx.Preference >= worst })
}

// names of a sorted list, each once, as many as are considered.
func names(sorted []MX) (hosts []string) {
	for _, mx := range sorted {
		if !slices.Contains(hosts, mx.Host) && len(hosts) < maxHosts {
			hosts = append(hosts, mx.Host)
		}
	}
	return hosts
}
