package postroad_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postroad"
)

// corpusDir holds real and hostile messages; it stands beside the checkout where
// there is one.
const corpusDir = "../shared/corpus/eml"

// corpus returns the files of the corpus, and with them our own golden messages.
func corpus(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, dir := range []string{"testdata/golden", corpusDir} {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && filepath.Base(path) != "MANIFEST.tsv" && !strings.HasSuffix(path, ".golden") {
				files = append(files, path)
			}
			return nil
		})
	}
	if _, err := os.Stat(corpusDir); err != nil {
		t.Log("the corpus is not here; only the golden messages are used")
	}
	return files
}

// Every message goes in by APPEND: there nothing is prepended, and nothing may differ. ENVELOPE and BODYSTRUCTURE of all
// of them can be read by a client.
func TestCorpusByAppend(t *testing.T) {
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	s := embed(t, testConfig(t, "mx.one.test"), postroad.Options{}, ann)
	client := login(t, s.Addr("imap"), ann, "Archive", nil)
	var sent [][]byte
	var names []string
	for _, file := range corpus(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cmd := client.Append("Archive", int64(len(text)), nil)
		if _, err := cmd.Write(text); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if err := cmd.Close(); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		_, err = cmd.Wait()
		if refused := err != nil; refused != (len(text) == 0) { // no octets are no message (RFC 3502, 6.3.11)
			t.Errorf("%s: %v", file, err)
		}
		if err != nil {
			continue
		}
		sent, names = append(sent, text), append(names, file)
	}
	if err := client.Noop().Wait(); err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	fetchAll(t, client, func(_ uint32, text []byte) { got = append(got, text) })
	compareTexts(t, names, sent, got)
}

// compareTexts holds what came out against what went in. Order is not promised
// across messages, so each is looked up by what it ends with.
func compareTexts(t *testing.T, names []string, sent, got [][]byte) {
	t.Helper()
	if len(got) != len(sent) {
		t.Errorf("%d messages came out, %d went in", len(got), len(sent))
	}
	left := slices.Clone(got)
	for i, text := range sent {
		at := slices.IndexFunc(left, func(g []byte) bool { return bytes.Equal(withoutTrace(g, len(text)), text) })
		if at < 0 {
			t.Errorf("%s did not come out as it went in", names[i])
			continue
		}
		left = slices.Delete(left, at, at+1)
	}
}

// withoutTrace cuts the Return-Path and Received fields that were prepended to a
// message of n octets; nil when there is something else.
func withoutTrace(text []byte, n int) []byte {
	if len(text) < n {
		return nil
	}
	added := string(text[:len(text)-n])
	if added != "" && !(strings.HasPrefix(added, "Return-Path: <") && strings.HasSuffix(added, "\r\n") && strings.Count(added, "\r\nReceived: ") == 1) {
		return nil
	}
	return text[len(text)-n:]
}

// fetchAll calls fn with every message of the selected mailbox, in order. Each has
// an ENVELOPE and a BODYSTRUCTURE, and its RFC822.SIZE is the length of BODY[].
func fetchAll(t *testing.T, client *imapclient.Client, fn func(n uint32, text []byte)) {
	t.Helper()
	var all imap.SeqSet
	all.AddRange(1, 0)
	section := &imap.FetchItemBodySection{Peek: true}
	cmd := client.Fetch(all, &imap.FetchOptions{
		Envelope: true, RFC822Size: true, UID: true, Flags: true, InternalDate: true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
		BodySection:   []*imap.FetchItemBodySection{section},
	})
	for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
		m, err := msg.Collect()
		if err != nil {
			t.Fatalf("message %d: %v", msg.SeqNum, err)
		}
		text := m.FindBodySection(section)
		if m.Envelope == nil || m.BodyStructure == nil || m.RFC822Size != int64(len(text)) {
			t.Errorf("message %d: envelope %v, structure %v, size %d of %d octets", msg.SeqNum, m.Envelope != nil, m.BodyStructure != nil, m.RFC822Size, len(text))
		}
		fn(msg.SeqNum, text)
	}
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
}

// smtpConn speaks SMTP with nothing done for the sender.
type smtpConn struct {
	net.Conn
	text *textproto.Reader
	w    *bufio.Writer
}

func dialSMTP(t testing.TB, addr string) *smtpConn {
	t.Helper()
	c, err := openSMTP(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// reply returns the last line of the next reply.
func (c *smtpConn) reply() string {
	for {
		line, err := c.text.ReadLine()
		if err != nil {
			return fmt.Sprintf("no reply: %v", err)
		}
		if len(line) < 4 || line[3] != '-' {
			return line
		}
	}
}

func (c *smtpConn) expect(t testing.TB, prefix string) {
	t.Helper()
	if got := c.reply(); !strings.HasPrefix(got, prefix) {
		t.Fatalf("reply %q, want %s", got, prefix)
	}
}

func (c *smtpConn) command(t testing.TB, line, prefix string) {
	t.Helper()
	fmt.Fprintf(c, "%s\r\n", line)
	c.expect(t, prefix)
}

// send sends one message and returns the final reply.
func (c *smtpConn) send(t testing.TB, text []byte) string {
	t.Helper()
	c.command(t, "MAIL FROM:<sender@far.test> BODY=8BITMIME", "250")
	c.command(t, "RCPT TO:<ann@one.test>", "250")
	c.command(t, "DATA", "354")
	return c.content(text)
}

// readThrough fetches a message without keeping it, and returns its length.
func readThrough(t *testing.T, client *imapclient.Client, n uint32) (octets int64) {
	t.Helper()
	var set imap.SeqSet
	set.AddNum(n)
	cmd := client.Fetch(set, &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{Peek: true}}})
	for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
		for item := msg.Next(); item != nil; item = msg.Next() {
			if body, ok := item.(imapclient.FetchItemDataBodySection); ok {
				k, err := io.Copy(io.Discard, body.Literal)
				if err != nil {
					t.Fatal(err)
				}
				octets += k
			}
		}
	}
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
	return octets
}
