package smtpd

import (
	"errors"
	"strings"

	"postroad/internal/envelope"
)

var errAmbiguous = errors.New("the part before the last @ has another @ in it")

// sender reads a reverse-path as the engine hands it over.
func sender(s string, utf8 bool) (envelope.Address, error) {
	if s == "" {
		return envelope.Address{}, nil
	}
	if !utf8 && !envelope.IsASCII(s) {
		return envelope.Address{}, replyNeedUTF8
	}
	addr, err := parse(s)
	if err != nil {
		return addr, reply(501, "5.1.7", "%s", envelope.Sanitize(err.Error(), 200))
	}
	return addr, nil
}

// forward reads a forward-path as the engine hands it over.
func forward(s string, utf8 bool) (envelope.Address, error) {
	if !utf8 && !envelope.IsASCII(s) {
		return envelope.Address{}, replyNeedUTF8
	}
	addr, err := parse(s)
	if err != nil {
		return addr, reply(501, "5.1.3", "%s", envelope.Sanitize(err.Error(), 200))
	}
	return addr, nil
}

// parse reads an address whose local part has lost its quotes, source route and
// brackets: it puts the quotes back and lets the one parser of addresses decide.
func parse(s string) (envelope.Address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return envelope.ParseAddress(s)
	}
	local := s[:at]
	if strings.Contains(local, "@") {
		return envelope.Address{}, errAmbiguous
	}
	return envelope.ParseAddress(envelope.Address{Local: local}.String() + s[at:])
}
