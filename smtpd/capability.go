package smtpd

import (
	"strconv"
	"strings"

	"postroad/internal/sasl"
)

// An extension is a line of EHLO's reply, which stands there while it is true of the session that what it
// stands for is to be had.
type extension struct {
	line string
	now  bool
}

// extensions are those that bring no parameters (services has the others), in the order in which they are announced.
// LMTP goes without what it can: Exim's lmtp transport has 256 octets for the whole reply, and gives up on a longer one.
func (s *session) extensions() []extension {
	return []extension{
		{"CHUNKING", true},
		{"ENHANCEDSTATUSCODES", true},
		{"STARTTLS", s.offersTLS()},
		{"AUTH " + strings.Join(s.mechanisms(), " "), s.offersLogin()},
		{s.limits(), s.srv.kind != LMTP},
		{"ETRN", s.offersFlush()},
		{"XCLIENT " + strings.Join(s.xclientList(), " "), s.isProxy()},
		{"XFORWARD " + strings.Join(xforwardNames, " "), s.isProxy()},
		{"HELP", s.srv.kind != LMTP},
	}
}

func (s *session) offersTLS() bool   { return s.tls == nil && s.srv.TLS != nil && s.account == nil }
func (s *session) offersLogin() bool { return s.mayAuth() == nil }
func (s *session) offersFlush() bool { return s.srv.kind == MX && s.srv.Flush != nil }

// announced are the lines of EHLO's reply after the first.
func (s *session) announced() []string {
	lines := append([]string{"PIPELINING"}, s.offer().lines()...)
	for _, e := range s.extensions() {
		if e.now {
			lines = append(lines, e.line)
		}
	}
	return lines
}

// mechanisms are the ways to log in.
func (s *session) mechanisms() []string {
	if s.mayAuth() != nil {
		return nil
	}
	return append(s.srv.Logins.Mechanisms(s.client()), sasl.Login)
}

// maxLimit is the largest value that a limit of RFC 9422, 3 is announced with: six digits.
const maxLimit = 999_999

// limits announces how much one transaction and one connection take (RFC 9422).
func (s *session) limits() string {
	line := "LIMITS RCPTMAX=" + strconv.Itoa(min(s.srv.Limits.Recipients, maxLimit))
	return line + " MAILMAX=" + strconv.Itoa(min(s.srv.Limits.TransactionsPerConnection, maxLimit))
}
