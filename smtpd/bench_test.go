package smtpd

import (
	"strings"
	"testing"
)

// BenchmarkMessage is what a message costs in here: no disk, a new transaction on one
// connection, MAIL, RCPT and DATA in lock-step.
func BenchmarkMessage(b *testing.B) {
	for name, size := range map[string]int{"4KB": 4 << 10, "1MB": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			h := open(b, MX, false, func(c *Config) { c.Log = nil })
			h.queue.set(true, nil)
			c := h.dial(b)
			c.talk(hello)
			body := strings.Repeat("0123456789abcde\r\n", size/17) + ".\r\n"
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				for _, line := range []string{"MAIL FROM:<a@far.test>\r\n", "RCPT TO:<alice@example.test>\r\n", "DATA\r\n", body} {
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

// BenchmarkConnection is what a connection costs, with its engine.
func BenchmarkConnection(b *testing.B) {
	h := open(b, MX, false, func(c *Config) { c.Log = nil })
	b.ReportAllocs()
	for b.Loop() {
		c := h.dial(b)
		c.talk(hello + "> QUIT\n< 221")
		c.Close()
	}
}
