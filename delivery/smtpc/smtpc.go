// Package smtpc speaks SMTP to another server: one connection, any number of
// transactions, one goroutine. What the other side says is bounded in memory and
// time and fit for logs; what is sent has no bare CR or LF, whatever the message holds.
//
// What a server cannot take is refused here, in its place, with a 5yz reply (see needs): a message that is too large, addresses
// or headers in UTF-8 without SMTPUTF8, octets without BINARYMIME, what must go by TLS only without REQUIRETLS. A message is
// not rewritten here.
package smtpc

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"postroad/internal/envelope"
)

// Timeouts bound each step of a conversation. Zero fields have the values of
// RFC 5321, 4.5.3.2.
type Timeouts struct {
	Greeting  time.Duration // the first reply, and the TLS handshake: 5 minutes
	Command   time.Duration // EHLO, AUTH, MAIL, RCPT, RSET: 5 minutes
	Data      time.Duration // the reply to DATA: 2 minutes
	Block     time.Duration // one block of the message to be taken: 3 minutes
	Final     time.Duration // the reply to the final dot: 10 minutes
	Quit      time.Duration // QUIT is a courtesy: 5 seconds
	LeastRate int64         // octets a second that the other side takes at least; 1,024
}

// WithDefaults returns t with its zero fields set.
func (t Timeouts) WithDefaults() Timeouts {
	return Timeouts{
		Greeting:  cmp.Or(t.Greeting, 5*time.Minute),
		Command:   cmp.Or(t.Command, 5*time.Minute),
		Data:      cmp.Or(t.Data, 2*time.Minute),
		Block:     cmp.Or(t.Block, 3*time.Minute),
		Final:     cmp.Or(t.Final, 10*time.Minute),
		Quit:      cmp.Or(t.Quit, 5*time.Second),
		LeastRate: cmp.Or(t.LeastRate, 1024),
	}
}

// Options are Open's settings.
type Options struct {
	Hostname string // our name, for EHLO
	LMTP     bool   // LMTP is spoken (RFC 2033): each recipient has a reply of its own to the message

	TLS    TLS
	Config *tls.Config // nil is the system's roots; what concerns policy is set here
	// Verify decides whether the server's certificate is good; nil asks the roots in Config for the host's name.
	// Opportunistic and Encrypted ask too, and go on whatever the answer: Conn.Verified has it.
	Verify     func(tls.ConnectionState) error
	Shown      func(tls.ConnectionState) // told what the server shows in a handshake, before it is judged; nil is nobody
	ServerName string                    // sent in the TLS handshake, and held against the certificate; empty is the host

	Username, Password string // to log in with; empty for none

	Timeouts Timeouts
	Now      func() time.Time // nil is time.Now

	Record *Transcript // where what is said is written down; nil is nowhere
}

// Error is why a connection cannot be used: a reply that refuses it, or no reply at all.
type Error struct {
	Phase string         // "greeting", "EHLO", "STARTTLS", "AUTH", "RSET"
	Reply envelope.Reply // Code is 0 when there was none
	Err   error          // what broke; nil after a reply
}

func (e *Error) Error() string { return e.Phase + ": " + e.Reply.String() }
func (e *Error) Unwrap() error { return e.Err }

// Conn is a connection that is ready for transactions. One goroutine.
type Conn struct {
	opts Options
	host string
	name string // host and address, for replies

	nc  net.Conn
	r   *bufio.Reader
	w   *bufio.Writer
	end func() bool // stops the watch over the context

	copied []byte // a piece of the message on its way; nil before the first

	greeted  string // the name that the server gave itself
	ext      map[string]string
	tls      string // version and cipher suite
	verified error  // why the certificate is not good
	record   *Transcript
	broken   bool
	dirty    bool      // a RSET is due before the next transaction
	mails    int64     // MAIL commands so far
	talk     time.Time // when all that is said now must be over; zero: a step has its own time alone
	loggedIn bool
	secret   bool // what is said must not be recorded
}

// Open takes over nc, a fresh connection to host: greeting, EHLO, STARTTLS, AUTH.
// When ctx is done the connection is closed, also later. An error is an *Error, and
// nc is closed.
func Open(ctx context.Context, nc net.Conn, host string, o Options) (*Conn, error) {
	o.Timeouts = o.Timeouts.WithDefaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Conn{opts: o, host: host, name: peerName(host, nc), verified: errClear, record: o.Record}
	c.use(nc)
	c.record.Note("connected to " + c.name)
	c.end = context.AfterFunc(ctx, func() { nc.Close() })
	if err := c.start(ctx); err != nil {
		c.drop()
		return nil, err
	}
	return c, nil
}

func peerName(host string, nc net.Conn) string {
	addr := nc.RemoteAddr().String()
	if nc.RemoteAddr().Network() == "unix" {
		return host
	}
	if ip, _, err := net.SplitHostPort(addr); err == nil {
		addr = ip
	}
	return host + " (" + addr + ")"
}

func (c *Conn) use(nc net.Conn) {
	c.nc = nc
	c.r = bufio.NewReaderSize(nc, 4<<10)
	c.w = bufio.NewWriterSize(nc, 16<<10)
}

func (c *Conn) start(ctx context.Context) error {
	c.mayTalk()
	defer c.talked()
	if c.opts.TLS == Implicit {
		if err := c.handshake(ctx); err != nil {
			return err
		}
	}
	if err := c.greeting(); err != nil {
		return err
	}
	if err := c.hello(); err != nil {
		return err
	}
	if err := c.secure(ctx); err != nil {
		return err
	}
	return c.login()
}

// Broken reports whether the connection is of no more use: it broke, or the server takes no more messages on it (RFC 9422, 4.1).
func (c *Conn) Broken() bool {
	most := c.limit("MAILMAX")
	return c.broken || most > 0 && c.mails >= most
}

// reset ends what is left of a transaction at the server.
func (c *Conn) reset() error {
	_, reply, err := c.ask("RSET")
	if err != nil || reply.Code != 250 {
		c.broken = true
		return c.fault("RSET", reply, err)
	}
	c.dirty = false
	return nil
}

// Close says QUIT where that makes sense, and closes the connection.
func (c *Conn) Close() {
	if !c.broken {
		c.deadline(c.opts.Timeouts.Quit)
		if c.say("QUIT") == nil && c.w.Flush() == nil {
			c.read(c.opts.Timeouts.Quit)
		}
	}
	c.drop()
}

func (c *Conn) drop() {
	c.broken = true
	c.end()
	c.nc.Close()
}

// ask sends one command and reads its reply.
func (c *Conn) ask(command string) ([]string, envelope.Reply, error) {
	c.deadline(c.opts.Timeouts.Command)
	if err := c.say(command); err != nil {
		return nil, c.silence(err), err
	}
	return c.readLines(c.opts.Timeouts.Command)
}

func (c *Conn) say(command string) error {
	c.record.note(">", c.shown(command))
	if _, err := c.w.WriteString(command + "\r\n"); err != nil {
		c.broken = true
		return err
	}
	return nil
}

// shown is a command without what is secret in it.
func (c *Conn) shown(command string) string {
	if !c.secret {
		return command
	}
	verb, rest, _ := strings.Cut(command, " ")
	if mechanism, _, _ := strings.Cut(rest, " "); verb == "AUTH" {
		return "AUTH " + mechanism + " ***"
	}
	return "***"
}

// Record writes what is said from now on into t; nil is nowhere.
func (c *Conn) Record(t *Transcript) {
	c.record = t
	t.Note("connected to " + c.name + " since before")
}

func (c *Conn) read(timeout time.Duration) (envelope.Reply, error) {
	_, reply, err := c.readLines(timeout)
	return reply, err
}

// readLines sends what is still to be sent and reads one reply. With an error, the
// reply says in words what happened.
func (c *Conn) readLines(timeout time.Duration) ([]string, envelope.Reply, error) {
	c.deadline(timeout)
	var err error
	var lines []string
	var reply envelope.Reply
	if c.w.Buffered() > 0 {
		if err = c.unasked(); err == nil {
			err = c.w.Flush()
		}
	}
	if err == nil {
		lines, reply, err = readReply(c.r)
	}
	if err != nil {
		c.broken = true
		c.record.Note(explain(err))
		return nil, c.silence(err), err
	}
	c.heard(reply.Code, lines)
	if reply.Code == 421 { // RFC 5321, 3.8: the server closes the connection
		c.broken = true
	}
	reply.From, reply.At = c.name, c.opts.Now()
	return lines, reply, nil
}

// heard records a reply.
func (c *Conn) heard(code int, lines []string) {
	if c.record == nil {
		return
	}
	for i, line := range lines {
		if c.secret && code == 334 {
			line = "***"
		}
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		c.record.note("<", strconv.Itoa(code)+sep+line)
	}
}

// unasked returns an error when there is a reply to something that we are only about
// to send. From there on each reply would be taken for that to the next question, and
// a message for accepted that was not.
func (c *Conn) unasked() error {
	if c.r.Buffered() > 0 {
		return errors.New("the server answers before it is asked")
	}
	return nil
}

// talkTime is how long all commands together may take: until a transaction may begin, and in each until its message leaves.
// Who takes his time for each of a hundred replies would have us for a day otherwise.
const talkTime = 30 * time.Minute

// mayTalk bounds all that is said from now until talked.
func (c *Conn) mayTalk() { c.talk = time.Now().Add(max(talkTime, c.opts.Timeouts.Command)) }

func (c *Conn) talked() { c.talk = time.Time{} }

// deadline bounds the time of what comes next. It runs on the machine's clock, as
// sockets do, not on Now.
func (c *Conn) deadline(d time.Duration) {
	end := time.Now().Add(d)
	if !c.talk.IsZero() && c.talk.Before(end) {
		end = c.talk
	}
	c.nc.SetDeadline(end)
}

// silence is what stands where the other side said nothing.
func (c *Conn) silence(err error) envelope.Reply {
	return envelope.Reply{Text: envelope.Sanitize(explain(err), maxText), From: c.name, At: c.opts.Now()}
}

func (c *Conn) fault(phase string, reply envelope.Reply, err error) error {
	if reply.Code == 0 && err != nil {
		reply = c.silence(err)
	}
	return &Error{Phase: phase, Reply: reply, Err: err}
}
