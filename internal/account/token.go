package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Tokens tell whom a token of OAuth 2.0 was issued to. Any number of goroutines.
type Tokens interface {
	// User returns the name, which is an account's address, that a token stands for, or for the log why it opens
	// nothing here. An error is trouble of ours.
	User(ctx context.Context, token string) (name, why string, err error)
	// Scope is what tokens must be issued for, and Configuration the address of what the issuer says of itself (RFC 8414),
	// for clients that have no token; both may be empty.
	Scope() string
	Configuration() string
}

// token logs in by a token. Nobody guesses one, so that what others tried on the name does not matter.
func (e *exchange) token(identity, token string) error {
	e.user = identity
	if token == "" {
		return ErrCredentials // it asks what it needs
	}
	l, from := e.logins, e.client.From
	t, err := l.guard.EnterSafely(e.ctx, from, nameOf(identity))
	if err != nil {
		return err
	}
	w, err := l.tokenHolder(e.ctx, identity, token)
	if err != nil {
		return l.settle(e.ctx, t, token, err)
	}
	t.Drop()
	e.admit(w, "token")
	return nil
}

// tokenHolder returns whose token it is, if he may act as identity.
func (l *Logins) tokenHolder(ctx context.Context, identity, token string) (*holder, error) {
	name, why, err := l.Tokens.User(ctx, token)
	switch {
	case err != nil:
		return nil, err
	case why != "":
		return nil, fmt.Errorf("%w: %s", ErrCredentials, why)
	case !actsAsItself(identity, name):
		return nil, fmt.Errorf("%w: the token is another user's", ErrCredentials)
	}
	return l.enabled(name)
}

// enabled returns the account of a name whose bearer is known to be it. ErrCredentials.
func (l *Logins) enabled(name string) (*holder, error) {
	w, err := l.dir.holder(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("log in: %w", err)
	case w.ID == 0:
		return nil, fmt.Errorf("%w: there is no such account", ErrCredentials)
	case w.Disabled:
		return nil, fmt.Errorf("%w: the account is disabled", ErrCredentials)
	}
	return w, nil
}

// admit lets the client in by what cannot be guessed.
func (e *exchange) admit(w *holder, by string) {
	name := w.Address.String()
	e.user, e.login = name, Login{Account: w.Account, By: by}
	e.logins.guard.Welcome(e.client.From, name)
}

// refusal is what OAUTHBEARER tells of a token that opens nothing (RFC 7628, 3.2.2).
func (l *Logins) refusal(err error) []byte {
	return refusal(err, struct {
		Status        string `json:"status"`
		Scope         string `json:"scope,omitempty"`
		Configuration string `json:"openid-configuration,omitempty"`
	}{"invalid_token", l.Tokens.Scope(), l.Tokens.Configuration()})
}

// oldRefusal is what XOAUTH2 does.
func (l *Logins) oldRefusal(err error) []byte {
	return refusal(err, struct {
		Status  string `json:"status"`
		Schemes string `json:"schemes"`
		Scope   string `json:"scope,omitempty"`
	}{"401", "bearer", l.Tokens.Scope()})
}

func refusal(err error, said any) []byte {
	if !errors.Is(err, ErrCredentials) {
		return nil
	}
	b, err := json.Marshal(said)
	if err != nil {
		panic(fmt.Sprintf("account: a refusal of plain fields cannot be written: %v", err))
	}
	return b
}
