package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	retryConnect  = 100 * time.Millisecond
	maxConnectErr = 20 // in a row, then a sender gives up
)

// A sender is one connection of a closed loop, renewed when it breaks. Owned by
// one goroutine.
type sender struct {
	*sending
	tally tally
	conn  *smtpConn
	sent  int // messages on this connection
	scrap []byte
	taken []bool // by recipient of the current message: RCPT was accepted
}

// open connects unless a connection is open; a failure is counted.
func (s *sender) open(ctx context.Context) bool {
	if s.conn != nil {
		return true
	}
	c, err := dialSMTP(ctx, &s.o.Target, s.o.LMTP, s.o.Hello)
	if err != nil {
		s.note(ctx, err)
		return false
	}
	s.conn, s.sent = c, 0
	s.tally.conns++
	return true
}

// loop sends until there is nothing left to send, or no way to.
func (s *sender) loop(ctx context.Context) {
	defer s.leave()
	for {
		seq, more := s.take(ctx)
		if !more || !s.reopen(ctx) {
			return
		}
		s.message(ctx, seq)
	}
}

// reopen connects unless a connection is open, and tries that for a while.
func (s *sender) reopen(ctx context.Context) bool {
	for range maxConnectErr {
		if s.open(ctx) {
			return true
		}
		if s.enough() || !pause(ctx, retryConnect) {
			return false
		}
	}
	return false
}

// enough says whether the time for sending is over.
func (s *sender) enough() bool { return s.o.Duration > 0 && !time.Now().Before(s.until) }

func (s *sender) leave() {
	if s.conn != nil {
		s.conn.quit()
		s.conn = nil
	}
}

// message runs one transaction and counts how it went.
func (s *sender) message(ctx context.Context, seq int64) {
	err := s.transaction(ctx, seq)
	s.sent++
	switch {
	case err == nil:
		s.meter.done.Add(1)
	case ctx.Err() != nil:
		s.drop()
	case isRefusal(err):
		s.tally.refused++
		s.note(ctx, err)
		s.reset(ctx, err)
	default:
		s.tally.failed++
		s.note(ctx, err)
		s.drop()
	}
	if s.conn != nil && s.o.MessagesPerConn > 0 && s.sent >= s.o.MessagesPerConn {
		s.leave()
	}
}

// errNobody is a transaction whose recipients were all refused, which is counted
// already.
var errNobody = errors.New("no recipient was accepted")

// isRefusal says that the server answered no: the session can go on.
func isRefusal(err error) bool {
	_, ok := errors.AsType[*refusal](err)
	return ok || err == errNobody
}

// reset makes the session ready again after a refusal; 421 announces its end.
func (s *sender) reset(ctx context.Context, why error) {
	if r, ok := errors.AsType[*refusal](why); ok && r.code == 421 {
		s.drop()
		return
	}
	if err := s.conn.ask(stageReset, 250, "RSET"); err != nil {
		s.note(ctx, err)
		s.drop()
	}
}

func (s *sender) drop() {
	s.conn.close()
	s.conn = nil
}

// note counts an error, unless it is counted already or only says that the run
// was cancelled.
func (s *sender) note(ctx context.Context, err error) {
	if ctx.Err() != nil || err == errNobody {
		return
	}
	s.tally.errors.add(err)
	s.meter.errors.Add(1)
}

// transaction sends message seq. It succeeds when a recipient was accepted.
func (s *sender) transaction(ctx context.Context, seq int64) error {
	start := time.Now()
	envelope := s.envelope
	if s.o.Pipelining && s.conn.pipelining {
		envelope = s.envelopeAtOnce
	}
	if err := envelope(ctx, seq); err != nil {
		return err
	}
	size, dot, err := s.content(seq, start)
	if err != nil {
		return err
	}
	recipients, err := s.endReplies(ctx, seq)
	if err != nil {
		return err
	}
	now := time.Now()
	s.tally.ack.Add(now.Sub(dot))
	s.tally.transaction.Add(now.Sub(start))
	s.tally.accepted++
	s.tally.recipients += recipients
	s.tally.bytes += int64(size)
	return nil
}

// recipient is the index in o.To of the nth recipient of message seq.
func (s *sender) recipient(seq int64, nth int) int {
	n := int64(len(s.o.To))
	return int((seq%n*int64(s.o.RecipientsPerMessage) + int64(nth)) % n)
}

// envelope goes as far as 354, waiting for each reply.
func (s *sender) envelope(ctx context.Context, seq int64) error {
	if err := s.conn.ask(stageMail, 250, "MAIL FROM:<", s.from, ">"); err != nil {
		return err
	}
	s.taken = s.taken[:0]
	for n := range s.o.RecipientsPerMessage {
		s.conn.line("RCPT TO:<", s.o.To[s.recipient(seq, n)], ">")
		if err := s.rcptReply(ctx); err != nil {
			return err
		}
	}
	if !slices.Contains(s.taken, true) {
		return errNobody
	}
	return s.conn.ask(stageData, 354, "DATA")
}

// rcptReply notes whether the next recipient was accepted. A refused one does not
// end the transaction.
func (s *sender) rcptReply(ctx context.Context) error {
	err := s.conn.expect(stageRcpt, 250)
	if r, ok := errors.AsType[*refusal](err); ok && r.code == 251 {
		err = nil
	}
	s.taken = append(s.taken, err == nil)
	if isRefusal(err) {
		s.note(ctx, err)
		return nil
	}
	return err
}

// envelopeAtOnce is envelope with one write for all commands (RFC 2920).
func (s *sender) envelopeAtOnce(ctx context.Context, seq int64) error {
	s.conn.line("MAIL FROM:<", s.from, ">")
	for n := range s.o.RecipientsPerMessage {
		s.conn.line("RCPT TO:<", s.o.To[s.recipient(seq, n)], ">")
	}
	s.conn.line("DATA")
	mail := s.conn.expect(stageMail, 250)
	if mail != nil && !isRefusal(mail) {
		return mail
	}
	if err := s.rcptRepliesAfter(ctx, mail); err != nil {
		return err
	}
	data := s.conn.expect(stageData, 354)
	if data != nil && !isRefusal(data) {
		return data
	}
	return s.agree(mail, data)
}

// rcptRepliesAfter reads all replies to RCPT; after a refused MAIL they only
// repeat it.
func (s *sender) rcptRepliesAfter(ctx context.Context, mail error) error {
	s.taken = s.taken[:0]
	for range s.o.RecipientsPerMessage {
		if mail == nil {
			if err := s.rcptReply(ctx); err != nil {
				return err
			}
		} else if err := s.conn.expect(stageRcpt, 250); err != nil && !isRefusal(err) {
			return err
		}
	}
	return nil
}

// agree says whether the message may be sent after a pipelined envelope. A server
// that says 354 though it accepted nobody gets an empty message (RFC 2920
// section 3.1).
func (s *sender) agree(mail, data error) error {
	refused := mail
	if refused == nil && !slices.Contains(s.taken, true) {
		refused = errNobody
	}
	if refused == nil {
		return data
	}
	if data == nil {
		if err := s.conn.ask(stageEnd, 250, "."); err != nil && !isRefusal(err) {
			return err
		}
	}
	return refused
}

// content puts the message and its final dot on the wire, and says when the dot
// left: before the write, as the server may answer before it returns.
func (s *sender) content(seq int64, start time.Time) (size int, dot time.Time, err error) {
	d := draft{seq: seq, start: start, to: s.o.To[s.recipient(seq, 0)], subject: "bench message "}
	s.scrap = s.header(s.scrap[:0], &d)
	body := bodyLength(s.o.Sizes.of(seq), len(s.scrap))
	s.conn.w.Write(s.scrap)
	if err := s.writeBody(s.conn.w, seq, body); err != nil {
		return 0, dot, fmt.Errorf("%s: %w", stageData, err)
	}
	s.conn.line(".")
	dot = time.Now()
	if err := s.conn.w.Flush(); err != nil {
		return 0, dot, fmt.Errorf("%s: %w", stageData, err)
	}
	return len(s.scrap) + body, dot, nil
}

// endReplies reads what comes after the final dot: one reply, or with LMTP one for
// each recipient that was accepted (RFC 2033 section 4.2).
func (s *sender) endReplies(ctx context.Context, seq int64) (accepted int64, err error) {
	if !s.o.LMTP {
		if err := s.conn.expect(stageEnd, 250); err != nil {
			return 0, err
		}
	}
	for n, taken := range s.taken {
		if !taken {
			continue
		}
		if s.o.LMTP {
			if err := s.conn.expect(stageEnd, 250); isRefusal(err) {
				s.note(ctx, err)
				continue
			} else if err != nil {
				return accepted, err
			}
		}
		accepted++
		if s.delivered != nil {
			s.delivered(seq, s.recipient(seq, n))
		}
	}
	if accepted == 0 {
		return 0, errNobody
	}
	return accepted, nil
}
