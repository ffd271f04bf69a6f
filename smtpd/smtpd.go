// Package smtpd decides what mail may come in: listeners for other servers (MX), for
// people and programs that log in to send (Submission), and for a server in front of
// us (LMTP). What it answers with 250 is in the spool, durable; what it answers with
// anything else is not. A message's octets are kept as they came, after the trace
// fields that we put in front.
//
// Every peer is bounded in memory, time and number: Limits is the one table. A message
// streams: whatever its size, its connection holds 32 KiB of it, 16 KiB of a header
// field, up to 64 KiB of a submission's header, and the store's draft of 128 KiB.
//
// The protocol is spoken by go-smtp's server, one of its values for each connection,
// with a wire between it and the network: there every octet passes in the clear, so that
// what the engine gets wrong can be noticed, put right in the reply, or ended. The
// wire never parses a command: it looks for signs (BDAT was said; an end of data that
// the engine does not see) and hangs up where a doubt is left. STARTTLS ends the engine's
// life; the handshake is ours, and a new engine begins after it.
//
// BUG: A recipient of a bare <postmaster> is refused with 501 by the engine (RFC 5321, 4.5.1).
//
// BUG: A quoted local part with an @ in it is refused: the engine takes the quotes off
// before we see it, and "a@b"@c is then a@b@c, which is a relay trick.
//
// BUG: The engine takes command lines that end in a bare LF, any command that begins
// with STARTTLS, parameters glued to a path or given twice, and MAIL without a space
// before its parameters.
//
// BUG: SIZE above 4 GiB gets 501 (552 in RFC 1870). A fourth syntax error ends the
// connection, whatever Limits.Errors says.
//
// BUG: DELIVERBY, MT-PRIORITY, REQUIRETLS, BINARYMIME, HELP and ETRN are not offered.
//
// BUG: A BDAT that is out of place, of a bad form, or followed by RSET ends the
// connection, since the engine cannot find where its octets end.
package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/listen"
	"postroad/internal/store"
	"postroad/spool"
)

// Kind is whom a server is for.
type Kind int

// The kinds of servers.
const (
	MX         Kind = iota // other servers: mail for our domains only, from anyone
	Submission             // our accounts, logged in: mail to anywhere (RFC 6409)
	LMTP                   // a server in front of us: mail for our domains (RFC 2033)
)

// String is the kind's word in logs.
func (k Kind) String() string { return [...]string{"mx", "submission", "lmtp"}[k] }

// Bodies is what smtpd asks of the store.
type Bodies interface {
	NewDraft() *store.Draft
}

// Queue is what smtpd asks of the spool.
type Queue interface {
	Accept(m *spool.Message, rcpts []spool.Recipient, draft *store.Draft, with func(store.Tx) error) error
}

// Accounts is what smtpd asks of the directory.
type Accounts interface {
	IsLocal(domain string) (bool, error)
	Resolve(addr envelope.Address) ([]account.Target, error)
	MaySend(id account.ID, addr envelope.Address) (bool, error)
}

// Logins is how clients log in.
type Logins interface {
	Mechanisms(c account.Client) []string
	Begin(ctx context.Context, c account.Client, mechanism string) (account.Exchange, error)
}

// Config is what a server needs of the house. Servers may share one.
type Config struct {
	Hostname string // by which we greet and sign Received fields
	Store    Bodies
	Spool    Queue
	Accounts Accounts
	Logins   Logins                         // for Submission
	Full     func(account.ID) (bool, error) // whether an account has no room for mail; nil is never
	TLS      *tls.Config                    // nil offers no STARTTLS
	Limits   Limits                         // zero fields take their defaults
	Log      *slog.Logger
	Now      func() time.Time // nil is time.Now
}

// Server answers on any number of listeners of one kind.
type Server struct {
	// Set by NewServer, never changed.
	Config
	kind        Kind
	implicitTLS bool
	buffers     sync.Pool       // of *[bufferSize]byte, for messages on their way
	ctx         context.Context // ends when Shutdown begins: no login is looked at any more
	stop        context.CancelFunc

	group listen.Group // connections, and wires as its sessions
}

// NewServer returns a server that starts nothing. With implicitTLS its listeners
// speak TLS from the first octet (RFC 8314).
func NewServer(kind Kind, implicitTLS bool, c Config) *Server {
	c.Limits = c.Limits.WithDefaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.TLS != nil { // who asks for another protocol by ALPN, as a browser does, is sent away
		c.TLS = c.TLS.Clone()
		c.TLS.NextProtos = []string{"smtp", "esmtp"}
	}
	s := &Server{Config: c, kind: kind, implicitTLS: implicitTLS}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

var errNoTLS = errors.New("a listener that begins with TLS needs a certificate")

// Serve answers on ln, which it closes in the end, until Shutdown; then it returns nil.
func (s *Server) Serve(ln net.Listener) error {
	if s.implicitTLS && s.TLS == nil {
		ln.Close()
		return errNoTLS
	}
	return s.group.Serve(ln, s.listenOptions(), s.serve)
}

func (s *Server) listenOptions() listen.Options {
	o := listen.Options{
		Total: s.Limits.Connections, PerAddress: s.Limits.PerAddress,
		Pace: listen.Pace{Idle: s.Limits.CommandTimeout}, Log: s.Log,
	}
	if !s.implicitTLS {
		o.Full = "421 4.3.2 too many connections, try again later\r\n"
		o.TooMany = "421 4.7.0 too many connections from your address\r\n"
	}
	return o
}

// serve is the life of a connection.
func (s *Server) serve(raw *listen.Conn) {
	defer s.group.Ended()
	defer raw.Close()
	v := newVisit(s, raw)
	conn := net.Conn(raw)
	secured := s.implicitTLS
	for {
		if secured {
			tc, ok := s.handshake(v)
			if !ok {
				return
			}
			conn = tc
		}
		w := newWire(v, conn, secured && !s.implicitTLS)
		if !s.group.Add(w) {
			w.hangUp(leaving)
			return
		}
		w.run()
		s.group.Remove(w)
		if !w.mayUpgrade() {
			return
		}
		secured = true
	}
}

// handshake begins TLS on a connection.
func (s *Server) handshake(v *visit) (net.Conn, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), s.Limits.HandshakeTimeout)
	defer cancel()
	tc := tls.Server(v.raw, s.TLS)
	if err := tc.HandshakeContext(ctx); err != nil {
		v.log.Info("TLS handshake failed", "outcome", "closed", "err", err)
		return nil, false
	}
	state := tc.ConnectionState()
	v.tls = &state
	return tc, true
}

// End hangs up on who is logged in to an account; what is under way is not accepted.
func (s *Server) End(id account.ID) {
	for _, v := range s.group.Sessions() {
		if w := v.(*wire); w.loggedIn.Load() == uint64(id) {
			go w.hangUp(accountOver) // a goodbye may wait for a peer that does not read
		}
	}
}

// Shutdown ends the server: no connection is accepted, idle ones are told 421 and
// closed, a transaction under way may finish until ctx is done; then what is left is cut
// off. It returns when all connections have ended, with ctx's error if some were cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	return s.group.Shutdown(ctx)
}
