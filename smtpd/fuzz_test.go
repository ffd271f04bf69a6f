package smtpd

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

var saysBDAT = regexp.MustCompile(`(?i)bdat`)

// FuzzSession throws all that a peer says at once. Whatever it is: no panic, no
// message without its 250 and no 250 without its message, at most one message for each DATA
// that was let through or BDAT that was said, and none to a stranger.
func FuzzSession(f *testing.F) {
	for _, end := range falseEnds {
		f.Add([]byte(opening + "Subject: x\r\n\r\nx" + end + smuggled))
	}
	start := "EHLO x\r\nMAIL FROM:<a@far.test>\r\nRCPT TO:<alice@example.test>\r\n"
	for _, s := range []string{
		start + "BDAT 5\r\nabcdeBDAT 0 LAST\r\nQUIT\r\n",
		start + "BDAT 9 LAST\r\nabc",
		start + "BDAT 3\r\nabcRSET\r\n" + start + "BDAT 3 LAST\r\nabcNOOP\r\n",
		start + "BDAT x\r\n" + smuggled,
		"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<away@example.test>\r\nRCPT TO:<x@elsewhere.test>\r\nDATA\r\n.\r\nQUIT\r\nNOOP\r\n" + smuggled,
		"STARTTLS\r\n" + smuggled, "HELO x\r\nAUTH PLAIN =\r\nVRFY x\r\nRSET\r\nNOOP\r\n",
		"EHLO x\nMAIL FROM:<a@far.test>\nRCPT TO:<alice@example.test>\nDATA\nx\n.\nQUIT\n",
		"QUIT\r\n" + opening + ".\r\n", "DATA\r\n\r\nBDAT 1 LAST\r\nx", "EHLO x\r\nEHLO y\r\nMAIL FROM:<>\r\nEHLO z\r\nDATA\r\n",
	} {
		f.Add([]byte(s))
	}
	failures := &syncBuffer{}
	h := build(f, MX, false, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(failures, &slog.HandlerOptions{Level: slog.LevelError}))
	})
	l, err := net.Listen("unix", filepath.Join(f.TempDir(), "s"))
	if err != nil {
		f.Fatal(err)
	}
	h.serve(f, l)
	h.queue.set(true, nil)
	f.Fuzz(func(t *testing.T, in []byte) {
		said := h.shout(t, in)
		got := h.queue.take()
		if n := strings.Count(said, "\r\n250 2.0.0 queued as "); n != len(got) {
			t.Fatalf("%d messages, %d times 250\n%s", len(got), n, said)
		}
		if n := strings.Count(said, "\r\n354 ") + len(saysBDAT.FindAll(in, -1)); len(got) > n {
			t.Fatalf("%d messages from %d\n%s", len(got), n, said)
		}
		for _, m := range got {
			for _, r := range m.rcpts {
				if r.Account == 0 && r.To.String() != "someone@elsewhere.test" {
					t.Fatalf("relayed to %s\n%s", r.To, said)
				}
			}
		}
		if errors := failures.String(); errors != "" {
			t.Fatalf("it failed:\n%s", errors)
		}
	})
}

// shout says all of in, ends the stream, and returns what the server said until it had
// ended too.
func (h *house) shout(t *testing.T, in []byte) string {
	c, err := net.Dial("unix", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		c.Write(in)
		c.(*net.UnixConn).CloseWrite()
	}()
	said, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatalf("the session does not end\n%s", said)
	}
	for h.group.Open() > 0 {
		runtime.Gosched()
	}
	return string(said)
}

// slowHeader is what header should find, written the plain way.
func slowHeader(in []byte) (received, from int, date bool) {
	var fields []string
	for line := range bytes.Lines(in) {
		if s := string(line); s == "\n" || s == "\r\n" {
			break
		} else if (s[0] == ' ' || s[0] == '\t') && len(fields) > 0 {
			fields[len(fields)-1] += s
		} else {
			fields = append(fields, s)
		}
	}
	for _, field := range fields {
		name, _, ok := strings.Cut(field, ":")
		switch strings.ToLower(strings.TrimRight(name, " \t")) {
		case "received":
			received += map[bool]int{true: 1}[ok]
		case "from":
			from = min(2, from+map[bool]int{true: 1}[ok])
		case "date":
			date = date || ok
		}
	}
	return received, from, date
}

// FuzzHeaderScan holds the scan against a plain one, and against itself when the header
// comes in two pieces.
func FuzzHeaderScan(f *testing.F) {
	for _, s := range []string{
		"", "\r\n", "Received: x\r\n y\r\nreceived : z\r\n\r\nReceived: no", "From: a@b\r\nFrom: c@d\r\nFROM: e",
		"Date:x\nMessage-ID: <a@b>\n\n", " Date: folded first\r\nDate\r\n: x\r\n", "\r\r\nDate: x", "Date: \r\n\r\n", "Message-ID:" + strings.Repeat("x", 2000),
	} {
		f.Add([]byte(s), uint16(len(s)/2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		if len(in) > fieldSize {
			return
		}
		var whole, parts header
		whole.write(in)
		whole.end()
		at := min(int(cut), len(in))
		parts.write(in[:at])
		parts.write(in[at:])
		parts.end()
		if whole.received != parts.received || whole.date != parts.date || whole.messageID != parts.messageID ||
			strings.Join(whole.from, "\x00") != strings.Join(parts.from, "\x00") {
			t.Errorf("whole %+v, in parts %+v", whole, parts)
		}
		received, from, date := slowHeader(in)
		if whole.received != received || len(whole.from) != from || whole.date != date {
			t.Errorf("found %+v, want %d Received, %d From, Date %v", whole, received, from, date)
		}
	})
}

func TestHeaderScanIsBounded(t *testing.T) {
	var h header
	piece := []byte(strings.Repeat("x", 1000))
	h.write([]byte("From: "))
	for range 2000 {
		h.write(piece)
		if len(h.field) > fieldSize {
			t.Fatalf("%d octets of a field are kept", len(h.field))
		}
	}
	if !h.ended || !h.tooLong || h.field != nil {
		t.Errorf("after 2 MB: %v %v", h.ended, h.tooLong)
	}
}
