package wire

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// endless gives s again and again, in reads of at most as many octets as the buffer has.
type endless struct {
	s  string
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		k := copy(p[n:], e.s[e.at:])
		n += k
		if e.at += k; e.at == len(e.s) {
			e.at = 0
		}
	}
	return n, nil
}

// sink takes octets and nothing else, so that WriteTo is what is measured.
type sink struct{}

func (sink) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkData(b *testing.B) {
	line := strings.Repeat("x", 74) + "\r\n"
	for _, bench := range []struct{ name, body string }{
		{"4k", strings.Repeat(line, 4096/76)},
		{"1M", strings.Repeat(line, 1<<20/76)},
		{"1M prose", strings.Repeat("It is, e.g., what a person writes. Short. Or not.\r\n\r\n", 1<<20/53)},
		{"1M dots", strings.Repeat("..\r\n", 1<<18)},
		{"1M empty", strings.Repeat("\r\n", 1<<19)},
		{"1M one line", strings.Repeat("x", 1<<20) + "\r\n"},
		{"1M bare", strings.Repeat("\r\n.\r", 1<<18) + "\r\n"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			r := NewReader(&endless{s: bench.body + ".\r\n"})
			b.SetBytes(int64(len(bench.body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Data().WriteTo(sink{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkChunk(b *testing.B) {
	for _, size := range []int64{4 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size>>10, "k"), func(b *testing.B) {
			r := NewReader(&endless{s: strings.Repeat("x", 1<<16)})
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if n, err := r.Chunk(size).WriteTo(sink{}); n != size || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkLineWatch(b *testing.B) {
	p := bytes.Repeat([]byte(strings.Repeat("x", 74)+"\r\n"), 400)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		var l LineWatch
		l.Write(p)
	}
}

func BenchmarkCommands(b *testing.B) {
	r := NewReader(&endless{s: "MAIL FROM:<sender@far.test> SIZE=1000 BODY=8BITMIME\r\nRCPT TO:<alice@example.test>\r\n"})
	b.ReportAllocs()
	for b.Loop() {
		c, err := r.Command()
		if err != nil {
			b.Fatal(err)
		}
		prefix := "TO:"
		if c.Verb == "MAIL" {
			prefix = "FROM:"
		}
		if _, _, err := Path(c.Arg, prefix); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReplies(b *testing.B) {
	w := NewWriter(io.Discard)
	b.ReportAllocs()
	for b.Loop() {
		w.Reply(Reply{250, "2.1.5", "recipient accepted"})
	}
}
