package imapd

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// TestIdleMemory holds what a session in IDLE costs against what the package promises: heap and stack, after a
// collection. The clients keep nothing here but a descriptor.
func TestIdleMemory(t *testing.T) {
	h := newHouse(t, withTLS(t), func(c *Config) { c.Limits.Connections = 10_000; c.Limits.Login = 0 })
	_, tlsAddr := h.serve(true)
	for _, tt := range []struct {
		name string
		dial func() (net.Conn, net.Conn)
		most int64
	}{
		{"plain", func() (net.Conn, net.Conn) { return h.dialTCP(h.addr) }, 8 << 10},
		{"TLS", func() (net.Conn, net.Conn) {
			conn, _ := h.dialTCP(tlsAddr)
			return tls.Client(conn, insecureTLS()), conn
		}, 16 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const sessions = 200
			h.idleSessions(20, tt.dial) // so that pools and the like are filled
			for resting() < 20 {
				time.Sleep(50 * time.Millisecond)
			}
			before := inUse()
			open := h.idleSessions(sessions, tt.dial)
			for resting() < 20+sessions {
				time.Sleep(50 * time.Millisecond)
			}
			grown := (inUse() - before) / sessions
			t.Logf("%d octets for a session", grown)
			if grown > tt.most {
				t.Errorf("%d octets for a session, want %d at most", grown, tt.most)
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

// resting is how many sessions wait with a small stack.
func resting() int {
	buf := make([]byte, 4<<20)
	return bytes.Count(buf[:runtime.Stack(buf, true)], []byte("created by postroad/imapd.(*session).talk"))
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
