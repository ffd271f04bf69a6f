package smtpd

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"postroad/internal/store"
	"postroad/spool"
)

// bufferSize is how much of a message is read at once; heldHeader is how much of a
// header is held back, until it is known which fields are missing.
const (
	bufferSize = 32 << 10
	heldHeader = 64 << 10
)

// receive takes one message and returns its reply: 250 when it is in the spool.
func (s *session) receive(r io.Reader) error {
	s.receiving.Lock()
	defer s.receiving.Unlock()
	_, chunked := r.(*io.PipeReader)
	s.beginMessage(contentMode(chunked))
	defer s.endMessage()
	m := s.newMessage()
	defer m.discard()
	err := s.take(m, r)
	if !chunked && s.ended.Load() {
		s.endWithReply() // two ends can be read here: nobody shall profit from the second
	}
	if err == nil && (s.gone() || chunked && s.eof.Load()) {
		// The engine takes the end of the connection for the end of a chunk.
		err = replyCutOff
	}
	if err != nil && chunked {
		// Unless the engine was told by a LAST chunk, it is still reading this message.
		s.spoil.Store(s.spoil.Load() || errors.Is(err, smtp.ErrDataReset))
	}
	if err == nil {
		err = s.accept(m)
	}
	s.open.Store(false)
	if err != nil {
		return s.refuse("message refused", err, "id", m.id(), "from", m.from())
	}
	return reply(250, "2.0.0", "queued as %s", m.id())
}

func contentMode(chunked bool) mode {
	if chunked {
		return inChunks
	}
	return inData
}

// take reads the message to its end, whatever is wrong with it: what follows the
// end is commands again. It holds one buffer.
func (s *session) take(m *message, r io.Reader) error {
	buf := s.srv.buffer()
	defer s.srv.buffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		s.took()
		m.write(buf[:n])
		if m.size > 2*s.srv.Limits.MessageSize {
			s.hangUp(text(replyTooBig)) // far beyond what was announced: no reason to go on reading
			return replyTooBig
		}
		if errors.Is(err, io.EOF) {
			return m.end(s.bare.Load())
		}
		if err != nil {
			return cutOff{err}
		}
	}
}

// cutOff is a message whose end was never read. The reply is for the log: the peer is
// gone, or told by a hang-up.
type cutOff struct{ err error }

func (c cutOff) Error() string { return replyCutOff.Message + ": " + c.err.Error() }
func (c cutOff) Unwrap() []error {
	return []error{replyCutOff, c.err}
}

func (s *Server) buffer() *[bufferSize]byte {
	if b, ok := s.buffers.Get().(*[bufferSize]byte); ok {
		return b
	}
	return new([bufferSize]byte)
}

// accept puts the message into the spool. When it returns nil, it is ours.
func (s *session) accept(m *message) error {
	msg := &spool.Message{
		Skip:      m.skip,
		Arrived:   m.arrived,
		Envelope:  m.tx.envelope,
		Origin:    s.origin(m.tx),
		MessageID: m.header.messageID,
	}
	if err := s.srv.Spool.Accept(msg, m.rcpts, m.draft, nil); err != nil {
		return err
	}
	m.kept = true
	s.accepted()
	s.log.Info("message accepted", "id", m.id(), "from", m.from(), "to", m.tx.to(), "size", m.size,
		"account", msg.Origin.Account, "outcome", "queued", "reply", "250 2.0.0")
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
	rcpts   []spool.Recipient
	arrived time.Time
	draft   *store.Draft
	kept    bool // the spool has it

	size    int64 // octets of content so far
	skip    int64 // octets of our Return-Path field
	header  header
	lines   lines
	held    []byte // content that waits for our fields to be written
	started bool   // our fields are written
	fault   error  // the first thing that was wrong; nothing is stored after it
}

func (s *session) newMessage() *message {
	m := &message{s: s, arrived: s.srv.Now(), draft: s.srv.Store.NewDraft()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.tx = s.tx; m.tx == nil {
		m.tx, m.fault = &transaction{}, replyOver
	}
	m.rcpts = append(m.rcpts, m.tx.rcpts...)
	return m
}

func (m *message) id() string   { return m.draft.ID().String() }
func (m *message) from() string { return m.tx.envelope.From.Path() }

func (m *message) discard() {
	if !m.kept {
		m.draft.Discard()
	}
}

// write takes the next octets of content.
func (m *message) write(p []byte) {
	m.size += int64(len(p))
	if m.fault != nil || len(p) == 0 {
		return
	}
	m.lines.write(p)
	m.header.write(p)
	if m.fault = m.judge(); m.fault == nil {
		m.fault = m.store(p)
	}
	if m.fault != nil {
		m.draft.Discard() // its room is of more use to others
	}
}

// judge returns what is wrong so far.
func (m *message) judge() error {
	limits := &m.s.srv.Limits
	switch {
	case m.size > limits.MessageSize:
		return replyTooBig
	case m.lines.nul:
		return replyNUL
	case m.lines.bare:
		return replyBare
	case m.header.tooBig:
		return replyHeader
	case m.header.received > limits.Hops:
		return replyLoop
	}
	return nil
}

// store adds content to the draft, after our fields. A submission is held back until
// its header has been seen, or as much of one as is held.
func (m *message) store(p []byte) error {
	if m.started {
		_, err := m.draft.Write(p)
		return err
	}
	if m.s.srv.kind == Submission && !m.header.ended && len(m.held)+len(p) <= heldHeader {
		m.held = append(m.held, p...)
		return nil
	}
	if err := m.start(); err != nil {
		return err
	}
	_, err := m.draft.Write(p)
	return err
}

// start writes our fields, and what was held back.
func (m *message) start() error {
	m.started = true
	fields, skip := m.traceFields()
	m.skip = skip
	if _, err := m.draft.Write(fields); err != nil {
		return err
	}
	_, err := m.draft.Write(m.held)
	m.held = nil
	return err
}

// end says whether the whole message may come in. dropped tells of a bare CR that the
// engine did not pass on.
func (m *message) end(dropped bool) error {
	if m.fault != nil {
		return m.fault
	}
	m.lines.end()
	m.header.end()
	if dropped || m.lines.bare {
		return replyBare
	}
	if err := m.judge(); err != nil {
		return err
	}
	if err := m.s.mayWrite(&m.header); err != nil {
		return err
	}
	if m.started {
		return nil
	}
	return m.start()
}
