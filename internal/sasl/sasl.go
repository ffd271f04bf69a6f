// Package sasl is the server's end of the mechanisms by which a client logs in: PLAIN
// (RFC 4616), LOGIN, and SCRAM with SHA-1 and SHA-256, with and without channel binding
// (RFC 5802, RFC 7677), OAUTHBEARER (RFC 7628), XOAUTH2 and EXTERNAL (RFC 4422); and the client's end of those by which
// we log in elsewhere. It knows neither a protocol nor an account: a mechanism takes the
// octets that a protocol has decoded, and asks the functions that it was given.
//
// What is promised: no password and no key is in an error, and how long a response takes
// to be judged does not depend on what is secret. A SCRAM dialogue looks the same for a
// user who does not exist, as far as the function that looks up credentials sees to that.
package sasl

import (
	"bytes"
	"errors"
	"unicode/utf8"
)

// The mechanisms' names (RFC 4422, 3.1).
const (
	Plain           = "PLAIN"
	Login           = "LOGIN"
	ScramSHA1       = "SCRAM-SHA-1"
	ScramSHA1Plus   = "SCRAM-SHA-1-PLUS"
	ScramSHA256     = "SCRAM-SHA-256"
	ScramSHA256Plus = "SCRAM-SHA-256-PLUS"
	OAuthBearer     = "OAUTHBEARER"
	XOAuth2         = "XOAUTH2"
	External        = "EXTERNAL"
)

// Errors of the mechanisms themselves; others are those of the functions they ask.
var (
	ErrSyntax  = errors.New("this is not what the mechanism says here")
	ErrBinding = errors.New("the login is not bound to this TLS connection")
)

// Server is the server's end of one exchange. Next takes the client's next response; nil
// stands for none, where the client sent no initial response. It returns the challenge to
// send, or done when the client is let in: nothing is to be sent then but the protocol's
// own success. An error ends the exchange.
type Server interface {
	Next(response []byte) (challenge []byte, done bool, err error)
}

// NewPlain returns the server's end of PLAIN (RFC 4616). identity is as whom the client
// wants to act, or empty; user and password hold no NUL and are not empty.
func NewPlain(check func(identity, user, password string) error) Server {
	return &plain{check: check}
}

type plain struct {
	check func(identity, user, password string) error
	asked bool
	over  bool
}

func (p *plain) Next(response []byte) ([]byte, bool, error) {
	if response == nil && !p.asked {
		p.asked = true
		return []byte{}, false, nil
	}
	parts := bytes.Split(response, []byte{0})
	if p.over || len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 ||
		!utf8.Valid(parts[0]) || !utf8.Valid(parts[1]) {
		return nil, false, ErrSyntax
	}
	p.over = true
	err := p.check(string(parts[0]), string(parts[1]), string(parts[2]))
	return nil, err == nil, err
}

// NewLogin returns the server's end of LOGIN, which has no RFC: it asks for the name,
// unless the client gave it at once, then for the password.
func NewLogin(check func(user, password string) error) Server { return &login{check: check} }

type login struct {
	check func(user, password string) error
	user  string
	named bool
	asked bool
	over  bool
}

func (l *login) Next(response []byte) ([]byte, bool, error) {
	switch {
	case response == nil && !l.asked:
		l.asked = true
		return []byte("Username:"), false, nil
	case l.over || len(response) == 0 || bytes.IndexByte(response, 0) >= 0:
		return nil, false, ErrSyntax
	case !l.named:
		if !utf8.Valid(response) {
			return nil, false, ErrSyntax
		}
		l.user, l.named, l.asked = string(response), true, true
		return []byte("Password:"), false, nil
	}
	l.over = true
	err := l.check(l.user, string(response))
	return nil, err == nil, err
}
