package postroad_test

import (
	"bytes"
	"fmt"
	netmail "net/mail"
	"regexp"
	"slices"
	"strings"

	"postroad/internal/imaptest"
)

// A differenceRule knows a kind of difference by a name, under which docs/imap-differences.md says who is right.
type differenceRule struct {
	name  string
	knows func(*difference) bool
}

func ruleFor(d *difference) string {
	for _, r := range differenceRules {
		if r.knows(d) {
			return r.name
		}
	}
	return ""
}

func ruleNames() (names []string) {
	for _, r := range differenceRules {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// anotherPreview is the one kind that says nothing of the message: there may not be many.
const anotherPreview = "Another preview"

// The order matters: the first that knows a difference names it. The names are those of docs/imap-differences.md.
var differenceRules = []differenceRule{
	{"What Dovecot changes in a message", func(d *difference) bool { return rewrittenByDovecot(d.message.text) }},
	{anotherPreview, func(d *difference) bool { return d.question == "PREVIEW" }},
	{"White space in a header field", func(d *difference) bool { return sameBut(d, collapsed) }},
	{"Names of parameters in lower case", func(d *difference) bool { return d.of("parameters", "disposition") && sameBut(d, strings.ToLower) }},
	{"The default charset", func(d *difference) bool { return d.of("parameters") && withoutDefaultCharset(d) }},
	{"A field that comes twice", func(d *difference) bool { return d.field() != "" && len(d.fields(d.field())) > 1 }},
	{"A name in a comment, a name that is an address", func(d *difference) bool { return d.addresses() && sameBut(d, nil, withoutName) }},
	{"An address that is none", func(d *difference) bool { return d.addresses() && invalidAddresses(d) }},
	{"A Content-Type that is none", func(d *difference) bool { return emptyType(d.theirs) || d.of("type", "subtype") && d.theirs.Text == "" }},
	{"A message in base64", func(d *difference) bool { return encodedMessage(d.ours, d.theirs) }},
	{"A message of message/global", func(d *difference) bool { return d.ours.At(1).Is("global") && d.ours.At(7).Kind == imaptest.List }},
	{"The line end before a boundary", func(d *difference) bool {
		return d.of("octets") && plus(d.ours, 2).Equal(d.theirs) || d.of("lines") && plus(d.ours, 1).Equal(d.theirs)
	}},
	{"An empty part at the end", func(d *difference) bool { return d.of("parts") && emptyLast(d.theirs) }},
	{"A line that is no field", func(d *difference) bool {
		return strings.HasPrefix(d.question, "BODY[HEADER.FIELDS.NOT") && fieldsOnly(d.theirs.Text) == fieldsOnly(d.ours.Text)
	}},
	{"BINARY of a whole message", func(d *difference) bool {
		return strings.HasPrefix(d.question, "BINARY") && strings.Contains(d.question, "[]")
	}},
	{"A part that cannot be decoded", func(d *difference) bool {
		return d.ofPart() && (strings.Contains(d.theirs.Text, "[PARSE]") || strings.Contains(d.theirs.Text, "[UNKNOWN-CTE]"))
	}},
	{"Dovecot breaks off", func(d *difference) bool { return strings.HasSuffix(d.theirs.Text, "the connection ended") }},
	{"A part that is not there", func(d *difference) bool {
		return d.ofPart() && d.ours.Kind == imaptest.Nil && d.theirs.Kind == imaptest.String && d.theirs.Text == ""
	}},
	{"A Date that is none, or far away", func(d *difference) bool {
		return d.dated() && slices.ContainsFunc(append(d.others, d.message), func(m *compared) bool { return !m.soundDate() })
	}},
	{"An address that is none", func(d *difference) bool { return d.addressKey() != "" && d.invalidField(d.addressKey()) }},
	{"A name in a comment, a name that is an address", func(d *difference) bool {
		return d.addressKey() != "" && slices.ContainsFunc(d.fields(d.addressKey()), func(v string) bool { return strings.ContainsAny(v, "()") })
	}},
	{"White space in a header field", func(d *difference) bool {
		return d.asks("SORT DISPLAY") && slices.ContainsFunc(d.fields(d.addressKey()), wordsWithoutSpace.MatchString)
	}},
	{"A charset that not everybody knows", func(d *difference) bool { return d.asks("SORT ") && d.oddCharset() }},
	{"The header of an attached message", func(d *difference) bool {
		return d.searchesBody() && d.ours.Text == "found" && attachesMessage.MatchString(d.text())
	}},
	{"Text after a boundary", func(d *difference) bool { return d.searchesBody() && textAfterBoundary(d) }},
	{"Text that is in no part", func(d *difference) bool {
		return d.searchesBody() && d.theirs.Text == "found" && strings.Contains(d.text(), "boundary")
	}},
	{"A line that is no field", func(d *difference) bool {
		return d.asks("SEARCH") && d.theirs.Text == "found" && fieldsOnly(d.header()+"\r\n") != d.header()+"\r\n"
	}},
	{"A part that cannot be decoded", func(d *difference) bool {
		return d.searchesBody() && (d.oddCharset() || d.oddEncoding())
	}},
	{"A disposition that is none", func(d *difference) bool { return d.of("disposition") && d.theirs.At(0).Text == "" }},
	{"Text after a boundary", func(d *difference) bool { return d.of("parts", "octets", "lines") && textAfterBoundary(d) }},
	{"A parameter that needs quotes", func(d *difference) bool { return d.of("parameters", "disposition") && startsAlike(d.ours, d.theirs) }},
	{"A transfer encoding that is none", func(d *difference) bool { return d.of("encoding") && d.theirs.Is("7bit") }},
}

// otherParts are the rules by which a message has other parts, or parts that are read otherwise, so that what is said of
// them and found in them is other, too.
var otherParts = []string{"A Content-Type that is none", "A part that cannot be decoded", "A message in base64", "A message of message/global", "The line end before a boundary", "An empty part at the end", "Text after a boundary"}

// ofPart reports whether the question is of a numbered part.
func (d *difference) ofPart() bool { return partQuestion.MatchString(d.question) }

var partQuestion = regexp.MustCompile(`^(BODY|BINARY|BINARY\.SIZE)(\.PEEK)?\[[0-9]`)

// of reports whether the difference is in an element of one of these names.
func (d *difference) of(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(d.question, " "+name) })
}

// field is the header field that an element of an ENVELOPE comes from.
func (d *difference) field() string {
	at := strings.LastIndexByte(d.question, ' ')
	if at < 0 || !strings.HasSuffix(strings.ToLower(d.question[:at]), "envelope") {
		return ""
	}
	name := d.question[at+1:]
	if (name == "sender" || name == "reply-to") && len(d.fields(name)) == 0 {
		return "from"
	}
	return name
}

func (d *difference) addresses() bool { return d.of("from", "sender", "reply-to", "to", "cc", "bcc") }

// header is the message's, or the whole message where a message in it is meant.
func (d *difference) header() string {
	head, body, _ := strings.Cut(string(d.message.text), "\r\n\r\n")
	if strings.Contains(d.question, " envelope ") {
		return body
	}
	return head
}

// fields are the values of a header field.
func (d *difference) fields(name string) (values []string) {
	field := regexp.MustCompile(`(?im)^` + regexp.QuoteMeta(name) + `[ \t]*:((?:.*\n[ \t])*.*)$`)
	for _, m := range field.FindAllStringSubmatch(d.header(), -1) {
		values = append(values, collapsed(m[1]))
	}
	return values
}

var wordsWithoutSpace = regexp.MustCompile(`\w"[^"]*"|"[^"]*"\w`)

func (d *difference) asks(prefix string) bool { return strings.HasPrefix(d.question, prefix) }

func (d *difference) text() string { return string(d.message.text) }

// dated reports whether the answer hangs on Date.
func (d *difference) dated() bool {
	return d.asks("SEARCH") && strings.Contains(d.question, "SENT") || d.asks("SORT") && strings.Contains(d.question, "DATE") || d.asks("THREAD")
}

// soundDate reports whether a message has one Date, by RFC 5322, in the years that a 32-bit time has.
func (m *compared) soundDate() bool {
	values := (&difference{message: m}).fields("date")
	if len(values) != 1 {
		return false
	}
	date, err := netmail.ParseDate(values[0])
	return err == nil && date.Year() >= 1970 && date.Year() < 2038
}

// addressKey is the field that a search or sort key is about.
func (d *difference) addressKey() string {
	m := regexp.MustCompile(`^(?:SEARCH|SORT) (?:CHARSET UTF-8 )?(?:DISPLAY)?(FROM|TO|CC|BCC)\b`).FindStringSubmatch(d.question)
	if m == nil {
		return ""
	}
	return strings.ToLower(m[1])
}

var attachesMessage = regexp.MustCompile(`(?i)message/|multipart/digest`)

func (d *difference) searchesBody() bool {
	return d.asks("SEARCH") && (strings.Contains(d.question, "BODY ") || strings.Contains(d.question, "TEXT "))
}

// oddCharset reports whether a message is in a charset that a library may not have, or has octets in none.
func (d *difference) oddCharset() bool {
	names := regexp.MustCompile(`(?i)=\?([^?*]+)[?*]|charset="?([^"\s;]+)`)
	known := regexp.MustCompile(`(?i)^(utf-8|us-ascii|iso-8859-1?[0-9]|windows-12[0-9]{2}|iso-2022-jp|koi8-r|big5|euc-kr|euc-jp|shift_jis)$`)
	for _, m := range names.FindAllStringSubmatch(d.text(), -1) {
		if !known.MatchString(m[1] + m[2]) {
			return true
		}
	}
	return strings.ContainsFunc(d.header(), func(r rune) bool { return r >= 0x80 })
}

// oddEncoding reports whether a part of the message names a transfer encoding that there is not.
func (d *difference) oddEncoding() bool {
	for _, m := range encodings.FindAllStringSubmatch(d.text(), -1) {
		if !slices.Contains([]string{"7bit", "8bit", "binary", "base64", "quoted-printable"}, strings.ToLower(m[1])) {
			return true
		}
	}
	return false
}

var encodings = regexp.MustCompile(`(?im)^content-transfer-encoding:[ \t]*(.*?)[ \t]*\r?$`)

// rewrittenByDovecot reports whether a message has octets that Dovecot stores otherwise: NUL, and CR without LF or
// after another.
func rewrittenByDovecot(text []byte) bool {
	return bytes.IndexByte(text, 0) >= 0 || bytes.Count(text, []byte("\r")) != bytes.Count(text, []byte("\r\n"))
}

// sameBut reports whether the answers are the same when all texts, and the trees, are brought into one form.
func sameBut(d *difference, text func(string) string, trees ...func(imaptest.Tree) imaptest.Tree) bool {
	return formed(d.ours, text, trees).Equal(formed(d.theirs, text, trees))
}

func formed(n imaptest.Tree, text func(string) string, trees []func(imaptest.Tree) imaptest.Tree) imaptest.Tree {
	if text != nil && n.Kind == imaptest.String {
		n.Text = text(n.Text)
	}
	n.List = slices.Clone(n.List)
	for i := range n.List {
		n.List[i] = formed(n.List[i], text, trees)
	}
	for _, f := range trees {
		n = f(n)
	}
	return n
}

// collapsed has one space for each run of white space, and none at the ends.
func collapsed(s string) string { return strings.Join(strings.Fields(s), " ") }

func withoutDefaultCharset(d *difference) bool {
	theirs := d.theirs
	n := len(theirs.List)
	if n < 2 || !theirs.List[n-2].Is("charset") || !theirs.List[n-1].Is("us-ascii") {
		return false
	}
	theirs.List = theirs.List[:n-2]
	return formed(d.ours, strings.ToLower, nil).Equal(formed(theirs, strings.ToLower, nil)) || d.ours.Kind == imaptest.Nil && n == 2
}

func withoutName(n imaptest.Tree) imaptest.Tree {
	if len(n.List) == 4 {
		n.List[0] = imaptest.Tree{}
	}
	return n
}

// fieldsOnly is a header without the lines that belong to no field, and without the empty line.
func fieldsOnly(header string) string {
	var b strings.Builder
	keep := false
	for line := range strings.Lines(header) {
		if line[0] != ' ' && line[0] != '\t' {
			keep = fieldLine.MatchString(line)
		}
		if keep {
			b.WriteString(line)
		}
	}
	return b.String()
}

var fieldLine = regexp.MustCompile(`^[!-9;-~]+[ \t]*:`)

func emptyType(n imaptest.Tree) bool {
	return len(n.List) >= len(partNames) && n.At(0).Kind == imaptest.String && n.At(0).Text == "" && n.At(1).Text == ""
}

// encodedMessage reports whether a part is a message to Dovecot, which does not decode it, and not to us.
func encodedMessage(ours, theirs imaptest.Tree) bool {
	return theirs.At(0).Is("message") && theirs.At(5).Is("base64") && ours.At(0).Is("application") && ours.At(1).Is("octet-stream")
}

func plus(n imaptest.Tree, k uint32) imaptest.Tree {
	v, _ := n.Number()
	return imaptest.Tree{Kind: imaptest.Atom, Text: fmt.Sprint(v + k)}
}

// emptyLast reports whether the last part is text of no octets.
func emptyLast(n imaptest.Tree) bool {
	last := n.At(children(n) - 1)
	return last.At(0).Is("text") && last.At(6).Text == "0"
}

var boundaries = regexp.MustCompile(`(?i)boundary="?([^"\s;]+)`)

// textAfterBoundary reports whether a line begins as a boundary does, and goes on.
func textAfterBoundary(d *difference) bool {
	for _, m := range boundaries.FindAllSubmatch(d.message.text, -1) {
		for line := range bytes.Lines(d.message.text) {
			if rest, ok := bytes.CutPrefix(line, append([]byte("--"), m[1]...)); ok && len(bytes.TrimSpace(bytes.TrimPrefix(rest, []byte("--")))) > 0 {
				return true
			}
		}
	}
	return false
}

// startsAlike reports whether each value of theirs is one of ours, or its beginning.
func startsAlike(ours, theirs imaptest.Tree) bool {
	o, t := ours.String(), theirs.String()
	for _, v := range regexp.MustCompile(`"[^"]*"`).FindAllString(t, -1) {
		if !strings.Contains(o, v[:len(v)-1]) && v != `"us-ascii"` && v != `"charset"` {
			return false
		}
	}
	return true
}

// invalidAddresses reports whether Dovecot marks an address as incomplete, or a field is not of RFC 5322's syntax.
func invalidAddresses(d *difference) bool {
	if theirs := d.theirs.String(); strings.Contains(theirs, "MISSING_") || strings.Contains(theirs, "SYNTAX_ERROR") {
		return true
	}
	return d.invalidField(d.field())
}

func (d *difference) invalidField(name string) bool {
	return slices.ContainsFunc(d.fields(name), func(v string) bool {
		_, err := netmail.ParseAddressList(v)
		return err != nil || strings.HasPrefix(v, ",")
	})
}
