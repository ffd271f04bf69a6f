package tlspolicy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"postroad/internal/tlsrpt"
)

// maxChain bounds how many certificates of a host are looked at.
const maxChain = 16

var errNoCertificate = errors.New("the host shows no certificate")

// pkix holds a certificate against the public roots and a host's name, as a DNS-ID (RFC 8461, 4.2).
func (p *Policies) pkix(host string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error { return p.verifyPKIX(host, state, p.cfg.Now()) }
}

func (p *Policies) verifyPKIX(host string, state tls.ConnectionState, now time.Time) error {
	chain := state.PeerCertificates
	if len(chain) == 0 {
		return errNoCertificate
	}
	return verifyChain(chain, x509.VerifyOptions{DNSName: host, Roots: p.cfg.RootCAs, CurrentTime: now})
}

// verifyChain looks for a way from the first certificate to a root.
func verifyChain(chain []*x509.Certificate, o x509.VerifyOptions) error {
	o.Intermediates = x509.NewCertPool()
	for _, cert := range chain[1:min(len(chain), maxChain)] {
		o.Intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(o)
	return err
}

// forgiving is pkix, but takes a certificate that has merely run out: that is the commonest mistake of all, and no sign
// of an attack, for which the key would be needed.
func (p *Policies) forgiving(host string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		err := p.verifyPKIX(host, state, p.cfg.Now())
		if isExpired(err) {
			return p.verifyPKIX(host, state, state.PeerCertificates[0].NotAfter.Add(-time.Second))
		}
		return err
	}
}

func isExpired(err error) bool {
	e, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && e.Reason == x509.Expired
}

// failure is the type under which TLS reports count what is wrong with a session (RFC 8460, 4.3).
func failure(s *Session) tlsrpt.Failure {
	err := s.Err
	if err == nil {
		err = s.Verified
	}
	switch {
	case s.NotOffered || s.Err == nil && s.TLS == "":
		return tlsrpt.StartTLSNotSupported
	case err == nil && s.Need.unusable:
		return tlsrpt.TLSAInvalid
	case err == nil, s.Err == nil && s.Need.policy.Type == tlsrpt.NoPolicy: // nobody has asked for a good certificate
		return ""
	case isExpired(err):
		return tlsrpt.CertificateExpired
	case isA[x509.HostnameError](err):
		return tlsrpt.CertificateHostMismatch
	case isA[x509.UnknownAuthorityError](err), isA[x509.CertificateInvalidError](err), errors.Is(err, errNoMatch):
		return tlsrpt.CertificateNotTrusted
	}
	return tlsrpt.ValidationFailure
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
