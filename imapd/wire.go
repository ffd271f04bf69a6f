package imapd

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"log/slog"
	"postroad/internal/listen"
)

// A wire is a client's connection as the library has it. It stands between the two because the library
// cannot be trusted with framing: it runs the octets of a literal that it refused as commands, and drops the
// connection on an empty line. So the library reads whole commands only, each one line long:
// small literals have become quoted strings, and the message of an APPEND is
// let through when, and only when, the session has asked for it.
//
// Reading and all that belongs to it is the business of one goroutine, the library's for this
// connection, in which the session runs too. Writing may also come from the goroutine that idles.
type wire struct {
	net.Conn // TCP, or TLS on it

	// Set by newWire, never changed.
	srv      *Server
	secure   bool // TLS
	mayLogin bool // TLS or loopback

	// Owned by the goroutine that reads.
	in       *bufio.Reader
	ready    []byte // for the library, not yet read by it
	cmd      command
	literal  *literal // of cmd; nil when it has no message
	loginBy  time.Time
	loggedIn bool
	idling   bool
	bad      int    // commands before login that were none
	wasted   int64  // octets of the present command that were thrown away
	quiet    func() // returns when nothing idles any more

	closed sync.Once
	moved  bool // the connection goes on with another wire

	mu       sync.Mutex // guards the rest
	err      error      // why nothing more may be written
	muted    bool       // the next write is the library's greeting and is not sent
	fault    []byte     // how the library answers the present command if it does not understand it
	saveOnly bool       // the present command is a SEARCH whose result is not told
	waiting  bool       // for the next command
	farewell string     // why the connection ends before the next command; "" when it does not
}

// newWire makes the wire of a connection. Its writes are gathered below, by listen.Conn.
func newWire(s *Server, conn net.Conn) *wire {
	_, secure := conn.(*tls.Conn)
	w := &wire{
		Conn:     conn,
		srv:      s,
		secure:   secure,
		mayLogin: secure || listen.IsLocal(conn.RemoteAddr()),
		loginBy:  time.Now().Add(s.Limits.Login),
		quiet:    func() {},
	}
	w.in = bufio.NewReaderSize(conn, 4096)
	return w
}

// The wire keeps its own time; the library's deadlines are ignored.
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// Read gives the library its next octets.
func (w *wire) Read(p []byte) (int, error) {
	for len(w.ready) == 0 {
		var err error
		switch l := w.literal; {
		case l == nil:
			err = w.next()
		case !l.accepted && !l.refused:
			err = w.abandonLiteral()
		case l.left > 0:
			return w.readLiteral(p)
		default:
			err = w.endLiteral()
		}
		if err != nil && !errors.Is(err, errTrailing) {
			return 0, err
		}
	}
	n := copy(p, w.ready)
	w.ready = w.ready[n:]
	return n, nil
}

// next reads until there is something for the library.
func (w *wire) next() error {
	if err := w.await(); err != nil {
		return err
	}
	if w.idling {
		return w.endIdle()
	}
	w.quiet()
	w.wasted = 0
	cmd, err := w.readCommand()
	switch bad := (*badCommand)(nil); {
	case errors.As(err, &bad):
		return w.refuseCommand(bad)
	case err != nil:
		return w.lost(err)
	}
	w.cmd = cmd
	return w.run()
}

// await returns when the next command has begun to arrive, or io.EOF when the connection must end.
func (w *wire) await() error {
	if w.setWaiting(true) && w.in.Buffered() == 0 {
		_, err := w.in.Peek(1)
		w.timedOut(err, "nothing was heard from you for too long")
		if err != nil && !w.setWaiting(false) {
			return w.leave()
		}
		if err != nil {
			return err
		}
	}
	if !w.setWaiting(false) {
		return w.leave()
	}
	w.readWithin(w.srv.Limits.Command)
	return nil
}

// setWaiting notes whether the reader waits for a command, and reports whether the connection goes on.
func (w *wire) setWaiting(on bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = on
	if on && w.farewell == "" {
		w.readWithin(w.srv.Limits.Idle)
	}
	return w.farewell == ""
}

// readWithin sets the time that the next reads have; before login there is an end to all of them.
func (w *wire) readWithin(d time.Duration) {
	by := time.Now().Add(d)
	if !w.loggedIn && by.After(w.loginBy) {
		by = w.loginBy
	}
	w.Conn.SetReadDeadline(by)
}

// bye ends the connection before the client's next command. Any goroutine may call it.
func (w *wire) bye(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.farewell == "" {
		w.farewell = why
	}
	if w.waiting {
		w.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// log is the server's log, with what is known of the peer.
func (w *wire) log() *slog.Logger {
	return w.srv.Log.With("server", "imap", "peer", listen.Peer(w.RemoteAddr()))
}

// Leave is what a server that shuts down asks of each session.
func (w *wire) Leave() { w.bye("the server is shutting down") }

// timedOut makes a time-out the reason to end, if there is no better one.
func (w *wire) timedOut(err error, why string) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.bye(why)
	}
}

// leave says BYE with the reason that bye gave, and is the last to say anything.
func (w *wire) leave() error {
	w.mu.Lock()
	why := w.farewell
	w.mu.Unlock()
	w.say("* BYE " + why)
	w.abort(net.ErrClosed)
	return io.EOF
}

// lost ends the connection after a read in the middle of a command failed.
func (w *wire) lost(err error) error {
	w.timedOut(err, "the command took too long to arrive")
	if errors.Is(err, errFlood) {
		w.bye("that is more than a client may send")
	}
	w.mu.Lock()
	end := w.farewell != ""
	w.mu.Unlock()
	if end {
		return w.leave()
	}
	w.abort(err)
	return err
}

// say writes a line of our own.
func (w *wire) say(line string) { w.Conn.Write([]byte(line + "\r\n")) }

// libraryFault is how the library answers a command that it cannot parse. It should be BAD.
const libraryFault = " NO [SERVERBUG] Internal server error\r\n"

// Write takes what the library writes, which is whole lines except within messages.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	muted, fault, saveOnly, err := w.muted, w.fault, w.saveOnly, w.err
	w.muted = false
	w.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case muted || saveOnly && bytes.HasPrefix(p, []byte("* ESEARCH ")):
		return len(p), nil
	case bytes.Equal(p, fault):
		w.say(string(p[:len(p)-len(libraryFault)]) + " BAD [CLIENTBUG] the command was not understood")
		return len(p), nil
	}
	n, err := w.Conn.Write(p)
	if err != nil {
		w.abort(err)
	}
	return n, err
}

// broken reports whether nothing more can be written.
func (w *wire) broken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err != nil
}

// abort makes every further write fail: what was begun cannot be ended well.
func (w *wire) abort(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	if w.farewell == "" {
		w.farewell = "the connection is broken"
	}
}

// Close ends the connection. The library calls it, perhaps twice.
func (w *wire) Close() (err error) {
	w.closed.Do(func() {
		if !w.moved {
			err = w.Conn.Close()
		}
		w.srv.ended(w, w.moved)
	})
	return err
}
