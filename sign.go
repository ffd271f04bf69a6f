package postroad

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"postroad/delivery"
	"postroad/internal/account"
	"postroad/internal/config"
	"postroad/internal/envelope"
	"postroad/internal/mailauth"
	"postroad/internal/srs"
	"postroad/internal/store"
)

// signer vouches for what delivery sends.
type signer struct {
	auth *mailauth.Signer
	srs  *srs.Rewriter // nil leaves the senders of what we forward as they are
	ours func(domain string) (bool, error)
}

func (h *house) signer(cfg config.Config, resolver Resolver) *signer {
	s := &signer{ours: h.accounts.IsLocal}
	if cfg.Forwarding.SRS {
		s.srs = h.srs
	}
	s.auth = mailauth.NewSigner(mailauth.SignerConfig{
		Hostname: cfg.Hostname, Keys: h.keys, Local: s.ours, Resolver: resolver, NoSeals: !cfg.Forwarding.ARC, Now: h.now,
	})
	return s
}

// Fields is delivery.Signer's.
func (s *signer) Fields(ctx context.Context, m delivery.Outgoing, open func() (io.ReadCloser, error)) ([]byte, error) {
	peer, _ := netip.ParseAddr(m.Origin.Peer) // what has none came from nobody
	return s.auth.Fields(ctx, mailauth.Outbound{
		Own:    m.Origin.Account != "" || m.Origin.Protocol == "",
		Posted: m.Origin.Protocol == "" && m.Origin.Peer != "",
		From:   m.Envelope.From, Via: m.Via,
		Client: mailauth.Client{IP: peer, Helo: m.Origin.Helo},
	}, open)
}

// From is delivery.Signer's.
func (s *signer) From(m delivery.Outgoing) (envelope.Address, error) {
	from := m.Envelope.From
	if s.srs == nil || m.Via.IsZero() || from.IsZero() {
		return from, nil
	}
	if local, err := s.ours(from.Domain); local || err != nil {
		return from, err
	}
	return s.srs.Forward(from, m.Via.Domain)
}

// wayBack has the directory resolve what srs.Rewriter makes.
type wayBack struct{ *srs.Rewriter }

// Reverse is account.Reverser's.
func (w wayBack) Reverse(r store.Reader, addr envelope.Address) (envelope.Address, bool, error) {
	sender, ok, err := w.Rewriter.Reverse(r, addr)
	if errors.Is(err, srs.ErrForged) || errors.Is(err, srs.ErrExpired) {
		err = fmt.Errorf("%s: %w: %w", addr, account.ErrUnknown, err)
	}
	return sender, ok, err
}
