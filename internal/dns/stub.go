package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Options say whom New's resolver asks, and how. The zero value asks as the operating system is set up to.
type Options struct {
	// Servers are asked in this order: "192.0.2.1" or "[2001:db8::1]:5353". None are those of resolv.conf, which is
	// read again when it changes.
	Servers  []string
	Trust    Trust
	Timeout  time.Duration // for one answer of one server; 0 is resolv.conf's, or 5 s with Servers
	Attempts int           // rounds through the servers; 0 is resolv.conf's, or 2 with Servers
	Now      func() time.Time

	ResolvConf, Hosts string // paths; empty are those below /etc
}

// Trust says whose word is taken that DNSSEC has validated an answer. A server's word is worth as much as the way to it:
// whoever sits there can write what he likes.
type Trust uint8

// Whom to trust.
const (
	TrustLocal Trust = iota // servers on this machine, and those of a resolv.conf with "options trust-ad"
	TrustAll                // all servers
	TrustNone               // none: no answer is Secure
)

// Stub is a Resolver that asks servers which do the work of recursion, and of DNSSEC, for it.
type Stub struct {
	resolv *file[setup]
	hosts  *file[map[string][]netip.Addr]
	system *net.Resolver // for names of one label, which the operating system may complete; nil with Options.Servers
	cache  *cache
}

// New returns a resolver. It fails when a server's address is none.
func New(o Options) (*Stub, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Stub{cache: newCache(o.Now), hosts: &file[map[string][]netip.Addr]{path: or(o.Hosts, "/etc/hosts"), parse: parseHosts}}
	if len(o.Servers) == 0 {
		s.system = new(net.Resolver)
		s.resolv = &file[setup]{path: or(o.ResolvConf, "/etc/resolv.conf"), parse: o.parseResolvConf}
		return s, nil
	}
	fixed := setup{timeout: 5 * time.Second, attempts: 2}
	for _, text := range o.Servers {
		addr, err := parseServer(text)
		if err != nil {
			return nil, err
		}
		fixed.servers = append(fixed.servers, server{addr: addr})
	}
	fixed = o.override(fixed, false)
	s.resolv = &file[setup]{parse: func([]byte) setup { return fixed }}
	return s, nil
}

// System returns a resolver that asks as the operating system is set up to.
func System() *Stub {
	s, _ := New(Options{}) // without servers, there is nothing that could be wrong
	return s
}

// notBefore is the key of a context's time.
type notBefore struct{}

// NotBefore returns a context in which a Stub makes no use of what it has heard before a time.
func NotBefore(ctx context.Context, t time.Time) context.Context {
	return context.WithValue(ctx, notBefore{}, t)
}

// LookupMX is Resolver's.
func (s *Stub) LookupMX(ctx context.Context, domain string) (Answer[MX], error) {
	return lookup(ctx, s, "mail hosts of ", domain, dns.TypeMX, func(rr *dns.MX) MX {
		return MX{Host: relative(rr.Mx), Preference: rr.Preference}
	})
}

// LookupTXT is Resolver's.
func (s *Stub) LookupTXT(ctx context.Context, name string) (Answer[string], error) {
	return lookup(ctx, s, "text records of ", name, dns.TypeTXT, func(rr *dns.TXT) string {
		return unescape(strings.Join(rr.Txt, ""))
	})
}

// LookupTLSA is Resolver's.
func (s *Stub) LookupTLSA(ctx context.Context, name string) (Answer[TLSA], error) {
	return lookup(ctx, s, "TLSA records of ", name, dns.TypeTLSA, func(rr *dns.TLSA) TLSA {
		return TLSA{Usage: rr.Usage, Selector: rr.Selector, Matching: rr.MatchingType, Data: unhex(rr.Certificate)}
	})
}

// LookupAddr is Resolver's.
func (s *Stub) LookupAddr(ctx context.Context, ip netip.Addr) (Answer[string], error) {
	name, err := dns.ReverseAddr(ip.Unmap().WithZone("").String())
	if err != nil {
		return Answer[string]{}, fmt.Errorf("names of %s: %w", ip, ErrNotFound)
	}
	return lookup(ctx, s, "names of "+ip.String()+" at ", name, dns.TypePTR, func(rr *dns.PTR) string { return relative(rr.Ptr) })
}

// LookupHost is Resolver's. Names of the hosts file are answered by it, as the operating system does.
func (s *Stub) LookupHost(ctx context.Context, host string) (Answer[netip.Addr], error) {
	if ips := (*s.hosts.get())[strings.ToLower(relative(host))]; len(ips) > 0 {
		return Answer[netip.Addr]{Records: slices.Clone(ips), Name: host}, nil
	}
	answer, err := s.lookupBoth(ctx, host)
	if err != nil && s.system != nil && !strings.Contains(relative(host), ".") {
		return s.completed(ctx, host, err)
	}
	return answer, err
}

// completed asks the operating system, which may complete a name as its search list says.
func (s *Stub) completed(ctx context.Context, host string, err error) (Answer[netip.Addr], error) {
	answer := Answer[netip.Addr]{Name: host}
	ips, _ := s.system.LookupNetIP(ctx, "ip", host)
	for _, ip := range ips {
		answer.Records = append(answer.Records, ip.Unmap())
	}
	if len(answer.Records) == 0 {
		return answer, err
	}
	return answer, nil
}

// lookupBoth asks for addresses of both families at a time. When one question has no answer, the other's is good enough
// to reach the host; what it says of DNSSEC then counts alone, or who makes a question fail could make us forget DANE.
func (s *Stub) lookupBoth(ctx context.Context, host string) (Answer[netip.Addr], error) {
	var six, four Answer[netip.Addr]
	var err6, err4 error
	var asking sync.WaitGroup
	asking.Go(func() {
		six, err6 = lookup(ctx, s, "addresses of ", host, dns.TypeAAAA, func(rr *dns.AAAA) netip.Addr { return addrOf(rr.AAAA) })
	})
	four, err4 = lookup(ctx, s, "addresses of ", host, dns.TypeA, func(rr *dns.A) netip.Addr { return addrOf(rr.A) })
	asking.Wait()
	switch {
	case Temporary(err6):
		return four, firstTrouble(err4, err6)
	case Temporary(err4):
		return six, firstTrouble(err6, err4)
	case err4 == nil && err6 == nil:
		four.Records = append(four.Records, six.Records...)
	case err4 != nil && err6 == nil:
		four.Records, four.Name, err4 = six.Records, six.Name, nil
	}
	four.Secure = four.Secure && six.Secure
	return four, err4
}

// firstTrouble is the error when one question was in trouble and the other ended with err: that there is nothing of one
// family says nothing about the other.
func firstTrouble(err, trouble error) error {
	if errors.Is(err, ErrNotFound) {
		return trouble
	}
	return err
}

// lookup asks for the records of one type at a name. What says which, for errors.
func lookup[T any, R dns.RR](ctx context.Context, s *Stub, what, name string, typ uint16, read func(R) T) (Answer[T], error) {
	a := Answer[T]{Name: relative(name)}
	found, err := s.resolve(ctx, question{strings.ToLower(dns.Fqdn(name)), typ})
	if err != nil {
		return a, fmt.Errorf("%s%s: %w", what, relative(name), err)
	}
	for _, rr := range found.records {
		if r, ok := rr.(R); ok {
			a.Records = append(a.Records, read(r))
		}
	}
	a.Secure = found.secure
	if found.name != "" {
		a.Name = relative(found.name)
	}
	if len(a.Records) == 0 {
		return a, fmt.Errorf("%s%s: %w", what, a.Name, ErrNotFound)
	}
	return a, nil
}

// resolve answers from memory, or asks; who asks what another is asking already waits for him.
func (s *Stub) resolve(ctx context.Context, q question) (found, error) {
	if _, ok := dns.IsDomainName(q.name); !ok || strings.Contains(q.name, `\`) {
		return found{}, fmt.Errorf("%w: it is no name", ErrNotFound)
	}
	setup := s.resolv.get()
	since, _ := ctx.Value(notBefore{}).(time.Time)
	for {
		known, others := s.cache.begin(setup, q, since)
		if known != nil {
			return known.found, known.err
		}
		if others == nil {
			break
		}
		select {
		case <-others:
		case <-ctx.Done():
			return found{}, ctx.Err()
		}
	}
	f, err := setup.follow(ctx, q)
	if ctx.Err() != nil && err != nil {
		s.cache.give(setup, q, nil)
		return f, err
	}
	s.cache.give(setup, q, &known{found: f, err: err})
	return f, err
}

// relative is a name without the final dot; the root is ".".
func relative(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
