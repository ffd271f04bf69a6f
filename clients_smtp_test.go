package postroad_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postroad"
	"postroad/internal/config"
)

// What sends: each client in the ways that it knows, and what arrived is held octet by octet against what was sent.

// mailHouse is a server in this process with clients' home beside it.
type mailHouse struct {
	*clientsTest
	lmtp   string
	reader map[string]*imapclient.Client // by address
}

// houseForClients starts a server for alice and bob; change may be nil. Its LMTP listener takes no TLS.
func houseForClients(t *testing.T, change func(*config.Config)) *mailHouse {
	t.Helper()
	if testing.Short() {
		t.Skip("runs real clients against the real server")
	}
	cfg := testConfig(t, "localhost")
	cfg.Listen.LMTP = "127.0.0.1:0"
	if change != nil {
		change(&cfg)
	}
	users := []postroad.Credential{{Address: "alice@example.test", Password: "wonder land"}, {Address: "bob@example.test", Password: "b0b, the \"builder\""}}
	s := embed(t, cfg, postroad.Options{}, users...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	c := &clientsTest{dir: cfg.DataDir, home: publicDir(t), process: &process{
		t: t, log: log, Data: cfg.DataDir, SMTP: s.Addr("smtp"), Submission: s.Addr("submission"), Submissions: s.Addr("submissions"),
		IMAP: s.Addr("imap"), IMAPS: s.Addr("imaps"),
	}}
	c.alice.address, c.alice.password = users[0].Address, users[0].Password
	c.bob.address, c.bob.password = users[1].Address, users[1].Password
	return &mailHouse{clientsTest: c, lmtp: s.Addr("lmtp"), reader: map[string]*imapclient.Client{}}
}

// publicDir is a test directory that programs can enter which give up their rights.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "clients")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// trustsLoopback lets proxies on this machine speak for others.
func trustsLoopback(cfg *config.Config) {
	cfg.Trust.XCLIENT = []config.Network{config.Network(netip.MustParsePrefix("127.0.0.1/32"))}
}

// letter is a message that is hard on what passes it on. It is complete: nobody has to add to it.
func letter(from, to, subject string) string {
	return strings.Join([]string{
		"From: Alice <" + from + ">",
		"To: <" + to + ">",
		"Subject: " + subject,
		"Date: Fri, 02 Jan 2026 03:04:05 +0100",
		"Message-ID: <" + strings.ReplaceAll(subject, " ", ".") + "@far.test>",
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
		"",
		".",
		"..",
		".dot at the start, and spaces at the end   ",
		"\ttab, Grüße, 日本, and From here:",
		"From here on a long line: " + strings.Repeat("0123456789", 90),
		"",
		".",
		"RSET",
		"",
		"",
	}, "\r\n")
}

// read waits until somebody has a message with the subject, and returns it as FETCH shows it.
func (h *mailHouse) read(t *testing.T, address, subject string) string {
	t.Helper()
	var found []uint32
	eventually(t, "the message "+subject+" for "+address, func() bool {
		found = h.find(t, address, subject)
		return len(found) > 0
	})
	if len(found) != 1 {
		t.Fatalf("%s has %d messages %q", address, len(found), subject)
	}
	return newest(t, h.readerOf(t, address), found[0])
}

// find returns the numbers of somebody's messages with words in their subject.
func (h *mailHouse) find(t *testing.T, address, subject string) []uint32 {
	t.Helper()
	client := h.readerOf(t, address)
	if err := client.Noop().Wait(); err != nil {
		t.Fatal(err)
	}
	criteria := imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: subject}}}
	data, err := client.Search(&criteria, nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	return data.AllSeqNums()
}

// readerOf is a session with somebody's INBOX selected.
func (h *mailHouse) readerOf(t *testing.T, address string) *imapclient.Client {
	t.Helper()
	if h.reader[address] == nil {
		password := h.alice.password
		if address == h.bob.address {
			password = h.bob.password
		}
		h.reader[address] = login(h.t, h.IMAP, postroad.Credential{Address: address, Password: password}, "INBOX", nil)
	}
	return h.reader[address]
}

// same waits for bob's message and holds it against what was sent. Before that may only stand trace fields; ours is the
// first Received, and says each of the words.
func (h *mailHouse) same(t *testing.T, subject, sent string, words ...string) {
	t.Helper()
	got := h.read(t, h.bob.address, subject)
	trace, ok := strings.CutSuffix(got, sent)
	if !ok {
		t.Errorf("%s: what arrived does not end in what was sent, but in\n%q", subject, got[max(0, len(got)-len(sent)-100):])
		return
	}
	var received []string
	for _, field := range fieldsIn(trace) {
		switch name, body, _ := strings.Cut(field, ":"); name {
		case "Received":
			received = append(received, body)
		case "Return-Path", "Delivered-To":
		default:
			t.Errorf("%s: before the message stands %q", subject, field)
		}
	}
	if len(received) == 0 {
		t.Fatalf("%s: no Received field in %q", subject, trace)
	}
	for _, word := range words {
		if !strings.Contains(received[0], word) {
			t.Errorf("%s: %q does not say %q", subject, received[0], word)
		}
	}
}

// fieldsIn parts a header, folded fields as they are.
func fieldsIn(header string) (fields []string) {
	for line := range strings.Lines(header) {
		if (line[0] == ' ' || line[0] == '\t') && len(fields) > 0 {
			fields[len(fields)-1] += line
			continue
		}
		fields = append(fields, line)
	}
	return fields
}

// A dispatch is one way of sending.
type dispatch struct {
	name string
	args []string
	says []string // words of our Received field
}

func TestSwaksSends(t *testing.T) {
	h := houseForClients(t, trustsLoopback)
	auth := func(mechanism string) []string {
		return []string{"--auth", mechanism, "--auth-user", h.alice.address, "--auth-password", h.alice.password}
	}
	at := func(addr string, args ...string) []string {
		return append([]string{"--server", "127.0.0.1", "--port", port(addr)}, args...)
	}
	for _, w := range []dispatch{
		{"in the clear", at(h.SMTP), []string{"with ESMTP id"}},
		{"pipelined", at(h.SMTP, "--pipeline"), []string{"with ESMTP id"}},
		{"HELO", at(h.SMTP, "--protocol", "SMTP"), []string{"with SMTP id"}},
		{"STARTTLS pipelined", at(h.SMTP, "--tls", "--pipeline", "--tls-verify", "--tls-ca-path", h.cert()), []string{"with ESMTPS id", "TLS1.3"}},
		{"TLS 1.2", at(h.SMTP, "--tls", "--tls-protocol", "tlsv1_2"), []string{"with ESMTPS id", "TLS1.2"}},
		{"PLAIN", append(at(h.Submission, "--tls"), auth("PLAIN")...), []string{"with ESMTPSA id"}},
		{"LOGIN", append(at(h.Submission, "--tls"), auth("LOGIN")...), []string{"with ESMTPSA id"}},
		{"implicit TLS PLAIN pipelined", append(at(h.Submissions, "--tls-on-connect", "--pipeline"), auth("PLAIN")...), []string{"with ESMTPSA id"}},
		{"LMTP", at(h.lmtp, "--protocol", "LMTP"), []string{"with LMTP id"}},
		{"XCLIENT", at(h.SMTP, "--xclient", "ADDR=192.0.2.9 NAME=client.far.test HELO=helo.far.test"),
			[]string{"(client.far.test [192.0.2.9])", "with ESMTP id"}},
	} {
		t.Run(w.name, func(t *testing.T) {
			subject := "by swaks " + w.name
			text := letter(h.alice.address, h.bob.address, subject)
			file := h.file(t, "letter", strings.TrimSuffix(text, "\r\n")) // swaks ends the last line
			h.run(t, "", "swaks", append([]string{"--from", h.alice.address, "--to", h.bob.address, "--ehlo", "client.test", "--data", "@" + file, "--suppress-data"}, w.args...)...)
			h.same(t, subject, text, w.says...)
		})
	}
}

func TestCurlSends(t *testing.T) {
	h := houseForClients(t, nil)
	login := []string{"--user", h.alice.address + ":" + h.alice.password}
	for _, w := range []dispatch{
		{"in the clear", []string{"smtp://" + h.SMTP + "/client.test"}, []string{"from client.test", "with ESMTP id"}},
		{"STARTTLS", []string{"--ssl-reqd", "smtp://localhost:" + port(h.SMTP) + "/client.test"}, []string{"with ESMTPS id"}},
		{"PLAIN", append(login, "--ssl-reqd", "--login-options", "AUTH=PLAIN", "smtp://"+h.Submission), []string{"with ESMTPSA id"}},
		{"LOGIN", append(login, "--ssl-reqd", "--login-options", "AUTH=LOGIN", "smtp://"+h.Submission), []string{"with ESMTPSA id"}},
		{"initial response", append(login, "--ssl-reqd", "--sasl-ir", "smtp://"+h.Submission), []string{"with ESMTPSA id"}},
		{"implicit TLS", append(login, "smtps://"+h.Submissions), []string{"with ESMTPSA id"}},
	} {
		t.Run(w.name, func(t *testing.T) {
			subject := "by curl " + w.name
			text := letter(h.alice.address, h.bob.address, subject)
			file := h.file(t, "letter", text)
			h.run(t, "", "curl", append([]string{"-sS", "--cacert", h.cert(), "--mail-from", h.alice.address, "--mail-rcpt", h.bob.address, "-T", file}, w.args...)...)
			h.same(t, subject, text, w.says...)
		})
	}
	t.Run("a recipient refused", func(t *testing.T) {
		subject := "by curl to two"
		text := letter(h.alice.address, h.bob.address, subject)
		h.run(t, "", "curl", "-sS", "--mail-rcpt-allowfails", "--mail-from", h.alice.address, "--mail-rcpt", "nobody@example.test",
			"--mail-rcpt", h.bob.address, "-T", h.file(t, "letter", text), "smtp://"+h.SMTP)
		h.same(t, subject, text)
	})
}

func TestMsmtpSends(t *testing.T) {
	h := houseForClients(t, nil)
	account := func(addr, tls, auth string) string {
		rc := fmt.Sprintf("account a\nhost localhost\nport %s\nfrom %s\nset_date_header off\nset_msgid_header off\ndomain client.test\n%s\ntls_trust_file %s\n",
			port(addr), h.alice.address, tls, h.cert())
		if auth != "off" {
			rc += fmt.Sprintf("user %s\npassword %q\n", h.alice.address, h.alice.password)
		}
		return rc + "auth " + auth + "\n"
	}
	const starttls, implicit = "tls on\ntls_starttls on", "tls on\ntls_starttls off"
	for _, w := range []struct{ name, rc, says string }{
		{"in the clear", account(h.SMTP, "tls off", "off"), "with ESMTP id"},
		{"STARTTLS", account(h.SMTP, starttls, "off"), "with ESMTPS id"},
		{"PLAIN", account(h.Submission, starttls, "plain"), "with ESMTPSA id"},
		{"LOGIN", account(h.Submission, starttls, "login"), "with ESMTPSA id"},
		{"SCRAM-SHA-256", account(h.Submission, starttls, "scram-sha-256"), "with ESMTPSA id"},
		{"implicit TLS SCRAM-SHA-256", account(h.Submissions, implicit, "scram-sha-256"), "with ESMTPSA id"},
		{"LMTP", account(h.lmtp, "tls off", "off") + "protocol lmtp\n", "with LMTP id"},
	} {
		t.Run(w.name, func(t *testing.T) {
			subject := "by msmtp " + w.name
			text := letter(h.alice.address, h.bob.address, subject)
			h.run(t, text, "msmtp", "-C", h.file(t, "msmtprc", w.rc), "-a", "a", h.bob.address)
			h.same(t, subject, text, w.says)
		})
	}
}

func TestSmtplibSends(t *testing.T) {
	h := houseForClients(t, nil)
	letters := map[string]string{}
	for _, way := range []string{"clear", "starttls", "PLAIN", "LOGIN", "implicit", "LMTP", "utf8"} {
		letters[way] = letter(h.alice.address, h.bob.address, "by smtplib "+way)
		h.file(t, way+".eml", letters[way])
	}
	out := h.run(t, "", "python3", "-I", abs(t, "testdata/clients/send.py"), port(h.SMTP), port(h.Submission), port(h.Submissions), port(h.lmtp),
		h.cert(), h.alice.address, h.alice.password, h.bob.address)
	if !strings.HasSuffix(out, "ok\n") {
		t.Fatalf("the script said\n%s", out)
	}
	for way, says := range map[string]string{
		"clear": "with ESMTP id", "starttls": "with ESMTPS id", "PLAIN": "with ESMTPSA id", "LOGIN": "with ESMTPSA id",
		"implicit": "with ESMTPSA id", "LMTP": "with LMTP id", "utf8": "with UTF8SMTP id",
	} {
		h.same(t, "by smtplib "+way, letters[way], says)
	}
	if report := h.read(t, h.alice.address, "was delivered"); !strings.Contains(report, "ENV+1") && !strings.Contains(report, "ENV-1") {
		t.Errorf("the report on delivery does not name the envelope:\n%s", report)
	}
}
