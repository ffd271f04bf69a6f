package imapd

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/account"
	"postroad/internal/gate"
	"postroad/internal/inflate"
	"postroad/internal/listen"
	"postroad/internal/mailbox"
	"postroad/internal/store"
)

// A session is what one client does. One goroutine at a time reads its commands and runs them, one after the other; it
// holds mu but while it waits for the client's next word. What is pushed meanwhile (IDLE, NOTIFY) is written by others who hold mu.
// Handlers are methods of the session: mu is theirs.
type session struct {
	// Set by newSession, never changed.
	srv    *Server
	conn   *conn
	dec    *wire.Decoder
	out    *wire.Encoder   // only what it has flushed is on its way
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	stale   atomic.Bool   // something was committed that the view of the selected mailbox has not followed
	pushing atomic.Bool   // a push is on its way
	pushes  atomic.Bool   // changes are to be told at once
	whose   atomic.Uint64 // the account's ID, for Server.End

	mu sync.Mutex // guards the rest

	failed int    // logins
	junk   int    // commands before login that were none
	left   bool   // nothing more is to be said
	tag    string // of the command under way
	name   string // likewise

	// Of who is logged in; zero before that.
	account account.Account
	owner   mailbox.Owner
	access  *mailbox.Access
	expiry  *time.Timer // ends the session with what it logged in by; nil when that does not expire

	enabled enabled
	sel     *selected // nil when no mailbox is selected
	idling  bool      // IDLE goes on: the next line ends it
	rules   *rules    // of NOTIFY; nil before one
	notices *notices  // nil when nothing is followed but the selected mailbox
}

// enabled is what the client has enabled (RFC 5161).
type enabled uint8

const (
	condStore  enabled = 1 << iota // RFC 7162; by ENABLE or by a command that implies it
	qresync                        // RFC 7162
	rev2                           // IMAP4rev2: RFC 9051
	utf8Accept                     // RFC 6855
	uidOnly                        // RFC 9586
	metadata                       // RFC 5464: changes of metadata are told
)

func (e enabled) has(what enabled) bool { return e&what != 0 }

// A selected is the selected mailbox as the client has been told of it.
type selected struct {
	view     *mailbox.View
	id       mailbox.ID
	readOnly bool
	gone     bool            // it was removed, by this session
	keywords int             // how many of the mailbox's were told
	recent   uint64          // how many messages were told to be
	result   *roaring.Bitmap // of SEARCH RETURN (SAVE); "$"
	held     bool            // the view knows of messages that are gone and whose EXPUNGE has to wait
	contexts []*searchContext
	own      own
	verified store.ID        // the large message that was found undamaged last
	mailbox  mailbox.Mailbox // as it was when it was opened

	changed *roaring.Bitmap // messages with new flags that are not told yet; nil for none
	moved   *roaring.Bitmap // new and changed messages of which contexts were not told yet; nil for none
	came    *roaring.Bitmap // the new ones of those
}

func newSession(s *Server, c *listen.Conn) *session {
	ses := &session{srv: s, conn: newConn(s, c)}
	ses.ctx, ses.cancel = context.WithCancel(s.ctx)
	ses.out = wire.NewEncoder(ses.conn)
	ses.conn.flush = ses.flush
	ses.dec = wire.NewDecoder(ses.conn, ses.proceed)
	return ses
}

// log is the server's log, with what is known of the client.
func (s *session) log() *slog.Logger {
	log := s.srv.Log.With("server", "imap", "peer", listen.Peer(s.conn.raw.RemoteAddr()))
	if s.owner != 0 {
		log = log.With("account", s.account.Address.String())
	}
	return log
}

// Leave is what a server that shuts down asks of each session.
func (s *session) Leave() { s.conn.bye(shuttingDown) }

// Why connections end.
const (
	shuttingDown   = "the server is shutting down"
	silent         = "nothing was heard from you for too long"
	slow           = "the command took too long to arrive"
	flood          = "that is more than a client may send"
	notIMAP        = "this is an IMAP server"
	tooManyLogins  = "too many failed logins"
	expired        = "the password that you logged in with has expired"
	accountChanged = "your account was changed, disabled or removed; log in again"
	loggedOut      = "logging out"
)

// serve begins a session.
func (s *session) serve() {
	s.mu.Lock()
	s.out.Raw("* OK [CAPABILITY ").Raw(s.capabilities()).Raw("] postroad is ready").CRLF()
	s.talk()
}

// talk runs the client's commands until one of the two ends the session. A client that says nothing for a while is
// waited for by another goroutine: this one's stack has grown with what it has done. mu is held.
func (s *session) talk() {
	for more := true; more; {
		err := s.await()
		if err == errStill {
			s.mu.Unlock()
			go s.rest()
			return
		}
		more = s.hear(err)
	}
	s.end()
}

// rest waits for the client's next word, with a stack as small as can be.
func (s *session) rest() {
	err := s.conn.await()
	s.mu.Lock()
	if s.hear(err) {
		s.talk()
	} else {
		s.end()
	}
}

// await returns nil when the client has begun to say something. Until then mu is free, and the session holds no buffer.
func (s *session) await() error {
	if s.dec.Buffered() > 0 {
		return nil
	}
	if !s.idling {
		s.name = ""
	}
	s.dec.Reset(s.conn) // gives up its buffer
	if err := s.flush(); err != nil {
		return err
	}
	s.conn.beginWait(s.srv.Limits.Idle)
	s.mu.Unlock()
	defer s.mu.Lock()
	return s.conn.awaitBriefly()
}

// hear runs what the client says next, and reports whether there may be more. err is how the wait for it ended.
func (s *session) hear(err error) bool {
	defer s.recover()
	if err != nil {
		return s.lost(err, silent)
	}
	s.conn.begin()
	if s.idling {
		s.endIdle()
	} else {
		s.step()
	}
	return !s.left && s.conn.reason() == ""
}

// step reads a command and runs it.
func (s *session) step() {
	cmd, err := s.dec.Command()
	if syntax, ok := errors.AsType[*wire.SyntaxError](err); ok {
		s.refuseSyntax(syntax)
	} else if err != nil {
		s.lost(err, slow)
	} else {
		s.run(&cmd)
	}
}

// recover ends a session whose handler has panicked, and nothing but it.
func (s *session) recover() {
	if err := recover(); err != nil {
		s.log().Error("the IMAP session ended by a panic", "command", s.name, "err", err, "stack", string(debug.Stack()))
		s.left = true
	}
}

// end says why the connection ends, if anybody has given a reason, and lets go of everything. mu is held.
func (s *session) end() {
	if why := s.conn.reason(); why != "" && !s.left {
		s.out.Raw("* BYE ").Text(why).CRLF()
		s.logBye(why)
	}
	s.flush()
	s.unselect()
	s.stopNotices()
	s.stopExpiry()
	s.cancel()
	s.mu.Unlock()
	s.conn.close()
	s.srv.group.Remove(s)
	s.srv.group.Ended()
}

// logBye tells the administrator what the client is told, so that "it threw me out" can be answered.
func (s *session) logBye(why string) {
	if why != shuttingDown {
		s.log().Info("the server ended an IMAP session", "why", why)
	}
}

// lost ends the session after the client could not be read or written to. It returns false.
func (s *session) lost(err error, late string) bool {
	switch {
	case errors.Is(err, errLeave): // somebody has said why
	case timedOut(err):
		s.conn.bye(late)
	case errors.Is(err, wire.ErrFlood):
		s.conn.bye(flood)
	case errors.Is(err, inflate.ErrCorrupt):
		s.conn.bye(inflate.ErrCorrupt.Error())
	default:
		s.left = true // nobody is there
	}
	return false
}

// broken reports whether nothing more can be sent.
func (s *session) broken() bool { return s.out.Err() != nil }

// proceed asks for a literal (RFC 9051, 4.3).
func (s *session) proceed() error {
	s.out.Raw("+ go on").CRLF()
	return s.flush()
}

// flush has all that was written on its way with the next wait.
func (s *session) flush() error {
	err := s.out.Flush()
	if err == nil && s.conn.packed != nil {
		err = s.conn.packed.Flush()
	}
	return err
}

// refuseSyntax answers what is no command. No EXPUNGE may be told: the client may mean it to be a FETCH.
func (s *session) refuseSyntax(e *wire.SyntaxError) {
	s.tag, s.name = e.Tag, ""
	s.finish(syntaxReply(e), false)
	s.countJunk()
}

// countJunk counts what was no command. Who has not logged in and goes on so does not speak IMAP.
func (s *session) countJunk() {
	if s.owner != 0 {
		return
	}
	if s.junk++; s.junk >= s.srv.Limits.BadCommands {
		_ = s.pass().Offend(gate.Junk)
		s.conn.bye(notIMAP)
	}
}

func syntaxReply(e *wire.SyntaxError) reply {
	if e.Status == "NO" {
		return no(e.Code, "%s", e.Text)
	}
	return bad(e.Code, "%s", e.Text)
}

// run runs a command, tells what happened meanwhile, and ends it.
func (s *session) run(cmd *wire.Command) {
	s.tag, s.name = cmd.Tag, cmd.Name
	s.conn.piecewise = true
	r := s.perform(cmd)
	if err := s.dec.Abandon(); err != nil {
		s.lost(err, slow)
	}
	s.finish(r, r.status != statusBad && !keepsNumbers(cmd.Args))
}

// finish tells what happened while a command ran, and answers it.
func (s *session) finish(r reply, expunge bool) {
	if r.status == answered {
		return
	}
	s.tell(expunge)
	s.answer(r)
}

// perform runs a command if it may be run now.
func (s *session) perform(cmd *wire.Command) reply {
	c, known := find(cmd.Name)
	switch {
	case !known || s.hidden(extension(cmd.Name)):
		return s.unknown()
	case c.in&s.state() == 0:
		return bad(codeClientBug, "%s", s.wrongState(c.in))
	}
	return c.run(s, cmd.Args)
}

// unknown answers a command that does not exist.
func (s *session) unknown() reply {
	s.countJunk()
	return bad(codeClientBug, "there is no such command")
}

// answer sends the tagged response.
func (s *session) answer(r reply) {
	s.out.Raw(s.tag).SP().Raw(r.status.String()).SP()
	if r.code != "" {
		s.out.Raw("[").Raw(r.code).Raw("] ")
	}
	if r.text == "" {
		s.out.Raw(s.name).Raw(" completed")
	} else {
		s.out.Text(r.text)
	}
	s.out.CRLF()
}

// keepsNumbers reports whether no EXPUNGE may be told in answer to a command: those that speak of messages by number,
// also in the keys of a UID SEARCH (RFC 9051, 7.5.1; RFC 5256, 3; RFC 7162, 3.2.10.2).
func keepsNumbers(args any) bool {
	switch c := args.(type) {
	case *wire.Fetch:
		return !c.UID
	case *wire.Store:
		return !c.UID
	case *wire.Search:
		return !c.UID || hasNumbers(&c.Key)
	case *wire.Sort:
		return !c.UID || hasNumbers(&c.Key)
	case *wire.Thread:
		return !c.UID || hasNumbers(&c.Key)
	}
	return false
}

// hasNumbers reports whether a key looks for messages by number.
func hasNumbers(k *wire.SearchKey) bool {
	if k.Op == wire.SearchSeq {
		return !k.Set.Saved
	}
	for i := range k.Keys {
		if hasNumbers(&k.Keys[i]) {
			return true
		}
	}
	return false
}
