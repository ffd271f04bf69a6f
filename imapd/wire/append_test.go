package wire

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

// take reads an APPEND as a handler would, in words, and asks a client for what it waits with.
func take(input string) (got []string, asked int, err error) {
	d := NewDecoder(strings.NewReader(input), func() error { asked++; return nil })
	d.SetLimits(AfterLogin(1 << 20))
	if _, err = d.Command(); err != nil {
		return nil, asked, err
	}
	for {
		m, err := d.NextMessage()
		if m == nil {
			return got, asked, err
		}
		got = append(got, fmt.Sprint("message ", m.Flags))
		if !m.Date.IsZero() {
			got = append(got, m.Date.Format(time.RFC3339))
		}
		for {
			p, err := m.NextPart()
			if err != nil {
				return got, asked, err
			}
			if p == nil {
				break
			}
			text, err := io.ReadAll(p)
			if err != nil {
				return got, asked, err
			}
			got = append(got, fmt.Sprintf("%q url=%s binary=%v utf8=%v", text, p.URL, p.Binary, p.UTF8))
		}
	}
}

func TestAppend(t *testing.T) {
	for _, tt := range []struct {
		input string
		asked int
		want  []string
		err   string
	}{
		{"APPEND a {3}\r\nabc\r\n", 1, []string{"message []", `"abc" url= binary=false utf8=false`}, ""},
		{"APPEND a {3+}\r\nabc\r\n", 0, []string{"message []", `"abc" url= binary=false utf8=false`}, ""},
		{"APPEND a {0}\r\n\r\n", 1, []string{"message []", `"" url= binary=false utf8=false`}, ""},
		{"APPEND a ~{3+}\r\na\x00c \r\n", 0, []string{"message []", `"a\x00c" url= binary=true utf8=false`}, ""},
		{"APPEND {1}\r\na (\\Seen foo) \" 1-Feb-2024 13:14:15 +0100\" {1}\r\nx\r\n", 2,
			[]string{`message [\Seen foo]`, "2024-02-01T13:14:15+01:00", `"x" url= binary=false utf8=false`}, ""},
		{"APPEND a () \"01-feb-2024 13:14:15 +0000\" {1}\r\nx\r\n", 1,
			[]string{`message []`, "2024-02-01T13:14:15Z", `"x" url= binary=false utf8=false`}, ""},
		{"APPEND a {1+}\r\nx (\\Draft) {1+}\r\ny ~{1+}\r\nz\r\n", 0, []string{"message []", `"x" url= binary=false utf8=false`,
			`message [\Draft]`, `"y" url= binary=false utf8=false`, "message []", `"z" url= binary=true utf8=false`}, ""},
		{"APPEND a UTF8 (~{2+}\r\n\xc3\xa9)\r\n", 0, []string{"message []", `"é" url= binary=true utf8=true`}, ""},
		{"APPEND a CATENATE (URL \"/a;UIDVALIDITY=1/;UID=2\" TEXT {2+}\r\nab UTF8 (~{1+}\r\nc) url x )\r\n", 0,
			[]string{"message []", `"" url=/a;UIDVALIDITY=1/;UID=2 binary=false utf8=false`, `"ab" url= binary=false utf8=false`,
				`"c" url= binary=true utf8=true`, `"" url=x binary=false utf8=false`}, ""},
		{"APPEND a CATENATE (TEXT {1}\r\nx) CATENATE (TEXT {1}\r\ny)\r\n", 2, []string{"message []",
			`"x" url= binary=false utf8=false`, "message []", `"y" url= binary=false utf8=false`}, ""},
		{"UID REPLACE 7 a {1+}\r\nx\r\n", 0, []string{"message []", `"x" url= binary=false utf8=false`}, ""},

		{"APPEND a\r\n", 0, nil, "APPEND: expected a space, found the end of the line"},
		{"APPEND a \r\n", 0, []string{"message []"}, "APPEND: expected a literal, found the end of the line"},
		{"APPEND a x\r\n", 0, []string{"message []"}, `APPEND: expected a literal, found "x"`},
		{"APPEND a \"31-Feb-2024 13:14:15 +0000\" {1+}\r\nx\r\n", 0, nil,
			`APPEND: expected a date and time as in "01-Feb-2024 13:14:15 +0000", found "\"31-Feb-2024 13:14:15 +0000\" {1+}"`},
		{"APPEND a \"01-Feb-10000000000 13:14:15 +0000\" {1+}\r\nx\r\n", 0, nil, `APPEND: expected a date and time as in ` +
			`"01-Feb-2024 13:14:15 +0000", found "\"01-Feb-10000000000 13:14:15 +0000\" {1+}"`},
		{"APPEND a {1+}\r\nxyz\r\n", 0, []string{"message []", `"x" url= binary=false utf8=false`}, "APPEND: expected a space, found \"yz\""},
		{"APPEND a CATENATE ()\r\n", 0, nil, `APPEND: expected TEXT, URL or UTF8, found ")"`},
		{"APPEND a CATENATE (URL \"\")\r\n", 0, []string{"message []"}, `APPEND: a URL of no octets leads nowhere`},
		{"APPEND a CATENATE (TEXT {1+}\r\nx\r\n", 0, []string{"message []", `"x" url= binary=false utf8=false`},
			`APPEND: expected TEXT, URL or UTF8, found the end of the line`},
		{"APPEND a UTF8 ({1+}\r\nx)\r\n", 0, []string{"message []"}, `APPEND: expected a literal8, found "{1+}"`},
		{"APPEND a UTF8 (~{1+}\r\nx\r\n", 0, []string{"message []", `"x" url= binary=true utf8=true`},
			`APPEND: expected ')', found the end of the line`},
		{"REPLACE 7 a {1+}\r\nx {1+}\r\ny\r\n", 0, []string{"message []", `"x" url= binary=false utf8=false`},
			`REPLACE: expected the end of the command, found "{1+}"`},
	} {
		got, asked, err := take("a1 " + tt.input)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if !reflect.DeepEqual(got, tt.want) || asked != tt.asked || text != tt.err {
			t.Errorf("%q: asked %d\ngot  %q %s\nwant %q %s", tt.input, asked, got, text, tt.want, tt.err)
		}
	}
}

// A handler may stop anywhere. What follows the APPEND is then read as a command, and nothing of it.
func TestAbandon(t *testing.T) {
	for _, tt := range []struct {
		name, input string
		read        int // octets of the text that the handler reads; -1 does not accept
	}{
		{"before a literal that comes anyway", "a APPEND x {30+}\r\nb DELETE y\r\nb DELETE y\r\nabc\r\n\r\n", -1},
		{"before one that the client waits with", "a APPEND x {30}\r\n", -1},
		{"in a literal", "a APPEND x {24}\r\nb DELETE y\r\nb DELETE y\r\n {12+}\r\nb DELETE y\r\n\r\n", 5},
		{"after a literal", "a APPEND x {12}\r\nb DELETE y\r\n (\\Seen) {12+}\r\nb DELETE y\r\n\r\n", 12},
		{"before another that the client waits with", "a APPEND x {12}\r\nb DELETE y\r\n (\\Seen) {12}\r\n", 12},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecoder(strings.NewReader(tt.input+"zz NOOP\r\n"), func() error { return nil })
			if _, err := d.Command(); err != nil {
				t.Fatal(err)
			}
			m, err := d.NextMessage()
			if err != nil {
				t.Fatal(err)
			}
			p, err := m.NextPart()
			if err != nil {
				t.Fatal(err)
			}
			if tt.read >= 0 {
				if _, err := io.ReadFull(p, make([]byte, tt.read)); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Abandon(); err != nil {
				t.Fatal(err)
			}
			if n, err := p.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("read after Abandon: %d, %v", n, err)
			}
			if m, err := d.NextMessage(); m != nil || err != nil {
				t.Errorf("message after Abandon: %v, %v", m, err)
			}
			if c, err := d.Command(); err != nil || c.Tag != "zz" {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
}

func TestAppendErrors(t *testing.T) {
	broken := errors.New("broken")
	d := NewDecoder(strings.NewReader("a APPEND x {3}\r\nabc\r\n"), func() error { return broken })
	if _, err := d.Command(); err != nil {
		t.Fatal(err)
	}
	m, _ := d.NextMessage()
	p, _ := m.NextPart()
	if _, err := io.ReadAll(p); err != broken {
		t.Errorf("asking fails: %v", err)
	}
	if _, _, err := take("a APPEND x {3}\r\nab"); err != io.ErrUnexpectedEOF {
		t.Errorf("the connection ends in a literal: %v", err)
	}
}
