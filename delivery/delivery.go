// Package delivery tries what is in the spool: who is tried, when, when again, and
// when it is given up. What is promised:
//
//   - A recipient leaves the spool in the transaction that makes its end true: the
//     message in a mailbox, or the record that the next hop took it, or the report to
//     the sender, or the record of the rule that dropped it. A crash between two steps
//     repeats a step, it never loses one.
//   - A recipient fails by a 5yz reply, by a fact of the same weight (the domain does not
//     exist, no next hop can do what the message needs), by a deadline of the sender's, by
//     the word of an administrator or of the suppression list, or at the end of the
//     schedule. Everything else defers it.
//   - A message reaches a local mailbox once. It may reach a remote one twice when the
//     reply to all of it was lost, or a crash came before its record; the trace then says
//     "possibly delivered".
//   - A report is sent at most once for each recipient and reason, and never about a
//     message with the null reverse-path. Who only says that he is the sender gets few.
//   - One slow or dead destination holds up no other, and no local delivery.
//   - Mail goes to public addresses only, unless the administrator has named others; it
//     goes in the clear, or to a host with another's certificate, only where neither the
//     domain nor the sender nor the administrator asks for more.
//   - Memory is bounded: by the recipients claimed and the attempts under way, each
//     of which streams its message. No lock is held and no transaction open while
//     somebody else is waited for.
package delivery

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"postroad/delivery/smtpc"
	"postroad/internal/account"
	"postroad/internal/dns"
	"postroad/internal/event"
	"postroad/internal/mailbox"
	"postroad/internal/store"
	"postroad/internal/tlspolicy"
	"postroad/spool"
)

// Config is what New needs. Store, Spool, Mailboxes and Accounts must be set, and
// Resolver for mail that goes elsewhere; zero values of the rest are ready for use.
type Config struct {
	Store     *store.Store
	Spool     *spool.Spool
	Mailboxes *mailbox.Service
	Accounts  *account.Directory

	Resolver dns.Resolver // nil is the operating system's
	// Dial connects from a local address, or from any when that is zero; nil is the operating system's.
	Dial     func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error)
	Source   []netip.Addr // to connect from, one for each family that mail goes out by; none is any
	Hostname string       // our name, in EHLO and reports
	Schedule Schedule
	Routes   []Route
	Webhooks []Webhook     // their secrets are checked already (hook.ParseKey)
	Events   *event.Outbox // of the Webhooks; nil when there are none
	Limits   Limits
	Port     int // of MX hosts; 0 is 25

	// Proven reports whether something shows that a message is from whom its reverse-path names (SPF, or DKIM of that
	// domain). Strangers to whom it is false get no reports. An error leaves it open. nil asks nothing.
	Proven func(ctx context.Context, m *spool.Message) (bool, error)

	// CreateMailboxes lets mail for a mailbox that is not there make it (spool.Recipient.Mailbox).
	CreateMailboxes bool

	// SuppressFor is how long an account's mail is not sent to an address that has refused it for good; 0 is never.
	SuppressFor time.Duration

	// Own reports whether we take mail at an address: there is no sense in sending it there. Nil knows of none.
	Own func(netip.AddrPort) bool

	// Rules say which destinations are suspended: a recipient's domain, in A-labels, or a route by name. nil is none.
	// Runner.Reconsider must be called when that changes.
	Rules *Rules

	// AllowPrivate lets MX records lead to loopback, private and link-local addresses.
	// Otherwise anyone who controls a domain could have us talk to hosts inside.
	AllowPrivate bool

	// Policies says what TLS mail hosts must show; nil asks nobody.
	Policies *tlspolicy.Policies

	Signer Signer // says under whose name messages leave; nil signs nothing

	TLS      *tls.Config    // the roots that certificates are held against; nil is the system's
	Timeouts smtpc.Timeouts // of each step of a conversation
	Now      func() time.Time
	Log      *slog.Logger // nil discards
}

// Limits bound the work. Zero fields have the values given here.
type Limits struct {
	Attempts              int           // conversations at a time, all destinations together: 50
	PerDestination        int           // conversations with one destination: 5
	PerMinute             int           // attempts at one destination; 0 is no limit
	MessagesPerConnection int           // 100
	Idle                  time.Duration // a connection waits this long for another message: 30 s
	Connect               time.Duration // one connection, or one question to the DNS: 30 s
	Waiting               int           // remote recipients in memory that are not being tried yet: 10,000
	Drain                 time.Duration // attempts under way may go on this long when Run ends: 10 s
	ReturnSize            int64         // a larger message is reported by its header, unless RET=FULL asked for it: 50,000
	ReturnMost            int64         // a larger one is always reported by its header: 10 MB
	ReportsPerSender      int           // reports a day to one address that strangers' mail names as its sender: 10
	ReportsToStrangers    int           // reports a day to all such addresses together: 1,000
}

// WithDefaults returns l with its zero fields set.
func (l Limits) WithDefaults() Limits {
	return Limits{
		Attempts:              cmp.Or(l.Attempts, 50),
		PerDestination:        cmp.Or(l.PerDestination, 5),
		PerMinute:             l.PerMinute,
		MessagesPerConnection: cmp.Or(l.MessagesPerConnection, 100),
		Idle:                  cmp.Or(l.Idle, 30*time.Second),
		Connect:               cmp.Or(l.Connect, 30*time.Second),
		Waiting:               cmp.Or(l.Waiting, 10_000),
		Drain:                 cmp.Or(l.Drain, 10*time.Second),
		ReturnSize:            cmp.Or(l.ReturnSize, 50_000),
		ReturnMost:            cmp.Or(l.ReturnMost, 10_000_000),
		ReportsPerSender:      cmp.Or(l.ReportsPerSender, reportsPerSender),
		ReportsToStrangers:    cmp.Or(l.ReportsToStrangers, reportsToStrangers),
	}
}

// Runner delivers from one spool.
type Runner struct {
	cfg    Config // set by New, never changed
	routes *routing
	poster *poster

	hard context.Context // set by Run: when it is done, attempts break off

	leaving leavingCache

	mu        sync.Mutex // guards all below, and the fields of lanes that say so
	lanes     map[string]*lane
	turns     [spool.Classes][]*lane // those with something waiting, in the order of their turns
	order     spool.Turns            // between the classes
	waiting   load                   // recipients in all queues
	active    load                   // conversations under way
	unsettled int                    // attempts whose outcomes are not recorded
	shut      [spool.Classes]bool    // the spool was told that there is no room
	locals    int                    // batches of local recipients that are not delivered
	localShut bool                   // the spool was told that there is no room for more
	deaths    []obituary             // in the order of their times
	idle      []*idleConn            // connections that wait for another message, in the order in which they began to
	parting   atomic.Int64           // connections that are being closed to make room
	stopped   bool                   // Run is ending: nothing new begins
	work      sync.WaitGroup         // attempts, and connections that are idle
	workers   sync.WaitGroup         // the goroutines of attempts
	jobs      chan func()            // to those that are idle
}

// New returns a Runner that does nothing yet.
func New(c Config) *Runner {
	c.Limits = c.Limits.WithDefaults()
	c.Schedule = c.Schedule.WithDefaults()
	if c.Resolver == nil {
		c.Resolver = dns.System()
	}
	if c.Dial == nil {
		c.Dial = dialFrom
	}
	if c.Hostname == "" {
		c.Hostname = "localhost"
	}
	if c.Port == 0 {
		c.Port = 25
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runner{cfg: c, routes: newRouting(append(webhookRoutes(c.Webhooks), c.Routes...)), lanes: make(map[string]*lane), jobs: make(chan func())}
	r.poster = newPoster(&r.cfg)
	if c.Spool != nil {
		c.Spool.Lanes(r.laneName)
	}
	return r
}

const (
	// claimSize bounds what one look at the spool takes, and one local transaction.
	claimSize = 256
	// localWorkers prepare and commit batches at the same time: while one syncs, the
	// next is read.
	localWorkers = 4
	// localBatches are claimed at most before others are delivered.
	localBatches = localWorkers + 1
	// pauseFor is how long nothing is tried again after the store refused.
	pauseFor = time.Second
)

// Run delivers until ctx is done; then attempts under way may end within Limits.Drain,
// and what is left stays in the spool. It returns when all its goroutines have ended.
// A Runner runs once.
func (r *Runner) Run(ctx context.Context) error {
	hard, breakOff := context.WithCancel(context.WithoutCancel(ctx))
	defer breakOff()
	r.hard = hard
	batches := make(chan []spool.Due, localBatches)
	var locals sync.WaitGroup
	for range localWorkers {
		locals.Go(func() {
			for batch := range batches {
				r.deliverBatch(ctx, batch)
			}
		})
	}
	locals.Go(func() { r.cfg.Events.Run(ctx) })
	locals.Go(func() { r.watchDeadlines(ctx) })
	r.claim(ctx, batches)
	close(batches)
	locals.Wait()
	r.stop()
	late := time.AfterFunc(r.cfg.Limits.Drain, breakOff)
	defer late.Stop()
	r.work.Wait()
	close(r.jobs)
	r.workers.Wait()
	r.poster.close()
	return nil
}

// claim takes what falls due and hands it out until ctx is done.
func (r *Runner) claim(ctx context.Context, batches chan<- []spool.Due) {
	for ctx.Err() == nil {
		if r.cfg.Store.Failed() != nil { // it has said so; nothing that we do could be recorded
			<-ctx.Done()
			return
		}
		due, err := r.cfg.Spool.ClaimFor(claimSize, r.room)
		if err != nil {
			r.cfg.Log.Error("the queue cannot be read in full", "err", err)
		}
		if err != nil && len(due) == 0 {
			r.pause(ctx)
			continue
		}
		r.hand(ctx, r.doubts(ctx, due), batches)
		r.cfg.Spool.Wait(ctx)
	}
}

// hand parts what is local from what is not. What has missed its deadline, or goes back to its sender at once, is
// settled where the local is.
func (r *Runner) hand(ctx context.Context, due []spool.Due, batches chan<- []spool.Due) {
	var local, remote []spool.Due
	now := r.cfg.Now()
	back := r.suppressions(due)
	for i, d := range due {
		if isLocal(&d) || missed(&d, now) || back != nil && back[i] != nil {
			local = append(local, d)
		} else {
			remote = append(remote, d)
		}
	}
	r.enqueue(remote)
	if len(local) == 0 {
		return
	}
	r.mu.Lock()
	r.locals++
	r.mu.Unlock()
	select {
	case batches <- local: // as a rule there is room: they were claimed because of that
	case <-ctx.Done():
		r.cfg.Spool.GiveBack(local...)
	}
}

// localRoom is how many local recipients may be claimed. mu must be held.
func (r *Runner) localRoom() int {
	if r.locals >= localBatches {
		r.localShut = true
		return 0
	}
	return claimSize
}

// deliverBatch delivers local recipients, or gives them back when there is no time left.
func (r *Runner) deliverBatch(ctx context.Context, batch []spool.Due) {
	if ctx.Err() != nil {
		r.cfg.Spool.GiveBack(batch...)
	} else {
		r.deliverLocal(ctx, batch)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.locals--
	if r.localShut {
		r.localShut = false
		r.cfg.Spool.Release(spool.Local)
	}
}

// pause slows down after an error that another try would meet again.
func (r *Runner) pause(ctx context.Context) {
	t := time.NewTimer(pauseFor)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// guarded runs fn and makes a refusal of a panic: one message that nobody foresaw
// must not stop the delivery of all others.
func (r *Runner) guarded(what string, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &refusal{fmt.Errorf("%s: %v", what, p)}
			r.cfg.Log.Error("recovered from a panic", "doing", what, "panic", p)
		}
	}()
	return fn()
}
