package smtpd

import (
	"errors"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postroad/internal/account"
	"postroad/internal/envelope"
	ours "postroad/internal/sasl"
)

// AuthMechanisms are those that EHLO offers. In the clear they are offered to this
// machine alone.
func (s *session) AuthMechanisms() []string {
	if s.mayAuth() != nil {
		return nil
	}
	return append(s.srv.Logins.Mechanisms(s.client()), ours.Login)
}

// client is the peer as one that wants to log in. Its TLS connection is not offered for
// SCRAM-SHA-256-PLUS: Mutt with GNU SASL would choose that, have nothing to bind to, and give up.
func (s *session) client() account.Client { return account.Client{From: s.ip} }

func (s *session) mayAuth() error {
	switch {
	case s.srv.kind != Submission:
		return replyNoAuth
	case s.tls == nil && !s.near:
		return replyClear
	}
	return nil
}

// Auth begins a login.
func (s *session) Auth(mech string) (sasl.Server, error) {
	if s.gone() {
		return nil, replyOver
	}
	if err := s.mayAuth(); err != nil {
		return nil, err
	}
	if s.current() != nil {
		return nil, replyInside
	}
	exchange, err := s.srv.Logins.Begin(s.srv.ctx, s.client(), mech)
	if err != nil {
		return nil, replyMechanism
	}
	return login{s, exchange}, nil
}

// login is an exchange whose outcome the session is told, and whose errors are replies.
type login struct {
	s *session
	account.Exchange
}

// Next takes a response and returns the next challenge.
func (l login) Next(response []byte) ([]byte, bool, error) {
	challenge, done, err := l.Exchange.Next(response)
	switch {
	case err != nil:
		return nil, false, l.s.loginFailed(l.User(), err)
	case done:
		l.s.loggedInAs(l.Account())
	}
	return challenge, done, nil
}

func (s *session) loggedInAs(a account.Account) {
	s.account = &a
	s.loggedIn.Store(uint64(a.ID))
	s.log.Info("logged in", "account", a.Address.String())
}

// loginFailed returns the reply to a login that failed. The third false one ends the connection.
func (s *session) loginFailed(user string, err error) error {
	r := s.loginReply(err)
	log := s.log.With("account", envelope.Sanitize(user, 320))
	if r == replyBusy && !errors.Is(err, account.ErrBusy) && s.srv.ctx.Err() == nil {
		log.Error("login failed", "err", err)
	} else {
		log.Warn("login refused", "outcome", "refused", "reply", text(r))
	}
	return r
}

func (s *session) loginReply(err error) *smtp.SMTPError {
	switch {
	case errors.Is(err, ours.ErrSyntax):
		return replySASL
	case errors.Is(err, ours.ErrBinding):
		return replyBinding
	case errors.Is(err, account.ErrGuessing):
		s.endWithReply()
		return replyGuessing
	case !errors.Is(err, account.ErrCredentials):
		return replyBusy
	}
	s.failedLogins++
	if s.failedLogins >= s.srv.Limits.FailedLogins {
		s.endWithReply()
		return replyTooGuess
	}
	return replyBadLogin
}
