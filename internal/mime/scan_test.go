package mime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// crlf writes a message with one line end as one newline.
func crlf(msg string) string { return strings.ReplaceAll(msg, "\n", "\r\n") }

func TestFind(t *testing.T) {
	msg := crlf(`Content-Type: multipart/mixed; boundary=a

--a

one
--a
Content-Type: message/rfc822

Subject: plain

two
--a
Content-Type: message/rfc822

Content-Type: multipart/mixed; boundary=b

--b

three one
--b
Content-Type: multipart/alternative; boundary=c

--c

three two one
--c--
--b--
--a--
`)
	s := check(t, []byte(msg))
	for _, c := range []struct {
		path []int
		want string // "" for no such part
	}{
		{nil, msg[s.Root.Body.Off:]},
		{[]int{1}, "one"},
		{[]int{1, 1}, ""},
		{[]int{2}, "Subject: plain\r\n\r\ntwo"},
		{[]int{2, 1}, "two"},
		{[]int{2, 2}, ""},
		{[]int{2, 1, 1}, ""},
		{[]int{3, 1}, "three one"},
		{[]int{3, 2, 1}, "three two one"},
		{[]int{3, 2, 2}, ""},
		{[]int{3, 3}, ""},
		{[]int{4}, ""},
		{[]int{0}, ""},
		{[]int{-1}, ""},
	} {
		got := ""
		if p := s.Root.Find(c.path); p != nil {
			got = msg[p.Body.Off:p.Body.End()]
		}
		if got != c.want {
			t.Errorf("%v is %q, want %q", c.path, got, c.want)
		}
	}
}

func TestFindInOnePart(t *testing.T) {
	s := scan("Subject: x\r\n\r\nbody")
	if p := s.Root.Find([]int{1}); p != &s.Root {
		t.Errorf("1 of a plain message is %v", p)
	}
	for _, path := range [][]int{{2}, {1, 1}, {0}} {
		if p := s.Root.Find(path); p != nil {
			t.Errorf("%v of a plain message is %v", path, p)
		}
	}
	s = scan("Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nbody")
	if p := s.Root.Find([]int{1, 1}); p != &s.Root.Message.Root {
		t.Errorf("1.1 of a message that is a message is %v", p)
	}
}

func TestScanError(t *testing.T) {
	broken := errors.New("broken")
	s, err := Scan(io.MultiReader(strings.NewReader("Subject: x\r\n\r\nbo"), iotest.ErrReader(broken)))
	if err != broken || s.Envelope.Subject != "x" || s.Size != 16 {
		t.Errorf("got %v and %v", err, dump(s))
	}
	if s, err = Scan(strings.NewReader("\r\n")); err != nil || s.Size != 2 {
		t.Errorf("got %v and %v", err, dump(s))
	}
}

func TestFinishAgain(t *testing.T) {
	s := NewScanner()
	io.WriteString(s, "\r\nx")
	if a, b := s.Finish(), s.Finish(); a != b {
		t.Error("a second Finish gives another structure")
	}
}

// TestBoundaryAtTheEnd has a boundary with nothing behind it.
func TestBoundaryAtTheEnd(t *testing.T) {
	for _, c := range []struct {
		end   string
		parts int
	}{{"--b--", 1}, {"--b", 1}, {"--b\r\n", 1}, {"--b\r\n\r\n", 2}, {"--b\r\n--b", 2}, {"", 1}} {
		s := check(t, []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n"+c.end))
		if len(s.Root.Parts) != c.parts {
			t.Errorf("%q makes %d parts, want %d", c.end, len(s.Root.Parts), c.parts)
		}
	}
}

// deep is a multipart in a multipart and so on.
func deep(levels int) string {
	var b strings.Builder
	for i := range levels {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	b.WriteString("\r\ntext\r\n")
	for i := range levels {
		fmt.Fprintf(&b, "--b%d--\r\n", levels-1-i)
	}
	return b.String()
}

// TestLimits goes just to each limit and beyond it.
func TestLimits(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		what string
		msg  string
		ok   func(s *Structure) bool
	}{
		{"as deep as may be", deep(maxDepth - 1), func(s *Structure) bool {
			p := s.Root.Find(slices.Repeat([]int{1}, maxDepth-1))
			return p != nil && p.Type == "text" && p.Body.Len == 4
		}},
		{"deeper is opaque", deep(maxDepth + 5), func(s *Structure) bool {
			p := s.Root.Find(slices.Repeat([]int{1}, maxDepth-1))
			return p != nil && p.Subtype == "octet-stream" && p.Parts == nil
		}},
		{"messages as deep as may be", strings.Repeat("Content-Type: message/rfc822\r\n\r\n", maxDepth+5), func(s *Structure) bool {
			p := &s.Root
			for p.Message != nil {
				p = &p.Message.Root
			}
			return p.Subtype == "octet-stream" && p.Header.Len == 32 && p.Body.Len == 32*5
		}},
		{"as many parts as may be", "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", maxParts+5), func(s *Structure) bool {
			n := len(s.Root.Parts)
			last := s.Root.Parts[n-1]
			return n == maxParts-1 && last.Body.End() == s.Size && s.Root.Parts[n-2].Body.Len == 1
		}},
		{"a header to its limit", "X: " + long(maxHeader-len("X: \r\n\r\n")) + "\r\n\r\nbody", func(s *Structure) bool {
			return s.Root.Header.Len == maxHeader && s.Preview == "body"
		}},
		{"a header over its limit", "Content-Type: multipart/mixed; boundary=b\r\nX: " + long(maxHeader) + "\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n", func(s *Structure) bool {
			return s.Root.Header.Len == maxHeader && s.Root.Subtype == "octet-stream"
		}},
		{"a part's header over its limit", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: " + long(maxHeader) + "\r\n\r\nx\r\n--b\r\n\r\ny\r\n--b--\r\n", func(s *Structure) bool {
			return len(s.Root.Parts) == 2 && s.Root.Parts[0].Header.Len == maxHeader && s.Root.Parts[1].Body.Len == 1
		}},
		{"fields as many as may be", strings.Repeat("X: y\r\n", maxFields-1) + "Subject: x\r\n\r\n", func(s *Structure) bool { return s.Envelope.Subject == "x" }},
		{"more fields", strings.Repeat("X: y\r\n", maxFields) + "Subject: x\r\n\r\nb", func(s *Structure) bool {
			return s.Envelope.Subject == "" && s.Root.Body.Len == 1
		}},
		{"a long field", "Subject:" + long(maxField*2) + "\r\n " + long(maxField) + "\r\n\r\n", func(s *Structure) bool {
			return len(s.Envelope.Subject) <= maxField && len(s.Envelope.Subject) > maxField-len("Subject:")-1
		}},
		{"a long boundary", "Content-Type: multipart/mixed; boundary=" + long(maxBoundary) + "\r\n\r\n--" + long(maxBoundary) + "\r\n\r\nx\r\n", func(s *Structure) bool {
			return s.Root.Parts[0].Body.Len == 3
		}},
		{"a boundary that is too long", "Content-Type: multipart/mixed; boundary=" + long(maxBoundary+1) + "\r\n\r\n--" + long(maxBoundary+1) + "\r\n\r\nx\r\n", func(s *Structure) bool {
			return s.Root.Parts[0].Body.Len == 0
		}},
		{"a boundary line with too much white space", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b" + strings.Repeat(" ", maxBoundaryLine) + "\r\n\r\nx\r\n", func(s *Structure) bool {
			return s.Root.Parts[0].Body.Len == 0
		}},
		{"addresses of one field", "To: " + strings.Repeat("a@b,", 2*maxFieldAddress) + "\r\n\r\n", func(s *Structure) bool { return len(s.Envelope.To) == maxFieldAddress }},
		{"addresses of repeated fields", strings.Repeat("To: "+strings.Repeat("a@b,", maxFieldAddress)+"\r\n", 20) + "\r\n", func(s *Structure) bool { return len(s.Envelope.To) == maxFieldAddress }},
		{"addresses of all", "Content-Type: multipart/digest; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nTo: "+strings.Repeat("a@b,", 900)+"\r\n\r\n", 20), func(s *Structure) bool {
			return addressCount(&s.Root) == maxAddresses && len(s.Root.Parts) == 20
		}},
		{"values of all", "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\nContent-ID: "+long(60000)+"\r\n\r\n", 40), func(s *Structure) bool {
			n := 0
			for _, p := range s.Root.Parts {
				n += len(p.ID)
			}
			return n > maxKept-60000 && n <= maxKept && len(s.Root.Parts) == 40
		}},
		{"segments", "Content-Type: text/plain" + segments(maxSegments+50) + "\r\n\r\n", func(s *Structure) bool { return len(s.Root.Param("a")) == maxSegments }},
		{"parameters", "Content-Type: text/plain" + numbered(maxParams+50) + "\r\n\r\n", func(s *Structure) bool { return len(s.Root.Params) == maxParams }},
		{"a preview", "\r\n" + strings.Repeat("ö", 2*maxPreview), func(s *Structure) bool { return s.Preview == strings.Repeat("ö", maxPreview) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			if s := check(t, []byte(c.msg)); !c.ok(s) {
				text := dump(s)
				t.Errorf("got\n%s", text[:min(len(text), 2000)])
			}
		})
	}
}

func addressCount(p *Part) int {
	n := 0
	for i := range p.Parts {
		n += len(p.Parts[i].Message.Envelope.To)
	}
	return n
}

func segments(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ";a*%d=x", i)
	}
	return b.String()
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ";a%d=x", i)
	}
	return b.String()
}

func TestTextReader(t *testing.T) {
	for _, c := range []struct{ what, head, body, want string }{
		{"as it is", "", "a\r\nö", "a\r\nö"},
		{"quoted-printable", "Content-Transfer-Encoding: quoted-printable\r\n", "=C3=B6 a=\r\nb=  \r\nc = d =4 =ZZ ==41 =\nx=", "ö abc = d =4 =ZZ =A x="},
		{"quoted-printable in lower case", "Content-Transfer-Encoding: Quoted-Printable\r\n", "=c3=b6", "ö"},
		{"base64", "Content-Transfer-Encoding: base64\r\n", "w7Y\r\n=", "ö"},
		{"base64 in two runs, with junk", "Content-Transfer-Encoding: base64\r\n", "YQ==\r\n*Yg==!YmM", "abbc"},
		{"latin1", "Content-Type: text/plain; charset=iso-8859-1\r\n", "\xf6", "ö"},
		{"latin1 in base64", "Content-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: base64\r\n", "9g==", "ö"},
		{"utf-16", "Content-Type: text/plain; charset=utf-16le\r\n", "a\x00b\x00", "ab"},
		{"an unknown charset", "Content-Type: text/plain; charset=x-none\r\n", "\xf6", "\xf6"},
		{"an unknown encoding", "Content-Transfer-Encoding: x-none\r\n", "=C3", "=C3"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := scan(c.head + "\r\n" + c.body)
			for _, body := range []io.Reader{strings.NewReader(c.body), iotest.OneByteReader(strings.NewReader(c.body))} {
				r, ok := TextReader(&s.Root, body)
				if !ok {
					t.Fatal("not a text")
				}
				if got, err := io.ReadAll(r); string(got) != c.want || err != nil {
					t.Errorf("got %q, %v, want %q", got, err, c.want)
				}
			}
		})
	}
	if _, ok := TextReader(&Part{Type: "image", Subtype: "png"}, nil); ok {
		t.Error("an image is a text")
	}
	broken := errors.New("broken")
	r, _ := TextReader(&Part{Type: "text", Encoding: "base64"}, iotest.ErrReader(broken))
	if _, err := io.ReadAll(r); err != broken {
		t.Errorf("got %v", err)
	}
}

// TestDamage damages a stored form at every octet.
func TestDamage(t *testing.T) {
	s := scan(deep(3))
	stored, _ := s.AppendBinary(nil)
	for n := range stored {
		if _, err := Decode(stored[:n]); !errors.Is(err, ErrRecord) {
			t.Fatalf("%d octets of %d: %v", n, len(stored), err)
		}
		for bit := range 8 {
			damaged := bytes.Clone(stored)
			damaged[n] ^= 1 << bit
			if _, err := Open(damaged); !errors.Is(err, ErrRecord) {
				t.Fatalf("bit %d of octet %d: %v", bit, n, err)
			}
			checkDecoded(t, sealed(damaged))
		}
	}
	if _, err := Decode(append(stored, 0)); !errors.Is(err, ErrRecord) {
		t.Errorf("an octet too many: %v", err)
	}
}

// sealed gives b the checksum that a stored form of it would have.
func sealed(b []byte) []byte {
	if len(b) >= head {
		b[0] = version
		binary.BigEndian.PutUint32(b[1:], crc32.Checksum(b[head:], castagnoli))
	}
	return b
}

// checkDecoded says that what Decode takes keeps the promises of the package, and that whatever Open takes can be read.
func checkDecoded(t testing.TB, b []byte) {
	t.Helper()
	if v, err := Open(b); err == nil {
		read := len(v.Envelope()) + len(v.BodyStructure()) + len(v.Preview())
		v.Sent()
		v.AppendBody(nil)
		for id := range v.References() {
			read += len(id)
		}
		for _, word := range [][]byte{v.Subject(), v.MessageID()} {
			if len(word) > len(b) {
				t.Errorf("%d octets of %d", len(word), len(b))
			}
		}
		for f := range AddressField(addressFields) {
			v.First(f)
		}
		if read > len(b) {
			t.Errorf("%d octets of %d", read, len(b))
		}
	}
	s, err := Decode(b)
	if err != nil {
		return
	}
	count := 0
	walk(t, &s.Root, Span{0, s.Size}, &count)
	again, _ := s.AppendBinary(nil)
	if s2, err := Decode(again); err != nil || !reflect.DeepEqual(s, s2) {
		t.Errorf("%v:\n%s", err, dump(s))
	}
}

func walk(t testing.TB, p *Part, within Span, count *int) {
	*count++
	if p.Header.Off < within.Off || p.Body.Off != p.Header.End() || p.Body.End() > within.End() || p.Body.Len < 0 || p.Header.Len < 0 ||
		p.Multipart() != (len(p.Parts) > 0) || p.isMessage() != (p.Message != nil) || *count > 2*maxParts {
		t.Fatalf("part %v %v in %v", p.Header, p.Body, within)
	}
	for i := range p.Parts {
		walk(t, &p.Parts[i], p.Body, count)
	}
	if p.Message != nil {
		walk(t, &p.Message.Root, p.Body, count)
	}
}
