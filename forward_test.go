package postroad_test

import (
	"context"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postroad"
	"postroad/internal/control"
	"postroad/internal/dns/dnstest"
	"postroad/internal/mailauth"
)

// country has three servers that mail each other. Two forwards its mail for fwd to cy, who is at three, and for gone to
// nobody there.
type country struct {
	*dnstest.Resolver
	one, two, three *embedded
	ann, cy         postroad.Credential
}

func newCountry(t *testing.T) *country {
	c := &country{
		Resolver: &dnstest.Resolver{},
		ann:      postroad.Credential{Address: "ann@one.test", Password: "a-password"},
		cy:       postroad.Credential{Address: "cy@three.test", Password: "c-password"},
	}
	port := map[string]string{}
	options := postroad.Options{
		Resolver: c.Resolver, AllowPrivate: true,
		Dial: func(ctx context.Context, _ netip.Addr, network, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, port[host])
		},
	}
	join := func(name, ip string, user postroad.Credential) *embedded {
		s := embed(t, testConfig(t, "mx."+name), options, user)
		c.MX(name, "mx."+name)
		c.Host("mx."+name, ip)
		port[ip] = s.Addr("smtp")
		return s
	}
	c.one = join("one.test", "127.0.0.11", c.ann)
	c.two = join("two.test", "127.0.0.12", postroad.Credential{Address: "bea@two.test", Password: "b-password"})
	c.three = join("three.test", "127.0.0.13", c.cy)
	for from, to := range map[string]string{"fwd@two.test": "cy@three.test", "gone@two.test": "nobody@three.test"} {
		if _, err := c.two.Admin().AddAlias(t.Context(), control.Alias{Address: from, Targets: []string{to}}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

const hills = "From: ann@one.test\r\nTo: fwd@two.test\r\nSubject: over the hills\r\nMessage-ID: <1@one.test>\r\n" +
	"Date: Fri, 2 Jan 2026 03:04:05 +0000\r\n\r\ntext\r\n"

// What we forward leaves under an address of ours, by which reports, and nothing else, find their way back to the sender.
func TestForwardedMailAndItsWayBack(t *testing.T) {
	c := newCountry(t)
	if err := submit(t, c.one, c.ann, []string{"fwd@two.test"}, hills); err != nil {
		t.Fatal(err)
	}
	got := newest(t, login(t, c.three.Addr("imap"), c.cy, "INBOX", nil), 2)
	path := regexp.MustCompile(`^Return-Path: <(SRS0=[A-Z2-7]{6}=[A-Z2-7]{2}=one\.test=ann@two\.test)>\r\n`).FindStringSubmatch(got)
	if path == nil {
		t.Fatalf("the sender is none of ours:\n%s", got)
	}
	for _, field := range []string{"Delivered-To: fwd@two.test\r\n", "Delivered-To: cy@three.test\r\n"} {
		if strings.Count(got, field) != 1 {
			t.Errorf("not one %q in\n%s", field, got)
		}
	}

	back := path[1]
	for _, step := range []struct {
		from, to string
		code     int // 0: taken
	}{
		{"", back, 0},
		{"", strings.ToLower(back), 0},
		{"eve@three.test", back, 550},
		{"", strings.Replace(back, "ann@", "eve@", 1), 550},
		{"", "SRS0=AAAAAA=AA=three.test=cy@two.test", 550},
	} {
		err := mailAs(t, c.two, step.from, step.to, "Subject: a report\r\n\r\nfor "+step.to+"\r\n")
		e, _ := err.(*smtp.SMTPError)
		if step.code == 0 && err != nil || step.code != 0 && (e == nil || e.Code != step.code) {
			t.Errorf("from <%s> to <%s>: %v", step.from, step.to, err)
		}
	}
	report := newest(t, login(t, c.one.Addr("imap"), c.ann, "INBOX", nil), 3)
	if !strings.HasPrefix(report, "Return-Path: <>\r\n") || !strings.Contains(report, "Subject: a report") {
		t.Errorf("this came back:\n%s", report)
	}
}

// Our own report about what we could not forward goes to who has sent it, without a detour.
func TestWhatCannotBeForwardedIsReported(t *testing.T) {
	c := newCountry(t)
	if err := submit(t, c.one, c.ann, []string{"gone@two.test"}, hills); err != nil {
		t.Fatal(err)
	}
	report := newest(t, login(t, c.one.Addr("imap"), c.ann, "INBOX", nil), 2)
	for _, want := range []string{"multipart/report", "Original-Recipient: rfc822;gone@two.test", "Action: failed"} {
		if !strings.Contains(strings.ReplaceAll(report, "; ", ";"), strings.ReplaceAll(want, "; ", ";")) {
			t.Errorf("the report has no %q:\n%s", want, report)
		}
	}
}

// mailAs sends a message as another server would.
func mailAs(t *testing.T, s *embedded, from, to, text string) error {
	t.Helper()
	client, err := smtp.Dial(s.Addr("smtp"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	return client.SendMail(from, []string{to}, strings.NewReader(text))
}

// sign gives a server keys for a domain, whose records the DNS has.
func (c *country) sign(t *testing.T, s *embedded, domain string) {
	t.Helper()
	keys, err := s.Admin().AddDKIMKeys(t.Context(), control.NewDKIMKeys{Domain: domain, Algorithm: "both"})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		c.TXT(k.Name, k.Record)
	}
	if keys, err = s.Admin().CheckDKIMKeys(t.Context(), domain); err != nil || len(keys) != 2 || keys[0].State != "active" {
		t.Fatalf("%+v, %v", keys, err)
	}
}

// A message is signed where it is sent, and sealed where it is forwarded; both hold where it arrives, whatever was in it.
func TestSignedAndSealedOnTheWay(t *testing.T) {
	c := newCountry(t)
	c.sign(t, c.one, "one.test")
	c.sign(t, c.two, "two.test")
	c.TXT("one.test", "v=spf1 ip4:127.0.0.0/8 -all")
	text := strings.Replace(hills, "text\r\n", "gr\xc3\xbc\xc3\x9fe \t \r\n..\r\n.\r\n"+strings.Repeat("long ", 1000)+"\r\n\r\n\r\n", 1)
	if err := submit(t, c.one, c.ann, []string{"fwd@two.test"}, text); err != nil {
		t.Fatal(err)
	}
	got := newest(t, login(t, c.three.Addr("imap"), c.cy, "INBOX", nil), 2)
	found, err := mailauth.Verify(t.Context(), c.Resolver, time.Now(), strings.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	if len(found.DKIM) != 2 || found.ARC.Verdict != mailauth.Pass || found.ARC.Sealers[0] != "two.test" {
		t.Errorf("%+v:\n%s", found, got)
	}
	for _, d := range found.DKIM {
		if d.Verdict != mailauth.Pass || d.Domain != "one.test" {
			t.Errorf("%+v", d)
		}
	}
	for _, want := range []string{"mx.two.test;\r\n\tarc=none;", "spf=pass smtp.mailfrom=ann@one.test smtp.remote-ip=127.0.0.1;", "dkim=pass header.d=one.test"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// What is for an account that forwards, and comes back to it, is not sent round.
func TestC09ForwardsInACircle(t *testing.T) {
	c := newCountry(t)
	keep := false
	if _, err := c.three.Admin().AddForward(t.Context(), control.Forward{Account: "cy@three.test", Targets: []string{"fwd@two.test"}, Keep: &keep}); err != nil {
		t.Fatal(err)
	}
	if err := submit(t, c.one, c.ann, []string{"fwd@two.test"}, hills); err != nil {
		t.Fatal(err)
	}
	report := newest(t, login(t, c.one.Addr("imap"), c.ann, "INBOX", nil), 2)
	for _, want := range []string{"multipart/report", "5.4.6"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report has no %q:\n%s", want, report)
		}
	}
}
