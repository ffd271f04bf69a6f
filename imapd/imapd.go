// Package imapd shows an account's mailboxes over IMAP4rev1 and IMAP4rev2 (RFC 3501, RFC 9051). What a mailbox is, and
// every rule about UIDs, flags and modseqs, is internal/mailbox's; the grammar is imapd/wire's; where the parts of a message
// are was found out by internal/mime when the message came.
//
//	conn        the way to a client: its layers, the time it has, why it ends
//	session     what one client does: its commands, one after the other
//	commands    which there are, where they may be given, and what answers them
//	reply       how they end
//	tell        what a client is told of what others did, and when
//	numbers     sequence numbers and sets
//	fetch       what a client reads; section and binary are the octets of it
//	store       flags; append, copy, replace and expunge are messages that come and go
//	search      which messages; sort and thread are in what order
//	list        the names that a client sees; mailboxes, acl, metadata and quota are what it does with them
//	notify      what happens elsewhere, told as it happens
//
// What is promised:
//
//   - BODY[] is the message as it was stored, octet for octet, and RFC822.SIZE its length. Of one that the disk has
//     damaged nothing is sent; the others are, and then NO.
//   - A sequence number means the message that the client was told it means: an EXPUNGE is told only where RFC 9051,
//     7.5.1 allows it, and no change is lost between two commands, before IDLE, or between two visits of a client that
//     resynchronises.
//   - A mailbox is reached by name through mailbox.Access alone, where one check says what the account may do; what is
//     hidden from it is answered as what is not there.
//   - A literal never becomes a command, whatever is wrong with the command it belongs to.
//   - Any syntax is answered, and the session lives; it ends with a word that says why, unless nothing can be sent.
//   - No transaction of the store is open, and no lock but the session's own is held, while something is written to a
//     connection. A client that pipelines is answered in order, and what it is owed is sent before it is waited for.
//   - No password goes over the network in the clear: only loopback may log in without TLS.
//
// What a session costs: in IDLE or between commands some 8 KiB of heap and stack, 14 KiB with TLS; with COMPRESS the
// window of what the client sends besides, 32 KiB at most. A command takes as much as it has octets, which is at most 1 MiB
// with its small literals and 8 KiB before the login, and while it runs two buffers of 4 and 32 KiB, which are lent;
// messages stream through them. What is compressed borrows 300 KiB from a flush to the next. All else that is bounded stands
// in Limits.
package imapd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"postroad/internal/account"
	"postroad/internal/gate"
	"postroad/internal/listen"
	"postroad/internal/mailbox"
	"postroad/internal/store"
)

// Config is what a server needs. All but Limits, TLS, Log and Now must be set.
type Config struct {
	Mailboxes *mailbox.Service
	Store     *store.Store // takes the bodies of APPEND
	Accounts  *account.Directory
	Logins    *account.Logins // nil: of Accounts, and this server's alone
	TLS       *tls.Config     // nil: no STARTTLS, and login from loopback only
	Limits    Limits
	Gate      *gate.Gate       // who may come in, and how often; nil lets everybody in
	ProxyFrom []netip.Prefix   // peers whose connections begin with a header of the PROXY protocol
	Log       *slog.Logger     // nil discards
	Now       func() time.Time // nil is time.Now
}

// Limits bound what a client may ask for; Connections and PerAddress are for each listener. Zero values mean what the
// comments say.
type Limits struct {
	Connections  int           // at once; 1,000. One more gets BYE
	PerAddress   int           // at once from one IPv4 address or IPv6 /64, but not from this machine; 100. One more gets BYE
	MessageSize  int64         // octets of an APPEND; 50 MB. More gets NO [TOOBIG]
	Login        time.Duration // from connect to login; 2 minutes. Then BYE
	Command      time.Duration // for a command to arrive, or the next piece of a message; 1 minute. Then BYE
	Idle         time.Duration // between commands, and in IDLE; 30 minutes (RFC 9051, 5.4). Then BYE
	Write        time.Duration // for one write to go out; 1 minute. Then the connection is closed
	Messages     int           // that one command may speak of (RFC 9738); 1,000,000. Of more it takes the last ones
	Compressed   int           // connections with COMPRESS at once; 1,000. One more gets NO [LIMIT]
	FailedLogins int           // of one connection; 5. The n-th is answered after n seconds, the last with BYE
	BadCommands  int           // before login; 3. Then BYE
}

// WithDefaults returns l with its zero fields set.
func (l Limits) WithDefaults() Limits {
	return Limits{
		Connections:  cmp.Or(l.Connections, 1000),
		PerAddress:   cmp.Or(l.PerAddress, 100),
		MessageSize:  cmp.Or(l.MessageSize, 50_000_000),
		Login:        cmp.Or(l.Login, 2*time.Minute),
		Command:      cmp.Or(l.Command, time.Minute),
		Idle:         cmp.Or(l.Idle, 30*time.Minute),
		Write:        cmp.Or(l.Write, time.Minute),
		Messages:     cmp.Or(l.Messages, 1_000_000),
		Compressed:   cmp.Or(l.Compressed, 1000),
		FailedLogins: cmp.Or(l.FailedLogins, 5),
		BadCommands:  cmp.Or(l.BadCommands, 3),
	}
}

// Server is an IMAP server for any number of listeners of one kind.
type Server struct {
	// Set by NewServer, never changed.
	Config
	implicitTLS bool
	ctx         context.Context // ends when sessions must not go on
	cancel      context.CancelFunc

	group       listen.Group
	compressors compressors
	pushes      chan struct{} // one for each that runs
}

// NewServer returns a server that starts nothing. With implicitTLS its listeners speak TLS from the first
// octet (port 993), else they offer STARTTLS when c.TLS is set (port 143).
func NewServer(implicitTLS bool, c Config) *Server {
	c.Limits = c.Limits.WithDefaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logins == nil {
		c.Logins = account.NewLogins(c.Accounts, account.NewGuard(c.Now, c.Accounts))
	}
	if c.TLS != nil { // who asks for another protocol by ALPN, as a browser does, is sent away
		c.TLS = c.TLS.Clone()
		c.TLS.NextProtos = []string{"imap"}
	}
	s := &Server{Config: c, implicitTLS: implicitTLS, pushes: make(chan struct{}, maxPushes)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

var errNoTLS = errors.New("a listener that begins with TLS needs a certificate")

// Serve accepts clients until Shutdown, and then returns nil. It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	if s.implicitTLS && s.TLS == nil {
		ln.Close()
		return errNoTLS
	}
	return s.group.Serve(ln, s.listenOptions(), s.greet)
}

func (s *Server) listenOptions() listen.Options {
	o := listen.Options{
		Total:        s.Limits.Connections,
		PerAddress:   s.Limits.PerAddress,
		WriteTimeout: s.Limits.Write,
		Enter:        s.enter,
		ProxyFrom:    s.ProxyFrom,
		Log:          s.Log,
	}
	if !s.implicitTLS {
		o.Full = "* BYE [UNAVAILABLE] too many connections; try again later\r\n"
		o.TooMany = "* BYE [UNAVAILABLE] too many connections from your address\r\n"
	}
	return o
}

// greet begins the session of a client, after the TLS handshake where that comes first. The session ends itself.
func (s *Server) greet(raw *listen.Conn) {
	ses := newSession(s, raw)
	if s.implicitTLS && ses.conn.startTLS() != nil {
		ses.cancel()
		raw.Close()
		s.group.Ended()
		return
	}
	if !s.group.Add(ses) {
		ses.Leave()
	}
	ses.serve()
}

// handshake makes TLS of a connection.
func (s *Server) handshake(conn net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.Limits.Command)
	defer cancel()
	tc := tls.Server(conn, s.TLS)
	err := tc.HandshakeContext(ctx)
	if err != nil {
		peer := listen.Peer(conn.RemoteAddr())
		s.Log.Info("TLS handshake failed", "server", "imap", "peer", peer, "outcome", "closed", "err", err)
	}
	return tc, err
}

// End ends the sessions of an account, each after the command that runs: it was disabled or removed, or has a
// new password.
func (s *Server) End(id account.ID) {
	for _, ses := range s.group.Sessions() {
		ses := ses.(*session)
		if account.ID(ses.whose.Load()) == id {
			ses.conn.bye(accountChanged)
		}
	}
}

// Drop cuts off the connections of chosen addresses; what is under way there is not accepted.
func (s *Server) Drop(chosen func(netip.Addr) bool) { s.group.Drop(chosen) }

// Shutdown closes the listeners, sends BYE to each client once the command it gave is done, and returns when all are
// gone. When ctx ends first, it closes the remaining connections and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.cancel()
	defer context.AfterFunc(ctx, s.cancel)()
	return s.group.Shutdown(ctx)
}
