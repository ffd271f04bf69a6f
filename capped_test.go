package postroad_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postroad/internal/control"
)

var allCapped = flag.Bool("capped.all", false, "TestCappedMemory with 2,000 connections and 40 messages of 50 MB")

const (
	cappedMemory   = 256 << 20
	cappedResident = 200 << 20
)

// TestCappedMemory: in a group that may use 256 MiB, beside a crowd that dawdles in every state of a session and peers that do
// not read what they are told, large messages come in twenty at a time. The kernel kills nobody, the server stays below
// 200 MiB, what it said 250 for is there, and when all have left it has as few sockets and goroutines as before.
func TestCappedMemory(t *testing.T) {
	crowd, messages, size := 200, 20, 5_000_000
	switch {
	case *allCapped:
		crowd, messages, size = 2000, 40, 50_000_000
	case testing.Short():
		t.Skip("sends 100 MB")
	}
	group := newMemoryGroup(t, cappedMemory)
	dir := filepath.Join(t.TempDir(), "data")
	config := fmt.Sprintf(cappedConfig, dir, crowd+1000)
	p := launchIn(t, group, dir, config)
	admin := p.admin()
	if _, err := admin.AddDomain(t.Context(), "example.test"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.AddAccount(t.Context(), control.NewAccount{Address: hostileUser, Password: crashPassword}); err != nil {
		t.Fatal(err)
	}
	admin.Close()
	defer p.kill()
	p.large(t, 1, 100) // what is lazy is done
	p.delivered(t, 0)  // one, and none that welcomes
	sockets := p.sockets(t)

	stop := p.surround(t, crowd)
	deaf := p.deaf(t, crowd/10)
	began := time.Now()
	if p.large(t, messages, size); t.Failed() {
		return
	}
	took := time.Since(began)
	for _, conn := range deaf {
		conn.Close()
	}
	stop()
	peak := p.peak()
	eventually(t, "as few sockets as before", func() bool { return p.sockets(t) <= sockets })
	p.delivered(t, messages)
	t.Logf("%d connections, %d messages of %d octets in %s: at most %d MiB resident; the group had %s at most",
		crowd, messages, size, took.Round(time.Millisecond), peak>>20, group.read("memory.max_usage_in_bytes"))
	if peak > cappedResident {
		t.Errorf("%d MiB were resident, want %d at most", peak>>20, cappedResident>>20)
	}
	if kills := group.read("memory.oom_control"); !strings.Contains(kills, "oom_kill 0") {
		t.Errorf("the kernel has killed: %s", kills)
	}
	used := p.goroutines()
	fresh := launchIn(t, group, dir, config).goroutines()
	t.Logf("%d goroutines at the end, %d in a server that has just started", used, fresh)
	if used > fresh+5 {
		t.Errorf("%d goroutines are left, and a server that has just started has %d", used, fresh)
	}
}

const cappedConfig = `hostname = "mx.example.test"
data_dir = %q
[listen]
smtp = "127.0.0.1:0"
submission = "off"
submissions = "127.0.0.1:0"
imap = "127.0.0.1:0"
imaps = "off"
[limits]
connections = %d
message_size = "60MB"
[log]
level = "error"
`

// A memoryGroup is a control group of which the memory is bounded; its zero value is none.
type memoryGroup struct{ dir string }

// newMemoryGroup makes one, or skips the test where that is not possible.
func newMemoryGroup(t *testing.T, octets int) memoryGroup {
	t.Helper()
	g := memoryGroup{fmt.Sprintf("/sys/fs/cgroup/memory/postroad-test-%d", os.Getpid())}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Skipf("memory cannot be bounded here: %v", err)
	}
	t.Cleanup(func() { os.Remove(g.dir) })
	if err := os.WriteFile(filepath.Join(g.dir, "memory.limit_in_bytes"), []byte(strconv.Itoa(octets)), 0); err != nil {
		t.Skipf("memory cannot be bounded here: %v", err)
	}
	return g
}

func (g memoryGroup) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(g.dir, name))
	return strings.Join(strings.Fields(string(text)), " ")
}

// peak is the most memory that the server's process has had.
func (p *process) peak() int64 { return p.statusKiB("VmHWM:") << 10 }

// statusKiB reads a figure of the process from the kernel; 0 where that cannot be known.
func (p *process) statusKiB(name string) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(text), name)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseInt(fields[0], 10, 64)
	return kib
}

// sockets is how many the server's process has open. Files of mail stay open.
func (p *process) sockets(t *testing.T) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	open, err := os.ReadDir(dir)
	if err != nil {
		t.Skip("descriptors cannot be counted here")
	}
	for _, fd := range open {
		if to, _ := os.Readlink(filepath.Join(dir, fd.Name())); strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// goroutines ends the server, which then lists them.
func (p *process) goroutines() int {
	p.cmd.Process.Signal(syscall.SIGQUIT)
	p.cmd.Wait()
	p.log.Close()
	text, _ := os.ReadFile(p.log.Name())
	return bytes.Count(text, []byte("\ngoroutine "))
}

// large sends messages of a size, twenty at a time: by DATA and by BDAT, in the clear and with TLS.
func (p *process) large(t *testing.T, messages, size int) {
	t.Helper()
	var next atomic.Int64
	var senders sync.WaitGroup
	for range min(messages, 20) {
		senders.Go(func() {
			for n := next.Add(1); n <= int64(messages); n = next.Add(1) {
				if err := p.sendLarge(int(n), size); err != nil {
					t.Errorf("message %d: %v", n, err)
				}
			}
		})
	}
	senders.Wait()
}

func (p *process) sendLarge(n, size int) error {
	conn, err := net.Dial("tcp", p.SMTP)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	say := func(text string, codes ...string) error {
		if _, err := io.WriteString(conn, text); err != nil {
			return err
		}
		return hear(r, codes...)
	}
	err = say("EHLO client.test\r\n", "220", "250")
	if n%2 == 0 && err == nil {
		if err = say("STARTTLS\r\n", "220"); err != nil {
			return err
		}
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		r = bufio.NewReader(conn)
		err = say("EHLO client.test\r\n", "250")
	}
	if err == nil {
		err = say("MAIL FROM:<sender@far.test>\r\nRCPT TO:<"+hostileUser+">\r\n", "250", "250")
	}
	if err != nil {
		return err
	}
	block := bytes.Repeat([]byte("0123456789abcde\r\n"), 3000)
	head := fmt.Sprintf("Subject: large %d\r\n\r\n", n)
	blocks := size/len(block) + 1
	end := ""
	if n%4 < 2 {
		err, end = say("DATA\r\n", "354"), ".\r\n"
	} else {
		_, err = fmt.Fprintf(conn, "BDAT %d LAST\r\n", len(head)+blocks*len(block))
	}
	if err == nil {
		_, err = io.WriteString(conn, head)
	}
	for range blocks {
		if err == nil {
			_, err = conn.Write(block)
		}
	}
	if err != nil {
		return err
	}
	return say(end, "250")
}

// hear wants replies.
func hear(r *bufio.Reader, codes ...string) error {
	for _, code := range codes {
		line, err := "   -", error(nil)
		for err == nil && line[3:4] != " " {
			if line, err = r.ReadString('\n'); err == nil && len(line) < 4 {
				return fmt.Errorf("%q is no reply", line)
			}
		}
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, code) {
			return fmt.Errorf("%q, want %s", line, code)
		}
	}
	return nil
}

// deaf makes connections that ask without end and read nothing: by SMTP, and by IMAP for a whole mailbox.
func (p *process) deaf(t *testing.T, n int) (conns []net.Conn) {
	t.Helper()
	for i := range n {
		addr, line, opening := p.SMTP, "EHLO x\r\nVRFY ann\r\nHELP\r\n", ""
		if i%2 == 0 {
			addr, line, opening = p.IMAP, "f UID FETCH 1:* (FLAGS ENVELOPE BODY.PEEK[])\r\n", "a LOGIN "+hostileUser+" "+crashPassword+"\r\nb SELECT INBOX\r\n"
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.(*net.TCPConn).SetReadBuffer(4096)
		conns = append(conns, conn)
		go func() {
			io.WriteString(conn, opening)
			for range 100_000 {
				if _, err := io.WriteString(conn, line); err != nil {
					return
				}
			}
		}()
	}
	return conns
}
