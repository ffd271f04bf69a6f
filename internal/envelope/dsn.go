package envelope

import (
	"errors"
	"fmt"
	"strings"
)

// Wants reports whether a report of kind (one of NotifySuccess, NotifyFailure and
// NotifyDelay) is to be sent. Failures and delays are, unless something was asked for.
func (n Notify) Wants(kind Notify) bool {
	if n == 0 {
		n = NotifyFailure | NotifyDelay
	}
	return n&NotifyNever == 0 && n&kind != 0
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
