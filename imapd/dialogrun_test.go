package imapd

import (
	"bytes"
	"compress/flate"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/store"
)

// A dialog is a case being run.
type dialog struct {
	t         *testing.T
	house     *dialogHouse
	c         dialogCase
	config    Config
	store     *store.Store
	listening map[bool]*dialogListener // by whether TLS comes first
	conns     map[int]*dialogConn
	captured  map[string]string

	mu         sync.Mutex // guards transcript
	transcript []string
}

// wrong says where the dialog went wrong, and all that was said.
func (d *dialog) wrong(at string, err error) error {
	return fmt.Errorf("%s: %w\nall that was said:\n%s", at, err, strings.Join(d.transcript, "\n"))
}

// shownOctets is as much of a line as a transcript has.
const shownOctets = 400

// said notes what was sent or received, each line with who said it.
func (d *dialog) said(who byte, conn int, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\r\n")
		if len(line) > shownOctets {
			line = fmt.Sprintf("%s... (%d octets)", line[:shownOctets], len(line))
		}
		d.transcript = append(d.transcript, fmt.Sprintf("  %c%d: %s", who, conn, shown(line)))
	}
}

// shown is text with \x00 for what a terminal would not show.
func shown(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c >= ' ' && c != 0x7f || c == '\n' {
			b.WriteByte(c)
			continue
		}
		if strings.HasPrefix(text[i:], "\r\n") {
			continue
		}
		fmt.Fprintf(&b, `\x%02x`, text[i])
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

func (d *dialog) step(s dialogStep) error {
	if s.kind == '@' {
		do, ok := dialogDirectives[s.verb()]
		if !ok {
			return fmt.Errorf("@%s is not known; docs/dialogs.md lists what is", s.verb())
		}
		return do(d, s)
	}
	c, err := d.conn(s.conn, s.kind == 'C')
	if err != nil {
		return err
	}
	if s.kind == 'C' {
		return c.say(s)
	}
	return c.expect(s)
}

// conn returns a connection, which is made when it is first used; with greeted, its greeting is then read.
func (d *dialog) conn(n int, greeted bool) (*dialogConn, error) {
	if c := d.conns[n]; c != nil {
		return c, nil
	}
	c, err := d.connect(n, false, nil)
	if err != nil || !greeted {
		return c, err
	}
	return c, c.wants("* OK {any}")
}

func (d *dialog) connect(n int, implicitTLS bool, from net.IP) (*dialogConn, error) {
	if d.conns[n] != nil {
		return nil, fmt.Errorf("connection %d is open already", n)
	}
	if implicitTLS || d.c.uses("tls", "starttls", "certificate") {
		d.offerTLS()
	}
	c := &dialogConn{d: d, n: n}
	conn := d.listen(implicitTLS).dial(from)
	if implicitTLS {
		conn = tls.Client(conn, insecureTLS())
	}
	c.use(conn, conn)
	d.conns[n] = c
	return c, nil
}

func (d *dialog) offerTLS() {
	if d.config.TLS == nil {
		d.config.TLS = certificate(d.t)
	}
}

// nothingLeft is an error when a server said more than the case expected.
func (d *dialog) nothingLeft() error {
	synctest.Wait()
	for n, c := range d.conns {
		for c.buffered() {
			r, err := c.read()
			if err != nil {
				return fmt.Errorf("connection %d: %w", n, err)
			}
			if !c.skip || !untagged(r) {
				return fmt.Errorf("connection %d: this was not expected:\n%s", n, shown(strings.Join(r, "\r\n")))
			}
		}
	}
	return nil
}

func untagged(response []string) bool { return strings.HasPrefix(response[0], "* ") }

// A dialogConn is one connection. What the server says is taken up at once, so that neither side waits for the
// other to read.
type dialogConn struct {
	d    *dialog
	n    int
	conn net.Conn // the outermost layer that can be closed
	w    io.Writer
	r    *bytesAhead
	skip bool // an S: ... stands before what is expected next
	tags int  // used by directives

	loggedIn bool // by a directive
}

// use makes the connection read and write by a (new) layer.
func (c *dialogConn) use(conn net.Conn, r io.Reader) {
	c.conn, c.w, c.r = conn, conn, newBytesAhead(r)
}

func (c *dialogConn) hangUp() {
	c.conn.Close()
	<-c.r.ended
}

// dialogPatience is how long the case's clock may go on before an answer comes: refusals of a login take some seconds.
const dialogPatience = 50 * time.Second

// bytesAhead reads ahead as far as there is something to read.
type bytesAhead struct {
	ended chan struct{}
	more  chan struct{} // something came

	mu  sync.Mutex // guards what follows
	buf []byte
	err error
}

func newBytesAhead(r io.Reader) *bytesAhead {
	b := &bytesAhead{ended: make(chan struct{}), more: make(chan struct{}, 1)}
	go b.run(r)
	return b
}

func (b *bytesAhead) run(r io.Reader) {
	defer close(b.ended)
	p := make([]byte, 64<<10)
	for b.err == nil {
		n, err := r.Read(p)
		b.mu.Lock()
		b.buf, b.err = append(b.buf, p[:n]...), err
		b.mu.Unlock()
		select {
		case b.more <- struct{}{}:
		default:
		}
	}
}

var errSilence = errors.New("the server says nothing")

// take returns what cut takes off the front of what has come, once that is something.
func (b *bytesAhead) take(cut func([]byte) int) (string, error) {
	deadline := time.NewTimer(dialogPatience)
	defer deadline.Stop()
	for {
		b.mu.Lock()
		n, err := cut(b.buf), b.err
		if n > 0 {
			s := string(b.buf[:n])
			b.buf = b.buf[n:]
			b.mu.Unlock()
			return s, nil
		}
		rest := string(b.buf)
		b.mu.Unlock()
		if err != nil {
			return "", fmt.Errorf("the connection ended (%w) after %q", err, rest)
		}
		select {
		case <-b.more:
		case <-b.ended:
		case <-deadline.C:
			if rest != "" {
				return "", fmt.Errorf("%w after %q", errSilence, rest)
			}
			return "", errSilence
		}
	}
}

func (c *dialogConn) buffered() bool {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	return len(c.r.buf) > 0
}

// say sends a step's text. Where the text has {n}, the server is first waited for.
func (c *dialogConn) say(s dialogStep) error {
	text := s.texts[0]
	var literals []string
	for i := 1; i < len(text); i += 2 {
		literal, err := c.d.expand(text[i])
		if err != nil {
			return err
		}
		literals = append(literals, literal)
	}
	for i := 0; i < len(text); i += 2 {
		line, err := c.d.expand(text[i])
		if err != nil {
			return err
		}
		var literal string
		wait := strings.HasSuffix(line, "{n}")
		if i/2 < len(literals) {
			literal = literals[i/2]
			line = strings.Replace(line, "{n", fmt.Sprintf("{%d", len(literal)), 1)
		}
		if i+1 < len(text) || !s.open {
			line += "\r\n"
		}
		if err := c.send(line); err != nil {
			return err
		}
		if wait && i+1 < len(text) {
			if err := c.goOn(); err != nil {
				return err
			}
		}
		if err := c.send(literal); err != nil {
			return err
		}
	}
	return nil
}

// goOn waits for the continuation request; untagged responses before it are the case's to expect.
func (c *dialogConn) goOn() error {
	for range 1000 {
		r, err := c.read()
		if err != nil {
			return fmt.Errorf("no continuation request: %w", err)
		}
		if strings.HasPrefix(r[0], "+ ") || r[0] == "+" {
			return nil
		}
		if !c.skip || !untagged(r) {
			return fmt.Errorf("instead of a continuation request came\n%s", shown(strings.Join(r, "\r\n")))
		}
	}
	return errors.New("no continuation request in 1,000 responses")
}

func (c *dialogConn) send(text string) error {
	if text == "" {
		return nil
	}
	c.d.said('C', c.n, text)
	c.conn.SetWriteDeadline(time.Now().Add(dialogPatience))
	_, err := io.WriteString(c.w, text)
	if errors.Is(err, io.ErrClosedPipe) {
		return nil // what the server said before it hung up is the case's to expect
	}
	return err
}

// read reads one response: text, literal, text, and so on.
func (c *dialogConn) read() (pieces []string, err error) {
	defer func() {
		if len(pieces) > 0 {
			c.d.said('S', c.n, strings.Join(pieces, "\r\n"))
		}
	}()
	for {
		line, err := c.r.take(func(b []byte) int { return bytes.IndexByte(b, '\n') + 1 })
		if err != nil {
			return pieces, err
		}
		bare := !strings.HasSuffix(line, "\r\n")
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		pieces = append(pieces, line)
		if bare {
			return pieces, errors.New("the line ends in a bare LF")
		}
		m := responseLiteral.FindStringSubmatch(line)
		if m == nil {
			return pieces, nil
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return pieces, err
		}
		literal, err := c.octets(n)
		if err != nil {
			return pieces, err
		}
		pieces = append(pieces, literal)
	}
}

var responseLiteral = regexp.MustCompile(`\{([0-9]+)\}$`)

func (c *dialogConn) octets(n int) (string, error) {
	if n == 0 {
		return "", nil
	}
	return c.r.take(func(b []byte) int {
		if len(b) < n {
			return 0
		}
		return n
	})
}

// expect reads what the step says the server says.
func (c *dialogConn) expect(s dialogStep) error {
	if len(s.texts) == 0 {
		c.skip = true
		return nil
	}
	left := s.texts
	for len(left) > 0 {
		r, err := c.read()
		if err != nil {
			return fmt.Errorf("%w\nwant: %s", err, shown(strings.Join(left[0], "\r\n")))
		}
		at, err := c.d.matching(left, r)
		if err != nil {
			return err
		}
		switch {
		case at >= 0:
			left = append(left[:at:at], left[at+1:]...)
		case !c.skip || !untagged(r):
			return mismatch(left, r)
		}
	}
	c.skip = false
	return nil
}

func mismatch(left [][]string, got []string) error {
	var want []string
	for _, text := range left {
		want = append(want, shown(strings.Join(text, "\r\n")))
	}
	return fmt.Errorf("\ngot:  %s\nwant: %s", shown(strings.Join(got, "\r\n")), strings.Join(want, "\n  or: "))
}

// matching returns which of the expected texts a response is, or -1, and keeps what it captures.
func (d *dialog) matching(texts [][]string, response []string) (int, error) {
	for i, text := range texts {
		captured, ok, err := d.match(text, response)
		if err != nil {
			return -1, err
		}
		if !ok {
			continue
		}
		for name, v := range captured {
			d.captured[name] = v
		}
		return i, nil
	}
	return -1, nil
}

func (d *dialog) match(text, response []string) (map[string]string, bool, error) {
	if len(text) != len(response) {
		return nil, false, nil
	}
	captured := map[string]string{}
	for i := range text {
		re, err := d.pattern(text[i])
		if err != nil {
			return nil, false, err
		}
		m := re.FindStringSubmatch(widen(response[i]))
		if m == nil {
			return nil, false, nil
		}
		for j, name := range re.SubexpNames() {
			if name != "" {
				captured[name] = narrow(m[j])
			}
		}
	}
	return captured, true, nil
}

// wants expects one line on behalf of a directive.
func (c *dialogConn) wants(line string) error {
	return c.expect(dialogStep{texts: [][]string{{line}}})
}

// does sends a command on behalf of a directive, and wants an OK.
func (c *dialogConn) does(command string) error {
	c.tags++
	tag := fmt.Sprintf("@%d", c.tags)
	if err := c.send(tag + " " + command + "\r\n"); err != nil {
		return err
	}
	skip := c.skip
	c.skip = true
	defer func() { c.skip = skip }()
	return c.wants(tag + " OK {any}")
}

// A dialogDirective does what a line with @ says.
type dialogDirective func(*dialog, dialogStep) error

var dialogDirectives = map[string]dialogDirective{
	"connect":     (*dialog).doConnect,
	"tls":         (*dialog).doTLS,
	"starttls":    (*dialog).doSTARTTLS,
	"certificate": func(*dialog, dialogStep) error { return nil },
	"login":       (*dialog).doLogin,
	"select":      (*dialog).doSelect,
	"ok":          (*dialog).doOK,
	"compress":    (*dialog).doCompress,
	"close":       (*dialog).doClose,
	"closed":      (*dialog).doClosed,
	"silence":     func(d *dialog, _ dialogStep) error { return d.nothingLeft() },
	"after":       (*dialog).doAfter,
	"deliver":     (*dialog).doDeliver,
	"messages":    (*dialog).doMessages,
	"mailbox":     (*dialog).doMailbox,
	"limit":       (*dialog).doLimit,
}

func (d *dialog) doConnect(s dialogStep) error {
	var from net.IP
	if len(s.words) == 3 && s.words[1] == "from" {
		from = net.ParseIP(s.words[2])
	}
	if len(s.words) > 1 && from == nil {
		return errors.New("@connect, or @connect from ADDRESS")
	}
	_, err := d.connect(s.conn, false, from)
	return err
}

func (d *dialog) doTLS(s dialogStep) error {
	_, err := d.connect(s.conn, true, nil)
	return err
}

func (d *dialog) doSTARTTLS(s dialogStep) error {
	c, err := d.conn(s.conn, true)
	if err != nil {
		return err
	}
	if err := c.does("STARTTLS"); err != nil {
		return err
	}
	conn := tls.Client(&reread{Conn: c.conn, r: c.r}, insecureTLS())
	c.use(conn, conn)
	return nil
}

// reread reads what was read ahead.
type reread struct {
	net.Conn
	r *bytesAhead
}

func (r *reread) Read(p []byte) (int, error) {
	for {
		r.r.mu.Lock()
		n, err := copy(p, r.r.buf), r.r.err
		r.r.buf = r.r.buf[n:]
		r.r.mu.Unlock()
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-r.r.more:
		case <-r.r.ended:
		}
	}
}

func (d *dialog) doLogin(s dialogStep) error {
	who := "alice"
	if len(s.words) > 1 {
		who = s.words[1]
	}
	c, err := d.conn(s.conn, true)
	if err != nil {
		return err
	}
	c.loggedIn = true
	return c.does("LOGIN " + who + "@example.test " + dialogPassword)
}

// doSelect selects a mailbox, after LOGIN as alice where nobody is logged in.
func (d *dialog) doSelect(s dialogStep) error {
	if c := d.conns[s.conn]; c == nil || !c.loggedIn {
		if err := d.doLogin(dialogStep{conn: s.conn, words: []string{"login"}}); err != nil {
			return err
		}
	}
	if len(s.words) < 2 {
		return errors.New("@select MAILBOX, and perhaps parameters in parentheses")
	}
	return d.conns[s.conn].does(fmt.Sprintf(`SELECT "%s" %s`, s.words[1], strings.Join(s.words[2:], " ")))
}

// doOK sends a command; its untagged answers do not matter.
func (d *dialog) doOK(s dialogStep) error {
	c, err := d.conn(s.conn, true)
	if err != nil {
		return err
	}
	command, err := d.expand(s.raw)
	if err != nil {
		return err
	}
	return c.does(command)
}

// doCompress makes the connection compressed (RFC 4978).
func (d *dialog) doCompress(s dialogStep) error {
	c, err := d.conn(s.conn, true)
	if err != nil {
		return err
	}
	if err := c.does("COMPRESS DEFLATE"); err != nil {
		return err
	}
	w, err := flate.NewWriter(c.conn, flate.DefaultCompression)
	if err != nil {
		return err
	}
	c.r = newBytesAhead(flate.NewReader(&reread{Conn: c.conn, r: c.r}))
	c.w = flushed{w}
	return nil
}

// flushed sends each write at once.
type flushed struct{ *flate.Writer }

func (f flushed) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	return n, errors.Join(err, f.Flush())
}

func (d *dialog) doClose(s dialogStep) error {
	c, err := d.conn(s.conn, true)
	if err != nil {
		return err
	}
	c.hangUp()
	delete(d.conns, s.conn)
	return nil
}

// doClosed expects that the server has closed the connection and said nothing more.
func (d *dialog) doClosed(s dialogStep) error {
	c, err := d.conn(s.conn, true)
	if err != nil {
		return err
	}
	line, err := c.r.take(func(b []byte) int { return len(b) })
	switch {
	case err == nil:
		return fmt.Errorf("the connection is not at its end; this comes: %s", shown(line))
	case errors.Is(err, errSilence):
		return errors.New("the connection goes on")
	}
	c.hangUp()
	delete(d.conns, s.conn)
	return nil
}

func (d *dialog) doAfter(s dialogStep) error {
	if len(s.words) != 2 {
		return errors.New("@after DURATION")
	}
	span, err := time.ParseDuration(s.words[1])
	time.Sleep(span)
	synctest.Wait()
	return err
}

// who takes an account's name off the front of arguments; alice is meant when there is none.
func (d *dialog) who(words []string) (string, []string) {
	if len(words) > 0 && d.house.owners[words[0]] != 0 {
		return words[0], words[1:]
	}
	return "alice", words
}

// doDeliver delivers a message: @deliver [WHO] [MAILBOX] [(FLAGS)] [FILE], or the lines that follow.
func (d *dialog) doDeliver(s dialogStep) error {
	who, words := d.who(s.words[1:])
	name, flags, msg := "INBOX", []string(nil), strings.Join(s.block, "\r\n")+"\r\n"
	for i, w := range words {
		switch {
		case strings.HasPrefix(w, "("):
			flags = strings.Fields(strings.Trim(w, "()"))
		case strings.HasSuffix(w, ".eml"):
			b, err := os.ReadFile(filepath.Join(d.c.dir, w))
			if err != nil {
				return err
			}
			msg = string(b)
		case i == 0:
			name = w
		default:
			return fmt.Errorf("@deliver: what is %s?", w)
		}
	}
	msg, err := d.expand(msg)
	if err != nil {
		return err
	}
	return d.deliver(who, name, msg, time.Now(), flags)
}

// dialogMessage is the n-th message of @messages.
func dialogMessage(n int) string {
	date := time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Hour)
	return fmt.Sprintf("From: Sender %[1]d <sender%[1]d@example.test>\r\nTo: alice@example.test\r\nSubject: message %[1]d\r\n"+
		"Date: %[2]s\r\nMessage-ID: <%[1]d@example.test>\r\n\r\nText %[1]d.\r\n", n, date.Format("Mon, 2 Jan 2006 15:04:05 -0700"))
}

// doMessages delivers small messages that are always the same: @messages [WHO] MAILBOX COUNT.
func (d *dialog) doMessages(s dialogStep) error {
	who, words := d.who(s.words[1:])
	if len(words) != 2 {
		return errors.New("@messages [WHO] MAILBOX COUNT")
	}
	count, err := strconv.Atoi(words[1])
	for n := 1; n <= count && err == nil; n++ {
		internal := time.Date(2026, 2, 1, 8, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Hour)
		err = d.deliver(who, words[0], dialogMessage(n), internal, nil)
	}
	return err
}

// doMailbox creates a mailbox: @mailbox [WHO] NAME.
func (d *dialog) doMailbox(s dialogStep) error {
	who, words := d.who(s.words[1:])
	if len(words) != 1 {
		return errors.New("@mailbox [WHO] NAME")
	}
	_, err := d.config.Mailboxes.Create(d.house.owners[who], words[0], "")
	return err
}

// doLimit sets a limit of the server, before the first connection: @limit NAME VALUE.
func (d *dialog) doLimit(s dialogStep) error {
	if len(s.words) != 3 || d.listening != nil {
		return errors.New("@limit NAME VALUE, before the first connection")
	}
	l, text := &d.config.Limits, s.words[2]
	n, err := strconv.ParseInt(text, 10, 64)
	switch s.words[1] {
	case "MessageSize":
		l.MessageSize = n
	case "Connections":
		l.Connections = int(n)
	case "PerAddress":
		l.PerAddress = int(n)
	case "FailedLogins":
		l.FailedLogins = int(n)
	case "Messages":
		l.Messages = int(n)
	case "BadCommands":
		l.BadCommands = int(n)
	default:
		return fmt.Errorf("@limit: %s is not known", s.words[1])
	}
	return err
}
