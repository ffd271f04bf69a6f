package smtpd

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/gate"
	"postroad/internal/listen"
	"postroad/internal/store"
	"postroad/smtpd/wire"
	"postroad/spool"
)

// heldHeader is how much of a header is held back, until it is known which fields are missing.
const heldHeader = 64 << 10

// data is DATA.
func (s *session) data(string) *wire.Reply {
	switch {
	case s.tx.message != nil:
		return replyMidMessage
	case s.early():
		s.over = true
		_ = s.pass.Offend(gate.Early)
		return replyEarly
	case s.tx.envelope.Body == envelope.BodyBinary:
		return replyBinaryData
	}
	s.say(replyGoOn)
	m := s.newMessage()
	if err := s.take(m, s.in.Data()); err != nil {
		return s.cutOff(m, err)
	}
	r := s.finish(m)
	if m.lines.Bare {
		_ = s.pass.Offend(gate.Smuggle)
		// Who passed this on may have seen its end elsewhere: what follows may be no commands of its.
		s.over = true
	}
	return r
}

// early reports whether a stranger has sent more behind DATA, of which it does not know whether we take it: DATA ends a
// group of commands (RFC 2920, 3.1). Programs that send abuse do that, mail servers do not.
func (s *session) early() bool {
	return s.srv.kind == MX && !s.peer.near() && s.in.Buffered() > 0
}

// bdat is BDAT (RFC 3030): a chunk is read to its end whatever is wrong, so that it never runs as commands.
func (s *session) bdat(arg string) *wire.Reply {
	size, last, err := wire.ParseBDAT(arg)
	switch {
	case err == wire.ErrUncounted:
		s.over = true
		return answer(s.log, err)
	case size > 2*s.srv.Limits.MessageSize:
		s.over = true
		return replyTooBig
	}
	if err == nil {
		err = s.mayChunk()
	}
	if err != nil {
		return s.skip(size, err)
	}
	if size == 0 && !last {
		s.budget.junk++
	}
	return s.chunk(size, last)
}

// mayChunk returns what is wrong with a chunk coming now.
func (s *session) mayChunk() error {
	switch {
	case s.hello.name == "":
		return replyNoHello
	case s.tx == nil:
		return replyNoMail
	case len(s.tx.given) == 0:
		return replyNoRecipient
	}
	return nil
}

// skip reads a refused chunk, and then refuses it. What there is of the message is given up.
func (s *session) skip(size int64, why error) *wire.Reply {
	if err := s.take(nil, s.in.Chunk(size)); err != nil {
		s.lost(err)
		return nil
	}
	s.pass.Refused(size)
	if s.tx != nil && s.tx.message != nil {
		s.reset()
	}
	return answer(s.log, why)
}

// chunk takes the next chunk of a message. One that is refused takes the transaction with it, and later chunks find none;
// in LMTP it stays to its end, as the last chunk has a reply for each recipient whatever it is (RFC 2033, 4.3).
func (s *session) chunk(size int64, last bool) *wire.Reply {
	m := s.tx.message
	if m == nil {
		m = s.newMessage()
	}
	err := s.take(m, s.in.Chunk(size))
	switch {
	case err != nil:
		return s.cutOff(m, err)
	case last:
		return s.finish(m)
	case m.fault == nil:
		return replyChunk
	case s.srv.kind != LMTP:
		defer s.reset()
	}
	return m.refused(m.fault)
}

// take reads content to its end, whatever is wrong with it: what follows is commands again. m takes it, unless it is nil.
func (s *session) take(m *message, content *wire.Content) error {
	s.raw.SetPace(listen.Pace{Idle: s.srv.Limits.DataTimeout, Rate: s.srv.Limits.DataRate})
	defer s.raw.SetPace(listen.Pace{Idle: s.srv.Limits.CommandTimeout})
	to := io.Writer(m)
	if m == nil {
		to = io.Discard
	}
	_, err := content.WriteTo(to)
	return err
}

// cutOff ends the session in a message whose end was never read.
func (s *session) cutOff(m *message, err error) *wire.Reply {
	if err == errFarTooBig {
		s.over = true
		return m.refused(replyTooBig)
	}
	s.log.Info("message cut off", "id", m.id(), "from", m.from(), "size", m.size, "err", err)
	s.lost(err)
	return nil
}

// finish decides about a message that has come whole, and ends the transaction. LMTP has a reply for each
// recipient (RFC 2033, 4.2): this is the last of them.
func (s *session) finish(m *message) *wire.Reply {
	defer s.reset()
	err := m.end()
	if err == nil {
		err = s.accept(m)
	}
	var r *wire.Reply
	if err != nil {
		r = m.refused(err)
	} else {
		r = &wire.Reply{Code: 250, Enhanced: "2.0.0", Text: "queued as " + m.id()}
	}
	if s.srv.kind == LMTP {
		return s.toEach(m.tx.given, r)
	}
	return r
}

// toEach says r for each of the recipients, and returns the last reply.
func (s *session) toEach(given []envelope.Address, r *wire.Reply) *wire.Reply {
	for i, a := range given {
		each := *r
		each.Text = a.Path() + " " + r.Text
		if i == len(given)-1 {
			return &each
		}
		s.say(&each)
	}
	return r
}

// accept puts the message into the spool. When it returns nil, it is ours.
func (s *session) accept(m *message) error {
	msg := &spool.Message{
		Skip:      m.skip,
		Arrived:   m.arrived,
		Envelope:  m.tx.envelope,
		Origin:    s.origin(m.tx),
		MessageID: m.header.messageID,
		Given:     m.tx.given,
	}
	if why := s.why(); why != nil {
		return why
	}
	if err := s.srv.Spool.Accept(msg, m.tx.rcpts, m.draft, m.with(msg)); err != nil {
		return err
	}
	m.kept = true
	s.budget.restore()
	s.pass.Accepted(len(m.tx.given))
	if m.sent != nil && m.sent.Missing() != nil {
		s.log.Warn("no copy in Sent", "id", m.id(), "from", m.from(), "account", msg.Origin.Account, "err", m.sent.Missing())
	}
	if s.log.Enabled(s.srv.ctx, slog.LevelInfo) {
		s.log.Info("message accepted", "id", m.id(), "from", m.from(), "to", m.tx.to(), "size", m.size,
			"account", msg.Origin.Account, "outcome", "queued", "reply", "250 2.0.0")
	}
	return nil
}

// namedInLog is how many recipients a line of the log names.
const namedInLog = 10

// to names the recipients for the log.
func (tx *transaction) to() string {
	var b strings.Builder
	for i, a := range tx.given {
		if i == namedInLog {
			fmt.Fprintf(&b, " and %d more", len(tx.given)-i)
			break
		}
		b.WriteString(a.Path())
	}
	return b.String()
}

// message is a message that is coming in.
type message struct {
	// Set by newMessage, never changed.
	s       *session
	tx      *transaction
	arrived time.Time
	draft   *store.Draft
	sent    SentCopy // nil when the sender keeps none
	kept    bool     // the spool has it

	size    int64 // octets of content so far
	skip    int64 // octets of our Return-Path field
	header  header
	lines   wire.LineWatch
	held    []byte // content that waits for our fields to be written
	started bool   // our fields are written
	fault   error  // the first thing that was wrong; nothing is stored after it
}

// newMessage begins the message of the transaction.
func (s *session) newMessage() *message {
	s.tx.message = &message{s: s, tx: s.tx, arrived: s.srv.Now(), draft: s.srv.Store.NewDraft(),
		sent: s.sentCopy(s.tx.outgoing)}
	if s.srv.kind != Submission { // people send on what they got, also to themselves
		s.tx.message.header.delivered = deliveries{given: s.tx.given, front: s.srv.kind == LMTP}
	}
	return s.tx.message
}

func (m *message) id() string   { return m.draft.ID().String() }
func (m *message) from() string { return m.tx.envelope.From.Path() }

func (m *message) discard() {
	if !m.kept {
		m.draft.Discard()
		m.s.pass.Refused(m.size)
	}
}

// refused logs that a message was refused and returns the reply.
func (m *message) refused(err error) *wire.Reply {
	return m.s.refuse("message refused", err, "id", m.id(), "from", m.from())
}

// errFarTooBig ends a message that goes on and on after it was found too large.
var errFarTooBig = errors.New("far too large")

// Write takes the next octets of content. Its only error is errFarTooBig: what else is wrong is told at the end.
func (m *message) Write(p []byte) (int, error) {
	m.size += int64(len(p))
	if m.size > 2*m.s.srv.Limits.MessageSize {
		return 0, errFarTooBig
	}
	m.lines.Write(p)
	if m.fault != nil {
		return len(p), nil
	}
	m.header.write(p)
	if m.fault = m.judge(); m.fault == nil {
		m.fault = m.store(p)
	}
	if m.fault != nil {
		m.draft.Discard() // its room is of more use to others
	}
	return len(p), nil
}

// judge returns what is wrong so far.
func (m *message) judge() error {
	limits := &m.s.srv.Limits
	switch {
	case m.size > limits.MessageSize:
		return replyTooBig
	case m.lines.NUL && !m.binary():
		return replyNUL
	case m.lines.Bare && !m.binary():
		return replyBare
	case m.header.tooBig:
		return replyHeader
	case m.header.received > limits.Hops:
		return replyLoop
	case m.header.delivered.loop:
		return replyDelivered
	}
	return nil
}

// store adds content to the draft, after our fields. A submission is held back until
// its header has been seen, or as much of one as is held.
func (m *message) store(p []byte) error {
	if m.started {
		return m.write(p)
	}
	if m.s.srv.kind == Submission && !m.header.ended && len(m.held)+len(p) <= heldHeader {
		m.held = append(m.held, p...)
		return nil
	}
	if err := m.start(); err != nil {
		return err
	}
	return m.write(p)
}

// write adds octets of the body to where it is kept.
func (m *message) write(p []byte) error {
	if m.sent != nil {
		if _, err := m.sent.Write(p); err != nil {
			return err
		}
	}
	_, err := m.draft.Write(p)
	return err
}

// start writes our fields, and what was held back.
func (m *message) start() error {
	m.started = true
	fields, skip := m.traceFields()
	m.skip = skip
	if err := m.write(fields); err != nil {
		return err
	}
	held := m.held
	m.held = nil
	return m.write(held)
}

// binary reports whether lines mean nothing in the message (RFC 3030, 3).
func (m *message) binary() bool { return m.tx.envelope.Body == envelope.BodyBinary }

// end says whether the whole message may come in.
func (m *message) end() error {
	if m.fault != nil {
		return m.fault
	}
	m.lines.End()
	m.header.end()
	if err := m.judge(); err != nil {
		return err
	}
	if err := m.s.mayWrite(&m.header); err != nil {
		return err
	}
	if err := m.maySolicit(); err != nil {
		return err
	}
	e := &m.tx.envelope
	e.TLSOptional = m.header.tlsOptional && !e.RequireTLS // RFC 8689, 4.1: the field counts for nothing beside REQUIRETLS
	if !m.started {
		if err := m.start(); err != nil {
			return err
		}
	}
	if m.sent != nil {
		return m.sent.Finish()
	}
	return nil
}

// maySolicit holds what the header declares of solicitation against what is not taken here, and takes it over where MAIL
// has not said it (RFC 3865, 2.3 and 2.7). What cannot be read declares nothing.
func (m *message) maySolicit() error {
	var declared envelope.Envelope
	err := readSolicit(m.s.offer(), &declared, m.header.solicits)
	if r, refused := errors.AsType[*wire.Reply](err); refused {
		return r
	}
	m.tx.envelope.Solicit = cmp.Or(m.tx.envelope.Solicit, declared.Solicit)
	return nil
}
