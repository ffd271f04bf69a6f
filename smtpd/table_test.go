package smtpd

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// conformance is the first table of docs/smtp.md: by keyword, what shows it.
func conformance(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/smtp.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		name := strings.TrimSpace(cells[0])
		if len(cells) != 4 || strings.HasPrefix(name, "--") || name == "keyword" {
			continue
		}
		if _, twice := rows[name]; twice {
			t.Errorf("%s has two rows", name)
		}
		rows[name] = regexp.MustCompile("`[^`]+`").FindAllString(cells[3], -1)
	}
	return rows
}

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
	rows, now := conformance(t), announcements(t)
	for name := range now {
		if _, ok := rows[name]; !ok {
			t.Errorf("%s is announced and has no row in docs/smtp.md", name)
		}
	}
	tests := testSources(t)
	for name, shown := range rows {
		if !now[name] {
			t.Errorf("%s has a row and is not announced", name)
		}
		if len(shown) == 0 {
			t.Errorf("nothing shows %s", name)
		}
		for _, s := range shown {
			if s = strings.Trim(s, "`"); !exists(tests, s) {
				t.Errorf("%s is shown by %s, which does not exist", name, s)
			}
		}
	}
}

// exists reports whether a dialog or a test of this name does.
func exists(tests []byte, name string) bool {
	if strings.HasSuffix(name, ".txt") {
		_, err := os.Stat(filepath.Join("testdata", "dialog", name))
		return err == nil
	}
	return bytes.Contains(tests, []byte("func "+name+"("))
}

func testSources(t *testing.T) (all []byte) {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	for _, file := range files {
		b, readErr := os.ReadFile(file)
		if err = readErr; err != nil {
			break
		}
		all = append(all, b...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
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
