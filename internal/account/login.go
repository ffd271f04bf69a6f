package account

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/sasl"
)

// ErrMechanism refuses a mechanism that is not offered.
var ErrMechanism = errors.New("there is no such way to log in here")

// Client is who wants to log in, as far as its connection tells.
type Client struct {
	Protocol    string            // SMTP or IMAP: what it wants to log in for
	From        netip.Addr        // invalid is this machine
	TLS         bool              // nobody else hears it
	Bindings    sasl.Bindings     // of its TLS connection; empty in the clear
	Certificate *x509.Certificate // that it has shown and an authority of ours has signed; nil is none
}

// Over is the client with what its TLS connection tells, on which shown was the server's certificate, or nil. The
// handshake has verified what the client has shown.
func (c Client) Over(state *tls.ConnectionState, shown *x509.Certificate) Client {
	c.TLS, c.Bindings = true, sasl.BindingsOf(state, shown)
	if len(state.VerifiedChains) > 0 {
		c.Certificate = state.PeerCertificates[0]
	}
	return c
}

// Logins lets clients in: it knows the mechanisms, holds them against the directory, and
// slows down who guesses. The servers of all protocols share one. Any number of goroutines.
type Logins struct {
	// Set before use, never changed.
	Tokens  Tokens   // nil: no tokens are taken
	Unbound []string // the protocols whose clients are not offered channel binding

	dir   *Directory
	guard *Guard
}

// NewLogins returns the logins to a directory's accounts.
func NewLogins(d *Directory, g *Guard) *Logins { return &Logins{dir: d, guard: g} }

// Mechanisms are those to offer a client, the best first. Whether passwords may go over its connection at
// all is the protocol's to decide.
func (l *Logins) Mechanisms(c Client) (list []string) {
	bound := len(l.bindings(c)) > 0
	tokens := l.Tokens != nil && c.TLS
	for _, x := range []struct {
		name string
		now  bool
	}{
		{sasl.External, c.Certificate != nil},
		{sasl.ScramSHA256Plus, bound},
		{sasl.ScramSHA256, true},
		{sasl.ScramSHA1Plus, bound && l.dir.sha1},
		{sasl.ScramSHA1, l.dir.sha1},
		{sasl.OAuthBearer, tokens},
		{sasl.XOAuth2, tokens},
		{sasl.Plain, true},
	} {
		if x.now {
			list = append(list, x.name)
		}
	}
	return list
}

// bindings are those that a client is offered to bind its login to.
func (l *Logins) bindings(c Client) sasl.Bindings {
	if slices.Contains(l.Unbound, c.Protocol) {
		return nil
	}
	return c.Bindings
}

// Login is what has let a client in: the account as it was when its login was judged, and when that ends.
type Login struct {
	Account
	Until time.Time // when the password it was by expires; zero is never
	By    string    // what opened the account, for the log: "password", "app password phone", "token" ...
}

// LogIn lets a client into the account that user (its address) and password open: its own, or an app password. A failure is
// answered late, but not after ctx ends. Errors: ErrCredentials; ErrGuessing and ErrBusy, of which
// nothing follows about the password; and others, which are trouble of ours.
func (l *Logins) LogIn(ctx context.Context, c Client, user, password string) (Login, error) {
	w, err := l.dir.holder(user)
	if err != nil {
		return Login{}, fmt.Errorf("log in: %w", err)
	}
	if used := w.app(password); used != nil {
		return l.welcome(ctx, c, w, used, password)
	}
	t, err := l.guard.Enter(ctx, c.From, nameOf(user))
	if err != nil {
		return Login{}, err
	}
	a, err := l.dir.Verify(ctx, user, password)
	return Login{Account: a, By: "password"}, l.settle(ctx, t, password, err)
}

// welcome lets a client in that has shown an app password. Nobody guesses one, so nothing that others tried can keep
// it out; and where it comes from is known from then on. One that does not open the account is no guess either.
func (l *Logins) welcome(ctx context.Context, c Client, w *holder, used *app, password string) (Login, error) {
	if err := used.opens(w.Account, c.Protocol, l.dir.now()); err != nil {
		pause(ctx, failureDelay)
		return Login{}, err
	}
	l.guard.Welcome(c.From, nameOf(w.Address.String()))
	l.dir.noteUse(w, used, c, password)
	return Login{w.Account, used.Expires, "app password " + used.Name}, nil
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

// maxShown is how many characters of a name a log takes.
const maxShown = 320

// Shown is what a log may tell of the name that a client gave: an address as it is, of other names nothing. People type
// a password where the name belongs.
func Shown(user string) string {
	if addr, err := envelope.ParseAddress(user); err != nil || addr.Domain == "" {
		return "(no address)"
	}
	return envelope.Sanitize(user, maxShown)
}

// Begin begins an exchange; ctx ends with the connection. Besides those of Mechanisms there is
// sasl.Login, for clients of SMTP that know no other. ErrMechanism.
func (l *Logins) Begin(ctx context.Context, c Client, mechanism string) (Exchange, error) {
	if mechanism != sasl.Login && !slices.Contains(l.Mechanisms(c), mechanism) {
		return nil, ErrMechanism
	}
	e := &exchange{logins: l, ctx: ctx, client: c}
	e.server = e.serverOf(mechanism)
	return e, nil
}

func (e *exchange) serverOf(mechanism string) sasl.Server {
	switch mechanism {
	case sasl.External:
		return sasl.NewExternal(e.certified)
	case sasl.OAuthBearer:
		return sasl.NewOAuthBearer(sasl.Bearer{Check: e.token, Refusal: e.logins.refusal})
	case sasl.XOAuth2:
		return sasl.NewXOAuth2(sasl.Bearer{Check: e.token, Refusal: e.logins.oldRefusal})
	case sasl.Plain:
		return sasl.NewPlain(e.logInAs)
	case sasl.Login:
		return sasl.NewLogin(e.logIn)
	}
	return e.scram(mechanism)
}

// Exchange is a login by a mechanism. It belongs to one goroutine. The errors of Next are those of LogIn,
// sasl.ErrSyntax and sasl.ErrBinding.
type Exchange interface {
	sasl.Server
	User() string // the name that the client gave, for the log; may be empty
	Login() Login // what let it in, once Next has said done
}

type exchange struct {
	// Set by Begin, never changed.
	logins *Logins
	ctx    context.Context
	client Client
	server sasl.Server

	user  string
	sha1  bool // of SCRAM
	login Login
}

func (e *exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	return e.server.Next(response)
}

func (e *exchange) User() string { return e.user }
func (e *exchange) Login() Login { return e.login }

func (e *exchange) logIn(user, password string) error { return e.logInAs("", user, password) }

func (e *exchange) logInAs(identity, user, password string) (err error) {
	e.user = user
	if !actsAsItself(identity, user) {
		password = "" // nobody's: the refusal costs what a false password does
	}
	e.login, err = e.logins.LogIn(e.ctx, e.client, user, password)
	return err
}

// actsAsItself reports whether the authorization identity is the user's own, or not given (RFC 4616, 2).
func actsAsItself(identity, user string) bool {
	return identity == "" || nameOf(identity) == nameOf(user)
}

func (e *exchange) scram(mechanism string) sasl.Server {
	o := sasl.Scram{Hash: sasl.SHA256, Lookup: e.credentials, Check: e.proven, Bindings: e.logins.bindings(e.client)}
	o.Plus = mechanism == sasl.ScramSHA256Plus || mechanism == sasl.ScramSHA1Plus
	if e.sha1 = mechanism == sasl.ScramSHA1 || mechanism == sasl.ScramSHA1Plus; e.sha1 {
		o.Hash = sasl.SHA1
	}
	return sasl.NewScram(o)
}

func (e *exchange) credentials(user string) (sasl.Credentials, error) {
	e.user = user
	w, err := e.logins.dir.holder(user)
	if err != nil {
		return sasl.Credentials{}, fmt.Errorf("look up credentials: %w", err)
	}
	return e.logins.dir.scramCredentials(w, user, e.sha1)
}

// proven ends a SCRAM dialogue. The account is read anew: it may have changed since it began.
func (e *exchange) proven(identity, user string, k *sasl.Keys) error {
	l, c := e.logins, e.client
	w, err := l.dir.holder(user)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	if !actsAsItself(identity, user) {
		k = nil
	}
	if used := w.appWith(k, e.sha1); used != nil {
		e.login, err = l.welcome(e.ctx, c, w, used, "")
		return err
	}
	t, err := l.guard.Enter(e.ctx, c.From, nameOf(user))
	if err != nil {
		return err
	}
	if w, err = l.dir.holder(user); err != nil {
		err = fmt.Errorf("log in: %w", err)
	} else if !w.ownPassword() || !hold(w.record.Keys.of(e.sha1), k) {
		err = ErrCredentials
	}
	if err = l.settle(e.ctx, t, "", err); err == nil {
		e.login = Login{Account: w.Account, By: "password"}
	}
	return err
}
