package imapd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/internal/store"
)

var connections = flag.Int("connections", 500, "connections of TestConnectionsLeaveNothing")

// Connections that end at any point, in any way, leave no goroutine and no descriptor.
func TestConnectionsLeaveNothing(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Connections = 100_000 })
	h.deliver("INBOX", letter("hello", 100<<10))
	login := fmt.Sprintf("l LOGIN %s %q\r\n", user, password)
	open := login + "s SELECT INBOX\r\n"
	said := []string{
		"", "a", "a NOOP\r\n", login, open, open + "i IDLE\r\n", open + "f FETCH 1 BODY[]\r\n", open + "f FETCH 1 BODY[]\r\nf FETCH 1 BODY[]\r\n",
		login + "a APPEND INBOX {1000}\r\nabc", login + "a APPEND INBOX {300000}\r\n" + strings.Repeat("x", 200_000),
		open + "n NOTIFY SET (personal (MessageNew MessageExpunge))\r\n", open + "s SEARCH TEXT hello\r\nz LOGOUT\r\n",
		login + "c COMPRESS DEFLATE\r\n\x00\xff", open + "u UID COPY 1 Archive", "a AUTHENTICATE PLAIN\r\n",
	}
	run := func(n int) {
		var clients sync.WaitGroup
		for client := range 10 {
			clients.Go(func() {
				for i := client; i < n; i += 10 {
					conn, err := net.Dial("tcp", h.addr)
					if err != nil {
						t.Error(err)
						return
					}
					fmt.Fprint(conn, said[i%len(said)])
					if i%2 == 0 {
						conn.SetReadDeadline(time.Now().Add(time.Duration(i%7) * time.Millisecond))
						conn.Read(make([]byte, 1000))
					}
					if i%3 == 0 {
						conn.(*net.TCPConn).SetLinger(0) // it ends with a reset
					}
					conn.Close()
				}
			})
		}
		clients.Wait()
		for h.srv.group.Open() > 0 {
			runtime.Gosched()
		}
	}
	run(2 * len(said)) // so that pools and the like are filled
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	run(*connections)
	if n := runtime.NumGoroutine(); n > goroutines+5 {
		t.Errorf("%d goroutines, and %d before", n, goroutines)
	}
	if n := descriptors(t); n > files+5 {
		t.Errorf("%d descriptors, and %d before", n, files)
	}
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("descriptors cannot be counted here")
	}
	return len(entries)
}

// A shutdown ends within its time whatever the sessions do, and a COPY that it meets is done or not.
func TestShutdownDuringLongCommands(t *testing.T) {
	const messages = 10_000 // two steps of a COPY
	h := buildHouse(t, store.Options{})
	for n := 0; n < messages; n += 1000 {
		h.deliverSome("INBOX", 1000, func(i int) []byte { return fmt.Appendf(nil, "Subject: %d\r\n\r\nhello\r\n", n+i) })
	}
	srv := NewServer(false, h.config)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	h.addr = ln.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	for _, command := range []string{"COPY 1:* Archive", "SEARCH TEXT nothing", "FETCH 1:* (BODY.PEEK[])", "STORE 1:* +FLAGS (x)", "SORT (SUBJECT) UTF-8 ALL"} {
		for range 3 {
			c := h.loggedIn()
			c.open("INBOX")
			c.send("a " + command + "\r\n")
		}
	}
	const within = time.Second // and what a loaded machine may take besides
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	begun := time.Now()
	if err := srv.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(begun); took > within+10*time.Second {
		t.Errorf("it took %v", took)
	}
	h.must(<-ended)
	m, err := h.config.Mailboxes.Get(h.owner, "Archive")
	h.must(err)
	if m.Messages%messages != 0 {
		t.Errorf("of COPYs of %d messages, %d are there", messages, m.Messages)
	}
	problems, err := h.config.Mailboxes.Check(t.Context())
	h.must(err)
	for _, p := range problems {
		t.Errorf("check: %s: %s", p.What, p.Text)
	}
}
