package imapd

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A command is what a client asks, in one line.
type command struct {
	tag  string
	name string // in capitals; "UID FETCH" when it has two words
	args string // with the space before them, without the line end
}

// line is the command as the library reads it.
func (c command) line() []byte { return []byte(c.tag + " " + c.name + c.args + "\r\n") }

// A badCommand is one that is answered without the library.
type badCommand struct {
	tag    string // "*" when it has none
	status string // "BAD [CLIENTBUG] ..."
}

func (b *badCommand) Error() string { return b.status }

func notUnderstood(tag, why string) error {
	return &badCommand{tag, "BAD [CLIENTBUG] " + why}
}

var (
	errFlood    = errors.New("more than is read and thrown away")
	errTrailing = errors.New("something follows the message")
)

// readCommand reads one command with its literals, all but the message of an APPEND.
func (w *wire) readCommand() (command, error) {
	room := maxCommand
	if !w.loggedIn {
		room = maxCommandBeforeLogin
	}
	line, err := w.readLine(room)
	if err != nil {
		return command{}, err
	}
	cmd, err := parseCommand(line)
	if err != nil {
		return cmd, w.skip(err, string(line))
	}
	for {
		lit, found := cutLiteral(&cmd.args)
		switch {
		case !found:
			return cmd, nil
		case cmd.name == "APPEND" && strings.TrimSpace(cmd.args) != "":
			err = w.announce(&cmd, lit)
			return cmd, w.skip(err, cmd.args)
		}
		if err = w.inline(&cmd, lit, room); err != nil {
			return cmd, w.skip(err, cmd.args)
		}
	}
}

// readLine reads a line and returns it without its end and the spaces before that. One that is too long is read to its
// end, with the literals that it announces.
func (w *wire) readLine(most int) ([]byte, error) {
	var line, tail []byte
	for total := 0; ; {
		piece, err := w.in.ReadSlice('\n')
		if total += len(piece); total <= most {
			line = append(line, piece...)
		} else {
			tail = append(tail, piece...)
			tail = tail[max(0, len(tail)-maxAnnounce):]
			w.wasted += int64(len(piece))
		}
		switch {
		case w.wasted > w.maxWasted():
			return nil, errFlood
		case err == bufio.ErrBufferFull:
		case err != nil:
			return nil, err
		case total > most:
			return nil, w.skip(tooLong(line), string(trimEnd(tail)))
		default:
			return trimEnd(line), nil
		}
	}
}

// maxAnnounce is more than a line's end with the announcement of a literal has.
const maxAnnounce = 64

func trimEnd(line []byte) []byte {
	line = bytes.TrimSuffix(line, []byte("\n"))
	return bytes.TrimRight(bytes.TrimSuffix(line, []byte("\r")), " ")
}

// tooLong is the answer to a command of which this is the beginning.
func tooLong(line []byte) error {
	tag, _, _ := strings.Cut(string(line), " ")
	return &badCommand{tagOr(tag), "BAD [TOOBIG] the command is too long"}
}

// maxWasted is how many octets of one command are read and thrown away before the connection ends.
func (w *wire) maxWasted() int64 {
	if w.loggedIn {
		return max(maxDrain, 4*w.srv.Limits.MessageSize)
	}
	return maxDrain
}

// tagOr returns tag, or "*" when it cannot be one.
func tagOr(tag string) string {
	if tag == "" || len(tag) > 100 || strings.ContainsFunc(tag, func(r rune) bool { return !isAtomChar(r) || r == '+' }) {
		return "*"
	}
	return tag
}

func isAtomChar(r rune) bool {
	return r > ' ' && r < 0x7f && !strings.ContainsRune(`(){%*"\]`, r)
}

// parseCommand splits off tag and name and looks at what the library would stumble over.
func parseCommand(line []byte) (command, error) {
	tag, rest, _ := strings.Cut(string(line), " ")
	if tag = tagOr(tag); tag == "*" {
		return command{tag: tag}, notUnderstood("*", "a command begins with a tag")
	}
	name, args := cutWord(rest)
	if strings.EqualFold(name, "UID") && strings.HasPrefix(args, " ") {
		second, after := cutWord(args[1:])
		name, args = name+" "+second, after
	}
	c := command{tag, strings.ToUpper(name), args}
	switch {
	case !isKnown(c.name):
		return c, notUnderstood(tag, "there is no such command")
	case strings.ContainsAny(args, "\x00\r"):
		return c, notUnderstood(tag, "a command has no NUL and no CR within a line")
	case inQuotes(args):
		return c, notUnderstood(tag, "a quoted string does not end")
	}
	return c, nil
}

func cutWord(s string) (word, rest string) {
	n := strings.IndexFunc(s, func(r rune) bool { return !isAtomChar(r) })
	if n < 0 {
		n = len(s)
	}
	return s[:n], s[n:]
}

func isKnown(name string) bool {
	switch name {
	case "CAPABILITY", "NOOP", "CHECK", "LOGOUT", "ID", "STARTTLS", "AUTHENTICATE", "LOGIN", "UNAUTHENTICATE", "ENABLE",
		"SELECT", "EXAMINE", "CREATE", "DELETE", "RENAME", "SUBSCRIBE", "UNSUBSCRIBE", "LIST", "LSUB", "NAMESPACE", "STATUS",
		"APPEND", "IDLE", "CLOSE", "UNSELECT", "EXPUNGE", "SEARCH", "FETCH", "STORE", "COPY", "MOVE",
		"UID EXPUNGE", "UID SEARCH", "UID FETCH", "UID STORE", "UID COPY", "UID MOVE":
		return true
	}
	return false
}

// inQuotes reports whether a quoted string is open at the end of s.
func inQuotes(s string) bool {
	open := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			open = !open
		case s[i] == '\\' && open:
			i++
		}
	}
	return open
}

// A literal is the message of an APPEND, announced by the client.
type literal struct {
	size, left int64
	sync       bool // the client waits to be asked for it
	accepted   bool // by the session
	refused    bool // by the session
	utf8       bool // a parenthesis follows (RFC 6855, 4)
}

// cutLiteral takes the announcement of a literal from the end of args.
func cutLiteral(args *string) (literal, bool) {
	s, ok := strings.CutSuffix(*args, "}")
	i := strings.LastIndexByte(s, '{')
	if !ok || i < 0 {
		return literal{}, false
	}
	digits, nonSync := strings.CutSuffix(s[i+1:], "+")
	n, err := strconv.ParseInt(digits, 10, 64)
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return literal{}, false
	}
	if err != nil {
		n = 1<<63 - 1
	}
	*args = s[:i]
	return literal{size: n, left: n, sync: !nonSync}, true
}

// inline reads a small literal, and the line that goes on after it, into cmd.
func (w *wire) inline(cmd *command, lit literal, room int) error {
	room -= len(cmd.args)
	if lit.size > int64(room) {
		return w.tooBig(cmd, lit)
	}
	if lit.sync {
		w.say("+ go on")
	}
	text := make([]byte, lit.size)
	if _, err := io.ReadFull(w.in, text); err != nil {
		return err
	}
	rest, err := w.readLine(room - len(text))
	if err != nil {
		return retag(err, cmd.tag)
	}
	cmd.args += quote(text) + string(rest)
	switch {
	case bytes.ContainsAny(text, "\x00\r\n"):
		return notUnderstood(cmd.tag, "this string must not have NUL, CR or LF")
	case bytes.ContainsAny(rest, "\x00\r") || inQuotes(string(rest)):
		return notUnderstood(cmd.tag, "the line after the literal was not understood")
	case len(quote(text)) > room:
		return &badCommand{cmd.tag, "BAD [TOOBIG] the command is too long"}
	}
	return nil
}

// retag gives the answer to a line within a command the command's tag.
func retag(err error, tag string) error {
	if bad := (*badCommand)(nil); errors.As(err, &bad) {
		return &badCommand{tag, bad.status}
	}
	return err
}

func quote(text []byte) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	b.WriteByte('"')
	return b.String()
}

// tooBig refuses a literal. The client sends it all the same when it does not wait to be asked.
func (w *wire) tooBig(cmd *command, lit literal) error {
	cmd.args = ""
	if !lit.sync {
		if err := w.discard(lit.size); err != nil {
			return err
		}
		rest, err := w.readLine(maxCommand)
		if err != nil {
			return retag(err, cmd.tag)
		}
		cmd.args = string(rest)
	}
	return &badCommand{cmd.tag, "NO [TOOBIG] the literal is too long"}
}

// discard reads n octets and throws them away.
func (w *wire) discard(n int64) error {
	if n > w.maxWasted()-w.wasted {
		return errFlood
	}
	w.wasted += n
	for n > 0 {
		w.readWithin(w.srv.Limits.Command)
		piece, err := w.in.Discard(int(min(n, 1<<16)))
		if n -= int64(piece); err != nil {
			return err
		}
	}
	return nil
}

// skip reads the literals that follow a refused command of which line is the end.
func (w *wire) skip(err error, line string) error {
	bad := (*badCommand)(nil)
	if !errors.As(err, &bad) {
		return err
	}
	if failed := w.skipLiterals(line); failed != nil {
		return failed
	}
	return err
}

// skipLiterals throws away what follows a line that announces literals nobody wants.
func (w *wire) skipLiterals(line string) error {
	for {
		lit, found := cutLiteral(&line)
		if !found || lit.sync {
			return nil
		}
		if err := w.discard(lit.size); err != nil {
			return err
		}
		rest, err := w.readLine(maxCommand)
		if err != nil {
			return err
		}
		line = string(rest)
	}
}

// announce lets the message of an APPEND wait until the session asks for it.
func (w *wire) announce(cmd *command, lit literal) error {
	if lit.size > w.srv.Limits.MessageSize || !w.loggedIn {
		err := w.tooBig(cmd, lit)
		if bad := (*badCommand)(nil); !w.loggedIn && errors.As(err, &bad) {
			return notUnderstood(cmd.tag, "log in first")
		}
		return err
	}
	lit.utf8 = strings.HasSuffix(cmd.args, "(~")
	cmd.args += fmt.Sprintf("{%d+}", lit.size)
	w.literal = &lit
	return nil
}

// acceptLiteral asks for the message of the present APPEND.
func (w *wire) acceptLiteral() {
	w.literal.accepted = true
	if w.literal.sync {
		w.say("+ go on")
	}
}

// refuseLiteral says that the message is not wanted. The library reads it all the same: if the client
// does not send it, it reads zeros.
func (w *wire) refuseLiteral() { w.literal.refused = true }

func (w *wire) readLiteral(p []byte) (int, error) {
	l := w.literal
	p = p[:min(int64(len(p)), l.left)]
	n, err := len(p), error(nil)
	if l.refused && l.sync {
		clear(p)
	} else {
		w.readWithin(w.srv.Limits.Command)
		n, err = w.in.Read(p)
	}
	l.left -= int64(n)
	if err != nil {
		err = w.lost(err)
	}
	return n, err
}

// endLiteral reads what follows the message, which ends the command; errTrailing if it does not.
func (w *wire) endLiteral() error {
	l := w.literal
	w.literal = nil
	end := ""
	if l.utf8 {
		end = ")"
	}
	w.ready = []byte(end + "\r\n")
	if l.refused && l.sync {
		return nil
	}
	rest, err := w.readLine(maxCommand)
	switch bad := (*badCommand)(nil); {
	case errors.As(err, &bad):
		return errTrailing
	case err != nil:
		return w.lost(err)
	case string(rest) == end:
		return nil
	}
	if err := w.skipLiterals(string(rest)); err != nil {
		return w.lost(err)
	}
	return errTrailing
}

// abandonLiteral throws a message away whose APPEND the library has refused.
func (w *wire) abandonLiteral() error {
	l := w.literal
	w.literal = nil
	if l.sync {
		return nil
	}
	err := w.discard(l.left)
	if err == nil {
		var rest []byte
		if rest, err = w.readLine(maxCommand); err == nil {
			err = w.skipLiterals(string(rest))
		}
	}
	if bad := (*badCommand)(nil); err == nil || errors.As(err, &bad) {
		return nil
	}
	return w.lost(err)
}

// refuseCommand answers a command without the library.
func (w *wire) refuseCommand(bad *badCommand) error {
	w.say(bad.tag + " " + bad.status)
	if w.loggedIn {
		return nil
	}
	if w.bad++; w.bad >= w.srv.Limits.BadCommands {
		w.bye("this is an IMAP server")
	}
	return nil
}

// keepSmaller writes SMALLER n as NOT NOT SMALLER n, because the library forgets a SMALLER when a date or a LARGER
// comes after it in the same list.
func keepSmaller(args string) string {
	if !strings.Contains(strings.ToUpper(args), "SMALLER") {
		return args
	}
	var b strings.Builder
	for values := 0; args != ""; {
		word, rest := cutArgument(args)
		switch {
		case strings.Contains(" ()", word):
		case values > 0:
			values--
		default:
			values = searchValues(word)
			if strings.EqualFold(word, "SMALLER") {
				b.WriteString("NOT NOT ")
			}
		}
		b.WriteString(word)
		args = rest
	}
	return b.String()
}

// cutArgument cuts a quoted string, an atom, or one space or parenthesis off s.
func cutArgument(s string) (word, rest string) {
	n := strings.IndexAny(s, ` ()"`)
	switch {
	case n < 0:
		n = len(s)
	case n > 0:
	case s[0] == '"':
		for n = 1; n < len(s) && s[n] != '"'; n++ {
			if s[n] == '\\' {
				n++
			}
		}
		n = min(n+1, len(s))
	default:
		n = 1
	}
	return s[:n], s[n:]
}

// searchValues returns how many values a search key is followed by (RFC 9051, 6.4.4).
func searchValues(key string) int {
	switch strings.ToUpper(key) {
	case "HEADER":
		return 2
	case "BCC", "BODY", "CC", "FROM", "SUBJECT", "TEXT", "TO", "KEYWORD", "UNKEYWORD", "UID", "LARGER", "SMALLER", "CHARSET",
		"BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE":
		return 1
	}
	return 0
}

// maxSearchDepth bounds how deep NOT, OR and parentheses may stand in one another: the library's parser takes
// 5 KiB of memory for each level, so that a command full of NOT would take 60 MiB.
const maxSearchDepth = 100

// searchDepth returns how deep the keys of a SEARCH stand in one another, at the deepest.
func searchDepth(args string) (depth int) {
	const list = 0
	var open []int // for each NOT, OR or parenthesis around the present key, how many keys it waits for
	for values := 0; args != ""; {
		word, rest := cutArgument(args)
		args = rest
		switch {
		case word == " ":
		case word == "(":
			open = append(open, list)
		case word == ")":
			for len(open) > 0 && open[len(open)-1] != list {
				open = open[:len(open)-1]
			}
			open = keyDone(open[:max(0, len(open)-1)])
		case values > 0:
			if values--; values == 0 {
				open = keyDone(open)
			}
		case strings.EqualFold(word, "NOT"):
			open = append(open, 1)
		case strings.EqualFold(word, "OR"):
			open = append(open, 2)
		default:
			if values = searchValues(word); values == 0 {
				open = keyDone(open)
			}
		}
		depth = max(depth, len(open))
	}
	return depth
}

// keyDone closes each NOT and OR that waited only for the key that has just ended.
func keyDone(open []int) []int {
	for n := len(open); n > 0 && open[n-1] > 0; n-- {
		if open[n-1]--; open[n-1] > 0 {
			return open
		}
		open = open[:n-1]
	}
	return open
}

// run answers the command, or gets it ready for the library.
func (w *wire) run() error {
	saveOnly := false
	switch w.cmd.name {
	case "ID":
		w.say(`* ID ("name" "postroad")`)
		w.say(w.cmd.tag + " OK ID completed")
		return nil
	case "STARTTLS":
		if w.srv.TLS != nil && !w.secure && !w.loggedIn && w.cmd.args == "" {
			return w.startTLS()
		}
	case "AUTHENTICATE":
		if err := w.readResponse(); err != nil {
			return err
		}
	case "IDLE":
		w.idling = w.loggedIn && w.cmd.args == ""
	case "SEARCH", "UID SEARCH":
		if searchDepth(w.cmd.args) > maxSearchDepth {
			return w.refuseCommand(&badCommand{w.cmd.tag, "BAD [TOOBIG] the search keys stand too deep in one another"})
		}
		w.cmd.args = keepSmaller(w.cmd.args)
		saveOnly = cutSaveOnly(&w.cmd.args)
	}
	if w.cmd.name == "" {
		return nil
	}
	w.mu.Lock()
	w.fault = []byte(w.cmd.tag + libraryFault)
	w.saveOnly = saveOnly
	w.mu.Unlock()
	w.ready = w.cmd.line()
	return nil
}

// cutSaveOnly reports whether a search is to save its result and to say nothing of it (RFC 9051, 6.4.4). The library
// would tell it all, so it is asked for the count, which saves the same and is one short line.
func cutSaveOnly(args *string) bool {
	const only = " RETURN (SAVE)"
	if len(*args) < len(only) || !strings.EqualFold((*args)[:len(only)], only) {
		return false
	}
	*args = " RETURN (SAVE COUNT)" + (*args)[len(only):]
	return true
}

// readResponse completes AUTHENTICATE PLAIN with the client's response, which the library could not bound.
// Without a name the command was answered here.
func (w *wire) readResponse() error {
	cmd := w.cmd
	mech, initial, has := strings.Cut(strings.TrimPrefix(cmd.args, " "), " ")
	if !strings.EqualFold(mech, "PLAIN") || !w.mayLogin || w.loggedIn {
		return nil
	}
	if !has {
		w.say("+ ")
		line, err := w.readLine(maxCommandBeforeLogin)
		switch bad := (*badCommand)(nil); {
		case errors.As(err, &bad):
			return w.answer(&badCommand{cmd.tag, bad.status})
		case err != nil:
			return w.lost(err)
		}
		initial = string(line)
	}
	switch _, err := base64.StdEncoding.DecodeString(initial); {
	case initial == "*":
		return w.answer(&badCommand{cmd.tag, "BAD authentication cancelled"})
	case initial != "=" && (err != nil || initial == ""):
		return w.answer(&badCommand{cmd.tag, "BAD [CLIENTBUG] the response is not base64"})
	}
	w.cmd.args = " PLAIN " + initial
	return nil
}

func (w *wire) answer(bad *badCommand) error {
	w.cmd.name = ""
	return w.refuseCommand(bad)
}

// startTLS goes on with a new wire and a new session, which know nothing of what was said in the clear. What
// the client sent after the command was not protected and ends the connection (RFC 9051, 6.2.1).
func (w *wire) startTLS() error {
	if w.in.Buffered() > 0 {
		w.bye("nothing may follow STARTTLS before the handshake")
		return w.leave()
	}
	w.say(w.cmd.tag + " OK begin TLS")
	tc, err := w.srv.handshake(w.Conn)
	if err != nil {
		return io.EOF
	}
	w.moved = true
	secure := newWire(w.srv, tc)
	secure.muted = true
	secure.loginBy = w.loginBy
	w.srv.start(secure)
	return io.EOF
}

// endIdle passes on the line that ends IDLE.
func (w *wire) endIdle() error {
	w.idling = false
	line, err := w.readLine(maxCommandBeforeLogin)
	switch bad := (*badCommand)(nil); {
	case errors.As(err, &bad):
		line = []byte("too long")
	case err != nil:
		return w.lost(err)
	case strings.EqualFold(string(line), "DONE"):
		line = []byte("DONE")
	}
	w.ready = append(line, "\r\n"...)
	return nil
}
