package imapd

import (
	"crypto/tls"
	"net"
	"regexp"
	"strings"
	"testing"

	"postroad/internal/listen/listentest"
	"postroad/internal/pagetest"
	"postroad/internal/store"
)

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
	pagetest.Conformance(t, "..", "imapd", "docs/imap.md", announced(t))
}
