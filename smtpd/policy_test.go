package smtpd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/store"
)

func TestRecipients(t *testing.T) {
	tests := []struct{ rcpt, want string }{
		{"<alice@example.test>", "250 2.1.5"},
		{"<ALICE@Example.TEST>", "250 2.1.5"},
		{`<"alice"@example.test>`, "250 2.1.5"},
		{"<both@example.test>", "250 2.1.5"},
		{"<away@example.test>", "250 2.1.5"},
		{"<postmaster@example.test>", "250 2.1.5"},
		{"<@relay.test:alice@example.test>", "250 2.1.5"},
		{"<nobody@example.test>", "550 5.1.1"},
		{"<loop@example.test>", "550 5.4.6"},
		{"<user@elsewhere.test>", "550 5.7.1"},
		{"<a..b@example.test>", "501 5.1.3"},
		{"<jörg@example.test>", "553 5.6.7"},
		{"<user@exämple.test>", "553 5.6.7"},
		{"<alice@>", "501"},
		{"<>", "501"},
		{"alice@example.test x=y", "555 5.5.4"},
		{"<alice@example.test> NOTIFY=NEVER,DELAY", "501 5.5.4"},
		{"<alice@example.test> NOTIFY=", "501 5.5.4"},
		{"<alice@example.test> ORCPT=rfc822;a+0D+0Ab", "501 5.5.4"},
		{"<alice@example.test> ORCPT=rfc822;a+00", "501 5.5.4"},
		{"<" + strings.Repeat("a", 65) + "@example.test>", "501 5.1.3"},
		{"<" + strings.Repeat("a", 1500) + "@example.test>", "501 5.1.3"},
		{"<" + strings.Repeat("a", 10000) + "@example.test>", "500 5.5.6"},
		{"<alice@" + strings.Repeat("a.", 150) + "test>", "501 5.1.3"},
	}
	h := open(t, MX, false, limits(func(l *Limits) { l.Errors = 1000 }))
	for _, test := range tests {
		c := h.dial(t)
		c.talk(hello + "> MAIL FROM:<>\n< 250\n> RCPT TO:" + test.rcpt)
		if got, _ := c.reply(); !strings.HasPrefix(got, test.want) {
			t.Errorf("RCPT TO:%.60s: %q, want %s", test.rcpt, got, test.want)
		}
	}
}

// TestFullMailboxes: mail is refused while there is no room for it, unless somebody
// else that the address leads to takes it.
func TestFullMailboxes(t *testing.T) {
	alice := town["alice@example.test"][0].Account
	var broken atomic.Bool
	h := open(t, MX, false, func(c *Config) {
		c.Room = func(id account.ID, _ int64) (bool, error) {
			if broken.Load() {
				return false, errors.New("broken")
			}
			return id != alice, nil
		}
	})
	c := h.dial(t)
	c.talk(hello + `
		> MAIL FROM:<x@far.test>
		< 250
		> RCPT TO:<alice@example.test>
		< 452 4.2.2
		> RCPT TO:<bob@example.test>
		< 250
		> RCPT TO:<both@example.test>
		< 250
		> RCPT TO:<away@example.test>
		< 250`)
	broken.Store(true)
	c.talk(`
		> RCPT TO:<alice@example.test>
		< 451 4.3.0`)
}

func TestSenders(t *testing.T) {
	tests := []struct{ mail, want string }{
		{"<a@far.test>", "250 2.1.0"},
		{"<>", "250 2.1.0"},
		{"<@relay.test:a@far.test>", "250 2.1.0"},
		{"<a@far.test> BODY=8BITMIME SIZE=1000", "250"},
		{"<a@far.test> RET=HDRS ENVID=abc+2Bd", "250"},
		{"<jörg@far.test> SMTPUTF8", "250"},
		{"<jörg@far.test>", "550 5.6.7"},
		{"<\xff@far.test> SMTPUTF8", "500 5.5.2"},
		{"<a\x01b@far.test>", "500 5.5.2"},
		{"<a@far.test\x0b>", "500 5.5.2"},
		{"<a@b@far.test>", "501 5.1.7"},
		{"<a@far..test>", "501 5.1.7"},
		{"<a@far.test> BODY=BINARYMIME", "250 2.1.0"},
		{"<a@far.test> BODY=9BIT", "501 5.5.4"},
		{"<a@far.test> FOO=BAR", "555 5.5.4"},
		{"<a@far.test> ENVID=a+00b", "501 5.5.4"},
		{"<a@far.test> ENVID=a+0D+0Ab", "501 5.5.4"},
		{"a@far.test", "250"},
		{"<a@far.test", "501 5.5.4"},
	}
	h := open(t, MX, false)
	for _, test := range tests {
		c := h.dial(t)
		c.talk(hello + "> MAIL FROM:" + test.mail)
		if got, _ := c.reply(); !strings.HasPrefix(got, test.want) {
			t.Errorf("MAIL FROM:%s: %q, want %s", test.mail, got, test.want)
		}
		if strings.ContainsAny(h.log.String(), "\x00\x01\x0b\x1b") || !utf8.ValidString(h.log.String()) {
			t.Fatalf("the log has control octets:\n%q", h.log)
		}
	}
}

func TestHello(t *testing.T) {
	h := open(t, MX, false)
	for helo, want := range map[string]string{
		"client.test": "250", "[192.0.2.1]": "250", "[IPv6:::1]": "250", "localhost": "250", "DESKTOP_1": "250", "müller.test": "501 ",
		"a\x00b": "500 5.5.2", "a\x1b[0m": "500 5.5.2", "(a)": "501 ", "<a>": "501 ", "a;b": "501 ",
		"a\rReceived:": "500 5.5.2", string([]byte{0xff}): "500 5.5.2", strings.Repeat("a", 256): "501 ",
	} {
		for _, word := range []string{"EHLO", "HELO"} {
			c := h.dial(t)
			c.talk("< 220\n> " + word + " " + helo)
			c.expect(want)
		}
	}
	c := h.dial(t)
	c.talk("< 220\n> EHLO\n< 501\n> HELO\n< 501")
	c = h.dial(t)
	c.talk(hello + "> MAIL FROM:<>\n< 250\n> EHLO (bad)\n< 501\n> RCPT TO:<alice@example.test>\n< 250")
	c = h.dial(t)
	c.talk("< 220\n> LHLO x\n< 500\n> MAIL FROM:<>\n< 503\n> VRFY alice\n< 252 2.0.0\n> EXPN x\n< 502\n> RSET\n< 250")
}

func TestSequence(t *testing.T) {
	h := open(t, MX, false)
	h.dial(t).talk(hello + `
		> RCPT TO:<alice@example.test>
		< 503 5.5.1
		> DATA
		< 503 5.5.1
		> MAIL FROM:<a@far.test>
		< 250
		> MAIL FROM:<b@far.test>
		< 503 5.5.1
		> DATA
		< 503 5.5.1
		> RCPT TO:<alice@example.test>
		< 250
		> RSET
		< 250
		> DATA
		< 503
		> MAIL FROM:<c@far.test>
		< 250
		> RCPT TO:<bob@example.test>
		< 250
		> DATA
		< 354
		> .
		< 250
		> DATA
		< 503
		> MAIL FROM:<d@far.test>
		< 250
		> RCPT TO:<bob@example.test>
		< 250
		> EHLO again.test
		< 250
		> RCPT TO:<bob@example.test>
		< 503
		> QUIT
		< 221`)
	got := h.queue.messages()
	if len(got) != 1 || got[0].Envelope.From.String() != "c@far.test" || len(got[0].rcpts) != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestEnvelopeReachesTheSpool(t *testing.T) {
	h := open(t, MX, false)
	h.dial(t).talk(hello + `
		> MAIL FROM:<"odd one"@far.test> BODY=8BITMIME RET=HDRS ENVID=id+2B1 SMTPUTF8
		< 250
		> RCPT TO:<both@example.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;First@old.test
		< 250
		> RCPT TO:<info@example.test>
		< 250
		> RCPT TO:<away@example.test>
		< 250
		> RCPT TO:<Bob@example.test>
		< 250
		> RCPT TO:<jörg@example.test>
		< 250
		> DATA
		< 354
		> Message-ID: <m@far.test>
		>
		> .
		< 250`)
	m := h.queue.messages()[0]
	wantEnvelope := envelope.Envelope{From: envelope.Address{Local: "odd one", Domain: "far.test"}, Body: envelope.Body8Bit, UTF8: true, Return: envelope.ReturnHeaders, ID: "id+1"}
	if m.Envelope != wantEnvelope || m.MessageID != "<m@far.test>" || !m.Arrived.Equal(clock()) {
		t.Errorf("message %+v", m.Message)
	}
	if m.Origin.Protocol != "UTF8SMTP" || m.Origin.Helo != "client.test" || m.Origin.Peer != "127.0.0.1" || m.Origin.TLS != "" {
		t.Errorf("origin %+v", m.Origin)
	}
	var got []string
	for _, r := range m.rcpts {
		got = append(got, fmt.Sprint(r.To, " ", r.Account, " ", r.Original, " ", r.Notify, " ", r.Expanded))
	}
	want := []string{
		"both@example.test 0 rfc822;First@old.test SUCCESS true",
		"alice@example.test 1 rfc822;First@old.test DELAY false",
		"bob@example.test 2 rfc822;First@old.test DELAY false",
		"someone@elsewhere.test 0 rfc822;away@example.test  false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("recipients\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	body := h.queue.body(t, m)
	if !strings.HasPrefix(body, "Return-Path: <\"odd one\"@far.test>\r\nReceived: ") || strings.Contains(body, "\tfor ") {
		t.Errorf("stored\n%s", body)
	}
}

func TestSubmissionRules(t *testing.T) {
	tests := []struct{ name, script string }{
		{"own address", "> MAIL FROM:<alice@example.test>\n< 250"},
		{"own alias", "> MAIL FROM:<info@example.test>\n< 250"},
		{"null", "> MAIL FROM:<>\n< 250"},
		{"another's", "> MAIL FROM:<bob@example.test>\n< 550 5.7.1"},
		{"nobody's", "> MAIL FROM:<nobody@example.test>\n< 550 5.7.1"},
		{"foreign", "> MAIL FROM:<alice@elsewhere.test>\n< 550 5.7.1"},
		{"to a foreign address", "> MAIL FROM:<alice@example.test>\n< 250\n> RCPT TO:<x@elsewhere.test>\n< 250"},
		{"to an unknown one of ours", "> MAIL FROM:<alice@example.test>\n< 250\n> RCPT TO:<nobody@example.test>\n< 550 5.1.1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			open(t, Submission, false).dial(t).talk(loggedIn + test.script)
		})
	}
}

const submitted = loggedInAlice + `
	> MAIL FROM:<alice@example.test>
	< 250
	> RCPT TO:<x@elsewhere.test>
	< 250
	> DATA
	< 354
	`

const loggedInAlice = hello + "> AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABzZWNyZXQ=\n< 235\n"

func TestSubmittedHeaders(t *testing.T) {
	const own = "From: Alice <alice@example.test>\r\n"
	const whole = own + "Date: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: <given@example.test>\r\n"
	long := "X-Long: " + strings.Repeat("x", 70) + "\r\n"
	tests := []struct {
		name, header, want string
		added              string // fields, of those that we may add
	}{
		{"whole", whole, "250", ""},
		{"without Date and Message-ID", own, "250", "Date Message-ID"},
		{"without Message-ID", own + "DATE: x\r\n", "250", "Message-ID"},
		{"folded names", own + "date : x\r\nMessage-Id:\r\n <a@b.test>\r\n", "250", ""},
		{"own alias", "From: info@example.test\r\n", "250", "Date Message-ID"},
		{"two own", "From: info@example.test,\r\n alice@example.test\r\n", "250", "Date Sender Message-ID"},
		{"a comment and quotes", "From: \"bob@example.test\" (bob@example.test) <alice@example.test>\r\n", "250", "Date Message-ID"},
		{"an odd charset", "From: =?x-none?q?A=FF?= <alice@example.test>\r\n", "250", "Date Message-ID"},
		{"a group", "From: us: alice@example.test;\r\n", "250", "Date Message-ID"},
		{"no From", "Subject: x\r\n", "554 5.6.0", ""},
		{"From only in the body", "\r\n" + own, "554 5.6.0", ""},
		{"nothing", "", "554 5.6.0", ""},
		{"several From", own + own, "554 5.6.0", ""},
		{"another's", "From: bob@example.test\r\n", "550 5.7.1", ""},
		{"own and another's", "From: alice@example.test, bob@example.test\r\n", "550 5.7.1", ""},
		{"foreign", "From: alice@elsewhere.test\r\n", "550 5.7.1", ""},
		{"no address", "From: me\r\n", "554 5.6.0", ""},
		{"empty", "From:\r\n", "554 5.6.0", ""},
		{"From with two at signs", "From: <\"a@b\"@example.test>\r\n", "550 5.7.1", ""},
		{"own Sender", own + "Sender: info@example.test\r\n", "250", "Date Message-ID"},
		{"two own, and who of them has sent it", "From: info@example.test, alice@example.test\r\nSender: alice@example.test\r\n", "250", "Date Message-ID"},
		{"a comma in a name", "From: \"Liddell, Alice\" <alice@example.test>\r\n", "250", "Date Message-ID"},
		{"another's Sender", own + "Sender: bob@example.test\r\n", "550 5.7.1", ""},
		{"own Sender for another's From", "From: bob@example.test\r\nSender: alice@example.test\r\n", "550 5.7.1", ""},
		{"own Sender for own From and another's", "From: alice@example.test, bob@example.test\r\nSender: alice@example.test\r\n", "550 5.7.1", ""},
		{"several Senders", own + "Sender: alice@example.test\r\nSender: alice@example.test\r\n", "554 5.6.0", ""},
		{"a Sender who is two", own + "Sender: alice@example.test, info@example.test\r\n", "554 5.6.0", ""},
		{"a Sender who is nobody", own + "Sender:\r\n", "554 5.6.0", ""},
		{"From a group of nobody", "From: bob:;\r\n", "554 5.6.0", ""},
		{"an empty Message-ID is one", own + "Date: x\r\nMessage-ID:\r\n", "250", ""},
		{"passed on as somebody else", whole + "Resent-From: bob@example.test\r\nResent-Sender: bob@example.test\r\n", "250", ""},
		{"From too long", "From: " + strings.Repeat("(x)\r\n ", 5000) + "alice@example.test\r\n", "554 5.6.0", ""},
		{"From late", strings.Repeat(long, 2000) + whole, "250", ""},
		{"nothing is added to a header that is too long to know", strings.Repeat(long, 2000) + own, "250", ""},
		{"From beyond what a header may have", strings.Repeat(long, 15000) + own, "552 5.3.4", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := open(t, Submission, false)
			c := h.dial(t)
			c.talk(submitted)
			body := test.header + "\r\nbody\r\n"
			c.send(body + ".\r\n")
			c.expect(test.want)
			if test.want != "250" {
				if n := len(h.queue.messages()); n != 0 {
					t.Errorf("%d messages", n)
				}
				return
			}
			m := h.queue.messages()[0]
			added, found := strings.CutSuffix(h.queue.content(t, m), body)
			var fields []string
			for line := range strings.Lines(added) {
				name, _, _ := strings.Cut(line, ":")
				fields = append(fields, name)
			}
			if !found || strings.Join(fields, " ") != test.added {
				t.Errorf("added %q, want %s; the content is whole: %v", added, test.added, found)
			}
			if strings.Contains(test.added, "Message-ID") && m.MessageID != "<"+m.ID.String()+"@mx.example.test>" {
				t.Errorf("Message-ID in the trace: %s", m.MessageID)
			}
		})
	}
}

func TestStoreTrouble(t *testing.T) {
	data := "\n> DATA\n< 354\n> x\n> .\n"
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"full", fmt.Errorf("accept: %w", store.ErrFull), "452 4.3.1"},
		{"failed", fmt.Errorf("accept: %w", store.ErrFailed), "451 4.3.0"},
		{"other", errors.New("boom"), "451 4.3.0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := open(t, MX, false)
			h.queue.set(false, test.err)
			c := h.dial(t)
			c.talk(toAlice + data + "< " + test.want)
			if strings.Contains(test.want, "boom") {
				t.Error("the peer is told of our inside")
			}
			h.queue.set(false, nil)
			c.talk("> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250" + data + "< 250")
		})
	}
	t.Run("directory", func(t *testing.T) {
		h := open(t, Submission, false)
		c := h.dial(t)
		c.talk(hello)
		h.accounts.fail(store.ErrFailed)
		c.talk("> AUTH PLAIN " + alicePlain + "\n< 454 4.7.0")
		h.accounts.fail(nil)
		c.talk("> AUTH PLAIN " + alicePlain + "\n< 235")
		h.accounts.fail(store.ErrFailed)
		c.talk("> MAIL FROM:<alice@example.test>\n< 451 4.3.0")
		h.accounts.fail(nil)
		c.talk("> MAIL FROM:<alice@example.test>\n< 250")
		h.accounts.fail(store.ErrFailed)
		c.talk("> RCPT TO:<bob@example.test>\n< 451 4.3.0")
	})
}

func TestLMTP(t *testing.T) {
	h := open(t, LMTP, false)
	const begin = `
		> MAIL FROM:<a@far.test>
		< 250
		> RCPT TO:<alice@example.test>
		< 250
		> RCPT TO:<nobody@example.test>
		< 550 5.1.1
		> RCPT TO:<bob@example.test>
		< 250
		> RCPT TO:<alice@example.test>
		< 250
		> RCPT TO:<x@elsewhere.test>
		< 550 5.7.1
		> DATA
		< 354
		> x
		> .
		`
	c := h.dial(t)
	c.talk("< 220\n> EHLO x\n< 500\n> LHLO x\n< 250" + begin + `
		< 250 2.0.0 <alice@example.test> queued as
		< 250 2.0.0 <bob@example.test> queued as
		< 250 2.0.0 <alice@example.test> queued as
		> NOOP
		< 250`)
	got := h.queue.messages()
	if len(got) != 1 || len(got[0].rcpts) != 2 || got[0].Origin.Protocol != "LMTP" {
		t.Errorf("got %+v", got)
	}
	h.queue.set(false, store.ErrFull)
	c.talk(begin + `
		< 452 4.3.1 <alice@example.test>
		< 452 4.3.1 <bob@example.test>
		< 452 4.3.1 <alice@example.test>
		> NOOP
		< 250`)
	h.queue.set(false, nil)
	c.talk("> MAIL FROM:<>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250")
	c.send("BDAT 3 LAST\r\na\r\n")
	c.talk("< 250 2.0.0 <alice@example.test>\n< 250 2.0.0 <alice@example.test>\n> QUIT\n< 221")
}

// Exim's lmtp transport reads a reply into 256 octets, with one more for each line, and wants 10 left for the last.
func TestReplyToLHLOIsShort(t *testing.T) {
	h := open(t, LMTP, false, func(c *Config) { c.Hostname = strings.Repeat("m", 24) + ".example.test" })
	c := h.dial(t)
	c.talk("< 220")
	c.send("LHLO exim.example.test\r\n")
	octets := 0
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		octets += len(line) + 1
		if line[3] == ' ' {
			break
		}
	}
	if octets > 246 {
		t.Errorf("%d octets", octets)
	}
}
