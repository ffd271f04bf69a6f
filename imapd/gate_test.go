package imapd

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"

	"postroad/internal/gate"
)

// gated gives servers a gate with bans of their own.
func (h *house) gated(l gate.Limits) *gate.Bans {
	h.t.Helper()
	bans, err := gate.OpenBans(h.config.Store, nil, nil)
	h.must(err)
	h.config.Gate = gate.New(gate.Options{Limits: l, Bans: bans})
	return bans
}

// Who is banned is told so and closed; who does not speak IMAP is banned; this machine is not.
func TestBanned(t *testing.T) {
	h := newHouse(t)
	bans := h.gated(gate.Limits{BanAbuse: 2})
	afar := h.fromAfar()
	for range 2 {
		c := afar()
		c.dialog(`
			< * OK ...
			> GET / HTTP/1.1
			< GET BAD ...
			> Host: localhost
			< ...
			> Accept: all
			< ...
			< * BYE ...`)
		c.closed()
	}
	c := afar()
	c.dialog("< * BYE [UNAVAILABLE] your address is banned until ...")
	c.closed()
	network := bans.List()[0].Network
	h.must(bans.Remove(network))
	afar().dialog("< * OK ...")
	_, err := bans.Add(network, 0, "")
	h.must(err)
	afar().dialog("< * BYE [CONTACTADMIN] your address is banned")
	h.raw().dialog("< * OK ...")
}

// Where TLS must come first nothing is said.
func TestBannedBeforeTLS(t *testing.T) {
	h := newHouse(t, withTLS(t))
	bans := h.gated(gate.Limits{})
	_, err := bans.Add(netip.MustParsePrefix("192.0.2.0/24"), 0, "")
	h.must(err)
	h.config.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	_, addr := h.serve(true)
	conn, err := net.Dial("tcp", addr)
	h.must(err)
	defer conn.Close()
	_, err = io.WriteString(conn, "PROXY TCP4 192.0.2.7 192.0.2.25 4711 993\r\n")
	h.must(err)
	if said, _ := io.ReadAll(conn); len(said) > 0 {
		t.Errorf("told %q", said)
	}
}

// Behind a proxy a client is whom it names: not this machine, even when the proxy is.
func TestBehindAProxy(t *testing.T) {
	h := newHouse(t, withTLS(t))
	h.config.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	_, addr := h.serve(false)
	for _, header := range []string{"PROXY TCP4 192.0.2.7 192.0.2.25 4711 143", "PROXY UNKNOWN", "PROXY TCP4 127.0.0.1 127.0.0.1 1 2"} {
		conn, err := net.Dial("tcp", addr)
		h.must(err)
		c := newRaw(t, conn)
		c.dialog("> " + header + "\n< * OK ...\n> a LOGIN x y\n< a NO [PRIVACYREQUIRED] ...")
	}
	conn, err := net.Dial("tcp", addr)
	h.must(err)
	c := newRaw(t, conn)
	c.send("a NOOP\r\n")
	c.closed()
}

// A network that has logged in may do ten times as much.
func TestKnownGood(t *testing.T) {
	h := newHouse(t, withTLS(t))
	h.gated(gate.Limits{PerNetwork: 2})
	afar := h.fromAfar()
	c := afar()
	c.dialog("< * OK ...\n> a STARTTLS\n< a OK ...")
	c = newRaw(t, tls.Client(c.conn, insecureTLS()))
	afar().dialog("< * OK ...")
	afar().dialog("< * BYE [UNAVAILABLE] too many connections from your network")
	c.login()
	for range 15 {
		afar().dialog("< * OK ...")
	}
}
