package smtpc

import (
	"strings"
	"testing"
)

var lhlo = dialogue{"S: 220 store.test", "C: LHLO us.test", "S: 250-store.test", "S: 250 PIPELINING"}

// sent is a message for a, b and c, of whom the store does not take b.
var sent = after(lhlo, "C: MAIL FROM:<s@x.test>", "C: RCPT TO:<a@y.test>", "C: RCPT TO:<b@y.test>", "C: RCPT TO:<c@y.test>", "C: DATA",
	"S: 250 ok", "S: 250 ok", "S: 550 no b", "S: 250 ok", "S: 354 go", "C: *")

// TestLMTP: each recipient that was taken has a reply of its own to the message, in the order of RCPT (RFC 2033, 4.2).
func TestLMTP(t *testing.T) {
	for name, tt := range map[string]struct {
		replies  []string
		want     string
		doubtful bool
		broken   bool
	}{
		"all good":          {[]string{"S: 250 a", "S: 250 c"}, "250 550 250", false, false},
		"one is full":       {[]string{"S: 452 4.2.2 a is full", "S: 250 c"}, "452 550 250", false, false},
		"one is refused":    {[]string{"S: 250 a", "S: 550 c"}, "250 550 550", false, false},
		"the last is lost":  {[]string{"S: 250 a"}, "250 550 0", true, true},
		"both are lost":     {nil, "0 550 0", true, true},
		"it stops with 421": {[]string{"S: 250 a", "S: 421 bye"}, "250 550 421", false, true},
		"none is a reply":   {[]string{"S: 250 a", "S: hello"}, "250 550 0", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := converse(t, after(sent, tt.replies...), Options{LMTP: true}, func(c *Conn) {
				r := c.Send(message("x\r\n", "a", "b", "c"))
				if codes(r) != tt.want || r.Doubtful != tt.doubtful || c.Broken() != tt.broken {
					t.Errorf("%+v, broken %v", r, c.Broken())
				}
				if !r.Own[0] || !r.Own[2] {
					t.Errorf("%v are their own", r.Own)
				}
				c.broken = true // nobody hears QUIT
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLMTPIsNotSMTP: a server that does not know LHLO is not spoken to in SMTP: there one reply stands for all.
func TestLMTPIsNotSMTP(t *testing.T) {
	_, err := converse(t, dialogue{"S: 220 mx.test", "C: LHLO us.test", "S: 500 what"}, Options{LMTP: true}, func(*Conn) { t.Error("it went on") })
	if err == nil || !strings.HasPrefix(err.Error(), "LHLO: 500") {
		t.Error(err)
	}
}
