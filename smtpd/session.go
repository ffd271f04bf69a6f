package smtpd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"postroad/internal/account"
	"postroad/internal/gate"
	"postroad/internal/listen"
	"postroad/smtpd/wire"
)

// A session is one connection. One goroutine owns it: it reads a command, runs it, and writes the reply; others may only
// ask it to end (Leave, End).
type session struct {
	// Set by newSession, never changed.
	srv *Server
	raw *listen.Conn
	in  *wire.Reader

	whose atomic.Uint64 // the account that is logged in, for Server.End; 0 when none is

	// Owned by the goroutine that serves the connection.
	log   *slog.Logger
	conn  net.Conn // raw, or TLS on it
	out   *wire.Writer
	tls   *tls.ConnectionState // nil in the clear
	peer  peer
	hello helo
	// account is who is logged in; nil when nobody is.
	account *account.Account
	expiry  *time.Timer  // ends the session with what it logged in by; nil when that does not expire
	tx      *transaction // nil when none is open
	// forwarded is whose the next message is by a proxy's word; nil without that.
	forwarded *origin
	budget    budget
	pass      *gate.Pass // nil without a gate
	over      bool       // the connection ends with what has been said

	mu   sync.Mutex  // guards what follows
	idle bool        // the peer is waited for, and no transaction is open
	cut  *wire.Reply // why the session is to end at once; nil when it is not
}

// helo is what the peer has called itself.
type helo struct {
	name  string // empty before EHLO, HELO or LHLO
	esmtp bool   // it knows of extensions
}

func newSession(srv *Server, raw *listen.Conn) *session {
	s := &session{srv: srv, raw: raw, conn: raw, peer: peerOf(raw.RemoteAddr()), pass: passOf(raw)}
	s.log = s.logger()
	s.in = wire.NewReader(raw)
	s.in.Flush = s.flush
	s.out = wire.NewWriter(raw)
	return s
}

func (s *session) logger() *slog.Logger {
	return s.srv.Log.With("server", s.srv.kind.String(), "peer", s.peer.String())
}

// serve is the life of a connection. A panic in it ends it, and nothing else.
func (s *session) serve() {
	defer s.raw.Close()
	defer s.recover() // for what close does
	defer s.close()
	defer s.recover()
	if s.srv.implicitTLS && !s.startTLS() {
		return
	}
	s.greet()
	for !s.over {
		s.step()
	}
}

// greet begins the dialogue: all that decides about a stranger before it is heard goes here.
func (s *session) greet() {
	if r := s.pregreet(); r != nil {
		s.end(r)
		return
	}
	s.say(s.srv.banner())
}

// step runs the peer's next command.
func (s *session) step() {
	cmd, err := s.next()
	if err == nil {
		s.run(cmd)
	} else {
		s.conclude(s.unread(err))
	}
}

// next waits for the peer's next command.
func (s *session) next() (wire.Command, error) {
	if err := s.await(); err != nil {
		return wire.Command{}, err
	}
	defer s.heard()
	return s.in.Command()
}

// response waits for a line of a login.
func (s *session) response() ([]byte, error) {
	if err := s.await(); err != nil {
		return nil, err
	}
	defer s.heard()
	return s.in.Line(wire.MaxAuth)
}

// unread is the reply to what could not be read as a line, if there can be one.
func (s *session) unread(err error) *wire.Reply {
	if e, ok := errors.AsType[*wire.SyntaxError](err); ok {
		return s.junkLine(e)
	}
	if err == wire.ErrUncounted {
		s.over = true
		return answer(s.log, err)
	}
	s.lost(err)
	return nil
}

// errEnd says that the session shall not wait for the peer any more.
var errEnd = errors.New("the session is to end")

// await tells others that the peer will be waited for. It returns errEnd when that shall not be.
func (s *session) await() error {
	s.mu.Lock()
	s.idle = !s.tx.underWay()
	s.mu.Unlock()
	if s.why() != nil {
		return errEnd
	}
	return nil
}

// heard tells others that the peer is waited for no more.
func (s *session) heard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = false
}

// why is the reason that others have given for the session's end; nil for none.
func (s *session) why() *wire.Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut == nil && !s.tx.underWay() && s.srv.group.Draining() {
		return replyLeaving
	}
	return s.cut
}

// past is a deadline that wakes who reads.
var past = time.Unix(1, 0)

// Leave ends a session that waits for its peer with no transaction under way. Any other ends when it next does so.
func (s *session) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle {
		s.raw.SetReadDeadline(past)
	}
}

// endNow ends the session; what is under way is not accepted.
func (s *session) endNow(why *wire.Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut == nil {
		s.cut = why
	}
	s.raw.SetReadDeadline(past)
}

// lost ends the session after the peer could not be heard, with a word where one can still reach it.
func (s *session) lost(err error) {
	s.over = true
	switch {
	case errors.Is(err, wire.ErrTooLong):
		s.end(replyTooLong)
	case errors.Is(err, wire.ErrNotMail):
		_ = s.pass.Offend(gate.Junk) // the connection ends in any case
		s.end(replyForeign)
	case errors.Is(err, os.ErrDeadlineExceeded), err == errEnd:
		s.end(cmp.Or(s.why(), replyTimeout))
	}
}

// end says the last word.
func (s *session) end(why *wire.Reply) {
	s.log.Info("connection ended", "reply", text(why))
	s.say(why)
	s.over = true
}

// say adds a reply to those that leave when the peer is waited for next.
func (s *session) say(r *wire.Reply) { s.out.Reply(*r) }

// flush sends what was said.
func (s *session) flush() error { return s.out.Flush() }

// reset forgets the transaction: this is the one place where one ends.
func (s *session) reset() {
	if s.tx != nil {
		s.tx.discard()
	}
	s.tx, s.forwarded = nil, nil
}

// forget is reset, and as if the peer had said nothing yet.
func (s *session) forget() {
	s.reset()
	s.hello = helo{}
	s.logOut()
}

// recover ends a session that has panicked.
func (s *session) recover() {
	p := recover()
	if p == nil {
		return
	}
	s.srv.panics.Add(1)
	s.log.Error("the session ended by a panic", "err", p, "stack", string(debug.Stack()))
	s.say(replyPanic)
}

// close sends what was said and lets go of everything. What is left of a transaction is not accepted.
func (s *session) close() {
	defer s.pass.Leave()
	s.forget()
	s.flush()
	if tc, ok := s.conn.(*tls.Conn); ok {
		tc.Close()
	}
}

// startTLS begins TLS on the connection. There is no way back: without it the connection ends.
func (s *session) startTLS() bool {
	ctx, cancel := context.WithTimeout(s.srv.ctx, s.srv.Limits.HandshakeTimeout)
	defer cancel()
	tc := tls.Server(s.raw, s.srv.TLS)
	if err := tc.HandshakeContext(ctx); err != nil {
		s.log.Info("TLS handshake failed", "outcome", "closed", "err", err)
		return false
	}
	state := tc.ConnectionState()
	s.conn, s.tls = tc, &state
	s.in.Reset(tc)
	s.out = wire.NewWriter(tc)
	return true
}
