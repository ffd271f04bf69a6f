package envelope

import (
	"bufio"
	"encoding/xml"
	"errors"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseAddress(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tt := range []struct {
		name, in string
		want     Address
		written  string // what String gives; in when empty
	}{
		{"plain", "alice@example.com", Address{"alice", "example.com"}, ""},
		{"domain in lower case, local part as given", "Alice@EXAMPLE.com", Address{"Alice", "example.com"}, "Alice@example.com"},
		{"every special character", "!#$%&'*+-/=?^_`{|}~@x.org", Address{"!#$%&'*+-/=?^_`{|}~", "x.org"}, ""},
		{"needless quotes go", `"alice"@x.org`, Address{"alice", "x.org"}, "alice@x.org"},
		{"needless backslashes go", `"\a\b"@x.org`, Address{"ab", "x.org"}, "ab@x.org"},
		{"needed quotes stay", `"a b"@x.org`, Address{"a b", "x.org"}, ""},
		{"an @ in quotes is no separator", `"a@evil.com x"@x.org`, Address{"a@evil.com x", "x.org"}, ""},
		{"a quote in quotes", `"a\"b\\c"@x.org`, Address{`a"b\c`, "x.org"}, ""},
		{"dots that only quotes allow", `".a..b."@x.org`, Address{".a..b.", "x.org"}, ""},
		{"UTF-8 local part", "dömäne@x.org", Address{"dömäne", "x.org"}, ""},
		{"U-labels", "a@BÜCHER.example", Address{"a", "bücher.example"}, "a@bücher.example"},
		{"A-labels", "a@XN--bcher-kva.example", Address{"a", "xn--bcher-kva.example"}, "a@xn--bcher-kva.example"},
		{"an underscore in the domain", "a@x_y.example", Address{"a", "x_y.example"}, ""},
		{"hyphens in the third place", "a@r3---sn.example", Address{"a", "r3---sn.example"}, ""},
		{"IPv4 literal", "a@[192.0.2.1]", Address{"a", "[192.0.2.1]"}, ""},
		{"IPv6 literal in its one form", "a@[ipv6:2001:DB8:0::1]", Address{"a", "[IPv6:2001:db8::1]"}, "a@[IPv6:2001:db8::1]"},
		{"longest local part", long + "@x.org", Address{long, "x.org"}, ""},
		{"percent hack is only a name", "user%ext@us.example", Address{"user%ext", "us.example"}, ""},
		{"bang path is only a name", "ext!user@us.example", Address{"ext!user", "us.example"}, ""},
		{"half an encoded word is only a name", "=?utf-8?q?a@x.org", Address{"=?utf-8?q?a", "x.org"}, ""},
		{"joiners, which some scripts need", "क्\u200dष@x.org", Address{"क्\u200dष", "x.org"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseAddress(tt.in)
			if err != nil || got != tt.want {
				t.Fatalf("ParseAddress(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
			}
			written := tt.written
			if written == "" {
				written = tt.in
			}
			if got.String() != written {
				t.Errorf("String() = %q, want %q", got.String(), written)
			}
		})
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, in := range []string{
		"", "@", "a@", "@b", `""`, `""@x.org`, `"\"`, `"\"@x.org`, `"a`, `"a"b@x.org`, `a"b"@x.org`,
		"a", "postmaster", "a b@x.org", "a@x org", "a@x.org ", " a@x.org", "a@x.org.", "a@.x.org", "a@x..org",
		".a@x.org", "a.@x.org", "a..b@x.org", "a@b@c", "a@b%c", "@us.example:user@ext.example", "<a@x.org>",
		"a@-x.org", "a@x-.org", "a@x.org(comment)", "a(comment)@x.org", "a@x\torg", "a\t@x.org",
		"a@x.org\r\n", "a\r\n@x.org", "\"a\r\n\"@x.org", "\"a\\\r\"@x.org", "a\x00@x.org", "\"\x1b\"@x.org", "a@x.org\x00",
		"\xff@x.org", "a@\xff.org", "a\u0085b@x.org", "a\u2028b@x.org", "a\u202eb@x.org", "a\uff20b@x.org", "a\ufe6bx.org",
		"a@x\uff20y.org", "=?utf-8?q?a=40b?=c(x)@h.org", "=?utf-8?q?a=40b?=c@h.org", "a=?x?B?YQ==?=@h.org",
		`"=?utf-8?q?a b?="@h.org`, "a\u200bb@x.org", "a\u00adb@x.org", "a\u2060b@x.org", "a\U000e0040b@x.org", "a\ufeffb@x.org", "<a@b>c@d.org", "a@1.2.3.4", "a@x.1",
		"a@[1.2.3.4", "a@[1.2.3]", "a@[256.1.1.1]", "a@[01.2.3.4]", "a@[IPv6:1.2.3.4]", "a@[::1]", "a@[IPv6:fe80::1%eth0]",
		"a@[tag:x]", "a@[]", "a@[1.2.3.4]x", "a@xn--a.org", "a@xn--.org", "a@bü cher.org",
		"a@x\u200by.org", "a@x\u00ady.org", "a@\uff58.org", "a@x\u3002org", "a@x\uff0eorg", "a@\u2460x.org",
		strings.Repeat("a", 65) + "@x.org", `"` + strings.Repeat("a", 63) + `"@x.org`,
		"a@" + strings.Repeat("a", 64) + ".org", "a@" + strings.Repeat("a.", 127) + "org",
		strings.Repeat("a", 64) + "@" + strings.Repeat("abcd.", 37) + "exampl",
		strings.Repeat("a", 10_000) + "@x.org", "a@" + strings.Repeat("ü", 10_000), strings.Repeat("(", 100_000),
	} {
		if got, err := ParseAddress(in); !errors.Is(err, ErrAddress) || !got.IsZero() {
			t.Errorf("ParseAddress(%.60q) = %+v, %v; want it refused", in, got, err)
		}
	}
}

// TestLimits holds each limit at its edge, one beyond, and far beyond. An international
// address must keep them in its canonical form as well, in which it may go out.
func TestLimits(t *testing.T) {
	domain := func(n int) string { // of n octets, n > 190
		return strings.Repeat("abcd.", 37) + strings.Repeat("e", n-185)
	}
	for _, tt := range []struct {
		name string
		in   string
		ok   bool
	}{
		{"local part of 64", strings.Repeat("a", 64) + "@x.org", true},
		{"of 65", strings.Repeat("a", 65) + "@x.org", false},
		{"of 6,400", strings.Repeat("a", 6400) + "@x.org", false},
		{"quoted, of 64 with its quotes", `"` + strings.Repeat(" ", 62) + `"@x.org`, true},
		{"of 65", `"` + strings.Repeat(" ", 63) + `"@x.org`, false},
		{"of 64 with backslashes", `"` + strings.Repeat(`\"`, 31) + `"@x.org`, true},
		{"of 66", `"` + strings.Repeat(`\"`, 32) + `"@x.org`, false},
		{"in UTF-8, of 64", strings.Repeat("ü", 32) + "@x.org", true},
		{"of 66", strings.Repeat("ü", 33) + "@x.org", false},
		{"that grows in lower case, to 63", strings.Repeat("Ⱥ", 21) + "@x.org", true},
		{"to 66", strings.Repeat("Ⱥ", 22) + "@x.org", false},
		{"label of 63", "a@" + strings.Repeat("b", 63) + ".org", true},
		{"of 64", "a@" + strings.Repeat("b", 64) + ".org", false},
		{"of 6,300", "a@" + strings.Repeat("b", 6300) + ".org", false},
		{"international label of 63 in A-labels", "a@" + strings.Repeat("b", 55) + "ü.org", true},
		{"of 64", "a@" + strings.Repeat("b", 56) + "ü.org", false},
		{"address of 254", strings.Repeat("a", 63) + "@" + domain(190), true},
		{"of 255", strings.Repeat("a", 64) + "@" + domain(190), false},
		{"with a domain of 252", "a@" + domain(247) + ".test", true},
		{"of 253, which no address has room for", "a@" + domain(248) + ".test", false},
		{"of 254 in A-labels", strings.Repeat("a", 60) + "@" + strings.Repeat("ü.", 24) + "b", true}, // xn--tda. is 8 octets
		{"of 255", strings.Repeat("a", 61) + "@" + strings.Repeat("ü.", 24) + "b", false},
		{"of 300 octets", "a@" + strings.Repeat("abcd.", 59) + "defgh", false},
	} {
		if _, err := ParseAddress(tt.in); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestParsePath(t *testing.T) {
	for in, want := range map[string]Address{
		"<>":                                  {},
		"<a@x.org>":                           {"a", "x.org"},
		"a@x.org":                             {"a", "x.org"},
		"<@one.example,@two.example:a@x.org>": {"a", "x.org"},
		"@one.example:a@x.org":                {"a", "x.org"},
		"<Postmaster>":                        {"Postmaster", ""},
		`<"a>b"@x.org>`:                       {"a>b", "x.org"},
	} {
		if got, err := ParsePath(in); err != nil || got != want {
			t.Errorf("ParsePath(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "<", ">", `<"">`, "<@>", "<a@>", `<"\">`, "<a@x.org", "a@x.org>", "<<a@x.org>>", "<a@x.org>x", "<a@x.org>SIZE=1",
		"<@:a@x.org>", "<@one.example>", "<@one.example,two.example:a@x.org>", "<@one.example:>", "<@[1.2.3.4]:a@x.org>",
		"< a@x.org>", "<a@x.org >", "<user>", "<postmaster@>", "<@" + strings.Repeat("a,@", 100_000) + ":a@x.org>",
	} {
		if got, err := ParsePath(in); !errors.Is(err, ErrAddress) {
			t.Errorf("ParsePath(%.60q) = %+v, %v; want it refused", in, got, err)
		}
	}
}

func TestParseDomain(t *testing.T) {
	for in, want := range map[string]string{
		"Example.COM":        "example.com",
		"localhost":          "localhost",
		"bücher.example":     "xn--bcher-kva.example",
		"BÜCHER.example":     "xn--bcher-kva.example",
		"[192.0.2.1]":        "[192.0.2.1]",
		"[IPV6:2001:DB8::1]": "[IPv6:2001:db8::1]",
	} {
		if got, err := ParseDomain(in); err != nil || got != want {
			t.Errorf("ParseDomain(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]Address{
		"Alice@Example.com":       {"alice", "example.com"},
		"a@bücher.example":        {"a", "xn--bcher-kva.example"},
		"a@xn--bcher-kva.example": {"a", "xn--bcher-kva.example"},
		"u\u0308@x.org":           {"\u00fc", "x.org"},
		"\u00dc@x.org":            {"\u00fc", "x.org"},
		`"A B"@x.org`:             {"a b", "x.org"},
	} {
		a, err := ParseAddress(in)
		if got := a.Canonical(); err != nil || got != want {
			t.Errorf("Canonical(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	if got := (Address{}).Canonical(); !got.IsZero() {
		t.Errorf("the null path's canonical form is %+v", got)
	}
}

func TestASCII(t *testing.T) {
	for in, want := range map[string]bool{"a@bücher.example": true, "ä@x.org": false, "a@x.org": true} {
		a, _ := ParseAddress(in)
		if got, ok := a.ASCII(); ok != want || !IsASCII(got.Domain) {
			t.Errorf("ASCII(%q) = %v, %v; want %v", in, got, ok, want)
		}
	}
}

func TestLiteral(t *testing.T) {
	for in, want := range map[string]string{"[192.0.2.1]": "192.0.2.1", "[IPv6:::1]": "::1", "x.org": ""} {
		if ip, ok := Literal(in); ok != (want != "") || ok && ip.String() != want {
			t.Errorf("Literal(%q) = %v, %v", in, ip, ok)
		}
	}
}

// TestIsEmail holds the parser against the published vectors: what they call valid,
// also where they only warn, is taken; obsolete forms, comments, folding and errors are not.
func TestIsEmail(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(corpus(t), "isemail-tests.xml"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Test []struct {
			ID        string `xml:"id,attr"`
			Address   string `xml:"address"`
			Category  string `xml:"category"`
			Diagnosis string `xml:"diagnosis"`
		} `xml:"test"`
	}
	if err := xml.Unmarshal(b, &vectors); err != nil || len(vectors.Test) < 100 {
		t.Fatalf("%d vectors: %v", len(vectors.Test), err)
	}
	differs := map[string]bool{
		// Refused here: an empty name, and IP addresses without brackets.
		`""@iana.org`: true, "test@123.123.123.123": true, "test@255.255.255.255": true, "test@iana.123": true,
		// Taken here, and written in its one form.
		"test@[IPv6:1111:2222:3333:4444:5555:6666::8888]": true,
	}
	for _, v := range vectors.Test {
		in := unpicture(v.Address)
		valid := v.Category == "ISEMAIL_VALID_CATEGORY" || v.Category == "ISEMAIL_DNSWARN" || v.Category == "ISEMAIL_RFC5321"
		valid = valid != differs[in]
		if _, err := ParseAddress(in); (err == nil) != valid {
			t.Errorf("%s: %q is %s %s: %v", v.ID, in, v.Category, v.Diagnosis, err)
		}
	}
}

// unpicture turns the pictures of control characters back into the characters.
func unpicture(s string) string {
	return strings.Map(func(r rune) rune {
		if 0x2400 <= r && r < 0x2420 {
			return r - 0x2400
		}
		return r
	}, s)
}

func TestFlanker(t *testing.T) {
	dir := filepath.Join(corpus(t), "flanker")
	for _, in := range lines(t, filepath.Join(dir, "fixtures_mailbox_valid.txt")) {
		mailbox := strings.Contains(in, " <") || strings.Contains(in, "(this is a comment)")
		number := strings.HasSuffix(in, "@example.123") || strings.HasSuffix(in, "@123.123.123.123") || strings.HasSuffix(in, "@192.168.0.1")
		stricter := mailbox || number
		if _, err := ParseAddress(in); (err != nil) != stricter {
			t.Errorf("valid in a header: %q: %v", in, err)
		}
	}
	for _, in := range lines(t, filepath.Join(dir, "fixtures_mailbox_invalid.txt")) {
		if _, err := ParseAddress(in); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

func corpus(t *testing.T) string {
	dir := filepath.Join("..", "..", "..", "shared", "corpus", "addr")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("the corpus of addresses is not here")
	}
	return dir
}

func lines(t *testing.T, name string) []string {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if line := sc.Text(); line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"a@x.org", `"a b"@x.org`, "<@a,@b:c@d>", "<>", "postmaster", "a@[IPv6:::1]", "ä@bücher.example", `"\"@x`, "a@xn--bcher-kva.de", "a@ß.de", "a@ﷺ.org",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParsePath(s)
		if err != nil {
			return
		}
		again, err := ParsePath(a.Path())
		if err != nil || again != a {
			t.Fatalf("%q is %+v, written %q, read again %+v, %v", s, a, a.Path(), again, err)
		}
		c := a.Canonical()
		if again, err := ParsePath(c.Path()); err != nil || again != c || c.Canonical() != c {
			t.Fatalf("the canonical form of %+v is not stable: %+v, %+v, %v", a, c, again, err)
		}
		if other, err := mail.ParseAddress(a.Path()); a.Domain != "" && a.Domain[0] != '[' && (err != nil || other.Address != a.Local+"@"+a.Domain) {
			t.Fatalf("%q is %+v here, and elsewhere %+v, %v", s, a, other, err)
		}
		for _, r := range a.Path() {
			if r < ' ' || r == 0x7f || r == utf8.RuneError {
				t.Fatalf("%q let %q through", s, r)
			}
		}
		if len(a.String()) > 254 {
			t.Fatalf("%q is longer than a path", a)
		}
		if d, ok := a.ASCII(); ok && strings.ContainsFunc(d.String(), func(r rune) bool { return r > '~' }) {
			t.Fatalf("ASCII of %q is %q", s, d)
		}
	})
}
