package wire

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestSession(t *testing.T) {
	s := "ehlo client.test \r\nMAIL FROM:<a@b.test> SIZE=5\r\nDATA\r\n..x\r\n.\r\nBDAT 5 LAST\r\n\r\n.\r\nQUIT\r\n"
	for _, src := range []io.Reader{strings.NewReader(s), iotest.OneByteReader(strings.NewReader(s))} {
		r := NewReader(src)
		var got bytes.Buffer
		for {
			c, err := r.Command()
			if err != nil {
				got.WriteString(err.Error())
				break
			}
			got.WriteString(c.Verb + "|" + c.Arg + "\n")
			switch c.Verb {
			case "DATA":
				r.Data().WriteTo(&got)
			case "BDAT":
				io.Copy(&got, r.Chunk(5))
			}
		}
		want := "EHLO|client.test\nMAIL|FROM:<a@b.test> SIZE=5\nDATA|\n.x\r\nBDAT|5 LAST\n\r\n.\r\nQUIT|\nEOF"
		if got.String() != want {
			t.Errorf("got %q\nwant %q", got.String(), want)
		}
	}
}
