package envelope

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// epoch is when the parameters of these tests are given.
var epoch = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestParseDeliverBy(t *testing.T) {
	for in, want := range map[string]DeliverBy{
		"120;R":        {Deadline: epoch.Add(2 * time.Minute), Return: true},
		"+120;rt":      {Deadline: epoch.Add(2 * time.Minute), Return: true, Trace: true},
		"1;R":          {Deadline: epoch.Add(time.Second), Return: true},
		"-30;N":        {Deadline: epoch.Add(-30 * time.Second)},
		"0;NT":         {Deadline: epoch, Trace: true},
		"999999999;N":  {Deadline: epoch.Add(999_999_999 * time.Second)},
		"-999999999;n": {Deadline: epoch.Add(-999_999_999 * time.Second)},
		"000000001;R":  {Deadline: epoch.Add(time.Second), Return: true},
	} {
		got, err := ParseDeliverBy(in, epoch)
		if err != nil || got != want {
			t.Errorf("BY=%s is %+v, %v; want %+v", in, got, err, want)
		}
		if again, err := ParseDeliverBy(got.Value(epoch), epoch); err != nil || again != got {
			t.Errorf("BY=%s is written %s", in, got.Value(epoch))
		}
	}
	for _, in := range []string{
		"", ";", ";R", "R", "120", "120;", "120;T", "120;RR", "120;RN", "120;RTT", "120;TR", "120;X", "120;R;T", "120R",
		"0;R", "-1;R", "-0;R", "+-1;N", "-+1;N", "++1;N", "1 ;N", "1.5;N", "0x1;N", "1_0;N", "٣;N", "-;N", "+;N",
		"1000000000;N", "-1000000000;N", "0000000001;N", strings.Repeat("9", 900) + ";N",
	} {
		if got, err := ParseDeliverBy(in, epoch); err == nil {
			t.Errorf("BY=%.40s was taken: %+v", in, got)
		}
	}
}

func TestDeliverByValueCountsTheTimeThatIsGone(t *testing.T) {
	by := DeliverBy{Deadline: epoch.Add(time.Hour)}
	for _, tt := range []struct {
		now  time.Time
		want string
	}{
		{epoch, "3600;N"},
		{epoch.Add(10 * time.Minute), "3000;N"},
		{epoch.Add(2 * time.Hour), "-3600;N"},
		{epoch.AddDate(-200, 0, 0), "999999999;N"},
		{epoch.AddDate(200, 0, 0), "-999999999;N"},
	} {
		if got := by.Value(tt.now); got != tt.want {
			t.Errorf("at %s: BY=%s, want %s", tt.now, got, tt.want)
		}
	}
	if got := (DeliverBy{}).Value(epoch); got != "" {
		t.Errorf("no bound is written BY=%s", got)
	}
}

func TestParsePriority(t *testing.T) {
	for in, want := range map[string]int{"0": 0, "9": 9, "-9": -9, "3": 3, "-1": -1} {
		if got, err := ParsePriority(in); err != nil || got != want {
			t.Errorf("MT-PRIORITY=%s is %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-", "10", "-10", "+1", "-0", "00", "01", "--1", "a", "1 ", "٣", strings.Repeat("9", 900)} {
		if got, err := ParsePriority(in); err == nil {
			t.Errorf("MT-PRIORITY=%.40s was taken: %d", in, got)
		}
	}
}

func TestParseDateTime(t *testing.T) {
	for in, want := range map[string]time.Time{
		"2026-11-20T12:00:00Z":                epoch,
		"2026-11-20t12:00:00z":                epoch,
		"2026-11-20T13:30:00+01:30":           epoch,
		"2026-11-20T12:00:00.000001-00:00":    epoch.Add(time.Microsecond),
		"2026-11-20T12:00:00.000000001+00:00": epoch.Add(time.Nanosecond),
	} {
		if got, err := ParseDateTime(in); err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%s is %s, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "2026-11-20", "2026-11-20 12:00:00Z", "2026-11-20T12:00Z", "2026-11-20T12:00:00", "2026-11-20T1:00:00Z",
		"2026-11-20T12:00:00,5Z", "2026-13-20T12:00:00Z", "2026-02-30T12:00:00Z", "2026-11-20T24:00:00Z", "2026-11-20T12:60:00Z",
		"2026-11-20T12:00:00+24:00", "2026-11-20T12:00:00+01", "20261120T120000Z", "02026-11-20T12:00:00Z", "-026-11-20T12:00:00Z",
		"2026-11-20T12:00:00Z ", "1795176000", "2026-11-20T12:00:00." + strings.Repeat("0", 4000) + "Z",
	} {
		if got, err := ParseDateTime(in); err == nil {
			t.Errorf("%.60s was taken: %s", in, got)
		}
	}
}

func TestParseValidSince(t *testing.T) {
	for in, goesOn := range map[string]bool{
		"2026-11-20T12:00:00Z": false, "2026-11-20T12:00:00Z;R": false, "2026-11-20T12:00:00Z;c": true,
	} {
		var r Recipient
		if err := r.ParseValidSince(in); err != nil || !r.ValidSince.Equal(epoch) || r.ValidContinue != goesOn {
			t.Errorf("RRVS=%s is %+v, %v", in, r, err)
		}
	}
	for _, in := range []string{"", ";", ";C", "2026-11-20T12:00:00Z;", "2026-11-20T12:00:00Z;X", "2026-11-20T12:00:00Z;C;R", "now;C",
		"2026-11-20T12:00:00.5Z", "2026-11-20T12:00:00.000Z;C"} {
		var r Recipient
		if err := r.ParseValidSince(in); err == nil || r != (Recipient{}) {
			t.Errorf("RRVS=%s was taken: %+v", in, r)
		}
	}
}

func TestParseSolicit(t *testing.T) {
	word := strings.Repeat("a", 499)
	for in, want := range map[string]int{
		"net.example:ADV": 1, "org.example.ADV:ADLT,net.example:ADV": 2, "a": 1, "a-b_c.d:e1": 1, word + "," + word + "b": 2,
	} {
		if got, err := ParseSolicit(in); err != nil || len(got) != want {
			t.Errorf("SOLICIT=%.40s has %d words, %v", in, len(got), err)
		}
	}
	for _, in := range []string{
		"", ",", "a,", ",a", "a,,b", "1a", ".a", "a b", "a;b", "a@b", "ä", "[a", "a\x00", word + "," + word + "bc", strings.Repeat("a,", 50_000) + "a",
	} {
		if got, err := ParseSolicit(in); err == nil {
			t.Errorf("SOLICIT=%.40s was taken: %.80q", in, got)
		}
	}
}

func TestParseBodyAndReturn(t *testing.T) {
	for in, want := range map[string]Body{"7bit": Body7Bit, "8BITMIME": Body8Bit, "BinaryMIME": BodyBinary} {
		if got, err := ParseBody(in); err != nil || got != want {
			t.Errorf("BODY=%s is %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]Return{"FULL": ReturnFull, "hdrs": ReturnHeaders} {
		if got, err := ParseReturn(in); err != nil || got != want {
			t.Errorf("RET=%s is %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "8BIT", "FULL,HDRS", " 7BIT", "8BITMİME"} {
		if got, err := ParseBody(in); err == nil {
			t.Errorf("BODY=%s was taken: %q", in, got)
		}
		if got, err := ParseReturn(in); err == nil {
			t.Errorf("RET=%s was taken: %q", in, got)
		}
	}
}

func TestParseEnvelopeID(t *testing.T) {
	for in, want := range map[string]string{
		"QQ314159": "QQ314159", "a+2Bb+3Dc+20d": "a+b=c d", strings.Repeat("x", 100): strings.Repeat("x", 100),
	} {
		if got, err := ParseEnvelopeID(in); err != nil || got != want {
			t.Errorf("ENVID=%s is %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "+00", "+0D+0A", "a+0Ab", "+7F", "+FF", "+2b", "+2", "+", "a=b", "ä", strings.Repeat("x", 101), strings.Repeat("x", 10_000)} {
		if got, err := ParseEnvelopeID(in); err == nil {
			t.Errorf("ENVID=%.40s was taken: %q", in, got)
		}
	}
}

func TestParseOriginal(t *testing.T) {
	for _, tt := range []struct {
		in    string
		utf8  bool
		want  string
		coded string // by EncodeOriginal; in when empty
	}{
		{"rfc822;bob+2Bx@x.org", false, "rfc822;bob+x@x.org", ""},
		{"RFC822;a", false, "rfc822;a", "rfc822;a"},
		{"x400;/S=Bob+3B", true, "", ""}, // "=" must be coded
		{"x400;/S+3DBob+20B", false, "x400;/S=Bob B", ""},
		{`utf-8;d\x{F6}@x.org`, false, "utf-8;dö@x.org", ""},
		{`utf-8;d\x{f6}@x.org`, false, "utf-8;dö@x.org", `utf-8;d\x{F6}@x.org`},
		{"utf-8;dö@x.org", true, "utf-8;dö@x.org", `utf-8;d\x{F6}@x.org`},
		{"utf-8;dö@x.org", false, "", ""},
		{"rfc822;dö@x.org", true, "", ""},
		{`utf-8;a\x{2B}b\x{20}\x{3D}\x{5C}@x.org`, false, `utf-8;a+b =\@x.org`, ""},
		{`utf-8;\x{1F600}@x.org`, false, "utf-8;😀@x.org", ""},
		{`utf-8;\x{41}@x.org`, false, "", ""},    // A stands for itself
		{`utf-8;\x{00F6}@x.org`, false, "", ""},  // one form only
		{`utf-8;\x{D800}@x.org`, false, "", ""},  // a surrogate
		{`utf-8;\x{110000}@x.org`, true, "", ""}, // no character
		{`utf-8;\x{202E}@x.org`, true, "", ""},   // turns the direction of writing
		{`utf-8;\x{0A}@x.org`, true, "", ""},
		{`utf-8;\x{7F}@x.org`, true, "", ""},
		{`utf-8;\x{F6@x.org`, true, "", ""},
		{`utf-8;\x{}@x.org`, true, "", ""},
		{`utf-8;a\b@x.org`, true, "", ""},
		{"utf-8;a+2Bb@x.org", true, "", ""},
		{"utf-8;\xff@x.org", true, "", ""},
		{"rfc822;a+0D+0A", false, "", ""},
		{"rfc822;a+00", false, "", ""},
		{"rfc822;", false, "", ""},
		{"rfc822", false, "", ""},
		{";a@x.org", false, "", ""},
		{"rfc 822;a@x.org", false, "", ""},
		{"ä;a@x.org", true, "", ""},
		{"", false, "", ""},
		{"rfc822;" + strings.Repeat("a", 493), false, "rfc822;" + strings.Repeat("a", 493), ""},
		{"rfc822;" + strings.Repeat("a", 494), false, "", ""},
		{"rfc822;" + strings.Repeat("a", 50_000), false, "", ""},
	} {
		got, err := ParseOriginal(tt.in, tt.utf8)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("ORCPT=%.60s, SMTPUTF8 %v, is %.60q, %v; want %.60q", tt.in, tt.utf8, got, err, tt.want)
		}
		if tt.coded == "" {
			tt.coded = tt.in
		}
		if coded := EncodeOriginal(got); err == nil && coded != tt.coded {
			t.Errorf("ORCPT=%.60s is written %.60s again", tt.in, coded)
		}
	}
}

func FuzzXtext(f *testing.F) {
	for _, s := range []string{"a+2Bb", "+00", "+0D+0A", "+", "a=b", `utf-8;d\x{F6}`, "rfc822;a+20b", "ä"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if plain, err := DecodeXtext(s); err == nil {
			if again, err := DecodeXtext(EncodeXtext(plain)); err != nil || again != plain || strings.ContainsFunc(plain, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%q is %q, and again %q, %v", s, plain, again, err)
			}
		}
		original, err := ParseOriginal(s, true)
		if err != nil {
			return
		}
		if coded := EncodeOriginal(original); !IsASCII(coded) || strings.ContainsAny(coded, " =\r\n\x00") {
			t.Fatalf("%q is written %q", s, coded)
		} else if again, err := ParseOriginal(coded, false); len(coded) <= mostOriginal && (err != nil || again != original) {
			t.Fatalf("%q is %q, written %q, and again %q, %v", s, original, coded, again, err)
		}
		if !utf8.ValidString(original) || Sanitize(original, len(original)) != strings.Join(strings.Fields(original), " ") && !strings.ContainsAny(original, "\uff20\ufe6b") {
			t.Fatalf("%q lets %q through", s, original)
		}
	})
}

func FuzzParameterValues(f *testing.F) {
	for _, s := range []string{"120;RT", "-5;N", "-9", "2026-11-20T12:00:00.5+01:00;C", "a.b:c,d", "8BITMIME"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if by, err := ParseDeliverBy(s, epoch); err == nil {
			if again, err := ParseDeliverBy(by.Value(epoch), epoch); err != nil || again != by {
				t.Fatalf("BY=%s is %+v, and again %+v, %v", s, by, again, err)
			}
		}
		if n, err := ParsePriority(s); err == nil && (n < -9 || n > 9) {
			t.Fatalf("MT-PRIORITY=%s is %d", s, n)
		}
		var r Recipient
		if err := r.ParseValidSince(s); err == nil && (r.ValidSince.Year() < -1 || r.ValidSince.Year() > 10_000) {
			t.Fatalf("RRVS=%s is %s", s, r.ValidSince)
		}
		if words, err := ParseSolicit(s); err == nil && strings.Join(words, ",") != s {
			t.Fatalf("SOLICIT=%s is %q", s, words)
		}
	})
}
