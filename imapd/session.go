package imapd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-sasl"

	"postroad/internal/account"
	"postroad/internal/mailbox"
	"postroad/internal/store"
)

// A session is what one client does. The library calls it for one command at a time, in the
// goroutine that reads from the wire; only Idle runs beside that, and the next command waits for its end.
type session struct {
	// Set by newSession, never changed.
	srv    *Server
	wire   *wire
	conn   *imapserver.Conn
	ctx    context.Context // ends with the session
	cancel context.CancelFunc

	failed int // logins

	// Of who is logged in.
	account account.Account
	owner   mailbox.Owner
	log     *slog.Logger

	sel      *selected // nil when no mailbox is selected
	verified store.ID  // the message that was last found to be as it was stored

	idle sync.Mutex // held by Idle: it uses the rest of the session meanwhile
}

var (
	_ imapserver.SessionIMAP4rev2      = (*session)(nil)
	_ imapserver.SessionSASL           = (*session)(nil)
	_ imapserver.SessionUnauthenticate = (*session)(nil)
	_ imapserver.SessionAppendLimit    = (*session)(nil)
)

func newSession(c *imapserver.Conn) *session {
	w := c.NetConn().(*wire)
	s := &session{srv: w.srv, wire: w, conn: c}
	s.ctx, s.cancel = context.WithCancel(w.srv.ctx)
	s.log = w.log()
	w.quiet = s.awaitIdle
	return s
}

// awaitIdle returns when Idle does nothing any more. One that has not begun will find that it was stopped.
func (s *session) awaitIdle() {
	s.idle.Lock()
	defer s.idle.Unlock()
}

// Close ends the session.
func (s *session) Close() error {
	s.cancel()
	s.awaitIdle()
	s.unselect()
	return nil
}

// Login checks a password. Each failure on a connection is answered a second later than the one before.
func (s *session) Login(user, password string) error {
	a, err := s.srv.Accounts.Verify(s.ctx, user, password)
	switch {
	case errors.Is(err, account.ErrCredentials):
		return s.loginFailed(user)
	case errors.Is(err, account.ErrBusy):
		return no(imap.ResponseCodeUnavailable, account.ErrBusy.Error())
	case err != nil:
		return s.refuse("login", err)
	}
	s.account, s.owner = a, mailbox.Owner(a.ID)
	s.log = s.log.With("account", a.Address.String())
	s.log.Info("logged in", "tls", s.wire.tlsName())
	s.wire.loggedIn = true
	return nil
}

// maxLoggedUser is as much of a false name as the log takes.
const maxLoggedUser = 320

func (s *session) loginFailed(user string) error {
	s.failed++
	s.log.Warn("login refused", "account", user[:min(len(user), maxLoggedUser)], "outcome", "refused")
	wait(s.ctx, time.Duration(s.failed)*time.Second)
	if s.failed >= s.srv.Limits.FailedLogins {
		s.wire.bye("too many failed logins")
	}
	return imapserver.ErrAuthFailed
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// AuthenticateMechanisms are what is announced as AUTH=.
func (s *session) AuthenticateMechanisms() []string { return []string{"PLAIN"} }

// Authenticate begins an AUTHENTICATE.
func (s *session) Authenticate(mech string) (sasl.Server, error) {
	if mech != "PLAIN" {
		return nil, no("", "there is only AUTHENTICATE PLAIN")
	}
	return plain{s}, nil
}

// Unauthenticate forgets who is logged in (RFC 8437).
func (s *session) Unauthenticate() error {
	s.unselect()
	s.account, s.owner = account.Account{}, 0
	s.log = s.wire.log()
	s.wire.loggedOut()
	return nil
}

// A selected is the selected mailbox as the client has been told of it.
type selected struct {
	view     *mailbox.View
	wakes    chan struct{} // a value waits when there may be something to tell
	id       mailbox.ID
	readOnly bool
	gone     bool            // it was removed, by this session
	keywords int             // how many of the mailbox's were told
	result   *roaring.Bitmap // of SEARCH RETURN (SAVE); "$"
	own      own

	// Known to the view and not yet told.
	arrived bool
	changed []mailbox.Message
}

func (sel *selected) wake() {
	select {
	case sel.wakes <- struct{}{}:
	default:
	}
}

// Select opens a mailbox.
func (s *session) Select(name string, o *imap.SelectOptions) (*imap.SelectData, error) {
	mb, err := s.srv.Mailboxes.Get(s.owner, name)
	if err != nil {
		return nil, s.refuse("select", err)
	}
	sel := &selected{wakes: make(chan struct{}, 1), id: mb.ID, readOnly: o.ReadOnly}
	sel.view, mb, err = s.srv.Mailboxes.View(mb.ID, mailbox.ViewOptions{Changed: sel.wake})
	if err != nil {
		return nil, s.refuse("select", err)
	}
	words, err := s.srv.Mailboxes.Keywords(mb.ID)
	if err != nil {
		sel.view.Close()
		return nil, s.refuse("select", err)
	}
	sel.keywords = len(words)
	s.sel = sel
	return s.selectData(mb, words), nil
}

// Unselect closes the selected mailbox.
func (s *session) Unselect() error {
	s.unselect()
	return nil
}

func (s *session) unselect() {
	if s.sel != nil {
		s.sel.view.Close()
		s.sel = nil
	}
}

// mailbox returns the selected mailbox, or why the command cannot be done.
func (s *session) mailbox() (*selected, error) {
	if s.sel == nil || s.sel.gone {
		return nil, no(imap.ResponseCodeNonExistent, removed)
	}
	return s.sel, nil
}

// writable is mailbox for commands that change it.
func (s *session) writable() (*selected, error) {
	sel, err := s.mailbox()
	if err == nil && sel.readOnly {
		err = no("READ-ONLY", "the mailbox was opened with EXAMINE")
	}
	return sel, err
}

// Poll tells what happened since the last command.
func (s *session) Poll(w *imapserver.UpdateWriter, allowExpunge bool) error {
	s.awaitIdle()
	return s.tell(w, allowExpunge)
}

// Idle tells what happens until stop is closed.
func (s *session) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	s.idle.Lock()
	defer s.idle.Unlock()
	var changed <-chan struct{}
	if s.sel != nil && !s.sel.gone {
		changed = s.sel.wakes
	}
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := s.tell(w, true); err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		case <-changed:
		}
	}
}

// teller is where changes are told: the library's UpdateWriter.
type teller interface {
	WriteExpunge(seq uint32) error
	WriteNumMessages(n uint32) error
	WriteMailboxFlags(flags []imap.Flag) error
	WriteMessageFlags(seq uint32, uid imap.UID, flags []imap.Flag) error
}

// tell brings the client up to date. What cannot be read now is told another time.
func (s *session) tell(w teller, expunge bool) error {
	if s.sel == nil || s.sel.gone {
		return nil
	}
	c, err := s.sel.view.Sync(expunge)
	switch {
	case err != nil:
		s.log.Error("cannot read what changed in a mailbox", "mailbox", s.sel.id, "err", err)
		return nil
	case c.Removed:
		s.wire.bye(removed)
		return nil
	}
	if err := s.tellExpunged(w.WriteExpunge, c.Expunged.ToArray()); err != nil {
		return err
	}
	if err := s.take(c); err != nil {
		return err
	}
	if err := s.tellTaken(w); err != nil {
		return err
	}
	s.sel.own.forget()
	return nil
}

// tellExpunged tells of messages that are no longer in the view. All that came after them have greater UIDs, so the
// number of a message at the time is one more than the number of those below it that remain.
func (s *session) tellExpunged(write func(seq uint32) error, expunged []mailbox.UID) error {
	for _, uid := range expunged {
		if err := write(uint32(s.sel.view.UIDs().Rank(uid)) + 1); err != nil {
			return err
		}
	}
	return nil
}

// take notes what is to be told of changes, apart from the expunged messages.
func (s *session) take(c mailbox.Changes) error {
	sel := s.sel
	sel.arrived = sel.arrived || !c.New.IsEmpty()
	for m, err := range s.srv.Mailboxes.Messages(sel.id, c.Flags) {
		if err != nil {
			return s.refuse("read what changed", err)
		}
		if !sel.own.made(m) {
			sel.changed = append(sel.changed, m)
		}
	}
	return nil
}

// tellTaken tells what take noted.
func (s *session) tellTaken(w teller) error {
	sel := s.sel
	if sel.arrived {
		sel.arrived = false
		if err := w.WriteNumMessages(uint32(sel.view.UIDs().GetCardinality())); err != nil {
			return err
		}
	}
	if len(sel.changed) > 0 || sel.own.any() {
		if err := s.tellKeywords(w); err != nil {
			return err
		}
	}
	changed := sel.changed
	sel.changed = nil
	seqs := newSequence(sel.view.UIDs())
	for _, m := range changed {
		seq := seqs.of(m.UID)
		if seq == 0 {
			continue
		}
		if err := w.WriteMessageFlags(seq, imap.UID(m.UID), toFlags(nil, m.Flags)); err != nil {
			return err
		}
	}
	return nil
}

// tellKeywords tells of keywords that the mailbox did not have when they were last told.
func (s *session) tellKeywords(w teller) error {
	words, err := s.srv.Mailboxes.Keywords(s.sel.id)
	if err != nil || len(words) == s.sel.keywords {
		return nil // told when it can be read
	}
	s.sel.keywords = len(words)
	return w.WriteMailboxFlags(mailboxFlags(words))
}

// own are the flag changes that the session made itself and that its client knows of.
type own struct{ changes map[mailbox.UID]uint64 }

// note adds messages as they are after a change.
func (o *own) note(changed []mailbox.Message) {
	if o.changes == nil {
		o.changes = make(map[mailbox.UID]uint64, len(changed))
	}
	for _, m := range changed {
		o.changes[m.UID] = m.ModSeq
	}
}

// made reports whether m is as this session left it.
func (o *own) made(m mailbox.Message) bool { return o.changes[m.UID] == m.ModSeq }

func (o *own) any() bool { return len(o.changes) > 0 }

func (o *own) forget() { o.changes = nil }

// no is a tagged NO.
func no(code imap.ResponseCode, text string) error {
	return &imap.Error{Type: imap.StatusResponseTypeNo, Code: code, Text: text}
}

// bad is a tagged BAD.
func bad(text string) error {
	return &imap.Error{Type: imap.StatusResponseTypeBad, Code: imap.ResponseCodeClientBug, Text: text}
}

// refuse turns an error into what the client is told; what is not the client's affair is logged.
func (s *session) refuse(doing string, err error) error {
	if e := (*imap.Error)(nil); err == nil || errors.As(err, &e) {
		return err
	}
	for _, r := range refusals() {
		if errors.Is(err, r.err) {
			s.leaveRemoved()
			return no(r.code, r.text)
		}
	}
	if s.ctx.Err() != nil || s.wire.broken() {
		return no(imap.ResponseCodeUnavailable, "the connection ends")
	}
	s.log.Error("IMAP command failed", "doing", doing, "err", err)
	if errors.Is(err, store.ErrFailed) {
		return no(imap.ResponseCodeUnavailable, "the server cannot write at the moment; its administrator has to look")
	}
	return no(imap.ResponseCodeServerBug, fmt.Sprintf("the server failed to %s; its log says why", doing))
}

// leaveRemoved ends the session when somebody else has removed its mailbox.
func (s *session) leaveRemoved() {
	if s.sel == nil || s.sel.gone {
		return
	}
	if _, err := s.srv.Mailboxes.ByID(s.sel.id); errors.Is(err, mailbox.ErrNotFound) {
		s.wire.bye(removed)
	}
}

const removed = "the selected mailbox was removed"

type refusal struct {
	err  error
	code imap.ResponseCode
	text string
}

// refusals are the errors that a client can do something about.
func refusals() []refusal {
	return []refusal{
		{account.ErrNotFound, imap.ResponseCodeExpired, "your account was removed"},
		{mailbox.ErrNotFound, imap.ResponseCodeNonExistent, "there is no such mailbox"},
		{mailbox.ErrExists, imap.ResponseCodeAlreadyExists, "there is such a mailbox already"},
		{mailbox.ErrName, imap.ResponseCodeCannot, "that is not a possible mailbox name"},
		{mailbox.ErrInbox, imap.ResponseCodeCannot, "INBOX cannot be removed"},
		{mailbox.ErrRole, "USEATTR", "another mailbox has that special use already"},
		{mailbox.ErrFlag, imap.ResponseCodeCannot, "that is not a possible flag"},
		{mailbox.ErrExpunged, "EXPUNGEISSUED", "some of the messages are gone"},
		{mailbox.ErrOverQuota, imap.ResponseCodeOverQuota, "there is not enough room in your mailboxes"},
		{mailbox.ErrLimit, imap.ResponseCodeLimit, "that would be more than a mailbox or an account may have"},
		{store.ErrFull, imap.ResponseCodeUnavailable, "the server's disk is nearly full; try again later"},
		{store.ErrDamaged, imap.ResponseCodeCorruption, "the message is damaged on the server's disk"},
		{store.ErrNoBody, imap.ResponseCodeCorruption, "the message is missing on the server's disk"},
	}
}

// plain is AUTHENTICATE PLAIN (RFC 4616).
type plain struct{ s *session }

func (p plain) Next(response []byte) (challenge []byte, done bool, err error) {
	id, user, password, ok := parsePlain(response)
	switch {
	case response == nil:
		return []byte{}, false, nil
	case !ok:
		return nil, false, bad("the response is not one of PLAIN")
	case id != "" && id != user:
		return nil, false, no(imap.ResponseCodeAuthorizationFailed, "nobody may act for another account")
	}
	return nil, true, p.s.Login(user, password)
}
