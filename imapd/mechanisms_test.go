package imapd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/internal/account"
	"postroad/internal/listen/listentest"
	"postroad/internal/store"
)

// oneToken is an issuer that knows one token.
type oneToken struct{}

const goodToken = "the-token-of-this-user"

func (oneToken) User(_ context.Context, token string) (name, why string, err error) {
	if token != goodToken {
		return "", "it is another's", nil
	}
	return user, "", nil
}
func (oneToken) Scope() string         { return "imap" }
func (oneToken) Configuration() string { return "" }

// withEveryLogin has all ways to log in offered over TLS; the client that the config is for shows a certificate.
func withEveryLogin(t testing.TB) (option, *tls.Config) {
	t.Helper()
	shown, roots := listentest.UserCertificate(t, user)
	client := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{shown}}
	return func(c *Config) {
		c.TLS = certificate(t)
		c.TLS.ClientAuth, c.TLS.ClientCAs = tls.VerifyClientCertIfGiven, roots
		c.Accounts.KeepSHA1()
		c.Logins = account.NewLogins(c.Accounts, account.NewGuard(c.Now, c.Accounts))
		c.Logins.Tokens = oneToken{}
	}, client
}

func b64of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// Tokens and certificates log in over TLS, with an initial response and without; what is wrong with a token is told
// before the login fails (RFC 7628, 3.2.2).
func TestTokensAndCertificates(t *testing.T) {
	all, shows := withEveryLogin(t)
	h := newHouse(t, all)
	_, addr := h.serve(true)
	const everything = "* OK [CAPABILITY ... AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-1-PLUS AUTH=SCRAM-SHA-1 AUTH=OAUTHBEARER AUTH=XOAUTH2 AUTH=PLAIN] ..."
	bearer := func(token string) string { return b64of("n,a=" + user + ",\x01auth=Bearer " + token + "\x01\x01") }
	old := func(token string) string { return b64of("user=" + user + "\x01auth=Bearer " + token + "\x01\x01") }
	refused := "+ " + b64of(`{"status":"invalid_token","scope":"imap"}`)
	refusedOld := "+ " + b64of(`{"status":"401","schemes":"bearer","scope":"imap"}`)
	for _, tt := range []struct{ name, dialog string }{
		{"OAUTHBEARER", "> a AUTHENTICATE OAUTHBEARER " + bearer(goodToken) + "\n< a OK [CAPABILITY ..."},
		{"when asked", "> a AUTHENTICATE OAUTHBEARER\n< + \n> " + bearer(goodToken) + "\n< a OK [CAPABILITY ..."},
		{"another token", "> a AUTHENTICATE OAUTHBEARER " + bearer("x") + "\n< " + refused + "\n> AQ==\n< a NO [AUTHENTICATIONFAILED] ..."},
		{"what is there to know?", "> a AUTHENTICATE OAUTHBEARER " + b64of("n,,\x01auth=\x01\x01") + "\n< " + refused + "\n> AQ==\n< a NO [AUTHENTICATIONFAILED] ..."},
		{"given up then", "> a AUTHENTICATE OAUTHBEARER " + bearer("x") + "\n< " + refused + "\n> *\n< a BAD ..."},
		{"no message of it", "> a AUTHENTICATE OAUTHBEARER AQ==\n< a BAD ..."},
		{"XOAUTH2", "> a AUTHENTICATE XOAUTH2 " + old(goodToken) + "\n< a OK [CAPABILITY ..."},
		{"another token there", "> a AUTHENTICATE XOAUTH2 " + old("x") + "\n< " + refusedOld + "\n> \n< a NO [AUTHENTICATIONFAILED] ..."},
		{"no certificate", "> a AUTHENTICATE EXTERNAL =\n< a NO [CANNOT] ..."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn, err := tls.Dial("tcp", addr, insecureTLS())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			c := newRaw(t, conn)
			c.expect(everything)
			c.dialog(tt.dialog)
		})
	}
	for _, tt := range []struct{ name, dialog string }{
		{"EXTERNAL", "> a AUTHENTICATE EXTERNAL =\n< a OK [CAPABILITY ..."},
		{"when asked", "> a AUTHENTICATE EXTERNAL\n< + \n> \n< a OK [CAPABILITY ..."},
		{"by name", "> a AUTHENTICATE EXTERNAL " + b64of(user) + "\n< a OK [CAPABILITY ..."},
		{"as another", "> a AUTHENTICATE EXTERNAL " + b64of("bob@example.test") + "\n< a NO [AUTHENTICATIONFAILED] ..."},
	} {
		t.Run("certificate/"+tt.name, func(t *testing.T) {
			t.Parallel()
			conn, err := tls.Dial("tcp", addr, shows)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			c := newRaw(t, conn)
			c.expect("* OK [CAPABILITY ... AUTH=EXTERNAL ...")
			c.dialog(tt.dialog)
		})
	}
	c := h.raw()
	line := c.line()
	for _, name := range []string{"OAUTHBEARER", "XOAUTH2", "EXTERNAL"} {
		if strings.Contains(line, name) {
			t.Errorf("offered in the clear: %q", line)
		}
		c.dialog("> a AUTHENTICATE " + name + " " + bearer(goodToken) + "\n< a NO [CANNOT] ...")
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// E05: whatever way a secret comes, right or wrong, it is in no reply and in no line of the log.
func TestE05SecretsOfLogins(t *testing.T) {
	log := &lockedBuffer{}
	all, shows := withEveryLogin(t)
	h := buildHouse(t, store.Options{}, all, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	_, addr := h.serve(true)
	const wrong = "%n*)(\" or wr0ng-S3cret"
	secrets := []string{password, wrong, goodToken, "bad-t0ken-of-nobody"}
	plain := func(p string) string { return b64of("\x00" + user + "\x00" + p) }
	token := func(p string) string { return b64of("user=" + user + "\x01auth=Bearer " + p + "\x01\x01") }
	var said strings.Builder
	for _, lines := range [][]string{
		{"a LOGIN " + user + " {" + fmt.Sprint(len(wrong)) + "+}\r\n" + wrong}, {"a LOGIN " + user + " \"" + password + "\"", "b NOOP"},
		{"a LOGIN \"" + password + "\" " + user}, {"a AUTHENTICATE PLAIN " + plain(wrong)}, {"a AUTHENTICATE PLAIN", plain(password), "b NOOP"},
		{"a AUTHENTICATE PLAIN " + b64of(password)}, {"a AUTHENTICATE PLAIN", password}, {"a AUTHENTICATE XOAUTH2 " + token(goodToken)},
		{"a AUTHENTICATE XOAUTH2 " + token(secrets[3]), ""}, {"a AUTHENTICATE OAUTHBEARER " + token(secrets[3]), ""},
		{"a AUTHENTICATE EXTERNAL " + b64of(password)}, {"a AUTHENTICATE SCRAM-SHA-256 " + b64of("n,,n="+user+",r="+password)},
	} {
		conn, err := tls.Dial("tcp", addr, shows)
		h.must(err)
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "%s\r\nz LOGOUT\r\n", strings.Join(lines, "\r\n"))
		var b bytes.Buffer
		b.ReadFrom(conn)
		said.Write(b.Bytes())
		conn.Close()
	}
	name := b64of("\x00" + user)[:8] // of what any answer would begin with that holds a response
	for what, text := range map[string]string{"the log": log.String(), "a reply": said.String()} {
		if !strings.Contains(text, user) && what == "the log" || len(text) < 1000 {
			t.Errorf("%s is empty: %s", what, text)
		}
		for _, s := range secrets {
			if strings.Contains(text, s) || strings.Contains(text, b64of(s)) {
				t.Errorf("%s tells %q:\n%s", what, s, text)
			}
		}
		if strings.Contains(text, name) {
			t.Errorf("%s tells a response:\n%s", what, text)
		}
	}
}
