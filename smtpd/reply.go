package smtpd

import (
	"errors"
	"fmt"
	"log/slog"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/smtpd/wire"
)

// reply makes a reply of a code, an enhanced code (RFC 3463) and words.
func reply(code int, enhanced, format string, args ...any) *wire.Reply {
	return &wire.Reply{Code: code, Enhanced: enhanced, Text: fmt.Sprintf(format, args...)}
}

// Replies without variable parts.
var (
	replyOK        = reply(250, "2.0.0", "ok")
	replyReset     = reply(250, "2.0.0", "reset")
	replySender    = reply(250, "2.1.0", "sender ok")
	replyRecipient = reply(250, "2.1.5", "recipient ok")
	replyChunk     = reply(250, "2.0.0", "chunk taken")
	replyGoOn      = reply(354, "", "send the message; end it with a dot on a line of its own")
	replyVerify    = reply(252, "2.0.0", "send mail to it and see")
	replyWelcome   = reply(235, "2.7.0", "logged in")
	replyTLS       = reply(220, "2.0.0", "ready for TLS")

	replyLeaving       = reply(421, "4.3.2", "this server is going down, try again later")
	replyTimeout       = reply(421, "4.4.2", "nothing was heard from you for too long")
	replyPanic         = reply(421, "4.3.0", "local trouble, try again later")
	replyExpired       = reply(421, "4.7.0", "the password that you logged in with has expired")
	replyAccountOver   = reply(421, "4.7.0", "the account was changed, please connect and log in again")
	replyTooFast       = reply(421, "4.7.0", "too many commands in a minute")
	replyTooMuchJunk   = reply(421, "4.7.0", "too many commands that bring no mail")
	replyTooManyErrors = reply(421, "4.7.0", "too many errors")
	replyTooManyLogins = reply(421, "4.7.0", "too many failed logins")
	replyHarvest       = reply(421, "4.7.0", "too many unknown recipients")
	replyTooOften      = reply(421, "4.7.0", "too many messages on one connection")
	replyGuessing      = reply(421, "4.7.0", "too many failed logins, try again later")

	replyTooLong     = reply(500, "5.5.6", "too long a line")
	replyNoCommand   = reply(500, "5.5.2", "there is no such command here")
	replyPregreet    = reply(554, "5.5.1", "you talk before you were greeted")
	replyForeign     = reply(554, "5.5.0", "this is a mail server")
	replyNoArgument  = reply(501, "5.5.4", "this command has no argument")
	replyArgument    = reply(501, "5.5.4", "this command needs an argument")
	replyBadHelo     = reply(501, "", "give your host name, or your address in [brackets]") // to EHLO: no code (RFC 2034, 4)
	replyExpand      = reply(502, "5.5.1", "lists are not expanded here")
	replyNoHello     = reply(503, "5.5.1", "say EHLO first")
	replyNested      = reply(503, "5.5.1", "a transaction is open: finish it, or say RSET")
	replyNoMail      = reply(503, "5.5.1", "say MAIL first")
	replyNoRecipient = reply(503, "5.5.1", "no valid recipients")
	replyMidMessage  = reply(503, "5.5.1", "the message has begun with BDAT: finish it, or say RSET")
	replyEarly       = reply(503, "5.5.1", "you did not wait for the reply to DATA")
	replyBinaryData  = reply(503, "5.5.1", "BODY=BINARYMIME comes with BDAT only")

	replyNoProxy   = reply(550, "5.7.0", "you are none of those that may speak for others")
	replyAttribute = reply(501, "5.5.4", "an attribute is not known here, comes twice, or has a bad value")
	replyNode      = reply(501, "5.5.4", "only a domain can be named here, without @ or #")
	replyNoQueue   = reply(502, "5.5.1", "no mail is kept here for others")

	replyHasTLS   = reply(503, "5.5.1", "TLS is in use")
	replyNoTLS    = reply(502, "5.5.1", "this server has no certificate for TLS")
	replyInjected = reply(554, "5.5.1", "there were commands behind STARTTLS")

	replyLogIn     = reply(530, "5.7.0", "log in first")
	replyTLSFirst  = reply(530, "5.7.0", "say STARTTLS and log in first")
	replyLoggedIn  = reply(503, "5.5.1", "you are logged in")
	replyClear     = reply(538, "5.7.11", "logging in needs TLS: say STARTTLS first")
	replyNoAuth    = reply(502, "5.5.1", "this listener takes no logins; the submission listener does")
	replyMechanism = reply(504, "5.5.4", "there is no such mechanism here; EHLO lists them")
	replyGivenUp   = reply(501, "5.7.0", "login given up")
	replyBase64    = reply(501, "5.5.2", "this is not base64")
	replySASL      = reply(501, "5.5.2", "this is not what the mechanism says here")
	replyBadLogin  = reply(535, "5.7.8", "wrong address or password")
	replyBinding   = reply(535, "5.7.8", "the login is not bound to this TLS connection: is somebody in between?")
	replyBusy      = reply(454, "4.7.0", "logging in does not work now, try again later")

	replySenderUTF8        = reply(550, "5.6.7", "an address that is not ASCII needs SMTPUTF8") // two codes: RFC 6531, 3.5
	replyNeedUTF8          = reply(553, "5.6.7", "an address that is not ASCII needs SMTPUTF8")
	replyNobody            = reply(501, "5.1.3", "a recipient has an address")
	replyUnknown           = reply(550, "5.1.1", "no such address here")
	replyRelay             = reply(550, "5.7.1", "relay denied: this server does not take mail for that domain")
	replyReturn            = reply(550, "5.7.1", "only reports go back that way: write to the sender himself")
	replyAliasLoop         = reply(550, "5.4.6", "the alias leads too deep or back to itself")
	replyAliasWide         = reply(550, "5.4.6", "the alias leads to too many addresses")
	replyTargets           = reply(452, "4.5.3", "too many recipients behind these aliases, send the rest separately")
	replyTooManyRecipients = reply(452, "4.5.3", "too many recipients, send the rest separately")
	replyQuota             = reply(452, "4.2.2", "the mailbox is full, try again later")
	replyQuotaForGood      = reply(552, "5.2.2", "the mailbox is full")
	replyOwner             = reply(550, "5.7.17", "the mailbox has another owner since then")

	replyLater     = reply(451, "4.3.0", "local trouble, try again later")
	replyFull      = reply(452, "4.3.1", "not enough room on this server, try again later")
	replyTooBig    = reply(552, "5.3.4", "the message is larger than the SIZE announced")
	replyBare      = reply(550, "5.6.11", "the message has a bare CR or LF; lines must end in CRLF")
	replyNUL       = reply(550, "5.6.0", "the message has a NUL octet")
	replyHeader    = reply(552, "5.3.4", "the header of the message is longer than 1 MiB")
	replyLoop      = reply(554, "5.4.6", "too many Received fields: the message is in a loop")
	replyDelivered = reply(554, "5.4.6", "the message has been delivered to this address before: it is in a loop")
)

// answer turns any error into the reply that the peer gets. What is not
// a reply yet is our own trouble: it is logged, and the peer may try again.
func answer(log *slog.Logger, err error) *wire.Reply {
	if r, ok := errors.AsType[*wire.Reply](err); ok {
		return r
	}
	if r := refusal(err); r != nil {
		return r
	}
	if spent, ok := errors.AsType[*account.Spent](err); ok {
		return reply(450, "4.7.1", "%s", spent) // not 452: that is for who can go on with the rest at once (RFC 5321, 4.5.3.1.10)
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
func text(r *wire.Reply) string {
	return envelope.Sanitize(r.Error(), 200)
}
