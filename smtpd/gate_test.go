package smtpd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/gate"
	"postroad/internal/store/storetest"
)

// gated gives a server a gate with bans of its own, which the test may change. Nobody is watched for long.
func gated(t testing.TB, l gate.Limits) (func(*Config), *gate.Bans) {
	t.Helper()
	bans, err := gate.OpenBans(storetest.Open(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l.GreetDelay == 0 {
		l.GreetDelay = -1
	}
	g := gate.New(gate.Options{Limits: l, Bans: bans})
	return func(c *Config) { c.Gate = g }, bans
}

// afar is an address that is a stranger's.
var afar = net.IPv4(192, 0, 2, 7)

func (p *pipes) dialFrom(t testing.TB, ip net.IP) *client { return newClient(t, p.DialFrom(ip)) }

// unknowns are n recipients that nobody has, and what is said to each.
func unknowns(n int) string {
	return strings.Repeat("> RCPT TO:<nobody@example.test>\n< 550 5.1.1\n", n)
}

const toNobody = "< 220\n> EHLO x\n< 250\n> MAIL FROM:<a@far.test>\n< 250\n"

// Who is banned is told so and closed, or closed where TLS must come first; a ban by hand is for good.
func TestBanned(t *testing.T) {
	for _, kind := range []Kind{MX, Submission, LMTP} {
		with, bans := gated(t, gate.Limits{})
		_, p := piped(t, kind, with)
		p.dialFrom(t, afar).talk("< 220")
		if _, err := bans.Add(netip.MustParsePrefix("192.0.2.0/24"), 0, ""); err != nil {
			t.Fatal(err)
		}
		p.dialFrom(t, afar).talk("< 554 5.7.1 your address is banned\n<-")
		p.dialFrom(t, net.IPv4(198, 51, 100, 1)).talk("< 220")
		p.dial(t).talk("< 220")
	}
	with, bans := gated(t, gate.Limits{})
	if _, err := bans.Add(netip.MustParsePrefix("192.0.2.7/32"), time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	h := build(t, Submission, true, with)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.serve(t, fromAfar{l})
	if said, _ := io.ReadAll(h.dial(t)); len(said) > 0 {
		t.Errorf("where TLS must come first the banned are told %q", said)
	}
}

// fromAfar is a listener whose peers have the address afar.
type fromAfar struct{ net.Listener }

func (l fromAfar) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return farConn{c}, nil
}

type farConn struct{ net.Conn }

func (farConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: afar, Port: 4711} }

// Too many connections: at once from a network, in a minute from an address.
func TestGateBoundsConnections(t *testing.T) {
	with, _ := gated(t, gate.Limits{PerNetwork: 3})
	_, p := piped(t, MX, with)
	for i := range 3 {
		p.dialFrom(t, net.IPv4(192, 0, 2, byte(i))).talk("< 220")
	}
	p.dialFrom(t, net.IPv4(192, 0, 2, 9)).talk("< 421 4.7.0 too many connections from your network\n<-")

	with, _ = gated(t, gate.Limits{Connections: 3})
	_, p = piped(t, MX, with)
	for range 3 {
		p.dialFrom(t, afar).talk("< 220\n> QUIT\n< 221\n<-")
	}
	p.dialFrom(t, afar).talk("< 421 4.7.0 too many connections in a minute\n<-")
	for range 10 {
		p.dial(t).talk("< 220")
	}
}

// Who talks before the greeting is sent away, on the MX listener, when he is a stranger; who waits is greeted after the
// delay the first time, and at once when his mail was taken.
func TestA09BeforeTheGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		with, bans := gated(t, gate.Limits{GreetDelay: 2 * time.Second, BanAbuse: 5})
		h, p := piped(t, MX, with)
		for range 2 {
			c := p.dialFrom(t, afar)
			c.talk("> EHLO x\n< 554 5.5.1 you talk before you were greeted\n<-")
		}
		for i, wait := range []time.Duration{2 * time.Second, 0, 0} {
			begin := time.Now()
			c := p.dialFrom(t, afar)
			c.talk("< 220")
			if took := time.Since(begin); took != wait {
				t.Errorf("greeting %d came after %v, want %v", i+1, took, wait)
			}
			c.talk("> EHLO x\n< 250\n> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> x\n> .\n< 250\n> QUIT\n< 221\n<-")
		}
		if n := len(h.queue.take()); n != 3 {
			t.Errorf("%d messages", n)
		}
		begin := time.Now()
		p.dial(t).talk("< 220") // this machine
		if took := time.Since(begin); took != 0 {
			t.Errorf("this machine waits %v", took)
		}
		other := net.IPv4(198, 51, 100, 1)
		for range 5 {
			p.dialFrom(t, other).talk("> EHLO x\n< 554 5.5.1\n<-")
		}
		p.dialFrom(t, other).talk("< 421 4.7.0 your address is banned until\n<-")
		if n := len(bans.List()); n != 1 {
			t.Errorf("%d bans", n)
		}
	})
}

// Without a delay it is noticed, too, when the words were there before the greeting.
func TestA09BeforeTheGreetingWithoutDelay(t *testing.T) {
	with, _ := gated(t, gate.Limits{})
	h := build(t, MX, false, with, func(c *Config) { c.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.serve(t, l)
	c := h.dial(t)
	c.send("PROXY TCP4 192.0.2.7 192.0.2.25 4711 25\r\nEHLO x\r\n")
	c.talk("< 554 5.5.1\n<-")
	c = h.dial(t)
	c.talk("> PROXY TCP4 192.0.2.7 192.0.2.25 4711 25\n< 220\n> EHLO x\n< 250")
}

// Messages and recipients of an address are bounded in an hour, for a while.
func TestGateBoundsMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		with, _ := gated(t, gate.Limits{Messages: 3, Recipients: 5})
		_, p := piped(t, MX, with)
		c := p.dialFrom(t, afar)
		c.talk("< 220\n> EHLO x\n< 250\n" + strings.Repeat("> MAIL FROM:<a@far.test>\n< 250\n> RSET\n< 250\n", 3) +
			"> MAIL FROM:<a@far.test>\n< 450 4.7.1 too many messages in an hour from your address; try again later")
		p.dialFrom(t, afar).talk("< 220\n> EHLO x\n< 250\n> MAIL FROM:<a@far.test>\n< 450 4.7.1")
		time.Sleep(20 * time.Minute)
		c = p.dialFrom(t, afar)
		c.talk("< 220\n> EHLO x\n< 250\n> MAIL FROM:<a@far.test>\n< 250\n" +
			strings.Repeat("> RCPT TO:<alice@example.test>\n< 250\n", 5) +
			"> RCPT TO:<alice@example.test>\n< 450 4.7.1 too many recipients in an hour from your address; try again later\n" +
			"> DATA\n< 354\n> x\n> .\n< 250 2.0.0") // for those that were taken
	})
}

// An account's mail is counted as the account's, wherever it comes from.
func TestGateBoundsAccounts(t *testing.T) {
	with, _ := gated(t, gate.Limits{Messages: 1, Recipients: 1, AccountMessages: 3, AccountRecipients: 4})
	_, p := piped(t, Submission, with)
	login := "< 220\n> EHLO x\n< 250\n> STARTTLS\n< 220\ntls\n> EHLO x\n< 250\n> AUTH PLAIN " + alicePlain + "\n< 235\n"
	c := p.dialFrom(t, afar)
	c.talk(login + strings.Repeat("> MAIL FROM:<alice@example.test>\n< 250\n> RCPT TO:<bob@example.test>\n< 250\n> RSET\n< 250\n", 2))
	c = p.dialFrom(t, net.IPv4(198, 51, 100, 1))
	c.talk(login + "> MAIL FROM:<alice@example.test>\n< 250\n" + strings.Repeat("> RCPT TO:<bob@example.test>\n< 250\n", 2) +
		"> RCPT TO:<bob@example.test>\n< 450 4.7.1 your account has written to too many recipients in an hour\n> RSET\n< 250\n" +
		"> MAIL FROM:<alice@example.test>\n< 450 4.7.1 your account has sent too many messages in an hour; try again later")
}

// What is sent and not accepted is counted in octets: refused, given up just before the end, by DATA and BDAT, in chunks
// that are refused.
func TestA12ByteBudget(t *testing.T) {
	const budget = 100_000
	body := strings.Repeat(strings.Repeat("x", 98)+"\r\n", 500)
	for _, tt := range []struct{ name, say, hear string }{
		{"a message with a NUL", "DATA\r\n" + body + "\x00\r\n.\r\nQUIT\r\n", "550 5.6.0"},
		{"a message that is cut off", "DATA\r\n" + body, "354"},
		{"a chunk that is cut off", fmt.Sprintf("BDAT %d LAST\r\n", len(body)+1) + body, "250 2.1.5"},
		{"a message that is given up", fmt.Sprintf("BDAT %d\r\n", len(body)) + body + "RSET\r\nQUIT\r\n", "221"},
		{"a chunk out of place", "RSET\r\n" + fmt.Sprintf("BDAT %d LAST\r\n", len(body)) + body + "QUIT\r\n", "503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				with, _ := gated(t, gate.Limits{RefusedOctets: budget})
				h, p := piped(t, LMTP, with) // which lets a message be sent behind DATA at once
				attempt := func() {
					c := p.dialFrom(t, afar)
					var heard bytes.Buffer
					go io.Copy(&heard, c)
					io.WriteString(c, "LHLO x\r\nMAIL FROM:<a@far.test>\r\nRCPT TO:<alice@example.test>\r\n"+tt.say)
					synctest.Wait()
					c.Close()
					synctest.Wait()
					if !strings.Contains(heard.String(), tt.hear) {
						t.Errorf("heard %q", &heard)
					}
				}
				attempt()
				attempt()
				c := p.dialFrom(t, afar)
				c.talk("< 220\n> LHLO x\n< 250\n> MAIL FROM:<a@far.test>\n< 450 4.7.1 too much refused data from your address; try again later")
				if n := len(h.queue.take()); n != 0 {
					t.Errorf("%d messages", n)
				}
			})
		})
	}
}

// Who names one unknown recipient after the other is sent away with 421, and then not let in.
func TestC11Harvest(t *testing.T) {
	with, bans := gated(t, gate.Limits{BanUnknown: 12, Tarpit: -1})
	_, p := piped(t, MX, with)
	p.dialFrom(t, afar).talk(toNobody + unknowns(8) + "> QUIT\n< 221\n<-")
	other := p.dialFrom(t, afar)
	other.talk("< 220\n> EHLO x\n< 250")
	p.dialFrom(t, afar).talk(toNobody + unknowns(3) + "> RCPT TO:<nobody@example.test>\n< 421 4.7.0 your address is banned until\n<-")
	p.dialFrom(t, afar).talk("< 421 4.7.0 your address is banned until\n<-")
	other.talk("> MAIL FROM:<a@far.test>\n< 421 4.7.0 your address is banned until\n<-")
	if list := bans.List(); len(list) != 1 || list[0].Network != netip.MustParsePrefix("192.0.2.7/32") {
		t.Errorf("bans: %v", list)
	}
}

// Each error beyond the first few is answered later; mail that is accepted is forgiveness.
func TestErrorsAreAnsweredLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		with, _ := gated(t, gate.Limits{Tarpit: 2})
		_, p := piped(t, MX, with)
		c := p.dialFrom(t, afar)
		c.SetDeadline(time.Now().Add(time.Hour))
		c.talk("< 220\n> EHLO x\n< 250")
		for round := range 2 {
			for i, wait := range []time.Duration{0, 0, 1, 2, 3, 4, 5, 5} {
				begin := time.Now()
				c.talk("> WHAT\n< 500")
				if took := time.Since(begin); took != wait*time.Second {
					t.Errorf("round %d, error %d was answered after %v, want %d s", round, i+1, took, wait)
				}
			}
			begin := time.Now()
			c.talk("> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> x\n> .\n< 250")
			if took := time.Since(begin); took != 0 {
				t.Errorf("mail took %v", took)
			}
		}
	})
}

// Other protocols, what was slipped in behind STARTTLS, and messages with bare line ends get an address banned.
func TestAbuseIsBanned(t *testing.T) {
	mail := "< 220\n> EHLO x\n< 250\n> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n"
	for _, tt := range []struct{ name, before, octets, after string }{
		{"HTTP", "< 220", "GET / HTTP/1.1\r\n", "< 554\n<-"},
		{"STARTTLS and more", "< 220\n> EHLO x\n< 250", "STARTTLS\r\nRSET\r\n", "< 5\n<-"},
		{"a bare LF", mail + "> DATA\n< 354", "x\n.\r\n.\r\n", "< 550 5.6.11\n<-"},
		{"a message too early", mail, "DATA\r\nx\r\n.\r\n", "< 503\n<-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			with, _ := gated(t, gate.Limits{BanAbuse: 3})
			_, p := piped(t, MX, with)
			for range 3 {
				c := p.dialFrom(t, afar)
				c.talk(tt.before)
				go c.send(tt.octets)
				c.talk(tt.after)
			}
			p.dialFrom(t, afar).talk("< 421 4.7.0 your address is banned\n<-")
		})
	}
}

// Behind a proxy all rules are those for the client that it names: not near, banned and counted by itself. Below TLS, too.
func TestBehindAProxy(t *testing.T) {
	proxies := func(c *Config) { c.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }
	with, bans := gated(t, gate.Limits{})
	if _, err := bans.Add(netip.MustParsePrefix("192.0.2.66/32"), 0, ""); err != nil {
		t.Fatal(err)
	}
	h := open(t, MX, false, with, proxies)
	h.dial(t).talk("> PROXY TCP4 192.0.2.66 192.0.2.25 4711 25\n< 554 5.7.1\n<-")
	h.dial(t).talk("> EHLO x\n<-") // a header is wanted
	c := h.dial(t)
	c.talk("> PROXY TCP4 192.0.2.7 192.0.2.25 4711 25\n< 220\n> EHLO x\n< 250\n" +
		"> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> x\n> .\n< 250")
	got := h.queue.take()
	if len(got) != 1 || got[0].Origin.Peer != "192.0.2.7" || !strings.Contains(h.queue.body(t, got[0]), "[192.0.2.7]") {
		t.Errorf("the trace tells of %+v", got)
	}
	h = open(t, Submission, false, with, proxies)
	for _, header := range []string{"PROXY TCP4 192.0.2.7 192.0.2.25 4711 25", "PROXY UNKNOWN", "PROXY TCP4 127.0.0.1 127.0.0.1 1 2"} {
		h.dial(t).talk("> " + header + "\n< 220\n> EHLO x\n< 250\n> AUTH PLAIN " + alicePlain + "\n< 538")
	}
	h = open(t, Submission, true, with, proxies)
	c = h.dial(t)
	c.send("PROXY TCP6 2001:db8::7 2001:db8::1 4711 465\r\n")
	c.startTLS()
	c.talk("< 220\n> EHLO x\n< 250\n> AUTH PLAIN " + alicePlain + "\n< 235")
	if !strings.Contains(h.log.String(), "2001:db8::7") {
		t.Errorf("the log does not tell of the client:\n%s", h.log)
	}
}

// A client that a proxy names by XCLIENT is held to the rules, too, and leaves when the next one is named.
func TestXCLIENTAndTheGate(t *testing.T) {
	with, bans := gated(t, gate.Limits{PerNetwork: 1, Messages: 1})
	if _, err := bans.Add(netip.MustParsePrefix("192.0.2.66/32"), 0, ""); err != nil {
		t.Fatal(err)
	}
	h := open(t, MX, false, with, func(c *Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	c := h.dial(t)
	c.talk("< 220\n> EHLO x\n< 250\n> XCLIENT ADDR=192.0.2.7\n< 220\n> EHLO x\n< 250\n> MAIL FROM:<a@far.test>\n< 250\n> RSET\n< 250\n> MAIL FROM:<a@far.test>\n< 450 4.7.1")
	h.dial(t).talk("< 220\n> EHLO x\n< 250\n> XCLIENT ADDR=192.0.2.8\n< 421 4.7.0 too many connections from your network\n<-")
	c.talk("> XCLIENT ADDR=198.51.100.1\n< 220")
	next := h.dial(t)
	next.talk("< 220\n> EHLO x\n< 250\n> XCLIENT ADDR=192.0.2.8\n< 220\n> QUIT\n< 221\n<-")
	h.dial(t).talk("< 220\n> EHLO x\n< 250\n> XCLIENT ADDR=192.0.2.66\n< 554 5.7.1\n<-")
}
