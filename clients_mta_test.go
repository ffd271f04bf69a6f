package postroad_test

import (
	"context"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postroad/internal/config"
	"postroad/internal/listen/listentest"
)

// Servers that hand mail on to us: Postfix and Exim as Debian has them, each with its own configuration, queue and log
// below one directory, on loopback.

// needsRoot skips a test of what starts as root and gives that up.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("other mail servers need root to start")
	}
}

// A hop is how another server hands a message on to us. The message is for bob, with the hop's name as detail.
type hop struct {
	name, service, nexthop, options string
	says                            []string // words of our Received field
}

func (h hop) to() string { return "bob+" + h.name + "@example.test" }

// postfix is a running Postfix.
type postfix struct {
	*mailHouse
	dir, addr string
}

// relayPostfix starts a Postfix with a transport for each hop, and one for what is sent back.
func relayPostfix(t *testing.T, h *mailHouse, hops []hop) *postfix {
	t.Helper()
	needs(t, "postfix")
	needsRoot(t)
	p := &postfix{mailHouse: h, dir: publicDir(t), addr: listentest.FreeAddress(t)}
	transport := fmt.Sprintf("example.test back:[127.0.0.1]:%s\n", port(h.SMTP))
	services := "back unix - - n - - smtp\n"
	for _, x := range hops {
		transport += fmt.Sprintf("%s %s:%s\n%s %s:%s\n", x.to(), x.name, x.nexthop, strings.Replace(x.to(), "bob", "nobody", 1), x.name, x.nexthop)
		services += fmt.Sprintf("%s unix - - n - - %s %s\n", x.name, x.service, x.options)
	}
	p.start(t, map[string]string{
		"main.cf":   fmt.Sprintf(postfixMain, p.dir, h.publicCert(t), h.alice.address, h.alice.password),
		"master.cf": fmt.Sprintf(postfixMaster, p.addr) + services,
		"transport": transport,
	})
	return p
}

// start starts Postfix with the files of its directory, until the test ends.
func (p *postfix) start(t *testing.T, files map[string]string) {
	t.Helper()
	for _, dir := range []string{"queue", "data"} {
		if err := os.Mkdir(filepath.Join(p.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, "chown", "postfix", filepath.Join(p.dir, "data"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.logged(""))
		}
	})
	execute(t, "postfix", "-c", p.dir, "start")
	t.Cleanup(func() {
		if out, err := exec.Command("postfix", "-c", p.dir, "stop").CombinedOutput(); err != nil {
			t.Errorf("Postfix does not stop: %v\n%s", err, out)
		}
	})
	answering(t, "Postfix", p.addr)
}

// execute runs a command that must not fail.
func execute(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// answering waits for a server.
func answering(t *testing.T, name, addr string) {
	t.Helper()
	eventually(t, name+" answering", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// publicCert is a copy of the server's certificate for those who have no right to read its directory.
func (h *mailHouse) publicCert(t *testing.T) string {
	t.Helper()
	cert, err := os.ReadFile(h.cert())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.home, "cert.pem")
	if err := os.WriteFile(path, cert, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const postfixMain = `compatibility_level = 3.6
myhostname = postfix.test
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
mydestination =
alias_maps =
alias_database =
relay_domains = example.test
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_authorized_xclient_hosts = 127.0.0.1
transport_maps = texthash:%[1]s/transport
smtp_host_lookup = native
lmtp_host_lookup = native
smtp_dns_support_level = disabled
lmtp_dns_support_level = disabled
smtp_send_xforward_command = yes
lmtp_send_xforward_command = yes
smtp_tls_CAfile = %[2]s
lmtp_tls_CAfile = %[2]s
smtp_sasl_password_maps = static:{%[3]s:%[4]s}
smtp_sasl_security_options = noanonymous
smtp_tls_secure_cert_match = nexthop
`

const postfixMaster = `%s inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
retry unix - - n - - error
error unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
`

// pass gives Postfix a message and returns its log of handing that on, when it has done what it could.
func (p *postfix) pass(t *testing.T, text string, commands ...string) string {
	t.Helper()
	c := dialSMTP(t, p.addr)
	defer c.Close()
	for _, command := range commands {
		c.command(t, command, "2")
	}
	c.command(t, "DATA", "354")
	w := textproto.NewWriter(c.w).DotWriter()
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	_, id, ok := strings.Cut(c.reply(), " queued as ")
	if !ok {
		t.Fatalf("Postfix does not take the message\n%s", p.logged(""))
	}
	eventually(t, "Postfix having handed on "+id, func() bool {
		log := p.logged(id + ":")
		return strings.Contains(log, "removed\n") || strings.Contains(log, "status=deferred")
	})
	log := p.logged(id + ":")
	if !strings.Contains(log, "status=sent") || strings.Contains(log, "status=deferred") {
		t.Fatalf("Postfix did not hand it on:\n%s", log)
	}
	return log
}

// logged are the lines of Postfix's log with a word.
func (p *postfix) logged(word string) string {
	var lines strings.Builder
	b, _ := os.ReadFile(filepath.Join(p.dir, "log"))
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, word) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

func TestPostfixHandsOn(t *testing.T) {
	h := houseForClients(t, trustsLoopback)
	socket := filepath.Join(publicDir(t), "lmtp")
	local := houseForClients(t, func(cfg *config.Config) { cfg.Listen.LMTP = config.Addr("unix:" + socket) })
	at := func(addr string) string { return "[localhost]:" + port(addr) }
	const verified = "-o smtp_tls_security_level=secure "
	const auth = verified + "-o smtp_sasl_auth_enable=yes -o smtp_sasl_mechanism_filter="
	hops := []hop{
		{"clear", "smtp", at(h.SMTP), "", []string{"from postfix.test", "with ESMTP id", "for <bob+clear@example.test>"}},
		{"single", "smtp", at(h.SMTP), "-o smtp_discard_ehlo_keywords=pipelining", []string{"with ESMTP id"}},
		{"helo", "smtp", at(h.SMTP), "-o smtp_never_send_ehlo=yes -o disable_mime_output_conversion=yes", []string{"with SMTP id"}},
		{"starttls", "smtp", at(h.SMTP), verified, []string{"with ESMTPS id", "TLS1.3"}},
		{"plain", "smtp", at(h.Submission), auth + "plain", []string{"with ESMTPSA id"}},
		{"login", "smtp", at(h.Submission), auth + "login", []string{"with ESMTPSA id"}},
		{"scram", "smtp", at(h.Submission), auth + "scram-sha-256", []string{"with ESMTPSA id"}},
		{"implicit", "smtp", at(h.Submissions), auth + "plain -o smtp_tls_wrappermode=yes", []string{"with ESMTPSA id"}},
		{"lmtp", "lmtp", "inet:localhost:" + port(h.lmtp), "", []string{"with LMTP id"}},
		{"lmtps", "lmtp", "inet:localhost:" + port(h.lmtp), "-o lmtp_tls_security_level=encrypt", []string{"with LMTPS id"}},
		{"socket", "lmtp", "unix:" + socket, "", []string{"with LMTP id"}},
	}
	p := relayPostfix(t, h, hops)
	for _, x := range hops {
		t.Run(x.name, func(t *testing.T) {
			text := letter(h.alice.address, h.bob.address, "by Postfix "+x.name)
			p.pass(t, text, "MAIL FROM:<"+h.alice.address+"> BODY=8BITMIME", "RCPT TO:<"+x.to()+">")
			to := h
			if x.name == "socket" {
				to = local
			}
			to.same(t, "by Postfix "+x.name, text, x.says...)
		})
	}
	t.Run("for another", func(t *testing.T) {
		text := letter(h.alice.address, h.bob.address, "by Postfix for another")
		p.pass(t, text, "XCLIENT ADDR=192.0.2.7 NAME=client.far.test", "EHLO helo.far.test", "MAIL FROM:<a@far.test>", "RCPT TO:<bob+clear@example.test>")
		h.same(t, "by Postfix for another", text, "from postfix.test ([127.0.0.1])")
		if out := h.cli(t, "trace", "a@far.test", "--json"); !strings.Contains(out, "192.0.2.7") {
			t.Errorf("what XFORWARD said is not in the trace:\n%s", out)
		}
	})
	t.Run("UTF-8", func(t *testing.T) {
		text := strings.Replace(letter(h.alice.address, h.bob.address, "by Postfix UTF-8"), "From: Alice", "From: Jörg", 1)
		p.pass(t, text, "MAIL FROM:<jörg@far.test> BODY=8BITMIME SMTPUTF8", "RCPT TO:<bob+starttls@example.test>")
		h.same(t, "by Postfix UTF-8", text, "with UTF8SMTPS id")
	})
	t.Run("one of three refused", func(t *testing.T) {
		for _, x := range []string{"clear", "lmtp"} {
			subject := "by Postfix to three over " + x
			text := letter(h.alice.address, h.bob.address, subject)
			log := p.pass(t, text, "MAIL FROM:<"+h.alice.address+">", "RCPT TO:<bob+"+x+"@example.test>", "RCPT TO:<nobody+"+x+"@example.test>")
			h.same(t, subject, text)
			if !strings.Contains(log, "to=<nobody+"+x+"@example.test>") || !strings.Contains(log, "status=bounced") || !strings.Contains(log, "550 5.1.1") {
				t.Errorf("Postfix logs\n%s", log)
			}
		}
		eventually(t, "both sent back by Postfix", func() bool { return len(h.find(t, h.alice.address, "Undelivered Mail")) == 2 })
	})
	t.Run("DSN", func(t *testing.T) {
		text := letter(h.alice.address, h.bob.address, "by Postfix DSN")
		p.pass(t, text, "MAIL FROM:<"+h.alice.address+"> RET=HDRS ENVID=Q+2B1", "RCPT TO:<bob+clear@example.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;bob@far.test")
		h.same(t, "by Postfix DSN", text)
		report := h.read(t, h.alice.address, "was delivered")
		for _, field := range []string{"Original-Envelope-Id: Q+1", "Original-Recipient: rfc822;bob@far.test", "Action: delivered", "Reporting-MTA: dns;localhost"} {
			if !strings.Contains(strings.ReplaceAll(report, "; ", ";"), strings.ReplaceAll(field, "; ", ";")) {
				t.Errorf("the report does not say %q:\n%s", field, report)
			}
		}
	})
}

// exim is Exim with a configuration for each hop. It runs for one message at a time.
type exim struct {
	*mailHouse
	path, dir string
}

// needsExim finds Exim, which need not be installed, as that would remove Postfix: its user exists in a view of the
// file system of its own.
func needsExim(t *testing.T, h *mailHouse) *exim {
	t.Helper()
	needs(t, "exim4")
	needs(t, "unshare")
	needsRoot(t)
	path, err := exec.LookPath("exim4")
	if err != nil {
		t.Fatal(err)
	}
	e := &exim{mailHouse: h, dir: publicDir(t)}
	e.path = filepath.Join(e.dir, "exim4") // it runs itself again as its user, who may not get to where it is
	execute(t, "install", "-m", "755", path, e.path)
	for file, line := range map[string]string{"passwd": "Debian-exim:x:65000:65000::/nonexistent:/bin/false\n", "group": "Debian-exim:x:65000:\n"} {
		all, err := os.ReadFile("/etc/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(all), "Debian-exim:") {
			all = append(all, line...)
		}
		if err := os.WriteFile(filepath.Join(e.dir, file), all, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := e.command(t.Context(), "true").CombinedOutput(); err != nil {
		t.Skipf("Exim needs a mount namespace, and there is none here: %s", out)
	}
	return e
}

// command runs where Exim's user exists.
func (e *exim) command(ctx context.Context, args ...string) *exec.Cmd {
	const view = `mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group && exec "$@"`
	return exec.CommandContext(ctx, "unshare", append([]string{"-m", "sh", "-c", view, e.dir}, args...)...)
}

// pass hands a message on by a hop, and returns Exim's log of it.
func (e *exim) pass(t *testing.T, x hop, text string, commands ...string) string {
	t.Helper()
	spool := filepath.Join(e.dir, x.name)
	conf := spool + ".conf"
	client := fmt.Sprintf(eximMain, e.path, spool, e.publicCert(t)) + fmt.Sprintf(eximRoute, x.service, x.options) +
		fmt.Sprintf(eximLogin, e.alice.address, e.alice.password, strings.ReplaceAll(e.alice.password, ":", "::"))
	if err := os.WriteFile(conf, []byte(client), 0o644); err != nil {
		t.Fatal(err)
	}
	var dialogue strings.Builder
	fmt.Fprintf(&dialogue, "EHLO client.test\r\n%s\r\nDATA\r\n", strings.Join(commands, "\r\n"))
	for line := range strings.Lines(text) {
		if line[0] == '.' {
			dialogue.WriteByte('.')
		}
		dialogue.WriteString(line)
	}
	dialogue.WriteString(".\r\nQUIT\r\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := e.command(ctx, e.path, "-C", conf, "-bs", "-odi")
	cmd.Stdin = strings.NewReader(dialogue.String())
	out, err := cmd.CombinedOutput()
	log, _ := os.ReadFile(filepath.Join(spool, "log", "mainlog"))
	if err != nil || !strings.Contains(string(log), " Completed") {
		t.Fatalf("Exim: %v\n%s\n%s", err, out, log)
	}
	return string(log)
}

const eximMain = `exim_path = %[1]s
spool_directory = %[2]s
log_file_path = %[2]s/log/%%slog
primary_hostname = exim.test
tls_advertise_hosts =
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
chunking_advertise_hosts =
pipelining_advertise_hosts =
host_lookup =
rfc1413_hosts =
qualify_domain = exim.test
smtp_accept_max_nonmail = 100
log_selector = +smtp_confirmation +tls_cipher
keep_environment =
add_environment = PATH=/usr/bin
acl_smtp_rcpt = accept
acl_smtp_data = accept
acl_not_smtp = accept
CERT = %[3]s
`

const eximRoute = `begin routers
all:
  driver = manualroute
  route_list = * localhost byname
  self = send
  transport = out
begin transports
out:
  driver = %s
  %s
begin retry
* * F,1d,1h
begin authenticators
`

const eximLogin = `PLAIN:
  driver = plaintext
  public_name = PLAIN
  client_send = ^%[1]s^%[3]s
LOGIN:
  driver = plaintext
  public_name = LOGIN
  client_send = : %[1]s : %[3]s
`

func TestEximHandsOn(t *testing.T) {
	h := houseForClients(t, nil)
	socket := filepath.Join(publicDir(t), "lmtp")
	local := houseForClients(t, func(cfg *config.Config) { cfg.Listen.LMTP = config.Addr("unix:" + socket) })
	e := needsExim(t, h)
	at := func(addr string, options ...string) string {
		common := []string{"port = " + port(addr), "allow_localhost", "hosts_try_dane =", "hosts_try_fastopen =",
			"tls_verify_certificates = CERT", "tls_verify_hosts = *"}
		return strings.Join(append(common, options...), "\n  ")
	}
	const clear, tls, data, bdat = "hosts_avoid_tls = *", "hosts_require_tls = *", "hosts_try_chunking =", "hosts_try_chunking = *"
	const login = "hosts_require_auth = *"
	for _, x := range []hop{
		{"data", "smtp", "", at(h.SMTP, clear, data), []string{"from exim.test", "with ESMTP id"}},
		{"bdat", "smtp", "", at(h.SMTP, clear, bdat), []string{"with ESMTP id"}},
		{"single", "smtp", "", at(h.SMTP, clear, data, "hosts_avoid_pipelining = *"), []string{"with ESMTP id"}},
		{"starttls", "smtp", "", at(h.SMTP, tls, bdat), []string{"with ESMTPS id"}},
		{"submission", "smtp", "", at(h.Submission, tls, bdat, login), []string{"with ESMTPSA id"}},
		{"implicit", "smtp", "", at(h.Submissions, "protocol = smtps", tls, data, login), []string{"with ESMTPSA id"}},
		{"lmtp", "smtp", "", at(h.lmtp, "protocol = lmtp", clear, data), []string{"with LMTP id"}},
		{"lmtpbdat", "smtp", "", at(h.lmtp, "protocol = lmtp", tls, bdat), []string{"with LMTPS id"}},
		{"socket", "lmtp", "", "socket = " + socket, []string{"with LMTP id"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			subject := "by Exim " + x.name
			text := letter(h.alice.address, h.bob.address, subject)
			log := e.pass(t, x, text, "MAIL FROM:<"+h.alice.address+"> BODY=8BITMIME", "RCPT TO:<"+x.to()+">")
			if chunked := strings.Contains(log, " K "); chunked != strings.Contains(x.options, bdat) {
				t.Errorf("by BDAT: %v\n%s", chunked, log)
			}
			to := h
			if x.name == "socket" {
				to = local
			}
			to.same(t, subject, text, x.says...)
		})
	}
	x := hop{name: "more", service: "smtp", options: at(h.SMTP, clear, bdat)}
	t.Run("UTF-8", func(t *testing.T) {
		text := strings.Replace(letter(h.alice.address, h.bob.address, "by Exim UTF-8"), "From: Alice", "From: Jörg", 1)
		e.pass(t, x, text, "MAIL FROM:<jörg@far.test> BODY=8BITMIME SMTPUTF8", "RCPT TO:<"+h.bob.address+">")
		h.same(t, "by Exim UTF-8", text, "with UTF8SMTP id")
	})
	t.Run("one of two refused", func(t *testing.T) {
		text := letter(h.alice.address, h.bob.address, "by Exim to two")
		log := e.pass(t, x, text, "MAIL FROM:<"+h.alice.address+">", "RCPT TO:<"+h.bob.address+">", "RCPT TO:<nobody@example.test>")
		h.same(t, "by Exim to two", text)
		if !strings.Contains(log, "** nobody@example.test") || !strings.Contains(log, "550 5.1.1") {
			t.Errorf("Exim logs\n%s", log)
		}
	})
	t.Run("DSN", func(t *testing.T) {
		text := letter(h.alice.address, h.bob.address, "by Exim DSN")
		e.pass(t, x, text, "MAIL FROM:<"+h.alice.address+"> RET=HDRS ENVID=Q+2B1", "RCPT TO:<"+h.bob.address+"> NOTIFY=SUCCESS ORCPT=rfc822;bob@far.test")
		h.same(t, "by Exim DSN", text)
		if report := h.read(t, h.alice.address, "was delivered"); !strings.Contains(report, "Q+1") || !strings.Contains(report, "bob@far.test") {
			t.Errorf("the report on delivery is\n%s", report)
		}
	})
}
