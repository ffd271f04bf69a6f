package smtpd

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/emersion/go-smtp"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/store"
)

// reply makes a reply of a code, an enhanced code (RFC 3463) and words.
func reply(code int, enhanced, format string, args ...any) *smtp.SMTPError {
	r := &smtp.SMTPError{Code: code, Message: fmt.Sprintf(format, args...)}
	fmt.Sscanf(enhanced, "%d.%d.%d", &r.EnhancedCode[0], &r.EnhancedCode[1], &r.EnhancedCode[2])
	return r
}

// Replies without variable parts.
var (
	replyOver      = reply(421, "4.7.0", "this connection is at its end")
	replyLeaving   = reply(421, "4.3.2", "this server is going down, try again later")
	replySpoiled   = reply(421, "4.7.0", "a message was given up half-way, please connect again")
	replyNested    = reply(503, "5.5.1", "a transaction is open: finish it, or say RSET")
	replyLogIn     = reply(530, "5.7.0", "log in first")
	replyTooOften  = reply(421, "4.7.0", "too many messages on one connection")
	replyBadHelo   = reply(501, "5.5.2", "give your host name after EHLO")
	replyNeedUTF8  = reply(553, "5.6.7", "an address that is not ASCII needs SMTPUTF8")
	replyUnknown   = reply(550, "5.1.1", "no such address here")
	replyRelay     = reply(550, "5.7.1", "relay denied: this server does not take mail for that domain")
	replyAliasLoop = reply(550, "5.4.6", "the alias leads back to itself")
	replyAliasWide = reply(550, "5.4.6", "the alias leads to too many addresses")
	replyTargets   = reply(452, "4.5.3", "too many recipients behind these aliases, send the rest separately")
	replyQuota     = reply(452, "4.2.2", "the mailbox is full, try again later")
	replyORCPT     = reply(501, "5.5.4", "ORCPT has a character that no address has")
	replyLater     = reply(451, "4.3.0", "local trouble, try again later")
	replyFull      = reply(452, "4.3.1", "not enough room on this server, try again later")
	replyTooBig    = reply(552, "5.3.4", "the message is larger than the SIZE announced")
	replyBare      = reply(550, "5.6.11", "the message has a bare CR or LF; lines must end in CRLF")
	replyNUL       = reply(550, "5.6.0", "the message has a NUL octet")
	replyHeader    = reply(552, "5.3.4", "the header of the message is longer than 1 MiB")
	replyLoop      = reply(554, "5.4.6", "too many Received fields: the message is in a loop")
	replyCutOff    = reply(451, "4.3.0", "the message was not complete")
	replyBadLogin  = reply(535, "5.7.8", "wrong address or password")
	replyTooGuess  = reply(421, "4.7.0", "too many failed logins")
	replyClear     = reply(538, "5.7.11", "logging in needs TLS: say STARTTLS first")
	replyNoAuth    = reply(502, "5.5.1", "this listener takes no logins; the submission listener does")
	replyMechanism = reply(504, "5.5.4", "there is no such mechanism here; EHLO lists them")
	replyInside    = reply(503, "5.5.1", "AUTH is not for within a transaction")
	replySASL      = reply(501, "5.5.2", "this is not what the mechanism says here")
	replyBinding   = reply(535, "5.7.8", "the login is not bound to this TLS connection: is somebody in between?")
	replyGuessing  = reply(421, "4.7.0", "too many failed logins from your address, try again later")
	replyBusy      = reply(454, "4.7.0", "logging in does not work now, try again later")
)

// answer turns any error into the bare reply that the engine looks for. What is not
// a reply yet is our own trouble: it is logged, and the peer may try again.
func answer(log *slog.Logger, err error) *smtp.SMTPError {
	if r, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return r
	}
	switch {
	case errors.Is(err, account.ErrUnknown):
		return replyUnknown
	case errors.Is(err, account.ErrLoop):
		return replyAliasLoop
	case errors.Is(err, account.ErrTargets):
		return replyAliasWide
	case errors.Is(err, store.ErrFull):
		log.Error("no room for mail", "err", err)
		return replyFull
	}
	log.Error("transaction failed", "err", err)
	return replyLater
}

// text is a reply as it goes out, for the log.
func text(r *smtp.SMTPError) string {
	e := r.EnhancedCode
	return envelope.Sanitize(fmt.Sprintf("%d %d.%d.%d %s", r.Code, e[0], e[1], e[2], r.Message), 200)
}
