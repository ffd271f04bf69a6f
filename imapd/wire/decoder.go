package wire

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Limits bound what a client may send.
type Limits struct {
	Command int   // octets of a command, its literals included, but for the messages of APPEND and REPLACE
	NonSync int64 // of one non-synchronising literal, messages included; 0 is no bound (RFC 7888: 4,096 for LITERAL-)
	Discard int64 // of refused input that is read away to find the end of one command
	Ranges  int   // in one set of messages
	Items   int   // in all lists of a command, search keys included
}

// BeforeLogin are the limits of a client that nobody knows.
func BeforeLogin() Limits {
	return Limits{Command: 8 << 10, NonSync: 4096, Discard: 64 << 10, Ranges: 1000, Items: 100}
}

// AfterLogin are those of an account's client that may send messages of so many octets.
func AfterLogin(message int64) Limits {
	return Limits{Command: 1 << 20, Discard: 2*message + 1<<20, Ranges: 100_000, Items: 10_000}
}

const (
	maxTag   = 128
	maxDepth = 100    // of search keys in one another, and of part numbers
	maxFetch = 500    // items of a FETCH, since each is answered for each message
	maxLine  = 12_288 // octets of an answer in AUTHENTICATE
)

// A SyntaxError is a command that is not as RFC 9051 or an extension wants it. All of it was read: the next
// command can be.
type SyntaxError struct {
	Tag    string // "*" when the command had none
	Status string // BAD, or NO for what is well written and never possible
	Code   string // a response code, or ""
	Text   string // printable ASCII
}

func (e *SyntaxError) Error() string { return e.Text }

// A Decoder reads the commands of one client. It asks its reader for more only when it has no whole command left,
// so that a reader that first flushes what the session wrote never makes a client wait that does not pipeline. While it
// waits for a command it holds no buffer to speak of. It is not safe for use by several goroutines.
type Decoder struct {
	source
	proceed func() error
	limits  Limits
	utf8    bool

	tag    string
	name   string // of the command, for errors
	uid    bool   // it began with UID
	secret bool   // errors must not show what was read
	listed int    // items of lists so far
	upper  [32]byte

	more  bool  // the command is an APPEND or REPLACE that was not read to its end
	first bool  // no message of it was read
	one   bool  // it has one message only
	part  *Part // the literal that is being read
}

// NewDecoder returns a Decoder of what r gives, with the limits BeforeLogin. It calls proceed before it reads a
// synchronising literal: "+ ..." is to be sent.
func NewDecoder(r io.Reader, proceed func() error) *Decoder {
	return &Decoder{source: source{from: r}, proceed: proceed, limits: BeforeLogin()}
}

// SetLimits sets the limits of the commands to come.
func (d *Decoder) SetLimits(l Limits) { d.limits = l }

// UTF8 says whether UTF8=ACCEPT or IMAP4rev2 is enabled (RFC 6855, 3; RFC 9051, 5.1): names of mailboxes are then
// UTF-8 and nothing else. Otherwise they are modified UTF-7; UTF-8 beyond ASCII is read too, which no name in modified
// UTF-7 can be mistaken for.
func (d *Decoder) UTF8(on bool) { d.utf8 = on }

// Buffered is how many octets were read that belong to no command yet.
func (d *Decoder) Buffered() int { return d.w - d.r }

// Rest gives up the octets that were read and belong to no command yet. A new layer, as of COMPRESS, begins with
// them; that of STARTTLS must not.
func (d *Decoder) Rest() []byte {
	rest := append([]byte(nil), d.buf[d.r:d.w]...)
	d.r = d.w
	return rest
}

// Reset continues with another reader. What was buffered is gone.
func (d *Decoder) Reset(r io.Reader) {
	d.release()
	d.part = nil
	d.from, d.readErr, d.begun, d.more = r, nil, false, false
}

// Command reads one command: all of it, but for the messages of APPEND and REPLACE, for which there is NextMessage;
// those not read are abandoned. A *SyntaxError concerns this command only. At the end between two commands the error is
// io.EOF. ErrFlood and all other errors end the connection.
func (d *Decoder) Command() (c Command, err error) {
	if err := d.Abandon(); err != nil {
		return Command{}, err
	}
	d.begin()
	defer d.catch(&err)
	d.check(d.nextLine(d.limits.Command))
	c.Tag = d.commandTag()
	if d.overlong {
		d.tooLong()
	}
	if d.atEnd() {
		d.fail("", "a tag without a command")
	}
	d.space()
	v := d.verb()
	c.Name = v.name
	if v.args != nil {
		c.Args = v.args(d)
	}
	if !d.more {
		d.end()
	}
	return c, nil
}

// Line reads a line that is no command: a client's answer in AUTHENTICATE, or DONE. It has at most 12,288 octets, is
// without its end, and good until the next call. A longer one is a *SyntaxError.
func (d *Decoder) Line() (line []byte, err error) {
	d.begin()
	defer d.catch(&err)
	d.check(d.nextLine(maxLine))
	if d.overlong {
		d.check(d.skipLine(d.limits.Discard))
		d.line = nil // it announces no literal
		d.fail("", "a line is longer than %d octets", maxLine)
	}
	return d.line, nil
}

// begin forgets the command before.
func (d *Decoder) begin() {
	d.begun, d.used, d.wasted = d.r < d.w, 0, 0
	d.tag, d.name, d.uid, d.secret = "*", "", false, false
	d.listed = 0
	d.line, d.pos = nil, 0
}

// next makes the line after a literal the current one.
func (d *Decoder) next() {
	d.check(d.nextLine(max(d.limits.Command-d.used, 0)))
	if d.overlong {
		d.tooLong()
	}
}

func (d *Decoder) commandTag() string {
	tag := d.take(isTagChar)
	switch {
	case len(tag) == 0 && len(strings.TrimSpace(string(d.line))) == 0 && !d.overlong:
		d.fail("", "an empty line is no command")
	case len(tag) == 0:
		d.want("a tag")
	case len(tag) > maxTag:
		d.fail("", "a tag of more than %d octets", maxTag)
	}
	d.tag = string(tag)
	return d.tag
}

// verb reads the name of a command, with UID in front or without.
func (d *Decoder) verb() verb {
	word := d.keyword("the name of a command")
	if string(word) == "UID" && d.peek() == ' ' {
		d.uid = true
		d.space()
		word = d.keyword("the name of a command")
	}
	v, ok := verbs[string(word)]
	switch {
	case !ok && d.uid:
		d.fail("", "unknown command %s", shown(append([]byte("UID "), word...)))
	case !ok:
		d.fail("", "unknown command %s", shown(word))
	case d.uid && !v.uid:
		d.fail("", "%s cannot have UID in front", v.name)
	}
	d.name = v.name
	return v
}

// end is the end of a command. Clients that leave a space there are forgiven.
func (d *Decoder) end() {
	d.skipSpaces()
	if d.pos < len(d.line) {
		d.want("the end of the command")
	}
}

// failure is what parsing stops with: the methods of a Decoder that read the grammar panic with one, so that each
// reads like its rule, and what this package exports catches it.
type failure struct{ err error }

// catch makes a failure the error of the function that defers it, and reads the rest of the command away.
func (d *Decoder) catch(err *error) {
	switch f := recover().(type) {
	case nil:
	case failure:
		*err = f.err
		d.more, d.part = false, nil
		if _, ok := f.err.(*SyntaxError); !ok {
			return
		}
		if e := d.discard(d.limits.Discard); e != nil {
			*err = e
		}
	default:
		panic(f)
	}
}

// check fails with an error of the connection.
func (d *Decoder) check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// fail fails with BAD, a response code or "", and words.
func (d *Decoder) fail(code, format string, args ...any) { d.refuse("BAD", code, format, args...) }

func (d *Decoder) refuse(status, code, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch {
	case d.name != "" && d.uid:
		text = "UID " + d.name + ": " + text
	case d.name != "":
		text = d.name + ": " + text
	}
	panic(failure{&SyntaxError{Tag: d.tag, Status: status, Code: code, Text: text}})
}

// want fails with what was expected here, and what there is.
func (d *Decoder) want(what string) {
	d.fail("", "expected %s, found %s", what, d.found())
}

func (d *Decoder) tooLong() {
	d.fail("TOOBIG", "a command of more than %d octets", d.limits.Command)
}

func (d *Decoder) found() string {
	switch {
	case d.pos >= len(d.line):
		return "the end of the line"
	case d.secret:
		return "something else"
	}
	return shown(d.line[d.pos:])
}

// shown is what a client sent as an error may show it: short, printable, quoted.
func shown(b []byte) string {
	const most = 40
	more := ""
	if len(b) > most {
		b, more = b[:most], "..."
	}
	quoted := strconv.QuoteToASCII(string(b))
	if len(quoted) > 2*most {
		quoted, more = quoted[:2*most], "..."
	}
	return quoted + more
}
