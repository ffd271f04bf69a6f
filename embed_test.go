package postroad_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postroad"
	"postroad/internal/config"
	"postroad/internal/control"
	"postroad/internal/dns/dnstest"
)

// embedded is a server in this process.
type embedded struct {
	*postroad.Server
	users []postroad.Credential
	stop  func()
}

// testConfig listens on free ports of loopback, with its data in a test directory.
func testConfig(t testing.TB, hostname string) config.Config {
	cfg := config.Default()
	cfg.Hostname = hostname
	cfg.DataDir = t.TempDir()
	cfg.Listen = config.Listen{
		SMTP: "127.0.0.1:0", Submission: "127.0.0.1:0", Submissions: "127.0.0.1:0",
		IMAP: "127.0.0.1:0", IMAPS: "127.0.0.1:0", LMTP: config.Off,
	}
	return cfg
}

// embed starts a server with the given accounts; it is stopped when the test ends.
func embed(t testing.TB, cfg config.Config, o postroad.Options, users ...postroad.Credential) *embedded {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, users, err := postroad.OpenQuickstart(postroad.QuickstartOptions{Config: cfg, Options: o, Users: users})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	e := &embedded{Server: s, users: users, stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s did not stop cleanly: %v", cfg.Hostname, err)
		}
	}}
	t.Cleanup(e.stop)
	return e
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// login opens an IMAP session with a mailbox selected.
func login(t testing.TB, addr string, c postroad.Credential, mailbox string, o *imapclient.Options) *imapclient.Client {
	t.Helper()
	client, err := imapclient.DialInsecure(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if err := client.Login(c.Address, c.Password).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Select(mailbox, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	return client
}

// newest waits until the selected mailbox has n messages, and returns the last one's text.
func newest(t testing.TB, client *imapclient.Client, n uint32) string {
	t.Helper()
	eventually(t, fmt.Sprintf("message %d in the mailbox", n), func() bool {
		if err := client.Noop().Wait(); err != nil {
			t.Fatal(err)
		}
		return client.Mailbox().NumMessages >= n
	})
	var set imap.SeqSet
	set.AddNum(n)
	section := &imap.FetchItemBodySection{Peek: true}
	msgs, err := client.Fetch(set, &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil || len(msgs) != 1 {
		t.Fatalf("fetch: %d messages, %v", len(msgs), err)
	}
	return string(msgs[0].FindBodySection(section))
}

// submit sends a message through the submission listener of a server.
func submit(t testing.TB, s *embedded, from postroad.Credential, to []string, text string) error {
	t.Helper()
	client, err := smtp.Dial(s.Addr("submission"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Auth(sasl.NewPlainClient("", from.Address, from.Password)); err != nil {
		return err
	}
	return client.SendMail(from.Address, to, strings.NewReader(text))
}

// Two servers in one process mail each other over SMTP, and a failure comes back.
func TestTwoServersInOneProcess(t *testing.T) {
	zone := &dnstest.Resolver{}
	var dialer net.Dialer
	port := map[string]string{} // where the mail exchanger of each domain really listens
	options := postroad.Options{
		Resolver: zone, AllowPrivate: true,
		Dial: func(ctx context.Context, _ netip.Addr, network, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return dialer.DialContext(ctx, network, port[host])
		},
	}
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	ben := postroad.Credential{Address: "ben@two.test", Password: "b-password"}
	one := embed(t, testConfig(t, "mx.one.test"), options, ann)
	two := embed(t, testConfig(t, "mx.two.test"), options, ben)
	zone.MX("one.test", "mx.one.test")
	zone.Host("mx.one.test", "127.0.0.11")
	zone.MX("two.test", "mx.two.test")
	zone.Host("mx.two.test", "127.0.0.12")
	port["127.0.0.11"], port["127.0.0.12"] = one.Addr("smtp"), two.Addr("smtp")

	body := "From: ann@one.test\r\nTo: ben@two.test\r\nSubject: over the wire\r\nMessage-ID: <1@one.test>\r\nDate: Fri, 2 Jan 2026 03:04:05 +0000\r\n\r\n.a line that begins with a dot\r\n"
	if err := submit(t, one, ann, []string{ben.Address}, body); err != nil {
		t.Fatal(err)
	}
	bens := login(t, two.Addr("imap"), ben, "INBOX", nil)
	got := newest(t, bens, 2)
	if !strings.HasSuffix(got, body) {
		t.Errorf("the message came out changed:\n%s", got)
	}
	if n := strings.Count(got, "Return-Path: "); n != 1 || !strings.HasPrefix(got, "Return-Path: <ann@one.test>\r\n") {
		t.Errorf("%d Return-Path fields in\n%s", n, got)
	}
	if n := strings.Count(got, "\nReceived: "); n != 2 {
		t.Errorf("%d Received fields, want one of each server:\n%s", n, got)
	}

	if err := submit(t, two, ben, []string{"nobody@one.test"}, strings.ReplaceAll(body, "ann@one", "ben@two")); err != nil {
		t.Fatal(err)
	}
	report := newest(t, bens, 3)
	for _, want := range []string{"Return-Path: <>\r\n", "multipart/report", "Final-Recipient: rfc822; nobody@one.test", "Action: failed", "5.1.1"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report has no %q:\n%s", want, report)
		}
	}
}

// A mailbox that holds all it may takes no more mail until there is room again.
func TestQuotaRefusesMail(t *testing.T) {
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	s := embed(t, testConfig(t, "mx.one.test"), postroad.Options{}, ann)
	send := func() error { return submit(t, s, ann, []string{ann.Address}, "From: ann@one.test\r\n\r\nx\r\n") }
	quota := func(octets int64) {
		if _, err := s.Admin().SetAccount(t.Context(), control.SetAccount{Address: ann.Address, Quota: &octets}); err != nil {
			t.Fatal(err)
		}
	}
	quota(10) // the welcome is more than that
	if err := send(); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("over quota: %v", err)
	}
	for _, octets := range []int64{1 << 20, 0} {
		quota(octets)
		if err := send(); err != nil {
			t.Errorf("with a quota of %d: %v", octets, err)
		}
	}
}

// What a message is declared to be is held against what is left of the quota, where it was declared.
func TestQuotaIsHeldAgainstTheDeclaredSize(t *testing.T) {
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	s := embed(t, testConfig(t, "mx.one.test"), postroad.Options{}, ann)
	octets := int64(1 << 20)
	if _, err := s.Admin().SetAccount(t.Context(), control.SetAccount{Address: ann.Address, Quota: &octets}); err != nil {
		t.Fatal(err)
	}
	c, err := smtp.Dial(s.Addr("smtp"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, x := range []struct {
		size int64
		ok   bool
	}{{0, true}, {octets / 2, true}, {octets, false}, {octets + 1, false}} { // the welcome is there
		if err := c.Mail("x@far.test", &smtp.MailOptions{Size: x.size}); err != nil {
			t.Fatal(err)
		}
		if err := c.Rcpt(ann.Address, nil); (err == nil) != x.ok {
			t.Errorf("%d octets declared: %v", x.size, err)
		}
		if err := c.Reset(); err != nil {
			t.Fatal(err)
		}
	}
}

// A mailbox that holds as many messages as it may takes no more either.
func TestMessageQuotaRefusesMail(t *testing.T) {
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	s := embed(t, testConfig(t, "mx.one.test"), postroad.Options{}, ann)
	send := func() error { return submit(t, s, ann, []string{ann.Address}, "From: ann@one.test\r\n\r\nx\r\n") }
	for _, step := range []struct {
		messages int64
		full     bool
	}{{1, true}, {2, false}, {0, false}} { // the welcome is one
		if _, err := s.Admin().SetAccount(t.Context(), control.SetAccount{Address: ann.Address, MaxMessages: &step.messages}); err != nil {
			t.Fatal(err)
		}
		if err := send(); (err != nil) != step.full || err != nil && !strings.Contains(err.Error(), "full") {
			t.Errorf("with at most %d messages: %v", step.messages, err)
		}
	}
}

// Who is logged in to an account that is disabled, removed, or gets another password, is not any more.
func TestSessionsEndWithTheirAccount(t *testing.T) {
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	bob := postroad.Credential{Address: "bob@one.test", Password: "b-password"}
	s := embed(t, testConfig(t, "mx.one.test"), postroad.Options{}, ann, bob)
	ctx := t.Context()
	admin := s.Admin()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"a new password", func() error { return admin.SetPassword(ctx, control.Credential(ann)) }},
		{"disabled", func() error { return admin.SetDisabled(ctx, control.SetDisabled{Address: ann.Address, Disabled: true}) }},
		{"removed", func() error { return admin.RemoveAccount(ctx, ann.Address) }},
	} {
		if err := admin.SetDisabled(ctx, control.SetDisabled{Address: ann.Address}); err != nil {
			t.Fatal(err)
		}
		hers, his := submission(t, s, ann), submission(t, s, bob)
		mail := login(t, s.Addr("imap"), ann, "INBOX", nil)
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		eventually(t, step.name+": she can send no more", func() bool { return hers.Noop() != nil })
		eventually(t, step.name+": she can read no more", func() bool { return mail.Noop().Wait() != nil })
		if err := his.Mail(bob.Address, nil); err != nil {
			t.Errorf("%s: he may not send any more: %v", step.name, err)
		}
	}
}

// submission is a session in which somebody is logged in to send.
func submission(t testing.TB, s *embedded, who postroad.Credential) *smtp.Client {
	t.Helper()
	client, err := smtp.Dial(s.Addr("submission"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if err := client.Auth(sasl.NewPlainClient("", who.Address, who.Password)); err != nil {
		t.Fatal(err)
	}
	return client
}

// New mail is told to an idle session whichever way it came.
func TestIdleHearsOfMailFromAnyListener(t *testing.T) {
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	s := embed(t, testConfig(t, "mx.one.test"), postroad.Options{}, ann)
	exists := make(chan uint32, 10)
	client := login(t, s.Addr("imap"), ann, "INBOX", &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(d *imapclient.UnilateralDataMailbox) {
			if d.NumMessages != nil {
				exists <- *d.NumMessages
			}
		},
	}})
	idle, err := client.Idle()
	if err != nil {
		t.Fatal(err)
	}
	text := "Subject: x\r\nFrom: ann@one.test\r\n\r\nx\r\n"
	want := uint32(2)
	for name, send := range map[string]func() error{
		"smtp": func() error {
			client, err := smtp.Dial(s.Addr("smtp"))
			if err != nil {
				return err
			}
			defer client.Close()
			return client.SendMail("x@far.test", []string{ann.Address}, strings.NewReader(text))
		},
		"submission": func() error { return submit(t, s, ann, []string{ann.Address}, text) },
		"imap": func() error {
			other := login(t, s.Addr("imap"), ann, "Drafts", nil)
			cmd := other.Append("INBOX", int64(len(text)), nil)
			if _, err := io.WriteString(cmd, text); err != nil {
				return err
			}
			if err := cmd.Close(); err != nil {
				return err
			}
			_, err := cmd.Wait()
			return err
		},
	} {
		if err := send(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		select {
		case n := <-exists:
			if n != want {
				t.Errorf("%s: EXISTS %d, want %d", name, n, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: IDLE heard nothing in a minute", name)
		}
		want++
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestASecondServerOnOneDirectoryIsRefused(t *testing.T) {
	cfg := testConfig(t, "mx.one.test")
	embed(t, cfg, postroad.Options{})
	if s, err := postroad.Open(cfg, postroad.Options{}); err == nil {
		s.Close()
		t.Error("two servers have one data directory open")
	}
}

// A password that was changed by other means is not set back, and is not shown.
func TestQuickstartKeepsAChangedPassword(t *testing.T) {
	cfg := testConfig(t, "localhost")
	first := embed(t, cfg, postroad.Options{}, postroad.Credential{Address: "ann@one.test", Password: "old"})
	if err := first.Admin().SetPassword(t.Context(), control.Credential{Address: "ann@one.test", Password: "new"}); err != nil {
		t.Fatal(err)
	}
	first.stop()
	second := embed(t, cfg, postroad.Options{})
	if len(second.users) != 1 || second.users[0] != (postroad.Credential{Address: "ann@one.test"}) {
		t.Errorf("the second start has %d accounts, the first: %q", len(second.users), second.users[0].Address)
	}
	login(t, second.Addr("imap"), postroad.Credential{Address: "ann@one.test", Password: "new"}, "INBOX", nil)
}

// What quickstart makes stays as it is when it is started again.
func TestQuickstartTwice(t *testing.T) {
	cfg := testConfig(t, "localhost")
	first := embed(t, cfg, postroad.Options{})
	first.stop()
	second := embed(t, cfg, postroad.Options{})
	if fmt.Sprint(first.users) != fmt.Sprint(second.users) || len(first.users) != 2 {
		t.Errorf("accounts changed from %d to %d, or their passwords did", len(first.users), len(second.users))
	}
	for _, u := range second.users {
		client := login(t, second.Addr("imap"), u, "INBOX", nil)
		status, err := client.Status("INBOX", &imap.StatusOptions{NumMessages: true}).Wait()
		if err != nil || *status.NumMessages != 1 {
			t.Errorf("%s: %v messages, %v; want the one welcome", u.Address, status.NumMessages, err)
		}
	}
}

// The settings of a server for its own users reach them.
func TestSubmissionSettings(t *testing.T) {
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	cfg := testConfig(t, "mx.one.test")
	cfg.Submission = config.Submission{SaveSent: true, DailyMessages: 1}
	cfg.IMAP.AdminContact = "mailto:root@one.test"
	text := "Subject: x\r\nFrom: ann@one.test\r\n\r\nx\r\n"
	s := embed(t, cfg, postroad.Options{}, ann)
	if err := submit(t, s, ann, []string{ann.Address}, text); err != nil {
		t.Fatal(err)
	}
	client := login(t, s.Addr("imap"), ann, "Sent", nil)
	if got := newest(t, client, 1); !strings.Contains(got, "Received: from localhost ([127.0.0.1])") || !strings.HasSuffix(got, text) {
		t.Errorf("in Sent there is\n%s", got)
	}
	if err := submit(t, s, ann, []string{ann.Address}, text); err == nil || !strings.Contains(err.Error(), "sent 1 messages today") {
		t.Errorf("the second message of the day: %v", err)
	}
	if got := adminContact(t, client); got != "mailto:root@one.test" {
		t.Errorf("the administrator is at %q", got)
	}
	s.stop()

	cfg.Submission, cfg.IMAP = config.Default().Submission, config.IMAP{}
	s = embed(t, cfg, postroad.Options{}, ann)
	if err := submit(t, s, ann, []string{ann.Address}, text); err != nil {
		t.Fatal(err)
	}
	client = login(t, s.Addr("imap"), ann, "INBOX", nil)
	if got := newest(t, client, 3); !strings.Contains(got, "Received: from client.invalid\r\n") {
		t.Errorf("where she is is told to all\n%s", got)
	}
	if got := adminContact(t, client); got != "" {
		t.Errorf("the administrator is still at %q", got)
	}
}

// adminContact asks for the server's annotation /shared/admin (RFC 5464, 6.2.1).
func adminContact(t *testing.T, client *imapclient.Client) string {
	t.Helper()
	data, err := client.GetMetadata("", []string{"/shared/admin"}, nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	if v := data.Entries["/shared/admin"]; v != nil {
		return string(*v)
	}
	return ""
}

// A certificate that has expired is told of by the status, as nobody else may look.
func TestStatusTellsOfExpiredCertificates(t *testing.T) {
	var passed atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
	s := embed(t, testConfig(t, "mx.one.test"), postroad.Options{Now: now})
	for _, step := range []struct {
		passed time.Duration
		want   int
	}{{0, 0}, {100 * 365 * 24 * time.Hour, 1}} {
		passed.Store(int64(step.passed))
		got, err := s.Admin().Status(t.Context())
		if err != nil || len(got.Troubled) != step.want || step.want > 0 && got.Troubled[0].Trouble != "it has expired" {
			t.Errorf("after %v: %+v, %v", step.passed, got.Troubled, err)
		}
	}
}
