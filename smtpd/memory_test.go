package smtpd

import (
	"bufio"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestMemoryOfAConnection holds what a connection costs against what the package promises: heap and stack, after a
// collection. The clients keep nothing here but a descriptor.
func TestMemoryOfAConnection(t *testing.T) {
	const idle = "< 220 mx\n> EHLO client.test\n< 250\n"
	const inMessage = idle + "> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> Subject: x\n>\n> x\n"
	deep := inMessage + strings.Repeat("> "+strings.Repeat("x", 998)+"\n", 300)
	for _, tt := range []struct {
		name, script string
		secure       bool
		most         int64
	}{
		{"idle", idle, false, 16 << 10},
		{"idle, TLS", idle, true, 24 << 10},
		{"in a message", inMessage, false, 64 << 10},
		{"deep in a message", deep, false, 256 << 10},
		{"deep in a message, TLS", deep, true, 256 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const sessions = 200
			h := open(t, MX, tt.secure, limits(func(l *Limits) { l.PerAddress = 1000 }))
			h.sessions(t, 20, tt.secure, tt.script) // so that pools and the like are filled
			before := inUse()
			open := h.sessions(t, sessions, tt.secure, tt.script)
			grown := (inUse() - before) / sessions
			t.Logf("%d octets for a connection", grown)
			if grown > tt.most {
				t.Errorf("%d octets for a connection, want %d at most", grown, tt.most)
			}
			for _, fd := range open {
				syscall.Close(fd)
			}
		})
	}
}

// sessions begins sessions with a script, and lets go of the clients but for the descriptors that keep them.
func (h *house) sessions(t *testing.T, n int, secure bool, script string) (open []int) {
	t.Helper()
	have := len(h.group.Sessions())
	for range n {
		tcp, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := &client{tcp, t, bufio.NewReader(tcp)}
		if secure {
			c.startTLS()
		}
		c.talk(script)
		open = append(open, keep(t, tcp.(*net.TCPConn)))
	}
	for waits := 0; waits < have+n; runtime.Gosched() {
		waits = 0
		for _, w := range h.waiting() {
			waits += map[bool]int{true: 1}[w]
		}
	}
	return open
}

// keep closes a connection here, and leaves it open for the other end.
func keep(t *testing.T, tcp *net.TCPConn) (fd int) {
	t.Helper()
	file, err := tcp.File()
	if err == nil {
		fd, err = syscall.Dup(int(file.Fd()))
		file.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	tcp.Close()
	return fd
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
