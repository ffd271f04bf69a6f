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
	PerAddress int // connections at once from one IPv4 address or IPv6 /64, but not from this machine; 0 is no bound

	// Enter lets a connection in from an address, which is invalid for a unix socket, or says what it is told before it
	// is closed, which may be nothing. It must not block. Nil lets all in.
	Enter func(from netip.Addr) (pass Pass, reply string, ok bool)

	// ProxyFrom are the peers that speak for others: each of their connections must begin with a header of the PROXY
	// protocol, and is from then on, for bounds, bans and all, that of the address which the header names.
	ProxyFrom []netip.Prefix

	// What a refused connection is told before it is closed, with its line end;
	// empty closes without a word, as a port that begins with TLS must.
	Full    string // over Total
	TooMany string // over PerAddress

	Pace         Pace          // of a new connection
	WriteTimeout time.Duration // for what one flush sends; 0 is a minute
	Log          *slog.Logger  // nil discards
}

// A Pass is what a connection holds while it is open.
type Pass interface {
	// Leave is called once, when the connection is closed.
	Leave()
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

	complained time.Time // when the last refusal was logged
}

// New wraps l, which belongs to the Listener from now on.
func New(l net.Listener, o Options) *Listener {
	if o.WriteTimeout == 0 {
		o.WriteTimeout = writeTimeout
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
// to once a second. The only error is net.ErrClosed, after Close. What comes from
// Options.ProxyFrom is for a Group to serve, which reads the header.
func (l *Listener) Accept() (net.Conn, error) { return l.AcceptConn() }

// AcceptConn is Accept for an owner that wants the Conn itself.
func (l *Listener) AcceptConn() (*Conn, error) {
	for {
		nc, err := l.acceptOne()
		if err != nil {
			return nil, err
		}
		c := newConn(nc, l)
		if reply, ok := l.hold(c); !ok {
			c.refuse(reply)
			continue
		}
		if c.proxied = l.proxied(nc.RemoteAddr()); c.proxied || l.enter(c) {
			return c, nil
		}
	}
}

// enter lets c in at the address that it is from, or refuses it.
func (l *Listener) enter(c *Conn) bool {
	if reply, ok := l.count(c); !ok {
		c.refuse(reply)
		return false
	}
	if l.opts.Enter == nil {
		return true
	}
	pass, reply, ok := l.opts.Enter(IP(c.remote))
	if !ok {
		c.refuse(reply)
		return false
	}
	l.mu.Lock()
	c.pass = pass
	_, open := l.conns[c]
	l.mu.Unlock()
	if !open { // it was aborted meanwhile, when there was no pass to leave
		pass.Leave()
	}
	return open
}

// writeTimeout is how long one flush may take, unless Options say otherwise.
const writeTimeout = time.Minute

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

// refuse tells the peer why, and closes.
func (c *Conn) refuse(reply string) {
	c.l.refused(c, strings.TrimSpace(reply))
	if reply != "" {
		c.inner.SetWriteDeadline(time.Now().Add(refuseWithin))
		c.inner.Write([]byte(reply))
	}
	c.Abort()
}

// refused counts and logs a refusal. Who is refused can come a thousand times a second: one line a second is enough.
func (l *Listener) refused(c *Conn, reply string) {
	l.mu.Lock()
	l.counts.Refused++
	all, last := l.counts.Refused, l.complained
	again := time.Since(last) < time.Second
	if !again {
		l.complained = time.Now()
	}
	l.mu.Unlock()
	if !again {
		l.opts.Log.Warn("connection refused", "peer", Peer(c.remote), "outcome", "refused", "reply", reply, "count", all)
	}
}

// hold counts c in among all, or returns what it is to be told.
func (l *Listener) hold(c *Conn) (reply string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opts.Total > 0 && len(l.conns) >= l.opts.Total {
		return l.opts.Full, false
	}
	l.conns[c] = struct{}{}
	return "", true
}

// count counts c in among those of its address, or returns what it is to be told.
func (l *Listener) count(c *Conn) (reply string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	local := !c.source.IsValid() || c.source.IsLoopback()
	if l.opts.PerAddress > 0 && !local && l.from[c.source] >= l.opts.PerAddress {
		return l.opts.TooMany, false
	}
	c.counted = true
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
	if c.counted {
		if l.from[c.source]--; l.from[c.source] == 0 {
			delete(l.from, c.source)
		}
	}
	if c.pass != nil {
		c.pass.Leave()
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

// of returns the connections of chosen addresses, as far as it is known whose they are.
func (l *Listener) of(chosen func(netip.Addr) bool) (conns []*Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if c.counted && chosen(IP(c.remote)) {
			conns = append(conns, c)
		}
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
