package mime

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// scan is the structure of a message that comes in one piece.
func scan(msg string) *Structure {
	s := NewScanner()
	io.WriteString(s, msg)
	return s.Finish()
}

// check holds everything that is promised of any message against this one.
func check(t testing.TB, msg []byte) *Structure {
	t.Helper()
	s := scan(string(msg))
	if s.Size != int64(len(msg)) {
		t.Errorf("size %d, want %d", s.Size, len(msg))
	}
	if s.Root.Header.Off != 0 || s.Root.Header.End() != s.Root.Body.Off || s.Root.Body.End() != s.Size {
		t.Errorf("header %v and body %v are not the message of %d octets", s.Root.Header, s.Root.Body, s.Size)
	}
	if sum := crc32.Checksum(msg[:s.Root.Header.Len], castagnoli); s.HeaderSum != sum {
		t.Errorf("the header's sum is %x, want %x", s.HeaderSum, sum)
	}
	if n := len([]rune(s.Preview)); n > maxPreview {
		t.Errorf("preview of %d characters", n)
	}
	count := 0
	checkPart(t, msg, &s.Root, Span{0, s.Size}, 1, &count)
	if count > 2*maxParts {
		t.Errorf("%d parts", count)
	}
	checkStored(t, s)
	checkPieces(t, msg, s)
	return s
}

func checkPart(t testing.TB, msg []byte, p *Part, within Span, depth int, count *int) {
	t.Helper()
	*count++
	if p.Header.Off < within.Off || p.Body.Off != p.Header.End() || p.Body.End() > within.End() || p.Header.Len < 0 || p.Body.Len < 0 {
		t.Errorf("part header %v, body %v outside of %v", p.Header, p.Body, within)
		return
	}
	if depth > maxDepth+1 || p.Header.Len > maxHeader || p.Type == "" || p.Subtype == "" || p.Encoding == "" {
		t.Errorf("part at depth %d, header of %d octets: %q/%q %q", depth, p.Header.Len, p.Type, p.Subtype, p.Encoding)
	}
	if p.Multipart() != (len(p.Parts) > 0) || p.isMessage() != (p.Message != nil) {
		t.Errorf("%s/%s has %d parts, message %v", p.Type, p.Subtype, len(p.Parts), p.Message != nil)
	}
	if p.Type == "text" || p.isMessage() {
		if want := countLines(msg[p.Body.Off:p.Body.End()]); p.Lines != want {
			t.Errorf("body %v has %d lines, want %d", p.Body, p.Lines, want)
		}
	}
	at := p.Body.Off
	for i := range p.Parts {
		checkPart(t, msg, &p.Parts[i], Span{at, p.Body.End() - at}, depth+1, count)
		at = p.Parts[i].Body.End()
	}
	if p.Message != nil {
		if root := p.Message.Root; root.Header.Off != p.Body.Off || root.Body.End() != p.Body.End() {
			t.Errorf("embedded header %v and body %v are not %v", root.Header, root.Body, p.Body)
		}
		checkPart(t, msg, &p.Message.Root, p.Body, depth+1, count)
	}
}

func countLines(body []byte) int64 {
	return int64(bytes.Count(body, []byte("\n")))
}

// checkStored holds the stored form against the structure.
func checkStored(t testing.TB, s *Structure) {
	t.Helper()
	b, err := s.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, s) {
		t.Errorf("stored and read again:\n%s\nwant\n%s", dump(got), dump(s))
	}
	checkView(t, b, s)
}

// checkView holds what can be read of the stored form b without decoding it against the structure.
func checkView(t testing.TB, b []byte, s *Structure) {
	t.Helper()
	v, err := Open(b)
	if err != nil {
		t.Fatal(err)
	}
	body, err := v.AppendBody([]byte("BODY "))
	if err != nil {
		t.Error(err)
	}
	e := &s.Envelope
	for _, c := range []struct{ what, got, want string }{
		{"ENVELOPE", string(v.Envelope()), string(e.appendWire(nil))},
		{"BODYSTRUCTURE", string(v.BodyStructure()), string(s.Root.appendWire(nil))},
		{"BODY", string(body), "BODY " + slowBody(&s.Root)},
		{"preview", string(v.Preview()), s.Preview},
		{"subject", string(v.Subject()), strings.ToValidUTF8(DecodeHeader(e.Subject), "\uFFFD")},
		{"references", fmt.Sprintf("%s", slices.Collect(v.References())), fmt.Sprintf("%s", s.References)},
		{"from", first(v.First(From)), firstOf(e.From)},
		{"to", first(v.First(To)), firstOf(e.To)},
		{"cc", first(v.First(Cc)), firstOf(e.Cc)},
	} {
		if c.got != c.want {
			t.Errorf("%s is %q, want %q", c.what, c.got, c.want)
		}
	}
	sent, ok := v.Sent()
	want, dated := ParseDate(e.Date)
	_, zone1 := sent.Zone()
	_, zone2 := want.Zone()
	if ok != dated || ok && (!sent.Equal(want) || zone1 != zone2) {
		t.Errorf("sent %v %v, want %v %v", sent, ok, want, dated)
	}
	if span, sum := v.Header(); span != s.Root.Header || sum != s.HeaderSum {
		t.Errorf("header %v %x, want %v %x", span, sum, s.Root.Header, s.HeaderSum)
	}
	if v.Size() != s.Size || bytes.ContainsAny(v.MessageID(), "<> ") {
		t.Errorf("size %d, id %q", v.Size(), v.MessageID())
	}
}

func first(name, mailbox, host []byte) string { return fmt.Sprintf("%q %q %q", name, mailbox, host) }

func firstOf(list []Address) string {
	show := func(s string) []byte { return []byte(strings.ToValidUTF8(DecodeHeader(s), "\uFFFD")) }
	switch {
	case len(list) == 0:
		return first(nil, nil, nil)
	case list[0].GroupStart():
		return first(nil, show(list[0].Mailbox), nil)
	}
	return first(show(list[0].Name), []byte(list[0].Mailbox), []byte(list[0].Host))
}

// slowBody is the BODY of a part, written from the part.
func slowBody(p *Part) string {
	var b strings.Builder
	b.WriteString("(")
	if p.Multipart() {
		for i := range p.Parts {
			b.WriteString(slowBody(&p.Parts[i]))
		}
		return b.String() + " " + string(appendString(nil, p.Subtype)) + ")"
	}
	fmt.Fprintf(&b, "%s %s %s ", appendString(nil, p.Type), appendString(nil, p.Subtype), appendParams(nil, orSent(p.Params, p.sentParams)))
	fmt.Fprintf(&b, "%s %s %s ", appendNstring(nil, p.ID), appendNstring(nil, p.Description), appendString(nil, p.Encoding))
	fmt.Fprint(&b, p.Body.Len)
	if p.Message != nil {
		fmt.Fprintf(&b, " %s %s", p.Message.Envelope.appendWire(nil), slowBody(&p.Message.Root))
	}
	if p.Type == "text" || p.Message != nil {
		fmt.Fprintf(&b, " %d", p.Lines)
	}
	return b.String() + ")"
}

// checkPieces says that it makes no difference in which pieces the message comes.
func checkPieces(t testing.TB, msg []byte, want *Structure) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, uint64(len(msg))))
	pieces := []io.Reader{randomReader{bytes.NewReader(msg), r, 3}, randomReader{bytes.NewReader(msg), r, 500}}
	if len(msg) < 50_000 {
		pieces = append(pieces, iotest.OneByteReader(bytes.NewReader(msg)))
	}
	for i, from := range pieces {
		s := NewScanner()
		io.CopyBuffer(struct{ io.Writer }{s}, from, make([]byte, 4096))
		if got := s.Finish(); !reflect.DeepEqual(got, want) {
			t.Errorf("in pieces (%d):\n%s\nin one:\n%s", i, dump(got), dump(want))
		}
	}
}

// A randomReader reads up to max octets at a time.
type randomReader struct {
	r   io.Reader
	n   *rand.Rand
	max int
}

func (r randomReader) Read(p []byte) (int, error) {
	return r.r.Read(p[:min(len(p), 1+r.n.IntN(r.max))])
}

// dump is a structure for people to read.
func dump(s *Structure) string {
	var b strings.Builder
	fmt.Fprintf(&b, "size %d\npreview %q\n", s.Size, s.Preview)
	dumpEnvelope(&b, &s.Envelope, "")
	for _, id := range s.References {
		fmt.Fprintf(&b, "answers %q\n", id)
	}
	dumpPart(&b, &s.Root, "", "root")
	fmt.Fprintf(&b, "ENVELOPE %s\n", visible(s.Envelope.appendWire(nil)))
	fmt.Fprintf(&b, "BODYSTRUCTURE %s\n", visible(s.Root.appendWire(nil)))
	return b.String()
}

// visible shows octets that a text file should not have.
func visible(wire []byte) string {
	var b strings.Builder
	for _, c := range wire {
		if c < ' ' || c > '~' {
			fmt.Fprintf(&b, "\\x%02x", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func dumpEnvelope(b *strings.Builder, e *Envelope, indent string) {
	for _, f := range []struct{ name, value string }{
		{"date", e.Date}, {"subject", e.Subject}, {"in-reply-to", e.InReplyTo}, {"message-id", e.MessageID},
	} {
		if f.value != "" {
			fmt.Fprintf(b, "%s%s %q\n", indent, f.name, f.value)
		}
	}
	for _, f := range []struct {
		name string
		list []Address
	}{{"from", e.From}, {"sender", e.Sender}, {"reply-to", e.ReplyTo}, {"to", e.To}, {"cc", e.Cc}, {"bcc", e.Bcc}} {
		for _, a := range f.list {
			fmt.Fprintf(b, "%s%s %q %q %q %q\n", indent, f.name, a.Name, a.Route, a.Mailbox, a.Host)
		}
	}
}

func dumpPart(b *strings.Builder, p *Part, indent, number string) {
	fmt.Fprintf(b, "%s%s %s/%s %s header %d+%d body %d+%d lines %d\n", indent, number, p.Type, p.Subtype, p.Encoding,
		p.Header.Off, p.Header.Len, p.Body.Off, p.Body.Len, p.Lines)
	indent += "  "
	for _, q := range p.Params {
		fmt.Fprintf(b, "%s%s=%q\n", indent, q.Name, q.Value)
	}
	if p.Disposition != "" {
		fmt.Fprintf(b, "%sdisposition %s\n", indent, p.Disposition)
	}
	for _, q := range p.DispositionParams {
		fmt.Fprintf(b, "%sdisposition %s=%q\n", indent, q.Name, q.Value)
	}
	for _, f := range []struct{ name, value string }{
		{"id", p.ID}, {"description", p.Description}, {"location", p.Location}, {"md5", p.MD5}, {"language", strings.Join(p.Language, " ")},
	} {
		if f.value != "" {
			fmt.Fprintf(b, "%s%s %q\n", indent, f.name, f.value)
		}
	}
	for i := range p.Parts {
		dumpPart(b, &p.Parts[i], indent, fmt.Sprint(i+1))
	}
	if p.Message != nil {
		dumpEnvelope(b, &p.Message.Envelope, indent)
		dumpPart(b, &p.Message.Root, indent, "message")
	}
}
