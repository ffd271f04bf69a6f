package mailbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/mime"
	"postroad/internal/store"
)

// Criterion is one test of a message, or a combination of tests (RFC 9051, 6.4.4). The zero Criterion is ALL.
// All that it says must hold.
type Criterion struct {
	And []Criterion
	Or  []Criterion // at least one; empty is no test
	Not *Criterion

	UIDs   *roaring.Bitmap // nil is no test
	Has    []string        // flags that are set
	HasNot []string

	Since, Before         time.Time // INTERNALDATE, by its day
	SentSince, SentBefore time.Time // the Date field, by its day; a message without date meets neither
	Larger, Smaller       *int64    // octets
	ModSeq                uint64    // at least

	Header []HeaderTest
	Body   []string // substring of decoded text, any case
	Text   []string // of header or body
}

// HeaderTest asks for a header field that contains a text; an empty text asks for the field.
type HeaderTest struct{ Field, Text string }

// Search returns the messages among uids (nil: all) that meet the criterion. It reads in pages and can be cancelled.
// Cheap tests come first: the body is opened only when nothing else has decided. Text is compared in NFC without
// regard to case; header fields are unfolded and their encoded-words decoded. Text that lies within parts whose encoding
// cannot be undone is not found. Memory is bounded whatever the messages are.
func (s *Service) Search(ctx context.Context, id ID, uids *roaring.Bitmap, c Criterion) (*roaring.Bitmap, error) {
	found := roaring.New()
	tests := compile(&c)
	x := &examiner{s: s}
	for m, err := range s.Messages(id, narrow(uids, c.UIDs)) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		ok, err := x.examine(m, tests)
		if err != nil {
			return nil, err
		}
		if ok {
			found.Add(m.UID)
		}
	}
	return found, nil
}

// narrow returns what is in both sets; nil is all.
func narrow(a, b *roaring.Bitmap) *roaring.Bitmap {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return roaring.And(a, b)
}

// A test is one compiled part of a criterion.
type test struct {
	cost  cost
	match func(*examiner) (bool, error)
}

// A cost is what a test has to read.
type cost int

const (
	ofRecord cost = iota
	ofHeader
	ofBody
)

// compile returns the tests that must all hold, the cheapest first.
func compile(c *Criterion) []test {
	tests := recordTests(c)
	tests = append(tests, headerTests(c)...)
	if len(c.Body) > 0 {
		tests = append(tests, bodyTest(c.Body))
	}
	for _, t := range c.Text {
		tests = append(tests, textTest(t))
	}
	for i := range c.And {
		tests = append(tests, compile(&c.And[i])...)
	}
	if len(c.Or) > 0 {
		tests = append(tests, anyTest(c.Or))
	}
	if c.Not != nil {
		tests = append(tests, notTest(c.Not))
	}
	slices.SortStableFunc(tests, func(a, b test) int { return cmp.Compare(a.cost, b.cost) })
	return tests
}

// recordTests are the tests that the message's record decides.
func recordTests(c *Criterion) []test {
	var tests []test
	add := func(asked bool, match func(*Message) bool) {
		if asked {
			tests = append(tests, test{ofRecord, func(x *examiner) (bool, error) { return match(&x.m), nil }})
		}
	}
	add(c.UIDs != nil, func(m *Message) bool { return c.UIDs.Contains(m.UID) })
	for _, f := range c.Has {
		add(true, func(m *Message) bool { return m.Flags.Has(f) })
	}
	for _, f := range c.HasNot {
		add(true, func(m *Message) bool { return !m.Flags.Has(f) })
	}
	add(c.ModSeq != 0, func(m *Message) bool { return m.ModSeq >= c.ModSeq })
	add(c.Larger != nil, func(m *Message) bool { return m.Size > *c.Larger })
	add(c.Smaller != nil, func(m *Message) bool { return m.Size < *c.Smaller })
	add(!c.Since.IsZero(), func(m *Message) bool { return day(m.Internal) >= day(c.Since) })
	add(!c.Before.IsZero(), func(m *Message) bool { return day(m.Internal) < day(c.Before) })
	return tests
}

// day is a date as a number, in the time's own zone: the tests disregard time and zone (RFC 9051, 6.4.4).
func day(t time.Time) int {
	y, m, d := t.Date()
	return (y*100+int(m))*100 + d
}

// headerTests are the tests that the message's header decides.
func headerTests(c *Criterion) []test {
	var tests []test
	for _, h := range c.Header {
		text := fold(h.Text)
		tests = append(tests, test{ofHeader, func(x *examiner) (bool, error) {
			return x.hasField(func(name string, value func() []byte) bool {
				return strings.EqualFold(name, h.Field) && (len(text) == 0 || bytes.Contains(value(), text))
			})
		}})
	}
	if !c.SentSince.IsZero() {
		tests = append(tests, sentTest(func(sent int) bool { return sent >= day(c.SentSince) }))
	}
	if !c.SentBefore.IsZero() {
		tests = append(tests, sentTest(func(sent int) bool { return sent < day(c.SentBefore) }))
	}
	return tests
}

// sentTest looks at the day of the first Date field.
func sentTest(ok func(sent int) bool) test {
	return test{ofHeader, func(x *examiner) (bool, error) {
		header, err := x.header()
		if err != nil {
			return false, err
		}
		for name, raw := range mime.HeaderFields(header) {
			if strings.EqualFold(name, "Date") {
				sent, good := mime.ParseDate(mime.Unfold(raw))
				return good && ok(day(sent)), nil
			}
		}
		return false, nil
	}}
}

// bodyTest asks for all texts in the body.
func bodyTest(texts []string) test {
	return test{ofBody, func(x *examiner) (bool, error) { return x.bodyHas(texts) }}
}

// textTest asks for a text in the header or the body.
func textTest(text string) test {
	folded := fold(text)
	return test{ofBody, func(x *examiner) (bool, error) {
		found, err := x.hasField(func(name string, value func() []byte) bool {
			return fieldHas(name, value(), folded)
		})
		if found || err != nil {
			return found, err
		}
		return x.bodyHas([]string{text})
	}}
}

// fieldHas looks for a folded text in a field with its name.
func fieldHas(name string, value, text []byte) bool {
	return bytes.Contains(value, text) || bytes.Contains(append(fold(name+": "), value...), text)
}

func anyTest(or []Criterion) test {
	branches := make([][]test, len(or))
	for i := range or {
		branches[i] = compile(&or[i])
	}
	slices.SortStableFunc(branches, func(a, b []test) int { return cmp.Compare(costOf(a), costOf(b)) })
	return test{costOf(branches[len(branches)-1]), func(x *examiner) (bool, error) {
		for _, b := range branches {
			if ok, err := x.all(b); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}}
}

func notTest(c *Criterion) test {
	tests := compile(c)
	return test{costOf(tests), func(x *examiner) (bool, error) {
		ok, err := x.all(tests)
		return !ok && err == nil, err
	}}
}

// costOf is the cost of the dearest test; tests are in order.
func costOf(tests []test) cost {
	if len(tests) == 0 {
		return ofRecord
	}
	return tests[len(tests)-1].cost
}

// maxHeader bounds what is read of a header.
const maxHeader = 1 << 20

// An examiner holds one message after the other against tests. What a message needs is read when
// the first test asks for it; the memory serves the next message too.
type examiner struct {
	s       *Service
	m       Message
	body    *store.Body // nil until needed
	head    []byte      // nil until needed
	headBuf []byte
	finder  finder
}

func (x *examiner) examine(m Message, tests []test) (bool, error) {
	x.m, x.head = m, nil
	defer x.close()
	ok, err := x.all(tests)
	if errors.Is(err, store.ErrNoBody) {
		return false, nil // expunged since the page was read
	}
	return ok, err
}

func (x *examiner) all(tests []test) (bool, error) {
	for _, t := range tests {
		if ok, err := t.match(x); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (x *examiner) close() {
	if x.body != nil {
		_ = x.body.Close() // only read
		x.body = nil
	}
}

func (x *examiner) open() (*store.Body, error) {
	if x.body != nil {
		return x.body, nil
	}
	b, err := x.s.st.OpenBody(x.m.Body)
	if err == nil {
		x.body = b
	}
	return b, err
}

// header reads up to where the header ends. Most do so within the first few kilobytes.
func (x *examiner) header() ([]byte, error) {
	if x.head != nil {
		return x.head, nil
	}
	b, err := x.open()
	if err != nil {
		return nil, err
	}
	for n := int64(4 << 10); ; n *= 4 {
		n = min(n, b.Size(), maxHeader)
		if x.headBuf, err = readAt(b, x.headBuf, mime.Span{Len: n}); err != nil {
			return nil, err
		}
		if n == b.Size() || n == maxHeader || hasBlankLine(x.headBuf) {
			x.head = x.headBuf
			return x.head, nil
		}
	}
}

func hasBlankLine(b []byte) bool {
	return bytes.Contains(b, []byte("\n\r\n")) || bytes.Contains(b, []byte("\n\n")) ||
		bytes.HasPrefix(b, []byte("\r\n")) || bytes.HasPrefix(b, []byte("\n"))
}

// readAt reads a span into buf's memory, or more.
func readAt(r io.ReaderAt, buf []byte, span mime.Span) ([]byte, error) {
	buf = slices.Grow(buf[:0], int(span.Len))[:span.Len]
	n, err := r.ReadAt(buf, span.Off)
	if n == len(buf) || errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:n], err
}

// hasField reports whether ok is true of any header field.
func (x *examiner) hasField(ok func(name string, value func() []byte) bool) (bool, error) {
	header, err := x.header()
	return err == nil && anyField(header, ok), err
}

// anyField asks ok about each field; value gives the decoded and folded value.
func anyField(header []byte, ok func(name string, value func() []byte) bool) bool {
	for name, raw := range mime.HeaderFields(header) {
		if ok(name, func() []byte { return fold(mime.DecodeHeader(mime.Unfold(raw))) }) {
			return true
		}
	}
	return false
}

// bodyHas looks for texts in the text parts, and in the headers of messages within the message.
func (x *examiner) bodyHas(texts []string) (bool, error) {
	b, err := x.open()
	if err != nil {
		return false, err
	}
	structure, err := x.s.Structure(x.m.Body)
	if err != nil {
		return false, err
	}
	x.finder.start(texts)
	err = x.findIn(b, &structure.Root)
	return x.finder.done(), err
}

// findIn looks into a part and those below it, until all is found.
func (x *examiner) findIn(b *store.Body, p *mime.Part) error {
	if x.finder.done() {
		return nil
	}
	if p.Message != nil {
		if err := x.findInHeader(b, p.Message.Root.Header); err != nil {
			return err
		}
		return x.findIn(b, &p.Message.Root)
	}
	for i := range p.Parts {
		if err := x.findIn(b, &p.Parts[i]); err != nil {
			return err
		}
	}
	if text, ok := mime.TextReader(p, io.NewSectionReader(b, p.Body.Off, p.Body.Len)); ok {
		return x.finder.read(text)
	}
	return nil
}

func (x *examiner) findInHeader(b *store.Body, span mime.Span) error {
	span.Len = min(span.Len, maxHeader)
	header, err := readAt(b, nil, span)
	if err != nil {
		return err
	}
	for i, text := range x.finder.texts {
		x.finder.found[i] = x.finder.found[i] || anyField(header, func(name string, value func() []byte) bool {
			return fieldHas(name, value(), text)
		})
	}
	return nil
}
