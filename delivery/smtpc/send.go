package smtpc

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"postroad/internal/envelope"
)

// Message is what one transaction sends.
type Message struct {
	Envelope   envelope.Envelope
	Recipients []envelope.Recipient // at most 100: more than that a server need not take
	Size       int64                // octets of Body
	Body       io.Reader            // read once, to its end
	UTF8       bool                 // the header has UTF-8 in it
	Binary     bool                 // Body is not made of lines: it needs BINARYMIME and CHUNKING (RFC 3030)

	// Before is called once when a recipient was accepted, before the last octets of the message leave: no server can
	// have the message before it. Its error ends the connection with nothing delivered. It may be nil.
	Before func() error
}

// Result is what became of a transaction.
type Result struct {
	// Replies has one for each recipient: 2yz is the other side's word that it has
	// the message; a Code of 0 says in words why there was no reply.
	Replies []envelope.Reply
	// Own tells of which recipients the reply was to nothing but themselves: to RCPT or, in LMTP, to the whole message.
	Own []bool
	// Doubtful means that the whole message was sent and the reply to it is missing:
	// recipients without a code may have it.
	Doubtful bool
	// BodyErr is Body's error; nothing was delivered then.
	BodyErr error
	// Stopped is Before's error; nothing was delivered then.
	Stopped error
}

// Send runs one transaction. Afterwards Broken tells whether another may follow.
func (c *Conn) Send(m Message) Result {
	t := transaction{c: c, m: m, replies: make([]envelope.Reply, len(m.Recipients)), own: make([]bool, len(m.Recipients))}
	if c.dirty {
		if err := c.Reset(); err != nil {
			t.settle(err.(*Error).Reply)
			return t.result()
		}
	}
	c.dirty = true
	if t.refuse(); len(t.open()) == 0 {
		return t.result()
	}
	if c.Offers("PIPELINING") {
		t.pipelined()
	} else {
		t.stepwise()
	}
	return t.result()
}

// transaction is one MAIL, RCPT, DATA. A recipient whose reply has no Code and no
// Text is open.
type transaction struct {
	c        *Conn
	m        Message
	replies  []envelope.Reply
	own      []bool
	asked    []int          // recipients for which RCPT is sent
	goodbye  envelope.Reply // a 421: what the server said before it closed the connection
	accepted []int          // those whom the server took
	doubtful bool
	bodyErr  error
	stopped  error
}

func (t *transaction) result() Result {
	return Result{Replies: t.replies, Own: t.own, Doubtful: t.doubtful, BodyErr: t.bodyErr, Stopped: t.stopped}
}

func (t *transaction) open() []int {
	var open []int
	for i, r := range t.replies {
		if r.Code == 0 && r.Text == "" {
			open = append(open, i)
		}
	}
	return open
}

// settle gives all open recipients the same reply.
func (t *transaction) settle(r envelope.Reply) {
	for _, i := range t.open() {
		t.replies[i] = r
	}
}

// refuse settles what this server cannot take.
func (t *transaction) refuse() {
	utf8, m := t.c.Offers("SMTPUTF8"), t.m
	if m.Binary {
		t.settle(t.ours("5.6.3", "a binary message cannot be sent to "+t.c.name))
	}
	if m.Envelope.RequireTLS && !t.c.Offers("REQUIRETLS") {
		t.settle(t.ours("5.7.30", t.c.name+" does not promise to use TLS only (REQUIRETLS)"))
	}
	if _, ascii := m.Envelope.From.ASCII(); !utf8 && (!ascii || m.UTF8) {
		t.settle(t.ours("5.6.7", t.c.name+" does not take UTF-8 in addresses and headers (SMTPUTF8)"))
	}
	for _, i := range t.open() {
		if _, ascii := m.Recipients[i].To.ASCII(); !utf8 && !ascii {
			t.replies[i] = t.ours("5.6.7", t.c.name+" does not take addresses in UTF-8 (SMTPUTF8)")
		}
	}
	t.asked = t.open()
}

// ours is a reply that we give in the server's place.
func (t *transaction) ours(status, text string) envelope.Reply {
	return envelope.Reply{Code: 550, Enhanced: status, Text: text, At: t.c.opts.Now()}
}

// pipelined sends the commands as one group (RFC 2920) and then reads their replies.
func (t *transaction) pipelined() {
	c := t.c
	c.deadline(c.opts.Timeouts.Command)
	c.say(t.mail())
	for _, i := range t.asked {
		c.say(t.rcpt(i))
	}
	c.say("DATA")
	if mail := t.expect(c.opts.Timeouts.Command); mail.Code/100 != 2 {
		t.refused(mail)
	}
	for _, i := range t.asked {
		t.took(i, t.expect(c.opts.Timeouts.Command))
	}
	data := t.expect(c.opts.Timeouts.Data)
	switch {
	case c.broken: // a reply was missing or out of turn: no more is said
		t.lost()
	case data.Code == 354 && len(t.accepted) > 0:
		t.content()
	case data.Code == 354: // nobody is left: an empty message ends the transaction (RFC 2920, 3.1)
		c.say(".")
		t.expect(c.opts.Timeouts.Final)
	default:
		t.refused(data)
	}
}

// stepwise waits for each reply before the next command.
func (t *transaction) stepwise() {
	c := t.c
	c.say(t.mail())
	if mail := t.expect(c.opts.Timeouts.Command); mail.Code/100 != 2 {
		t.refused(mail)
		return
	}
	for _, i := range t.asked {
		c.say(t.rcpt(i))
		t.took(i, t.expect(c.opts.Timeouts.Command))
	}
	if len(t.accepted) == 0 || c.broken {
		return
	}
	c.say("DATA")
	if data := t.expect(c.opts.Timeouts.Data); data.Code == 354 {
		t.content()
	} else {
		t.refused(data)
	}
}

// expect reads a reply; when the connection is broken, words in its place.
func (t *transaction) expect(timeout time.Duration) envelope.Reply {
	if t.c.broken && t.c.r.Buffered() == 0 {
		return t.lost()
	}
	reply, err := t.c.read(timeout)
	if err != nil {
		t.settle(reply)
	}
	if reply.Code == 421 {
		t.goodbye = reply
	}
	return reply
}

// lost settles what is open when the connection is gone.
func (t *transaction) lost() envelope.Reply {
	r := t.goodbye
	if r.Code == 0 {
		r = t.c.silence(errors.New("the connection ended"))
	}
	t.settle(r)
	return r
}

// took settles one recipient by the reply to its RCPT, unless that is good or
// the recipient is settled already.
func (t *transaction) took(i int, rcpt envelope.Reply) {
	switch {
	case t.replies[i].Code != 0 || t.replies[i].Text != "":
		// MAIL was refused. A server that takes recipients all the same would take an empty message for theirs.
		t.c.broken = t.c.broken || rcpt.Code/100 == 2
	case rcpt.Code/100 != 2:
		t.replies[i], t.own[i] = t.refusal(rcpt), true
	default:
		t.accepted = append(t.accepted, i)
	}
}

// refused settles all open recipients by a reply that is not the one that was hoped for.
func (t *transaction) refused(r envelope.Reply) { t.settle(t.refusal(r)) }

// refusal keeps a good code in the wrong place from being taken for acceptance.
func (t *transaction) refusal(r envelope.Reply) envelope.Reply {
	if r.Code >= 200 && r.Code < 400 {
		t.c.broken = true
		return envelope.Reply{Text: "the server answered out of turn: " + r.String(), From: r.From, At: r.At}
	}
	return r
}

// content sends the message and its final dot, and settles by the reply.
func (t *transaction) content() {
	c := t.c
	if err := c.unasked(); err != nil {
		t.interrupted(err)
		return
	}
	limit := time.Now().Add(c.opts.Timeouts.Final + time.Duration(t.m.Size/c.opts.Timeouts.LeastRate)*time.Second)
	dots := &lineWriter{w: c.w, dots: true, before: func() error { return c.block(limit) }}
	if err := t.copy(dots); err != nil {
		t.interrupted(err)
		return
	}
	t.final()
}

// final settles by what the server says to the whole message: one reply for all whom it took or, in LMTP, one for each
// in the order of their RCPT (RFC 2033, 4.2).
func (t *transaction) final() {
	if !t.c.opts.LMTP {
		t.judged(t.open(), t.expect(t.c.opts.Timeouts.Final))
		return
	}
	for _, i := range t.accepted {
		t.own[i] = true
		t.judged([]int{i}, t.expect(t.c.opts.Timeouts.Final))
	}
}

// judged settles recipients by the reply to the whole message. Without one they may have it or not.
func (t *transaction) judged(recipients []int, reply envelope.Reply) {
	if reply.Code/100 != 2 {
		reply = t.refusal(reply)
	}
	t.doubtful = t.doubtful || reply.Code/100 != 2 && reply.Code/100 != 4 && reply.Code/100 != 5
	for _, i := range recipients {
		if t.replies[i].Code == 0 && t.replies[i].Text == "" {
			t.replies[i] = reply
		}
	}
}

// interrupted settles a message that was not sent to its end. A server that refuses
// it halfway may have said why before it closed the connection.
func (t *transaction) interrupted(err error) {
	c := t.c
	c.broken = true
	if t.bodyErr == nil && t.stopped == nil {
		c.deadline(c.opts.Timeouts.Quit)
		if _, reply, err := readReply(c.r); err == nil && reply.Code >= 400 {
			reply.From, reply.At = c.name, c.opts.Now()
			t.settle(reply)
		}
	}
	t.settle(c.silence(err))
}

// copy sends the body and the final dot. The dot is not sent when the body cannot
// be read to its end: a part of a message must not be taken for the whole.
func (t *transaction) copy(dots *lineWriter) error {
	body := &watched{r: t.m.Body}
	if _, err := io.Copy(dots, body); err != nil {
		if t.bodyErr = body.err; t.bodyErr != nil {
			return fmt.Errorf("the message cannot be read: %w", err)
		}
		return err
	}
	t.c.record.note(">", fmt.Sprintf("(%d octets)", body.n))
	if t.m.Before != nil {
		if t.stopped = t.m.Before(); t.stopped != nil {
			return t.stopped
		}
	}
	return dots.Close()
}

// block bounds the time of the next write, and of all of them together.
func (c *Conn) block(limit time.Time) error {
	now := time.Now()
	if now.After(limit) {
		return errors.New("the server takes the message too slowly")
	}
	return c.nc.SetDeadline(now.Add(c.opts.Timeouts.Block))
}

// watched remembers its reader's error.
type watched struct {
	r   io.Reader
	n   int64
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.n += int64(n)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// mail is the MAIL command with the parameters that the server understands.
func (t *transaction) mail() string {
	c, e := t.c, t.m.Envelope
	var b strings.Builder
	b.WriteString("MAIL FROM:" + t.address(e.From).Path())
	if c.Offers("SIZE") {
		fmt.Fprintf(&b, " SIZE=%d", t.m.Size)
	}
	if c.Offers("8BITMIME") && e.Body == envelope.Body8Bit {
		b.WriteString(" BODY=8BITMIME")
	}
	if t.utf8() {
		b.WriteString(" SMTPUTF8")
	}
	if e.RequireTLS {
		b.WriteString(" REQUIRETLS")
	}
	if c.Offers("DSN") && e.Return != "" {
		b.WriteString(" RET=" + string(e.Return))
	}
	if c.Offers("DSN") && e.ID != "" {
		b.WriteString(" ENVID=" + envelope.EncodeXtext(e.ID))
	}
	return b.String()
}

func (t *transaction) rcpt(i int) string {
	r := t.m.Recipients[i]
	s := "RCPT TO:" + t.address(r.To).Path()
	if t.c.Offers("DSN") && r.Notify != 0 {
		s += " NOTIFY=" + r.Notify.String()
	}
	if t.c.Offers("DSN") && r.Original != "" {
		s += " ORCPT=" + envelope.EncodeOriginal(r.Original)
	}
	return s
}

// utf8 reports whether the transaction asks for SMTPUTF8.
func (t *transaction) utf8() bool {
	if !t.c.Offers("SMTPUTF8") {
		return false
	}
	_, ascii := t.m.Envelope.From.ASCII()
	for _, i := range t.asked {
		_, ok := t.m.Recipients[i].To.ASCII()
		ascii = ascii && ok
	}
	return t.m.UTF8 || !ascii
}

// address is a as this transaction may write it.
func (t *transaction) address(a envelope.Address) envelope.Address {
	ascii, _ := a.ASCII()
	return ascii
}
