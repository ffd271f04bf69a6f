// Package tlstest has what tests of TLS policies want: authorities, the certificates that they issue, records for
// those, and web servers that are reached by pipes.
package tlstest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"postroad/internal/dns"
	"postroad/internal/listen/listentest"
)

// The dates between which certificates are good, unless said otherwise. They suit the time in bubbles, too.
var (
	from  = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	until = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Authority issues certificates.
type Authority struct {
	Cert *x509.Certificate

	t     testing.TB
	key   *ecdsa.PrivateKey
	above [][]byte // the certificates between it and the root, itself first; none of a root
}

// NewAuthority makes a root.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, key: newKey(t)}
	a.Cert, _ = a.sign(authority("root"), &a.key.PublicKey, nil)
	return a
}

// Intermediate makes an authority below a.
func (a *Authority) Intermediate() *Authority {
	a.t.Helper()
	below := &Authority{t: a.t, key: newKey(a.t)}
	var der []byte
	below.Cert, der = a.sign(authority("intermediate"), &below.key.PublicKey, a.Cert)
	below.above = append([][]byte{der}, a.above...)
	return below
}

// Pool has the authority's own certificate.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// Leaf is what a certificate is for; zero fields are left out, or have values that are good.
type Leaf struct {
	Names      []string
	CommonName string
	NotAfter   time.Time
	Key        *ecdsa.PrivateKey
}

// Issue makes a certificate for names.
func (a *Authority) Issue(names ...string) *tls.Certificate { return a.IssueLeaf(Leaf{Names: names}) }

// IssueLeaf makes a certificate. It is shown with those of the authorities above, but not the root's.
func (a *Authority) IssueLeaf(l Leaf) *tls.Certificate {
	a.t.Helper()
	key := l.Key
	if key == nil {
		key = newKey(a.t)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), DNSNames: l.Names, Subject: pkix.Name{CommonName: l.CommonName},
		NotBefore: from, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if !l.NotAfter.IsZero() {
		template.NotAfter = l.NotAfter
	}
	cert, der := a.sign(template, &key.PublicKey, a.Cert)
	return &tls.Certificate{Certificate: append([][]byte{der}, a.above...), PrivateKey: key, Leaf: cert}
}

// WithRoot returns cert shown with the authority's own certificate at the end.
func (a *Authority) WithRoot(cert *tls.Certificate) *tls.Certificate {
	with := *cert
	with.Certificate = append(append([][]byte(nil), cert.Certificate...), a.Cert.Raw)
	return &with
}

func (a *Authority) sign(template *x509.Certificate, key *ecdsa.PublicKey, parent *x509.Certificate) (*x509.Certificate, []byte) {
	a.t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, der
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		panic(err)
	}
	return n
}

// Record is the TLSA record of a certificate.
func Record(usage, selector, matching uint8, cert *x509.Certificate) dns.TLSA {
	data := cert.Raw
	if selector == 1 {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return dns.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: data}
}

// Chain is a certificate as the other side of a handshake sees it.
func Chain(t testing.TB, cert *tls.Certificate) []*x509.Certificate {
	t.Helper()
	var chain []*x509.Certificate
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return chain
}

// closing is how long the two ends of a pipe may wait for each other to say goodbye in TLS.
const closing = 10 * time.Second

// Web is a web server in memory.
type Web struct {
	pipes *listentest.Pipes

	mu    sync.Mutex // guards dials
	dials []string
}

// NewWeb serves by HTTPS until the test ends, in a bubble.
func NewWeb(t testing.TB, cert func() *tls.Certificate, handler http.Handler) *Web {
	w := &Web{pipes: listentest.NewPipes()}
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert(), nil }}
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan struct{})
	go func() {
		server.Serve(tls.NewListener(buffered{w.pipes}, config))
		close(ended)
	}()
	t.Cleanup(func() {
		server.Close()
		<-ended
		time.Sleep(closing) // of the bubble's time
	})
	return w
}

// buffered makes connections whose writes do not wait for the other side to read, as in a real network: both may speak at
// the same time.
type buffered struct{ net.Listener }

func (l buffered) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &bufferedConn{Conn: conn, out: make(chan []byte, 1000), gone: make(chan struct{})}
	go c.pump()
	return c, nil
}

type bufferedConn struct {
	net.Conn
	out    chan []byte
	gone   chan struct{} // closed when the other side takes no more
	closed sync.Once
}

// pump passes on what is written, until Close.
func (c *bufferedConn) pump() {
	defer c.Conn.Close()
	defer close(c.gone)
	for b := range c.out {
		if _, err := c.Conn.Write(b); err != nil {
			return
		}
	}
}

func (c *bufferedConn) Write(b []byte) (int, error) {
	select {
	case c.out <- bytes.Clone(b):
		return len(b), nil
	case <-c.gone:
		return 0, net.ErrClosed
	}
}

func (c *bufferedConn) Close() error {
	c.closed.Do(func() { close(c.out) })
	return nil
}

// What is written has been taken: its time does not run out.
func (c *bufferedConn) SetWriteDeadline(time.Time) error { return nil }

func (c *bufferedConn) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }

// Dial connects to the server, whatever the address.
func (w *Web) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dials = append(w.dials, addr)
	w.mu.Unlock()
	return w.pipes.Dial(), ctx.Err()
}

// Dialled returns the addresses that were dialled.
func (w *Web) Dialled() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.dials...)
}
