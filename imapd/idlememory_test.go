package imapd

import (
	"bufio"
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestIdleMemory holds what a session in IDLE costs against what the package promises: heap and stack, after a
// collection. The clients keep nothing here but a descriptor.
func TestIdleMemory(t *testing.T) {
	h := newHouse(t, withTLS(t), func(c *Config) { c.Limits.Connections = 10_000; c.Limits.Login = 0 })
	plain, overTLS := h.resters(false), h.resters(true)
	for _, tt := range []struct {
		name string
		from *resters
		dial func() (net.Conn, net.Conn)
		most int64
	}{
		{"plain", plain, func() (net.Conn, net.Conn) { return h.dialTCP(plain.Addr().String()) }, 8 << 10},
		{"TLS", overTLS, func() (net.Conn, net.Conn) {
			conn, _ := h.dialTCP(overTLS.Addr().String())
			return tls.Client(conn, insecureTLS()), conn
		}, 16 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const sessions = 200
			open := h.idleSessions(20, tt.dial) // so that pools and the like are filled
			tt.from.await(len(open))
			cost := func() int64 {
				before := inUse()
				open = append(open, h.idleSessions(sessions, tt.dial)...)
				tt.from.await(len(open))
				return (inUse() - before) / sessions
			}
			least := cost()
			for range 2 { // what else the process does adds to it now and then
				if least > tt.most {
					least = min(least, cost())
				}
			}
			t.Logf("%d octets for a session", least)
			if least > tt.most {
				t.Errorf("%d octets for a session, want %d at most", least, tt.most)
			}
			for _, fd := range open {
				syscall.Close(fd)
			}
		})
	}
}

func (h *house) dialTCP(addr string) (net.Conn, net.Conn) {
	h.t.Helper()
	conn, err := net.Dial("tcp", addr)
	h.must(err)
	return conn, conn
}

// idleSessions opens sessions, has them idle, and lets go of the clients but for the descriptors that keep them.
func (h *house) idleSessions(n int, dial func() (conn, tcp net.Conn)) (open []int) {
	for range n {
		conn, tcp := dial()
		c := &raw{t: h.t, conn: conn, r: bufio.NewReader(conn)}
		c.line()
		c.send("a LOGIN " + user + ` "` + password + "\"\r\nb SELECT INBOX\r\nc IDLE\r\n")
		for line := ""; line != "+ idling"; line = c.line() {
		}
		file, err := tcp.(*net.TCPConn).File()
		h.must(err)
		fd, err := syscall.Dup(int(file.Fd()))
		h.must(err)
		file.Close()
		tcp.Close()
		open = append(open, fd)
	}
	return open
}

// resters is a listener that knows how many of its connections rest: they are read from, and have long to wait.
type resters struct {
	net.Listener

	mu      sync.Mutex
	changed sync.Cond // on mu
	resting int
}

// resters begins a server on such a listener.
func (h *house) resters(implicitTLS bool) *resters {
	h.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	r := &resters{Listener: ln}
	r.changed.L = &r.mu
	h.serveOn(r, implicitTLS)
	return r
}

func (r *resters) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &rester{TCPConn: c.(*net.TCPConn), from: r}, nil
}

// await returns when n connections rest.
func (r *resters) await(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.resting != n {
		r.changed.Wait()
	}
}

func (r *resters) add(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resting += n
	r.changed.Broadcast()
}

// rester is a connection that tells when it rests. What waits for less than a minute does so on a stack of some size.
type rester struct {
	*net.TCPConn
	from *resters
	long atomic.Bool
}

func (c *rester) SetReadDeadline(t time.Time) error {
	c.long.Store(time.Until(t) > time.Minute)
	return c.TCPConn.SetReadDeadline(t)
}

func (c *rester) Read(p []byte) (int, error) {
	if c.long.Load() {
		c.from.add(1)
		defer c.from.add(-1)
	}
	return c.TCPConn.Read(p)
}

// inUse is how much memory heap and stacks take, all that is dead left out.
func inUse() int64 {
	for range 5 { // stacks shrink by half each time
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
