package postroad_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	gomail "github.com/emersion/go-message/mail"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postroad"
	"postroad/internal/config"
	"postroad/internal/control"
	"postroad/internal/dns"
	"postroad/internal/dns/dnstest"
	"postroad/internal/listen/listentest"
	"postroad/internal/tlspolicy/tlstest"
)

// Servers that we hand mail on to: Postfix, Exim and Dovecot as Debian has them. They listen on addresses of loopback of
// their own, all at one port, which stands for 25; a DNS server of the test says where they are.

// farAddresses are those of the hosts, and that from which mail goes out.
const (
	tlsAddress, plainAddress, greyAddress, webAddress = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"
	sourceAddress                                     = "127.0.0.9"
)

// A nextHops is a server of ours and those that it hands mail on to.
type nextHops struct {
	*embedded
	ann       postroad.Credential
	zone      *dnstest.Server
	authority *tlstest.Authority
	port      string // of all mail hosts
	config    config.Config
	options   postroad.Options
}

func newNextHops(t *testing.T) *nextHops {
	t.Helper()
	if testing.Short() {
		t.Skip("runs other mail servers")
	}
	h := &nextHops{zone: dnstest.NewServer(t), authority: tlstest.NewAuthority(t), port: port(listentest.FreeAddress(t))}
	h.ann = postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	h.config = testConfig(t, "mx.one.test")
	h.config.DNS.Servers = []string{h.zone.Addr}
	h.config.Retry.First, h.config.Retry.Max, h.config.Retry.Jitter = 1e9, 2e9, 0
	h.config.Delivery.Source = []string{sourceAddress}
	h.options = postroad.Options{AllowPrivate: true, RootCAs: h.authority.Pool()}
	fmt.Sscan(h.port, &h.options.MXPort)
	return h
}

// start starts our server.
func (h *nextHops) start(t *testing.T) { h.embedded = embed(t, h.config, h.options, h.ann) }

// at is where a mail host listens.
func (h *nextHops) at(address string) string { return net.JoinHostPort(address, h.port) }

// send hands in a message of ann's.
func (h *nextHops) send(t *testing.T, to, text string, o *smtp.MailOptions) {
	t.Helper()
	c, err := smtp.Dial(h.Addr("submission"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.Auth(sasl.NewPlainClient("", h.ann.Address, h.ann.Password)), c.Mail(h.ann.Address, o), c.Rcpt(to, nil)); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// story is what our server can tell of the mail for an address.
func (h *nextHops) story(t *testing.T, to string) string {
	t.Helper()
	var b strings.Builder
	for life, err := range h.Admin().Trace(t.Context(), control.TraceQuery{What: to}) {
		if err = errors.Join(err, json.NewEncoder(&b).Encode(life)); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// settled waits until nothing is in the queue.
func (h *nextHops) settled(t *testing.T) {
	t.Helper()
	eventually(t, "the queue being empty", func() bool {
		for range h.Admin().Queue(t.Context(), control.QueueFilter{}) {
			return false
		}
		return true
	})
}

// A maildir is one that another server delivers to.
type maildir string

// with returns the messages that contain a text, as they lie there: their lines end in LF.
func (b maildir) with(t *testing.T, text string) (found []string) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(string(b), "new", "*"))
	for _, file := range files {
		octets, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(octets), text) {
			found = append(found, string(octets))
		}
	}
	return found
}

// one waits for the message with a subject, and returns it. That it is the only one is seen at the end.
func (b maildir) one(t *testing.T, subject string) string {
	t.Helper()
	var found []string
	eventually(t, "the message "+subject, func() bool {
		found = b.with(t, "Subject: "+subject+"\n")
		return len(found) > 0
	})
	return found[0]
}

// same waits for a message, and holds it against what was sent: fields are put before it, and nothing else is done.
func (b maildir) same(t *testing.T, subject, text string) string {
	t.Helper()
	got := b.one(t, subject)
	if !strings.HasSuffix(got, "\n"+strings.ReplaceAll(text, "\r\n", "\n")) {
		t.Errorf("%s came as\n%q\nand was sent as\n%q", subject, got, text)
	}
	return got
}

// oddLetter has what a careless server would change.
func oddLetter(to, subject, body string) string {
	return "From: Ann <ann@one.test>\r\nTo: " + to + "\r\nSubject: " + subject + "\r\nDate: Fri, 2 Jan 2026 03:04:05 +0000\r\n" +
		"Message-ID: <" + strings.ReplaceAll(subject, " ", "-") + "@one.test>\r\nX-Folded: a\r\n\tb \r\n c\r\n" + body
}

const (
	plainBody = "\r\n.a dot\r\n..two\r\n.\r\n\r\nFrom the beginning\r\n>From\r\ntrailing blanks  \t\r\n\r\n\r\nno more\r\n"
	eightBits = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
		"Grüße aus Köln = schön\r\n.ein Punkt\r\nam Ende Leerzeichen  \r\n\r\nλ\r\n"
	mixedBody = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\npreamble\r\n--b\r\n" +
		"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe\r\n--b\r\n" +
		"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAwT/\r\n--b--\r\nepilogue\r\n"
)

func longBody() string {
	var b strings.Builder
	b.WriteString("\r\n")
	for i := range 20_000 {
		fmt.Fprintf(&b, "%d %s\r\n", i, strings.Repeat("x", i%990))
	}
	return b.String()
}

// pemFile writes a certificate and its key for another server.
func pemFile(t *testing.T, path string, cert *tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, der := range cert.Certificate {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.WriteFile(path, out, 0o644); err != nil {
		t.Fatal(err)
	}
}

// farPostfix starts a Postfix that takes mail at two addresses: at one by TLS alone, at the other without it and without
// what mail may ask for beyond RFC 821. It returns the Maildir that all comes to.
func (h *nextHops) farPostfix(t *testing.T, cert *tls.Certificate) (*postfix, maildir) {
	t.Helper()
	needs(t, "postfix")
	needsRoot(t)
	p := &postfix{dir: publicDir(t), addr: h.at(tlsAddress)}
	const nobody = 65534
	mail := filepath.Join(p.dir, "mail")
	if err := errors.Join(os.Mkdir(mail, 0o755), os.Chown(mail, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	pemFile(t, filepath.Join(p.dir, "tls.pem"), cert)
	p.start(t, map[string]string{
		"main.cf": fmt.Sprintf(farPostfixMain, p.dir, nobody),
		"master.cf": fmt.Sprintf(postfixMaster, p.addr) +
			h.at(plainAddress) + " inet n - n - - smtpd -o smtpd_tls_security_level=none" +
			" -o smtpd_discard_ehlo_keywords=8bitmime,smtputf8,chunking,dsn,pipelining,size\n" +
			"virtual unix - n n - - virtual\n",
	})
	return p, maildir(filepath.Join(mail, "all"))
}

const farPostfixMain = `compatibility_level = 3.6
myhostname = mx.tls.test
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
mynetworks = 192.0.2.0/24
inet_interfaces = loopback-only
inet_protocols = ipv4
mydestination =
alias_maps =
alias_database =
local_header_rewrite_clients =
smtpd_peername_lookup = no
virtual_mailbox_domains = tls.test, sts.test, wrong.test, old.test
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[2]d
smtpd_relay_restrictions = reject_unauth_destination
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = %[1]s/tls.pem
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
`

// greylist says of whom it has not heard yet: each sender and recipient at a server's. It is asked by a line.
type greylist struct {
	addr string

	mu   sync.Mutex // guards seen
	seen map[string]int
}

func newGreylist(t *testing.T) *greylist {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &greylist{addr: l.Addr().String(), seen: map[string]int{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			g.answer(conn)
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return g
}

func (g *greylist) answer(conn net.Conn) {
	defer conn.Close()
	triplet, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen[triplet]++
	io.WriteString(conn, map[bool]string{true: "first", false: "again"}[g.seen[triplet] == 1])
}

// asked returns how often it was asked for each triplet.
func (g *greylist) asked() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := map[string]int{}
	for triplet, n := range g.seen {
		all[strings.TrimSpace(triplet)] = n
	}
	return all
}

// farExim starts an Exim that asks a greylist, and returns the Maildir that all comes to.
func (h *nextHops) farExim(t *testing.T, grey *greylist) maildir {
	t.Helper()
	e := needsExim(t, nil)
	conf := filepath.Join(e.dir, "conf")
	_, greyPort, _ := net.SplitHostPort(grey.addr)
	if err := os.WriteFile(conf, fmt.Appendf(nil, farEximConf, e.path, e.dir, greyAddress, h.port, greyPort), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"spool", "log", "mail"} {
		if err := os.Mkdir(filepath.Join(e.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := e.command(t.Context(), "chown", "Debian-exim:Debian-exim", filepath.Join(e.dir, dir)).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	var said bytes.Buffer
	cmd := e.command(t.Context(), e.path, "-C", conf, "-bdf")
	cmd.Cancel = nil // it is asked to end
	cmd.Stdout, cmd.Stderr = &said, &said
	ends(t, cmd, func() string {
		log, _ := os.ReadFile(filepath.Join(e.dir, "log", "mainlog"))
		return said.String() + string(log)
	})
	answering(t, "Exim", h.at(greyAddress))
	return maildir(filepath.Join(e.dir, "mail"))
}

// ends starts a server that ends by SIGTERM with the test, which tells what it said if it failed.
func ends(t *testing.T, cmd *exec.Cmd, said func() string) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Log(said())
		}
	})
}

const farEximConf = `exim_path = %[1]s
spool_directory = %[2]s/spool
log_file_path = %[2]s/log/%%slog
pid_file_path = %[2]s/pid
primary_hostname = mx.grey.test
local_interfaces = %[3]s
daemon_smtp_ports = %[4]s
tls_advertise_hosts =
smtputf8_advertise_hosts = *
chunking_advertise_hosts = *
dsn_advertise_hosts = *
host_lookup =
rfc1413_hosts =
keep_environment =
add_environment = PATH=/usr/bin
message_size_limit = 100M
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
begin acl
rcpt:
  deny !domains = grey.test
  defer message = greylisted, try again later
    condition = ${if eq{${readsocket{inet:127.0.0.1:%[5]s}{$sender_host_address $sender_address $local_part@$domain\n}{5s}{}{again}}}{first}}
  accept
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  maildir_format
  directory = %[2]s/mail
  user = Debian-exim
begin retry
begin authenticators
`

// tlsaOf is the record of a host's key, as a zone file has it.
func (h *nextHops) tlsaOf(host string, ttl int, record dns.TLSA) string {
	return fmt.Sprintf("_%s._tcp.%s. %d IN TLSA %d %d %d %x", h.port, host, ttl, record.Usage, record.Selector, record.Matching, record.Data)
}

// policyHost serves the MTA-STS policy of sts.test.
func (h *nextHops) policyHost(t *testing.T, policy string) {
	t.Helper()
	l, err := net.Listen("tcp", webAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	h.options.PolicyPort = l.Addr().(*net.TCPAddr).Port
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host = strings.Split(r.Host, ":")[0]; r.Host != "mta-sts.sts.test" || r.URL.Path != "/.well-known/mta-sts.txt" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, policy)
	})}
	cert := h.authority.Issue("mta-sts.sts.test")
	serving := make(chan struct{})
	go func() {
		web.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}}))
		close(serving)
	}()
	t.Cleanup(func() { web.Close(); <-serving })
}

// Mail goes on to a Postfix by TLS that DANE and MTA-STS ask for, and to one that knows nothing new: octet by octet as it
// was sent, or saying the same, and once.
func TestNextHopPostfix(t *testing.T) {
	h := newNextHops(t)
	cert := h.authority.Issue("mx.tls.test", "mx.sts.test")
	leaf := tlstest.Chain(t, cert)[0]
	p, box := h.farPostfix(t, cert)
	h.zone.Add("tls.test. 300 IN MX 10 mx.tls.test.", "mx.tls.test. 300 IN A "+tlsAddress, h.tlsaOf("mx.tls.test", 300, tlstest.Record(3, 1, 1, leaf)),
		"wrong.test. 0 IN MX 10 mx.wrong.test.", "mx.wrong.test. 0 IN A "+tlsAddress, h.tlsaOf("mx.wrong.test", 0, tlstest.Record(3, 1, 1, h.authority.Cert)),
		"sts.test. 300 IN MX 10 mx.sts.test.", "mx.sts.test. 300 IN A "+tlsAddress, "mta-sts.sts.test. 300 IN A "+webAddress, `_mta-sts.sts.test. 300 IN TXT "v=STSv1; id=1"`,
		"old.test. 300 IN MX 10 mx.old.test.", "mx.old.test. 300 IN A "+plainAddress)
	h.zone.Secure("tls.test", "wrong.test")
	h.policyHost(t, "version: STSv1\r\nmode: enforce\r\nmx: mx.sts.test\r\nmax_age: 86400\r\n")
	h.start(t)
	sent := []string{}
	send := func(t *testing.T, to, subject, body string, o *smtp.MailOptions) string {
		text := oddLetter(to, subject, body)
		sent = append(sent, subject)
		h.send(t, to, text, o)
		return text
	}
	eight := &smtp.MailOptions{Body: smtp.Body8BitMIME}
	for name, body := range map[string]string{"plain": plainBody, "8 bits": eightBits, "mixed": mixedBody, "long": longBody()} {
		t.Run("DANE "+name, func(t *testing.T) {
			text := send(t, "bob@tls.test", "by DANE "+name, body, eight)
			got := box.same(t, "by DANE "+name, text)
			if !strings.Contains(got, "(using TLSv1.3") || !strings.Contains(got, "["+sourceAddress+"]") {
				t.Errorf("Postfix says that it came so:\n%.1000s", got)
			}
		})
		t.Run("MTA-STS "+name, func(t *testing.T) {
			text := send(t, "bob@sts.test", "by MTA-STS "+name, body, eight)
			if got := box.same(t, "by MTA-STS "+name, text); !strings.Contains(got, "(using TLSv1.3") {
				t.Errorf("Postfix says that it came so:\n%.1000s", got)
			}
		})
	}
	t.Run("a key that DANE does not name", func(t *testing.T) {
		text := send(t, "bob@wrong.test", "by a wrong key", plainBody, nil)
		eventually(t, "the first attempt", func() bool { return strings.Contains(h.story(t, "bob@wrong.test"), `"kind":"attempt"`) })
		if got := box.with(t, "by a wrong key"); len(got) != 0 {
			t.Fatalf("it was sent to a host with another key:\n%s", got)
		}
		h.zone.Remove("_" + h.port + "._tcp.mx.wrong.test")
		h.zone.Add(h.tlsaOf("mx.wrong.test", 0, tlstest.Record(3, 1, 1, leaf)))
		box.same(t, "by a wrong key", text)
		if story := h.story(t, "bob@wrong.test"); !strings.Contains(story, "DANE") && !strings.Contains(story, "dane") {
			t.Errorf("our server tells of it\n%s", story)
		}
	})
	t.Run("without extensions", func(t *testing.T) {
		text := send(t, "bob@old.test", "the old way", plainBody, nil)
		if got := box.same(t, "the old way", text); strings.Contains(got, "TLS") {
			t.Errorf("Postfix says that it came so:\n%.1000s", got)
		}
	})
	t.Run("without 8BITMIME", func(t *testing.T) {
		for name, body := range map[string]string{"8 bits": eightBits, "mixed": mixedBody} {
			text := send(t, "bob@old.test", "converted "+name, body, eight)
			got := box.one(t, "converted "+name)
			if i := strings.IndexFunc(got, func(r rune) bool { return r > 126 }); i >= 0 {
				t.Errorf("%s has 8 bits: %.200q", name, got[i:])
			}
			if got, want := decodedParts(t, got), decodedParts(t, text); !slices.Equal(got, want) {
				t.Errorf("%s says %q, and %q was sent", name, got, want)
			}
		}
	})
	t.Run("without SMTPUTF8", func(t *testing.T) {
		h.send(t, "böb@old.test", oddLetter("böb@old.test", "no way", plainBody), &smtp.MailOptions{UTF8: true})
		anns := login(t, h.Addr("imap"), h.ann, "INBOX", nil)
		if report := newest(t, anns, 2); !strings.Contains(report, "5.6.7") {
			t.Errorf("the report is\n%s", report)
		}
	})
	t.Run("SMTPUTF8", func(t *testing.T) {
		text := send(t, "böb@tls.test", "with SMTPUTF8", plainBody, &smtp.MailOptions{UTF8: true})
		if got := box.same(t, "with SMTPUTF8", text); !strings.Contains(got, "UTF8SMTPS") {
			t.Errorf("Postfix says that it came so:\n%.1000s", got)
		}
	})
	h.settled(t)
	for _, subject := range sent {
		if got := box.with(t, "Subject: "+subject+"\n"); len(got) != 1 {
			t.Errorf("%s came %d times", subject, len(got))
		}
	}
	if got := box.with(t, ""); len(got) != len(sent) {
		t.Errorf("%d messages were sent, %d came", len(sent), len(got))
	}
	if strings.Contains(p.logged(""), "improper command pipelining") {
		t.Error("Postfix saw commands too early")
	}
}

// decodedParts are the contents of a message's parts, decoded.
func decodedParts(t *testing.T, text string) (parts []string) {
	t.Helper()
	r, err := gomail.CreateReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for {
		part, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(part.Body)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, strings.ReplaceAll(string(b), "\r\n", "\n"))
	}
}

// Mail goes on to an Exim that wants to be asked twice: octet by octet as it was sent, and once.
func TestNextHopGreylisting(t *testing.T) {
	h := newNextHops(t)
	grey := newGreylist(t)
	box := h.farExim(t, grey)
	h.zone.Add("grey.test. 300 IN MX 10 mx.grey.test.", "mx.grey.test. 300 IN A "+greyAddress)
	h.start(t)
	texts := map[string]string{}
	for name, body := range map[string]string{"plain": plainBody, "8 bits": eightBits, "mixed": mixedBody, "long": longBody()} {
		to := strings.ReplaceAll(name, " ", "-") + "@grey.test"
		texts[name] = oddLetter(to, "to Exim "+name, body)
		h.send(t, to, texts[name], &smtp.MailOptions{Body: smtp.Body8BitMIME})
	}
	for name, text := range texts {
		box.same(t, "to Exim "+name, text)
	}
	h.settled(t)
	if got := box.with(t, ""); len(got) != len(texts) {
		t.Errorf("%d messages were sent, %d came", len(texts), len(got))
	}
	asked := grey.asked()
	for triplet, n := range asked {
		if n != 2 || !strings.HasPrefix(triplet, sourceAddress+" ann@one.test ") {
			t.Errorf("%s was asked for %d times", triplet, n)
		}
	}
	if story := h.story(t, "plain@grey.test"); len(asked) != len(texts) || !strings.Contains(story, "greylisted") {
		t.Errorf("%d were greylisted; the story of one is\n%s", len(asked), story)
	}
	if hits := h.zone.Asked("grey.test", 15); hits != 1 {
		t.Errorf("its mail hosts were asked for %d times", hits)
	}
}

// Mail for a domain whose mail host is this server, by an address alone, is returned and not sent round.
func TestMailThatComesBack(t *testing.T) {
	h := newNextHops(t)
	h.config.Listen.SMTP = config.Addr(h.at(tlsAddress))
	h.zone.Add("round.test. 300 IN MX 10 mx.round.test.", "mx.round.test. 300 IN A "+tlsAddress)
	h.start(t)
	if err := submit(t, h.embedded, h.ann, []string{"bob@round.test"}, oddLetter("bob@round.test", "round", plainBody)); err != nil {
		t.Fatal(err)
	}
	anns := login(t, h.Addr("imap"), h.ann, "INBOX", nil)
	if report := newest(t, anns, 2); !strings.Contains(report, "5.4.6") || !strings.Contains(report, "address of this server") {
		t.Errorf("the report is\n%s", report)
	}
}

// farDovecot starts a Dovecot that takes mail for anybody by LMTP, and returns its socket and where the Maildirs are.
func farDovecot(t *testing.T) (socket, home string) {
	t.Helper()
	needs(t, "dovecot")
	needsRoot(t)
	if _, err := os.Stat("/usr/lib/dovecot/lmtp"); err != nil {
		t.Skip("Dovecot's LMTP (Debian's dovecot-lmtpd) is not installed")
	}
	home = publicDir(t)
	const nobody = 65534
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(home, "conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, farDovecotConf, home, nobody), 0o644); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command("dovecot", "-F", "-c", conf)
	cmd.Stdout, cmd.Stderr = &said, &said
	ends(t, cmd, func() string {
		log, _ := os.ReadFile(filepath.Join(home, "log"))
		return said.String() + string(log)
	})
	socket = filepath.Join(home, "run", "lmtp")
	eventually(t, "Dovecot answering", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return socket, home
}

const farDovecotConf = `base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = lmtp
ssl = no
auth_username_format = %%Ln
mail_location = maildir:%[1]s/mail/%%n
mail_full_filesystem_access = no
lmtp_save_to_detail_mailbox = no
first_valid_uid = 0
first_valid_gid = 0
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=%[2]d gid=%[2]d home=%[1]s/home/%%n allow_all_users=yes
}
`

// Mail of a domain goes by LMTP into another store: octet by octet as it was sent, once, and to each of its recipients.
func TestNextHopDovecot(t *testing.T) {
	h := newNextHops(t)
	socket, home := farDovecot(t)
	h.config.Routes = []config.Route{{Domain: "store.test", Transport: config.TransportLMTP, Host: "unix:" + socket, TLS: config.TLSNone}}
	h.start(t)
	texts := map[string]string{}
	for name, body := range map[string]string{"plain": plainBody, "8 bits": eightBits, "mixed": mixedBody, "long": longBody()} {
		texts[name] = oddLetter("bob@store.test", "to Dovecot "+name, body)
		h.send(t, "bob@store.test", texts[name], &smtp.MailOptions{Body: smtp.Body8BitMIME})
	}
	for name, text := range texts {
		maildir(filepath.Join(home, "mail", "bob")).same(t, "to Dovecot "+name, text)
	}
	if err := submit(t, h.embedded, h.ann, []string{"cyd@store.test", "dan@store.test"}, oddLetter("all@store.test", "to two", plainBody)); err != nil {
		t.Fatal(err)
	}
	h.settled(t)
	for user, want := range map[string]int{"bob": len(texts), "cyd": 1, "dan": 1} {
		if got := maildir(filepath.Join(home, "mail", user)).with(t, ""); len(got) != want {
			t.Errorf("%s has %d messages, want %d", user, len(got), want)
		}
	}
}
