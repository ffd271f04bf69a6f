package smtpd

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"postroad/internal/envelope"
	"postroad/smtpd/wire"
)

// mailParams reads the parameters of MAIL.
func (s *session) mailParams(e *envelope.Envelope, list []wire.Param) error {
	for _, p := range list {
		if err := s.mailParam(e, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) mailParam(e *envelope.Envelope, p wire.Param) (err error) {
	switch p.Keyword {
	case "SIZE":
		return s.sizeParam(p.Value)
	case "BODY":
		e.Body = envelope.Body(strings.ToUpper(p.Value))
		if e.Body != envelope.Body7Bit && e.Body != envelope.Body8Bit && e.Body != envelope.BodyBinary {
			return reply(501, "5.5.4", "BODY is 7BIT, 8BITMIME or BINARYMIME")
		}
	case "SMTPUTF8":
		e.UTF8 = true
		if p.HasValue {
			return reply(501, "5.5.4", "SMTPUTF8 has no value")
		}
	case "RET":
		e.Return = envelope.Return(strings.ToUpper(p.Value))
		if e.Return != envelope.ReturnFull && e.Return != envelope.ReturnHeaders {
			return reply(501, "5.5.4", "RET is FULL or HDRS")
		}
	case "ENVID":
		if e.ID, err = envelope.DecodeXtext(p.Value); err != nil || e.ID == "" || len(e.ID) > 100 {
			return reply(501, "5.5.4", "ENVID is not xtext of 1 to 100 octets")
		}
	default:
		return reply(555, "5.5.4", "the MAIL parameter %s is not known here", p.Keyword)
	}
	return nil
}

// sizeParam holds the size that the peer announces against the limit (RFC 1870, 6).
func (s *session) sizeParam(value string) error {
	if value == "" || len(value) > 20 || strings.Trim(value, "0123456789") != "" {
		return reply(501, "5.5.4", "SIZE is a number of octets")
	}
	if n, err := strconv.ParseInt(value, 10, 64); err != nil || n > s.srv.Limits.MessageSize {
		return replyTooBig
	}
	return nil
}

// rcptParams reads the parameters of RCPT.
func (s *session) rcptParams(r *envelope.Recipient, list []wire.Param) (err error) {
	for _, p := range list {
		switch p.Keyword {
		case "NOTIFY":
			if r.Notify, err = envelope.ParseNotify(p.Value); err != nil {
				return reply(501, "5.5.4", "%s", err)
			}
		case "ORCPT":
			kind, addr, ok := strings.Cut(p.Value, ";")
			if addr, err = envelope.DecodeXtext(addr); err != nil || !ok || kind == "" || addr == "" ||
				!utf8.ValidString(addr) || strings.ContainsFunc(addr, unicode.IsControl) {
				return replyORCPT
			}
			r.Original = strings.ToLower(kind) + ";" + addr
		default:
			return reply(555, "5.5.4", "the RCPT parameter %s is not known here", p.Keyword)
		}
	}
	return nil
}
