package postroad_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What keeps copies of mailboxes: each program syncs twice, with changes on both sides in between.

// oddName is a mailbox name that is hard on modified UTF-7 (RFC 3501, 5.1.3), and oddUTF7 the same in that.
const (
	oddName = "Müll & Co/日本 ~peter"
	oddUTF7 = "M&APw-ll &- Co/&ZeVnLA- ~peter"
)

// cli runs a command on the running server.
func (c *clientsTest) cli(t *testing.T, args ...string) string {
	t.Helper()
	return c.run(t, "", postroadPath(t), append(args, "--dir", c.Data)...)
}

// put stores a message by the command line.
func (c *clientsTest) put(t *testing.T, address, mailbox, subject string) {
	t.Helper()
	file := c.file(t, "put.eml", mail(c.alice.address, address, subject))
	c.cli(t, "message", "import", address, "--mailbox", mailbox, "--create", file)
}

// subjects are those of a mailbox, in order of UID.
func (c *clientsTest) subjects(t *testing.T, address, mailbox string) []string {
	t.Helper()
	var list []string
	for line := range strings.Lines(c.cli(t, "message", "list", address, mailbox, "--json")) {
		_, rest, _ := strings.Cut(line, `"subject":"`)
		subject, _, _ := strings.Cut(rest, `"`)
		list = append(list, subject)
	}
	return list
}

// holds waits for nothing: it says what a mailbox should hold, in any order.
func (c *clientsTest) holds(t *testing.T, address, mailbox string, want ...string) {
	t.Helper()
	got := c.subjects(t, address, mailbox)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s of %s holds %q, not %q\nserver:\n%s", mailbox, address, got, want, c.logText())
	}
}

// mkdir makes a directory in the clients' home.
func (c *clientsTest) mkdir(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(c.home, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TLS from the start: after STARTTLS its library reads and writes the first octets of TLS in two threads at once, and now and
// then hangs, or ends with OpenSSL's "internal error".
func TestClientOfflineimap(t *testing.T) {
	c := startForClients(t)
	c.put(t, c.bob.address, oddName, "in the odd one")
	maildir := c.mkdir(t, "Mail")
	rc := c.file(t, "offlineimaprc", fmt.Sprintf(`[general]
accounts = bob
ui = basic

[Account bob]
localrepository = near
remoterepository = far

[Repository near]
type = Maildir
localfolders = %s
sep = /

[Repository far]
type = IMAP
remotehost = localhost
remoteport = %s
remoteuser = %s
remotepass = %s
ssl = yes
starttls = no
sslcacertfile = %s
`, maildir, port(c.IMAPS), c.bob.address, c.bob.password, c.cert()))
	c.run(t, "", "offlineimap", "-o", "-c", rc)
	here, err := filepath.Glob(filepath.Join(maildir, "INBOX", "*", "*"))
	if err != nil || len(here) != 1 {
		t.Fatalf("after the first sync INBOX has %v, %v", here, err)
	}
	if odd := treeOf(t, maildir); !strings.Contains(odd, oddUTF7) {
		t.Errorf("the odd mailbox did not come:\n%s", odd)
	}
	name := strings.SplitN(filepath.Base(here[0]), ":", 2)[0]
	if err := os.Rename(here[0], filepath.Join(maildir, "INBOX", "cur", name+":2,FS")); err != nil {
		t.Fatal(err)
	}
	c.file(t, "Mail/INBOX/new/1.mine", strings.ReplaceAll(mail(c.bob.address, c.bob.address, "by offlineimap"), "\r\n", "\n"))
	c.put(t, c.bob.address, "INBOX", "meanwhile")
	c.run(t, "", "offlineimap", "-o", "-c", rc)
	c.holds(t, c.bob.address, "INBOX", "Welcome to postroad", "meanwhile", "by offlineimap")
	if out := c.cli(t, "message", "list", c.bob.address, "INBOX", "--json"); !strings.Contains(out, `\\Flagged`) {
		t.Errorf("the flags did not come up:\n%s", out)
	}
	if here, _ := filepath.Glob(filepath.Join(maildir, "INBOX", "[nc][eu][wr]", "*")); len(here) != 3 {
		t.Errorf("in the end INBOX has %v", here)
	}
}

// treeOf lists the directories below one.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			fmt.Fprintln(&b, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// interimap keeps two accounts of a server the same, and asks for what changed by QRESYNC (RFC 7162) alone.
func TestClientInterimap(t *testing.T) {
	c := startForClients(t)
	c.put(t, c.alice.address, oddName, "in the odd one")
	c.put(t, c.bob.address, "Lists/go", "of the list")
	rc := c.file(t, "interimaprc", fmt.Sprintf(`database = %[1]s/interimap.db
list-mailbox = *

[local]
type = imaps
host = localhost
port = %[2]s
username = %[3]s
password = %[4]s
SSL_CAfile = %[5]s
SSL_verify = YES

[remote]
type = imap
host = localhost
port = %[6]s
username = %[7]s
password = %[8]s
STARTTLS = YES
SSL_CAfile = %[5]s
`, c.home, port(c.IMAPS), c.alice.address, c.alice.password, c.cert(), port(c.IMAP), c.bob.address, c.bob.password))
	sync := func() { c.run(t, "", "interimap", "--config="+rc, "--debug") }
	sync()
	welcome := "Welcome to postroad"
	for _, who := range []string{c.alice.address, c.bob.address} {
		c.holds(t, who, "INBOX", welcome, welcome)
		c.holds(t, who, oddName, "in the odd one")
		c.holds(t, who, "Lists/go", "of the list")
	}
	c.put(t, c.alice.address, "INBOX", "new at alice's")
	c.put(t, c.bob.address, "INBOX", "new at bob's")
	out := c.run(t, "", "curl", "-sS", "--cacert", c.cert(), "--user", c.bob.address+":"+c.bob.password, "imaps://"+c.IMAPS+"/INBOX",
		"-X", `UID STORE 1 +FLAGS (\Deleted $Forwarded)`, "--next", "-sS", "--cacert", c.cert(), "--user", c.bob.address+":"+c.bob.password,
		"imaps://"+c.IMAPS+"/INBOX", "-X", `UID STORE 2 +FLAGS (\Flagged)`, "--next", "-sS", "--cacert", c.cert(), "--user", c.bob.address+":"+c.bob.password,
		"imaps://"+c.IMAPS+"/INBOX", "-X", "EXPUNGE")
	if !strings.Contains(out, "EXPUNGE") {
		t.Fatalf("curl said\n%s", out)
	}
	sync()
	for _, who := range []string{c.alice.address, c.bob.address} {
		c.holds(t, who, "INBOX", welcome, "new at alice's", "new at bob's")
		if out := c.cli(t, "message", "list", who, "INBOX", "--json"); !strings.Contains(out, `\\Flagged`) {
			t.Errorf("the flag is not there for %s:\n%s", who, out)
		}
	}
	sync()
	c.holds(t, c.alice.address, "INBOX", welcome, "new at alice's", "new at bob's")
}

// What fetches mail and delivers it elsewhere.

func TestClientGetmail(t *testing.T) {
	c := startForClients(t)
	c.put(t, c.bob.address, "INBOX", "second")
	c.mkdir(t, "getmail")
	c.file(t, "getmail/getmailrc", fmt.Sprintf(`[retriever]
type = SimpleIMAPSSLRetriever
server = localhost
port = %s
username = %s
password = %s
ca_certs = %s
mailboxes = ("INBOX",)

[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "cat >> %s/fetched")
unixfrom = true
allow_root_commands = true

[options]
delete = true
`, port(c.IMAPS), c.bob.address, c.bob.password, c.cert(), c.home))
	c.run(t, "", "getmail", "--getmaildir", filepath.Join(c.home, "getmail"))
	got, err := os.ReadFile(filepath.Join(c.home, "fetched"))
	if n := strings.Count(string(got), "Subject: "); err != nil || n != 2 {
		t.Errorf("getmail fetched %d messages, %v:\n%s", n, err, got)
	}
	c.holds(t, c.bob.address, "INBOX")
}

func TestClientFetchmail(t *testing.T) {
	c := startForClients(t)
	c.put(t, c.bob.address, "INBOX", "second")
	rc := c.file(t, "fetchmailrc", fmt.Sprintf(`set no bouncemail
poll localhost protocol imap port %s auth password
  username "%s" password "%s" folder INBOX
  sslproto "TLS1.2+" sslcertfile %s sslcertck
  nokeep fetchall
  mda "cat >> %s/fetched"
`, port(c.IMAP), c.bob.address, c.bob.password, c.cert(), c.home))
	c.run(t, "", "fetchmail", "-v", "-f", rc)
	got, err := os.ReadFile(filepath.Join(c.home, "fetched"))
	if n := strings.Count(string(got), "Subject: "); err != nil || n != 2 {
		t.Errorf("fetchmail fetched %d messages, %v:\n%s", n, err, got)
	}
	c.holds(t, c.bob.address, "INBOX")
}

func TestClientImapfilter(t *testing.T) {
	c := startForClients(t)
	c.put(t, c.bob.address, "INBOX", "report of the week")
	c.put(t, c.bob.address, "INBOX", "a letter")
	rc := c.file(t, "imapfilter.lua", fmt.Sprintf(`options.certificates = false
options.create = true
options.subscribe = true
bob = IMAP { server = "localhost", port = %s, username = "%s", password = "%s", ssl = "auto" }
found = bob.INBOX:contain_subject("report") + bob.INBOX:contain_body("nowhere")
found:move_messages(bob["Reports/%s"])
rest = bob.INBOX:is_unseen() * bob.INBOX:is_smaller(100000)
rest:mark_flagged()
rest:add_flags({ "$Sorted" })
`, port(c.IMAPS), c.bob.address, c.bob.password, "2026"))
	c.run(t, "", "imapfilter", "-t", c.cert(), "-c", rc)
	c.holds(t, c.bob.address, "Reports/2026", "report of the week")
	c.holds(t, c.bob.address, "INBOX", "Welcome to postroad", "a letter")
	if out := c.cli(t, "message", "list", c.bob.address, "INBOX", "--json"); strings.Count(out, "$Sorted") != 2 || strings.Count(out, `\\Flagged`) != 2 {
		t.Errorf("not all are flagged:\n%s", out)
	}
}

// Over implicit TLS, with a mailbox name that is not ASCII, both ways.
func TestClientMbsyncNames(t *testing.T) {
	c := startForClients(t)
	c.put(t, c.alice.address, oddName, "in the odd one")
	maildir := c.mkdir(t, "Mail")
	rc := c.file(t, "mbsyncrc", fmt.Sprintf(`IMAPAccount alice
Host localhost
Port %s
User %s
Pass %s
SSLType IMAPS
CertificateFile %s

IMAPStore far
Account alice

MaildirStore near
Path %[5]s/
Inbox %[5]s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState *
`, port(c.IMAPS), c.alice.address, c.alice.password, c.cert(), maildir))
	c.run(t, "", "mbsync", "-c", rc, "all")
	odd, _ := filepath.Glob(filepath.Join(maildir, oddUTF7, "[nc][eu][wr]", "*"))
	if len(odd) != 1 {
		t.Fatalf("the odd mailbox did not come:\n%s", treeOf(t, maildir))
	}
	for _, sub := range []string{"cur", "new", "tmp"} { // a mailbox of ours, beside it
		c.mkdir(t, "Mail/M&APw-ll &- Co/&ZeU-/"+sub)
	}
	c.run(t, "", "mbsync", "-c", rc, "all")
	c.holds(t, c.alice.address, "Müll & Co/日")
}

// What one account shares, the mail programs of another see, as far as it may.
func TestClientsShare(t *testing.T) {
	c := startForClients(t)
	c.put(t, c.alice.address, "Projects/"+oddName, "of the project")
	c.cli(t, "mailbox", "share", c.alice.address, "Projects/"+oddName, c.bob.address)
	curl := func(path string, args ...string) string {
		return c.run(t, "", "curl", append([]string{"-sS", "--cacert", c.cert(), "--user", c.bob.address + ":" + c.bob.password, "imaps://" + c.IMAPS + path}, args...)...)
	}
	shared := "Other Users/" + c.alice.address + "/Projects/" + oddUTF7
	if out := curl("/", "-X", `LIST "" "*"`); !strings.Contains(out, shared) {
		t.Fatalf("bob sees\n%s", out)
	}
	at := "/" + strings.NewReplacer(" ", "%20", "&", "%26", "@", "%40").Replace(shared)
	if out := curl(at + ";MAILINDEX=1"); !strings.Contains(out, "Subject: of the project") {
		t.Errorf("bob reads\n%s", out)
	}
	if out := c.run(t, "", "sh", "-c", `curl -sS -v --cacert "$0" --user "$1" "$2" -X 'STORE 1 +FLAGS (\Flagged)' 2>&1 || true`,
		c.cert(), c.bob.address+":"+c.bob.password, "imaps://"+c.IMAPS+at); !strings.Contains(out, " NO ") {
		t.Errorf("bob may change flags:\n%s", out)
	}
	c.cli(t, "mailbox", "share", c.alice.address, "Projects/"+oddName, c.bob.address, "write")
	if out := curl(at, "-X", `STORE 1 +FLAGS (\Flagged)`); !strings.Contains(out, `\Flagged`) {
		t.Errorf("bob may not change flags:\n%s", out)
	}
	if out := c.cli(t, "message", "list", c.alice.address, "Projects/"+oddName, "--json"); !strings.Contains(out, `\\Flagged`) {
		t.Errorf("alice does not see the flag:\n%s", out)
	}
	c.cli(t, "mailbox", "unshare", c.alice.address, "Projects/"+oddName, c.bob.address)
	if out := curl("/", "-X", `LIST "" "*"`); strings.Contains(out, "Projects") {
		t.Errorf("bob still sees\n%s", out)
	}
}

// What is hidden from an account's clients, they do not use: interimap says that it needs it.
func TestClientsAreNotTold(t *testing.T) {
	c := startForClients(t)
	c.cli(t, "account", "set", c.alice.address, "--hide-capability", "qresync,SORT")
	for _, who := range []struct {
		address, password string
		told              bool
	}{{c.alice.address, c.alice.password, false}, {c.bob.address, c.bob.password, true}} {
		out := c.run(t, "", "curl", "-sS", "--cacert", c.cert(), "--user", who.address+":"+who.password, "imaps://"+c.IMAPS+"/", "-X", "CAPABILITY")
		for _, name := range []string{" QRESYNC", " SORT", " SORT=DISPLAY"} {
			if strings.Contains(out+" ", name) != who.told {
				t.Errorf("%s is told of%s: %v\n%s", who.address, name, !who.told, out)
			}
		}
		if !strings.Contains(out, " CONDSTORE") {
			t.Errorf("%s is not told of CONDSTORE:\n%s", who.address, out)
		}
	}
}
