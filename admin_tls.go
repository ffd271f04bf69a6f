package postroad

import (
	"context"
	"fmt"
	"iter"

	"postroad/internal/control"
	"postroad/internal/envelope"
	"postroad/internal/tlspolicy"
)

// TLSDomains lists the domains of whose TLS something is known.
func (a *Admin) TLSDomains(ctx context.Context) iter.Seq2[control.DomainTLS, error] {
	return func(yield func(control.DomainTLS, error) bool) {
		for s, err := range a.c.TLS.List(ctx) {
			if !yield(a.showTLS(s), adminError(err)) {
				return
			}
		}
	}
}

// TLSDomain returns what is known of a domain's TLS.
func (a *Admin) TLSDomain(_ context.Context, domain string) (control.DomainTLS, error) {
	domain, err := envelope.ParseDomain(domain)
	if err != nil {
		return control.DomainTLS{}, adminError(err)
	}
	s, err := a.c.TLS.Show(domain)
	if err == nil && s.STS == nil && s.Memory == nil {
		err = fmt.Errorf("%s: %w", domain, tlspolicy.ErrUnknown)
	}
	return a.showTLS(s), adminError(err)
}

// ForgetTLS drops what is known of a domain's TLS.
func (a *Admin) ForgetTLS(_ context.Context, domain string) error {
	domain, err := envelope.ParseDomain(domain)
	if err == nil {
		err = a.c.TLS.Forget(domain)
	}
	return adminError(err)
}

func (a *Admin) showTLS(s tlspolicy.State) control.DomainTLS {
	shown := control.DomainTLS{Domain: s.Domain}
	if p := s.STS; p != nil {
		shown.MTASTS = &control.MTASTSPolicy{
			ID: p.ID, Mode: string(p.Mode), Hosts: p.MX, Fetched: p.Fetched, Expires: p.Expires(), Trouble: p.Trouble,
		}
	}
	if m := s.Memory; m != nil {
		shown.Memory = &control.TLSMemory{
			Since: m.Since, Last: m.Last, Sessions: m.Sessions, Established: m.Established(), Failing: m.Failing, Trouble: m.Trouble,
			Until: a.c.TLS.WaitsUntil(m),
		}
	}
	return shown
}
