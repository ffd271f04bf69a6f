// Package certstest has what tests of certificates by ACME need: an authority, and the DNS that it looks at. All of it
// is on this machine.
package certstest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postroad/internal/listen/listentest"
)

// A Pebble is an ACME server that is made for tests, in a process of its own.
type Pebble struct {
	Directory string // its address
	RootCA    string // a file of what it is verified by
	HTTP, TLS string // where it connects to for HTTP-01 and TLS-ALPN-01
	Zone      *Zone  // where it looks names up

	t       testing.TB
	dir     string
	address string
	manage  string
	client  *http.Client
}

// NewPebble prepares one, or skips the test where there is none. It does not answer before Start.
func NewPebble(t testing.TB) *Pebble {
	t.Helper()
	if _, err := exec.LookPath("pebble"); err != nil {
		t.Skip("pebble, an ACME server for tests, is not installed")
	}
	p := &Pebble{
		t: t, dir: t.TempDir(), address: listentest.FreeAddress(t), manage: listentest.FreeAddress(t),
		HTTP: listentest.FreeAddress(t), TLS: listentest.FreeAddress(t), Zone: NewZone(t),
	}
	p.Directory, p.RootCA = "https://"+p.address+"/dir", filepath.Join(p.dir, "cert.pem")
	cert, key, pool := listentest.PEM(t, "localhost")
	must(t, os.WriteFile(p.RootCA, cert, 0o600))
	must(t, os.WriteFile(filepath.Join(p.dir, "key.pem"), key, 0o600))
	p.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func port(addr string) int {
	_, text, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(text)
	return n
}

// Start runs it until the test ends, with more in its config and its environment.
func (p *Pebble) Start(more map[string]any, env ...string) {
	p.t.Helper()
	settings := map[string]any{
		"listenAddress": p.address, "managementListenAddress": p.manage,
		"certificate": p.RootCA, "privateKey": filepath.Join(p.dir, "key.pem"),
		"httpPort": port(p.HTTP), "tlsPort": port(p.TLS),
	}
	maps.Copy(settings, more)
	text, err := json.Marshal(map[string]any{"pebble": settings})
	must(p.t, err)
	file := filepath.Join(p.dir, "pebble.json")
	must(p.t, os.WriteFile(file, text, 0o600))
	cmd := exec.Command("pebble", "-config", file, "-dnsserver", p.Zone.Addr)
	cmd.Env = append(append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0"), env...)
	var out listentest.Book
	cmd.Stdout, cmd.Stderr = &out, &out
	must(p.t, cmd.Start())
	p.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if p.t.Failed() {
			p.t.Logf("pebble said:\n%s", out.String())
		}
	})
	out.Await(p.t, 1, "ACME directory available")
}

func (p *Pebble) get(url string) ([]byte, error) {
	reply, err := p.client.Get(url)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	return io.ReadAll(reply.Body)
}

// Verify fails the test unless chain is of this authority and for name.
func (p *Pebble) Verify(chain []*x509.Certificate, name string) {
	p.t.Helper()
	root, err := p.get("https://" + p.manage + "/roots/0")
	must(p.t, err)
	o := x509.VerifyOptions{DNSName: name, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	o.Roots.AppendCertsFromPEM(root)
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(o); err != nil {
		p.t.Errorf("the certificate that is shown for %s: %v", name, err)
	}
}

// Issued reports whether a certificate is of such an authority.
func Issued(leaf *x509.Certificate) bool { return strings.HasPrefix(leaf.Issuer.CommonName, "Pebble") }
