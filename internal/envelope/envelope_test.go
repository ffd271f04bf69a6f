package envelope

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestReplyString(t *testing.T) {
	for want, r := range map[string]Reply{
		"550 5.1.1 no such user here": {Code: 550, Enhanced: "5.1.1", Text: "no such user here"},
		"421 closing":                 {Code: 421, Text: "closing"},
		"connection refused":          {Text: "connection refused"},
		"":                            {},
	} {
		if got := r.String(); got != want {
			t.Errorf("%+v is written %q, want %q", r, got, want)
		}
	}
}

func TestTemporary(t *testing.T) {
	for code, want := range map[int]bool{0: true, 250: true, 421: true, 499: true, 500: false, 599: false, 600: true} {
		if got := (Reply{Code: code}).Temporary(); got != want {
			t.Errorf("%d is temporary: %v", code, got)
		}
	}
}

func TestSanitize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		max  int
		want string
	}{
		{"plain words", 80, "plain words"},
		{"  one\r\n two\t\vthree \n", 80, "one two three"},
		{"a\x00b\x1b[31mc\x7f", 80, "a?b?[31mc?"},
		{"\xff\xfe", 80, "??"},
		{"a\u0085b\u2028c\u202ed", 80, "a?b?c?d"},
		{"grüße", 80, "grüße"},
		{strings.Repeat("x", 100), 10, "xxxxxxxxxx"},
		{"äöü", 5, "äö"},
		{"ab cd", 3, "ab"},
		{"x", 0, ""},
	} {
		if got := Sanitize(tt.in, tt.max); got != tt.want {
			t.Errorf("Sanitize(%q, %d) = %q, want %q", tt.in, tt.max, got, tt.want)
		}
	}
}

func FuzzSanitize(f *testing.F) {
	f.Add("550 a\r\nb", 20)
	f.Fuzz(func(t *testing.T, s string, max int) {
		got := Sanitize(s, max)
		if len(got) > 0 && len(got) > max || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("Sanitize(%q, %d) = %q", s, max, got)
		}
	})
}

func TestNotify(t *testing.T) {
	for in, want := range map[string]Notify{
		"NEVER": NotifyNever, "success": NotifySuccess, "FAILURE,delay": NotifyFailure | NotifyDelay,
	} {
		got, err := ParseNotify(in)
		if err != nil || got != want || got.String() != strings.ToUpper(in) {
			t.Errorf("ParseNotify(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "NEVER,SUCCESS", "SUCCESS,", "SOMETIMES"} {
		if got, err := ParseNotify(in); err == nil {
			t.Errorf("ParseNotify(%q) = %v", in, got)
		}
	}
}

func TestNotifyWithoutSuccess(t *testing.T) {
	for n, want := range map[Notify]Notify{
		0: 0, NotifyNever: NotifyNever, NotifySuccess: NotifyNever, NotifySuccess | NotifyDelay: NotifyDelay, NotifyFailure: NotifyFailure,
	} {
		if got := n.WithoutSuccess(); got != want {
			t.Errorf("%q without success is %q, want %q", n, got, want)
		}
	}
}

func TestNotifyWants(t *testing.T) {
	for _, tt := range []struct {
		n                       Notify
		success, failure, delay bool
	}{
		{0, false, true, true},
		{NotifyNever, false, false, false},
		{NotifySuccess, true, false, false},
		{NotifyFailure, false, true, false},
		{NotifySuccess | NotifyDelay, true, false, true},
	} {
		if tt.n.Wants(NotifySuccess) != tt.success || tt.n.Wants(NotifyFailure) != tt.failure || tt.n.Wants(NotifyDelay) != tt.delay {
			t.Errorf("NOTIFY=%v wants the wrong things", tt.n)
		}
	}
}

func TestXtext(t *testing.T) {
	for plain, coded := range map[string]string{"a+b=c d": "a+2Bb+3Dc+20d", "Bob@x.org": "Bob@x.org", "": ""} {
		if got := EncodeXtext(plain); got != coded {
			t.Errorf("EncodeXtext(%q) = %q, want %q", plain, got, coded)
		}
		if got, err := DecodeXtext(coded); err != nil || got != plain {
			t.Errorf("DecodeXtext(%q) = %q, %v; want %q", coded, got, err, plain)
		}
	}
	for _, in := range []string{"+00", "+0D+0A", "+", "+2", "+2b", "+GG", "a b", "a=b", "\r\n", "ä", "+7F"} {
		if got, err := DecodeXtext(in); err == nil {
			t.Errorf("DecodeXtext(%q) = %q, want it refused", in, got)
		}
	}
}

func TestEncodeOriginal(t *testing.T) {
	for in, want := range map[string]string{
		"rfc822;bob+x@x.org": "rfc822;bob+2Bx@x.org",
		"utf-8;dö@x.org":     `utf-8;d\x{F6}@x.org`,
		"nonsense":           "",
	} {
		if got := EncodeOriginal(in); got != want {
			t.Errorf("EncodeOriginal(%q) = %q, want %q", in, got, want)
		}
	}
}
