package imapd

import (
	"bytes"
	"io"
	"io/fs"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/mailbox"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// A message that the disk has damaged is not shown as if it were good, whatever of it is asked for; the
// others are shown, and the connection goes on.
func TestDamagedMessage(t *testing.T) {
	var log strings.Builder
	disk := &badDisk{FS: storetest.NewFaultFS()}
	h := buildHouse(t, store.Options{FS: disk}, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	h.srv, h.addr = h.serve(false)
	h.deliver("INBOX", "Subject: hello\r\n\r\nhello\r\n")
	h.deliver("INBOX", "Subject: x\r\n\r\nthe SACRED text\r\n")
	h.deliver("INBOX", "Subject: y\r\n\r\nthe SACRED text\r\n"+strings.Repeat("z\r\n", 64<<10))
	h.deliver("INBOX", "Subject: SACRED\r\n\r\ntext\r\n")
	c := h.loggedIn()
	c.open("INBOX")
	c.dialog("> a FETCH 2 BODY.PEEK[TEXT]\n< * 2 FETCH (BODY[TEXT] {17}\n< the SACRED text\n< )\n< a OK ...")
	disk.bad.Store(true)
	defer disk.bad.Store(false)
	c.dialog(`
		> a FETCH 1:2 BODY.PEEK[TEXT]
		< * 1 FETCH (BODY[TEXT] {7}
		< hello
		< )
		< a NO [CORRUPTION] ...
		> b FETCH 2 BODY.PEEK[]
		< b NO [CORRUPTION] ...
		> c FETCH 2:3 BODY.PEEK[TEXT]<0.3>
		< c NO [CORRUPTION] ...
		> d FETCH 2:3 BINARY.PEEK[1]
		< d NO [CORRUPTION] ...
		> e FETCH 2:3 (BODY.PEEK[HEADER] BODY.PEEK[1.MIME])
		< e NO [CORRUPTION] ...
		> f FETCH 2:3 ENVELOPE
		< * 2 FETCH (ENVELOPE ...
		< * 3 FETCH (ENVELOPE ...
		< f OK ...
		> g FETCH 3:4 BODY.PEEK[HEADER.FIELDS (Subject)]
		< * 3 FETCH (BODY[HEADER.FIELDS (Subject)] {14}
		< Subject: y
		< ...
		< )
		< g NO [CORRUPTION] ...
		> h FETCH 4 RFC822.HEADER
		< h NO [CORRUPTION] ...`)
	c.conn.Close()
	h.srv.Shutdown(t.Context())
	if !strings.Contains(log.String(), "level=ERROR") {
		t.Error("nothing was logged")
	}
}

// A badDisk gives back other octets than it was given, while it is bad.
type badDisk struct {
	store.FS
	bad  atomic.Bool
	fail atomic.Int64 // reads until one fails; 0 for never
}

func (d *badDisk) OpenFile(name string, flag int, perm fs.FileMode) (store.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	return badFile{f, d}, err
}

type badFile struct {
	store.File
	disk *badDisk
}

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if f.disk.fail.Load() > 0 && f.disk.fail.Add(-1) == 0 {
		return 0, io.ErrNoProgress
	}
	n, err := f.File.ReadAt(p, off)
	if i := bytes.Index(p[:n], []byte("SACRED")); i >= 0 && f.disk.bad.Load() {
		copy(p[i:], "SCARED")
	}
	return n, err
}

// A disk that fails while a message is sent ends the connection, and nothing is sent in the place of what
// cannot be read.
func TestDiskFailsWhileSending(t *testing.T) {
	disk := &badDisk{FS: storetest.NewFaultFS()}
	h := buildHouse(t, store.Options{FS: disk}, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
	h.srv, h.addr = h.serve(false)
	h.deliver("INBOX", "Subject: x\r\n\r\n"+strings.Repeat("0123456789abcde\n", 64<<10))
	c := h.loggedIn()
	c.open("INBOX")
	c.dialog("> a FETCH 1 BODY.PEEK[]<0.1>\n< * 1 FETCH (BODY[]<0> {1}\n< S)\n< a OK ...") // and it was found undamaged
	disk.fail.Store(5)
	c.send("b FETCH 1 BODY.PEEK[TEXT]\r\n")
	if line := c.line(); line != "* 1 FETCH (BODY[TEXT] {1048576}" {
		t.Fatal(line)
	}
	got, _ := io.ReadAll(c.r)
	if len(got) == 0 || len(got) >= 1<<20 || len(bytes.Trim(got, "0123456789abcde\n")) > 0 {
		t.Errorf("%d octets, and the last are %q", len(got), got[max(0, len(got)-20):])
	}
}

// A client that asks for much and reads nothing is left after the time of one write. Until then nobody waits for it:
// what it has asked for is read when it can be sent, and by then may be gone.
func TestFetchWithoutReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := buildHouse(t, store.Options{})
		for range 20 {
			h.deliver("INBOX", "Subject: x\r\n\r\n"+strings.Repeat("0123456789abcd\r\n", 16<<10))
		}
		c := pipe(t, h.config)
		c.patient("* OK ...")
		c.send(`a LOGIN ` + user + ` "` + password + `"` + "\r\nb SELECT INBOX\r\n")
		for line := ""; !strings.HasPrefix(line, "b OK"); {
			line, _ = c.r.ReadString('\n')
		}
		began := time.Now()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c.send("c FETCH 1:* (UID BODY.PEEK[])\r\n")
		synctest.Wait() // the server waits for the client
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%d KiB were allocated for one who does not read", used>>10)
		}
		uids := roaring.BitmapOf(20)
		if _, err := h.config.Mailboxes.Store(t.Context(), h.inbox(), uids, mailbox.AddFlags, []string{`\Deleted`}, nil); err != nil {
			t.Error(err)
		}
		if _, err := h.config.Mailboxes.Expunge(t.Context(), h.inbox(), uids); err != nil {
			t.Error(err)
		}
		time.Sleep(h.config.Limits.WithDefaults().Write - time.Second)
		c.conn.SetReadDeadline(time.Time{})
		if _, err := c.r.ReadString('\n'); err != nil {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		time.Sleep(h.config.Limits.WithDefaults().Write + time.Second)
		got, err := io.ReadAll(c.r)
		if len(got) > 1<<20 || err != nil {
			t.Errorf("%d octets came, %v", len(got), err)
		}
	})
}

// inbox is the first account's INBOX.
func (h *house) inbox() mailbox.ID {
	h.t.Helper()
	mb, err := h.config.Mailboxes.Get(h.owner, "INBOX")
	h.must(err)
	return mb.ID
}
