package tlspolicy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"postroad/internal/store"
	"postroad/internal/tlsrpt"
)

// ErrUnknown means that nothing is known of a domain's TLS.
var ErrUnknown = errors.New("nothing is known of its TLS")

// State is what is stored of one domain.
type State struct {
	Domain string
	STS    *STS    // nil: no policy
	Memory *Memory // nil: nothing is remembered
}

// Show returns what is stored of a domain; nothing of it may be. It asks no one.
func (p *Policies) Show(domain string) (State, error) {
	s := State{Domain: domain}
	var err, err2 error
	s.STS, err = p.stored(domain)
	s.Memory, err2 = p.recall(domain)
	return s, errors.Join(err, err2)
}

// List yields all domains of which something is stored, in order.
func (p *Policies) List(ctx context.Context) iter.Seq2[State, error] {
	return func(yield func(State, error) bool) {
		for after := ""; ; {
			policies, _, err := p.sts.page(p.cfg.Store, after)
			memories, _, err2 := p.memory.page(p.cfg.Store, after)
			if err := errors.Join(err, err2, ctx.Err()); err != nil {
				yield(State{}, err)
				return
			}
			domains := merged(policies, memories)
			for _, domain := range domains {
				if s, err := p.Show(domain); !yield(s, err) {
					return
				}
			}
			if len(domains) == 0 {
				return
			}
			after = domains[len(domains)-1]
		}
	}
}

// merged are the domains of two pages, in order, up to where both are known to be complete.
func merged(a, b []string) []string {
	all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
	for _, page := range [][]string{a, b} {
		if len(page) == pageSize {
			last := page[pageSize-1]
			all = slices.DeleteFunc(all, func(s string) bool { return s > last })
		}
	}
	return all
}

// Forget drops what is stored of a domain, its policy too: the next mail asks for that again. Durable when it returns.
// ErrUnknown.
func (p *Policies) Forget(domain string) error {
	s, err := p.Show(domain)
	if s.STS == nil && s.Memory == nil && err == nil {
		return fmt.Errorf("%s: %w", domain, ErrUnknown)
	}
	p.mu.Lock()
	delete(p.failed, domain)
	p.mu.Unlock()
	return errors.Join(p.forget(p.sts, domain), p.forget(p.memory, domain))
}

func (p *Policies) forget(t *table, domain string) error {
	err := p.cfg.Store.Update(func(tx store.Tx) error {
		t.drop(tx, domain)
		return nil
	})
	p.stamp(domain).Add(1)
	return err
}

// resultOf is what a session was, for a TLS report.
func resultOf(domain string, s *Session) tlsrpt.Result {
	r := tlsrpt.Result{Domain: domain, Policy: s.Need.policy, MX: s.Host, IP: s.IP, Local: s.Local, Failure: failure(s)}
	switch {
	case r.Failure == "":
	case s.Err != nil:
		r.Reason = s.Err.Error()
	case s.Verified != nil:
		r.Reason = s.Verified.Error()
	}
	return r
}
