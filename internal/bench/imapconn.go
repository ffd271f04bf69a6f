package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

const (
	imapBuffer  = 16 << 10
	idleBuffer  = 1 << 10   // for connections that mostly wait
	keepText    = 4 << 10   // of a response, beside its literals
	keepLiteral = 4 << 10   // of a response's literals
	maxText     = 256 << 20 // of a response, in all: SEARCH answers with long lines
	maxLiteral  = 1 << 30
)

// An imapConn is one IMAP session. Its responses are read into buffers that are
// used again, so that a large FETCH costs little more than the copying.
type imapConn struct {
	*wire
	tag    int
	caps   string // announced, upper case, with a space before and after each
	exists int64  // messages in the selected mailbox, as last told

	// The last response read.
	text  []byte // without its literals; at most keepText
	lits  []byte // its literals, one after another; at most keepLiteral
	words int64  // words outside literals
	bytes int64  // octets read since the connection was made
}

// errNo is a NO or BAD.
type errNo struct{ command, text string }

func (e *errNo) Error() string { return e.command + " was answered " + e.text }

// dialIMAP opens a session and logs in.
func dialIMAP(ctx context.Context, t *Target, buffer int) (*imapConn, error) {
	w, err := dial(ctx, t, buffer)
	if err != nil {
		return nil, err
	}
	c := &imapConn{wire: w}
	if err := c.open(ctx); err != nil {
		c.close()
		return nil, fmt.Errorf("imap %s: %w", t.Addr, err)
	}
	return c, nil
}

func (c *imapConn) open(ctx context.Context) error {
	if err := c.read(); err != nil {
		return err
	}
	if !bytes.HasPrefix(c.text, []byte("* OK")) {
		return fmt.Errorf("greeted with %q", c.text)
	}
	c.learn()
	if c.target.TLS == STARTTLS {
		if err := c.command("STARTTLS", nil); err != nil {
			return err
		}
		if err := c.startTLS(ctx); err != nil {
			return err
		}
	}
	return c.login()
}

// login needs the capabilities afterwards; servers that tell them unasked save a
// round trip.
func (c *imapConn) login() error {
	user, err := quote(c.target.User)
	if err != nil {
		return err
	}
	password, err := quote(c.target.Password)
	if err != nil {
		return fmt.Errorf("the password cannot be sent: %w", err)
	}
	c.caps = ""
	if err := c.command("LOGIN "+user+" "+password, c.learn); err != nil {
		return err
	}
	if c.learn(); c.caps != "" {
		return nil
	}
	return c.command("CAPABILITY", c.learn)
}

// learn looks for capabilities in the response just read: untagged, or in the code
// of a status response.
func (c *imapConn) learn() {
	line := strings.ToUpper(string(c.text))
	_, list, found := strings.Cut(line, "CAPABILITY ")
	if !found {
		return
	}
	list, _, _ = strings.Cut(list, "]")
	c.caps = " " + strings.TrimSpace(list) + " "
}

func (c *imapConn) can(capability string) bool { return strings.Contains(c.caps, " "+capability+" ") }

// command sends one command and reads up to its tagged response. each, where
// given, runs for every untagged response. NO and BAD are an *errNo.
func (c *imapConn) command(line string, each func()) error {
	c.begin(line)
	c.w.WriteString("\r\n")
	return c.finish(line, each)
}

// begin writes a tag and the start of a command into the buffer.
func (c *imapConn) begin(line string) {
	c.tag++
	c.w.WriteByte('a')
	c.w.Write(strconv.AppendInt(c.w.AvailableBuffer(), int64(c.tag), 10))
	c.w.WriteByte(' ')
	c.w.WriteString(line)
}

// finish sends what is buffered and reads up to the tagged response.
func (c *imapConn) finish(line string, each func()) error {
	if err := c.w.Flush(); err != nil {
		return fmt.Errorf("%s: %w", verb(line), err)
	}
	for {
		if err := c.read(); err != nil {
			return fmt.Errorf("%s: %w", verb(line), err)
		}
		if c.tagged() {
			return c.verdict(line)
		}
		if each != nil {
			each()
		}
	}
}

func (c *imapConn) tagged() bool { return len(c.text) > 0 && c.text[0] == 'a' }

func (c *imapConn) verdict(line string) error {
	_, status, _ := bytes.Cut(c.text, []byte(" "))
	if bytes.HasPrefix(status, []byte("OK")) {
		return nil
	}
	return &errNo{verb(line), string(status)}
}

// verb is the command without what may be secret.
func verb(line string) string {
	word, rest, _ := strings.Cut(line, " ")
	if word == "UID" {
		next, _, _ := strings.Cut(rest, " ")
		return word + " " + next
	}
	return word
}

// read reads one response with its literals.
func (c *imapConn) read() error {
	c.text, c.lits, c.words = c.text[:0], c.lits[:0], 1
	for {
		literal, err := c.readLine()
		if err != nil {
			return readError(err)
		}
		if literal < 0 {
			c.notice()
			return nil
		}
		if err := c.readLiteral(literal); err != nil {
			return err
		}
	}
}

// readLine reads to the end of a line and returns the length of the literal it
// announces, or -1.
func (c *imapConn) readLine() (literal int64, err error) {
	var tail [24]byte // the end of the line, wherever the buffer was cut
	used := 0
	for total := 0; total < maxText; {
		piece, err := c.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return 0, err
		}
		total += len(piece)
		c.bytes += int64(len(piece))
		c.words += int64(bytes.Count(piece, []byte(" ")))
		c.text = append(c.text, piece[:min(len(piece), keepText-len(c.text))]...)
		used = keepTail(tail[:], used, piece)
		if err == nil {
			c.text = bytes.TrimRight(c.text, "\r\n")
			return literalLength(tail[:used])
		}
	}
	return 0, errLongLine
}

// keepTail appends piece to what tail holds, dropping from the front.
func keepTail(tail []byte, used int, piece []byte) int {
	if len(piece) >= len(tail) {
		return copy(tail, piece[len(piece)-len(tail):])
	}
	drop := max(used+len(piece)-len(tail), 0)
	copy(tail, tail[drop:used])
	return used - drop + copy(tail[used-drop:], piece)
}

// literalLength reads "{123}" at the end of a line.
func literalLength(line []byte) (int64, error) {
	line, found := bytes.CutSuffix(bytes.TrimRight(line, "\r\n"), []byte("}"))
	if !found {
		return -1, nil
	}
	open := bytes.LastIndexByte(line, '{')
	n, err := strconv.ParseInt(string(line[open+1:]), 10, 64)
	if open < 0 || err != nil || n < 0 {
		return -1, nil // text that happens to end in a brace
	}
	if n > maxLiteral {
		return 0, fmt.Errorf("the server announced a literal of %d octets", n)
	}
	return n, nil
}

func (c *imapConn) readLiteral(n int64) error {
	c.bytes += n
	keep := min(n, int64(keepLiteral-len(c.lits)))
	at := len(c.lits)
	c.lits = slices.Grow(c.lits, int(keep))[:at+int(keep)]
	if _, err := io.ReadFull(c.r, c.lits[at:]); err != nil {
		return err
	}
	for n -= keep; n > 0; {
		gone, err := c.r.Discard(int(min(n, 1<<20)))
		if n -= int64(gone); err != nil {
			return err
		}
	}
	return nil
}

// notice keeps exists up to date.
func (c *imapConn) notice() {
	if n, what, ok := c.numbered(); ok && bytes.Equal(what, []byte("EXISTS")) {
		c.exists = n
	}
}

// numbered takes "* 12 FETCH (..." apart into 12 and what follows.
func (c *imapConn) numbered() (n int64, what []byte, ok bool) {
	rest, found := bytes.CutPrefix(c.text, []byte("* "))
	if !found || len(rest) == 0 || rest[0] < '0' || rest[0] > '9' {
		return 0, nil, false
	}
	for i, d := range rest {
		if d == ' ' {
			return n, rest[i+1:], true
		}
		if d < '0' || d > '9' || n > 1<<40 {
			return 0, nil, false
		}
		n = n*10 + int64(d-'0')
	}
	return 0, nil, false
}

// numberAfter finds a number that follows name in the last response.
func (c *imapConn) numberAfter(name string) (int64, bool) {
	_, rest, found := bytes.Cut(c.text, []byte(name))
	if !found {
		return 0, false
	}
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(string(rest[:end]), 10, 64)
	return n, err == nil
}

// selectMailbox opens a mailbox and returns its UIDNEXT.
func (c *imapConn) selectMailbox(quoted string) (uidNext int64, err error) {
	c.exists = 0
	err = c.command("SELECT "+quoted, func() {
		if n, ok := c.numberAfter("[UIDNEXT "); ok {
			uidNext = n
		}
	})
	return uidNext, err
}

// appendMessage stores one message; the literal waits for the server's word unless
// the server announced that it need not (RFC 7888).
func (c *imapConn) appendMessage(quoted string, size int, write func(*bufio.Writer) error) error {
	line := "APPEND " + quoted + " {" + strconv.Itoa(size)
	c.begin(line)
	if c.can("LITERAL+") || c.can("LITERAL-") && size <= 4096 {
		c.w.WriteString("+}\r\n")
	} else {
		c.w.WriteString("}\r\n")
		if err := c.goAhead(line); err != nil {
			return err
		}
	}
	if err := write(c.w); err != nil {
		return fmt.Errorf("APPEND: %w", err)
	}
	c.w.WriteString("\r\n")
	return c.finish(line, nil)
}

// goAhead sends what is buffered and waits for the continuation.
func (c *imapConn) goAhead(line string) error {
	if err := c.w.Flush(); err != nil {
		return fmt.Errorf("%s: %w", verb(line), err)
	}
	for {
		if err := c.read(); err != nil {
			return fmt.Errorf("%s: %w", verb(line), err)
		}
		if len(c.text) > 0 && c.text[0] == '+' {
			return nil
		}
		if c.tagged() {
			if err := c.verdict(line); err != nil {
				return err
			}
			return fmt.Errorf("%s was answered OK before its end", verb(line))
		}
	}
}

// idle enters IDLE (RFC 2177); done leaves it.
func (c *imapConn) idle() error {
	c.begin("IDLE\r\n")
	return c.goAhead("IDLE")
}

func (c *imapConn) done() error {
	c.w.WriteString("DONE\r\n")
	return c.finish("IDLE", nil)
}

// logout says goodbye without waiting for the answer.
func (c *imapConn) logout() {
	c.begin("LOGOUT\r\n")
	c.w.Flush()
	c.close()
}

// quote makes an IMAP quoted string.
func quote(s string) (string, error) {
	b := []byte{'"'}
	for i := range len(s) {
		switch {
		case s[i] < ' ' || s[i] > '~':
			return "", fmt.Errorf("only printable ASCII can be sent here")
		case s[i] == '"' || s[i] == '\\':
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(append(b, '"')), nil
}
