package smtpd

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"

	"postroad/internal/listen"
)

// peer is whom a session is with: who has connected, or who a named proxy says has (XCLIENT).
type peer struct {
	ip   netip.Addr // invalid on a unix socket
	name string     // of its host, as far as a proxy knows it
}

func peerOf(a net.Addr) peer { return peer{ip: listen.IP(a)} }

// near reports whether the peer is on this machine.
func (p peer) near() bool { return !p.ip.IsValid() || p.ip.IsLoopback() }

// String names the peer in logs and in the trace.
func (p peer) String() string {
	if p.ip.IsValid() {
		return p.ip.String()
	}
	return "local"
}

// comment is what a Received field says of the peer: TCP-info of RFC 5321, 4.4. Empty on a unix socket.
func (p peer) comment() string {
	switch {
	case !p.ip.IsValid():
		return ""
	case p.name != "":
		return " (" + p.name + " " + p.literal() + ")"
	}
	return " (" + p.literal() + ")"
}

// literal is the peer's address as RFC 5321, 4.1.3 writes it.
func (p peer) literal() string {
	if p.ip.Is6() {
		return "[IPv6:" + p.ip.String() + "]"
	}
	return "[" + p.ip.String() + "]"
}

// tlsName is the version and cipher suite in use, or empty.
func tlsName(state *tls.ConnectionState) string {
	if state == nil {
		return ""
	}
	return strings.ReplaceAll(tls.VersionName(state.Version), " ", "") + " " + tls.CipherSuiteName(state.CipherSuite)
}
