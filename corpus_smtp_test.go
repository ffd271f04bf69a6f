package postroad_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/emersion/go-imap/v2"

	"postroad"
	"postroad/internal/mbox"
)

// A specimen is a message to send.
type specimen struct {
	name string
	text []byte
}

// specimens are all messages of the corpus: single ones, those of mailbox files, and what fuzzers have left behind; with
// them our own golden ones, and lines longer than any that was seen.
func specimens(t *testing.T) (list []specimen) {
	t.Helper()
	for _, n := range []int{64 << 10, 1 << 20} {
		list = append(list, specimen{fmt.Sprintf("a line of %d octets", n), []byte("From: a@far.test\r\n\r\n" + strings.Repeat("x", n) + "\r\nend\r\n")})
	}
	for _, file := range corpus(t) {
		list = append(list, specimen{file, readFile(t, file)})
	}
	beside := filepath.Dir(corpusDir)
	for _, dir := range []string{"arc", "dkim", "dmarc", "sieve", "fuzzseeds/net-mail", "fuzzseeds/mime", "fuzzseeds/smtp-client"} {
		filepath.WalkDir(filepath.Join(beside, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				list = append(list, specimen{path, readFile(t, path)})
			}
			return nil
		})
	}
	boxes, err := filepath.Glob(filepath.Join(beside, "mbox", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range boxes {
		list = append(list, inMailbox(t, path)...)
	}
	return list
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// inMailbox are the messages of an mbox file. What is none is one message.
func inMailbox(t *testing.T, path string) (list []specimen) {
	t.Helper()
	file := readFile(t, path)
	r, err := mbox.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return []specimen{{path, file}}
	}
	for {
		m, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(m.Body)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, specimen{fmt.Sprintf("%s from octet %d", path, m.Offset), text})
	}
}

// inLines is a text as a mail client would send it: lines end in CRLF, also the last.
func inLines(text []byte) []byte {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	if !bytes.HasSuffix(text, []byte("\r\n")) {
		text = append(text, "\r\n"...)
	}
	return text
}

// asSent is inLines of a file.
func asSent(t *testing.T, file string) []byte {
	t.Helper()
	return inLines(readFile(t, file))
}

// Why a message of the corpus may be refused, and by how it begins the reply that says so.
var reasons = map[string]string{
	"550 5.6.11 ": "a CR or LF that ends no line (RFC 5321, 2.3.8)",
	"550 5.6.0 ":  "a NUL (RFC 5321, 4.5.2)",
}

// Every message goes in by DATA, by BDAT as lines, and by BDAT as the octets that the file has, or is refused for one of the
// reasons. What went in comes out of FETCH BODY[] octet for octet after the trace fields.
func TestCorpusBySMTP(t *testing.T) {
	if _, err := os.Stat(corpusDir); err != nil {
		t.Skip("the corpus is not here")
	}
	all := specimens(t)
	for _, way := range []struct {
		name  string
		send  func(c *smtpConn, text []byte) string
		as    func([]byte) []byte
		takes []string
	}{
		{"DATA", (*smtpConn).byData, inLines, []string{"550 5.6.11 ", "550 5.6.0 "}},
		{"BDAT", (*smtpConn).byChunks, inLines, []string{"550 5.6.11 ", "550 5.6.0 "}},
		{"BDAT of BINARYMIME", (*smtpConn).byBinaryChunks, slices.Clone[[]byte], nil},
	} {
		t.Run(way.name, func(t *testing.T) {
			sent := slices.Clone(all)
			for i := range sent {
				sent[i].text = way.as(sent[i].text)
			}
			sendCorpus(t, sent, way.send, way.takes)
		})
	}
}

// sendCorpus sends all to a new server and reads what came of it; takes are the reasons for which some may be refused.
func sendCorpus(t *testing.T, sent []specimen, send func(*smtpConn, []byte) string, takes []string) {
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	s := embed(t, testConfig(t, "mx.one.test"), postroad.Options{}, ann)
	accepted, refused := map[string]specimen{}, map[string]int{}
	for i, reply := range replies(t, s.Addr("smtp"), sent, send) {
		reason := slices.IndexFunc(takes, func(prefix string) bool { return strings.HasPrefix(reply, prefix) })
		switch id, ok := strings.CutPrefix(reply, "250 2.0.0 queued as "); {
		case ok:
			accepted[id] = sent[i]
		case reason < 0 || strings.HasPrefix(sent[i].name, "a line"):
			t.Errorf("%s is refused for a reason that is none: %s", sent[i].name, reply)
		default:
			refused[takes[reason]]++
		}
	}
	t.Logf("%4d accepted", len(accepted))
	for _, prefix := range slices.Sorted(maps.Keys(refused)) {
		t.Logf("%4d refused: %s%s", refused[prefix], prefix, reasons[prefix])
	}
	client := login(t, s.Addr("imap"), ann, "INBOX", nil)
	newest(t, client, uint32(len(accepted)+1))
	section := &imap.FetchItemBodySection{Peek: true}
	var rest imap.SeqSet
	rest.AddRange(2, 0) // without the welcome
	cmd := client.Fetch(rest, &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{section}})
	for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
		m, err := msg.Collect()
		if err != nil {
			t.Fatal(err)
		}
		text := m.FindBodySection(section)
		id := idIn(text)
		if !bytes.Equal(withoutTrace(text, len(accepted[id].text)), accepted[id].text) {
			t.Errorf("%s (%s) did not come out as it went in", accepted[id].name, id)
		}
		delete(accepted, id)
	}
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
	for id, x := range accepted {
		t.Errorf("%s (%s) did not come out", x.name, id)
	}
}

// idIn is the id that our Received field gives a message.
func idIn(text []byte) string {
	_, rest, _ := bytes.Cut(text, []byte(" id "))
	id, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return string(id)
}

// replies sends all on some connections, and returns the last reply to each.
func replies(t *testing.T, addr string, sent []specimen, send func(*smtpConn, []byte) string) []string {
	t.Helper()
	list := make([]string, len(sent))
	const connections = 16
	var g errgroup.Group
	for from := range connections {
		g.Go(func() error {
			var c *smtpConn
			for i := from; i < len(sent); i += connections {
				if c == nil {
					var err error
					if c, err = openSMTP(addr); err != nil {
						return err
					}
				}
				list[i] = send(c, sent[i].text)
				if !strings.HasPrefix(list[i], "250 ") { // the server may hang up
					c.Close()
					c = nil
				}
			}
			if c != nil {
				return c.Close()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return list
}

// openSMTP connects and says EHLO.
func openSMTP(addr string) (*smtpConn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(5 * time.Minute))
	c := &smtpConn{conn, textproto.NewReader(bufio.NewReader(conn)), bufio.NewWriter(conn)}
	for _, say := range []string{"", "EHLO client.test\r\n"} {
		c.w.WriteString(say)
		c.w.Flush()
		if reply := c.reply(); reply[0] != '2' {
			conn.Close()
			return nil, fmt.Errorf("the server says %q", reply)
		}
	}
	return c, nil
}

// say sends commands together, and returns the last reply, or the first that refuses.
func (c *smtpConn) say(commands ...string) (reply string) {
	c.w.WriteString(strings.Join(commands, "\r\n") + "\r\n")
	c.w.Flush()
	for range commands {
		if reply = c.reply(); reply[0] > '3' {
			break
		}
	}
	return reply
}

func (c *smtpConn) byData(text []byte) string {
	if reply := c.say("MAIL FROM:<a@far.test> BODY=8BITMIME", "RCPT TO:<ann@one.test>", "DATA"); reply[0] != '3' {
		return reply
	}
	return c.content(text)
}

// content sends lines with dots doubled, and returns the reply to their end.
func (c *smtpConn) content(text []byte) string {
	for line := range bytes.Lines(text) {
		if line[0] == '.' {
			c.w.WriteByte('.')
		}
		c.w.Write(line)
	}
	c.w.WriteString(".\r\n")
	c.w.Flush()
	return c.reply()
}

func (c *smtpConn) byChunks(text []byte) string { return c.inChunks("8BITMIME", text) }

func (c *smtpConn) byBinaryChunks(text []byte) string { return c.inChunks("BINARYMIME", text) }

// inChunks sends a text in chunks that become longer, from one octet.
func (c *smtpConn) inChunks(body string, text []byte) string {
	if reply := c.say("MAIL FROM:<a@far.test> BODY="+body, "RCPT TO:<ann@one.test>"); reply[0] != '2' {
		return reply
	}
	chunks := 1
	for size := 1; len(text) > size; size = 7*size + 3 {
		fmt.Fprintf(c.w, "BDAT %d\r\n%s", size, text[:size])
		text = text[size:]
		chunks++
	}
	fmt.Fprintf(c.w, "BDAT %d LAST\r\n%s", len(text), text)
	c.w.Flush()
	for range chunks - 1 {
		if reply := c.reply(); reply[0] != '2' {
			return reply
		}
	}
	return c.reply()
}
