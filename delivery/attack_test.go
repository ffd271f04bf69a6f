package delivery

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"postroad/internal/envelope"
	"postroad/spool"
)

// The cases of docs/attacks.md that a hostile recipient's server, or its name server, can try.

// TestC06HostileReplies: whatever a server answers is bounded, and no control octet of it gets into the trace or into
// a report.
func TestC06HostileReplies(t *testing.T) {
	for name, tt := range map[string]struct {
		reply string
		final bool // it is a reply that can be read
	}{
		"a million lines":    {strings.Repeat("550-5.1.1 x\r\n", 1_000_000) + "550 5.1.1 x", false},
		"a line of 10 MB":    {"550 5.1.1 " + strings.Repeat("x", 10<<20), false},
		"a million octets":   {strings.Repeat("550-5.1.1 "+strings.Repeat("y", 400)+"\r\n", 99) + "550 5.1.1 x", true},
		"CR, ESC and 8 bit":  {"550 5.1.1 a\rb\x1b[2J\x00\x07\xff\xfe\u202e\u0085c", true},
		"fields of a report": {"550 5.1.1 no\r\n\r\nAction: delivered\r\nStatus: 2.0.0\r\n", true},
		"a bare LF":          {"550 5.1.1 no\nDiagnostic-Code: smtp; 250 ok", true},
		"a boundary":         {"550 5.1.1 \r\n--=_\r\nContent-Type: text/html\r\n", true},
		"no reply":           {"\x16\x03\x01\x02\x00", false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": tt.reply}})
				f.start()
				id := f.submit("<alice@a.test>", "one@y.test")
				settle()
				for _, event := range f.events(id) {
					if len(event) > 2000 || !utf8.ValidString(event) || strings.ContainsFunc(event, unicode.IsControl) {
						t.Errorf("the trace has %.200q", event)
					}
				}
				got := f.mail("alice")
				if !tt.final {
					if q := f.queue(); len(q) != 1 || len(got) != 0 {
						t.Errorf("the queue holds %q, alice has %.500q", q, got)
					}
					return
				}
				if len(got) != 1 || strings.Count(got[0], "\nAction:") != 1 || !strings.Contains(got[0], "\nAction: failed") || len(got[0]) > 20_000 {
					t.Errorf("alice has %.3000q", got)
				}
				for _, text := range got {
					plain := strings.NewReplacer("\r\n", "", "\t", "").Replace(text)
					if !utf8.ValidString(plain) || strings.ContainsFunc(plain, unicode.IsControl) {
						t.Errorf("the report has control octets: %.3000q", text)
					}
				}
			})
		})
	}
}

// TestC08Reports: a message that fails for many makes one report, which goes to its sender alone, and none when the
// sender is nobody.
func TestC08Reports(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "550 5.1.1 no"}})
		f.start()
		var many []string
		for i := range 50 {
			many = append(many, fmt.Sprintf("n%d@y.test", i))
		}
		f.submit("<alice@a.test>", many...)
		f.submit("<>", many...)
		f.drained()
		got := f.mail("alice")
		if len(got) != 1 || strings.Count(got[0], "\nAction: failed") != 50 || !strings.HasPrefix(got[0], "Return-Path: <>") {
			t.Errorf("alice has %d reports: %.1000q", len(got), got)
		}
		if others := f.mail("bob"); len(others) != 0 {
			t.Errorf("bob has %q", others)
		}
	})
}

// TestC10PrivateHosts: mail from outside connects to no address that only we can reach, however its name is written.
func TestC10PrivateHosts(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "10.0.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "fe80::1", "fd00::1", "100.64.0.1", "224.0.0.1", "255.255.255.255", "64:ff9b::7f00:1", "2002:7f00:1::1"} {
		bubble(t, func(t *testing.T, f *fixture) {
			f.dns.MX("y.test", "mx.y.test")
			f.dns.Host("mx.y.test", ip)
			f.dns.Host("z.test", ip)
			f.start()
			literal := "[" + ip + "]"
			if strings.Contains(ip, ":") {
				literal = "[IPv6:" + ip + "]"
			}
			f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}, letter, f.rcpts("one@y.test", "two@z.test", "three@"+literal)...)
			settle()
			if dialled := f.net.dialled(); len(dialled) != 0 {
				t.Errorf("%s: dialled %q", ip, dialled)
			}
			if got := f.mail("alice"); len(got) == 0 || strings.Contains(strings.Join(got, ""), "Action: delayed") {
				t.Errorf("%s: alice has %q", ip, got)
			}
		})
	}
}

// TestC13Rebinding: a name is looked up once in an attempt, and what was looked at is what is dialled, though it means
// something else by then.
func TestC13Rebinding(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.dns.MX("y.test", "mx.y.test")
		f.dns.Host("mx.y.test", public(1), public(2), public(3))
		f.cfg.Dial = func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
			f.dns.Host("mx.y.test", "127.0.0.1")
			return f.net.Dial(ctx, from, network, addr)
		}
		f.start()
		f.submit("<alice@a.test>", "one@y.test")
		settle()
		for _, addr := range f.net.dialled() {
			if strings.Contains(addr, "127.0.0.1") {
				t.Errorf("dialled %s", addr)
			}
		}
		if n := len(f.net.dialled()); n != 3 || f.dns.Asked("mx.y.test") != 1 {
			t.Errorf("%d addresses were dialled, and the name looked up %d times", n, f.dns.Asked("mx.y.test"))
		}
	})
}
