package imapd

import (
	"context"
	"encoding/base64"
	"errors"
	"time"

	"postroad/imapd/wire"
	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/listen"
	"postroad/internal/mailbox"
	"postroad/internal/sasl"
)

// mayStartTLS reports whether STARTTLS is to be had now: before the login, where nothing is compressed.
func (s *session) mayStartTLS() bool { return s.owner == 0 && s.srv.TLS != nil && s.conn.tls == nil }

// startTLS is STARTTLS (RFC 9051, 6.2.1). What somebody has slipped in behind the command is not run under TLS.
func (s *session) startTLS() reply {
	if !s.mayStartTLS() {
		return bad(codeClientBug, "there is no TLS to begin, or it has begun already")
	}
	if s.dec.Buffered() > 0 {
		s.conn.bye("nothing may follow STARTTLS before the handshake")
		return reply{status: answered}
	}
	s.answer(ok("", "begin TLS"))
	if s.flush() != nil || s.conn.raw.Flush() != nil || s.conn.startTLS() != nil {
		s.left = true // nothing can be said any more
		return reply{status: answered}
	}
	s.dec.Reset(s.conn)
	return reply{status: answered}
}

// client is the client as one that wants to log in.
func (s *session) client() account.Client {
	c := account.Client{Protocol: account.IMAP, From: listen.IP(s.conn.raw.RemoteAddr())}
	if s.conn.tls != nil {
		state := s.conn.tls.ConnectionState()
		return c.Over(&state, s.conn.raw.ShownCertificate())
	}
	return c
}

// patience is a context for a login: it ends when the connection is to end.
func (s *session) patience() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(s.ctx)
	s.conn.onBye(cancel)
	return ctx, func() {
		s.conn.onBye(nil)
		cancel()
	}
}

// login is LOGIN (RFC 9051, 6.2.3).
func (s *session) login(c *wire.Login) reply {
	if !s.conn.mayLogin() {
		return inTheClear()
	}
	ctx, done := s.patience()
	defer done()
	l, err := s.srv.Logins.LogIn(ctx, s.client(), c.User, c.Password)
	if err != nil {
		return s.loginFailed(c.User, err)
	}
	return s.logIn(l)
}

func inTheClear() reply {
	return no(codePrivacyRequired, "use STARTTLS first: a password does not go over the network in the clear")
}

// authenticate is AUTHENTICATE (RFC 9051, 6.2.2; RFC 4959).
func (s *session) authenticate(c *wire.Authenticate) reply {
	if !s.conn.mayLogin() {
		return inTheClear()
	}
	ctx, end := s.patience()
	defer end()
	exchange, err := s.srv.Logins.Begin(ctx, s.client(), c.Mechanism)
	if err != nil {
		return no(codeCannot, "%s", err)
	}
	for response := c.Initial; ; {
		challenge, done, err := exchange.Next(response)
		switch {
		case err != nil:
			return s.loginFailed(exchange.User(), err)
		case done:
			return s.logIn(exchange.Login())
		}
		var r reply
		if response, r = s.challenge(challenge); r != (reply{}) {
			return r
		}
	}
}

// challenge sends a challenge and returns the client's response, or how the exchange ends instead.
func (s *session) challenge(text []byte) ([]byte, reply) {
	s.out.Raw("+ ").Raw(base64.StdEncoding.EncodeToString(text)).CRLF()
	line, err := s.dec.Line()
	if syntax, ok := errors.AsType[*wire.SyntaxError](err); ok {
		return nil, bad(syntax.Code, "%s", syntax.Text)
	}
	switch {
	case err != nil:
		s.lost(err, slow)
		return nil, reply{status: answered}
	case string(line) == "*":
		return nil, bad("", "the login was cancelled")
	}
	response := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	n, err := base64.StdEncoding.Strict().Decode(response, line)
	if err != nil {
		return nil, bad(codeClientBug, "the response is not base64")
	}
	return response[:n], reply{}
}

// logIn begins the session of an account. It ends with the login.
func (s *session) logIn(l account.Login) reply {
	s.account, s.owner = l.Account, mailbox.Owner(l.ID)
	s.whose.Store(uint64(l.ID))
	if !s.srv.Accounts.Stands(l.Account) { // it was changed since the login was judged, and End did not know of this session
		s.conn.bye(accountChanged)
	}
	if !l.Until.IsZero() {
		s.expiry = time.AfterFunc(time.Until(l.Until), func() { s.conn.bye(expired) })
	}
	s.pass().LoggedIn(uint64(l.ID))
	s.access = s.srv.Mailboxes.For(s.owner, Names{s.srv.Accounts})
	s.dec.SetLimits(wire.AfterLogin(s.srv.Limits.MessageSize))
	s.conn.loggedIn(true)
	s.log().Info("logged in", "by", l.By, "tls", s.conn.tlsName())
	return s.withCapabilities("logged in")
}

// loginFailed answers a login that failed. One failure too many ends the connection.
func (s *session) loginFailed(user string, err error) reply {
	r := s.loginReply(err)
	log := s.log().With("account", account.Shown(user))
	if r.code == codeServerBug {
		log.Error("login failed", "err", err)
	} else {
		log.Warn("login refused", "outcome", "refused", "reply", r.text, "err", err)
	}
	return r
}

func (s *session) loginReply(err error) reply {
	switch {
	case errors.Is(err, sasl.ErrSyntax):
		return bad(codeClientBug, "%s", sasl.ErrSyntax)
	case errors.Is(err, sasl.ErrBinding):
		return no(codeAuthentication, "%s", sasl.ErrBinding)
	case errors.Is(err, account.ErrGuessing):
		s.conn.bye(account.ErrGuessing.Error())
		return no(codeUnavailable, "%s", account.ErrGuessing)
	case errors.Is(err, account.ErrBusy):
		return no(codeUnavailable, "%s", account.ErrBusy)
	case errors.Is(err, account.ErrCredentials):
		if s.failed++; s.failed >= s.srv.Limits.FailedLogins {
			s.conn.bye(tooManyLogins)
		}
		return no(codeAuthentication, "%s", account.ErrCredentials)
	case s.ctx.Err() != nil || s.conn.reason() != "":
		return no(codeUnavailable, "the connection ends")
	}
	return no(codeServerBug, "the server failed to check the login; its log says why")
}

// unauthenticate is UNAUTHENTICATE (RFC 8437, 3 and 4.1): all is as before the login, but for TLS.
func (s *session) unauthenticate() reply {
	s.unselect()
	s.stopNotices()
	s.stopExpiry()
	s.account, s.owner, s.access, s.enabled, s.rules = account.Account{}, 0, nil, 0, nil
	s.whose.Store(0)
	s.pass().LoggedIn(0)
	s.dec.UTF8(false)
	s.out.UTF8(false)
	s.dec.SetLimits(wire.BeforeLogin())
	s.conn.loggedIn(false)
	r := s.withCapabilities("logged out; the connection goes on")
	if s.conn.packed == nil {
		return r
	}
	s.answer(r)
	if s.flush() != nil {
		s.left = true
	}
	s.conn.decompress()
	s.dec.Reset(s.conn)
	return reply{status: answered}
}

func (s *session) stopExpiry() {
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
}

// Names tells mailbox.Access of accounts.
type Names struct{ Accounts *account.Directory }

// Owner finds an account by its address.
func (n Names) Owner(address string) (mailbox.Owner, bool, error) {
	addr, err := envelope.ParseAddress(address)
	if err != nil {
		return 0, false, nil
	}
	a, err := n.Accounts.Get(addr)
	if errors.Is(err, account.ErrNotFound) {
		return 0, false, nil
	}
	return mailbox.Owner(a.ID), err == nil, err
}

// Address returns an account's address, or "" when there is none any more.
func (n Names) Address(o mailbox.Owner) (string, error) {
	a, err := n.Accounts.ByID(account.ID(o))
	if errors.Is(err, account.ErrNotFound) {
		return "", nil
	}
	return a.Address.String(), err
}
