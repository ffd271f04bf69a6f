package imapd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"postroad/internal/account"
	"postroad/internal/mailbox"
	"postroad/internal/store"
)

// A reply is how a command ends: a tagged OK, NO or BAD (RFC 9051, 7.1). It is an error too, so that what a handler
// calls may give one. The zero reply says that the command completed.
type reply struct {
	status status
	code   string // without brackets; "" for none
	text   string // "" is "<name> completed"
}

type status uint8

const (
	statusOK status = iota
	statusNo
	statusBad
	answered // the handler has sent the tagged response itself, or there is to be none
)

func (s status) String() string { return [...]string{"OK", "NO", "BAD", ""}[s] }

func (r reply) Error() string { return r.status.String() + " " + r.text }

// ok is a tagged OK. An empty format says that the command completed.
func ok(code, format string, args ...any) reply {
	return reply{statusOK, code, fmt.Sprintf(format, args...)}
}

// no is a tagged NO: the command is right and cannot be done.
func no(code, format string, args ...any) reply {
	return reply{statusNo, code, fmt.Sprintf(format, args...)}
}

// bad is a tagged BAD: the command is wrong.
func bad(code, format string, args ...any) reply {
	return reply{statusBad, code, fmt.Sprintf(format, args...)}
}

// The response codes of replies that have no argument (RFC 9051, 7.1).
const (
	codeAlreadyExists   = "ALREADYEXISTS"
	codeAuthentication  = "AUTHENTICATIONFAILED"
	codeAuthorization   = "AUTHORIZATIONFAILED"
	codeCannot          = "CANNOT"
	codeClientBug       = "CLIENTBUG"
	codeCorruption      = "CORRUPTION"
	codeExpired         = "EXPIRED"
	codeExpungeIssued   = "EXPUNGEISSUED"
	codeHasChildren     = "HASCHILDREN"
	codeLimit           = "LIMIT"
	codeNonExistent     = "NONEXISTENT"
	codeNoPerm          = "NOPERM"
	codeOverQuota       = "OVERQUOTA"
	codePrivacyRequired = "PRIVACYREQUIRED"
	codeServerBug       = "SERVERBUG"
	codeTooBig          = "TOOBIG"
	codeTryCreate       = "TRYCREATE"
	codeUIDRequired     = "UIDREQUIRED" // RFC 9586
	codeUnavailable     = "UNAVAILABLE"
	codeUnknownCTE      = "UNKNOWN-CTE"
	codeUseAttr         = "USEATTR"
)

// refuse turns an error into what the client is told; what is not the client's affair is logged. doing completes
// "the server failed to". A nil error is OK.
func (s *session) refuse(doing string, err error) reply {
	if err == nil {
		return reply{}
	}
	if r, ok := errors.AsType[reply](err); ok {
		return r
	}
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			s.leaveRemoved()
			return no(r.code, "%s%s", r.text, r.detail(err))
		}
	}
	if s.ctx.Err() != nil || s.broken() || errors.Is(err, context.Canceled) { // only for a client that is gone is work cancelled
		return no(codeUnavailable, "the connection ends")
	}
	s.log().Error("IMAP command failed", "doing", doing, "err", err)
	if errors.Is(err, store.ErrFailed) {
		return no(codeUnavailable, "the server cannot write at the moment; its administrator has to look")
	}
	return no(codeServerBug, "the server failed to %s; its log says why", doing)
}

// A refusal is an error that the client can do something about.
type refusal struct {
	err        error
	code, text string
	inDetail   bool // what the error says of itself is for the client, too
}

// detail is what err says beyond the error that it wraps: of which mailbox, or what is wrong with a name.
func (r *refusal) detail(err error) string {
	_, detail, _ := strings.Cut(err.Error(), r.err.Error())
	if !r.inDetail || !strings.HasPrefix(detail, ": ") {
		return ""
	}
	return detail
}

var refusals = [...]refusal{
	{account.ErrNotFound, codeExpired, "your account was removed", false},
	{mailbox.ErrNotFound, codeNonExistent, "there is no such mailbox", true},
	{mailbox.ErrExists, codeAlreadyExists, "there is such a mailbox already", true},
	{mailbox.ErrName, codeCannot, "that is not a possible mailbox name", true},
	{mailbox.ErrInbox, codeCannot, "INBOX cannot be removed", false},
	{mailbox.ErrFlag, codeCannot, "that is not a possible flag", true},
	{mailbox.ErrExpunged, codeExpungeIssued, "some of the messages are gone", false},
	{mailbox.ErrOverQuota, codeOverQuota, "there is no room left in the account: remove messages, or ask its administrator for more", false},
	{mailbox.ErrLimit, codeLimit, "that would be more than a mailbox or an account may have", true},
	{mailbox.ErrRights, codeNoPerm, "you have no right to do that", true},
	{mailbox.ErrRole, codeUseAttr, "that special use is not to be had, or another mailbox has it", true},
	{mailbox.ErrChildren, codeHasChildren, "that is no mailbox, and there are mailboxes below it", true},
	{mailbox.ErrOwner, codeCannot, "a mailbox stays with its owner; copy its messages instead", false},
	{mailbox.ErrIdentifier, codeNonExistent, "there is no such account", true},
	{store.ErrFull, codeUnavailable, "the server's disk is nearly full; try again later", false},
	{store.ErrDamaged, codeCorruption, "the message is damaged on the server's disk", false},
	{store.ErrNoBody, codeCorruption, "the message is missing on the server's disk", false},
}

const removed = "the selected mailbox was removed"

// leaveRemoved ends the session when somebody has removed its mailbox (RFC 2180, 3.3 leaves no better way).
func (s *session) leaveRemoved() {
	if s.sel == nil || s.sel.gone {
		return
	}
	if _, err := s.srv.Mailboxes.ByID(s.sel.id); errors.Is(err, mailbox.ErrNotFound) {
		s.conn.bye(removed)
	}
}
