package smtpd

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postroad/internal/account"
	"postroad/internal/envelope"
)

// AuthMechanisms are those that EHLO offers. In the clear they are offered to this
// machine alone.
func (s *session) AuthMechanisms() []string {
	if s.mayAuth() != nil {
		return nil
	}
	return []string{sasl.Plain, sasl.Login}
}

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
	switch mech {
	case sasl.Plain:
		return plainReplies{sasl.NewPlainServer(s.plain)}, nil
	case sasl.Login:
		return &loginServer{authenticate: s.logIn}, nil
	}
	return nil, replyMechanism
}

func (s *session) plain(identity, user, password string) error {
	if identity != "" && identity != user {
		return s.loginFailed(user, replyIdentity)
	}
	return s.logIn(user, password)
}

// logIn checks a password. A failure costs time, and the third the connection.
func (s *session) logIn(user, password string) error {
	acct, err := s.srv.Accounts.Verify(context.Background(), user, password)
	switch {
	case errors.Is(err, account.ErrCredentials):
		return s.loginFailed(user, replyBadLogin)
	case errors.Is(err, account.ErrBusy):
		s.log.Warn("login refused", "account", envelope.Sanitize(user, 320), "outcome", "refused", "err", err)
		return replyBusy
	case err != nil:
		s.log.Error("login failed", "account", envelope.Sanitize(user, 320), "err", err)
		return replyBusy
	}
	s.account = &acct
	s.log.Info("logged in", "account", acct.Address.String())
	return nil
}

func (s *session) loginFailed(user string, r *smtp.SMTPError) error {
	s.failedLogins++
	if s.failedLogins >= s.srv.Limits.FailedLogins {
		s.endWithReply()
		r = replyTooGuess
	}
	s.log.Warn("login refused", "account", envelope.Sanitize(user, 320), "outcome", "refused", "reply", text(r))
	time.Sleep(s.srv.Limits.AuthDelay)
	return r
}

// plainReplies gives the PLAIN server's complaint about what it cannot read its code.
type plainReplies struct{ sasl.Server }

func (p plainReplies) Next(response []byte) ([]byte, bool, error) {
	challenge, done, err := p.Server.Next(response)
	if _, ok := errors.AsType[*smtp.SMTPError](err); err != nil && !ok {
		err = replySASL
	}
	return challenge, done, err
}

// loginServer is the LOGIN mechanism: it asks for the name, then for the password.
type loginServer struct {
	authenticate func(user, password string) error
	user         *string
	done         bool
}

// Next takes a response and returns the next question.
func (l *loginServer) Next(response []byte) ([]byte, bool, error) {
	switch {
	case l.done:
		return nil, false, replySASL
	case l.user == nil && response == nil:
		return []byte("Username:"), false, nil
	case l.user == nil:
		user := string(response)
		l.user = &user
		return []byte("Password:"), false, nil
	}
	l.done = true
	if slices.Contains(response, 0) {
		return nil, false, replySASL
	}
	return nil, true, l.authenticate(*l.user, string(response))
}
