package postroad

import (
	"net"
	"net/netip"
	"time"

	"postroad/internal/config"
	"postroad/internal/dns"
)

// resolver asks whom the config says.
func resolver(c config.DNS, now func() time.Time) (*dns.Stub, error) {
	trust := map[string]dns.Trust{"local": dns.TrustLocal, "all": dns.TrustAll, "none": dns.TrustNone}
	return dns.New(dns.Options{
		Servers: c.Servers, Trust: trust[c.TrustAD], Timeout: c.Timeout.Std(), Attempts: c.Attempts, Now: now,
	})
}

// isOwn reports whether we take mail of other servers at an address.
func (s *Server) isOwn(at netip.AddrPort) bool {
	for _, v := range s.serving {
		bound, ok := v.listener.Addr().(*net.TCPAddr)
		if v.name != "smtp" || !ok || bound.Port != int(at.Port()) {
			continue
		}
		if bound.IP.IsUnspecified() && isOfThisMachine(at.Addr()) || bound.AddrPort().Addr().Unmap() == at.Addr() {
			return true
		}
	}
	return false
}

// isOfThisMachine reports whether an address is one of an interface of this machine.
func isOfThisMachine(ip netip.Addr) bool {
	addrs, _ := net.InterfaceAddrs()
	for _, addr := range addrs {
		if prefix, err := netip.ParsePrefix(addr.String()); err == nil && prefix.Addr().Unmap() == ip {
			return true
		}
	}
	return ip.IsLoopback()
}
