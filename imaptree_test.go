package postroad_test

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"postroad/internal/imaptest"
)

// A treeConn is a session that is compared with another.
type treeConn struct {
	name string
	r    imaptest.Reader
	w    io.Writer
	tag  int
	caps map[string]bool
}

func newTreeConn(name string, r io.Reader, w io.Writer) *treeConn {
	return &treeConn{name: name, r: imaptest.NewReader(r), w: w}
}

// refused is a NO or BAD.
type refused struct{ text string }

func (e *refused) Error() string { return e.text }

// command sends a command, with literals for each {} in it, and returns the untagged responses.
func (c *treeConn) command(line string, literals ...[]byte) (untagged [][]imaptest.Tree, err error) {
	c.tag++
	tag := "t" + strconv.Itoa(c.tag)
	pieces := strings.Split(tag+" "+line, "{}")
	for i, piece := range pieces {
		if i > 0 {
			c.w.Write(literals[i-1])
		}
		if i < len(literals) {
			piece += fmt.Sprintf("{%d+}", len(literals[i]))
		}
		if _, err := io.WriteString(c.w, piece+"\r\n"); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for {
		response, err := c.r.Response()
		if err != nil {
			return untagged, fmt.Errorf("%s: %s: %w", c.name, line, err)
		}
		if !response[0].Is(tag) {
			untagged = append(untagged, response)
			continue
		}
		if !response[1].Is("OK") {
			return untagged, &refused{fmt.Sprintf("%s: %s: %v", c.name, line, response[1:])}
		}
		return untagged, nil
	}
}

func (c *treeConn) must(t testing.TB, line string, literals ...[]byte) [][]imaptest.Tree {
	t.Helper()
	untagged, err := c.command(line, literals...)
	if err != nil {
		t.Fatal(err)
	}
	return untagged
}

// fetch returns the items of each message that is told, by upper-case name.
func (c *treeConn) fetch(line string) (map[uint32]map[string]imaptest.Tree, error) {
	untagged, err := c.command(line)
	messages := map[uint32]map[string]imaptest.Tree{}
	for _, r := range untagged {
		if len(r) != 4 || !r[2].Is("FETCH") {
			continue
		}
		n, _ := r[1].Number()
		if messages[n] == nil {
			messages[n] = map[string]imaptest.Tree{}
		}
		for i := 0; i+1 < len(r[3].List); i += 2 {
			messages[n][strings.ToUpper(r[3].List[i].Text)] = r[3].List[i+1]
		}
	}
	return messages, err
}

// can reports whether the server announces a capability.
func (c *treeConn) can(t testing.TB, capability string) bool {
	t.Helper()
	if c.caps == nil {
		c.caps = map[string]bool{}
		for _, r := range c.must(t, "CAPABILITY") {
			for _, word := range r {
				c.caps[strings.ToUpper(word.Text)] = true
			}
		}
	}
	return c.caps[capability]
}
