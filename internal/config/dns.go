package config

import (
	"fmt"
	"net/netip"
)

func (c *Config) checkServers() error {
	for _, s := range c.DNS.Servers {
		_, errPort := netip.ParseAddrPort(s)
		if _, err := netip.ParseAddr(s); err != nil && errPort != nil {
			return fmt.Errorf("%q is not the address of a DNS server; write it as \"192.0.2.1\" or \"[2001:db8::1]:5353\"", s)
		}
	}
	return nil
}
