// Package postroad is a whole mail server in a value: SMTP in, a durable spool, a
// delivery loop out, IMAP to read. Open builds it from a config, Run serves until
// its context is done, and nothing is shared between servers: a test or a program
// may hold several.
//
//	cfg := postroad.DefaultConfig()
//	cfg.DataDir = t.TempDir()
//	srv, err := postroad.Open(cfg, postroad.Options{})
//	...
//	err = srv.Run(ctx)
package postroad

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"postroad/delivery"
	"postroad/imapd"
	"postroad/internal/account"
	"postroad/internal/certs"
	"postroad/internal/config"
	"postroad/internal/control"
	"postroad/internal/event"
	"postroad/internal/gate"
	"postroad/internal/mailauth"
	"postroad/internal/mailbox"
	"postroad/internal/srs"
	"postroad/internal/store"
	"postroad/internal/tlspolicy"
	"postroad/internal/tlsrpt"
	"postroad/internal/trace"
	"postroad/smtpd"
	"postroad/spool"
)

// Options are what a config file cannot hold; the zero value is a real server's.
type Options struct {
	Log      *slog.Logger     // nil discards
	Now      func() time.Time // nil is time.Now
	Resolver Resolver         // nil asks the DNS servers of the config, or the system's
	// Dial connects to other mail servers, from a local address or, when that is zero, from any; nil is a net.Dialer's.
	Dial   func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error)
	MXPort int // where mail exchangers listen; 0 is 25
	// AllowPrivate lets a mail exchanger have a loopback or private address. DNS
	// of strangers decides where we connect, so a real server says no.
	AllowPrivate bool
	RootCAs      *x509.CertPool // that the certificates of other servers are held against; nil is the system's
	PolicyPort   int            // where the hosts of MTA-STS policies listen; 0 is 443
}

// Server is a mail server that is open: it owns its data directory and listens.
type Server struct {
	// Set by Open, never changed.
	cfg      config.Config
	log      *slog.Logger
	house    *house
	hooks    []delivery.Webhook
	events   *event.Outbox // nil without hooks
	runner   *delivery.Runner
	reports  *tlsrpt.Reports // nil: none are sent
	policies *tlspolicy.Policies
	prober   *delivery.Runner
	gate     *gate.Gate
	certs    *certs.Certs
	admin    *Admin
	serving  []serving
	control  net.Listener
	started  time.Time
}

// serving is one listener and what answers there.
type serving struct {
	name     string
	listener net.Listener
	server   interface {
		Serve(net.Listener) error
		Shutdown(context.Context) error
		End(account.ID)                    // ends an account's sessions
		Drop(chosen func(netip.Addr) bool) // cuts off the connections of the addresses
	}
}

// house is the store and what is kept in it.
type house struct {
	store     *store.Store
	accounts  *account.Directory
	logins    *account.Logins
	spool     *spool.Spool
	mailboxes *mailbox.Service
	trace     *trace.Log
	bans      *gate.Bans
	rules     *delivery.Rules
	guard     *account.Guard
	srs       *srs.Rewriter
	keys      *mailauth.Keys
	now       func() time.Time
}

// room reports whether an account's mailboxes may hold a message of so many octets more, 0 when they are not known.
func (h *house) room(id account.ID, size int64) (bool, error) {
	var quota account.Quota
	err := h.store.View(func(r store.Reader) error {
		quota = account.QuotaOf(r, id)
		return nil
	})
	if err != nil || quota == (account.Quota{}) {
		return err == nil, err
	}
	octets, messages, err := h.mailboxes.Usage(mailbox.Owner(id))
	holds := func(used, more, most int64) bool { return most == 0 || used < most && more <= most-used }
	return err == nil && holds(octets, size, quota.Octets) && holds(messages, 1, quota.Messages), err
}

// openHouse opens the data directory, or makes it. The caller opens the keys, and closes the store.
func openHouse(dir string, limits trace.Limits, sub account.Subaddress, now func() time.Time, log *slog.Logger) (*house, error) {
	st, err := store.Open(dir, store.Options{Now: now, Log: log})
	if err != nil {
		return nil, err
	}
	h, err := furnish(st, limits, sub, now, log)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return h, nil
}

// furnish makes what stands on a store.
func furnish(st *store.Store, limits trace.Limits, sub account.Subaddress, now func() time.Time, log *slog.Logger) (*house, error) {
	bans, err := gate.OpenBans(st, now, log)
	if err != nil {
		return nil, err
	}
	rules, err := delivery.OpenRules(st, now)
	if err != nil {
		return nil, err
	}
	accounts := account.OpenWith(st, now, sub)
	guard := account.NewGuard(now, accounts)
	back := srs.Open(st, now)
	accounts.LeadBack(wayBack{back})
	boxes := mailboxOptions(accounts)
	boxes.Now = now
	queue := spool.Open(st, now)
	queue.CatchBy(rules.Hold)
	return &house{
		store:     st,
		accounts:  accounts,
		guard:     guard,
		logins:    account.NewLogins(accounts, guard),
		spool:     queue,
		mailboxes: mailbox.New(st, boxes),
		trace:     trace.New(st, limits),
		bans:      bans,
		srs:       back,
		rules:     rules,
		now:       now,
	}, nil
}

// Open opens the data directory and binds every listener of cfg; it serves nothing
// yet. The caller runs the server, or closes it.
func Open(cfg Config, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Resolver == nil {
		var err error
		if o.Resolver, err = resolver(cfg.DNS, o.Now); err != nil {
			return nil, err
		}
	}
	limits := trace.Limits{Age: cfg.Trace.Age.Std(), Events: cfg.Trace.Events}
	h, err := openHouse(cfg.DataDir, limits, subaddress(cfg.Recipients), o.Now, o.Log)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: o.Log, house: h, started: o.Now()}
	if err := s.build(o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// build makes what stands on the store, and binds the listeners.
func (s *Server) build(o Options) error {
	var err error
	if s.certs, err = certs.Open(s.certsConfig(o)); err != nil {
		return err
	}
	if err := s.house.openLogins(s.cfg, o); err != nil {
		return err
	}
	if err := s.house.mailboxes.SetAdminContact(s.cfg.IMAP.AdminContact); err != nil {
		return fmt.Errorf("imap.admin_contact: %w", err)
	}
	s.house.keys = s.house.openKeys(s.cfg, o.Resolver, s.log)
	if s.hooks, err = webhooks(s.cfg); err != nil {
		return err
	}
	s.events = event.Open(s.house.store, s.house.spool, delivery.Hooks(s.hooks), s.log)
	s.reports = s.openReports(o)
	if s.policies, err = s.openPolicies(o); err != nil {
		return err
	}
	s.runner = delivery.New(s.deliveryConfig(o))
	if s.prober, err = newProber(s.cfg, s.house.store, s.house.rules, s.isOwn, o); err != nil {
		return err
	}
	s.gate = s.newGate(o)
	if err := s.listen(o); err != nil {
		return err
	}
	s.house.accounts.Watch(s.endSessions)
	s.admin = NewAdmin(s.adminConfig(o))
	s.control, err = control.Listen(s.cfg.DataDir)
	return err
}

// endSessions ends what is logged in to an account that was disabled, removed or given a new password.
func (s *Server) endSessions(id account.ID) {
	for _, v := range s.serving {
		v.server.End(id)
	}
}

// listen binds the listeners of the config and makes their servers.
func (s *Server) listen(o Options) error {
	smtp := s.smtpConfig(o, s.certs.TLSConfig("smtp", "esmtp"))
	submission := s.smtpConfig(o, s.certs.UserTLSConfig("smtp", "esmtp"))
	imap := s.imapConfig(o, s.certs.UserTLSConfig("imap"))
	l := s.cfg.Listen
	for _, x := range []struct {
		name   string
		addr   config.Addr
		server func() serving
	}{
		{"smtp", l.SMTP, func() serving { return serving{server: smtpd.NewServer(smtpd.MX, false, smtp)} }},
		{"submission", l.Submission, func() serving { return serving{server: smtpd.NewServer(smtpd.Submission, false, submission)} }},
		{"submissions", l.Submissions, func() serving { return serving{server: smtpd.NewServer(smtpd.Submission, true, submission)} }},
		{"lmtp", l.LMTP, func() serving { return serving{server: smtpd.NewServer(smtpd.LMTP, false, smtp)} }},
		{"imap", l.IMAP, func() serving { return serving{server: imapd.NewServer(false, imap)} }},
		{"imaps", l.IMAPS, func() serving { return serving{server: imapd.NewServer(true, imap)} }},
	} {
		if x.addr.IsOff() {
			continue
		}
		listener, err := bind(x.addr)
		if err != nil {
			return fmt.Errorf("listen.%s: %w", x.name, err)
		}
		v := x.server()
		v.name, v.listener = x.name, listener
		s.serving = append(s.serving, v)
	}
	return nil
}

// bind listens at a TCP address or a unix socket. A socket left by an earlier process is replaced; every user of the
// machine may connect to one who can reach it, as to a port of loopback: a mail server in front of us has an own user.
func bind(addr config.Addr) (net.Listener, error) {
	network, address := addr.Network()
	if network != "unix" {
		return net.Listen(network, address)
	}
	if info, err := os.Stat(address); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(address); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(address, 0o666); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// Addr returns the address that a listener is bound to ("smtp", "submission",
// "submissions", "imap", "imaps", "lmtp"), or "" when it is off.
func (s *Server) Addr(listener string) string {
	for _, v := range s.serving {
		if v.name == listener {
			return v.listener.Addr().String()
		}
	}
	return ""
}

// ControlSocket is the path of the socket at which `postroad` commands reach the server.
func (s *Server) ControlSocket() string { return control.SocketPath(s.cfg.DataDir) }

// Admin is what an administrator may do, on the running server.
func (s *Server) Admin() *Admin { return s.admin }

// Close gives up the listeners and the data directory of a server that is not running.
func (s *Server) Close() error {
	for _, v := range s.serving {
		v.listener.Close()
	}
	if s.control != nil {
		s.control.Close()
	}
	if s.certs != nil {
		s.certs.Close()
	}
	return s.house.store.Close()
}

// Run serves until ctx is done, then lets sessions end within the config's shutdown
// timeout, and closes the data directory. It returns nil after a clean stop, and an
// error when a part of the server failed.
func (s *Server) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(ctx)
	for _, remark := range s.cfg.Remarks() {
		s.log.Warn(remark)
	}
	for _, v := range s.serving {
		s.log.Info("listening", "listener", v.name, "addr", v.listener.Addr().String())
		g.Go(func() error {
			err := v.server.Serve(v.listener)
			if gctx.Err() != nil {
				return nil // Shutdown may have come before Serve
			}
			return part(v.name, err)
		})
	}
	g.Go(func() error { return part("control socket", control.Serve(s.control, s.admin)) })
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	g.Go(func() error { return part("delivery", s.runner.Run(background)) })
	g.Go(func() error { return part("certificates", s.certs.Run(background)) })
	g.Go(func() error { return part("TLS policies", s.policies.Run(background)) })
	g.Go(func() error { return s.maintain(background) })
	g.Go(func() error { return part("full-text index", s.house.mailboxes.Index(background, s.indexFailed)) })
	g.Go(func() error { return s.tidy(background) })
	g.Go(func() error { s.house.bans.Run(background); return nil })
	g.Go(func() error { s.reports.Run(background); return nil })
	g.Go(func() error { s.house.keys.Run(background); return nil })
	g.Go(func() error {
		<-gctx.Done()
		s.shutdown()
		stopBackground()
		return nil
	})
	err := g.Wait()
	return errors.Join(err, s.house.store.Close())
}

// part names the part of the server that an error ended.
func part(name string, err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// shutdown ends what takes new work: sessions first, the control socket last.
func (s *Server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownTimeout.Std())
	defer cancel()
	s.log.Info("stopping", "within", s.cfg.ShutdownTimeout.String())
	var g errgroup.Group
	for _, v := range s.serving {
		g.Go(func() error {
			if err := v.server.Shutdown(ctx); err != nil {
				s.log.Warn("sessions were cut off", "listener", v.name, "err", err)
			}
			return nil
		})
	}
	g.Wait()
	s.control.Close()
}

// tidy drops what removed mailboxes and expunged messages leave behind, until ctx is done.
func (s *Server) tidy(ctx context.Context) error {
	s.house.mailboxes.Run(ctx, func(err error) {
		s.log.Error("dropping what was removed from mailboxes failed", "err", err)
	})
	return nil
}

// maintain does the house-keeping until ctx is done: now and then compaction of bodies and
// pruning of the trace.
func (s *Server) maintain(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s.housekeeping(ctx, now)
		}
	}
}

// indexFailed tells of a mailbox whose full-text index could not be brought up to date; searches take longer until it is.
func (s *Server) indexFailed(id mailbox.ID, err error) {
	s.log.Warn("indexing a mailbox failed; it is tried again when it changes", "mailbox", uint64(id), "err", err)
}

func (s *Server) housekeeping(ctx context.Context, now time.Time) {
	if freed, err := s.house.store.Compact(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("compaction failed", "err", err)
	} else if freed > 0 {
		s.log.Info("compacted", "octets", freed)
	}
	if err := s.house.srs.Prune(); err != nil {
		s.log.Error("pruning forwarded senders failed", "err", err)
	}
	if n, err := s.house.trace.Prune(ctx, now); err != nil && ctx.Err() == nil {
		s.log.Error("pruning the trace failed", "err", err)
	} else if n > 0 {
		s.log.Info("pruned the trace", "events", n)
	}
}

// Version is the version of this build: the module's, and the commit it was made
// from where the build knows it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	if version == "" || version == "(devel)" {
		version = release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			version += " (" + s.Value[:min(12, len(s.Value))] + ")"
		}
	}
	return version
}

// release is the version that the CHANGELOG begins with.
const release = "0.1.0"
