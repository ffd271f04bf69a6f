package imapd

import (
	"bufio"
	"crypto/tls"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/account"
	"postroad/internal/listen/listentest"
)

// Whoever begins TLS and does not mean it is gone at once when something is wrong, and else after the time that a
// command has, whether TLS comes first or after STARTTLS. What was sent by then is little.
func TestBadHandshakes(t *testing.T) {
	for _, implicit := range []bool{true, false} {
		for _, attack := range listentest.BadHandshakes(t) {
			t.Run(map[bool]string{true: "TLS/", false: "STARTTLS/"}[implicit]+attack.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					srv := NewServer(implicit, Config{Accounts: account.Open(nil, nil), TLS: certificate(t)})
					pipes := listentest.NewPipes()
					go srv.Serve(pipes)
					conn := pipes.Dial()
					defer synctest.Wait()
					defer srv.Shutdown(t.Context())
					if !implicit {
						c := &raw{t: t, conn: conn, r: bufio.NewReader(conn)}
						c.patient("* OK ...")
						c.send("a STARTTLS\r\n")
						c.patient("a OK ...")
					}
					took, sent := attack.Run(conn)
					limit := time.Second
					if attack.Slow {
						limit = srv.Limits.Command + time.Second
					}
					if took > limit || sent > 200_000 {
						t.Errorf("it took %v and %d octets", took, sent)
					}
					next := pipes.Dial() // others are served
					if implicit {
						next = tls.Client(next, insecureTLS())
					}
					c := &raw{t: t, conn: next, r: bufio.NewReader(next)}
					c.patient("* OK ...")
					next.Close()
				})
			})
		}
	}
}
