package postroad_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postroad"
	"postroad/internal/config"
	"postroad/internal/control"
)

// behindProxy is a configuration whose server knows its peers by the word of a proxy on this machine.
func behindProxy(t *testing.T) config.Config {
	cfg := testConfig(t, "mx.example.test")
	cfg.Trust.Proxies = []config.Network{config.Network(netip.MustParsePrefix("127.0.0.1/32"))}
	cfg.Policy.GreetDelay = 0
	return cfg
}

// peer is a connection that says it is from an address.
type peer struct {
	net.Conn
	r *bufio.Reader
}

func dialAs(t *testing.T, addr, from string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "PROXY TCP4 %s 192.0.2.25 4711 25\r\n", from)
	return &peer{conn, bufio.NewReader(conn)}
}

// hear wants a line that begins so.
func (p *peer) hear(t *testing.T, want string) {
	t.Helper()
	if line, err := p.r.ReadString('\n'); !strings.HasPrefix(line, want) {
		t.Errorf("heard %q (%v), want %q", line, err, want)
	}
}

// ended wants the end of the connection.
func (p *peer) ended(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(p.r); len(rest) > 0 {
		t.Errorf("the connection goes on: %q, %v", rest, err)
	}
}

// A ban by hand cuts off what is open, keeps the network out of every listener, is there after a restart, and ends when it
// is removed.
func TestBanOfARunningServer(t *testing.T) {
	cfg := behindProxy(t)
	s := embed(t, cfg, postroad.Options{}, postroad.Credential{Address: "alice@example.test", Password: "secret"})
	smtp, imap := dialAs(t, s.Addr("smtp"), "192.0.2.7"), dialAs(t, s.Addr("imap"), "192.0.2.7")
	other := dialAs(t, s.Addr("smtp"), "198.51.100.7")
	smtp.hear(t, "220 ")
	imap.hear(t, "* OK ")
	other.hear(t, "220 ")
	if _, err := s.Admin().AddBan(t.Context(), control.NewBan{Network: "192.0.2.0/24", Reason: "enough"}); err != nil {
		t.Fatal(err)
	}
	smtp.ended(t)
	imap.ended(t)
	io.WriteString(other, "NOOP\r\n")
	other.hear(t, "250 ")
	kept := func(s *embedded) {
		t.Helper()
		dialAs(t, s.Addr("smtp"), "192.0.2.8").hear(t, "554 5.7.1 your address is banned")
		dialAs(t, s.Addr("submission"), "192.0.2.8").hear(t, "554 5.7.1 ")
		dialAs(t, s.Addr("imap"), "192.0.2.8").hear(t, "* BYE [CONTACTADMIN] ")
		dialAs(t, s.Addr("imaps"), "192.0.2.8").ended(t)
		dialAs(t, s.Addr("smtp"), "198.51.100.7").hear(t, "220 ")
	}
	kept(s)
	s.stop()
	s = embed(t, cfg, postroad.Options{})
	kept(s)
	if err := s.Admin().RemoveBan(t.Context(), "192.0.2.0/24"); err != nil {
		t.Fatal(err)
	}
	dialAs(t, s.Addr("smtp"), "192.0.2.8").hear(t, "220 ")
}

// Who guesses passwords at one protocol is kept out of all, and a restart does not forget it.
func TestGuessingIsBanned(t *testing.T) {
	cfg := behindProxy(t)
	cfg.Policy.BanGuesses = 1
	s := embed(t, cfg, postroad.Options{}, postroad.Credential{Address: "alice@example.test", Password: "secret"})
	p := dialAs(t, s.Addr("submission"), "192.0.2.7")
	p.hear(t, "220 ")
	guess(t, p, "alice@example.test", "wrong")
	dialAs(t, s.Addr("imap"), "192.0.2.7").hear(t, "* BYE [UNAVAILABLE] your address is banned until ")
	dialAs(t, s.Addr("smtp"), "192.0.2.7").hear(t, "421 4.7.0 your address is banned until ")
	dialAs(t, s.Addr("smtp"), "192.0.2.8").hear(t, "220 ")
	s.stop()
	s = embed(t, cfg, postroad.Options{})
	dialAs(t, s.Addr("smtp"), "192.0.2.7").hear(t, "421 4.7.0 your address is banned until ")
}

// A network that is trusted is not held to any of it.
func TestTrustedNetwork(t *testing.T) {
	cfg := behindProxy(t)
	cfg.Policy.BanGuesses, cfg.Policy.ConnectionsPerMinute = 1, 2
	cfg.Trust.Networks = []config.Network{config.Network(netip.MustParsePrefix("192.0.2.0/24"))}
	s := embed(t, cfg, postroad.Options{}, postroad.Credential{Address: "alice@example.test", Password: "secret"})
	p := dialAs(t, s.Addr("submission"), "192.0.2.7")
	p.hear(t, "220 ")
	guess(t, p, "alice@example.test", "wrong")
	for range 5 {
		dialAs(t, s.Addr("smtp"), "192.0.2.7").hear(t, "220 ")
	}
	if _, err := s.Admin().AddBan(t.Context(), control.NewBan{Network: "192.0.2.7"}); err != nil {
		t.Fatal(err)
	}
	dialAs(t, s.Addr("smtp"), "192.0.2.7").hear(t, "220 ")
}

// guess gives a wrong password, under TLS.
func guess(t *testing.T, p *peer, user, password string) {
	t.Helper()
	io.WriteString(p, "EHLO x\r\nSTARTTLS\r\n")
	for line := ""; !strings.HasPrefix(line, "220 "); {
		var err error
		if line, err = p.r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	tc := tls.Client(p.Conn, &tls.Config{InsecureSkipVerify: true})
	r := bufio.NewReader(tc)
	response := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	fmt.Fprintf(tc, "EHLO x\r\nAUTH PLAIN %s\r\n", response)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "535 ") {
			return
		}
	}
}
