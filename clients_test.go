package postroad_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clientsTest is a running server, and a directory for what clients leave behind.
type clientsTest struct {
	*process
	dir, home  string
	alice, bob struct{ address, password string }
}

func startForClients(t *testing.T) *clientsTest {
	t.Helper()
	if testing.Short() {
		t.Skip("runs real clients against the real server")
	}
	c := &clientsTest{dir: t.TempDir(), home: t.TempDir()}
	c.process = launch(t, filepath.Join(c.dir, "data"))
	t.Cleanup(c.stop)
	c.alice.address, c.alice.password = c.Accounts[0].Address, c.Accounts[0].Password
	c.bob.address, c.bob.password = c.Accounts[1].Address, c.Accounts[1].Password
	return c
}

func (c *clientsTest) cert() string { return filepath.Join(c.Data, "tls", "cert.pem") }

// run runs a client and returns what it printed. It skips the test when the client
// is not installed.
func (c *clientsTest) run(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	needs(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.home
	cmd.Env = append(os.Environ(), "HOME="+c.home, "TERM=xterm", "LC_ALL=C.UTF-8")
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s\nserver:\n%s", name, strings.Join(args, " "), err, out, c.logText())
	}
	return string(out)
}

// needs skips a test when a client is not installed.
func needs(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
}

// file writes a file for a client and returns its path.
func (c *clientsTest) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(c.home, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// arrived waits until bob has a message with the subject, reading with the CLI.
func (c *clientsTest) arrived(t *testing.T, subject string) {
	t.Helper()
	eventually(t, "the message "+subject, func() bool {
		return strings.Contains(c.run(t, "", postroadPath(t), "message", "list", c.bob.address, "INBOX", "--dir", c.Data), subject)
	})
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

func mail(from, to, subject string) string {
	return fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: %s\r\n\r\nHello.\r\n", from, to, subject)
}

func TestClientCurl(t *testing.T) {
	c := startForClients(t)
	file := c.file(t, "mail.txt", mail(c.alice.address, c.bob.address, "by curl"))
	for _, url := range []string{"smtp://" + c.Submission, "smtps://" + c.Submissions} {
		c.run(t, "", "curl", "-sS", "--ssl-reqd", "--cacert", c.cert(), "--user", c.alice.address+":"+c.alice.password,
			"--mail-from", c.alice.address, "--mail-rcpt", c.bob.address, "-T", file, url)
	}
	c.arrived(t, "by curl")
	out := c.run(t, "", "curl", "-sS", "--cacert", c.cert(), "--user", c.bob.address+":"+c.bob.password, "imaps://"+c.IMAPS+"/INBOX;MAILINDEX=2")
	if !strings.Contains(out, "Subject: by curl") {
		t.Errorf("curl read\n%s", out)
	}
	out = c.run(t, "", "curl", "-sS", "--ssl-reqd", "--cacert", c.cert(), "--user", c.bob.address+":"+c.bob.password, "imap://"+c.IMAP+"/", "-X", `LIST "" "*"`)
	for _, box := range []string{"INBOX", `\Sent`, `\Trash`, `\Drafts`, `\Junk`, `\Archive`} {
		if !strings.Contains(out, box) {
			t.Errorf("LIST has no %s:\n%s", box, out)
		}
	}
}

func TestClientSwaks(t *testing.T) {
	c := startForClients(t)
	common := []string{"--from", c.alice.address, "--to", c.bob.address, "--header", "Subject: by swaks"}
	for _, args := range [][]string{
		{"--server", "127.0.0.1", "--port", port(c.SMTP), "--from", "stranger@far.test"},
		{"--server", "127.0.0.1", "--port", port(c.SMTP), "--from", "stranger@far.test", "--tls", "--pipeline"},
		{"--server", "127.0.0.1", "--port", port(c.Submission), "--tls", "--auth", "PLAIN", "--auth-user", c.alice.address, "--auth-password", c.alice.password},
		{"--server", "127.0.0.1", "--port", port(c.Submissions), "--tls-on-connect", "--auth", "LOGIN", "--auth-user", c.alice.address, "--auth-password", c.alice.password},
	} {
		c.run(t, "", "swaks", append(common, args...)...)
	}
	c.arrived(t, "by swaks")
}

func TestClientMbsync(t *testing.T) {
	c := startForClients(t)
	maildir := filepath.Join(c.home, "Mail")
	if err := os.MkdirAll(maildir, 0o700); err != nil {
		t.Fatal(err)
	}
	rc := c.file(t, "mbsyncrc", fmt.Sprintf(`IMAPAccount bob
Host localhost
Port %s
User %s
Pass %s
SSLType STARTTLS
CertificateFile %s

IMAPStore far
Account bob

MaildirStore near
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
`, port(c.IMAP), c.bob.address, c.bob.password, c.cert(), maildir, maildir))
	c.run(t, "", "mbsync", "-c", rc, "all")
	welcome := c.maildir(t, maildir)
	if len(welcome) != 1 {
		t.Fatalf("after the first sync: %v", welcome)
	}
	// Read the message here, write another, and sync both ways.
	seen := filepath.Join(filepath.Dir(filepath.Dir(welcome[0])), "cur", strings.SplitN(filepath.Base(welcome[0]), ":", 2)[0]+":2,FS")
	if err := os.Rename(welcome[0], seen); err != nil {
		t.Fatal(err)
	}
	c.file(t, "Mail/INBOX/new/1.mine", strings.ReplaceAll(mail(c.bob.address, c.bob.address, "by mbsync"), "\r\n", "\n"))
	c.run(t, "", "mbsync", "-c", rc, "all")
	c.arrived(t, "by mbsync")
	out := c.run(t, "", postroadPath(t), "message", "list", c.bob.address, "INBOX", "--dir", c.Data, "--json")
	if !strings.Contains(out, `\\Flagged`) || !strings.Contains(out, `\\Seen`) {
		t.Errorf("the flags did not come up:\n%s", out)
	}
}

// maildir returns the messages of the INBOX that mbsync made.
func (c *clientsTest) maildir(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "INBOX", "[nc][eu][wr]", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestClientMutt(t *testing.T) {
	c := startForClients(t)
	rc := c.file(t, "muttrc", fmt.Sprintf(`set from=%s
set smtp_url=smtp://%s@127.0.0.1:%s/
set smtp_pass=%s
set ssl_starttls=yes
set certificate_file=%s
set ssl_verify_host=no
set imap_user=%s
set imap_pass=%s
set folder=imap://127.0.0.1:%s/
set spoolfile=+INBOX
set record=+Sent
set quit=yes
set confirmappend=no
set confirmcreate=no
set header_cache=""
set sleep_time=0
`, c.alice.address, c.alice.address, port(c.Submission), c.alice.password, c.cert(), c.alice.address, c.alice.password, port(c.IMAP)))
	c.run(t, "Hello.\n", "mutt", "-F", rc, "-s", "by mutt", "--", c.bob.address)
	c.arrived(t, "by mutt")
	if out := c.run(t, "", postroadPath(t), "message", "list", c.alice.address, "Sent", "--dir", c.Data); !strings.Contains(out, "by mutt") {
		t.Errorf("mutt's copy is not in Sent:\n%s", out)
	}
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("script, which gives mutt a terminal, is not installed")
	}
	saved := filepath.Join(c.home, "saved")
	keys := fmt.Sprintf(`push "<copy-message>%s<enter><quit>"`, saved)
	c.run(t, "", "script", "-qec", "mutt -F "+rc+" -e '"+keys+"'", "/dev/null")
	if b, err := os.ReadFile(saved); err != nil || !strings.Contains(string(b), "Subject: Welcome to postroad") {
		t.Errorf("mutt read %q, %v", b, err)
	}
}

func TestClientPython(t *testing.T) {
	c := startForClients(t)
	out := c.run(t, "", "python3", "-I", abs(t, "testdata/clients/client.py"),
		port(c.Submission), port(c.Submissions), port(c.IMAP), port(c.IMAPS), c.cert(),
		c.alice.address, c.alice.password, c.bob.address, c.bob.password)
	if !strings.HasSuffix(out, "ok\n") {
		t.Errorf("the script said\n%s", out)
	}
}

func abs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
