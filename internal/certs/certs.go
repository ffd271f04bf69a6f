// Package certs has the certificates that the server shows, and the one TLS policy of all listeners.
//
// What it promises:
//   - There is a certificate at every moment: that of the config's files, one by ACME, or until there is such a one a
//     self-signed one that is made here.
//   - Files are read again every few seconds. New ones are shown to whoever connects next; a pair that does not
//     fit together is told in the log, and the one before it stays.
//   - A client that names a server (SNI) gets the certificate for that name; any other gets the first. What clients
//     name is looked up and never remembered.
//   - TLS 1.2 with forward secrecy and AEAD, or TLS 1.3. No session is resumed: a ticket would carry what was agreed
//     on one listener, with one certificate, to another, and its saving is small beside a mail session.
package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postroad/internal/listen"
)

// Config says where certificates come from. Dir and Hostname must be set.
type Config struct {
	Dir      string           // for what is made here; it is made when it is needed
	Hostname string           // whom a self-signed certificate is for
	Files    []Pair           // the first is shown to clients that name none of all certificates' names
	ACME     *ACME            // nil for none
	ClientCA string           // a file of authorities whose certificates clients may log in with; "" for none
	Now      func() time.Time // nil is time.Now
	Log      *slog.Logger     // nil discards
}

// A Pair names the files of a certificate, with those that lead to its root, and of its private key, as PEM.
type Pair struct{ Cert, Key string }

// reloadEvery is how often files are looked at.
const reloadEvery = 10 * time.Second

// Certs are the server's certificates. Any number of goroutines.
type Certs struct {
	// Set by Open, never changed.
	cfg  Config
	log  *slog.Logger
	acme *authority // nil for none

	shown   atomic.Pointer[table]         // what the files hold
	clients atomic.Pointer[x509.CertPool] // nil: no client is asked for a certificate

	mu       sync.Mutex // guards what follows
	files    []*pairFile
	clientCA *caFile // nil for none
}

// Open reads the files, and makes a self-signed certificate where none are named. For ACME it binds a listener where
// its challenges are answered. It starts nothing; who does not Run the Certs closes them.
func Open(cfg Config) (*Certs, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Certs{cfg: cfg, log: cfg.Log}
	if cfg.ACME != nil {
		var err error
		if c.acme, err = openAuthority(*cfg.ACME, filepath.Join(cfg.Dir, "acme"), c.log, c.Reload); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(c.openFiles(), c.openClientCA()); err != nil {
		c.Close()
		return nil, err
	}
	c.shown.Store(c.table())
	return c, nil
}

// Close gives up the listener for challenges. After Run there is none.
func (c *Certs) Close() {
	if c.acme != nil {
		c.acme.close()
	}
}

// Run keeps the certificates current until ctx is done, and returns nil then.
func (c *Certs) Run(ctx context.Context) error {
	defer c.Close()
	if c.acme != nil {
		var g sync.WaitGroup
		defer g.Wait()
		g.Go(func() { c.acme.run(ctx) })
	}
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	warn := time.NewTicker(24 * time.Hour)
	defer warn.Stop()
	c.warn()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.Reload()
		case <-warn.C:
			c.warn()
		}
	}
}

// warnBefore a certificate's end its owner is told, every day. One by ACME should have been renewed long before.
const warnBefore = 14 * 24 * time.Hour

// warn tells of certificates that end soon, or have ended.
func (c *Certs) warn() {
	for _, i := range c.List() {
		if left := i.Until.Sub(c.cfg.Now()); i.Issuer != "" && left < warnBefore {
			c.log.Warn("a certificate ends soon or has ended; put a new one in its place, which needs no restart",
				"cert", i.File, "names", i.Names, "until", i.Until, "trouble", i.Trouble)
		}
	}
}

// TLSConfig returns a listener's config, which belongs to the caller. Clients that ask by ALPN (RFC 7301) for
// protocols, and for none of these, are sent away.
func (c *Certs) TLSConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		GetCertificate:         c.choose,
		NextProtos:             protocols,
		MinVersion:             tls.VersionTLS12,
		CipherSuites:           slices.Clone(suites),
		SessionTicketsDisabled: true,
		Time:                   c.cfg.Now,
	}
}

// UserTLSConfig is TLSConfig for listeners where users log in: they may show a certificate of the client authorities,
// if there are any. The connection's VerifiedChains are empty unless they did; with another one there is no connection.
func (c *Certs) UserTLSConfig(protocols ...string) *tls.Config {
	config := c.TLSConfig(protocols...)
	if c.clients.Load() == nil {
		return config
	}
	asking := &asking{certs: c, base: config.Clone()}
	config.GetConfigForClient = asking.config
	return config
}

// suites are those of TLS 1.2 that have forward secrecy and AEAD; those of 1.3 all do (RFC 9325, 4.2).
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// asking is a listener's config with the client authorities of the moment.
type asking struct {
	certs *Certs
	base  *tls.Config
	last  atomic.Pointer[tls.Config]
}

func (a *asking) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	pool := a.certs.clients.Load()
	if last := a.last.Load(); last != nil && last.ClientCAs == pool {
		return last, nil
	}
	config := a.base.Clone()
	config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, pool
	a.last.Store(config)
	return config, nil
}

// A table finds certificates by name. It never changes.
type table struct {
	byName map[string][]*tls.Certificate // "mail.example.org", "*.example.org"
	first  []*tls.Certificate            // of the first pair, and others for the same name
}

// choose is a tls.Config's GetCertificate.
func (c *Certs) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return listen.Show(hello, c.certificate(hello)), nil
}

// certificate is the one to show. It is never nil.
func (c *Certs) certificate(hello *tls.ClientHelloInfo) *tls.Certificate {
	t := c.shown.Load()
	name := strings.ToLower(hello.ServerName)
	for _, key := range []string{name, wildcard(name)} {
		if list := t.byName[key]; len(list) > 0 {
			return fitting(hello, list)
		}
	}
	nameless := *hello
	nameless.ServerName = "" // so that a certificate fits by its key alone
	return fitting(&nameless, t.first)
}

// wildcard is the name that certificates have for name and its neighbours (RFC 6125, 6.4.3).
func wildcard(name string) string {
	_, parent, _ := strings.Cut(name, ".")
	return "*." + parent
}

// fitting is the first certificate of a kind of key that the client can verify, else the first of all.
func fitting(hello *tls.ClientHelloInfo, list []*tls.Certificate) *tls.Certificate {
	if len(list) > 1 {
		for _, cert := range list {
			if hello.SupportsCertificate(cert) == nil {
				return cert
			}
		}
	}
	return list[0]
}

// table makes the table of what the files hold now. mu must be held, or c be new.
func (c *Certs) table() *table {
	t := &table{byName: map[string][]*tls.Certificate{}}
	for _, f := range c.files {
		if f.cert == nil {
			continue
		}
		if t.first == nil {
			t.first = []*tls.Certificate{f.cert}
		}
		for _, name := range f.cert.Leaf.DNSNames {
			name = strings.ToLower(name)
			t.byName[name] = append(t.byName[name], f.cert)
		}
	}
	if names := t.first[0].Leaf.DNSNames; len(names) > 0 {
		t.first = t.byName[strings.ToLower(names[0])]
	}
	return t
}

// Info tells of one certificate.
type Info struct {
	Names   []string  // whom it is for
	Issuer  string    // who says so; "" when it is not there yet
	Until   time.Time // when it ends
	Source  string    // "file", "self-signed", or "acme" and the authority's directory
	File    string    // that it is read from
	Trouble string    // why there is no newer one, if there should be; else ""
}

// List tells of all certificates. The first that is there is shown to clients that name none of them.
func (c *Certs) List() []Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Info
	for _, f := range c.files {
		info := Info{Source: f.source, File: f.Cert, Trouble: f.trouble}
		if f.name != "" {
			info.Names, info.Trouble = []string{f.name}, cmp.Or(f.trouble, c.acme.troubleOf(f.name))
		}
		if f.cert != nil {
			leaf := f.cert.Leaf
			info.Names, info.Issuer, info.Until = leaf.DNSNames, issuer(leaf), leaf.NotAfter
		}
		list = append(list, info)
	}
	return list
}

// issuer names who signed a certificate.
func issuer(leaf *x509.Certificate) string {
	organization := strings.Join(leaf.Issuer.Organization, ", ")
	return strings.TrimSpace(organization + " " + leaf.Issuer.CommonName)
}

// ErrNotObtained means that a certificate is none of those that are obtained by ACME.
var ErrNotObtained = errors.New("no certificate for this name is obtained by ACME")

// Renew obtains another certificate for one of ACME's names, whether or not it is time, and shows it. It needs Run.
func (c *Certs) Renew(ctx context.Context, name string) error {
	if c.acme == nil {
		return ErrNotObtained
	}
	return c.acme.renew(ctx, strings.ToLower(name))
}
