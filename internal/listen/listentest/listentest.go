// Package listentest has what tests of servers and clients want of a network: a
// listener that is reached by pipes, addresses to listen on, and certificates.
package listentest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// Pipes is a listener for the ends of pipes, whose reads are as the peer's writes
// were, and which live in a bubble of testing/synctest.
type Pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// NewPipes returns a listener that nobody has dialled yet.
func NewPipes() *Pipes {
	return &Pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Dial returns the peer's end of a connection, once the other was accepted. The
// server takes it for one from this machine.
func (p *Pipes) Dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// DialFrom is Dial by a peer that has an address.
func (p *Pipes) DialFrom(ip net.IP) net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- From(theirs, ip)
	return ours
}

// Accept returns the next connection, or net.ErrClosed.
func (p *Pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (p *Pipes) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

// Addr is one that only this machine reaches.
func (p *Pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// From returns c as if its peer had the address ip.
func From(c net.Conn, ip net.IP) net.Conn {
	return from{c, &net.TCPAddr{IP: ip, Port: 4711}}
}

type from struct {
	net.Conn
	peer net.Addr
}

func (c from) RemoteAddr() net.Addr { return c.peer }

// sign makes a certificate of a template, and the pool that trusts it. Its dates suit the time in bubbles, too.
func sign(t testing.TB, template x509.Certificate) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.IsCA, template.BasicConstraintsValid = big.NewInt(1), true, true
	template.NotBefore, template.NotAfter = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}, pool
}

// Certificate makes a TLS config for names and 127.0.0.1, and the pool that trusts it. A connection that wants to know
// which certificate it shows is told.
func Certificate(t testing.TB, names ...string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	cert, pool := sign(t, x509.Certificate{DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	return &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c, ok := hello.Conn.(interface{ ShowCertificate(*x509.Certificate) }); ok {
			c.ShowCertificate(cert.Leaf)
		}
		return cert, nil
	}}, pool
}

// UserCertificate makes what a client logs in with as one of addresses, and the pool that trusts it.
func UserCertificate(t testing.TB, addresses ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	cert, pool := sign(t, x509.Certificate{EmailAddresses: addresses, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return *cert, pool
}

// PEM is a certificate and its key as files have them, and the pool that trusts it.
func PEM(t testing.TB, names ...string) (cert, key []byte, pool *x509.CertPool) {
	t.Helper()
	config, pool := Certificate(t, names...)
	pair, err := config.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	cert, key = Encode(t, pair)
	return cert, key, pool
}

// Encode is a certificate and its key as files have them.
func Encode(t testing.TB, pair *tls.Certificate) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
