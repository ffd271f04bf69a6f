package wire

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// shifted is the base64 of modified UTF-7: without padding, and with "," for "/" (RFC 3501, 5.1.3).
var shifted = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").
	WithPadding(base64.NoPadding).Strict()

var errUTF7 = errors.New("is not modified UTF-7 in its one canonical form (RFC 3501, 5.1.3)")

// EncodeUTF7 is a name in modified UTF-7. What is not UTF-8 in it becomes U+FFFD.
func EncodeUTF7(name string) string { return string(appendUTF7(nil, name)) }

func appendUTF7(b []byte, name string) []byte {
	for name != "" {
		plain := strings.IndexFunc(name, func(r rune) bool { return !isPlain(r) })
		if plain < 0 {
			plain = len(name)
		}
		for _, c := range []byte(name[:plain]) {
			if b = append(b, c); c == '&' {
				b = append(b, '-')
			}
		}
		name = name[plain:]
		end := strings.IndexFunc(name, isPlain)
		if end < 0 {
			end = len(name)
		}
		if end > 0 {
			b = appendShifted(b, name[:end])
		}
		name = name[end:]
	}
	return b
}

// isItself reports whether a name is its own modified UTF-7.
func isItself(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == '&' {
			return false
		}
	}
	return true
}

// isPlain reports whether r stands for itself, but for "&".
func isPlain(r rune) bool { return ' ' <= r && r <= '~' }

func appendShifted(b []byte, s string) []byte {
	var octets []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		octets = append(octets, byte(unit>>8), byte(unit))
	}
	b = append(b, '&')
	b = shifted.AppendEncode(b, octets)
	return append(b, '-')
}

// DecodeUTF7 reads a name in modified UTF-7. Of the ways in which one name could be written only the canonical one is
// read: no ASCII in base64, no base64 after base64, no lone surrogates, nothing that does not end.
func DecodeUTF7(wire string) (name string, err error) {
	var b strings.Builder
	for rest := wire; rest != ""; {
		plain, after, found := strings.Cut(rest, "&")
		b.WriteString(plain)
		if !found {
			break
		}
		code, after, found := strings.Cut(after, "-")
		if !found {
			return "", errUTF7
		}
		if err := unshift(&b, code); err != nil {
			return "", err
		}
		rest = after
	}
	if name = b.String(); EncodeUTF7(name) != wire {
		return "", errUTF7
	}
	return name, nil
}

// unshift writes what the base64 between "&" and "-" stands for.
func unshift(b *strings.Builder, code string) error {
	if code == "" {
		return b.WriteByte('&')
	}
	octets, err := shifted.DecodeString(code)
	if err != nil || len(octets)%2 != 0 {
		return errUTF7
	}
	units := make([]uint16, len(octets)/2)
	for i := range units {
		units[i] = uint16(octets[2*i])<<8 | uint16(octets[2*i+1])
	}
	for _, r := range utf16.Decode(units) {
		if r == utf8.RuneError {
			return errUTF7
		}
		b.WriteRune(r)
	}
	return nil
}
