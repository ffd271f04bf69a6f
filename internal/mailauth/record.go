package mailauth

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postroad/internal/dns"
)

// keyRecord is a public key in the DNS (RFC 6376, 3.6.1).
type keyRecord struct {
	public  crypto.PublicKey // *rsa.PublicKey or ed25519.PublicKey
	testing bool             // t=y
	strict  bool             // t=s: i= must be in d= itself
}

// Errors that a verdict depends on.
var (
	errNoKey   = errors.New("the DNS has no key for it")
	errRevoked = errors.New("the key was revoked")
)

// parseKey reads a key record.
func parseKey(text string) (*keyRecord, error) {
	t, err := parseTags(text)
	if err != nil {
		return nil, fmt.Errorf("the key record is malformed: %w", err)
	}
	if v, ok := t["v"]; ok && (v != "DKIM1" || !strings.HasPrefix(strings.TrimLeft(text, fws), "v")) {
		return nil, errors.New("the key record is of another version than DKIM1")
	}
	if list := t.list("h"); list != nil && !slices.Contains(list, "sha256") {
		return nil, errors.New("the key is not for sha256")
	}
	if list := t.list("s"); list != nil && !slices.Contains(list, "*") && !slices.Contains(list, "email") {
		return nil, errors.New("the key is not for mail")
	}
	flags := t.list("t")
	k := &keyRecord{testing: slices.Contains(flags, "y"), strict: slices.Contains(flags, "s")}
	p, ok := t["p"]
	switch {
	case !ok:
		return nil, errors.New("the key record has no key")
	case p == "":
		return nil, errRevoked
	}
	der, err := base64.StdEncoding.DecodeString(without(p))
	if err != nil {
		return nil, errors.New("the key is no base64")
	}
	k.public, err = parsePublic(t["k"], der)
	return k, err
}

func parsePublic(kind string, der []byte) (crypto.PublicKey, error) {
	switch strings.ToLower(kind) {
	case "", "rsa":
		return parseRSA(der)
	case "ed25519":
		if len(der) != ed25519.PublicKeySize {
			return nil, errors.New("the key is no ed25519 key")
		}
		return ed25519.PublicKey(der), nil
	}
	return nil, errors.New("the kind of the key is not known")
}

// parseRSA reads a key as RFC 6376 has it, or as many have it in fact: the inner structure alone.
func parseRSA(der []byte) (*rsa.PublicKey, error) {
	var key *rsa.PublicKey
	if any, err := x509.ParsePKIXPublicKey(der); err == nil {
		key, _ = any.(*rsa.PublicKey)
	} else {
		key, _ = x509.ParsePKCS1PublicKey(der)
	}
	if key == nil {
		return nil, errors.New("the key is no RSA key")
	}
	if n := key.N.BitLen(); n < minRSA || n > maxRSA {
		return nil, fmt.Errorf("the key has %d bits; %d to %d are taken", n, minRSA, maxRSA)
	}
	return key, nil
}

// lookupKey asks the DNS for the key of a signature. With several records the first that is a key counts.
func lookupKey(ctx context.Context, r dns.Resolver, selector, domain string) (*keyRecord, error) {
	answer, err := r.LookupTXT(ctx, selector+"._domainkey."+domain)
	switch {
	case errors.Is(err, dns.ErrNotFound):
		return nil, errNoKey
	case err != nil:
		return nil, &trouble{err}
	}
	err = errNoKey
	for _, text := range answer.Records[:min(len(answer.Records), maxRecords)] {
		var k *keyRecord
		if k, err = parseKey(text); err == nil {
			return k, nil
		}
	}
	return nil, err
}

const maxRecords = 5

// trouble is what another try may mend.
type trouble struct{ err error }

func (t *trouble) Error() string { return t.err.Error() }
func (t *trouble) Unwrap() error { return t.err }
