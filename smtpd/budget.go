package smtpd

import (
	"time"

	"postroad/smtpd/wire"
)

// budget is what a peer has spent of its patience with us. It belongs to a session.
type budget struct {
	// Since the last accepted message.
	commands int // since the minute began
	minute   time.Time
	errors   int // 4yz and 5yz replies
	junk     int // commands that bring no mail on its way

	// On the connection.
	badLines     int
	failedLogins int
	unknown      int // recipients
	transactions int
}

// badLines is how many lines with a NUL or a bare CR or LF end a connection: no mail program has sent them.
const badLines = 3

// restore follows an accepted message: the peer is doing what it came for.
func (b *budget) restore() { b.commands, b.errors, b.junk = 0, 0, 0 }

// command counts a command that is about to run, and returns the reply in its place when there have been too many.
func (b *budget) command(c *command, l *Limits) *wire.Reply {
	if now := time.Now(); now.Sub(b.minute) > time.Minute {
		b.minute, b.commands = now, 0
	}
	b.commands++
	if c.junk {
		b.junk++
	}
	switch {
	case b.commands > l.CommandsPerMinute:
		return replyTooFast
	case b.junk > l.Junk:
		return replyTooMuchJunk
	}
	return nil
}

// reply counts a reply, and returns the one in its place when there have been too many errors.
func (b *budget) reply(r *wire.Reply, l *Limits) *wire.Reply {
	if !isError(r) {
		return r
	}
	b.errors++
	if r == replyUnknown {
		b.unknown++
	}
	switch {
	case b.errors > l.Errors:
		return replyTooManyErrors
	case b.unknown > l.UnknownRecipients:
		return replyHarvest
	}
	return r
}

// isError reports whether a reply counts against Limits.Errors. A recipient too many
// does not: the peer shall send it in its next transaction (RFC 5321, 4.5.3.1.10).
func isError(r *wire.Reply) bool {
	return r.Code >= 400 && r.Code != 421 && r != replyTooManyRecipients
}
