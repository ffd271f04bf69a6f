// Package bench loads a mail server and reports what it did. It speaks plain
// SMTP, LMTP and IMAP to an address and knows nothing of the server behind it, so
// that the figures of two servers are comparable side by side.
//
//	SMTP    how fast mail is accepted
//	E2E     how fast mail sent by SMTP becomes visible over IMAP
//	Relay   how fast mail is sent on, to a sink that takes everything
//	IMAP    how fast a large mailbox is filled, read, searched, changed, watched
//
// The generator usually shares the processors with the server it measures. So it
// has small clients of its own, which allocate next to nothing per message, and
// it reports the processor time it took itself.
//
// What is measured is what a client sees: a message counts as accepted when its
// final 250 was read, as visible when a FETCH returned it. Each run returns the
// figures gathered so far, also when it ends in an error or is cancelled.
package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// A TLSMode says how a connection is secured.
type TLSMode string

// The ways to secure a connection.
const (
	NoTLS       TLSMode = "none"
	STARTTLS    TLSMode = "starttls"
	ImplicitTLS TLSMode = "implicit"
)

// ParseTLSMode reads a mode as written on a command line; "" is none.
func ParseTLSMode(s string) (TLSMode, error) {
	switch mode := TLSMode(strings.ToLower(s)); mode {
	case "":
		return NoTLS, nil
	case NoTLS, STARTTLS, ImplicitTLS:
		return mode, nil
	}
	return "", fmt.Errorf("tls mode %q is not known; use none, starttls or implicit", s)
}

// A Target is one port of the server and how to enter it.
type Target struct {
	Addr     string  // host:port
	TLS      TLSMode // "" is NoTLS
	Insecure bool    // accept any certificate
	User     string  // "": do not log in (SMTP only)
	Password string
	Timeout  time.Duration // longest silence of the server; 0 is a minute
}

func (t Target) withDefaults() Target {
	if t.TLS == "" {
		t.TLS = NoTLS
	}
	if t.Timeout <= 0 {
		t.Timeout = time.Minute
	}
	return t
}

func (t Target) check(protocol string) error {
	if t.Addr == "" {
		return fmt.Errorf("no %s address given; name the server as host:port", protocol)
	}
	_, err := ParseTLSMode(string(t.TLS))
	return err
}

// Progress is what a run tells its caller about twice a second.
type Progress struct {
	Phase   string        // what is being done, such as "send" or "FETCH FLAGS"
	Elapsed time.Duration // since the phase began
	Done    int64         // messages, or whatever the phase counts
	Total   int64         // how many there will be; 0 when that is not known
	Rate    float64       // per second, since the last call
	Errors  int64         // refusals and failures so far
}

const progressEvery = 500 * time.Millisecond

// A meter is the part of a run that is counted while others look on.
type meter struct {
	phase  atomic.Pointer[phase]
	done   atomic.Int64
	errors atomic.Int64
}

type phase struct {
	name  string
	began time.Time
	total int64
}

func (m *meter) begin(name string, total int64) {
	m.done.Store(0)
	m.phase.Store(&phase{name, time.Now(), total})
}

// show calls f about twice a second until the returned function is called,
// which waits for the last call to end.
func (m *meter) show(f func(Progress)) (stop func()) {
	if f == nil {
		return func() {}
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		m.tick(f, quit)
	}()
	return func() { close(quit); <-ended }
}

func (m *meter) tick(f func(Progress), quit <-chan struct{}) {
	t := time.NewTicker(progressEvery)
	defer t.Stop()
	var seen *phase
	var before int64
	var at time.Time
	for {
		select {
		case <-quit:
			return
		case <-t.C:
		}
		ph, done, now := m.phase.Load(), m.done.Load(), time.Now()
		if ph == nil {
			continue
		}
		if ph != seen {
			seen, before, at = ph, 0, ph.began
		}
		f(Progress{
			Phase: ph.name, Elapsed: now.Sub(ph.began), Done: done, Total: ph.total,
			Rate: perSecond(done-before, now.Sub(at)), Errors: m.errors.Load(),
		})
		before, at = done, now
	}
}

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// pause waits for d and reports whether the run goes on.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// cancelled prefers the reason of the cancellation to the broken connection it
// left behind.
func cancelled(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return cause
	}
	return err
}
