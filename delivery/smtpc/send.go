package smtpc

import (
	"errors"
	"io"
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
	// PutOff tells which recipients the server has not heard of: they were too many for one transaction.
	PutOff []bool
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
	t := transaction{c: c, m: m, replies: make([]envelope.Reply, len(m.Recipients)), own: make([]bool, len(m.Recipients)), putOff: make([]bool, len(m.Recipients))}
	if t.refuse(); len(t.asked) == 0 {
		return t.result()
	}
	c.mayTalk()
	defer c.talked()
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
	putOff   []bool
	asked    []int          // recipients for which RCPT is sent
	goodbye  envelope.Reply // a 421: what the server said before it closed the connection
	accepted []int          // those whom the server took
	doubtful bool
	bodyErr  error
	stopped  error
}

func (t *transaction) result() Result {
	return Result{Replies: t.replies, Own: t.own, PutOff: t.putOff, Doubtful: t.doubtful, BodyErr: t.bodyErr, Stopped: t.stopped}
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

// chunked reports whether the message goes by BDAT. What is made of lines goes by DATA: its 354 shows that the two sides are in
// step. Behind a server that has said one reply too many, the reply to RCPT would be taken for that to a message in BDAT.
func (t *transaction) chunked() bool { return t.m.Binary }

// pipelined sends the commands as one group (RFC 2920) and then reads their replies.
func (t *transaction) pipelined() {
	c := t.c
	c.deadline(c.opts.Timeouts.Command)
	reset := c.dirty
	if reset {
		c.say("RSET")
	}
	t.sayMail()
	for _, i := range t.asked {
		c.say(t.rcpt(i))
	}
	if !t.chunked() {
		c.say("DATA")
	}
	if reset && t.expect(c.opts.Timeouts.Command).Code != 250 {
		c.broken = true
	}
	if mail := t.expect(c.opts.Timeouts.Command); mail.Code/100 != 2 {
		t.refused(mail)
	}
	for _, i := range t.asked {
		t.took(i, t.expect(c.opts.Timeouts.Command))
	}
	if t.chunked() {
		t.send()
	} else {
		t.afterData(t.expect(c.opts.Timeouts.Data))
	}
}

// afterData acts on the reply to a DATA that was sent before it was known whether anybody is accepted.
func (t *transaction) afterData(data envelope.Reply) {
	c := t.c
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
	if c.dirty {
		if err := c.reset(); err != nil {
			t.settle(err.(*Error).Reply)
			return
		}
	}
	t.sayMail()
	if mail := t.expect(c.opts.Timeouts.Command); mail.Code/100 != 2 {
		t.refused(mail)
		return
	}
	for _, i := range t.asked {
		if c.say(t.rcpt(i)); c.broken {
			break
		}
		t.took(i, t.expect(c.opts.Timeouts.Command))
	}
	t.send()
}

// send sends the message to those who were accepted, if there are any.
func (t *transaction) send() {
	c := t.c
	switch {
	case c.broken:
		t.lost()
	case len(t.accepted) == 0:
	case t.chunked():
		t.chunks()
	default:
		c.say("DATA")
		if data := t.expect(c.opts.Timeouts.Data); data.Code == 354 {
			t.content()
		} else {
			t.refused(data)
		}
	}
}

// sayMail begins the transaction at the server.
func (t *transaction) sayMail() {
	t.c.dirty = true
	t.c.mails++
	t.c.say(t.mail())
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
		t.replies[i], t.own[i] = t.refusal(t.meant(rcpt)), true
	default:
		t.accepted = append(t.accepted, i)
	}
}

// meant is a reply to RCPT as it is to be taken: a server of old says 552 where the recipients are too many for it, which
// is what 452 stands for (RFC 5321, 4.5.3.1.10). Who is still told so as the first of a transaction is not one too many.
func (t *transaction) meant(rcpt envelope.Reply) envelope.Reply {
	if rcpt.Code == 552 && len(t.accepted) > 0 && (rcpt.Enhanced == "" || rcpt.Enhanced == "5.5.3") {
		rcpt.Code, rcpt.Enhanced = 452, "4.5.3"
	}
	return rcpt
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

// judged settles recipients by the reply to the whole message. Without one they may have it or not.
func (t *transaction) judged(recipients []int, reply envelope.Reply) {
	t.c.dirty = false // the server has forgotten the transaction (RFC 5321, 4.1.1.4)
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
