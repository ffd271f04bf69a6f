package smtpd

import (
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/spool"
)

// maxHelo bounds the name that a peer gives, in octets (RFC 5321, 4.5.3.1.2).
const maxHelo = 255

// targetsPerRecipient bounds, on average, what aliases may make of one RCPT.
const targetsPerRecipient = 10

// session is what the engine asks, in the engine's goroutine; for BDAT and LMTP the
// message comes in another.
type session struct {
	// Set by newSession, never changed.
	*wire
	conn *smtp.Conn

	account *account.Account // who is logged in

	receiving sync.Mutex // held while a message is coming in

	mu sync.Mutex // guards what follows
	tx *transaction
}

// transaction is one MAIL with its recipients.
type transaction struct {
	// Set by MAIL, never changed.
	helo     string
	envelope envelope.Envelope

	given  []envelope.Address // as RCPT named them
	rcpts  []spool.Recipient  // what they lead to
	folded map[account.Target]bool
}

// newSession begins a session at EHLO, or refuses it.
func (w *wire) newSession(c *smtp.Conn) (smtp.Session, error) {
	if w.gone() {
		return nil, replyOver
	}
	if !validHelo(c.Hostname()) {
		return nil, replyBadHelo
	}
	return &session{wire: w, conn: c}, nil
}

// gone reports whether what the engine still does is about commands that were read
// before the connection's end.
func (w *wire) gone() bool { return w.over.Load() || w.isUpgrading() }

// validHelo takes any name that can stand in a Received field; many hosts do not know their own.
func validHelo(s string) bool {
	return s != "" && len(s) <= maxHelo && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._:[]", r)
	}) < 0
}

// Mail begins a transaction.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	tx, err := s.begin(from, opts)
	if err != nil {
		return s.refuse("sender refused", err, "from", from)
	}
	// The engine takes a message of exactly the size it announces for one too large,
	// so from here on sizes are ours to watch.
	s.engine.MaxMessageBytes = 0
	s.transactions++
	s.set(tx)
	return nil
}

func (s *session) begin(from string, opts *smtp.MailOptions) (*transaction, error) {
	switch {
	case s.gone():
		return nil, replyOver
	case s.srv.group.Draining():
		return nil, replyLeaving
	case s.spoil.Load():
		return nil, replySpoiled
	case s.current() != nil:
		return nil, replyNested
	case !validHelo(s.conn.Hostname()): // EHLO may be said again
		return nil, replyBadHelo
	case s.srv.kind == Submission && s.account == nil:
		return nil, replyLogIn
	case s.transactions >= s.srv.Limits.TransactionsPerConnection:
		return nil, replyTooOften
	}
	addr, err := sender(from, opts.UTF8)
	if err != nil {
		return nil, err
	}
	if err := s.maySend(addr); err != nil {
		return nil, err
	}
	return &transaction{
		helo:   s.conn.Hostname(),
		folded: map[account.Target]bool{},
		envelope: envelope.Envelope{
			From: addr, Body: envelope.Body(opts.Body), UTF8: opts.UTF8,
			Return: envelope.Return(opts.Return), ID: opts.EnvelopeID,
		},
	}, nil
}

// maySend holds a submitter to addresses of its own. The null reverse-path is
// nobody's: receipts are sent with it (RFC 8098, 2.1).
func (s *session) maySend(addr envelope.Address) error {
	if s.srv.kind != Submission || addr.IsZero() {
		return nil
	}
	ok, err := s.srv.Accounts.MaySend(s.account.ID, addr)
	if err == nil && !ok {
		err = reply(553, "5.7.1", "%s may not send as %s", s.account.Address, addr)
	}
	return err
}

// Rcpt adds a recipient to the transaction.
func (s *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	tx := s.current()
	if s.gone() || tx == nil {
		return replyOver
	}
	addr, err := s.recipient(to, tx.envelope.UTF8)
	if err == nil {
		err = s.add(tx, addr, opts)
	}
	if err != nil {
		return s.refuse("recipient refused", err, "from", tx.envelope.From.Path(), "to", to)
	}
	return nil
}

// recipient reads a forward-path and says whether mail for it may come in here.
func (s *session) recipient(to string, utf8 bool) (envelope.Address, error) {
	addr, err := forward(to, utf8)
	if err != nil || s.srv.kind == Submission {
		return addr, err
	}
	local, err := s.srv.Accounts.IsLocal(addr.Domain)
	if err == nil && !local {
		err = replyRelay
	}
	return addr, err
}

// add puts what addr leads to into the spool's list, each target once.
func (s *session) add(tx *transaction, addr envelope.Address, opts *smtp.RcptOptions) error {
	targets, err := s.srv.Accounts.Resolve(addr)
	if err == nil {
		err = s.room(targets)
	}
	if err != nil {
		return err
	}
	original, err := original(addr, targets, opts)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(tx.rcpts)+len(targets) > targetsPerRecipient*s.srv.Limits.Recipients {
		return replyTargets
	}
	tx.given = append(tx.given, addr)
	for _, t := range targets {
		tx.fold(t, envelope.Recipient{To: t.Address, Notify: notify(opts), Original: original})
	}
	return nil
}

// room refuses an address when nobody that it leads to has room. It is asked here, as
// mail that was accepted is delivered whatever the quota says.
func (s *session) room(targets []account.Target) error {
	if s.srv.Full == nil {
		return nil
	}
	for _, t := range targets {
		if t.Account == 0 {
			return nil
		}
		if full, err := s.srv.Full(t.Account); err != nil || !full {
			return err
		}
	}
	return replyQuota
}

// fold adds a target unless it is there.
func (tx *transaction) fold(t account.Target, r envelope.Recipient) {
	t.Address = t.Address.Canonical()
	if tx.folded[t] {
		return
	}
	tx.folded[t] = true
	tx.rcpts = append(tx.rcpts, spool.Recipient{
		Recipient: r, Account: uint64(t.Account), Mailbox: t.Mailbox, List: t.List, State: spool.Active,
	})
}

// original is ORCPT: as it was given, or the address that an alias hides (RFC 3461, 5.2.7.3).
func original(addr envelope.Address, targets []account.Target, opts *smtp.RcptOptions) (string, error) {
	if opts.OriginalRecipient != "" {
		if strings.ContainsFunc(opts.OriginalRecipient, unicode.IsControl) || !utf8.ValidString(opts.OriginalRecipient) {
			return "", replyORCPT
		}
		return strings.ToLower(string(opts.OriginalRecipientType)) + ";" + opts.OriginalRecipient, nil
	}
	if len(targets) == 1 && targets[0].Address.Canonical() == addr.Canonical() {
		return "", nil
	}
	if a, ascii := addr.ASCII(); ascii {
		return "rfc822;" + a.String(), nil
	}
	return "utf-8;" + addr.String(), nil
}

func notify(opts *smtp.RcptOptions) (n envelope.Notify) {
	for _, word := range opts.Notify {
		switch word {
		case smtp.DSNNotifyNever:
			n |= envelope.NotifyNever
		case smtp.DSNNotifyDelayed:
			n |= envelope.NotifyDelay
		case smtp.DSNNotifyFailure:
			n |= envelope.NotifyFailure
		case smtp.DSNNotifySuccess:
			n |= envelope.NotifySuccess
		}
	}
	return n
}

// Data takes the message of DATA, or of BDAT.
func (s *session) Data(r io.Reader) error { return s.receive(r) }

// LMTPData is Data for LMTP. All recipients are settled at once, by being in the
// spool or not, so the engine's fallback gives each the one outcome.
func (s *session) LMTPData(r io.Reader, _ smtp.StatusCollector) error { return s.receive(r) }

// Reset ends the transaction. The engine can report the fate of a message in BDAT
// that is given up as that of the next one, so there shall be no next one.
func (s *session) Reset() {
	if s.chunk.Load() {
		s.spoil.Store(true)
	}
	s.engine.MaxMessageBytes = s.srv.Limits.MessageSize
	s.set(nil)
}

// Logout ends the session, once its last message has been let go of.
func (s *session) Logout() error {
	// A panic here would end the process: the engine calls this outside its recover.
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("the end of a session failed", "panic", p)
		}
	}()
	s.set(nil)
	s.receiving.Lock()
	defer s.receiving.Unlock()
	return nil
}

func (s *session) set(tx *transaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tx = tx
	s.open.Store(tx != nil)
}

func (s *session) current() *transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tx
}

// refuse logs a refusal and returns the reply.
func (s *session) refuse(what string, err error, keys ...any) error {
	r := answer(s.log, err)
	for i := 1; i < len(keys); i += 2 {
		keys[i] = envelope.Sanitize(keys[i].(string), 320)
	}
	s.log.Info(what, append(keys, "outcome", "refused", "reply", text(r))...)
	return r
}
