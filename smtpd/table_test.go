package smtpd

import (
	"net/netip"
	"strings"
	"testing"

	"postroad/internal/pagetest"
)

// announcements are the keywords of all kinds of servers in all states.
func announcements(t *testing.T) map[string]bool {
	t.Helper()
	keywords := map[string]bool{}
	for _, kind := range []Kind{MX, Submission, LMTP} {
		hello := map[Kind]string{MX: "EHLO", Submission: "EHLO", LMTP: "LHLO"}[kind]
		_, p := piped(t, kind, withQueue(new([]string)), func(c *Config) {
			c.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.25/32")}
		})
		c := newClient(t, p.DialFrom(proxyAddr))
		c.talk("< 220\n> " + hello + " x")
		clear := c.expect("250")
		c.talk("> STARTTLS\n< 220\ntls\n> " + hello + " x")
		for line := range strings.SplitSeq(clear+"\n"+c.expect("250"), "\n") {
			if word := strings.Fields(line[4:])[0]; word != "mx.example.test" {
				keywords[word] = true
			}
		}
	}
	return keywords
}

func TestConformanceTable(t *testing.T) {
	pagetest.Conformance(t, "..", "smtpd", "docs/smtp.md", announcements(t))
}

// No keyword is announced twice, and none that has gone is.
func TestAnnouncedOnce(t *testing.T) {
	h := open(t, Submission, false)
	c := h.dial(t)
	c.talk("< 220\n> EHLO x")
	before := c.expect("250")
	c.talk("> AUTH PLAIN " + alicePlain + "\n< 235\n> EHLO x")
	after := c.expect("250")
	seen := map[string]bool{}
	for line := range strings.SplitSeq(before, "\n") {
		word := strings.Fields(line[4:])[0]
		if seen[word] {
			t.Errorf("%s is announced twice", word)
		}
		seen[word] = true
	}
	if !seen["AUTH"] || strings.Contains(after, "AUTH") {
		t.Errorf("before the login\n%s\nand after\n%s", before, after)
	}
}
