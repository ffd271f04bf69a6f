package smtpd

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/listen/listentest"
)

// Whoever begins TLS and does not mean it is gone at once when something is wrong, and else after the time that a
// handshake has, whether TLS comes first or after STARTTLS. What was sent by then is little.
func TestBadHandshakes(t *testing.T) {
	for _, implicit := range []bool{true, false} {
		for _, attack := range listentest.BadHandshakes(t) {
			t.Run(map[bool]string{true: "TLS/", false: "STARTTLS/"}[implicit]+attack.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := build(t, Submission, implicit)
					p := &pipes{listentest.NewPipes()}
					h.serve(t, p)
					c := p.dial(t)
					c.SetDeadline(time.Time{})
					if !implicit {
						c.expect("220 ")
						c.send("EHLO client.test\r\n")
						c.expect("250 ")
						c.send("STARTTLS\r\n")
						c.expect("220 ")
					}
					took, sent := attack.Run(c.Conn)
					limit := time.Second
					if attack.Slow {
						limit = h.Limits.HandshakeTimeout + time.Second
					}
					if took > limit || sent > 200_000 {
						t.Errorf("it took %v and %d octets", took, sent)
					}
					next := p.dial(t) // others are served
					if implicit {
						next.startTLS()
					}
					next.expect("220 ")
					io.WriteString(next, "QUIT\r\n")
				})
			})
		}
	}
}
