package config

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Write writes the configuration as a file that Parse accepts: every key with its
// documentation and the value in force. Passwords are stars.
func (c Config) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	for i, sec := range c.all() {
		if i > 0 {
			b.WriteByte('\n')
		}
		sec.write(b, "")
	}
	return b.Flush()
}

// String is what Write writes.
func (c Config) String() string {
	var b strings.Builder
	_ = c.Write(&b) // a Builder does not fail
	return b.String()
}

const sampleHead = `# The configuration of postroad. Every key is shown with its default; remove the
# "#" in front of a key to change it.
#
# Durations are written "90s", "5m", "4h" or "5d"; sizes "50MB" (a million octets
# each) or "64MiB".

`

// WriteSample writes a documented file to begin with: every key, commented out,
// with its default.
func WriteSample(w io.Writer) error {
	b := bufio.NewWriter(w)
	b.WriteString(sampleHead)
	c := Default()
	for _, sec := range c.settings() {
		sec.write(b, "#")
		b.WriteByte('\n')
	}
	certificateSection(&Certificate{Cert: "example.org.pem", Key: "example.org.key"}).write(b, "#")
	b.WriteByte('\n')
	r := sampleRoute()
	routeSection(&r).write(b, "#")
	b.WriteByte('\n')
	hook := sampleWebhook()
	webhookSection(&hook).write(b, "#")
	return b.Flush()
}

// write writes a section with its keys behind mark. The header of a table always
// stands, so that a key whose mark is removed is in its table; that of a route,
// which would be an empty route, is marked too.
func (sec section) write(b *bufio.Writer, mark string) {
	comment(b, sec.doc)
	switch {
	case sec.array:
		fmt.Fprintf(b, "%s[[%s]]\n", mark, sec.name)
	case sec.name != "":
		fmt.Fprintf(b, "[%s]\n", sec.name)
	}
	for _, s := range sec.settings {
		comment(b, s.doc)
		fmt.Fprintf(b, "%s%s = %s\n", mark, s.key, literal(s.value))
	}
}

func comment(b *bufio.Writer, doc string) {
	if doc == "" {
		return
	}
	for line := range strings.SplitSeq(doc, "\n") {
		b.WriteString("# " + line + "\n")
	}
}

// WriteManual writes the reference of all keys as Markdown.
func WriteManual(w io.Writer) error {
	b := bufio.NewWriter(w)
	b.WriteString(manualHead)
	c := Default()
	for _, sec := range c.kinds() {
		sec.manual(b)
	}
	return b.Flush()
}

const manualHead = `# The configuration file

` + "`postroad serve --config postroad.toml`" + ` runs a server from a TOML file.
` + "`postroad config init`" + ` writes one to begin with, ` + "`postroad config check`" + ` says
what is wrong with a file, or prints what is in force.

A key that is left out has its default. An unknown key is an error. Durations are
written ` + "`\"90s\"`, `\"5m\"`, `\"4h\"` or `\"5d\"`" + `, sizes ` + "`\"50MB\"`" + ` (a million octets each) or
` + "`\"64MiB\"`" + `. Relative paths start at the file's own directory.
`

func (sec section) manual(b *bufio.Writer) {
	title := "Before all tables"
	switch {
	case sec.array:
		title = "`[[" + sec.name + "]]`"
	case sec.name != "":
		title = "`[" + sec.name + "]`"
	}
	fmt.Fprintf(b, "\n## %s\n\n", title)
	if sec.doc != "" {
		fmt.Fprintf(b, "%s\n\n", sec.doc)
	}
	b.WriteString("| key | default | meaning |\n|---|---|---|\n")
	for _, s := range sec.settings {
		doc := strings.ReplaceAll(strings.ReplaceAll(s.doc, "\n", " "), "|", `\|`)
		fmt.Fprintf(b, "| `%s` | `%s` | %s |\n", s.key, literal(s.value), doc)
	}
}

// literal is a value as TOML.
func literal(v any) string {
	switch v := v.(type) {
	case *int:
		return strconv.Itoa(*v)
	case *bool:
		return strconv.FormatBool(*v)
	case *[]string:
		quoted := make([]string, len(*v))
		for i, text := range *v {
			quoted[i] = quote(text)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case *float64:
		return tomlFloat(*v)
	case *string:
		return quote(*v)
	case *[]Network:
		words := make([]string, len(*v))
		for i, n := range *v {
			words[i] = quote(n.String())
		}
		return "[" + strings.Join(words, ", ") + "]"
	case *TLSMode:
		return quote(string(*v))
	case *Transport:
		return quote(string(*v))
	case *Addr:
		return quote(string(*v))
	case fmt.Stringer: // *Duration, *Size, *Secret
		return quote(v.String())
	}
	panic(fmt.Sprintf("config: no literal for %T", v))
}

func tomlFloat(v float64) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if strings.Contains(s, ".") {
		return s
	}
	return s + ".0"
}

// quote writes a basic string of TOML. Control characters do not occur: Check
// refuses them.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// Values returns the configuration as nested maps, for JSON. Passwords are stars.
func (c Config) Values() (map[string]any, error) {
	var m map[string]any
	err := toml.Unmarshal([]byte(c.String()), &m)
	return m, err
}
