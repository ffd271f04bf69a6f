package wire

import (
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// A client sends a command in pieces of text and literals, as RFC 9051 frames them: a synchronising literal, and what
// follows it, only when it was asked for. Otherwise, and after the command, it sends "zz NOOP".
type client struct {
	pieces []piece
	asked  int
	queue  string
	step   int // octets of one read
	ended  bool
}

type piece struct {
	text    string
	literal string
	sync    bool
	last    bool
	octet8  bool
}

func (c *client) Read(p []byte) (int, error) {
	for c.queue == "" {
		if !c.more() {
			return 0, io.EOF
		}
	}
	n := copy(p[:min(len(p), max(c.step, 1))], c.queue)
	c.queue = c.queue[n:]
	return n, nil
}

// more queues what the client sends next; while it waits for what does not come it has taken a refusal for an answer.
func (c *client) more() bool {
	switch {
	case c.ended:
		return false
	case len(c.pieces) == 0:
		c.queue, c.ended = "zz NOOP\r\n", true
		return true
	}
	p := &c.pieces[0]
	switch {
	case p.text != "" || p.last:
		c.queue, p.text = p.text+p.announce(), ""
		if p.last {
			c.pieces = c.pieces[1:]
		}
	case p.sync && c.asked == 0:
		c.pieces = nil
	default:
		if p.sync {
			c.asked--
		}
		c.queue, c.pieces = p.literal, c.pieces[1:]
	}
	return true
}

func (p *piece) announce() string {
	if p.last {
		return "\r\n"
	}
	s := "{" + itoa(len(p.literal))
	if p.octet8 {
		s = "~" + s
	}
	if !p.sync {
		s += "+"
	}
	return s + "}\r\n"
}

func itoa(n int) string {
	e := NewEncoder(&strings.Builder{})
	return string(e.Number(uint64(n)).buf)
}

// pieces makes a command of fuzz: 0xF0 to 0xF3 announce a literal, which has as many octets as the next one says.
func pieces(fuzz []byte) (list []piece) {
	text := []byte("a1 ")
	for i := 0; i < len(fuzz); i++ {
		c := fuzz[i]
		switch {
		case c == '\r' || c == '\n':
			text = append(text, ' ')
		case c >= 0xF0 && c <= 0xF3 && i+1 < len(fuzz):
			n := min(int(fuzz[i+1]), len(fuzz)-i-2)
			list = append(list, piece{text: string(text), literal: string(fuzz[i+2 : i+2+n]), sync: c&1 != 0, octet8: c&2 != 0})
			text, i = nil, i+1+n
			text = append(text, ' ')
		default:
			text = append(text, c)
		}
	}
	if _, _, ok := announced(text); ok { // text is no literal
		text = append(text, ' ')
	}
	return append(list, piece{text: string(text), last: true})
}

// run reads one command and all that belongs to it.
func run(d *Decoder) error {
	c, err := d.Command()
	if err != nil {
		return err
	}
	if c.Name != "APPEND" && c.Name != "REPLACE" {
		return nil
	}
	for {
		m, err := d.NextMessage()
		if m == nil {
			return err
		}
		for {
			p, err := m.NextPart()
			if err != nil {
				return err
			}
			if p == nil {
				break
			}
			if p.Size%3 == 1 {
				return d.Abandon()
			}
			if p.Size%3 == 2 {
				if _, err := io.Copy(io.Discard, p); err != nil {
					return err
				}
			}
		}
	}
}

func seedCommands(f *testing.F) {
	for _, line := range []string{
		"NOOP", "LOGIN joe \"secret\"", "LOGIN \xf1\x03joe\xf0\x03abc", "AUTHENTICATE PLAIN AGEAYg==", "ID (\"a\" NIL)",
		"SELECT INBOX (CONDSTORE QRESYNC (1 2 3:4 (5 50)))", "CREATE a (USE (\\Sent))", "ENABLE CONDSTORE",
		"LIST (SUBSCRIBED) \"\" (a b) RETURN (CHILDREN STATUS (MESSAGES))", "STATUS &AOk- (UNSEEN)", "LSUB \"\" *",
		"NOTIFY SET STATUS (selected (MessageNew (UID BODY.PEEK[]) MessageExpunge)) (subtree (a b) NONE)",
		"SETACL a joe +lr", "GETMETADATA (MAXSIZE 10) a (/a)", "SETMETADATA a (/x \xf3\x02ab)", "SETQUOTA \"\" (STORAGE 5)",
		"UID FETCH 1:*,3 (FLAGS BODY[1.HEADER.FIELDS (To)]<0.5>) (CHANGEDSINCE 5 VANISHED)", "FETCH 1 PREVIEW (LAZY)",
		"UID STORE 5:* (UNCHANGEDSINCE 7) +FLAGS.SILENT (\\Seen)", "UID EXPUNGE $", "MOVE 1 INBOX",
		"SEARCH RETURN (PARTIAL 1:5) CHARSET UTF-8 OR (FROM \xf1\x02ab) NOT SINCE 1-Feb-2024 MODSEQ 5",
		"ESEARCH IN (mailboxes a) ALL", "SORT (REVERSE DATE) UTF-8 ALL", "THREAD REFS UTF-8 ALL", "CANCELUPDATE \"a\"",
		"APPEND a (\\Seen) \" 1-Feb-2024 13:14:15 +0100\" \xf1\x05abcde\xf0\x02ab", "APPEND a CATENATE (URL x TEXT \xf1\x03abc)",
		"APPEND a \xf0\x04abcd", "APPEND a \xf1\x04abcd", "APPEND a UTF8 (\xf2\x02ab)", "UID REPLACE 5 a \xf1\x02ab",
		"SELECT \"{5+}", "FROB {5+}", "FROB \xf0\x0aa DELETE b", "LOGIN {18446744073709551616+}", "",
	} {
		f.Add([]byte(line), uint8(200))
		f.Add([]byte(line), uint8(1))
	}
}

// However a command is, and whatever a handler does with it, the next one is read as the client means it.
func FuzzCommand(f *testing.F) {
	seedCommands(f)
	f.Fuzz(func(t *testing.T, fuzz []byte, step uint8) {
		c := &client{pieces: pieces(fuzz), step: int(step)}
		d := NewDecoder(c, func() error { c.asked++; return nil })
		d.SetLimits(AfterLogin(1 << 20))
		d.UTF8(step%2 == 0)
		err := run(d)
		var syntax *SyntaxError
		switch {
		case err == ErrFlood:
			return
		case err != nil && !errors.As(err, &syntax):
			t.Fatalf("%q: %v", fuzz, err)
		case syntax != nil:
			checkSyntaxError(t, syntax)
		}
		if next, err := d.Command(); err != nil || next.Tag != "zz" || next.Name != "NOOP" {
			t.Fatalf("after %q: %+v, %v", fuzz, next, err)
		}
	})
}

func checkSyntaxError(t *testing.T, e *SyntaxError) {
	t.Helper()
	if len(e.Text) > 300 {
		t.Errorf("an error of %d octets", len(e.Text))
	}
	for _, c := range []byte(e.Tag + e.Status + e.Code + e.Text) {
		if c < ' ' || c > '~' {
			t.Fatalf("an error that cannot be sent: %q %q", e.Tag, e.Text)
		}
	}
}

// Anything at all may come, in any split.
func FuzzBytes(f *testing.F) {
	for _, s := range []string{"", "\r\n", "a NOOP\r\n", "a LOGIN {3}\r\nabc {3+}\r\nabc\r\n", "a FETCH 1 BODY[", "\x00\x00", "{5+}\r\n", "a APPEND x ~{3+}\r\nabc"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, fuzz []byte) {
		whole := commands(t, strings.NewReader(string(fuzz)))
		split := commands(t, iotest.OneByteReader(strings.NewReader(string(fuzz))))
		if !reflect.DeepEqual(whole, split) {
			t.Errorf("read at once %q\noctet by octet %q", whole, split)
		}
	})
}

func commands(t *testing.T, r io.Reader) (all []string) {
	d := NewDecoder(r, func() error { return nil })
	for {
		err := run(d)
		var syntax *SyntaxError
		switch {
		case errors.As(err, &syntax):
			checkSyntaxError(t, syntax)
			all = append(all, syntax.Tag+" "+syntax.Text)
		case err != nil:
			return append(all, err.Error())
		default:
			all = append(all, d.tag+" "+d.name)
		}
		if cap(d.buf) > 4*d.limits.Command {
			t.Fatalf("a buffer of %d octets", cap(d.buf))
		}
	}
}

// A set that is read is what it says, and nothing else is read.
func FuzzSet(f *testing.F) {
	for _, s := range []string{"1", "1:*", "5:*,3", "4294967295", "4294967296", "0", "1:0", "*", "*:*", "1,,2", "$", "007"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ranges, why := parseSet([]byte(s), 1000)
		if why != "" {
			return
		}
		var b strings.Builder
		for i, r := range ranges {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(number(r.From))
			if r.To != r.From {
				b.WriteString(":" + number(r.To))
			}
		}
		again, why := parseSet([]byte(b.String()), 1000)
		if why != "" || !reflect.DeepEqual(ranges, again) {
			t.Errorf("%q is %v, written %q and read as %v %s", s, ranges, b.String(), again, why)
		}
	})
}

func number(n uint32) string {
	if n == 0 {
		return "*"
	}
	return itoa(int(n))
}

// Searches that are read are within the limits.
func FuzzSearch(f *testing.F) {
	for _, s := range []string{"ALL", "OR SEEN NOT (DELETED 1:*)", "FUZZY TEXT a", "MODSEQ \"/flags/\\\\Draft\" all 7",
		"RETURN (PARTIAL -1:-5 COUNT) ALL", "CHARSET utf-8 TEXT {1+}\r\na", "((((ALL))))", "SINCE 1-Feb-2024 UID $"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := decode("a1 SEARCH " + s + "\r\n")
		if err != nil || c.Name != "SEARCH" {
			return
		}
		search := c.Args.(*Search)
		if n, deep := measure(search.Key); n > 10_000+maxDepth || deep > 2*maxDepth+2 {
			t.Errorf("%d keys, %d deep", n, deep)
		}
		if r := search.Return; r != nil && reflect.DeepEqual(r, &SearchReturn{}) {
			t.Error("RETURN of nothing")
		}
	})
}

// measure is how many keys there are, and how deep they are in one another.
func measure(k SearchKey) (n, deep int) {
	for _, inner := range k.Keys {
		m, d := measure(inner)
		n, deep = n+m, max(deep, d)
	}
	return n + 1, deep + 1
}

// Items of a FETCH that are read can be answered.
func FuzzFetch(f *testing.F) {
	for _, s := range []string{"ALL", "(UID FLAGS)", "BODY[1.2.HEADER.FIELDS.NOT (a b)]<5.10>", "BINARY.SIZE[1]", "PREVIEW (LAZY) (PARTIAL 1:5)",
		"BODY[TEXT]<9223372036854775807.9223372036854775807>", "RFC822.HEADER (CHANGEDSINCE 5)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := decode("a1 UID FETCH 1:* " + s + "\r\n")
		if err != nil || c.Name != "FETCH" {
			return
		}
		fetch := c.Args.(*Fetch)
		if len(fetch.Items) == 0 || len(fetch.Items) > maxFetch {
			t.Errorf("%d items", len(fetch.Items))
		}
		for _, item := range fetch.Items {
			s := item.Section
			if s.From < 0 || s.Count < 0 || s.Cut && s.Count > math.MaxInt64-s.From || len(s.Part) > maxDepth {
				t.Errorf("%+v", s)
			}
			if item.Attr != FetchSection && (s.Text != SectionAll || len(s.Fields) > 0) {
				t.Errorf("%+v", item)
			}
		}
	})
}
