package smtpd

import (
	"errors"
	"net/netip"

	"postroad/internal/gate"
	"postroad/internal/listen"
	"postroad/smtpd/wire"
)

// enter asks the gate about a connection, for its listener.
func (s *Server) enter(from netip.Addr) (pass listen.Pass, told string, ok bool) {
	p, err := s.Gate.Enter(from)
	switch {
	case err == nil:
		return p, "", true
	case s.implicitTLS: // where nothing can be said in the clear
		return nil, "", false
	}
	return nil, text(refusal(err)) + "\r\n", false
}

// refusal is the gate's refusal as a reply; nil for none.
func refusal(err error) *wire.Reply {
	r, ok := errors.AsType[*gate.Refusal](err)
	switch {
	case !ok:
		return nil
	case r.Permanent:
		return reply(554, "5.7.1", "%s", r.Text)
	case r.Over:
		return reply(421, "4.7.0", "%s", r.Text)
	}
	return reply(450, "4.7.1", "%s", r.Text)
}

// passOf is what the gate gave a connection; nil without a gate.
func passOf(raw *listen.Conn) *gate.Pass {
	pass, _ := raw.Pass().(*gate.Pass)
	return pass
}

// enterAs asks the gate about the client for whom a proxy speaks from now on, in place of whoever it was before.
func (s *session) enterAs(client netip.Addr) *wire.Reply {
	pass, err := s.srv.Gate.Enter(client)
	if err != nil {
		return refusal(err)
	}
	if s.pass != passOf(s.raw) { // the connection leaves with its own
		s.pass.Leave()
	}
	s.pass = pass
	return nil
}

// pregreet returns the reply to a peer that does not wait for the greeting, which honest senders do (RFC 5321, 4.3.1). A
// stranger's silence is watched for a while.
func (s *session) pregreet() *wire.Reply {
	if s.srv.kind != MX || s.pass.Exempt() || !s.raw.Early(s.pass.GreetDelay()) {
		return nil
	}
	_ = s.pass.Offend(gate.Early) // the connection ends in any case
	return replyPregreet
}

// offend tells the gate of an offence, and returns the reply with which the connection ends when it was one too many.
func (s *session) offend(o gate.Offence) *wire.Reply { return refusal(s.pass.Offend(o)) }

// slow has the peer wait for the reply to an error, the longer the more there were.
func (s *session) slow(r *wire.Reply) {
	if isError(r) {
		s.pass.Slow(s.srv.ctx, s.pass.Erred(s.budget.errors))
	}
}
