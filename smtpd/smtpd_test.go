package smtpd

import (
	"strings"
	"testing"
)

const hello = `
	< 220 mx.example.test
	> EHLO client.test
	< 250
	`

const toAlice = hello + `
	> MAIL FROM:<sender@far.test>
	< 250 2.1.0
	> RCPT TO:<alice@example.test>
	< 250 2.1.5
	`

func TestAMessageComesIn(t *testing.T) {
	h := open(t, MX, false)
	c := h.dial(t)
	c.talk(toAlice + `
	> DATA
	< 354
	> Subject: x
	>
	> ..dot
	> text
	> .
	< 250 2.0.0 queued as
	> QUIT
	< 221
	<-`)
	got := h.queue.messages()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	m := got[0]
	want := "Return-Path: <sender@far.test>\r\n" +
		"Delivered-To: alice@example.test\r\n" +
		"Received: from client.test ([127.0.0.1])\r\n" +
		"\tby mx.example.test with ESMTP id " + m.ID.String() + "\r\n" +
		"\tfor <alice@example.test>; Fri, 20 Nov 2026 09:10:16 +0000\r\n" +
		"Subject: x\r\n\r\n.dot\r\ntext\r\n"
	if body := h.queue.body(t, m); body != want {
		t.Errorf("stored:\n%s\nwant:\n%s", body, want)
	}
	if m.Skip != int64(strings.Index(want, "Delivered-To:")) {
		t.Errorf("Skip is %d", m.Skip)
	}
}

// A browser that was made to call here is not listened to, whatever it says after its
// first line.
func TestOtherProtocols(t *testing.T) {
	h, p := piped(t, MX)
	for _, first := range []string{"POST / HTTP/1.1\r\n", "GET / HTTP/1.0\r\n", "CONNECT x:25 HTTP/1.1\r\n", "SSH-2.0-OpenSSH_9\r\n", "\x16\x03\x01\x00\x05hello"} {
		said := p.throw(t, first+opening+"\r\n.\r\n")
		if _, after, _ := strings.Cut(said, "ESMTP postroad\r\n"); !strings.HasPrefix(after, "554 5.5.0") || strings.Count(after, "\n") != 1 {
			t.Errorf("%q was answered\n%s", first, said)
		}
	}
	if n := len(h.queue.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}
