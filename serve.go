package postroad

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"postroad/delivery"
	"postroad/delivery/smtpc"
	"postroad/imapd"
	"postroad/internal/account"
	"postroad/internal/certs"
	"postroad/internal/config"
	"postroad/internal/gate"
	"postroad/internal/mailauth"
	"postroad/internal/tlspolicy"
	"postroad/smtpd"
	"postroad/spool"
)

// What each part of the server is told of the config.

func (s *Server) certsConfig(o Options) certs.Config {
	return certs.Config{
		Dir: filepath.Join(s.cfg.DataDir, "tls"), Hostname: s.cfg.Hostname,
		Files: certificateFiles(s.cfg.TLS), ACME: acme(s.cfg), ClientCA: s.cfg.TLS.ClientCA, Now: o.Now, Log: s.log,
	}
}

func acme(cfg config.Config) *certs.ACME {
	a := cfg.ACME
	if !a.Enabled {
		return nil
	}
	names, listen := a.Names, a.HTTPListen
	if len(names) == 0 {
		names = []string{cfg.Hostname}
	}
	if certs.Challenge(a.Challenge) == certs.TLSALPN01 {
		listen = a.TLSALPNListen
	}
	return &certs.ACME{
		Directory: a.Directory, RootCA: a.RootCA, Email: a.Email, Names: names,
		Challenge: certs.Challenge(a.Challenge), Listen: string(listen),
		DNS:      certs.DNS{Server: string(a.DNSServer), KeyFile: a.DNSKeyFile},
		EABKeyID: a.EABKeyID, EABHMAC: string(a.EABHMAC),
	}
}

// certificateFiles are the pairs of files that the config names, the default one first.
func certificateFiles(t config.TLS) []certs.Pair {
	var list []certs.Pair
	if t.Cert != "" {
		list = append(list, certs.Pair{Cert: t.Cert, Key: t.Key})
	}
	for _, p := range t.Certificates {
		list = append(list, certs.Pair{Cert: p.Cert, Key: p.Key})
	}
	return list
}

// newGate makes the policy that all servers ask.
func (s *Server) newGate(o Options) *gate.Gate {
	g := gate.New(gate.Options{
		Limits: s.gateLimits(), Trusted: config.Prefixes(s.cfg.Trust.Networks), Bans: s.house.bans, Now: o.Now,
	})
	s.house.guard.OnGuess = g.Guessed
	s.house.bans.Watch(s.dropBanned)
	return g
}

func (s *Server) gateLimits() gate.Limits {
	p := s.cfg.Policy
	return gate.Limits{
		PerNetwork: p.ConnectionsPerNetwork, Connections: p.ConnectionsPerMinute,
		Messages: p.MessagesPerHour, Recipients: p.RecipientsPerHour,
		RefusedOctets: int64(p.RefusedPerHour), Errors: p.ErrorsPerHour,
		AccountMessages: p.AccountMessages, AccountRecipients: p.AccountRecipients,
		GreetDelay: orNever(p.GreetDelay.Std()), Tarpit: orNever(p.Tarpit),
		BanGuesses: orNever(p.BanGuesses), BanUnknown: orNever(p.BanUnknown), BanAbuse: orNever(p.BanAbuse),
	}
}

// orNever turns the config's 0, which is off, into the gate's word for it.
func orNever[T int | time.Duration](v T) T {
	if v == 0 {
		return -1
	}
	return v
}

// dropBanned cuts off what an administrator has banned. Who is banned for an offence is told so: the gate refuses
// its next message.
func (s *Server) dropBanned(b gate.Ban) {
	if b.By != gate.ByAdmin {
		return
	}
	for _, v := range s.serving {
		v.server.Drop(func(a netip.Addr) bool { return b.Network.Contains(a) && !s.gate.Exempt(a) })
	}
}

func (s *Server) smtpConfig(o Options, cert *tls.Config) smtpd.Config {
	l := s.cfg.Limits
	return smtpd.Config{
		Hostname: s.cfg.Hostname, Store: s.house.store, Spool: s.house.spool, Accounts: s.house.accounts,
		Logins: s.house.logins, Room: s.house.room, RejectFull: l.FullMailbox == "reject", TLS: cert, Log: s.log, Now: o.Now,
		Limits: smtpd.Limits{
			Connections: l.Connections, PerAddress: l.ConnectionsPerAddress,
			Recipients: l.Recipients, MessageSize: int64(l.MessageSize), Hops: l.Hops,
			CommandsPerMinute: l.CommandsPerMinute, Errors: l.Errors, CommandTimeout: l.SMTPTimeout.Std(),
		},
		Gate: s.gate, ProxyFrom: config.Prefixes(s.cfg.Trust.Proxies),
		Proxies: config.Prefixes(s.cfg.Trust.XCLIENT), Flush: s.flush, Routed: s.isRouted,
		NoSoliciting: s.cfg.Policy.NoSoliciting, Outgoing: s.outgoing(), Accepted: s.events.Accepted,
	}
}

func (s *Server) outgoing() smtpd.Outgoing {
	c := s.cfg.Submission
	return smtpd.Outgoing{
		HideClient: c.HideClient, SaveSent: c.SaveSent, SentCopy: s.house.sentCopy,
		Daily: allowance(c),
	}
}

// allowance is what all accounts may send in a day.
func allowance(c config.Submission) account.Allowance {
	return account.Allowance{Messages: int64(c.DailyMessages), Recipients: int64(c.DailyRecipients), New: int64(c.DailyNew)}
}

// flush makes mail that waits for a domain due now.
func (s *Server) flush(ctx context.Context, domain, by string) (int, error) {
	return s.runner.Retry(ctx, spool.Filter{Domain: domain, State: spool.Deferred.String()}, by)
}

// isRouted reports whether a domain has a route of its own.
func (s *Server) isRouted(domain string) bool { return routed(s.cfg.Routes, domain) }

func subaddress(r config.Recipients) account.Subaddress {
	return account.Subaddress{Delimiter: r.Delimiter, Mailboxes: r.DetailMailbox != "off"}
}

func (s *Server) imapConfig(o Options, cert *tls.Config) imapd.Config {
	l := s.cfg.Limits
	return imapd.Config{
		Mailboxes: s.house.mailboxes, Store: s.house.store, Accounts: s.house.accounts, Logins: s.house.logins,
		TLS: cert, Log: s.log, Now: o.Now, Gate: s.gate, ProxyFrom: config.Prefixes(s.cfg.Trust.Proxies),
		Limits: imapd.Limits{
			Connections: l.Connections, PerAddress: l.ConnectionsPerAddress,
			MessageSize: int64(l.MessageSize), Idle: l.IMAPTimeout.Std(),
		},
	}
}

func (s *Server) deliveryConfig(o Options) delivery.Config {
	c := outward(s.cfg, o)
	c.Store, c.Spool, c.Mailboxes, c.Accounts = s.house.store, s.house.spool, s.house.mailboxes, s.house.accounts
	c.CreateMailboxes = s.cfg.Recipients.DetailMailbox == "create"
	c.Policies, c.Own, c.Signer = s.policies, s.isOwn, s.house.signer(s.cfg, o.Resolver)
	c.Proven = (&proof{s.house.store, o.Resolver, o.Now}).proven
	c.Webhooks, c.Events = s.hooks, s.events
	c.Rules, c.SuppressFor = s.house.rules, s.cfg.Submission.SuppressFor.Std()
	c.Log = s.log
	return c
}

// outward is what of delivery has to do with other servers.
func outward(cfg config.Config, o Options) delivery.Config {
	d := cfg.Delivery
	return delivery.Config{
		Resolver: o.Resolver, Dial: o.Dial, Hostname: cfg.Hostname, Port: o.MXPort, AllowPrivate: o.AllowPrivate,
		TLS: &tls.Config{RootCAs: o.RootCAs}, Source: addresses(d.Source),
		Schedule: schedule(cfg.Retry), Routes: routes(cfg),
		Limits: delivery.Limits{
			Attempts: d.Concurrency, PerDestination: d.PerDestination, PerMinute: d.PerMinute, MessagesPerConnection: d.MessagesPerConnection,
			Connect: d.ConnectTimeout.Std(), Drain: cfg.ShutdownTimeout.Std(),
		},
		Timeouts: smtpc.Timeouts{Command: d.CommandTimeout.Std()},
		Now:      o.Now,
	}
}

// openPolicies opens what is known of the TLS of other servers.
func (s *Server) openPolicies(o Options) (*tlspolicy.Policies, error) {
	c := policyConfig(s.cfg, s.house.store, o)
	c.Log = s.log
	if s.reports != nil {
		c.Recorder = s.reports
	}
	return tlspolicy.Open(c)
}

func policyConfig(cfg config.Config, st tlspolicy.Store, o Options) tlspolicy.Config {
	c := tlspolicy.Config{
		Store: st, Resolver: o.Resolver, RootCAs: o.RootCAs, AllowPrivate: o.AllowPrivate,
		SMTPPort: o.MXPort, HTTPSPort: o.PolicyPort, Memory: cfg.Delivery.TLSMemory.Std(), Now: o.Now,
	}
	if o.Dial != nil {
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return o.Dial(ctx, netip.Addr{}, network, addr)
		}
	}
	return c
}

// openKeys opens the keys as the config has them, and asks resolver for their records.
func (h *house) openKeys(cfg Config, resolver Resolver, log *slog.Logger) *mailauth.Keys {
	return mailauth.OpenKeys(mailauth.KeysConfig{
		Store: h.store, Resolver: resolver, Keep: cfg.DKIM.KeepOld.Std(), Now: h.now, Log: log,
	})
}

func (s *Server) adminConfig(o Options) AdminConfig {
	c := s.house.adminConfig(s.cfg.DataDir, s.runner)
	c.Daily = allowance(s.cfg.Submission)
	c.Prober, c.Certs, c.TLS, c.Now, c.Hostname, c.Started = s.prober, s.certs, s.policies, o.Now, s.cfg.Hostname, s.started
	c.Listeners = func() map[string]string {
		open := map[string]string{}
		for _, v := range s.serving {
			open[v.name] = v.listener.Addr().String()
		}
		return open
	}
	return c
}
