// Package tlsrpt is SMTP TLS reporting (RFC 8460): what the sessions of a day showed of a domain's TLS, counted and
// told to the domain when it asks for that; and the reports of others, read.
//
//	tl  day                      how many domains the day has
//	tl  day, domain, policy      the sessions of a day (UTC) under one policy, which is named by a hash
//
// What is promised:
//
//   - Counting costs no commit of its own: sessions gather in memory and are written together every few seconds. What a
//     crash takes is the counts of these seconds.
//   - A domain hears of a day once: the transaction that puts its report into the spool takes the counts away. From
//     there the report is retried as all mail is.
//   - Memory and store are bounded, whatever peers do: in domains, policies and kinds of failures. Of what is too much,
//     the sessions still count, where their policy has room.
//   - Nothing is looked up or sent for a domain before its day is over.
package tlsrpt

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"postroad/internal/dns"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/spool"
)

// Config is what Open needs. Store, Spool, Resolver and Recipients must be set.
type Config struct {
	Store    *store.Store
	Spool    *spool.Spool
	Resolver dns.Resolver
	// Recipients returns who of the spool's a mail address is.
	Recipients func(envelope.Address) ([]spool.Recipient, error)
	// Contact returns whom reports come from, and who can be asked about them.
	Contact func() envelope.Address

	Hostname     string // our name, as the submitter
	Organization string // empty is Hostname
	Now          func() time.Time
	Log          *slog.Logger
}

// Bounds on what is counted.
const (
	maxBuffered = 10_000  // policies, in memory between two writes
	maxDomains  = 100_000 // in a day
	maxPolicies = 8       // of a domain in a day
	maxDetails  = 50      // kinds of failures under a policy in a day
	maxStrings  = 50      // lines of a policy
	maxLine     = 500     // octets of such a line, or of a reason
)

// flushEvery is how long counts wait in memory.
const flushEvery = 5 * time.Second

// Reports counts and reports. A nil Reports does neither. Any number of goroutines.
type Reports struct {
	cfg   Config               // set by Open, never changed
	later map[string]time.Time // when domains in trouble are asked again; owned by Run

	counted chan struct{} // capacity 1: something may be in the buffer

	mu      sync.Mutex // guards what follows
	buffer  map[key]*tally
	dropped int // sessions that had no room
}

// Open returns the reports kept in the store. Nothing is sent before Run.
func Open(c Config) *Reports {
	if c.Organization == "" {
		c.Organization = c.Hostname
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Reports{cfg: c, buffer: map[key]*tally{}, later: map[string]time.Time{}, counted: make(chan struct{}, 1)}
}

// Run writes what is counted, and sends what is due, until ctx is done.
func (r *Reports) Run(ctx context.Context) {
	if r == nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		for pause(ctx, r.counted, 0) && pause(ctx, nil, flushEvery) {
			r.flush()
		}
		r.flush()
	})
	both.Go(func() {
		for pause(ctx, nil, lookEvery) {
			r.sendDue(ctx)
		}
	})
	both.Wait()
}

// pause waits for a signal or, without one, for a time, and reports false when ctx is done.
func pause(ctx context.Context, signal <-chan struct{}, d time.Duration) bool {
	var timer <-chan time.Time
	if signal == nil {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-signal:
	case <-timer:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// reserved are the ends of names that lead nowhere on the Internet (RFC 6761, RFC 6762, RFC 8375, RFC 9476), and what
// people use in their place.
var reserved = []string{"localhost", "local", "localdomain", "test", "invalid", "internal", "alt", "lan", "home", "home.arpa"}

// IsReal reports whether a name may be one of the Internet, so that others know who tells them something.
func IsReal(hostname string) bool {
	name := strings.ToLower(strings.TrimSuffix(hostname, "."))
	if !strings.Contains(name, ".") || strings.ContainsAny(name, "[:") {
		return false
	}
	for _, end := range reserved {
		if strings.HasSuffix(name, "."+end) {
			return false
		}
	}
	return true
}
