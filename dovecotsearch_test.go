package postroad_test

import (
	"bytes"
	"fmt"
	"mime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"

	"postroad/internal/imaptest"
)

// searches compares which messages are found.
func (c *comparison) searches() {
	for _, q := range c.queries() {
		c.search(q.line, q.text...)
	}
}

// A query is a SEARCH with {} for each text, which is sent as a literal.
type query struct {
	line string
	text [][]byte
}

// queries are words that the messages have, and what needs none.
func (c *comparison) queries() (list []query) {
	for _, line := range []string{
		"SINCE 1-Jun-2024", "BEFORE 1-Mar-2024", "ON 12-May-2024", "NOT SINCE 1-Jun-2024",
		"SENTSINCE 1-Jan-2010", "SENTBEFORE 1-Jan-2005", "SENTON 2-Jan-2006", "OR SENTBEFORE 1-Jan-1999 SENTSINCE 1-Jan-2020",
		"LARGER 100000", "SMALLER 300", "NOT (OR LARGER 10000 SMALLER 1000)",
		`HEADER Content-Type multipart`, `HEADER X-Mailer ""`, `HEADER List-Id ""`, `HEADER Received "by"`, `NOT HEADER Message-ID ""`,
		`SUBJECT ""`, `NOT SUBJECT ""`, `TEXT "base64"`, `BODY "base64"`, `TO "undisclosed"`, `CC "@"`, `BCC "@"`, `FROM "<"`, `FROM "@example"`,
		"UNSEEN", "SEEN", "ANSWERED", "UID 5:10,900:*", "1:10 NOT 5", "KEYWORD nothing", "UNKEYWORD nothing",
	} {
		list = append(list, query{line: line})
	}
	keys := []string{"SUBJECT {}", "BODY {}", "FROM {}", "TEXT {}", "TO {}", "TEXT {}", "HEADER Message-ID {}", "BODY {}"}
	for i := 3; i < len(c.texts); i += 7 {
		key := keys[i/7%len(keys)]
		if word := c.texts[i].word(key); word != "" {
			list = append(list, query{"CHARSET UTF-8 " + key, [][]byte{[]byte(word)}})
		}
	}
	return list
}

// word picks a word of a message that suits a search key.
func (m *compared) word(key string) string {
	head, body, _ := strings.Cut(string(m.text), "\r\n\r\n")
	switch field, _, _ := strings.Cut(strings.TrimPrefix(key, "HEADER "), " "); field {
	case "BODY", "TEXT":
		return longestWord(body)
	default:
		for line := range strings.SplitSeq(head, "\r\n") {
			if name, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, field) {
				if decoded, err := new(mime.WordDecoder).DecodeHeader(v); err == nil {
					v = decoded
				}
				return longestWord(v)
			}
		}
	}
	return ""
}

// longestWord is the longest word of at most 12 letters, and the last of these.
func longestWord(s string) (word string) {
	for _, w := range strings.FieldsFunc(strings.ToValidUTF8(s, " "), func(r rune) bool { return !unicode.IsLetter(r) }) {
		if len(w) >= len(word) && len(w) <= 12 {
			word = w
		}
	}
	return word
}

func (c *comparison) search(line string, text ...[]byte) {
	question := "SEARCH " + strings.Replace(line, "{}", fmt.Sprintf("%q", bytes.Join(text, nil)), 1)
	ours, err1 := numbers(c.ours, "SEARCH", line, text)
	theirs, err2 := numbers(c.theirs.treeConn, "SEARCH", line, text)
	c.refusals("", question, err1, err2)
	for n := range c.texts {
		c.asked++
		if o, t := slices.Contains(ours, uint32(n+1)), slices.Contains(theirs, uint32(n+1)); o != t {
			c.differ(difference{message: &c.texts[n], question: question, ours: found(o), theirs: found(t)})
		}
	}
}

func found(yes bool) imaptest.Tree {
	if yes {
		return imaptest.Tree{Kind: imaptest.Atom, Text: "found"}
	}
	return imaptest.Tree{Kind: imaptest.Atom, Text: "not-found"}
}

// numbers are those of an untagged SEARCH or SORT.
func numbers(c *treeConn, word, line string, text [][]byte) (list []uint32, err error) {
	untagged, err := c.command(word+" "+line, text...)
	for _, r := range untagged {
		if len(r) < 2 || !r[1].Is(word) {
			continue
		}
		for _, v := range r[2:] {
			n, _ := v.Number()
			list = append(list, n)
		}
	}
	return list, err
}

// sorts compares orders.
func (c *comparison) sorts() {
	keys := []string{"ARRIVAL", "CC", "DATE", "FROM", "REVERSE SIZE", "SUBJECT", "REVERSE SUBJECT", "REVERSE DATE", "TO"}
	if c.ours.can(c.t, "SORT=DISPLAY") {
		keys = append(keys, "DISPLAYFROM", "DISPLAYTO")
	}
	for _, key := range keys {
		line := "(" + key + ") UTF-8 ALL"
		ours, err1 := numbers(c.ours, "SORT", line, nil)
		theirs, err2 := numbers(c.theirs.treeConn, "SORT", line, nil)
		c.refusals("", "SORT "+key, err1, err2)
		if len(ours) != len(c.texts) || len(theirs) != len(c.texts) {
			c.t.Fatalf("SORT %s: %d and %d of %d messages", key, len(ours), len(theirs), len(c.texts))
		}
		c.asked += len(c.texts)
		c.order("SORT "+key, ours, theirs)
	}
}

// order tells of the fewest messages without which the rest have the same order. Those that a rule knows are told of,
// and then left out, so that they cannot put others out of their places.
func (c *comparison) order(question string, ours, theirs []uint32) {
	known := func(n uint32) bool {
		return ruleFor(&difference{message: &c.texts[n-1], question: question, ours: atom(0), theirs: atom(1)}) != ""
	}
	for _, d := range c.moved(question, ours, theirs) {
		if ruleFor(&d) != "" {
			c.differ(d)
		}
	}
	for _, d := range c.moved(question, slices.DeleteFunc(ours, known), slices.DeleteFunc(theirs, known)) {
		c.differ(d)
	}
}

// moved are the messages that do not stand in a longest sequence of places that rises in both.
func (c *comparison) moved(question string, ours, theirs []uint32) (list []difference) {
	place := map[uint32]int{}
	for i, n := range theirs {
		place[n] = i
	}
	previous, ends := make([]int, len(ours)), []int{}
	for i, n := range ours {
		at := sort.Search(len(ends), func(k int) bool { return place[ours[ends[k]]] >= place[n] })
		previous[i] = -1
		if at > 0 {
			previous[i] = ends[at-1]
		}
		ends = append(ends[:at], append([]int{i}, ends[min(at+1, len(ends)):]...)...)
	}
	rising := map[int]bool{}
	for i := ends[len(ends)-1]; i >= 0; i = previous[i] {
		rising[i] = true
	}
	for i, n := range ours {
		if !rising[i] {
			list = append(list, difference{message: &c.texts[n-1], question: question, ours: atom(i + 1), theirs: atom(place[n] + 1)})
		}
	}
	return list
}

func atom(n int) imaptest.Tree { return imaptest.Tree{Kind: imaptest.Atom, Text: strconv.Itoa(n)} }

// threads compares which message answers which.
func (c *comparison) threads() {
	for _, algorithm := range []string{"REFERENCES", "REFS", "ORDEREDSUBJECT"} {
		ours, err1 := parents(c.ours, algorithm)
		theirs, err2 := parents(c.theirs.treeConn, algorithm)
		c.refusals("", "THREAD "+algorithm, err1, err2)
		for n := range c.texts {
			c.asked++
			if o, t := ours[uint32(n+1)], theirs[uint32(n+1)]; o != t {
				c.differ(difference{
					message: &c.texts[n], others: c.named(o + " " + t), question: "THREAD " + algorithm,
					ours: imaptest.Tree{Kind: imaptest.String, Text: o}, theirs: imaptest.Tree{Kind: imaptest.String, Text: t},
				})
			}
		}
	}
}

// named are the messages whose numbers stand in a text.
func (c *comparison) named(text string) (list []*compared) {
	for word := range strings.FieldsSeq(text) {
		if n, err := strconv.Atoi(word); err == nil {
			list = append(list, &c.texts[n-1])
		}
	}
	return list
}

// parents says for each message to what it is an answer, and with which message its thread begins.
func parents(c *treeConn, algorithm string) (map[uint32]string, error) {
	all := map[uint32]string{}
	untagged, err := c.command("THREAD " + algorithm + " UTF-8 ALL")
	for _, r := range untagged {
		if len(r) < 2 || !r[1].Is("THREAD") {
			continue
		}
		for _, thread := range r[2:] {
			first := lowest(thread)
			descend(thread, "", func(n uint32, parent string) { all[n] = fmt.Sprintf("%s in %d", parent, first) })
		}
	}
	return all, err
}

func lowest(n imaptest.Tree) (first uint32) {
	first, ok := n.Number()
	if ok {
		return first
	}
	for _, child := range n.List {
		if v := lowest(child); first == 0 || v < first {
			first = v
		}
	}
	return first
}

// descend walks a thread: (1 2 (3)(4)) is 2 answering 1, and 3 and 4 answering 2.
func descend(thread imaptest.Tree, parent string, visit func(n uint32, parent string)) {
	for _, child := range thread.List {
		n, ok := child.Number()
		if !ok {
			descend(child, parent, visit)
			continue
		}
		visit(n, parent)
		parent = strconv.Itoa(int(n))
	}
}
