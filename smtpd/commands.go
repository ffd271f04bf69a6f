package smtpd

import (
	"strings"

	"postroad/internal/gate"
	"postroad/smtpd/wire"
)

// A command is a row of the table of commands.
type command struct {
	verb  string
	kinds kinds // of servers that know it
	needs needs
	arg   argument
	junk  bool // it brings no mail on its way: Limits.Junk counts it
	run   func(s *session, arg string) *wire.Reply

	offered func(s *session) bool // whether it is any use now, for HELP; nil is always
}

// kinds is a set of Kind.
type kinds uint8

const (
	mx         = kinds(1 << MX)
	submission = kinds(1 << Submission)
	lmtp       = kinds(1 << LMTP)
	smtp       = mx | submission
	all        = smtp | lmtp
)

// needs is what must have come before a command.
type needs uint8

const (
	greeting  needs = 1 << iota // EHLO, HELO or LHLO
	login                       // where logins are asked for
	closed                      // no transaction is open
	opened                      // a transaction is open
	recipient                   // it has a recipient
)

// argument says whether a command has one.
type argument uint8

const (
	optional argument = iota
	none
	required
)

// commands is every command that this server knows, and where.
var commands = [...]command{
	{verb: "EHLO", kinds: smtp, junk: true, run: (*session).ehlo},
	{verb: "HELO", kinds: smtp, junk: true, run: (*session).helo},
	{verb: "LHLO", kinds: lmtp, junk: true, run: (*session).ehlo},
	{verb: "MAIL", kinds: all, needs: greeting | login | closed, arg: required, run: (*session).mail},
	{verb: "RCPT", kinds: all, needs: greeting | opened, arg: required, run: (*session).rcpt},
	{verb: "DATA", kinds: all, needs: greeting | opened | recipient, arg: none, run: (*session).data},
	{verb: "BDAT", kinds: all, run: (*session).bdat}, // what it needs is asked when its octets are counted
	{verb: "RSET", kinds: all, arg: none, junk: true, run: (*session).rset},
	{verb: "NOOP", kinds: all, junk: true, run: (*session).noop},
	{verb: "QUIT", kinds: all, arg: none, run: (*session).quit},
	{verb: "VRFY", kinds: all, arg: required, junk: true, run: (*session).vrfy},
	{verb: "EXPN", kinds: all, junk: true, run: (*session).expn, offered: func(*session) bool { return false }},
	{verb: "HELP", kinds: all, junk: true, run: (*session).help},
	{verb: "STARTTLS", kinds: all, needs: closed, arg: none, run: (*session).starttls, offered: (*session).offersTLS},
	{verb: "ETRN", kinds: mx, needs: greeting | closed, arg: required, junk: true, run: (*session).etrn, offered: (*session).offersFlush},
	{verb: "XCLIENT", kinds: all, needs: closed, arg: required, junk: true, run: (*session).xclient, offered: (*session).isProxy},
	{verb: "XFORWARD", kinds: all, needs: closed, arg: required, run: (*session).xforward, offered: (*session).isProxy},
	{verb: "AUTH", kinds: all, needs: greeting | closed, arg: required, run: (*session).auth, offered: (*session).offersLogin},
}

// commandsOf are those that a kind of server knows.
func commandsOf(k Kind) (list []command) {
	for _, c := range commands {
		if c.kinds&(1<<k) != 0 {
			list = append(list, c)
		}
	}
	return list
}

// find returns the row of a verb.
func (s *Server) find(verb string) *command {
	for i := range s.commands {
		if s.commands[i].verb == verb {
			return &s.commands[i]
		}
	}
	return nil
}

// run runs a command and gives its reply.
func (s *session) run(cmd wire.Command) {
	c := s.srv.find(cmd.Verb)
	if c == nil {
		s.conclude(replyNoCommand)
		return
	}
	if r := s.budget.command(c, &s.srv.Limits); r != nil {
		s.end(r)
		return
	}
	r := c.misplaced(s, cmd.Arg)
	if r == nil {
		r = c.run(s, cmd.Arg)
	}
	s.conclude(r)
}

// misplaced returns what is wrong with a command being given now, or with an argument.
func (c *command) misplaced(s *session, arg string) *wire.Reply {
	switch {
	case c.needs&greeting != 0 && s.hello.name == "":
		return replyNoHello
	case c.needs&login != 0 && s.srv.kind == Submission && s.account == nil:
		return s.logInFirst()
	case c.needs&closed != 0 && s.tx != nil:
		return replyNested
	case c.needs&opened != 0 && s.tx == nil:
		return replyNoMail
	case c.needs&recipient != 0 && len(s.tx.given) == 0:
		return replyNoRecipient
	case c.arg == none && arg != "":
		return replyNoArgument
	case c.arg == required && arg == "":
		return replyArgument
	}
	return nil
}

// conclude gives the reply that a command has earned, unless there were too many errors: then that.
func (s *session) conclude(r *wire.Reply) {
	if r == nil {
		return
	}
	r = s.budget.reply(r, &s.srv.Limits)
	s.slow(r)
	switch r.Code {
	case 221:
		s.over = true
		s.say(r)
	case 421:
		s.end(r)
	default:
		s.say(r)
	}
}

// junkLine is the reply to a line that is no command.
func (s *session) junkLine(e *wire.SyntaxError) *wire.Reply {
	if e.Octet {
		s.budget.badLines++
		s.over = s.budget.badLines >= badLines
	}
	r := e.Reply()
	return &r
}

// maxHelo bounds the name that a peer gives, in octets (RFC 5321, 4.5.3.1.2).
const maxHelo = 255

// ehlo is EHLO, and LHLO (RFC 5321, 4.1.1.1; RFC 2033, 4.1).
func (s *session) ehlo(name string) *wire.Reply {
	if !s.introduce(name, true) {
		return replyBadHelo
	}
	lines := append([]string{s.welcome()}, s.announced()...)
	return &wire.Reply{Code: 250, Text: strings.Join(lines, "\n")}
}

func (s *session) helo(name string) *wire.Reply {
	if !s.introduce(name, false) {
		return replyBadHelo
	}
	return &wire.Reply{Code: 250, Text: s.welcome()}
}

func (s *session) welcome() string {
	if s.srv.kind == LMTP {
		return s.srv.Hostname // the reply has to be short, see extensions
	}
	return s.srv.Hostname + " greets " + s.hello.name
}

// introduce takes the peer's name, and ends the transaction (RFC 5321, 4.1.4). A bad name changes nothing.
func (s *session) introduce(name string, esmtp bool) bool {
	if !validHelo(name) {
		return false
	}
	s.reset()
	s.hello = helo{name, esmtp}
	return true
}

// validHelo takes any name that can stand in a Received field; many hosts do not know their own. It is ASCII whatever
// MAIL will say (RFC 6531, 3.7.1).
func validHelo(s string) bool {
	return s != "" && len(s) <= maxHelo && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._:[]", r)
	}) < 0
}

func (s *session) rset(string) *wire.Reply {
	s.reset()
	return replyReset
}

func (s *session) noop(string) *wire.Reply { return replyOK }

func (s *session) quit(string) *wire.Reply {
	s.reset()
	return &wire.Reply{Code: 221, Enhanced: "2.0.0", Text: s.srv.Hostname + " closes the connection"}
}

// vrfy tells nothing: who exists is for RCPT to find out, where it is counted (RFC 5321, 7.3).
func (s *session) vrfy(string) *wire.Reply { return replyVerify }

func (s *session) expn(string) *wire.Reply { return replyExpand }

// help names the commands that are of use to this peer now.
func (s *session) help(string) *wire.Reply {
	var verbs []string
	for _, c := range s.srv.commands {
		if c.offered == nil || c.offered(s) {
			verbs = append(verbs, c.verb)
		}
	}
	return reply(214, "2.0.0", "postroad, a mail server. Commands:\n%s", strings.Join(verbs, " "))
}

// starttls is STARTTLS (RFC 3207). What came in the clear behind it may be another's, and is never run.
func (s *session) starttls(string) *wire.Reply {
	switch {
	case s.tls != nil:
		return replyHasTLS
	case s.srv.TLS == nil:
		return replyNoTLS
	case s.account != nil:
		return replyLoggedIn
	case s.in.Buffered() > 0:
		s.over = true
		_ = s.pass.Offend(gate.Smuggle)
		return replyInjected
	}
	s.forget()
	s.say(replyTLS)
	if s.flush() != nil || !s.startTLS() {
		s.over = true
	}
	return nil
}
