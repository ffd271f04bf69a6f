package mime

import (
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-message/charset"
)

// isToken reports whether c may stand in a MIME token (RFC 2045 section 5.1). Octets above 127 are taken too.
func isToken(c byte) bool {
	if c <= ' ' || c == 0x7f {
		return false
	}
	return strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// skipComments drops white space and comments from the start of v.
func skipComments(v string) string {
	for v != "" {
		switch {
		case isSpace(v[0]):
			v = v[1:]
		case v[0] == '(':
			v = v[commentEnd(v):]
		default:
			return v
		}
	}
	return v
}

// commentEnd returns the length of the comment, with the comments in it, that v starts with. One that does not end runs to
// the end of v.
func commentEnd(v string) int {
	depth := 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(v)
}

// cutToken returns the token that v starts with, after white space and comments, and what follows it. A token that is
// too long is cut.
func cutToken(v string) (token, rest string) {
	v = skipComments(v)
	n := 0
	for n < len(v) && isToken(v[n]) {
		n++
	}
	return v[:min(n, maxToken)], v[n:]
}

// firstToken returns the token that v starts with.
func firstToken(v string) string {
	token, _ := cutToken(v)
	return token
}

// quotedEnd returns the length of the quoted string that v starts with. One that does not end runs to the end of v.
func quotedEnd(v string) int {
	for i := 1; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(v)
}

// unquote returns what the quoted string q, with its quotes, stands for.
func unquote(q string) string {
	q = strings.TrimPrefix(q, `"`)
	if strings.IndexByte(q, '\\') < 0 {
		return strings.TrimSuffix(q, `"`)
	}
	var b strings.Builder
	for i := 0; i < len(q); i++ {
		switch {
		case q[i] == '"':
			return b.String()
		case q[i] == '\\' && i+1 < len(q):
			i++
			b.WriteByte(q[i])
		case q[i] != '\\':
			b.WriteByte(q[i])
		}
	}
	return b.String()
}

// A segment is a parameter as it stands: one piece of a value that RFC 2231 lets come in several.
type segment struct {
	name, value string
	index       int  // of "name*index", or -1
	extended    bool // the name ended with "*"
}

// parseParams reads "; name=value; name=value". What cannot be read is skipped up to the next semicolon. The values that came
// in segments stand at the end; an extended one is as it stands, under "name*".
func parseParams(v string) []Param {
	var params []Param
	var segments []segment
	for range maxParams {
		var ok bool
		if v, ok = nextParam(v); !ok {
			break
		}
		var seg segment
		switch seg, v, ok = cutParam(v); {
		case !ok:
		case seg.index < 0 && !seg.extended:
			params = addParam(params, Param{seg.name, seg.value})
		case len(segments) < maxSegments:
			segments = append(segments, seg)
		}
	}
	if segments != nil {
		params = joinSegments(params, segments)
	}
	return params
}

// nextParam skips to what follows the next semicolon.
func nextParam(v string) (string, bool) {
	for v = skipComments(v); v != ""; v = skipComments(v) {
		switch v[0] {
		case ';':
			for v = skipComments(v[1:]); v != "" && v[0] == ';'; {
				v = skipComments(v[1:])
			}
			return v, v != ""
		case '"':
			v = v[quotedEnd(v):]
		default:
			v = v[1:]
		}
	}
	return "", false
}

// cutParam reads "name=value".
func cutParam(v string) (seg segment, rest string, ok bool) {
	name, rest := cutToken(v)
	rest = skipComments(rest)
	if name == "" || rest == "" || rest[0] != '=' {
		return segment{}, rest, false
	}
	seg.value, rest = cutValue(skipComments(rest[1:]))
	seg.name, seg.index, seg.extended = splitName(lower(name))
	return seg, rest, seg.name != ""
}

// cutValue reads a parameter's value: a quoted string, or whatever stands before the next semicolon, since many senders
// do not quote what they should.
func cutValue(v string) (value, rest string) {
	if v != "" && v[0] == '"' {
		n := quotedEnd(v)
		return unquote(v[:n]), v[n:]
	}
	n := strings.IndexByte(v, ';')
	if n < 0 {
		n = len(v)
	}
	value, rest = v[:n], v[n:]
	if i := strings.Index(value, " ("); i >= 0 {
		value = value[:i]
	}
	return strings.TrimRight(value, " \t"), rest
}

// splitName takes "name*2*" apart (RFC 2231 section 3 and 4.1).
func splitName(full string) (name string, index int, extended bool) {
	full, extended = strings.CutSuffix(full, "*")
	name, number, found := strings.Cut(full, "*")
	if !found {
		return name, -1, extended
	}
	index, err := strconv.Atoi(number)
	if err != nil || index < 0 || index > 1<<20 {
		return full, -1, extended
	}
	return name, index, extended
}

// addParam adds a parameter unless the name is there already.
func addParam(params []Param, p Param) []Param {
	if indexParam(params, p.Name) >= 0 {
		return params
	}
	if params == nil {
		params = make([]Param, 0, 2)
	}
	return append(params, p)
}

func indexParam(params []Param, name string) int {
	return slices.IndexFunc(params, func(p Param) bool { return p.Name == name })
}

// setParam adds a parameter in the place of one of the same name.
func setParam(params []Param, p Param) []Param {
	if i := indexParam(params, p.Name); i >= 0 {
		params[i] = p
		return params
	}
	return append(params, p)
}

// joinSegments adds the parameters that came in segments.
func joinSegments(params []Param, segments []segment) []Param {
	slices.SortStableFunc(segments, func(a, b segment) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.index, b.index))
	})
	for len(segments) > 0 {
		n := 1
		for n < len(segments) && segments[n].name == segments[0].name {
			n++
		}
		params = setParam(params, joined(segments[:n]))
		segments = segments[n:]
	}
	return params
}

// joined makes one parameter of the segments of one name, in order. "name*" alone wins over numbered ones; a repeated number
// counts once; a gap ends the value.
func joined(segments []segment) Param {
	if segments[0].index < 0 {
		segments = segments[:1]
	}
	var b strings.Builder
	next := segments[0].index
	for _, seg := range segments {
		if seg.index == next-1 {
			continue
		}
		if seg.index != next {
			break
		}
		next++
		if !seg.extended && segments[0].extended {
			seg.value = strings.ReplaceAll(seg.value, "%", "%25")
		}
		b.WriteString(seg.value)
	}
	if segments[0].extended {
		return Param{segments[0].name + "*", b.String()}
	}
	return Param{segments[0].name, b.String()}
}

// decodeParams decodes the extended values among sent, each of which wins over its plain twin. It returns sent too if
// there were any.
func decodeParams(sent []Param) (params, extended []Param) {
	if !slices.ContainsFunc(sent, isExtended) {
		return sent, nil
	}
	for _, p := range sent {
		if !isExtended(p) {
			params = addParam(params, p)
		}
	}
	for _, p := range sent {
		if isExtended(p) {
			params = decodeParam(params, p)
		}
	}
	return params, sent
}

func isExtended(p Param) bool { return strings.HasSuffix(p.Name, "*") }

// decodeParam adds charset'language'value. In an unknown charset it stays as it is, and does not win over anything.
func decodeParam(params []Param, p Param) []Param {
	name := strings.TrimSuffix(p.Name, "*")
	cs, rest, ok := strings.Cut(p.Value, "'")
	_, text, ok2 := strings.Cut(rest, "'")
	if !ok || !ok2 {
		return setParam(params, Param{name, clean(percentDecode(p.Value))})
	}
	if decoded, ok := toUTF8(cs, percentDecode(text)); ok {
		return setParam(params, Param{name, clean(decoded)})
	}
	if indexParam(params, name) >= 0 {
		return params
	}
	return setParam(params, p)
}

// percentDecode replaces %XX and leaves what is not that.
func percentDecode(v string) string {
	if strings.IndexByte(v, '%') < 0 {
		return v
	}
	b := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '%' && i+2 < len(v) && unhex(v[i+1]) >= 0 && unhex(v[i+2]) >= 0 {
			b = append(b, byte(unhex(v[i+1])<<4|unhex(v[i+2])))
			i += 2
			continue
		}
		b = append(b, v[i])
	}
	return string(b)
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// clean drops what no header value may hold: decoding could bring it back.
func clean(v string) string { return without(v, "\x00\r\n") }

// toUTF8 converts v. It reports false for a charset that nobody here knows.
func toUTF8(cs, v string) (string, bool) {
	if isUTF8(cs) {
		return v, true
	}
	r, err := charset.Reader(cs, strings.NewReader(v))
	if err != nil {
		return v, false
	}
	b, err := io.ReadAll(r)
	return string(b), err == nil
}

// isUTF8 reports whether text in the charset needs no conversion.
func isUTF8(cs string) bool {
	switch lower(cs) {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return true
	}
	return false
}
