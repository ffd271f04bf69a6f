package wire

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// Each stream is read whole, by the octet, and cut at every place: what is made of it does not change.
func TestCommand(t *testing.T) {
	const bare, control, utf, verb = "bare CR or LF: a line must end with CRLF\n", "the line has a control character\n",
		"the line is not valid UTF-8\n", "the line does not begin with a command\n"
	uncounted := ErrUncounted.Error() + "\n"
	tests := []struct{ name, in, want string }{
		{"nothing", "", "EOF\n"},
		{"one word", "NOOP\r\n", "NOOP|\nEOF\n"},
		{"lower case", "noop\r\nMail From:<a@B>\r\n", "NOOP|\nMAIL|From:<a@B>\nEOF\n"},
		{"argument", "EHLO client.test\r\n", "EHLO|client.test\nEOF\n"},
		{"spaces behind", "QUIT  \r\nHELO x \r\nRSET \t\r\n", "QUIT|\nHELO|x\nRSET|\nEOF\n"},
		{"spaces before the argument", "HELO   x  y\r\n", "HELO|x  y\nEOF\n"},
		{"glued", "STARTTLSfoo bar\r\n", "STARTTLSFOO|bar\nEOF\n"},
		{"empty", "\r\nNOOP\r\n", verb + "NOOP|\nEOF\n"},
		{"only spaces", "   \r\n", verb + "EOF\n"},
		{"space in front", " NOOP\r\n", verb + "EOF\n"},
		{"no letters", "1234\r\nX-Y z\r\nMAIL:\r\n", verb + verb + verb + "EOF\n"},
		{"no ASCII letters", "N\u00d6\u00d6P\r\n\u212aELVIN\r\n", verb + verb + "EOF\n"},
		{"a tab is no space", "NOOP\tx\r\n", control + "EOF\n"},
		{"NUL", "NO\x00OP\r\nNOOP\r\n", control + "NOOP|\nEOF\n"},
		{"DEL", "NOOP \x7f\r\n", control + "EOF\n"},
		{"ESC", "NOOP \x1b[2J\r\n", control + "EOF\n"},
		{"vertical tab at the end", "NOOP\v\r\n", control + "EOF\n"},
		{"UTF-8", "MAIL FROM:<\u00fc@b>\r\n", "MAIL|FROM:<\u00fc@b>\nEOF\n"},
		{"Latin-1", "MAIL FROM:<\xfc@b>\r\nNOOP\r\n", utf + "NOOP|\nEOF\n"},
		{"overlong UTF-8", "NOOP \xc0\x8a\r\n", utf + "EOF\n"},
		{"bare LF", "NOOP\nQUIT\r\nHELO x\r\n", bare + "HELO|x\nEOF\n"},
		{"only a bare LF", "\nNOOP\r\nHELO x\r\n", bare + "HELO|x\nEOF\n"},
		{"bare LFs", "a\nb\nc\n\r\nHELO x\r\n", bare + "HELO|x\nEOF\n"},
		{"bare LFs, CR in between", "a\n\r\r\nHELO x\r\n", bare + "HELO|x\nEOF\n"},
		{"bare CR", "NOOP\rQUIT\r\nHELO x\r\n", bare + "HELO|x\nEOF\n"},
		{"CR CR LF", "NOOP\r\r\nHELO x\r\n", bare + "HELO|x\nEOF\n"},
		{"BDAT with a control octet", "BDAT 5\x00 LAST\r\nNOOP\r\n", uncounted},
		{"BDAT with a tab", "bdat 5\tLAST\r\nNOOP\r\n", uncounted},
		{"BDAT with a bare LF", "BDAT 5 LAST\nNOOP\r\nHELO x\r\n", uncounted},
		{"BDAT with a sign", "BDAT-5\r\nHELO x\r\n", uncounted},
		{"LF CR", "NOOP\n\rQUIT\r\nHELO x\r\n", bare + "HELO|x\nEOF\n"},
		{"two bad lines", "a\nb\r\nc\nd\r\nHELO x\r\n", bare + bare + "HELO|x\nEOF\n"},
		{"cut off", "NOOP", "unexpected EOF\n"},
		{"cut off in the end", "NOOP\r", "unexpected EOF\n"},
		{"cut off in a bad line", "NOOP\nx", bare + "unexpected EOF\n"},
		{"cut off behind a bare LF", "NOOP\n", bare + "unexpected EOF\n"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00", "this is not SMTP\n"},
		{"TLS after a refusal", "STARTTLS\r\n\x16\x03\x01\x02\x00\n\r\n", "STARTTLS|\nthis is not SMTP\n"},
		{"a single SYN is not TLS", "\x16\r\n", control + "EOF\n"},
		{"SSH", "SSH-2.0-OpenSSH_9.6\r\n", "this is not SMTP\n"},
		{"GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "this is not SMTP\n"},
		{"POST", "POST / HTTP/1.1\r\n\r\nMAIL FROM:<a@b>\r\n", "this is not SMTP\n"},
		{"POST with bare LF", "POST / HTTP/1.1\n\nMAIL FROM:<a@b>\r\n", "this is not SMTP\n"},
		{"CONNECT", "CONNECT mx.test:25 HTTP/1.0\r\n", "this is not SMTP\n"},
		{"GET without a version", "GET /x\r\n", "this is not SMTP\n"},
		{"lower case", "post / http/1.1\r\n", "this is not SMTP\n"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "this is not SMTP\n"},
		{"a verb of its own", "MAIL FROM:<a@b> HTTP/1.1\r\n", "this is not SMTP\n"},
		{"HTTP elsewhere", "NOOP HTTP/1.1 x\r\n", "NOOP|HTTP/1.1 x\nEOF\n"},
		{"HTTP in the next line", "NOOP x\r\nNOOP y HTTP/1.1\r\n", "NOOP|x\nthis is not SMTP\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			everyCut(test.in, func(how string, src io.Reader) {
				if got := told(NewReader(src)); got != test.want {
					t.Errorf("%s: got %q, want %q", how, got, test.want)
				}
			})
		})
	}
}

func TestForeignVerbs(t *testing.T) {
	for verb := range strings.FieldsSeq("GET POST CONNECT PUT HEAD OPTIONS PATCH DELETE TRACE") {
		if err := command(NewReader(strings.NewReader(verb + " /x HTTP/1.1\r\n"))); err != ErrNotMail {
			t.Errorf("%s: %v", verb, err)
		}
	}
}

func TestLimits(t *testing.T) {
	line := func(begin string, length int) string {
		return begin + strings.Repeat("x", length-len(begin)-2) + "\r\n"
	}
	tests := []struct {
		name, in string
		want     error
	}{
		{"a command", line("NOOP ", MaxCommand), nil},
		{"one more", line("NOOP ", MaxCommand+1), ErrTooLong},
		{"a verb", line("", MaxCommand), nil},
		{"one more of a verb", line("", MaxCommand+1), ErrTooLong},
		{"AUTH", line("auth PLAIN ", MaxAuth), nil},
		{"AUTH and one more", line("AUTH PLAIN ", MaxAuth+1), ErrTooLong},
		{"not quite AUTH", line("AUTHX ", MaxAuth), ErrTooLong},
		{"without an end", strings.Repeat("x", MaxCommand), ErrTooLong},
		{"with half an end, too late", strings.Repeat("x", MaxCommand-1) + "\r", ErrTooLong},
		{"its end could still come", strings.Repeat("x", MaxCommand-2) + "\r", io.ErrUnexpectedEOF},
		{"another protocol, too long", "GET " + strings.Repeat("x", MaxCommand) + " HTTP/1.1\r\n", ErrNotMail},
	}
	for _, test := range tests {
		for _, src := range []io.Reader{
			strings.NewReader(test.in), iotest.OneByteReader(strings.NewReader(test.in)), iotest.HalfReader(strings.NewReader(test.in)),
		} {
			if err := command(NewReader(src)); err != test.want {
				t.Errorf("%s: got %v, want %v", test.name, err, test.want)
			}
		}
	}
}

// The rest of a line whose fault was told counts with what was before.
func TestLimitOfABadLine(t *testing.T) {
	for length, want := range map[int]error{MaxCommand: io.EOF, MaxCommand + 1: ErrTooLong} {
		in := "abc\n" + strings.Repeat("x", length-6) + "\r\n"
		everyCut(in, func(how string, src io.Reader) {
			r := NewReader(src)
			if err := command(r); err != errBare {
				t.Fatal(how, err)
			}
			if err := command(r); err != want {
				t.Fatalf("%d, %s: got %v, want %v", length, how, err, want)
			}
		})
	}
}

func TestLimitsAreSettings(t *testing.T) {
	r := NewReader(strings.NewReader("NOOP 78\r\nAUTH 78901\r\nNOOP 789\r\n"))
	r.MaxCommand, r.MaxAuth = 9, 12
	if got := told(r); got != "NOOP|78\nAUTH|78901\nthe line is too long\n" {
		t.Errorf("got %q", got)
	}
}

func TestSyntaxErrorReply(t *testing.T) {
	err := command(NewReader(strings.NewReader("a\rb\r\n")))
	syntax, ok := errors.AsType[*SyntaxError](err)
	if want := (Reply{500, "5.5.2", errBare.What}); !ok || syntax.Reply() != want {
		t.Errorf("got %v", err)
	}
}

// Whatever comes, in whatever pieces: it is read alike, and a command has a verb of letters and clean text.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"EHLO x\r\nMAIL FROM:<a@b>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n", "a\nb\r\nNOOP\r\n", "\x16\x03\x01", "GET / HTTP/1.1\n", "N\r\rP \r\n",
		"AUTH PLAIN xxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", "BDAT 3\r\nabcBDAT 99\r\n", "\u00fc\r\n\xff\r\n", "NOOP xxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n",
	} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		size = size&15 + 1
		whole, cut := NewReader(&pieces{in, len(in)}), NewReader(&pieces{in, size})
		whole.MaxCommand, whole.MaxAuth = 32, 48
		cut.MaxCommand, cut.MaxAuth = 32, 48
		if a, b := told(whole), told(cut); a != b {
			t.Fatalf("%q is read as\n%s\nand in pieces of %d as\n%s", in, a, size, b)
		}
		r := NewReader(&pieces{in, size})
		for {
			c, err := r.Command()
			if _, ok := errors.AsType[*SyntaxError](err); ok {
				continue
			}
			if err != nil {
				return
			}
			if c.Verb == "" || strings.Trim(c.Verb, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
				t.Fatalf("verb %q", c.Verb)
			}
			if !utf8.ValidString(c.Arg) || strings.Trim(c.Arg, " ") != c.Arg || strings.ContainsFunc(c.Arg, isControl) {
				t.Fatalf("argument %q", c.Arg)
			}
		}
	})
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// pieces gives its octets, size at a time.
type pieces struct {
	in   []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.in[:min(p.size, len(p.in))])
	p.in = p.in[n:]
	return n, nil
}
