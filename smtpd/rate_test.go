package smtpd

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A message must come at a rate, by DATA and BDAT, with TLS and without, on every listener: an octet now and then does
// not keep a connection.
func TestDataRate(t *testing.T) {
	for _, kind := range []Kind{MX, Submission, LMTP} {
		for _, secure := range []bool{false, true} {
			for _, way := range []string{"DATA\r\n", "BDAT 1000000 LAST\r\n", "BDAT 1000000\r\n"} {
				t.Run(fmt.Sprintf("%v, TLS %v, %.5s", kind, secure, way), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						_, p := piped(t, kind)
						c := p.dial(t)
						c.SetDeadline(time.Time{})
						greet := map[Kind]string{MX: "EHLO", Submission: "EHLO", LMTP: "LHLO"}[kind]
						c.talk("< 220\n> " + greet + " x\n< 250")
						if secure {
							c.talk("> STARTTLS\n< 220\ntls\n> " + greet + " x\n< 250")
						}
						if kind == Submission {
							c.talk("> AUTH PLAIN " + alicePlain + "\n< 235")
						}
						c.talk("> MAIL FROM:<alice@example.test>\n< 250\n> RCPT TO:<bob@example.test>\n< 250")
						go io.Copy(io.Discard, c.r)
						begin := time.Now()
						sent := 0
						for _, err := io.WriteString(c.Conn, way); err == nil; sent += 2000 {
							time.Sleep(10 * time.Second) // 200 octets a second
							_, err = io.WriteString(c.Conn, strings.Repeat("x", 2000))
						}
						// Of three minutes it has earned 0.4 s in each.
						if took := time.Since(begin); took < 3*time.Minute || took > 6*time.Minute {
							t.Errorf("kept for %v, %d octets", took, sent)
						}
					})
				})
			}
		}
	}
}
