package smtpd_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/netip"
	"strings"
	"testing"

	"postroad/internal/account"
	"postroad/internal/listen/listentest"
	"postroad/smtpd"
)

// oneToken is an issuer that knows one token of alice's.
type oneToken struct{}

const alicesToken = "the-token-of-alice"

func (oneToken) User(_ context.Context, token string) (name, why string, err error) {
	if token != alicesToken {
		return "", "it is not hers", nil
	}
	return "alice@example.test", "", nil
}
func (oneToken) Scope() string         { return "smtp" }
func (oneToken) Configuration() string { return "" }

// withEveryLogin has all ways to log in offered; the certificate is alice's.
func (h *house) withEveryLogin(t testing.TB) (func(*smtpd.Config), tls.Certificate) {
	t.Helper()
	shown, roots := listentest.UserCertificate(t, "alice@example.test")
	return func(c *smtpd.Config) {
		h.accounts.KeepSHA1()
		c.TLS = c.TLS.Clone()
		c.TLS.GetConfigForClient, c.TLS.ClientAuth, c.TLS.ClientCAs = nil, tls.VerifyClientCertIfGiven, roots
		logins := account.NewLogins(h.accounts, account.NewGuard(nil, nil))
		logins.Tokens = oneToken{}
		c.Logins = logins
		c.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.99/32")}
	}, shown
}

// offered are the mechanisms of a reply to EHLO.
func offered(r reply) string {
	for _, line := range r.text {
		if list, ok := strings.CutPrefix(line, "AUTH "); ok {
			return list
		}
	}
	return ""
}

// TestMechanisms: what is offered is what the connection can bear, and it logs in.
func TestMechanisms(t *testing.T) {
	h := newHouse(t)
	all, certificate := h.withEveryLogin(t)
	s := h.serve(smtpd.Submission, false, all)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	bearer := func(token string) string { return b64("n,a=alice@example.test,\x01auth=Bearer " + token + "\x01\x01") }
	old := func(token string) string { return b64("user=alice@example.test\x01auth=Bearer " + token + "\x01\x01") }
	const (
		clear  = "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN"
		secure = "SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1-PLUS SCRAM-SHA-1 OAUTHBEARER XOAUTH2 PLAIN LOGIN"
	)
	for _, c := range []struct {
		name, offer, dialog string
		tls, shows          bool
		from                net.IP
	}{
		{"in the clear", clear, "> AUTH OAUTHBEARER " + bearer(alicesToken) + "\n< 504\n> AUTH EXTERNAL =\n< 504\n> AUTH SCRAM-SHA-256-PLUS\n< 504", false, false, nil},
		{"a token", secure, "> AUTH OAUTHBEARER " + bearer(alicesToken) + "\n< 235", true, false, nil},
		{"when asked", secure, "> AUTH OAUTHBEARER\n< 334\n> " + bearer(alicesToken) + "\n< 235", true, false, nil},
		{"another token", secure, "> AUTH OAUTHBEARER " + bearer("x") + "\n< 334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NvcGUiOiJzbXRwIn0=\n> AQ==\n< 535", true, false, nil},
		{"given up then", secure, "> AUTH OAUTHBEARER " + bearer("x") + "\n< 334\n> *\n< 501\n> MAIL FROM:<alice@example.test>\n< 530", true, false, nil},
		{"no message", secure, "> AUTH OAUTHBEARER AQ==\n< 501", true, false, nil},
		{"XOAUTH2", secure, "> AUTH XOAUTH2 " + old(alicesToken) + "\n< 235", true, false, nil},
		{"another token there", secure, "> AUTH XOAUTH2 " + old("x") + "\n< 334\n> \n< 535", true, false, nil},
		{"no certificate", secure, "> AUTH EXTERNAL =\n< 504", true, false, nil},
		{"a certificate", "EXTERNAL " + secure, "> AUTH EXTERNAL =\n< 235", true, true, nil},
		{"by name, when asked", "EXTERNAL " + secure, "> AUTH EXTERNAL\n< 334\n> " + b64("ALICE@example.test") + "\n< 235", true, true, nil},
		{"as another", "EXTERNAL " + secure, "> AUTH EXTERNAL " + b64("bob@example.test") + "\n< 535", true, true, nil},
		{"from a proxy, for itself", "EXTERNAL " + secure, "> NOOP\n< 250", true, true, net.IPv4(192, 0, 2, 99)},
		{"from a proxy, for another", "EXTERNAL " + secure, "> XCLIENT ADDR=198.51.100.7\n< 220\n> EHLO x\n< 250\n> AUTH EXTERNAL =\n< 504\n> AUTH SCRAM-SHA-256-PLUS\n< 504\n> AUTH XOAUTH2 " + old(alicesToken) + "\n< 235", true, true, net.IPv4(192, 0, 2, 99)},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := s.pipe(t, c.from).talk("< 220\n> EHLO x\n< 250")
			if c.tls {
				config := anyServer()
				if c.shows {
					config.Certificates = []tls.Certificate{certificate}
				}
				p.talk("> STARTTLS\n< 220")
				p = newPeer(t, tls.Client(p.Conn, config)).talk("> EHLO x\n< 250")
			}
			p.send("EHLO x\r\n")
			if got := offered(p.expect("250")); got != c.offer {
				t.Errorf("%q is offered, want %q", got, c.offer)
			}
			p.talk(c.dialog)
		})
	}
	for _, told := range []string{"by=token", "by=certificate", "it is not hers"} {
		if !strings.Contains(h.log.String(), told) {
			t.Errorf("the log does not tell %q", told)
		}
	}
	if strings.Contains(h.log.String(), alicesToken) {
		t.Error("the log tells the token")
	}
}

// TestScramPlus: a login is bound to its connection, and the offer cannot be hidden from the client.
func TestScramPlus(t *testing.T) {
	h := newHouse(t)
	all, _ := h.withEveryLogin(t)
	s := h.serve(smtpd.Submission, true, all)
	for _, c := range []struct {
		name, header string
		twist        byte
		code         int
	}{
		{"bound", "p=tls-exporter,,", 0, 235},
		{"to another connection", "p=tls-exporter,,", 1, 535},
		{"to nothing that is known", "p=tls-unique,,", 0, 535},
		{"the offer was hidden", "y,,", 0, 535},
		{"the client cannot", "n,,", 0, 235},
	} {
		p := s.dial(t).talk("< 220\n> EHLO x\n< 250")
		state := p.Conn.(*tls.Conn).ConnectionState()
		key, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		if err != nil {
			t.Fatal(err)
		}
		key[0] ^= c.twist
		bind := func(last string) string {
			if !strings.HasPrefix(c.header, "p=") {
				return last
			}
			_, nonces, _ := strings.Cut(last, ",")
			return "c=" + base64.StdEncoding.EncodeToString(append([]byte(c.header), key...)) + "," + nonces
		}
		if _, got := p.scram(t, c.header, "alice@example.test", alicesPassword, bind); got.code != c.code {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}
