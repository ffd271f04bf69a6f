// Package smtpd decides what mail may come in: listeners for other servers (MX), for
// people and programs that log in to send (Submission), and for a server in front of
// us (LMTP). What it answers with 250 is in the spool, durable; what it answers with
// anything else is not. A message's octets are kept as they came, after the trace
// fields that we put in front.
//
// Every peer is bounded in memory, time and number: Limits is the one table. A connection
// that waits for its peer costs some 11 KiB of heap and stack, 17 KiB with TLS. A message
// streams: whatever its size, its connection holds 32 KiB of it, 16 KiB of a header
// field, up to 64 KiB of a submission's header, and the store's draft of 128 KiB; one of
// few octets costs some 50 KiB in all, and none more than 300, besides half a KiB for each
// recipient. Of one that its sender keeps a copy of, the structure is read on the way: some
// KiB more, in the worst case 24 MiB (see package mime).
//
//	wire         octets to commands and content, and replies to octets: a package of its own
//	session      one connection: reads a command, runs it, replies; why it ends
//	commands     which there are, where they may be given, what they need
//	capability   what EHLO offers, and when
//	transaction  MAIL and RCPT; params is what may follow an address
//	submit       what is asked of our own users, and done for them
//	receive      DATA and BDAT; scan looks into the header, fields is what we put in front
//	login        AUTH
//	budget       what a peer may spend before it is sent away
//
// What is promised of the protocol, whatever a peer says:
//
//   - A transaction is one value. What ends it drops that whole, so nothing of one is left for the next.
//   - Octets of a message never run as commands: a refused chunk is read to its end, and where the end of a message or
//     the size of a chunk can be doubted, the connection ends with the reply.
//   - A message is accepted when it has come whole, and not before.
//   - Nothing that came in the clear is known after STARTTLS.
//   - A panic ends one session and is counted.
package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/gate"
	"postroad/internal/listen"
	"postroad/internal/store"
	"postroad/smtpd/wire"
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
	Get(addr envelope.Address) (account.Account, error)
	ByID(id account.ID) (account.Account, error)
	MayPost(list, from envelope.Address) (bool, error)
	Stands(a account.Account) bool
	Sending(a account.Account, configured account.Allowance) (*account.Sending, error)
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
	Logins   Logins      // for Submission
	TLS      *tls.Config // nil offers no STARTTLS
	Limits   Limits      // zero fields take their defaults

	Outgoing Outgoing // for Submission

	// Room reports whether an account has room for a message of so many octets, 0 when they are not known; nil is always.
	Room func(id account.ID, size int64) (bool, error)

	// RejectFull refuses mail for an account without room for good, instead of for now.
	RejectFull bool

	// Proxies are the peers that may say for whom they speak (XCLIENT, XFORWARD).
	Proxies []netip.Prefix

	// Gate is asked who may come in, and how often; nil lets everybody in. ProxyFrom are the peers whose connections begin
	// with a header of the PROXY protocol.
	Gate      *gate.Gate
	ProxyFrom []netip.Prefix

	// Flush makes mail that waits for a domain due now (ETRN), and returns for how many recipients there is some; by says in
	// the trace who wanted it. nil offers no ETRN. Routed reports whether a domain has a route of its own.
	Flush  func(ctx context.Context, domain, by string) (int, error)
	Routed func(domain string) bool

	// Accepted is called in the transaction that accepts a message, which may run again; nil is not called.
	Accepted func(store.Tx, *spool.Message, []spool.Recipient)

	NoSoliciting []string // solicitation classes that are not taken, as in net.example:ADV (RFC 3865)

	Log *slog.Logger
	Now func() time.Time // nil is time.Now
}

// Server answers on any number of listeners of one kind.
type Server struct {
	// Set by NewServer, never changed.
	Config
	kind        Kind
	implicitTLS bool
	commands    []command
	ctx         context.Context // ends when Shutdown begins: no login is looked at any more
	stop        context.CancelFunc

	panics  atomic.Int64
	flushes flushes
	group   listen.Group // connections, and sessions
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
	s := &Server{Config: c, kind: kind, implicitTLS: implicitTLS, commands: commandsOf(kind)}
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
		Enter: s.enter, ProxyFrom: s.ProxyFrom,
	}
	if !s.implicitTLS {
		o.Full = "421 4.3.2 too many connections, try again later\r\n"
		o.TooMany = "421 4.7.0 too many connections from your address\r\n"
	}
	return o
}

// serve is what happens to each connection.
func (s *Server) serve(raw *listen.Conn) {
	defer s.group.Ended()
	ses := newSession(s, raw)
	s.group.Add(ses) // where that is too late, the session sees it before its first command
	defer s.group.Remove(ses)
	ses.serve()
}

// banner is how a peer is greeted (RFC 5321, 4.2; RFC 2033, 4.1).
func (s *Server) banner() *wire.Reply {
	protocol := "ESMTP"
	if s.kind == LMTP {
		protocol = "LMTP"
	}
	return &wire.Reply{Code: 220, Text: s.Hostname + " " + protocol + " postroad"}
}

// End hangs up on who is logged in to an account; what is under way is not accepted.
func (s *Server) End(id account.ID) {
	for _, v := range s.group.Sessions() {
		if ses := v.(*session); ses.whose.Load() == uint64(id) {
			ses.endNow(replyAccountOver)
		}
	}
}

// Drop cuts off the connections of chosen addresses; what is under way there is not accepted.
func (s *Server) Drop(chosen func(netip.Addr) bool) { s.group.Drop(chosen) }

// Shutdown ends the server: no connection is accepted, idle ones are told 421 and
// closed, a transaction under way may finish until ctx is done; then what is left is cut
// off. It returns when all connections have ended, with ctx's error if some were cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	return s.group.Shutdown(ctx)
}
