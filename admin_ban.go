package postroad

import (
	"context"
	"iter"
	"net/netip"
	"strings"
	"time"

	"postroad/internal/control"
	"postroad/internal/gate"
)

// Bans lists the networks that are kept out.
func (a *Admin) Bans(ctx context.Context) iter.Seq2[control.Ban, error] {
	return func(yield func(control.Ban, error) bool) {
		for _, b := range a.c.Bans.List() {
			if err := ctx.Err(); err != nil {
				yield(control.Ban{}, adminError(err))
				return
			}
			if !yield(showBan(b), nil) {
				return
			}
		}
	}
}

func showBan(b gate.Ban) control.Ban {
	return control.Ban{Network: showNetwork(b.Network), Since: b.Since, Until: b.Until, Reason: b.Reason, Count: b.Count, By: b.By}
}

// showNetwork writes a network of one IPv4 address as that.
func showNetwork(p netip.Prefix) string {
	if p.Addr().Is4() && p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// parseNetwork reads an address or a network. An IPv6 address is that of a subscriber, who has a /64 of them.
func parseNetwork(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return p, control.Errorf(control.Invalid, "%q is not a network; write it as 192.0.2.0/24 or 2001:db8::/48", s)
		}
		return p.Masked(), nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, control.Errorf(control.Invalid, "%q is not an IP address; write it as 192.0.2.1, 2001:db8::1 or 192.0.2.0/24", s)
	}
	if addr = addr.Unmap(); addr.Is4() {
		return netip.PrefixFrom(addr, 32), nil
	}
	return addr.Prefix(64)
}

// AddBan keeps a network out.
func (a *Admin) AddBan(ctx context.Context, b control.NewBan) (control.Ban, error) {
	network, err := parseNetwork(b.Network)
	if err != nil {
		return control.Ban{}, err
	}
	ban, err := a.c.Bans.Add(network, time.Duration(b.For), b.Reason)
	return showBan(ban), adminError(err)
}

// RemoveBan lets a network in again.
func (a *Admin) RemoveBan(ctx context.Context, network string) error {
	p, err := parseNetwork(network)
	if err != nil {
		return err
	}
	return adminError(a.c.Bans.Remove(p))
}
