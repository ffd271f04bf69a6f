package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// standard reads content of DATA octet by octet, as RFC 5321, 4.5.2 says: the oracle for the real thing. ended tells that
// its end was there; rest is what follows.
func standard(in string) (content, rest string, ended bool) {
	var b strings.Builder
	before := "\r\n" // the last two octets, dots that were taken off included
	for i := range len(in) {
		if before == "\r\n" && in[i] == '.' {
			if strings.HasPrefix(in[i:], ".\r\n") {
				return b.String(), in[i+3:], true
			}
		} else {
			b.WriteByte(in[i])
		}
		before = before[1:] + in[i:i+1]
	}
	return b.String(), "", false
}

// hasBare reports whether a CR or LF of s is not part of a CRLF.
func hasBare(s string) bool {
	return strings.ContainsAny(strings.ReplaceAll(s, "\r\n", ""), "\r\n")
}

// ways are those in which a session may read content.
var ways = []struct {
	name string
	read func(c *Content) ([]byte, error)
}{
	{"ReadAll", func(c *Content) ([]byte, error) { return io.ReadAll(c) }},
	{"WriteTo", func(c *Content) ([]byte, error) {
		var b bytes.Buffer
		n, err := c.WriteTo(&b)
		if n != int64(b.Len()) {
			err = fmt.Errorf("WriteTo says %d octets and wrote %d", n, b.Len())
		}
		return b.Bytes(), err
	}},
	{"octets", func(c *Content) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(c)) }},
	{"threes", func(c *Content) ([]byte, error) {
		var b bytes.Buffer
		_, err := io.CopyBuffer(&b, struct{ io.Reader }{c}, make([]byte, 3))
		return b.Bytes(), err
	}},
}

// checkData reads in as content of DATA, and holds what comes of it against the standard.
func checkData(t *testing.T, how, in string, src io.Reader, read func(c *Content) ([]byte, error)) {
	t.Helper()
	want, rest, ended := standard(in)
	r := NewReader(src)
	c := r.Data()
	text, err := read(c)
	switch {
	case !ended && err != io.ErrUnexpectedEOF:
		t.Fatalf("%s: %q has no end, and gives %v", how, in, err)
	case ended && err != nil:
		t.Fatalf("%s: %q gives %v", how, in, err)
	case ended && string(text) != want, !ended && !strings.HasPrefix(want, string(text)):
		t.Fatalf("%s: %q gives %q, want %q", how, in, text, want)
	case !ended:
		if err := command(r); err != ErrUnread {
			t.Fatalf("%s: %q has no end, and a command behind it gives %v", how, in, err)
		}
		return
	}
	if n, err := c.Read(make([]byte, 10)); n != 0 || err != io.EOF {
		t.Fatalf("%s: %q: behind the end Read gives %d, %v", how, in, n, err)
	}
	following := make([]byte, len(rest))
	if n, err := io.ReadFull(r.Chunk(int64(len(rest))), following); err != nil && len(rest) > 0 || string(following[:n]) != rest {
		t.Fatalf("%s: %q is followed by %q, %v, want %q", how, in, following[:n], err, rest)
	}
}

// The forms of an end of data that some servers took for one and others did not, as published in 2023 and after.
var falseEnds = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r",
	"\r\r\n.\r\r\n", "\r\n.\r\r\n", "\n\n.\r\n",
	"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\x0b\r\n", "\r\n. \r\n",
	// What is left of the combinations.
	"\n.\r\r\n", "\r.\r\r\n", "\r\n.\r.\r\n", "\r\n\r.\r\n", "\r\n.\r\r\r\n",
}

const smuggled = "MAIL FROM:<evil@far.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"

// Whatever stands where the end of data seems to be, and wherever the network cuts the stream: it is one message, with
// all of the smuggler's words in it.
func TestSmuggling(t *testing.T) {
	for _, end := range falseEnds {
		in := "Subject: one\r\n\r\nbody" + end + smuggled + "\r\n.\r\nQUIT\r\n"
		if content, rest, _ := standard(in); !strings.Contains(content, smuggled) || rest != "QUIT\r\n" {
			t.Fatalf("the oracle does not know %q", end)
		}
		for _, way := range ways {
			everyCut(in, func(how string, src io.Reader) { checkData(t, way.name+", "+how, in, src, way.read) })
		}
	}
}

// These hold CRLF.CRLF, and end.
func TestTrueEnds(t *testing.T) {
	for _, end := range []string{"\r\n.\r\n", "\r\r\n.\r\n", "\r\r\r\n.\r\n", "\n\r\n.\r\n", "\r\n..\r\n.\r\n", "\r\n.\r\r\n.\r\n"} {
		in := "body" + end + "QUIT\r\n"
		if _, rest, ended := standard(in); !ended || rest != "QUIT\r\n" {
			t.Fatalf("the oracle does not know %q", end)
		}
		for _, way := range ways {
			everyCut(in, func(how string, src io.Reader) { checkData(t, way.name+", "+how, in, src, way.read) })
		}
	}
}

// Every text of up to six of the octets that matter, with and without an end behind it.
func TestEveryShortText(t *testing.T) {
	const octets = "\r\n.a"
	for length := range 7 {
		for n := range 1 << (2 * length) {
			text := make([]byte, length)
			for i := range text {
				text[i] = octets[n>>(2*i)&3]
			}
			for _, in := range []string{string(text), string(text) + "\r\n.\r\n"} {
				checkData(t, "whole", in, strings.NewReader(in), ways[n&3].read)
				checkData(t, "by the octet", in, iotest.OneByteReader(strings.NewReader(in)), ways[n&3].read)
				cut := n % (len(in) + 1)
				src := io.MultiReader(strings.NewReader(in[:cut]), strings.NewReader(in[cut:]))
				checkData(t, fmt.Sprint("cut at ", cut), in, src, ways[n>>2&3].read)
			}
		}
	}
}

// What matters may lie on the edge of the buffer, wherever that is.
func TestDataAtTheEdge(t *testing.T) {
	size := len(block{})
	for _, turn := range []string{"\r\n..x\r\n", "\r\n.\r", "\r\n.x", "\r\r\n.\n", "\x00\r\n", "\n."} {
		for at := size - 10; at < size+10; at++ {
			in := strings.Repeat("x", at) + turn + "\r\n.\r\nQUIT\r\n"
			for _, way := range ways[:2] {
				checkData(t, way.name, in, strings.NewReader(in), way.read)
			}
		}
	}
}

// Lines have no limit here.
func TestLongLines(t *testing.T) {
	for _, size := range []int{998, 64 << 10, 3 << 20} {
		in := strings.Repeat("x", size) + "\r\n.\r\n"
		for _, way := range ways[:2] {
			checkData(t, way.name, in, strings.NewReader(in), way.read)
		}
	}
}

func TestChunk(t *testing.T) {
	octets := "\r\n.\r\nQUIT\r\n\n\r\x00\xff"
	for _, way := range ways {
		everyCut("BDAT 15\r\n"+octets+"NOOP\r\n", func(how string, src io.Reader) {
			r := NewReader(src)
			if c, err := r.Command(); err != nil || c.Arg != "15" {
				t.Fatal(how, c, err)
			}
			text, err := way.read(r.Chunk(15))
			if string(text) != octets || err != nil {
				t.Errorf("%s, %s: got %q, %v", how, way.name, text, err)
			}
			if got := told(r); got != "NOOP|\nEOF\n" {
				t.Errorf("%s, %s: followed by %q", how, way.name, got)
			}
		})
	}
}

func TestChunkSizes(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 513, 32<<10 - 1, 32 << 10, 32<<10 + 1, 1 << 20} {
		octets := strings.Repeat("0123456789abcdef\n", size/17+1)[:size]
		for _, way := range ways {
			r := NewReader(strings.NewReader(octets + "NOOP\r\n"))
			text, err := way.read(r.Chunk(int64(size)))
			if string(text) != octets || err != nil {
				t.Errorf("%d octets, %s: got %d, %v", size, way.name, len(text), err)
			}
			if got := told(r); got != "NOOP|\nEOF\n" {
				t.Errorf("%d octets, %s: followed by %q", size, way.name, got)
			}
		}
	}
}

// A chunk that is cut off is never whole.
func TestTruncatedChunk(t *testing.T) {
	for have := range 10 {
		for _, way := range ways {
			r := NewReader(strings.NewReader("0123456789"[:have]))
			text, err := way.read(r.Chunk(10))
			if len(text) != have || err != io.ErrUnexpectedEOF {
				t.Errorf("%d octets, %s: got %q, %v", have, way.name, text, err)
			}
			if err := command(r); err != ErrUnread {
				t.Errorf("%d octets, %s: a command behind it gives %v", have, way.name, err)
			}
		}
	}
}

// The octets of a chunk that nobody reads are no commands.
func TestUnreadContent(t *testing.T) {
	in := "MAIL FROM:<evil@far.test>\r\nQUIT\r\n.\r\n"
	for name, content := range map[string]func(*Reader) *Content{
		"DATA": (*Reader).Data,
		"BDAT": func(r *Reader) *Content { return r.Chunk(int64(len(in))) },
	} {
		r := NewReader(strings.NewReader(in + "NOOP\r\n"))
		c := content(r)
		if err := command(r); err != ErrUnread {
			t.Errorf("%s: a command gives %v", name, err)
		}
		if _, err := r.Line(100); err != ErrUnread {
			t.Errorf("%s: a line gives %v", name, err)
		}
		c.Read(make([]byte, 5))
		if err := command(r); err != ErrUnread {
			t.Errorf("%s: a command in the middle gives %v", name, err)
		}
		io.Copy(io.Discard, c)
		if got := told(r); got != "NOOP|\nEOF\n" {
			t.Errorf("%s: behind its end is %q", name, got)
		}
	}
}

// full takes some octets and then no more.
type full struct{ room int }

var errFull = errors.New("full")

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.room {
		return f.room, errFull
	}
	f.room -= len(p)
	return len(p), nil
}

// When content cannot be kept it can be read on.
func TestWriteToFails(t *testing.T) {
	for _, in := range []string{strings.Repeat("..x\r\n", 50000) + ".\r\nNOOP\r\n"} {
		r := NewReader(strings.NewReader(in))
		c := r.Data()
		if n, err := c.WriteTo(&full{room: 100}); n != 100 || err != errFull {
			t.Errorf("got %d, %v", n, err)
		}
		if _, err := c.WriteTo(io.Discard); err != nil {
			t.Error(err)
		}
		if got := told(r); got != "NOOP|\nEOF\n" {
			t.Errorf("got %q", got)
		}
	}
}

// short breaks the rule of io.Writer.
type short struct{}

func (short) Write(p []byte) (int, error) { return len(p) - 1, nil }

func TestWriteToIsShort(t *testing.T) {
	if _, err := NewReader(strings.NewReader("x\r\n.\r\n")).Data().WriteTo(short{}); err != io.ErrShortWrite {
		t.Error(err)
	}
}

func TestReadNothing(t *testing.T) {
	c := NewReader(strings.NewReader("x\r\n.\r\n")).Data()
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
}

func TestParseBDAT(t *testing.T) {
	tests := []struct {
		arg     string
		size    int64
		last    bool
		refused bool // the size is known, the rest is wrong
		unknown bool // the size is not known
	}{
		{arg: "0", size: 0},
		{arg: "10", size: 10},
		{arg: "10 LAST", size: 10, last: true},
		{arg: "10 last", size: 10, last: true},
		{arg: "0 LaSt", last: true},
		{arg: "10  LAST", size: 10, last: true},
		{arg: "10 ", size: 10},
		{arg: "00000000000000000007", size: 7},
		{arg: "9223372036854775807", size: 1<<63 - 1},
		{arg: "9223372036854775808", unknown: true},
		{arg: "18446744073709551616", unknown: true},
		{arg: "99999999999999999999 LAST", unknown: true},
		{arg: "000000000000000000007", unknown: true},
		{arg: "", unknown: true},
		{arg: "LAST", unknown: true},
		{arg: "-1", unknown: true},
		{arg: "+1", unknown: true},
		{arg: "1_0", unknown: true},
		{arg: "0x10", unknown: true},
		{arg: "1e3", unknown: true},
		{arg: "10LAST", unknown: true},
		{arg: "10\tLAST", unknown: true},
		{arg: "\u0661", unknown: true},
		{arg: "10 LASTT", size: 10, refused: true},
		{arg: "10 LAST LAST", size: 10, refused: true},
		{arg: "10 20", size: 10, refused: true},
		{arg: "10 \u017fAST", size: 10, refused: true},
	}
	for _, test := range tests {
		size, last, err := ParseBDAT(test.arg)
		refusal, isReply := errors.AsType[*Reply](err)
		if size != test.size || last != test.last || (err != nil) != (test.refused || test.unknown) {
			t.Errorf("%q: got %d, %t, %v", test.arg, size, last, err)
		}
		if errors.Is(err, ErrUncounted) != test.unknown {
			t.Errorf("%q: %v", test.arg, err)
		}
		if err != nil && (!isReply || refusal.Code != 501 || refusal.Enhanced != "5.5.4") {
			t.Errorf("%q: %v", test.arg, err)
		}
	}
}

func TestLineWatch(t *testing.T) {
	for _, s := range []string{
		"", "a", "\r\n", "\n", "\r", "\r\n\r\n", "\r\r\n", "\n\r\n", "\r\n\n", "\r\n\r", "a\r\nb\r\n", "\r\na\n", "x\r\ny\rz\r\n", "a\r\nb\nc\r",
		"\x00", "a\n\x00",
	} {
		want := LineWatch{Bare: hasBare(s), NUL: strings.Contains(s, "\x00")}
		for i := range len(s) + 1 {
			for j := i; j <= len(s); j++ {
				var l LineWatch
				for _, piece := range []string{s[:i], s[i:j], "", s[j:]} {
					l.Write([]byte(piece))
				}
				l.End()
				if l.Bare != want.Bare || l.NUL != want.NUL {
					t.Errorf("%q cut at %d and %d: %+v", s, i, j, l)
				}
			}
		}
	}
}

// Content of DATA against the oracle, in pieces as they come and as they are asked for.
func FuzzData(f *testing.F) {
	for _, end := range falseEnds {
		f.Add([]byte("a"+end+"b\r\n.\r\nc"), 1, 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, size, asked int) {
		size, asked = size&15+1, asked&15+1
		read := func(c *Content) ([]byte, error) {
			var b bytes.Buffer
			_, err := io.CopyBuffer(&b, struct{ io.Reader }{c}, make([]byte, asked))
			return b.Bytes(), err
		}
		for _, s := range []string{string(in), string(in) + "\r\n.\r\n"} {
			checkData(t, "Read", s, &pieces{[]byte(s), size}, read)
			checkData(t, "WriteTo", s, &pieces{[]byte(s), size}, ways[1].read)
			checkData(t, "whole", s, strings.NewReader(s), ways[1].read)
		}
	})
}

func FuzzLineWatch(f *testing.F) {
	f.Add([]byte("a\r\nb\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		var l LineWatch
		for p := (&pieces{in, size&7 + 1}); len(p.in) > 0; {
			var b [8]byte
			n, _ := p.Read(b[:])
			l.Write(b[:n])
		}
		l.End()
		if l.Bare != hasBare(string(in)) || l.NUL != bytes.Contains(in, []byte{0}) {
			t.Errorf("%q: %+v", in, l)
		}
	})
}

// A stream of commands and contents that a model wrote comes out as it was written, in whatever pieces it comes. Each
// octet of the plan makes a step.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03BDAT"), []byte("QUIT\r\n.\r\n"), 1)
	f.Add([]byte("\x02\x02\x02\xff\xff\xff"), []byte("\r\n.\r\n\r\n.\r\n"), 7)
	f.Fuzz(func(t *testing.T, plan, octets []byte, size int) {
		var stream, want strings.Builder
		for i, step := range plan[:min(len(plan), 40)] {
			text := string(octets[:min(int(step>>2), len(octets))])
			if step&16 != 0 {
				text = strings.Repeat(text, 300)
			}
			switch step & 3 {
			case 0:
				fmt.Fprintf(&stream, "NOOP %d\r\n", i)
				fmt.Fprintf(&want, "NOOP|%d\n", i)
			case 1:
				fmt.Fprintf(&stream, "BDAT %d\r\n%s", len(text), text)
				fmt.Fprintf(&want, "BDAT|%d\n%q <nil>\n", len(text), text)
			case 2:
				text += "\r\n"
				stuffed := strings.TrimPrefix(strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n.."), "\r\n")
				fmt.Fprintf(&stream, "DATA\r\n%s.\r\n", stuffed)
				fmt.Fprintf(&want, "DATA|\n%q <nil>\n", text)
			case 3:
				stream.WriteString("NO\nOP\r\n")
				fmt.Fprintln(&want, errBare)
			}
		}
		want.WriteString("EOF\n")
		if got := told(NewReader(&pieces{[]byte(stream.String()), size&1023 + 1})); got != want.String() {
			t.Errorf("%q is read as\n%s\nwant\n%s", stream.String(), got, want.String())
		}
	})
}
