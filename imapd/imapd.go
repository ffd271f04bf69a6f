// Package imapd shows an account's mailboxes over IMAP4rev1 and IMAP4rev2 (RFC 3501,
// RFC 9051). It speaks the protocol with go-imap's server and is thin: what a mailbox
// is, and every rule about UIDs, flags and modseqs, is internal/mailbox's; where the parts of a
// message are was found out by internal/mime when the message came.
//
//	wire        a client's connection: framing, limits, time-outs, TLS
//	session     what one client does: login, the selected mailbox, what it has been told
//	section     BODY[...] and BINARY[...] as ranges of the stored octets
//	convert     the library's types from and to ours; nothing else knows both
//
// What is promised:
//
//   - BODY[] is the message as it was stored, octet for octet, and RFC822.SIZE its length.
//   - A sequence number means the message that the client was told it means: an EXPUNGE is told
//     only where RFC 9051, 7.5.1 allows it, and no change is lost between two commands or before IDLE.
//   - A literal never becomes a command, whatever is wrong with the command it belongs to.
//   - Memory per connection is bounded: a command is at most 48 KiB with its literals (8 KiB before
//     login), a message streams in and out through 32 KiB, a header that fields are
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
	"sync"
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
	Connections  int           // at once; 10,000. One more gets BYE
	PerAddress   int           // at once from one IPv4 address or IPv6 /64, but not on a loopback listener; 100. One more gets BYE
	MessageSize  int64         // octets of an APPEND; 50 MiB. More gets NO [TOOBIG]
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

func (l Limits) withDefaults() Limits {
	return Limits{
		Connections:  cmp.Or(l.Connections, 10_000),
		PerAddress:   cmp.Or(l.PerAddress, 100),
		MessageSize:  cmp.Or(l.MessageSize, 50<<20),
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

	conns sync.WaitGroup // one for each connection; added to under mu

	mu        sync.Mutex // guards the rest
	closing   bool
	listeners map[*listen.Listener]bool
	wires     map[*wire]bool
}

// NewServer returns a server that starts nothing. With implicitTLS its listeners speak TLS from the first
// octet (port 993), else they offer STARTTLS when c.TLS is set (port 143).
func NewServer(implicitTLS bool, c Config) *Server {
	c.Limits = c.Limits.withDefaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{Config: c, implicitTLS: implicitTLS, listeners: map[*listen.Listener]bool{}, wires: map[*wire]bool{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.libs = newLibraries(s)
	return s
}

// errShutDown is Serve's error on a server that was shut down before.
var errShutDown = errors.New("the IMAP server has been shut down")

// Serve accepts clients until Shutdown, and then returns nil. It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	l := listen.New(ln, s.listenOptions(ln))
	defer l.Close()
	if !s.add(l) {
		return errShutDown
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return s.stopped(err)
		}
		if !s.join() {
			conn.Close()
			continue
		}
		go s.greet(conn)
	}
}

// listenOptions are the limits of a listener. On one that only this machine reaches, all clients have one address.
func (s *Server) listenOptions(ln net.Listener) listen.Options {
	o := listen.Options{
		Total:        s.Limits.Connections,
		PerAddress:   s.Limits.PerAddress,
		WriteTimeout: s.Limits.Write,
		Log:          s.Log,
	}
	if isLocal(ln.Addr()) {
		o.PerAddress = 0
	}
	if !s.implicitTLS {
		o.Full = "* BYE [UNAVAILABLE] too many connections; try again later\r\n"
		o.TooMany = "* BYE [UNAVAILABLE] too many connections from your address\r\n"
	}
	return o
}

// isLocal reports whether an address is one that only this machine reaches.
func isLocal(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}

func (s *Server) add(l *listen.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.listeners[l] = true
	}
	return !s.closing
}

// stopped is Serve's result after accepting ended.
func (s *Server) stopped(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil
	}
	return err
}

// join counts a connection in, unless the server is closing.
func (s *Server) join() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.conns.Add(1)
	}
	return !s.closing
}

// greet starts the session of a client, after the TLS handshake where that comes first.
func (s *Server) greet(conn net.Conn) {
	if !s.implicitTLS {
		s.start(newWire(s, conn))
		return
	}
	tc, err := s.handshake(conn)
	if err != nil {
		s.Log.Debug("TLS handshake failed", "peer", conn.RemoteAddr(), "err", err)
		conn.Close()
		s.conns.Done()
		return
	}
	s.start(newWire(s, tc))
}

// handshake makes TLS of a connection.
func (s *Server) handshake(conn net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.Limits.Command)
	defer cancel()
	tc := tls.Server(conn, s.TLS)
	return tc, tc.HandshakeContext(ctx)
}

// start hands a wire to the library, which closes it in the end.
func (s *Server) start(w *wire) {
	s.mu.Lock()
	s.wires[w] = true
	closing := s.closing
	s.mu.Unlock()
	if closing {
		w.bye(shuttingDown)
	}
	s.libs.serve(w)
}

const shuttingDown = "the server is shutting down"

// ended is told by a wire that it was closed. The connection goes on when STARTTLS gave it a new wire.
func (s *Server) ended(w *wire, moved bool) {
	s.mu.Lock()
	delete(s.wires, w)
	s.mu.Unlock()
	if !moved {
		s.conns.Done()
	}
}

// Shutdown closes the listeners, sends BYE to each client once the command it gave is done, and returns when all are
// gone. When ctx ends first, it closes the remaining connections and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.cancel()
	listeners := s.close()
	gone := make(chan struct{})
	go func() { s.conns.Wait(); close(gone) }()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	for l := range listeners {
		for _, conn := range l.Conns() {
			conn.Abort()
		}
	}
	<-gone
	return ctx.Err()
}

// close ends accepting, and the sessions when they next wait for a command.
func (s *Server) close() map[*listen.Listener]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	for w := range s.wires {
		w.bye(shuttingDown)
	}
	return s.listeners
}
