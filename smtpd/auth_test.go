package smtpd

import (
	"crypto/tls"
	"encoding/base64"
	"net"
	"strings"
	"testing"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

var (
	alicePlain = b64("\x00alice@example.test\x00secret")
	loggedIn   = hello + "\n> AUTH PLAIN " + alicePlain + "\n< 235 2.7.0\n"
)

func TestAuth(t *testing.T) {
	tests := []struct{ name, script string }{
		{"PLAIN at once", "> AUTH PLAIN " + alicePlain + "\n< 235 2.7.0"},
		{"PLAIN when asked", "> AUTH PLAIN\n< 334\n> " + alicePlain + "\n< 235"},
		{"PLAIN with itself as identity", "> auth plain " + b64("bob@example.test\x00bob@example.test\x00secret") + "\n< 235"},
		{"PLAIN with another identity", "> AUTH PLAIN " + b64("bob@example.test\x00alice@example.test\x00secret") + "\n< 535 5.7.8"},
		{"PLAIN wrong", "> AUTH PLAIN " + b64("\x00alice@example.test\x00wrong") + "\n< 535 5.7.8"},
		{"PLAIN of two parts", "> AUTH PLAIN " + b64("alice@example.test\x00secret") + "\n< 501 5.5.2"},
		{"PLAIN with a NUL too many", "> AUTH PLAIN " + b64("\x00alice@example.test\x00secret\x00") + "\n< 501 5.5.2"},
		{"PLAIN of nothing", "> AUTH PLAIN =\n< 501 5.5.2"},
		{"not base64", "> AUTH PLAIN ***\n< 501 5.5.2"},
		{"given up", "> AUTH PLAIN\n< 334\n> *\n< 501"},
		{"LOGIN", "> AUTH LOGIN\n< 334 VXNlcm5hbWU6\n> " + b64("alice@example.test") + "\n< 334 UGFzc3dvcmQ6\n> " + b64("secret") + "\n< 235 2.7.0"},
		{"LOGIN with the name at once", "> AUTH LOGIN " + b64("alice@example.test") + "\n< 334 UGFzc3dvcmQ6\n> " + b64("secret") + "\n< 235"},
		{"LOGIN wrong", "> AUTH LOGIN " + b64("alice@example.test") + "\n< 334\n> " + b64("Secret") + "\n< 535 5.7.8"},
		{"LOGIN with NUL", "> AUTH LOGIN " + b64("alice@example.test") + "\n< 334\n> " + b64("secret\x00") + "\n< 501"},
		{"another mechanism", "> AUTH CRAM-MD5\n< 504 5.5.4"},
		{"no mechanism", "> AUTH\n< 501"},
		{"twice", "> AUTH PLAIN " + alicePlain + "\n< 235\n> AUTH PLAIN " + alicePlain + "\n< 503"},
		{"within a transaction", "> AUTH PLAIN " + alicePlain + "\n< 235\n> MAIL FROM:<alice@example.test>\n< 250\n> AUTH PLAIN " + alicePlain + "\n< 503"},
		{"MAIL without", "> MAIL FROM:<alice@example.test>\n< 530 5.7.0"},
		{"MAIL after a failure", "> AUTH PLAIN " + b64("\x00alice@example.test\x00wrong") + "\n< 535\n> MAIL FROM:<alice@example.test>\n< 530 5.7.0"},
		{"three failures", strings.Repeat("> AUTH PLAIN "+b64("\x00alice@example.test\x00wrong")+"\n< 535 5.7.8\n", 2) +
			"> AUTH PLAIN " + b64("\x00alice@example.test\x00wrong") + "\n< 421 4.7.0\n<-"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := open(t, Submission, false)
			h.dial(t).talk(hello + test.script)
			if strings.Contains(h.log.String(), "secret") || strings.Contains(h.log.String(), b64("secret")) {
				t.Errorf("the log tells a password:\n%s", h.log)
			}
		})
	}
}

func (p *pipes) dialFromAfar(t testing.TB) *client {
	return newClient(t, p.DialFrom(net.IPv4(192, 0, 2, 7)))
}

func TestNoPasswordInTheClearFromAfar(t *testing.T) {
	h, p := piped(t, Submission)
	c := p.dialFromAfar(t)
	c.talk("< 220\n> EHLO x")
	if caps := c.expect("250"); strings.Contains(caps, "AUTH") || !strings.Contains(caps, "STARTTLS") {
		t.Errorf("offered in the clear:\n%s", caps)
	}
	c.talk("> AUTH PLAIN " + alicePlain + "\n< 538 5.7.11\n> MAIL FROM:<alice@example.test>\n< 530")
	if h.accounts.asked != 0 {
		t.Error("the password was looked at")
	}
	c.talk("> STARTTLS\n< 220\ntls\n> EHLO x")
	if caps := c.expect("250"); !strings.Contains(caps, "250-AUTH PLAIN LOGIN") || strings.Contains(caps, "STARTTLS") {
		t.Errorf("offered under TLS:\n%s", caps)
	}
	c.talk("> AUTH PLAIN " + alicePlain + "\n< 235")
}

func TestOtherListenersTakeNoLogins(t *testing.T) {
	for kind, helo := range map[Kind]string{MX: "EHLO", LMTP: "LHLO"} {
		h := open(t, kind, false)
		c := h.dial(t)
		c.talk("< 220\n> " + helo + " x")
		if caps := c.expect("250"); strings.Contains(caps, "AUTH") {
			t.Errorf("%v offers\n%s", kind, caps)
		}
		c.talk("> AUTH PLAIN " + alicePlain + "\n< 502")
	}
}

func TestSTARTTLS(t *testing.T) {
	const begin = hello + "\n> STARTTLS\n< 220 2.0.0\ntls\n"
	tests := []struct{ name, script string }{
		{"EHLO anew", begin + "> MAIL FROM:<alice@example.test>\n< 503\n> EHLO x\n< 250"},
		{"not twice", begin + "> EHLO x\n< 250\n> STARTTLS\n< 503"},
		{"not after a login", loggedIn + "> STARTTLS\n< 503 5.5.1\n> MAIL FROM:<alice@example.test>\n< 250"},
		{"not in a transaction", loggedIn + "> MAIL FROM:<alice@example.test>\n< 250\n> STARTTLS\n< 503 5.5.1\n> RCPT TO:<bob@example.test>\n< 250"},
		{"with an argument", hello + "> STARTTLS now\n< 501 5.5.4\n> NOOP\n< 250"},
		{"glued", hello + "> STARTTLSnow\n< 500\n> NOOP\n< 250"},
		{"before EHLO", "< 220\n> STARTTLS\n< 220\ntls\n> EHLO x\n< 250"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := open(t, Submission, false)
			h.dial(t).talk(test.script)
		})
	}
}

func TestSTARTTLSWithoutACertificate(t *testing.T) {
	h := open(t, MX, false, func(c *Config) { c.TLS = nil })
	c := h.dial(t)
	c.talk("< 220\n> EHLO x")
	if caps := c.expect("250"); strings.Contains(caps, "STARTTLS") {
		t.Errorf("offered:\n%s", caps)
	}
	c.talk("> STARTTLS\n< 502")
}

// What comes behind STARTTLS in the clear is not executed, before TLS or in it.
func TestCommandsBehindSTARTTLS(t *testing.T) {
	h, p := piped(t, MX)
	for _, behind := range []string{"NOOP\r\n", "EHLO y\r\nMAIL FROM:<evil@far.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nx\r\n.\r\n", "RSET\r\n"} {
		said := p.throw(t, "EHLO x\r\nSTARTTLS\r\n"+behind)
		if !strings.HasSuffix(said, "\r\n554 5.5.1 there were commands behind STARTTLS\r\n") || strings.Contains(said, "\n220 2.0.0") {
			t.Errorf("after %q the server said\n%s", behind, said)
		}
	}
	if n := len(h.queue.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// A failed handshake ends the connection: there is no way back to the clear.
func TestFailedHandshake(t *testing.T) {
	_, p := piped(t, MX)
	said := p.throw(t, "EHLO x\r\nSTARTTLS\r\n", "MAIL FROM:<sender@far.test>\r\nthis is no ClientHello at all\r\n")
	_, after, _ := strings.Cut(said, "ready for TLS\r\n")
	if strings.Contains(after, "250") || strings.Contains(after, "550") {
		t.Errorf("it goes on in the clear: %q", after)
	}
}

// TestALPN: a browser that was led here is sent away before it says anything; who names
// no protocol, as most do, is not.
func TestALPN(t *testing.T) {
	h := open(t, Submission, true)
	for _, tt := range []struct {
		protocols []string
		ok        bool
	}{{nil, true}, {[]string{"smtp"}, true}, {[]string{"h2", "esmtp"}, true}, {[]string{"http/1.1"}, false}, {[]string{"imap"}, false}} {
		tc := tls.Client(h.dial(t).Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: tt.protocols})
		if err := tc.Handshake(); (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.protocols, err)
		}
	}
}

func TestImplicitTLS(t *testing.T) {
	h := open(t, Submission, true)
	c := h.dial(t)
	c.startTLS()
	c.talk("< 220\n> EHLO x")
	if caps := c.expect("250"); strings.Contains(caps, "STARTTLS") || !strings.Contains(caps, "AUTH PLAIN LOGIN") {
		t.Errorf("offered\n%s", caps)
	}
	c.talk("> AUTH PLAIN " + alicePlain + `
		< 235
		> MAIL FROM:<alice@example.test>
		< 250
		> RCPT TO:<far@elsewhere.test>
		< 250
		> DATA
		< 354
		> From: alice@example.test
		>
		> x
		> .
		< 250 2.0.0
		> QUIT
		< 221
		<-`)
	m := h.queue.messages()[0]
	if m.Origin.Protocol != "ESMTPSA" || m.Origin.Account != "alice@example.test" || !strings.HasPrefix(m.Origin.TLS, "TLS1.3 TLS_") {
		t.Errorf("origin %+v", m.Origin)
	}
	if body := h.queue.body(t, m); !strings.Contains(body, "\r\n\t(using TLS1.3 with cipher TLS_") || !strings.Contains(body, " with ESMTPSA id ") || !strings.Contains(body, "\r\n\ttls TLS_") {
		t.Errorf("stored\n%s", body)
	}
}
