package postroad

import (
	"strings"

	"postroad/internal/dns"
	"postroad/internal/envelope"
	"postroad/internal/tlsrpt"
	"postroad/spool"
)

// openReports opens the TLS reports, or returns nil where none are sent: others need to know who tells them something.
func (s *Server) openReports(o Options) *tlsrpt.Reports {
	c := s.cfg.TLSReports
	if !c.Send || !tlsrpt.IsReal(s.cfg.Hostname) {
		return nil
	}
	if o.Resolver == nil {
		o.Resolver = dns.System()
	}
	return tlsrpt.Open(tlsrpt.Config{
		Store: s.house.store, Spool: s.house.spool, Resolver: o.Resolver, Hostname: s.cfg.Hostname, Organization: c.Organization,
		Contact: s.reportsFrom, Recipients: s.house.recipients, Now: o.Now, Log: s.log,
	})
}

// reportsFrom is whom TLS reports come from: what is configured, or else postmaster at the domain of ours that the
// hostname is in, as its mail is signed where any is.
func (s *Server) reportsFrom() envelope.Address {
	if from, err := envelope.ParseAddress(s.cfg.TLSReports.Contact); err == nil {
		return from
	}
	best := ""
	domains, err := s.house.accounts.Domains()
	if err != nil {
		s.log.Error("the domains cannot be read", "err", err)
	}
	for _, d := range domains {
		if strings.HasSuffix("."+strings.ToLower(s.cfg.Hostname), "."+d.Name) && len(d.Name) > len(best) {
			best = d.Name
		}
	}
	if best == "" {
		best = s.cfg.Hostname
	}
	return envelope.Address{Local: "postmaster", Domain: best}
}

// recipients are who of the spool's an address is.
func (h *house) recipients(to envelope.Address) ([]spool.Recipient, error) {
	targets, err := h.accounts.Resolve(to)
	var rcpts []spool.Recipient
	for _, t := range targets {
		rcpts = append(rcpts, spool.Recipient{
			Recipient: envelope.Recipient{To: t.Address}, Account: uint64(t.Account), Mailbox: t.Mailbox, List: t.List, Via: t.Via,
		})
	}
	return rcpts, err
}
