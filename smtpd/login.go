package smtpd

import (
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"postroad/internal/account"
	"postroad/internal/sasl"
	"postroad/smtpd/wire"
)

// client is the peer as one that wants to log in. Where a proxy speaks for it, the TLS connection is the proxy's.
func (s *session) client() account.Client {
	c := account.Client{Protocol: account.SMTP, From: s.peer.ip, TLS: s.tls != nil}
	if s.tls == nil || s.peer != peerOf(s.raw.RemoteAddr()) {
		return c
	}
	return c.Over(s.tls, s.raw.ShownCertificate())
}

// mayAuth returns why nobody may log in here now, or nil. In the clear only this machine may.
func (s *session) mayAuth() *wire.Reply {
	switch {
	case s.srv.kind != Submission:
		return replyNoAuth
	case s.tls == nil && !s.peer.near():
		return replyClear
	case s.account != nil:
		return replyLoggedIn
	}
	return nil
}

// logInFirst is the reply to mail from who has not logged in. It says how, as some programs show no more than this.
func (s *session) logInFirst() *wire.Reply {
	if s.mayAuth() == replyClear {
		return replyTLSFirst
	}
	return replyLogIn
}

// auth is AUTH (RFC 4954).
func (s *session) auth(arg string) *wire.Reply {
	if r := s.mayAuth(); r != nil {
		return r
	}
	mechanism, initial, given := strings.Cut(arg, " ")
	x, err := s.srv.Logins.Begin(s.srv.ctx, s.client(), strings.ToUpper(mechanism))
	if err != nil {
		return replyMechanism
	}
	var response []byte
	if given {
		if response, err = initialResponse(initial); err != nil {
			return replyBase64
		}
	}
	return s.exchange(x, response)
}

// initialResponse reads the response that came with AUTH: "=" is an empty one.
func initialResponse(s string) ([]byte, error) {
	if s == "=" {
		return []byte{}, nil
	}
	return base64.StdEncoding.DecodeString(s)
}

// exchange plays the dialogue of a mechanism to its end. A nil response is none.
func (s *session) exchange(x account.Exchange, response []byte) *wire.Reply {
	for {
		challenge, done, err := x.Next(response)
		switch {
		case err != nil:
			return s.loginFailed(x.User(), err)
		case done:
			return s.logIn(x.Login())
		}
		var r *wire.Reply
		if response, r = s.ask(challenge); response == nil {
			return r
		}
	}
}

// ask gives a challenge and takes the response to it. A nil response ends the login, with a reply if the peer is there.
func (s *session) ask(challenge []byte) ([]byte, *wire.Reply) {
	s.say(&wire.Reply{Code: 334, Text: base64.StdEncoding.EncodeToString(challenge)})
	line, err := s.response()
	switch {
	case err != nil:
		return nil, s.unread(err)
	case string(line) == "*":
		return nil, replyGivenUp
	}
	response := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	n, err := base64.StdEncoding.Decode(response, line)
	if err != nil {
		return nil, replyBase64
	}
	return response[:n], nil
}

// logIn begins what the peer may do as an account, until its login ends.
func (s *session) logIn(l account.Login) *wire.Reply {
	s.account = &l.Account
	s.whose.Store(uint64(l.ID))
	if !s.srv.Accounts.Stands(l.Account) { // it was changed since the login was judged, and End did not know of this session
		s.endNow(replyAccountOver)
	}
	if !l.Until.IsZero() {
		s.expiry = time.AfterFunc(time.Until(l.Until), func() { s.endNow(replyExpired) })
	}
	s.pass.LoggedIn(uint64(l.ID))
	s.log.Info("logged in", "account", l.Address.String(), "by", l.By)
	return replyWelcome
}

func (s *session) logOut() {
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.account, s.expiry = nil, nil
	s.whose.Store(0)
	s.pass.LoggedIn(0)
}

// loginFailed returns the reply to a login that failed. One failure too many ends the connection.
func (s *session) loginFailed(user string, err error) *wire.Reply {
	r := s.loginReply(err)
	log := s.log.With("account", account.Shown(user))
	if r == replyBusy && !errors.Is(err, account.ErrBusy) && s.srv.ctx.Err() == nil {
		log.Error("login failed", "err", err)
	} else {
		log.Warn("login refused", "outcome", "refused", "reply", text(r), "err", err)
	}
	return r
}

func (s *session) loginReply(err error) *wire.Reply {
	switch {
	case errors.Is(err, sasl.ErrSyntax):
		return replySASL
	case errors.Is(err, sasl.ErrBinding):
		return replyBinding
	case errors.Is(err, account.ErrGuessing):
		return replyGuessing
	case !errors.Is(err, account.ErrCredentials):
		return replyBusy
	}
	if s.budget.failedLogins++; s.budget.failedLogins >= s.srv.Limits.FailedLogins {
		return replyTooManyLogins
	}
	return replyBadLogin
}
