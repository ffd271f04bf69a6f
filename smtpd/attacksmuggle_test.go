package smtpd_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"postroad/smtpd"
)

// falseEnds are what some server or other has taken for the end of the data: the 16 that were published in 2023, then
// what is left of the combinations of their parts.
var falseEnds = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r",
	"\r\r\n.\r\r\n", "\r\r\n.\r\n", "\r\n.\r\r\n", "\n\n.\r\n",
	"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\x0b\r\n", "\r\n. \r\n",
	"\n.\r\r\n", "\r.\r\r\n", "\r\n.\r.\r\n", "\r\r\r\n.\r\n", "\r\n\r.\r\n", "\r\n.\r\r\r\n",
	"\r\n.\r\x00\n", "\r\x00\n.\r\n", "\r\n..\r\n", "\r\n.\t\r\n",
}

// clean reports whether there is no CR or LF alone and no NUL.
func clean(s string) bool {
	return !strings.ContainsAny(strings.ReplaceAll(s, "\r\n", ""), "\r\n\x00")
}

// smuggled is a second message in the body of the first, from somebody else. Its end is the first that is one.
const smuggled = "MAIL FROM:<evil@far.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nFrom: evil@far.test\r\n\r\nx"

// smugglers are the ways of sending what has a false end in it. Each returns all that follows RCPT.
var smugglers = map[string]func(body string) string{
	"DATA":          func(body string) string { return "DATA\r\n" + body + "\r\n.\r\nQUIT\r\n" },
	"BDAT":          func(body string) string { return fmt.Sprintf("BDAT %d LAST\r\n%sQUIT\r\n", len(body), body) },
	"BDAT in three": inThree,
}

func inThree(body string) string {
	at := strings.Index(body, "body") + len("body") + 1
	return fmt.Sprintf("BDAT %d\r\n%sBDAT %d\r\n%sBDAT 0 LAST\r\nQUIT\r\n", at, body[:at], len(body)-at, body[at:])
}

// TestA01Smuggling: wherever the end of the data seems to be, and wherever the network cuts the stream, there is one
// message or none, and it is refused when a line end in it is doubtful: by DATA, by BDAT, on every listener.
func TestA01Smuggling(t *testing.T) {
	t.Parallel()
	runs := 0
	for _, kind := range kinds {
		for way, write := range smugglers {
			t.Run(kind.String()+" "+way, func(t *testing.T) {
				s := newHouse(t).serve(kind, false)
				step, from, opening := 3, net.IP(nil), s.opening()
				if kind == smtpd.MX { // where it is strangers that send
					step, from = 1, stranger
				}
				switch {
				case *allAttacks:
					step = 1
				case testing.Short():
					step *= 5
				}
				if way == "DATA" && from != nil {
					opening += "DATA\r\n"
				}
				for _, end := range falseEnds {
					stream := write("From: " + s.from() + "\r\n\r\nbody" + end + smuggled)
					if strings.HasSuffix(opening, "DATA\r\n") {
						stream = strings.TrimPrefix(stream, "DATA\r\n")
					}
					for pieces := range splitsBy(step, stream) {
						runs++
						o := s.play(t, from, append([]string{opening}, pieces...)...)
						if fault := o.smuggled(s, end, way); fault != "" {
							t.Fatalf("%q cut after %d: %s\n%s", end, len(pieces[0]), fault, o.said())
						}
					}
				}
			})
		}
	}
	if runs < 5000 && !testing.Short() {
		t.Errorf("only %d runs", runs)
	}
	t.Logf("%d runs", runs)
}

// smuggled says what is wrong with the outcome of a smuggler's session.
func (o outcome) smuggled(s *server, end, way string) string {
	chunked := strings.HasPrefix(way, "BDAT")
	switch {
	case len(o.got) > 1:
		return fmt.Sprintf("%d messages", len(o.got))
	case len(o.got) == 1 && o.got[0].Envelope.From.String() != s.from():
		return "a message from " + o.got[0].Envelope.From.String()
	case len(o.got) == 1 && !clean(end):
		return "it was accepted"
	case len(o.got) == 0 && clean(end) && chunked:
		return "it was refused"
	}
	return ""
}

// TestA01SmugglingOverSockets is TestA01Smuggling over TCP and TLS, where the network cuts as it likes.
func TestA01SmugglingOverSockets(t *testing.T) {
	for _, kind := range kinds {
		overAll(t, kind, func(t *testing.T, s *server, dial func() *peer) {
			for _, end := range falseEnds {
				p := dial().begin(s).talk("> DATA\n< 354")
				p.send("From: " + s.from() + "\r\n\r\nbody" + end + smuggled + "\r\n.\r\n")
				if got, err := p.reply(); err == nil && (got.code != 250 || !clean(end)) && got.code < 500 {
					t.Errorf("%q: %s", end, got)
				}
				p.Close()
				s.quiet()
				got := s.queue.take()
				if len(got) > 1 || len(got) == 1 && got[0].Envelope.From.String() != s.from() {
					t.Fatalf("%q: %d messages", end, len(got))
				}
			}
		})
	}
}

// TestA02NobodyIsExempt: a bare CR or LF is refused whoever sends it, from wherever, however it comes.
func TestA02NobodyIsExempt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, kind := range kinds {
		s := h.serve(kind, false)
		for _, from := range []net.IP{nil, net.IPv4(127, 0, 0, 1), net.IPv6loopback, net.IPv4(10, 0, 0, 1), net.IPv4(192, 0, 2, 25), stranger} {
			if kind == smtpd.Submission && from != nil && !from.IsLoopback() {
				continue // it may not log in without TLS; overAll has that
			}
			for _, body := range []string{"a\nb\r\n", "a\rb\r\n", "\na\r\n", "\ra\r\n", "a\n\rb\r\n", "a\r\r\nb\r\n", "a\r\n\nb\r\n", "a\r\n.\n", "a\r\n.\r"} {
				field := "From: " + s.from() + "\r\n\r\n"
				data := s.play(t, from, s.opening(), "DATA\r\n", field+body+"\r\n.\r\nQUIT\r\n")
				chunk := s.play(t, from, s.opening(), fmt.Sprintf("BDAT %d LAST\r\n%sQUIT\r\n", len(field+body), field+body))
				for way, o := range map[string]outcome{"DATA": data, "BDAT": chunk} {
					if len(o.got) != 0 || !strings.Contains(o.said(), "550 5.6.11") {
						t.Fatalf("%v by %s from %v: %q\n%s", kind, way, from, body, o.said())
					}
				}
			}
		}
	}
}

// TestA01EveryShortText: every text of up to six of the octets that matter is answered without a wait, and what is
// taken is what RFC 5321, 4.5.2 says was sent.
func TestA01EveryShortText(t *testing.T) {
	t.Parallel()
	const octets = "\r\n.a"
	longest := 6
	if testing.Short() {
		longest = 4
	}
	s := newHouse(t).serve(smtpd.MX, false)
	fields := int64(0)
	for length := range longest + 1 {
		for n := range 1 << (2 * length) {
			text := make([]byte, length)
			for i := range text {
				text[i] = octets[n>>(2*i)&3]
			}
			stream := string(text) + "\r\n.\r\n"
			o := s.play(t, stranger, s.opening()+"DATA\r\n", stream, "NOOP\r\nQUIT\r\n")
			want, rest, good := standard(stream)
			if fields == 0 && len(o.got) == 1 { // the empty text comes first
				fields = o.got[0].Size - int64(len(want))
			}
			switch {
			case len(o.got) > 1 || len(o.got) == 1 && !good:
				t.Fatalf("%q: %d messages; it is good: %v\n%s", text, len(o.got), good, o.said())
			case len(o.got) == 0 && good && rest == "":
				t.Fatalf("%q is refused:\n%s", text, o.said())
			case len(o.got) == 0 && !strings.Contains(o.said(), "550 5.6.11"):
				t.Fatalf("%q has no answer:\n%s", text, o.said())
			case len(o.got) == 1 && o.got[0].Size-fields != int64(len(want)):
				t.Fatalf("%q: %d octets are taken, want %d", text, o.got[0].Size-fields, len(want))
			}
		}
	}
}

// standard reads the content of DATA up to its end, and what follows; good tells that there was no bare CR or LF.
func standard(stream string) (content, rest string, good bool) {
	whole, rest, _ := strings.Cut("\r\n"+stream, "\r\n.\r\n")
	if whole != "" {
		content = strings.TrimPrefix(strings.ReplaceAll(whole, "\r\n.", "\r\n"), "\r\n") + "\r\n"
	}
	return content, rest, clean(whole)
}
