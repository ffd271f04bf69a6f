package sasl

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/bidi"
	"golang.org/x/text/unicode/norm"
)

// Prepare brings a name or password into the form in which it is compared: SASLprep (RFC
// 4013), which is what clients of SCRAM apply to a password before they derive a key. A
// text that SASLprep forbids is left as it is, which is what they do then. ASCII is never
// changed.
//
// PRECIS (RFC 8265) was to follow SASLprep, but it differs in the normal form, and the two
// ends of SCRAM must agree.
func Prepare(s string) string {
	if isASCII(s) || !utf8.ValidString(s) {
		return s
	}
	p := norm.NFKC.String(strings.Map(mapped, s))
	if p == "" || strings.IndexFunc(p, prohibited) >= 0 || !consistent(p) {
		return s
	}
	return p
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// mapped is section 2.1: other spaces become the space, and what is commonly mapped to nothing is left out.
func mapped(r rune) rune {
	switch {
	case r == 0x200b || r > unicode.MaxASCII && unicode.Is(unicode.Zs, r):
		return ' '
	case r == 0xad, r == 0x34f, r == 0x1806, r >= 0x180b && r <= 0x180d, r == 0x200c, r == 0x200d,
		r == 0x2060, r >= 0xfe00 && r <= 0xfe0f, r == 0xfeff: // RFC 3454, table B.1
		return -1
	}
	return r
}

// prohibited is section 2.3, with the code points that Unicode has not assigned (2.5).
func prohibited(r rune) bool {
	switch {
	case unicode.In(r, unicode.Cc, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp):
		return true
	case r >= 0xfff9 && r <= 0xfffd, r >= 0x2ff0 && r <= 0x2ffb, r&0xfffe == 0xfffe:
		return true
	case r == 0x340, r == 0x341, r == 0x6dd, r == 0x70f, r == 0x180e, r >= 0x200e && r <= 0x200f,
		r >= 0x2028 && r <= 0x202e, r >= 0x2061 && r <= 0x206f, r >= 0x1d173 && r <= 0x1d17a,
		r >= 0xe0001 && r <= 0xe007f:
		return true
	}
	return !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.Cf)
}

// consistent is section 2.4: text from right to left has nothing from left to right in it, and its like at both ends.
func consistent(s string) bool {
	right, left := false, false
	for _, r := range s {
		class := directionOf(r)
		right = right || class == bidi.R || class == bidi.AL
		left = left || class == bidi.L
	}
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	return !right || !left && fromRight(first) && fromRight(last)
}

func directionOf(r rune) bidi.Class {
	p, _ := bidi.LookupRune(r)
	return p.Class()
}

func fromRight(r rune) bool { c := directionOf(r); return c == bidi.R || c == bidi.AL }
