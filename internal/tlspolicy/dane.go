package tlspolicy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postroad/internal/dns"
	"postroad/internal/tlsrpt"
)

// The certificate usages, selectors and matching types of TLSA records (RFC 6698, RFC 7218). Of the usages, SMTP has the
// two that ask no public root (RFC 7672, 3.1.3).
const (
	daneTA, daneEE         = 2, 3
	wholeCert, publicKey   = 0, 1
	full, sha2256, sha2512 = 0, 1, 2
)

// maxTLSA bounds the records of one host that are looked at.
const maxTLSA = 100

// errNoMatch means that a host shows a certificate that none of its TLSA records is for.
var errNoMatch = errors.New("no TLSA record is for the host's certificate")

// dane returns the need that a host's TLSA records make. They count only where DNSSEC validated all on the way to them:
// the domain's mail hosts and the host's addresses (RFC 7672, 2.2).
func (d *Policy) dane(ctx context.Context, host string, addrs dns.Answer[netip.Addr]) (Need, error) {
	need := d.without(host)
	if !d.mx.Secure || !addrs.Secure || isLiteral(host) {
		return need, nil
	}
	base, records, err := d.tlsa(ctx, host, addrs.Name)
	if err != nil || len(records) == 0 {
		return need, err
	}
	return d.byRecords(need, base, records), nil
}

// isLiteral reports whether a mail host, or a domain, is an address: nobody publishes a policy for one.
func isLiteral(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil || strings.HasPrefix(host, "[")
}

// tlsa looks for TLSA records at the name that aliases of the host lead to, and then at its own (RFC 7672, 2.2.2).
func (d *Policy) tlsa(ctx context.Context, host, canonical string) (base string, records []dns.TLSA, err error) {
	for _, base := range slices.Compact([]string{cmp.Or(canonical, host), host}) {
		records, err := d.tlsaAt(ctx, host, base)
		if err != nil || len(records) > 0 {
			return base, records, err
		}
	}
	return "", nil, nil
}

// tlsaAt returns the validated TLSA records of a name. Without an answer the host is not used, whatever an attacker makes
// of the question (RFC 7672, 2.1.2).
func (d *Policy) tlsaAt(ctx context.Context, host, base string) ([]dns.TLSA, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	answer, err := d.p.cfg.Resolver.LookupTLSA(ctx, fmt.Sprintf("_%d._tcp.%s", d.p.cfg.SMTPPort, base))
	switch {
	case dns.Temporary(err):
		d.p.record(tlsrpt.Result{
			Domain: d.domain, Policy: tlsrpt.Policy{Type: tlsrpt.TLSA, Domain: base}, MX: host,
			Failure: tlsrpt.DNSSECInvalid, Reason: err.Error(),
		})
		return nil, fmt.Errorf("%s is not used: %w: %w", host, ErrTLSA, err)
	case err != nil || !answer.Secure:
		return nil, nil
	}
	return answer.Records[:min(len(answer.Records), maxTLSA)], nil
}

// byRecords is the need that TLSA records make. When none of them can be used, TLS must be all the same (RFC 7672, 2.2).
func (d *Policy) byRecords(need Need, base string, records []dns.TLSA) Need {
	need.Kind, need.ServerName = DANE, base
	need.policy = tlsrpt.Policy{Type: tlsrpt.TLSA, Domain: base, Strings: presentation(records)}
	good := usable(records)
	if len(good) == 0 {
		need.Level, need.unusable = Encrypted, true
		need.Words = "TLSA records of " + base + ", of which none can be used: TLS with any certificate"
		return need
	}
	need.Level, need.pkix = Verified, false
	need.Words = fmt.Sprintf("DANE: %d TLSA records of %s", len(good), base)
	names := slices.Compact([]string{base, d.domain, d.mx.Name})
	need.Verify = func(state tls.ConnectionState) error {
		return verifyDANE(good, state.PeerCertificates, names, d.p.cfg.Now())
	}
	return need
}

// presentation writes records as zone files do.
func presentation(records []dns.TLSA) (lines []string) {
	for _, r := range records {
		lines = append(lines, fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.Matching, r.Data))
	}
	return lines
}

// usable are the records that something can be held against. Of digests of the same thing only the strongest count
// (RFC 7671, 9).
func usable(records []dns.TLSA) (good []dns.TLSA) {
	for _, r := range records {
		if isUsable(r) {
			good = append(good, r)
		}
	}
	return slices.DeleteFunc(slices.Clone(good), func(r dns.TLSA) bool { return r.Matching == sha2256 && hasStronger(good, r) })
}

// hasStronger reports whether there is a SHA-512 digest of what r has a SHA-256 one of.
func hasStronger(records []dns.TLSA, r dns.TLSA) bool {
	return slices.ContainsFunc(records, func(s dns.TLSA) bool {
		return s.Usage == r.Usage && s.Selector == r.Selector && s.Matching == sha2512
	})
}

func isUsable(r dns.TLSA) bool {
	if r.Usage != daneTA && r.Usage != daneEE || r.Selector > publicKey {
		return false
	}
	switch r.Matching {
	case sha2256:
		return len(r.Data) == sha256.Size
	case sha2512:
		return len(r.Data) == sha512.Size
	case full:
		return isWhole(r)
	}
	return false
}

// isWhole reports whether a record has a whole certificate or key in it.
func isWhole(r dns.TLSA) bool {
	var err error
	if r.Selector == wholeCert {
		_, err = x509.ParseCertificate(r.Data)
	} else {
		_, err = x509.ParsePKIXPublicKey(r.Data)
	}
	return err == nil
}

// verifyDANE holds a chain of certificates against usable records. One that matches is enough. A record of the host's own
// certificate says all: neither names nor dates count (RFC 7672, 3.1.1). Under a trust anchor of the domain they do (3.1.2).
func verifyDANE(records []dns.TLSA, chain []*x509.Certificate, names []string, now time.Time) error {
	if len(chain) == 0 {
		return errNoCertificate
	}
	chain = chain[:min(len(chain), maxChain)]
	for _, r := range records {
		if r.Usage == daneEE && matches(r, chain[0]) {
			return nil
		}
	}
	roots, found := anchors(records, chain)
	if !found {
		return errNoMatch
	}
	if err := verifyChain(chain, x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
		return err
	}
	return verifyNames(chain[0], names)
}

// matches reports whether a record is for a certificate (RFC 6698, 2.1).
func matches(r dns.TLSA, cert *x509.Certificate) bool {
	octets := cert.Raw
	if r.Selector == publicKey {
		octets = cert.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case sha2256:
		sum := sha256.Sum256(octets)
		octets = sum[:]
	case sha2512:
		sum := sha512.Sum512(octets)
		octets = sum[:]
	}
	return bytes.Equal(r.Data, octets)
}

// anchors are the certificates by which a chain may be trusted: those of it that a record names, those that a record has,
// and those of it that were signed by a key that a record has.
func anchors(records []dns.TLSA, chain []*x509.Certificate) (roots *x509.CertPool, found bool) {
	roots = x509.NewCertPool()
	add := func(cert *x509.Certificate) { roots.AddCert(cert); found = true }
	for _, r := range records {
		if r.Usage != daneTA {
			continue
		}
		for _, cert := range chain {
			if matches(r, cert) {
				add(cert)
			}
		}
		switch {
		case r.Matching != full:
		case r.Selector == wholeCert:
			if cert, err := x509.ParseCertificate(r.Data); err == nil {
				add(cert)
			}
		default:
			for _, cert := range chain {
				if signedBy(cert, r.Data) {
					add(cert)
				}
			}
		}
	}
	return roots, found
}

// signedBy reports whether a certificate was signed by a bare key, in DER.
func signedBy(cert *x509.Certificate, key []byte) bool {
	public, err := x509.ParsePKIXPublicKey(key)
	if err != nil {
		return false
	}
	signer := &x509.Certificate{PublicKey: public}
	return signer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// verifyNames reports an error when a certificate has none of the names. The subject's common name counts where there is
// no name of a host besides (RFC 7672, 3.2.3).
func verifyNames(cert *x509.Certificate, names []string) error {
	if len(cert.DNSNames) == 0 && cert.Subject.CommonName != "" {
		with := *cert
		with.DNSNames = []string{cert.Subject.CommonName}
		cert = &with
	}
	var err error
	for _, name := range names {
		if err = cert.VerifyHostname(name); err == nil {
			return nil
		}
	}
	return err
}
