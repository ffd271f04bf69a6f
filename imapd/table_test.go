package imapd

import (
	"bytes"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postroad/internal/listen/listentest"
	"postroad/internal/store"
)

// conformance is docs/imap.md: by capability, what shows it.
func conformance(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/imap.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 || strings.HasPrefix(cells[0], "--") || strings.Contains(cells[0], " capability ") {
			continue
		}
		name := strings.TrimSpace(cells[0])
		if _, twice := rows[name]; twice {
			t.Errorf("%s has two rows", name)
		}
		rows[name] = regexp.MustCompile("`[^`]+`").FindAllString(cells[3], -1)
	}
	return rows
}

// announced are the capabilities of all states.
func announced(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	everyLogin, shows := withEveryLogin(t)
	for _, tt := range []struct {
		options  []option
		tls, far bool
		login    bool
	}{{}, {login: true}, {options: []option{withTLS(t)}, far: true}, {options: []option{everyLogin}, tls: true}} {
		h := buildHouse(t, store.Options{}, tt.options...)
		pipes := listentest.NewPipes()
		h.serveOn(pipes, tt.tls)
		conn := pipes.Dial
		if tt.far {
			conn = func() net.Conn { return pipes.DialFrom(net.IPv4(192, 0, 2, 1)) }
		}
		c := newRaw(t, conn())
		if tt.tls {
			c = newRaw(t, tls.Client(c.conn, shows))
		}
		line := c.line()
		if tt.login {
			c.send("a LOGIN " + user + ` "` + password + "\"\r\n")
			line = c.line()
		}
		m := regexp.MustCompile(`CAPABILITY ([^\]]*)\]`).FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("no capabilities in %q", line)
		}
		for name := range strings.FieldsSeq(m[1]) {
			names[rowOf(name)] = true
		}
	}
	return names
}

// rowOf is the name under which the table has a capability: values such as limits vary.
func rowOf(name string) string {
	base, _, _ := strings.Cut(name, "=")
	switch base {
	case "APPENDLIMIT", "MESSAGELIMIT", "RIGHTS", "QUOTA", "UIDONLY":
		return base
	}
	return name
}

func TestConformanceTable(t *testing.T) {
	rows, now := conformance(t), announced(t)
	for name := range now {
		if _, ok := rows[name]; !ok {
			t.Errorf("%s is announced and has no row in docs/imap.md", name)
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
		_, err := os.Stat(filepath.Join("testdata", "dialog", filepath.FromSlash(name)))
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
