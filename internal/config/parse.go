package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Error is one thing that is wrong with a configuration.
type Error struct {
	File string // empty when it did not come from a file
	Line int    // from 1; 0 when it has none
	Key  string // "limits.recipients"; empty when no key is to blame
	Text string // what is wrong and what to write
}

// Error writes "postroad.toml:12: limits.recipients: ...".
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ":")
	}
	switch {
	case e.Line > 0 && e.File != "":
		fmt.Fprintf(&b, "%d: ", e.Line)
	case e.Line > 0:
		fmt.Fprintf(&b, "line %d: ", e.Line)
	case e.File != "":
		b.WriteByte(' ')
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	return b.String() + e.Text
}

// maxFile bounds a configuration file.
const maxFile = 1 << 20

func parse(r io.Reader, file string) (Config, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return Config{}, err
	}
	if len(text) > maxFile {
		return Config{}, &Error{File: file, Text: "more than 1 MiB; this is not a configuration"}
	}
	c, err := decode(text)
	if err != nil {
		return Config{}, inFile(err, file)
	}
	return c, nil
}

// inFile names the file in every Error of err.
func inFile(err error, file string) error {
	var all []error
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		all = many.Unwrap()
	} else {
		all = []error{err}
	}
	for _, e := range all {
		if e, ok := errors.AsType[*Error](e); ok {
			e.File = file
		}
	}
	return err
}

func decode(text []byte) (Config, error) {
	places, err := index(text)
	if err != nil {
		return Config{}, err
	}
	c := Default()
	dec := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Config{}, explain(err)
	}
	if len(c.Routes) == 0 {
		c.Routes = nil // "route = []" says what leaving it out says
	}
	if len(c.TLS.Certificates) == 0 {
		c.TLS.Certificates = nil
	}
	for _, list := range []*[]Network{&c.Trust.Networks, &c.Trust.Proxies, &c.Trust.XCLIENT} {
		if len(*list) == 0 {
			*list = nil
		}
	}
	for _, list := range []*[]string{&c.ACME.Names, &c.Policy.NoSoliciting, &c.DNS.Servers, &c.Delivery.Source} {
		if len(*list) == 0 {
			*list = nil
		}
	}
	c.tidyWebhooks()
	places.completeRoutes(c.Routes)
	if err := places.checkCase(); err != nil {
		return Config{}, err
	}
	if err := places.checkUnits(&c); err != nil {
		return Config{}, err
	}
	if err := c.Check(); err != nil {
		return Config{}, places.locate(err)
	}
	return c, nil
}

// explain turns the decoder's errors into ours.
func explain(err error) error {
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var all []error
		for _, e := range unknown.Errors {
			line, _ := e.Position()
			key := strings.Join(e.Key(), ".")
			all = append(all, &Error{Line: line, Text: unknownKey(key)})
		}
		return errors.Join(all...)
	}
	if e, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := e.Position()
		return &Error{Line: line, Key: strings.Join(e.Key(), "."), Text: plain(e.Error())}
	}
	return &Error{Text: plain(err.Error())}
}

// mismatch is how the decoder says that a value is of the wrong kind.
var mismatch = regexp.MustCompile(`cannot decode TOML (.+) into (?:struct field \S+ of type |an? )?(\S+)$`)

// plain says what the decoder says without its own name and the names of Go types.
func plain(text string) string {
	text = strings.TrimPrefix(text, "toml: ")
	m := mismatch.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	return fmt.Sprintf("is a TOML %s, but %s", m[1], wanted(m[2]))
}

// wanted says what belongs in a field of a Go type.
func wanted(goType string) string {
	switch goType {
	case "config.Duration":
		return "a duration belongs here, as in \"5m\""
	case "config.Size":
		return "a size belongs here, as in \"50MB\""
	case "config.Addr":
		return "an address belongs here, as in \"127.0.0.1:2525\""
	case "[]config.Network", "config.Network":
		return "a list of networks belongs here, as in [\"192.0.2.1\", \"2001:db8::/32\"]"
	case "int":
		return "a whole number belongs here"
	case "float64":
		return "a number belongs here"
	case "bool":
		return "true or false belongs here"
	case "[]string":
		return "a list belongs here, as in [\"mail.example.org\"]"
	case "[]config.Route":
		return "routes are tables: write [[route]] above each"
	case "[]config.Webhook":
		return "webhooks are tables: write [[webhook]] above each"
	case "[]config.Certificate":
		return "certificates are tables: write [[tls.certificate]] above each"
	case "string", "config.Secret", "config.TLSMode", "config.Transport":
		return "a text in quotes belongs here"
	}
	return "a table belongs here: write its name in brackets, and its keys below"
}

// A place is where a key stands in a file, and the kind of its value.
type place struct {
	key  string
	line int
	kind unstable.Kind
}

// places are all keys of a file in order.
type places struct {
	keys   []place
	arrays map[string]int // how many tables of a name in double brackets were seen
}

// index finds where each key stands, so that a value that is found wrong later can
// be named with its line. It errs only on what is not TOML.
func index(text []byte) (*places, error) {
	var p unstable.Parser
	p.Reset(text)
	found, table := &places{arrays: map[string]int{}}, ""
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table:
			table = keyOf(e)
		case unstable.ArrayTable:
			name := keyOf(e)
			found.arrays[name]++
			table = fmt.Sprintf("%s[%d]", name, found.arrays[name])
		case unstable.KeyValue:
			found.add(&p, table, e)
		}
	}
	if err, ok := errors.AsType[*unstable.ParserError](p.Error()); ok {
		return nil, &Error{Line: p.Shape(p.Range(err.Highlight)).Start.Line, Text: err.Message}
	}
	return found, nil
}

func (ps *places) add(p *unstable.Parser, table string, e *unstable.Node) {
	it := e.Key()
	if !it.Next() {
		return
	}
	line := p.Shape(it.Node().Raw).Start.Line
	key := joinKey(table, keyOf(e))
	ps.keys = append(ps.keys, place{key, line, e.Value().Kind})
	if e.Value().Kind != unstable.InlineTable {
		return
	}
	for sub := e.Value().Children(); sub.Next(); {
		ps.add(p, key, sub.Node())
	}
}

func keyOf(n *unstable.Node) string {
	var parts []string
	for it := n.Key(); it.Next(); {
		parts = append(parts, string(it.Node().Data))
	}
	return strings.Join(parts, ".")
}

func joinKey(table, key string) string {
	if table == "" {
		return key
	}
	return table + "." + key
}

// arrayKey names a key of the i-th table of a name as people count: route[1].host.
func arrayKey(name string, i int, key string) string { return fmt.Sprintf("%s[%d].%s", name, i+1, key) }

func (ps *places) has(key string) bool {
	return slices.ContainsFunc(ps.keys, func(p place) bool { return p.key == key })
}

// locate gives an Error the line of its key.
func (ps *places) locate(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	for _, p := range ps.keys {
		if p.key == e.Key {
			e.Line = p.line
		}
	}
	return e
}

// checkCase refuses keys that the decoder takes for ours though they are written in
// another case: everything else that reads them here, and other readers, would not.
func (ps *places) checkCase() error {
	valid := keys()
	for _, p := range ps.keys {
		key := tableNumber.ReplaceAllString(p.key, "")
		if !slices.Contains(valid, key) {
			return &Error{Line: p.line, Text: unknownKey(key)}
		}
	}
	return nil
}

var tableNumber = regexp.MustCompile(`\[\d+\]`)

// checkUnits refuses durations that are written as bare numbers: of what unit?
func (ps *places) checkUnits(c *Config) error {
	durations := map[string]bool{}
	for _, sec := range c.kinds() {
		for _, s := range sec.settings {
			_, durations[joinKey(sec.name, s.key)] = s.value.(*Duration)
		}
	}
	for _, p := range ps.keys {
		if durations[tableNumber.ReplaceAllString(p.key, "")] && p.kind != unstable.String {
			return &Error{Line: p.line, Key: p.key, Text: "a duration needs a unit and quotes, as in \"90s\", \"5m\", \"4h\" or \"5d\""}
		}
	}
	return nil
}

// unknownKey says that nothing is called so, and what may have been meant.
func unknownKey(key string) string {
	text := fmt.Sprintf("unknown key %q", key)
	if near := nearest(key); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return text
}

// nearest returns the valid key that is most like key, or "" when none is near.
func nearest(key string) string {
	best, least := "", 1+len(key)/3
	for _, k := range keys() {
		d := distance(key, k)
		if last := k[strings.LastIndexByte(k, '.')+1:]; last == key[strings.LastIndexByte(key, '.')+1:] {
			d = min(d, 1) // the right name in the wrong table
		}
		if d <= least && (best == "" || d < least) {
			best, least = k, d
		}
	}
	return best
}

// keys are the names of all settings and sections.
func keys() []string {
	var c Config
	var all []string
	for _, sec := range c.kinds() {
		if sec.name != "" {
			all = append(all, sec.name)
		}
		for _, s := range sec.settings {
			all = append(all, joinKey(sec.name, s.key))
		}
	}
	return all
}

// distance is the number of letters to add, drop, replace or swap with their
// neighbour to make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+differ(a[i-1], b[j-1]))
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

func differ(a, b byte) int {
	if a == b {
		return 0
	}
	return 1
}
