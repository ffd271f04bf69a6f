package smtpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var proxyAddr = net.IPv4(192, 0, 2, 25)

func withProxy(c *Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.24/30")} }

func TestXCLIENT(t *testing.T) {
	const mail = "\n> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> .\n< 250"
	tests := []struct{ name, say, received, peer string }{
		{"all", "NAME=spike.far.test ADDR=203.0.113.9 PORT=4711 PROTO=ESMTP HELO=spike DESTADDR=192.0.2.1 DESTPORT=25" + "\n< 220 mx.example.test ESMTP" + mail,
			"from spike (spike.far.test [203.0.113.9])\r\n\tby mx.example.test with ESMTP id ", "203.0.113.9"},
		{"and EHLO", "ADDR=IPv6:2001:db8::9\n< 220\n> EHLO other\n< 250" + mail, "from other ([IPv6:2001:db8::9])\r\n", "2001:db8::9"},
		{"an old client", "addr=203.0.113.9 proto=smtp helo=old\n< 220" + mail, "from old ([203.0.113.9])\r\n\tby mx.example.test with SMTP id ", "203.0.113.9"},
		{"nothing is known", "NAME=[UNAVAILABLE] ADDR=[TEMPUNAVAIL] HELO=[unavailable]\n< 220\n> EHLO x\n< 250" + mail, "from x ([0.0.0.0])\r\n", "0.0.0.0"},
		{"twice", "ADDR=203.0.113.8 NAME=a\n< 220\n> XCLIENT ADDR=203.0.113.9\n< 220\n> EHLO x\n< 250" + mail, "from x (a [203.0.113.9])\r\n", "203.0.113.9"},
		{"EHLO is needed again", "ADDR=203.0.113.9\n< 220\n> MAIL FROM:<>\n< 503 5.5.1", "", ""},
		{"xtext", "NAME=a+2Bb\n< 501 5.5.4", "", ""},
		{"unknown", "LOGIN=alice@example.test\n< 501 5.5.4", "", ""},
		{"no value", "NAME\n< 501 5.5.4", "", ""},
		{"given twice", "NAME=a name=b\n< 501 5.5.4", "", ""},
		{"a line end in a name", "NAME=a+0D+0AReceived:\n< 501 5.5.4", "", ""},
		{"a bad name", "NAME=(a)\n< 501 5.5.4", "", ""},
		{"a bad address", "ADDR=203.0.113.900\n< 501 5.5.4", "", ""},
		{"a bad IPv6 address", "ADDR=IPV6:203.0.113.9\n< 501 5.5.4", "", ""},
		{"a zone", "ADDR=IPV6:fe80::1%25eth0\n< 501 5.5.4", "", ""},
		{"a bad port", "PORT=65536\n< 501 5.5.4", "", ""},
		{"a bad protocol", "PROTO=QMTP\n< 501 5.5.4", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h, p := piped(t, MX, withProxy)
			newClient(t, p.DialFrom(proxyAddr)).talk(hello + "> XCLIENT " + test.say)
			if test.received == "" {
				return
			}
			m := h.queue.messages()[0]
			if body := h.queue.body(t, m); !strings.Contains(body, "Received: "+test.received) || m.Origin.Peer != test.peer {
				t.Errorf("peer %s, stored\n%s", m.Origin.Peer, body)
			}
		})
	}
}

// Who is none of the proxies is not told of XCLIENT and XFORWARD, and cannot use them, wherever a proxy said it is.
func TestXCLIENTIsForProxies(t *testing.T) {
	_, p := piped(t, MX, withProxy)
	c := newClient(t, p.DialFrom(net.IPv4(192, 0, 2, 28)))
	c.talk("< 220\n> EHLO x")
	if caps := c.expect("250"); strings.Contains(caps, "XCLIENT") || strings.Contains(caps, "XFORWARD") {
		t.Errorf("offered\n%s", caps)
	}
	c.talk("> XCLIENT ADDR=192.0.2.25\n< 550 5.7.0\n> XFORWARD ADDR=192.0.2.25\n< 550 5.7.0")
	c = newClient(t, p.DialFrom(proxyAddr))
	c.talk("< 220\n> EHLO x")
	if caps := c.expect("250"); !strings.Contains(caps, "250-XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT\n250-XFORWARD NAME ADDR") {
		t.Errorf("offered\n%s", caps)
	}
	c.talk("> MAIL FROM:<>\n< 250\n> XCLIENT ADDR=192.0.2.1\n< 503\n> XFORWARD ADDR=192.0.2.1\n< 503\n> RCPT TO:<alice@example.test>\n< 250")
	c = p.dial(t) // this machine is no proxy by itself
	c.talk(hello + "> XCLIENT ADDR=192.0.2.1\n< 550 5.7.0")
}

// A proxy may have taken the login. Whom it speaks for may do what that account may, and nothing that this machine may.
func TestXCLIENTLogin(t *testing.T) {
	h, p := piped(t, Submission, withProxy)
	c := newClient(t, p.DialFrom(proxyAddr))
	c.talk(hello + `
		> XCLIENT ADDR=203.0.113.9 LOGIN=nobody@example.test
		< 535 5.7.8
		> XCLIENT ADDR=203.0.113.9 LOGIN=nobody
		< 501 5.5.4
		> XCLIENT ADDR=203.0.113.9 LOGIN=alice@example.test
		< 220
		> EHLO x
		< 250
		> MAIL FROM:<bob@example.test>
		< 550 5.7.1
		> MAIL FROM:<alice@example.test>
		< 250
		> RSET
		< 250
		> XCLIENT ADDR=127.0.0.2 LOGIN=[UNAVAILABLE]
		< 220
		> EHLO x
		< 250
		> MAIL FROM:<alice@example.test>
		< 530
		> XCLIENT ADDR=[UNAVAILABLE]
		< 220
		> EHLO x
		< 250
		> AUTH PLAIN ` + alicePlain + `
		< 538`)
	if h.accounts.asked != 0 {
		t.Error("a password was looked at")
	}
}

// XFORWARD tells the trace whose one message is. The session stays the proxy's.
func TestXFORWARD(t *testing.T) {
	h, p := piped(t, MX, withProxy)
	const mail = "> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> .\n< 250\n"
	newClient(t, p.DialFrom(proxyAddr)).talk(hello + `
		> XFORWARD NAME=spike.far.test ADDR=203.0.113.9 PORT=1 SOURCE=REMOTE
		< 250
		> XFORWARD HELO=spike PROTO=ESMTP IDENT=1+2F2
		< 250
		> XFORWARD HELO=(a)
		< 501
		` + mail + mail + `
		> XFORWARD ADDR=203.0.113.9
		< 250
		> RSET
		< 250
		` + mail + `
		> XFORWARD NAME=[UNAVAILABLE] PROTO=QMQP SOURCE=LOCAL
		< 250
		` + mail)
	got := h.queue.messages()
	for i, want := range []string{"203.0.113.9 spike", "192.0.2.25 client.test", "192.0.2.25 client.test", "0.0.0.0 "} {
		if o := got[i].Origin; o.Peer+" "+o.Helo != want {
			t.Errorf("message %d is from %s %s, want %s", i, o.Peer, o.Helo, want)
		}
		if body := h.queue.body(t, got[i]); !strings.Contains(body, "Received: from client.test ([192.0.2.25])\r\n") {
			t.Errorf("stored\n%s", body)
		}
	}
}

// routed.test has a route of its own, and mail waits for it.
func withQueue(asked *[]string) func(*Config) {
	return func(c *Config) {
		c.Routed = func(domain string) bool { return strings.HasSuffix(domain, "routed.test") }
		c.Flush = func(_ context.Context, domain, by string) (int, error) {
			*asked = append(*asked, domain+" by "+by)
			if domain == "broken.routed.test" {
				return 0, errors.New("broken")
			}
			return strings.Count(domain, "r"), nil
		}
	}
}

func TestETRN(t *testing.T) {
	var asked []string
	now := clock()
	h, p := piped(t, MX, withProxy, withQueue(&asked), func(c *Config) { c.Now = func() time.Time { return now } })
	c := p.dialFromAfar(t)
	c.talk("< 220\n> ETRN routed.test\n< 503\n> EHLO x")
	if caps := c.expect("250"); !strings.Contains(caps, "250-ETRN\n") {
		t.Errorf("offered\n%s", caps)
	}
	c.talk(`
		> ETRN
		< 501 5.5.4
		> ETRN @routed.test
		< 501 5.5.4
		> ETRN #routed
		< 501 5.5.4
		> ETRN a b
		< 501 5.5.4
		> ETRN [192.0.2.1]
		< 501 5.5.4
		> ETRN elsewhere.test
		< 459 4.7.1
		> ETRN Routed.Test
		< 253 2.0.0 1 pending messages for node routed.test started
		> ETRN routed.test
		< 250 2.0.0 queuing for node routed.test has started already
		> ETRN broken.routed.test
		< 458 4.3.0 unable to queue messages for node broken.routed.test
		> MAIL FROM:<>
		< 250
		> ETRN two.routed.test
		< 503`)
	now = now.Add(time.Minute)
	c.talk("> RSET\n< 250\n> ETRN routed.test\n< 253")
	newClient(t, p.DialFrom(proxyAddr)).talk(hello + "> ETRN elsewhee.test\n< 251 2.0.0 no messages waiting for node elsewhee.test")
	want := "[routed.test by ETRN from 192.0.2.7 broken.routed.test by ETRN from 192.0.2.7 routed.test by ETRN from 192.0.2.7 elsewhee.test by ETRN from 192.0.2.25]"
	if got := fmt.Sprint(asked); got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	h.Flush = nil
	c = p.dial(t)
	c.talk(hello + "> ETRN routed.test\n< 502")
}

func TestFlushesAreBounded(t *testing.T) {
	var f flushes
	now := clock()
	for i := range flushedDomains {
		if !f.may(fmt.Sprint(i), now) {
			t.Fatalf("the %dth is refused", i)
		}
	}
	if f.may("more", now.Add(flushEvery-1)) {
		t.Error("one more is taken")
	}
	if !f.may("more", now.Add(flushEvery)) || len(f.last) != 1 {
		t.Errorf("%d are remembered", len(f.last))
	}
}
