package listen

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Pace is how long a peer may keep us waiting. The zero Pace sets no bound.
//
// With a Rate of 0 the peer has Idle to say all of what it says next: the time runs
// from our last Write (or SetPace), and single octets do not renew it. With a
// Rate the peer is sending much: it has Idle for each next piece, and in all Idle and
// one second for each Rate octets, so that slow lines live and dawdlers do not.
type Pace struct {
	Idle time.Duration
	Rate int // octets per second
}

// left is the time for the next read, when elapsed has passed and octets have come
// since the pace was set. It may be negative.
func (p Pace) left(elapsed time.Duration, octets int64) time.Duration {
	if p.Rate == 0 {
		return p.Idle - elapsed
	}
	earned := time.Duration(float64(octets) / float64(p.Rate) * float64(time.Second))
	return min(p.Idle, p.Idle+earned-elapsed)
}

// maxBuffered is how many octets of writes are gathered; more are sent at once.
const maxBuffered = 16 << 10

// closeWithin is how long Close tries to send what was gathered.
const closeWithin = 2 * time.Second

// buffers lends write buffers to connections that have something to say.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() []byte {
	if p, ok := b.pool.Get().(*[maxBuffered]byte); ok {
		return p[:0]
	}
	return new([maxBuffered]byte)[:0]
}

func (b *buffers) put(s []byte) { b.pool.Put((*[maxBuffered]byte)(s[:maxBuffered])) }

// Conn is a connection whose writes are gathered and whose reads are bounded in
// time. A Write is sent when the owner next calls Read, at once when a Read is
// already waiting, when more than 16 KiB are gathered, or on Flush and Close. One
// goroutine may read while others write. It belongs below TLS: there one flush
// carries many records.
type Conn struct {
	// Set by newConn, and by meet for one that a proxy begins; not changed once the owner has it.
	inner   net.Conn
	l       *Listener
	remote  net.Addr
	source  netip.Addr
	born    time.Time
	proxied bool
	pass    Pass // nil without Options.Enter
	counted bool // in l.from; l.mu guards it

	ahead []byte // read already; the reader's

	shown    atomic.Pointer[x509.Certificate]
	reading  atomic.Bool
	closing  atomic.Bool
	received atomic.Int64
	since    atomic.Int64 // when the present Read began, or the last one ended, as elapsed()
	spoke    atomic.Int64 // when we last wrote, as elapsed()

	wmu  sync.Mutex // guards what follows, and the order of writes
	buf  []byte     // nil when nothing is gathered
	werr error      // of the first write that failed; all later ones fail with it

	dmu    sync.Mutex // guards what follows
	pace   Pace
	set    time.Duration // when the pace was set, as elapsed()
	base   int64         // received when it was set
	rlimit time.Time     // the owner's read deadline
	wlimit time.Time     // the owner's write deadline
}

func newConn(nc net.Conn, l *Listener) *Conn {
	from := nc.RemoteAddr()
	return &Conn{inner: nc, l: l, remote: from, source: source(from), born: time.Now(), pace: l.opts.Pace}
}

// elapsed is a clock that does not jump.
func (c *Conn) elapsed() time.Duration { return time.Since(c.born) }

// Read sends what was gathered, then reads. A peer that outlasts the Pace gives
// os.ErrDeadlineExceeded.
func (c *Conn) Read(p []byte) (int, error) {
	// Set before the flush: a Write that comes too late for the flush sees it.
	c.reading.Store(true)
	defer c.reading.Store(false)
	if err := c.Flush(); err != nil {
		return 0, err
	}
	c.since.Store(int64(c.elapsed()))
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
			c.ahead = nil
		}
		c.received.Add(int64(n))
		return n, nil
	}
	c.arm()
	n, err := c.inner.Read(p)
	c.received.Add(int64(n))
	return n, err
}

// maxAhead is how much of what a peer says too early is kept.
const maxAhead = 512

// Early reports whether the peer says something within d though it is not its turn; with a d of 0, whether it has. What
// it says is for Read. It is called before the first Read and Write. What is no socket has not said anything yet.
func (c *Conn) Early(d time.Duration) bool {
	if len(c.ahead) > 0 {
		return true
	}
	if d <= 0 {
		return c.waits()
	}
	c.inner.SetReadDeadline(time.Now().Add(d))
	var octets [maxAhead]byte
	n, _ := c.inner.Read(octets[:]) // Read will find the error, too
	c.ahead = bytes.Clone(octets[:n])
	return n > 0
}

// Pass is what Options.Enter gave the connection.
func (c *Conn) Pass() Pass { return c.pass }

// Write gathers p, or sends it. An error may be that of an earlier Write.
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.spoke.Store(int64(c.elapsed()))
	if c.closing.Load() && c.werr == nil {
		c.werr = net.ErrClosed
	}
	if len(c.buf)+len(p) > maxBuffered {
		c.send()
	}
	if len(p) > maxBuffered {
		c.write(p)
	} else if c.werr == nil {
		c.gather(p)
	}
	if c.reading.Load() {
		c.send()
	}
	if c.werr != nil {
		return 0, c.werr
	}
	return len(p), nil
}

// Flush sends what was gathered.
func (c *Conn) Flush() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.send()
	return c.werr
}

// ShowCertificate notes the certificate that TLS above the connection shows to its peer: TLS itself does not tell.
func (c *Conn) ShowCertificate(leaf *x509.Certificate) { c.shown.Store(leaf) }

// ShownCertificate is the certificate that the peer was shown, or nil.
func (c *Conn) ShownCertificate() *x509.Certificate { return c.shown.Load() }

// Show notes cert, whose Leaf must be set, on the Conn that hello came over, if it is one, and returns it: a
// tls.Config's GetCertificate ends with it.
func Show(hello *tls.ClientHelloInfo, cert *tls.Certificate) *tls.Certificate {
	if c, ok := hello.Conn.(*Conn); ok {
		c.ShowCertificate(cert.Leaf)
	}
	return cert
}

// gather keeps p for later. wmu must be held.
func (c *Conn) gather(p []byte) {
	if c.buf == nil {
		c.buf = c.l.buffers.get()
	}
	c.buf = append(c.buf, p...)
}

// send sends what was gathered and gives the buffer back. wmu must be held.
func (c *Conn) send() {
	if c.buf == nil {
		return
	}
	c.write(c.buf)
	c.l.buffers.put(c.buf)
	c.buf = nil
}

// write sends p unless a write has failed before. wmu must be held.
func (c *Conn) write(p []byte) {
	if c.werr != nil {
		return
	}
	c.armWrite()
	_, c.werr = c.inner.Write(p)
}

// armWrite sets the owner's write deadline or our own, whichever is sooner. Once Close
// has begun only its own counts: TLS leaves an expired deadline behind its last alert.
func (c *Conn) armWrite() {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	limit := earlier(c.wlimit, time.Now().Add(c.l.opts.WriteTimeout))
	if c.closing.Load() {
		limit = time.Now().Add(closeWithin)
	}
	c.inner.SetWriteDeadline(limit)
}

// earlier returns the earlier of two deadlines, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// SetPace bounds the reads from now on, one that is waiting included.
func (c *Conn) SetPace(p Pace) {
	c.dmu.Lock()
	c.pace, c.set, c.base = p, c.elapsed(), c.received.Load()
	c.dmu.Unlock()
	c.arm()
}

// arm sets the read deadline that the pace and the owner allow.
func (c *Conn) arm() {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	limit := c.rlimit
	if c.pace.Idle > 0 {
		start := max(c.set, time.Duration(c.spoke.Load()))
		left := c.pace.left(c.elapsed()-start, c.received.Load()-c.base)
		limit = earlier(limit, time.Now().Add(left))
	}
	c.inner.SetReadDeadline(limit)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds reads besides the Pace; a waiting Read included.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.dmu.Lock()
	c.rlimit = t
	c.dmu.Unlock()
	c.arm()
	return nil
}

// SetWriteDeadline bounds the sending of what was gathered, besides Options.WriteTimeout.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	c.wlimit = t
	if c.closing.Load() {
		return net.ErrClosed
	}
	// For a write that is stuck now; zero leaves it its own deadline.
	if !t.IsZero() {
		return c.inner.SetWriteDeadline(t)
	}
	return nil
}

// Close sends what was gathered, for at most two seconds, and closes.
func (c *Conn) Close() error {
	if c.closing.Swap(true) {
		return net.ErrClosed
	}
	c.armWrite() // for a Write that is stuck
	c.Flush()
	c.l.forget(c)
	return c.inner.Close()
}

// Abort closes at once; what was gathered is lost.
func (c *Conn) Abort() error {
	c.closing.Store(true)
	c.l.forget(c)
	return c.inner.Close()
}

// Waiting reports whether a Read waits for the peer, and for how long it has.
func (c *Conn) Waiting() (time.Duration, bool) {
	return c.elapsed() - time.Duration(c.since.Load()), c.reading.Load()
}

// LocalAddr is our end's address.
func (c *Conn) LocalAddr() net.Addr { return c.inner.LocalAddr() }

// RemoteAddr is the peer's address: that which a proxy names, where one speaks for the peer.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }
