package dsn

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"time"

	"postroad/internal/envelope"
)

// Bounds, in octets, of what a report repeats.
const (
	maxReply   = 600       // of a peer's words
	maxField   = 900       // of a field's value: a line stays below 998
	maxSubject = 200       // of the original's subject
	maxHeader  = 128 << 10 // of the original's header
)

// dateFormat is RFC 5322's date-time.
const dateFormat = "Mon, 2 Jan 2006 15:04:05 -0700"

// Write writes the report as a message with CRLF line ends. An error is w's or Original's.
func Write(w io.Writer, r Report) error {
	if r.Boundary == "" {
		r.Boundary = "=_" + rand.Text()
	}
	b := bufio.NewWriter(w)
	r.writeHeader(b)
	r.writeWords(b)
	r.writeFacts(b)
	if err := r.writeOriginal(b); err != nil {
		return err
	}
	fmt.Fprintf(b, "\r\n--%s--\r\n", r.Boundary)
	return b.Flush()
}

func (r *Report) writeHeader(w io.Writer) {
	field(w, "From", "Mail Delivery System <MAILER-DAEMON@"+r.Host+">")
	field(w, "To", r.To.String())
	field(w, "Subject", r.subject())
	field(w, "Date", r.Date.Format(dateFormat))
	field(w, "Message-ID", r.MessageID)
	optional(w, "In-Reply-To", r.Answers)
	optional(w, "References", r.Answers)
	field(w, "Auto-Submitted", "auto-replied")
	field(w, "MIME-Version", "1.0")
	fmt.Fprintf(w, "Content-Type: multipart/report; report-type=%s;\r\n\tboundary=\"%s\"\r\n", r.reportType(), r.Boundary)
	field(w, "Content-Transfer-Encoding", "8bit")
	io.WriteString(w, "\r\nThis is a delivery report in the format of RFC 3464.\r\n")
}

func (r *Report) reportType() string {
	if r.UTF8 {
		return "global-delivery-status"
	}
	return "delivery-status"
}

func (r *Report) kind() Action {
	if len(r.Recipients) == 0 {
		return Failed
	}
	return r.Recipients[0].Action
}

func (r *Report) subject() string {
	switch r.kind() {
	case Delayed:
		return "Your message is delayed"
	case Delivered:
		return "Your message was delivered"
	case Relayed, Expanded:
		return "Your message was sent on"
	}
	return "Your message could not be delivered"
}

// writeWords is the part for a person.
func (r *Report) writeWords(w io.Writer) {
	r.part(w, "text/plain; charset=utf-8", "8bit")
	words{r, w}.write()
}

// writeFacts is the part for a program: message/delivery-status.
func (r *Report) writeFacts(w io.Writer) {
	if r.UTF8 {
		r.part(w, "message/global-delivery-status", "8bit")
	} else {
		r.part(w, "message/delivery-status", "7bit")
	}
	field(w, "Reporting-MTA", "dns; "+r.Host)
	optional(w, "Original-Envelope-Id", r.EnvelopeID)
	date(w, "Arrival-Date", r.Arrived)
	date(w, "Deliver-By-Date", r.DeliverBy)
	if !r.Release.IsZero() {
		field(w, "Future-Release-Request", "until;"+r.Release.UTC().Format(time.RFC3339))
	}
	for _, rcpt := range r.Recipients {
		io.WriteString(w, "\r\n")
		r.writeRecipient(w, &rcpt)
	}
}

func (r *Report) writeRecipient(w io.Writer, rcpt *Recipient) {
	kind, addr, _ := strings.Cut(rcpt.Original, ";")
	if addr != "" {
		field(w, "Original-Recipient", kind+"; "+r.fact(addr))
	}
	field(w, "Final-Recipient", addressType(rcpt.Final)+"; "+r.fact(rcpt.Final.String()))
	field(w, "Action", string(rcpt.Action))
	field(w, "Status", rcpt.Status)
	if host, _, _ := strings.Cut(rcpt.Reply.From, " "); host != "" {
		field(w, "Remote-MTA", "dns; "+host)
	}
	if rcpt.Reply.Code != 0 {
		field(w, "Diagnostic-Code", "smtp; "+r.fact(clean(rcpt.Reply.String(), maxReply)))
	} else if rcpt.Reply.Text != "" {
		field(w, "Diagnostic-Code", "x-postroad; "+r.fact(clean(rcpt.Reply.String(), maxReply)))
	}
	date(w, "Last-Attempt-Date", rcpt.LastAttempt)
	optional(w, "Final-Log-ID", r.ID)
	date(w, "Will-Retry-Until", rcpt.RetryUntil)
}

// fact is text as this kind of report may have it: in a message/delivery-status, which is ASCII, what is beyond that is
// \x{} with hexadecimal digits, as RFC 6533, 3 has it for addresses.
func (r *Report) fact(s string) string {
	if r.UTF8 || envelope.IsASCII(s) {
		return s
	}
	var b strings.Builder
	for _, c := range s {
		if c > '~' || c == '\\' {
			fmt.Fprintf(&b, `\x{%X}`, c)
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

func addressType(a envelope.Address) string {
	if _, ascii := a.ASCII(); ascii {
		return "rfc822"
	}
	return "utf-8"
}

// writeOriginal attaches the message or its header.
func (r *Report) writeOriginal(b *bufio.Writer) error {
	if r.Original == nil {
		return nil
	}
	r.part(b, r.originalType(), "8bit")
	if r.HeaderOnly {
		return copyHeader(b, r.Original)
	}
	return copyMessage(b, r.Original)
}

func (r *Report) originalType() string {
	switch {
	case r.HeaderOnly && r.UTF8:
		return "message/global-headers"
	case r.HeaderOnly:
		return "text/rfc822-headers"
	case r.UTF8:
		return "message/global"
	}
	return "message/rfc822"
}

// copyHeader copies up to the empty line, at most maxHeader octets, in whole lines
// unless a single one is longer than that.
func copyHeader(w io.Writer, original io.Reader) error {
	in := bufio.NewReader(io.LimitReader(original, maxHeader))
	for start := true; ; {
		line, err := in.ReadSlice('\n')
		whole := err == nil
		if err != nil && err != bufio.ErrBufferFull && err != io.EOF {
			return err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if start && whole && text == "" {
			return nil
		}
		io.WriteString(w, text)
		if whole || err == io.EOF && text != "" {
			io.WriteString(w, "\r\n")
		}
		if err == io.EOF {
			return nil
		}
		start = whole
	}
}

// copyMessage copies all, with every line end as CRLF: what a report carries
// goes through servers that would refuse a bare CR or LF.
func copyMessage(w *bufio.Writer, original io.Reader) error {
	in := bufio.NewReader(original)
	var last byte
	for {
		c, err := in.ReadByte()
		if err != nil {
			if last == '\r' {
				w.WriteByte('\n')
			}
			return ignoreEOF(err)
		}
		if c == '\n' && last != '\r' {
			w.WriteByte('\r')
		}
		if c != '\n' && last == '\r' {
			w.WriteByte('\n')
		}
		if err := w.WriteByte(c); err != nil {
			return err
		}
		last = c
	}
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func (r *Report) part(w io.Writer, kind, encoding string) {
	fmt.Fprintf(w, "\r\n--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n", r.Boundary, kind, encoding)
}

func field(w io.Writer, name, value string) {
	fmt.Fprintf(w, "%s: %s\r\n", name, clean(value, maxField))
}

func optional(w io.Writer, name, value string) {
	if value != "" {
		field(w, name, value)
	}
}

func date(w io.Writer, name string, t time.Time) {
	if !t.IsZero() {
		field(w, name, t.Format(dateFormat))
	}
}

func clean(s string, max int) string { return envelope.Sanitize(s, max) }
