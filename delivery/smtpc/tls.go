package smtpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"postroad/internal/envelope"
)

// TLS says how a connection is secured.
type TLS uint8

// The ways to secure a connection.
const (
	Opportunistic TLS = iota // STARTTLS when it is offered, whatever the certificate
	None                     // never
	Encrypted                // STARTTLS whatever the certificate, or nothing
	Required                 // STARTTLS with a good certificate, or nothing
	Implicit                 // TLS from the first octet with a good certificate
)

// mandatory reports whether nothing is said in the clear but what leads to TLS.
func (t TLS) mandatory() bool { return t >= Encrypted }

// verified reports whether a bad certificate ends the connection.
func (t TLS) verified() bool { return t == Required || t == Implicit }

var (
	// ErrTLS means that the TLS handshake failed, or the certificate is not good where it must be, or the server did
	// not offer TLS where it is required.
	ErrTLS = errors.New("no secure connection")
	// ErrNotOffered means that the server does not offer STARTTLS; it comes with ErrTLS.
	ErrNotOffered = errors.New("the server does not offer STARTTLS")
	// errClear is what Verified says of a connection without TLS.
	errClear = errors.New("the connection is not encrypted")
)

// TLS is the version and cipher suite of the connection; empty for none.
func (c *Conn) TLS() string { return c.tls }

// Verified is nil when the server's certificate is good, by Options.Verify or else by the roots and the host's name.
// Otherwise it says why not, also where the policy lets that pass.
func (c *Conn) Verified() error { return c.verified }

// secure does what the policy asks with STARTTLS (RFC 3207).
func (c *Conn) secure(ctx context.Context) error {
	mode := c.opts.TLS
	switch {
	case mode == None || mode == Implicit:
		return nil
	case !c.Offers("STARTTLS") && mode.mandatory():
		return c.fault("STARTTLS", envelope.Reply{}, fmt.Errorf("%w: %w", ErrTLS, ErrNotOffered))
	case !c.Offers("STARTTLS"):
		return nil
	}
	_, reply, err := c.ask("STARTTLS")
	switch {
	case err != nil:
		return c.fault("STARTTLS", reply, err)
	case reply.Code != 220 && !mode.mandatory() && !c.broken:
		return nil
	case reply.Code != 220:
		return c.fault("STARTTLS", reply, nil)
	case c.r.Buffered() > 0: // said in the clear, to be taken for the other side's word under TLS
		return c.fault("STARTTLS", envelope.Reply{}, fmt.Errorf("%w: the server spoke before the TLS handshake", ErrTLS))
	}
	if err := c.handshake(ctx); err != nil {
		return err
	}
	return c.hello() // what was said in the clear is forgotten
}

func (c *Conn) handshake(ctx context.Context) error {
	secured := tls.Client(c.nc, c.tlsConfig())
	c.deadline(c.opts.Timeouts.Greeting)
	if err := secured.HandshakeContext(ctx); err != nil {
		c.record.Note("no TLS: " + err.Error())
		return c.fault("STARTTLS", envelope.Reply{}, fmt.Errorf("%w: %w", ErrTLS, err))
	}
	state := secured.ConnectionState()
	c.tls = tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
	c.record.Note(c.tls + certificateWords(c.verified))
	c.use(secured)
	return nil
}

func certificateWords(err error) string {
	if err != nil {
		return ", certificate not verified: " + err.Error()
	}
	return ", certificate verified"
}

// tlsConfig is the caller's configuration under our policy. No session is resumed: a ticket would carry the trust of
// one policy, or one host, over to another.
func (c *Conn) tlsConfig() *tls.Config {
	config := &tls.Config{}
	if c.opts.Config != nil {
		config = c.opts.Config.Clone()
	}
	config.ServerName = c.serverName()
	config.MinVersion = tls.VersionTLS12
	config.ClientSessionCache = nil
	config.InsecureSkipVerify = true // check decides
	config.VerifyConnection = func(state tls.ConnectionState) error {
		c.verified = c.check(state, config)
		if c.opts.TLS.verified() {
			return c.verified
		}
		return nil
	}
	return config
}

// serverName is the name that the certificate is to have; an address literal stands there without its brackets.
func (c *Conn) serverName() string {
	if c.opts.ServerName != "" {
		return c.opts.ServerName
	}
	if ip, ok := envelope.Literal(c.host); ok {
		return ip.String()
	}
	return c.host
}

// check judges the server's certificate.
func (c *Conn) check(state tls.ConnectionState, config *tls.Config) error {
	if c.opts.Shown != nil {
		c.opts.Shown(state)
	}
	if c.opts.Verify != nil {
		return c.opts.Verify(state)
	}
	o := x509.VerifyOptions{DNSName: config.ServerName, Roots: config.RootCAs, Intermediates: x509.NewCertPool()}
	if config.Time != nil {
		o.CurrentTime = config.Time()
	}
	for _, cert := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(cert)
	}
	if _, err := state.PeerCertificates[0].Verify(o); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
	}
	return nil
}
