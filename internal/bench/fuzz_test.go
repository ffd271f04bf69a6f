package bench

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

// Whatever an IMAP server sends is read to its end within bounds.
func FuzzIMAPResponses(f *testing.F) {
	for _, s := range []string{
		"* 12 EXISTS\r\na1 OK done\r\n",
		"* 1 FETCH (UID 7 BODY[HEADER.FIELDS (MESSAGE-ID)] {9}\r\nabc\r\n\r\nef)\r\n",
		"* 1 FETCH (BODY[] {99999999999}\r\n",
		"* SEARCH " + strings.Repeat("1234 ", 5000) + "\r\n",
		"+ idling\r\n", "\r\n", "{0}\r\n{0}\r\n\r\n", "}\r\n", "{}\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		c := &imapConn{wire: &wire{r: bufio.NewReaderSize(bytes.NewReader(sent), 64)}}
		for c.read() == nil {
			if len(c.text) > keepText || len(c.lits) > keepLiteral {
				t.Fatalf("kept %d and %d bytes", len(c.text), len(c.lits))
			}
			c.learn()
			c.tagged()
			c.numberAfter("UID ")
			(&watcher{imapConn: c}).fetched()
		}
	})
}

// The same responses are understood however the buffer cuts them.
func TestIMAPResponsesInSmallBuffers(t *testing.T) {
	body := strings.Repeat("0123456789", 1000)
	sent := "* 3 EXISTS\r\n" +
		"* 2 FETCH (BODY[] {10000}\r\n" + body + " UID 77 FLAGS (\\Seen))\r\n" +
		"* SEARCH" + strings.Repeat(" 123456", 3000) + "\r\n" +
		"* 3 FETCH (A {3}\r\nabc B {0}\r\n C {2}\r\n}\r)\r\n"
	for _, size := range []int{16, 17, 23, 64, 4096, 1 << 20} {
		c := &imapConn{wire: &wire{r: bufio.NewReaderSize(strings.NewReader(sent), size)}}
		read := func() {
			t.Helper()
			if err := c.read(); err != nil {
				t.Fatalf("buffer of %d: %v", size, err)
			}
		}
		read()
		if c.exists != 3 {
			t.Errorf("exists %d", c.exists)
		}
		read()
		if uid, ok := (&watcher{imapConn: c}).fetched(); uid != 77 || !ok || string(c.lits) != body[:keepLiteral] {
			t.Errorf("buffer of %d: uid %d, %q", size, uid, c.text)
		}
		read()
		if c.words-2 != 3000 {
			t.Errorf("buffer of %d: %d found", size, c.words-2)
		}
		read()
		if string(c.lits) != "abc}\r" || c.bytes != int64(len(sent)) {
			t.Errorf("buffer of %d: %q, %d bytes of %d", size, c.lits, c.bytes, len(sent))
		}
	}
}

// Whatever an SMTP server sends ends in a reply or an error.
func FuzzSMTPReplies(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "250\r\n", "x\r\n", strings.Repeat("250-a\r\n", 200)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		c := &smtpConn{wire: &wire{r: bufio.NewReaderSize(bytes.NewReader(sent), 64)}}
		for {
			code, _, err := c.reply(func([]byte) {})
			if err != nil {
				return
			}
			if code < 0 || code > 999 {
				t.Fatalf("code %d", code)
			}
		}
	})
}

func FuzzParseSizes(f *testing.F) {
	f.Add("1k:30,4k:50,64k:15,1m:5")
	f.Fuzz(func(t *testing.T, s string) {
		mix, err := ParseSizes(s)
		if err != nil {
			return
		}
		for seq := range int64(20) {
			if size := mix.of(seq); size < smallestSize || size > largestSize {
				t.Fatalf("size %d", size)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (a (b) c) S 7 7 7 0 -1 4194560 1 2 3 4 11 22 33 44 20 0 1 0 99 0 0")
	f.Fuzz(func(t *testing.T, s string) {
		if p, ok := parseStat(s); ok && !strings.Contains(s, p.name) {
			t.Fatalf("%+v", p)
		}
	})
}
