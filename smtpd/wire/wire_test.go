package wire

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unsafe"
)

// everyCut calls f with readers of s: whole, octet by octet, and cut in two at every place.
func everyCut(s string, f func(how string, src io.Reader)) {
	f("whole", strings.NewReader(s))
	f("by the octet", iotest.OneByteReader(strings.NewReader(s)))
	f("with the error", iotest.DataErrReader(strings.NewReader(s)))
	for i := 1; i < len(s); i++ {
		f(fmt.Sprint("cut at ", i), io.MultiReader(strings.NewReader(s[:i]), strings.NewReader(s[i:])))
	}
}

// told is what a Reader makes of all that comes, a line for each step. DATA and BDAT are followed by their content.
func told(r *Reader) string {
	var b strings.Builder
	for {
		c, err := r.Command()
		if syntax, ok := errors.AsType[*SyntaxError](err); ok {
			fmt.Fprintln(&b, syntax)
			continue
		}
		if err != nil {
			fmt.Fprintln(&b, err)
			return b.String()
		}
		fmt.Fprintf(&b, "%s|%s\n", c.Verb, c.Arg)
		if content := contentOf(r, c); content != nil {
			text, err := io.ReadAll(content)
			fmt.Fprintf(&b, "%q %v\n", text, err)
		}
	}
}

func contentOf(r *Reader, c Command) *Content {
	switch c.Verb {
	case "DATA":
		return r.Data()
	case "BDAT":
		if size, _, err := ParseBDAT(c.Arg); err == nil {
			return r.Chunk(size)
		}
	}
	return nil
}

// A session in the words of RFC 5321 and RFC 3030, in one go.
func TestSession(t *testing.T) {
	stream := "EHLO client.test\r\nMAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<c@d.test>\r\n" +
		"BDAT 8\r\nQUIT\r\n\n\x00BDAT 3 LAST\r\n.\r\nDATA\r\n..x\r\n.\r\nQUIT\r\n"
	want := `EHLO|client.test
MAIL|FROM:<a@b.test> BODY=BINARYMIME
RCPT|TO:<c@d.test>
BDAT|8
"QUIT\r\n\n\x00" <nil>
BDAT|3 LAST
".\r\n" <nil>
DATA|
".x\r\n" <nil>
QUIT|
EOF
`
	everyCut(stream, func(how string, src io.Reader) {
		if got := told(NewReader(src)); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", how, got, want)
		}
	})
}

// Replies leave before a read that may wait, and only then.
func TestFlush(t *testing.T) {
	for _, test := range []struct {
		name   string
		pieces []string
		want   string
	}{
		{"lock-step", []string{"EHLO x\r\n", "NOOP\r\n", "QUIT\r\n"}, `["EHLO"]["NOOP"]["QUIT"]`},
		{"pipelined", []string{"EHLO x\r\n", "MAIL x\r\nRCPT x\r\nRCPT y\r\n", "NOOP\r\n"}, `["EHLO"]["MAIL" "RCPT" "RCPT"]["NOOP"]`},
		{"cut in a command", []string{"NOOP\r\nNO", "OP\r\nQUIT\r\n"}, `["NOOP"]["NOOP" "QUIT"]`},
		{"before content", []string{"DATA\r\n", "x\r\n", ".\r\n"}, `["DATA"]["x\r\n"]`},
		{"content in the group", []string{"DATA\r\nx\r\n.\r\nQUIT\r\n"}, `["DATA" "x\r\n" "QUIT"]`},
		{"chunks", []string{"BDAT 3\r\nabcBDAT 3\r\nde", "fQUIT\r\n"}, `["BDAT" "abc" "BDAT"]["def" "QUIT"]`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			var due []string
			r := NewReader(&waits{test.pieces})
			r.Flush = func() error {
				if due != nil {
					fmt.Fprintf(&out, "%q", due)
				}
				due = nil
				return nil
			}
			for {
				c, err := r.Command()
				if err != nil {
					break
				}
				due = append(due, c.Verb)
				if content := contentOf(r, c); content != nil {
					text, _ := io.ReadAll(content)
					due = append(due, string(text))
				}
			}
			if out.String() != test.want {
				t.Errorf("got %s, want %s", out.String(), test.want)
			}
		})
	}
}

func TestFlushFails(t *testing.T) {
	want := errors.New("gone")
	r := NewReader(strings.NewReader("NOOP\r\n"))
	r.Flush = func() error { return want }
	if _, err := r.Command(); err != want {
		t.Errorf("got %v", err)
	}
}

// What came in the clear behind STARTTLS is never seen.
func TestReset(t *testing.T) {
	r := NewReader(strings.NewReader("STARTTLS\r\nMAIL FROM:<evil@far.test>\r\n"))
	if c, err := r.Command(); err != nil || c.Verb != "STARTTLS" {
		t.Fatal(c, err)
	}
	if n := r.Buffered(); n != len("MAIL FROM:<evil@far.test>\r\n") {
		t.Errorf("%d octets are buffered", n)
	}
	r.Reset(strings.NewReader("EHLO x\r\n"))
	if n := r.Buffered(); n != 0 {
		t.Errorf("%d octets are buffered after Reset", n)
	}
	if got := told(r); got != "EHLO|x\nEOF\n" {
		t.Errorf("got %q", got)
	}
}

// A Reset in the middle of a bad line or of content begins afresh; limits stay.
func TestResetAnywhere(t *testing.T) {
	r := NewReader(strings.NewReader("x\ny"))
	r.MaxCommand = 19
	r.Command()
	r.Reset(strings.NewReader("NOOP\r\n"))
	if c, err := r.Command(); err != nil || c.Verb != "NOOP" {
		t.Error(c, err)
	}
	r.Data()
	r.Reset(strings.NewReader("NOOP 678901234567890\r\n"))
	if _, err := r.Command(); err != ErrTooLong {
		t.Error(err)
	}
}

// waits gives its pieces, with an error in the place of an empty one.
type waits struct{ pieces []string }

var errDeadline = errors.New("deadline")

func (w *waits) Read(p []byte) (int, error) {
	if len(w.pieces) == 0 {
		return 0, io.EOF
	}
	piece := w.pieces[0]
	w.pieces = w.pieces[1:]
	if piece == "" {
		return 0, errDeadline
	}
	return copy(p, piece), nil
}

// A read that fails for once leaves a command as it was.
func TestDeadlineInACommand(t *testing.T) {
	r := NewReader(&waits{[]string{"NO", "", "OP\r\n"}})
	if _, err := r.Command(); err != errDeadline {
		t.Fatal(err)
	}
	if c, err := r.Command(); err != nil || c.Verb != "NOOP" {
		t.Error(c, err)
	}
}

// together gives an error with its first octets, and then the rest.
type together struct{ pieces []string }

func (s *together) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	if s.pieces = s.pieces[1:]; len(s.pieces) > 0 {
		return n, errDeadline
	}
	return n, nil
}

// An error that comes with octets is told behind them, once.
func TestErrorWithOctets(t *testing.T) {
	r := NewReader(&together{[]string{"NOOP\r\nRS", "ET\r\n"}})
	for _, want := range []string{"NOOP", "", "RSET"} {
		c, err := r.Command()
		if c.Verb != want || (err == errDeadline) != (want == "") {
			t.Errorf("got %q, %v, want %q", c.Verb, err, want)
		}
	}
}

// In content it is for good: nobody could say where the session stands.
func TestDeadlineInContent(t *testing.T) {
	for _, content := range []func(*Reader) *Content{
		(*Reader).Data,
		func(r *Reader) *Content { return r.Chunk(7) },
	} {
		r := NewReader(&waits{[]string{"DATA\r\nab", "", "c\r\n.\r\nNOOP\r\n"}})
		r.Command()
		c := content(r)
		for range 2 {
			if text, err := io.ReadAll(c); err != errDeadline {
				t.Errorf("%q %v", text, err)
			}
		}
		if _, err := r.Command(); err != ErrUnread {
			t.Error(err)
		}
	}
}

// idle gives nothing, without an error.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestNoProgress(t *testing.T) {
	if _, err := NewReader(idle{}).Command(); err != io.ErrNoProgress {
		t.Error(err)
	}
}

// counter gives a GiB of the same octet, and counts.
type counter struct {
	octet byte
	given int64
}

func (c *counter) Read(p []byte) (int, error) {
	if c.given >= 1<<30 {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = c.octet
	}
	c.given += int64(len(p))
	return len(p), nil
}

// A line that has no end is read up to its limit and the buffer that this lies in.
func TestEndlessLine(t *testing.T) {
	twice := func(r *Reader) error { command(r); return command(r) }
	tests := []struct {
		name, begin string
		octet       byte
		read        func(r *Reader) error
	}{
		{"command", "", 'x', command},
		{"AUTH", "AUTH PLAIN ", 'x', command},
		{"spaces", "NOOP", ' ', command},
		{"NULs", "", 0, command},
		{"CRs", "", '\r', command},
		{"behind a bare LF", "x\n", 'x', twice},
		{"bare LFs", "", '\n', twice},
		{"response", "", 'x', func(r *Reader) error { _, err := r.Line(MaxAuth); return err }},
		{"response without a limit", "", 'x', func(r *Reader) error { _, err := r.Line(1 << 40); return err }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			src := &counter{octet: test.octet}
			r := NewReader(io.MultiReader(strings.NewReader(test.begin), src))
			for range 2 { // it stays so
				if err := test.read(r); err != ErrTooLong {
					t.Errorf("got %v", err)
				}
			}
			if src.given > 2*int64(len(block{})) {
				t.Errorf("%d octets were read", src.given)
			}
		})
	}
}

func command(r *Reader) error {
	_, err := r.Command()
	return err
}

func TestMemory(t *testing.T) {
	w := NewWriter(io.Discard)
	w.Reply(Reply{250, "", "ok"})
	if w.page == nil {
		t.Error("a Writer has no page for what waits")
	}
	if w.Flush(); w.page != nil {
		t.Error("a flushed Writer has a page")
	}
	// As the package comment says.
	if n := unsafe.Sizeof(Reader{}); n > 8*1024/10 {
		t.Errorf("a Reader holds %d octets", n)
	}
	if n := unsafe.Sizeof(*w); n > 1024/10 {
		t.Errorf("a Writer holds %d octets", n)
	}
}

// What a peer says decides which buffer it has, and none stays with one that waits.
func TestBuffers(t *testing.T) {
	command := func(octets int) string { return strings.Repeat("x", octets-2) + "\r\n" }
	tests := []struct {
		name string
		said []string // in one read each
		want string
	}{
		{"nothing", nil, "small"},
		{"a command", []string{command(511)}, "small small"},
		{"many, one by one", []string{command(500), command(500)}, "small small small"},
		{"a line as long as the buffer", []string{command(512)}, "small page"},
		{"a long line", []string{command(1500)}, "page small"},
		{"a line in pieces", []string{"NOOP", " x\r\n"}, "small small small"},
		{"many at once", []string{strings.Repeat(command(100), 30)}, "page small"},
		{"AUTH", []string{"AUTH " + command(5000)}, "block small"},
		{"a chunk, which lies in the buffer", []string{"BDAT 3\r\nabc"}, "small small"},
		{"a chunk, read past the buffer", []string{"BDAT 3\r\n", "abc"}, "small small small"},
		{"content", []string{"DATA\r\n", "abc\r\n.\r\n"}, "small block small"},
		{"a flood in pages", []string{strings.Repeat(command(64), 1024)}, "page page small"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			src := &held{in: test.said}
			src.r = NewReader(src)
			told(src.r)
			if !strings.HasSuffix(strings.Join(src.sizes, " "), test.want) {
				t.Errorf("got %q, want %q", src.sizes, test.want)
			}
		})
	}
}

// held gives its texts, and notes before each read which buffer its Reader has.
type held struct {
	in    []string
	r     *Reader
	sizes []string
}

func (h *held) Read(p []byte) (int, error) {
	name := map[int]string{idleSize: "small", len(page{}): "page", len(block{}): "block"}[len(h.r.buf)]
	h.sizes = append(h.sizes, name)
	if len(h.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, h.in[0])
	if h.in[0] = h.in[0][n:]; h.in[0] == "" {
		h.in = h.in[1:]
	}
	return n, nil
}

// Messages and replies take no memory of their own.
func TestAllocations(t *testing.T) {
	r := NewReader(&endless{s: strings.Repeat("..0123456789\r\n", 1<<14) + ".\r\n"})
	per := testing.AllocsPerRun(100, func() { r.Data().WriteTo(sink{}) })
	if per >= 1 {
		t.Errorf("%v allocations for a message", per)
	}
	w := NewWriter(io.Discard)
	per = testing.AllocsPerRun(1000, func() { w.Reply(Reply{250, "2.0.0", "ok"}); w.Flush() })
	if per >= 1 {
		t.Errorf("%v allocations for a reply", per)
	}
}

func TestLine(t *testing.T) {
	long := strings.Repeat("x", MaxAuth-2)
	tests := []struct {
		name, in, want string
		err            error
	}{
		{"a response", "dGVzdA==\r\n", "dGVzdA==", nil},
		{"empty", "\r\n", "", nil},
		{"of the greatest length", long + "\r\n", long, nil},
		{"longer", long + "x\r\n", "", ErrTooLong},
		{"bare LF", "dGVz\ndA==\r\n", "", errBare},
		{"bare CR", "dGVz\rdA==\r\n", "", errBare},
		{"NUL", "\x00\r\n", "", errControl},
		{"cut off", "dGVz", "", io.ErrUnexpectedEOF},
		{"cut off in its end", "dGVz\r", "", io.ErrUnexpectedEOF},
		{"nothing", "", "", io.EOF},
	}
	for _, test := range tests {
		for _, src := range []io.Reader{strings.NewReader(test.in), iotest.OneByteReader(strings.NewReader(test.in))} {
			line, err := NewReader(src).Line(MaxAuth)
			if string(line) != test.want || err != test.err {
				t.Errorf("%s: got %.20q %v, want %.20q %v", test.name, line, err, test.want, test.err)
			}
		}
	}
}
