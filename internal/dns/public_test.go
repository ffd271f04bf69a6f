package dns_test

import (
	"net/netip"
	"testing"

	"postroad/internal/dns"
)

func TestPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"203.0.114.1": true, "2606:4700::1": true, "8.8.8.8": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "0.0.0.0": false,
		"100.64.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "::1": false, "::": false, "fe80::1": false, "fd00::1": false,
		"ff02::1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false,
		"::127.0.0.1": false, "::ffff:0:127.0.0.1": false, "2001::1": false, "2001:db8::1": true, "fec0::1": false,
	} {
		if got := dns.Public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is public: %v", addr, got)
		}
	}
}
