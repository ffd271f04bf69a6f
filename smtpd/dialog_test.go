package smtpd

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestDialog plays the dialogs of testdata/dialog, which docs/smtp.md describes: what a client says, and what must come
// back, to the letter.
func TestDialog(t *testing.T) {
	err := filepath.WalkDir("testdata/dialog", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		t.Run(strings.TrimSuffix(d.Name(), ".txt"), func(t *testing.T) {
			for _, c := range readDialogs(t, path) {
				t.Run(c.title, c.play)
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A dialog is a case of a file.
type dialog struct {
	path, title string
	kind        Kind
	from        net.IP
	limits      []func(*Limits)
	lines       []dialogLine
}

type dialogLine struct {
	number int
	sign   string // "C:", "S:" ...
	text   string
}

// signs are how lines of a dialog begin.
var signs = regexp.MustCompile(`^(C:|C-:|S:|S\*|S\.|Q:|Q\||@\w+) ?(.*)$`)

func readDialogs(t *testing.T, path string) (list []*dialog) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSuffix(line, "\n")
		title, begins := strings.CutPrefix(line, "== ")
		m := signs.FindStringSubmatch(line)
		switch {
		case begins:
			list = append(list, &dialog{path: path, title: title, from: net.IPv4(127, 0, 0, 1)})
		case line == "" || strings.HasPrefix(line, "#"):
		case m == nil || len(list) == 0:
			t.Fatalf("%s:%d: not a line of a dialog: %q", path, number, line)
		default:
			d := list[len(list)-1]
			d.lines = append(d.lines, dialogLine{number, m[1], m[2]})
			d.set(t, m[1], m[2])
		}
	}
	return list
}

// set takes a directive that says of what kind the server is.
func (d *dialog) set(t *testing.T, sign, text string) {
	switch sign {
	case "@server":
		d.kind = map[string]Kind{"mx": MX, "submission": Submission, "lmtp": LMTP}[text]
	case "@from":
		d.from = net.ParseIP(text)
	case "@limit":
		name, value, _ := strings.Cut(text, " ")
		n, err := strconv.Atoi(value)
		set := map[string]func(*Limits){
			"recipients": func(l *Limits) { l.Recipients = n }, "size": func(l *Limits) { l.MessageSize = int64(n) },
			"errors": func(l *Limits) { l.Errors = n }, "junk": func(l *Limits) { l.Junk = n }, "hops": func(l *Limits) { l.Hops = n },
			"transactions": func(l *Limits) { l.TransactionsPerConnection = n }, "logins": func(l *Limits) { l.FailedLogins = n },
			"unknown": func(l *Limits) { l.UnknownRecipients = n },
		}[name]
		if err != nil || set == nil {
			t.Fatalf("%s: no such limit: %q", d.path, text)
		}
		d.limits = append(d.limits, set)
	}
}

// config is the server that the case has for itself.
func (d *dialog) config(c *Config) {
	c.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.25/32")}
	withQueue(new([]string))(c)
	for _, set := range d.limits {
		set(&c.Limits)
	}
}

func (d *dialog) play(t *testing.T) {
	h, p := piped(t, d.kind, d.config)
	c := newClient(t, p.DialFrom(d.from))
	says := make(chan string, len(d.lines))
	defer close(says)
	go func() {
		for text := range says {
			c.send(text)
		}
	}()
	c.expect("220 mx.example.test ")
	for i, line := range d.lines {
		if wrong := d.step(h, c, says, line); wrong != "" {
			t.Fatalf("%s:%d: %s %s\n%s", d.path, line.number, line.sign, line.text, wrong)
		}
		if line.sign == "Q:" {
			d.content(t, h, d.lines[i+1:])
		}
	}
	if n := len(h.queue.take()); n != 0 {
		t.Errorf("%s: %q: %d messages were accepted that it does not tell of", d.path, d.title, n)
	}
}

// step plays a line, and says what was wrong.
func (d *dialog) step(h *house, c *client, says chan<- string, line dialogLine) string {
	switch line.sign {
	case "C:":
		says <- spoken(line.text) + "\r\n"
	case "C-:":
		says <- spoken(line.text)
	case "S:":
		got, err := c.r.ReadString('\n')
		if got = strings.TrimRight(got, "\r\n"); err != nil || !like(line.text, got) {
			return fmt.Sprintf("got %q (%v)", got, err)
		}
	case "S*":
		got, err := c.reply()
		if err != nil || !like(line.text, got[strings.LastIndexByte(got, '\n')+1:]) {
			return fmt.Sprintf("got %q (%v)", got, err)
		}
	case "S.":
		if got, err := c.r.ReadString('\n'); err == nil {
			return fmt.Sprintf("it goes on: %q", got)
		}
	case "@tls":
		c.startTLS()
	case "Q:":
		return d.accepted(h, line.text)
	}
	return ""
}

// accepted holds the next message that was accepted against "sender recipient ...".
func (d *dialog) accepted(h *house, want string) string {
	h.queue.mu.Lock()
	defer h.queue.mu.Unlock()
	if len(h.queue.got) == 0 {
		return "no message was accepted"
	}
	m := h.queue.got[0]
	got := m.Envelope.From.Path()
	for _, r := range m.rcpts {
		got += " " + r.To.Path()
	}
	if got != want {
		return "got " + got
	}
	return ""
}

// content holds what was accepted against the Q| lines that follow.
func (d *dialog) content(t *testing.T, h *house, rest []dialogLine) {
	want, given := "", false
	for _, line := range rest {
		if line.sign != "Q|" {
			break
		}
		want, given = want+spoken(line.text)+"\r\n", true
	}
	h.queue.mu.Lock()
	m := h.queue.got[0]
	h.queue.got = h.queue.got[1:]
	h.queue.mu.Unlock()
	if got := h.queue.content(t, m); given && got != want {
		t.Errorf("%s: %q: stored %q, want %q", d.path, d.title, got, want)
	}
}

// placeholders are what stands in braces in what a client says.
var placeholders = regexp.MustCompile(`\{(\d+)\*([^{}]*)\}|\{base64:([^{}]*)\}`)

// spoken is what the client says: \r, \n, \t, \x00 and placeholders are read.
func spoken(s string) string {
	s = regexp.MustCompile(`\\(r|n|t|\\|x[0-9a-f]{2})`).ReplaceAllStringFunc(s, func(escape string) string {
		text, err := strconv.Unquote(`"` + escape + `"`)
		if err != nil {
			panic(err)
		}
		return text
	})
	return placeholders.ReplaceAllStringFunc(s, func(p string) string {
		m := placeholders.FindStringSubmatch(p)
		if n, err := strconv.Atoi(m[1]); err == nil {
			return strings.Repeat(m[2], n)
		}
		return base64.StdEncoding.EncodeToString([]byte(m[3]))
	})
}

// like compares a line with what was expected, where {any} is anything.
func like(want, got string) bool {
	parts := strings.Split(want, "{any}")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(got)
}
