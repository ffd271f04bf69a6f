package mime

import (
	"bytes"
	"iter"
)

// HeaderFields goes through the fields of a raw header: the name as given, and the octets of the whole field with its
// name, folding and line ends. Lines that are no field are passed over, as are the blank line and what follows it. The
// octets belong to header.
func HeaderFields(header []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for name, raw := range rawFields(header) {
			if !yield(string(name), raw) {
				return
			}
		}
	}
}

func rawFields(header []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, raw []byte) bool) {
		for len(header) > 0 && (header[0] > '\r' || !blank(firstLine(header))) {
			var raw []byte
			raw, header = cutField(header)
			if name := fieldName(raw); name != nil && !yield(name, raw) {
				return
			}
		}
	}
}

func firstLine(b []byte) []byte {
	if n := bytes.IndexByte(b, '\n'); n >= 0 {
		return b[:n+1]
	}
	return b
}

// cutField cuts off the first line and the lines that continue it.
func cutField(header []byte) (field, rest []byte) {
	n := len(firstLine(header))
	for n < len(header) && (header[n] == ' ' || header[n] == '\t') {
		n += len(firstLine(header[n:]))
	}
	return header[:n], header[n:]
}

// fieldName returns the name of a field, or nil if raw is none: what stands before the colon, but for white space there.
func fieldName(raw []byte) []byte {
	n := 0
	for n < len(raw) && raw[n] > ' ' && raw[n] != ':' {
		n++
	}
	name := raw[:n]
	for n < len(raw) && (raw[n] == ' ' || raw[n] == '\t') {
		n++
	}
	if len(name) == 0 || n == len(raw) || raw[n] != ':' {
		return nil
	}
	return name
}

// AppendFields appends what BODY[HEADER.FIELDS (names)] is of a raw header, or with not set, HEADER.FIELDS.NOT: the matching
// fields as they stand and in their order, and a blank line (RFC 9051 section 6.4.5.1). Names match in any case.
func AppendFields(b, header []byte, names []string, not bool) []byte {
	start := len(b)
	for name, raw := range rawFields(header) {
		if isOneOf(name, names) != not {
			b = append(b, raw...)
		}
	}
	if len(b) > start && b[len(b)-1] != '\n' {
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

func isOneOf(name []byte, names []string) bool {
	for _, n := range names {
		if len(n) == len(name) && sameLetters(n, name) {
			return true
		}
	}
	return false
}

// sameLetters compares words of one length in any case of ASCII.
func sameLetters(a string, b []byte) bool {
	for i, c := range b {
		if a[i] != c && (a[i]|' ' != c|' ' || c|' ' < 'a' || c|' ' > 'z') {
			return false
		}
	}
	return true
}

// Unfold returns the value of a raw field: what follows the colon, in one line, without line ends, NUL, and white space
// at its ends. A CR that ends no line becomes a space. Without a colon all of raw is the value.
func Unfold(raw []byte) string {
	if colon := bytes.IndexByte(raw, ':'); colon >= 0 {
		raw = raw[colon+1:]
	}
	return string(unfold(bytes.Clone(raw)))
}

// unfold does so in the memory of b.
func unfold(b []byte) []byte {
	b = bytes.TrimRight(b, " \t\r\n\x00")
	n := 0
	for n < len(b) && (b[n] == ' ' || b[n] == '\t') {
		n++
	}
	b = b[n:]
	if bytes.IndexByte(b, '\n') < 0 && bytes.IndexByte(b, '\r') < 0 && bytes.IndexByte(b, 0) < 0 {
		return b
	}
	out := b[:0]
	for i, c := range b {
		switch {
		case c == '\r' && b[i+1] != '\n':
			out = append(out, ' ')
		case c != '\r' && c != '\n' && c != 0:
			out = append(out, c)
		}
	}
	return bytes.TrimLeft(out, " \t")
}
