package smtpd_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postroad/smtpd"
)

// From here on the cases have the letters and numbers of docs/attacks.md. A: lines, data and state.

// TestA04NUL: a NUL in a command is an error, and three of them are the end; one in a message is refused.
func TestA04NUL(t *testing.T) {
	t.Parallel()
	overAll(t, smtpd.MX, func(t *testing.T, s *server, dial func() *peer) {
		for _, line := range []string{"NOOP\x00", "\x00NOOP", "NO\x00OP", "MAIL FROM:<a\x00b@far.test>", "MAIL\x00FROM:<>", "RCPT TO:<alice@example.test\x00>"} {
			p := dial().greet(s)
			for range 3 {
				p.send(line + "\r\n")
				if got, err := p.reply(); err != nil || got.code != 500 && got.code != 501 && got.code != 421 {
					t.Fatalf("%q is answered %s (%v)", line, got, err)
				} else if got.code == 421 {
					break
				}
			}
			p.send("NOOP\r\n")
			p.ended()
		}
	})
	s := newHouse(t).serve(smtpd.MX, false)
	for _, body := range []string{"Subject: a\x00b\r\n\r\nx\r\n", "Sub\x00ject: a\r\n\r\nx\r\n", "Subject: a\r\n\r\nx\x00y\r\n", "\x00"} {
		for cut := range splits("DATA\r\n" + body + "\r\n.\r\nNOOP\r\nQUIT\r\n") {
			if o := s.play(t, nil, append([]string{s.opening()}, cut...)...); len(o.got) != 0 || !strings.Contains(o.said(), "550 5.6.") {
				t.Fatalf("%q by DATA:\n%s", body, o.said())
			}
		}
		for cut := range splits(fmt.Sprintf("BDAT %d LAST\r\n%sNOOP\r\nQUIT\r\n", len(body), body)) {
			if o := s.play(t, nil, append([]string{s.opening()}, cut...)...); len(o.got) != 0 || !strings.Contains(o.said(), "550 5.6.") {
				t.Fatalf("%q by BDAT:\n%s", body, o.said())
			}
		}
	}
}

// TestA05EndlessLine: a line without an end is read to its bound and no further, in every state.
func TestA05EndlessLine(t *testing.T) {
	for _, kind := range kinds {
		overAll(t, kind, func(t *testing.T, s *server, dial func() *peer) {
			states := map[string]func(p *peer) *peer{
				"at the start":     func(p *peer) *peer { return p.talk("< 220") },
				"greeted":          func(p *peer) *peer { return p.greet(s) },
				"in a transaction": func(p *peer) *peer { return p.begin(s) },
				"between chunks": func(p *peer) *peer {
					return p.begin(s).talk(">q \"BDAT 4\\r\\nab\\r\\n\"\n< 250")
				},
			}
			if kind == smtpd.Submission {
				states["in AUTH"] = func(p *peer) *peer {
					return p.talk("< 220\n> EHLO x\n< 250\n> AUTH PLAIN\n< 334")
				}
			}
			for state, reach := range states {
				p := reach(dial())
				sent := 0
				for piece := strings.Repeat("x", 64<<10); sent < 64<<20; sent += len(piece) {
					if _, err := io.WriteString(p, piece); err != nil {
						break
					}
				}
				if sent > 16<<20 { // sockets hold some
					t.Errorf("%s: %d octets are taken", state, sent)
				}
				if got, err := p.reply(); err == nil && got.code != 500 && got.code != 501 && got.code != 421 {
					t.Errorf("%s: %s", state, got)
				}
			}
		})
	}
}

// TestA05LineBounds: what is too long is told so, and ends the session; a long response of AUTH is none.
func TestA05LineBounds(t *testing.T) {
	s := newHouse(t).serve(smtpd.Submission, false)
	o := s.play(t, nil, s.opening(), "NOOP "+strings.Repeat("x", 20_000)+"\r\n", "DATA\r\nFrom: alice@example.test\r\n\r\nx\r\n.\r\nQUIT\r\n")
	if len(o.got) != 0 || !strings.Contains(o.said(), "500 5.5") {
		t.Errorf("a command of 20,005 octets:\n%s", o.said())
	}
	long := strings.Repeat("A", 12_200)
	o = s.play(t, nil, "EHLO x\r\nAUTH PLAIN\r\n"+long+"\r\nNOOP\r\nQUIT\r\n")
	if !strings.Contains(o.said(), "\n221 ") {
		t.Errorf("a response of AUTH with 12,200 octets:\n%s", o.said())
	}
	line := strings.Repeat("x", 1<<20)
	o = s.play(t, nil, s.opening(), "DATA\r\nFrom: alice@example.test\r\n\r\n"+line+"\r\n.\r\nQUIT\r\n")
	if len(o.got) != 1 {
		t.Errorf("a line of a message with 1 MiB:\n%s", o.said())
	}
}

// A chunkCase is what follows RCPT, and how many messages come of it. Where it breaks off, nothing after it is read
// as a command.
type chunkCase struct {
	name, stream string
	messages     int
	wants        string // a reply
}

// TestA06Chunks: whatever BDAT is given, octets of a chunk are never commands, and a chunk that is not whole is no
// message.
func TestA06Chunks(t *testing.T) {
	t.Parallel()
	evil := smuggled + "\r\n.\r\n"
	chunk := func(body, word string) string { return fmt.Sprintf("BDAT %d%s\r\n%s", len(body), word, body) }
	for _, kind := range kinds {
		s := newHouse(t).serve(kind, false, limits(func(l *smtpd.Limits) { l.MessageSize = 20_000 }))
		from := "From: " + s.from() + "\r\n\r\n"
		good := from + "good\r\n"
		again := s.toAlice() + chunk(good, " LAST")
		tests := []chunkCase{
			{"whole", chunk(good, " LAST"), 1, "250 2."},
			{"in two", chunk(from, "") + chunk("x\r\n", " LAST"), 1, "250 2."},
			{"empty last", chunk(good, "") + "BDAT 0 LAST\r\n", 1, "250 2."},
			{"a dot is no end", chunk(from+"a\r\n.\r\nb\r\n.\r\n", " LAST"), 1, "250 2."},
			{"commands in it", chunk(from+evil, " LAST"), 1, "250 2."},
			{"cut off", "BDAT 1000 LAST\r\n" + good, 0, ""},
			{"cut off in the second", chunk(from, "") + "BDAT 1000 LAST\r\n" + evil, 0, ""},
			{"no last", chunk(good, "") + "QUIT\r\n", 0, "221"},
			{"2^63", "BDAT 9223372036854775808 LAST\r\n" + evil, 0, "5"},
			{"2^64", "BDAT 18446744073709551616 LAST\r\n" + evil, 0, "5"},
			{"2^64 and a bit", fmt.Sprintf("BDAT 1844674407370955%d LAST\r\n", 1616+len(evil)) + evil, 0, "5"},
			{"2^63-1", "BDAT 9223372036854775807 LAST\r\n" + evil, 0, ""},
			{"negative", "BDAT -1 LAST\r\n" + evil, 0, "501"},
			{"negative 0", "BDAT -0 LAST\r\n" + evil, 0, "501"},
			{"with a plus", fmt.Sprintf("BDAT +%d LAST\r\n", len(evil)) + evil, 0, "501"},
			{"hexadecimal", fmt.Sprintf("BDAT 0x%x LAST\r\n", len(evil)) + evil, 0, "501"},
			{"no size", "BDAT\r\n" + evil, 0, "501"},
			{"only LAST", "BDAT LAST\r\n" + evil, 0, "501"},
			{"a word", "BDAT x LAST\r\n" + evil, 0, "501"},
			{"not LAST", chunk(evil, " FIRST"), 0, "501"},
			{"not LAST, in the middle", chunk(from, "") + chunk("lost", " FIRST") + chunk("x", " LAST"), 0, "501"},
			{"LAST twice", chunk(evil, " LAST LAST"), 0, "501"},
			{"a NUL in the line", "BDAT\x00 5 LAST\r\n" + evil, 0, "501"},
			{"a tab in the line", fmt.Sprintf("BDAT %d\tLAST\r\n", len(evil)) + evil, 0, "501"},
			{"a bare LF in the line", fmt.Sprintf("BDAT %d LAST\n", len(evil)) + evil, 0, "501"},
			{"a sign in its place", fmt.Sprintf("BDAT-%d LAST\r\n", len(evil)) + evil, 0, "501"},
			{"glued", chunk(evil, "LAST"), 0, "501"},
			{"digits of elsewhere", "BDAT ٣ LAST\r\n" + evil, 0, "501"},
			{"RSET between", chunk(from+"bad\r\n", "") + "RSET\r\n" + again, 1, "250 2."},
			{"EHLO between", chunk(from+"bad\r\n", "") + s.hello() + " x\r\n" + again, 1, "250 2."},
			{"MAIL between", chunk(from, "") + "MAIL FROM:<" + s.from() + ">\r\n", 0, "503"},
			{"RCPT between", chunk(from, "") + "RCPT TO:<bob@example.test>\r\n", 0, "503"},
			{"DATA after BDAT", chunk(from, "") + "DATA\r\n", 0, "503"},
			{"without RCPT", "RSET\r\nMAIL FROM:<" + s.from() + ">\r\n" + chunk(evil, " LAST") + "RSET\r\n" + again, 1, "503"},
			{"without MAIL", "RSET\r\n" + chunk(evil, " LAST") + again, 1, "503"},
			{"all recipients refused", "RSET\r\nMAIL FROM:<" + s.from() + ">\r\nRCPT TO:<nobody@example.test>\r\n" + chunk(evil, "") + chunk(evil, " LAST") + "RSET\r\n" + again, 1, "503"},
			{"after a message", chunk(good, " LAST") + chunk(evil, " LAST") + again, 2, "503"},
			{"bare LF", chunk(from+"a\nb\r\n", " LAST") + again, 1, "550 5.6.11"},
			{"bare LF, more chunks", chunk(from+"a\nb\r\n", "") + chunk(evil, "") + chunk(evil, " LAST") + again, 1, "550 5.6.11"},
			{"CR and LF in two chunks", chunk(from+"a\r", "") + chunk("\nb\r\n", " LAST"), 1, "250 2."},
			{"CR at the end of all", chunk(from+"a\r", " LAST") + again, 1, "550 5.6.11"},
			{"too large", chunk(from+strings.Repeat("0123456789abcd\r\n", 1500), " LAST") + again, 1, "552"},
			{"too large in all", strings.Repeat(chunk(strings.Repeat("0123456789abcd\r\n", 100), ""), 14) + chunk(evil, " LAST") + again, 1, "552"},
		}
		for _, test := range tests {
			t.Run(kind.String()+" "+test.name, func(t *testing.T) {
				for cut := range someSplits(test.stream + "NOOP\r\nQUIT\r\n") {
					o := s.play(t, nil, append([]string{s.opening()}, cut...)...)
					if len(o.got) != test.messages || !strings.Contains(o.said(), "\n"+test.wants) {
						t.Fatalf("cut after %d: %d messages, want %d and %s\n%s", len(cut[0]), len(o.got), test.messages, test.wants, o.said())
					}
					for _, m := range o.got {
						if m.Envelope.From.String() != s.from() {
							t.Fatalf("cut after %d: a message from %s\n%s", len(cut[0]), m.Envelope.From, o.said())
						}
					}
				}
			})
		}
	}
}

// someSplits is splits, of a long stream about 200 of them.
func someSplits(stream string) func(yield func([]string) bool) {
	step := max(1, len(stream)/200)
	return func(yield func([]string) bool) {
		n := 0
		for pieces := range splits(stream) {
			if n++; (n > 2 && n%step != 0) || len(pieces) > 3000 {
				continue
			}
			if !yield(pieces) {
				return
			}
		}
	}
}

// TestA06ManyChunks: chunks without octets, and of one octet, come to an end.
func TestA06ManyChunks(t *testing.T) {
	for _, chunk := range []string{"BDAT 0\r\n", "BDAT 1\r\nx"} {
		t.Run(chunk, func(t *testing.T) {
			s := newHouse(t).serve(smtpd.MX, false)
			o := s.play(t, stranger, s.opening(), strings.Repeat(chunk, 50_000), "BDAT 0 LAST\r\nQUIT\r\n")
			last := o.replies[len(o.replies)-1]
			if len(o.got) != 0 || last.code != 421 {
				t.Errorf("after %d replies: %s; %d messages", len(o.replies), last, len(o.got))
			}
		})
	}
}

// TestA07TLSEndsInData: when TLS is closed in the middle of a message, the connection is over: what follows in the
// clear is neither read nor answered, and nothing is delivered.
func TestA07TLSEndsInData(t *testing.T) {
	h := newHouse(t)
	for _, kind := range kinds {
		for _, implicit := range []bool{true, false} {
			s := h.serve(kind, implicit)
			for _, way := range []string{"DATA\r\nFrom: " + s.from() + "\r\n\r\nhalf", "BDAT 1000 LAST\r\nFrom: " + s.from() + "\r\n\r\nhalf", "NOOP\r\n"} {
				nc, err := net.Dial("tcp", s.addr)
				h.must(err)
				p := newPeer(t, nc)
				if !implicit {
					p.talk("< 220\n> " + s.hello() + " x\n< 250\n> STARTTLS\n< 220")
				}
				c := tls.Client(nc, anyServer())
				p.Conn, p.r = c, newPeer(t, c).r
				if implicit {
					p.talk("< 220")
				}
				p.talk("> " + s.hello() + " x\n< 250")
				p.send(strings.TrimPrefix(s.opening(), s.hello()+" client.test\r\n") + way)
				h.must(c.CloseWrite())
				io.WriteString(nc, "\r\n.\r\n"+s.opening()+"DATA\r\nFrom: "+s.from()+"\r\n\r\nin the clear\r\n.\r\nQUIT\r\n")
				rest, err := io.ReadAll(nc) // what is left is TLS, or nothing
				if ne, ok := err.(net.Error); ok && ne.Timeout() {
					t.Fatalf("%v: the connection stays open", kind)
				}
				if strings.Contains(string(rest), "250") || strings.Contains(string(rest), hostname) {
					t.Errorf("%v, %.8q: answered in the clear: %q", kind, way, rest)
				}
				s.quiet()
				if got := h.queue.take(); len(got) != 0 {
					t.Errorf("%v, %.8q: %d messages", kind, way, len(got))
				}
			}
		}
	}
}

// TestA08AfterARefusal: what is refused at its end leaves no recipient and no sender, and the next message is looked
// at as the first was. After a line end that others may see elsewhere there is no next.
func TestA08AfterARefusal(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, kind := range kinds {
		s := h.serve(kind, false)
		body := "From: " + s.from() + "\r\n\r\n"
		bare, loop := body+"a\nb\r\n", strings.Repeat("Received: x\r\n", 101)+body
		refusals := []struct {
			name, stream string
			goesOn       bool
		}{
			{"DATA with a bare LF", "DATA\r\n" + bare + ".\r\n", false},
			{"DATA", "DATA\r\n" + loop + ".\r\n", true},
			{"BDAT with a bare LF", fmt.Sprintf("BDAT %d LAST\r\n%s", len(bare), bare), true},
			{"BDAT", fmt.Sprintf("BDAT %d LAST\r\n%s", len(loop), loop), true},
			{"two chunks", fmt.Sprintf("BDAT %d\r\n%sBDAT 2 LAST\r\n\r\n", len(bare), bare), true},
		}
		next := []struct {
			name, stream string
			messages     int
		}{
			{"RCPT and DATA", "RCPT TO:<bob@example.test>\r\nDATA\r\n" + body + "x\r\n.\r\n", 0},
			{"DATA", "DATA\r\n" + body + "x\r\n.\r\n", 0},
			{"BDAT", fmt.Sprintf("BDAT %d LAST\r\n%s", len(body), body), 0},
			{"a relay trick", "MAIL FROM:<" + s.from() + ">\r\nRCPT TO:<nobody@example.test>\r\nDATA\r\n" + body + "x\r\n.\r\n", 0},
			{"one more that is bad", s.toAlice() + "DATA\r\n" + bare + ".\r\n", 0},
			{"a good one", "MAIL FROM:<" + s.from() + ">\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n" + body + "x\r\n.\r\n", 1},
		}
		for _, refused := range refusals {
			for _, test := range next {
				want := test.messages
				if !refused.goesOn {
					want = 0
				}
				for cut := range someSplits(refused.stream + test.stream + "QUIT\r\n") {
					o := s.play(t, nil, append([]string{s.opening()}, cut...)...)
					if len(o.got) != want {
						t.Fatalf("%v: after a refusal by %s, %s cut after %d: %d messages\n%s", kind, refused.name, test.name, len(cut[0]), len(o.got), o.said())
					}
					if want == 1 && (len(o.got[0].rcpts) != 1 || o.got[0].rcpts[0].To.String() != "bob@example.test") {
						t.Fatalf("%v: after a refusal by %s it goes to %v", kind, refused.name, o.got[0].rcpts)
					}
				}
			}
		}
	}
}

// TestA09WhatIsPipelinedTooEarly: AUTH and STARTTLS are the last of what a client says before it listens; what comes
// with them is no command.
func TestA09WhatIsPipelinedTooEarly(t *testing.T) {
	s := newHouse(t).serve(smtpd.Submission, false)
	message := "MAIL FROM:<alice@example.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nFrom: alice@example.test\r\n\r\nx\r\n.\r\n"
	for name, stream := range map[string]string{
		"AUTH LOGIN":  "EHLO x\r\nAUTH LOGIN\r\n" + message,
		"AUTH PLAIN":  "EHLO x\r\nAUTH PLAIN\r\n" + message,
		"STARTTLS":    "EHLO x\r\nSTARTTLS\r\n" + message,
		"logged in":   "EHLO x\r\n" + s.login() + "STARTTLS\r\n" + "QUIT\r\n" + message,
		"QUIT":        "EHLO x\r\n" + s.login() + "QUIT\r\n" + message,
		"AUTH, wrong": "EHLO x\r\nAUTH PLAIN AAAA\r\n" + message,
	} {
		for cut := range someSplits(stream) {
			if len(cut) > 2 && strings.HasPrefix(name, "AUTH") {
				continue // each wrong login takes its time
			}
			if o := s.play(t, nil, cut...); len(o.got) != 0 {
				t.Fatalf("%s cut after %d:\n%s", name, len(cut[0]), o.said())
			}
			if strings.HasPrefix(name, "AUTH") {
				break
			}
		}
	}
}

// TestA09EarlyData: a stranger who sends a message before it was asked for sends none, however it is cut.
func TestA09EarlyData(t *testing.T) {
	h := newHouse(t)
	s := h.serve(smtpd.MX, false)
	message := "Subject: x\r\n\r\nx\r\n.\r\n"
	for cut := range len(s.opening()) {
		c := s.pipes.dial(stranger)
		p := newPeer(t, c).talk("< 220")
		p.send(s.opening()[:cut])
		p.send(s.opening()[cut:] + "DATA\r\n" + message + s.toAlice() + "QUIT\r\n")
		c.CloseWrite()
		last := reply{}
		for {
			got, err := p.reply()
			if err != nil {
				break
			}
			last = got
		}
		if got := s.queue.take(); len(got) != 0 || last.code != 503 {
			t.Fatalf("cut at %d: %d messages, %s", cut, len(got), last)
		}
	}
}

// TestA10OtherProtocols: who speaks something else is dropped, whatever commands follow.
func TestA10OtherProtocols(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	others := []string{
		"GET / HTTP/1.1\r\nHost: mx.example.test\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 200\r\n\r\n", "HEAD / HTTP/1.0\r\n\r\n",
		"PUT /x HTTP/1.1\r\n\r\n", "DELETE /x HTTP/1.1\r\n\r\n", "OPTIONS * HTTP/1.1\r\n\r\n", "PATCH / HTTP/1.1\r\n\r\n", "TRACE / HTTP/1.1\r\n\r\n",
		"CONNECT mx.example.test:25 HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"SSH-2.0-OpenSSH_9.9\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00\r\n", 40),
		"get / http/1.1\r\n\r\n", "GET /\r\n",
	}
	for _, kind := range kinds {
		s := h.serve(kind, false)
		commands := s.opening() + "DATA\r\nFrom: " + s.from() + "\r\n\r\nx\r\n.\r\nQUIT\r\n"
		for _, other := range others {
			for cut := range someSplits(other + commands) {
				o := s.play(t, nil, cut...)
				if len(o.got) != 0 || len(o.replies) > 2 {
					t.Fatalf("%v: %.30q cut after %d: %d messages\n%s", kind, other, len(cut[0]), len(o.got), o.said())
				}
			}
			if o := s.play(t, nil, s.opening(), other, strings.TrimPrefix(commands, s.hello()+" client.test\r\n")); len(o.got) != 0 {
				t.Fatalf("%v: %.30q in a session\n%s", kind, other, o.said())
			}
		}
	}
}

// TestA11ManyRecipients: a thousand are taken, more are told to wait, and a name that is given again is there once.
func TestA11ManyRecipients(t *testing.T) {
	h := newHouse(t)
	for _, kind := range kinds {
		s := h.serve(kind, false)
		o := s.play(t, nil, s.opening()+strings.Repeat("RCPT TO:<ALICE@example.test>\r\n", 1099)+"RCPT TO:<bob@example.test>\r\nDATA\r\nFrom: "+s.from()+"\r\n\r\nx\r\n.\r\nQUIT\r\n")
		if len(o.got) != 1 || len(o.got[0].rcpts) != 1 || strings.Count(o.said(), "\n452 4.5.3") != 101 {
			t.Errorf("%v: %d messages, %d times 452\n%.1000s", kind, len(o.got), strings.Count(o.said(), "\n452 4.5.3"), o.said())
		}
	}
}

// TestA11RecipientsCostLittle: 100,000 recipients leave no more than the thousand that were taken.
func TestA11RecipientsCostLittle(t *testing.T) {
	s := newHouse(t).serve(smtpd.MX, false)
	p := s.pipe(t, stranger).begin(s)
	before := heap()
	go func() {
		for range 100 {
			p.send(strings.Repeat("RCPT TO:<alice@example.test>\r\n", 1000))
		}
	}()
	for range 100_000 {
		if got, err := p.reply(); err != nil || got.code == 421 {
			break
		}
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("%d octets are held", grown)
	}
}

// TestA12SizeLies: what was announced binds nobody; more than the limit is refused, far more is cut off, and what is
// given up leaves nothing on the disk.
func TestA12SizeLies(t *testing.T) {
	h := newHouse(t)
	const limit = 1 << 20
	s := h.serve(smtpd.MX, false, limits(func(l *smtpd.Limits) { l.MessageSize = limit }))
	piece := strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n", 1024) // 64 KiB
	h.queue.wet = true
	files := h.files()
	for range 20 {
		p := s.dial(t).greet(s).talk("> MAIL FROM:<sender@far.test> SIZE=1\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354")
		for range 15 {
			p.send(piece)
		}
		p.send("almost\r\n.\r")
		p.Close()
	}
	s.quiet()
	if got := h.queue.take(); len(got) != 0 {
		t.Errorf("%d messages without an end are taken", len(got))
	}
	if now := h.files(); now != files {
		t.Errorf("of messages that were given up there is left:\n%s\nbefore:\n%s", now, files)
	}
	p := s.dial(t).greet(s).talk("> MAIL FROM:<sender@far.test> SIZE=1\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354")
	p.send(strings.Repeat(piece, 17) + ".\r\n")
	p.talk("< 552 5.3.4\n> NOOP\n< 250")
	p.talk("> MAIL FROM:<sender@far.test> SIZE=1\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354")
	sent := 0
	for ; sent < 256<<20; sent += len(piece) {
		if _, err := io.WriteString(p, piece); err != nil {
			break
		}
	}
	if sent > 32<<20 {
		t.Errorf("%d octets of a message are read that may have %d", sent, limit)
	}
	s.play(t, stranger, s.hello()+" x\r\nMAIL FROM:<sender@far.test> SIZE=1\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n")
	s.play(t, stranger, s.hello()+" x\r\nMAIL FROM:<sender@far.test> SIZE=99999999999999999999\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nQUIT\r\n")
}

// files is what lies in the store's directory.
func (h *house) files() string {
	var names []string
	filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	return strings.Join(names, "\n")
}

// TestA13UTF8: an address that is not ASCII needs SMTPUTF8, and asking about one changes nothing.
func TestA13UTF8(t *testing.T) {
	overAll(t, smtpd.MX, func(t *testing.T, s *server, dial func() *peer) {
		dial().greet(s).talk(`
			> MAIL FROM:<jörg@far.test>
			< 553 5.6.7|550 5.6.7
			> MAIL FROM:<sender@fär.test>
			< 553 5.6.7|550 5.6.7
			> MAIL FROM:<sender@far.test>
			< 250
			> RCPT TO:<jörg@example.test>
			< 553 5.6.7|550 5.6.7
			> RCPT TO:<alice@example.test>
			< 250
			> VRFY jörg@example.test
			< 252|550|553|501
			> VRFY jörg@example.test SMTPUTF8
			< 252|550|553
			> EXPN jörg@example.test
			< 5
			> DATA
			< 354
			> Subject: x
			>
			> .
			< 250
			> MAIL FROM:<jörg@far.test> SMTPUTF8
			< 250
			>q "RCPT TO:<\xff\xfe@example.test>\r\n"
			< 5
			> RCPT TO:<alice@example.test>
			< 250
			> RSET
			< 250
			> QUIT
			< 221`)
		for _, line := range []string{"MAIL FROM:<\xff\xfe@far.test> SMTPUTF8", "MAIL FROM:<\xc0\xae@far.test> SMTPUTF8", "EHLO \xff", "EHLO j\xc3"} {
			p := dial().greet(s)
			p.send(line + "\r\n")
			p.expect("500|501|553")
			p.talk("> QUIT\n< 221")
		}
		if got := s.queue.take(); len(got) != 1 || len(got[0].rcpts) != 1 {
			t.Errorf("%d messages", len(got))
		}
	})
}

// TestA14OddAddresses: what is no address is refused as that.
func TestA14OddAddresses(t *testing.T) {
	paths := []string{
		`<"">`, `<""@example.test>`, `<@>`, `<a@>`, `<@example.test>`, `<"\">`, `<"\"@example.test>`, `<">`, `<"@example.test>`, `<a"b@example.test>`, `<"a"b@example.test>`,
		"<" + strings.Repeat("a", 65) + "@example.test>", "<" + strings.Repeat("a", 10_000) + "@example.test>", `<"` + strings.Repeat("a", 10_000) + `"@example.test>`,
		"<alice@" + strings.Repeat("a", 64) + ".test>", "<alice@" + strings.Repeat("a.", 148) + "test>", "<alice@" + strings.Repeat("a", 300) + ">",
		"<.a@example.test>", "<a.@example.test>", "<a..b@example.test>", "<a b@example.test>", "<a@b@example.test>", "<a@example..test>", "<a@.example.test>", "<a@example.test.>",
		"<a@-example.test>", "<a@example-.test>", "<a@exam ple.test>", "<a@[127.0.0.1>", "<a@[127.0.0]>", "<a@[IPv6:zz]>", "<a@[]>", "<a@127.0.0.1>",
		"<a@example.test", "a@example.test>", "<<a@example.test>>", "<>x", "", "<", ">", "<a@example.test>x", "<a@example.test>SIZE=1", "<\ta@example.test>", "<a@example.test >",
		"<" + strings.Repeat("@x.test,", 1200) + "@y.test:alice@example.test>", "<" + strings.Repeat("(", 5000) + ">", "<" + strings.Repeat(`"`, 5000) + ">", `<"` + strings.Repeat(`\`, 5001) + `"@example.test>`,
	}
	overAll(t, smtpd.MX, func(t *testing.T, s *server, dial func() *peer) {
		for _, path := range paths {
			p := dial().greet(s)
			p.send("MAIL FROM:" + path + "\r\n")
			if got := p.expect("501|553|555|500"); got.code == 500 && len(path) > 2000 {
				p.ended() // a command that long is the end
				continue
			}
			p.talk("> MAIL FROM:<>\n< 250")
			p.send("RCPT TO:" + path + "\r\n")
			p.expect("501|553|555|500|550 5.1.")
			p.talk("> DATA\n< 503|554\n> QUIT\n< 221").Close()
		}
	}, limits(func(l *smtpd.Limits) { l.PerAddress = 10_000 }))
}

// TestA15Xtext: ENVID and ORCPT hold what RFC 3461 lets them, and no octet that could be one of ours.
func TestA15Xtext(t *testing.T) {
	overAll(t, smtpd.MX, func(t *testing.T, s *server, dial func() *peer) {
		for _, bad := range []string{"a+00", "a+0D+0Ab", "+0A", "+0D", "+1B[31m", "+7F", "+", "a+", "a+4", "+GG", "+4G", "+0a", "+e4", "+80+ff", "a=b", "a\x01b", "ä", strings.Repeat("x", 1000)} {
			p := dial().greet(s)
			p.send("MAIL FROM:<sender@far.test> ENVID=" + bad + "\r\n")
			p.expect("501|500|555")
			p.Close()
			p = dial().greet(s).talk("> MAIL FROM:<sender@far.test>\n< 250")
			for _, kind := range []string{"rfc822;", "utf-8;", "x;"} {
				if kind == "utf-8;" && bad != "a\x01b" || len(bad) > 100 {
					continue // it has an encoding of its own (RFC 6533, 3); only ENVID may have no more than 100 octets
				}
				p.send("RCPT TO:<alice@example.test> ORCPT=" + kind + bad + "\r\n")
				p.expect("501|500|555")
			}
			p.Close()
		}
		p := dial().greet(s).talk("> MAIL FROM:<sender@far.test>\n< 250")
		for _, bad := range []string{"", ";", "rfc822", "rfc822;", ";a@b", "rfc 822;a@b", `utf-8;a\x{0D}\x{0A}b`, `utf-8;a\x{0}`, `utf-8;a\x{110000}`, `utf-8;\x{D800}`, `utf-8;\x{`, "rfc822;a@b rfc822;c@d"} {
			p.send("RCPT TO:<alice@example.test> ORCPT=" + bad + "\r\n")
			p.expect("501|555")
		}
	}, limits(func(l *smtpd.Limits) { l.Errors = 1000 }))
}

// TestA16WhoSpeaksForOthers: nobody who was not named may say who the client is.
func TestA16WhoSpeaksForOthers(t *testing.T) {
	h := newHouse(t)
	for _, kind := range kinds {
		s := h.serve(kind, false)
		for _, from := range []net.IP{nil, net.IPv4(127, 0, 0, 1), stranger} {
			p := s.pipe(t, from).talk("< 220\n> " + s.hello() + " x")
			for _, line := range p.expect("250").text {
				if strings.HasPrefix(line, "XCLIENT") || strings.HasPrefix(line, "XFORWARD") {
					t.Errorf("%v offers %s to %v", kind, line, from)
				}
			}
			p.talk(`
				> XCLIENT ADDR=192.0.2.77 LOGIN=alice@example.test PROTO=ESMTP
				< 5
				> XFORWARD ADDR=192.0.2.77 NAME=spike.far.test
				< 5
				> MAIL FROM:<alice@example.test>
				< ` + map[bool]string{true: "530", false: "250"}[kind == smtpd.Submission])
		}
	}
	for _, header := range []string{
		"PROXY TCP4 192.0.2.77 192.0.2.1 4711 25\r\n", "PROXY UNKNOWN\r\n", "PROXY TCP4 \xff\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x4d\xc0\x00\x02\x01\x12\x67\x00\x19", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
	} {
		s := h.serve(smtpd.MX, false)
		o := s.play(t, stranger, header+s.opening()+"DATA\r\nx\r\n.\r\nQUIT\r\n")
		for _, m := range o.got {
			if m.Origin.Peer != stranger.String() {
				t.Errorf("%q makes the client %s", header, m.Origin.Peer)
			}
		}
	}
}

// TestA17Loops: commands that do nothing come to an end.
func TestA17Loops(t *testing.T) {
	h := newHouse(t)
	s := h.serve(smtpd.MX, false)
	for _, command := range []string{"RSET", "NOOP", "VRFY alice", "EXPN alice", "HELP", "ETRN example.test", "EHLO x", "XYZZY", "MAIL FROM:<>\r\nRSET", "NOOP " + strings.Repeat("x", 400)} {
		o := s.play(t, stranger, "EHLO x\r\n", strings.Repeat(command+"\r\n", 40_000), s.opening()+"DATA\r\nx\r\n.\r\nQUIT\r\n")
		if last := o.replies[len(o.replies)-1]; last.code != 421 || len(o.got) != 0 {
			t.Errorf("%.20s: after %d replies: %s", command, len(o.replies), last)
		}
	}
	for _, command := range []string{"RCPT TO:<nobody@example.test>", "RCPT TO:<a@elsewhere.test>", "DATA", "MAIL FROM:<x", "XYZZY"} {
		o := s.play(t, stranger, s.opening(), strings.Repeat(command+"\r\n", 2000), "RSET\r\n"+s.toAlice()+"DATA\r\nx\r\n.\r\nQUIT\r\n")
		if last := o.replies[len(o.replies)-1]; command != "DATA" && (last.code != 421 || len(o.got) != 0 || len(o.replies) > 200) {
			t.Errorf("%.20s: after %d replies: %s", command, len(o.replies), last)
		}
	}
}
