package smtpd

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"postroad/internal/account"
	"postroad/internal/envelope"
)

// panicky is a directory with a defect.
type panicky struct{ *directory }

func (p panicky) Resolve(a envelope.Address) ([]account.Target, error) {
	if a.Local == "defect" {
		panic("a defect")
	}
	return p.directory.Resolve(a)
}

// A defect ends the session that met it, and no other; it is logged and counted, and the message is not accepted.
func TestAPanicEndsOneSession(t *testing.T) {
	h := open(t, MX, false, func(c *Config) { c.Accounts = panicky{c.Accounts.(*directory)} })
	other := h.dial(t)
	other.talk(toAlice)
	h.dial(t).talk(toAlice + "> RCPT TO:<defect@example.test>\n< 421 4.3.0\n<-")
	other.talk("> DATA\n< 354\n> .\n< 250")
	if n, log := h.panics.Swap(0), h.log.String(); n != 1 || !strings.Contains(log, "a defect") || !strings.Contains(log, "session_test.go") {
		t.Errorf("%d panics, log\n%s", n, log)
	}
	if n := len(h.queue.messages()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// The table has each command once for each kind of server.
func TestTableOfCommands(t *testing.T) {
	for _, kind := range []Kind{MX, Submission, LMTP} {
		seen := map[string]bool{}
		for _, c := range commands {
			if c.kinds&(1<<kind) == 0 {
				continue
			}
			if seen[c.verb] {
				t.Errorf("%v has %s twice", kind, c.verb)
			}
			seen[c.verb] = true
		}
	}
}

// HELP names the commands that the session may use: neither those of proxies, nor AUTH where nobody logs in.
func TestHelp(t *testing.T) {
	const common = "MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP"
	far, near := net.IPv4(192, 0, 2, 1), net.IPv4(127, 0, 0, 1)
	proxies := func(c *Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }
	plain := func(*Config) {}
	for _, c := range []struct {
		name        string
		kind        Kind
		from        net.IP
		change      func(*Config)
		login, want string
	}{
		{"a stranger", MX, far, proxies, "", "EHLO HELO " + common + " STARTTLS"},
		{"a proxy", MX, near, proxies, "", "EHLO HELO " + common + " STARTTLS XCLIENT XFORWARD"},
		{"queued mail", MX, far, func(c *Config) {
			c.Flush = func(context.Context, string, string) (int, error) { return 0, nil }
		}, "", "EHLO HELO " + common + " STARTTLS ETRN"},
		{"no TLS", MX, far, func(c *Config) { c.TLS = nil }, "", "EHLO HELO " + common},
		{"in the clear", Submission, far, plain, "", "EHLO HELO " + common + " STARTTLS"},
		{"before a login", Submission, near, plain, "", "EHLO HELO " + common + " STARTTLS AUTH"},
		{"after it", Submission, near, plain, "> EHLO x\n< 250\n> AUTH PLAIN " + alicePlain + "\n< 235\n", "EHLO HELO " + common},
		{"LMTP", LMTP, far, plain, "", "LHLO " + common + " STARTTLS"},
	} {
		_, p := piped(t, c.kind, c.change)
		cl := p.dialFrom(t, c.from)
		cl.talk("< 220\n" + c.login + "> HELP")
		if said := cl.expect("214"); !strings.HasSuffix(strings.TrimSpace(said), "214 2.0.0 "+c.want) {
			t.Errorf("%s: %s, want %s", c.name, said, c.want)
		}
	}
}

// Commands that bring no mail are bounded, and those that bring some renew the bound.
func TestJunk(t *testing.T) {
	h := open(t, MX, false, limits(func(l *Limits) { l.Junk = 10 }))
	for _, junk := range []string{"NOOP", "RSET", "VRFY x", "HELP", "EHLO x"} {
		c := h.dial(t)
		c.talk("< 220\n" + strings.Repeat("> "+junk+"\n< 2\n", 10) + "> " + junk + "\n< 421 4.7.0\n<-")
	}
	c := h.dial(t)
	c.talk(hello + strings.Repeat("> NOOP\n< 250\n", 9) + "> MAIL FROM:<>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> .\n< 250\n" +
		strings.Repeat("> NOOP\n< 250\n", 10) + "> NOOP\n< 421\n<-")
	c = h.dial(t)
	c.talk(toAlice)
	c.send(strings.Repeat("BDAT 0\r\n", 11))
	for range 10 { // EHLO was the first, and the last is found at the next command
		c.expect("250")
	}
	c.talk("< 421 4.7.0\n<-")
}

func TestUnknownRecipients(t *testing.T) {
	h := open(t, MX, false, limits(func(l *Limits) { l.UnknownRecipients, l.Errors = 5, 100 }))
	mail := "> MAIL FROM:<>\n< 250\n> RCPT TO:<nobody@example.test>\n< 550\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> .\n< 250\n"
	h.dial(t).talk(hello + strings.Repeat(mail, 5) + "> MAIL FROM:<>\n< 250\n> RCPT TO:<nobody@example.test>\n< 421 4.7.0\n<-")
}

func TestLinesWithOddOctets(t *testing.T) {
	h := open(t, MX, false)
	for _, line := range []string{"NOOP \x00", "NOOP \xff", "\x01", "a\rb"} {
		h.dial(t).talk(hello + strings.Repeat("> "+line+"\n< 500 5.5.2\n", 3) + "<-")
	}
	// A person at a terminal may press Return, and mistype.
	h.dial(t).talk(hello + strings.Repeat(">\n< 500 5.5.2\n> 1 2\n< 500\n> HEELP\n< 500 5.5.2\n", 4) + "> NOOP\n< 250")
}

// DATA ends a group of commands: a stranger who does not wait for the reply is sent away, and nothing of what it
// said is run.
func TestEarlyData(t *testing.T) {
	h, p := piped(t, MX)
	for _, from := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(192, 0, 2, 7)} {
		c := newClient(t, p.DialFrom(from))
		c.talk(toAlice)
		go c.send("DATA\r\nSubject: x\r\n\r\nx\r\n.\r\nNOOP\r\n")
		if from.IsLoopback() {
			c.talk("< 354\n< 250\n< 250")
		} else {
			c.talk("< 503 5.5.1\n<-")
		}
	}
	if n := len(h.queue.messages()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// slowly is a directory that is told when to answer.
type slowly struct {
	*directory
	asked, answer chan bool
}

func (s slowly) Resolve(a envelope.Address) ([]account.Target, error) {
	s.asked <- true
	<-s.answer
	return s.directory.Resolve(a)
}

// The end of the server may come while a command runs. A transaction that is open then is finished; none is begun.
func TestShutdownWithinACommand(t *testing.T) {
	slow := slowly{asked: make(chan bool), answer: make(chan bool)}
	h := open(t, MX, false, func(c *Config) {
		slow.directory = c.Accounts.(*directory)
		c.Accounts = slow
	})
	c := h.dial(t)
	c.talk(hello + "> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>")
	<-slow.asked
	ended := make(chan error)
	go func() { ended <- h.Shutdown(t.Context()) }()
	for !h.group.Draining() {
		runtime.Gosched()
	}
	for _, s := range h.group.Sessions() {
		s.Leave()
	}
	slow.answer <- true
	c.talk("< 250\n> DATA\n< 354\n> x\n> .\n< 250 2.0.0 queued\n< 421 4.3.2\n<-")
	if err := <-ended; err != nil || len(h.queue.messages()) != 1 {
		t.Errorf("%d messages, %v", len(h.queue.messages()), err)
	}
}

// A login that waits for the client's response does not keep the server from ending.
func TestShutdownWithinALogin(t *testing.T) {
	h, p := piped(t, Submission)
	c := p.dial(t)
	c.talk(hello + "> AUTH PLAIN\n< 334")
	go h.Shutdown(t.Context())
	c.talk("< 421 4.3.2\n<-")
}
