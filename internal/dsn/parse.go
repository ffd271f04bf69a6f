package dsn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"postroad/internal/envelope"
)

// Bounds of what Parse reads.
const (
	maxReport     = 1 << 20
	maxRecipients = 1000
)

// ErrNotReport means that a message is not a delivery report.
var ErrNotReport = errors.New("not a delivery report")

// Parse reads a delivery report, at most 1 MiB of it and 1,000 recipients; the
// message that it carries is not returned. What a report says is claimed, not proven:
// anyone can write one. ErrNotReport when r is another message.
func Parse(r io.Reader) (Report, error) {
	msg, err := mail.ReadMessage(io.LimitReader(r, maxReport))
	if err != nil {
		return Report{}, fmt.Errorf("%w: %w", ErrNotReport, err)
	}
	kind, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" {
		return Report{}, ErrNotReport
	}
	rep := Report{MessageID: msg.Header.Get("Message-Id"), Boundary: params["boundary"]}
	rep.Date, _ = msg.Header.Date()
	rep.To, _ = envelope.ParseAddress(msg.Header.Get("To"))
	return rep, rep.readParts(multipart.NewReader(msg.Body, rep.Boundary))
}

// readParts looks for the part with the facts.
func (r *Report) readParts(parts *multipart.Reader) error {
	for {
		part, err := parts.NextPart()
		if err != nil {
			return ErrNotReport
		}
		kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if kind == "message/delivery-status" || kind == "message/global-delivery-status" {
			r.UTF8 = kind == "message/global-delivery-status"
			return r.readFacts(part)
		}
	}
}

// readFacts reads groups of fields: the message's, then one for each recipient.
func (r *Report) readFacts(part io.Reader) error {
	in := textproto.NewReader(bufio.NewReader(part))
	first, err := in.ReadMIMEHeader()
	if len(first) == 0 {
		return ErrNotReport
	}
	r.Host = value(first.Get("Reporting-Mta"))
	r.EnvelopeID = clean(first.Get("Original-Envelope-Id"), maxField)
	r.Arrived = when(first, "Arrival-Date")
	for err == nil && len(r.Recipients) < maxRecipients {
		var group textproto.MIMEHeader
		group, err = in.ReadMIMEHeader()
		if group.Get("Final-Recipient") != "" {
			r.Recipients = append(r.Recipients, readRecipient(group))
		}
	}
	if len(r.Recipients) == 0 {
		return ErrNotReport
	}
	return nil
}

func readRecipient(h textproto.MIMEHeader) Recipient {
	rcpt := Recipient{
		Action:      Action(strings.ToLower(clean(h.Get("Action"), 40))),
		Status:      readStatus(h.Get("Status")),
		Reply:       readReply(value(h.Get("Diagnostic-Code"))),
		LastAttempt: when(h, "Last-Attempt-Date"),
		RetryUntil:  when(h, "Will-Retry-Until"),
	}
	rcpt.Final, _ = envelope.ParseAddress(value(h.Get("Final-Recipient")))
	rcpt.Reply.From = value(h.Get("Remote-Mta"))
	if kind, addr, ok := strings.Cut(clean(h.Get("Original-Recipient"), maxField), ";"); ok {
		rcpt.Original = strings.TrimSpace(kind) + ";" + strings.TrimSpace(addr)
	}
	return rcpt
}

// readStatus takes "5.1.1" from the front; what follows is a comment.
func readStatus(s string) string {
	s, _, _ = strings.Cut(clean(s, 40), " ")
	if !isStatus(s) {
		return ""
	}
	return s
}

// isStatus reports whether s is class.subject.detail (RFC 3463, 2).
func isStatus(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != "2" && parts[0] != "4" && parts[0] != "5" {
		return false
	}
	for _, p := range parts[1:] {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// readReply takes "550 5.1.1 text" apart.
func readReply(s string) envelope.Reply {
	r := envelope.Reply{Text: s}
	if code, rest, _ := strings.Cut(r.Text, " "); len(code) == 3 && code[0] >= '2' && code[0] <= '5' {
		if n, err := strconv.Atoi(code); err == nil {
			r.Code, r.Text = n, rest
		}
	}
	if status, rest, _ := strings.Cut(r.Text, " "); r.Code != 0 && isStatus(status) {
		r.Enhanced, r.Text = status, rest
	}
	return r
}

// value drops the type of "type; value".
func value(s string) string {
	if _, v, ok := strings.Cut(s, ";"); ok {
		return clean(v, maxField)
	}
	return ""
}

func when(h textproto.MIMEHeader, name string) time.Time {
	t, _ := mail.ParseDate(h.Get(name))
	return t
}
