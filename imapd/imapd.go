// Package imapd shows an account's mailboxes over IMAP4rev1 and IMAP4rev2 (RFC 3501,
// RFC 9051). It speaks the protocol with go-imap's server and is thin: what a mailbox
// is, and every rule about UIDs, flags and modseqs, is internal/mailbox's; where the parts of a
// message are was found out by internal/mime when the message came.
//
//	wire        a client's connection: framing, limits, time-outs, TLS
//	command     what stands between wire and library: whole commands in one line, nothing else
//	library     the library's servers, and what they announce
//	session     what one client does: login, the selected mailbox, what it has been told
//	section     BODY[...] and BINARY[...] as ranges of the stored octets
//	convert     the library's types from and to ours; nothing else knows both
//
// What is promised:
//
//   - BODY[] is the message as it was stored, octet for octet, and RFC822.SIZE its length. Of one that the disk has
//     damaged nothing is sent: the others are, and then NO. (Of a message over 64 KiB, header fields are sent
//     unchecked when nothing else is asked for.)
//   - A sequence number means the message that the client was told it means: an EXPUNGE is told
//     only where RFC 9051, 7.5.1 allows it, and no change is lost between two commands or before IDLE.
//   - A literal never becomes a command, whatever is wrong with the command it belongs to.
//   - Memory per connection is bounded: a command is at most 48 KiB with its literals (8 KiB before
//     login), search keys stand at most 100 deep in one another, a message streams in and out through 32 KiB, a header that fields are
//     picked from is at most 1 MiB. No transaction of the store is open and no lock is held while
//     something is written to a connection.
//   - No password goes over the network in the clear: only loopback may log in without TLS.
//
// The library between the wire and the session has faults and gaps that cannot be mended from here:
//
// BUG: CONDSTORE, QRESYNC, QUOTA, SORT, THREAD, METADATA, MULTIAPPEND and other extensions that the
// library does not parse are missing and not announced.
//
// BUG: ENVELOPE shows Date in one fixed format, leaves out source routes, and puts a Message-ID or
// In-Reply-To without angle brackets into them.
//
// BUG: BODYSTRUCTURE has no Content-MD5; parameters come sorted by name.
//
// BUG: BINARY[n]<o.c> is answered without its <o>; a section that a message does not have is
// an empty string and not NIL.
//
// BUG: LITERAL- is announced along with LITERAL+, and UTF8=ACCEPT always.
//
// BUG: SEARCH RETURN (SAVE) on its own is answered with an ESEARCH that has ALL.
//
// BUG: NO and BAD carry one response code and no arguments, so BADCHARSET does not list the
// charsets.
package imapd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	"postroad/internal/account"
	"postroad/internal/listen"
	"postroad/internal/mailbox"
	"postroad/internal/store"
)

// Config is what a server needs. All but Limits, TLS, Log and Now must be set.
type Config struct {
	Mailboxes *mailbox.Service
	Store     *store.Store // takes the bodies of APPEND
	Accounts  *account.Directory
	TLS       *tls.Config // nil: no STARTTLS, and login from loopback only
	Limits    Limits
	Log       *slog.Logger     // nil discards
	Now       func() time.Time // nil is time.Now
}

// Limits bound what a client may ask for; Connections and PerAddress are for each listener. Zero values mean what the comments say.
type Limits struct {
	Connections  int           // at once; 1,000. One more gets BYE
	PerAddress   int           // at once from one IPv4 address or IPv6 /64, but not on a loopback listener; 100. One more gets BYE
	MessageSize  int64         // octets of an APPEND; 50 MB. More gets NO [TOOBIG]
	Login        time.Duration // from connect to login; 2 minutes. Then BYE
	Command      time.Duration // for a command to arrive, or the next piece of a message; 1 minute. Then BYE
	Idle         time.Duration // between commands, and in IDLE; 30 minutes (RFC 9051, 5.4). Then BYE
	Write        time.Duration // for one write to go out; 1 minute. Then the connection is closed
	FailedLogins int           // of one connection; 5. The n-th is answered after n seconds, the last with BYE
	BadCommands  int           // before login; 3. Then BYE
}

const (
	maxCommandBeforeLogin = 8 << 10
	maxCommand            = 48 << 10 // the library's own limit is 50 KiB
	maxDrain              = 1 << 20  // octets of a refused command that are read and thrown away
)

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
		FailedLogins: cmp.Or(l.FailedLogins, 5),
		BadCommands:  cmp.Or(l.BadCommands, 3),
	}
}

// Server is an IMAP server for any number of listeners of one kind.
type Server struct {
	// Set by NewServer, never changed.
	Config
	implicitTLS bool
	libs        libraries
	ctx         context.Context // ends when sessions must not go on
	cancel      context.CancelFunc

	group listen.Group // connections, and wires as its sessions
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
	if c.TLS != nil { // who asks for another protocol by ALPN, as a browser does, is sent away
		c.TLS = c.TLS.Clone()
		c.TLS.NextProtos = []string{"imap"}
	}
	s := &Server{Config: c, implicitTLS: implicitTLS}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.libs = newLibraries(s)
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
		Log:          s.Log,
	}
	if !s.implicitTLS {
		o.Full = "* BYE [UNAVAILABLE] too many connections; try again later\r\n"
		o.TooMany = "* BYE [UNAVAILABLE] too many connections from your address\r\n"
	}
	return o
}

// greet starts the session of a client, after the TLS handshake where that comes first.
func (s *Server) greet(conn *listen.Conn) {
	if !s.implicitTLS {
		s.start(newWire(s, conn))
		return
	}
	tc, err := s.handshake(conn)
	if err != nil {
		conn.Close()
		s.group.Ended()
		return
	}
	s.start(newWire(s, tc))
}

// handshake makes TLS of a connection.
func (s *Server) handshake(conn net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.Limits.Command)
	defer cancel()
	tc := tls.Server(conn, s.TLS)
	err := tc.HandshakeContext(ctx)
	if err != nil {
		s.Log.Info("TLS handshake failed", "server", "imap", "peer", listen.Peer(conn.RemoteAddr()), "outcome", "closed", "err", err)
	}
	return tc, err
}

// start hands a wire to the library, which closes it in the end.
func (s *Server) start(w *wire) {
	if !s.group.Add(w) {
		w.Leave()
	}
	s.libs.serve(w)
}

// ended is told by a wire that it was closed. The connection goes on when STARTTLS gave it a new wire.
func (s *Server) ended(w *wire, moved bool) {
	s.group.Remove(w)
	if !moved {
		s.group.Ended()
	}
}

// Shutdown closes the listeners, sends BYE to each client once the command it gave is done, and returns when all are
// gone. When ctx ends first, it closes the remaining connections and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.cancel()
	defer context.AfterFunc(ctx, s.cancel)()
	return s.group.Shutdown(ctx)
}
