package smtpc

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// content sends the message, with the final dot behind it, and settles by the reply.
func (t *transaction) content() {
	c := t.c
	c.talked()
	if err := c.unasked(); err != nil {
		t.interrupted(err)
		return
	}
	limit := t.limit()
	dots := &lineWriter{w: c.w, dots: true, before: func() error { return c.block(limit) }}
	if err := t.copy(dots); err != nil {
		t.interrupted(err)
		return
	}
	t.final()
}

// copy sends the body and the final dot. The dot is not sent when the body cannot
// be read to its end: a part of a message must not be taken for the whole.
func (t *transaction) copy(dots *lineWriter) error {
	body := &watched{r: t.m.Body}
	if t.c.copied == nil {
		t.c.copied = make([]byte, 8<<10)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{dots}, body, t.c.copied); err != nil {
		return t.unread(body, err)
	}
	t.c.record.note(">", fmt.Sprintf("(%d octets)", body.n))
	if err := t.before(); err != nil {
		return err
	}
	return dots.Close()
}

// maxChunk is the size of the pieces in which a message is sent by BDAT, and of the memory that it takes meanwhile.
const maxChunk = 64 << 10

// chunks sends the message with BDAT (RFC 3030, 2) and settles by the replies. No chunk is sent before somebody was accepted, and
// nothing more is said after one was refused: a server that does not read what it refuses would take the message for
// commands. The last chunk is not sent before all others were taken: an old reply must not be taken for the last one.
func (t *transaction) chunks() {
	t.c.talked()
	body := &watched{r: t.m.Body}
	piece := make([]byte, min(max(t.m.Size, 0)+1, maxChunk))
	limit := t.limit()
	for waiting := 0; ; waiting++ {
		n, err := io.ReadFull(body, piece)
		last := body.err == nil && (err == io.EOF || err == io.ErrUnexpectedEOF)
		if err != nil && !last {
			t.interrupted(t.unread(body, err))
			return
		}
		if keep := t.ahead(last); waiting > keep {
			if !t.taken(waiting - keep) {
				return
			}
			waiting = keep
		}
		if err := t.chunk(piece[:n], last, limit); err != nil {
			t.interrupted(err)
			return
		}
		if last {
			t.final()
			t.c.broken = t.c.broken || t.replies[t.accepted[0]].Code/100 != 2
			return
		}
	}
}

// ahead is how many replies may be missing when another chunk is sent.
func (t *transaction) ahead(last bool) int {
	if last || !t.c.Offers("PIPELINING") {
		return 0
	}
	return 1
}

// taken reads the replies to n chunks, and reports whether the server goes on. If not, all are settled.
func (t *transaction) taken(n int) bool {
	for range n {
		if reply := t.expect(t.c.opts.Timeouts.Block); reply.Code/100 != 2 {
			t.refused(reply)
			t.c.broken = true
			return false
		}
	}
	return !t.c.broken
}

// chunk sends one chunk.
func (t *transaction) chunk(b []byte, last bool, limit time.Time) error {
	c := t.c
	command := fmt.Sprintf("BDAT %d", len(b))
	if last {
		if err := errors.Join(c.unasked(), t.before()); err != nil {
			return err
		}
		command += " LAST"
	}
	if err := c.block(limit); err != nil {
		return err
	}
	c.say(command)
	c.w.Write(b)
	return c.w.Flush()
}

// limit is when the message must have been taken in whole.
func (t *transaction) limit() time.Time {
	least := time.Duration(t.m.Size/t.c.opts.Timeouts.LeastRate) * time.Second
	return time.Now().Add(t.c.opts.Timeouts.Final + least)
}

// before calls Message.Before.
func (t *transaction) before() error {
	if t.m.Before == nil {
		return nil
	}
	t.stopped = t.m.Before()
	return t.stopped
}

// unread tells an error of the body from one of the connection.
func (t *transaction) unread(body *watched, err error) error {
	if t.bodyErr = body.err; t.bodyErr != nil {
		return fmt.Errorf("the message cannot be read: %w", t.bodyErr)
	}
	return err
}

// interrupted settles a message that was not sent to its end. A server that refuses
// it halfway may have said why before it closed the connection.
func (t *transaction) interrupted(err error) {
	c := t.c
	c.broken = true
	if t.bodyErr == nil && t.stopped == nil {
		c.deadline(c.opts.Timeouts.Quit)
		if lines, reply, err := readReply(c.r); err == nil && reply.Code >= 400 {
			c.heard(reply.Code, lines)
			reply.From, reply.At = c.name, c.opts.Now()
			t.settle(reply)
		}
	}
	t.settle(c.silence(err))
}

// final settles by what the server says to the whole message: one reply for all whom it took or, in LMTP, one for each
// in the order of their RCPT (RFC 2033, 4.2).
func (t *transaction) final() {
	c := t.c
	if !c.opts.LMTP {
		t.judged(t.open(), t.expect(c.opts.Timeouts.Final))
		return
	}
	for _, i := range t.accepted {
		t.own[i] = true
		t.judged([]int{i}, t.expect(c.opts.Timeouts.Final))
	}
}
