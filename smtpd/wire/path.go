package wire

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Param is a parameter of MAIL or RCPT (RFC 5321, 4.1.2: esmtp-param).
type Param struct {
	Keyword  string // in upper case
	Value    string // as given: printable ASCII but "=", or UTF-8; not empty if HasValue
	HasValue bool
}

// maxParams is more than all extensions together have.
const maxParams = 32

// refused makes the error of an argument that is malformed.
func refused(text string) *Reply { return &Reply{501, "5.5.4", text} }

// Path takes the argument of MAIL or RCPT apart: prefix, which is "FROM:" or "TO:" in any case, a path, and parameters.
// The path is text for [envelope.ParsePath], with its brackets if it has any; what it means is not looked at. Its end
// is found by the rules of quoting, so that ">" and spaces may be in a quoted local part.
//
// Two things that RFC 5321 does not have are taken, since many clients have them and nothing else could be meant: spaces
// before the path, and a path without brackets that has none anywhere. All else is refused: what is glued to a path, a
// parameter that is malformed or comes twice. Errors are *Reply, 501 5.5.4.
func Path(arg, prefix string) (path string, params []Param, err error) {
	if len(arg) < len(prefix) || !strings.EqualFold(arg[:len(prefix)], prefix) {
		return "", nil, refused("the argument must begin with " + prefix)
	}
	path, rest, err := cutPath(strings.TrimLeft(arg[len(prefix):], " "))
	if err != nil {
		return "", nil, err
	}
	params, err = parseParams(rest)
	if err != nil {
		return "", nil, err
	}
	return path, params, nil
}

// cutPath takes the path off; what follows is empty or begins with a space.
func cutPath(s string) (path, rest string, err error) {
	if s == "" || s[0] == ' ' {
		return "", "", refused("the path is missing")
	}
	end := pathEnd(s)
	if end < 0 {
		return "", "", refused("the path has no end")
	}
	path, rest = s[:end], s[end:]
	if rest != "" && rest[0] != ' ' {
		return "", "", refused("a space is missing behind the path")
	}
	return path, rest, nil
}

// pathEnd is where the path that begins s ends: behind the ">" of its "<", or, when it begins with no bracket, before
// a space. It is -1 when there is no such place.
func pathEnd(s string) int {
	bracket, quoted := s[0] == '<', false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '>' && bracket:
			return i + 1
		case c == '>' || c == '<' && !bracket:
			return -1
		case c == ' ' && !bracket:
			return i
		}
	}
	if quoted || bracket {
		return -1
	}
	return len(s)
}

// parseParams reads parameters with spaces before each.
func parseParams(s string) (list []Param, err error) {
	for word := range strings.SplitSeq(s, " ") {
		if word == "" {
			continue
		}
		p, err := parseParam(word)
		switch {
		case err != nil:
			return nil, err
		case len(list) == maxParams:
			return nil, refused("there are more than " + strconv.Itoa(maxParams) + " parameters")
		case has(list, p.Keyword):
			return nil, refused("the parameter " + p.Keyword + " is there twice")
		}
		list = append(list, p)
	}
	return list, nil
}

func parseParam(word string) (Param, error) {
	keyword, value, hasValue := strings.Cut(word, "=")
	if !isKeyword(keyword) {
		return Param{}, refused("a parameter has a malformed keyword")
	}
	keyword = strings.ToUpper(keyword)
	if hasValue && (value == "" || strings.ContainsFunc(value, notValue)) {
		return Param{}, refused("the parameter " + keyword + " has a malformed value")
	}
	return Param{Keyword: keyword, Value: value, HasValue: hasValue}, nil
}

func has(list []Param, keyword string) bool {
	for _, p := range list {
		if p.Keyword == keyword {
			return true
		}
	}
	return false
}

// isKeyword is esmtp-keyword of RFC 5321, 4.1.2.
func isKeyword(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
		if !letter && (c != '-' || i == 0) {
			return false
		}
	}
	return s != ""
}

// notValue is what esmtp-value has not (RFC 5321, 4.1.2; RFC 6531, 3.3).
func notValue(r rune) bool {
	if r < utf8.RuneSelf {
		return r <= ' ' || r == '=' || r == 0x7f
	}
	return r == utf8.RuneError || unicode.IsControl(r)
}
