package wire

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// A Command is a line that a client sent.
type Command struct {
	Verb string // in upper case: the letters up to the first space
	Arg  string // what follows, as it was given, without white space around it; valid UTF-8, no control octets
}

// Command reads the next command. Errors: *SyntaxError for a line that is no command, which is to be answered;
// ErrUncounted for a BDAT that is malformed; ErrTooLong, ErrNotMail and ErrUnread; io.EOF when the peer has closed and
// io.ErrUnexpectedEOF when it has done so within a line; and those of the source.
func (r *Reader) Command() (Command, error) {
	line, err := r.line(r.commandLimit)
	if err != nil {
		return Command{}, err
	}
	// White space at the end is to be tolerated (RFC 5321, 4.1.1).
	line = bytes.TrimRight(line, " \t")
	if err := check(line); err != nil {
		return Command{}, malformed(line, err)
	}
	verb, arg, _ := strings.Cut(string(line), " ")
	if verb == "" || strings.ContainsFunc(verb, notLetter) {
		return Command{}, malformed(line, errVerb)
	}
	return Command{Verb: strings.ToUpper(verb), Arg: strings.TrimLeft(arg, " ")}, nil
}

func (r *Reader) commandLimit(begin []byte) int {
	if hasPrefixFold(begin, "AUTH ") {
		return r.MaxAuth
	}
	return r.MaxCommand
}

// malformed is the error of a line with something wrong in it. When it may be a BDAT, a chunk follows that cannot be counted.
func malformed(line []byte, err error) error {
	if hasPrefixFold(line, "BDAT") {
		return ErrUncounted
	}
	return err
}

func notLetter(r rune) bool { return r|0x20 < 'a' || r|0x20 > 'z' }

// check refuses what no line of text has.
func check(line []byte) error {
	ascii := true
	for _, c := range line {
		switch {
		case c == '\r':
			return errBare
		case c < ' ' || c == 0x7f:
			return errControl
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	if !ascii && !utf8.Valid(line) {
		return errUTF8
	}
	return nil
}

// foreign reports whether a line, or as much of it as there is, begins another protocol: a TLS handshake (RFC 8446, 5.1),
// SSH (RFC 4253, 4.2), or HTTP, by which a web page makes a browser send commands to any port.
func foreign(line []byte) bool {
	if bytes.HasPrefix(line, []byte{0x16, 0x03}) || bytes.HasPrefix(line, []byte("SSH-")) {
		return true
	}
	line, _, whole := bytes.Cut(line, []byte("\n"))
	line = bytes.TrimRight(line, "\r")
	verb, _, spaced := bytes.Cut(line, []byte(" "))
	if (spaced || whole) && isHTTP(verb) {
		return true
	}
	// A page may have a browser send a verb of its own, too.
	version := bytes.LastIndexByte(line, ' ') + 1
	return whole && version > 0 && hasPrefixFold(line[version:], "HTTP/")
}

// isHTTP reports whether a verb is one of HTTP (RFC 9110, 9; RFC 5789). None of them is one of SMTP.
func isHTTP(verb []byte) bool {
	for _, known := range [...]string{"GET", "POST", "CONNECT", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE", "TRACE"} {
		if len(verb) == len(known) && hasPrefixFold(verb, known) {
			return true
		}
	}
	return false
}

// hasPrefixFold is bytes.HasPrefix without regard to the case.
func hasPrefixFold(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && strings.EqualFold(string(b[:len(prefix)]), prefix)
}
