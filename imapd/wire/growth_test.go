package wire

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hostile are inputs that cost a careless server memory or time beyond their size.
func hostile(n int) map[string]string {
	return map[string]string{
		"parentheses":      "a SEARCH " + strings.Repeat("(", n) + "\r\n",
		"closed ones":      "a SEARCH " + strings.Repeat(")", n) + "\r\n",
		"pairs":            "a SEARCH " + strings.Repeat("() ", n/3) + "\r\n",
		"brackets":         "a FETCH 1 " + strings.Repeat("[", n) + "\r\n",
		"sections":         "a FETCH 1 " + strings.Repeat("BODY[", n/5) + "\r\n",
		"items":            "a FETCH 1 (" + strings.Repeat("UID ", n/4) + ")\r\n",
		"header fields":    "a FETCH 1 BODY[HEADER.FIELDS (" + strings.Repeat("a ", n/2) + ")]\r\n",
		"braces":           "a LOGIN " + strings.Repeat("{", n) + "\r\n",
		"quotes":           "a LOGIN " + strings.Repeat(`"`, n) + "\r\n",
		"backslashes":      `a LOGIN "` + strings.Repeat(`\\`, n/2) + "\r\n",
		"spaces":           "a LOGIN " + strings.Repeat(" ", n) + "\r\n",
		"NOT":              "a SEARCH " + strings.Repeat("NOT ", n/4) + "ALL\r\n",
		"OR":               "a SEARCH " + strings.Repeat("OR ALL ", n/7) + "ALL\r\n",
		"keys":             "a SEARCH" + strings.Repeat(" ALL", n/4) + "\r\n",
		"a set":            "a FETCH " + strings.Repeat("1,", n/2) + "1 UID\r\n",
		"a set of ranges":  "a FETCH " + strings.Repeat("1:2,", n/4) + "1 UID\r\n",
		"parts":            "a FETCH 1 BODY[" + strings.Repeat("1.", n/2) + "1]\r\n",
		"flags":            "a STORE 1 FLAGS (" + strings.Repeat("a ", n/2) + ")\r\n",
		"patterns":         `a LIST "" (` + strings.Repeat("* ", n/2) + ")\r\n",
		"empty literals":   "a ID (" + strings.Repeat("{0+}\r\n ", n/7) + ")\r\n",
		"literals":         "a SEARCH" + strings.Repeat(" TEXT {1+}\r\na", n/13) + "\r\n",
		"refused literals": "a FROB" + strings.Repeat(" {1+}\r\na", n/8) + "\r\n",
		"groups":           "a NOTIFY SET" + strings.Repeat(" (personal NONE)", n/16) + "\r\n",
		"entries":          "a GETMETADATA a (" + strings.Repeat("/a ", n/3) + ")\r\n",
		"a tag":            strings.Repeat("a", n) + "\r\n",
		"a name":           "a DELETE " + strings.Repeat("&AOk-t", n/6) + "\r\n",
		"empty lines":      strings.Repeat("\r\n", n/2),
		"no line":          strings.Repeat("a", n),
	}
}

// Each takes memory in proportion to its size at most, and the session lives or ends in an orderly way.
func TestHostileMemory(t *testing.T) {
	const size = 1 << 20
	for name, input := range hostile(size) {
		t.Run(name, func(t *testing.T) {
			r := strings.NewReader(input + "zz NOOP\r\n")
			d := NewDecoder(r, func() error { return nil })
			d.SetLimits(AfterLogin(1 << 20))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			last := drainCommands(d)
			runtime.ReadMemStats(&after)
			most := uint64(16 * size)
			if name == "empty lines" { // one error each
				most = 300 * size
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > most {
				t.Errorf("%d KiB allocated for %d KiB", got>>10, size>>10)
			}
			if last != "zz" && name != "no line" {
				t.Errorf("the last command had the tag %q", last)
			}
		})
	}
}

// drainCommands reads to the end, and returns the tag of the last command.
func drainCommands(d *Decoder) (tag string) {
	for {
		c, err := d.Command()
		if _, ok := err.(*SyntaxError); err != nil && !ok {
			return tag
		}
		tag = c.Tag
	}
}

// Twice the input may take twice the time, not four times.
func TestHostileTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const small, times = 32 << 10, 32
	cost := func(input string) time.Duration {
		best := time.Hour
		for range 3 {
			d := NewDecoder(strings.NewReader(input), func() error { return nil })
			d.SetLimits(Limits{Command: 1 << 30, Discard: 1 << 30, Ranges: 1 << 30, Items: 1 << 30})
			start := time.Now()
			drainCommands(d)
			best = min(best, time.Since(start))
		}
		return best
	}
	large := hostile(small * times)
	for name, input := range hostile(small) {
		few, many := cost(input), cost(large[name])
		for try := 0; many > 10*times*few+250*time.Millisecond; try++ { // wide: other work is being done
			if try == 5 {
				t.Errorf("%s: %v for %d KiB, %v for %d KiB", name, few, small>>10, many, small*times>>10)
				break
			}
			many = min(many, cost(large[name]))
		}
	}
}

// A session that waits for a command holds no buffer.
func TestIdle(t *testing.T) {
	in, client := io.Pipe()
	d := NewDecoder(in, func() error { return nil })
	d.SetLimits(AfterLogin(1 << 20))
	go func() {
		client.Write([]byte("a SEARCH TEXT " + strings.Repeat("x", 100_000) + "\r\n"))
		client.Write([]byte("b NOOP\r\n"))
		client.Close()
	}()
	if _, err := d.Command(); err != nil {
		t.Fatal(err)
	}
	d.from = &watched{in, func() {
		if d.buf != nil || d.block != nil {
			t.Error("it waits with a buffer")
		}
	}}
	if _, err := d.Command(); err != nil {
		t.Fatal(err)
	}
	d.from = in
	if _, err := d.Command(); err != io.EOF {
		t.Fatal(err)
	}
}

type watched struct {
	io.Reader
	look func()
}

func (w *watched) Read(p []byte) (int, error) {
	w.look()
	return w.Reader.Read(p)
}

func TestLine(t *testing.T) {
	d := NewDecoder(strings.NewReader("DONE\r\nAGEAYg==\n"+strings.Repeat("x", maxLine)+"\r\n"+
		strings.Repeat("x", maxLine)+"{5+}\r\nzz NOOP\r\nhalf"), func() error { return nil })
	for _, want := range []string{"DONE", "AGEAYg==", strings.Repeat("x", maxLine)} {
		if got, err := d.Line(); err != nil || string(got) != want {
			t.Errorf("%.20q, %v", got, err)
		}
	}
	if _, err := d.Line(); err == nil || err.Error() != "a line is longer than 12288 octets" {
		t.Errorf("a long line: %v", err)
	}
	if c, err := d.Command(); err != nil || c.Tag != "zz" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := d.Line(); err != io.ErrUnexpectedEOF {
		t.Errorf("half a line: %v", err)
	}
}

// What was buffered when a layer changes is handed over, or forgotten.
func TestLayers(t *testing.T) {
	d := NewDecoder(strings.NewReader("a COMPRESS DEFLATE\r\nrest"), func() error { return nil })
	if _, err := d.Command(); err != nil {
		t.Fatal(err)
	}
	if d.Buffered() != 4 {
		t.Errorf("%d octets buffered", d.Buffered())
	}
	if rest := d.Rest(); string(rest) != "rest" || d.Buffered() != 0 {
		t.Errorf("%q is left", rest)
	}
	d = NewDecoder(strings.NewReader("a STARTTLS\r\nb DELETE x\r\n"), func() error { return nil })
	if _, err := d.Command(); err != nil {
		t.Fatal(err)
	}
	d.Reset(strings.NewReader("c NOOP\r\n"))
	if c, err := d.Command(); err != nil || c.Tag != "c" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestProceedFails(t *testing.T) {
	d := NewDecoder(strings.NewReader("a LOGIN {3}\r\n"), func() error { return io.ErrClosedPipe })
	if _, err := d.Command(); err != io.ErrClosedPipe {
		t.Error(err)
	}
}

// repeated gives the same command again and again.
type repeated struct {
	line []byte
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], r.line[r.at:])
		n += k
		r.at = (r.at + k) % len(r.line)
	}
	return n, nil
}

func BenchmarkDecode(b *testing.B) {
	for name, line := range map[string]string{
		"fetch":  "a1 UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (From To)])\r\n",
		"flags":  "a1 FETCH 17 FLAGS\r\n",
		"store":  "a1 UID STORE 4711 +FLAGS.SILENT (\\Seen)\r\n",
		"search": "a1 UID SEARCH RETURN (ALL) UNSEEN SINCE 1-Feb-2024 OR FROM joe SUBJECT \"more of it\"\r\n",
		"select": "a1 SELECT INBOX\r\n",
		"set":    "a1 UID FETCH " + strings.TrimSuffix(string(bytes.Repeat([]byte("123456,"), 1000)), ",") + " FLAGS\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			d := NewDecoder(&repeated{line: []byte(line)}, func() error { return nil })
			d.SetLimits(AfterLogin(1 << 20))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Command(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
