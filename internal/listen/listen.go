// Package listen makes a net.Listener fit for the public: connections are bounded
// in all and per source address, a failing accept waits and tries again, and each
// connection bounds how long its peer may dawdle and gathers small writes into few.
// A Group is what servers share above that: it serves listeners, and ends their sessions.
//
// What it promises of memory: an idle connection holds no buffer. What it promises of
// time: no Read outlasts the connection's Pace, no Write its timeout, no Close two seconds.
package listen

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Options are a Listener's settings.
type Options struct {
	Total      int // connections at once; 0 is no bound
	PerAddress int // connections at once from one IPv4 address or IPv6 /64; 0 is no bound

	// What a refused connection is told before it is closed, with its line end;
	// empty closes without a word, as a port that begins with TLS must.
	Full    string // over Total
	TooMany string // over PerAddress

	Pace         Pace          // of a new connection
	WriteTimeout time.Duration // for what one flush sends; 0 is a minute
	Log          *slog.Logger  // nil discards
}

// Counts are a Listener's figures since it was made.
type Counts struct {
	Open     int    // now
	Accepted uint64 // given to the owner
	Refused  uint64 // turned away by a bound
	Errors   uint64 // failed accepts
}

// Listener is a bounded net.Listener. Any number of goroutines.
type Listener struct {
	// Set by New, never changed.
	inner  net.Listener
	opts   Options
	closed chan struct{}

	buffers buffers // lent to its connections

	mu     sync.Mutex // guards what follows
	done   bool
	conns  map[*Conn]struct{}
	from   map[netip.Addr]int
	counts Counts
}

// New wraps l, which belongs to the Listener from now on.
func New(l net.Listener, o Options) *Listener {
	if o.WriteTimeout == 0 {
		o.WriteTimeout = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Listener{
		inner: l, opts: o, closed: make(chan struct{}),
		conns: make(map[*Conn]struct{}), from: make(map[netip.Addr]int),
	}
}

// Accept returns the next connection within the bounds; it is a *Conn. A failed
// accept (out of file descriptors, say) is logged and tried again, ever more slowly up
// to once a second. The only error is net.ErrClosed, after Close.
func (l *Listener) Accept() (net.Conn, error) { return l.AcceptConn() }

// AcceptConn is Accept for an owner that wants the Conn itself.
func (l *Listener) AcceptConn() (*Conn, error) {
	for {
		nc, err := l.acceptOne()
		if err != nil {
			return nil, err
		}
		c := newConn(nc, l)
		reply, ok := l.admit(c)
		if ok {
			return c, nil
		}
		l.opts.Log.Warn("connection refused", "peer", Peer(nc.RemoteAddr()), "outcome", "refused", "reply", strings.TrimSpace(reply))
		refuse(nc, reply)
	}
}

// Longest waits: before the next try of a failing accept, and for a refused peer to take its reply.
const (
	maxBackoff   = time.Second
	refuseWithin = time.Second
)

func (l *Listener) acceptOne() (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, maxBackoff) {
		nc, err := l.inner.Accept()
		if err == nil {
			return nc, nil
		}
		if l.isClosed() || errors.Is(err, net.ErrClosed) {
			return nil, net.ErrClosed
		}
		l.failed(err)
		select {
		case <-time.After(wait):
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

func (l *Listener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

func (l *Listener) failed(err error) {
	l.mu.Lock()
	l.counts.Errors++
	l.mu.Unlock()
	l.opts.Log.Error("accept failed, will try again", "addr", l.inner.Addr().String(), "err", err)
}

func refuse(nc net.Conn, reply string) {
	if reply != "" {
		nc.SetWriteDeadline(time.Now().Add(refuseWithin))
		nc.Write([]byte(reply))
	}
	nc.Close()
}

// admit counts c in, or returns what it is to be told.
func (l *Listener) admit(c *Conn) (reply string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opts.Total > 0 && len(l.conns) >= l.opts.Total {
		l.counts.Refused++
		return l.opts.Full, false
	}
	if l.opts.PerAddress > 0 && c.source.IsValid() && l.from[c.source] >= l.opts.PerAddress {
		l.counts.Refused++
		return l.opts.TooMany, false
	}
	l.conns[c] = struct{}{}
	l.from[c.source]++
	l.counts.Accepted++
	return "", true
}

// forget takes c out of the counts.
func (l *Listener) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.conns[c]; !ok {
		return
	}
	delete(l.conns, c)
	if l.from[c.source]--; l.from[c.source] == 0 {
		delete(l.from, c.source)
	}
}

// source is whom a connection is counted against: an IPv4 address or the /64 of an
// IPv6 one, since that is the least a subscriber is given. Invalid for a unix socket.
func source(a net.Addr) netip.Addr {
	ip := IP(a)
	if ip.Is6() {
		p, _ := ip.Prefix(64)
		return p.Addr()
	}
	return ip
}

// IP is the IP address of a connection's end, without zone; invalid for a unix socket.
func IP(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().Unmap().WithZone("")
}

// Peer names a connection's other end in logs and in the trace: its IP address, or
// "local" for a unix socket.
func Peer(a net.Addr) string {
	if ip := IP(a); ip.IsValid() {
		return ip.String()
	}
	return "local"
}

// IsLocal reports whether a is an address that only this machine reaches.
func IsLocal(a net.Addr) bool {
	ip := IP(a)
	return !ip.IsValid() || ip.IsLoopback()
}

// Addr is the inner listener's address.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Close ends accepting; open connections stay as they are.
func (l *Listener) Close() error {
	l.mu.Lock()
	again := l.done
	l.done = true
	l.mu.Unlock()
	if again {
		return nil
	}
	close(l.closed)
	return l.inner.Close()
}

// Conns returns the open connections, in no order.
func (l *Listener) Conns() []*Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	conns := make([]*Conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	return conns
}

// Counts returns the present figures.
func (l *Listener) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Open = len(l.conns)
	return l.counts
}
