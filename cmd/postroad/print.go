package main

import (
	"fmt"
	"io"
	"iter"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"postroad/internal/config"
	"postroad/internal/control"
)

// clean makes a text that others wrote fit for a terminal: one line, in which
// control characters, and those that turn the direction of text, are written out.
func clean(s string) string {
	return escape(s, "")
}

// cleanLines is clean for text of several lines.
func cleanLines(s string) string {
	return escape(s, "\n\t")
}

func escape(s, keep string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strings.ContainsRune(keep, r):
			b.WriteRune(r)
		case r < ' ' || r >= 0x7f && r < 0xa0:
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// brief shortens a text to at most n characters.
func brief(s string, n int) string {
	r := []rune(clean(s))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:n-1]) + "…"
}

// size writes octets for people: "4.1 kB".
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), 0
	for v >= 999.95 && unit < 4 {
		v, unit = v/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", v, " kMGT"[unit])
}

// when writes a time in the local zone; "-" for none.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// lasting writes a duration in whole seconds.
func lasting(d time.Duration) string { return config.Duration(d.Truncate(time.Second)).String() }

// count writes a number and its noun: "1 message", "2 messages".
func count[N int | int64 | uint32](n N, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "x") || strings.HasSuffix(noun, "s"):
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// A table prints aligned columns. Long lists are aligned piece by piece, so that
// they begin to show at once and take no memory.
type table struct {
	w    *tabwriter.Writer
	rows int
}

const tablePiece = 500

// newTable begins a table; without heads it has none.
func newTable(w io.Writer, heads ...string) *table {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.StripEscape)}
	if len(heads) > 0 {
		fmt.Fprintln(t.w, strings.Join(heads, "\t"))
	}
	return t
}

// row adds a row. The cells are cleaned here.
func (t *table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, clean(fmt.Sprint(c)))
	}
	fmt.Fprintln(t.w)
	if t.rows++; t.rows%tablePiece == 0 {
		t.w.Flush()
	}
}

// list prints what seq yields: JSON lines, or a table with a last line when it is
// empty.
func list[T any](a *app, seq iter.Seq2[T, error], heads []string, row func(t *table, v T), none string) error {
	var t *table
	for v, err := range seq {
		if err != nil {
			flush(t)
			return err
		}
		if a.json {
			if err := a.printJSON(v); err != nil {
				return err
			}
			continue
		}
		if t == nil {
			t = newTable(a.out, heads...)
		}
		row(t, v)
	}
	if t == nil && !a.json {
		fmt.Fprintln(a.out, none)
	}
	flush(t)
	return nil
}

func flush(t *table) {
	if t != nil {
		t.w.Flush()
	}
}

// each is a sequence of what a slice holds, or of an error.
func each[T any](values []T, err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		if err != nil {
			yield(zero, err)
			return
		}
		for _, v := range values {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// A progressLine shows on a terminal how far long work is, and nothing elsewhere.
type progressLine struct {
	w     io.Writer // nil: no terminal
	last  time.Time
	width int
}

const progressEvery = 100 * time.Millisecond

func (a *app) progress() *progressLine {
	if a.json || !isTerminal(a.err) {
		return &progressLine{}
	}
	return &progressLine{w: a.err}
}

// show replaces the line, at most ten times a second.
func (p *progressLine) show(format string, args ...any) {
	if p.w == nil || time.Since(p.last) < progressEvery {
		return
	}
	p.last = time.Now()
	text := brief(fmt.Sprintf(format, args...), 79)
	fmt.Fprintf(p.w, "\r%-*s", p.width, text)
	p.width = utf8.RuneCountInString(text)
}

// end takes the line away.
func (p *progressLine) end() {
	if p.w != nil && p.width > 0 {
		fmt.Fprintf(p.w, "\r%*s\r", p.width, "")
	}
}

// during shows a line while work goes on that does not tell how far it is.
func (a *app) during(what string, work func() error) error {
	line := a.progress()
	line.show("%s ...", what)
	defer line.end()
	return work()
}

func (p *progressLine) of(v control.Progress) {
	if v.Total > 0 {
		p.show("%s: %d of %d (%d %%)", v.What, v.Done, v.Total, v.Done*100/v.Total)
		return
	}
	p.show("%s ...", v.What)
}
