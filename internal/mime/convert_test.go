package mime

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// tester is a test, or one of rapid's.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

func convert(t tester, msg []byte, sevenBit bool) ([]byte, *Conversion) {
	t.Helper()
	c, err := PlanConversion(scan(string(msg)), bytes.NewReader(msg), sevenBit)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c.Reader(bytes.NewReader(msg)))
	if err != nil {
		t.Fatal(err)
	}
	return out, c
}

func TestConvert(t *testing.T) {
	long := strings.Repeat("0123456789", 120)
	for _, tt := range []struct{ name, in, seven, eight string }{
		{"7 bits stay", "A: b\n\nc\n", "A: b\n\nc\n", "A: b\n\nc\n"},
		{"a text", "Mime-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nA: b\n\nschön ist \nim Mai = und ohne Tränen\n",
			"Mime-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\nA: b\n\nsch=C3=B6n ist=20\nim Mai =3D und ohne Tr=C3=A4nen\n", ""},
		{"no MIME at all", "A: b\n\nsehr viel Text und ein ö\n", "A: b\nMIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\nsehr viel Text und ein =C3=B6\n", ""},
		{"mostly not ASCII", "Mime-Version: 1.0\n\näöü\n", "Mime-Version: 1.0\nContent-Transfer-Encoding: base64\n\nw6TDtsO8DQo=\n", ""},
		{"no line begins as a boundary", "Mime-Version: 1.0\n\n-- \nhello hello ö\n", "Mime-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n=2D-=20\nhello hello =C3=B6\n", ""},
		{"octets that are no lines", "Mime-Version: 1.0\nContent-Type: image/x\nContent-Transfer-Encoding: binary\n\n\x00\r\x01",
			"Mime-Version: 1.0\nContent-Type: image/x\nContent-Transfer-Encoding: base64\n\nAA0B\n", "Mime-Version: 1.0\nContent-Type: image/x\nContent-Transfer-Encoding: base64\n\nAA0B\n"},
		{"lines that are called binary", "Mime-Version: 1.0\nContent-Transfer-Encoding: binary\n\nabc\n", "Mime-Version: 1.0\nContent-Transfer-Encoding: 7bit\n\nabc\n", "Mime-Version: 1.0\nContent-Transfer-Encoding: 7bit\n\nabc\n"},
		{"a long line", "Mime-Version: 1.0\nContent-Transfer-Encoding:\n binary (really)\n\n" + long + "\n",
			"Mime-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n" + softly(long) + "\n", "Mime-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n" + softly(long) + "\n"},
		{"two encodings, of which the first counts", "Mime-Version: 1.0\nContent-Transfer-Encoding: 8bit\nContent-Transfer-Encoding: binary\n\nschön, sehr schön sogar, und dazu noch ein wenig mehr\n",
			"Mime-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\nsch=C3=B6n, sehr sch=C3=B6n sogar, und dazu noch ein wenig mehr\n", ""},
		{"parts", "Mime-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n\n--b\n\nplain\n--b\nContent-Type: text/plain\nContent-Transfer-Encoding: 8bit\n\nöäü\n--b\nContent-Type: application/x\n\nö\n--b--\n",
			"Mime-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 7bit\n\n--b\n\nplain\n--b\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\nw7bDpMO8\n--b\nContent-Type: application/x\nContent-Transfer-Encoding: base64\n\nw7Y=\n--b--\n", ""},
		{"what is signed stays, and what holds it says so", "Mime-Version: 1.0\nContent-Type: multipart/mixed; boundary=a\nContent-Transfer-Encoding: 8bit\n\n--a\nContent-Type: multipart/signed; boundary=b\nContent-Transfer-Encoding: 8bit\n\n--b\nContent-Transfer-Encoding: 8bit\n\nöäü\n--b\n\nsignature\n--b--\n--a\n\nöäü\n--a--\n",
			"Mime-Version: 1.0\nContent-Type: multipart/mixed; boundary=a\nContent-Transfer-Encoding: 8bit\n\n--a\nContent-Type: multipart/signed; boundary=b\nContent-Transfer-Encoding: 8bit\n\n--b\nContent-Transfer-Encoding: 8bit\n\nöäü\n--b\n\nsignature\n--b--\n--a\nContent-Transfer-Encoding: base64\n\nw7bDpMO8\n--a--\n", ""},
		{"a message in a message", "Mime-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nA: b\n\nöäü\n",
			"Mime-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nA: b\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\nw7bDpMO8DQo=\n", ""},
		{"its header cannot change", "Mime-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nA: ö\n\nb\n", "", ""},
		{"a message of UTF-8 can as a whole", "Mime-Version: 1.0\nContent-Type: message/global\nContent-Transfer-Encoding: 8bit\n\nSubject: schön\n\nabc def ghi\n",
			"Mime-Version: 1.0\nContent-Type: message/global\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogc2Now7ZuDQoNCmFiYyBkZWYgZ2hpDQo=\n", ""},
		{"a report stays", "Mime-Version: 1.0\nContent-Type: message/delivery-status\nContent-Transfer-Encoding: 8bit\n\nA: ö\n", "", ""},
		{"an encoding that nobody knows stays", "Mime-Version: 1.0\nContent-Transfer-Encoding: x-uu\n\nö\n", "", ""},
		{"an encoding with octets in it that it has not", "Mime-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n=41 ö und noch viel mehr davon\n",
			"Mime-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\nA =C3=B6 und noch viel mehr davon\n", ""},
		{"no end of the last line", "Mime-Version: 1.0\nContent-Transfer-Encoding: 8bit\n\nein ö am Ende einer Zeile",
			"Mime-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\nein =C3=B6 am Ende einer Zeile=\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := strings.ReplaceAll(tt.in, "\n", "\r\n")
			for sevenBit, want := range map[bool]string{true: tt.seven, false: tt.eight} {
				if want = strings.ReplaceAll(want, "\n", "\r\n"); want == "" {
					want = in
				}
				if out, _ := convert(t, []byte(in), sevenBit); string(out) != want {
					t.Errorf("to 7 bits %v:\n%q, want\n%q", sevenBit, out, want)
				}
				checkConversion(t, []byte(in))
			}
		})
	}
}

// softly breaks a line as quoted-printable does.
func softly(s string) string {
	var b strings.Builder
	for len(s) > 75 {
		b.WriteString(s[:75] + "=\n")
		s = s[75:]
	}
	return b.String() + s
}

// checkConversion holds what is promised of conversions against those of msg.
func checkConversion(t tester, msg []byte) {
	t.Helper()
	for _, sevenBit := range []bool{true, false} {
		out, c := convert(t, msg, sevenBit)
		samePart(t, msg, out, &scan(string(msg)).Root, &scan(string(out)).Root)
		if again, c2 := convert(t, out, sevenBit); !bytes.Equal(again, out) || c2.Binary() != c.Binary() {
			t.Errorf("to 7 bits %v: %q becomes %q, and that %q", sevenBit, msg, out, again)
		}
		pieces, err := io.ReadAll(iotest.OneByteReader(c.Reader(iotest.HalfReader(bytes.NewReader(msg)))))
		if err != nil || !bytes.Equal(pieces, out) {
			t.Errorf("to 7 bits %v: in pieces %q, in one %q, %v", sevenBit, pieces, out, err)
		}
	}
}

// samePart compares parts before and after a conversion: they mean the same.
func samePart(t tester, msg, out []byte, p, q *Part) {
	t.Helper()
	if global := p.Message != nil && p.Subtype == "global"; !global && (p.Type != q.Type || p.Subtype != q.Subtype || len(p.Parts) != len(q.Parts)) {
		t.Errorf("%s/%s of %d parts became %s/%s of %d, in %q that was %q", p.Type, p.Subtype, len(p.Parts), q.Type, q.Subtype, len(q.Parts), out, msg)
		return
	}
	if a, b := otherFields(msg, p), otherFields(out, q); a != b {
		t.Errorf("the header %q became %q", a, b)
	}
	switch {
	case p.Message != nil && q.Message != nil:
		samePart(t, msg, out, &p.Message.Root, &q.Message.Root)
	case len(p.Parts) > 0:
		for i := range p.Parts {
			samePart(t, msg, out, &p.Parts[i], &q.Parts[i])
		}
	default:
		if a, b := octets(t, msg, p), octets(t, out, q); a != b {
			t.Errorf("%s/%s in %s %q became in %s %q", p.Type, p.Subtype, p.Encoding, a, q.Encoding, b)
		}
	}
}

func octets(t tester, msg []byte, p *Part) string {
	r, _ := p.Decoded(bytes.NewReader(msg[p.Body.Off:p.Body.End()]))
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// otherFields is a header without what a conversion may change.
func otherFields(msg []byte, p *Part) string {
	return string(AppendFields(nil, msg[p.Header.Off:p.Header.End()], []string{"Content-Transfer-Encoding", "MIME-Version"}, true))
}

func TestConvertCorpus(t *testing.T) {
	for _, folder := range []string{"eml", "mbox", "fuzzseeds"} {
		corpus(t, folder, func(t *testing.T, msg []byte) { checkConversion(t, msg) })
	}
}

// TestConvertRapid builds messages of all that a conversion looks at.
func TestConvertRapid(t *testing.T) {
	texts := rapid.SampledFrom([]string{"plain", "schön", "\r\n", "\r\n", "\r", "\n", "\x00", "=", "=41", "--b", "-", " ", "\t", strings.Repeat("long ", 30), strings.Repeat("x", 1000), "w7bDpMO8", "\xff\xfe"})
	types := rapid.SampledFrom([]string{"", "text/plain", "text/html; charset=iso-8859-1", "application/octet-stream", "message/rfc822", "message/global", "message/delivery-status",
		"multipart/mixed; boundary=b", "multipart/mixed; boundary=bb", "multipart/signed; boundary=b", "multipart/digest; boundary=bb", "application/pkcs7-mime"})
	encodings := rapid.SampledFrom([]string{"", "", "7bit", "8bit", "binary", "quoted-printable", "base64", "x-uu", "8bit (comment)"})
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		for range rapid.IntRange(1, 5).Draw(t, "entities") {
			if v := types.Draw(t, "type"); v != "" {
				b.WriteString("Content-Type: " + v + "\r\n")
			}
			if v := encodings.Draw(t, "encoding"); v != "" {
				b.WriteString("content-transfer-encoding: " + v + "\r\n")
			}
			b.WriteString("\r\n" + strings.Join(rapid.SliceOfN(texts, 0, 8).Draw(t, "body"), ""))
			b.WriteString(rapid.SampledFrom([]string{"", "\r\n--b\r\n", "\r\n--bb\r\n", "\r\n--b--\r\n", "\r\n--bb--\r\n"}).Draw(t, "boundary"))
		}
		checkConversion(t, []byte(b.String()))
	})
}

// TestConvertedIsASCII: whatever a text or an attachment holds, it leaves in lines of ASCII, and comes back.
func TestConvertedIsASCII(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		body := make([]byte, rnd.IntN(300))
		for i := range body {
			body[i] = "\r\n\r\n\x00\xff\xc3\xb6=ab .-"[rnd.IntN(13)]
		}
		for _, header := range []string{"", "Content-Type: application/x\r\n", "Content-Transfer-Encoding: binary\r\n"} {
			out, c := convert(t, []byte(header+"\r\n"+string(body)), true)
			if c.Binary() || bytes.ContainsFunc(out, func(r rune) bool { return r >= 0x80 || r == 0 }) {
				t.Fatalf("%q became %q", body, out)
			}
			even := bytes.ReplaceAll(out, []byte("\r\n"), nil)
			if bytes.ContainsAny(even, "\r\n") {
				t.Fatalf("%q became %q", body, out)
			}
		}
	}
}

func FuzzConvert(f *testing.F) {
	for _, file := range golden(f) {
		msg, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg)
	}
	f.Add([]byte("Content-Transfer-Encoding: 8bit\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\xc3\xb6\r\n--b--\r\n"))
	f.Fuzz(func(t *testing.T, msg []byte) { checkConversion(t, msg) })
}
