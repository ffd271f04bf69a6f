package smtpd

import (
	"fmt"
	"io"
	"mime"
	"net/mail"
	"strconv"
	"strings"

	"postroad/internal/envelope"
	"postroad/spool"
)

// dateFormat is date-time of RFC 5322, 3.3.
const dateFormat = "Mon, 2 Jan 2006 15:04:05 -0700"

// traceFields are what we put before the content, and the length of the first: only
// final delivery shows Return-Path (RFC 5321, 4.4).
func (m *message) traceFields() (fields []byte, skip int64) {
	returnPath := "Return-Path: " + m.from() + "\r\n"
	return []byte(returnPath + m.tx.deliveredField() + m.receivedField() + m.missingFields()), int64(len(returnPath))
}

// receivedField says from whom, by whom, how and when. The recipient is named when
// there is one: two must not learn of each other (RFC 5321, 7.6).
func (m *message) receivedField() string {
	s := m.s
	field := "Received: from " + s.hello.name + s.peer.comment()
	if name := tlsName(s.tls); name != "" {
		field += "\r\n\t(using " + strings.Replace(name, " ", " with cipher ", 1) + ")"
	}
	field += "\r\n\tby " + s.srv.Hostname + " with " + s.protocol(m.tx) + " id " + m.id()
	if len(m.tx.given) == 1 {
		field += "\r\n\tfor " + m.tx.given[0].Path()
	}
	if n := m.tx.envelope.Priority; n != 0 { // RFC 6710, 7
		field += "\r\n\tPRIORITY " + strconv.Itoa(n)
	}
	return field + "; " + m.arrived.Format(dateFormat) + "\r\n"
}

// missingFields are those that a submission lacks (RFC 6409, 8). They stand before
// the content, whose octets stay as they came; nothing is added to a header of which
// only the beginning was seen.
func (m *message) missingFields() (fields string) {
	if m.s.srv.kind != Submission || !m.header.ended {
		return ""
	}
	if !m.header.date {
		fields += "Date: " + m.arrived.Format(dateFormat) + "\r\n"
	}
	if m.header.messageID == "" {
		m.header.messageID = "<" + m.id() + "@" + m.s.srv.Hostname + ">"
		fields += "Message-ID: " + m.header.messageID + "\r\n"
	}
	return fields
}

// protocol is the word for how the message came (RFC 3848; RFC 6531, 4.3).
func (s *session) protocol(tx *transaction) string {
	word := "ESMTP"
	switch {
	case tx.envelope.UTF8 && s.srv.kind == LMTP:
		word = "UTF8LMTP"
	case tx.envelope.UTF8:
		word = "UTF8SMTP"
	case s.srv.kind == LMTP:
		word = "LMTP"
	case !s.hello.esmtp:
		return "SMTP"
	}
	if s.tls != nil {
		word += "S"
	}
	if s.account != nil {
		word += "A"
	}
	return word
}

func (s *session) origin(tx *transaction) spool.Origin {
	o := spool.Origin{Protocol: s.protocol(tx), Peer: tx.origin.peer.String(), Helo: tx.origin.hello.name, TLS: tlsName(s.tls)}
	if s.account != nil {
		o.Account = s.account.Address.String()
	}
	return o
}

// mayWrite holds the From field of a submission to the account's own addresses.
func (s *session) mayWrite(h *header) error {
	if s.srv.kind != Submission {
		return nil
	}
	authors, err := authors(h)
	if err != nil {
		return reply(554, "5.6.0", "%s", err) // RFC 6409, 6.3
	}
	for _, a := range authors {
		ok, err := s.srv.Accounts.MaySend(s.account.ID, a)
		if err == nil && !ok {
			err = reply(550, "5.7.1", "the From field says %s, and %s may not send as that", a, s.account.Address)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// authors reads the one From field that there must be (RFC 5322, 3.6).
func authors(h *header) (list []envelope.Address, err error) {
	switch {
	case len(h.from) == 0:
		return nil, fmt.Errorf("the message has no From field")
	case len(h.from) > 1:
		return nil, fmt.Errorf("the message has several From fields")
	case h.tooLong:
		return nil, fmt.Errorf("the From field is longer than %d octets", fieldSize)
	}
	parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: anyCharset}}
	found, err := parser.ParseList(unfold(h.from[0]))
	if err != nil {
		return nil, fmt.Errorf("the From field cannot be read as addresses")
	}
	for _, f := range found {
		a, err := addrSpec(f.Address)
		if err != nil {
			return nil, fmt.Errorf("the From field has a bad address: %w", err)
		}
		list = append(list, a)
	}
	return list, nil
}

// addrSpec reads an address that net/mail has taken the quotes off.
func addrSpec(s string) (envelope.Address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return envelope.ParseAddress(s)
	}
	return envelope.ParseAddress(envelope.Address{Local: s[:at]}.String() + s[at:])
}

// unfold undoes the folding of a field (RFC 5322, 2.2.3).
func unfold(s string) string {
	return strings.TrimSpace(strings.ReplaceAll(s, "\r\n", ""))
}

// anyCharset lets display names be in any charset: only the addresses matter here.
func anyCharset(_ string, r io.Reader) (io.Reader, error) { return r, nil }
