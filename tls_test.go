package postroad

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postroad/internal/config"
	"postroad/internal/listen/listentest"
)

// withFiles is a config whose certificate is of name and in files, and the pool that trusts it.
func withFiles(t *testing.T, name string) (Config, *x509.CertPool) {
	t.Helper()
	cfg := config.Default()
	cfg.DataDir = t.TempDir()
	cfg.Listen = config.Listen{SMTP: "127.0.0.1:0", Submission: "127.0.0.1:0", Submissions: "127.0.0.1:0", IMAP: "127.0.0.1:0", IMAPS: "127.0.0.1:0", LMTP: "off"}
	dir := t.TempDir()
	cfg.TLS.Cert, cfg.TLS.Key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return cfg, replaceFiles(t, cfg, name)
}

// replaceFiles puts a new certificate for name in the place of the config's.
func replaceFiles(t *testing.T, cfg Config, name string) *x509.CertPool {
	t.Helper()
	cert, key, pool := listentest.PEM(t, name)
	for file, text := range map[string][]byte{cfg.TLS.Cert: cert, cfg.TLS.Key: key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pool
}

// A certificate that is replaced on disk is shown on every listener without a restart; connections that are open go on.
func TestCertificateIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("files are looked at every ten seconds")
	}
	cfg, _ := withFiles(t, acmeHost)
	r := runServer(t, cfg)
	open, err := tls.Dial("tcp", r.Addr("imaps"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	open.SetDeadline(time.Now().Add(2 * time.Minute))
	r.talk(open, "* OK")
	pool := replaceFiles(t, cfg, acmeHost)
	trusted := func(listener string) bool {
		_, err := r.shown(listener, acmeHost)[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: acmeHost})
		return err == nil
	}
	r.log.Await(t, 1, `msg="certificate loaded"`)
	for _, l := range []string{"imaps", "smtp", "submission", "submissions", "imap"} {
		if !trusted(l) {
			t.Errorf("%s shows another certificate", l)
		}
	}
	io.WriteString(open, "a NOOP\r\n")
	r.talk(open, "a OK")
}

// A client that asks for another protocol, because somebody led it here, learns that nobody here speaks it; and what
// it agreed on with one listener is nothing to another, nor to the same again.
func TestListenersAreApart(t *testing.T) {
	cfg, pool := withFiles(t, acmeHost)
	r := runServer(t, cfg)
	sessions := tls.NewLRUClientSessionCache(10)
	for range 2 {
		for listener, protocols := range map[string]string{"submissions": "smtp", "imaps": "imap"} {
			for _, asked := range []string{"", "smtp", "imap", "http/1.1", "h2", "pop3", "acme-tls/1"} {
				client := &tls.Config{ServerName: acmeHost, RootCAs: pool, ClientSessionCache: sessions}
				if asked != "" {
					client.NextProtos = []string{asked}
				}
				conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", r.Addr(listener), client)
				if asked != "" && asked != protocols {
					if err == nil || !strings.Contains(err.Error(), "no application protocol") {
						t.Errorf("%s for %q: %v", listener, asked, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s for %q: %v", listener, asked, err)
					continue
				}
				if conn.Read(make([]byte, 1)); conn.ConnectionState().DidResume {
					t.Errorf("%s: a session was resumed", listener)
				}
				conn.Close()
			}
		}
	}
}
