package imapd

import (
	"crypto/tls"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"postroad/imapd/wire"
	"postroad/internal/listen"
)

// A conn is the way to one client: TCP, TLS on it when there is TLS, and DEFLATE on that when there is
// COMPRESS. It keeps time and says nothing of its own. One goroutine reads; writes come from whoever holds the
// session.
type conn struct {
	// Set by newConn, never changed.
	srv   *Server
	raw   *listen.Conn
	flush func() error // sends what the session has written

	tls    *tls.Conn     // nil without TLS
	packed *packed       // nil without COMPRESS
	top    io.ReadWriter // the layers; what the client says comes out of it

	first  [64]byte // what came when the session waited
	unread []byte   // of first

	waitUntil time.Time // the end of the present wait
	piecewise bool      // each read has the time of a command: a command runs, and asks for more

	mu       sync.Mutex // guards the rest
	loginBy  time.Time  // when the login must be done; zero after that
	early    int        // octets read before the login
	waiting  bool       // for the client's next word
	farewell string     // why the connection ends before the next command; "" when it does not
	byeing   func()     // called by bye; nil when nobody wants to know
}

func newConn(s *Server, raw *listen.Conn) *conn {
	return &conn{srv: s, raw: raw, top: raw, loginBy: time.Now().Add(s.Limits.Login)}
}

// What ends a wait besides the errors of the connection.
var (
	errLeave = errors.New("the connection is to end")
	errStill = errors.New("the client has said nothing yet")
)

// soon is how long a client is waited for before that is made cheap.
const soon = 20 * time.Millisecond

// beginWait begins a wait for the client's next word, which may come within d. Everything written must have been flushed.
func (c *conn) beginWait(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitUntil = c.deadline(d)
}

// awaitBriefly returns nil when the client has said something, and errStill when it soon has not: then comes await.
func (c *conn) awaitBriefly() error {
	by := time.Now().Add(soon)
	if by.After(c.waitUntil) {
		return c.await()
	}
	err := c.waitFor(by)
	if timedOut(err) {
		return errStill
	}
	return err
}

// await returns nil when the client has said something, and errLeave when bye was called.
func (c *conn) await() error { return c.waitFor(c.waitUntil) }

func (c *conn) waitFor(by time.Time) error {
	if !c.setWaiting(true, by) {
		return errLeave
	}
	n, err := c.top.Read(c.first[:])
	c.unread = c.first[:n]
	if !c.setWaiting(false, by) {
		return errLeave
	}
	if n > 0 {
		return c.count(n)
	}
	return err
}

// setWaiting notes whether the client is waited for, and reports whether the connection goes on.
func (c *conn) setWaiting(on bool, by time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.farewell != "" {
		return false
	}
	if c.waiting = on; on {
		c.raw.SetReadDeadline(by)
	}
	return true
}

// readWithin sets the time that the next reads have; before login there is an end to all of them. mu must be held.
func (c *conn) readWithin(d time.Duration) { c.raw.SetReadDeadline(c.deadline(d)) }

// deadline is d from now, but not after the login must be done. mu must be held.
func (c *conn) deadline(d time.Duration) time.Time {
	by := time.Now().Add(d)
	if !c.loginBy.IsZero() && by.After(c.loginBy) {
		return c.loginBy
	}
	return by
}

// begin gives the client the time of a command for one to arrive in whole.
func (c *conn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.piecewise = false
	c.readWithin(c.srv.Limits.Command)
}

// Read gives what the client says. Before it waits for that, all that the client is owed is sent.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.unread) > 0 {
		n := copy(p, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	if err := c.flush(); err != nil {
		return 0, err
	}
	if c.piecewise {
		c.mu.Lock()
		c.readWithin(c.srv.Limits.Command)
		c.mu.Unlock()
	}
	n, err := c.top.Read(p)
	if err == nil {
		err = c.count(n)
	}
	return n, err
}

// maxEarly is how many octets a client may send before it has logged in.
const maxEarly = 64 << 10

// count adds to what was read before the login.
func (c *conn) count(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loginBy.IsZero() {
		c.early = 0
		return nil
	}
	if c.early += n; c.early > maxEarly {
		return wire.ErrFlood
	}
	return nil
}

// Write sends to the client, or gathers below what is sent with the next wait.
func (c *conn) Write(p []byte) (int, error) { return c.top.Write(p) }

// bye ends the connection before the client's next command. Any goroutine may call it; the first reason counts.
func (c *conn) bye(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.farewell != "" {
		return
	}
	c.farewell = why
	if c.byeing != nil {
		c.byeing()
	}
	if c.waiting {
		c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// onBye has fn called by bye, at once when that was called already; nil ends that.
func (c *conn) onBye(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byeing = fn
	if fn != nil && c.farewell != "" {
		fn()
	}
}

// reason is why the connection ends, or "".
func (c *conn) reason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.farewell
}

// loggedIn says that the time for the login is over, or begins again.
func (c *conn) loggedIn(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loginBy = time.Time{}
	if !yes {
		c.loginBy = time.Now().Add(c.srv.Limits.Login)
	}
}

// mayLogin reports whether a password may come this way: under TLS, or from this machine.
func (c *conn) mayLogin() bool { return c.tls != nil || listen.IsLocal(c.raw.RemoteAddr()) }

// tlsName is the version and cipher suite of the connection, or "".
func (c *conn) tlsName() string {
	if c.tls == nil {
		return ""
	}
	st := c.tls.ConnectionState()
	return tls.VersionName(st.Version) + " " + tls.CipherSuiteName(st.CipherSuite)
}

// startTLS makes TLS of the connection. What was written before must have been flushed.
func (c *conn) startTLS() error {
	c.raw.SetReadDeadline(time.Time{})
	tc, err := c.srv.handshake(c.raw)
	if err != nil {
		return err
	}
	c.tls, c.top = tc, tc
	return nil
}

// close sends what is left and closes.
func (c *conn) close() {
	if c.packed != nil {
		c.packed.Flush()
		c.srv.compressors.leave()
	}
	if c.tls != nil {
		c.tls.Close()
		return
	}
	c.raw.Close()
}

// timedOut reports whether a read or write took too long.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
