package wire

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The characters of RFC 9051, 9. Octets of 8 bits are in none of the classes.
type class uint8

const (
	isAtomChar   class = 1 << iota // ATOM-CHAR
	isStringChar                   // ASTRING-CHAR: "]" too
	isTagChar                      // of a tag: not "+"
	isListChar                     // list-char: "%", "*" and "]" too
	isSetChar                      // of sets of messages
	isDigit
	isLooseChar // of an astring as people type it: "%", "*" and "\\" too
)

var classes = func() (t [256]class) {
	for c := byte('!'); c < 0x7f; c++ {
		if strings.IndexByte(`(){%*"\]`, c) < 0 {
			t[c] |= isAtomChar | isStringChar | isTagChar | isListChar | isLooseChar
		}
		if c >= '0' && c <= '9' {
			t[c] |= isDigit | isSetChar
		}
	}
	t[']'] |= isStringChar | isTagChar | isListChar | isLooseChar
	t['+'] &^= isTagChar
	t['%'] |= isListChar | isLooseChar
	t['*'] |= isListChar | isSetChar | isLooseChar
	t['\\'] |= isLooseChar
	t[':'] |= isSetChar
	t[','] |= isSetChar
	return t
}()

// peek is the next octet of the line, or 0 at its end.
func (d *Decoder) peek() byte {
	if d.pos < len(d.line) {
		return d.line[d.pos]
	}
	return 0
}

// take takes the octets of a class, as many as there are. They are good until the next line is read.
func (d *Decoder) take(c class) []byte {
	from := d.pos
	for d.pos < len(d.line) && classes[d.line[d.pos]]&c != 0 {
		d.pos++
	}
	return d.line[from:d.pos]
}

func (d *Decoder) skipSpaces() {
	for d.peek() == ' ' {
		d.pos++
	}
}

// space is SP, and more of them from clients that write so.
func (d *Decoder) space() {
	if d.peek() != ' ' {
		d.want("a space")
	}
	d.skipSpaces()
}

// accept takes c if it is next.
func (d *Decoder) accept(c byte) bool {
	if d.peek() == c {
		d.pos++
		return true
	}
	return false
}

func (d *Decoder) expect(c byte) {
	if !d.accept(c) {
		d.want(strconv.QuoteRune(rune(c)))
	}
}

// atEnd reports whether nothing but spaces is left of the line.
func (d *Decoder) atEnd() bool { return len(bytes.Trim(d.line[d.pos:], " ")) == 0 }

// optional takes the space before what may follow, and reports whether something does before the list or the command
// ends.
func (d *Decoder) optional() bool {
	rest := bytes.TrimLeft(d.line[d.pos:], " ")
	if len(rest) == 0 || rest[0] == ')' {
		d.skipSpaces()
		return false
	}
	d.space()
	return true
}

// beforeList takes the spaces before a list, if one follows.
func (d *Decoder) beforeList() bool {
	rest := bytes.TrimLeft(d.line[d.pos:], " ")
	if len(rest) == 0 || rest[0] != '(' {
		return false
	}
	d.skipSpaces()
	return true
}

// list is "(", then item for each of the things separated by spaces, then ")".
func (d *Decoder) list(item func()) {
	d.expect('(')
	d.skipSpaces()
	for !d.accept(')') {
		d.count()
		item()
		if d.peek() != ')' {
			if d.peek() != ' ' {
				d.want(`a space or ")"`)
			}
			d.skipSpaces()
		}
	}
}

// count counts one more item of a list.
func (d *Decoder) count() {
	if d.listed++; d.listed > d.limits.Items {
		d.fail("", "more than %d items", d.limits.Items)
	}
}

// some is a list with at least one thing in it.
func (d *Decoder) some(what string, item func()) {
	if d.peek() != '(' {
		d.want("a list of " + what)
	}
	n := 0
	d.list(func() { n++; item() })
	if n == 0 {
		d.fail("", "an empty list of %s", what)
	}
}

// atom is 1*ATOM-CHAR.
func (d *Decoder) atom(what string) []byte {
	word := d.take(isAtomChar)
	if len(word) == 0 {
		d.want(what)
	}
	return word
}

// keyword is a word of the protocol in capitals, good until the next one is read.
func (d *Decoder) keyword(what string) []byte {
	from := d.pos
	return d.capitals(from, d.atom(what), what)
}

// capital is an atom in capitals, which may be none that is known.
func (d *Decoder) capital(what string) string { return strings.ToUpper(string(d.atom(what))) }

// capitals is word, which began at from, in capitals. No word of the protocol is longer than there is room for.
func (d *Decoder) capitals(from int, word []byte, what string) []byte {
	if len(word) > len(d.upper) {
		d.pos = from
		d.want(what)
	}
	up := d.upper[:len(word)]
	for i, c := range word {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		up[i] = c
	}
	return up
}

// word takes the given word, in any case, if it is next and nothing follows that belongs to it.
func (d *Decoder) word(w string) bool {
	rest := d.line[d.pos:]
	if len(rest) < len(w) || !strings.EqualFold(string(rest[:len(w)]), w) {
		return false
	}
	if len(rest) > len(w) && classes[rest[len(w)]]&isAtomChar != 0 {
		return false
	}
	d.pos += len(w)
	return true
}

// astring is an atom that may have "]", or a string. Wildcards and backslashes in such an atom are forgiven: passwords
// typed by hand have them, and nothing else can be meant.
func (d *Decoder) astring(what string) string {
	switch d.peek() {
	case '"', '{':
		return d.str(what)
	}
	word := d.take(isLooseChar)
	if len(word) == 0 {
		d.want(what)
	}
	return string(word)
}

// str is a string: quoted or a literal.
func (d *Decoder) str(what string) string {
	switch d.peek() {
	case '"':
		return d.quoted()
	case '{':
		b := d.literal()
		if bytes.IndexByte(b, 0) >= 0 {
			d.fail("", "a literal with NUL")
		}
		return string(b)
	}
	d.want(what)
	return ""
}

// nstring is a string or NIL.
func (d *Decoder) nstring(what string) (s string, ok bool) {
	if d.word("NIL") {
		return "", false
	}
	return d.str(what), true
}

// quoted is a quoted string. Octets of 8 bits are let through, since clients sent them before UTF8=ACCEPT allowed it;
// with that they must be UTF-8 (RFC 6855, 3).
func (d *Decoder) quoted() string {
	start := d.pos
	d.expect('"')
	escapes := 0
	for from := d.pos; ; d.pos++ {
		switch c := d.peek(); {
		case d.pos == len(d.line):
			d.pos = start
			d.want("a quoted string that ends")
		case c == '"':
			s := d.line[from:d.pos]
			d.pos++
			if d.utf8 && !utf8.Valid(s) {
				d.fail("", "a quoted string that is not UTF-8")
			}
			return unescape(s, escapes)
		case c == '\\':
			escapes++
			d.pos++
			if c := d.peek(); c != '"' && c != '\\' {
				d.want(`a quote or a backslash after the backslash`)
			}
		case c == 0 || c == '\r':
			d.want("no NUL or CR in a quoted string")
		}
	}
}

func unescape(s []byte, escapes int) string {
	if escapes == 0 {
		return string(s)
	}
	var b strings.Builder
	b.Grow(len(s) - escapes)
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// literal is a literal of a command, after which the next line of the command is the current one.
func (d *Decoder) literal() []byte {
	n, waits := d.announcement()
	if n > int64(max(d.limits.Command-d.used, 0)) {
		d.tooLong()
	}
	if waits {
		d.check(d.proceed())
	}
	b, err := d.source.literal(make([]byte, 0, min(n, int64(len(block{})))), int(n))
	d.check(err)
	d.next()
	return b
}

// announcement is the first line of a literal (RFC 9051, 4.3; RFC 7888): it ends the current line.
func (d *Decoder) announcement() (n int64, waits bool) {
	n, waits, ok := announced(d.line[d.pos:])
	if !ok || bytes.LastIndexByte(d.line, '{') != d.pos {
		d.want("a literal")
	}
	switch most := d.limits.NonSync; {
	case n == math.MaxInt64:
		d.fail("TOOBIG", "a literal of more octets than can be")
	case !waits && most > 0 && n > most:
		d.fail("TOOBIG", "a non-synchronising literal of more than %d octets", most)
	}
	d.pos = len(d.line)
	return n, waits
}

// number64 is a number of at most 63 bits.
func (d *Decoder) number64(what string) uint64 { return d.number(what, math.MaxInt64) }

// number32 is a number of 32 bits.
func (d *Decoder) number32(what string) uint32 { return uint32(d.number(what, math.MaxUint32)) }

func (d *Decoder) number(what string, most uint64) uint64 {
	from := d.pos
	n, ok := parseNumber(d.take(isDigit), most)
	if !ok {
		d.pos = from
		d.want(what)
	}
	return n
}

// nonZero is a number that is not 0.
func (d *Decoder) nonZero(what string, most uint64) uint64 {
	from := d.pos
	n := d.number(what, most)
	if n == 0 {
		d.pos = from
		d.want(what)
	}
	return n
}

// parseNumber is the number that b is, if it is 1*DIGIT and at most so large.
func parseNumber(b []byte, most uint64) (n uint64, ok bool) {
	for _, c := range b {
		x := uint64(c - '0')
		if x > 9 || n > (most-x)/10 {
			return 0, false
		}
		n = n*10 + x
	}
	return n, len(b) > 0
}

// base64 is base64 to the end of the line.
func (d *Decoder) base64() []byte {
	rest := bytes.TrimRight(d.line[d.pos:], " ")
	b := make([]byte, base64.StdEncoding.DecodedLen(len(rest)))
	n, err := base64.StdEncoding.Strict().Decode(b, rest)
	if err != nil {
		d.want("base64")
	}
	d.pos = len(d.line)
	return b[:n]
}

// mailbox is the name of a mailbox as UTF-8; INBOX in any case is "INBOX" (RFC 9051, 5.1).
func (d *Decoder) mailbox() string {
	name, why := d.mailboxName(d.astring("the name of a mailbox"))
	if why != "" {
		d.refuse("NO", "CANNOT", "the name of the mailbox %s", why)
	}
	return name
}

// mailboxName is the name that a client wrote, or why it cannot be one.
func (d *Decoder) mailboxName(wire string) (name, why string) {
	if strings.EqualFold(wire, "INBOX") {
		return "INBOX", ""
	}
	if strings.ContainsAny(wire, "\x00\r\n") {
		return "", "has NUL, CR or LF"
	}
	if !utf8.ValidString(wire) {
		return "", "is not UTF-8"
	}
	if d.utf8 || !isASCII(wire) || isItself(wire) {
		return wire, ""
	}
	name, err := DecodeUTF7(wire)
	switch {
	case err != nil:
		return "", err.Error()
	case strings.ContainsAny(name, "\x00\r\n"):
		return "", "has NUL, CR or LF"
	}
	return name, ""
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// flag is a keyword, or a backslash and an atom. "]" is let through.
func (d *Decoder) flag() string {
	from := d.pos
	d.accept('\\')
	if len(d.take(isStringChar)) == 0 {
		d.pos = from
		d.want("a flag")
	}
	return string(d.line[from:d.pos])
}

func (d *Decoder) flagList() []string {
	flags := []string{}
	d.list(func() { flags = append(flags, d.flag()) })
	return flags
}

// set is a set of messages: numbers, ranges and "*", or "$" (RFC 5182).
func (d *Decoder) set() Set {
	if d.accept('$') {
		return Set{Saved: true}
	}
	from := d.pos
	ranges, why := parseSet(d.take(isSetChar), d.limits.Ranges)
	if why != "" || classes[d.peek()]&isStringChar != 0 {
		d.pos = from
		if why != "" && why != notASet {
			d.fail("", "%s", why)
		}
		d.want("a set of messages")
	}
	return Set{Ranges: ranges}
}

const notASet = "not a set"

// parseSet is the set that text is, or why it is none.
func parseSet(text []byte, most int) (ranges []Range, why string) {
	n := bytes.Count(text, []byte(",")) + 1
	if n > most {
		return nil, "a set of more than " + strconv.Itoa(most) + " ranges"
	}
	ranges = make([]Range, 0, n)
	for {
		var r Range
		var ok bool
		r.From, text, ok = cutNumber(text)
		r.To = r.From
		if last, two := bytes.CutPrefix(text, []byte(":")); ok && two {
			r.To, text, ok = cutNumber(last)
		}
		if !ok {
			return nil, notASet
		}
		if ranges = append(ranges, r); len(text) == 0 {
			return ranges, ""
		}
		if text, ok = bytes.CutPrefix(text, []byte(",")); !ok {
			return nil, notASet
		}
	}
}

// cutNumber takes nz-number or "*", which is 0, off the front.
func cutNumber(b []byte) (n uint32, rest []byte, ok bool) {
	if rest, star := bytes.CutPrefix(b, []byte("*")); star {
		return 0, rest, true
	}
	i := 0
	for i < len(b) && classes[b[i]]&isDigit != 0 {
		i++
	}
	wide, ok := parseNumber(b[:i], math.MaxUint32)
	return uint32(wide), b[i:], ok && wide != 0
}

// fixedSet is a set without "*" and "$".
func (d *Decoder) fixedSet(what string) Set {
	from := d.pos
	set := d.set()
	ok := !set.Saved
	for _, r := range set.Ranges {
		ok = ok && r.From != 0 && r.To != 0
	}
	if !ok {
		d.pos = from
		d.want(what + ` without "*"`)
	}
	return set
}

// date is a day as searches have it, in quotes or without.
func (d *Decoder) date() time.Time {
	from := d.pos
	quoted := d.accept('"')
	text := d.take(isAtomChar)
	t, ok := parseDay(text)
	if quoted {
		ok = d.accept('"') && ok
	}
	if !ok {
		d.pos = from
		d.want("a date as in 1-Feb-2024")
	}
	return t
}

// dateTime is date-time: quoted, with the day as two digits or a space and one.
func (d *Decoder) dateTime() time.Time {
	from := d.pos
	t, ok := parseDateTime(d.quoted())
	if !ok {
		d.pos = from
		d.want(`a date and time as in "01-Feb-2024 13:14:15 +0000"`)
	}
	return t
}

// parseDay reads 1-Feb-2024.
func parseDay(b []byte) (time.Time, bool) {
	day, rest, ok1 := bytes.Cut(b, []byte("-"))
	month, year, ok2 := bytes.Cut(rest, []byte("-"))
	if !ok1 || !ok2 || len(day) > 2 || len(year) != 4 {
		return time.Time{}, false
	}
	d, ok1 := parseNumber(day, 31)
	y, ok2 := parseNumber(year, 9999)
	m := parseMonth(month)
	t := time.Date(int(y), m, int(d), 0, 0, 0, 0, time.UTC)
	return t, ok1 && ok2 && m != 0 && t.Day() == int(d)
}

func parseMonth(b []byte) time.Month {
	for m := time.January; m <= time.December; m++ {
		if strings.EqualFold(string(b), m.String()[:3]) {
			return m
		}
	}
	return 0
}

// parseDateTime reads " 1-Feb-2024 13:14:15 +0100".
func parseDateTime(s string) (time.Time, bool) {
	day, rest, _ := strings.Cut(strings.TrimPrefix(s, " "), " ")
	t, ok := parseDay([]byte(day))
	if !ok || len(rest) != len("13:14:15 +0100") {
		return time.Time{}, false
	}
	clock, err := time.Parse("15:04:05 -0700", rest)
	if err != nil {
		return time.Time{}, false
	}
	return time.Date(t.Year(), t.Month(), t.Day(), clock.Hour(), clock.Minute(), clock.Second(), 0, clock.Location()), true
}
