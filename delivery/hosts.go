package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

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

// errNoSource means that there is no local address from which a host can be reached.
var errNoSource = errors.New("has no address of a family that mail goes out by; see source in [delivery]")

// errLoop means that we ourselves are the destination's mail host.
var errLoop = dns.ErrLoop

// host is where mail is taken to: its name, and the addresses that may be dialled.
type host struct {
	name  string
	addrs dns.Answer[netip.Addr]
}

// hosts returns the names of the destination's mail hosts, best first. What the administrator has written, or the
// sender in an address, is as good as what DNSSEC has validated.
func (a *attempt) hosts(ctx context.Context) (dns.Answer[string], error) {
	if !a.lane.byMX() {
		return dns.Answer[string]{Records: []string{a.lane.route.Host}, Secure: true, Name: a.lane.route.Host}, nil
	}
	if _, ok := envelope.Literal(a.lane.domain); ok {
		return dns.Answer[string]{Records: []string{a.lane.domain}, Secure: true, Name: a.lane.domain}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.r.cfg.Limits.Connect)
	defer cancel()
	return dns.Hosts(ctx, a.r.cfg.Resolver, a.lane.domain, a.r.cfg.Hostname)
}

// addresses looks a host up. The addresses that are checked are those that are dialled: the name is not looked up again.
func (a *attempt) addresses(ctx context.Context, name string) (host, error) {
	answer, err := a.lookup(ctx, name)
	if err != nil {
		return host{}, err
	}
	if a.lane.byMX() && !a.r.cfg.AllowPrivate {
		if answer.Records = slices.DeleteFunc(slices.Clone(answer.Records), isInside); len(answer.Records) == 0 {
			return host{}, fmt.Errorf("%s %w", name, errPrivate)
		}
	}
	if a.lane.byMX() && slices.ContainsFunc(answer.Records, a.isOwn) {
		return host{}, fmt.Errorf("%s is an address of this server: %w", name, errLoop)
	}
	if answer.Records = interleave(a.dialable(answer.Records)); len(answer.Records) == 0 {
		return host{}, fmt.Errorf("%s %w", name, errNoSource)
	}
	return host{name, answer}, nil
}

// isOwn reports whether mail to an address would come back to us.
func (a *attempt) isOwn(ip netip.Addr) bool {
	return a.r.cfg.Own != nil && a.r.cfg.Own(netip.AddrPortFrom(ip, uint16(a.r.cfg.Port)))
}

// sources are the local addresses that are dialled from: the route's, or the server's.
func (a *attempt) sources() []netip.Addr {
	if route := a.lane.route; route != nil && len(route.Source) > 0 {
		return route.Source
	}
	return a.r.cfg.Source
}

// dialable are the addresses for whose family there is a local address, when local addresses are given.
func (a *attempt) dialable(ips []netip.Addr) []netip.Addr {
	sources := a.sources()
	if len(sources) == 0 {
		return ips
	}
	return slices.DeleteFunc(slices.Clone(ips), func(ip netip.Addr) bool { return !sourceFor(sources, ip).IsValid() })
}

// sourceFor is the local address from which ip is dialled; the zero Addr is any, or none.
func sourceFor(sources []netip.Addr, ip netip.Addr) netip.Addr {
	for _, from := range sources {
		if from.Is4() == ip.Is4() {
			return from
		}
	}
	return netip.Addr{}
}

// interleave mixes the families, IPv6 first, in random order within each: when one of them leads nowhere, the next
// address is of the other (RFC 8305, 4).
func interleave(ips []netip.Addr) []netip.Addr {
	ips = slices.Clone(ips)
	rand.Shuffle(len(ips), func(i, j int) { ips[i], ips[j] = ips[j], ips[i] })
	var mixed, six, four []netip.Addr
	for _, ip := range ips {
		if ip.Is4() {
			four = append(four, ip)
		} else {
			six = append(six, ip)
		}
	}
	for len(six) > 0 && len(four) > 0 {
		mixed = append(mixed, six[0], four[0])
		six, four = six[1:], four[1:]
	}
	return append(append(mixed, six...), four...)
}

// patience is how long a connection to one of a host's n addresses may take: they share the time that a host has,
// but none has less than it takes to send the first packet again twice.
func (a *attempt) patience(n int) time.Duration {
	all := a.r.cfg.Limits.Connect
	return min(all, max(all/time.Duration(n), 5*time.Second))
}

func (a *attempt) lookup(ctx context.Context, name string) (dns.Answer[netip.Addr], error) {
	ip, ok := envelope.Literal(name)
	if !ok {
		ip, _ = netip.ParseAddr(name)
	}
	if ip.IsValid() {
		return dns.Answer[netip.Addr]{Records: []netip.Addr{ip.Unmap()}, Name: name}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.r.cfg.Limits.Connect)
	defer cancel()
	answer, err := a.r.cfg.Resolver.LookupHost(ctx, name)
	if err == nil && len(answer.Records) == 0 {
		err = fmt.Errorf("%s: %w", name, dns.ErrNotFound)
	}
	return answer, err
}

// dialTo connects to an address, from the local address that is for its family.
func (a *attempt) dialTo(ctx context.Context, ip netip.Addr, port int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(a.wait, a.r.cfg.Limits.Connect))
	defer cancel()
	return a.r.cfg.Dial(ctx, sourceFor(a.sources(), ip), "tcp", netip.AddrPortFrom(ip, uint16(port)).String())
}

// dialFrom is a Config.Dial that asks the operating system.
func dialFrom(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return d.DialContext(ctx, network, addr)
}

func isInside(ip netip.Addr) bool { return !dns.Public(ip) }
