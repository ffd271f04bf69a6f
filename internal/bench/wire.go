package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// A wire is a connection with buffers and a bound on the peer's silence. It is
// closed when the context it was dialled with ends.
type wire struct {
	conn   net.Conn // plain or TLS, over timed
	timed  *timedConn
	r      *bufio.Reader
	w      *bufio.Writer
	target *Target
	unhook func() bool
}

// timedConn moves the deadlines ahead of every read and write, though not more
// often than they need: a peer is given between 7/8 of the timeout and all of it.
type timedConn struct {
	net.Conn
	timeout     time.Duration
	read, write time.Time // when the deadlines were last set
}

func (c *timedConn) Read(b []byte) (int, error) {
	if now := time.Now(); now.Sub(c.read) > c.timeout/8 {
		c.read = now
		c.SetReadDeadline(now.Add(c.timeout))
	}
	return c.Conn.Read(b)
}

func (c *timedConn) Write(b []byte) (int, error) {
	if now := time.Now(); now.Sub(c.write) > c.timeout/8 {
		c.write = now
		c.SetWriteDeadline(now.Add(c.timeout))
	}
	return c.Conn.Write(b)
}

// patient lets the peer be silent for as long as the connection is wanted.
func (c *timedConn) patient() {
	c.timeout, c.read = 24*time.Hour, time.Time{}
	c.SetReadDeadline(time.Time{})
}

// dial connects, with TLS where that comes first. buffer is the size of each of
// the two buffers.
func dial(ctx context.Context, t *Target, buffer int) (*wire, error) {
	d := net.Dialer{Timeout: t.Timeout}
	conn, err := d.DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, err // names the address already
	}
	timed := &timedConn{Conn: conn, timeout: t.Timeout}
	w := &wire{
		conn: timed, timed: timed, target: t,
		r: bufio.NewReaderSize(timed, buffer), w: bufio.NewWriterSize(timed, buffer),
	}
	w.unhook = context.AfterFunc(ctx, func() { conn.Close() })
	if t.TLS == ImplicitTLS {
		if err := w.startTLS(ctx); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

func (w *wire) startTLS(ctx context.Context) error {
	if w.r.Buffered() > 0 {
		return fmt.Errorf("%s sent text in clear after agreeing to TLS", w.target.Addr)
	}
	host, _, err := net.SplitHostPort(w.target.Addr)
	if err != nil {
		return err
	}
	conn := tls.Client(w.timed, &tls.Config{ServerName: host, InsecureSkipVerify: w.target.Insecure})
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("tls with %s: %w", w.target.Addr, err)
	}
	w.conn = conn
	w.r.Reset(conn)
	w.w.Reset(conn)
	return nil
}

func (w *wire) close() {
	w.unhook()
	w.timed.Conn.Close()
}

// wait reports whether the peer has something to say within d.
func (w *wire) wait(d time.Duration) (bool, error) {
	if w.r.Buffered() > 0 {
		return true, nil
	}
	w.timed.read = time.Now()
	w.timed.SetReadDeadline(w.timed.read.Add(d))
	_, err := w.r.Peek(1)
	w.timed.read = time.Time{}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return false, nil
	}
	return err == nil, err
}

var errLongLine = errors.New("the server sent a line too long to be right")
