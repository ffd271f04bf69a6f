package mime

import (
	"io"
	"runtime"
	"strings"
	"testing"
)

// growth is what an attacker would repeat n times. Each is read by everything that may meet it.
var growth = []struct {
	what  string
	input func(n int) string
}{
	{"nested multiparts", deep},
	{"nested messages", func(n int) string { return strings.Repeat("Content-Type: message/rfc822\r\n\r\n", n) }},
	{"empty parts", func(n int) string {
		return "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\n", n)
	}},
	{"digest of messages", func(n int) string {
		return "Content-Type: multipart/digest; boundary=b\r\n\r\n" + strings.Repeat("--b\n\nFrom:a\n\n", n)
	}},
	{"dashes in many open boundaries", func(n int) string {
		return strings.TrimRight(deep(90), "\r\n-b0123456789") + strings.Repeat("--b\n", n)
	}},
	{"almost boundaries", func(n int) string {
		b := strings.Repeat("x", 2000)
		return "Content-Type: multipart/mixed; boundary=" + b + "\r\n\r\n" + strings.Repeat("--"+b+"y\r\n", n/100)
	}},
	{"comments in an address", func(n int) string { return "From: " + strings.Repeat("(", n) + "\r\n\r\n" }},
	{"comments one after another", func(n int) string { return "To: " + strings.Repeat("(a)", n) + "<a@b>\r\n\r\n" }},
	{"backslashes", func(n int) string { return "To: (" + strings.Repeat(`\\`, n) + "\r\n\r\n" }},
	{"quotes", func(n int) string { return "To: " + strings.Repeat(`"`, n) + "\r\n\r\n" }},
	{"addresses", func(n int) string { return "To: " + strings.Repeat("a@b,", n) + "\r\n\r\n" }},
	{"groups", func(n int) string { return "To: " + strings.Repeat("a:", n) + "\r\n\r\n" }},
	{"ends of groups", func(n int) string { return "To: " + strings.Repeat("a:;", n) + "\r\n\r\n" }},
	{"angles", func(n int) string { return "To: " + strings.Repeat("<", n) + "\r\n\r\n" }},
	{"routes", func(n int) string { return "To: " + strings.Repeat("<@", n) + "\r\n\r\n" }},
	{"brackets", func(n int) string { return "To: " + strings.Repeat("[", n) + "\r\n\r\n" }},
	{"ats", func(n int) string { return "To: " + strings.Repeat("@", n) + "\r\n\r\n" }},
	{"recipients in fields", func(n int) string { return strings.Repeat("To: a@b\r\n", n) + "\r\n" }},
	{"fields", func(n int) string { return strings.Repeat("Received: x\r\n", n) + "\r\n" }},
	{"references", func(n int) string { return "References: " + strings.Repeat("<a@b>", n) + "\r\n\r\n" }},
	{"starts of references", func(n int) string { return "References: " + strings.Repeat("<", n) + "\r\n\r\n" }},
	{"empty references", func(n int) string { return "References: " + strings.Repeat("<>", n) + "\r\n\r\n" }},
	{"words that are not as they stand", func(n int) string {
		return "Subject: " + strings.Repeat("\\", n) + "=?utf-8?q?=c3=b6?=\r\nFrom: " + strings.Repeat("\\a", n) + "\r\n\r\n"
	}},
	{"folding", func(n int) string { return "Subject:" + strings.Repeat("\r\n ", n) + "\r\n\r\n" }},
	{"a long field", func(n int) string { return "Subject: " + strings.Repeat("x", n) + "\r\n\r\n" }},
	{"encoded-words", func(n int) string { return "Subject: " + strings.Repeat("=?utf-8?q?a?= ", n) + "\r\n\r\n" }},
	{"encoded-words in two charsets", func(n int) string {
		return "Subject: " + strings.Repeat("=?utf-8?q?a?= =?iso-8859-1?q?a?= ", n) + "\r\n\r\n"
	}},
	{"encoded-words without end", func(n int) string { return "Subject: " + strings.Repeat("=?a?q?x", n) + "\r\n\r\n" }},
	{"starts of encoded-words", func(n int) string { return "Subject: " + strings.Repeat("=?", n) + "\r\n\r\n" }},
	{"parameters", func(n int) string { return "Content-Type: text/plain" + numbered(n) + "\r\n\r\n" }},
	{"segments", func(n int) string { return "Content-Type: text/plain" + segments(n) + "\r\n\r\n" }},
	{"semicolons", func(n int) string { return "Content-Type: text/plain" + strings.Repeat(";", n) + "\r\n\r\n" }},
	{"languages", func(n int) string { return "Content-Language: " + strings.Repeat("a,", n) + "\r\n\r\n" }},
	{"tags in the preview", func(n int) string { return "Content-Type: text/html\r\n\r\n" + strings.Repeat("<style></style>", n) }},
	{"ends of lines", func(n int) string { return "\r\n" + strings.Repeat("\n", n) }},
	{"one long line", func(n int) string { return "\r\n" + strings.Repeat("x", n) }},
}

// read does everything to the input that a server does.
func read(input string) {
	s := scan(input)
	stored, _ := s.AppendBinary(nil)
	Decode(stored)
	v, _ := Open(stored)
	v.AppendBody(nil)
	for _, raw := range HeaderFields([]byte(input)) {
		v := Unfold(raw)
		DecodeHeader(v)
		parseAddresses(v, maxAddresses)
		ParseDate(v)
	}
	r, _ := TextReader(&Part{Type: "text", Encoding: "quoted-printable"}, strings.NewReader(input))
	io.Copy(io.Discard, r)
}

// TestGrowth says that memory grows no faster than the input, whatever is repeated in it.
func TestGrowth(t *testing.T) {
	const small, times = 1 << 10, 16
	for _, g := range growth {
		t.Run(g.what, func(t *testing.T) {
			a, b := memory(g.input(small)), memory(g.input(small*times))
			if limit := a*times*3/2 + 256<<10; b > limit {
				t.Errorf("%d octets for %d, %d for %d", a, small, b, small*times)
			}
		})
	}
}

// memory returns the octets that reading the input allocates.
func memory(input string) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read(input)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestBounded says that a scan keeps no more than its limits however much comes in.
func TestBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine's work; the race detector makes it long")
	}
	for _, g := range growth {
		t.Run(g.what, func(t *testing.T) {
			var before, after runtime.MemStats
			input := g.input(1 << 20)
			runtime.GC()
			runtime.ReadMemStats(&before)
			s := NewScanner()
			for piece := range pieces(input, 32<<10) {
				io.WriteString(s, piece)
			}
			structure := s.Finish()
			runtime.GC()
			runtime.ReadMemStats(&after)
			if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 24<<20 {
				t.Errorf("%d octets kept of %d", kept, len(input))
			}
			if stored, _ := structure.AppendBinary(nil); len(stored) > 4<<20 {
				t.Errorf("%d octets are stored of %d", len(stored), len(input))
			}
			runtime.KeepAlive(input)
			runtime.KeepAlive(structure)
			runtime.KeepAlive(s)
		})
	}
}

// pieces cuts s.
func pieces(s string, n int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(s) > 0 {
			m := min(n, len(s))
			if !yield(s[:m]) {
				return
			}
			s = s[m:]
		}
	}
}
