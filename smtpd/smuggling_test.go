package smtpd

import (
	"fmt"
	"strings"
	"testing"
)

const opening = "EHLO client.test\r\nMAIL FROM:<sender@far.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n"

// A message whose end the engine does not see has its answer all the same, at once.
func TestBareCRBeforeTheEnd(t *testing.T) {
	for _, end := range []string{"\r\r\n.\r\n", "\r\r\r\n.\r\n", "\r\n.\r\r\n.\r\n", "\r\r\r\r\n.\r\n"} {
		t.Run(fmt.Sprintf("%q", end), func(t *testing.T) {
			h, p := piped(t, MX)
			c := p.dial(t)
			c.talk(toAlice + `
			> DATA
			< 354
			`)
			c.send("Subject: x\r\n\r\nbody" + end)
			// The engine asks for more when it does not know the end; the next octet
			// is enough to show that it comes too late.
			c.expect("550 5.6.11")
			if n := len(h.queue.messages()); n != 0 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

func TestLineEnds(t *testing.T) {
	tests := []struct {
		name, body, want string
	}{
		{"clean", "a\r\nb\r\n", "250 2.0.0"},
		{"empty", "", "250 2.0.0"},
		{"empty lines", "\r\n\r\n\r\n", "250 2.0.0"},
		{"bare LF", "a\nb\r\n", "550 5.6.11"},
		{"LF first", "\na\r\n", "550 5.6.11"},
		{"bare CR", "a\rb\r\n", "550 5.6.11"},
		{"CR first", "\ra\r\n", "550 5.6.11"},
		{"LF CR", "a\n\rb\r\n", "550 5.6.11"},
		{"a dot, a CR and no LF", "a\r\n.\rb\r\n", "550 5.6.11"},
		{"NUL", "a\x00b\r\n", "550 5.6.0"},
		{"late", strings.Repeat("0123456789\r\n", 20000) + "x\ny\r\n", "550 5.6.11"},
	}
	for _, test := range tests {
		for _, way := range []string{"DATA", "BDAT"} {
			t.Run(test.name+" in "+way, func(t *testing.T) {
				h := open(t, MX, false)
				c := h.dial(t)
				c.talk(toAlice)
				if way == "DATA" {
					c.talk("> DATA\n< 354")
					c.send(test.body + ".\r\n")
				} else {
					c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(test.body), test.body))
				}
				c.expect(test.want)
				if want := map[bool]int{true: 1}[test.want[0] == '2']; len(h.queue.messages()) != want {
					t.Errorf("%d messages", len(h.queue.messages()))
				}
				if way == "DATA" && strings.HasPrefix(test.want, "550 5.6.11") {
					c.talk("<-") // where the message ends is in doubt
				} else {
					c.talk("> NOOP\n< 250") // the session is in step
				}
			})
		}
	}
}
