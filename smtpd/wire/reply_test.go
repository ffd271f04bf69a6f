package wire

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func said(list ...Reply) string {
	var b strings.Builder
	w := NewWriter(&b)
	for _, r := range list {
		w.Reply(r)
	}
	w.Flush()
	return b.String()
}

func TestReply(t *testing.T) {
	tests := []struct {
		name  string
		reply Reply
		want  string
	}{
		{"plain", Reply{250, "2.1.0", "sender accepted"}, "250 2.1.0 sender accepted\r\n"},
		{"without an enhanced code", Reply{354, "", "go on"}, "354 go on\r\n"},
		{"without text", Reply{250, "2.0.0", ""}, "250 2.0.0 \r\n"},
		{"nothing but a code", Reply{334, "", ""}, "334 \r\n"},
		{"lines", Reply{250, "", "mx.test\nPIPELINING\nSIZE 1000"}, "250-mx.test\r\n250-PIPELINING\r\n250 SIZE 1000\r\n"},
		{"the code on each line", Reply{550, "5.7.1", "one\ntwo"}, "550-5.7.1 one\r\n550 5.7.1 two\r\n"},
		{"an empty line within", Reply{550, "5.7.1", "one\n\ntwo"}, "550-5.7.1 one\r\n550-5.7.1 \r\n550 5.7.1 two\r\n"},
		{"a line end at the end", Reply{250, "", "one\n"}, "250 one\r\n"},
		{"CRLF", Reply{250, "", "one\r\ntwo\r\n"}, "250-one\r\n250 two\r\n"},
		{"CR", Reply{250, "", "one\r250 two"}, "250 one 250 two\r\n"},
		{"controls", Reply{501, "5.5.4", "no\x00 such \x1b[2J\x7f"}, "501 5.5.4 no? such ?[2J?\r\n"},
		{"tab", Reply{250, "", "a\tb"}, "250 a b\r\n"},
		{"UTF-8", Reply{553, "5.6.7", "no \u00fc here"}, "553 5.6.7 no ? here\r\n"},
		{"UTF-8, too long", Reply{250, "2.0.0", strings.Repeat("\u00fc", 600)}, "250 2.0.0 " + strings.Repeat("?", 250) + "\r\n"},
		{"no UTF-8", Reply{553, "5.6.7", "no \xff here"}, "553 5.6.7 no ? here\r\n"},
		{"control in UTF-8", Reply{553, "5.6.7", "no \u0085\u202e here"}, "553 5.6.7 no ?? here\r\n"},
		{"a digit of three", Reply{550, "5.7.509", "x"}, "550 5.7.509 x\r\n"},
		{"another class", Reply{450, "5.7.1", "x"}, "450 x\r\n"},
		{"a class that has none", Reply{354, "3.0.0", "x"}, "354 x\r\n"},
		{"no code at all", Reply{Text: "x"}, "451 4.3.0 x\r\n"},
		{"no code of ours", Reply{100, "", "x"}, "451 4.3.0 x\r\n"},
		{"a code that is too great", Reply{600, "", "x"}, "451 4.3.0 x\r\n"},
		{"enhanced nonsense", Reply{550, "5.7\r\n250 ok", "x"}, "550 x\r\n"},
		{"enhanced, too long", Reply{550, "5.7.1000", "x"}, "550 x\r\n"},
		{"enhanced, one too many", Reply{550, "5.7.1.1", "x"}, "550 x\r\n"},
		{"too long", Reply{250, "2.0.0", strings.Repeat("x", 600)}, "250 2.0.0 " + strings.Repeat("x", 500) + "\r\n"},
		{"as long as may be", Reply{250, "2.0.0", strings.Repeat("x", 500)}, "250 2.0.0 " + strings.Repeat("x", 500) + "\r\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := said(test.reply); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestReplyIsAnError(t *testing.T) {
	err := fmt.Errorf("recipient: %w", &Reply{550, "5.1.1", "no such user\r\nhere\x1b"})
	refusal, ok := errors.AsType[*Reply](err)
	if !ok || refusal.Error() != "550 5.1.1 no such user here?" {
		t.Errorf("got %v", err)
	}
	if got := (&Reply{Code: 354, Text: "go on"}).Error(); got != "354 go on" {
		t.Errorf("got %q", got)
	}
}

// writes keeps each write apart.
type writes struct {
	list []string
	err  error
}

func (w *writes) Write(p []byte) (int, error) {
	w.list = append(w.list, string(p))
	return len(p), w.err
}

func TestRepliesLeaveTogether(t *testing.T) {
	var to writes
	w := NewWriter(&to)
	for range 3 {
		w.Reply(Reply{250, "2.0.0", "ok"})
	}
	if len(to.list) != 0 || w.n != 3*len("250 2.0.0 ok\r\n") {
		t.Errorf("%d writes, %d octets wait", len(to.list), w.n)
	}
	if err := w.Flush(); err != nil || len(to.list) != 1 || w.n != 0 {
		t.Errorf("%d writes, %d octets wait, %v", len(to.list), w.n, err)
	}
	if w.Flush(); len(to.list) != 1 {
		t.Error("nothing was written")
	}
}

// However many replies are due, a page is what they take.
func TestManyReplies(t *testing.T) {
	var to writes
	w := NewWriter(&to)
	for range 1000 {
		w.Reply(Reply{250, "2.1.5", "recipient accepted"})
	}
	w.Flush()
	all := strings.Join(to.list, "")
	if all != strings.Repeat("250 2.1.5 recipient accepted\r\n", 1000) {
		t.Error("replies are lost")
	}
	for _, p := range to.list {
		if len(p) > len(page{}) || !strings.HasSuffix(p, "\r\n") {
			t.Errorf("a write of %d octets", len(p))
		}
	}
	if want := len(all)/(len(page{})-maxReplyLine) + 1; len(to.list) > want {
		t.Errorf("%d writes, at most %d are needed", len(to.list), want)
	}
}

func TestWriterFails(t *testing.T) {
	to := writes{err: io.ErrClosedPipe}
	w := NewWriter(&to)
	w.Reply(Reply{250, "", "one"})
	for range 2 {
		if err := w.Flush(); err != io.ErrClosedPipe {
			t.Error(err)
		}
		w.Reply(Reply{250, "", "two"})
	}
	if len(to.list) != 1 {
		t.Errorf("%q were written", to.list)
	}
}

// Whatever is to be said, it leaves as lines of one reply.
func FuzzReply(f *testing.F) {
	f.Add(250, "2.1.0", "ok")
	f.Add(550, "5.7.1", "one\r\ntwo\n\x00\xff\u202e")
	f.Add(0, "5.7\r\n", "\r250 x")
	f.Fuzz(func(t *testing.T, code int, enhanced, text string) {
		out := said(Reply{code, enhanced, text})
		whole, ok := strings.CutSuffix(out, "\r\n")
		if !ok {
			t.Fatalf("%q", out)
		}
		lines := strings.Split(whole, "\r\n")
		for i, line := range lines {
			mark := byte('-')
			if i == len(lines)-1 {
				mark = ' '
			}
			if len(line) > 510 || len(line) < 4 || line[:3] != out[:3] || line[3] != mark || line[0] < '2' || line[0] > '5' {
				t.Fatalf("line %d is %q", i, line)
			}
			if strings.ContainsFunc(line, func(r rune) bool { return isControl(r) || r > '~' }) {
				t.Fatalf("line %d is %q", i, line)
			}
		}
	})
}
