package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Remarks are what is allowed and yet seldom meant, each with what to do instead: where strangers reach
// a listener that is not for them, or that introduces itself by a name that nobody else can use.
func (c *Config) Remarks() (remarks []string) {
	if c.Listen.SMTP.Outside() && !strings.Contains(c.Hostname, ".") {
		remarks = append(remarks, fmt.Sprintf("hostname is %q, which means nothing to the other servers that listen.smtp "+
			"lets in; set it to a full name whose address leads here", c.Hostname))
	}
	if c.Listen.LMTP.Outside() {
		remarks = append(remarks, "listen.lmtp is open to other machines, and LMTP knows no login; see that only the "+
			"servers in front of this one reach it, or use a unix socket")
	}
	return remarks
}

// Outside reports whether other machines can connect to the address.
func (a Addr) Outside() bool {
	network, address := a.Network()
	if a.IsOff() || network == "unix" {
		return false
	}
	p, err := netip.ParseAddrPort(strings.Replace(address, "localhost:", "127.0.0.1:", 1))
	return err != nil || !p.Addr().IsLoopback() // without an address it is every one
}

// notEverybody is for peers that are believed: whoever may say for whom it speaks may be anybody.
func notEverybody(list *[]Network) func() error {
	return func() error {
		for _, n := range *list {
			if n.Std().Bits() == 0 {
				return fmt.Errorf("%q is everybody, who could then be anybody; name your own proxies", n)
			}
		}
		return nil
	}
}
