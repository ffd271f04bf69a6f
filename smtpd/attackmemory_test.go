package smtpd_test

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"postroad/smtpd"
)

// TestMemoryOfConnections holds what a connection costs in each state, heap and stack, against what docs/attacks.md
// says. The peers keep a descriptor and a few hundred octets.
func TestMemoryOfConnections(t *testing.T) {
	h := newHouse(t)
	many := func(l *smtpd.Limits) { l.PerAddress = 10_000 }
	mx, submission, secured := h.serve(smtpd.MX, false, limits(many)), h.serve(smtpd.Submission, false, limits(many)), h.serve(smtpd.Submission, true, limits(many))
	var foreign strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&foreign, "RCPT TO:<%s%d@elsewhere.test>\r\n", strings.Repeat("x", 50), i)
	}
	lines := strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n", 3200) // 200 KiB
	states := []struct {
		name  string
		s     *server
		lines string
		want  []string // replies, the last of which must have come
	}{
		{"connected", mx, "", []string{"220"}},
		{"greeted", mx, "EHLO x\r\n", []string{"220", "250"}},
		{"in a line of 2,000 octets", mx, "EHLO x\r\nNOOP " + strings.Repeat("x", 1995), []string{"220", "250"}},
		{"in a response of 12,000 octets", submission, "EHLO x\r\nAUTH PLAIN\r\n" + strings.Repeat("x", 12_000), []string{"220", "250", "334"}},
		{"greeted, with TLS", secured, "EHLO x\r\n", []string{"220", "250"}},
		{"1,000 recipients", submission, "EHLO x\r\n" + submission.login() + "MAIL FROM:<alice@example.test>\r\n" + foreign.String(), nil},
		{"in a small message", mx, mx.opening() + "DATA\r\nSubject: x\r\n", []string{"220", "250", "250", "250", "354"}},
		{"in a header that is held back", submission, submission.opening() + "DATA\r\n" + strings.Repeat("X: 0123456789abcdef\r\n", 3000), []string{"220", "250", "235", "250", "250", "354"}},
		{"in a large message", mx, mx.opening() + "DATA\r\n\r\n" + lines, []string{"220", "250", "250", "250", "354"}},
		{"in a large message, with TLS", secured, secured.opening() + "DATA\r\nFrom: alice@example.test\r\n\r\n" + lines, []string{"220", "250", "235", "250", "250", "354"}},
	}
	bounds := memoryBounds(t)
	for _, state := range states {
		t.Run(state.name, func(t *testing.T) {
			bring := func(n int) (peers []*peer) {
				for range n {
					p := state.s.dial(t)
					go p.send(state.lines)
					for _, code := range state.want {
						p.expect(code)
					}
					for range 1003 * (1 - min(1, len(state.want))) {
						p.reply()
					}
					peers = append(peers, p)
				}
				return peers
			}
			const crowd = 50
			first := bring(5) // so that pools and the like are filled
			before := settledMemory()
			peers := bring(crowd)
			each := (settledMemory() - before) / crowd >> 10
			t.Logf("%d KiB", each)
			if most, ok := bounds[state.name]; !ok || each > most {
				t.Errorf("%d KiB for a connection, and the page says %d", each, most)
			}
			for _, p := range append(first, peers...) {
				p.Close()
			}
			state.s.quiet()
		})
		delete(bounds, state.name)
	}
	for name := range bounds {
		t.Errorf("the page has a bound for %q, which is no state", name)
	}
}

// settledMemory is what heap and stacks take once they stop to shrink and to grow.
func settledMemory() int64 {
	last := int64(-1)
	for range 50 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		now := int64(m.HeapAlloc + m.StackInuse)
		if diff := now - last; -4096 < diff && diff < 4096 {
			return now
		}
		last = now
		runtime.Gosched()
	}
	return last
}

// memoryBounds reads the table of docs/attacks.md: KiB by state.
func memoryBounds(t *testing.T) map[string]int64 {
	t.Helper()
	text, err := os.ReadFile("../docs/attacks.md")
	if err != nil {
		t.Fatal(err)
	}
	bounds := map[string]int64{}
	for _, m := range regexp.MustCompile(`(?m)^\| (.*) \| ([0-9]+) KiB \|$`).FindAllStringSubmatch(string(text), -1) {
		bounds[m[1]], _ = strconv.ParseInt(m[2], 10, 64)
	}
	return bounds
}
