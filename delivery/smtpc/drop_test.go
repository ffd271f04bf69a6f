package smtpc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A course is a conversation with one message, as replies and what they answer. "*" is the message, "#3" three octets.
type course struct {
	name  string
	lmtp  bool
	set   func(*Message)
	steps [][2]string // what is awaited, and what is said then
}

var courses = []course{
	{"step by step", false, nil, [][2]string{
		{"", "220 mx"}, {"EHLO us.test", "250 mx"}, {"MAIL FROM:<s@x.test>", "250 ok"}, {"RCPT TO:<a@y.test>", "250 ok"}, {"DATA", "354 go"}, {"*", "250 done"}}},
	{"pipelined", false, nil, [][2]string{
		{"", "220 mx"}, {"EHLO us.test", "250-mx\r\n250 PIPELINING"}, {"MAIL FROM:<s@x.test>", "250 ok"}, {"RCPT TO:<a@y.test>", "250 ok"}, {"DATA", "354 go"}, {"*", "250 done"}}},
	{"LMTP", true, nil, [][2]string{
		{"", "220 mx"}, {"LHLO us.test", "250-mx\r\n250 PIPELINING"}, {"MAIL FROM:<s@x.test>", "250 ok"}, {"RCPT TO:<a@y.test>", "250 ok"}, {"DATA", "354 go"}, {"*", "250 done"}}},
	{"binary", false, func(m *Message) { m.Binary, m.Envelope.Body = true, "BINARYMIME" }, [][2]string{
		{"", "220 mx"}, {"EHLO us.test", "250-mx\r\n250-BINARYMIME\r\n250 CHUNKING"}, {"MAIL FROM:<s@x.test> BODY=BINARYMIME", "250 ok"}, {"RCPT TO:<a@y.test>", "250 ok"}, {"BDAT 3 LAST", ""}, {"#3", "250 done"}}},
}

// play is the server's end of a course, in which say says what is to be said at each step, and reports whether to go on.
func (k course) play(c net.Conn, say func(step int, reply string) bool) error {
	defer c.Close()
	r := bufio.NewReader(c)
	for i, step := range k.steps {
		if err := await(r, step[0]); err != nil {
			return fmt.Errorf("%q: %w", step[0], err)
		}
		if step[1] != "" && !say(i, step[1]+"\r\n") {
			return nil
		}
	}
	io.Copy(io.Discard, r)
	return nil
}

func await(r *bufio.Reader, want string) error {
	var n int
	if _, err := fmt.Sscanf(want, "#%d", &n); err == nil {
		_, err := io.CopyN(io.Discard, r, int64(n))
		return err
	}
	for want != "" {
		line, err := r.ReadString('\n')
		switch {
		case err != nil:
			return err
		case want == "*" && line != ".\r\n":
			continue
		case want != "*" && line != want+"\r\n":
			return fmt.Errorf("heard %q", line)
		}
		return nil
	}
	return nil
}

// talk runs a course. An error is that of Open.
func (k course) talk(t *testing.T, say func(c net.Conn, step int, reply string) bool) (Result, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	over := make(chan error)
	go func() { over <- k.play(theirs, func(step int, reply string) bool { return say(theirs, step, reply) }) }()
	c, err := Open(t.Context(), ours, "mx.test", Options{Hostname: "us.test", LMTP: k.lmtp, Timeouts: Timeouts{Quit: time.Millisecond}})
	var r Result
	if err == nil {
		m := message("x\r\n", "a")
		if k.set != nil {
			k.set(&m)
		}
		r = c.Send(m)
		c.Close()
	}
	ours.Close()
	<-over
	return r, err
}

// TestDrops: a connection that ends, or goes silent, at any point leaves recipients open, and the message is called possibly
// delivered when it was sent to its end, and only then. Neither a half reply nor a half of what we say makes a difference.
func TestDrops(t *testing.T) {
	for _, k := range courses {
		last := len(k.steps) - 1
		for drop := range k.steps {
			for _, how := range []string{"close", "half a reply", "silence", "421", "half of 421"} {
				if k.steps[drop][1] == "" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/%s", k.name, drop, how), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						r, err := k.talk(t, func(c net.Conn, step int, reply string) bool {
							if step != drop {
								io.WriteString(c, reply)
								return true
							}
							switch how {
							case "half a reply":
								io.WriteString(c, reply[:2])
							case "silence":
								time.Sleep(time.Hour)
							case "421":
								io.WriteString(c, "421 4.3.2 bye\r\n")
							case "half of 421":
								io.WriteString(c, "421-4.3.2 bye\r\n")
							}
							return false
						})
						if drop < 2 {
							if e, ok := errors.AsType[*Error](err); !ok || e.Reply.Text == "" {
								t.Errorf("opened: %v", err)
							}
							return
						}
						want, doubtful := "0", drop == last
						if how == "421" {
							want, doubtful = "421", false
						}
						if err != nil || codes(r) != want || r.Doubtful != doubtful || r.Replies[0].Text == "" {
							t.Errorf("%v, %+v", err, r)
						}
					})
				})
			}
		}
	}
}

// TestSplitReplies: replies that come in any two pieces, or octet by octet, are the same.
func TestSplitReplies(t *testing.T) {
	for _, k := range courses {
		for cut := 1; cut < 24; cut++ {
			r, err := k.talk(t, func(c net.Conn, step int, reply string) bool {
				for cut := cut; len(reply) > 0; {
					n := min(cut, len(reply))
					if cut == 23 {
						n = 1
					}
					io.WriteString(c, reply[:n])
					reply = reply[n:]
				}
				return true
			})
			if err != nil || codes(r) != "250" || r.Doubtful {
				t.Errorf("%s cut at %d: %v, %+v", k.name, cut, err, r)
			}
		}
	}
}

// TestC06RepliesWithoutEnd: a reply of a million lines, or one line of as many octets, at any step: it is left soon, with words.
func TestC06RepliesWithoutEnd(t *testing.T) {
	for _, k := range courses {
		for flood := range k.steps {
			if k.steps[flood][1] == "" {
				continue
			}
			for name, piece := range map[string]string{"lines": "250-x\x1b[31m\x80\r\n", "one line": "250 xxxxxxxxxxx", "CR": "250-x\r", "octets": "\x00\x1b\xff"} {
				sent := 0
				r, err := k.talk(t, func(c net.Conn, step int, reply string) bool {
					if step != flood {
						io.WriteString(c, reply)
						return true
					}
					for range 1_000_000 {
						n, err := io.WriteString(c, piece)
						if sent += n; err != nil {
							return false
						}
					}
					return false
				})
				if sent > 100_000 {
					t.Errorf("%s, %s at %d: %d octets were read", k.name, name, flood, sent)
				}
				words := fmt.Sprint(err)
				if err == nil {
					words = r.Replies[0].String()
				}
				if codes(r) == "250" || len(words) > 1200 || strings.ContainsAny(words, "\r\n\x00\x1b") || words == "" {
					t.Errorf("%s, %s at %d: %q", k.name, name, flood, words)
				}
			}
		}
	}
}

// FuzzServer: whatever a server says, from the first octet on, the conversation ends, and nothing is taken for accepted before
// the message was sent.
func FuzzServer(f *testing.F) {
	for _, k := range courses {
		var all string
		for _, step := range k.steps {
			if step[1] != "" {
				all += step[1] + "\r\n"
			}
		}
		f.Add([]byte(all), k.lmtp)
	}
	f.Add([]byte("220 x\r\n250-x\r\n250-LIMITS RCPTMAX=1\r\n250-SIZE 1\r\n250 AUTH=PLAIN\r\n"), false)
	f.Add([]byte("220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n"), false)
	f.Fuzz(func(t *testing.T, said []byte, lmtp bool) {
		ours, theirs := net.Pipe()
		heard := make(chan int)
		go func() {
			text, _ := io.ReadAll(theirs)
			heard <- strings.Count(string(text), "\r\n.\r\n") + strings.Count(string(text), " LAST\r\n")
		}()
		go func() {
			for rest := said; len(rest) > 0; { // each line when somebody listens
				n := strings.IndexByte(string(rest), '\n') + 1
				if n == 0 {
					n = len(rest)
				}
				if _, err := theirs.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
			theirs.Close()
		}()
		c, err := Open(t.Context(), ours, "mx.test", Options{Hostname: "us.test", LMTP: lmtp, Timeouts: Timeouts{Quit: time.Millisecond}})
		var r Result
		if err == nil {
			r = c.Send(message("x\r\n", "a", "b"))
			c.Close()
		}
		ours.Close()
		theirs.Close()
		ends := <-heard
		for _, reply := range r.Replies {
			if reply.Code/100 == 2 && ends == 0 || reply.Code == 0 && reply.Text == "" || strings.ContainsAny(reply.String(), "\r\n\x00\x1b") {
				t.Errorf("%q: %+v with %d messages", said, reply, ends)
			}
		}
		if r.Doubtful && ends == 0 {
			t.Errorf("%q: doubtful, and nothing was sent", said)
		}
	})
}

// FuzzExtensions: any lines of EHLO.
func FuzzExtensions(f *testing.F) {
	f.Add("PIPELINING\nSIZE 10\nAUTH=PLAIN\nLIMITS RCPTMAX=1 MAILMAX=x")
	f.Add("=\n \n\t=x\nAUTH\nAUTH =\nLIMITS =5")
	f.Fuzz(func(t *testing.T, lines string) {
		c := &Conn{}
		c.extensions(append([]string{"mx.test"}, strings.Split(lines, "\n")...))
		for keyword, param := range c.ext {
			if strings.ContainsAny(keyword, " \t=") || param != strings.Trim(param, " ") {
				t.Errorf("%q: %q has %q", lines, keyword, param)
			}
		}
		for _, name := range []string{"RCPTMAX", "MAILMAX"} {
			if c.limit(name) < 0 {
				t.Errorf("%q: %s is %d", lines, name, c.limit(name))
			}
		}
	})
}
