package mailauth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"postroad/internal/dns"
)

// Verdict is what is found of a proof, in the words of RFC 8601.
type Verdict string

// The verdicts.
const (
	None      Verdict = "none"
	Pass      Verdict = "pass"
	Fail      Verdict = "fail"
	SoftFail  Verdict = "softfail" // of SPF
	Neutral   Verdict = "neutral"  // of SPF
	Policy    Verdict = "policy"   // it passes, and is not to be trusted
	TempError Verdict = "temperror"
	PermError Verdict = "permerror"
)

// DKIM is what is found of one DKIM signature.
type DKIM struct {
	Verdict   Verdict
	Domain    string // d=, in A-labels; empty when it could not be read
	Selector  string
	Identity  string // i=; empty when there is none
	Algorithm Algorithm
	Value     string   // the first of b=, by which one of several is told (RFC 6008)
	Names     []string // the fields that are signed, in lower case, as often as h= has them
	Testing   bool     // the domain says that it is only trying
	Reason    string   // in words; empty when it passes
}

// Results is what is found of a message. Nothing is decided by it here: whoever does knows Names, and looks for fields that
// are there more often than they were signed.
type Results struct {
	DKIM []DKIM // the first ten, from the top
	ARC  ARC
}

// Verify reads a message to its end and verifies its signatures. An error is r's, or of a header that is too large; trouble
// with the DNS is in the results.
func Verify(ctx context.Context, resolver dns.Resolver, now time.Time, r io.Reader) (Results, error) {
	m, err := readHead(r)
	if err != nil {
		return Results{}, err
	}
	e := examine(m.fields)
	if err := m.readBody(e.forms()...); err != nil {
		return Results{}, err
	}
	return e.results(ctx, resolver, now, m), nil
}

// examination is what a header has to verify.
type examination struct {
	dkim  []examined
	chain *chain
}

// examined is a DKIM-Signature field; with an error, sig has what could be read.
type examined struct {
	sig *signature
	err error
}

func examine(fields []field) *examination {
	e := &examination{chain: readChain(fields)}
	for i := range fields {
		if fields[i].name != "dkim-signature" || len(e.dkim) == maxSignatures {
			continue
		}
		sig, err := parseDKIM(&fields[i])
		e.dkim = append(e.dkim, examined{sig, err})
	}
	return e
}

// forms are the hashes of the body that are needed.
func (e *examination) forms() (forms []bodyForm) {
	for _, x := range e.dkim {
		if x.err == nil {
			forms = append(forms, x.sig.body)
		}
	}
	if s := e.chain.last(); s != nil {
		forms = append(forms, s.message.body)
	}
	return forms
}

func (e *examination) results(ctx context.Context, resolver dns.Resolver, now time.Time, m *message) Results {
	v := &verifier{ctx, resolver, now, m, map[[2]string]found{}}
	res := Results{ARC: v.chain(e.chain)}
	for _, x := range e.dkim {
		res.DKIM = append(res.DKIM, v.dkim(x))
	}
	return res
}

// verifier verifies the signatures of one message. It asks for each key once.
type verifier struct {
	ctx      context.Context
	resolver dns.Resolver
	now      time.Time
	m        *message
	keys     map[[2]string]found
}

type found struct {
	key *keyRecord
	err error
}

func (v *verifier) key(s *signature) (*keyRecord, error) {
	at := [2]string{s.Selector, s.Domain}
	f, ok := v.keys[at]
	if !ok {
		f.key, f.err = lookupKey(v.ctx, v.resolver, s.Selector, s.Domain)
		v.keys[at] = f
	}
	return f.key, f.err
}

// Errors of signatures that are well formed and do not hold.
var (
	errBody      = errors.New("the body was changed")
	errSignature = errors.New("the header was changed, or the key is another")
	errExpired   = errors.New("it has expired")
	errPart      = errors.New("it covers only the beginning of the body")
)

func (v *verifier) dkim(x examined) DKIM {
	d := DKIM{Verdict: PermError}
	if s := x.sig; s != nil {
		d.Domain, d.Selector, d.Identity, d.Algorithm, d.Names = s.Domain, s.Selector, s.identity, s.Algorithm, s.names
		d.Value = base64.StdEncoding.EncodeToString(s.value)
		d.Value = d.Value[:min(len(d.Value), 8)]
	}
	err := x.err
	if err == nil && !slices.Contains(x.sig.names, "from") {
		err = errors.New("the From field is not signed")
	}
	if err != nil {
		d.Reason = err.Error()
		return d
	}
	if key, err := v.key(x.sig); err == nil {
		d.Testing = key.testing
	}
	if err = v.message(x.sig); err != nil {
		d.Verdict, d.Reason = verdict(err), err.Error()
		return d
	}
	d.Verdict = Pass
	return d
}

// verdict is what an error of a signature that could be read means.
func verdict(err error) Verdict {
	_, temporary := errors.AsType[*trouble](err)
	switch {
	case temporary:
		return TempError
	case errors.Is(err, errPart):
		return Policy
	case errors.Is(err, errBody), errors.Is(err, errSignature), errors.Is(err, errExpired):
		return Fail
	}
	return PermError
}

// message verifies a signature over the message.
func (v *verifier) message(s *signature) error {
	key, err := v.key(s)
	if err != nil {
		return err
	}
	if key.strict && s.identity != "" && !strings.HasSuffix(strings.ToLower(s.identity), "@"+s.Domain) {
		return errors.New("the key is for its domain only, and the tag i is below that")
	}
	if s.expired(v.now) {
		return errExpired
	}
	h := v.m.hash(s.body)
	if h == nil || !bytes.Equal(h.hash.Sum(nil), s.bodyHash) {
		return errBody
	}
	if err := check(key, s, s.digest(v.m.fields)); err != nil {
		return err
	}
	if most := s.body.length; most >= 0 && h.taken != most {
		return errPart // what was added may say anything
	}
	return nil
}

// check holds a value against a SHA-256 hash.
func check(key *keyRecord, s *signature, digest []byte) error {
	switch public := key.public.(type) {
	case *rsa.PublicKey:
		if s.Algorithm != RSA {
			return errors.New("the key is of another kind than the signature")
		}
		if rsa.VerifyPKCS1v15(public, crypto.SHA256, digest, s.value) != nil {
			return errSignature
		}
	case ed25519.PublicKey:
		if s.Algorithm != Ed25519 {
			return errors.New("the key is of another kind than the signature")
		}
		if !ed25519.Verify(public, digest, s.value) {
			return errSignature
		}
	}
	return nil
}
