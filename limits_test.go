package postroad_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postroad/internal/control"
)

// A server that may open no more files refuses what needs one, in words, loses nothing that it has said OK to, and works on
// as soon as there is room.
func TestNoMoreDescriptors(t *testing.T) {
	const user = "ann@example.test"
	p := launch(t, filepath.Join(t.TempDir(), "data"), "--user", user+":"+crashPassword)
	defer p.kill()
	c, err := crashDial(p.IMAP, user)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Skip("descriptors cannot be counted here")
	}
	limit := uint64(len(open) + 10)
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
		t.Skipf("descriptors cannot be bounded here: %v", err)
	}
	var crowd []net.Conn
	for range 100 {
		conn, err := net.Dial("tcp", p.IMAP) // the kernel takes them, the server cannot
		if err != nil {
			break
		}
		defer conn.Close()
		crowd = append(crowd, conn)
	}
	kept := 0
	for i := range 20 {
		letter := []byte("Subject: x\r\n\r\n" + strings.Repeat("0123456789abcde\r\n", i*2000))
		r, err := c.say("APPEND INBOX {}", letter)
		if err != nil {
			t.Fatalf("APPEND ended the session: %v", err)
		}
		switch last := lastOf(r); {
		case last[1].Is("OK"):
			kept++
		case !last[1].Is("NO") || !strings.HasPrefix(last[2].Text, "["):
			t.Errorf("APPEND is answered %v", last)
		}
		if _, err := c.ok("NOOP"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of 20 messages were taken with %d descriptors", kept, limit)
	for _, conn := range crowd {
		conn.Close()
	}
	eventually(t, "a new session", func() bool {
		c, err = crashDial(p.IMAP, user)
		return err == nil
	})
	defer c.conn.Close()
	if _, err := c.ok("APPEND INBOX {}", bytes.Repeat([]byte("0123456789abcde\r\n"), 50_000)); err != nil {
		t.Error(err)
	}
	r, err := c.ok("SELECT INBOX")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range r {
		if len(line) == 3 && line[2].Is("EXISTS") && line[1].Text != fmt.Sprint(kept+2) { // one welcomes
			t.Errorf("%s messages are there, want %d", line[1].Text, kept+2)
		}
	}
	admin, err := control.Dial(p.Control)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	report, err := admin.Check(t.Context(), nil)
	if err != nil || len(report.Problems) > 0 {
		t.Errorf("check: %v %v", report.Problems, err)
	}
}
