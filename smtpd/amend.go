package smtpd

import (
	"strings"

	"postroad/internal/envelope"
)

// lostBDAT are the engine's refusals after which a chunk's octets still stand before
// it, and would be taken for commands. The first is DATA's, too.
var lostBDAT = [...]string{
	"502 5.5.1 Missing RCPT TO command.",
	"501 5.5.4 Missing chunk size argument",
	"501 5.5.4 Too many arguments",
	"501 5.5.4 Unknown BDAT argument",
	"501 5.5.4 Malformed size argument",
	"501 5.5.2 Bad command", // "BDAT " is one
}

func isLostBDAT(line string) bool {
	for _, l := range lostBDAT {
		if line == l {
			return true
		}
	}
	return false
}

// amendments put the engine's replies right: what they begin with, and what takes its
// place (RFC 5321, 4.2 and 4.3.2; RFC 2034; RFC 3463; RFC 4954).
var amendments = [...]struct{ is, ought string }{
	{"250 2.0.0 Roger, accepting mail from", "250 2.1.0 accepting mail from"},
	{"250 2.0.0 I'll make sure <", "250 2.1.5 <"},
	{"250 2.0.0 Session reset", "250 2.0.0 reset"},
	{"250 2.0.0 I have successfully done nothing", "250 2.0.0 ok"},
	{"235 2.0.0 Authentication succeeded", "235 2.7.0 logged in"},
	{"252 2.5.0 ", "252 2.1.5 "},
	{"500 5.4.0 Too long line", "500 5.5.6 too long a line"},
	{"501 5.0.0 Negotiation cancelled", "501 5.7.0 login given up"},
	{"502 5.5.1 Please introduce yourself first.", "503 5.5.1 say EHLO first"},
	{"502 5.5.1 Missing MAIL FROM command.", "503 5.5.1 say MAIL first"},
	{"502 5.5.1 Missing RCPT TO command.", "503 5.5.1 no valid recipients"},
	{"502 5.5.1 MAIL not allowed", "503 5.5.1 MAIL not allowed"},
	{"502 5.5.1 RCPT not allowed", "503 5.5.1 RCPT not allowed"},
	{"502 5.5.1 DATA not allowed", "503 5.5.1 DATA not allowed"},
	{"502 5.5.4 Missing parameter", "501 5.5.4 AUTH needs a mechanism"},
	{"454 4.7.0 Invalid base64 data", "501 5.5.2 this is not base64"},
	{"500 5.5.4 Unknown MAIL FROM argument", "555 5.5.4 a MAIL parameter is not known here"},
	{"500 5.5.4 Unknown RCPT TO argument", "555 5.5.4 a RCPT parameter is not known here"},
	{"501 5.5.2 Bad command", "500 5.5.2 not a command"},
}

// amend returns the line that the peer gets for one of the engine's.
func (w *wire) amend(line string) string {
	if helo, ok := strings.CutPrefix(line, "250-Hello "); ok {
		w.esmtp.Store(true)
		return "250-" + w.srv.Hostname + " greets " + envelope.Sanitize(helo, maxHelo)
	}
	if helo, ok := strings.CutPrefix(line, "250 2.0.0 Hello "); ok {
		w.esmtp.Store(false)
		return "250 " + w.srv.Hostname + " greets " + envelope.Sanitize(helo, maxHelo)
	}
	if w.tls != nil && strings.HasPrefix(line, "502 5.5.1 TLS not supported") {
		return "503 5.5.1 TLS is in use"
	}
	for _, a := range amendments {
		if rest, ok := strings.CutPrefix(line, a.is); ok {
			return a.ought + rest
		}
	}
	return line
}
