package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	smtpBuffer    = 16 << 10 // a 4k message leaves in one write
	maxReplyLines = 100
)

// A smtpConn is one SMTP or LMTP session, ready for transactions.
type smtpConn struct {
	*wire
	pipelining bool // announced
	starttls   bool
}

// A refusal is a reply other than the one hoped for.
type refusal struct {
	stage string // the command, or DATA's end
	code  int
	text  string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%s was answered %d %s", r.stage, r.code, r.text)
}

// Stages of a session, as errors name them.
const (
	stageConnect = "connect"
	stageHello   = "EHLO"
	stageTLS     = "STARTTLS"
	stageAuth    = "AUTH"
	stageMail    = "MAIL"
	stageRcpt    = "RCPT"
	stageData    = "DATA"
	stageEnd     = "final dot"
	stageReset   = "RSET"
)

// dialSMTP opens a session: greeting, hello, TLS, hello again, AUTH.
func dialSMTP(ctx context.Context, t *Target, lmtp bool, hello string) (*smtpConn, error) {
	w, err := dial(ctx, t, smtpBuffer)
	if err != nil {
		return nil, err
	}
	c := &smtpConn{wire: w}
	if err := c.open(ctx, lmtp, hello); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *smtpConn) open(ctx context.Context, lmtp bool, hello string) error {
	verb := "EHLO "
	if lmtp {
		verb = "LHLO "
	}
	if err := c.expect(stageConnect, 220); err != nil {
		return err
	}
	if err := c.hello(verb + hello); err != nil {
		return err
	}
	if c.target.TLS == STARTTLS {
		if err := c.upgrade(ctx, verb+hello); err != nil {
			return err
		}
	}
	if c.target.User == "" {
		return nil
	}
	return c.auth()
}

func (c *smtpConn) upgrade(ctx context.Context, hello string) error {
	if !c.starttls {
		return fmt.Errorf("%s does not offer STARTTLS", c.target.Addr)
	}
	if err := c.ask(stageTLS, 220, "STARTTLS"); err != nil {
		return err
	}
	if err := c.startTLS(ctx); err != nil {
		return err
	}
	return c.hello(hello)
}

// hello sends line and notes which extensions are announced.
func (c *smtpConn) hello(line string) error {
	c.pipelining, c.starttls = false, false
	c.line(line)
	return c.replies(stageHello, 250, func(text []byte) {
		word, _, _ := strings.Cut(strings.ToUpper(string(text)), " ")
		c.pipelining = c.pipelining || word == "PIPELINING"
		c.starttls = c.starttls || word == "STARTTLS"
	})
}

func (c *smtpConn) auth() error {
	secret := "\x00" + c.target.User + "\x00" + c.target.Password
	return c.ask(stageAuth, 235, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte(secret)))
}

// line puts a command into the write buffer.
func (c *smtpConn) line(parts ...string) {
	for _, p := range parts {
		c.w.WriteString(p)
	}
	c.w.WriteString("\r\n")
}

func (c *smtpConn) ask(stage string, code int, parts ...string) error {
	c.line(parts...)
	return c.expect(stage, code)
}

// expect sends what is buffered and reads one reply. Another code than the
// wanted one is a *refusal; the session can go on after it.
func (c *smtpConn) expect(stage string, code int) error { return c.replies(stage, code, nil) }

func (c *smtpConn) replies(stage string, want int, each func(text []byte)) error {
	if err := c.w.Flush(); err != nil {
		return fmt.Errorf("%s: %w", stage, err)
	}
	code, text, err := c.reply(each)
	if err != nil {
		return fmt.Errorf("%s: %w", stage, err)
	}
	if code != want {
		return &refusal{stage, code, string(text)}
	}
	return nil
}

// reply reads a reply of any number of lines and returns its code and last line;
// the text is valid until the next read.
func (c *smtpConn) reply(each func(text []byte)) (code int, text []byte, err error) {
	for range maxReplyLines {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, nil, readError(err)
		}
		line = bytes.TrimRight(line, "\r\n")
		code, more, text, err := splitReply(line)
		if err != nil {
			return 0, nil, err
		}
		if each != nil {
			each(text)
		}
		if !more {
			return code, text, nil
		}
	}
	return 0, nil, fmt.Errorf("the server's reply has more than %d lines", maxReplyLines)
}

// splitReply takes a reply line apart (RFC 5321 section 4.2).
func splitReply(line []byte) (code int, more bool, text []byte, err error) {
	if len(line) < 3 {
		return 0, false, nil, fmt.Errorf("the server's reply %q has no code", line)
	}
	for _, d := range line[:3] {
		if d < '0' || d > '9' {
			return 0, false, nil, fmt.Errorf("the server's reply %q has no code", line)
		}
		code = code*10 + int(d-'0')
	}
	if len(line) == 3 {
		return code, false, nil, nil
	}
	return code, line[3] == '-', line[4:], nil
}

func readError(err error) error {
	if errors.Is(err, bufio.ErrBufferFull) {
		return errLongLine
	}
	return err
}

// quit says goodbye without waiting for the answer.
func (c *smtpConn) quit() {
	c.line("QUIT")
	c.w.Flush()
	c.close()
}

// errorKey is what equal errors have in common: stage and code, or the words.
func errorKey(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.stage + " " + strconv.Itoa(r.code)
	}
	return "connection"
}
