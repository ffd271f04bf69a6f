package smtpd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/smtpd/wire"
)

// Bounds on what may be asked for; EHLO announces them.
const (
	mostHold      = 60 * 24 * time.Hour // until a message is released (FUTURERELEASE)
	leastDeadline = time.Minute         // for a message that is returned when it was not delivered by then (DELIVERBY)
)

// offer is what the session offers its peer now.
func (s *session) offer() offer {
	return offer{
		kind: s.srv.kind, tls: s.tls != nil, logins: s.srv.kind == Submission, utf8: s.tx != nil && s.tx.envelope.UTF8,
		size: s.srv.Limits.MessageSize, unwanted: s.srv.NoSoliciting, now: s.srv.Now(),
	}
}

// An offer is what a session offers its peer at the moment: what EHLO announces, and what MAIL and RCPT may ask for.
type offer struct {
	kind     Kind
	tls      bool
	logins   bool // AUTH is announced
	utf8     bool // for RCPT: MAIL had SMTPUTF8
	size     int64
	unwanted []string // solicitation classes that are refused
	now      time.Time
}

// A service is an extension that brings parameters.
type service struct {
	line func(offer) string // in the reply to EHLO; empty while it is not offered
	mail []param[envelope.Envelope]
	rcpt []param[envelope.Recipient]
}

// param reads the value of one parameter into what the sender asks for.
type param[T any] struct {
	keyword string
	read    func(o offer, to *T, value string) error // nil of a parameter without value
	set     func(to *T)                              // of a parameter without value
}

// services are all extensions with parameters, in the order in which EHLO announces them.
var services = [...]service{
	{line: sizeLine, mail: []param[envelope.Envelope]{{keyword: "SIZE", read: readSize}}},
	{line: always("8BITMIME"), mail: []param[envelope.Envelope]{{keyword: "BODY", read: readBody}}},
	{line: always("BINARYMIME")},
	{line: always("SMTPUTF8"), mail: []param[envelope.Envelope]{
		{keyword: "SMTPUTF8", set: func(e *envelope.Envelope) { e.UTF8 = true }},
	}},
	{
		line: always("DSN"),
		mail: []param[envelope.Envelope]{{keyword: "RET", read: readReturn}, {keyword: "ENVID", read: readEnvelopeID}},
		rcpt: []param[envelope.Recipient]{{keyword: "NOTIFY", read: readNotify}, {keyword: "ORCPT", read: readOriginal}},
	},
	{line: requireTLSLine, mail: []param[envelope.Envelope]{
		{keyword: "REQUIRETLS", set: func(e *envelope.Envelope) { e.RequireTLS = true }},
	}},
	{line: deliverByLine, mail: []param[envelope.Envelope]{{keyword: "BY", read: readDeliverBy}}},
	{line: always("MT-PRIORITY"), mail: []param[envelope.Envelope]{{keyword: "MT-PRIORITY", read: readPriority}}},
	{line: futureReleaseLine, mail: []param[envelope.Envelope]{
		{keyword: "HOLDFOR", read: readHoldFor}, {keyword: "HOLDUNTIL", read: readHoldUntil},
	}},
	{line: always("RRVS"), rcpt: []param[envelope.Recipient]{{keyword: "RRVS", read: readValidSince}}},
	{line: solicitLine, mail: []param[envelope.Envelope]{{keyword: "SOLICIT", read: readSolicit}}},
	{line: loginLine, mail: []param[envelope.Envelope]{{keyword: "AUTH", read: readSubmitter}}},
}

// lines are what EHLO announces of the services. That of AUTH is not among them: it lists the mechanisms.
func (o offer) lines() (lines []string) {
	for _, s := range services {
		if line := s.line(o); line != "" && line != "AUTH" {
			lines = append(lines, line)
		}
	}
	return lines
}

// mail reads the parameters of MAIL. Errors are *wire.Reply.
func (o offer) mail(e *envelope.Envelope, list []wire.Param) error {
	err := read(o, e, list, func(s *service) []param[envelope.Envelope] { return s.mail })
	if err != nil {
		return err
	}
	if by := e.DeliverBy.Deadline; !by.IsZero() && !e.Release.IsZero() && !by.After(e.Release) {
		return badParam("BY is over before the message would be released") // RFC 4865, 5.2.2
	}
	return nil
}

// rcpt reads the parameters of RCPT. Errors are *wire.Reply.
func (o offer) rcpt(r *envelope.Recipient, list []wire.Param) error {
	return read(o, r, list, func(s *service) []param[envelope.Recipient] { return s.rcpt })
}

// read reads parameters, each of which must be one that a service on offer brings.
func read[T any](o offer, to *T, list []wire.Param, of func(*service) []param[T]) error {
	for _, given := range list {
		p, known := find(o, given.Keyword, of)
		switch {
		case !known:
			return reply(555, "5.5.4", "there is no parameter %s here; EHLO tells what is offered", given.Keyword)
		case given.HasValue && p.read == nil:
			return badParam("%s has no value", given.Keyword)
		case !given.HasValue && p.read != nil:
			return badParam("%s needs a value", given.Keyword)
		case p.read == nil:
			p.set(to)
			continue
		}
		if err := p.read(o, to, given.Value); err != nil {
			return asReply(err)
		}
	}
	return nil
}

func find[T any](o offer, keyword string, of func(*service) []param[T]) (param[T], bool) {
	for i := range services {
		for _, p := range of(&services[i]) {
			if p.keyword == keyword {
				return p, services[i].line(o) != ""
			}
		}
	}
	return param[T]{}, false
}

func badParam(format string, args ...any) *wire.Reply { return reply(501, "5.5.4", format, args...) }

// asReply makes what is wrong with a value a reply, unless it is one.
func asReply(err error) error {
	if r, ok := errors.AsType[*wire.Reply](err); ok {
		return r
	}
	return badParam("%s", err)
}

func always(line string) func(offer) string { return func(offer) string { return line } }

func sizeLine(o offer) string { return "SIZE " + strconv.FormatInt(o.size, 10) }

// requireTLSLine stands only where the message came by TLS itself (RFC 8689, 2).
func requireTLSLine(o offer) string {
	if !o.tls {
		return ""
	}
	return "REQUIRETLS"
}

func deliverByLine(offer) string { return fmt.Sprintf("DELIVERBY %d", leastDeadline/time.Second) }

// futureReleaseLine is of submission only (RFC 4865, 4): strangers cannot make us keep mail.
func futureReleaseLine(o offer) string {
	if o.kind != Submission {
		return ""
	}
	return fmt.Sprintf("FUTURERELEASE %d %s", mostHold/time.Second, o.now.Add(mostHold).UTC().Format(time.RFC3339))
}

// solicitLine leaves room for others in the reply to LHLO, see extensions, unless some classes are refused.
func solicitLine(o offer) string {
	if o.kind == LMTP && len(o.unwanted) == 0 {
		return ""
	}
	return strings.TrimRight("NO-SOLICITING "+strings.Join(o.unwanted, ","), " ")
}

func loginLine(o offer) string {
	if !o.logins {
		return ""
	}
	return "AUTH"
}

// readSize holds the size that the peer announces against the limit (RFC 1870, 6).
func readSize(o offer, _ *envelope.Envelope, value string) error {
	if value == "" || len(value) > 20 || strings.Trim(value, "0123456789") != "" {
		return badParam("SIZE is a number of octets")
	}
	if n, err := strconv.ParseUint(value, 10, 64); err != nil || n > uint64(o.size) {
		return replyTooBig
	}
	return nil
}

// declaredSize is what SIZE says, which readSize has looked at; 0 when nothing was declared.
func declaredSize(list []wire.Param) (size int64) {
	for _, p := range list {
		if p.Keyword == "SIZE" {
			size, _ = strconv.ParseInt(p.Value, 10, 64)
		}
	}
	return size
}

func readBody(_ offer, e *envelope.Envelope, value string) (err error) {
	e.Body, err = envelope.ParseBody(value)
	return err
}

func readReturn(_ offer, e *envelope.Envelope, value string) (err error) {
	e.Return, err = envelope.ParseReturn(value)
	return err
}

func readEnvelopeID(_ offer, e *envelope.Envelope, value string) (err error) {
	e.ID, err = envelope.ParseEnvelopeID(value)
	return err
}

func readNotify(_ offer, r *envelope.Recipient, value string) (err error) {
	r.Notify, err = envelope.ParseNotify(value)
	return err
}

func readOriginal(o offer, r *envelope.Recipient, value string) (err error) {
	r.Original, err = envelope.ParseOriginal(value, o.utf8)
	return err
}

func readDeliverBy(o offer, e *envelope.Envelope, value string) (err error) {
	e.DeliverBy, err = envelope.ParseDeliverBy(value, o.now)
	if err == nil && e.DeliverBy.Return && e.DeliverBy.Deadline.Before(o.now.Add(leastDeadline)) {
		return reply(555, "5.5.4", "BY in mode R needs at least %d seconds here", leastDeadline/time.Second) // RFC 2852, 3
	}
	return err
}

// readPriority honours a raised priority only of who is trusted: RFC 6710, 4.1 forbids it for strangers, who may
// lower theirs. They learn of it in the reply (mailReply).
func readPriority(o offer, e *envelope.Envelope, value string) (err error) {
	e.Priority, err = envelope.ParsePriority(value)
	if o.kind == MX {
		e.Priority = min(e.Priority, 0)
	}
	return err
}

func readHoldFor(o offer, e *envelope.Envelope, value string) error {
	seconds, err := strconv.Atoi(value)
	if err != nil || len(value) > 9 || value[0] < '1' || value[0] > '9' {
		return badParam("HOLDFOR is a number of seconds")
	}
	return o.release(e, o.now.Add(time.Duration(seconds)*time.Second))
}

func readHoldUntil(o offer, e *envelope.Envelope, value string) error {
	at, err := envelope.ParseDateTime(value)
	if err != nil {
		return badParam("HOLDUNTIL: %s", err)
	}
	return o.release(e, at)
}

// release sets the time before which a message is not delivered.
func (o offer) release(e *envelope.Envelope, at time.Time) error {
	switch {
	case !e.Release.IsZero():
		return badParam("HOLDFOR and HOLDUNTIL exclude each other")
	case !at.After(o.now):
		return badParam("HOLDUNTIL is over")
	case at.After(o.now.Add(mostHold)):
		return badParam("messages are held for %d seconds at most", mostHold/time.Second)
	}
	e.Release = at
	return nil
}

func readValidSince(_ offer, r *envelope.Recipient, value string) error {
	return r.ParseValidSince(value)
}

// readSolicit keeps what the sender declares, unless somebody here does not want it (RFC 3865, 2.4).
func readSolicit(o offer, e *envelope.Envelope, value string) error {
	words, err := envelope.ParseSolicit(value)
	if err != nil {
		return err
	}
	for _, word := range words {
		if slices.ContainsFunc(o.unwanted, func(u string) bool { return strings.EqualFold(u, word) }) {
			return reply(550, "5.7.1", "no soliciting: mail of this class is not taken here, SOLICIT=%s", word)
		}
	}
	e.Solicit = value
	return nil
}

// readSubmitter reads AUTH= and forgets it (RFC 4954, 5): nobody who logs in here is trusted to speak for others, so it
// counts as AUTH=<>, and that is what the next host assumes when nothing is said.
func readSubmitter(_ offer, _ *envelope.Envelope, value string) error {
	who, err := envelope.DecodeXtext(value)
	if err == nil && who != "<>" {
		_, err = envelope.ParseAddress(who)
	}
	if err != nil {
		return badParam("AUTH is an address in xtext, or <>")
	}
	return nil
}

// mailReply is the reply to a MAIL with these parameters. A priority that was not honoured is told (RFC 6710, 4.1).
func mailReply(e *envelope.Envelope, list []wire.Param) *wire.Reply {
	for _, p := range list {
		if p.Keyword == "MT-PRIORITY" && p.Value != strconv.Itoa(e.Priority) {
			return reply(250, "2.3.6", "%d is the message's priority: only who logs in may raise it", e.Priority)
		}
	}
	return replySender
}

// sameOwner refuses an address that has come to somebody else since the sender last knew (RFC 7293, 5.1): what it leads
// to is one account, made after that. Lists and remote addresses have no owner here who could have changed, and that of a
// role may.
func sameOwner(addr envelope.Address, since time.Time, targets []account.Target, byID ownerByID) error {
	if since.IsZero() || isRole(addr) || len(targets) != 1 || targets[0].Account == 0 {
		return nil
	}
	owner, err := byID(targets[0].Account)
	if err == nil && owner.Created.After(since) {
		err = replyOwner
	}
	return err
}

// ownerByID finds an account.
type ownerByID func(account.ID) (account.Account, error)

// isRole reports whether an address is one of those that RFC 2142 gives to a duty instead of a person.
func isRole(a envelope.Address) bool {
	switch strings.ToLower(a.Local) {
	case "info", "marketing", "sales", "support", "abuse", "noc", "security", "postmaster", "hostmaster", "usenet", "news",
		"webmaster", "www", "uucp", "ftp":
		return true
	}
	return false
}
