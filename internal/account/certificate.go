package account

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"slices"
)

// certified logs in by the certificate that the client has shown (RFC 4422, appendix A): to the account whose address
// stands in it. Of several the client must say which it means.
func (e *exchange) certified(identity string) error {
	e.user = identity
	l, cert := e.logins, e.client.Certificate
	t, err := l.guard.EnterSafely(e.ctx, e.client.From, nameOf(identity))
	if err != nil {
		return err
	}
	w, err := l.certificateHolder(cert, identity)
	if err != nil {
		return l.settle(e.ctx, t, string(cert.Raw), err)
	}
	t.Drop()
	e.admit(w, "certificate")
	return nil
}

func (l *Logins) certificateHolder(cert *x509.Certificate, identity string) (found *holder, err error) {
	for _, name := range mailboxesOf(cert) {
		if !actsAsItself(identity, name) {
			continue
		}
		w, err := l.enabled(name)
		switch {
		case errors.Is(err, ErrCredentials) || err == nil && found != nil && w.ID == found.ID:
			continue
		case err != nil:
			return nil, err
		case found != nil:
			return nil, ErrCredentials // which of the two?
		}
		found = w
	}
	if found == nil {
		return nil, ErrCredentials
	}
	return found, nil
}

// The extension of other names of the subject (RFC 5280, 4.2.1.6), and the kind of name that is an address which is
// not ASCII (RFC 9598, 3).
var (
	subjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	smtpUTF8Mailbox = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 9}
)

// mailboxesOf are the addresses that a certificate is for.
func mailboxesOf(cert *x509.Certificate) []string {
	list := slices.Clone(cert.EmailAddresses)
	for _, ext := range cert.Extensions {
		if ext.Id.Equal(subjectAltName) {
			list = append(list, utf8Mailboxes(ext.Value)...)
		}
	}
	return list
}

// otherName is the content of a GeneralName of that kind.
type otherName struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue // [0] EXPLICIT
}

func utf8Mailboxes(names []byte) (list []string) {
	var all []asn1.RawValue
	if rest, err := asn1.Unmarshal(names, &all); err != nil || len(rest) > 0 {
		return nil
	}
	for _, v := range all {
		var other otherName
		var mailbox string
		if v.Class != asn1.ClassContextSpecific || v.Tag != 0 {
			continue
		}
		if _, err := asn1.UnmarshalWithParams(v.FullBytes, &other, "tag:0"); err != nil || !other.Type.Equal(smtpUTF8Mailbox) {
			continue
		}
		if _, err := asn1.UnmarshalWithParams(other.Value.Bytes, &mailbox, "utf8"); err == nil {
			list = append(list, mailbox)
		}
	}
	return list
}
