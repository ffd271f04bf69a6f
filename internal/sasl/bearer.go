package sasl

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Bearer says how the server's end of OAUTHBEARER and XOAUTH2 is to decide.
type Bearer struct {
	// Check is told once which token the client has shown; empty is none, which asks where to get one. identity is as
	// whom the client wants to act; with OAUTHBEARER it may be empty.
	Check func(identity, token string) error
	// Refusal is what a client is told whose token opens nothing, before the exchange ends with Check's error: a JSON
	// object. nil is nothing: the exchange ends at once, as it should where the error is not the token's.
	Refusal func(err error) []byte
}

// NewOAuthBearer returns the server's end of OAUTHBEARER (RFC 7628).
func NewOAuthBearer(b Bearer) Server { return &bearer{Bearer: b, parse: parseOAuthBearer} }

// NewXOAuth2 returns the server's end of XOAUTH2, the form that came before OAUTHBEARER, which has no RFC.
func NewXOAuth2(b Bearer) Server { return &bearer{Bearer: b, parse: parseXOAuth2} }

type bearer struct {
	Bearer
	parse   func(message string) (identity, token string, ok bool)
	asked   bool
	over    bool
	refused error // what the exchange ends with when the client has heard why
}

// maxBearer bounds the message, in octets: tokens that say something of themselves are long.
const maxBearer = 12 << 10

func (b *bearer) Next(response []byte) ([]byte, bool, error) {
	switch {
	case b.refused != nil: // the client has nothing to say but that it has heard (RFC 7628, 3.2.3)
		err := b.refused
		b.refused = nil
		return nil, false, err
	case b.over:
		return nil, false, ErrSyntax
	case response == nil && !b.asked:
		b.asked = true
		return []byte{}, false, nil
	}
	b.over = true
	if len(response) > maxBearer || !utf8.Valid(response) || bytes.IndexByte(response, 0) >= 0 {
		return nil, false, ErrSyntax
	}
	identity, token, ok := b.parse(string(response))
	if !ok {
		return nil, false, ErrSyntax
	}
	err := b.Check(identity, token)
	if err == nil {
		return nil, true, nil
	}
	if challenge := b.Refusal(err); challenge != nil {
		b.refused = err
		return challenge, false, nil
	}
	return nil, false, err
}

// kvsep ends each pair of key and value, and all of them.
const kvsep = "\x01"

// parseOAuthBearer reads client-resp of RFC 7628, 3.1: gs2-header kvsep *kvpair kvsep. There is no channel binding.
func parseOAuthBearer(message string) (identity, token string, ok bool) {
	flag, rest, ok1 := strings.Cut(message, ",")
	authzid, rest, ok2 := strings.Cut(rest, ",")
	if !ok1 || !ok2 || flag != "n" && flag != "y" {
		return "", "", false
	}
	if authzid != "" {
		encoded, named := strings.CutPrefix(authzid, "a=")
		name, err := saslName(encoded)
		if !named || err != nil {
			return "", "", false
		}
		identity = name
	}
	pairs, ok := strings.CutPrefix(rest, kvsep)
	if !ok {
		return "", "", false
	}
	values, ok := keyValues(pairs)
	token, scheme := bearerToken(values["auth"])
	return identity, token, ok && scheme
}

// parseXOAuth2 reads "user=" name kvsep "auth=Bearer " token kvsep kvsep.
func parseXOAuth2(message string) (identity, token string, ok bool) {
	values, ok := keyValues(message)
	token, scheme := bearerToken(values["auth"])
	return Prepare(values["user"]), token, ok && scheme && values["user"] != ""
}

// keyValues reads *kvpair kvsep, kvpair being key "=" value kvsep. A key stands once.
func keyValues(s string) (values map[string]string, ok bool) {
	pairs, ok := strings.CutSuffix(s, kvsep)
	if !ok {
		return nil, false
	}
	values = map[string]string{}
	for pair := range strings.SplitAfterSeq(pairs, kvsep) {
		if pair == "" { // after the last
			continue
		}
		pair, ended := strings.CutSuffix(pair, kvsep)
		key, value, found := strings.Cut(pair, "=")
		if _, twice := values[key]; !ended || !found || twice || !isKey(key) || !isValue(value) {
			return nil, false
		}
		values[key] = value
	}
	return values, true
}

func isKey(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return (r|0x20) < 'a' || (r|0x20) > 'z' }) < 0
}

func isValue(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' && r != '\n' || r == 0x7f }) < 0
}

// bearerToken reads the value of an Authorization field of HTTP (RFC 6750, 2.1). An empty one has no token and is one.
func bearerToken(s string) (token string, ok bool) {
	if s == "" {
		return "", true
	}
	scheme, token, found := strings.Cut(s, " ")
	token = strings.Trim(token, " ")
	body := strings.TrimRight(token, "=")
	letters := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
	return token, found && strings.EqualFold(scheme, "Bearer") && body != "" && strings.Trim(body, letters) == ""
}

// NewExternal returns the server's end of EXTERNAL (RFC 4422, appendix A): the client is who the connection says, below.
// identity is as whom it wants to act, or empty.
func NewExternal(check func(identity string) error) Server { return &external{check: check} }

type external struct {
	check func(identity string) error
	asked bool
	over  bool
}

func (e *external) Next(response []byte) ([]byte, bool, error) {
	switch {
	case response == nil && !e.asked && !e.over:
		e.asked = true
		return []byte{}, false, nil
	case e.over || response == nil || !utf8.Valid(response) || bytes.IndexByte(response, 0) >= 0:
		return nil, false, ErrSyntax
	}
	e.over = true
	err := e.check(Prepare(string(response)))
	return nil, err == nil, err
}
