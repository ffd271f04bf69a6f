package mbox

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// split returns the messages of a file.
func split(t testing.TB, file string) []string {
	t.Helper()
	var all []string
	r, err := NewReader(strings.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(m.Body)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
}

const mark = "From a@b Fri Sep 27 12:03:19 1996\n"

func TestSplit(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		want       []string
	}{
		{"an empty file", "", nil},
		{"one message", mark + "A: b\n\nx\n", []string{"A: b\r\n\r\nx\r\n"}},
		{"two", mark + "A: 1\n\nx\n\n" + mark + "A: 2\n\ny\n\n", []string{"A: 1\r\n\r\nx\r\n", "A: 2\r\n\r\ny\r\n"}},
		{"CRLF stays CRLF", "From a@b Fri Sep 27 12:03:19 1996\r\nA: b\r\n\r\nx\r\n\r\n", []string{"A: b\r\n\r\nx\r\n"}},
		{"no line end at the end", mark + "A: b\n\nx", []string{"A: b\r\n\r\nx"}},
		{"no empty line before the next, but a date", mark + "A: 1\n\nx\n" + mark + "A: 2\n\ny\n", []string{"A: 1\r\n\r\nx\r\n", "A: 2\r\n\r\ny\r\n"}},
		{"Mozilla's mark", "From - \nA: 1\n\nx\nFrom -\nA: 2\n\ny\n", []string{"A: 1\r\n\r\nx\r\n", "A: 2\r\n\r\ny\r\n"}},
		{"one word after an empty line", "From 1@xxx\nA: 1\n\nx\n\nFrom 2@xxx\nA: 2\n\ny\n", []string{"A: 1\r\n\r\nx\r\n", "A: 2\r\n\r\ny\r\n"}},
		{"one word without one is text", "From 1@xxx\nA: 1\n\nx\nFrom 2@xxx\nA: 2\n\ny\n", []string{"A: 1\r\n\r\nx\r\nFrom 2@xxx\r\nA: 2\r\n\r\ny\r\n"}},
		{"a sentence is text", mark + "A: 1\n\n\nFrom Russia with love\nYear: 1963\n", []string{"A: 1\r\n\r\n\r\nFrom Russia with love\r\nYear: 1963\r\n"}},
		{"no header below: text", mark + "A: 1\n\nhe wrote\n\n" + mark + "this was his line\n", []string{"A: 1\r\n\r\nhe wrote\r\n\r\nFrom a@b Fri Sep 27 12:03:19 1996\r\nthis was his line\r\n"}},
		{"quoted marks lose one quote", mark + "A: 1\n\n>From x\n>>From y\n> From z\n>Fromage\n", []string{"A: 1\r\n\r\nFrom x\r\n>From y\r\n> From z\r\n>Fromage\r\n"}},
		{"but not in the header", mark + ">From old Fri Sep 27 12:03:19 1996\nA: 1\n\nx\n", []string{">From old Fri Sep 27 12:03:19 1996\r\nA: 1\r\n\r\nx\r\n"}},
		{"empty messages", mark + "\n" + mark + "\n", []string{"\r\n", "\r\n"}},
		{"nothing but a mark", mark, []string{""}},
		{"a byte order mark and empty lines", "\ufeff\n\n" + mark + "A: b\n\nx\n", []string{"A: b\r\n\r\nx\r\n"}},
		{
			"a Content-Length that is right keeps a message whole",
			mark + fmt.Sprintf("A: 1\nContent-Length: %d\n\n", len("x\n\n"+mark+"B: 2\n\n>From y\n")) + "x\n\n" + mark + "B: 2\n\n>From y\n\n" + mark + "A: 2\n\nz\n",
			[]string{fmt.Sprintf("A: 1\r\nContent-Length: %d\r\n\r\nx\r\n\r\n", len("x\n\n"+mark+"B: 2\n\n>From y\n")) + strings.TrimSuffix(mark, "\n") + "\r\nB: 2\r\n\r\n>From y\r\n", "A: 2\r\n\r\nz\r\n"},
		},
		{
			"one that is right for the last message",
			mark + fmt.Sprintf("Content-Length: %d\n\n", len("x\n\n"+mark+"B: 2\n")) + "x\n\n" + mark + "B: 2\n",
			[]string{fmt.Sprintf("Content-Length: %d\r\n\r\nx\r\n\r\n", len("x\n\n"+mark+"B: 2\n")) + strings.TrimSuffix(mark, "\n") + "\r\nB: 2\r\n"},
		},
		{"one that is too long does not merge", mark + "Content-Length: 60\n\nx\n\n" + mark + "A: 2\n\nyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n", []string{"Content-Length: 60\r\n\r\nx\r\n", "A: 2\r\n\r\nyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"}},
		{"one that is too short does not split", mark + "Content-Length: 1\n\nxyz\nsecond\n\n" + mark + "A: 2\n\ny\n", []string{"Content-Length: 1\r\n\r\nxyz\r\nsecond\r\n", "A: 2\r\n\r\ny\r\n"}},
		{"one beyond the file", mark + "Content-Length: 99999999999\n\nx\n\n" + mark + "A: 2\n\ny\n", []string{"Content-Length: 99999999999\r\n\r\nx\r\n", "A: 2\r\n\r\ny\r\n"}},
		{"one that is no number", mark + "Content-Length: -5\n\nx\n\n" + mark + "A: 2\n\ny\n", []string{"Content-Length: -5\r\n\r\nx\r\n", "A: 2\r\n\r\ny\r\n"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := split(t, tc.file); !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestPostmarks(t *testing.T) {
	at := time.Date(1996, 9, 27, 12, 3, 19, 0, time.UTC)
	for line, want := range map[string]time.Time{
		"From a@b Fri Sep 27 12:03:19 1996":                  at,
		"From a@b  Fri Sep 27 12:03:19 1996 +0200":           at.Add(-2 * time.Hour),
		"From a@b Fri Sep 27 12:03:19 +0200 1996":            at.Add(-2 * time.Hour),
		"From a@b Fri Sep 27 12:03:19 MET 1996":              at,
		"From a@b Fri Sep 27 12:03 1996":                     at.Add(-19 * time.Second),
		"From - Fri Sep 27 12:03:19 1996":                    at,
		"From Joe Q. Public Fri Sep 27 12:03:19 1996":        at,
		"From a@b Fri Sep 27 12:03:19 1996 remote from host": at,
		"From \"a b\"@c Fri Sep 27 12:03:19 1996":            at,
		"From MAILER-DAEMON Fri Sep 27 12:03:19 1996":        at,
		"From Fri@b Fri Sep 27 12:03:19 1996":                at,
		"From Fri Fri Sep 27 12:03:19 1996":                  at,
		"From - ":                                            {},
		"From -":                                             {},
		"From 1844347792267117879@xxx":                       {},
	} {
		got, ok := parsePostmark([]byte(line))
		if !ok || !got.date.Equal(want) {
			t.Errorf("%q: %v %v", line, got, ok)
		}
	}
	for _, line := range []string{
		"", "From", "From ", "From: a@b", "from a@b Fri Sep 27 12:03:19 1996", ">From a@b Fri Sep 27 12:03:19 1996",
		"From Russia with love", "From now on", "From Friday Sep 27", "From a@b Fri Sep 27 1996", "From a@b Fri Xyz 27 12:03:19 1996",
		"From a@b Fri Sep 27 25:03:19 1996", "From a@b Fri Sep 27 12:03:19 96", "From me",
	} {
		if got, ok := parsePostmark([]byte(line)); ok {
			t.Errorf("%q is taken for a postmark: %v", line, got)
		}
	}
}

func TestFlagsDatesAndOffsets(t *testing.T) {
	file := mark + "Status: RO\nX-Status: AFTD\n\nx\n\nFrom -\nA: b\n\nStatus: R\n"
	r, err := NewReader(strings.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Next()
	if err != nil || !slices.Equal(m.Flags, []string{`\Answered`, `\Draft`, `\Flagged`, `\Seen`}) || m.Date.IsZero() || m.Offset != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	m, err = r.Next()
	if err != nil || m.Flags != nil || !m.Date.IsZero() || m.Offset != int64(strings.Index(file, "From -")) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestNotAnMbox(t *testing.T) {
	for _, file := range []string{"Subject: x\n\ny\n", "x", "From Russia with love\n", "From " + strings.Repeat("x", 2000) + " Fri Sep 27 12:03:19 1996\n"} {
		if _, err := NewReader(strings.NewReader(file), int64(len(file))); err != ErrFormat {
			t.Errorf("%.20q: %v", file, err)
		}
	}
}

// failing is a file whose octets from an offset on cannot be read.
type failing struct {
	io.ReaderAt
	from int64
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, iotest.ErrTimeout
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestReadErrorsAreNotTheEnd(t *testing.T) {
	file := mark + "A: b\n\n" + strings.Repeat("x\n", 20_000) + "\n" + mark + "A: c\n\ny\n"
	for from := int64(0); from < int64(len(file)); from += 4000 {
		r, err := NewReader(failing{strings.NewReader(file), from}, int64(len(file)))
		for err == nil {
			var m *Message
			if m, err = r.Next(); err == nil {
				_, err = io.Copy(io.Discard, m.Body)
			}
		}
		if err == io.EOF || err == ErrFormat {
			t.Errorf("unreadable from %d: %v", from, err)
		}
	}
}

func TestCRLF(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", "a\nb\n": "a\r\nb\r\n", "a\r\nb": "a\r\nb", "\n\n": "\r\n\r\n", "a\rb\n": "a\rb\r\n", "\r\r\n": "\r\r\n", "\r": "\r",
		strings.Repeat("x", 32<<10-1) + "\r\n":   strings.Repeat("x", 32<<10-1) + "\r\n",
		strings.Repeat("x", 32<<10) + "\n":       strings.Repeat("x", 32<<10) + "\r\n",
		">From x\n\n>From y\n":                   ">From x\r\n\r\n>From y\r\n",
		strings.Repeat("y", 100<<10) + "\n\nz\n": strings.Repeat("y", 100<<10) + "\r\n\r\nz\r\n",
	} {
		got, err := io.ReadAll(NewCRLF(iotest.OneByteReader(strings.NewReader(in))))
		if err != nil || string(got) != want {
			t.Errorf("%.20q: %.40q, %v", in, got, err)
		}
	}
}

// corpus is where messages from the wild are kept, beside the repository.
const corpus = "../../../shared/corpus/mbox"

func TestCorpus(t *testing.T) {
	counts := map[string]int{
		"james-mime4j/test-1_mbox.rlug":                  5,
		"jstedfast-MimeKit/mbox_content-length.mbox.txt": 29,
		"jstedfast-MimeKit/mbox_issue1189.mbox.txt":      4,
		"jstedfast-MimeKit/mbox_simple.mbox.txt":         3,
		"jstedfast-MimeKit/mbox_unmunged.mbox.txt":       2,
		"mjl--mox/testdata_importtest.mbox":              2,
		"spamassassin/data_nice.mbox":                    3,
		"tika/test-documents_simple.mbox":                2,
		"tika/test-documents_quoted.mbox":                1,
	}
	for name, want := range counts {
		file, err := os.ReadFile(filepath.Join(corpus, name))
		if os.IsNotExist(err) {
			t.Skip("the corpus is not there")
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := split(t, string(file)); len(got) != want {
			t.Errorf("%s: %d messages, want %d", name, len(got), want)
		}
	}
}

func FuzzReader(f *testing.F) {
	paths, _ := filepath.Glob(filepath.Join(corpus, "*", "*"))
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && len(b) < 50_000 {
			f.Add(b)
		}
	}
	f.Add([]byte(mark + "Content-Length: 40\n\nx\n\n" + mark + "\n\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := NewReader(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		last := int64(-1)
		for {
			m, err := r.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.Offset <= last {
				t.Fatalf("a message at %d after one at %d", m.Offset, last)
			}
			last = m.Offset
			b, err := io.ReadAll(m.Body)
			if err != nil {
				t.Fatal(err)
			}
			if i := bytes.IndexByte(b, '\n'); i == 0 || i > 0 && b[i-1] != '\r' {
				t.Fatal("a bare line feed")
			}
		}
	})
}
