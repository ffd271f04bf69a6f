package certs

import (
	"bufio"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"postroad/internal/certs/certstest"
	"postroad/internal/listen/listentest"
)

// obtaining runs certificates by ACME from p until the test ends.
func obtaining(t *testing.T, p *certstest.Pebble, change func(*ACME)) (*Certs, *listentest.Book) {
	t.Helper()
	a := &ACME{
		Directory: p.Directory, RootCA: p.RootCA, Email: "ann@example.test", Names: []string{hostname},
		Challenge: HTTP01, Listen: p.HTTP, DNS: DNS{Server: p.Zone.Addr, KeyFile: p.Zone.KeyFile},
	}
	change(a)
	log := &listentest.Book{}
	c := open(t, Config{Dir: t.TempDir(), ACME: a, Log: slog.New(slog.NewTextHandler(log, nil))})
	ended := make(chan struct{})
	go func() { defer close(ended); c.Run(t.Context()) }()
	t.Cleanup(func() { <-ended })
	return c, log
}

// The listener for HTTP-01 answers a challenge that is under way, and has nothing for anybody else; what one peer
// can make it read and keep is little.
func TestHTTPListener(t *testing.T) {
	p := certstest.NewPebble(t)
	obtaining(t, p, func(*ACME) {})
	for _, path := range []string{"/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/x", "/../etc/passwd", "/.well-known/acme-challenge/../../x"} {
		for _, method := range []string{"GET", "POST", "HEAD"} {
			r, err := http.NewRequest(method, "http://"+p.HTTP+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = hostname
			reply, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			reply.Body.Close()
			if reply.StatusCode != http.StatusNotFound || reply.Header.Get("Location") != "" {
				t.Errorf("%s %s: %s", method, path, reply.Status)
			}
		}
	}
	conn, err := net.Dial("tcp", p.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 3*challengeHeader)+"\r\n\r\n")
	reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && reply.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a large header: %v", reply.Status)
	}
}

// The listener for TLS-ALPN-01 shows a certificate to those who bring a challenge that is under way, and none to
// anybody else.
func TestTLSListener(t *testing.T) {
	p := certstest.NewPebble(t)
	obtaining(t, p, func(a *ACME) { a.Challenge, a.Listen = TLSALPN01, p.TLS })
	for _, protocols := range [][]string{nil, {"http/1.1"}, {"acme-tls/1"}, {"acme-tls/1", "http/1.1"}} {
		conn, err := tls.Dial("tcp", p.TLS, &tls.Config{ServerName: hostname, NextProtos: protocols, InsecureSkipVerify: true})
		if err == nil {
			t.Errorf("%q: shown %v", protocols, conn.ConnectionState().PeerCertificates)
			conn.Close()
		}
	}
}

// Where the listener cannot be had, the start fails and says which one.
func TestListenerIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Open(Config{Dir: t.TempDir(), Hostname: hostname, ACME: &ACME{Names: []string{hostname}, Challenge: HTTP01, Listen: l.Addr().String()}})
	if err == nil || !strings.Contains(err.Error(), "listen for http-01 challenges: listen tcp "+l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

// A certificate that ends soon is replaced without a word from anybody.
func TestRenewal(t *testing.T) {
	p := certstest.NewPebble(t)
	p.Start(map[string]any{"certificateValidityPeriod": 12})
	c, log := obtaining(t, p, func(a *ACME) { a.look = time.Second })
	log.Await(t, 2, "/acme/certificates/")
	if leaf := seen(t, c, hostname); !certstest.Issued(leaf) {
		t.Errorf("a certificate of %v is shown", leaf.Issuer)
	}
	if said := log.Take(); strings.Count(said, "certificate obtained") < 2 || strings.Contains(said, "ERROR") {
		t.Errorf("logged %s", said)
	}
}
