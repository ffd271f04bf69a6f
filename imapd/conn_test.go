package imapd

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/account"
	"postroad/internal/listen/listentest"
	"postroad/internal/store"
	"postroad/internal/trace"
)

// Whatever is wrong with a command, what follows it is not run: "x DELETE Trash" would answer "x OK".
func TestNoLiteralBecomesACommand(t *testing.T) {
	evil := "junk\r\nx DELETE Trash\r\n"
	long := evil + strings.Repeat("y", 1_100_000) + "\r\n"
	for _, tt := range []struct{ name, send, answer string }{
		{"of an unknown command", fmt.Sprintf("a NONSENSE {%d+}\r\n%s\r\n", len(evil), evil), "a BAD ..."},
		{"of a bad tag", fmt.Sprintf("( NOOP {%d+}\r\n%s\r\n", len(evil), evil), "* BAD ..."},
		{"with line ends in a name", fmt.Sprintf("a CREATE {%d+}\r\n%s\r\n", len(evil), evil), "a NO [CANNOT] ..."},
		{"over the limit of a command", fmt.Sprintf("a CREATE {%d+}\r\n%s\r\n", len(long), long), "a BAD [TOOBIG] ..."},
		{"of a bad APPEND", fmt.Sprintf("a APPEND INBOX (\\Seen \"x\") {%d+}\r\n%s\r\n", len(evil), evil), "a BAD ..."},
		{"of an APPEND to nowhere", fmt.Sprintf("a APPEND nowhere {%d+}\r\n%s\r\n", len(evil), evil), "a NO [TRYCREATE] ..."},
		{"of an APPEND over the limit", fmt.Sprintf("a APPEND INBOX {%d+}\r\n%s\r\n", len(long), long), "a NO [TOOBIG] ..."},
		{"of a second message", fmt.Sprintf("a APPEND INBOX {3+}\r\nabc {%d+}\r\n%s\r\n", len(evil), evil), "a OK [APPENDUID ... 1:2] ..."},
		{"of a bad name in UTF-7", fmt.Sprintf("a APPEND &x {%d+}\r\n%s\r\n", len(evil), evil), "a NO [CANNOT] ..."},
		{"of a line that is too long", fmt.Sprintf("a NOOP %s {%d+}\r\n%s\r\n", strings.Repeat("y", 1_100_000), len(evil), evil), "a BAD [TOOBIG] ..."},
		{"in a line that is too long", "a NOOP " + strings.Repeat("y", 1_100_000) + "\r\n", "a BAD [TOOBIG] ..."},
		{"after a string that is not closed", fmt.Sprintf("a CREATE \"x {%d+}\r\n%s\r\n", len(evil), evil), "a BAD ..."},
		{"in two steps", fmt.Sprintf("a RENAME {1+}\r\nx {%d+}\r\n%s {2+}\r\nzz\r\n", len(evil), evil), "a NO [CANNOT] ..."},
		{"after a CR within a line", "a NOOP \rx DELETE Trash\r\n", "a BAD ..."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, func(c *Config) { c.Limits.MessageSize = 50_000 })
			c := h.loggedIn()
			c.send(tt.send)
			c.expect(tt.answer)
			c.dialog("> z STATUS Trash (MESSAGES)\n< * STATUS Trash (MESSAGES 0)\n< z OK ...")
		})
	}
}

func TestFraming(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"an empty line is answered", `
			>
			< * BAD ...
			> a NOOP
			< a OK NOOP completed`},
		{"two spaces", `
			> a  NOOP
			< a OK ...
			> b NOOP
			< b OK ...`},
		{"a space at the end", `
			> a NOOP 
			< a OK ...`},
		{"an unknown command", `
			> a XYZZY
			< a BAD ...
			> b NOOP
			< b OK ...`},
		{"a literal that is not wanted is not asked for", `
			> a CREATE {5000000}
			< a BAD [TOOBIG] ...
			> b APPEND nowhere {50}
			< b NO [TRYCREATE] ...
			> c APPEND INBOX {999999999999999999999999}
			< c BAD [TOOBIG] ...
			> d APPEND INBOX (bad"flag) {50}
			< d BAD ...
			> f NOOP
			< f OK ...`},
		{"quotes and backslashes in a literal", `
			> a CREATE {5}
			< + go on
			> a"b\c
			< a OK ...
			> b LIST "" a*
			< * LIST (\HasNoChildren) "/" "a\"b\\c"
			< b OK ...`},
		{"APPEND", `
			> a APPEND Sent (\Seen Sent) " 1-Jan-2020 10:11:12 +0200" {6}
			< + go on
			> a: b
			> 
			< a OK [APPENDUID ... 1] APPEND completed
			> b APPEND {4+}
			> Sent {3+}
			> x:y
			< b OK [APPENDUID ... 2] APPEND completed
			> c APPEND Sent ~{3+}
			> x:z
			< c OK [APPENDUID ... 3] APPEND completed
			> d ENABLE UTF8=ACCEPT
			< * ENABLED UTF8=ACCEPT
			< d OK ...
			> e APPEND Sent UTF8 (~{3}
			< + go on
			> x:w)
			< e OK [APPENDUID ... 4] APPEND completed
			> f APPEND Sent {3+}
			> x:y and more
			< f BAD ...
			> g STATUS Sent (MESSAGES UNSEEN SIZE)
			< * STATUS Sent (MESSAGES 4 UNSEEN 3 SIZE 15)
			< g OK ...`},
		{"pipelined commands are answered in order", `
			> a NOOP
			> b CREATE {1+}
			> x
			> c STATUS x (MESSAGES)
			> d BOGUS
			> e NOOP
			< a OK ...
			< b OK ...
			< * STATUS x (MESSAGES 0)
			< c OK ...
			< d BAD ...
			< e OK ...`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newHouse(t).loggedIn().dialog(tt.script)
		})
	}
}

func TestMessageSizeLimit(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.MessageSize = 10 })
	h.loggedIn().dialog(`
		> a APPEND INBOX {10+}
		> 12345: 890
		< a OK ...
		> b APPEND INBOX {11}
		< b NO [TOOBIG] ...
		> c APPEND INBOX {11+}
		> 12345: 8901
		< c NO [TOOBIG] ...
		> d STATUS INBOX (MESSAGES APPENDLIMIT)
		< * STATUS INBOX (MESSAGES 1 APPENDLIMIT 10)
		< d OK ...`)
}

// What is not a client is sent away before it gets anywhere.
func TestBeforeLogin(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"a web browser", `
			< * OK ...
			> GET / HTTP/1.1
			> Host: localhost
			> Accept: */*
			< GET BAD ...
			< Host: BAD ...
			< Accept: BAD ...
			< * BYE this is an IMAP server`},
		{"ID first is fine", `
			< * OK [CAPABILITY IMAP4rev1 ... AUTH=PLAIN] ...
			> a ID NIL
			< * ID ("name" "postroad")
			< a OK ID completed
			> b LOGOUT
			< * BYE ...
			< b OK ...`},
		{"a message", `
			< * OK ...
			> a APPEND INBOX {50000000}
			< a BAD ...
			> b APPEND INBOX {5+}
			> hello
			< b BAD ...
			> c APPEND INBOX {50000000+}
			< c BAD ...
			< * BYE ...`},
		{"a long command", `
			< * OK ...
			> a LOGIN {9000}
			< a BAD [TOOBIG] ...
			> b LOGIN ` + strings.Repeat("x", 9000) + `
			< b BAD [TOOBIG] ...
			> c LOGOUT
			< * BYE ...
			< c OK ...`},
		{"AUTHENTICATE", `
			< * OK ...
			> a AUTHENTICATE PLAIN
			< + 
			> *
			< a BAD ...
			> b AUTHENTICATE PLAIN
			< + 
			> !!!!
			< b BAD ...
			> c AUTHENTICATE CRAM-MD5
			< c NO ...
			> d AUTHENTICATE PLAIN Ym9iAGFsaWNlQGV4YW1wbGUudGVzdABjb3JyZWN0IGhvcnNl
			< d NO ... ...
			> e AUTHENTICATE PLAIN =
			< e BAD ...
			> f AUTHENTICATE PLAIN
			< + 
			> AGFsaWNlQGV4YW1wbGUudGVzdABjb3JyZWN0IGhvcnNl
			< f OK [CAPABILITY ...] ...
			> g SELECT INBOX`},
		{"LOGIN with literals", `
			< * OK ...
			> a LOGIN {18}
			< + go on
			> alice@example.test {13+}
			> correct horse
			< a OK ...`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newHouse(t).raw().dialog(tt.script)
		})
	}
}

// remoteListener is one whose connections seem to come over the network.
type remoteListener struct{ net.Listener }

func (l remoteListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return listentest.From(conn, net.IPv4(192, 0, 2, 1)), err
}

func (l remoteListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 143} }

// fromAfar connects to a server of its own as somebody on the network.
func (h *house) fromAfar() (dial func() *raw) {
	h.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	h.serveOn(remoteListener{ln}, false)
	return func() *raw {
		conn, err := net.Dial("tcp", ln.Addr().String())
		h.must(err)
		return newRaw(h.t, conn)
	}
}

func TestNoPasswordInTheClear(t *testing.T) {
	h := newHouse(t, withTLS(t))
	c := h.fromAfar()()
	c.dialog(`
		< * OK [CAPABILITY IMAP4rev1 ... STARTTLS LOGINDISABLED] ...
		> a LOGIN alice@example.test "correct horse"
		< a NO [PRIVACYREQUIRED] ...
		> b AUTHENTICATE PLAIN
		< b NO [PRIVACYREQUIRED] ...
		> c STARTTLS
		< c OK begin TLS`)
	tc := tls.Client(c.conn, insecureTLS())
	c = newRaw(t, tc)
	c.dialog(`
		> d CAPABILITY
		< * CAPABILITY IMAP4rev1 ... AUTH=PLAIN
		< d OK ...
		> e STARTTLS
		< e BAD ...
		> f LOGIN alice@example.test "correct horse"
		< f OK ...
		> g NOOP
		< g OK ...`)
}

// Commands that somebody slipped in behind STARTTLS are not run under TLS.
func TestStartTLSInjection(t *testing.T) {
	c := newHouse(t, withTLS(t)).raw()
	c.dialog("< * OK [CAPABILITY ... STARTTLS ... AUTH=PLAIN] ...")
	c.send("a STARTTLS\r\nb NOOP\r\n")
	c.dialog("< * BYE nothing may follow STARTTLS before the handshake")
	c.closed()
}

func TestImplicitTLS(t *testing.T) {
	h := newHouse(t, withTLS(t))
	_, addr := h.serve(true)
	conn, err := tls.Dial("tcp", addr, insecureTLS())
	h.must(err)
	newRaw(t, conn).dialog(`
		< * OK [CAPABILITY IMAP4rev1 ... AUTH=PLAIN] ...
		> a LOGIN alice@example.test "correct horse"
		< a OK ...
		> b APPEND INBOX {3+}
		> a:b
		< b OK [APPENDUID ... 1] ...`)
	var events int
	for _, e := range h.events("alice@example.test INBOX") {
		events++
		if e.Kind != trace.Appended || e.UID != 1 || e.Account != user || !strings.HasPrefix(e.TLS, "TLS 1.3 ") || e.Size != 3 {
			t.Errorf("traced: %+v", e)
		}
	}
	if events != 1 {
		t.Errorf("%d events", events)
	}
}

// TestALPN: a browser that was led here is sent away before it says anything; who names
// no protocol, as most do, is not.
func TestALPN(t *testing.T) {
	_, addr := newHouse(t, withTLS(t)).serve(true)
	for _, tt := range []struct {
		protocols []string
		ok        bool
	}{{nil, true}, {[]string{"imap"}, true}, {[]string{"h2", "imap"}, true}, {[]string{"http/1.1"}, false}, {[]string{"smtp"}, false}} {
		c := insecureTLS().Clone()
		c.NextProtos = tt.protocols
		conn, err := tls.Dial("tcp", addr, c)
		if (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.protocols, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// events returns what was traced of the messages in a mailbox.
func (h *house) events(name string) (found []trace.Event) {
	h.t.Helper()
	var ids []store.ID
	h.must(h.config.Store.View(func(r store.Reader) error {
		for id := range h.config.Mailboxes.References(r) {
			ids = append(ids, id)
		}
		return nil
	}))
	for _, id := range ids {
		events, err := trace.New(h.config.Store, trace.Limits{}).Message(id)
		h.must(err)
		for _, e := range events {
			if e.Mailbox == name {
				found = append(found, e)
			}
		}
	}
	return found
}

func TestConnectionLimits(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Connections, c.Limits.PerAddress = 3, 2 })
	afar := h.fromAfar()
	first, second := afar(), afar()
	first.dialog("< * OK ...")
	second.dialog("< * OK ...")
	third := afar()
	third.dialog("< * BYE [UNAVAILABLE] too many connections from your address")
	third.closed()
	for range 3 {
		h.raw().dialog("< * OK ...")
	}
	h.raw().dialog("< * BYE [UNAVAILABLE] too many connections; try again later")
}

// A pipe is a client whose time is the test's.
func pipe(t *testing.T, config Config) *raw {
	srv := NewServer(false, config)
	pipes := listentest.NewPipes()
	go srv.Serve(pipes)
	client := pipes.Dial()
	t.Cleanup(func() {
		client.Close()
		srv.Shutdown(context.Background())
		synctest.Wait()
	})
	return &raw{t: t, conn: client, r: newRaw(t, client).r}
}

// patient reads without a deadline of its own.
func (c *raw) patient(want string) {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Time{})
	line, err := c.r.ReadString('\n')
	if err != nil || !like(want+"\r\n", line) {
		c.t.Errorf("got %q, %v; want %q", line, err, want)
	}
}

func TestTimeBeforeLogin(t *testing.T) {
	for _, tt := range []struct {
		name  string
		talk  func(*raw)
		after time.Duration
		bye   string
	}{
		{"silence", func(*raw) {}, 2 * time.Minute, "* BYE nothing was heard from you for too long"},
		{"commands do not renew it", func(c *raw) {
			time.Sleep(100 * time.Second)
			c.send("a NOOP\r\n")
			c.patient("a OK NOOP completed")
		}, 2 * time.Minute, "* BYE nothing was heard from you for too long"},
		{"half a command", func(c *raw) { c.send("a NO") }, time.Minute, "* BYE the command took too long to arrive"},
		{"half a literal", func(c *raw) { c.send("a LOGIN {5+}\r\nx") }, time.Minute, "* BYE the command took too long to arrive"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := pipe(t, Config{Accounts: account.Open(nil, nil)})
				c.patient("* OK ...")
				began := time.Now()
				tt.talk(c)
				c.patient(tt.bye)
				if took := time.Since(began); took != tt.after {
					t.Errorf("after %v, want %v", took, tt.after)
				}
				if _, err := c.r.ReadByte(); err != io.EOF {
					t.Errorf("then %v", err)
				}
			})
		})
	}
}

func TestFailedLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := buildHouse(t, store.Options{}, func(c *Config) { c.Limits.FailedLogins = 3 })
		c := pipe(t, h.config)
		c.patient("* OK ...")
		began := time.Now()
		for n, name := range []string{user, "nobody@example.test", ""} {
			c.send(fmt.Sprintf("a LOGIN \"%s\" wrong\r\n", name))
			c.patient("a NO [AUTHENTICATIONFAILED] wrong address or password")
			if took, want := time.Since(began), time.Duration((n+1)*(n+2)/2)*time.Second; took != want {
				t.Errorf("failure %d was answered after %v, want %v", n+1, took, want)
			}
		}
		c.patient("* BYE too many failed logins")
	})
}

// Success is not slowed, whatever failed before.
func TestManyLogins(t *testing.T) {
	h := newHouse(t)
	for range 200 {
		c := h.loggedIn()
		c.conn.Close()
	}
}

func TestShutdown(t *testing.T) {
	h := newHouse(t)
	srv, addr := h.serve(false)
	h.addr = addr
	idle, quiet, busy := h.loggedIn(), h.loggedIn(), h.loggedIn()
	idle.dialog("> a IDLE\n< + idling")
	quiet.dialog("> a NOOP\n< a OK ...")
	busy.dialog("> a APPEND INBOX {10}\n< + go on")
	done := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		done <- srv.Shutdown(ctx)
	}()
	idle.dialog("< * BYE the server is shutting down")
	idle.closed()
	quiet.dialog("< * BYE the server is shutting down")
	quiet.closed()
	busy.send("hello: bye\r\n")
	busy.dialog("< a OK [APPENDUID ...\n< * BYE the server is shutting down")
	busy.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := srv.Serve(listentest.NewPipes()); err == nil {
		t.Error("a server that was shut down serves")
	}
}

// A client that vanishes in the middle of a message leaves no message, and that is not our error.
func TestGoneWhileAppending(t *testing.T) {
	h := newHouse(t)
	c := h.loggedIn()
	c.dialog("> a APPEND INBOX {100}\n< + go on\n> half of it")
	c.conn.Close()
	h.loggedIn().dialog("> a STATUS INBOX (MESSAGES)\n< * STATUS INBOX (MESSAGES 0)\n< a OK ...")
}

// A client that does not come to an end is cut off when the time is up.
func TestShutdownInTime(t *testing.T) {
	h := newHouse(t)
	srv, addr := h.serve(false)
	h.addr = addr
	c := h.loggedIn()
	c.dialog("> a APPEND INBOX {10}\n< + go on")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := srv.Shutdown(ctx); err != context.Canceled {
		t.Error(err)
	}
	c.closed()
}

// A large message streams both ways.
func TestLargeMessageStreams(t *testing.T) {
	h := newHouse(t)
	c := h.loggedIn()
	c.open("INBOX")
	const size = 40 << 20
	line := []byte(strings.Repeat("x", 1022) + "\r\n")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c.dialog(fmt.Sprintf("> a APPEND INBOX {%d}\n< + go on", size))
	for range size / len(line) {
		if _, err := c.conn.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	c.dialog(">\n< * 1 EXISTS\n< a OK ...")
	c.dialog(fmt.Sprintf("> b FETCH 1 BODY.PEEK[]\n< * 1 FETCH (BODY[] {%d}", size))
	if n, err := io.CopyN(io.Discard, c.r, size); err != nil {
		t.Fatalf("after %d octets: %v", n, err)
	}
	c.dialog("< )\n< b OK ...")
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("%d MiB were allocated for a message of %d MiB", used>>20, size>>20)
	}
}

// Who begins and ends IDLE as fast as it can while mail comes is answered each time, and told of all.
func TestIdleFlood(t *testing.T) {
	h := newHouse(t)
	c := h.loggedIn()
	c.open("INBOX")
	const times, messages = 500, 20
	go c.conn.Write([]byte(strings.Repeat("a IDLE\r\nDONE\r\n", times)))
	var delivering sync.WaitGroup
	delivering.Go(func() {
		for range messages {
			h.deliver("INBOX", hello)
		}
	})
	exists := 0
	for answered := 0; answered < times; {
		line := c.line()
		fmt.Sscanf(line, "* %d EXISTS", &exists)
		if strings.HasPrefix(line, "a ") {
			answered++
		}
	}
	delivering.Wait()
	c.send("b NOOP\r\n")
	for line := c.line(); !strings.HasPrefix(line, "b "); line = c.line() {
		fmt.Sscanf(line, "* %d EXISTS", &exists)
	}
	if exists != messages {
		t.Errorf("told of %d messages, want %d", exists, messages)
	}
}

// Who connects to a port that begins with TLS and does not begin it is left, and so is who does not after STARTTLS.
func TestHandshakeInTime(t *testing.T) {
	for _, implicit := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			srv := NewServer(implicit, Config{Accounts: account.Open(nil, nil), TLS: certificate(t)})
			pipes := listentest.NewPipes()
			go srv.Serve(pipes)
			client := pipes.Dial()
			began := time.Now()
			if !implicit {
				c := &raw{t: t, conn: client, r: bufio.NewReader(client)}
				c.patient("* OK ...")
				c.send("a STARTTLS\r\n")
				c.patient("a OK begin TLS")
			}
			go client.Write([]byte("\x16\x03\x01\x02\x00\x01")) // of a ClientHello
			client.SetReadDeadline(time.Time{})
			if b, err := io.ReadAll(client); len(b) > 0 || time.Since(began) != time.Minute {
				t.Errorf("%q, %v after %v", b, err, time.Since(began))
			}
			client.Close()
			srv.Shutdown(context.Background())
			synctest.Wait()
		})
	}
}
