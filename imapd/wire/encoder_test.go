package wire

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/RoaringBitmap/roaring/v2"
)

func encode(utf8 bool, write func(e *Encoder)) string {
	var b bytes.Buffer
	e := NewEncoder(&b)
	e.UTF8(utf8)
	write(e)
	if err := e.Flush(); err != nil {
		return err.Error()
	}
	return b.String()
}

func TestEncoder(t *testing.T) {
	for _, tt := range []struct {
		name  string
		utf8  bool
		write func(e *Encoder)
		want  string
	}{
		{"nothing", false, func(e *Encoder) {}, ""},
		{"a line of items", false, func(e *Encoder) {
			e.Raw("* ").Number(7).Raw(" FETCH ").Begin().Atom("UID").Number(12).Atom("FLAGS").Flags([]string{`\Seen`, "a"}).End().CRLF()
		}, "* 7 FETCH (UID 12 FLAGS (\\Seen a))\r\n"},
		{"a second line begins anew", false, func(e *Encoder) { e.Atom("a").CRLF(); e.Atom("b").CRLF() }, "a\r\nb\r\n"},
		{"lists in lists", false, func(e *Encoder) {
			e.Begin().Begin().Atom("a").End().Begin().End().Nil().End().Encoded([]byte("(b)"))
		}, "((a) () NIL) (b)"},
		{"an explicit space", false, func(e *Encoder) { e.Atom("a").SP().Atom("b").Raw("[").Atom("c").Bytes([]byte("]")) }, "a b[c]"},
		{"the largest number", false, func(e *Encoder) { e.Number(math.MaxUint64) }, "18446744073709551615"},
		{"quotes", false, func(e *Encoder) { e.String(`a "b" \`).String("") }, `"a \"b\" \\" ""`},
		{"a string of lines", false, func(e *Encoder) { e.String("a\r\nb").String("c") }, "{4}\r\na\r\nb \"c\""},
		{"a string with NUL", false, func(e *Encoder) { e.String("a\x00b") }, "{3}\r\na\x80b"},
		{"8 bits", false, func(e *Encoder) { e.String("é") }, "{2}\r\né"},
		{"8 bits with UTF-8", true, func(e *Encoder) { e.String("é") }, `"é"`},
		{"8 bits that are not UTF-8", true, func(e *Encoder) { e.String("\xff") }, "{1}\r\n\xff"},
		{"an astring", false, func(e *Encoder) { e.AString("a").AString("a b").AString("").AString("nil").AString("a*").AString("a]") },
			`a "a b" "" "nil" "a*" "a]"`},
		{"a mailbox", false, func(e *Encoder) { e.Mailbox("INBOX").Mailbox("é").Mailbox("R&D").Mailbox("a b/é") }, `INBOX &AOk- R&-D "a b/&AOk-"`},
		{"a mailbox with UTF-8", true, func(e *Encoder) { e.Mailbox("é").Mailbox("R&D") }, `"é" R&D`},
		{"a mailbox that would be a response", false, func(e *Encoder) { e.Mailbox("a\r\n* BYE") }, `"a&AA0ACg-* BYE"`},
		{"a date", false, func(e *Encoder) {
			e.Date(time.Date(2024, 2, 1, 3, 4, 5, 0, time.FixedZone("", -5400))).Date(time.Date(2024, 12, 31, 23, 59, 59, 0, time.UTC))
		}, `" 1-Feb-2024 03:04:05 -0130" "31-Dec-2024 23:59:59 +0000"`},
		{"a set", false, func(e *Encoder) { e.Set(roaring.BitmapOf(1, 2, 3, 4, 7, 9, 10, math.MaxUint32)).Atom("x") }, "1:4,7,9:10,4294967295 x"},
		{"text", false, func(e *Encoder) { e.Text("a\r\nb\tc\x7fé\xff") }, "a  b c ??"},
		{"text with UTF-8", true, func(e *Encoder) { e.Text("é\xff") }, "é?"},
		{"a status", false, func(e *Encoder) { e.Status("a1", "NO", "CANNOT", "it\r\nis") }, "a1 NO [CANNOT] it  is\r\n"},
		{"a status without code", false, func(e *Encoder) { e.Status("*", "OK", "", "") }, "* OK done\r\n"},
		{"a literal", false, func(e *Encoder) {
			e.Atom("x").Literal(3)
			io.WriteString(e, "ab")
			io.WriteString(e, "c")
			e.Literal8(1).Write([]byte{0})
			e.Literal(0).End().CRLF()
		}, "x {3}\r\nabc ~{1}\r\n\x00 {0}\r\n)\r\n"},
		{"a literal from a reader", false, func(e *Encoder) { e.Literal(3).ReadFrom(iotest.OneByteReader(strings.NewReader("abcdef"))) }, "{3}\r\nabc"},
		{"a literal that is too short", false, func(e *Encoder) { e.Literal(3).Write([]byte("ab")); e.CRLF() }, errLiteral.Error()},
		{"one that ends with the response", false, func(e *Encoder) { e.Literal(3).Write([]byte("ab")) }, errLiteral.Error()},
		{"one that is too long", false, func(e *Encoder) { e.Literal(3).Write([]byte("abcd")) }, errLiteral.Error()},
		{"one whose reader ends", false, func(e *Encoder) { e.Literal(3).ReadFrom(strings.NewReader("ab")) }, io.ErrUnexpectedEOF.Error()},
	} {
		if got := encode(tt.utf8, tt.write); got != tt.want {
			t.Errorf("%s:\ngot  %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

// Whatever is larger than the buffer goes through it in order.
func TestEncoderLarge(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 10_000)
	want := big + `"` + big + `"` + "{160000}\r\n" + big + "{160000}\r\n" + big + "\r\n"
	got := encode(false, func(e *Encoder) {
		e.Raw(big).Quoted(big)
		e.Raw("").Literal(160_000).Write([]byte(big))
		e.Raw("").Literal(160_000).ReadFrom(strings.NewReader(big))
		e.CRLF()
	})
	if got != want {
		t.Errorf("%d octets, want %d", len(got), len(want))
	}
}

type failing struct{ writes int }

func (f *failing) Write([]byte) (int, error) { f.writes++; return 0, errors.New("gone") }

func TestEncoderError(t *testing.T) {
	f := &failing{}
	e := NewEncoder(f)
	for range 10_000 {
		e.Raw("0123456789").CRLF()
	}
	e.Literal(1 << 40).ReadFrom(strings.NewReader("x"))
	if err := e.Flush(); err == nil || err.Error() != "gone" || err != e.Err() {
		t.Errorf("flush: %v", err)
	}
	if f.writes != 1 {
		t.Errorf("%d writes after an error", f.writes)
	}
	e.Reset(io.Discard)
	if err := e.Atom("x").Flush(); err != nil {
		t.Errorf("after Reset: %v", err)
	}
}

// A response costs no allocation, and an Encoder that was flushed holds no buffer.
func TestEncoderAllocs(t *testing.T) {
	e := NewEncoder(io.Discard)
	flags := []string{`\Seen`, "$Forwarded"}
	now, body := time.Now(), bytes.NewReader(make([]byte, 100_000))
	if n := testing.AllocsPerRun(100, func() {
		body.Seek(0, io.SeekStart)
		e.Raw("* ").Number(7).Raw(" FETCH ").Begin().Atom("UID").Number(12).Atom("FLAGS").Flags(flags).Atom("INTERNALDATE").Date(now)
		e.Atom("X").String("some text").Mailbox("INBOX").Atom("BODY[]").Literal(100_000).ReadFrom(body)
		e.End().CRLF()
		e.Flush()
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
	if e.page != nil || e.buf != nil {
		t.Error("it holds a buffer")
	}
}

// A name that is written is read as the same name.
func FuzzMailbox(f *testing.F) {
	for _, s := range []string{"INBOX", "a b", "é", "R&D", "&AOk-", "a\tb", `"`, "\\", "nil", "*", strings.Repeat("é", 2000), "", "{5}", "a]"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, name string, wide bool) {
		if !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\r\n\uFFFD") || strings.EqualFold(name, "INBOX") {
			return
		}
		line := encode(wide, func(e *Encoder) { e.Atom("a1").Atom("DELETE").Mailbox(name).CRLF() })
		d := NewDecoder(strings.NewReader(line), func() error { return nil })
		d.SetLimits(AfterLogin(0))
		d.UTF8(wide)
		c, err := d.Command()
		if err != nil {
			t.Fatalf("%q is written %q: %v", name, line, err)
		}
		if got := c.Args.(*Mailbox).Name; got != name {
			t.Errorf("%q is written %q and read %q", name, line, got)
		}
	})
}

// Dates of messages are read as they are written.
func TestDateRoundTrip(t *testing.T) {
	for hours := 0; hours < 40_000; hours += 31 {
		want := time.Date(2023, 12, 30, hours, hours%60, hours%59, 0, time.FixedZone("", (hours%25-12)*1800))
		wire := encode(false, func(e *Encoder) { e.Date(want) })
		if got, ok := parseDateTime(strings.Trim(wire, `"`)); !ok || !got.Equal(want) {
			t.Fatalf("%v is written %s and read %v", want, wire, got)
		}
	}
}

func BenchmarkEncodeFetch(b *testing.B) {
	e := NewEncoder(io.Discard)
	flags := []string{`\Seen`, "$Forwarded"}
	b.ReportAllocs()
	for i := range b.N {
		e.Raw("* ").Number(uint64(i)).Raw(" FETCH ").Begin().Atom("UID").Number(uint64(i)).Atom("FLAGS").Flags(flags).End().CRLF()
	}
}
