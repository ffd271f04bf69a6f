package delivery

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/tlspolicy/tlstest"
)

var attacks = flag.Int("mitm.runs", 60, "attacks in TestB07Middle")

// TestB07Middle has an attacker between us and a domain that says how it is to be reached: by MTA-STS, of which we know
// before, or by DANE; or a message that must go by TLS all the way. The attacker changes what is said on the way to the
// mail host, its certificate and, where DNSSEC does not keep him from it, what DNS and the policy host say. Whatever he
// does, nothing is said to him of any message, in the clear or under his own certificate, and nothing goes to a host of his.
// Once he is gone, each message is delivered, or was returned where REQUIRETLS wants that. A failure names its seed.
func TestB07Middle(t *testing.T) {
	for seed := range uint64(*attacks) {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			secure(t, func(t *testing.T, s *secured) { attacked(t, s, rand.New(rand.NewPCG(seed, 7))) })
		}) {
			return
		}
	}
}

func attacked(t *testing.T, s *secured, rnd *rand.Rand) {
	m := &middle{s: s, rnd: rnd, own: serving(tlstest.NewAuthority(t).Issue("mx.y.test"))}
	s.cfg.Dial = m.dial
	bad := s.watched(&peer{tls: serving(s.root.Issue("mx.evil.test")), extensions: []string{"REQUIRETLS"}})
	s.net.peer(public(66)+":25", bad)
	s.dns.Host("mx.evil.test", public(66))
	kind := []string{"sts", "dane", "requiretls by sts", "requiretls by dane"}[rnd.IntN(4)]
	need := func(*envelope.Envelope) {}
	if strings.HasPrefix(kind, "requiretls") {
		need = requireTLS
	}
	if dane := strings.HasSuffix(kind, "dane"); dane {
		s.sign(s.leaf())
	} else {
		s.publish("1")
	}
	s.start()
	s.post(need)
	s.drained()
	s.pass(time.Minute)
	for range 1 + m.draw(3) {
		m.attack(kind)
		s.post(need)
		s.pass(time.Duration(m.draw(6*60)) * time.Minute)
	}
	m.stop()
	s.pass(5 * time.Hour)
	s.drained()
	if m.told() != "" || len(bad.got()) > 0 || s.inClear() > 0 {
		t.Errorf("%s, %s: the attacker heard %q, and got %q", kind, m.mode, m.told(), bad.got())
	}
	returned := strings.Count(strings.Join(s.mail("alice"), "\n"), "\nAction: failed\r\n")
	if posted := 1 + m.attacks; len(s.host.got())+returned != posted || returned > 0 && !strings.HasPrefix(kind, "requiretls") {
		t.Errorf("%s, %s: of %d messages, %d arrived and %d were returned", kind, m.mode, posted, len(s.host.got()), returned)
	}
}

// middle is an attacker on the way.
type middle struct {
	s       *secured
	own     *tls.Config // with a certificate that nobody knows
	attacks int

	mu    sync.Mutex // guards what follows
	rnd   *rand.Rand
	mode  string // what is done to connections; "" is nothing
	heard string // what was said to us that was for the host alone
}

// attack begins another attack, beside those of DNS that go on.
func (m *middle) attack(kind string) {
	m.mu.Lock()
	m.attacks++
	m.mode = []string{"", "strip", "refuse", "swap", "inject", "cut", "delay", "forge", "downgrade"}[m.rnd.IntN(9)]
	dnsAttack := m.rnd.IntN(8)
	m.mu.Unlock()
	s := m.s
	if strings.HasSuffix(kind, "dane") { // DNSSEC leaves him only to keep answers back
		switch dnsAttack {
		case 0:
			s.dns.Fail("_25._tcp.mx.y.test", errors.New("SERVFAIL"))
		case 1:
			s.dns.Fail("mx.y.test", errors.New("SERVFAIL"))
		case 2:
			s.dns.Fail("y.test", errors.New("SERVFAIL"))
		}
		return
	}
	switch dnsAttack {
	case 0:
		s.publish("")
	case 1:
		s.dns.TXT("_mta-sts.y.test", "v=STSv1;")
	case 2:
		s.publish("2") // and another policy host
		s.mu.Lock()
		s.webCert = tlstest.NewAuthority(s.t).Issue("mta-sts.y.test")
		s.mu.Unlock()
	case 3:
		s.publish("3")
		s.mu.Lock()
		s.webDead = true
		s.mu.Unlock()
	case 4:
		s.dns.MX("y.test", "mx.evil.test")
	case 5:
		s.dns.MX("y.test", "mx.evil.test", "mx.y.test")
	case 6:
		s.dns.Host("mx.y.test", public(66))
	case 7:
		s.dns.Fail("_mta-sts.y.test", errors.New("SERVFAIL"))
	}
}

// stop ends all attacks.
func (m *middle) stop() {
	m.mu.Lock()
	m.mode += " (over)"
	m.mu.Unlock()
	s := m.s
	for _, name := range []string{"_25._tcp.mx.y.test", "mx.y.test", "y.test", "_mta-sts.y.test"} {
		s.dns.Fail(name, nil)
	}
	s.dns.MX("y.test", "mx.y.test")
	s.dns.Host("mx.y.test", public(1))
	s.mu.Lock()
	s.webCert, s.webDead = s.root.Issue("mta-sts.y.test"), false
	s.mu.Unlock()
}

func (m *middle) told() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard
}

// hears notes a command that names a message, or is part of one.
func (m *middle) hears(line string) {
	verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
	switch verb {
	case "EHLO", "HELO", "STARTTLS", "QUIT", "RSET", "NOOP":
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard += line
}

func (m *middle) dial(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
	far, err := m.s.net.Dial(ctx, from, network, addr)
	m.mu.Lock()
	mode := m.mode
	m.mu.Unlock()
	if err != nil || mode == "" || strings.HasSuffix(mode, "(over)") || addr != public(1)+":25" {
		return far, err
	}
	ours, theirs := net.Pipe()
	reset := new(atomic.Bool)
	near := &farConn{simConn: simConn{theirs, addr, reset}, out: make(chan []byte, 4096)}
	go near.pump()
	go m.stand(mode, near, far)
	return &simConn{ours, addr, reset}, nil
}

// stand passes on what two say to each other in the clear, one after the other.
func (m *middle) stand(mode string, near, far net.Conn) {
	defer near.Close()
	defer far.Close()
	says, asks := bufio.NewReader(far), bufio.NewReader(near)
	for {
		reply, err := readReply(says)
		if err != nil {
			return
		}
		if mode == "strip" {
			reply = strings.Replace(reply, "250 starttls", "250 HELP", 1)
		}
		if mode == "forge" { // a reply to what is not asked yet
			reply += "250 2.0.0 ok\r\n"
		}
		if _, err := io.WriteString(near, reply); err != nil {
			return
		}
		line, err := asks.ReadString('\n')
		if err != nil {
			return
		}
		if m.hears(line); strings.EqualFold(strings.TrimSpace(line), "STARTTLS") {
			m.starttls(mode, line, near, far)
			return
		}
		if _, err := io.WriteString(far, line); err != nil {
			return
		}
	}
}

func readReply(r *bufio.Reader) (reply string, err error) {
	for {
		line, err := r.ReadString('\n')
		reply += line
		if err != nil || len(line) < 4 || line[3] != '-' {
			return reply, err
		}
	}
}

// starttls is what the attacker does where TLS would begin.
func (m *middle) starttls(mode, line string, near, far net.Conn) {
	switch mode {
	case "refuse":
		io.WriteString(near, "454 4.7.0 not now\r\n")
		m.listen(near)
	case "swap":
		io.WriteString(near, "220 go on\r\n")
		own := tls.Server(near, m.own)
		if own.Handshake() == nil {
			m.listen(own)
		}
	case "downgrade":
		old := m.own.Clone()
		old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		io.WriteString(near, "220 go on\r\n")
		if own := tls.Server(near, old); own.Handshake() == nil {
			m.listen(own)
		}
	case "inject":
		io.WriteString(near, "220 go on\r\n250-evil\r\n250 REQUIRETLS\r\n")
		m.listen(near)
	case "cut":
		io.WriteString(near, "220 go on\r\n")
	default: // strip is seen through; delay waits
		if mode == "delay" {
			time.Sleep(time.Duration(m.draw(900)) * time.Second)
		}
		io.WriteString(far, line)
		go func() {
			io.Copy(far, near)
			far.Close()
		}()
		io.Copy(near, far)
	}
}

// draw draws a number below n.
func (m *middle) draw(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rnd.IntN(n)
}

// listen answers what is said as a host would, and notes it.
func (m *middle) listen(near net.Conn) {
	for r := bufio.NewReader(near); ; {
		line, err := r.ReadString('\n')
		if err != nil || line[0] == 0x16 { // a handshake
			return
		}
		m.hears(line)
		answer := "250 ok\r\n"
		if strings.HasPrefix(line, "EHLO") {
			answer = "250-mx.y.test\r\n250 REQUIRETLS\r\n"
		}
		if _, err := io.WriteString(near, answer); err != nil {
			return
		}
	}
}
