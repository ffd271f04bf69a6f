package imapd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postroad/internal/listen/listentest"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

func TestQuota(t *testing.T) {
	h := newHouse(t)
	h.setQuota(100)
	c := h.loggedIn()
	c.dialog(`
		> a APPEND INBOX {101}
		< a NO [OVERQUOTA] ...
		> b APPEND INBOX {60+}
		> ` + strings.Repeat("x", 60) + `
		< b OK ...`)
	c.open("INBOX")
	c.dialog(`
		> c COPY 1 Archive
		< c NO [OVERQUOTA] ...
		> d MOVE 1 Archive
		< * OK [COPYUID ...
		< * 1 EXPUNGE
		< d OK ...`)
}

func TestDiskFull(t *testing.T) {
	disk := storetest.NewFaultFS()
	h := buildHouse(t, store.Options{FS: disk, Reserve: 1 << 20})
	h.srv, h.addr = h.serve(false)
	c := h.loggedIn()
	c.open("INBOX")
	disk.SetFree(1 << 19)
	c.dialog(`
		> a APPEND INBOX {3+}
		> a:b
		< a NO [UNAVAILABLE] ...
		> b NOOP
		< b OK ...`)
	disk.SetFree(1 << 30)
	c.dialog(`
		> c APPEND INBOX {3+}
		> a:b
		< * 1 EXISTS
		< c OK ...`)
}

// Once the store refuses to write, so does every session, and what is there can be read.
func TestStoreFailed(t *testing.T) {
	var log counting
	disk := storetest.NewFaultFS()
	h := buildHouse(t, store.Options{FS: disk}, func(c *Config) { c.Log = slog.New(&log) })
	h.srv, h.addr = h.serve(false)
	h.deliver("INBOX", hello)
	c := h.loggedIn()
	c.open("INBOX")
	for op := len(disk.Ops()); !disk.Tripped(); op++ {
		disk.FailAt(op, storetest.NotDone, false)
		c.send("a APPEND INBOX {3+}\r\na:b\r\n")
		for line := c.line(); !strings.HasPrefix(line, "a "); line = c.line() {
		}
	}
	c.send("b APPEND INBOX {3+}\r\na:b\r\n")
	if h.config.Store.Failed() == nil {
		t.Skip("the fault that was met is one that the store outlives")
	}
	c.expect("b NO [UNAVAILABLE] ...")
	c.dialog("> c FETCH 1 BODY.PEEK[TEXT]\n< * 1 FETCH (BODY[TEXT] {7}\n< hello\n< )\n< c OK ...")
	if log.errors.Load() == 0 {
		t.Error("nothing was logged")
	}
}

// counting counts the errors that are logged.
type counting struct {
	errors atomic.Int64
	last   atomic.Pointer[string]
}

func (c *counting) Enabled(context.Context, slog.Level) bool { return true }
func (c *counting) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *counting) WithGroup(string) slog.Handler            { return c }
func (c *counting) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		text := r.Message
		r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
		c.last.Store(&text)
		c.errors.Add(1)
	}
	return nil
}

// Whatever a client sends, the session ends with the connection and nothing is logged as our fault.
func FuzzOctets(f *testing.F) {
	for _, seed := range []string{
		"a SELECT INBOX\r\nb FETCH 1:* (FLAGS BODY.PEEK[] BODYSTRUCTURE ENVELOPE)\r\n",
		"a APPEND INBOX (\\Seen) {5+}\r\nhello\r\nb APPEND INBOX {5}\r\nhello\r\n",
		"a IDLE\r\nDONE\r\nb IDLE\r\nnot done\r\n",
		"a LIST \"\" (* %) RETURN (STATUS (MESSAGES SIZE) SUBSCRIBED)\r\nb LSUB \"\" *\r\n",
		"a SELECT INBOX\r\nb SEARCH RETURN (SAVE) OR NOT SMALLER 5 (SINCE 1-Jan-2020 BODY {1+}\r\nx)\r\nc FETCH $ UID\r\n",
		"a CREATE x (USE (\\Sent))\r\nb RENAME x y\r\nc DELETE y\r\n",
		"a SELECT INBOX\r\nb STORE 1 +FLAGS (\\Deleted x)\r\nc COPY 1 Trash\r\nd MOVE 1 Trash\r\ne EXPUNGE\r\n",
		"a UNAUTHENTICATE\r\nb CAPABILITY\r\nc SELECT INBOX\r\n",
		"a ENABLE IMAP4rev2 UTF8=ACCEPT\r\nb APPEND INBOX UTF8 (~{3+}\r\na:b)\r\n",
		"a NOOP {5+}\r\nx\r\ny\r\n\r\n( {3}\r\n",
		"a SELECT INBOX\r\nb FETCH 1 (BODY[1.2.HEADER.FIELDS (a b)]<1.2> BINARY[1]<0.1> BINARY.SIZE[1])\r\n",
	} {
		f.Add([]byte(seed))
	}
	var log counting
	h := buildHouse(f, store.Options{}, func(c *Config) {
		c.Log = slog.New(&log)
		c.Limits.MessageSize = 10_000
		c.Limits.FailedLogins = 1
	})
	h.setQuota(1 << 20)
	h.deliver("INBOX", hello)
	srv := NewServer(false, h.config)
	pipes := listentest.NewPipes()
	go srv.Serve(pipes)
	f.Cleanup(func() { srv.Shutdown(context.Background()) })
	f.Fuzz(func(t *testing.T, input []byte) {
		if upper := bytes.ToUpper(input); bytes.Contains(upper, []byte("LOGIN")) || bytes.Contains(upper, []byte("PLAIN")) {
			t.Skip() // failed logins take their time
		}
		client := pipes.Dial()
		deadline := time.Now().Add(20 * time.Second)
		client.SetDeadline(deadline)
		go func() {
			fmt.Fprintf(client, "l LOGIN %s %q\r\n%s", user, password, input)
			fmt.Fprintf(client, "\r\nzz LOGOUT\r\n")
			time.AfterFunc(50*time.Millisecond, func() { client.Close() }) // if LOGOUT was taken for something else
		}()
		io.Copy(io.Discard, client)
		client.Close()
		if time.Now().After(deadline) {
			t.Error("the session does not end")
		}
		if n := log.errors.Swap(0); n > 0 {
			t.Errorf("%d errors were logged: %s", n, *log.last.Load())
		}
	})
}

// More messages than one APPEND takes are refused, all of them; with the bound of this command, and not the one that is
// announced for others (RFC 9738).
func TestTooManyAppended(t *testing.T) {
	h := newHouse(t)
	c := h.loggedIn()
	c.send("a APPEND Archive" + strings.Repeat(" {1+}\r\nx", maxAppended+1) + "\r\n")
	c.expect("a NO [LIMIT] ...")
	c.dialog("> b STATUS Archive (MESSAGES)\n< * STATUS Archive (MESSAGES 0)\n< b OK ...")
}
