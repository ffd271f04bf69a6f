package smtpd

import (
	"fmt"
	"strings"
	"testing"
)

// The forms of an end of data that some servers took for one and others did not, as
// published in 2023 and after.
var falseEnds = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r",
	"\r\r\n.\r\r\n", "\r\r\n.\r\n", "\r\n.\r\r\n", "\n\n.\r\n",
	"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\x0b\r\n", "\r\n. \r\n",
	// What is left of the combinations.
	"\n.\r\r\n", "\r.\r\r\n", "\r\n.\r.\r\n", "\r\r\r\n.\r\n", "\r\n\r.\r\n", "\r\n.\r\r\r\n",
}

const smuggled = "MAIL FROM:<evil@far.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"

const opening = "EHLO client.test\r\nMAIL FROM:<sender@far.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n"

// Whatever stands where the end of data seems to be, and wherever the network cuts the
// stream: one message or none, and nothing from the smuggler.
func TestSmuggling(t *testing.T) {
	h, p := piped(t, MX)
	h.queue.set(true, nil)
	for _, end := range falseEnds {
		stream := "Subject: one\r\n\r\nbody" + end + smuggled + "QUIT\r\n"
		for cut := range len(stream) {
			before := len(h.queue.messages())
			said := p.throw(t, opening, stream[:cut], stream[cut:])
			got := h.queue.messages()[before:]
			if len(got) > 1 {
				t.Fatalf("%q cut at %d: %d messages\n%s", end, cut, len(got), said)
			}
			for _, m := range got {
				if m.Envelope.From.Local == "evil" {
					t.Fatalf("%q cut at %d: smuggled\n%s", end, cut, said)
				}
			}
			if strings.ContainsAny(strings.ReplaceAll(end, "\r\n", ""), "\r\n\x00") && len(got) != 0 {
				t.Fatalf("%q cut at %d: accepted with a bare CR, LF or NUL\n%s", end, cut, said)
			}
		}
	}
}

// The same octet by octet, and all at once without waiting for 354.
func TestSmugglingByTheOctetAndAtOnce(t *testing.T) {
	h, p := piped(t, MX)
	h.queue.set(true, nil)
	for _, end := range falseEnds {
		stream := opening + "Subject: one\r\n\r\nbody" + end + smuggled + "QUIT\r\n"
		for _, pieces := range [][]string{{stream}, strings.Split(stream, "")} {
			before := len(h.queue.messages())
			said := p.throw(t, pieces...)
			got := h.queue.messages()[before:]
			if len(got) > 1 || len(got) == 1 && got[0].Envelope.From.Local == "evil" {
				t.Fatalf("%q in %d pieces: %d messages\n%s", end, len(pieces), len(got), said)
			}
		}
	}
}

// Every text of up to six of the octets that matter, followed by an end of data: it is
// answered without a wait, and what is stored is what the standard says was sent.
func TestEveryShortText(t *testing.T) {
	const octets = "\r\n.a"
	h, p := piped(t, MX)
	h.queue.set(true, nil)
	for length := range 7 {
		for n := range 1 << (2 * length) {
			text := make([]byte, length)
			for i := range text {
				text[i] = octets[n>>(2*i)&3]
			}
			stream := string(text) + "\r\n.\r\n"
			said := p.throw(t, opening, stream, "QUIT\r\n")
			got := h.queue.take()
			if !strings.Contains(said, "\r\n250 2.0.0 queued") && !strings.Contains(said, "\r\n550 5.6.11") {
				t.Fatalf("%q has no answer:\n%s", text, said)
			}
			want, rest, clean := standard(stream)
			switch {
			case len(got) > 1 || len(got) == 1 && !clean:
				t.Fatalf("%q: %d messages; clean is %v\n%s", text, len(got), clean, said)
			case len(got) == 0 && clean && rest == "":
				t.Fatalf("%q was refused:\n%s", text, said)
			case len(got) == 1 && got[0].Size != int64(len(want)+len(traced)):
				t.Fatalf("%q: %d octets are stored, want %d", text, got[0].Size, len(want)+len(traced))
			}
		}
	}
}

// traced is as long as our fields in front of a message of opening.
const traced = "Return-Path: <sender@far.test>\r\nDelivered-To: alice@example.test\r\nReceived: from client.test\r\n\tby mx.example.test with ESMTP id 0123456789abc\r\n" +
	"\tfor <alice@example.test>; Fri, 20 Nov 2026 09:10:16 +0000\r\n"

// standard reads the content of DATA as RFC 5321, 4.5.2 says, up to its end, and what
// follows; clean tells that there was no bare CR or LF in the content.
func standard(stream string) (content, rest string, clean bool) {
	whole, rest, _ := strings.Cut("\r\n"+stream, "\r\n.\r\n")
	if whole != "" {
		content = strings.TrimPrefix(strings.ReplaceAll(whole, "\r\n.", "\r\n"), "\r\n") + "\r\n"
	}
	return content, rest, !strings.ContainsAny(strings.ReplaceAll(whole, "\r\n", ""), "\r\n")
}

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
