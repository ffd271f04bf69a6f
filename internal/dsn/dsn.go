// Package dsn builds and reads delivery reports: a multipart/report (RFC 6522) with
// words for a person, the facts for a program (RFC 3464, RFC 6533), and the message
// or its header. A report is written as a stream: the message is never in memory.
package dsn

import (
	"io"
	"time"

	"postroad/internal/envelope"
)

// Action is what became of a recipient (RFC 3464, 2.3.3).
type Action string

// The actions.
const (
	Failed    Action = "failed"    // given up
	Delayed   Action = "delayed"   // still being tried
	Delivered Action = "delivered" // in a mailbox
	Relayed   Action = "relayed"   // accepted by a host that does not report success itself
	Expanded  Action = "expanded"  // sent on to several
)

// Report is one delivery report about one message.
type Report struct {
	Host       string           // the reporting host; the report comes from MAILER-DAEMON there
	To         envelope.Address // whom it is sent to: the message's reverse-path
	MessageID  string           // of the report, with its angle brackets
	Date       time.Time        // of the report
	ID         string           // by which the reporting host knows the message; empty to leave out
	EnvelopeID string           // the message's ENVID, if it had one
	Subject    string           // of the message, decoded; may be empty
	Answers    string           // the message's Message-ID field; may be empty
	Arrived    time.Time        // when we took the message
	DeliverBy  time.Time        // by when it was to be delivered (RFC 2852); zero when nothing was asked for
	Release    time.Time        // until when it was to be held back (RFC 4865); likewise
	Recipients []Recipient      // at least one; all with an Action of the same kind
	UTF8       bool             // it goes to somebody who takes UTF-8 in headers (RFC 6533); else addresses are written in ASCII

	// Original is the message that is reported on, or nil. With HeaderOnly, no more
	// than its header is read.
	Original   io.Reader
	HeaderOnly bool

	// Boundary separates the parts. It must not occur in Original; when it is empty,
	// one is made that no message written before it can hold.
	Boundary string
}

// Recipient is what became of one recipient.
type Recipient struct {
	Original    string           // ORCPT as "type;address", or empty
	Final       envelope.Address // the address it had here
	Action      Action
	Status      string         // "5.1.1"
	Reply       envelope.Reply // what the other side said, or what we say ourselves
	Attempts    int            // made so far; 0 to leave it unsaid
	LastAttempt time.Time      // may be zero
	RetryUntil  time.Time      // for Delayed: when it will be given up
	Doubtful    bool           // it may have arrived: the reply to the whole message was missing
}
