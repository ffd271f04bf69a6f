package mailauth

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// field is a field of a header as it stands there, with its line ends.
type field struct {
	name string // in lower case; empty for what is no field
	raw  []byte
}

// body is what stands behind the colon.
func (f *field) body() []byte {
	_, b, _ := bytes.Cut(f.raw, []byte(":"))
	return b
}

// newField takes raw apart. What has no name is kept, and never chosen for a signature.
func newField(raw []byte) field {
	name, _, ok := bytes.Cut(raw, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	if !ok || !isFieldName(name) {
		return field{raw: raw}
	}
	return field{name: strings.ToLower(string(name)), raw: raw}
}

// isFieldName follows RFC 5322, 2.2.
func isFieldName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c >= 0x7F {
			return false
		}
	}
	return len(name) > 0
}

var errHeaderTooBig = fmt.Errorf("%w: it is larger than %d octets", ErrHeader, maxHeader)

// readHeader reads up to and with the empty line.
func readHeader(r *bufio.Reader) (fields []field, err error) {
	var raw []byte
	size := 0
	end := func() {
		if len(raw) > 0 {
			fields = append(fields, newField(raw))
		}
	}
	for {
		line, err := readLine(r, maxHeader-size)
		size += len(line)
		switch {
		case err != nil && err != io.EOF:
			return nil, err
		case len(line) == 0, string(line) == "\r\n":
			end()
			return fields, nil
		case line[0] == ' ' || line[0] == '\t':
			raw = append(raw, line...)
		default:
			end()
			raw = line
		}
	}
}

// readLine reads a line of its own memory, up to and with LF; at the end of input what there is, with io.EOF.
func readLine(r *bufio.Reader, most int) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > most:
			return nil, errHeaderTooBig
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, err
		}
	}
}

// count returns how many fields have a name.
func count(fields []field, name string) (n int) {
	for i := range fields {
		if fields[i].name == name {
			n++
		}
	}
	return n
}

// choose returns the fields that the names of h= mean: those of one name from the last upwards (RFC 6376, 5.4.2). A name
// without a field left stands for nothing.
func choose(fields []field, names []string) (chosen []*field) {
	next := map[string]int{} // fields before this index were not used for the name
	for _, name := range names {
		i, ok := next[name]
		if !ok {
			i = len(fields)
		}
		for i--; i >= 0 && fields[i].name != name; i-- {
		}
		if next[name] = max(i, 0); i >= 0 {
			chosen = append(chosen, &fields[i])
		}
	}
	return chosen
}
