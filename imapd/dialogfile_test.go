package imapd

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A dialogCase is what stands below one title.
type dialogCase struct {
	title  string
	at     string // file and line
	dir    string // of the file
	begins time.Time
	steps  []dialogStep
}

// uses reports whether a case has one of these directives.
func (c *dialogCase) uses(names ...string) bool {
	return slices.ContainsFunc(c.steps, func(s dialogStep) bool { return s.kind == '@' && slices.Contains(names, s.verb()) })
}

// A dialogStep is one thing that is said, expected, or done.
type dialogStep struct {
	at   string // file and line
	kind byte   // 'C', 'S' or '@'
	conn int

	texts [][]string // 'C': one; 'S': one, none for "...", or several. Each is text, literal, text ...
	open  bool       // 'C': no line end is sent after it
	free  bool       // 'S': the order of the texts is free
	words []string   // '@': the directive and its arguments
	raw   string     // '@': the arguments as they are written
	block []string   // '@': the lines that follow it
}

func (s *dialogStep) verb() string { return s.words[0] }

// readDialogs reads the cases of a file.
func readDialogs(file string) ([]dialogCase, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseDialogs(file, string(b))
}

func parseDialogs(file, text string) ([]dialogCase, error) {
	p := dialogParser{file: file}
	for line := range strings.Lines(text) {
		p.n++
		if err := p.line(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, p.n, err)
		}
	}
	if len(p.cases) == 0 {
		return nil, fmt.Errorf("%s: no case; a case begins with == and its title", file)
	}
	for i := range p.cases {
		if err := p.cases[i].check(); err != nil {
			return nil, err
		}
	}
	return p.cases, nil
}

type dialogParser struct {
	file  string
	n     int
	cases []dialogCase
}

func (p *dialogParser) at() string { return fmt.Sprintf("%s:%d", p.file, p.n) }

var (
	errNoTitle     = errors.New("a case begins with == and its title")
	errDialogLine  = errors.New("neither C: nor S: nor @ nor == nor #; docs/dialogs.md has the format")
	errNoLiteral   = errors.New("a line of a literal without the C: or S: line that announces it")
	errTwice       = errors.New("two cases have this title")
	errUnclosed    = errors.New("a { without its }")
	errPlaceholder = errors.New("no such placeholder")
	errNobody      = errors.New("no such account: there are alice, bob and carol")
)

func (p *dialogParser) line(line string) error {
	switch {
	case strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
		return nil
	case strings.HasPrefix(line, "=="):
		return p.title(strings.TrimSpace(line[2:]))
	case len(p.cases) == 0:
		return errNoTitle
	case strings.HasPrefix(line, "@"):
		return p.directive(line[1:])
	case strings.HasPrefix(line, "|"):
		return p.blockLine(strings.TrimPrefix(line[1:], " "))
	}
	m := dialogLine.FindStringSubmatch(line)
	if m == nil {
		return errDialogLine
	}
	conn, _ := strconv.Atoi(m[2])
	return p.said(m[1][0], max(conn, 1), m[3], m[4])
}

var dialogLine = regexp.MustCompile(`^([CS])([1-9][0-9]*)?(:|-:|\||-\||\+:|\?)(?: (.*))?$`)

func (p *dialogParser) title(title string) error {
	if title == "" {
		return errNoTitle
	}
	if slices.ContainsFunc(p.cases, func(c dialogCase) bool { return c.title == title }) {
		return errTwice
	}
	p.cases = append(p.cases, dialogCase{title: title, at: p.at(), dir: filepath.Dir(p.file), begins: dialogBegins})
	return nil
}

func (p *dialogParser) current() *dialogCase { return &p.cases[len(p.cases)-1] }

func (p *dialogParser) add(s dialogStep) {
	s.at = p.at()
	c := p.current()
	c.steps = append(c.steps, s)
}

// last is the step before, when it is of a kind and a connection.
func (p *dialogParser) last(kind byte, conn int) *dialogStep {
	c := p.current()
	if len(c.steps) == 0 {
		return nil
	}
	if s := &c.steps[len(c.steps)-1]; s.kind == kind && s.conn == conn {
		return s
	}
	return nil
}

// said adds a line of the dialog, or what continues one.
func (p *dialogParser) said(who byte, conn int, sign, text string) error {
	prev := p.last(who, conn)
	if literal, eol := strings.CutPrefix(sign, "-"); literal == "|" {
		return prev.literal(text, !eol)
	}
	if sign == "+:" {
		return prev.rest(text)
	}
	if who == 'C' && sign == "?" || who == 'S' && sign == "-:" {
		return errDialogLine
	}
	if sign == "?" && prev != nil && prev.free {
		prev.texts = append(prev.texts, []string{text})
		return nil
	}
	s := dialogStep{kind: who, conn: conn, texts: [][]string{{text}}, open: sign == "-:", free: sign == "?"}
	if who == 'S' && text == "..." {
		s.texts = nil
	}
	p.add(s)
	return nil
}

// literal adds a line to the literal that the step's last text announces.
func (s *dialogStep) literal(line string, eol bool) error {
	if s == nil || len(s.texts) == 0 {
		return errNoLiteral
	}
	text := &s.texts[len(s.texts)-1]
	if len(*text)%2 == 1 {
		*text = append(*text, "")
	}
	if eol {
		line += "\r\n"
	}
	(*text)[len(*text)-1] += line
	return nil
}

// rest adds what follows a literal.
func (s *dialogStep) rest(line string) error {
	if s == nil || len(s.texts) == 0 {
		return errNoLiteral
	}
	text := &s.texts[len(s.texts)-1]
	if len(*text)%2 == 1 { // the literal is empty
		*text = append(*text, "")
	}
	*text = append(*text, line)
	return nil
}

var dialogWord = regexp.MustCompile(`"[^"]*"|\([^)]*\)|[^ ]+`)

// directive adds a line that begins with @, and perhaps a number of a connection.
func (p *dialogParser) directive(line string) error {
	words := dialogWord.FindAllString(line, -1)
	s := dialogStep{kind: '@', conn: 1}
	if len(words) > 1 {
		if n, err := strconv.Atoi(words[0]); err == nil {
			s.conn, words = n, words[1:]
		}
	}
	if len(words) == 0 {
		return errDialogLine
	}
	for i, w := range words {
		words[i] = strings.Trim(w, `"`)
	}
	_, s.raw, _ = strings.Cut(line, words[0]+" ")
	if s.words = words; words[0] != "time" {
		p.add(s)
		return nil
	}
	begins, err := time.Parse(time.RFC3339, strings.Join(words[1:], " "))
	p.current().begins = begins
	return err
}

func (p *dialogParser) blockLine(line string) error {
	c := p.current()
	if len(c.steps) == 0 || c.steps[len(c.steps)-1].kind != '@' {
		return errDialogLine
	}
	s := &c.steps[len(c.steps)-1]
	s.block = append(s.block, line)
	return nil
}

// check finds placeholders that nobody knows before the case runs, and gives each literal the text after it.
func (c *dialogCase) check() error {
	for i := range c.steps {
		s := &c.steps[i]
		for j, text := range s.texts {
			if len(text)%2 == 0 {
				s.texts[j] = append(text, "")
			}
			for _, piece := range text {
				if _, err := dialogTokens(piece, s.kind); err != nil {
					return fmt.Errorf("%s: %w", s.at, err)
				}
			}
		}
	}
	return nil
}

// A dialogToken is a piece of text, or a placeholder without its braces.
type dialogToken struct {
	text  string
	brace bool
}

var (
	literalSize  = regexp.MustCompile(`^[0-9]+[+-]?$`)
	captureName  = regexp.MustCompile(`^([a-z][a-z0-9]*|_)=`)
	reuseName    = regexp.MustCompile(`^=([a-z][a-z0-9]*)([+-][0-9]+)?$`)
	repetition   = regexp.MustCompile(`(?s)^([0-9]+)\*(.+)$`)
	dialogEscape = regexp.MustCompile(`\\x[0-9a-fA-F]{2}`)
)

// dialogTokens cuts a text at its placeholders and resolves \x00 and the like.
func dialogTokens(text string, who byte) (tokens []dialogToken, err error) {
	for text != "" {
		at := strings.IndexByte(text, '{')
		if at < 0 {
			at = len(text)
		}
		if at > 0 {
			tokens = append(tokens, dialogToken{text: unescapeDialog(text[:at])})
			text = text[at:]
			continue
		}
		end := closingBrace(text)
		if end < 0 {
			return nil, errUnclosed
		}
		inner := text[1:end]
		switch {
		case literalSize.MatchString(inner):
			tokens = append(tokens, dialogToken{text: text[:end+1]})
		case !knownPlaceholder(inner, who):
			return nil, fmt.Errorf("%w: {%s}", errPlaceholder, inner)
		default:
			tokens = append(tokens, dialogToken{inner, true})
		}
		text = text[end+1:]
	}
	return tokens, nil
}

func knownPlaceholder(inner string, who byte) bool {
	switch {
	case inner == "n", reuseName.MatchString(inner):
		return true
	case who == 'C':
		return inner == "n+" || repetition.MatchString(inner) || strings.HasPrefix(inner, "base64:")
	}
	return inner == "any" || inner == "num" || inner == "date" || captureName.MatchString(inner)
}

// closingBrace is where the brace that text begins with is closed.
func closingBrace(text string) int {
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func unescapeDialog(s string) string {
	return dialogEscape.ReplaceAllStringFunc(s, func(e string) string {
		v, _ := strconv.ParseUint(e[2:], 16, 8)
		return string([]byte{byte(v)})
	})
}

// expand is what a client's text stands for; {n} and {n+} stay, they are the sender's.
func (d *dialog) expand(text string) (string, error) {
	tokens, err := dialogTokens(text, 'C')
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, t := range tokens {
		s, err := d.value(t)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func (d *dialog) value(t dialogToken) (string, error) {
	if !t.brace {
		return t.text, nil
	}
	if m := reuseName.FindStringSubmatch(t.text); m != nil {
		return d.reuse(m[1], m[2])
	}
	if m := repetition.FindStringSubmatch(t.text); m != nil {
		n, err := strconv.Atoi(m[1])
		return strings.Repeat(unescapeDialog(m[2]), min(n, 1<<24)), err
	}
	if plain, ok := strings.CutPrefix(t.text, "base64:"); ok {
		return base64.StdEncoding.EncodeToString([]byte(unescapeDialog(plain))), nil
	}
	return "{" + t.text + "}", nil
}

// reuse is what was captured under a name, or that number and a bit.
func (d *dialog) reuse(name, plus string) (string, error) {
	v, ok := d.captured[name]
	if !ok || plus == "" {
		if !ok {
			return "", fmt.Errorf("nothing was captured as %s", name)
		}
		return v, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	k, _ := strconv.ParseInt(plus, 10, 64)
	return strconv.FormatInt(n+k, 10), err
}

// pattern makes a regular expression of one text or literal that is expected.
func (d *dialog) pattern(text string) (*regexp.Regexp, error) {
	tokens, err := dialogTokens(text, 'S')
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for _, t := range tokens {
		s, err := d.expression(t)
		if err != nil {
			return nil, err
		}
		b.WriteString(s)
	}
	b.WriteString(`\z`)
	return regexp.Compile(widen(b.String()))
}

func (d *dialog) expression(t dialogToken) (string, error) {
	switch {
	case !t.brace:
		return regexp.QuoteMeta(t.text), nil
	case t.text == "any":
		return `.*?`, nil
	case t.text == "num":
		return `[0-9]+`, nil
	case t.text == "n":
		return `\{[0-9]+\}`, nil
	case t.text == "date":
		return `"[ 0-9][0-9]-[A-Z][a-z]{2}-[0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} [-+][0-9]{4}"`, nil
	case reuseName.MatchString(t.text):
		m := reuseName.FindStringSubmatch(t.text)
		v, err := d.reuse(m[1], m[2])
		return regexp.QuoteMeta(v), err
	}
	name, re, _ := strings.Cut(t.text, "=")
	if name == "_" {
		return "(?:" + re + ")", nil
	}
	return "(?P<" + name + ">" + re + ")", nil
}

// widen makes a character of each octet, so that expressions work on what is not UTF-8, too.
func widen(s string) string {
	b := make([]rune, len(s))
	for i := range len(s) {
		b[i] = rune(s[i])
	}
	return string(b)
}

// narrow undoes widen.
func narrow(s string) string {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}
