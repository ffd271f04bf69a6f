package mailauth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"blitiri.com.ar/go/spf"

	"postroad/internal/dns"
	"postroad/internal/envelope"
)

// SPF is what a domain says of who may send its mail (RFC 7208).
type SPF struct {
	Verdict Verdict
	Domain  string // that was asked: the sender's, or of a report that of HELO
	Helo    bool   // it was that of HELO
	Reason  string // in words; empty when it passes
}

// CheckSPF asks whether a client may send as from. The library bounds how many questions that takes.
func CheckSPF(ctx context.Context, resolver dns.Resolver, c Client, from envelope.Address) SPF {
	s := SPF{Verdict: None, Domain: from.Domain}
	local := from.Local
	if from.IsZero() { // RFC 7208, 2.4
		s.Domain, s.Helo = c.Helo, true
	}
	if from.IsZero() || strings.Contains(local, "@") { // the library would look for the domain behind the first
		local = "postmaster"
	}
	domain, err := envelope.ParseDomain(s.Domain)
	if err != nil || domain[0] == '[' || !c.IP.IsValid() {
		return s
	}
	s.Domain = domain
	result, err := spf.CheckHostWithSender(c.IP.Unmap().AsSlice(), c.Helo, local+"@"+domain, spf.WithContext(ctx), spf.WithResolver(spfResolver{resolver}))
	if verdict, ok := spfVerdicts[result]; ok {
		s.Verdict = verdict
	}
	if err != nil && s.Verdict != Pass {
		s.Reason = err.Error()
	}
	return s
}

var spfVerdicts = map[spf.Result]Verdict{
	spf.None: None, spf.Neutral: Neutral, spf.Pass: Pass, spf.Fail: Fail, spf.SoftFail: SoftFail,
	spf.TempError: TempError, spf.PermError: PermError,
}

// spfResolver asks our resolver in the library's words.
type spfResolver struct{ r dns.Resolver }

func (s spfResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	a, err := s.r.LookupTXT(ctx, relative(name))
	return a.Records, netError(name, err)
}

func (s spfResolver) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	a, err := s.r.LookupMX(ctx, relative(name))
	var list []*net.MX
	for _, mx := range a.Records {
		list = append(list, &net.MX{Host: mx.Host, Pref: mx.Preference})
	}
	return list, netError(name, err)
}

func (s spfResolver) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	a, err := s.r.LookupHost(ctx, relative(name))
	var list []net.IPAddr
	for _, ip := range a.Records {
		list = append(list, net.IPAddr{IP: ip.AsSlice()})
	}
	return list, netError(name, err)
}

func (s spfResolver) LookupAddr(ctx context.Context, text string) ([]string, error) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	a, err := s.r.LookupAddr(ctx, ip)
	return a.Records, netError(text, err)
}

func relative(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// netError is an error as the library tells them apart.
func netError(name string, err error) error {
	if err == nil {
		return nil
	}
	absent := errors.Is(err, dns.ErrNotFound)
	return &net.DNSError{Err: err.Error(), Name: name, IsNotFound: absent, IsTemporary: !absent}
}
