// Package imaptest is for tests of an IMAP server: it reads responses by a grammar of its own (RFC 9051, 9), and takes
// nothing that is not in it.
package imaptest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Tree is an IMAP response as any server means it: whether a string came in quotes or as a literal makes no
// difference, and an atom is one of its own.
type Tree struct {
	Kind Kind
	Text string // of an atom or a string
	List []Tree
}

// A Kind is what a Tree is.
type Kind byte

const (
	Nil Kind = iota
	Atom
	String // in quotes or a literal
	List
)

// String shows a Tree as IMAP would write it, but strings as Go does.
func (n Tree) String() string {
	switch n.Kind {
	case Atom:
		return n.Text
	case String:
		if len(n.Text) > 300 {
			return fmt.Sprintf("%q... (%d octets)", n.Text[:300], len(n.Text))
		}
		return strconv.Quote(n.Text)
	case List:
		all := make([]string, len(n.List))
		for i, e := range n.List {
			all[i] = e.String()
		}
		return "(" + strings.Join(all, " ") + ")"
	}
	return "NIL"
}

// Equal reports whether two trees mean the same.
func (n Tree) Equal(o Tree) bool {
	if n.Kind != o.Kind || n.Text != o.Text || len(n.List) != len(o.List) {
		return false
	}
	for i := range n.List {
		if !n.List[i].Equal(o.List[i]) {
			return false
		}
	}
	return true
}

// At is an element of a list; NIL where there is none.
func (n Tree) At(i int) Tree {
	if i < 0 || i >= len(n.List) {
		return Tree{}
	}
	return n.List[i]
}

// Is compares a text, in any case.
func (n Tree) Is(word string) bool { return strings.EqualFold(n.Text, word) }

// Number is what an atom says, when that is a number.
func (n Tree) Number() (uint32, bool) {
	v, err := strconv.ParseUint(n.Text, 10, 32)
	return uint32(v), err == nil && n.Kind == Atom
}

// A Reader reads responses from a server.
type Reader struct{ b *bufio.Reader }

// NewReader returns a reader that may read ahead of what it returns.
func NewReader(r io.Reader) Reader { return Reader{bufio.NewReaderSize(r, 64<<10)} }

// ErrSyntax is of what no server may say.
var ErrSyntax = errors.New("not a response of IMAP")

// Response reads one response. What follows OK, NO, BAD, BYE, PREAUTH or + is one atom.
func (r Reader) Response() (line []Tree, err error) {
	for {
		read := r.Value
		if len(line) == 0 {
			read = r.tag
		}
		n, err := read()
		if err != nil {
			return line, err
		}
		line = append(line, n)
		if len(line) <= 2 && isStatus(n) {
			text, err := r.rest()
			return append(line, Tree{Kind: Atom, Text: text}), err
		}
		c, err := r.b.ReadByte()
		switch {
		case err != nil:
			return line, err
		case c == '\r':
			if c, err = r.b.ReadByte(); c != '\n' {
				return line, errors.Join(ErrSyntax, err)
			}
			return line, nil
		case c == '(': // THREAD has no spaces between its lists
			r.b.UnreadByte()
		case c != ' ':
			return line, fmt.Errorf("%w: %q after %v", ErrSyntax, c, line)
		}
	}
}

// tag reads what a response begins with: "*", "+" or a tag, in which NIL is no NIL and a bracket no bracket.
func (r Reader) tag() (Tree, error) {
	var b []byte
	for {
		c, err := r.b.ReadByte()
		if err != nil {
			return Tree{}, err
		}
		if len(b) > 0 && (c == ' ' || c == '\r') {
			r.b.UnreadByte()
			return Tree{Kind: Atom, Text: string(b)}, nil
		}
		if c <= ' ' || c >= 0x7f {
			return Tree{}, fmt.Errorf("%w: %q in a tag after %q", ErrSyntax, c, b)
		}
		b = append(b, c)
	}
}

func isStatus(n Tree) bool {
	for _, word := range []string{"OK", "NO", "BAD", "BYE", "PREAUTH", "+"} {
		if n.Kind == Atom && n.Is(word) {
			return true
		}
	}
	return false
}

func (r Reader) rest() (string, error) {
	s, err := r.b.ReadString('\n')
	return strings.TrimSpace(s), err
}

// Value reads one value: of a list, all.
func (r Reader) Value() (Tree, error) {
	if next, _ := r.b.Peek(2); string(next) == "~{" { // literal8
		r.b.Discard(1)
	}
	c, err := r.b.ReadByte()
	if err != nil {
		return Tree{}, err
	}
	switch c {
	case '(':
		return r.values()
	case '"':
		return r.quoted()
	case '{':
		return r.literal()
	}
	r.b.UnreadByte()
	return r.atom()
}

// values reads a list whose parenthesis was read; between lists the space may be left out.
func (r Reader) values() (Tree, error) {
	n := Tree{Kind: List}
	for {
		c, err := r.b.ReadByte()
		switch {
		case err != nil:
			return n, err
		case c == ')':
			return n, nil
		case c == ' ' && len(n.List) > 0:
		case c != '(' && len(n.List) > 0:
			return n, fmt.Errorf("%w: %q after a value", ErrSyntax, c)
		default:
			r.b.UnreadByte()
		}
		v, err := r.Value()
		if err != nil {
			return n, err
		}
		n.List = append(n.List, v)
	}
}

func (r Reader) quoted() (Tree, error) {
	var b []byte
	for {
		c, err := r.b.ReadByte()
		switch {
		case err != nil:
			return Tree{}, err
		case c == '"':
			return Tree{Kind: String, Text: string(b)}, nil
		case c == '\r', c == '\n', c == 0:
			return Tree{}, fmt.Errorf("%w: %q in quotes", ErrSyntax, c)
		case c == '\\':
			if c, err = r.b.ReadByte(); c != '"' && c != '\\' {
				return Tree{}, errors.Join(fmt.Errorf("%w: \\%c in quotes", ErrSyntax, c), err)
			}
		}
		b = append(b, c)
	}
}

func (r Reader) literal() (Tree, error) {
	size, err := r.b.ReadString('\n')
	if err != nil {
		return Tree{}, err
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(size, "}\r\n"), 10, 30)
	if err != nil {
		return Tree{}, fmt.Errorf("%w: a literal of {%q octets", ErrSyntax, size)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r.b, b)
	return Tree{Kind: String, Text: string(b)}, err
}

// atom reads an atom, in which brackets hold anything: BODY[HEADER.FIELDS (TO)]<0>.
func (r Reader) atom() (Tree, error) {
	var b []byte
	for depth := 0; ; {
		c, err := r.b.ReadByte()
		if err != nil {
			return Tree{}, err
		}
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case depth > 0 && c == '"':
			continue
		case c == '\r', depth <= 0 && (c == ' ' || c == '(' || c == ')'):
			r.b.UnreadByte()
			return atomOf(b)
		case c == '"', c == '{', c < ' ', c >= 0x7f:
			return Tree{}, fmt.Errorf("%w: %q in an atom after %q", ErrSyntax, c, b)
		}
		b = append(b, c)
	}
}

func atomOf(b []byte) (Tree, error) {
	switch {
	case len(b) == 0:
		return Tree{}, fmt.Errorf("%w: nothing where a value should be", ErrSyntax)
	case strings.EqualFold(string(b), "NIL"):
		return Tree{}, nil
	}
	return Tree{Kind: Atom, Text: string(b)}, nil
}
