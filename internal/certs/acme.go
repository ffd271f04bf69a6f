package certs

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// LetsEncrypt is the directory of an authority that everybody trusts and everybody may use.
const LetsEncrypt = certmagic.LetsEncryptProductionCA

// ACME says how certificates are obtained (RFC 8555). Email and Names must be set, and its owner has agreed to the
// authority's terms.
type ACME struct {
	Directory string    // the authority; "" is LetsEncrypt
	RootCA    string    // a file of what the authority's own certificate is verified by; "" is the system's
	Email     string    // of the account there
	Names     []string  // one certificate for each; the first is shown when no file is named
	Challenge Challenge // how it is shown that the names are ours
	Listen    string    // where HTTP01 and TLSALPN01 are answered, "address:port"
	DNS       DNS       // where DNS01 is answered
	EABKeyID  string    // binds the account to another one there (RFC 8555, 7.3.4); "" for none
	EABHMAC   string    // its key, as the authority writes it

	look time.Duration // how often it is looked whether a renewal is due; 0 is certmagic's ten minutes
}

// A Challenge is a way to show that a name is ours.
type Challenge string

// The challenges.
const (
	HTTP01    Challenge = "http-01"     // RFC 8555, 8.3
	DNS01     Challenge = "dns-01"      // RFC 8555, 8.4
	TLSALPN01 Challenge = "tls-alpn-01" // RFC 8737
)

// retries are the waits between attempts to obtain a first certificate; the last one goes on. An authority may
// allow five failures an hour.
var retries = [...]time.Duration{
	time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 80 * time.Minute, 160 * time.Minute, 6 * time.Hour,
}

// An authority obtains certificates and keeps them current. What it has obtained are files below dir, which are
// read like any others.
type authority struct {
	// Set by openAuthority, never changed.
	cfg    ACME
	dir    string
	log    *slog.Logger
	eab    *acme.EAB
	roots  *x509.CertPool
	dns    *dnsSolver  // nil for other challenges
	answer *challenged // nil for DNS01
	fresh  func()      // tells that files have changed
	kicks  map[string]chan chan error

	mu      sync.Mutex        // guards trouble
	trouble map[string]string // by name, of the last attempt, when it failed
}

// openAuthority reads what the config names and binds the listener for challenges. It asks nobody anything.
func openAuthority(cfg ACME, dir string, log *slog.Logger, fresh func()) (*authority, error) {
	cfg.Directory = cmp.Or(cfg.Directory, LetsEncrypt)
	a := &authority{cfg: cfg, dir: dir, log: log, fresh: fresh, kicks: map[string]chan chan error{}, trouble: map[string]string{}}
	a.cfg.Names = nil
	for _, name := range cfg.Names {
		name = strings.ToLower(name)
		a.cfg.Names = append(a.cfg.Names, name)
		a.kicks[name] = make(chan chan error)
	}
	if cfg.EABKeyID != "" {
		a.eab = &acme.EAB{KeyID: cfg.EABKeyID, MACKey: cfg.EABHMAC}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// The data directory has one user at a time: locks are what an end without warning left.
	if err := os.RemoveAll(filepath.Join(dir, "locks")); err != nil {
		return nil, err
	}
	pool, err := cfg.roots()
	if err != nil {
		return nil, err
	}
	a.roots = pool
	return a, a.openChallenge()
}

func (a *authority) openChallenge() (err error) {
	if a.cfg.Challenge == DNS01 {
		a.dns, err = openDNS(a.cfg.DNS)
		return err
	}
	a.answer, err = listenForChallenges(a.cfg.Challenge, a.cfg.Listen, a.log)
	return err
}

func (a *authority) close() {
	if a.answer != nil {
		a.answer.listener.Close()
	}
}

// roots are what the authority is verified by; nil is what the system trusts.
func (cfg *ACME) roots() (*x509.CertPool, error) {
	if cfg.RootCA == "" {
		return nil, nil
	}
	pool, err := (&caFile{name: cfg.RootCA}).load()
	if err != nil {
		return nil, fmt.Errorf("load what the ACME server is verified by: %w", err)
	}
	return pool, nil
}

// check reads the files that cfg names.
func (cfg *ACME) check() error {
	_, err := cfg.roots()
	if err == nil && cfg.Challenge == DNS01 {
		_, err = openDNS(cfg.DNS)
	}
	return err
}

// files are where the certificates for the names are once they have been obtained.
func (a *authority) files() (list []*pairFile) {
	key := (&certmagic.ACMEIssuer{CA: a.cfg.Directory}).IssuerKey()
	for _, name := range a.cfg.Names {
		list = append(list, &pairFile{source: bySource(a.cfg.Directory), name: name, later: true, Pair: Pair{
			Cert: filepath.Join(a.dir, filepath.FromSlash(certmagic.StorageKeys.SiteCert(key, name))),
			Key:  filepath.Join(a.dir, filepath.FromSlash(certmagic.StorageKeys.SitePrivateKey(key, name))),
		}})
	}
	return list
}

// run obtains and renews until ctx is done.
func (a *authority) run(ctx context.Context) {
	var config *certmagic.Config
	log := quiet(a.log)
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil },
		RenewCheckInterval: a.cfg.look, Logger: log,
	})
	defer cache.Stop()
	config = certmagic.New(cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: a.dir}, OCSP: certmagic.OCSPConfig{DisableStapling: true},
		OnEvent: a.event, Logger: log,
	})
	config.Issuers = []certmagic.Issuer{a.issuer(config, log)}
	var g sync.WaitGroup
	if a.answer != nil {
		g.Go(func() { a.answer.serve(ctx, config) })
	}
	for _, name := range a.cfg.Names {
		g.Go(func() { a.manage(ctx, config, name) })
	}
	g.Wait()
}

// issuer is the authority as certmagic knows it. Its challenges are answered where we listen already, which it
// takes for granted of a port that is in use.
func (a *authority) issuer(config *certmagic.Config, log *zap.Logger) certmagic.Issuer {
	template := certmagic.ACMEIssuer{
		CA: a.cfg.Directory, Email: a.cfg.Email, Agreed: true, ExternalAccount: a.eab, TrustedRoots: a.roots,
		DisableHTTPChallenge: a.cfg.Challenge != HTTP01, DisableTLSALPNChallenge: a.cfg.Challenge != TLSALPN01,
		DisableDistributedSolvers: true, Logger: log,
	}
	if a.dns != nil {
		template.DNS01Solver = a.dns
	}
	if a.answer != nil {
		addr := a.answer.listener.Addr().(*net.TCPAddr).AddrPort()
		template.ListenHost, template.AltHTTPPort, template.AltTLSALPNPort = addr.Addr().String(), int(addr.Port()), int(addr.Port())
	}
	return certmagic.NewACMEIssuer(config, template)
}

// manage obtains the certificate for name, trying again until it has one, and leaves its renewal to certmagic,
// which asks the authority when that would suit it (RFC 9773).
func (a *authority) manage(ctx context.Context, config *certmagic.Config, name string) {
	err := config.ManageSync(ctx, []string{name})
	a.note(name, err)
	for failures := 0; ctx.Err() == nil; {
		var again <-chan time.Time
		if err != nil {
			again, failures = a.later(name, err, failures), failures+1
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
			err = config.ManageSync(ctx, []string{name})
		case told := <-a.kicks[name]:
			err = a.renewNow(ctx, config, name)
			told <- err
		}
		a.note(name, err)
	}
}

// note keeps what became of the last attempt.
func (a *authority) note(name string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trouble[name] = words(err)
}

func (a *authority) troubleOf(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.trouble[name]
}

// later tells of an attempt that failed, and when the next one is due.
func (a *authority) later(name string, err error, failures int) <-chan time.Time {
	wait := retries[min(failures, len(retries)-1)]
	wait += rand.N(wait / 5)
	a.log.Error("no certificate could be obtained; "+a.advice(err), "name", name, "again_in", wait.Round(time.Second).String(), "err", err)
	return time.After(wait)
}

// renewNow obtains another certificate, whether or not it is time.
func (a *authority) renewNow(ctx context.Context, config *certmagic.Config, name string) error {
	if err := config.RenewCertSync(ctx, name, true); err != nil {
		return fmt.Errorf("%w (%s)", err, a.advice(err))
	}
	_, err := config.CacheManagedCertificate(ctx, name)
	return err
}

// renew asks for another certificate and waits for it.
func (a *authority) renew(ctx context.Context, name string) error {
	kick, ok := a.kicks[name]
	if !ok {
		return ErrNotObtained
	}
	told := make(chan error, 1)
	select {
	case kick <- told:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-told:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// event is told what certmagic did.
func (a *authority) event(_ context.Context, event string, data map[string]any) error {
	switch event {
	case "cert_obtained":
		a.note(fmt.Sprint(data["identifier"]), nil)
		a.log.Info("certificate obtained", "name", data["identifier"], "from", a.cfg.Directory)
		a.fresh()
	case "cert_failed":
		if err, ok := data["error"].(error); ok && data["renewal"] == true {
			a.note(fmt.Sprint(data["identifier"]), err)
			a.log.Error("a certificate could not be renewed, and will be tried again; "+a.advice(err),
				"name", data["identifier"], "left", fmt.Sprint(data["remaining"]), "err", err)
		}
	}
	return nil
}

// advice is what to do about an error.
func (a *authority) advice(err error) string {
	if _, ok := errors.AsType[acme.Problem](err); !ok {
		return "see that " + a.cfg.Directory + " can be reached from here"
	}
	switch a.cfg.Challenge {
	case DNS01:
		return "see that the zone takes updates with this key, and that its servers answer the world"
	case TLSALPN01:
		return "see that port 443 of each name leads to " + a.cfg.Listen + " here, from everywhere"
	}
	return "see that port 80 of each name leads to " + a.cfg.Listen + " here, from everywhere"
}

// bySource names an authority in lists.
func bySource(directory string) string { return "acme " + directory }
