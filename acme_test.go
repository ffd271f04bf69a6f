package postroad

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/internal/certs"
	"postroad/internal/certs/certstest"
	"postroad/internal/config"
	"postroad/internal/listen/listentest"
)

const acmeHost = "mx.example.test"

// acmeConfig is that of a server in dir that obtains its certificate here.
func acmeConfig(p *certstest.Pebble, dir string, challenge certs.Challenge) Config {
	cfg := config.Default()
	cfg.DataDir, cfg.Hostname = dir, acmeHost
	cfg.Listen = config.Listen{
		SMTP: "127.0.0.1:0", Submission: "127.0.0.1:0", Submissions: "127.0.0.1:0", IMAP: "127.0.0.1:0", IMAPS: "127.0.0.1:0", LMTP: "off",
	}
	cfg.ACME = config.ACME{
		Enabled: true, Agreed: true, Email: "ann@example.test", Challenge: string(challenge),
		HTTPListen: config.Addr(p.HTTP), TLSALPNListen: config.Addr(p.TLS), DNSServer: config.Addr(p.Zone.Addr), DNSKeyFile: p.Zone.KeyFile,
		Directory: p.Directory, RootCA: p.RootCA,
	}
	return cfg
}

// running is a server that runs until stop, or until the test ends.
type running struct {
	*Server
	t    *testing.T
	log  *listentest.Book
	stop func()
}

func runServer(t *testing.T, cfg Config) *running {
	t.Helper()
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	log := &listentest.Book{}
	srv, err := Open(cfg, Options{Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	r := &running{Server: srv, t: t, log: log}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the server said:\n%s", log.String())
		}
	})
	t.Cleanup(r.stop)
	return r
}

// shown is the chain of certificates that a listener shows to a client that asks for name.
func (r *running) shown(listener, name string) []*x509.Certificate {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.Addr(listener))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	switch listener {
	case "smtp", "submission":
		r.talk(conn, "220 ", "EHLO client.test\r\n", "250 ", "STARTTLS\r\n", "220 ")
	case "imap":
		r.talk(conn, "* OK", "a STARTTLS\r\n", "a OK")
	}
	tc := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		r.t.Fatalf("%s: %v", listener, err)
	}
	return tc.ConnectionState().PeerCertificates
}

// talk expects lines that begin so, and says what is between them.
func (r *running) talk(conn net.Conn, words ...string) {
	r.t.Helper()
	for i, w := range words {
		if i%2 == 1 {
			io.WriteString(conn, w)
			continue
		}
		for line := ""; !strings.HasPrefix(line, w); {
			line = ""
			for b := make([]byte, 1); !strings.HasSuffix(line, "\n"); line += string(b) {
				if _, err := conn.Read(b); err != nil {
					r.t.Fatalf("waiting for %q: %v", w, err)
				}
			}
		}
	}
}

// acmeLoaded is what the log says when a certificate of an authority begins to be shown.
const acmeLoaded = "/acme/certificates/"

// issued waits for a certificate of the authority, and checks that all listeners show it.
func (r *running) issued(p *certstest.Pebble) *x509.Certificate {
	r.t.Helper()
	r.log.Await(r.t, max(r.log.Count(`msg="certificate obtained"`), 1), acmeLoaded)
	chain := r.shown("imaps", acmeHost)
	p.Verify(chain, acmeHost)
	for _, l := range []string{"smtp", "submission", "submissions", "imap"} {
		if got := r.shown(l, acmeHost)[0]; !got.Equal(chain[0]) {
			r.t.Errorf("%s shows a certificate of %v", l, got.Issuer)
		}
	}
	return chain[0]
}

// A server in an empty directory obtains its certificate by each challenge, shows it on every listener without a
// restart, shows the same one after a restart without asking again, and another one when it is told to renew.
func TestACME(t *testing.T) {
	for _, tt := range []struct {
		name      string
		challenge certs.Challenge
		env       []string
	}{
		{"HTTP-01", certs.HTTP01, nil},
		{"TLS-ALPN-01", certs.TLSALPN01, nil},
		{"DNS-01", certs.DNS01, nil},
		{"a server that refuses half of all nonces", certs.HTTP01, []string{"PEBBLE_WFE_NONCEREJECT=50"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := certstest.NewPebble(t)
			p.Start(nil, tt.env...)
			cfg := acmeConfig(p, t.TempDir(), tt.challenge)
			r := runServer(t, cfg)
			first := r.issued(p)
			if got := r.shown("imaps", "unknown.example.test")[0]; !got.Equal(first) {
				t.Errorf("a client that asks for another name is shown %v", got.Subject)
			}
			r.stop()
			privateOnly(t, filepath.Join(cfg.DataDir, "tls", "acme"))

			r = runServer(t, cfg)
			if got := r.shown("submissions", acmeHost)[0]; !got.Equal(first) {
				t.Errorf("after a restart another certificate is shown, of %v", got.Issuer)
			}
			if err := r.certs.Renew(t.Context(), acmeHost); err != nil {
				t.Fatal(err)
			}
			if n := r.log.Count(`msg="certificate obtained"`); n != 1 {
				t.Errorf("%d certificates were obtained after the restart, one was asked for", n)
			}
			if second := r.issued(p); second.Equal(first) {
				t.Error("after a renewal the same certificate is shown")
			}
			list := r.certs.List()
			if got := list[0]; !strings.HasPrefix(got.Source, "acme https://") || !strings.HasPrefix(got.Issuer, "Pebble") || got.Trouble != "" || got.Names[0] != acmeHost {
				t.Errorf("listed as %+v", got)
			}
			if left := p.Zone.Texts(); len(left) > 0 {
				t.Errorf("left in the zone: %q", left)
			}
		})
	}
}

// privateOnly checks that only the server's user can read what is below dir.
func privateOnly(t *testing.T, dir string) {
	t.Helper()
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A server starts and serves while its ACME server is down, says what is wrong and what to do, stops at once, and
// has its certificate soon after the other is there.
func TestACMEServerIsDown(t *testing.T) {
	p := certstest.NewPebble(t)
	cfg := acmeConfig(p, t.TempDir(), certs.HTTP01)
	r := runServer(t, cfg)
	r.log.Await(t, 1, "no certificate could be obtained; see that")
	if !r.log.Has("see that " + p.Directory + " can be reached from here") {
		t.Error("nothing is said of what to do")
	}
	if got := r.shown("imaps", acmeHost)[0]; got.VerifyHostname(acmeHost) != nil || certstest.Issued(got) {
		t.Errorf("meanwhile a certificate of %v is shown", got.Issuer)
	}
	if err := r.certs.Renew(t.Context(), acmeHost); err == nil || !strings.Contains(err.Error(), "can be reached from here") {
		t.Errorf("who asks for a certificate is told %v", err)
	}
	if got := r.certs.List()[0]; got.Issuer != "" || got.Names[0] != acmeHost || !strings.Contains(got.Trouble, "connection refused") {
		t.Errorf("listed as %+v", got)
	}
	if s, err := r.Admin().Status(t.Context()); err != nil || len(s.Troubled) != 1 || s.Troubled[0].Names[0] != acmeHost || s.Troubled[0].Trouble == "" {
		t.Errorf("the status tells of %+v, %v", s.Troubled, err)
	}
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}

	r = runServer(t, cfg)
	p.Start(nil)
	if err := r.certs.Renew(t.Context(), acmeHost); err != nil {
		t.Fatal(err)
	}
	r.issued(p)
}

// What an ACME server refuses is told with its words and ours, and what was obtained before goes on being shown.
func TestACMERefusals(t *testing.T) {
	t.Run("an account that is not bound", func(t *testing.T) {
		p := certstest.NewPebble(t)
		p.Start(map[string]any{"externalAccountBindingRequired": true, "externalAccountMACKeys": map[string]string{
			"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",
		}})
		cfg := acmeConfig(p, t.TempDir(), certs.HTTP01)
		r := runServer(t, cfg)
		r.log.Await(t, 1, "no certificate could be obtained")
		if !r.log.Has("externalAccountRequired") {
			t.Error("the authority's reason is not told")
		}
		r.stop()
		cfg.ACME.EABKeyID, cfg.ACME.EABHMAC = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
		runServer(t, cfg).issued(p)
	})
	t.Run("a challenge that cannot be reached", func(t *testing.T) {
		p := certstest.NewPebble(t)
		p.Start(nil)
		cfg := acmeConfig(p, t.TempDir(), certs.HTTP01)
		r := runServer(t, cfg)
		first := r.issued(p)
		r.stop()
		// Another account: Pebble now and then lets an account use again what it has shown once, even when asked never to.
		cfg.ACME.Email, cfg.ACME.HTTPListen = "bob@example.test", "127.0.0.1:0"
		r = runServer(t, cfg)
		if err := r.certs.Renew(t.Context(), acmeHost); err == nil || !strings.Contains(err.Error(), "see that port 80 of each name leads to 127.0.0.1:0 here") {
			t.Errorf("the refusal is told as %v", err)
		}
		if got := r.shown("imaps", acmeHost)[0]; !got.Equal(first) {
			t.Errorf("after the refusal a certificate of %v is shown", got.Issuer)
		}
	})
	t.Run("a zone that takes no updates", func(t *testing.T) {
		p := certstest.NewPebble(t)
		p.Start(nil)
		cfg := acmeConfig(p, t.TempDir(), certs.DNS01)
		cfg.ACME.DNSKeyFile = filepath.Join(t.TempDir(), "other.key")
		key := "key \"acme.\" { algorithm hmac-sha256; secret \"b3RoZXI=\"; };"
		if err := os.WriteFile(cfg.ACME.DNSKeyFile, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		r := runServer(t, cfg)
		r.log.Await(t, 1, "no certificate could be obtained")
		if !r.log.Has("see that it lets the key acme. update the zone") {
			t.Error("nothing is said of the key")
		}
	})
}

// Several names have a certificate each, a wildcard among them; what is damaged on disk is obtained again.
func TestACMENames(t *testing.T) {
	p := certstest.NewPebble(t)
	p.Start(nil)
	cfg := acmeConfig(p, t.TempDir(), certs.DNS01)
	cfg.ACME.Names = []string{"Mail.example.test", "*.example.test"}
	r := runServer(t, cfg)
	r.log.Await(t, 1, " names=[mail.example.test] until=") // it is shown; "obtained" comes before that
	r.log.Await(t, 1, " names=[*.example.test] until=")
	all := func() {
		t.Helper()
		for ask, name := range map[string]string{"mail.example.test": "mail.example.test", "imap.example.test": "imap.example.test", "other.test": "mail.example.test"} {
			p.Verify(r.shown("imaps", ask), name)
		}
	}
	all()
	r.stop()
	files, _ := filepath.Glob(filepath.Join(cfg.DataDir, "tls", "acme", "certificates", "*", "mail*", "*.crt"))
	if len(files) != 1 || os.Truncate(files[0], 50) != nil {
		t.Fatalf("no certificate to spoil in %q", files)
	}
	r = runServer(t, cfg)
	r.log.Await(t, 1, " names=[mail.example.test] until=")
	all()
	if n := r.log.Count(`msg="certificate obtained"`); n != 1 {
		t.Errorf("%d certificates were obtained, one was damaged", n)
	}
}
