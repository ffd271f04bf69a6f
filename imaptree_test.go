package postroad_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

// A tree is an IMAP response as any server means it: whether a string came in quotes or as a literal makes no
// difference, and an atom is one of its own.
type tree struct {
	kind treeKind
	text string // of an atom or a string
	list []tree
}

type treeKind byte

const (
	isNil treeKind = iota
	isAtom
	isString
	isList
)

// String shows a tree as IMAP would write it, but strings as Go does.
func (n tree) String() string {
	switch n.kind {
	case isAtom:
		return n.text
	case isString:
		if len(n.text) > 300 {
			return fmt.Sprintf("%q... (%d octets)", n.text[:300], len(n.text))
		}
		return strconv.Quote(n.text)
	case isList:
		all := make([]string, len(n.list))
		for i, e := range n.list {
			all[i] = e.String()
		}
		return "(" + strings.Join(all, " ") + ")"
	}
	return "NIL"
}

func (n tree) equal(o tree) bool {
	if n.kind != o.kind || n.text != o.text || len(n.list) != len(o.list) {
		return false
	}
	for i := range n.list {
		if !n.list[i].equal(o.list[i]) {
			return false
		}
	}
	return true
}

// at is an element of a list; NIL where there is none.
func (n tree) at(i int) tree {
	if i < 0 || i >= len(n.list) {
		return tree{}
	}
	return n.list[i]
}

func (n tree) is(word string) bool { return strings.EqualFold(n.text, word) }

func (n tree) number() (uint32, bool) {
	v, err := strconv.ParseUint(n.text, 10, 32)
	return uint32(v), err == nil && n.kind == isAtom
}

// A treeReader reads responses from a server.
type treeReader struct{ *bufio.Reader }

var errSyntax = errors.New("not a response of IMAP")

// response reads one response. What follows OK, NO, BAD, BYE, PREAUTH or + is one atom.
func (r treeReader) response() (line []tree, err error) {
	for {
		n, err := r.value()
		if err != nil {
			return line, err
		}
		line = append(line, n)
		if len(line) <= 2 && isStatus(n) {
			text, err := r.rest()
			return append(line, tree{kind: isAtom, text: text}), err
		}
		c, err := r.ReadByte()
		switch {
		case err != nil:
			return line, err
		case c == '\r':
			if c, err = r.ReadByte(); c != '\n' {
				return line, errors.Join(errSyntax, err)
			}
			return line, nil
		case c == '(': // THREAD has no spaces between its lists
			r.UnreadByte()
		case c != ' ':
			return line, fmt.Errorf("%w: %q after %v", errSyntax, c, line)
		}
	}
}

func isStatus(n tree) bool {
	for _, word := range []string{"OK", "NO", "BAD", "BYE", "PREAUTH", "+"} {
		if n.kind == isAtom && n.is(word) {
			return true
		}
	}
	return false
}

func (r treeReader) rest() (string, error) {
	s, err := r.ReadString('\n')
	return strings.TrimSpace(s), err
}

func (r treeReader) value() (tree, error) {
	c, err := r.ReadByte()
	if err != nil {
		return tree{}, err
	}
	switch c {
	case '(':
		return r.values()
	case '"':
		return r.quoted()
	case '{':
		return r.literal()
	case '~':
		if c, err = r.ReadByte(); c != '{' {
			return tree{}, errors.Join(errSyntax, err)
		}
		return r.literal()
	}
	r.UnreadByte()
	return r.atom()
}

// values reads a list whose parenthesis was read; between lists the space may be left out.
func (r treeReader) values() (tree, error) {
	n := tree{kind: isList}
	for {
		c, err := r.ReadByte()
		switch {
		case err != nil:
			return n, err
		case c == ')':
			return n, nil
		case c == ' ' && len(n.list) > 0:
		default:
			r.UnreadByte()
		}
		v, err := r.value()
		if err != nil {
			return n, err
		}
		n.list = append(n.list, v)
	}
}

func (r treeReader) quoted() (tree, error) {
	var b []byte
	for {
		c, err := r.ReadByte()
		switch {
		case err != nil:
			return tree{}, err
		case c == '"':
			return tree{kind: isString, text: string(b)}, nil
		case c == '\r', c == '\n', c == 0:
			return tree{}, fmt.Errorf("%w: %q in quotes", errSyntax, c)
		case c == '\\':
			if c, err = r.ReadByte(); c != '"' && c != '\\' {
				return tree{}, errors.Join(fmt.Errorf("%w: \\%c in quotes", errSyntax, c), err)
			}
		}
		b = append(b, c)
	}
}

func (r treeReader) literal() (tree, error) {
	size, err := r.ReadString('\n')
	if err != nil {
		return tree{}, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(size, "}\r\n"))
	if err != nil || n > 1<<30 {
		return tree{}, fmt.Errorf("%w: a literal of {%q octets", errSyntax, size)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return tree{kind: isString, text: string(b)}, err
}

// atom reads an atom, in which brackets hold anything: BODY[HEADER.FIELDS (TO)]<0>.
func (r treeReader) atom() (tree, error) {
	var b []byte
	for depth := 0; ; {
		c, err := r.ReadByte()
		if err != nil {
			return tree{}, err
		}
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case depth > 0 && c == '"':
			continue
		case c == '\r', depth <= 0 && (c == ' ' || c == '(' || c == ')'):
			r.UnreadByte()
			if s := string(b); !strings.EqualFold(s, "NIL") {
				return tree{kind: isAtom, text: s}, nil
			}
			return tree{}, nil
		case c == '"', c == '{', c < ' ', c >= 0x7f:
			return tree{}, fmt.Errorf("%w: %q in an atom after %q", errSyntax, c, b)
		}
		b = append(b, c)
	}
}

// A treeConn is a session that is compared with another.
type treeConn struct {
	name string
	r    treeReader
	w    io.Writer
	tag  int
	caps map[string]bool
}

func newTreeConn(name string, r io.Reader, w io.Writer) *treeConn {
	return &treeConn{name: name, r: treeReader{bufio.NewReaderSize(r, 64<<10)}, w: w}
}

// refused is a NO or BAD.
type refused struct{ text string }

func (e *refused) Error() string { return e.text }

// command sends a command, with literals for each {} in it, and returns the untagged responses.
func (c *treeConn) command(line string, literals ...[]byte) (untagged [][]tree, err error) {
	c.tag++
	tag := "t" + strconv.Itoa(c.tag)
	pieces := strings.Split(tag+" "+line, "{}")
	for i, piece := range pieces {
		if i > 0 {
			c.w.Write(literals[i-1])
		}
		if i < len(literals) {
			piece += fmt.Sprintf("{%d+}", len(literals[i]))
		}
		if _, err := io.WriteString(c.w, piece+"\r\n"); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for {
		response, err := c.r.response()
		if err != nil {
			return untagged, fmt.Errorf("%s: %s: %w", c.name, line, err)
		}
		if !response[0].is(tag) {
			untagged = append(untagged, response)
			continue
		}
		if !response[1].is("OK") {
			return untagged, &refused{fmt.Sprintf("%s: %s: %v", c.name, line, response[1:])}
		}
		return untagged, nil
	}
}

func (c *treeConn) must(t testing.TB, line string, literals ...[]byte) [][]tree {
	t.Helper()
	untagged, err := c.command(line, literals...)
	if err != nil {
		t.Fatal(err)
	}
	return untagged
}

// fetch returns the items of each message that is told, by upper-case name.
func (c *treeConn) fetch(line string) (map[uint32]map[string]tree, error) {
	untagged, err := c.command(line)
	messages := map[uint32]map[string]tree{}
	for _, r := range untagged {
		if len(r) != 4 || !r[2].is("FETCH") {
			continue
		}
		n, _ := r[1].number()
		if messages[n] == nil {
			messages[n] = map[string]tree{}
		}
		for i := 0; i+1 < len(r[3].list); i += 2 {
			messages[n][strings.ToUpper(r[3].list[i].text)] = r[3].list[i+1]
		}
	}
	return messages, err
}

// can reports whether the server announces a capability.
func (c *treeConn) can(t testing.TB, capability string) bool {
	t.Helper()
	if c.caps == nil {
		c.caps = map[string]bool{}
		for _, r := range c.must(t, "CAPABILITY") {
			for _, word := range r {
				c.caps[strings.ToUpper(word.text)] = true
			}
		}
	}
	return c.caps[capability]
}
