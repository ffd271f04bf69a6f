// Package envelope holds the values that travel outside a message: addresses and
// paths, who sends and who shall receive, and what RFC 3461 lets a sender ask for.
// It does no I/O. One parser reads every address, so that what policy judged is
// what delivery uses.
package envelope

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Body is what the sender declared about the message's octets (RFC 6152, RFC 3030).
type Body string

// The BODY= values of MAIL FROM; the zero value means none was given.
const (
	Body7Bit   Body = "7BIT"
	Body8Bit   Body = "8BITMIME"
	BodyBinary Body = "BINARYMIME"
)

// Return says how much of a message a failure report carries (RFC 3461, 4.3).
type Return string

// The RET= values; the zero value leaves it to the reporting server.
const (
	ReturnFull    Return = "FULL"
	ReturnHeaders Return = "HDRS"
)

// Notify says when a report is wanted for a recipient (RFC 3461, 4.1). The zero
// value is the default: failures, and delays as the server sees fit.
type Notify uint8

// The NOTIFY= values; NotifyNever stands alone.
const (
	NotifySuccess Notify = 1 << iota
	NotifyFailure
	NotifyDelay
	NotifyNever
)

// Envelope is the sender's part: the reverse-path and its parameters.
type Envelope struct {
	From       Address // the zero Address is the null reverse-path
	Body       Body
	UTF8       bool // SMTPUTF8 was asked for (RFC 6531)
	Return     Return
	ID         string // ENVID, decoded
	RequireTLS bool   // the REQUIRETLS parameter (RFC 8689, 2)
	// TLSOptional is the header's "TLS-Required: No" (RFC 8689, 5): delivery matters more to the sender than
	// what a policy asks of TLS. It counts only without RequireTLS.
	TLSOptional bool
	DeliverBy   DeliverBy
	Priority    int       // MT-PRIORITY (RFC 6710), -9 to 9; 0 is the default
	Release     time.Time // not to be delivered before it (FUTURERELEASE, RFC 4865); zero is at once
	Solicit     string    // the solicitation class keywords that the sender declared, with commas between (RFC 3865)
}

// DeliverBy is how soon a message is to be delivered (RFC 2852, 4). The zero value sets no bound.
type DeliverBy struct {
	Deadline time.Time // zero when no bound was asked for
	Return   bool      // mode R: what is not delivered by then goes back; else (N) the sender is told of the delay
	Trace    bool      // T: the sender is told of each relay that took the message on
}

// Recipient is a forward-path and its parameters.
type Recipient struct {
	To       Address
	Notify   Notify
	Original string // ORCPT as "type;address", decoded; empty when none was given

	// ValidSince is the time since when the sender knows the address to be its present owner's (RRVS, RFC 7293);
	// zero when it was not given. ValidContinue lets the message go on to a host that cannot check this.
	ValidSince    time.Time
	ValidContinue bool
}

// Reply is what the other side of an SMTP conversation said, or what we say in its place.
type Reply struct {
	Code     int       // 250; 0 when there was no reply at all
	Enhanced string    // "2.1.5", or empty
	Text     string    // without codes; lines joined by a space; sanitised and bounded
	From     string    // name and address of who said it, or empty for ourselves
	At       time.Time // when it was said
}

// Temporary reports whether trying again may help: anything but a 5yz reply.
func (r Reply) Temporary() bool { return r.Code < 500 || r.Code > 599 }

// String is "550 5.1.1 no such user here"; without a code, the text alone.
func (r Reply) String() string {
	words := make([]string, 0, 3)
	if r.Code != 0 {
		words = append(words, strconv.Itoa(r.Code))
	}
	if r.Enhanced != "" {
		words = append(words, r.Enhanced)
	}
	if r.Text != "" {
		words = append(words, r.Text)
	}
	return strings.Join(words, " ")
}

// isPlain reports whether Sanitize has nothing to do: words of printable ASCII with one space between them.
func isPlain(s string) bool {
	space := true // before
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ' && !space:
			space = true
		case c <= ' ' || c > '~':
			return false
		default:
			space = false
		}
	}
	return !space || s == ""
}

// Sanitize makes a peer's text fit for logs, headers and reports: one line, no
// control octets, valid UTF-8, at most max octets. White space of any length becomes
// one space; a character that could hide or forge something becomes "?".
func Sanitize(s string, max int) string {
	if len(s) <= max && isPlain(s) {
		return s
	}
	var b strings.Builder
	space := false
	for _, r := range s {
		if r == ' ' || '\t' <= r && r <= '\r' {
			space = b.Len() > 0
			continue
		}
		if !isText(r) && r != '\uFF20' && r != '\uFE6B' {
			r = '?'
		}
		gap := ""
		if space {
			gap, space = " ", false
		}
		if b.Len()+len(gap)+utf8.RuneLen(r) > max {
			break
		}
		b.WriteString(gap)
		b.WriteRune(r)
	}
	return b.String()
}
