package smtpd

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"postroad/internal/account"
	"postroad/internal/listen/listentest"
	"postroad/internal/store"
)

const inBinary = loggedInAlice + `
	> MAIL FROM:<alice@example.test> BODY=BINARYMIME
	< 250
	> RCPT TO:<x@elsewhere.test>
	< 250
	`

// What is missing is added wherever the header ends, and however the message comes.
func TestMissingFieldsAreAddedOnce(t *testing.T) {
	const from = "From: alice@example.test"
	const both = "Date Message-ID"
	for _, c := range []struct{ name, text, added string }{
		{"a header and no body", from + "\r\n\r\n", both},
		{"a header without its blank line", from + "\r\n", both},
		{"a header without its last line end", from, both},
		{"an unfinished Date", from + "\r\nDate: x", "Message-ID"},
		{"an unfinished Message-ID", from + "\r\nDate: x\r\nMessage-ID: <a@b.test>", ""},
		{"LF alone", from + "\nDate: x\nMessage-ID: <a@b.test>\n\nDate: y\n", ""},
		{"LF alone, and missing", from + "\n\nDate: x\nMessage-ID: <a@b.test>\n", both},
		{"not fields but text", from + "\r\n\r\nDate: x\r\nMessage-ID: <a@b.test>\r\n", both},
		{"folded text", from + "\r\nSubject: x\r\n Date: x\r\n\tMessage-ID: <a@b.test>\r\n\r\n", both},
	} {
		for _, step := range []int{1, 7, len(c.text)} {
			t.Run(fmt.Sprintf("%s by %d", c.name, step), func(t *testing.T) {
				h, p := piped(t, Submission)
				cl := p.dial(t)
				cl.talk(inBinary)
				for at := 0; at < len(c.text); at += step {
					piece := c.text[at:min(at+step, len(c.text))]
					cl.send(fmt.Sprintf("BDAT %d\r\n%s", len(piece), piece))
					cl.expect("250")
				}
				cl.talk("> BDAT 0 LAST\n< 250")
				added, whole := strings.CutSuffix(h.queue.content(t, h.queue.messages()[0]), c.text)
				if got := strings.Join(fieldNames(added), " "); got != c.added || !whole {
					t.Errorf("added %q, want %s; the content is whole: %v", added, c.added, whole)
				}
			})
		}
	}
}

func fieldNames(header string) (names []string) {
	for line := range strings.Lines(header) {
		name, _, _ := strings.Cut(line, ":")
		names = append(names, name)
	}
	return names
}

// Where a message was sent from is the trace's to know, and of nobody who gets it.
func TestHiddenClient(t *testing.T) {
	hide := func(c *Config) { c.Outgoing.HideClient = true }
	message := "From: alice@example.test\r\n\r\n.\r\n"
	for _, c := range []struct {
		name   string
		kind   Kind
		change func(*Config)
		want   string
	}{
		{"hidden", Submission, hide, "Received: from client.invalid\r\n\tby mx.example.test with ESMTPA id "},
		{"shown", Submission, func(*Config) {}, "Received: from client.test ([127.0.0.1])\r\n\tby mx.example.test with ESMTPA id "},
		{"others are not hidden", MX, hide, "Received: from client.test ([127.0.0.1])\r\n\tby mx.example.test with ESMTP id "},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := open(t, c.kind, false, c.change)
			cl := h.dial(t)
			if c.kind == Submission {
				cl.talk(submitted)
			} else {
				cl.talk(toAlice + "> DATA\n< 354")
			}
			cl.send(message)
			cl.expect("250")
			m := h.queue.messages()[0]
			body := h.queue.body(t, m)
			if !strings.Contains(body, c.want) {
				t.Errorf("stored\n%s\nwant %s", body, c.want)
			}
			if m.Origin.Peer != "127.0.0.1" || m.Origin.Helo != "client.test" {
				t.Errorf("the trace has %+v", m.Origin)
			}
		})
	}
}

// limited has alice's mail counted, as of an account with its own directory.
func limited(t *testing.T, may account.Allowance) *house {
	h := build(t, Submission, false, func(c *Config) { c.Outgoing.Daily = may })
	d := account.Open(h.queue.st, clock)
	if _, err := d.AddDomain("x.test"); err != nil {
		t.Fatal(err)
	}
	a, err := d.Add(addr("a@x.test"), "secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	h.accounts.limits, h.accounts.limited = d, a.ID
	return h
}

func TestDailyLimits(t *testing.T) {
	const mail = "> MAIL FROM:<alice@example.test>\n< 250\n"
	const until = " today; more of this is possible from 2026-11-21 00:00 UTC on\n"
	const sent = "> DATA\n< 354\n> From: alice@example.test\n>\n> .\n< 250\n"
	one := mail + "> RCPT TO:<x@far.test>\n< 250\n" + sent
	for _, c := range []struct {
		name   string
		may    account.Allowance
		script string
	}{
		{"messages", account.Allowance{Messages: 2},
			one + one + "> MAIL FROM:<alice@example.test>\n< 450 4.7.1 your account has sent 2 messages" + until},
		{"a message that is refused does not count", account.Allowance{Messages: 1},
			mail + "> RCPT TO:<x@far.test>\n< 250\n> DATA\n< 354\n> From: bob@example.test\n>\n> .\n< 550\n" + one},
		{"a transaction that is given up does not count", account.Allowance{Messages: 1, Recipients: 1},
			mail + "> RCPT TO:<x@far.test>\n< 250\n> RSET\n< 250\n" + one},
		{"a recipient that is refused does not count", account.Allowance{Recipients: 1},
			mail + "> RCPT TO:<nobody@example.test>\n< 550\n> RCPT TO:<x@far.test>\n< 250\n" + sent},
		{"recipients", account.Allowance{Recipients: 2},
			one + mail + "> RCPT TO:<x@far.test>\n< 250\n> RCPT TO:<y@far.test>\n< 450 4.7.1 your account has sent to 2 recipients" + until + sent},
		{"new recipients", account.Allowance{New: 1},
			one + mail + "> RCPT TO:<y@far.test>\n< 450 4.7.1 your account has sent to 1 recipients that it had not written to before" + until + "> RCPT TO:<x@far.test>\n< 250\n" + sent},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := limited(t, c.may)
			p := &pipes{listentest.NewPipes()}
			h.serve(t, p)
			p.dial(t).talk(loggedInAlice + c.script)
		})
	}
}

// The last message of a day goes to the first of two who have both been told that they may send it.
func TestDailyLimitsOfTwoAtOnce(t *testing.T) {
	h := limited(t, account.Allowance{Messages: 1})
	p := &pipes{listentest.NewPipes()}
	h.serve(t, p)
	first, second := p.dial(t), p.dial(t)
	for _, c := range []*client{first, second} {
		c.talk(submitted)
		c.send("From: alice@example.test\r\n\r\n")
	}
	first.talk("> .\n< 250")
	second.talk("> .\n< 450 4.7.1 your account has sent 1 messages")
	if n := len(h.queue.messages()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// Whoever is not one of our users has no daily limits.
func TestStrangersHaveNoDailyLimits(t *testing.T) {
	h := open(t, MX, false, func(c *Config) { c.Outgoing.Daily = account.Allowance{Messages: 1, Recipients: 1, New: 1} })
	h.accounts.limits = account.Open(h.queue.st, clock)
	c := h.dial(t)
	c.talk(toAlice + "> DATA\n< 354\n> x: y\n>\n> .\n< 250")
	for range 3 {
		c.talk("> MAIL FROM:<sender@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> RCPT TO:<bob@example.test>\n< 250\n> DATA\n< 354\n> x: y\n>\n> .\n< 250")
	}
}

// keeper is a sender's copies.
type keeper struct {
	bytes.Buffer
	of       account.ID
	finished bool
	body     store.ID // where it was put
	fail     error    // refuses the message
	none     error    // there is no room for a copy
}

func (k *keeper) Finish() error { k.finished = true; return nil }
func (k *keeper) Put(tx store.Tx, body store.ID) error {
	if k.body = body; !k.finished {
		return errors.New("not finished")
	}
	return k.fail
}
func (k *keeper) Missing() error { return k.none }

func TestSentCopy(t *testing.T) {
	long := strings.Repeat("From: alice@example.test\r\nX: "+strings.Repeat("x", 900)+"\r\n", 1) + strings.Repeat("X: "+strings.Repeat("y", 900)+"\r\n", 100)
	for _, c := range []struct {
		name   string
		all    bool
		own    account.Switch
		header string
		keeper keeper
		want   string
		kept   bool
		logged string
	}{
		{name: "on for all", all: true, want: "250", kept: true},
		{name: "off for all", want: "250"},
		{name: "on for her", own: account.On, want: "250", kept: true},
		{name: "off for her", all: true, own: account.Off, want: "250"},
		{name: "a header longer than what is held back", all: true, header: long, want: "250", kept: true},
		{name: "Bcc stays", all: true, header: "From: alice@example.test\r\nBcc: z@far.test\r\n", want: "250", kept: true},
		{name: "no room", all: true, keeper: keeper{none: errors.New("over quota")}, want: "250", kept: true, logged: `level=WARN msg="no copy in Sent"`},
		{name: "trouble", all: true, keeper: keeper{fail: errors.New("trouble")}, want: "451 4.3.0"},
		{name: "refused", all: true, header: "From: bob@example.test\r\n", want: "550"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &c.keeper
			h := open(t, Submission, false, func(cf *Config) {
				cf.Outgoing.SaveSent = c.all
				cf.Outgoing.SentCopy = func(a account.Account) SentCopy { k.of = a.ID; return k }
			})
			h.accounts.saveSent = c.own
			cl := h.dial(t)
			cl.talk(submitted)
			header := c.header
			if header == "" {
				header = "From: alice@example.test\r\n"
			}
			cl.send(header + "\r\nbody\r\n.\r\n")
			cl.expect(c.want)
			got := h.queue.messages()
			if (len(got) == 1) != (c.want == "250") {
				t.Fatalf("%d messages", len(got))
			}
			switch {
			case c.kept && (k.body != got[0].ID || k.String() != h.queue.body(t, got[0]) || k.of != 1):
				t.Errorf("of account %d, body %s, the copy is\n%s", k.of, k.body, k)
			case !c.kept && c.want == "250" && k.Len() > 0:
				t.Errorf("there is a copy")
			case c.want == "550" && k.body != 0:
				t.Errorf("a refused message was put")
			case !strings.Contains(h.log.String(), c.logged):
				t.Errorf("logged\n%s", h.log)
			}
		})
	}
}

// BenchmarkSubmission is BenchmarkMessage for who is logged in, with what is done for it.
func BenchmarkSubmission(b *testing.B) {
	body := "From: alice@example.test\r\n\r\n" + strings.Repeat("0123456789abcde\r\n", 4<<10/17) + ".\r\n"
	for _, v := range []struct {
		name   string
		change func(*Config)
	}{
		{"plain", func(*Config) {}},
		{"copied", func(c *Config) {
			c.Outgoing.SaveSent = true
			c.Outgoing.SentCopy = func(account.Account) SentCopy { return &keeper{} }
		}},
	} {
		b.Run(v.name, func(b *testing.B) {
			h := open(b, Submission, false, func(c *Config) { c.Log = nil }, v.change)
			h.queue.set(true, nil)
			c := h.dial(b)
			c.talk(loggedInAlice)
			b.ReportAllocs()
			for b.Loop() {
				for _, line := range []string{"MAIL FROM:<alice@example.test>\r\n", "RCPT TO:<x@far.test>\r\n", "DATA\r\n", body} {
					c.send(line)
					if _, err := c.reply(); err != nil {
						b.Fatal(err)
					}
				}
			}
			h.queue.take()
		})
	}
}
