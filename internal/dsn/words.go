package dsn

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// words are the part for a person. They say what became of the message, for whom, who said so, and what can be done.
type words struct {
	r *Report
	w io.Writer
}

const (
	column = 72 // at which lines end
	indent = "    "
)

func (p words) write() {
	p.line("", p.opening())
	p.blank()
	p.about()
	for i := range p.r.Recipients {
		p.blank()
		p.recipient(&p.r.Recipients[i])
	}
	p.blank()
	p.enclosed()
	fmt.Fprintf(p.w, "\r\n-- \r\nThe mail server %s\r\n", p.r.Host)
	if p.r.ID != "" {
		fmt.Fprintf(p.w, "For its administrator: message %s\r\n", p.r.ID)
	}
}

func (p words) opening() string {
	whom := "this recipient"
	if len(p.r.Recipients) > 1 {
		whom = "these recipients"
	}
	switch p.r.kind() {
	case Delayed:
		return "Your message has not reached " + whom + " yet. It is still being tried; there is nothing that you need to do."
	case Delivered:
		return "Your message was delivered to " + whom + "."
	case Relayed:
		return "Your message was sent on for " + whom + ". The next server has taken it, but does not report what becomes of it there."
	case Expanded:
		return "Your message was sent on to all that stand behind " + whom + ". What becomes of it there is not reported."
	}
	return "Your message could not be delivered to " + whom + ". It will not be tried again."
}

// about says which message is meant.
func (p words) about() {
	if subject := clean(p.r.Subject, maxSubject); subject != "" {
		fmt.Fprintf(p.w, "Subject:  %s\r\n", subject)
	}
	fmt.Fprintf(p.w, "Received: %s\r\n", p.r.Arrived.Format(dateFormat))
	if !p.r.DeliverBy.IsZero() {
		fmt.Fprintf(p.w, "Deadline: %s\r\n", p.r.DeliverBy.Format(dateFormat))
	}
	if !p.r.Release.IsZero() {
		fmt.Fprintf(p.w, "Held:     until %s, as you asked\r\n", p.r.Release.Format(dateFormat))
	}
}

func (p words) recipient(rcpt *Recipient) {
	fmt.Fprintf(p.w, "%s%s\r\n", clean(rcpt.Final.String(), maxField), rcpt.knownAs())
	e := explain(rcpt.Status, rcpt.Reply)
	trouble := rcpt.Action == Failed || rcpt.Action == Delayed
	if trouble {
		p.line(indent, e.means)
	}
	if trouble && rcpt.Attempts > 1 {
		p.line(indent, fmt.Sprintf("It was tried %d times in %s.", rcpt.Attempts, long(rcpt.LastAttempt.Sub(p.r.Arrived))))
	}
	if rcpt.Doubtful {
		p.line(indent, "It may have arrived all the same: the connection broke when all of it had been sent.")
	}
	if trouble || rcpt.Reply.Code != 0 {
		p.said(rcpt)
	}
	if rcpt.Action == Failed {
		p.line(indent, e.then)
	}
	if rcpt.Action == Delayed && !rcpt.RetryUntil.IsZero() {
		p.line(indent, "It will be tried until "+rcpt.RetryUntil.Format(dateFormat)+".")
	}
}

// long is a time in words: more than one of the largest unit that fits.
func long(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return "a short time"
}

// knownAs names the address that the sender wrote to, when another stands behind it.
func (rcpt *Recipient) knownAs() string {
	_, addr, _ := strings.Cut(rcpt.Original, ";")
	if addr = clean(addr, maxField); addr == "" || strings.EqualFold(addr, rcpt.Final.String()) {
		return ""
	}
	return " (to which " + addr + " leads)"
}

// said quotes the other side, or says what we met ourselves.
func (p words) said(rcpt *Recipient) {
	said, from := clean(rcpt.Reply.String(), maxReply), clean(rcpt.Reply.From, maxReply)
	switch {
	case said == "":
	case from == "":
		p.line(indent, "The reason: "+said)
	case rcpt.Reply.Code == 0:
		p.line(indent, from+": "+said)
	default:
		p.line(indent, "The server "+from+" said:")
		p.line(indent+"> ", said)
	}
}

func (p words) enclosed() {
	switch {
	case p.r.Original == nil:
	case p.r.HeaderOnly:
		p.line("", "The header of the message is attached.")
	default:
		p.line("", "The message is attached.")
	}
}

func (p words) blank() { io.WriteString(p.w, "\r\n") }

// line writes text in lines of moderate length, each behind prefix; nothing for no text.
func (p words) line(prefix, text string) {
	length := 0
	for word := range strings.FieldsSeq(text) {
		n := len([]rune(word))
		switch {
		case length == 0:
			io.WriteString(p.w, prefix)
			length = len(prefix)
		case length+1+n > column:
			io.WriteString(p.w, "\r\n"+prefix)
			length = len(prefix)
		default:
			io.WriteString(p.w, " ")
			length++
		}
		io.WriteString(p.w, word)
		length += n
	}
	if length > 0 {
		p.blank()
	}
}
