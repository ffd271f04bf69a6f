package smtpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"postroad/internal/envelope"
)

// dialogue is a conversation as it must go: lines "C: ..." are awaited from the
// client, lines "S: ..." are said to it. "C: *" takes all up to the final dot, "C: #5" five octets,
// "C: until it closes" what there is.
type dialogue []string

// play runs the other side of a conversation. What it heard of the message is sent
// on heard when the dialogue is over.
func (d dialogue) play(t *testing.T, c net.Conn, heard chan<- string) {
	r := bufio.NewReader(c)
	var text strings.Builder
	defer func() { c.Close(); heard <- text.String() }()
	for _, line := range d {
		want, awaited := strings.CutPrefix(line, "C: ")
		switch {
		case !awaited:
			if _, err := io.WriteString(c, strings.TrimPrefix(line, "S: ")+"\r\n"); err != nil {
				t.Errorf("cannot say %q: %v", line, err)
				return
			}
		case strings.HasPrefix(want, "#"):
			n, _ := strconv.Atoi(want[1:])
			if _, err := io.CopyN(&text, r, int64(n)); err != nil {
				t.Errorf("of %d octets came %q: %v", n, text.String(), err)
				return
			}
		case want == "until it closes":
			io.Copy(&text, r)
		case want == "*":
			for s := ""; s != ".\r\n"; text.WriteString(s) {
				var err error
				if s, err = r.ReadString('\n'); err != nil {
					t.Errorf("the message has no end: %v", err)
					return
				}
			}
		default:
			if s, err := r.ReadString('\n'); err != nil || s != want+"\r\n" {
				t.Errorf("heard %q, %v; want %q", s, err, want)
				return
			}
		}
	}
}

// converse plays a dialogue against fn.
func converse(t *testing.T, d dialogue, o Options, fn func(*Conn)) (heard string, err error) {
	t.Helper()
	ours, theirs := net.Pipe()
	ch := make(chan string, 1)
	go d.play(t, theirs, ch)
	o.Hostname = "us.test"
	c, err := Open(t.Context(), ours, "mx.test", o)
	if err == nil {
		fn(c)
		c.Close()
	}
	ours.Close()
	return <-ch, err
}

func address(local, domain string) envelope.Address {
	return envelope.Address{Local: local, Domain: domain}
}

func message(text string, to ...string) Message {
	m := Message{Envelope: envelope.Envelope{From: address("s", "x.test")}, Size: int64(len(text)), Body: strings.NewReader(text)}
	for _, name := range to {
		m.Recipients = append(m.Recipients, envelope.Recipient{To: address(name, "y.test")})
	}
	return m
}

func codes(r Result) string {
	var all []string
	for _, reply := range r.Replies {
		all = append(all, fmt.Sprint(reply.Code))
	}
	return strings.Join(all, " ")
}

func TestStepwise(t *testing.T) {
	heard, err := converse(t, dialogue{
		"S: 220-welcome", "S: 220 mx.test", "C: EHLO us.test", "S: 250 mx.test at your service",
		"C: MAIL FROM:<s@x.test>", "S: 250 2.1.0 ok", "C: RCPT TO:<a@y.test>", "S: 250 ok", "C: RCPT TO:<b@y.test>", "S: 550-5.1.1 no", "S: 550 5.1.1 such user",
		"C: DATA", "S: 354 go", "C: *", "S: 250 2.0.0 queued", "C: QUIT", "S: 221 bye",
	}, Options{}, func(c *Conn) {
		if c.Greeted() != "mx.test" {
			t.Errorf("greeted by %q", c.Greeted())
		}
		r := c.Send(message("A: b\r\n\r\n.x\r\n", "a", "b"))
		if codes(r) != "250 550" || r.Doubtful || r.BodyErr != nil || c.Broken() {
			t.Errorf("%+v", r)
		}
		if got := r.Replies[1]; got.String() != "550 5.1.1 no such user" || got.From != "mx.test (pipe)" {
			t.Errorf("%+v", got)
		}
	})
	if err != nil || heard != "A: b\r\n\r\n..x\r\n.\r\n" {
		t.Errorf("heard %q, %v", heard, err)
	}
}

// TestAnswersBeforeQuestions: a server that says one reply too many is not asked
// anything more: all its further replies would be to the question before.
func TestAnswersBeforeQuestions(t *testing.T) {
	start := dialogue{"S: 220 mx.test", "C: EHLO us.test", "S: 250 mx.test", "C: MAIL FROM:<s@x.test>", "S: 250 ok", "C: RCPT TO:<a@y.test>"}
	for _, tt := range []struct {
		name   string
		rest   dialogue
		first  string // the codes of one message, and then of another
		second string
	}{
		{"after the final reply", dialogue{"S: 250 ok", "C: DATA", "S: 354 go", "C: *", "S: 250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok"}, "250", "0"},
		{"with 354", dialogue{"S: 250 ok", "C: DATA", "S: 354 go\r\n250 ok"}, "0", "0"},
		{"with 354, a refusal", dialogue{"S: 250 ok", "C: DATA", "S: 354 go\r\n552 too large"}, "552", "0"},
		{"in the envelope", dialogue{"S: 250 ok\r\n354 go\r\n250 ok"}, "0", "0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			converse(t, after(start, tt.rest...), Options{}, func(c *Conn) {
				if r := c.Send(message("x\r\n", "a")); codes(r) != tt.first || r.Doubtful {
					t.Errorf("first: %+v", r)
				}
				if r := c.Send(message("x\r\n", "a")); codes(r) != tt.second || !c.Broken() {
					t.Errorf("second: %+v", r)
				}
			})
		})
	}
	_, err := converse(t, dialogue{"S: 220 mx.test\r\n250 mx.test"}, Options{}, func(*Conn) {})
	if err == nil || !strings.Contains(err.Error(), "before it is asked") {
		t.Errorf("before EHLO: %v", err)
	}
}

func TestHELO(t *testing.T) {
	_, err := converse(t, dialogue{
		"S: 220 old", "C: EHLO us.test", "S: 500 unknown", "C: HELO us.test", "S: 250 old\tserver",
		"C: MAIL FROM:<s@x.test>", "S: 250 ok", "C: RCPT TO:<a@y.test>", "S: 250 ok", "C: DATA", "S: 354 go", "C: *", "S: 250 ok", "C: QUIT", "S: 221 bye",
	}, Options{}, func(c *Conn) {
		if r := c.Send(message("x\r\n", "a")); codes(r) != "250" {
			t.Errorf("%+v", r)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

var ehlo = dialogue{"S: 220 mx.test", "C: EHLO us.test", "S: 250-mx.test", "S: 250-pipelining", "S: 250-Size 1000", "S: 250-8BitMime", "S: 250-dsn", "S: 250 smtputf8"}

func after(d dialogue, more ...string) dialogue { return append(append(dialogue{}, d...), more...) }

func TestPipelining(t *testing.T) {
	m := message("x\r\n", "a", "b")
	m.Envelope.Body, m.Envelope.ID, m.Envelope.Return = envelope.Body8Bit, "a=b", envelope.ReturnFull
	m.Recipients[0].Notify = envelope.NotifyFailure | envelope.NotifyDelay
	m.Recipients[1].Original = "rfc822;B+@y.test"
	_, err := converse(t, after(ehlo,
		"C: MAIL FROM:<s@x.test> SIZE=3 BODY=8BITMIME RET=FULL ENVID=a+3Db", "C: RCPT TO:<a@y.test> NOTIFY=FAILURE,DELAY", "C: RCPT TO:<b@y.test> ORCPT=rfc822;B+2B@y.test", "C: DATA",
		"S: 250 ok", "S: 250 ok", "S: 450 later", "S: 354 go", "C: *", "S: 250 ok",
		"C: MAIL FROM:<s@x.test> SIZE=3", "C: RCPT TO:<c@y.test>", "C: DATA", "S: 250 ok", "S: 250 ok", "S: 354 go", "C: *", "S: 554 no",
		"C: MAIL FROM:<s@x.test> SIZE=3", "C: RCPT TO:<d@y.test>", "C: DATA", "S: 250 ok", "S: 550 no", "S: 554 nobody",
		"C: RSET", "C: MAIL FROM:<s@x.test> SIZE=3", "C: RCPT TO:<e@y.test>", "C: DATA", "S: 250 ok", "S: 250 ok", "S: 250 ok", "S: 354 go", "C: *", "S: 250 ok",
		"C: QUIT", "S: 221 bye",
	), Options{}, func(c *Conn) {
		if r := c.Send(m); codes(r) != "250 450" {
			t.Errorf("%+v", r)
		}
		for _, x := range []struct{ name, want string }{{"c", "554"}, {"d", "550"}, {"e", "250"}} {
			if r := c.Send(message("x\r\n", x.name)); codes(r) != x.want || c.Broken() {
				t.Errorf("%s: %+v", x.name, r)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// TestPipelinedRefusals: whatever the server refuses in a group, and even if it
// takes DATA then, no message goes to anybody who was refused.
func TestPipelinedRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		replies    []string
	}{
		{"sender", "550 550", []string{"S: 550 no", "S: 503 first MAIL", "S: 503 first MAIL", "S: 503 first MAIL"}},
		{"sender, and a recipient is taken: no empty message is sent to it", "550 550", []string{"S: 550 no", "S: 250 ok"}},
		{"all recipients", "550 451", []string{"S: 250 ok", "S: 550 no", "S: 451 no", "S: 554 nobody"}},
		{"all recipients, and DATA is taken", "550 451", []string{"S: 250 ok", "S: 550 no", "S: 451 no", "S: 354 go", "C: .", "S: 554 nobody"}},
		{"DATA", "550 451", []string{"S: 250 ok", "S: 550 no", "S: 250 ok", "S: 451 no"}},
		{"421 in the middle", "550 421", []string{"S: 250 ok", "S: 550 no", "S: 421 bye"}},
		{"421 at first", "421 421", []string{"S: 421 bye"}},
		{"250 for DATA", "550 0", []string{"S: 250 ok", "S: 550 no", "S: 250 ok", "S: 250 no"}},
		{"354 for RCPT", "550 0", []string{"S: 250 ok", "S: 550 no", "S: 354 go"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := after(ehlo, "C: MAIL FROM:<s@x.test> SIZE=3", "C: RCPT TO:<a@y.test>", "C: RCPT TO:<b@y.test>", "C: DATA")
			_, err := converse(t, after(d, tt.replies...), Options{}, func(c *Conn) {
				if r := c.Send(message("x\r\n", "a", "b")); codes(r) != tt.want || r.Doubtful {
					t.Errorf("%+v", r)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefusedHere(t *testing.T) {
	plain := dialogue{"S: 220 mx.test", "C: EHLO us.test", "S: 250 mx.test", "C: QUIT", "S: 221 bye"}
	for name, m := range map[string]func(*Message){
		"5.6.7 sender":    func(m *Message) { m.Envelope.From.Local = "ä" },
		"5.6.7 recipient": func(m *Message) { m.Recipients[0].To.Local = "ä" },
		"5.6.7 header":    func(m *Message) { m.UTF8 = true },
		"5.6.3 binary":    func(m *Message) { m.Binary = true },
		"5.7.30 TLS only": func(m *Message) { m.Envelope.RequireTLS = true },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := converse(t, plain, Options{}, func(c *Conn) {
				msg := message("x\r\n", "a")
				m(&msg)
				r := c.Send(msg)
				if status, _, _ := strings.Cut(name, " "); codes(r) != "550" || r.Replies[0].Enhanced != status || r.Replies[0].From != "" {
					t.Errorf("%+v", r)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestInternationalDomainInALabels(t *testing.T) {
	_, err := converse(t, after(ehlo, "C: MAIL FROM:<s@xn--bcher-kva.test> SIZE=3", "C: RCPT TO:<\"a b\"@y.test>", "C: DATA", "S: 250 ok", "S: 250 ok", "S: 354 go", "C: *", "S: 250 ok", "C: QUIT", "S: 221 bye"),
		Options{}, func(c *Conn) {
			m := message("x\r\n", "a b")
			m.Envelope.From.Domain = "bücher.test"
			if r := c.Send(m); codes(r) != "250" {
				t.Errorf("%+v", r)
			}
		})
	if err != nil {
		t.Error(err)
	}
}

// TestBrokenBody: when the message cannot be read to its end, no final dot is sent.
func TestBrokenBody(t *testing.T) {
	broken := errors.New("damaged")
	ours, theirs := net.Pipe()
	rest := make(chan string, 1)
	go func() {
		defer theirs.Close()
		r := bufio.NewReader(theirs)
		for _, reply := range []string{"220 mx", "250 mx", "250 ok", "250 ok", "354 go"} {
			io.WriteString(theirs, reply+"\r\n")
			if reply != "354 go" {
				r.ReadString('\n')
			}
		}
		b, _ := io.ReadAll(r)
		rest <- string(b)
	}()
	c, err := Open(t.Context(), ours, "mx.test", Options{Hostname: "us.test"})
	if err != nil {
		t.Fatal(err)
	}
	m := message("", "a")
	m.Body = io.MultiReader(strings.NewReader("A: b\r\n"), iotest.ErrReader(broken))
	r := c.Send(m)
	if !errors.Is(r.BodyErr, broken) || codes(r) != "0" || r.Doubtful || !c.Broken() {
		t.Errorf("%+v", r)
	}
	c.Close()
	if got := <-rest; strings.Contains(got, "\r\n.\r\n") || strings.Contains(got, "QUIT") {
		t.Errorf("heard %q", got)
	}
}

// TestSpeaksBeforeTLS: what is said in the clear is not taken for the word of the
// other side under TLS.
func TestSpeaksBeforeTLS(t *testing.T) {
	_, err := converse(t, dialogue{
		"S: 220 mx", "C: EHLO us.test", "S: 250-mx", "S: 250 STARTTLS", "C: STARTTLS", "S: 220 go\r\n250-evil\r\n250 AUTH PLAIN",
	}, Options{}, func(*Conn) { t.Error("it went on") })
	if !errors.Is(err, ErrTLS) {
		t.Error(err)
	}
}

func TestOpenErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		d     dialogue
		phase string
		code  int
	}{
		"greeting":             {dialogue{"S: 554 no"}, "greeting", 554},
		"greeting of garbage":  {dialogue{"S: SSH-2.0-x"}, "greeting", 0},
		"no greeting":          {dialogue{}, "greeting", 0},
		"EHLO":                 {dialogue{"S: 220 mx", "C: EHLO us.test", "S: 451 no"}, "EHLO", 451},
		"EHLO and HELO":        {dialogue{"S: 220 mx", "C: EHLO us.test", "S: 550 no", "C: HELO us.test", "S: 550 no"}, "EHLO", 550},
		"endless continuation": {dialogue{"S: " + strings.Repeat("220-x\r\n", 200)}, "greeting", 0},
		"endless line":         {dialogue{"S: 220 " + strings.Repeat("x", 10_000)}, "greeting", 0},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				r := bufio.NewReader(theirs)
				for _, line := range tt.d {
					if strings.HasPrefix(line, "C: ") {
						r.ReadString('\n')
					} else if _, err := io.WriteString(theirs, line[3:]+"\r\n"); err != nil {
						return
					}
				}
			}()
			_, err := Open(t.Context(), ours, "mx.test", Options{Hostname: "us.test"})
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Phase != tt.phase || e.Reply.Code != tt.code || e.Reply.Text == "" || len(e.Error()) > 300 {
				t.Errorf("%+v", err)
			}
		})
	}
}

// TestTimeouts: each phase waits as long as RFC 5321, 4.5.3.2 says, and no longer.
func TestTimeouts(t *testing.T) {
	all := []string{"220 mx", "250 mx", "250 ok", "250 ok", "354 go", "250 ok"}
	for n, want := range []time.Duration{5 * time.Minute, 5 * time.Minute, 5 * time.Minute, 5 * time.Minute, 2 * time.Minute, 10 * time.Minute} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				go func() {
					go func() {
						for _, reply := range all[:n] {
							io.WriteString(theirs, reply+"\r\n")
						}
					}()
					io.Copy(io.Discard, theirs)
				}()
				start := time.Now()
				c, err := Open(t.Context(), ours, "mx.test", Options{Hostname: "us.test"})
				if err == nil {
					r := c.Send(message("x\r\n", "a"))
					if codes(r) != "0" || r.Replies[0].Text != "no answer in time" || r.Doubtful != (n == 5) {
						t.Errorf("%+v", r)
					}
					c.Close()
				}
				if got := time.Since(start); got != want {
					t.Errorf("it waited %v, want %v", got, want)
				}
				theirs.Close()
			})
		})
	}
}

// TestC06Tarpit: a server that takes nearly all the time that it has for each single reply does not have us for a day.
func TestC06Tarpit(t *testing.T) {
	for name, tt := range map[string]struct {
		extensions string
		each, most time.Duration
		want       int
	}{
		"patient":            {"250 mx", time.Minute, 12 * time.Minute, 250},
		"tarpit":             {"250 mx", 4 * time.Minute, 31 * time.Minute, 0},
		"tarpit, pipelining": {"250-mx\r\n250 PIPELINING", 4 * time.Minute, 31 * time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				go io.Copy(io.Discard, theirs)
				over := make(chan bool)
				go func() {
					defer close(over)
					for n, reply := range []string{"220 mx", tt.extensions, "250 a", "250 b", "250 c", "250 d", "250 e", "250 f", "250 g", "250 h", "250 i", "354 go", "250 ok"} {
						if n > 1 {
							time.Sleep(tt.each)
						}
						if _, err := io.WriteString(theirs, reply+"\r\n"); err != nil {
							return
						}
					}
				}()
				c, err := Open(t.Context(), ours, "mx.test", Options{Hostname: "us.test"})
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				r := c.Send(message("x\r\n", strings.Fields("a b c d e f g h")...))
				if d := time.Since(start); d > tt.most || r.Doubtful || r.Replies[0].Code != tt.want || r.Replies[7].Code != tt.want {
					t.Errorf("after %v: %+v", d, r)
				}
				c.drop()
				theirs.Close()
				<-over
			})
		})
	}
}

// TestSlowReader: a server that takes a message drop by drop is left in the end.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		over := make(chan bool)
		go func() {
			defer close(over)
			r := bufio.NewReader(theirs)
			for _, reply := range []string{"220 mx", "250 mx", "250 ok", "250 ok", "354 go"} {
				io.WriteString(theirs, reply+"\r\n")
				if reply != "354 go" {
					r.ReadString('\n')
				}
			}
			for b := make([]byte, 1000); ; time.Sleep(10 * time.Second) {
				if _, err := theirs.Read(b); err != nil {
					return
				}
			}
		}()
		c, err := Open(t.Context(), ours, "mx.test", Options{Hostname: "us.test"})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		r := c.Send(message(strings.Repeat("0123456789abcd\r\n", 1<<16), "a"))
		if d := time.Since(start); codes(r) != "0" || d > time.Hour || r.Doubtful {
			t.Errorf("%v: %+v", d, r)
		}
		c.Close()
		theirs.Close()
		<-over
	})
}

func TestContextClosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		if _, err := Open(ctx, ours, "mx.test", Options{Hostname: "us.test"}); err == nil || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestReadReply(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"250 ok\r\n", "250 ok"},
		{"250\r\n", "250"},
		{"250 ok\n", "250 ok"},
		{"250-one\r\n250-two\r\n250 three\r\n", "250 one two three"},
		{"550-5.1.1 no\r\n550 5.1.1 user\r\n", "550 5.1.1 no user"},
		{"550 4.1.1 the class is another\r\n", "550 4.1.1 the class is another"},
		{"250 a\x1b[31m\x00\x80b\r\n", "250 a?[31m??b"},
		{"250 a\rb\r\n", "250 a b"},
	} {
		_, reply, err := readReply(bufio.NewReader(strings.NewReader(tt.in)))
		if err != nil || reply.String() != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.in, reply, err, tt.want)
		}
	}
	for _, in := range []string{"", "\r\n", "25\r\n", "199 x\r\n", "600 x\r\n", "250x\r\n", "abc x\r\n", "250-a\r\n251 b\r\n", "250-a\r\n", "250 a", "2\xb20 a\r\n", "-250 a\r\n", " 250 a\r\n"} {
		if _, reply, err := readReply(bufio.NewReader(strings.NewReader(in))); err == nil {
			t.Errorf("%q was read as %q", in, reply)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "550-5.1.1 x\r\n550 5.1.1 y\r\n", "250\r\n", "354 \r\n", "220 \x00\x1b\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		_, reply, err := readReply(bufio.NewReaderSize(strings.NewReader(string(in)), 16))
		if err != nil {
			return
		}
		if reply.Code < 200 || reply.Code > 599 || len(reply.Text) > maxText || strings.ContainsAny(reply.String(), "\r\n\x00\x1b\x7f") {
			t.Fatalf("%q was read as %+v", in, reply)
		}
	})
}

func dotted(t testing.TB, parts ...string) string {
	t.Helper()
	var b strings.Builder
	d := &lineWriter{w: &b, dots: true}
	for _, p := range parts {
		if n, err := io.WriteString(d, p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLineWriter(t *testing.T) {
	for in, want := range map[string]string{
		"":                        ".\r\n",
		"a\r\nb\r\n":              "a\r\nb\r\n.\r\n",
		"a":                       "a\r\n.\r\n",
		".a\r\n..b\r\n.\r\n":      "..a\r\n...b\r\n..\r\n.\r\n",
		"a\nb\rc\r\r\nd\n\n":      "a\r\nb\r\nc\r\n\r\nd\r\n\r\n.\r\n",
		"\r\n.\r\r\nMAIL FROM:<>": "\r\n..\r\n\r\nMAIL FROM:<>\r\n.\r\n",
		"a\n.\nb":                 "a\r\n..\r\nb\r\n.\r\n",
		"a\r.\rb":                 "a\r\n..\r\nb\r\n.\r\n",
	} {
		if got := dotted(t, in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
		for cut := range len(in) {
			if got := dotted(t, in[:cut], in[cut:]); got != want {
				t.Errorf("%q cut at %d became %q, want %q", in, cut, got, want)
			}
		}
	}
}

// FuzzLineWriter: whatever a message holds, one end, no bare CR or LF, and a receiver
// that takes the dots off again has the message with its line ends put right.
func FuzzLineWriter(f *testing.F) {
	for _, s := range []string{"a\r\n.\r\nb", "\r\r\n.\r\n", "\n.\n", "\r.\r", ".\r", "\r\n.\x00\r\n"} {
		f.Add(s, 2)
	}
	f.Fuzz(func(t *testing.T, in string, cut int) {
		cut = min(max(cut, 0), len(in))
		got := dotted(t, in[:cut], in[cut:])
		if strings.ContainsAny(strings.ReplaceAll(got, "\r\n", ""), "\r\n") {
			t.Fatalf("%q became %q: a bare CR or LF", in, got)
		}
		lines := strings.SplitAfter(strings.TrimSuffix(got, ".\r\n"), "\r\n")
		for i, line := range lines {
			if line == ".\r\n" {
				t.Fatalf("%q became %q: two ends", in, got)
			}
			lines[i] = strings.TrimPrefix(line, ".")
		}
		want := strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n").Replace(in)
		if want != "" && !strings.HasSuffix(want, "\n") {
			want += "\r\n"
		}
		if back := strings.Join(lines, ""); back != want {
			t.Fatalf("%q arrives as %q, want %q", in, back, want)
		}
	})
}

func BenchmarkLineWriter(b *testing.B) {
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog, and then some more words.\r\n", 1000))
	d := &lineWriter{w: io.Discard, dots: true}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		d.Write(text)
	}
}
