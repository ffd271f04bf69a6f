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
		"Received: from client.test ([127.0.0.1])\r\n" +
		"\tby mx.example.test with ESMTP id " + m.ID.String() + "\r\n" +
		"\tfor <alice@example.test>; Fri, 20 Nov 2026 09:10:16 +0000\r\n" +
		"Subject: x\r\n\r\n.dot\r\ntext\r\n"
	if body := h.queue.body(t, m); body != want {
		t.Errorf("stored:\n%s\nwant:\n%s", body, want)
	}
	if m.Skip != int64(strings.Index(want, "Received:")) {
		t.Errorf("Skip is %d", m.Skip)
	}
}
