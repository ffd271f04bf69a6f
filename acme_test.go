package postroad

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postroad/internal/certs"
	"postroad/internal/config"
	"postroad/internal/listen/listentest"
)

const acmeHost = "mx.example.test"

// A pebble is an ACME server that is made for tests, in a process of its own.
type pebble struct {
	t       *testing.T
	dir     string
	address string // where it is, or will be
	manage  string
	http    *http.Client

	// What it connects to when it looks at a challenge.
	httpAddr, tlsAddr string
	dns               *zone
}

// newPebble prepares one, or skips the test where there is none.
func newPebble(t *testing.T) *pebble {
	t.Helper()
	if _, err := exec.LookPath("pebble"); err != nil {
		t.Skip("pebble, an ACME server for tests, is not installed")
	}
	dir := t.TempDir()
	cert, pool := listentest.Certificate(t, "localhost")
	pair, err := cert.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeTestPEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", pair.Certificate[0])
	writeTestPEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", key)
	return &pebble{
		t: t, dir: dir, address: freeAddress(t), manage: freeAddress(t), httpAddr: freeAddress(t), tlsAddr: freeAddress(t),
		http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}},
		dns:  newZone(t),
	}
}

func writeTestPEM(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// freeAddress is an address of this machine where nobody listens now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func port(addr string) (n int) {
	_, p, _ := net.SplitHostPort(addr)
	fmt.Sscan(p, &n)
	return n
}

// start runs pebble until the test ends, with more of what its config knows and of its environment.
func (p *pebble) start(more map[string]any, env ...string) {
	p.t.Helper()
	settings := map[string]any{
		"listenAddress": p.address, "managementListenAddress": p.manage,
		"certificate": filepath.Join(p.dir, "cert.pem"), "privateKey": filepath.Join(p.dir, "key.pem"),
		"httpPort": port(p.httpAddr), "tlsPort": port(p.tlsAddr),
	}
	for k, v := range more {
		settings[k] = v
	}
	text, err := json.Marshal(map[string]any{"pebble": settings})
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.dir, "pebble.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command("pebble", "-config", file, "-dnsserver", p.dns.addr)
	cmd.Env = append(append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0"), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if p.t.Failed() {
			p.t.Logf("pebble said:\n%s", out.String())
		}
	})
	eventually(p.t, "pebble answers", func() bool {
		reply, err := p.http.Get("https://" + p.address + "/dir")
		if err == nil {
			reply.Body.Close()
		}
		return err == nil
	})
}

// roots are what its certificates are verified by.
func (p *pebble) roots() *x509.CertPool {
	p.t.Helper()
	reply, err := p.http.Get("https://" + p.manage + "/roots/0")
	if err != nil {
		p.t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(text) {
		p.t.Fatalf("no root: %v", err)
	}
	return pool
}

// config is that of a server in dir that obtains its certificate here.
func (p *pebble) config(dir string, challenge certs.Challenge) Config {
	cfg := config.Default()
	cfg.DataDir, cfg.Hostname = dir, acmeHost
	cfg.Listen = config.Listen{
		SMTP: "127.0.0.1:0", Submission: "127.0.0.1:0", Submissions: "127.0.0.1:0", IMAP: "127.0.0.1:0", IMAPS: "127.0.0.1:0", LMTP: "off",
	}
	cfg.ACME = config.ACME{
		Enabled: true, Agreed: true, Email: "ann@example.test", Challenge: string(challenge),
		HTTPListen: config.Addr(p.httpAddr), TLSALPNListen: config.Addr(p.tlsAddr), DNSServer: config.Addr(p.dns.addr), DNSKeyFile: p.dns.keyFile,
		Directory: "https://" + p.address + "/dir", RootCA: filepath.Join(p.dir, "cert.pem"),
	}
	return cfg
}

// eventually waits until done, for as long as a busy machine may need.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// A book is a log that a test reads while it is written.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) count(words string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), words)
}

// running is a server that runs until stop, or until the test ends.
type running struct {
	*Server
	t    *testing.T
	log  *book
	stop func()
}

func runServer(t *testing.T, cfg Config) *running {
	t.Helper()
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	log := &book{}
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
			t.Logf("the server said:\n%s", log.text.String())
		}
	})
	t.Cleanup(r.stop)
	return r
}

// shown is the certificate that a listener shows to a client that asks for name.
func (r *running) shown(listener, name string) *x509.Certificate {
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
	return tc.ConnectionState().PeerCertificates[0]
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

// issued waits for a certificate that roots verify, and checks that all listeners show it.
func (r *running) issued(roots *x509.CertPool, name string) *x509.Certificate {
	r.t.Helper()
	var leaf *x509.Certificate
	eventually(r.t, "a certificate", func() bool {
		leaf = r.shown("imaps", name)
		return verifies(leaf, roots, name)
	})
	for _, l := range []string{"smtp", "submission", "submissions", "imap"} {
		if got := r.shown(l, name); !got.Equal(leaf) {
			r.t.Errorf("%s shows a certificate of %v", l, got.Issuer)
		}
	}
	return leaf
}

// verifies reports whether an authority's certificate for name is shown. Intermediates are not looked at.
func verifies(leaf *x509.Certificate, _ *x509.CertPool, name string) bool {
	return strings.HasPrefix(leaf.Issuer.CommonName, "Pebble") && leaf.VerifyHostname(name) == nil
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
			p := newPebble(t)
			p.start(nil, tt.env...)
			cfg := p.config(t.TempDir(), tt.challenge)
			r := runServer(t, cfg)
			first := r.issued(nil, acmeHost)
			if got := r.shown("imaps", "unknown.example.test"); !got.Equal(first) {
				t.Errorf("a client that asks for another name is shown %v", got.Subject)
			}
			r.stop()
			privateOnly(t, filepath.Join(cfg.DataDir, "tls", "acme"))

			r = runServer(t, cfg)
			if got := r.shown("submissions", acmeHost); !got.Equal(first) {
				t.Errorf("after a restart another certificate is shown, of %v", got.Issuer)
			}
			if err := r.certs.Renew(t.Context(), acmeHost); err != nil {
				t.Fatal(err)
			}
			if n := r.log.count("certificate obtained"); n != 1 {
				t.Errorf("%d certificates were obtained after the restart, one was asked for", n)
			}
			if second := r.issued(nil, acmeHost); second.Equal(first) {
				t.Error("after a renewal the same certificate is shown")
			}
			if left := p.dns.texts(); len(left) > 0 {
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

// A zone is a DNS server for example.test, which takes updates that are signed with its key.
type zone struct {
	addr, keyFile string

	mu   sync.Mutex
	text map[string][]string // TXT records by name
}

func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{text: map[string][]string{}, keyFile: filepath.Join(t.TempDir(), "dns.key")}
	const secret = "c2VjcmV0IGZvciB0ZXN0cyBvbmx5IC0tLS0tLS0tLS0="
	if err := os.WriteFile(z.keyFile, []byte("key \"acme.\" {\n\talgorithm hmac-sha256;\n\tsecret \""+secret+"\";\n};\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := net.Listen("tcp", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	z.addr = stream.Addr().String()
	for _, s := range []*dns.Server{{PacketConn: packets}, {Listener: stream}} {
		s.Handler, s.TsigSecret = z, map[string]string{"acme.": secret}
		// Else updates are refused before they are looked at.
		s.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return z
}

// texts are the TXT records that there are.
func (z *zone) texts() (list []string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for name, values := range z.text {
		for _, v := range values {
			list = append(list, name+" "+v)
		}
	}
	return list
}

// ServeDNS answers: every name of the zone is this machine.
func (z *zone) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	reply := new(dns.Msg).SetReply(m)
	reply.Authoritative = true
	if m.Opcode == dns.OpcodeUpdate {
		reply.Rcode = z.update(w, m)
		if sig := m.IsTsig(); sig != nil && w.TsigStatus() == nil {
			reply.SetTsig(sig.Hdr.Name, sig.Algorithm, 300, time.Now().Unix())
		}
		w.WriteMsg(reply)
		return
	}
	name := strings.ToLower(m.Question[0].Name)
	header := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 1}
	}
	switch kind := m.Question[0].Qtype; {
	case kind == dns.TypeA:
		reply.Answer = append(reply.Answer, &dns.A{Hdr: header(kind), A: net.IPv4(127, 0, 0, 1)})
	case kind == dns.TypeTXT:
		for _, v := range z.text[name] {
			reply.Answer = append(reply.Answer, &dns.TXT{Hdr: header(kind), Txt: []string{v}})
		}
	case kind == dns.TypeSOA && name == "example.test.":
		reply.Answer = append(reply.Answer, &dns.SOA{Hdr: header(kind), Ns: "ns.example.test.", Mbox: "ann.example.test.", Serial: 1})
	}
	w.WriteMsg(reply)
}

// update carries out an update (RFC 2136, 3.4).
func (z *zone) update(w dns.ResponseWriter, m *dns.Msg) int {
	if m.IsTsig() == nil || w.TsigStatus() != nil || m.Question[0].Name != "example.test." {
		return dns.RcodeRefused
	}
	for _, rr := range m.Ns {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			return dns.RcodeRefused
		}
		name := strings.ToLower(txt.Hdr.Name)
		var rest []string
		for _, v := range z.text[name] {
			if v != txt.Txt[0] {
				rest = append(rest, v)
			}
		}
		if txt.Hdr.Class == dns.ClassINET {
			rest = append(rest, txt.Txt[0])
		}
		z.text[name] = rest
	}
	return dns.RcodeSuccess
}

var _ = cmp.Or[string]
