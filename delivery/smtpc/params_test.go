package smtpc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postroad/internal/envelope"
)

// offering opens a conversation with a server that offers extensions.
func offering(extensions ...string) dialogue {
	d := dialogue{"S: 220 mx.test", "C: EHLO us.test", "S: 250-mx.test"}
	for _, x := range extensions {
		d = append(d, "S: 250-"+x)
	}
	return append(d, "S: 250 HELP")
}

// TestParameters: each goes to a server that offers its extension, and to no other.
func TestParameters(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	since := time.Date(2020, 6, 7, 8, 9, 10, 0, time.FixedZone("", 3600))
	for _, tt := range []struct {
		offers     string
		set        func(*Message)
		mail, rcpt string
	}{
		{"SIZE", func(m *Message) {}, "SIZE=3", ""},
		{"8BITMIME", func(m *Message) { m.Envelope.Body = envelope.Body8Bit }, "BODY=8BITMIME", ""},
		{"8BITMIME", func(m *Message) { m.Envelope.Body = envelope.Body7Bit }, "", ""},
		{"SMTPUTF8", func(m *Message) { m.UTF8 = true }, "SMTPUTF8", ""},
		{"SMTPUTF8", func(m *Message) { m.Envelope.UTF8 = true }, "", ""},
		{"DSN", func(m *Message) { m.Envelope.Return, m.Envelope.ID = "HDRS", "x y" }, "RET=HDRS ENVID=x+20y", ""},
		{"DSN", func(m *Message) { m.Recipients[0].Notify = envelope.NotifyNever }, "", "NOTIFY=NEVER"},
		{"DSN", func(m *Message) { m.Recipients[0].Original = "utf-8;ä@y.test" }, "", `ORCPT=utf-8;\x{E4}@y.test`},
		{"DELIVERBY 60", func(m *Message) {
			m.Envelope.DeliverBy = envelope.DeliverBy{Deadline: now.Add(100 * time.Second), Return: true}
		}, "BY=100;R", ""},
		{"DELIVERBY", func(m *Message) {
			m.Envelope.DeliverBy = envelope.DeliverBy{Deadline: now.Add(-7 * time.Second), Trace: true}
		}, "BY=-7;NT", ""},
		{"MT-PRIORITY STANAG4406", func(m *Message) { m.Envelope.Priority = -4 }, "MT-PRIORITY=-4", ""},
		{"NO-SOLICITING", func(m *Message) { m.Envelope.Solicit = "net.example:ADV" }, "SOLICIT=net.example:ADV", ""},
		{"RRVS", func(m *Message) { m.Recipients[0].ValidSince = since }, "", "RRVS=2020-06-07T07:09:10Z"},
		{"RRVS", func(m *Message) { m.Recipients[0].ValidSince, m.Recipients[0].ValidContinue = since, true }, "", "RRVS=2020-06-07T07:09:10Z;C"},
	} {
		for _, offered := range []bool{true, false} {
			d, mail, rcpt := offering(), "C: MAIL FROM:<s@x.test>", "C: RCPT TO:<a@y.test>"
			if offered {
				d = offering(tt.offers)
				mail, rcpt = strings.TrimRight(mail+" "+tt.mail, " "), strings.TrimRight(rcpt+" "+tt.rcpt, " ")
			} else if tt.offers == "SMTPUTF8" && tt.mail != "" {
				continue // it is refused
			}
			t.Run(fmt.Sprintf("%s %s %v", tt.mail, tt.rcpt, offered), func(t *testing.T) {
				d = after(d, mail, "S: 250 ok", rcpt, "S: 250 ok", "C: DATA", "S: 354 go", "C: *", "S: 250 ok", "C: QUIT", "S: 221 bye")
				_, err := converse(t, d, Options{Now: func() time.Time { return now }}, func(c *Conn) {
					m := message("x\r\n", "a")
					tt.set(&m)
					if r := c.Send(m); codes(r) != "250" {
						t.Errorf("%+v", r)
					}
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestSize: what is larger than the server takes is not begun.
func TestSize(t *testing.T) {
	for announced, want := range map[string]string{
		"SIZE 3": "", "SIZE 2": "552 5.3.4 the message has 3 octets, and mx.test (pipe) takes at most 2", "SIZE 0": "", "SIZE": "", "SIZE x": "", "SIZE -1": "",
		"SIZE=2": "552 5.3.4 the message has 3 octets, and mx.test (pipe) takes at most 2", "SIZE 99999999999999999999": "",
	} {
		d := offering(announced)
		if want == "" {
			d = after(d, "C: MAIL FROM:<s@x.test> SIZE=3", "S: 550 no")
		}
		_, err := converse(t, after(d, "C: QUIT", "S: 221 bye"), Options{}, func(c *Conn) {
			if r := c.Send(message("x\r\n", "a")); want != "" && (r.Replies[0].String() != want || r.Replies[0].From != "") {
				t.Errorf("%s: %+v", announced, r)
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestLimits: of recipients no more are named than the server takes (RFC 9422), and no more messages are sent.
func TestLimits(t *testing.T) {
	for limits, want := range map[string]string{
		"": "a b c", "RCPTMAX=2": "a b", "RCPTMAX=5": "a b c", "rcptmax=1 FOO=2": "a", "RCPTMAX=0": "a b c", "RCPTMAX=x": "a b c", "RCPTMAX": "a b c", "RCPTDOMAINMAX=1": "a c", "RCPTDOMAINMAX=2 RCPTMAX=2": "a b",
	} {
		d := after(offering("LIMITS "+limits), "C: MAIL FROM:<s@x.test>", "S: 250 ok")
		for name := range strings.FieldsSeq(want) {
			d = after(d, fmt.Sprintf("C: RCPT TO:<%s@%s.test>", name, map[string]string{"a": "y", "b": "z", "c": "y"}[name]), "S: 250 ok")
		}
		d = after(d, "C: DATA", "S: 354 go", "C: *", "S: 250 ok", "C: QUIT", "S: 221 bye")
		_, err := converse(t, d, Options{}, func(c *Conn) {
			m := message("x\r\n", "a", "b", "c")
			m.Recipients[1].To.Domain = "z.test"
			r := c.Send(m)
			for i, reply := range r.Replies {
				if named := strings.Contains(want, string("abc"[i])); named && reply.Code != 250 || !named && reply.String() != "452 4.5.3 more recipients than mx.test (pipe) takes at once (LIMITS)" {
					t.Errorf("%s: %v", limits, reply)
				}
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestStorageOfOld: 552 for one recipient too many, and for a mailbox (RFC 5321, 4.5.3.1.10).
func TestStorageOfOld(t *testing.T) {
	d := after(offering(), "C: MAIL FROM:<s@x.test>", "S: 250 ok", "C: RCPT TO:<a@y.test>", "S: 552 full", "C: RCPT TO:<b@y.test>", "S: 250 ok",
		"C: RCPT TO:<c@y.test>", "S: 552 too many", "C: RCPT TO:<d@y.test>", "S: 552 5.2.2 full", "C: DATA", "S: 354 go", "C: *", "S: 250 ok", "C: QUIT", "S: 221 bye")
	_, err := converse(t, d, Options{}, func(c *Conn) {
		if got := codes(c.Send(message("x\r\n", "a", "b", "c", "d"))); got != "552 250 452 552" {
			t.Error(got)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestMailMax(t *testing.T) {
	one := []string{"C: MAIL FROM:<s@x.test>", "S: 250 ok", "C: RCPT TO:<a@y.test>", "S: 250 ok", "C: DATA", "S: 354 go", "C: *", "S: 250 ok"}
	_, err := converse(t, after(after(after(offering("LIMITS MAILMAX=2"), one...), one...), "C: QUIT", "S: 221 bye"), Options{}, func(c *Conn) {
		for _, broken := range []bool{false, true} {
			if r := c.Send(message("x\r\n", "a")); codes(r) != "250" || c.Broken() != broken {
				t.Errorf("%+v, broken %v", r, c.Broken())
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// TestExtensions: keywords in any case, and as some servers write them.
func TestExtensions(t *testing.T) {
	_, err := converse(t, after(offering("auth=LOGIN", "AUTH PLAIN  XOAUTH2", "size\t10", "8bitmime ", "X-Y a=b c"), "C: QUIT", "S: 221 bye"), Options{}, func(c *Conn) {
		for keyword, want := range map[string]string{"AUTH": "LOGIN PLAIN  XOAUTH2", "SIZE": "10", "8BITMIME": "", "X-Y": "a=b c", "HELP": ""} {
			if got := c.Param(keyword); got != want || !c.Offers(keyword) {
				t.Errorf("%s %q, want %q", keyword, got, want)
			}
		}
		if c.Offers("DSN") || c.Param("DSN") != "" {
			t.Error("DSN is not offered")
		}
	})
	if err != nil {
		t.Error(err)
	}
}
