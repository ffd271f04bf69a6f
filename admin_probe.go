package postroad

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"postroad/delivery"
	"postroad/internal/config"
	"postroad/internal/control"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/tlspolicy"
)

// newProber returns what finds the way of mail that cfg sends. What it does is not counted for TLS reports.
func newProber(cfg config.Config, st tlspolicy.Store, rules *delivery.Rules, own func(netip.AddrPort) bool, o Options) (*delivery.Runner, error) {
	policies, err := tlspolicy.Open(policyConfig(cfg, st, o))
	if err != nil {
		return nil, err
	}
	c := outward(cfg, o)
	c.Policies, c.Rules, c.Own = policies, rules, own
	return delivery.New(c), nil
}

// Probe finds out what sending mail somewhere would meet, by the config alone: it opens no data directory.
func Probe(ctx context.Context, cfg config.Config, q control.ProbeQuery) (p control.Probe, err error) {
	o := Options{Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	if o.Resolver, err = resolver(cfg.DNS, o.Now); err != nil {
		return p, err
	}
	dir, err := os.MkdirTemp("", "postroad-probe") // where policies of MTA-STS are kept meanwhile
	if err != nil {
		return p, err
	}
	defer os.RemoveAll(dir)
	st, err := store.Open(dir, store.Options{Log: o.Log})
	if err != nil {
		return p, err
	}
	defer st.Close()
	prober, err := newProber(cfg, st, nil, nil, o)
	if err != nil {
		return p, err
	}
	return probeWith(ctx, prober, q)
}

// Probe finds out what sending mail somewhere would meet.
func (a *Admin) Probe(ctx context.Context, q control.ProbeQuery) (p control.Probe, err error) {
	if a.c.Prober == nil {
		return p, control.Errorf(control.Unavailable, "only a running server probes by itself")
	}
	p, err = probeWith(ctx, a.c.Prober, q)
	if err != nil || p.Domain == "" {
		return p, err
	}
	if p.Local, err = a.isOurs(p.Domain); p.Local {
		p.Verdict = "the domain is one of ours: mail for it is delivered here. From elsewhere: " + p.Verdict
	}
	return p, err
}

func probeWith(ctx context.Context, prober *delivery.Runner, q control.ProbeQuery) (p control.Probe, err error) {
	to, err := probed(q.To)
	if err != nil {
		return p, err
	}
	from := envelope.Address{Local: "postmaster", Domain: prober.Hostname()}
	if q.From != "" {
		if from, err = parseAddress(q.From); err != nil {
			return p, err
		}
	}
	began := time.Now()
	p = showFinding(prober.Probe(ctx, from, to))
	p.Duration = time.Since(began).Seconds()
	return p, nil
}

// probed reads a domain, or an address.
func probed(s string) (envelope.Address, error) {
	if strings.Contains(s, "@") {
		return parseAddress(s)
	}
	domain, err := parseDomain(s)
	return envelope.Address{Local: "postmaster", Domain: domain}, err
}

func showFinding(f delivery.Finding) control.Probe {
	p := control.Probe{
		Domain: f.Domain, Verdict: text(f.Verdict), Route: f.Route, DNSSEC: f.Secure, Alias: f.Alias,
		MTASTS: stsWords(f.STS), Memory: memoryWords(f.Memory), Reports: f.Reports,
	}
	for _, mx := range f.MX {
		p.MX = append(p.MX, control.ProbeMX{Host: text(mx.Host), Preference: int(mx.Preference)})
	}
	for _, h := range f.Hosts {
		p.Hosts = append(p.Hosts, showHost(h))
	}
	return p
}

func stsWords(s *tlspolicy.STS) string {
	if s == nil {
		return ""
	}
	words := fmt.Sprintf("%s, for %s, until %s", s.Mode, strings.Join(s.MX, " "), s.Expires().UTC().Format(time.RFC3339))
	if s.Trouble != "" {
		words += "; it cannot be fetched anew: " + s.Trouble
	}
	return text(words)
}

func memoryWords(m *tlspolicy.Memory) string {
	switch {
	case m == nil:
		return ""
	case !m.Failing.IsZero():
		return text(fmt.Sprintf("it showed good certificates since %s, and does not any more since %s: %s",
			m.Since.UTC().Format(time.RFC3339), m.Failing.UTC().Format(time.RFC3339), m.Trouble))
	case !m.Established():
		return ""
	}
	return "it shows good certificates since " + m.Since.UTC().Format(time.RFC3339)
}

func showHost(h delivery.FoundHost) control.ProbeHost {
	shown := control.ProbeHost{
		Name: text(h.Name), DNSSEC: h.Secure, Needs: h.Need.Level.String(), Because: text(h.Need.Words), TLSA: h.TLSA,
		Trouble: text(h.Trouble), RequireTLS: text(h.Authentic),
	}
	for _, ip := range h.Addresses {
		shown.Addresses = append(shown.Addresses, ip.String())
	}
	for _, c := range h.Calls {
		shown.Calls = append(shown.Calls, showCall(c))
	}
	return shown
}

func showCall(c delivery.Call) control.ProbeCall {
	shown := control.ProbeCall{
		Trouble: text(c.Trouble), Name: text(c.Name), TLS: c.TLS, Verified: c.TLS != "" && c.Unverified == "",
		Unverified: text(c.Unverified), Dialogue: text(c.Dialogue),
	}
	if c.Address.IsValid() {
		shown.Address = c.Address.String()
	}
	for _, e := range c.Extensions {
		shown.Extensions = append(shown.Extensions, text(e))
	}
	for _, cert := range c.Certificates {
		shown.Certificates = append(shown.Certificates, showPeerCertificate(cert))
	}
	return shown
}

// mostNames bounds how many names of a certificate are shown.
const mostNames = 100

func showPeerCertificate(cert *x509.Certificate) control.ProbeCertificate {
	whole, key := sha256.Sum256(cert.Raw), sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	shown := control.ProbeCertificate{
		Issuer: text(cert.Issuer.String()), From: cert.NotBefore, Until: cert.NotAfter,
		SHA256: hex.EncodeToString(whole[:]), Key: hex.EncodeToString(key[:]),
	}
	for _, name := range cert.DNSNames[:min(len(cert.DNSNames), mostNames)] {
		shown.Names = append(shown.Names, text(name))
	}
	for _, ip := range cert.IPAddresses[:min(len(cert.IPAddresses), mostNames)] {
		shown.Names = append(shown.Names, ip.String())
	}
	if len(shown.Names) == 0 {
		shown.Names = []string{text(cert.Subject.CommonName)}
	}
	return shown
}
