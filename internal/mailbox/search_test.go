package mailbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/text/unicode/norm"

	"postroad/internal/mime"
)

// The messages that TestSearch looks at, by UID.
var searched = []struct {
	text  string
	date  string // INTERNALDATE
	flags []string
}{
	{"From: Anna <anna@example.test>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe_aus?=\r\n =?utf-8?q?_K=C3=B6ln?=\r\n" +
		"Date: Sat, 29 Feb 2020 23:30:00 -0800\r\n\r\nplain body\r\n", "2020-03-01T23:59:59+14:00", []string{`\Seen`}},
	{"From: bob@example.test\r\nTo: anna@example.test\r\nSubject: folded\r\n\tsubject line\r\nX-Empty:\r\n" +
		"Date: 1 Mar 2020 00:10 +0000\r\n\r\n" + strings.Repeat("x", 2000) + "\r\n", "2020-03-02T00:00:00Z", []string{"work", `\Flagged`}},
	{"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
		"Caf=E9 au l=\r\nait\r\n", "2021-01-01T00:00:00Z", nil},
	{"Content-Type: multipart/mixed; boundary=b\r\n\r\nthe preamble\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n" +
		"Content-Transfer-Encoding: base64\r\n\r\nPGI+w4Q8L2I+\r\n--b\r\nContent-Type: application/pdf\r\n\r\nsecret binary\r\n" +
		"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: =?utf-8?b?SW5uZXI=?= matter\r\n\r\ninner text\r\n--b--\r\n",
		"2021-01-02T00:00:00Z", []string{`\Seen`, `\Deleted`}},
}

func number(n int64) *int64 { return &n }

func date(s string) time.Time {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return t
}

func header(field, text string) Criterion { return Criterion{Header: []HeaderTest{{field, text}}} }
func body(text ...string) Criterion       { return Criterion{Body: text} }
func text(text ...string) Criterion       { return Criterion{Text: text} }
func has(flag string) Criterion           { return Criterion{Has: []string{flag}} }
func not(c Criterion) Criterion           { return Criterion{Not: &c} }

func TestSearch(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	for _, m := range searched {
		d, structure := h.draft(m.text)
		internal, err := time.Parse(time.RFC3339, m.date)
		h.must(err)
		_, err = h.Append(id, d, structure, internal, m.flags, nil)
		h.must(err)
	}
	for _, c := range []struct {
		what string
		c    Criterion
		want []uint32
	}{
		{"all", Criterion{}, []uint32{1, 2, 3, 4}},
		{"uids", Criterion{UIDs: set(2, 4, 9)}, []uint32{2, 4}},
		{"no uids", Criterion{UIDs: set()}, nil},
		{"flag", has(`\seen`), []uint32{1, 4}},
		{"keyword", has("WORK"), []uint32{2}},
		{"unknown keyword", has("nothing"), nil},
		{"without flag", Criterion{HasNot: []string{`\Seen`, "work"}}, []uint32{3}},
		{"not", not(has(`\Seen`)), []uint32{2, 3}},
		{"or", Criterion{Or: []Criterion{has("work"), has(`\Deleted`)}}, []uint32{2, 4}},
		{"or of one", Criterion{Or: []Criterion{has("work")}}, []uint32{2}},
		{"and", Criterion{And: []Criterion{has(`\Seen`), not(has(`\Deleted`))}}, []uint32{1}},
		{"deep", not(Criterion{Or: []Criterion{not(Criterion{And: []Criterion{has(`\Seen`)}}), body("plain")}}), []uint32{4}},
		{"uids deep", not(Criterion{UIDs: set(1, 2)}), []uint32{3, 4}},
		{"modseq", Criterion{ModSeq: 4}, []uint32{3, 4}},
		{"larger", Criterion{Larger: number(int64(len(searched[1].text)) - 1)}, []uint32{2}},
		{"larger is not equal", Criterion{Larger: number(int64(len(searched[1].text)))}, nil},
		{"smaller", Criterion{Smaller: number(int64(len(searched[0].text)))}, []uint32{3}},

		{"since, in the message's zone", Criterion{Since: date("2020-03-02")}, []uint32{2, 3, 4}},
		{"before, in the message's zone", Criterion{Before: date("2020-03-02")}, []uint32{1}},
		{"on", Criterion{Since: date("2020-03-01"), Before: date("2020-03-02")}, []uint32{1}},
		{"sent since, in the sender's zone", Criterion{SentSince: date("2020-03-01")}, []uint32{2}},
		{"sent before, in the sender's zone", Criterion{SentBefore: date("2020-03-01")}, []uint32{1}},
		{"without date neither", Criterion{UIDs: set(3), SentSince: date("1970-01-02")}, nil},
		{"sent on", Criterion{SentSince: date("2020-02-29"), SentBefore: date("2020-03-01")}, []uint32{1}},

		{"decoded subject", header("SUBJECT", "grüsse"), nil}, // ß is not ss
		{"decoded subject in any case", header("subject", "GRÜßE AUS KÖLN"), []uint32{1}},
		{"decomposed", header("subject", norm.NFD.String("köln")), []uint32{1}},
		{"unfolded", header("Subject", "Folded\tsubject"), []uint32{2}},
		{"field is there", header("X-Empty", ""), []uint32{2}},
		{"empty field has no text", header("X-Empty", "x"), nil},
		{"field of another name", header("X-Emp", ""), nil},
		{"field name is no text", header("Subject", "subject:"), nil},
		{"body is no header", header("Subject", "inner"), nil},
		{"from and to", Criterion{Header: []HeaderTest{{"from", "BOB@"}, {"to", "anna"}}}, []uint32{2}},

		{"body", body("Plain BODY"), []uint32{1}},
		{"body of all texts", body("plain", "body"), []uint32{1}},
		{"body of not all texts", body("plain", "missing"), nil},
		{"header is no body", body("anna"), nil},
		{"quoted-printable in another charset", body("CAFÉ au lait"), []uint32{3}},
		{"base64", body("<b>ä</b>"), []uint32{4}},
		{"nested header", body("inner matter"), []uint32{4}},
		{"nested header with its name", body("subject: inner"), []uint32{4}},
		{"nested text", body("inner text"), []uint32{4}},
		{"not in a binary part", body("secret"), nil},
		{"not in the preamble", body("preamble"), nil},
		{"empty text", body(""), []uint32{1, 2, 3, 4}},

		{"text in the header", text("anna"), []uint32{1, 2}},
		{"text with the field's name", text("from: bob"), []uint32{2}},
		{"text in the body", text("plain body"), []uint32{1}},
		{"text does not go across", text("bob@example.test to: anna"), nil},
		{"all texts", text("anna", "plain"), []uint32{1}},
	} {
		t.Run(c.what, func(t *testing.T) {
			found, err := h.Search(t.Context(), id, nil, c.c)
			h.must(err)
			equal(t, "found", found.ToArray(), c.want)
			found, err = h.Search(t.Context(), id, set(1, 3, 7), c.c)
			h.must(err)
			var want []uint32
			for _, uid := range c.want {
				if uid == 1 || uid == 3 {
					want = append(want, uid)
				}
			}
			equal(t, "found of some", found.ToArray(), want)
		})
	}
}

func TestSearchStops(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 10)
	if _, err := h.Search(stop(t, 5), id, nil, body("world")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := h.Search(t.Context(), id+1, nil, Criterion{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no mailbox: %v", err)
	}
}

// What is cheap decides before a body is opened: a message whose body cannot be read is still found by its flags.
func TestSearchCheapFirst(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.append(id, small, `\Seen`, "work")
	unread := func(*examiner) (bool, error) {
		t.Error("the body is asked")
		return false, nil
	}
	q := &inquiry{s: h.Service, ctx: t.Context(), id: id}
	dear := &node{cost: ofBody, match: unread}
	for _, c := range []struct {
		what string
		n    *node
		want []uint32
	}{
		{"or of a set", combine(anyOf, dear, q.compile(&Criterion{Has: []string{`\Seen`}})), []uint32{1}},
		{"or of a keyword", combine(anyOf, dear, q.compile(&Criterion{Has: []string{"work"}})), []uint32{1}},
		{"and of a set", combine(all, dear, q.compile(&Criterion{HasNot: []string{`\Seen`}})), nil},
		{"and of a keyword", combine(all, dear, q.compile(&Criterion{HasNot: []string{"work"}})), nil},
		{"not", combine(not1, combine(anyOf, dear, q.compile(&Criterion{Has: []string{`\Seen`}}))), nil},
	} {
		must, may, err := q.bounds(c.n, set(1))
		h.must(err)
		found, err := q.decide(c.n, must, may)
		h.must(err)
		equal(t, c.what, found.ToArray(), c.want)
	}
}

// A header that is longer than what is read at first, and one without an end.
func TestSearchLongHeader(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.append(id, strings.Repeat("X-Fill: "+strings.Repeat("y", 60)+"\r\n", 1000)+"Subject: needle\r\n\r\nSubject: body\r\n")
	h.append(id, strings.Repeat("X-Fill: y\r\n", 500)+"Subject: needle")
	found, err := h.Search(t.Context(), id, nil, header("subject", "needle"))
	h.must(err)
	equal(t, "found", found.ToArray(), []uint32{1, 2})
	found, err = h.Search(t.Context(), id, nil, header("subject", "body"))
	h.must(err)
	equal(t, "found in the body", found.ToArray(), nil)
}

func TestFold(t *testing.T) {
	for _, c := range []struct{ a, b string }{
		{"HELLO", "hello"}, {"ΌΣΟΣ", "όσος"}, {"ſ", "S"}, {"\u212a", "k"}, {"e\u0301", "É"}, {"Ж", "ж"}, {"\xff", "\xff"},
	} {
		if !bytes.Equal(fold(c.a), fold(c.b)) {
			t.Errorf("%q and %q are %q and %q", c.a, c.b, fold(c.a), fold(c.b))
		}
	}
}

// A finder finds what lies across the pieces in which text comes, and its memory stays small.
func TestFinder(t *testing.T) {
	needle := "Grüße\u0301 X"
	places := []int{0, 1, 2*chunk - 5, 5 * chunk}
	for at := chunk - 16; at <= chunk+1; at++ {
		places = append(places, at)
	}
	for _, at := range places {
		for _, end := range []int{0, 1, 2 * chunk} {
			hay := strings.Repeat("x", at) + norm.NFD.String(needle) + strings.Repeat("y", end)
			for _, r := range []io.Reader{strings.NewReader(hay), iotest.HalfReader(strings.NewReader(hay)), iotest.DataErrReader(strings.NewReader(hay))} {
				var f finder
				f.start([][]byte{fold(strings.ToUpper("grüß") + "é x"), []byte("MISSING")}, false)
				if err := f.read(r); err != nil || f.needles[0].found == unfound || f.needles[1].found != unfound {
					t.Errorf("at %d before %d: %v, %v", at, end, f.needles, err)
				}
			}
		}
	}
}

func TestFinderIsBounded(t *testing.T) {
	for _, what := range []string{"a", "\u0301", "\xcc", "e\u0301\u0301"} {
		var f finder
		f.start([][]byte{[]byte("ZZZ")}, false)
		r := io.LimitReader(repeat(what), 50*chunk)
		if err := f.read(r); err != nil || f.done() {
			t.Errorf("%q: %v", what, err)
		}
		if m := cap(f.pieces.raw) + cap(f.pieces.folded) + cap(f.window); m > 16*chunk {
			t.Errorf("%q takes %d octets", what, m)
		}
	}
	broken := errors.New("broken")
	var f finder
	f.start([][]byte{[]byte("ZZZ")}, false)
	if err := f.read(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("an error is lost: %v", err)
	}
}

// repeat reads as a text over and over.
type repeat string

func (s repeat) Read(p []byte) (int, error) {
	n := 0
	for n+len(s) <= len(p) {
		n += copy(p[n:], s)
	}
	if n == 0 {
		n = copy(p, s[:1])
	}
	return n, nil
}

// Whatever the text and its pieces, a finder finds what a look at the whole finds.
func FuzzFinder(f *testing.F) {
	f.Add([]byte("some text"), "ME t", uint16(3))
	f.Add([]byte("e\u0301e\u0301"), "\u00e9", uint16(chunk-1))
	f.Add([]byte("\xcc\x81\xff"), "\xff", uint16(chunk-2))
	f.Fuzz(func(t *testing.T, hay []byte, needle string, before uint16) {
		all := append(bytes.Repeat([]byte("x"), int(before)), hay...)
		var f finder
		f.start([][]byte{fold(needle)}, false)
		if err := f.read(iotest.HalfReader(bytes.NewReader(all))); err != nil {
			t.Fatal(err)
		}
		if want := bytes.Contains(fold(string(all)), fold(needle)); f.done() != want {
			t.Errorf("found %v, want %v", f.done(), want)
		}
	})
}

// Every message of the corpus, if it is there, can be searched, and its own subject finds it.
func TestSearchCorpus(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	for _, raw := range corpus(t) {
		uid := h.append(id, raw)
		structure, err := mime.Scan(strings.NewReader(raw))
		h.must(err)
		subject := mime.DecodeHeader(structure.Envelope.Subject)
		c := Criterion{And: []Criterion{text(""), not(body(fmt.Sprint("no", uid, "text")))}}
		if subject != "" {
			c.Header, c.Envelope = []HeaderTest{{"subject", subject}}, []HeaderTest{{"Subject", strings.ToValidUTF8(subject, "\ufffd")}}
		}
		found, err := h.Search(t.Context(), id, set(uid), c)
		if err != nil || !found.Contains(uid) {
			t.Errorf("%q: %v, %v", subject, found, err)
		}
	}
}
