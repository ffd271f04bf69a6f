package postroad

import (
	"cmp"
	"net/netip"
	"strings"

	"postroad/delivery"
	"postroad/delivery/smtpc"
	"postroad/internal/config"
)

// routes are the config's as delivery has them.
func routes(cfg config.Config) []delivery.Route {
	var out []delivery.Route
	for i := range cfg.Routes {
		out = append(out, route(&cfg.Routes[i], cfg.Retry))
	}
	return out
}

func route(r *config.Route, retry config.Retry) delivery.Route {
	out := delivery.Route{
		Name: r.Name, Domain: r.Domain, Sender: r.Sender, Kind: routeKind[r.Transport],
		URL: r.URL, Secret: string(r.Secret), Text: r.Text,
		TLS: routeTLS[r.TLS], Username: r.Username, Password: string(r.Password),
		Schedule:       routeSchedule(r, retry),
		PerDestination: r.Concurrency, PerMinute: r.PerMinute,
	}
	if r.Transport == config.TransportSMTP || r.Transport == config.TransportLMTP {
		out.Port = r.Port
	}
	if out.Socket = r.Socket(); out.Socket == "" {
		out.Host = r.Host
	}
	out.Source = addresses(r.Source)
	return out
}

// addresses of a config, which holds no others.
func addresses(list []string) (ips []netip.Addr) {
	for _, s := range list {
		ip, _ := netip.ParseAddr(s)
		ips = append(ips, ip.Unmap())
	}
	return ips
}

// routeSchedule is the route's own schedule; nil when it is the server's.
func routeSchedule(r *config.Route, retry config.Retry) *delivery.Schedule {
	if r.RetryFirst == 0 && r.RetryMax == 0 && r.RetryExpire == 0 {
		return nil
	}
	retry.First = cmp.Or(r.RetryFirst, retry.First)
	retry.Max = cmp.Or(r.RetryMax, max(retry.Max, retry.First))
	retry.Expire = cmp.Or(r.RetryExpire, max(retry.Expire, retry.First))
	s := schedule(retry)
	return &s
}

// schedule is the config's as delivery has it.
func schedule(r config.Retry) delivery.Schedule {
	s := delivery.Schedule{
		Min: r.First.Std(), Max: r.Max.Std(), Expire: r.Expire.Std(), DelayAfter: r.DelayNotice.Std(), Jitter: r.Jitter,
	}
	if s.DelayAfter == 0 {
		s.DelayAfter = -1 // never, in delivery's words
	}
	if s.Jitter == 0 {
		s.Jitter = -1 // none
	}
	return s
}

var routeKind = map[config.Transport]delivery.Kind{
	config.TransportSMTP: delivery.SMTP, config.TransportMX: delivery.MX, config.TransportLMTP: delivery.LMTP,
	config.TransportHTTP: delivery.HTTP, config.TransportDiscard: delivery.Discard, config.TransportReject: delivery.Reject,
}

var routeTLS = map[config.TLSMode]smtpc.TLS{
	config.TLSNone:          smtpc.None,
	config.TLSOpportunistic: smtpc.Opportunistic,
	config.TLSEncrypted:     smtpc.Encrypted,
	config.TLSRequired:      smtpc.Required,
	config.TLSImplicit:      smtpc.Implicit,
}

// routed reports whether a domain has a route of its own.
func routed(list []config.Route, domain string) bool {
	for i := range list {
		if strings.EqualFold(list[i].Domain, domain) {
			return true
		}
	}
	return false
}
