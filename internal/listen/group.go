package listen

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// ErrShutDown is Serve's error on a Group that was shut down before.
var ErrShutDown = errors.New("the server has been shut down")

// Session is what a server does with a connection, as far as its end is concerned.
type Session interface {
	// Leave ends the session, at once when nothing is under way, else after that. It
	// may wait for the peer as long as the connection is open.
	Leave()
}

// A Group is what the servers of all protocols have in common: their listeners, their
// connections, and the way these end. The zero Group is ready. Any number of goroutines.
type Group struct {
	conns sync.WaitGroup // one for each connection; added to under mu

	mu        sync.Mutex // guards what follows
	draining  bool
	listeners map[*Listener]bool
	sessions  map[Session]bool
}

// Serve accepts connections on ln, which belongs to it, until Shutdown; then it
// returns nil. Each connection is given to begin in a goroutine of its own, and counts
// until Ended is called for it, which must be once, when nothing is under way any more.
func (g *Group) Serve(ln net.Listener, o Options, begin func(*Conn)) error {
	l := New(ln, o)
	defer l.Close()
	if !g.addListener(l) {
		return ErrShutDown
	}
	for {
		c, err := l.AcceptConn()
		if err != nil {
			return g.stopped(err)
		}
		if !g.count() {
			c.Close()
			continue
		}
		go g.begin(l, c, begin)
	}
}

// begin gives a connection to its owner, once it is known whose it is.
func (g *Group) begin(l *Listener, c *Conn, owner func(*Conn)) {
	if c.proxied {
		if err := c.meet(); err != nil {
			l.opts.Log.Warn("a proxy's connection was closed", "peer", Peer(c.remote), "outcome", "closed", "err", err)
			c.Abort()
			g.Ended()
			return
		}
		if !l.enter(c) {
			g.Ended()
			return
		}
	}
	owner(c)
}

// Drop cuts off the connections whose peers' addresses are chosen. That of a unix socket is invalid.
func (g *Group) Drop(chosen func(netip.Addr) bool) {
	g.mu.Lock()
	listeners := slices.Collect(maps.Keys(g.listeners))
	g.mu.Unlock()
	for _, l := range listeners {
		for _, c := range l.of(chosen) {
			c.Abort()
		}
	}
}

func (g *Group) addListener(l *Listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return false
	}
	if g.listeners == nil {
		g.listeners = map[*Listener]bool{}
	}
	g.listeners[l] = true
	return true
}

// stopped is Serve's result when accepting has ended.
func (g *Group) stopped(err error) error {
	if g.Draining() {
		return nil
	}
	return err
}

// count counts a connection in, unless the group drains.
func (g *Group) count() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.draining {
		g.conns.Add(1)
	}
	return !g.draining
}

// Ended tells that a connection which begin was given is over.
func (g *Group) Ended() { g.conns.Done() }

// Draining reports whether Shutdown has begun.
func (g *Group) Draining() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining
}

// Open is the number of connections that are open.
func (g *Group) Open() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for l := range g.listeners {
		n += l.Counts().Open
	}
	return n
}

// Add makes Shutdown ask s to leave. It reports false when that has begun already:
// then s was not added, and is to leave at once.
func (g *Group) Add(s Session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return false
	}
	if g.sessions == nil {
		g.sessions = map[Session]bool{}
	}
	g.sessions[s] = true
	return true
}

// Remove undoes Add.
func (g *Group) Remove(s Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sessions, s)
}

// Sessions returns those that were added and not removed, in no order.
func (g *Group) Sessions() []Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]Session, 0, len(g.sessions))
	for s := range g.sessions {
		list = append(list, s)
	}
	return list
}

// Shutdown ends the group: nothing is accepted any more, every session is asked to
// leave, and when ctx is done those that are left are cut off. It returns when all
// connections have ended, with ctx's error if some were cut off.
func (g *Group) Shutdown(ctx context.Context) error {
	listeners := g.drain()
	var leaving sync.WaitGroup
	for _, s := range g.Sessions() {
		leaving.Go(s.Leave) // a goodbye may wait for a peer that does not read
	}
	ended := make(chan struct{})
	go func() { g.conns.Wait(); leaving.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	for l := range listeners {
		for _, c := range l.Conns() {
			c.Abort()
		}
	}
	<-ended // at once, but for one that waits for a disk
	return ctx.Err()
}

// drain lets nothing new begin, and returns the listeners, now closed.
func (g *Group) drain() map[*Listener]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
	for l := range g.listeners {
		l.Close()
	}
	return g.listeners
}
