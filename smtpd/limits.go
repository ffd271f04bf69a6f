package smtpd

import (
	"cmp"
	"time"
)

// Limits bound what one peer may take. A zero field takes the default.
//
//	field                     default  what a peer is told beyond it
//	Connections                 1,000  421 4.3.2, closed
//	PerAddress                    100  421 4.7.0, closed
//	Recipients                  1,000  452 4.5.3 at RCPT; announced as LIMITS RCPTMAX
//	MessageSize                 50 MB  552 5.3.4 at MAIL (SIZE) or after the data; announced as SIZE
//	(octets of a command)       2,048  500 5.5.6, closed; cannot be set; of AUTH and its responses 12,288
//	CommandsPerMinute          30,000  421 4.7.0, closed
//	Errors                         20  421 4.7.0, closed
//	Junk                          100  421 4.7.0, closed
//	UnknownRecipients             100  421 4.7.0, closed
//	FailedLogins                    3  421 4.7.0, closed
//	Hops                          100  554 5.4.6
//	(octets of a header)        1 MiB  552 5.3.4; cannot be set
//	TransactionsPerConnection 999,999  421 4.7.0, closed
//	CommandTimeout              5 min  421 4.4.2, closed
//	DataTimeout                 3 min  closed
//	DataRate                  500 B/s  closed
//	HandshakeTimeout             30 s  closed
type Limits struct {
	Connections int // open at once, on one listener
	PerAddress  int // of these, from one IPv4 address or IPv6 /64, but not from this machine

	Recipients int // RCPT commands accepted in one transaction
	// MessageSize is the octets of a message, before our trace fields. Its lines have no limit: real ones have reached
	// 64 KiB, and none is ever held as a whole.
	MessageSize int64

	CommandsPerMinute int // since the last accepted message, in any minute
	Junk              int // commands that bring no mail since the last accepted message: NOOP, RSET, VRFY and the like
	UnknownRecipients int // on one connection
	Errors            int // 4yz and 5yz replies since the last accepted message
	FailedLogins      int // on one connection
	Hops              int // Received fields: a message with more is in a loop

	TransactionsPerConnection int

	CommandTimeout   time.Duration // for a whole command, from our last reply
	DataTimeout      time.Duration // for the next octets of a message
	DataRate         int           // octets per second that a message must come at, after DataTimeout
	HandshakeTimeout time.Duration // for TLS
}

// WithDefaults returns l with its zero fields set.
func (l Limits) WithDefaults() Limits {
	return Limits{
		Connections:               cmp.Or(l.Connections, 1000),
		PerAddress:                cmp.Or(l.PerAddress, 100),
		Recipients:                cmp.Or(l.Recipients, 1000),
		MessageSize:               cmp.Or(l.MessageSize, 50_000_000),
		CommandsPerMinute:         cmp.Or(l.CommandsPerMinute, 30_000),
		Junk:                      cmp.Or(l.Junk, 100),
		UnknownRecipients:         cmp.Or(l.UnknownRecipients, 100),
		Errors:                    cmp.Or(l.Errors, 20),
		FailedLogins:              cmp.Or(l.FailedLogins, 3),
		Hops:                      cmp.Or(l.Hops, 100),
		TransactionsPerConnection: cmp.Or(l.TransactionsPerConnection, maxLimit),
		CommandTimeout:            cmp.Or(l.CommandTimeout, 5*time.Minute),
		DataTimeout:               cmp.Or(l.DataTimeout, 3*time.Minute),
		DataRate:                  cmp.Or(l.DataRate, 500),
		HandshakeTimeout:          cmp.Or(l.HandshakeTimeout, 30*time.Second),
	}
}
