package postroad

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"postroad/delivery"
	"postroad/internal/account"
	"postroad/internal/certs"
	"postroad/internal/config"
	"postroad/internal/control"
	"postroad/internal/envelope"
	"postroad/internal/gate"
	"postroad/internal/mailauth"
	"postroad/internal/mailbox"
	"postroad/internal/store"
	"postroad/internal/tlspolicy"
	"postroad/internal/trace"
	"postroad/spool"
)

// ErrLocked means that another process has the data directory open.
var ErrLocked = store.ErrLocked

// AdminConfig is what an Admin works on. Hostname, Started and Listeners are those
// of a running server; without one they are empty.
type AdminConfig struct {
	Dir       string
	Store     *store.Store
	Accounts  *account.Directory
	Spool     *spool.Spool
	Mailboxes *mailbox.Service
	Trace     *trace.Log
	Bans      *gate.Bans
	Keys      *mailauth.Keys
	TLS       *tlspolicy.Policies
	Rules     *delivery.Rules
	Runner    *delivery.Runner  // the server's, or one that does not run
	Daily     account.Allowance // that is configured for all
	Prober    *delivery.Runner  // nil without a running server
	Certs     *certs.Certs      // nil without a running server
	Now       func() time.Time  // nil is time.Now

	Hostname  string
	Started   time.Time
	Listeners func() map[string]string // addresses by name, of those that are open
}

// Admin is all that an administrator can do, on an open data directory: the running
// server's, or that of a command when no server runs. Any number of goroutines.
type Admin struct {
	c AdminConfig // set by NewAdmin, never changed

	aliases sync.Mutex // held from reading an alias to writing it
}

var _ control.Service = (*Admin)(nil)

// NewAdmin returns the administrator's view of what c names.
func NewAdmin(c AdminConfig) *Admin {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Admin{c: c}
}

// OpenAdmin opens the data directory of cfg, which must be there and which no server
// may have open, without starting anything. The caller closes it.
func OpenAdmin(cfg config.Config) (*Admin, io.Closer, error) {
	dir := cfg.DataDir
	if err := checkDataDir(dir); err != nil {
		return nil, nil, err
	}
	h, err := openHouse(dir, trace.Limits{}, account.Subaddress{}, time.Now, slog.New(slog.DiscardHandler))
	if errors.Is(err, store.ErrLocked) {
		return nil, nil, control.Errorf(control.Unavailable, "%s: %v, but nothing answers at its control socket", dir, store.ErrLocked).
			WithHint("another command is at work there, or the server is just starting or stopping; try again in a moment")
	}
	if err != nil {
		return nil, nil, adminError(err)
	}
	asked, err := resolver(cfg.DNS, h.now)
	if err != nil {
		return nil, nil, adminError(errors.Join(err, h.store.Close()))
	}
	h.keys = h.openKeys(cfg, asked, slog.New(slog.DiscardHandler))
	policies, err := tlspolicy.Open(tlspolicy.Config{Store: h.store})
	if err != nil {
		return nil, nil, adminError(errors.Join(err, h.store.Close()))
	}
	c := h.adminConfig(dir, h.idleRunner(cfg))
	c.TLS, c.Daily = policies, allowance(cfg.Submission)
	return NewAdmin(c), h.store, nil
}

// adminConfig is what an administrator finds in the house.
func (h *house) adminConfig(dir string, runner *delivery.Runner) AdminConfig {
	return AdminConfig{
		Dir: dir, Store: h.store, Accounts: h.accounts, Spool: h.spool, Mailboxes: h.mailboxes, Trace: h.trace, Bans: h.bans,
		Keys: h.keys, Rules: h.rules, Runner: runner,
	}
}

// idleRunner knows how mail goes out, and sends none.
func (h *house) idleRunner(cfg config.Config) *delivery.Runner {
	return delivery.New(delivery.Config{
		Store: h.store, Spool: h.spool, Mailboxes: h.mailboxes, Accounts: h.accounts, Rules: h.rules,
		Hostname: cfg.Hostname, Schedule: schedule(cfg.Retry), Routes: routes(cfg), Now: h.now,
	})
}

// CheckConfig says what would keep a server from starting with cfg, as far as that
// shows without starting it.
func CheckConfig(cfg config.Config) error {
	if _, err := openIssuer(cfg.OAuth, Options{}); err != nil {
		return err
	}
	if _, err := webhooks(cfg); err != nil {
		return err
	}
	return certs.Check(certs.Config{Files: certificateFiles(cfg.TLS), ACME: acme(cfg), ClientCA: cfg.TLS.ClientCA})
}

// checkDataDir refuses to make a data directory, which would be a mistyped name more
// often than not, and to leave files in it that its server could not open.
func checkDataDir(dir string) error {
	info, err := os.Stat(filepath.Join(dir, "index.db"))
	if errors.Is(err, fs.ErrNotExist) {
		return control.Errorf(control.NotFound, "no server runs at %s, and it is not a data directory", dir).
			WithHint("name it with --dir or --config; the first start of a server makes it")
	}
	if errors.Is(err, fs.ErrPermission) {
		return control.Errorf(control.Unavailable, "open %s: permission denied", dir).
			WithHint("run this as the user whose data directory it is")
	}
	if err != nil {
		return err
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if os.Geteuid() == 0 && owner != 0 {
		return control.Errorf(control.Refused, "%s belongs to another user, whose server could not open what root writes there", dir).
			WithHint("run this as that user: setpriv --reuid %d --clear-groups, or sudo -u", owner)
	}
	return nil
}

// codes are the errors of our packages as the administrator's programs see them.
var codes = []struct {
	err  error
	code control.Code
	hint string
}{
	{account.ErrNoDomain, control.NotFound, "see `postroad domain list`; `postroad domain add` makes it ours"},
	{account.ErrNotFound, control.NotFound, ""},
	{account.ErrUnknown, control.NotFound, ""},
	{account.ErrExists, control.Exists, ""},
	{account.ErrNotEmpty, control.Refused, "remove them first: `postroad account list`, `postroad alias list`, `postroad list list` and `postroad domain list` name them"},
	{account.ErrDomainAlias, control.Refused, "give the domain that it is an alias of"},
	{account.ErrPassword, control.Invalid, ""},
	{account.ErrSetting, control.Invalid, ""},
	{account.ErrNoAppPassword, control.NotFound, "see `postroad account app-password list`"},
	{account.ErrAppPassword, control.Invalid, ""},
	{account.ErrLoop, control.Invalid, ""},
	{gate.ErrNoBan, control.NotFound, "see `postroad ban list`"},
	{tlspolicy.ErrUnknown, control.NotFound, "see `postroad tls list`"},
	{gate.ErrThisHost, control.Refused, ""},
	{gate.ErrTooWide, control.Refused, ""},
	{gate.ErrBanReason, control.Invalid, ""},
	{account.ErrTargets, control.Invalid, ""},
	{mailauth.ErrKeyExists, control.Exists, "see `postroad dkim list`"},
	{mailauth.ErrKeyNotFound, control.NotFound, "see `postroad dkim list`; `postroad dkim add` makes keys"},
	{mailauth.ErrRotating, control.Refused, "`postroad dkim records` prints the records; `postroad dkim remove` gives the new keys up"},
	{mailauth.ErrKey, control.Invalid, ""},
	{mailauth.ErrSelector, control.Invalid, ""},
	{envelope.ErrAddress, control.Invalid, ""},
	{mailbox.ErrNotFound, control.NotFound, "see `postroad mailbox list`"},
	{mailbox.ErrExists, control.Exists, ""},
	{mailbox.ErrExpunged, control.NotFound, ""},
	{mailbox.ErrName, control.Invalid, "levels are separated by \"/\"; empty levels and control characters are not possible"},
	{mailbox.ErrFlag, control.Invalid, ""},
	{mailbox.ErrInbox, control.Refused, ""},
	{mailbox.ErrRole, control.Refused, ""},
	{mailbox.ErrChildren, control.Refused, ""},
	{mailbox.ErrLimit, control.Refused, ""},
	{mailbox.ErrIdentifier, control.NotFound, "see `postroad account list`; all accounts together are \"anyone\""},
	{mailbox.ErrRight, control.Invalid, "use read, write, all, or letters as RFC 4314 has them"},
	{mailbox.ErrOverQuota, control.OverQuota, "`postroad account set --quota` changes it"},
	{delivery.ErrSuspended, control.NotFound, "see `postroad destination list`"},
	{delivery.ErrNoHoldRule, control.NotFound, "see `postroad hold-rule list`"},
	{delivery.ErrTooManyRules, control.Refused, ""},
	{delivery.ErrRuleReason, control.Invalid, ""},
	{delivery.ErrEmptyRule, control.Invalid, "name a sender, a recipient or an account"},
	{account.ErrNotSuppressed, control.NotFound, "see `postroad suppression list`"},
	{spool.ErrNotFound, control.NotFound, "`postroad trace` tells what became of it"},
	{store.ErrNoBody, control.NotFound, "it was removed, or never was; `postroad trace` may know"},
	{store.ErrFull, control.Full, "make room on the disk; removing messages and `postroad compact` still work"},
	{store.ErrFailed, control.Failed, "see the server's log for the first error, look after the disk, and restart the server"},
	{store.ErrClosed, control.Unavailable, ""},
	{store.ErrDamaged, control.Damaged, "`postroad check` says what else is damaged; restore it from a backup"},
	{store.ErrIndex, control.Damaged, "restore index.db from a backup"},
	{store.ErrFormat, control.Refused, "open it with the version that wrote it"},
	{context.Canceled, control.Cancelled, ""},
	{context.DeadlineExceeded, control.Cancelled, ""},
}

// adminError gives an error its code and hint.
func adminError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*control.Error](err); ok {
		return err
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &control.Error{Code: c.code, Text: err.Error(), Hint: c.hint}
		}
	}
	return &control.Error{Code: control.Internal, Text: err.Error()}
}

// parseAddress reads an address that must have a domain.
func parseAddress(s string) (envelope.Address, error) {
	addr, err := envelope.ParseAddress(s)
	if err != nil {
		return addr, adminError(err)
	}
	if addr.Domain == "" {
		return addr, control.Errorf(control.Invalid, "%q has no domain; write it as name@example.org", s)
	}
	return addr, nil
}

// parseDomain reads a domain's name.
func parseDomain(s string) (string, error) {
	domain, err := envelope.ParseDomain(s)
	if err != nil {
		return "", control.Errorf(control.Invalid, "%v", err)
	}
	return domain, nil
}

// parseID reads a message id. Zero names nothing, and would be taken by filters for
// everything.
func parseID(s string) (store.ID, error) {
	id, err := store.ParseID(s)
	if err == nil && id == 0 {
		err = fmt.Errorf("%q is not the id of a message", s)
	}
	if err != nil {
		return 0, control.Errorf(control.Invalid, "%v", err)
	}
	return id, nil
}

// absolute is a path that means the same to everyone, wherever they are.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// Status tells how the server and its store are.
func (a *Admin) Status(ctx context.Context) (control.Status, error) {
	counts, err := a.c.Spool.Counts()
	if err != nil {
		return control.Status{}, adminError(err)
	}
	st := a.c.Store.Stats()
	s := control.Status{
		Version: Version(),
		Data:    absolute(a.c.Dir),
		Queue:   control.QueueCounts{Messages: counts.Messages, Active: counts.Active, Deferred: counts.Deferred, Hold: counts.Hold},
		Store: control.StoreStats{
			Bodies: st.Bodies, LiveOctets: st.LiveOctets, DeadOctets: st.DeadOctets, Segments: st.Segments,
			IndexOctets: st.IndexOctets, FreeOctets: st.FreeOctets,
			Commits: st.Commits, Updates: st.Updates, Flushes: st.Flushes,
		},
	}
	s.Suspended, s.Trouble = a.inTrouble()
	spent, err := a.c.Accounts.SpentToday(a.c.Daily, mostTrouble)
	if err != nil {
		return s, adminError(err)
	}
	s.Spent = texts(spent)
	s.Bans, s.Troubled = len(a.c.Bans.List()), a.troubled()
	if s.DKIM, err = a.dkimStatus(); err != nil {
		return s, adminError(err)
	}
	if err := a.c.Store.Failed(); err != nil {
		s.Failed = err.Error()
	}
	if !a.c.Started.IsZero() {
		s.Running, s.Hostname, s.PID = true, a.c.Hostname, os.Getpid()
		s.Started, s.Uptime = a.c.Started, a.c.Now().Sub(a.c.Started).Seconds()
	}
	if a.c.Listeners != nil {
		s.Listeners = a.c.Listeners()
	}
	return s, nil
}

// Check reads everything and reports what is wrong.
func (a *Admin) Check(ctx context.Context, progress func(control.Progress)) (control.CheckReport, error) {
	tell := func(what string) func(done, total int64) {
		return func(done, total int64) {
			if progress != nil {
				progress(control.Progress{What: what, Done: done, Total: total})
			}
		}
	}
	refs := []store.References{a.c.Spool.References, a.c.Mailboxes.References}
	result, err := a.c.Store.Check(ctx, refs, tell("octets of bodies"))
	report := control.CheckReport{
		Bodies: result.Bodies, Octets: result.Octets, Segments: result.Segments, Keys: result.Keys,
		Problems: []control.Problem{},
	}
	addProblems(&report, result.Problems)
	for _, part := range []struct {
		what  string
		check func(context.Context) ([]store.Problem, error)
	}{{"queue", a.c.Spool.Check}, {"mailboxes", a.c.Mailboxes.Check}} {
		if err != nil {
			break
		}
		tell(part.what)(0, 0)
		var problems []store.Problem
		problems, err = part.check(ctx)
		addProblems(&report, problems)
	}
	return report, adminError(err)
}

func addProblems(report *control.CheckReport, problems []store.Problem) {
	for _, p := range problems {
		report.Problems = append(report.Problems, control.Problem{What: p.What, Text: p.Text})
	}
}

// Compact gives the space of removed messages back to the disk, also of those that were removed a moment ago and
// whose bodies would be let go of in the background.
func (a *Admin) Compact(ctx context.Context) (control.Compacted, error) {
	if err := a.c.Mailboxes.Sweep(ctx); err != nil {
		return control.Compacted{}, adminError(err)
	}
	octets, err := a.c.Store.Compact(ctx)
	return control.Compacted{Octets: octets}, adminError(err)
}

// owner returns the account that an address names, as owner of mailboxes.
func (a *Admin) owner(address string) (mailbox.Owner, account.Account, error) {
	addr, err := parseAddress(address)
	if err != nil {
		return 0, account.Account{}, err
	}
	acct, err := a.c.Accounts.Get(addr)
	if err != nil {
		return 0, acct, adminError(err)
	}
	return mailbox.Owner(acct.ID), acct, nil
}
