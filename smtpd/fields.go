package smtpd

import (
	"crypto/tls"
	"strconv"
	"strings"

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
	client, comment := m.client()
	field := "Received: from " + client + comment
	if name := tlsName(s.tls); name != "" {
		field += "\r\n\t(using " + strings.Replace(name, " ", " with cipher ", 1) + ")"
	}
	field += "\r\n\tby " + s.srv.Hostname + " with " + s.protocol(m.tx) + " id " + m.id()
	if len(m.tx.given) == 1 {
		field += "\r\n\tfor " + m.tx.given[0].Path()
	}
	if s.srv.kind == Submission && s.tls != nil { // RFC 8314, 4.3
		field += "\r\n\ttls " + tls.CipherSuiteName(s.tls.CipherSuite)
	}
	if n := m.tx.envelope.Priority; n != 0 { // RFC 6710, 7
		field += "\r\n\tPRIORITY " + strconv.Itoa(n)
	}
	return field + "; " + m.arrived.Format(dateFormat) + "\r\n"
}

// hiddenClient is the client's name when it is not shown: one that is nobody's (RFC 2606, 2).
const hiddenClient = "client.invalid"

// client says from whom the message is (RFC 5321, 4.4). What a submitter calls itself, and where it is, may be its owner's
// own business: the trace knows both.
func (m *message) client() (name, comment string) {
	if m.s.srv.kind == Submission && m.s.srv.Outgoing.HideClient {
		return hiddenClient, ""
	}
	return m.s.hello.name, m.s.peer.comment()
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
	if m.header.leaderless() {
		fields += "Sender: " + m.s.account.Address.String() + "\r\n"
	}
	if !m.header.identified {
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

// unfold undoes the folding of a field (RFC 5322, 2.2.3).
func unfold(s string) string {
	return strings.TrimSpace(strings.ReplaceAll(s, "\r\n", ""))
}
