package smtpd

import (
	"strings"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/gate"
	"postroad/smtpd/wire"
	"postroad/spool"
)

// targetsPerRecipient bounds, on average, what aliases may make of one RCPT.
const targetsPerRecipient = 10

// A transaction is one MAIL with its recipients, and its message as far as it has come.
type transaction struct {
	origin   origin    // whose the message is
	outgoing *outgoing // nil on other listeners than submission
	envelope envelope.Envelope
	size     int64              // octets that the sender declared; 0 for nothing
	given    []envelope.Address // as RCPT named them
	rcpts    []spool.Recipient  // what they lead to
	folded   map[place]bool
	ours     bool     // the last of given is an address whose Delivered-To field is ours to put
	message  *message // nil before its first octet
	refused  bool     // recipients were named, and all were refused
}

// underWay reports whether a message may still come of it: not when nobody was accepted of those who were asked for.
func (tx *transaction) underWay() bool { return tx != nil && !tx.refused }

// discard gives up what has come of the message.
func (tx *transaction) discard() {
	if tx.message != nil {
		tx.message.discard()
	}
}

// mail is MAIL: it begins a transaction.
func (s *session) mail(arg string) *wire.Reply {
	tx, ok, err := s.begin(arg)
	if err != nil {
		return s.refuse("sender refused", err, "from", pathIn(arg))
	}
	s.budget.transactions++
	s.tx = tx
	return ok
}

// begin returns a transaction and what is said of it.
func (s *session) begin(arg string) (*transaction, *wire.Reply, error) {
	if why := s.why(); why != nil {
		return nil, nil, why
	}
	if s.budget.transactions >= s.srv.Limits.TransactionsPerConnection {
		return nil, nil, replyTooOften
	}
	path, params, err := wire.Path(arg, "FROM:")
	if err != nil {
		return nil, nil, err
	}
	tx := &transaction{origin: origin{s.peer, s.hello}}
	if s.forwarded != nil {
		tx.origin = *s.forwarded
	}
	if err := s.offer().mail(&tx.envelope, params); err != nil {
		return nil, nil, err
	}
	tx.size = declaredSize(params)
	if tx.envelope.From, err = sender(path, tx.envelope.UTF8); err != nil {
		return nil, nil, err
	}
	if err := s.maySend(tx.envelope.From); err != nil {
		return nil, nil, err
	}
	if tx.outgoing, err = s.send(); err != nil {
		return nil, nil, err
	}
	return tx, mailReply(&tx.envelope, params), s.pass.Mail()
}

// sender reads a reverse-path.
func sender(path string, utf8 bool) (envelope.Address, error) {
	if !utf8 && !envelope.IsASCII(path) {
		return envelope.Address{}, replySenderUTF8
	}
	addr, err := envelope.ParsePath(path)
	switch {
	case err != nil:
		return addr, reply(501, "5.1.7", "%s", err)
	case addr.Domain == "" && !addr.IsZero():
		return addr, reply(501, "5.1.7", "a sender has a domain")
	}
	return addr, nil
}

// maySend holds a submitter to addresses of its own (RFC 6409, 6.1). The null reverse-path is
// nobody's: receipts are sent with it (RFC 8098, 2.1).
func (s *session) maySend(addr envelope.Address) error {
	if s.srv.kind != Submission || addr.IsZero() {
		return nil
	}
	ok, err := s.srv.Accounts.MaySend(s.account.ID, addr)
	if err == nil && !ok {
		err = reply(550, "5.7.1", "%s may not send as %s", s.account.Address, addr)
	}
	return err
}

// rcpt is RCPT: it adds a recipient to the transaction.
func (s *session) rcpt(arg string) *wire.Reply {
	if len(s.tx.given) >= s.srv.Limits.Recipients {
		return replyTooManyRecipients
	}
	if s.tx.message != nil {
		return replyMidMessage
	}
	err := s.addRecipient(arg)
	if s.tx.refused = len(s.tx.given) == 0; err != nil {
		return s.refuseRecipient(arg, err)
	}
	return replyRecipient
}

// pathIn is the path in an argument of MAIL or RCPT, for the log: the argument may be malformed.
func pathIn(arg string) string {
	_, path, _ := strings.Cut(arg, ":")
	path, _, _ = strings.Cut(strings.TrimLeft(path, " "), " ")
	return path
}

// refuseRecipient returns the reply to a recipient that is not taken. Who looks for those that exist is sent away.
func (s *session) refuseRecipient(arg string, err error) *wire.Reply {
	r := s.refuse("recipient refused", err, "from", s.tx.envelope.From.Path(), "to", pathIn(arg))
	if r == replyUnknown {
		if why := s.offend(gate.Probe); why != nil {
			return why
		}
	}
	return r
}

func (s *session) addRecipient(arg string) error {
	path, params, err := wire.Path(arg, "TO:")
	if err != nil {
		return err
	}
	var r envelope.Recipient
	if err := s.offer().rcpt(&r, params); err != nil {
		return err
	}
	addr, err := s.recipient(path)
	if err != nil {
		return err
	}
	if err := s.pass.Rcpt(); err != nil {
		return err
	}
	return s.add(addr, r)
}

// recipient reads a forward-path and says whether mail for it may come in here.
func (s *session) recipient(path string) (envelope.Address, error) {
	addr, err := forward(path, s.tx.envelope.UTF8)
	if err != nil || addr.Domain == "" || s.srv.kind == Submission && isQualified(addr.Domain) {
		return addr, err
	}
	local, err := s.srv.Accounts.IsLocal(addr.Domain)
	switch {
	case err != nil || local:
		return addr, err
	case s.srv.kind != Submission:
		return addr, replyRelay
	case s.srv.Routed != nil && s.srv.Routed(addr.Domain):
		return addr, nil
	}
	return addr, reply(554, "5.1.2", "the domain %s is not whole: write it as in host.example", addr.Domain)
}

// isQualified reports whether a domain can be meant for the world: a single label is never (RFC 6409, 4.2).
func isQualified(domain string) bool { return strings.ContainsAny(domain, ".[") }

// forward reads a forward-path. A postmaster without domain is ours (RFC 5321, 4.5.1).
func forward(path string, utf8 bool) (envelope.Address, error) {
	if !utf8 && !envelope.IsASCII(path) {
		return envelope.Address{}, replyNeedUTF8
	}
	addr, err := envelope.ParsePath(path)
	switch {
	case err != nil:
		return addr, reply(501, "5.1.3", "%s", err)
	case addr.IsZero():
		return addr, replyNobody
	}
	return addr, nil
}

// add puts what addr leads to into the spool's list, each target once. Of several none reports success: who asked for
// that is told that the address was expanded (RFC 3461, 5.2.7.3).
func (s *session) add(addr envelope.Address, r envelope.Recipient) error {
	targets, err := s.srv.Accounts.Resolve(addr)
	if err == nil {
		err = s.mayPost(targets)
	}
	if err == nil {
		err = s.mayReturn(targets)
	}
	if err == nil {
		err = sameOwner(addr, r.ValidSince, targets, s.srv.Accounts.ByID)
	}
	if err == nil {
		err = s.room(targets)
	}
	if err != nil {
		return err
	}
	tx := s.tx
	if len(tx.rcpts)+len(targets) > targetsPerRecipient*s.srv.Limits.Recipients {
		return replyTargets
	}
	if err := tx.outgoing.to(addr); err != nil {
		return err
	}
	if r.Original == "" {
		r.Original = original(addr, targets)
	}
	tx.given = append(tx.given, addr)
	tx.ours = isOurs(addr, targets)
	if len(targets) > 1 {
		tx.expanded(addr, &r)
	}
	for _, t := range targets {
		tx.fold(addr, t, r)
	}
	return nil
}

// room refuses an address when nobody that it leads to has room for as much as was declared. It is asked here, as mail
// that was accepted is delivered whatever the quota says.
func (s *session) room(targets []account.Target) error {
	if s.srv.Room == nil {
		return nil
	}
	for _, t := range targets {
		if t.Account == 0 {
			return nil
		}
		if room, err := s.srv.Room(t.Account, s.tx.size); err != nil || room {
			return err
		}
	}
	if s.srv.RejectFull {
		return replyQuotaForGood
	}
	return replyQuota
}

// expanded leaves the report of success that r asks for to a recipient that stands for addr itself.
func (tx *transaction) expanded(addr envelope.Address, r *envelope.Recipient) {
	if !r.Notify.Wants(envelope.NotifySuccess) || tx.envelope.From.IsZero() {
		return
	}
	tx.rcpts = append(tx.rcpts, spool.Recipient{
		Recipient: envelope.Recipient{To: addr, Notify: envelope.NotifySuccess, Original: r.Original}, Expanded: true, State: spool.Active,
	})
	r.Notify = r.Notify.WithoutSuccess()
}

// place is where a target's copy goes, whatever leads there.
type place struct {
	account account.ID
	address envelope.Address // canonical
	mailbox string
	list    bool
}

// fold adds a target of addr unless it is there. What the sender knows of the owner of addr says nothing about others to
// whom it leads (RFC 7293, 8).
func (tx *transaction) fold(addr envelope.Address, t account.Target, r envelope.Recipient) {
	r.To = t.Address
	at := place{t.Account, t.Address.Canonical(), t.Mailbox, t.List}
	if t.Account == 0 && at.address != addr.Canonical() {
		r.ValidSince, r.ValidContinue = time.Time{}, false
	}
	if tx.folded[at] {
		return
	}
	if tx.folded == nil {
		tx.folded = map[place]bool{}
	}
	tx.folded[at] = true
	tx.rcpts = append(tx.rcpts, spool.Recipient{
		Recipient: r, Account: uint64(t.Account), Mailbox: t.Mailbox, List: t.List, Via: t.Via, State: spool.Active,
	})
}

// original is the ORCPT of a recipient for whom none was given: the address that an alias hides (RFC 3461, 5.2.7.3).
func original(addr envelope.Address, targets []account.Target) string {
	if len(targets) == 1 && targets[0].Address.Canonical() == addr.Canonical() {
		return ""
	}
	if a, ascii := addr.ASCII(); ascii {
		return "rfc822;" + a.String()
	}
	return "utf-8;" + addr.String()
}

// refuse logs a refusal and returns the reply.
func (s *session) refuse(what string, err error, keys ...any) *wire.Reply {
	r := answer(s.log, err)
	for i := 1; i < len(keys); i += 2 {
		keys[i] = envelope.Sanitize(keys[i].(string), 320)
	}
	s.log.Info(what, append(keys, "outcome", "refused", "reply", text(r))...)
	return r
}
