package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func TestWhatOthersWroteDoesNotReachTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain":           "plain",
		"grüße 日本":        "grüße 日本",
		"a\x1b[31mred":    `a\x1b[31mred`,
		"a\nb\r\tc":       `a\x0ab\x0d\x09c`,
		"\x00\x7f":        `\x00\x7f`,
		"\u009b31m":       `\x9b31m`,
		"a\u202eb\u200bc": `a\u202eb\u200bc`,
		"a\u2028b":        `a\u2028b`,
		"\xff\xfe":        `\xff\xfe`,
		"\ufffd":          "\ufffd",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := cleanLines("a\n\tb\x1b"); got != "a\n\tb\\x1b" {
		t.Errorf("lines: %q", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[0m\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range clean(s) {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
				t.Fatalf("%q lets %q through", s, r)
			}
		}
	})
}

func TestMessagesOnATerminal(t *testing.T) {
	var b bytes.Buffer
	w := &cleanWriter{w: &b}
	for _, part := range []string{"Subject: a\x1b]0;x\a\r\n\r", "\nü", strings.Repeat("y", maxTerminalLine+10), "\r\nend"} {
		if n, err := io.WriteString(w, part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	want := `Subject: a\x1b]0;x\x07` + "\n\nü" + strings.Repeat("y", maxTerminalLine+10) + "\nend"
	if b.String() != want {
		t.Errorf("got %.60q", b.String())
	}
}

func TestWordsForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 5e9: "5.0 GB", 1 << 62: "4611686.0 TB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int]string{0: "0 messages", 1: "1 message", 2: "2 messages"} {
		if got := count(n, "message"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := count(3, "mailbox"); got != "3 mailboxes" {
		t.Error(got)
	}
	if got := when(time.Time{}); got != "-" {
		t.Error(got)
	}
	if got := lasting(26*time.Hour + 1500*time.Millisecond); got != "1d2h0m1s" {
		t.Error(got)
	}
	if got := brief("a\nbcdefgh", 6); got != `a\x0a`+"b…" && len([]rune(got)) != 6 {
		t.Errorf("%q", got)
	}
}

func TestCredentials(t *testing.T) {
	for in, want := range map[string][2]string{
		"a@b.example:secret":     {"a@b.example", "secret"},
		"a@b.example:se:cr@et":   {"a@b.example", "se:cr@et"},
		"a@b.example:p@w":        {"a@b.example", "p@w"},
		`"x:y"@b.example:secret`: {`"x:y"@b.example`, "secret"},
	} {
		address, password, ok := cutCredential(in)
		if !ok || address != want[0] || password != want[1] {
			t.Errorf("%q: %q %q %v", in, address, password, ok)
		}
	}
	for _, in := range []string{"", "a", "a@b", "a:b", "@b:c", "a@:c", "a@b:", ":"} {
		if address, password, ok := cutCredential(in); ok {
			t.Errorf("%q: %q %q", in, address, password)
		}
	}
}

func TestShellWords(t *testing.T) {
	for in, want := range map[string]string{
		"a@b.example": "a@b.example", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "a;b": "'a;b'", "*": "'*'", "a&b": "'a&b'", "ü": "'ü'",
	} {
		if got := quoted(in); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
}

// Every command has an example, and the words of a sentence begin small, as in all of them.
func TestEveryCommandIsDocumented(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short description %q", c.CommandPath(), c.Short)
		}
		if !c.HasSubCommands() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s has no example of itself", c.CommandPath())
		}
	}
	walk((&app{in: os.Stdin, out: io.Discard, err: io.Discard}).root())
}

// The examples must at least parse.
func TestExamplesParse(t *testing.T) {
	a := &app{in: os.Stdin, out: io.Discard, err: io.Discard}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			_, line, _ = strings.Cut("|"+line, "postroad ")
			line, _, _ = strings.Cut(line, " > ")
			args := strings.Fields(strings.ReplaceAll(line, "'", ""))
			if len(args) == 0 {
				continue
			}
			found, rest, err := a.root().Find(args)
			if err != nil || found.CommandPath() != c.CommandPath() {
				t.Errorf("%s: the example %q is of %s, %v", c.CommandPath(), line, found.CommandPath(), err)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
			} else if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
			}
		}
	}
	for _, c := range a.root().Commands() {
		walk(c)
	}
}

func TestErrorsAndHints(t *testing.T) {
	e := control.Errorf(control.Refused, "it\x1b is refused").WithHint("ask again")
	for _, tc := range []struct {
		json bool
		err  error
		want string
	}{
		{false, e, "postroad: it\\x1b is refused\nhint: ask again\n"},
		{false, errors.New("no"), "postroad: no\n"},
		{true, e, `{"error":"it\u001b is refused","code":"refused","hint":"ask again"}` + "\n"},
		{true, errors.New("no"), `{"error":"no"}` + "\n"},
	} {
		var b bytes.Buffer
		(&app{err: &b, json: tc.json}).complain(tc.err)
		if b.String() != tc.want {
			t.Errorf("%q, want %q", b.String(), tc.want)
		}
	}
}

func TestLongListsAreAlignedInPieces(t *testing.T) {
	var b bytes.Buffer
	a := &app{out: &b}
	var values []int
	for i := range 2*tablePiece + 10 {
		values = append(values, i)
	}
	flushed := 0
	err := list(a, each(values, nil), []string{"N"}, func(t *table, v int) {
		if v == tablePiece {
			flushed = b.Len()
		}
		t.row(v)
	}, "none")
	if err != nil || flushed == 0 || strings.Count(b.String(), "\n") != len(values)+1 {
		t.Errorf("%v, %d octets after a piece, %d lines", err, flushed, strings.Count(b.String(), "\n"))
	}
}

func TestAListThatBreaksShowsWhatItHad(t *testing.T) {
	var b bytes.Buffer
	broken := func(yield func(int, error) bool) {
		_ = yield(1, nil) && yield(0, errors.New("broken"))
	}
	err := list(&app{out: &b}, broken, []string{"N"}, func(t *table, v int) { t.row(v) }, "none")
	if err == nil || b.String() != "N\n1\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}
