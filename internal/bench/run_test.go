package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-smtp"
)

func options(addr string) SMTPOptions {
	return SMTPOptions{
		Target: Target{Addr: addr, Timeout: 10 * time.Second},
		Conns:  3, Messages: 50, From: "a@example.test", To: []string{"b@example.test"},
	}
}

func TestSMTPCountsWhatTheServerKept(t *testing.T) {
	mix, err := ParseSizes("1k,4k:2,70k")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		server     func(*smtp.Server)
		change     func(*SMTPOptions)
		recipients int
		conns      int64
	}{
		{"lock-step", nil, func(*SMTPOptions) {}, 1, 3},
		{"pipelining", nil, func(o *SMTPOptions) { o.Pipelining = true }, 1, 3},
		{"mixed sizes", nil, func(o *SMTPOptions) { o.Sizes = mix }, 1, 3},
		{"one message per connection", nil, func(o *SMTPOptions) { o.MessagesPerConn = 1; o.Conns = 1 }, 1, 50},
		{"three recipients", nil, func(o *SMTPOptions) {
			o.To = []string{"b@x.test", "c@x.test", "d@x.test", "e@x.test"}
			o.RecipientsPerMessage = 3
		}, 3, 3},
		{"three recipients, pipelining", nil, func(o *SMTPOptions) {
			o.To = []string{"b@x.test", "c@x.test", "d@x.test"}
			o.RecipientsPerMessage, o.Pipelining = 3, true
		}, 3, 3},
		{"lmtp", func(s *smtp.Server) { s.LMTP = true }, func(o *SMTPOptions) {
			o.LMTP = true
			o.To = []string{"b@x.test", "c@x.test"}
			o.RecipientsPerMessage = 2
		}, 2, 3},
		{"auth", nil, func(o *SMTPOptions) { o.User, o.Password = "alice", "secret" }, 1, 3},
		{"starttls", func(s *smtp.Server) { s.TLSConfig = certificate(t) }, func(o *SMTPOptions) { o.TLS, o.Insecure = STARTTLS, true }, 1, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := new(sink)
			o := options(s.start(t, c.server))
			c.change(&o)
			r, err := SMTP(t.Context(), o, nil)
			if err != nil {
				t.Fatal(err)
			}
			kept, bytes := deliveries(t, s)
			if kept != 50*c.recipients || r.row("accepted").Count != 50 || r.count("recipients accepted") != int64(kept) {
				t.Errorf("%d kept of %+v", kept, r)
			}
			if conns := r.count("connections"); conns < 1 || conns > c.conns || c.conns == 50 && conns != 50 {
				t.Errorf("%d connections", conns)
			}
			if r.count("refused")+r.count("failed") != 0 || len(r.Errors) != 0 {
				t.Errorf("errors in %+v", r)
			}
			if got := r.row("accepted").MBPerSecond * r.Seconds * 1e6; !o.LMTP && (got < float64(bytes)*.999 || got > float64(bytes)*1.001) {
				t.Errorf("%v bytes reported of %d", got, bytes)
			}
			if r.row("final dot to reply").Latency.P50 > r.row("accepted").Latency.P50 {
				t.Error("the reply took longer than the transaction")
			}
			if o.User != "" && s.logins != int(r.count("connections")) {
				t.Errorf("%d logins", s.logins)
			}
		})
	}
}

// deliveries counts recipients and bytes kept and fails if a Message-ID appears
// twice for a recipient.
func deliveries(t *testing.T, s *sink) (recipients, size int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]bool{}
	for _, m := range s.messages {
		_, id, found := bytes.Cut(m.body, []byte("\r\nMessage-ID: "))
		if !found {
			t.Fatal("a message without a Message-ID")
		}
		id, _, _ = bytes.Cut(id, []byte("\r\n"))
		for _, to := range m.to {
			if key := string(id) + to; seen[key] {
				t.Errorf("%s twice", key)
			} else {
				seen[key] = true
			}
		}
		recipients += len(m.to)
		size += len(m.body)
	}
	return recipients, size
}

func TestRecipientsTakeTurns(t *testing.T) {
	s := &sender{sending: &sending{o: &SMTPOptions{To: []string{"a", "b", "c", "d", "e"}, RecipientsPerMessage: 2}}}
	count := [5]int{}
	for seq := range int64(10) {
		first, second := s.recipient(seq, 0), s.recipient(seq, 1)
		if first == second {
			t.Fatal("a recipient twice in one message")
		}
		count[first]++
		count[second]++
	}
	if count != [5]int{4, 4, 4, 4, 4} {
		t.Errorf("turns %v", count)
	}
}

func TestImplicitTLS(t *testing.T) {
	s := new(sink)
	server := smtp.NewServer(s)
	server.ErrorLog = log.New(io.Discard, "", 0)
	o := options(serve(t, certificate(t), server.Serve, server.Close))
	o.TLS, o.Insecure = ImplicitTLS, true
	if r, err := SMTP(t.Context(), o, nil); err != nil || r.row("accepted").Count != 50 {
		t.Errorf("%v, %+v", err, r)
	}
	o.Insecure, o.Duration = false, time.Nanosecond
	if _, err := SMTP(t.Context(), o, nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate was accepted: %v", err)
	}
}

func TestRefusalsAreCountedByStageAndCode(t *testing.T) {
	no := func(code int) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "no"}
	}
	for _, c := range []struct {
		stage string
		code  int
		where string
	}{
		{"MAIL", 452, "MAIL 452"}, {"RCPT", 550, "RCPT 550"}, {"DATA", 451, "final dot 451"},
	} {
		for _, pipelining := range []bool{false, true} {
			t.Run(c.where, func(t *testing.T) {
				var n atomic.Int64
				s := &sink{refuse: func(stage, arg string) error {
					if stage == c.stage && n.Add(1)%5 == 0 {
						return no(c.code)
					}
					return nil
				}}
				o := options(s.start(t, nil))
				o.Pipelining = pipelining
				r, err := SMTP(t.Context(), o, nil)
				if err != nil {
					t.Fatal(err)
				}
				if r.row("accepted").Count != 40 || r.count("refused") != 10 || len(s.messages) != 40 || r.count("connections") > 3 {
					t.Errorf("%+v, %d kept", r, len(s.messages))
				}
				if len(r.Errors) != 1 || r.Errors[0].Where != c.where || r.Errors[0].Count != 10 {
					t.Errorf("errors %+v", r.Errors)
				}
			})
		}
	}
}

func TestOneRefusedRecipientDoesNotRefuseTheMessage(t *testing.T) {
	for _, c := range []struct {
		name, stage      string
		lmtp, pipelining bool
	}{
		{"rcpt", "RCPT", false, false}, {"rcpt, pipelining", "RCPT", false, true}, {"lmtp after the dot", "DATA", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &sink{refuse: func(stage, arg string) error {
				if stage == c.stage && arg == "c@x.test" {
					return &smtp.SMTPError{Code: 550, Message: "no"}
				}
				return nil
			}}
			o := options(s.start(t, func(s *smtp.Server) { s.LMTP = c.lmtp }))
			o.LMTP, o.Pipelining = c.lmtp, c.pipelining
			o.To, o.RecipientsPerMessage = []string{"b@x.test", "c@x.test"}, 2
			r, err := SMTP(t.Context(), o, nil)
			if err != nil {
				t.Fatal(err)
			}
			if kept, _ := deliveries(t, s); kept != 50 || r.row("accepted").Count != 50 || r.count("recipients accepted") != 50 || r.count("refused") != 0 {
				t.Errorf("%d kept, %+v", kept, r)
			}
			if len(r.Errors) != 1 || r.Errors[0].Count != 50 {
				t.Errorf("errors %+v", r.Errors)
			}
		})
	}
}

func TestServersThatBreak(t *testing.T) {
	const hello = "250-here\n250 PIPELINING\n"
	for _, c := range []struct {
		name     string
		greeting string
		replies  []string
		where    string
		fatal    bool
	}{
		{"refuses the connection", "554 no\r\n", nil, "", true},
		{"speaks nonsense", "hello there\r\n", nil, "", true},
		{"closes at once", "", nil, "", true},
		{"an endless line", strings.Repeat("2", 100_000), nil, "", true},
		{"an endless reply", strings.Repeat("220-more\r\n", 1000), nil, "", true},
		{"refuses EHLO", "220 here\r\n", []string{"502 no\n"}, "", true},
		{"closes after MAIL", "220 here\r\n", []string{hello}, "connection", false},
		{"closes after RCPT", "220 here\r\n", []string{hello, "250 ok\n"}, "connection", false},
		{"closes after DATA", "220 here\r\n", []string{hello, "250 ok\n", "250 ok\n"}, "connection", false},
		{"closes before the end", "220 here\r\n", []string{hello, "250 ok\n", "250 ok\n", "354 go\n"}, "connection", false},
		{"421 and goes", "220 here\r\n", []string{hello, "421 bye\n"}, "MAIL 421", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(script(t, c.greeting, c.replies...))
			o.Conns, o.Messages = 1, 3
			if c.fatal {
				o.Duration = time.Nanosecond // do not try again
			}
			r, err := SMTP(t.Context(), o, nil)
			if c.fatal != (err != nil) || r.row("accepted").Count != 0 {
				t.Fatalf("%v, %+v", err, r)
			}
			if !c.fatal && (len(r.Errors) != 1 || r.Errors[0].Where != c.where || r.Errors[0].Count != 3 || r.count("connections") != 3) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	o := options("127.0.0.1:1")
	o.Duration = time.Nanosecond
	if _, err := SMTP(t.Context(), o, nil); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v", err)
	}
}

func TestWrongOptions(t *testing.T) {
	good := options("h:25")
	for _, c := range []struct {
		name   string
		change func(*SMTPOptions)
		words  string
	}{
		{"no address", func(o *SMTPOptions) { o.Addr = "" }, "address"},
		{"no end", func(o *SMTPOptions) { o.Messages = 0 }, "how long"},
		{"nobody", func(o *SMTPOptions) { o.To = nil }, "recipient"},
		{"too few", func(o *SMTPOptions) { o.RecipientsPerMessage = 2 }, "only 1"},
		{"mode", func(o *SMTPOptions) { o.TLS = "x" }, "tls mode"},
	} {
		o := good
		c.change(&o)
		if _, err := SMTP(t.Context(), o, nil); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	o := good
	o.Watch.Pids = []int{1 << 30}
	o.Addr = new(sink).start(t, nil)
	r, err := SMTP(t.Context(), o, nil)
	if err == nil || !strings.Contains(err.Error(), "process") || r.row("accepted").Count != 0 {
		t.Errorf("a process that is not there: %v", err)
	}
}

func TestCancelEndsARunWithWhatItHas(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var n atomic.Int64
	s := &sink{refuse: func(stage, _ string) error {
		if stage == "MAIL" && n.Add(1) == 20 {
			cancel()
		}
		return nil
	}}
	o := options(s.start(t, nil))
	o.Messages, o.Duration = 0, time.Hour
	r, err := SMTP(ctx, o, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := r.row("accepted").Count; got < 10 || got > 20 || len(r.Errors) != 0 || r.count("failed") != 0 {
		t.Errorf("%+v", r)
	}
}

func TestCancelEndsTheOtherRuns(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr, users := startIMAP(t, nil, "b@example.test")
	s := &sink{deliver: func(to string, m []byte) error {
		cancel()
		return put(users[to], m)
	}}
	o := E2EOptions{SMTP: options(s.start(t, nil)), IMAP: Target{Addr: addr}, Accounts: []Account{{Address: "b@example.test", Password: "secret"}}}
	o.SMTP.Duration, o.SMTP.Messages = time.Hour, 0
	if _, err := E2E(ctx, o, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("e2e: %v", err)
	}
	again, stop := context.WithCancel(t.Context())
	addr = silent(t, stop)
	if _, err := IMAP(again, IMAPOptions{Target: Target{Addr: addr, User: "u"}, Messages: 5}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("imap: %v", err)
	}
}

// silent accepts connections, calls accepted, and never says a word.
func silent(t *testing.T, accepted func()) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			defer c.Close()
			accepted()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

func TestASilentServerIsGivenUp(t *testing.T) {
	target := Target{Addr: silent(t, func() {}), User: "u", Timeout: 20 * time.Millisecond}
	o := options("")
	o.Target, o.Conns, o.Duration = target, 1, time.Nanosecond
	if _, err := SMTP(t.Context(), o, nil); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("smtp: %v", err)
	}
	if _, err := IMAP(t.Context(), IMAPOptions{Target: target, Messages: 1}, nil); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("imap: %v", err)
	}
}

// Literals are sent at once only where the server said so (RFC 7888).
func TestAppendWaitsUnlessItNeedNot(t *testing.T) {
	for _, c := range []struct {
		caps string
		size int
		wait bool
	}{
		{"IMAP4rev1", 600, true}, {"IMAP4rev1 LITERAL+", 600, false}, {"IMAP4rev1 LITERAL+", 9000, false},
		{"IMAP4rev1 LITERAL-", 600, false}, {"IMAP4rev1 LITERAL-", 4097, true}, {"XLITERAL+", 600, true},
	} {
		client, server := net.Pipe()
		c1 := &imapConn{wire: &wire{r: bufio.NewReader(client), w: bufio.NewWriterSize(client, 16)}, caps: " " + c.caps + " "}
		waited := make(chan bool)
		go func() {
			r := bufio.NewReader(server)
			line, _ := r.ReadString('\n')
			wait := !strings.Contains(line, "+}")
			if wait {
				io.WriteString(server, "* 7 EXISTS\r\n+ go\r\n")
			}
			io.CopyN(io.Discard, r, int64(c.size)+2)
			io.WriteString(server, "a1 OK stored\r\n")
			waited <- wait
		}()
		err := c1.appendMessage(`"x"`, c.size, func(w *bufio.Writer) error {
			_, err := w.WriteString(strings.Repeat("x", c.size))
			return err
		})
		if wait := <-waited; err != nil || wait != c.wait {
			t.Errorf("%s, %d bytes: waited %v, %v", c.caps, c.size, wait, err)
		}
		client.Close()
		server.Close()
	}
}

func TestAppendRefusedBeforeItsLiteral(t *testing.T) {
	for reply, refused := range map[string]bool{"a1 NO [OVERQUOTA] full\r\n": true, "a1 OK what?\r\n": false, "": false} {
		client, server := net.Pipe()
		c := &imapConn{wire: &wire{r: bufio.NewReader(client), w: bufio.NewWriter(client)}}
		go func() {
			bufio.NewReader(server).ReadString('\n')
			io.WriteString(server, reply)
			server.Close()
		}()
		err := c.appendMessage(`"x"`, 3, func(*bufio.Writer) error {
			t.Error("the literal was sent unasked")
			return nil
		})
		if _, no := errors.AsType[*errNo](err); err == nil || no != refused {
			t.Errorf("%q: %v", reply, err)
		}
		client.Close()
	}
}

func TestUsageOfARunningProcess(t *testing.T) {
	s := new(sink)
	o := options(s.start(t, nil))
	o.Messages, o.Watch = 500, Watch{Pids: []int{os.Getpid()}, Path: t.TempDir()}
	r, err := SMTP(t.Context(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	u := r.Usage
	if u.ServerPerMessage <= 0 || u.GeneratorPer <= 0 || u.ServerCPU < u.GeneratorCPU-50 {
		t.Errorf("%+v", u)
	}
	if u.Device == "" && u.Note == "" {
		t.Error("neither flushes nor the reason why not")
	}
}

func TestE2E(t *testing.T) {
	for _, c := range []struct {
		name string
		caps imap.CapSet
	}{
		{"idle", imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIdle: {}}},
		{"noop", imap.CapSet{imap.CapIMAP4rev1: {}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, users := startIMAP(t, c.caps, "b@x.test", "c@x.test")
			old := []byte("Message-ID: <old@x>\r\n\r\nold\r\n")
			if err := errors.Join(put(users["b@x.test"], old), put(users["b@x.test"], old)); err != nil {
				t.Fatal(err)
			}
			var n atomic.Int64
			s := &sink{deliver: func(to string, m []byte) error {
				if n.Add(1) == 9 { // the copy is there before the message is acknowledged
					return errors.Join(put(users[to], m), put(users[to], m))
				}
				return put(users[to], m)
			}}
			o := E2EOptions{
				SMTP: options(s.start(t, nil)), IMAP: Target{Addr: addr}, Poll: time.Millisecond,
				Accounts: []Account{{Address: "b@x.test", Password: "secret"}, {Address: "c@x.test", User: "c@x.test", Password: "secret"}},
			}
			o.SMTP.RecipientsPerMessage = 2
			r, err := E2E(t.Context(), o, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.row("accepted").Count != 50 || r.row("visible").Count != 100 || r.count("missing") != 0 || r.count("duplicates") != 1 || r.count("visible without acknowledgement") != 0 {
				t.Errorf("%+v", r)
			}
			if l := r.row("visible").Latency; l == nil || l.P50 <= 0 || r.row("visible").PerSecond <= 0 {
				t.Errorf("visible: %+v", r.row("visible"))
			}
		})
	}
}

func TestE2ECountsWhatNeverComes(t *testing.T) {
	addr, _ := startIMAP(t, nil, "b@x.test")
	o := E2EOptions{SMTP: options(new(sink).start(t, nil)), IMAP: Target{Addr: addr}, Drain: time.Millisecond,
		Accounts: []Account{{Address: "b@x.test", Password: "secret"}}}
	r, err := E2E(t.Context(), o, nil)
	if err != nil || r.count("missing") != 50 || r.row("visible").Count != 0 {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestE2EEndsWhenAWatcherCannotGoOn(t *testing.T) {
	addr := script(t, "* OK here\r\n", "a1 OK [CAPABILITY IMAP4rev1] in\n", "* OK [UIDNEXT 1] next\na2 OK selected\n", "a3 BAD no\n")
	o := E2EOptions{SMTP: options(new(sink).start(t, nil)), IMAP: Target{Addr: addr}, Accounts: []Account{{Address: "b@x.test"}}}
	o.SMTP.Messages, o.SMTP.Duration = 0, time.Hour
	if _, err := E2E(t.Context(), o, nil); err == nil || !strings.Contains(err.Error(), "b@x.test: UID FETCH was answered BAD") {
		t.Errorf("error %v", err)
	}
}

func TestE2ESaysWhichMailboxCannotBeRead(t *testing.T) {
	addr, _ := startIMAP(t, nil, "b@x.test")
	o := E2EOptions{SMTP: options("127.0.0.1:1"), IMAP: Target{Addr: addr}, Accounts: []Account{{Address: "b@x.test", Password: "wrong"}}}
	if _, err := E2E(t.Context(), o, nil); err == nil || !strings.Contains(err.Error(), "LOGIN was answered NO") {
		t.Errorf("error %v", err)
	}
}

func TestLedger(t *testing.T) {
	var l ledger
	now := time.Now()
	l.accept(3)
	l.accept(200)
	l.see(200, now, now.Add(time.Second))
	l.see(70, now, now) // before its acknowledgement, which never comes
	l.see(5, now, now)  // before its acknowledgement
	l.accept(5)
	l.see(5, now, now)
	var s ledgerSum
	l.addTo(&s)
	if s.visible != 3 || s.missing != 1 || s.duplicates != 1 || s.unasked != 1 || l.missing() != 1 {
		t.Errorf("%+v", s)
	}
}

func TestIMAPRows(t *testing.T) {
	for _, c := range []struct {
		name string
		caps imap.CapSet
	}{
		{"literals wait", imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIdle: {}}},
		{"literals go ahead", imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIdle: {}, imap.CapLiteralPlus: {}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, _ := startIMAP(t, c.caps, "alice")
			o := IMAPOptions{Target: Target{Addr: addr, User: "alice", Password: "secret"}, Messages: 120, Conns: 3, Runs: 2, Idle: 5}
			r, err := IMAP(t.Context(), o, nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]int64{
				"APPEND, 1 connection": 24, "APPEND, 3 connections": 96, "connect, LOGIN, SELECT": 1, "FETCH 1:* (FLAGS)": 120, "FETCH 1:* (ENVELOPE)": 120, "FETCH 1:* (BODYSTRUCTURE)": 120,
				"FETCH 1:* (BODY.PEEK[HEADER.FIELDS (FROM SUBJECT DATE)])": 120, "FETCH 1:* (BODY.PEEK[])": 120,
				"SEARCH SUBJECT quagga": 1, "SEARCH TEXT axolotl": 1, `STORE 1:* +FLAGS (\Flagged)`: 120, "COPY 1:*": 120, "EXPUNGE every second": 60,
				"connect, LOGIN, SELECT, IDLE": 5, "APPEND while others idle": 2, "APPEND to push of EXISTS": 10,
			} {
				if row := r.row(name); row.Count != want || row.Latency == nil {
					t.Errorf("%s: %+v, want %d", name, row, want)
				}
			}
			if r.count("messages") != 120 || r.count("idle connections not told") != 0 || len(r.Errors) != 0 || len(r.LeftOut) != 3 {
				t.Errorf("%+v", r)
			}
			o.Messages, o.Idle = 100, 0
			again, err := IMAP(t.Context(), o, nil)
			if err != nil || again.row("APPEND, 1 connection").Count != 0 || again.count("messages") != 122 {
				t.Errorf("second run: %v, %+v", err, again)
			}
		})
	}
}

func TestIMAPRefusals(t *testing.T) {
	addr, _ := startIMAP(t, nil, "alice")
	good := IMAPOptions{Target: Target{Addr: addr, User: "alice", Password: "secret"}, Messages: 5}
	for _, c := range []struct {
		name   string
		change func(*IMAPOptions)
		words  string
	}{
		{"wrong password", func(o *IMAPOptions) { o.Password = "x" }, "LOGIN was answered NO"},
		{"no user", func(o *IMAPOptions) { o.User = "" }, "no user"},
		{"no mail", func(o *IMAPOptions) { o.Messages = 0 }, "empty"},
		{"mailbox name", func(o *IMAPOptions) { o.Mailbox = "a\r\nb" }, "ASCII"},
		{"password", func(o *IMAPOptions) { o.Password = "a\r\nb" }, "ASCII"},
		{"no STARTTLS", func(o *IMAPOptions) { o.TLS = STARTTLS }, "STARTTLS was answered"},
	} {
		o := good
		c.change(&o)
		if _, err := IMAP(t.Context(), o, nil); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestReportAsJSON(t *testing.T) {
	r, err := SMTP(t.Context(), options(new(sink).start(t, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back.row("accepted").Count != 50 || back.row("accepted").Latency.P99 <= 0 {
		t.Errorf("%v: %s", err, b.String())
	}
}

// row finds a row by name; the zero Row when there is none.
func (r *Report) row(name string) Row {
	for _, row := range r.Rows {
		if row.Name == name {
			return row
		}
	}
	return Row{}
}

// count finds a count by name; 0 when there is none.
func (r *Report) count(name string) int64 {
	for _, c := range r.Counts {
		if c.Name == name {
			return c.Value
		}
	}
	return 0
}
