package imapd

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"postroad/internal/listen/listentest"
)

// compressed logs in, asks for COMPRESS, and returns the connection, from which the test reads plain lines and to which
// it writes octets of DEFLATE.
func (h *house) compressed() *raw {
	h.t.Helper()
	c := h.loggedIn()
	c.dialog("> z COMPRESS DEFLATE\n< z OK ...")
	c.r = bufio.NewReader(flate.NewReader(c.r))
	return c
}

// said is what zlib makes of commands, with a flush of one kind after each.
var said = []struct{ name, octets string }{
	{"Z_PARTIAL_FLUSH", `4a520876f571750e51f0f473f28fe0e50208 a064053f7fff005e2e8000
		4a51080e710c090d86882b68f8ba06073bbabb062b847abaf8b9468468f2720104 50aa82a78b8f2b2f1740 00b9f8fb01498000`},
	{"Z_SYNC_FLUSH", `4a520876f571750e51f0f473f28fe0e502000000ffff 4a56f0f3f70fe0e502000000ffff
		4a51080e710c090d86882b68f8ba06073bbabb062b847abaf8b9468468f27201000000ffff 4a55f074f171e5e502000000ffff
		72f1f7039200000000ffff`},
}

// However a client flushes, and wherever what it sends is cut, each command is answered without another octet.
func TestCompressFlush(t *testing.T) {
	answers := []string{"b OK ...", "c OK ...", "d OK ...", "+ idling", "e OK ..."}
	h := newHouse(t)
	pipes := listentest.NewPipes() // which keep what is cut in pieces
	h.serveOn(pipes, false)
	for _, tt := range said {
		for _, most := range []int{1, 2, 3, 5, 100} {
			c := newRaw(t, pipes.Dial())
			c.dialog("< * OK ...")
			c.login().dialog("> z COMPRESS DEFLATE\n< z OK ...")
			c.r = bufio.NewReader(flate.NewReader(c.r))
			for i, piece := range strings.Fields(tt.octets) {
				b, err := hex.DecodeString(piece)
				h.must(err)
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					for part := range slices.Chunk(b, most) {
						c.conn.Write(part) // when the server has closed, the missing answer tells
					}
				}()
				line := c.line()
				for strings.HasPrefix(line, "* ") {
					line = c.line()
				}
				<-sent
				if !like(answers[i], line) {
					t.Fatalf("%s, %d at a time: %q, want %q", tt.name, most, line, answers[i])
				}
			}
		}
	}
}

// A few octets that become many are bounded as the many are.
func TestCompressBomb(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.MessageSize = 1000 })
	c := h.compressed()
	w, err := flate.NewWriter(c.conn, 9)
	h.must(err)
	go func() {
		zeros := bytes.Repeat([]byte("x"), 1<<20)
		for range 100 {
			if _, err := w.Write(zeros); err != nil {
				return
			}
		}
		w.Flush()
	}()
	c.expect("* BYE that is more than a client may send")
	c.closed()
}

func TestCompressTwice(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Compressed = 1 })
	c := h.compressed()
	w, err := flate.NewWriter(c.conn, 9)
	h.must(err)
	fmt.Fprint(w, "a COMPRESS DEFLATE\r\nb COMPRESS LZW\r\nc CAPABILITY\r\n")
	h.must(w.Flush())
	c.expect("a NO [COMPRESSIONACTIVE] ...")
	c.expect("b NO ...")
	if line := c.line(); strings.Contains(line, "COMPRESS") {
		t.Errorf("announced: %q", line)
	}
	c.expect("c OK ...")

	other := h.loggedIn()
	other.dialog("> a COMPRESS DEFLATE\n< a NO [LIMIT] ...\n> b NOOP\n< b OK ...")
	c.conn.Close()
	for line := ""; !strings.HasPrefix(line, "c OK"); { // when the server has seen that it is gone
		other.send("c COMPRESS DEFLATE\r\n")
		line = other.line()
	}
}

func TestCompressAfterLoginOnly(t *testing.T) {
	newHouse(t).raw().dialog("< * OK ...\n> a COMPRESS DEFLATE\n< a BAD ...\n> b NOOP\n< b OK ...")
}

// What is not DEFLATE ends the connection.
func TestCompressGarbage(t *testing.T) {
	c := newHouse(t).compressed()
	c.send("\x07\x07\x07\x07")
	c.expect("* BYE ...")
	if _, err := io.ReadAll(c.r); err != nil && err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}

// UNAUTHENTICATE ends the compression of both (RFC 8437, 4.1), however the client ends its stream, and it need not wait for
// the answer.
func TestUnauthenticateEndsCompression(t *testing.T) {
	h := newHouse(t)
	for _, finish := range []func(*flate.Writer) error{(*flate.Writer).Flush, (*flate.Writer).Close} {
		for _, pipelined := range []bool{true, false} {
			c := h.loggedIn()
			plain := c.r
			c.dialog("> z COMPRESS DEFLATE\n< z OK ...")
			c.r = bufio.NewReader(flate.NewReader(plain))
			var said bytes.Buffer
			w, err := flate.NewWriter(&said, 9)
			h.must(err)
			fmt.Fprint(w, "a UNAUTHENTICATE\r\n")
			h.must(finish(w))
			if pipelined {
				said.WriteString("b NOOP\r\n")
			}
			c.send(said.String())
			c.expect("a OK ...")
			c.r = plain
			if !pipelined {
				c.send("b NOOP\r\n")
			}
			c.expect("b OK ...")
			c.dialog("> c FETCH 1 FLAGS\n< c BAD ...")
		}
	}
}
