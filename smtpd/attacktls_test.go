package smtpd_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/smtpd"
)

// B: STARTTLS, TLS and what is kept across them.

// TestB01BufferedPlaintext: what comes with STARTTLS in the clear is never executed, neither before the handshake nor after it.
func TestB01BufferedPlaintext(t *testing.T) {
	h := newHouse(t)
	for _, kind := range kinds {
		s := h.serve(kind, false)
		injected := "MAIL FROM:<evil@far.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nFrom: evil@far.test\r\n\r\nx\r\n.\r\n"
		for cut := range splits("STARTTLS\r\n" + injected + "QUIT\r\n") {
			o := s.play(t, nil, append([]string{s.hello() + " x\r\n"}, cut...)...)
			if len(o.got) != 0 || len(o.replies) > 4 {
				t.Fatalf("%v: cut after %d: %d messages\n%s", kind, len(cut[0]), len(o.got), o.said())
			}
		}
		for _, injected := range []string{"\x00", "\r\n", "RSET\r\n", "EHLO injected.test\r\n", s.login(), "MAIL FROM:<alice@example.test>\r\n", s.toAlice(), s.opening()} {
			if injected == "" {
				continue // nobody logs in here
			}
			p := s.dial(t).talk("< 220\n> " + s.hello() + " x\n< 250")
			p.send("STARTTLS\r\n" + injected)
			got, err := p.reply()
			if err != nil || got.code != 220 {
				continue // it is over, which is the best of answers
			}
			c := tls.Client(p.Conn, anyServer())
			if c.Handshake() != nil {
				continue
			}
			p.Conn, p.r = c, bufio.NewReader(c)
			p.talk("> RCPT TO:<alice@example.test>\n< 503|530")
			t.Errorf("%v: %q came with STARTTLS, and TLS was begun", kind, injected)
		}
		if got := s.queue.take(); len(got) != 0 {
			t.Errorf("%d messages", len(got))
		}
	}
}

// TestB02TLSForgets: nothing that was said in the clear is known after STARTTLS.
func TestB02TLSForgets(t *testing.T) {
	h := newHouse(t)
	for _, kind := range kinds {
		s := h.serve(kind, false)
		begun := func() *peer { return s.dial(t).talk("< 220\n> " + s.hello() + " clear.test\n< 250") }
		begun().talk("> STARTTLS\n< 220\ntls\n> MAIL FROM:<" + s.from() + ">\n< 503|530\n> RCPT TO:<alice@example.test>\n< 503|530\n> DATA\n< 503|530\n> QUIT\n< 221")
		if kind == smtpd.Submission {
			p := begun().talk("> STARTTLS\n< 220\ntls")
			p.send(s.login())
			p.talk("< 503\n> MAIL FROM:<alice@example.test>\n< 503\n> QUIT\n< 221")
		}
		p := begun().talk("> STARTTLS\n< 220\ntls\n> " + s.hello() + " secret.test")
		for _, line := range p.expect("250").text {
			if line == "STARTTLS" {
				t.Errorf("%v offers STARTTLS again", kind)
			}
		}
		p.talk("> RCPT TO:<alice@example.test>\n< 503\n> DATA\n< 503|554\n> BDAT 0 LAST\n< 503")
		if kind == smtpd.Submission {
			p.talk("> MAIL FROM:<alice@example.test>\n< 530")
			p.send(s.login())
			p.expect("235")
		}
		p.talk("> MAIL FROM:<" + s.from() + ">\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> From: " + s.from() + "\n>\n> .\n< 250\n> QUIT\n< 221")
		got := s.queue.take()
		if len(got) != 1 || got[0].Origin.Helo != "secret.test" || got[0].Origin.TLS == "" {
			t.Errorf("%v: %+v", kind, got)
		}
	}
}

// TestB03STARTTLSOutOfPlace: it is said once, by itself, before a login and outside a transaction; and a session that
// heard it out of place is as it was.
func TestB03STARTTLSOutOfPlace(t *testing.T) {
	for _, kind := range kinds {
		overAll(t, kind, func(t *testing.T, s *server, dial func() *peer) {
			_, hasTLS := dial().Conn.(*tls.Conn)
			if hasTLS {
				dial().greet(s).talk("> STARTTLS\n< 503|502\n> NOOP\n< 250\n> STARTTLS x\n< 501|503|502\n> NOOP\n< 250")
				return
			}
			ehlo := "< 220\n> " + s.hello() + " x\n< 250\n"
			dial().talk(ehlo + "> STARTTLS now\n< 501\n> NOOP\n< 250\n> STARTTLSfoo\n< 500\n> STARTTLS-\n< 500\n> NOOP\n< 250")
			dial().begin(s).talk("> STARTTLS\n< 503\n> DATA\n< 354\n> From: " + s.from() + "\n>\n> .\n< 250")
			dial().begin(s).talk(">q \"BDAT 2\\r\\n\\r\\n\"\n< 250\n> STARTTLS\n< 503\n> QUIT\n< 221")
			if kind == smtpd.Submission {
				dial().greet(s).talk("> STARTTLS\n< 503\n> NOOP\n< 250\n> MAIL FROM:<alice@example.test>\n< 250")
			}
			// A handshake that fails is the end, not a session in the clear.
			p := dial().talk(ehlo + "> STARTTLS\n< 220")
			p.send(s.opening() + "QUIT\r\n")
			said, _ := io.ReadAll(p.r)
			if strings.Contains(string(said), "25") || strings.Contains(string(said), "221") {
				t.Errorf("after a handshake that failed: %q", said)
			}
			// No panic, and no transaction from before.
			dial().talk(ehlo + "> STARTTLS\n< 220\ntls\n> MAIL FROM:<a@far.test>\n< 503|530\n> HELO x\n< 250|500\n> RCPT TO:<alice@example.test>\n< 503|530")
		})
	}
}

// TestB05LoginInTheClear: a password that comes in the clear from elsewhere is refused unread.
func TestB05LoginInTheClear(t *testing.T) {
	h := newHouse(t)
	for _, kind := range kinds {
		s := h.serve(kind, false)
		p := s.pipe(t, stranger).talk("< 220\n> " + s.hello() + " x")
		for _, line := range p.expect("250").text {
			if strings.HasPrefix(line, "AUTH") {
				t.Errorf("%v offers %s in the clear", kind, line)
			}
		}
		refused := "< 538|530|503|502\n"
		p.send("AUTH PLAIN " + plain("", "alice@example.test", alicesPassword) + "\r\n")
		p.talk(refused + "> AUTH PLAIN\n" + refused + "> AUTH LOGIN\n" + refused + "> AUTH SCRAM-SHA-256\n" + refused)
		p.talk("> MAIL FROM:<alice@example.test>\n< " + map[bool]string{true: "530", false: "250"}[kind == smtpd.Submission])
		if kind == smtpd.Submission {
			p := s.pipe(t, stranger).talk("< 220\n> EHLO x\n< 250\n> STARTTLS\n< 220\ntls\n> EHLO x\n< 250")
			p.send(s.login())
			p.expect("235")
		}
	}
	if n := strings.Count(h.log.String(), "logged in"); n != 1 { // that over TLS
		t.Errorf("%d logins", n)
	}
}

// TestB06OldTLS: what is older than TLS 1.2, and ciphers that are broken, are refused.
func TestB06OldTLS(t *testing.T) {
	h := newHouse(t)
	s := h.serve(smtpd.MX, true)
	open := h.serve(smtpd.MX, false)
	for _, test := range []struct {
		name   string
		config *tls.Config
		good   bool
	}{
		{"TLS 1.0", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, false},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"RC4", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, tls.TLS_RSA_WITH_RC4_128_SHA}}, false},
		{"3DES", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA}}, false},
		{"CBC with SHA-256", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA256}}, false},
		{"CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA}}, false},
		{"no forward secrecy", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_CBC_SHA}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.config.InsecureSkipVerify = true
			nc, err := net.Dial("tcp", s.addr)
			h.must(err)
			defer nc.Close()
			if err := tls.Client(nc, test.config).Handshake(); (err == nil) != test.good {
				t.Errorf("from the start: %v", err)
			}
			p := open.dial(t).talk("< 220\n> EHLO x\n< 250\n> STARTTLS\n< 220")
			if err := tls.Client(p.Conn, test.config).Handshake(); (err == nil) != test.good {
				t.Errorf("by STARTTLS: %v", err)
			}
			if !test.good { // and it does not go on in the clear
				p.send("MAIL FROM:<evil@far.test>\r\n")
				if rest, _ := io.ReadAll(p.Conn); strings.Contains(string(rest), "250") {
					t.Errorf("it goes on: %q", rest)
				}
			}
		})
	}
}

// TestB09Tickets: a ticket brings no login and no greeting with it, and one listener's is nothing to another.
func TestB09Tickets(t *testing.T) {
	h := newHouse(t)
	tickets := &tls.Config{InsecureSkipVerify: true, ServerName: hostname, ClientSessionCache: tls.NewLRUClientSessionCache(10)}
	dial := func(s *server) (*peer, bool) {
		nc, err := net.Dial("tcp", s.addr)
		h.must(err)
		c := tls.Client(nc, tickets)
		p := newPeer(t, c).talk("< 220")
		return p, c.ConnectionState().DidResume
	}
	submission, mx := h.serve(smtpd.Submission, true), h.serve(smtpd.MX, true)
	p, _ := dial(submission)
	p.talk("> EHLO x\n< 250")
	p.send(submission.login())
	p.talk("< 235\n> QUIT\n< 221")
	p, resumed := dial(submission)
	if resumed {
		t.Error("a session is resumed")
	}
	p.talk("> MAIL FROM:<alice@example.test>\n< 503|530\n> EHLO x\n< 250\n> MAIL FROM:<alice@example.test>\n< 530\n> QUIT\n< 221")
	if p, resumed := dial(mx); resumed {
		t.Error("the ticket of one listener is good at another")
	} else {
		p.talk("> MAIL FROM:<a@far.test>\n< 503\n> EHLO x\n< 250\n> RCPT TO:<a@elsewhere.test>\n< 503\n> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<a@elsewhere.test>\n< 550")
	}
}

// TestB10ALPN: a client that speaks another protocol is told so in the handshake; one that names no protocol, or
// any host, is served, and names leave nothing behind.
func TestB10ALPN(t *testing.T) {
	h := newHouse(t)
	s := h.serve(smtpd.Submission, true)
	handshake := func(c *tls.Config) error {
		c.InsecureSkipVerify = true
		nc := s.pipes.dial(stranger)
		defer nc.Close()
		nc.SetReadDeadline(time.Now().Add(10 * time.Second))
		tc := tls.Client(nc, c)
		if err := tc.Handshake(); err != nil {
			return err
		}
		line := make([]byte, 3)
		if _, err := io.ReadFull(tc, line); err != nil || string(line) != "220" {
			return fmt.Errorf("%q: %w", line, err)
		}
		return nil
	}
	for _, protocol := range []string{"http/1.1", "h2", "imap", "pop3", "managesieve", "ftp", "xmpp-client"} {
		err := handshake(&tls.Config{NextProtos: []string{protocol}})
		if err == nil || !strings.Contains(err.Error(), "no application protocol") {
			t.Errorf("%s: %v", protocol, err)
		}
	}
	if err := handshake(&tls.Config{}); err != nil {
		t.Errorf("no protocol: %v", err)
	}
	names := 500
	if testing.Short() {
		names = 50
	}
	before := heap()
	for i := range names {
		if err := handshake(&tls.Config{ServerName: fmt.Sprintf("%d.%s.test", i, strings.Repeat("x", 60))}); err != nil {
			t.Fatalf("an unknown name: %v", err)
		}
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("%d names leave %d octets", names, grown)
	}
	for _, name := range []string{"..", "a..b", "*.test", "xn--", strings.Repeat("a.", 120) + "test", "127.0.0.1", "\x00"} {
		if err := handshake(&tls.Config{ServerName: name}); err != nil && !strings.Contains(err.Error(), "alert") {
			t.Errorf("the name %q: %v", name, err)
		}
	}
}

// TestB11SlowHandshakes: a handshake has 30 seconds in all, whatever drips in, and holds little.
func TestB11SlowHandshakes(t *testing.T) {
	t.Parallel()
	record := func(kind byte, body string) string {
		return string([]byte{kind, 3, 1, byte(len(body) >> 8), byte(len(body))}) + body
	}
	hello := "\x01\x01\x86\xa0\x03\x03" // a ClientHello of 100,000 octets
	drips := map[string]func(i int) string{
		"an octet a second": func(i int) string { return string((record(22, hello) + strings.Repeat("\x00", 1000))[i]) },
		"nothing":           func(i int) string { return "" },
		"100,000 octets of hello": func(i int) string {
			return record(22, map[bool]string{true: hello}[i == 0]+strings.Repeat("\x00", 1000))
		},
		"empty records":             func(i int) string { return strings.Repeat(record(22, ""), 10) },
		"warnings":                  func(i int) string { return strings.Repeat(record(21, "\x01\x00"), 10) },
		"application data":          func(i int) string { return record(23, "x") },
		"change cipher spec":        func(i int) string { return record(20, "\x01") },
		"a record of 64 KiB":        func(i int) string { return "\x16\x03\x01\xff\xff" + strings.Repeat("x", 1000) },
		"SSLv2":                     func(i int) string { return "\x80\x2e\x01\x00\x02" },
		"a hello, then nothing":     func(i int) string { return map[bool]string{true: record(22, "\x01\x00\x00\x05\x03\x03")}[i == 0] },
		"no TLS but a whole dialog": func(i int) string { return "EHLO x\r\nQUIT\r\n" },
	}
	for _, implicit := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newHouse(t).inMemory(smtpd.MX, implicit)
			for name, drip := range drips {
				c := s.pipes.dial(stranger)
				if !implicit {
					newPeer(t, c).talk("< 220\n> EHLO x\n< 250\n> STARTTLS\n< 220")
				}
				began, over := time.Now(), make(chan struct{})
				go func() {
					for i := 0; ; i++ {
						io.WriteString(c, drip(i))
						select {
						case <-time.After(time.Second):
						case <-over:
							return
						}
					}
				}()
				c.SetReadDeadline(time.Time{})
				said, err := io.ReadAll(c)
				if err != nil || strings.Contains(string(said), "250") {
					t.Errorf("%s: %q, %v", name, said, err)
				}
				if took := time.Since(began); took > 35*time.Second {
					t.Errorf("%s: the end comes after %v", name, took)
				}
				close(over)
				c.Close()
			}
		})
	}
}
