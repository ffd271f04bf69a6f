package smtpd

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"strings"

	"postroad/internal/listen"
)

// visit is what is known of a peer for as long as it stays, before STARTTLS and after.
type visit struct {
	// Set by newVisit, never changed.
	srv  *Server
	raw  *listen.Conn
	ip   netip.Addr // invalid on a unix socket
	near bool       // on this machine
	log  *slog.Logger

	// Owned by whoever serves the connection: serve between engines, then the session.
	tls          *tls.ConnectionState // nil in the clear
	failedLogins int
	transactions int
}

func newVisit(s *Server, raw *listen.Conn) *visit {
	a := raw.RemoteAddr()
	return &visit{
		srv: s, raw: raw, ip: listen.IP(a), near: listen.IsLocal(a),
		log: s.Log.With("server", s.kind.String(), "peer", listen.Peer(a)),
	}
}

// literal is the peer's address as RFC 5321, 4.1.3 writes it.
func (v *visit) literal() string {
	if v.ip.Is6() {
		return "[IPv6:" + v.ip.String() + "]"
	}
	return "[" + v.ip.String() + "]"
}

// tlsName is the version and cipher suite in use, or empty.
func (v *visit) tlsName() string {
	if v.tls == nil {
		return ""
	}
	return strings.ReplaceAll(tls.VersionName(v.tls.Version), " ", "") + " " + tls.CipherSuiteName(v.tls.CipherSuite)
}
