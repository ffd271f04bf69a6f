package imapd

import (
	"regexp"
	"strings"
	"testing"
)

func TestPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "a/b/c", true},
		{"*", "", true},
		{"%", "a", true},
		{"%", "a/b", false},
		{"%/%", "a/b", true},
		{"a/%", "a/b/c", false},
		{"a*c", "a/b/c", true},
		{"a%c", "a/b/c", false},
		{"*a%b", "xa/ab", true},
		{"%*", "a/b", true},
		{"%%", "a/b", false},
		{"inbox", "INBOX", true},
		{"iNbOx/a", "INBOX/a", true},
		{"inbox/A", "INBOX/a", false},
		{"inb%", "INBOX", true},
		{"box", "BOX", false},
		{"Entw\u00fcrfe", "Entw\u00fcrfe", true},
		{strings.Repeat("a", 64) + "*", strings.Repeat("a", 64), true},
		{strings.Repeat("a%", 64) + "*/x", strings.Repeat("a", 64) + "/x", true},
		{strings.Repeat("ab", 64), strings.Repeat("ab", 64), true},
		{strings.Repeat("ab", 64), strings.Repeat("ab", 63) + "ac", false},
	} {
		if got := newPattern(tt.pattern).match(tt.name); got != tt.want {
			t.Errorf("%q matches %q: %v", tt.pattern, tt.name, got)
		}
	}
}

// What makes a backtracking matcher exponential costs this one its promised steps.
func TestPatternSteps(t *testing.T) {
	name := strings.Repeat("a", 40)
	for _, stars := range []int{1, 10, 100, 1000} {
		p := newPattern(strings.Repeat("*a", stars) + "b")
		p.match(name)
		if most := len(name) * ((2*stars+1)/64 + 1); p.steps > most {
			t.Errorf("%d stars: %d steps, want at most %d", stars, p.steps, most)
		}
	}
}

// The machine agrees with regexp, which is another way to say the same.
func FuzzListPattern(f *testing.F) {
	f.Add("*a%b", "xa/ab")
	f.Add("INBOX/%", "INBOX/x")
	f.Add("%/%*", "//")
	f.Add(strings.Repeat("a%", 70), strings.Repeat("aa", 70))
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 300 || len(name) > 300 || strings.HasPrefix(strings.ToUpper(name), "INBOX") {
			t.Skip()
		}
		var re strings.Builder
		re.WriteString(`(?s)\A`)
		for i := range len(pattern) {
			switch c := pattern[i]; c {
			case '*':
				re.WriteString(`.*`)
			case '%':
				re.WriteString(`[^/]*`)
			default:
				re.WriteString(regexp.QuoteMeta(string(rune(c))))
			}
		}
		re.WriteString(`\z`)
		var latin strings.Builder // each octet a character, so that regexp sees octets
		for i := range len(name) {
			latin.WriteRune(rune(name[i]))
		}
		if got, want := newPattern(pattern).match(name), regexp.MustCompile(re.String()).MatchString(latin.String()); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
	})
}
