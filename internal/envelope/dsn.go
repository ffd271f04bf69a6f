package envelope

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Wants reports whether a report of kind (one of NotifySuccess, NotifyFailure and
// NotifyDelay) is to be sent. Failures and delays are, unless something was asked for.
func (n Notify) Wants(kind Notify) bool {
	if n == 0 {
		n = NotifyFailure | NotifyDelay
	}
	return n&NotifyNever == 0 && n&kind != 0
}

// WithoutSuccess is n for somebody of whom no success is to be reported, and all else as before.
func (n Notify) WithoutSuccess() Notify {
	if n == NotifySuccess {
		return NotifyNever // the zero value would ask for failures
	}
	return n &^ NotifySuccess
}

// String writes the value of a NOTIFY parameter; empty for the default.
func (n Notify) String() string {
	if n&NotifyNever != 0 {
		return "NEVER"
	}
	var words []string
	for i, word := range notifyWords {
		if n&(1<<i) != 0 {
			words = append(words, word)
		}
	}
	return strings.Join(words, ",")
}

var notifyWords = [...]string{"SUCCESS", "FAILURE", "DELAY"}

// ParseNotify reads the value of a NOTIFY parameter (RFC 3461, 4.1).
func ParseNotify(s string) (Notify, error) {
	if strings.EqualFold(s, "NEVER") {
		return NotifyNever, nil
	}
	var n Notify
	for word := range strings.SplitSeq(s, ",") {
		bit := notifyBit(word)
		if bit == 0 {
			return 0, fmt.Errorf("%q is not a NOTIFY value", Sanitize(s, 40))
		}
		n |= bit
	}
	return n, nil
}

func notifyBit(word string) Notify {
	for i, w := range notifyWords {
		if strings.EqualFold(w, word) {
			return 1 << i
		}
	}
	return 0
}

// ParseReturn reads the value of a RET parameter (RFC 3461, 4.3).
func ParseReturn(s string) (Return, error) {
	r := Return(strings.ToUpper(s))
	if r != ReturnFull && r != ReturnHeaders {
		return "", errors.New("RET is FULL or HDRS")
	}
	return r, nil
}

// Limits of values as they are written, in octets (RFC 3461, 4).
const (
	mostEnvelopeID = 100
	mostOriginal   = 500
)

// ParseEnvelopeID reads the value of an ENVID parameter (RFC 3461, 4.4).
func ParseEnvelopeID(s string) (string, error) {
	if s == "" || len(s) > mostEnvelopeID {
		return "", fmt.Errorf("ENVID has 1 to %d octets", mostEnvelopeID)
	}
	id, err := DecodeXtext(s)
	if err != nil {
		return "", fmt.Errorf("ENVID is %w", err)
	}
	return id, nil
}

// ParseOriginal reads the value of an ORCPT parameter as "type;address" (RFC 3461, 4.2):
// the type in lower case, the address decoded. That of type utf-8 may be written in
// UTF-8 only where SMTPUTF8 was asked for, and in ASCII anywhere (RFC 6533, 3).
func ParseOriginal(s string, smtputf8 bool) (string, error) {
	kind, coded, ok := strings.Cut(s, ";")
	switch {
	case len(s) > mostOriginal:
		return "", fmt.Errorf("ORCPT has at most %d octets", mostOriginal)
	case !ok || coded == "" || !isType(kind):
		return "", errors.New("ORCPT is a type of addresses, a semicolon and an address")
	case !smtputf8 && !IsASCII(coded):
		return "", errors.New("ORCPT in UTF-8 needs SMTPUTF8")
	}
	kind = strings.ToLower(kind)
	decode := DecodeXtext
	if kind == "utf-8" {
		decode = decodeUnitext
	}
	addr, err := decode(coded)
	if err != nil {
		return "", fmt.Errorf("the address in ORCPT is %w", err)
	}
	return kind + ";" + addr, nil
}

// EncodeXtext writes s for ENVID and ORCPT (RFC 3461, 4): printable ASCII, with
// everything else, "+" and "=" as "+" and two hexadecimal digits.
func EncodeXtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

var errXtext = errors.New("not xtext (RFC 3461, 4)")

// DecodeXtext reads what EncodeXtext writes. An octet that is not printable ASCII
// is refused also in its encoded form: it would end up in headers and reports.
func DecodeXtext(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			if i+2 >= len(s) {
				return "", errXtext
			}
			hi, lo := hexDigit(s[i+1]), hexDigit(s[i+2])
			if hi < 0 || lo < 0 {
				return "", errXtext
			}
			c, i = byte(hi<<4|lo), i+2
		} else if c == '=' || c == ' ' {
			return "", errXtext
		}
		if c < ' ' || c > '~' {
			return "", errXtext
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// hexDigit is the value of an upper-case hexadecimal digit, or -1: xtext knows no others.
func hexDigit(c byte) int { return strings.IndexByte("0123456789ABCDEF", c) }

var errUnitext = errors.New("not text as RFC 6533, 3 has it")

// decodeUnitext reads utf-8-addr-xtext and utf-8-addr-unitext: characters, with those that
// must not stand for themselves as \x{ and hexadecimal digits and }. Control characters
// are refused in any form.
func decodeUnitext(s string) (string, error) {
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		coded := r == '\\'
		if coded {
			if r, n = hexPoint(s); n == 0 {
				return "", errUnitext
			}
		}
		if special := r <= ' ' || r == '+' || r == '=' || r == '\\'; !isText(r) || coded != special && r < utf8.RuneSelf {
			return "", errUnitext
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String(), nil
}

// hexPoint reads \x{..} at the front of s: the character, and how many octets it took; 0 when there is none.
func hexPoint(s string) (rune, int) {
	digits, rest, ok := strings.Cut(strings.TrimPrefix(s, `\x{`), "}")
	if !ok || !strings.HasPrefix(s, `\x{`) || len(digits) < 2 || len(digits) > 6 || digits[0] == '0' {
		return 0, 0
	}
	r, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || r > unicode.MaxRune || !utf8.ValidRune(rune(r)) {
		return 0, 0
	}
	return rune(r), len(s) - len(rest)
}

// isType reports whether s can be a type of addresses: an atom, without the "=" that no value of a parameter has.
func isType(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf || r == '=' || !isAtext(r) }) < 0
}

// EncodeOriginal writes a Recipient's Original for an ORCPT parameter: xtext for most
// types, and for "utf-8" the form of RFC 6533, 3, which is safe without SMTPUTF8 too.
func EncodeOriginal(original string) string {
	kind, addr, ok := strings.Cut(original, ";")
	if !ok {
		return ""
	}
	if !strings.EqualFold(kind, "utf-8") {
		return kind + ";" + EncodeXtext(addr)
	}
	var b strings.Builder
	for _, r := range addr {
		if r <= ' ' || r > '~' || r == '+' || r == '=' || r == '\\' {
			fmt.Fprintf(&b, `\x{%X}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return kind + ";" + b.String()
}
