package account

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/sasl"
)

// tokens knows whom tokens were issued to; "trouble" is none.
type tokens map[string]string

var errTrouble = errors.New("the issuer does not answer")

func (k tokens) User(_ context.Context, token string) (name, why string, err error) {
	if token == "trouble" {
		return "", "", errTrouble
	}
	name, ok := k[token]
	if !ok {
		why = "nobody knows it"
	}
	return name, why, nil
}

func (tokens) Scope() string         { return "mail" }
func (tokens) Configuration() string { return "https://login.example/.well-known/openid-configuration" }

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		l.Tokens = tokens{"of-a": alice, "of-A": "A@X.test", "of-b": "b@x.test", "of-none": "z@x.test", "of-name": "alice"}
		only := true
		_, err := l.dir.Set(addr(alice), Settings{AppOnly: &only}) // which is about passwords
		l.change(t, err)
		l.change(t, l.dir.SetDisabled(addr("b@x.test"), true))
		for _, c := range []struct {
			name, identity, token string
			want                  error
		}{
			{"right", alice, "of-a", nil},
			{"in another case", "A@x.test", "of-A", nil},
			{"another's", alice, "of-b", ErrCredentials},
			{"as another", "b@x.test", "of-a", ErrCredentials},
			{"disabled", "b@x.test", "of-b", ErrCredentials},
			{"without an account", "z@x.test", "of-none", ErrCredentials},
			{"no address", "alice", "of-name", ErrCredentials},
			{"unknown", alice, "x", ErrCredentials},
			{"none", alice, "", ErrCredentials},
			{"trouble", alice, "trouble", errTrouble},
		} {
			for mechanism, message := range map[string]string{
				sasl.OAuthBearer: "n,a=" + c.identity + ",\x01auth=Bearer " + c.token + "\x01\x01",
				sasl.XOAuth2:     "user=" + c.identity + "\x01auth=Bearer " + c.token + "\x01\x01",
			} {
				if c.token == "" {
					message = "n,,\x01auth=\x01\x01"
				}
				if c.token == "" && mechanism == sasl.XOAuth2 {
					continue // does not know how to ask
				}
				l.guard = NewGuard(nil, nil)
				x, err := l.Begin(t.Context(), Client{Protocol: IMAP, From: honest, TLS: true}, mechanism)
				if err != nil {
					t.Fatal(err)
				}
				challenge, done, err := x.Next([]byte(message))
				if refused := c.want == ErrCredentials; refused != (challenge != nil) {
					t.Errorf("%s with %s: challenge %q", c.name, mechanism, challenge)
				} else if refused {
					if !slices.Contains([]string{
						`{"status":"invalid_token","scope":"mail","openid-configuration":"https://login.example/.well-known/openid-configuration"}`,
						`{"status":"401","schemes":"bearer","scope":"mail"}`,
					}, string(challenge)) {
						t.Errorf("%s: %s", mechanism, challenge)
					}
					_, done, err = x.Next([]byte("\x01"))
				}
				if !errors.Is(err, c.want) || done != (c.want == nil) {
					t.Errorf("%s with %s: %v, %v", c.name, mechanism, done, err)
				}
				if done && (x.Login().Address != addr(alice) || x.User() != alice) {
					t.Errorf("%s is %v, %q", c.name, x.Login().Address, x.User())
				}
			}
		}
		x, _ := l.Begin(t.Context(), Client{From: honest, TLS: true}, sasl.OAuthBearer)
		if _, done, err := x.Next([]byte("n,,\x01auth=Bearer of-a\x01\x01")); !done || err != nil || x.Login().Address != addr(alice) {
			t.Errorf("without an identity: %v, %v", done, err)
		}
	})
}

// Tokens are for TLS and where an issuer is known.
func TestTokensAreOffered(t *testing.T) {
	l := newLogins(t)
	both := func(list []string) bool {
		return slices.Contains(list, sasl.OAuthBearer) && slices.Contains(list, sasl.XOAuth2)
	}
	if both(l.Mechanisms(Client{TLS: true})) {
		t.Error("offered without an issuer")
	}
	l.Tokens = tokens{}
	if both(l.Mechanisms(Client{From: near})) || !both(l.Mechanisms(Client{TLS: true})) {
		t.Error("offered in the clear, or not over TLS")
	}
	for _, m := range []string{sasl.OAuthBearer, sasl.XOAuth2, sasl.External} {
		if _, err := l.Begin(t.Context(), Client{}, m); err != ErrMechanism {
			t.Errorf("%s in the clear: %v", m, err)
		}
	}
}

// A token that was issued for an hour and comes again each minute keeps nobody out; one that is made up does.
func TestTokensAreGuarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		l.Tokens = tokens{"of-a": alice}
		try := func(from netip.Addr, token string) error {
			x, _ := l.Begin(t.Context(), Client{Protocol: IMAP, From: from, TLS: true}, sasl.XOAuth2)
			_, _, err := x.Next([]byte("user=" + alice + "\x01auth=Bearer " + token + "\x01\x01"))
			if err == nil {
				_, _, err = x.Next(nil)
			}
			return err
		}
		for range 3 * netFailures {
			if err := try(honest, "expired"); !errors.Is(err, ErrCredentials) {
				t.Fatal(err)
			}
		}
		for i := range netFailures {
			if err := try(attacker, string(rune('a'+i))); !errors.Is(err, ErrCredentials) {
				t.Fatal(err)
			}
		}
		if err := try(attacker, "z"); !errors.Is(err, ErrGuessing) {
			t.Errorf("one more: %v", err)
		}
		if _, err := l.LogIn(t.Context(), Client{From: netip.MustParseAddr("203.0.113.1")}, alice, secret); err != nil {
			t.Errorf("false tokens count for the name: %v", err)
		}
	})
}

// certificateFor makes one that the handshake would have verified.
func certificateFor(t *testing.T, mailboxes []string, utf8 ...string) *x509.Certificate {
	t.Helper()
	return pairFor(t, mailboxes, utf8...).Leaf
}

func pairFor(t *testing.T, mailboxes []string, utf8 ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		Subject: pkix.Name{CommonName: "b@x.test"}, EmailAddresses: mailboxes,
	}
	if len(utf8) > 0 {
		template.EmailAddresses = nil
		template.ExtraExtensions = []pkix.Extension{{Id: subjectAltName, Value: subjectNames(t, mailboxes, utf8)}}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: cert}
}

// subjectNames writes GeneralNames, the text of each other name in UTF-8.
func subjectNames(t *testing.T, mailboxes, utf8 []string) []byte {
	var names []asn1.RawValue
	for _, m := range mailboxes {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, Bytes: []byte(m)})
	}
	for _, m := range utf8 {
		text, _ := asn1.MarshalWithParams(m, "utf8")
		oid, _ := asn1.Marshal(smtpUTF8Mailbox)
		value, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: text})
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(oid, value...)})
	}
	b, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		if _, err := l.dir.Add(addr("jürgen@x.test"), "x", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := l.dir.Add(addr("off@x.test"), "x", nil); err != nil {
			t.Fatal(err)
		}
		l.change(t, l.dir.SetDisabled(addr("off@x.test"), true))
		for _, c := range []struct {
			name     string
			cert     *x509.Certificate
			identity string
			want     string // empty is nobody
		}{
			{"its address", certificateFor(t, []string{alice}), "", alice},
			{"and by name", certificateFor(t, []string{alice}), "A@X.test", alice},
			{"as another", certificateFor(t, []string{alice}), "b@x.test", ""},
			{"no account", certificateFor(t, []string{"z@x.test"}), "", ""},
			{"disabled", certificateFor(t, []string{"off@x.test"}), "", ""},
			{"no address; the subject's name is none", certificateFor(t, nil), "", ""},
			{"not even when asked for", certificateFor(t, nil), "b@x.test", ""},
			{"several, of one account", certificateFor(t, []string{"z@x.test", alice, "A@x.test", "off@x.test"}), "", alice},
			{"two accounts", certificateFor(t, []string{alice, "b@x.test"}), "", ""},
			{"one of the two", certificateFor(t, []string{alice, "b@x.test"}), "b@x.test", "b@x.test"},
			{"not ASCII", certificateFor(t, nil, "jürgen@x.test"), "", "jürgen@x.test"},
			{"both kinds", certificateFor(t, []string{"z@x.test"}, "y@x.test", "jürgen@x.test"), "", "jürgen@x.test"},
		} {
			l.guard = NewGuard(nil, nil)
			client := Client{Protocol: SMTP, From: honest, TLS: true, Certificate: c.cert}
			if l.Mechanisms(client)[0] != sasl.External {
				t.Fatal("not offered first")
			}
			x, err := l.Begin(t.Context(), client, sasl.External)
			if err != nil {
				t.Fatal(err)
			}
			_, done, err := x.Next([]byte(c.identity))
			if done != (c.want != "") || !done && !errors.Is(err, ErrCredentials) || done && x.Login().Address != addr(c.want) {
				t.Errorf("%s: %v, %v, %v", c.name, done, err, x.Login().Address)
			}
		}
	})
}

// A certificate counts when the handshake has verified it, also when the connection is resumed.
func TestOver(t *testing.T) {
	ours, others := pairFor(t, []string{alice}), pairFor(t, []string{alice})
	server := pairFor(t, nil)
	roots := x509.NewCertPool()
	roots.AddCert(ours.Leaf)
	config := &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots}
	lax := config.Clone()
	lax.ClientAuth = tls.RequestClientCert
	for _, c := range []struct {
		name   string
		config *tls.Config
		shown  []tls.Certificate
		want   bool
	}{
		{"verified", config, []tls.Certificate{ours}, true},
		{"none", config, nil, false},
		{"looked at by nobody", lax, []tls.Certificate{others}, false},
	} {
		client := &tls.Config{InsecureSkipVerify: true, Certificates: c.shown, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		for resumed := range 2 {
			state := handshake(t, c.config, client)
			if state.DidResume != (resumed == 1) {
				t.Errorf("%s: resumed %v", c.name, state.DidResume)
			}
			got := Client{Protocol: IMAP, From: honest}.Over(&state, server.Leaf)
			if (got.Certificate != nil) != c.want || !got.TLS || len(got.Bindings) != 2 || got.Protocol != IMAP || got.From != honest {
				t.Errorf("%s: %+v", c.name, got)
			}
		}
	}
}

// handshake returns the server's view of a connection.
func handshake(t *testing.T, server, client *tls.Config) tls.ConnectionState {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	read := make(chan error, 1)
	go func() {
		_, err := tls.Client(far, client).Read(make([]byte, 1)) // takes the ticket, too
		read <- err
	}()
	s := tls.Server(near, server)
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	return s.ConnectionState()
}

func FuzzMailboxes(f *testing.F) {
	f.Add([]byte{})
	f.Add(mustNames())
	f.Fuzz(func(t *testing.T, names []byte) {
		for _, m := range utf8Mailboxes(names) {
			if len(m) > len(names) {
				t.Errorf("%q", m)
			}
		}
	})
}

func mustNames() []byte {
	text, _ := asn1.MarshalWithParams("jürgen@x.test", "utf8")
	value, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: text})
	oid, _ := asn1.Marshal(smtpUTF8Mailbox)
	b, _ := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: append(oid, value...)}})
	return b
}
