package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// An Account is a mailbox that mail is sent to and watched in.
type Account struct {
	Address  string
	User     string // for IMAP; "" is the address
	Password string
}

// E2EOptions describe a run of E2E.
type E2EOptions struct {
	SMTP     SMTPOptions   // its To is replaced by the addresses of Accounts
	IMAP     Target        // its User and Password are replaced by those of Accounts
	Accounts []Account     // at least one
	Poll     time.Duration // least time between two FETCHes of a watcher; 0 is 20 ms
	Drain    time.Duration // wait for mail not yet visible when sending ended; 0 is a minute
}

func (o E2EOptions) withDefaults() E2EOptions {
	o.SMTP.To = nil
	for _, a := range o.Accounts {
		o.SMTP.To = append(o.SMTP.To, a.Address)
	}
	o.SMTP, o.IMAP = o.SMTP.withDefaults(), o.IMAP.withDefaults()
	if o.Poll <= 0 {
		o.Poll = 20 * time.Millisecond
	}
	if o.Drain <= 0 {
		o.Drain = time.Minute
	}
	return o
}

// E2E sends like SMTP and watches the INBOX of every account over IMAP. It
// reports how many messages became visible and how long that took from the MAIL
// command to the FETCH response with their Message-ID. Mail that was there before
// does not matter. A message for several accounts counts once for each.
//
// A watcher idles while nothing happens (it polls with NOOP where IDLE is not
// offered) and fetches at most every Poll while mail keeps coming.
func E2E(ctx context.Context, o E2EOptions, progress func(Progress)) (Report, error) {
	o = o.withDefaults()
	if err := errors.Join(o.SMTP.check(), o.IMAP.check("IMAP")); err != nil {
		return Report{}, err
	}
	m := new(meter)
	defer m.show(progress)()
	e := &endToEnd{o: &o, meter: m, sending: newSending(&o.SMTP, m)}
	err := e.run(ctx)
	r := newReport("e2e", o.SMTP.Addr, append(o.SMTP.conditions(), "read at "+o.IMAP.Addr))
	e.report(&r)
	return r, cancelled(ctx, err)
}

type endToEnd struct {
	o       *E2EOptions
	meter   *meter
	sending *sending
	ledgers []*ledger // by index of the account
}

// run starts the watchers before the senders and stops them after the drain. A
// watcher that fails ends the run: its mail could not be told from missing mail.
func (e *endToEnd) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching, stopWatching := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer stopWatching()
	e.meter.begin("log in", int64(len(e.o.Accounts)))
	for _, a := range e.o.Accounts {
		w, err := e.watcher(watching, a)
		if err != nil {
			return err
		}
		e.ledgers = append(e.ledgers, w.ledger)
		watchers.Go(func() {
			if err := w.run(watching); err != nil && watching.Err() == nil {
				cancel(fmt.Errorf("watching the mailbox of %s: %w", a.Address, err))
			}
		})
		e.meter.done.Add(1)
	}
	e.sending.delivered = func(seq int64, recipient int) { e.ledgers[recipient].accept(seq) }
	e.sending.beforeUsage = e.drain
	return cancelled(ctx, e.sending.run(ctx))
}

func (e *endToEnd) watcher(ctx context.Context, a Account) (*watcher, error) {
	t := e.o.IMAP
	if t.User, t.Password = a.User, a.Password; t.User == "" {
		t.User = a.Address
	}
	c, err := dialIMAP(ctx, &t, imapBuffer)
	if err != nil {
		return nil, err
	}
	next, err := c.selectMailbox("INBOX")
	if err == nil && next == 0 {
		err = errors.New("the server did not say UIDNEXT")
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("open the mailbox of %s: %w", a.Address, err)
	}
	w := &watcher{imapConn: c, composer: e.sending.composer, ledger: new(ledger), poll: e.o.Poll, next: next}
	return w, nil
}

// drain waits until all that was accepted is visible, but no longer than asked.
func (e *endToEnd) drain(ctx context.Context) error {
	e.meter.begin("drain", 0)
	until := time.Now().Add(e.o.Drain)
	for e.missing() > 0 && time.Now().Before(until) {
		if !pause(ctx, 10*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (e *endToEnd) missing() (n int64) {
	for _, l := range e.ledgers {
		n += l.missing()
	}
	return n
}

func (e *endToEnd) report(r *Report) {
	e.sending.report(r)
	var sum ledgerSum
	for _, l := range e.ledgers {
		l.addTo(&sum)
	}
	row := Row{Name: "visible", Count: sum.visible, Latency: sum.latency.Latency()}
	if began := e.sending.began; sum.last.After(began) {
		row.PerSecond = perSecond(sum.visible, sum.last.Sub(began))
	}
	r.Rows = append(r.Rows, row)
	r.Counts = append(r.Counts, Count{"missing", sum.missing}, Count{"duplicates", sum.duplicates},
		Count{"visible without acknowledgement", sum.unasked})
	e.sending.usage.perMessage(r, sum.visible)
}

// A ledger compares what was accepted for one account with what its mailbox shows.
type ledger struct {
	mu             sync.Mutex // guards all
	accepted, seen bitset     // by number of the message
	acceptedCount  int64
	seenCount      int64
	both           int64 // accepted and seen
	duplicates     int64
	last           time.Time // when the newest was seen
	latency        Histogram
}

type ledgerSum struct {
	visible, missing, duplicates, unasked int64
	last                                  time.Time
	latency                               Histogram
}

func (l *ledger) accept(seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acceptedCount++
	l.accepted.set(seq)
	if l.seen.has(seq) {
		l.both++
	}
}

// see notes that message seq, submitted at start, is visible.
func (l *ledger) see(seq int64, start, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen.has(seq) {
		l.duplicates++
		return
	}
	l.seen.set(seq)
	l.seenCount++
	if l.accepted.has(seq) {
		l.both++
	}
	l.last = now
	l.latency.Add(now.Sub(start))
}

func (l *ledger) missing() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acceptedCount - l.both
}

func (l *ledger) addTo(s *ledgerSum) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.visible += l.seenCount
	s.missing += l.acceptedCount - l.both
	s.duplicates += l.duplicates
	s.unasked += l.seenCount - l.both
	if l.last.After(s.last) {
		s.last = l.last
	}
	s.latency.Merge(&l.latency)
}

// A bitset is a set of small numbers.
type bitset []uint64

func (b *bitset) set(n int64) {
	for int64(len(*b)) <= n/64 {
		*b = append(*b, 0)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (b bitset) has(n int64) bool { return n/64 < int64(len(b)) && b[n/64]&(1<<(n%64)) != 0 }
