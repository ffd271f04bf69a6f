package postroad_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postroad"
	"postroad/internal/config"
	"postroad/internal/control"
	"postroad/internal/listen/listentest"
)

// The ways to log in that a configuration turns on, with Debian's clients.

const aliceToken = "ya29.of-alice_only~"

// startForLogins is startForClients for a server on which everything that logs in is turned on.
func startForLogins(t *testing.T) *clientsTest {
	t.Helper()
	if testing.Short() {
		t.Skip("runs real clients against the real server")
	}
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		good := id == "mail" && secret == "s3cret" && r.FormValue("token") == aliceToken
		fmt.Fprintf(w, `{"active": %v, "email": "alice@example.test", "scope": "openid mail", "exp": %d}`, good, time.Now().Unix()+60)
	}))
	t.Cleanup(issuer.Close)
	c := &clientsTest{home: t.TempDir()}
	cfg := testConfig(t, "localhost")
	cfg.Auth = config.Auth{ScramSHA1: true, SMTPChannelBinding: true}
	cfg.OAuth = config.OAuth{IntrospectionURL: issuer.URL, ClientID: "mail", ClientSecret: "s3cret", Scope: "mail", UserClaim: "email"}
	cfg.TLS.ClientCA = c.userCertificate(t, "alice@example.test")
	users := []postroad.Credential{{Address: "alice@example.test", Password: "password of alice"}, {Address: "bob@example.test", Password: "password of bob"}}
	s := embed(t, cfg, postroad.Options{}, users...)
	log, err := os.Create(filepath.Join(c.home, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	c.process = &process{t: t, log: log, Data: cfg.DataDir, Submission: s.Addr("submission"), IMAP: s.Addr("imap"), IMAPS: s.Addr("imaps")}
	c.alice.address, c.alice.password = users[0].Address, users[0].Password
	c.bob.address, c.bob.password = users[1].Address, users[1].Password
	return c
}

// userCertificate makes user.pem and user.key, and returns the file of their authority.
func (c *clientsTest) userCertificate(t *testing.T, address string) string {
	t.Helper()
	pair, _ := listentest.UserCertificate(t, address)
	cert, key := listentest.Encode(t, &pair)
	c.file(t, "user.key", string(key))
	return c.file(t, "user.pem", string(cert))
}

func TestLoginMsmtp(t *testing.T) {
	c := startForLogins(t)
	app := c.appPassword(t, "smtp")
	for i, login := range []struct{ method, password, more string }{
		{"scram-sha-1", c.alice.password, ""},
		{"scram-sha-256", app, ""},
		{"plain", strings.ReplaceAll(app, "-", " "), ""},
		{"oauthbearer", aliceToken, ""},
		{"xoauth2", aliceToken, ""},
		{"external", "", "tls_cert_file " + filepath.Join(c.home, "user.pem") + "\ntls_key_file " + filepath.Join(c.home, "user.key")},
	} {
		subject := fmt.Sprintf("%d by msmtp with %s", i, login.method)
		rc := c.file(t, fmt.Sprintf("msmtprc%d", i), fmt.Sprintf(`account alice
host localhost
port %s
tls on
tls_starttls on
tls_trust_file %s
auth %s
user %s
password "%s"
from %s
%s
`, port(c.Submission), c.cert(), login.method, c.alice.address, login.password, c.alice.address, login.more))
		c.run(t, mail(c.alice.address, c.bob.address, subject), "msmtp", "-C", rc, "-a", "alice", c.bob.address)
		c.arrived(t, subject)
	}
}

// appPassword makes one for alice.
func (c *clientsTest) appPassword(t *testing.T, protocol string) string {
	t.Helper()
	client, err := control.Dial(control.SocketPath(c.Data))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	made, err := client.AddAppPassword(t.Context(), control.NewAppPassword{
		AppPasswordName: control.AppPasswordName{Address: c.alice.address, Name: protocol}, Protocols: []string{protocol},
	})
	if err != nil {
		t.Fatal(err)
	}
	return made.Password
}

func TestLoginCurl(t *testing.T) {
	c := startForLogins(t)
	file := c.file(t, "mail.txt", mail(c.alice.address, c.bob.address, "by curl"))
	token := []string{"--oauth2-bearer", aliceToken, "--user", c.alice.address + ":"}
	certificate := []string{"--cert", filepath.Join(c.home, "user.pem"), "--key", filepath.Join(c.home, "user.key"), "--user", c.alice.address + ":"}
	app := []string{"--user", c.alice.address + ":" + c.appPassword(t, "imap")}
	for _, login := range []struct {
		mechanism string
		args      []string
	}{{"OAUTHBEARER", token}, {"XOAUTH2", token}, {"EXTERNAL", certificate}, {"PLAIN", app}} {
		common := append([]string{"-sS", "--ssl-reqd", "--cacert", c.cert(), "--login-options", "AUTH=" + login.mechanism}, login.args...)
		for _, url := range []string{"imaps://" + c.IMAPS + "/", "imap://" + c.IMAP + "/"} {
			if out := c.run(t, "", "curl", append(common, url, "-X", `LIST "" "*"`)...); !strings.Contains(out, "INBOX") {
				t.Errorf("%s at %s: %s", login.mechanism, url, out)
			}
		}
		if login.mechanism == "PLAIN" {
			continue // this one is for IMAP
		}
		c.run(t, "", "curl", append(common, "--mail-from", c.alice.address, "--mail-rcpt", c.bob.address, "-T", file, "smtp://"+c.Submission)...)
	}
	c.arrived(t, "by curl")
}

func TestLoginGsasl(t *testing.T) {
	c := startForLogins(t)
	for _, mechanism := range []string{"SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "PLAIN"} {
		for protocol, addr := range map[string]string{"--smtp": c.Submission, "--imap": c.IMAP} {
			out := c.run(t, "", "gsasl", protocol, "-m", mechanism, "-a", c.alice.address, "-p", c.alice.password,
				"--x509-ca-file="+c.cert(), "--hostname", "localhost", "--connect", "localhost:"+port(addr))
			if !strings.Contains(out, "server trusted") {
				t.Errorf("%s %s:\n%s", protocol, mechanism, out)
			}
		}
	}
}

func TestLoginCyrus(t *testing.T) {
	c := startForLogins(t)
	for tool, addr := range map[string]string{"imtest": c.IMAP, "smtptest": c.Submission} {
		out := c.run(t, "", "/usr/lib/cyrus/bin/"+tool, "-t", "", "-p", port(addr), "-m", "SCRAM-SHA-1",
			"-a", c.alice.address, "-u", c.alice.address, "-w", c.alice.password, "localhost")
		if !strings.Contains(out, "Authenticated.") {
			t.Errorf("%s:\n%s", tool, out)
		}
	}
}

// Mutt has to be told what it can do where SCRAM-SHA-256-PLUS is offered; then it can.
func TestLoginMutt(t *testing.T) {
	c := startForLogins(t)
	for i, login := range []struct{ name, settings string }{
		{"SCRAM", `set smtp_authenticators="scram-sha-256"` + "\nset smtp_pass=\"" + c.alice.password + `"`},
		{"a token", `set smtp_authenticators="oauthbearer"` + "\nset smtp_oauth_refresh_command=\"echo " + aliceToken + `"`},
		{"a token as it was", `set smtp_authenticators="xoauth2"` + "\nset smtp_oauth_refresh_command=\"echo " + aliceToken + `"`},
	} {
		rc := c.file(t, fmt.Sprint("muttrc", i), fmt.Sprintf(`set ssl_starttls=yes
set ssl_force_tls=yes
set certificate_file=%s
set smtp_url="smtp://%s@localhost:%s/"
set from=%s
set use_from=yes
set copy=no
%s
`, c.cert(), c.alice.address, port(c.Submission), c.alice.address, login.settings))
		c.run(t, "hello\n", "mutt", "-F", rc, "-s", "by mutt with "+login.name, c.bob.address)
		c.arrived(t, "by mutt with "+login.name)
	}
}
