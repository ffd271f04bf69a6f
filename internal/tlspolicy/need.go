package tlspolicy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"

	"postroad/internal/dns"
	"postroad/internal/envelope"
	"postroad/internal/tlsrpt"
)

// Level is how much TLS must be.
type Level uint8

// The levels, each stronger than the one before.
const (
	Opportunistic Level = iota // what the host offers, in the clear too; Verify is asked, and its answer only remembered
	Encrypted                  // TLS whatever the certificate; Verify's answer is only remembered
	Verified                   // TLS with a certificate that Verify finds good
)

// String returns the level's word.
func (l Level) String() string { return [...]string{"opportunistic", "encrypted", "verified"}[l] }

// Kind is where a need comes from.
type Kind string

// The kinds of needs.
const (
	None        Kind = ""            // nobody asks for anything
	DANE        Kind = "dane"        // TLSA records (RFC 7672)
	MTASTS      Kind = "sts"         // an MTA-STS policy (RFC 8461)
	Remembered  Kind = "memory"      // the domain always showed a good certificate
	RequireTLS  Kind = "requiretls"  // the sender asks for it (RFC 8689)
	TLSOptional Kind = "tlsoptional" // the sender waives all policies (RFC 8689, "TLS-Required: No")
)

// Need is what one host must show.
type Need struct {
	Level      Level
	Kind       Kind
	Verify     func(tls.ConnectionState) error // never nil in what this package returns
	ServerName string                          // for SNI
	Words      string                          // where the need comes from, for a person to read

	policy   tlsrpt.Policy
	pkix     bool // Verify asks the public roots for the host's name
	unusable bool // there are TLSA records, and none can be used
}

// Policy reports the policy that the need comes from, as TLS reports have it.
func (n Need) Policy() tlsrpt.Policy { return n.policy }

// errs that callers branch on.
var (
	// ErrUnlisted means that the domain's MTA-STS policy, which it enforces, does not have the host.
	ErrUnlisted = errors.New("is not among the mail hosts of the domain's MTA-STS policy")
	// ErrTLSA means that a host's TLSA records cannot be looked up, so that nobody can tell it from another.
	ErrTLSA = errors.New("its TLSA records cannot be looked up")
	// ErrUnauthentic means that the host's name comes from a DNS answer that anyone could have forged, so that mail which
	// must go by TLS all the way (REQUIRETLS) cannot go there.
	ErrUnauthentic = errors.New("neither DNSSEC nor an MTA-STS policy says that it is the domain's mail host")
)

// Host returns what is to be asked of a mail host, whose addresses are addrs (dns.Resolver.LookupHost). DANE comes before
// MTA-STS (RFC 8461, 2). With an error the host must not be used now; the Need is then that of a host without any
// policy, for mail to which none applies (Waived).
func (d *Policy) Host(ctx context.Context, host string, addrs dns.Answer[netip.Addr]) (Need, error) {
	need, err := d.dane(ctx, host, addrs)
	if err != nil || need.Level == Verified {
		return need, err
	}
	if d.sts != nil && (d.sts.Mode == Enforce || need.Level == Opportunistic) {
		need, err = d.byPolicy(host)
	}
	if err == nil && need.Level != Verified && d.memory != nil {
		need = d.byMemory(host, need)
	}
	return need, err
}

// without is the need of a host to which no policy applies.
func (d *Policy) without(host string) Need {
	name := host
	if ip, ok := envelope.Literal(host); ok {
		name = ip.String()
	}
	return Need{
		ServerName: name, Verify: d.p.pkix(name), pkix: true, policy: tlsrpt.Policy{Type: tlsrpt.NoPolicy},
		Words: "no policy: TLS where it is offered",
	}
}

// byPolicy is what the domain's MTA-STS policy asks for (RFC 8461, 4 and 5).
func (d *Policy) byPolicy(host string) (Need, error) {
	need := d.without(host)
	need.Kind, need.policy = MTASTS, d.sts.report()
	need.Words = fmt.Sprintf("MTA-STS policy %s of %s, mode %s", d.sts.ID, d.domain, d.sts.Mode)
	listed := d.sts.Lists(host)
	if d.sts.Mode != Enforce {
		if !listed {
			need.pkix, need.Verify = false, func(tls.ConnectionState) error { return unlisted(d.domain, host) }
		}
		return need, nil
	}
	if !listed {
		err := unlisted(d.domain, host)
		d.p.record(tlsrpt.Result{Domain: d.domain, Policy: need.policy, MX: host, Failure: tlsrpt.ValidationFailure, Reason: err.Error()})
		return d.without(host), err
	}
	need.Level = Verified
	return need, nil
}

func unlisted(domain, host string) error {
	return fmt.Errorf("%s %w, that of %s", host, ErrUnlisted, domain)
}

// Waived is the need for a message whose sender says that its arrival matters more than any policy (RFC 8689, 4.2.2):
// what was asked for is looked at, and not enforced.
func (n Need) Waived() Need {
	n.Level, n.Kind = Opportunistic, TLSOptional
	n.Words = "the message says TLS-Required: No, which waives: " + n.Words
	return n
}

// Required strengthens the need of a host for a message that must go by TLS all the way (RFC 8689, 4.2.1): its name comes
// from validated DNS or an MTA-STS policy, and its certificate is good. ErrUnauthentic, or another error when a policy may
// say so that cannot be had now.
func (d *Policy) Required(host string, n Need) (Need, error) {
	switch {
	case d.authentic(host):
	case d.unsure:
		return n, fmt.Errorf("%s cannot be used for a message with REQUIRETLS now: the MTA-STS policy of %s cannot be had", host, d.domain)
	default:
		return n, fmt.Errorf("%s cannot be used for a message with REQUIRETLS: %w", host, ErrUnauthentic)
	}
	if n.Kind != DANE || n.unusable { // neither what is only remembered nor what is only tested says more
		n.Verify, n.pkix = d.p.pkix(n.ServerName), true
	}
	n.Level, n.Kind = Verified, RequireTLS
	n.Words = "the sender requires TLS (REQUIRETLS), on top of: " + n.Words
	return n, nil
}

// authentic reports whether a host's name is known to be what the domain has said: by DNSSEC, by its MTA-STS policy, or
// because it is the domain itself, which the certificate will show.
func (d *Policy) authentic(host string) bool {
	return d.mx.Secure || host == d.domain || d.sts != nil && d.sts.Lists(host)
}
