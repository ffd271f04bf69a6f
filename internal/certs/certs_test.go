package certs

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/listen"
	"postroad/internal/listen/listentest"
)

const hostname = "mx.example.test"

func open(t *testing.T, cfg Config) *Certs {
	t.Helper()
	cfg.Hostname = cmp.Or(cfg.Hostname, hostname)
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// writePair writes prefix+cert.pem and prefix+key.pem for names, and returns the certificate.
func writePair(t testing.TB, dir, prefix string, names ...string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return writePairOf(t, dir, prefix, key, names...)
}

func writePairOf(t testing.TB, dir, prefix string, key crypto.Signer, names ...string) *x509.Certificate {
	t.Helper()
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial, DNSNames: names, Subject: pkix.Name{CommonName: "a test"},
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, prefix+"cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, filepath.Join(dir, prefix+"key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func write(t testing.TB, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func pair(dir, prefix string) Pair {
	return Pair{Cert: filepath.Join(dir, prefix+"cert.pem"), Key: filepath.Join(dir, prefix+"key.pem")}
}

// seen is the certificate that a client is shown which asks for name.
func seen(t *testing.T, c *Certs, name string) *x509.Certificate {
	t.Helper()
	client, _, err := shake(c.TLSConfig("smtp"), &tls.Config{ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	return client.PeerCertificates[0]
}

// shake makes one connection, which it closes, and returns what both ends know of it.
func shake(server, client *tls.Config) (of tls.ConnectionState, shown *x509.Certificate, err error) {
	pipes := listentest.NewPipes()
	l := listen.New(pipes, listen.Options{})
	defer l.Close()
	done := make(chan *listen.Conn, 1)
	go func() {
		conn, err := l.AcceptConn()
		if err != nil {
			return
		}
		tc := tls.Server(conn, server)
		tc.Handshake()
		tc.Write([]byte("hello"))
		done <- conn
		tc.Close()
	}()
	client.InsecureSkipVerify = true
	tc := tls.Client(pipes.Dial(), client)
	defer tc.Close()
	_, err = io.ReadFull(tc, make([]byte, 5)) // a server's alert comes after a handshake of 1.3
	return tc.ConnectionState(), (<-done).ShownCertificate(), err
}

// Which certificate a client sees, and that the connection knows it.
func TestChoice(t *testing.T) {
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	first := writePair(t, dir, "1", "mx.example.test", "Mail.Example.test")
	second := writePair(t, dir, "2", "example.net", "*.example.net")
	third := writePair(t, dir, "3", "mx.example.net")
	old := writePairOf(t, dir, "4", key, "mx.example.test")
	c := open(t, Config{Files: []Pair{pair(dir, "1"), pair(dir, "2"), pair(dir, "3"), pair(dir, "4")}})
	onlyRSA := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	for _, tt := range []struct {
		name, sni string
		client    *tls.Config
		want      *x509.Certificate
	}{
		{"its name", "mx.example.test", nil, first},
		{"in other letters", "MX.Example.TEST", nil, first},
		{"another name of it", "mail.example.test", nil, first},
		{"a name of another", "example.net", nil, second},
		{"any name", "imap.example.net", nil, second},
		{"its own name before any", "mx.example.net", nil, second},
		{"not two labels", "a.b.example.net", nil, first},
		{"an unknown name", "www.example.com", nil, first},
		{"no name", "", nil, first},
		{"an address", "192.0.2.1", nil, first},
		{"a client without ECDSA", "mx.example.test", onlyRSA, old},
		{"that names nothing", "", onlyRSA, old},
		{"or something unknown", "www.example.com", onlyRSA, old},
	} {
		if tt.name == "its own name before any" {
			tt.want = third
		}
		client := &tls.Config{}
		if tt.client != nil {
			client = tt.client.Clone()
		}
		client.ServerName = tt.sni
		state, shown, err := shake(c.TLSConfig(), client)
		if err != nil || !state.PeerCertificates[0].Equal(tt.want) {
			t.Errorf("%s: %v, %v", tt.name, state.PeerCertificates, err)
			continue
		}
		if !shown.Equal(tt.want) {
			t.Errorf("%s: the connection does not know which it was", tt.name)
		}
	}
}

// Names that clients make up leave nothing behind.
func TestUnknownNamesAreNotKept(t *testing.T) {
	c := open(t, Config{Dir: t.TempDir()})
	ask := func(i int) {
		name := fmt.Sprintf("%d.%s.example", i, strings.Repeat("x", 60))
		if c.certificate(&tls.ClientHelloInfo{ServerName: name}) == nil {
			t.Fatal("no certificate")
		}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	ask(0)
	before := heap()
	for i := range 100_000 {
		ask(i)
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d octets", before, after)
	}
	runtime.KeepAlive(c)
}

// Files that change are shown to whoever connects next. What is broken is told once, at the second look, and
// leaves the certificate as it is.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var log listentest.Book
		old := writePair(t, dir, "", hostname)
		c := open(t, Config{Files: []Pair{pair(dir, "")}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		go c.Run(t.Context())
		time.Sleep(time.Second) // to look between its looks
		look := func(want *x509.Certificate, words string) {
			t.Helper()
			time.Sleep(reloadEvery)
			synctest.Wait()
			if got := seen(t, c, ""); !got.Equal(want) {
				t.Errorf("got %v", got.SerialNumber)
			}
			if got := log.Take(); words == "" && got != "" || !strings.Contains(got, words) {
				t.Errorf("logged %q, want %q", got, words)
			}
		}
		look(old, "")
		next := writePair(t, dir, "", hostname)
		look(next, "certificate loaded")
		look(next, "")

		// One file is there before the other: nothing to tell when the other comes in time.
		certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		was, _ := os.ReadFile(keyFile)
		last := writePair(t, dir, "", hostname)
		is, _ := os.ReadFile(keyFile)
		write(t, keyFile, was)
		look(next, "")
		write(t, keyFile, is)
		look(last, "certificate loaded")

		for _, tt := range []struct {
			name  string
			spoil func()
			words string
		}{
			{"the key of another", func() { write(t, keyFile, was) }, "does not match"},
			{"an empty certificate", func() { write(t, certFile, nil) }, "failed to find any PEM data"},
			{"no certificate", func() { os.Remove(certFile) }, "no such file"},
			{"far too much", func() { write(t, certFile, make([]byte, maxFile+1)) }, "larger than 1 MiB"},
		} {
			good, _ := os.ReadFile(certFile)
			goodKey, _ := os.ReadFile(keyFile)
			tt.spoil()
			look(last, "")
			look(last, tt.words)
			look(last, "")
			write(t, certFile, good)
			write(t, keyFile, goodKey)
			look(last, "certificate loaded")
		}
	})
}

// Nobody is without a certificate while files are replaced again and again.
func TestReloadUnderLoad(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "", hostname)
	c := open(t, Config{Files: []Pair{pair(dir, "")}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 50 {
			writePair(t, dir, "", hostname)
			c.Reload()
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
			if got := seen(t, c, hostname); got.VerifyHostname(hostname) != nil {
				t.Fatalf("got %v", got)
			}
		}
	}
}

// What a start refuses: files that are wrong. It names them.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "good", hostname)
	write(t, filepath.Join(dir, "empty.pem"), nil)
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no file", Config{Files: []Pair{{"none.pem", "none.key"}}}, "load the certificate none.pem with its key none.key"},
		{"the second pair", Config{Files: []Pair{pair(dir, "good"), pair(dir, "second")}}, "secondcert.pem"},
		{"no root of an ACME server", Config{Dir: dir, Hostname: hostname, ACME: &ACME{RootCA: "none.pem"}}, "what the ACME server is verified by: open none.pem"},
		{"no key for DNS", Config{Dir: dir, Hostname: hostname, ACME: &ACME{Challenge: DNS01, DNS: DNS{KeyFile: filepath.Join(dir, "empty.pem")}}}, "holds no key"},
		{"no authority", Config{Files: []Pair{pair(dir, "good")}, ClientCA: filepath.Join(dir, "empty.pem")}, "holds no certificate in PEM form"},
	} {
		_, err := Open(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
		if got := Check(tt.cfg); got == nil || got.Error() != err.Error() {
			t.Errorf("%s: a check says %v, a start %v", tt.name, got, err)
		}
	}
}

// What of TLS is spoken, and what is not (B06).
func TestPolicy(t *testing.T) {
	c := open(t, Config{Dir: t.TempDir()})
	for _, tt := range []struct {
		name   string
		client *tls.Config
		fails  string
	}{
		{"1.3", &tls.Config{MinVersion: tls.VersionTLS13}, ""},
		{"1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, ""},
		{"1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "protocol version"},
		{"1.0", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, "protocol version"},
		{"CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA}}, "handshake failure"},
		{"no forward secrecy", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, "handshake failure"},
		{"3DES", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA}}, "handshake failure"},
		{"RC4", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}}, "handshake failure"},
		{"a protocol that is spoken", &tls.Config{NextProtos: []string{"esmtp"}}, ""},
		{"one of several", &tls.Config{NextProtos: []string{"h2", "smtp"}}, ""},
		{"another protocol", &tls.Config{NextProtos: []string{"http/1.1"}}, "no application protocol"},
		{"a neighbour's protocol", &tls.Config{NextProtos: []string{"imap"}}, "no application protocol"},
		{"a challenge of ACME", &tls.Config{NextProtos: []string{"acme-tls/1"}}, "no application protocol"},
	} {
		_, _, err := shake(c.TLSConfig("smtp", "esmtp"), tt.client)
		if tt.fails == "" && err != nil || tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.fails)
		}
	}
}

// A session is never taken up again: not on the listener that began it, nor on another, which a clone of its config
// would be (B09).
func TestNoSessionIsResumed(t *testing.T) {
	c := open(t, Config{Dir: t.TempDir()})
	one := c.TLSConfig("smtp")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		tickets := tls.NewLRUClientSessionCache(10)
		for i, server := range []*tls.Config{one, one, one.Clone(), c.UserTLSConfig("smtp")} {
			state, _, err := shake(server, &tls.Config{ServerName: hostname, ClientSessionCache: tickets, MaxVersion: version})
			if err != nil || state.DidResume {
				t.Errorf("%s, connection %d: resumed %t, %v", tls.VersionName(version), i+1, state.DidResume, err)
			}
		}
	}
	lax := one.Clone()
	lax.SessionTicketsDisabled = false
	tickets := tls.NewLRUClientSessionCache(10)
	for range 2 { // else the above says nothing
		state, _, err := shake(lax, &tls.Config{ServerName: hostname, ClientSessionCache: tickets})
		if _, ok := tickets.Get(hostname); !ok || err != nil {
			t.Fatalf("a server that gives tickets gave none (%v, %v)", state.DidResume, err)
		}
	}
}

// Who may show a certificate of their own, and what becomes of one that is not of the authorities.
func TestClientCertificates(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "server", hostname)
	client := func(prefix string) *tls.Config {
		cert, err := tls.LoadX509KeyPair(pair(dir, prefix).Cert, pair(dir, prefix).Key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }}
	}
	ours := writePair(t, dir, "ours", "ann")
	writePair(t, dir, "other", "eve")
	later := writePair(t, dir, "later", "bob")
	authorities := filepath.Join(dir, "ca.pem")
	text, _ := os.ReadFile(pair(dir, "ours").Cert)
	write(t, authorities, text)
	c := open(t, Config{Files: []Pair{pair(dir, "server")}, ClientCA: authorities})
	users := c.UserTLSConfig("imap")
	verified := func(server, client *tls.Config) (*x509.Certificate, error) {
		t.Helper()
		state, err := serverState(t, server, client)
		if err != nil || len(state.VerifiedChains) == 0 {
			return nil, err
		}
		return state.VerifiedChains[0][0], nil
	}
	if got, err := verified(users, client("ours")); err != nil || !got.Equal(ours) {
		t.Errorf("one of ours: %v, %v", got, err)
	}
	if got, err := verified(users, &tls.Config{}); err != nil || got != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	if got, err := verified(users, client("other")); err == nil {
		t.Errorf("another's: %v", got)
	}
	if got, err := verified(c.TLSConfig("smtp"), client("ours")); err != nil || got != nil {
		t.Errorf("where nobody is asked: %v, %v", got, err)
	}
	if _, err := verified(users, &tls.Config{NextProtos: []string{"http/1.1"}}); err == nil {
		t.Error("another protocol is spoken where clients are asked for certificates")
	}

	text, _ = os.ReadFile(pair(dir, "later").Cert)
	write(t, authorities, text)
	c.Reload()
	if got, err := verified(users, client("later")); err != nil || !got.Equal(later) {
		t.Errorf("an authority that came later: %v, %v", got, err)
	}
	if _, err := verified(users, client("ours")); err == nil {
		t.Error("an authority that went is still one")
	}
	write(t, authorities, []byte("nothing"))
	c.Reload()
	c.Reload()
	if got, err := verified(users, client("later")); err != nil || !got.Equal(later) {
		t.Errorf("after a broken file came: %v, %v", got, err)
	}
}

// serverState makes a connection and returns what the server knows of it.
func serverState(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, err error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	client = client.Clone()
	client.InsecureSkipVerify = true
	tc := tls.Server(a, server)
	go func() {
		c := tls.Client(b, client)
		c.Handshake()
		c.Read(make([]byte, 1))
	}()
	err = tc.Handshake()
	return tc.ConnectionState(), err
}
