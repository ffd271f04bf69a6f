package postroad_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"

	"postroad"
)

// A full disk refuses new mail in words that make the sender try again, still lets
// mail be deleted, and is forgotten as soon as there is room.
func TestAFullDisk(t *testing.T) {
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	cfg := testConfig(t, "mx.one.test")
	cfg.DataDir = smallDisk(t, 128<<20)
	cfg.Listen.LMTP = "127.0.0.1:0"
	cfg.Submission.SaveSent = true
	bob := postroad.Credential{Address: "bob@one.test", Password: "b-password"}
	s := embed(t, cfg, postroad.Options{}, ann, bob)
	t.Cleanup(s.stop) // before the disk is taken away

	big := bytes.Repeat([]byte("0123456789abcde\r\n"), 60_000) // 1 MB
	text := append([]byte("Subject: fill\r\n\r\n"), big...)
	accepted := 0
	var refusal string
	for refusal == "" && accepted < 200 {
		conn := dialSMTP(t, s.Addr("smtp"))
		if reply := conn.send(t, text); strings.HasPrefix(reply, "250 ") {
			accepted++
		} else {
			refusal = reply
		}
		conn.Close()
	}
	if !strings.HasPrefix(refusal, "452 4.3.1 ") || accepted < 20 {
		t.Fatalf("after %d messages of 1 MB: %q, want 452 4.3.1", accepted, refusal)
	}
	for way, replies := range everyWay(t, s, ann, text) {
		for _, reply := range replies {
			if !strings.HasPrefix(reply, "452 4.3.1 ") {
				t.Errorf("by %s: %q, want 452 4.3.1", way, replies)
			}
		}
	}
	client := login(t, s.Addr("imap"), ann, "INBOX", nil)
	newest(t, client, uint32(accepted+1)) // delivery goes on
	sent, err := client.Select("Sent", nil).Wait()
	if err != nil {
		t.Fatalf("SELECT on a full disk: %v", err)
	}
	if sent.NumMessages != 0 {
		t.Errorf("%d copies in Sent of what was refused", sent.NumMessages)
	}
	if _, err := client.Select("INBOX", nil).Wait(); err != nil {
		t.Fatalf("SELECT on a full disk: %v", err)
	}

	appendBig := func() error {
		cmd := client.Append("INBOX", int64(len(text)), nil)
		cmd.Write(text)
		cmd.Close()
		_, err := cmd.Wait()
		return err
	}
	if err := appendBig(); err == nil || !strings.Contains(err.Error(), "UNAVAILABLE") && !strings.Contains(err.Error(), "OVERQUOTA") {
		t.Errorf("APPEND on a full disk: %v, want NO [UNAVAILABLE] or [OVERQUOTA]", err)
	}

	var all imap.SeqSet
	all.AddRange(1, 0)
	if err := client.Store(all, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}, Silent: true}, nil).Close(); err != nil {
		t.Fatalf("mark as deleted on a full disk: %v", err)
	}
	if err := client.Expunge().Close(); err != nil {
		t.Fatalf("expunge on a full disk: %v", err)
	}
	if _, err := s.Admin().Compact(t.Context()); err != nil {
		t.Fatalf("compact on a full disk: %v", err)
	}
	if reply := dialSMTP(t, s.Addr("smtp")).send(t, text); !strings.HasPrefix(reply, "250 ") {
		t.Errorf("after room was made: %q", reply)
	}
	for way, replies := range everyWay(t, s, ann, text) {
		for _, reply := range replies {
			if !strings.HasPrefix(reply, "250 ") {
				t.Errorf("by %s after room was made: %q", way, replies)
			}
		}
	}
	if err := appendBig(); err != nil {
		t.Errorf("APPEND after room was made: %v", err)
	}
	if sent, err := client.Select("Sent", nil).Wait(); err != nil || sent.NumMessages != 1 {
		t.Errorf("SELECT Sent after one message: %+v, %v", sent, err)
	}
	report, err := s.Admin().Check(t.Context(), nil)
	if err != nil || len(report.Problems) > 0 {
		t.Errorf("check: %v %v", report.Problems, err)
	}
}

// everyWay sends a message by BDAT, by LMTP and by submission, and returns the replies to it.
func everyWay(t *testing.T, s *embedded, ann postroad.Credential, text []byte) map[string][]string {
	t.Helper()
	text = append([]byte("From: ann@one.test\r\n"), text...)
	chunk := fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), text)
	login := base64.StdEncoding.EncodeToString([]byte("\x00" + ann.Address + "\x00" + ann.Password))
	replies := map[string][]string{}
	for _, way := range []struct {
		name, listener string
		opening        []string
		content        string
		last           int
	}{
		{"BDAT", "smtp", []string{"EHLO x"}, chunk, 1},
		{"LMTP", "lmtp", []string{"LHLO x"}, "DATA\r\n" + string(text) + ".\r\n", 2},
		{"LMTP and BDAT", "lmtp", []string{"LHLO x"}, chunk, 2},
		{"submission", "submission", []string{"EHLO x", "AUTH PLAIN " + login}, chunk, 1},
	} {
		raw, err := net.Dial("tcp", s.Addr(way.listener))
		if err != nil {
			t.Fatal(err)
		}
		conn := &smtpConn{Conn: raw, text: textproto.NewReader(bufio.NewReader(raw))}
		conn.expect(t, "220")
		for _, line := range append(way.opening, "MAIL FROM:<ann@one.test>", "RCPT TO:<ann@one.test>", "RCPT TO:<bob@one.test>") {
			conn.command(t, line, "2")
		}
		io.WriteString(conn, way.content)
		if strings.HasPrefix(way.content, "DATA") {
			conn.expect(t, "354")
		}
		for range way.last {
			replies[way.name] = append(replies[way.name], conn.reply())
		}
		conn.Close()
	}
	return replies
}

// smallDisk mounts a file system of a few octets for the test.
func smallDisk(t *testing.T, octets int) string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", octets)); err != nil {
		t.Skipf("no small disk here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A message of 50 MB streams in, is delivered and streams out without ever being in
// memory as a whole.
func TestAFiftyMegabyteMessageCostsLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 50 MB")
	}
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	cfg := testConfig(t, "mx.one.test")
	cfg.Limits.MessageSize = 60e6
	s := embed(t, cfg, postroad.Options{}, ann)
	const size = 50_000_000
	block := bytes.Repeat([]byte("0123456789abcde\r\n"), 1000)

	peak := watchHeap()
	conn := dialSMTP(t, s.Addr("smtp"))
	conn.command(t, "MAIL FROM:<sender@far.test>", "250")
	conn.command(t, "RCPT TO:<ann@one.test>", "250")
	conn.command(t, "DATA", "354")
	conn.w.WriteString("Subject: large\r\n\r\n")
	for sent := 0; sent < size; sent += len(block) {
		conn.w.Write(block)
	}
	conn.w.WriteString(".\r\n")
	conn.w.Flush()
	conn.expect(t, "250 ")
	client := login(t, s.Addr("imap"), ann, "INBOX", nil)
	eventually(t, "the large message", func() bool {
		client.Noop().Wait()
		return client.Mailbox().NumMessages == 2
	})
	got := readThrough(t, client, 2)
	if got < size {
		t.Errorf("%d octets came out", got)
	}
	if grown := peak(); grown > 20<<20 {
		t.Errorf("the heap grew by %d MB for a message of 50 MB", grown>>20)
	}
}

// watchHeap samples the heap until the returned function is called, which tells by
// how much it grew at most.
func watchHeap() func() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, highest := m.HeapAlloc, m.HeapAlloc
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
				runtime.GC() // what is left is what is held
				runtime.ReadMemStats(&m)
				highest = max(highest, m.HeapAlloc)
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-stopped
		return highest - before
	}
}
