package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"postroad/delivery/smtpc"
	"postroad/internal/envelope"
	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/spool"
)

// errNotSigned means that a message has to wait, because what goes before it cannot be made.
var errNotSigned = errors.New("the message cannot be signed")

// exchange sends the message to recipients that are left.
func (a *attempt) exchange(conn *smtpc.Conn) smtpc.Result {
	m, body, err := a.outgoing(conn)
	if err != nil {
		return a.notSent(err)
	}
	defer body.Close()
	m.Before = a.markSending()
	m.Envelope.RequireTLS = m.Envelope.RequireTLS && a.socket() == ""
	for _, i := range a.left {
		m.Recipients = append(m.Recipients, a.done[i].due.Recipient.Recipient)
	}
	return conn.Send(m)
}

// notSent is the result of a transaction that did not begin.
func (a *attempt) notSent(err error) smtpc.Result {
	n := len(a.left)
	res := smtpc.Result{Replies: make([]envelope.Reply, n), Own: make([]bool, n), PutOff: make([]bool, n)}
	if !errors.Is(err, errNotSigned) {
		res.BodyErr = err
		return res
	}
	for i := range res.Replies {
		res.Replies[i] = a.r.ours("4.3.0", err.Error())
	}
	return res
}

// outgoing is the message as the next hop can take it, without recipients. Its body is to be closed.
func (a *attempt) outgoing(conn *smtpc.Conn) (smtpc.Message, io.Closer, error) {
	via := a.done[a.left[0]].due.Recipient.Via // recipients of one attempt have the same
	src := &source{r: a.r, msg: a.msg}
	l, err := a.r.leaving.get(a.r.cfg.Now(), leavingKey{a.msg.ID, via}).as(a.r.hard, src, via, conn.Offers)
	if err != nil {
		return smtpc.Message{}, nil, err
	}
	body, err := l.open(src)
	if err != nil {
		return smtpc.Message{}, nil, err
	}
	m := smtpc.Message{
		Envelope: a.msg.Envelope, Size: int64(len(l.fields)) + l.size, Body: io.MultiReader(bytes.NewReader(l.fields), body),
		UTF8: a.msg.Envelope.UTF8 && l.headerUTF8, Binary: l.binary,
	}
	m.Envelope.Body = l.declared()
	if s := a.r.cfg.Signer; s != nil {
		if m.Envelope.From, err = s.From(src.outgoing(via)); err != nil {
			body.Close()
			return smtpc.Message{}, nil, fmt.Errorf("%w: %w", errNotSigned, err)
		}
	}
	return m, body, nil
}

// A source gives the octets of a message as often as they are asked for. A small message is read once.
type source struct {
	r     *Runner
	msg   *spool.Message
	small []byte
}

// maxSmall is how much of a message an attempt keeps in memory.
const maxSmall = 64 << 10

// binary reports whether the sender declared the message as octets that are no lines (RFC 3030, 3).
func (s *source) binary() bool { return s.msg.Envelope.Body == envelope.BodyBinary }

func (s *source) outgoing(via envelope.Address) Outgoing {
	return Outgoing{ID: s.msg.ID, Envelope: s.msg.Envelope, Origin: s.msg.Origin, Via: via}
}

// open reads the message as it would leave if any next hop could take all: in lines, unless it is binary.
func (s *source) open() (io.ReadCloser, error) {
	if s.small != nil {
		return io.NopCloser(bytes.NewReader(s.small)), nil
	}
	body, err := s.r.openBody(s.msg)
	if err != nil {
		return nil, err
	}
	if size := s.msg.Size - s.msg.Skip; size <= maxSmall {
		defer body.Close()
		if s.small, err = s.read(body, size); err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(s.small)), nil
	}
	if s.binary() {
		return body, nil
	}
	return &outBody{smtpc.Lines(body), body}, nil
}

// read reads a small message to its end, where the checksum is held against it.
func (s *source) read(body io.Reader, size int64) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := b.ReadFrom(body); err != nil {
		return nil, err
	}
	if s.binary() || smtpc.InLines(b.Bytes()) {
		return b.Bytes(), nil
	}
	return io.ReadAll(smtpc.Lines(b))
}

// form is what a message is made of when it leaves.
type form uint8

const (
	asItIs   form = iota // as it came
	eightBit             // lines, of octets of eight bits: what was binary is converted
	sevenBit             // lines of ASCII: all that is not is converted
	forms
)

// formFor chooses the form in which a next hop can take a message. Where 8BITMIME alone is missing, a message that
// another server signed goes as it is: every server of today takes it, and a conversion would break the signature.
func formFor(s *survey, binary bool, offers func(string) bool) form {
	switch {
	case binary && offers("BINARYMIME") && offers("CHUNKING"):
		return asItIs
	case binary && offers("8BITMIME"):
		return eightBit
	case binary:
		return sevenBit
	case s.eight && !s.signed && !offers("8BITMIME"):
		return sevenBit
	}
	return asItIs
}

// leaving is what is known of one message as it leaves, in each form that was needed so far.
type leaving struct {
	made time.Time

	mu     sync.Mutex // held while one attempt finds out what the others need too
	survey *survey    // of the message as it came
	forms  [forms]*shape
}

// shape is a message in one form.
type shape struct {
	survey
	fields  []byte // go before it
	convert *mime.Conversion
	binary  bool // it still needs BINARYMIME
}

// as returns the message in the form that the next hop takes.
func (l *leaving) as(ctx context.Context, src *source, via envelope.Address, offers func(string) bool) (*shape, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.survey == nil {
		s, err := look(src.open)
		if err != nil {
			return nil, err
		}
		l.survey = &s
	}
	f := formFor(l.survey, src.binary(), offers)
	if l.forms[f] == nil {
		made, err := l.make(ctx, f, src, via)
		if err != nil {
			return nil, err
		}
		l.forms[f] = made
	}
	return l.forms[f], nil
}

// make brings the message into a form and signs it. l.mu must be held.
func (l *leaving) make(ctx context.Context, f form, src *source, via envelope.Address) (*shape, error) {
	made := &shape{survey: *l.survey, binary: src.binary()}
	if f != asItIs {
		if err := made.converted(src, f); err != nil {
			return nil, err
		}
	}
	if signer := src.r.cfg.Signer; signer != nil {
		fields, err := signer.Fields(ctx, src.outgoing(via), func() (io.ReadCloser, error) { return made.open(src) })
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNotSigned, err)
		}
		made.fields = fields
	}
	return made, nil
}

// converted plans the conversion, and looks at what comes of it.
func (s *shape) converted(src *source, f form) error {
	var err error
	if s.convert, err = plan(src, f); err != nil {
		return err
	}
	s.binary = s.convert.Binary()
	s.survey, err = look(func() (io.ReadCloser, error) { return s.open(src) })
	return err
}

// plan reads the message twice: for its parts, and for what is in them.
func plan(src *source, f form) (*mime.Conversion, error) {
	body, err := src.open()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	parts, err := mime.Scan(body)
	if err != nil {
		return nil, err
	}
	again, err := src.open()
	if err != nil {
		return nil, err
	}
	defer again.Close()
	return mime.PlanConversion(parts, again, f == sevenBit)
}

// open reads the message in this form, without the fields.
func (s *shape) open(src *source) (io.ReadCloser, error) {
	body, err := src.open()
	if err != nil || s.convert == nil {
		return body, err
	}
	return &outBody{smtpc.Lines(s.convert.Reader(body)), body}, nil
}

// declared is what MAIL says of the message's octets.
func (s *shape) declared() envelope.Body {
	switch {
	case s.binary:
		return envelope.BodyBinary
	case s.eight:
		return envelope.Body8Bit
	}
	return envelope.Body7Bit
}

// leavingKey names what leaves: forwards through different addresses of ours leave in different shapes.
type leavingKey struct {
	id  store.ID
	via envelope.Address
}

// Bounds of what is remembered of messages that leave.
const (
	maxLeaving = 256            // messages; twice as many at most
	leavingFor = 24 * time.Hour // then signatures are made again
)

// leavingCache remembers what leaves: a message for a thousand domains is signed once. The zero value is ready for use.
type leavingCache struct {
	mu         sync.Mutex
	young, old map[leavingKey]*leaving // when young is full, it becomes old
}

func (c *leavingCache) get(now time.Time, key leavingKey) *leaving {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.young[key]
	if l == nil {
		l = c.old[key]
	}
	if l == nil || now.Sub(l.made) > leavingFor {
		l = &leaving{made: now}
	}
	if c.young == nil || len(c.young) >= maxLeaving && c.young[key] == nil {
		c.young, c.old = make(map[leavingKey]*leaving), c.young
	}
	c.young[key] = l
	return l
}
