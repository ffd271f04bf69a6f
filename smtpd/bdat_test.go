package smtpd

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestBDAT(t *testing.T) {
	h := open(t, MX, false)
	c := h.dial(t)
	c.talk(toAlice)
	for _, chunk := range []string{"Subject: chunks\r\n\r\n.a", "", "b\r", "\nc\r\n.\r\nno end"} {
		c.send(fmt.Sprintf("BDAT %d\r\n%s", len(chunk), chunk))
		c.expect("250 2.0.0 chunk taken")
	}
	c.talk(`
		> NOOP
		< 250
		> MAIL FROM:<again@far.test>
		< 503
		> DATA
		< 503
		> BDAT 0 LAST
		< 250 2.0.0 queued as`)
	c.send("MAIL FROM:<sender@far.test>\r\nRCPT TO:<bob@example.test>\r\nBDAT 7 LAST\r\nsecond.NOOP\r\n")
	c.talk("< 250\n< 250\n< 250 2.0.0 queued\n< 250")
	got := h.queue.messages()
	if len(got) != 2 {
		t.Fatalf("%d messages", len(got))
	}
	if s := h.queue.content(t, got[0]); s != "Subject: chunks\r\n\r\n.ab\r\nc\r\n.\r\nno end" {
		t.Errorf("stored %q", s)
	}
	if s := h.queue.content(t, got[1]); s != "second." {
		t.Errorf("stored %q", s)
	}
}

// Octets of a chunk that was refused must never run as commands.
func TestRefusedChunkDoesNotRun(t *testing.T) {
	inner := "RSET\r\nMAIL FROM:<evil@far.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nSubject: injected\r\n\r\nx\r\n.\r\n"
	chunk := func(args string) string { return "BDAT " + args + "\r\n" + inner }
	tests := []struct{ name, opening, command string }{
		{"no valid recipient", "MAIL FROM:<a@far.test>\r\nRCPT TO:<nobody@example.test>\r\n", chunk(fmt.Sprint(len(inner), " LAST"))},
		{"no MAIL", "", chunk(fmt.Sprint(len(inner), " LAST"))},
		{"small letters", "", strings.Replace(chunk(fmt.Sprint(len(inner))), "BDAT", "bDat", 1)},
		{"a bad argument", "MAIL FROM:<a@far.test>\r\nRCPT TO:<bob@example.test>\r\n", chunk(fmt.Sprint(len(inner), " LATE"))},
		{"three arguments", "MAIL FROM:<a@far.test>\r\nRCPT TO:<bob@example.test>\r\n", chunk(fmt.Sprint(len(inner), " LAST LAST"))},
		{"no argument", "MAIL FROM:<a@far.test>\r\nRCPT TO:<bob@example.test>\r\n", chunk("")},
		{"a negative size", "MAIL FROM:<a@far.test>\r\nRCPT TO:<bob@example.test>\r\n", chunk("-1")},
		{"a size of 2^63", "MAIL FROM:<a@far.test>\r\nRCPT TO:<bob@example.test>\r\n", chunk("9223372036854775808 LAST")},
		{"a second chunk after a refused message", "MAIL FROM:<a@far.test>\r\nRCPT TO:<bob@example.test>\r\nBDAT 3 LAST\r\na\nb", chunk(fmt.Sprint(len(inner)))},
	}
	h, p := piped(t, MX)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, pieces := range [][]string{
				{"EHLO x\r\n" + test.opening + test.command + "QUIT\r\n"},
				{"EHLO x\r\n" + test.opening, test.command, "QUIT\r\n"},
			} {
				said := p.throw(t, pieces...)
				if n := len(h.queue.messages()); n != 0 {
					t.Fatalf("%d messages\n%s", n, said)
				}
			}
		})
	}
}

// A chunk that the end of the connection cuts off is not a message, in the clear or
// under TLS, whether TLS was ended well or not.
func TestTruncatedBDAT(t *testing.T) {
	for _, end := range []string{"clear", "TLS with its last alert", "TLS without"} {
		t.Run(end, func(t *testing.T) {
			h := open(t, MX, false)
			c := h.dial(t)
			raw := c.Conn.(*net.TCPConn)
			if end != "clear" {
				c.talk(hello + "\n> STARTTLS\n< 220\ntls\n> EHLO x\n< 250")
			} else {
				c.talk(hello)
			}
			c.talk(`
				> MAIL FROM:<sender@far.test>
				< 250
				> RCPT TO:<alice@example.test>
				< 250`)
			c.send("BDAT 1000 LAST\r\n0123456789")
			if end == "TLS with its last alert" {
				c.Conn.(*tls.Conn).CloseWrite()
			}
			raw.CloseWrite()
			said, _ := io.ReadAll(c)
			if strings.Contains(string(said), "queued") || len(h.queue.messages()) != 0 {
				t.Errorf("accepted: %s", said)
			}
		})
	}
}

// A whole chunk followed by the end of the connection is one.
func TestBDATThenEnd(t *testing.T) {
	h := open(t, MX, false)
	c := h.dial(t)
	c.talk(toAlice)
	c.send("BDAT 10 LAST\r\n0123456789")
	c.Conn.(*net.TCPConn).CloseWrite()
	c.expect("250 2.0.0 queued as")
}

func TestBDATGivenUp(t *testing.T) {
	for _, command := range []string{"RSET", "EHLO again.test"} {
		for _, size := range []int{0, 3} {
			h := open(t, MX, false)
			c := h.dial(t)
			c.talk(toAlice)
			c.send(fmt.Sprintf("BDAT %d\r\n%s", size, "abc"[:size]))
			c.talk(`
				< 250 2.0.0 chunk taken
				> ` + command + `
				< 250
				> BDAT 0 LAST
				< 503 5.5.1
				> MAIL FROM:<sender@far.test>
				< 250
				> RCPT TO:<bob@example.test>
				< 250`)
			c.send("BDAT 3 LAST\r\nnewNOOP\r\n")
			c.talk("< 250 2.0.0 queued\n< 250")
			got := h.queue.messages()
			if len(got) != 1 || h.queue.content(t, got[0]) != "new" || len(got[0].rcpts) != 1 {
				t.Errorf("%s: got %+v", command, got)
			}
		}
	}
}

// After a chunk that is not the last, commands are bounded as before.
func TestEndlessLineBetweenChunks(t *testing.T) {
	h := open(t, MX, false)
	c := h.dial(t)
	c.talk(toAlice)
	c.send("BDAT 3\r\nabc")
	c.expect("250 2.0.0 chunk taken")
	sent := 0
	for junk := strings.Repeat("x", 1<<16); sent < 64<<20; sent += len(junk) {
		if _, err := io.WriteString(c.Conn, junk); err != nil {
			break
		}
	}
	if sent > 16<<20 { // socket buffers hold some
		t.Errorf("%d octets of one line were taken", sent)
	}
}

func TestBDATStopsWhenThePeerDawdles(t *testing.T) {
	h := open(t, MX, false, limits(func(l *Limits) { l.DataTimeout = 50 * time.Millisecond }))
	c := h.dial(t)
	c.talk(toAlice)
	c.send("BDAT 10 LAST\r\n012")
	if said, _ := io.ReadAll(c.r); strings.Contains(string(said), "queued") {
		t.Errorf("accepted: %s", said)
	}
	if n := len(h.queue.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}
