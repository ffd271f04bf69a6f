package smtpd

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"postroad/internal/account"
	"postroad/internal/envelope"
)

// A message for one address of ours says so, and only then.
func TestDeliveredTo(t *testing.T) {
	for _, c := range []struct {
		name string
		kind Kind
		to   string
		want string
	}{
		{"an account", MX, "alice@example.test", "alice@example.test"},
		{"as it was written", MX, "Alice@Example.test", "Alice@example.test"},
		{"quoted", MX, `"alice"@example.test`, "alice@example.test"},
		{"an alias, not what it hides", MX, "info@example.test", "info@example.test"},
		{"an alias of many", LMTP, "both@example.test", "both@example.test"},
		{"an alias that leads elsewhere", MX, "away@example.test", "away@example.test"},
		{"several recipients", MX, "alice@example.test bob@example.test", ""},
		{"the same twice", MX, "alice@example.test alice@example.test", ""},
		{"a list, which puts its own", MX, "list@example.test", ""},
		{"from a user to one here", Submission, "bob@example.test", "bob@example.test"},
		{"from a user to elsewhere", Submission, "someone@elsewhere.test", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := storedFor(t, c.kind, c.to)
			want := 0
			if c.want != "" {
				want = 1
			}
			head, _, _ := strings.Cut(body, "Received:")
			if strings.Count(body, "Delivered-To:") != want || want == 1 && !strings.HasSuffix(head, "\r\nDelivered-To: "+c.want+"\r\n") {
				t.Errorf("stored:\n%s", body)
			}
		})
	}
}

// storedFor sends a message to recipients and returns it as it is stored.
func storedFor(t *testing.T, kind Kind, to string) string {
	h, p := piped(t, kind, func(c *Config) { c.TLS = nil })
	cl := p.dial(t)
	begin(cl, kind)
	for _, a := range strings.Fields(to) {
		cl.talk("> RCPT TO:<" + a + ">\n< 250")
	}
	cl.talk("> DATA\n< 354\n> From: alice@example.test\n>\n> text\n> .\n< 250")
	got := h.queue.messages()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	return h.queue.body(t, got[0])
}

// begin says all that comes before RCPT.
func begin(cl *client, kind Kind) {
	hello := map[Kind]string{MX: "EHLO", Submission: "EHLO", LMTP: "LHLO"}[kind]
	cl.talk("< 220\n> " + hello + " client.test\n< 250")
	if kind == Submission {
		cl.talk("> AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABzZWNyZXQ=\n< 235")
	}
	cl.talk("> MAIL FROM:<alice@example.test>\n< 250")
}

// A message that has been delivered to an address before does not come in for it again.
func TestC09DeliveredToLoops(t *testing.T) {
	for _, c := range []struct {
		name, to, header string
		want             string
	}{
		{"its own", "alice@example.test", "Delivered-To: alice@example.test", "554 5.4.6"},
		{"in another form", "alice@example.test", "delivered-to :\r\n <Alice@EXAMPLE.test>", "554 5.4.6"},
		{"behind others", "alice@example.test", "Delivered-To: bob@example.test\r\nDelivered-To: x\r\nDelivered-To: alice@example.test", "554 5.4.6"},
		{"one of several recipients", "bob@example.test alice@example.test", "Delivered-To: alice@example.test", "554 5.4.6"},
		{"of a list", "list@example.test", "Delivered-To: list@example.test", "554 5.4.6"},
		{"of another", "alice@example.test", "Delivered-To: bob@example.test", "250"},
		{"of the alias that leads here", "alice@example.test", "Delivered-To: info@example.test", "250"},
		{"that is no address", "alice@example.test", "Delivered-To: mailing list alice@example.test", "250"},
		{"in the text", "alice@example.test", "Subject: x\r\n\r\nDelivered-To: alice@example.test", "250"},
		{"part of a name", "alice@example.test", "X-Delivered-To: alice@example.test", "250"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, p := piped(t, MX)
			cl := p.dial(t)
			begin(cl, MX)
			for _, a := range strings.Fields(c.to) {
				cl.talk("> RCPT TO:<" + a + ">\n< 250")
			}
			cl.talk("> DATA\n< 354")
			cl.send(c.header + "\r\n\r\ntext\r\n.\r\n")
			cl.talk("< " + c.want)
		})
	}
}

// A server in front of us may have written for whom it brings the message; what stands below its Received field is from before.
func TestC09DeliveredToOverLMTP(t *testing.T) {
	_, p := piped(t, LMTP)
	cl := p.dial(t)
	begin(cl, LMTP)
	cl.talk("> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354")
	cl.send("Delivered-To: alice@example.test\r\nReceived: by front.test\r\n\r\ntext\r\n.\r\n")
	cl.talk("< 250\n> MAIL FROM:<alice@example.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354")
	cl.send("Received: by front.test\r\nDelivered-To: alice@example.test\r\n\r\ntext\r\n.\r\n")
	cl.talk("< 554 5.4.6")
}

// Who logs in may send on what came to them, to themselves too: Received fields still find a loop.
func TestSubmittersMaySendOnWhatTheyGot(t *testing.T) {
	_, p := piped(t, Submission, func(c *Config) { c.TLS = nil })
	cl := p.dial(t)
	begin(cl, Submission)
	cl.talk("> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> Delivered-To: alice@example.test\n> From: alice@example.test\n>\n> x\n> .\n< 250")
}

// However many fields and recipients there are, looking for a loop takes its time once for each.
func TestManyDeliveredTo(t *testing.T) {
	d := deliveries{}
	for i := range 50_000 {
		d.given = append(d.given, addr(fmt.Sprintf("a%d@example.test", i)))
	}
	for i := range 70_000 {
		d.take([]byte(fmt.Sprintf(" b%d@example.test\r\n", i)), 1)
	}
	if d.loop {
		t.Error("a loop where there is none")
	}
	if d.take([]byte(" A49999@example.test"), 0); !d.loop {
		t.Error("the last recipient is not found")
	}
}

func TestWhoMayWriteToAList(t *testing.T) {
	h, p := piped(t, MX)
	p.dial(t).talk(`
		< 220
		> EHLO client.test
		< 250
		> MAIL FROM:<>
		< 250
		> RCPT TO:<list@example.test>
		< 550 5.7.2 <> may not write to the list list@example.test
		> RCPT TO:<alice@example.test>
		< 250
		> RSET
		< 250
		> MAIL FROM:<sender@far.test>
		< 250
		> RCPT TO:<list@example.test>
		< 250
		> DATA
		< 354
		> Subject: x
		>
		> .
		< 250`)
	got := h.queue.messages()
	if len(got) != 1 || len(got[0].rcpts) != 1 || !got[0].rcpts[0].List || got[0].rcpts[0].Account != 0 {
		t.Errorf("queued: %+v", got)
	}
}

// A full mailbox is trouble that may pass, or not, as the administrator sees it.
func TestFullMailboxesAreRefusedAsConfigured(t *testing.T) {
	room := func(id account.ID, size int64) (bool, error) { return id != 1 || 0 < size && size <= 1000, nil }
	for reject, want := range map[bool]string{false: "452 4.2.2", true: "552 5.2.2"} {
		_, p := piped(t, MX, func(c *Config) { c.Room, c.RejectFull = room, reject })
		cl := p.dial(t)
		begin(cl, MX)
		cl.talk("> RCPT TO:<alice@example.test>\n< " + want + "\n> RCPT TO:<both@example.test>\n< 250\n> RCPT TO:<list@example.test>\n< 250")
		for size, want := range map[string]string{"": want, " SIZE=0": want, " SIZE=1000": "250", " SIZE=1001": want} {
			cl.talk("> RSET\n< 250\n> MAIL FROM:<x@far.test>" + size + "\n< 250\n> RCPT TO:<alice@example.test>\n< " + want)
		}
	}
}

// crowded is a directory in which every local part of digits leads to as many addresses.
type crowded struct{ *directory }

func (c crowded) Resolve(a envelope.Address) (targets []account.Target, err error) {
	n, err := strconv.Atoi(a.Local)
	if err != nil {
		return c.directory.Resolve(a)
	}
	for i := range n {
		targets = append(targets, account.Target{Address: addr(fmt.Sprintf("%d-%d@far.test", n, i))})
	}
	return targets, nil
}

// What aliases make of the recipients of one message is bounded for all of them together.
func TestTargetsOfATransaction(t *testing.T) {
	h, p := piped(t, MX, func(c *Config) { c.Accounts, c.Limits.Recipients = crowded{&directory{}}, 100 })
	h.queue.set(true, nil)
	cl := p.dial(t)
	begin(cl, MX)
	for _, c := range [][2]string{{"900", "250"}, {"101", "452 4.5.3 too many recipients behind these aliases"}, {"100", "250"}, {"alice", "452 4.5.3"}} {
		cl.talk("> RCPT TO:<" + c[0] + "@example.test>\n< " + c[1])
	}
	cl.talk("> DATA\n< 354\n> Subject: x\n>\n> .\n< 250")
	if got := h.queue.messages(); len(got) != 1 || len(got[0].rcpts) != 1000 {
		t.Errorf("%d messages", len(got))
	}
}
