package smtpc

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"postroad/internal/listen/listentest"
)

func tlsServer(c net.Conn, config *tls.Config) *tls.Conn { return tls.Server(c, config) }

// secured is a server with STARTTLS, for any number of connections. It counts those on which a session was resumed.
type secured struct {
	config *tls.Config
	hide   bool // it does not offer STARTTLS

	resumed int
	names   []string // that clients asked for
}

func (s *secured) serve(nc net.Conn) {
	defer nc.Close()
	var c net.Conn = nc
	r := bufio.NewReader(c)
	io.WriteString(c, "220 mx\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch {
		case strings.HasPrefix(line, "EHLO") && (s.hide || c != nc):
			io.WriteString(c, "250 mx\r\n")
		case strings.HasPrefix(line, "EHLO"):
			io.WriteString(c, "250-mx\r\n250 STARTTLS\r\n")
		case line == "STARTTLS\r\n":
			io.WriteString(c, "220 go\r\n")
			over := tls.Server(nc, s.config)
			if over.Handshake() != nil {
				return
			}
			if state := over.ConnectionState(); state.DidResume {
				s.resumed++
			} else {
				s.names = append(s.names, state.ServerName)
			}
			c, r = over, bufio.NewReader(over)
		default:
			io.WriteString(c, "221 bye\r\n")
		}
	}
}

// open opens a connection to the server, over sockets: the end of a TLS handshake needs a buffer.
func (s *secured) open(t *testing.T, ctx context.Context, host string, o Options) (*Conn, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan bool)
	go func() {
		defer close(over)
		c, err := l.Accept()
		l.Close()
		if err == nil {
			s.serve(c)
		}
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	o.Hostname = "us.test"
	c, err := Open(ctx, nc, host, o)
	if err == nil {
		c.Close()
	}
	<-over
	return c, err
}

// TestTLSModes: which certificates each way of securing a connection takes, and what it remembers of them.
func TestTLSModes(t *testing.T) {
	config, roots := listentest.Certificate(t, "mx.test", "192.0.2.1")
	old := config.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	trust := &tls.Config{RootCAs: roots}
	no := errors.New("TLSA does not match")
	judge := func(err error) func(tls.ConnectionState) error {
		return func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("there is no certificate")
			}
			return err
		}
	}
	for _, tt := range []struct {
		name     string
		server   secured
		host     string
		o        Options
		fails    string
		tls      bool
		verified string
	}{
		{"good", secured{config: config}, "mx.test", Options{TLS: Opportunistic, Config: trust}, "", true, ""},
		{"good, required", secured{config: config}, "mx.test", Options{TLS: Required, Config: trust}, "", true, ""},
		{"good by another name", secured{config: config}, "mx.other", Options{TLS: Required, Config: trust, ServerName: "mx.test"}, "", true, ""},
		{"wrong name", secured{config: config}, "mx.other", Options{TLS: Opportunistic, Config: trust}, "", true, "not mx.other"},
		{"wrong name, encrypted", secured{config: config}, "mx.other", Options{TLS: Encrypted, Config: trust}, "", true, "not mx.other"},
		{"wrong name, required", secured{config: config}, "mx.other", Options{TLS: Required, Config: trust}, "not mx.other", false, ""},
		{"unknown authority", secured{config: config}, "mx.test", Options{TLS: Opportunistic}, "", true, "unknown authority"},
		{"unknown authority, required", secured{config: config}, "mx.test", Options{TLS: Required}, "unknown authority", false, ""},
		{"judged good", secured{config: config}, "mx.other", Options{TLS: Required, Verify: judge(nil)}, "", true, ""},
		{"judged bad", secured{config: config}, "mx.test", Options{TLS: Required, Config: trust, Verify: judge(no)}, "TLSA", false, ""},
		{"judged bad, opportunistic", secured{config: config}, "mx.test", Options{TLS: Opportunistic, Config: trust, Verify: judge(no)}, "", true, "TLSA"},
		{"none offered", secured{hide: true}, "mx.test", Options{TLS: Opportunistic}, "", false, "not encrypted"},
		{"none offered, encrypted", secured{hide: true}, "mx.test", Options{TLS: Encrypted}, "does not offer STARTTLS", false, ""},
		{"none offered, required", secured{hide: true}, "mx.test", Options{TLS: Required}, "does not offer STARTTLS", false, ""},
		{"none wanted", secured{config: config}, "mx.test", Options{TLS: None}, "", false, "not encrypted"},
		{"too old", secured{config: old}, "mx.test", Options{TLS: Opportunistic, Config: &tls.Config{MinVersion: tls.VersionTLS10}}, "protocol version", false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := tt.server.open(t, t.Context(), tt.host, tt.o)
			if tt.fails != "" {
				if !errors.Is(err, ErrTLS) || !strings.Contains(err.Error(), tt.fails) || errors.Is(err, ErrNotOffered) != tt.server.hide {
					t.Errorf("%v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (c.TLS() != "") != tt.tls || (c.Verified() == nil) != (tt.verified == "") || c.Verified() != nil && !strings.Contains(c.Verified().Error(), tt.verified) {
				t.Errorf("TLS %q, %v; want %v, %q", c.TLS(), c.Verified(), tt.tls, tt.verified)
			}
		})
	}
}

// TestB09NoSessionIsResumed: each connection shows its certificate, whatever was agreed on one before under another policy or
// with another host, and even if the caller's configuration brings a cache.
func TestB09NoSessionIsResumed(t *testing.T) {
	config, roots := listentest.Certificate(t, "mx.test")
	s := &secured{config: config}
	shared := &tls.Config{RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(10)}
	for _, mode := range []TLS{Opportunistic, Required, Encrypted, Required} {
		if _, err := s.open(t, t.Context(), "mx.test", Options{TLS: mode, Config: shared}); err != nil {
			t.Fatal(err)
		}
	}
	if s.resumed != 0 || len(s.names) != 4 {
		t.Errorf("%d of %d sessions were resumed", s.resumed, 4)
	}
	if _, err := s.open(t, t.Context(), "mx.other", Options{TLS: Required, Config: shared, ServerName: "mx.other"}); !errors.Is(err, ErrTLS) {
		t.Errorf("another host was trusted for the first one's certificate: %v", err)
	}
}
