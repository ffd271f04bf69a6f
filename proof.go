package postroad

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"postroad/internal/dns"
	"postroad/internal/mailauth"
	"postroad/internal/store"
	"postroad/spool"
)

// proof looks for what shows that a message is from whom its reverse-path names.
type proof struct {
	store    *store.Store
	resolver dns.Resolver
	now      func() time.Time
}

// proven is delivery.Config's. SPF of who brought the message counts, and a DKIM signature of the domain of the
// reverse-path, or of one above it. An error means that the DNS had no answer that would decide.
func (p *proof) proven(ctx context.Context, m *spool.Message) (bool, error) {
	from, _ := m.Envelope.From.ASCII()
	peer, _ := netip.ParseAddr(m.Origin.Peer) // what came by a socket has none: SPF finds nothing then
	sender := mailauth.CheckSPF(ctx, p.resolver, mailauth.Client{IP: peer, Helo: m.Origin.Helo}, from)
	if sender.Verdict == mailauth.Pass {
		return true, nil
	}
	open := sender.Verdict == mailauth.TempError
	results, err := p.verify(ctx, m)
	if err != nil {
		return false, err
	}
	for _, d := range results.DKIM {
		if !aligned(d.Domain, from.Domain) {
			continue
		}
		if d.Verdict == mailauth.Pass {
			return true, nil
		}
		open = open || d.Verdict == mailauth.TempError
	}
	if open {
		return false, fmt.Errorf("the DNS has no answer that would show whether the message is from %s", from.Path())
	}
	return false, nil
}

// verify looks at the message as it came, without what we have put before it.
func (p *proof) verify(ctx context.Context, m *spool.Message) (res mailauth.Results, err error) {
	body, err := p.store.OpenBody(m.ID)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	in := body.Reader()
	if _, err := io.CopyN(io.Discard, in, m.Skip); err != nil {
		return res, err
	}
	return mailauth.Verify(ctx, p.resolver, p.now(), in)
}

// aligned reports whether a domain that signs may speak for another: it is the same, or above it.
func aligned(signs, domain string) bool {
	return signs != "" && strings.HasSuffix("."+strings.ToLower(domain), "."+strings.ToLower(signs))
}
