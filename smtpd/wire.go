package smtpd

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"postroad/internal/listen"
)

// mode is what the octets that the engine reads are.
type mode int32

const (
	commands mode = iota
	inData        // content of DATA, up to its end mark
	inChunks      // content of BDAT, with BDAT commands between
)

// Bounds on what the engine may hold of a line. In a message the session takes the
// octets as they come, so that only a lost end of line adds up there.
const (
	commandRead = 4 << 10   // octets read at once while a command is expected
	dataLine    = 128 << 10 // octets that neither ended a line nor went to the session
)

// Replies that end a connection.
const (
	leaving      = "421 4.3.2 this server is going down, try again later"
	tooManyWords = "421 4.7.0 too many commands in a minute"
	tooManyFalse = "421 4.7.0 too many errors"
	accountOver  = "421 4.7.0 the account was changed, please connect and log in again"
	lostCount    = "421 4.7.0 a BDAT out of place: its octets cannot be told from commands"
	foreign      = "554 5.5.0 this is a mail server"
	bareEnd      = "550 5.6.11 the message has a bare CR or LF before what looks like its end"
)

// A wire is the connection as the engine sees it: always in the clear, since TLS is
// below. It gives the engine what comes in, watches for what the engine gets
// wrong, and puts its replies right.
type wire struct {
	net.Conn // the peer; TLS when visit.tls is set
	*visit
	engine *smtp.Server
	muted  bool // the peer has had its greeting
	done   chan struct{}
	once   sync.Once

	mode  atomic.Int32
	line  atomic.Int64 // octets read since the last line end, or since the session took some
	over  atomic.Bool  // nothing that the engine says or does counts any more
	ended atomic.Bool  // the end of DATA was read, in a form that the engine does not see
	bare  atomic.Bool  // a bare CR was read that the engine drops
	eof   atomic.Bool  // the engine read past the peer's last octet
	open  atomic.Bool  // a transaction is open
	chunk atomic.Bool  // a message in BDAT is not complete
	spoil atomic.Bool  // such a message was given up: the engine may mix up the next
	esmtp atomic.Bool  // the peer said EHLO

	loggedIn atomic.Uint64 // the account's id; 0 when nobody is

	// Owned by the goroutine that reads for the engine.
	window uint64 // the last eight octets
	bdat   bool   // BDAT was said, in whatever place
	fault  error  // of the first failed read; all later ones fail with it

	mu       sync.Mutex // guards what follows, and the order of replies
	partial  []byte     // a reply line that is not whole yet
	greeted  bool
	upgrade  bool // STARTTLS was answered
	injected bool // commands came behind STARTTLS in the clear
	last     bool // the next reply is the last
	counted  int  // replies since the minute began
	minute   time.Time
	errors   int // 4yz and 5yz replies
}

func newWire(v *visit, conn net.Conn, muted bool) *wire {
	w := &wire{Conn: conn, visit: v, muted: muted, done: make(chan struct{})}
	w.engine = newEngine(w)
	return w
}

// newEngine makes the engine of one connection. Its own limits and timeouts stay
// off: it counts lines inside messages too, and its timeouts do not move while data comes.
func newEngine(w *wire) *smtp.Server {
	e := smtp.NewServer(smtp.BackendFunc(w.newSession))
	e.Domain = w.srv.Hostname
	e.LMTP = w.srv.kind == LMTP
	e.MaxLineLength = 0
	e.MaxRecipients = w.srv.Limits.Recipients
	e.MaxMessageBytes = w.srv.Limits.MessageSize
	e.AllowInsecureAuth = true // the session decides: it knows of TLS and loopback
	e.EnableSMTPUTF8 = true
	e.EnableDSN = true
	e.ErrorLog = log.New(engineLog{w}, "", 0)
	if w.tls == nil {
		e.TLSConfig = w.srv.TLS
	}
	return e
}

// engineLog takes what the engine has to say: panics, and errors of connections.
type engineLog struct{ w *wire }

func (l engineLog) Write(p []byte) (int, error) {
	if !l.w.over.Load() {
		l.w.log.Error("the engine failed", "err", strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// run lets the engine serve the wire to its end.
func (w *wire) run() {
	w.raw.SetPace(listen.Pace{Idle: w.srv.Limits.CommandTimeout})
	w.engine.Serve(listen.One(w))
	<-w.done
}

// Close is the engine's goodbye. On the way to TLS the connection stays.
func (w *wire) Close() error {
	w.over.Store(true)
	defer w.once.Do(func() { close(w.done) })
	w.mu.Lock()
	upgrade := w.upgrade
	w.mu.Unlock()
	if upgrade {
		return nil
	}
	return w.Conn.Close()
}

// mayUpgrade reports whether the peer asked for TLS and is waiting for it. What it
// sent in the clear behind STARTTLS may be another's: then there is no TLS (RFC 3207, 6).
func (w *wire) mayUpgrade() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.injected {
		w.log.Warn("commands behind STARTTLS", "outcome", "closed")
	}
	return w.upgrade && !w.injected
}

// hangUp says reply, if the engine has not been cut off before, and closes.
func (w *wire) hangUp(reply string) {
	w.mu.Lock()
	w.cut(reply)
	w.mu.Unlock()
	w.Conn.Close()
}

// cut makes reply the last word. mu must be held; the caller closes.
func (w *wire) cut(reply string) {
	if !w.over.Swap(true) {
		w.log.Info("connection ended", "reply", reply)
		io.WriteString(w.Conn, reply+"\r\n")
	}
}

// Leave hangs up on a peer that has no transaction open and waits to be asked. Any other
// is told after the reply that ends its transaction.
func (w *wire) Leave() {
	if _, waiting := w.raw.Waiting(); waiting && !w.open.Load() {
		w.hangUp(leaving)
	}
}

// Read gives the engine octets from the peer.
func (w *wire) Read(p []byte) (int, error) {
	if err := w.readable(); err != nil {
		return 0, err
	}
	if mode(w.mode.Load()) == commands {
		p = p[:min(len(p), commandRead)]
	}
	n, err := w.Conn.Read(p)
	if w.window == 0 && isForeign(p[:n]) {
		w.hangUp(foreign)
		return 0, io.EOF
	}
	w.look(p[:n])
	if err != nil {
		w.eof.Store(errors.Is(err, io.EOF))
		w.fault = err
	}
	return n, err
}

// isForeign reports whether a peer's first octets are another protocol's. A web page can
// make a browser send a request to any port, with commands of ours in it.
func isForeign(p []byte) bool {
	line, _, _ := bytes.Cut(p, []byte("\n"))
	return bytes.Contains(line, []byte(" HTTP/")) || bytes.HasPrefix(line, []byte("SSH-")) ||
		bytes.HasPrefix(p, []byte{0x16, 0x03}) // a TLS handshake
}

// readable returns the error that a Read is to end with at once, if any.
func (w *wire) readable() error {
	m := mode(w.mode.Load())
	switch {
	case w.over.Load() || w.isUpgrading():
		return io.EOF
	case w.fault != nil:
		return w.fault
	case m == inData && w.ended.Load():
		// The engine would take what follows for content, and wait for ever.
		w.hangUp(bareEnd)
		return io.EOF
	case w.line.Load() > w.longest(m):
		w.fault = smtp.ErrTooLongLine
		return w.fault
	}
	return nil
}

func (w *wire) isUpgrading() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.upgrade
}

func (w *wire) longest(m mode) int64 {
	if m == commands {
		return int64(w.srv.Limits.Line)
	}
	return dataLine
}

// Signs in what is read, as they stand in the window.
const (
	signBDAT = 'B'<<24 | 'D'<<16 | 'A'<<8 | 'T'
	upper    = 0xdfdfdfdf // takes ASCII letters to upper case

	// CR CR LF . CR LF: the end of data by RFC 5321, which the engine misses as it
	// reads the two CR as content.
	signEnd = '\r'<<40 | '\r'<<32 | '\n'<<24 | '.'<<16 | '\r'<<8 | '\n'
	sixth   = 1<<48 - 1

	// LF . CR and no LF: the engine drops the dot and the CR.
	signDotCR = '\n'<<16 | '.'<<8 | '\r'
	third     = 1<<24 - 1
)

// look watches the octets that pass.
func (w *wire) look(p []byte) {
	window := w.window
	for _, c := range p {
		if window&third == signDotCR && c != '\n' {
			w.bare.Store(true)
		}
		window = window<<8 | uint64(c)
		if c == '\n' && window&sixth == signEnd {
			w.ended.Store(true)
		}
		if window&upper == signBDAT {
			w.bdat = true
		}
	}
	w.window = window
	if i := bytes.LastIndexByte(p, '\n'); i >= 0 {
		w.line.Store(int64(len(p) - i - 1))
	} else {
		w.line.Add(int64(len(p)))
	}
}

// beginMessage and endMessage enclose the content of a message. Signs that were seen
// before the beginning count: a peer that does not wait for 354 has sent some of it.
func (w *wire) beginMessage(m mode) {
	w.mode.Store(int32(m))
	w.raw.SetPace(listen.Pace{Idle: w.srv.Limits.DataTimeout, Rate: w.srv.Limits.DataRate})
}

func (w *wire) endMessage() {
	w.ended.Store(false)
	w.bare.Store(false)
	w.chunk.Store(false)
	w.mode.Store(int32(commands))
	w.raw.SetPace(listen.Pace{Idle: w.srv.Limits.CommandTimeout})
}

// took tells that the session has the octets read so far.
func (w *wire) took() { w.line.Store(0) }

// accepted tells that a message was accepted: the peer is doing what it came for.
func (w *wire) accepted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errors, w.counted = 0, 0
}

// Write takes the engine's replies, and passes them on line by line.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partial = append(w.partial, p...)
	for {
		line, rest, whole := bytes.Cut(w.partial, []byte("\r\n"))
		if !whole {
			return len(p), nil
		}
		w.reply(string(line))
		w.partial = append(w.partial[:0], rest...)
	}
}

// reply passes on one line of the engine's. mu must be held.
func (w *wire) reply(line string) {
	switch {
	case w.over.Load() || len(line) < 4:
		return
	case w.upgrade:
		// The engine's own handshake, which was denied its octets, and then commands.
		w.injected = w.injected || !strings.HasPrefix(line, "550 5.0.0 Handshake error")
		return
	case w.muted && !w.greeted:
		w.greeted = true
		return
	}
	w.greeted = true
	if end := w.verdict(line); end != "" {
		w.cut(end)
		w.Conn.Close()
		return
	}
	io.WriteString(w.Conn, w.amend(line)+"\r\n")
	if line[3] == ' ' {
		w.finish(line)
	}
}

// verdict returns the reply that ends the connection in the place of line, if any.
func (w *wire) verdict(line string) string {
	switch {
	case w.bdat && isLostBDAT(line):
		return lostCount
	case strings.HasPrefix(line, "500 5.5.1 Too many errors"):
		return tooManyFalse
	case line[3] == ' ' && isError(line):
		if w.errors++; w.errors > w.srv.Limits.Errors {
			return tooManyFalse
		}
	}
	return ""
}

// isError reports whether a reply counts against Limits.Errors. A recipient too many
// does not: the peer shall send it in its next transaction (RFC 5321, 4.5.3.1.10).
func isError(line string) bool {
	return (line[0] == '4' || line[0] == '5') && !strings.HasPrefix(line, "452 4.5.3")
}

// finish is what follows a reply.
func (w *wire) finish(line string) {
	switch {
	case strings.HasPrefix(line, "220 2.0.0 Ready to start TLS"):
		w.upgrade = true
		return
	case strings.HasPrefix(line, "250 2.0.0 Continue"):
		w.chunk.Store(true)
	case strings.HasPrefix(line, "221 ") || strings.HasPrefix(line, "421 ") || w.last:
		w.over.Store(true)
		w.Conn.Close()
		return
	}
	if w.tooFast() {
		w.cut(tooManyWords)
		w.Conn.Close()
	} else if !w.open.Load() && w.srv.group.Draining() {
		w.cut(leaving)
		w.Conn.Close()
	}
}

// tooFast counts a command, by its reply.
func (w *wire) tooFast() bool {
	if now := time.Now(); now.Sub(w.minute) > time.Minute {
		w.minute, w.counted = now, 0
	}
	w.counted++
	return w.counted > w.srv.Limits.CommandsPerMinute
}

// endWithReply makes the engine's next reply the last.
func (w *wire) endWithReply() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = true
}
