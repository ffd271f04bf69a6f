package postroad_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The ways to log in, with two independent libraries: GNU SASL and Cyrus SASL.

func TestClientMsmtp(t *testing.T) {
	c := startForClients(t)
	for i, method := range []string{"scram-sha-256", "plain", "login"} {
		subject := fmt.Sprintf("by msmtp with %s", method)
		rc := c.file(t, fmt.Sprintf("msmtprc%d", i), fmt.Sprintf(`account alice
host localhost
port %s
tls on
tls_starttls on
tls_trust_file %s
auth %s
user %s
password %s
from %s
`, port(c.Submission), c.cert(), method, c.alice.address, c.alice.password, c.alice.address))
		c.run(t, mail(c.alice.address, c.bob.address, subject), "msmtp", "-C", rc, "-a", "alice", c.bob.address)
		c.arrived(t, subject)
	}
}

func TestClientGsasl(t *testing.T) {
	c := startForClients(t)
	for _, login := range []struct{ protocol, mechanism, addr, welcome string }{
		{"--smtp", "PLAIN", c.Submission, "235 2.7.0"},
		{"--smtp", "LOGIN", c.Submission, "235 2.7.0"},
		{"--smtp", "SCRAM-SHA-256", c.Submission, "235 2.7.0"},
		{"--imap", "PLAIN", c.IMAP, "OK ["},
		{"--imap", "SCRAM-SHA-256-PLUS", c.IMAP, "OK ["},
	} {
		args := []string{login.protocol, "-m", login.mechanism, "-a", c.alice.address, "-p", c.alice.password,
			"--x509-ca-file=" + c.cert(), "--hostname", "localhost", "--connect", "localhost:" + port(login.addr)}
		if login.mechanism == "SCRAM-SHA-256" {
			args = append(args, "--no-cb") // else it asks for a binding, and makes nothing of it
		}
		out := c.run(t, "", "gsasl", args...)
		if !strings.Contains(out, login.welcome) || !strings.Contains(out, "server trusted") {
			t.Errorf("%s %s:\n%s\nserver:\n%s", login.protocol, login.mechanism, out, c.logText())
		}
	}
}

func TestClientCyrus(t *testing.T) {
	c := startForClients(t)
	for _, tool := range []struct{ name, addr string }{{"imtest", c.IMAP}, {"smtptest", c.Submission}} {
		path := "/usr/lib/cyrus/bin/" + tool.name // where Debian has it
		for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256"} {
			out := c.run(t, "", path, "-t", "", "-p", port(tool.addr), "-m", mechanism,
				"-a", c.alice.address, "-u", c.alice.address, "-w", c.alice.password, "localhost")
			if !strings.Contains(out, "Authenticated.") {
				t.Errorf("%s %s:\n%s\nserver:\n%s", tool.name, mechanism, out, c.logText())
			}
		}
	}
}

// terminal runs a program that wants one, and returns what it wrote there.
func (c *clientsTest) terminal(t *testing.T, name string, args ...string) string {
	t.Helper()
	needs(t, name)
	quoted := []string{name}
	for _, a := range args {
		quoted = append(quoted, "'"+a+"'")
	}
	return c.run(t, "", "script", "-qec", strings.Join(quoted, " "), "/dev/null")
}

// Mutt and NeoMutt keep a cache of headers, which CONDSTORE and QRESYNC bring up to date.
func TestClientMuttCache(t *testing.T) {
	for _, name := range []string{"mutt", "neomutt"} {
		for _, mode := range []string{"imap_condstore", "imap_qresync"} {
			for _, tls := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s implicit TLS %v", name, mode, tls), func(t *testing.T) {
					needs(t, name)
					muttCache(t, name, mode, tls)
				})
			}
		}
	}
}

func muttCache(t *testing.T, name, mode string, implicitTLS bool) {
	c := startForClients(t)
	c.put(t, c.alice.address, oddName, "first in the odd one")
	c.put(t, c.alice.address, oddName, "second in the odd one")
	c.mkdir(t, "cache")
	url := "imap://localhost:" + port(c.IMAP)
	if implicitTLS {
		url = "imaps://localhost:" + port(c.IMAPS)
	}
	rc := c.file(t, "muttrc", fmt.Sprintf(`set ssl_starttls=yes
set ssl_force_tls=yes
set certificate_file=%s
set imap_user=%s
set imap_pass=%s
set folder=%s/
set spoolfile=+INBOX
set %s=yes
set header_cache=%s/cache
set message_cachedir=%s/cache
set quit=yes
set confirmappend=no
set confirmcreate=no
set sleep_time=0
set sort=reverse-mailbox-order
`, c.cert(), c.alice.address, c.alice.password, url, mode, c.home, c.home))
	open := func(keys string) {
		c.terminal(t, name, "-F", rc, "-f", "="+oddName, "-e", `push "`+keys+`"`)
	}
	// Save the second, mark the first.
	open(fmt.Sprintf("<copy-message>%s/saved<enter><next-entry><flag-message><sync-mailbox><quit>", c.home))
	if b, err := os.ReadFile(filepath.Join(c.home, "saved")); err != nil || !strings.Contains(string(b), "second in the odd one") {
		t.Fatalf("it read %q, %v\nserver:\n%s", b, err, c.logText())
	}
	out := c.cli(t, "message", "list", c.alice.address, oddName, "--json")
	if strings.Count(out, `\\Flagged`) != 1 {
		t.Errorf("the flag is not there:\n%s", out)
	}
	// Meanwhile the second goes and a third comes; then the newest is copied to another mailbox.
	c.run(t, "", "curl", "-sS", "--cacert", c.cert(), "--user", c.alice.address+":"+c.alice.password,
		"imaps://"+c.IMAPS+"/M%26APw-ll%20%26-%20Co/%26ZeVnLA-%20~peter", "-X", `STORE 2 +FLAGS.SILENT (\Deleted)`,
		"--next", "-sS", "--cacert", c.cert(), "--user", c.alice.address+":"+c.alice.password,
		"imaps://"+c.IMAPS+"/M%26APw-ll%20%26-%20Co/%26ZeVnLA-%20~peter", "-X", `EXPUNGE`)
	c.put(t, c.alice.address, oddName, "third in the odd one")
	open("<copy-message>=Archive<enter><next-entry><copy-message>=Archive<enter><quit>")
	c.holds(t, c.alice.address, oddName, "first in the odd one", "third in the odd one")
	c.holds(t, c.alice.address, "Archive", "first in the odd one", "third in the odd one")
}

// A step of a conversation with a program at a terminal: when it has written something, it is told something.
type step struct{ when, say string }

// converse runs a program at a terminal and has a conversation with it. It returns all that it wrote.
func (c *clientsTest) converse(t *testing.T, steps []step, name string, args ...string) string {
	t.Helper()
	needs(t, name)
	needs(t, "script")
	command := name
	for _, a := range args {
		command += " '" + a + "'"
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "script", "-qefc", command, "/dev/null")
	cmd.Dir, cmd.Env = c.home, append(os.Environ(), "HOME="+c.home, "TERM=xterm", "LC_ALL=C.UTF-8")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := &conversation{steps: steps, in: in}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v after %d of %d steps\n%s\nserver:\n%s", command, err, len(steps)-len(out.steps), len(steps), out.all.String(), c.logText())
	}
	return out.all.String()
}

// conversation takes what the program writes. One goroutine writes to it, that of the command.
type conversation struct {
	steps []step
	in    io.Writer
	all   bytes.Buffer
	from  int // what was written before this is answered
}

func (c *conversation) Write(p []byte) (int, error) {
	c.all.Write(p)
	for len(c.steps) > 0 {
		i := bytes.Index(c.all.Bytes()[c.from:], []byte(c.steps[0].when))
		if i < 0 {
			break
		}
		c.from += i + len(c.steps[0].when)
		if _, err := io.WriteString(c.in, c.steps[0].say); err != nil {
			return 0, err
		}
		c.steps = c.steps[1:]
	}
	return len(p), nil
}

// The library of the University of Washington, in which Alpine and PHP speak IMAP.
func TestClientUW(t *testing.T) {
	c := startForClients(t)
	far := "{localhost:" + port(c.IMAP) + "/notls/user=" + c.alice.address + "}" // its TLS is older than ours
	password := step{"password:", c.alice.password + "\n"}
	for _, run := range []struct {
		args   []string
		logins int
		says   string
	}{
		{[]string{"check", far + "INBOX"}, 1, "1 new message(s) (1 unseen), 1 total"},
		{[]string{"create", far + "M&APw-ll &- more/&ZeVnLA-"}, 1, ""},
		{[]string{"copy", far + "INBOX", far + "Copied/here"}, 2, "1 messages(s)"},
		{[]string{"append", far + "INBOX", far + "Archive"}, 2, "1 messages(s)"},
		{[]string{"rename", far + "Copied/here", far + "Copied/there"}, 1, ""},
		{[]string{"delete", far + "Copied"}, 1, ""},
	} {
		out := c.converse(t, slices.Repeat([]step{password}, run.logins), "mailutil", append(run.args, "-verbose")...)
		if !strings.Contains(out, run.says) {
			t.Errorf("mailutil %q says\n%s", run.args, out)
		}
	}
	c.holds(t, c.alice.address, "Copied/there", "Welcome to postroad")
	c.holds(t, c.alice.address, "Archive", "Welcome to postroad")
	c.holds(t, c.alice.address, "Müll & more/日本")
}
