package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"postroad/internal/dns"
	"postroad/internal/envelope"
)

// worse keeps the error that leaves hope: as long as one question has no answer,
// the destination is not known to be nowhere.
func worse(a, b error) error {
	if a == nil || dns.Temporary(b) {
		return b
	}
	return a
}

// errPrivate means that a name leads to addresses that mail from outside must not reach.
var errPrivate = errors.New("leads to a private address only, and DNS is not trusted with those; a route can send mail there")

// errLoop means that we ourselves are the destination's mail host.
var errLoop = errors.New("mail for this domain leads back to this server")

// hosts returns the destination's mail hosts, best first.
func (a *attempt) hosts(ctx context.Context) ([]string, error) {
	if !a.lane.byMX() {
		return []string{a.lane.route.Host}, nil
	}
	if _, ok := envelope.Literal(a.lane.domain); ok {
		return []string{a.lane.domain}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.r.cfg.Limits.Connect)
	defer cancel()
	answer, err := dns.Hosts(ctx, a.r.cfg.Resolver, a.lane.domain)
	if err != nil {
		return nil, err
	}
	hosts := answer.Records
	for i, host := range hosts {
		if strings.EqualFold(host, a.r.cfg.Hostname) { // RFC 5321, 5.1: neither us nor those that are worse
			hosts = hosts[:i]
			break
		}
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("%s: %w", a.lane.domain, errLoop)
	}
	return hosts, nil
}

// addresses looks a host up. The addresses that are checked are those that are
// dialled: the name is not looked up again.
func (a *attempt) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := a.lookup(ctx, host)
	if err != nil || !a.lane.byMX() || a.r.cfg.AllowPrivate {
		return addrs, err
	}
	var public []netip.Addr
	for _, ip := range addrs {
		if isPublic(ip) {
			public = append(public, ip)
		}
	}
	if len(public) == 0 {
		return nil, fmt.Errorf("%s %w", host, errPrivate)
	}
	return public, nil
}

func (a *attempt) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, ok := envelope.Literal(host); ok {
		return []netip.Addr{ip}, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.r.cfg.Limits.Connect)
	defer cancel()
	answer, err := a.r.cfg.Resolver.LookupHost(ctx, host)
	if err == nil && len(answer.Records) == 0 {
		err = fmt.Errorf("%s: %w", host, dns.ErrNotFound)
	}
	return answer.Records, err
}

// notPublic are networks that netip does not name.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("fec0::/10"),
}

// isPublic reports whether mail may go to an address that a stranger's DNS names.
// Addresses that carry an IPv4 address in them are not public: they would get round the rule.
func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap()
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	return ip.IsGlobalUnicast() && !ip.IsPrivate()
}
