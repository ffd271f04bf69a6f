package account

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"

	"postroad/internal/envelope"
	"postroad/internal/sasl"
)

// ErrMechanism refuses a mechanism that is not offered.
var ErrMechanism = errors.New("there is no such way to log in here")

// Client is who wants to log in, as far as its connection tells.
type Client struct {
	From     netip.Addr    // invalid is this machine
	Bindings sasl.Bindings // of its TLS connection; empty in the clear
}

// Logins lets clients in: it knows the mechanisms, holds them against the directory, and
// slows down who guesses. The servers of all protocols share one. Any number of goroutines.
type Logins struct {
	dir   *Directory
	guard *Guard
}

// NewLogins returns the logins to a directory's accounts.
func NewLogins(d *Directory, g *Guard) *Logins { return &Logins{d, g} }

// Mechanisms are those to offer a client, the best first. Whether passwords may go over its connection at
// all is the protocol's to decide.
func (l *Logins) Mechanisms(c Client) []string {
	list := []string{sasl.ScramSHA256, sasl.Plain}
	if len(c.Bindings) > 0 {
		list = append([]string{sasl.ScramSHA256Plus}, list...)
	}
	return list
}

// LogIn returns the account that user (its address) and password open. A failure is
// answered late, but not after ctx ends. Errors: ErrCredentials; ErrGuessing and ErrBusy, of which
// nothing follows about the password; and others, which are trouble of ours.
func (l *Logins) LogIn(ctx context.Context, c Client, user, password string) (Account, error) {
	t, err := l.guard.Enter(ctx, c.From, nameOf(user))
	if err != nil {
		return Account{}, err
	}
	a, err := l.dir.Verify(ctx, user, password)
	return a, l.settle(ctx, t, password, err)
}

// settle tells the guard what became of a login.
func (l *Logins) settle(ctx context.Context, t *Try, password string, err error) error {
	switch {
	case err == nil:
		t.Succeeded()
	case errors.Is(err, ErrCredentials):
		pause(ctx, t.Failed(password)) // who has given up is answered at once, and does not read it
	default:
		t.Drop()
	}
	return err
}

// nameOf is what a user's name is guarded by: the account's address, if it can be one.
func nameOf(user string) string {
	addr, err := envelope.ParseAddress(sasl.Prepare(user))
	if err != nil {
		return user
	}
	return addr.Canonical().String()
}

// Begin begins an exchange; ctx ends with the connection. Besides those of Mechanisms there is
// sasl.Login, for clients of SMTP that know no other. ErrMechanism.
func (l *Logins) Begin(ctx context.Context, c Client, mechanism string) (Exchange, error) {
	e := &exchange{logins: l, ctx: ctx, client: c}
	switch {
	case mechanism == sasl.Plain:
		e.server = sasl.NewPlain(e.logInAs)
	case mechanism == sasl.Login:
		e.server = sasl.NewLogin(e.logIn)
	case mechanism == sasl.ScramSHA256, mechanism == sasl.ScramSHA256Plus && len(c.Bindings) > 0:
		e.server = sasl.NewScram(sasl.Scram{
			Lookup: e.credentials, Check: e.proven,
			Plus: mechanism == sasl.ScramSHA256Plus, Bindings: c.Bindings,
		})
	default:
		return nil, ErrMechanism
	}
	return e, nil
}

// Exchange is a login by a mechanism. It belongs to one goroutine. The errors of Next are those of LogIn,
// sasl.ErrSyntax and sasl.ErrBinding.
type Exchange interface {
	sasl.Server
	User() string     // the name that the client gave, for the log; may be empty
	Account() Account // who logged in, once Next has said done
}

type exchange struct {
	// Set by Begin, never changed.
	logins *Logins
	ctx    context.Context
	client Client
	server sasl.Server

	user    string
	stored  [sha256.Size]byte // what SCRAM's proof is held against
	account Account
}

func (e *exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	return e.server.Next(response)
}

func (e *exchange) User() string     { return e.user }
func (e *exchange) Account() Account { return e.account }

func (e *exchange) logIn(user, password string) error { return e.logInAs("", user, password) }

func (e *exchange) logInAs(identity, user, password string) (err error) {
	e.user = user
	if !actsAsItself(identity, user) {
		password = "" // nobody's: the refusal costs what a false password does
	}
	e.account, err = e.logins.LogIn(e.ctx, e.client, user, password)
	return err
}

// actsAsItself reports whether the authorization identity is the user's own, or not given (RFC 4616, 2).
func actsAsItself(identity, user string) bool {
	return identity == "" || nameOf(identity) == nameOf(user)
}

func (e *exchange) credentials(user string) (sasl.Credentials, error) {
	c, err := e.logins.dir.scramCredentials(user)
	e.user, e.stored = user, c.StoredKey
	return c, err
}

// proven ends a SCRAM dialogue. The account is read anew: it may have changed since it began.
func (e *exchange) proven(identity, user string, proven bool) error {
	t, err := e.logins.guard.Enter(e.ctx, e.client.From, nameOf(user))
	if err != nil {
		return err
	}
	a, rec, err := e.logins.dir.credentials(user)
	switch {
	case err != nil:
		err = fmt.Errorf("log in: %w", err)
	case !proven || !actsAsItself(identity, user) || rec.Disabled || !rec.Scram.readable() || [sha256.Size]byte(rec.Scram.Stored) != e.stored:
		err = ErrCredentials
	}
	if err = e.logins.settle(e.ctx, t, "", err); err == nil {
		e.account = a
	}
	return err
}
