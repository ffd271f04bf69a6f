package mailauth

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"time"

	"postroad/internal/envelope"
)

// signature is what a DKIM-Signature, ARC-Message-Signature or ARC-Seal field says.
type signature struct {
	field     *field
	Algorithm Algorithm
	Domain    string // in A-labels
	Selector  string
	identity  string // i= of DKIM
	names     []string
	body      bodyForm
	relaxed   bool // the header
	bodyHash  []byte
	value     []byte
	made      time.Time
	expires   time.Time
}

// bodyForm is which hash of a body is meant.
type bodyForm struct {
	relaxed bool
	length  int64 // so many octets only; -1 is all
}

// bodyHash is a hash of a body in one form.
type bodyHash struct {
	form  bodyForm
	hash  hash.Hash
	taken int64 // octets of the canonical body
	canonicalBody
}

func newBodyHash(form bodyForm) *bodyHash {
	h := &bodyHash{form: form, hash: sha256.New()}
	h.canonicalBody = canonicalBody{w: limited{h}, relaxed: form.relaxed}
	return h
}

// limited counts what a bodyHash gets, and hashes as much as its form says.
type limited struct{ h *bodyHash }

func (l limited) Write(p []byte) (int, error) {
	use := p
	if most := l.h.form.length; most >= 0 {
		use = p[:min(int64(len(p)), max(0, most-l.h.taken))]
	}
	l.h.hash.Write(use)
	l.h.taken += int64(len(p))
	return len(p), nil
}

// parseDKIM reads a DKIM-Signature field (RFC 6376, 3.5).
func parseDKIM(f *field) (*signature, error) {
	t, err := parseTags(string(f.body()))
	if err != nil {
		return nil, err
	}
	if t["v"] != "1" {
		return nil, errors.New("it is of another version than 1")
	}
	s, err := parseMessageSignature(f, t)
	if err != nil {
		return nil, err
	}
	s.identity = t["i"]
	if s.identity == "" {
		return s, nil
	}
	at := strings.LastIndexByte(s.identity, '@')
	if at < 0 || !isWithin(s.identity[at+1:], s.Domain) {
		return s, errors.New("the tag i is not within the domain d")
	}
	return s, nil
}

// isWithin reports whether name is domain or below it. Domain is in A-labels.
func isWithin(name, domain string) bool {
	name, err := envelope.ParseDomain(name)
	return err == nil && (name == domain || strings.HasSuffix(name, "."+domain))
}

// parseMessageSignature reads what signatures of DKIM and ARC over a message have in common. With an error there is what
// names the key, if it could be read.
func parseMessageSignature(f *field, t tags) (*signature, error) {
	s, err := parseSigner(f, t)
	if err != nil {
		return s, err
	}
	if s.names = t.list("h"); len(s.names) == 0 {
		return s, errors.New("the tag h is missing")
	}
	if len(s.names) > maxNames {
		return s, fmt.Errorf("it names more than %d fields", maxNames)
	}
	if s.bodyHash, err = t.octets("bh"); err != nil {
		return s, err
	}
	if err := s.canonicalization(t); err != nil {
		return s, err
	}
	s.body.length, err = t.number("l", 18)
	return s, err
}

// parseSigner reads what all signatures have.
func parseSigner(f *field, t tags) (s *signature, err error) {
	s = &signature{field: f}
	if s.Selector, err = t.need("s"); err != nil {
		return s, err
	}
	if s.Domain, err = t.need("d"); err != nil {
		return s, err
	}
	if s.Domain, err = envelope.ParseDomain(s.Domain); err != nil || s.Domain[0] == '[' {
		return s, errors.New("the tag d is no domain")
	}
	if s.Selector, err = envelope.ParseDomain(s.Selector + "." + s.Domain); err != nil {
		return s, errors.New("the tag s is no selector")
	}
	s.Selector = strings.TrimSuffix(s.Selector, "."+s.Domain)
	if s.value, err = t.octets("b"); err != nil {
		return s, err
	}
	if s.made, err = t.time("t"); err != nil {
		return s, err
	}
	if s.expires, err = t.time("x"); err != nil {
		return s, err
	}
	switch s.Algorithm = Algorithm(t["a"]); s.Algorithm {
	case RSA, Ed25519:
		return s, nil
	case "rsa-sha1":
		return s, errors.New("rsa-sha1 proves nothing (RFC 8301)")
	}
	return s, errors.New("the algorithm is not known")
}

// canonicalization reads c=. What is left out is simple.
func (s *signature) canonicalization(t tags) error {
	c, ok := t["c"]
	if !ok {
		return nil
	}
	header, body, both := strings.Cut(c, "/")
	if !both {
		body = "simple"
	}
	for _, x := range []struct {
		form string
		to   *bool
	}{{header, &s.relaxed}, {body, &s.body.relaxed}} {
		switch strings.Trim(x.form, fws) {
		case "simple":
		case "relaxed":
			*x.to = true
		default:
			return errors.New("the canonicalization is not known")
		}
	}
	return nil
}

// expired reports whether the signature counts no more, with an hour for clocks that differ.
func (s *signature) expired(now time.Time) bool {
	return !s.expires.IsZero() && now.After(s.expires.Add(time.Hour))
}

// digest is what is signed: the fields that were chosen, then the signature's own without its value (RFC 6376, 3.7).
func (s *signature) digest(fields []field) []byte {
	h := sha256.New()
	buf := make([]byte, 0, 1024)
	for _, f := range choose(fields, s.names) {
		buf = canonical(buf[:0], f.raw, s.relaxed)
		h.Write(buf)
	}
	buf = canonical(buf[:0], withoutValue(s.field.raw), s.relaxed)
	h.Write(bytes.TrimSuffix(buf, []byte("\r\n")))
	return h.Sum(nil)
}

// withoutValue empties the tag b, and leaves the rest as it is.
func withoutValue(raw []byte) []byte {
	start := bytes.IndexByte(raw, ':') + 1
	for start < len(raw) {
		end := start + bytes.IndexByte(raw[start:], ';')
		if end < start {
			end = len(raw)
		}
		eq := start + bytes.IndexByte(raw[start:end], '=')
		if eq >= start && string(bytes.Trim(raw[start:eq], fws)) == "b" {
			return slices.Concat(raw[:eq+1], raw[valueEnd(raw, end):])
		}
		start = end + 1
	}
	return raw
}

// valueEnd keeps the field's last line end, where no ";" ends the value.
func valueEnd(raw []byte, end int) int {
	if end == len(raw) && bytes.HasSuffix(raw, []byte("\r\n")) {
		return end - 2
	}
	return end
}
