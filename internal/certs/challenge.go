package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"

	"postroad/internal/listen"
)

// What a peer may take of the listener for challenges: an authority looks from a handful of places at a time.
const (
	challengeConns  = 64
	challengeWithin = 10 * time.Second
	challengeHeader = 4 << 10 // octets of a request
)

// acmeProtocol is what ALPN has for a challenge (RFC 8737, 6.2).
const acmeProtocol = "acme-tls/1"

// challenged answers the authority's challenges on a listener of its own, and nothing else.
type challenged struct {
	challenge Challenge
	listener  net.Listener
	log       *slog.Logger
}

func listenForChallenges(c Challenge, addr string, log *slog.Logger) (*challenged, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for %s challenges: %w", c, err)
	}
	bounded := listen.New(l, listen.Options{Total: challengeConns, Pace: listen.Pace{Idle: challengeWithin}, WriteTimeout: challengeWithin, Log: log})
	return &challenged{challenge: c, listener: bounded, log: log}, nil
}

// serve answers until ctx is done.
func (c *challenged) serve(ctx context.Context, config *certmagic.Config) {
	stop := context.AfterFunc(ctx, func() { c.listener.Close() })
	defer stop()
	if c.challenge == TLSALPN01 {
		c.serveTLS(ctx, config)
		return
	}
	s := &http.Server{
		Handler:     http.HandlerFunc(answerHTTP),
		ReadTimeout: challengeWithin, WriteTimeout: challengeWithin, MaxHeaderBytes: challengeHeader,
		ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	s.SetKeepAlivesEnabled(false)
	s.Serve(c.listener)
	s.Close()
}

// answerHTTP is HTTP-01 (RFC 8555, 8.3): a key authorization for the token of a challenge that is under way.
func answerHTTP(w http.ResponseWriter, r *http.Request) {
	challenge, ok := certmagic.GetACMEChallenge(r.Host)
	if !ok || r.URL.Path != challenge.HTTP01ResourcePath() || r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write([]byte(challenge.KeyAuthorization))
}

// serveTLS is TLS-ALPN-01 (RFC 8737): a handshake that says it is one, and its end.
func (c *challenged) serveTLS(ctx context.Context, config *certmagic.Config) {
	answer := &tls.Config{
		NextProtos: []string{acmeProtocol}, MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if !slices.Equal(hello.SupportedProtos, []string{acmeProtocol}) {
				return nil, errors.New("not a challenge of ACME")
			}
			return config.GetCertificate(hello)
		},
	}
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			ctx, cancel := context.WithTimeout(ctx, challengeWithin)
			defer cancel()
			if err := tls.Server(conn, answer).HandshakeContext(ctx); err != nil {
				c.log.Debug("TLS handshake for a challenge failed", "peer", listen.Peer(conn.RemoteAddr()), "err", err)
			}
		}()
	}
}
