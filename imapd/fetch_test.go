package imapd

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
)

// messagesIn returns the messages in a folder of files, by path.
func messagesIn(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".golden") || strings.HasSuffix(path, ".tsv") {
			return err
		}
		found[path], err = os.ReadFile(path)
		return err
	})
	if os.IsNotExist(err) {
		t.Skipf("there is no %s here", dir)
	} else if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestGoldenMessages(t *testing.T) { testMessages(t, messagesIn(t, "../testdata/golden")) }

func TestCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("many messages")
	}
	testMessages(t, messagesIn(t, "../../shared/corpus/eml"))
}

// What goes in by APPEND comes out of FETCH octet for octet, and all that is said of it agrees with that.
func testMessages(t *testing.T, messages map[string][]byte) {
	h := newHouse(t)
	uids := h.deliverAll(messages)
	c := h.client(nil)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	for path, msg := range messages {
		f := &fetched{t: t, c: c, path: path, uid: imap.UID(uids[path]), msg: msg}
		f.whole()
		f.halves()
		f.structure()
	}
}

func TestGoldenOctets(t *testing.T) { testOctets(t, messagesIn(t, "../testdata/golden")) }

func TestCorpusOctets(t *testing.T) {
	if testing.Short() {
		t.Skip("many messages")
	}
	testOctets(t, messagesIn(t, "../../shared/corpus/eml"))
}

// Every item of every message is the octets that package mime has found for it, and nothing besides: the answer to a FETCH
// of all that there is to ask is known octet for octet.
func testOctets(t *testing.T, messages map[string][]byte) {
	h := newHouse(t)
	uids := h.deliverAll(messages)
	c := h.loggedIn()
	c.open("INBOX")
	for path, msg := range messages {
		want := newExpected(t, uids[path], msg)
		c.send(fmt.Sprintf("a UID FETCH %d (%s)\r\n", uids[path], strings.Join(want.items, " ")))
		line := c.line() + "\r\n"
		_, got, _ := strings.Cut(line, "FETCH ")
		rest := make([]byte, want.answer.Len()-len(got))
		if _, err := io.ReadFull(c.r, rest); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if got += string(rest); got != want.answer.String() {
			t.Fatalf("%s: got\n%.4000q\nwant\n%.4000q", path, got, want.answer.String())
		}
		for !strings.HasPrefix(line, "a ") {
			line = c.line()
		}
		if !strings.HasPrefix(line, "a OK") {
			t.Errorf("%s: %s", path, line)
		}
	}
}

// deliverAll puts messages into INBOX.
func (h *house) deliverAll(messages map[string][]byte) map[string]mailbox.UID {
	uids := make(map[string]mailbox.UID, len(messages))
	for paths := range slices.Chunk(slices.Collect(maps.Keys(messages)), 100) {
		placed := h.deliverSome("INBOX", len(paths), func(i int) []byte { return messages[paths[i]] })
		for i, path := range paths {
			uids[path] = placed[i]
		}
	}
	return uids
}

// deliverSome puts n messages into a mailbox in one transaction.
func (h *house) deliverSome(name string, n int, message func(i int) []byte) []mailbox.UID {
	h.t.Helper()
	uids := make([]mailbox.UID, n)
	drafts := make([]*store.Draft, n)
	arrivals := make([]mailbox.Arrival, n)
	for i := range n {
		msg := message(i)
		st, err := mime.Scan(bytes.NewReader(msg))
		h.must(err)
		structure, err := st.AppendBinary(nil)
		h.must(err)
		drafts[i] = h.config.Store.NewDraft()
		drafts[i].Write(msg)
		arrivals[i] = mailbox.Arrival{Body: drafts[i].ID(), Size: drafts[i].Size(), Structure: structure}
	}
	h.must(h.config.Store.Update(func(tx store.Tx) error {
		for i, a := range arrivals {
			p, err := h.config.Mailboxes.Add(tx, h.owner, name, a)
			if err != nil {
				return err
			}
			uids[i] = p.UID
		}
		return nil
	}, drafts...))
	return uids
}

// expected is what to ask of a message, and what comes.
type expected struct {
	msg    []byte
	items  []string
	answer strings.Builder
}

func newExpected(t *testing.T, uid mailbox.UID, msg []byte) *expected {
	st, err := mime.Scan(bytes.NewReader(msg))
	if err != nil {
		t.Fatal(err)
	}
	stored, _ := st.AppendBinary(nil)
	v, err := mime.Open(stored)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := v.AppendBody(nil)
	e := &expected{msg: msg}
	fmt.Fprintf(&e.answer, "(UID %d", uid)
	e.add("RFC822.SIZE", "RFC822.SIZE", fmt.Sprint(len(msg)))
	e.add("ENVELOPE", "ENVELOPE", string(v.Envelope()))
	e.add("BODYSTRUCTURE", "BODYSTRUCTURE", string(v.BodyStructure()))
	e.add("BODY", "BODY", string(body))
	e.octets("[]", msg)
	e.octets("[HEADER]", e.of(st.Root.Header))
	e.octets("[TEXT]", e.of(st.Root.Body))
	e.fields("", e.of(st.Root.Header))
	e.part(&st.Root, nil, 50)
	e.answer.WriteString(")\r\n")
	return e
}

func (e *expected) of(s mime.Span) []byte { return e.msg[s.Off:s.End()] }

func (e *expected) add(ask, label, value string) {
	e.items = append(e.items, ask)
	fmt.Fprintf(&e.answer, " %s %s", label, value)
}

// octets asks for a section, and for its middle.
func (e *expected) octets(section string, b []byte) {
	e.add("BODY.PEEK"+section, "BODY"+section, literal(b))
	third := len(b) / 3
	e.add(fmt.Sprintf("BODY.PEEK%s<%d.%d>", section, third, third+1), fmt.Sprintf("BODY%s<%d>", section, third),
		literal(b[third:min(len(b), 2*third+1)]))
}

func literal(b []byte) string { return fmt.Sprintf("{%d}\r\n%s", len(b), b) }

func (e *expected) fields(part string, header []byte) {
	names := []string{"subject", "RECEIVED", "X-None"}
	list := " (" + strings.Join(names, " ") + ")]"
	e.octets("["+part+"HEADER.FIELDS"+list, mime.AppendFields(nil, header, names, false))
	e.octets("["+part+"HEADER.FIELDS.NOT"+list, mime.AppendFields(nil, header, names, true))
}

// part asks for all of a part and of what is in it, but of at most so many.
func (e *expected) part(p *mime.Part, path []string, most int) {
	children := p.Parts
	if !p.Multipart() {
		children = []mime.Part{*p}
	}
	if len(path) > 5 {
		return
	}
	for i := range children[:min(most, len(children))] {
		child := &children[i]
		at := append(slices.Clone(path), fmt.Sprint(i+1))
		number := strings.Join(at, ".")
		e.octets("["+number+"]", e.of(child.Body))
		e.octets("["+number+".MIME]", e.of(child.Header))
		e.binary(number, child)
		switch {
		case child.Message != nil:
			e.octets("["+number+".HEADER]", e.of(child.Message.Root.Header))
			e.octets("["+number+".TEXT]", e.of(child.Message.Root.Body))
			e.fields(number+".", e.of(child.Message.Root.Header))
			e.part(&child.Message.Root, at, most/2)
		case child.Multipart():
			e.part(child, at, most/2)
		default:
			e.add("BODY.PEEK["+number+".1]", "BODY["+number+".1]", "NIL")
			e.add("BODY.PEEK["+number+".HEADER]", "BODY["+number+".HEADER]", "NIL")
		}
	}
	beyond := strings.Join(append(slices.Clone(path), fmt.Sprint(len(children)+1)), ".")
	e.add("BODY.PEEK["+beyond+"]", "BODY["+beyond+"]", "NIL")
	e.add("BINARY.PEEK["+beyond+"]", "BINARY["+beyond+"]", "NIL")
}

func (e *expected) binary(number string, p *mime.Part) {
	body := e.of(p.Body)
	if p.Message == nil && !p.Multipart() {
		r, ok := p.Decoded(bytes.NewReader(body))
		if !ok {
			return
		}
		body, _ = io.ReadAll(r)
	}
	value := literal(body)
	if bytes.IndexByte(body, 0) >= 0 {
		value = "~" + value
	}
	e.add("BINARY.PEEK["+number+"]", "BINARY["+number+"]", value)
	e.add("BINARY.SIZE["+number+"]", "BINARY.SIZE["+number+"]", fmt.Sprint(len(body)))
}

// fetched is a message under test.
type fetched struct {
	t    *testing.T
	c    *imapclient.Client
	path string
	uid  imap.UID
	msg  []byte
}

func (f *fetched) fetch(o *imap.FetchOptions) *imapclient.FetchMessageBuffer {
	f.t.Helper()
	got, err := f.c.Fetch(imap.UIDSetNum(f.uid), o).Collect()
	if err != nil || len(got) != 1 {
		f.t.Fatalf("%s: fetch: %d messages, %v", f.path, len(got), err)
	}
	return got[0]
}

func (f *fetched) section(s imap.FetchItemBodySection) []byte {
	f.t.Helper()
	s.Peek = true
	return f.fetch(&imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{&s}}).BodySection[0].Bytes
}

func (f *fetched) same(what string, got, want []byte) {
	f.t.Helper()
	if !bytes.Equal(got, want) {
		f.t.Errorf("%s: %s: %d octets, want %d", f.path, what, len(got), len(want))
	}
}

// whole is about BODY[], its size and its pieces.
func (f *fetched) whole() {
	got := f.fetch(&imap.FetchOptions{RFC822Size: true, InternalDate: true, Envelope: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}})
	f.same("BODY[]", got.BodySection[0].Bytes, f.msg)
	if got.RFC822Size != int64(len(f.msg)) {
		f.t.Errorf("%s: RFC822.SIZE is %d of %d", f.path, got.RFC822Size, len(f.msg))
	}
	piece := int64(len(f.msg)/3 + 1)
	var pieces []byte
	for at := int64(0); at <= int64(len(f.msg)); at += piece {
		pieces = append(pieces, f.section(imap.FetchItemBodySection{Partial: &imap.SectionPartial{Offset: at, Size: piece}})...)
	}
	f.same("BODY[] in pieces", pieces, f.msg)
}

// halves are header and text.
func (f *fetched) halves() {
	header := f.section(imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader})
	text := f.section(imap.FetchItemBodySection{Specifier: imap.PartSpecifierText})
	f.same("BODY[HEADER] and BODY[TEXT]", slices.Concat(header, text), f.msg)
}

// structure is about BODYSTRUCTURE: each part that it has is there, as large as it says, and within its parent.
func (f *fetched) structure() {
	got := f.fetch(&imap.FetchOptions{BodyStructure: &imap.FetchItemBodyStructure{Extended: true}})
	parts := 0
	got.BodyStructure.Walk(func(path []int, part imap.BodyStructure) bool {
		single, ok := part.(*imap.BodyStructureSinglePart)
		if parts++; !ok || parts > 20 {
			return parts <= 20
		}
		body := f.section(imap.FetchItemBodySection{Part: path})
		if int(single.Size) != len(body) {
			f.t.Errorf("%s: part %v has %d octets and BODYSTRUCTURE says %d", f.path, path, len(body), single.Size)
		}
		if !bytes.Contains(f.msg, body) {
			f.t.Errorf("%s: part %v is not in the message", f.path, path)
		}
		f.lines(path, single, body)
		f.binary(path, single, body)
		f.embedded(path, single, body)
		return true
	})
}

func (f *fetched) lines(path []int, part *imap.BodyStructureSinglePart, body []byte) {
	lines := int64(bytes.Count(body, []byte("\n")))
	if part.Text != nil && part.Text.NumLines != lines {
		f.t.Errorf("%s: part %v has %d lines and BODYSTRUCTURE says %d", f.path, path, lines, part.Text.NumLines)
	}
}

// binary is BINARY: as large as BINARY.SIZE, and the body itself where that is not encoded.
func (f *fetched) binary(path []int, part *imap.BodyStructureSinglePart, body []byte) {
	o := &imap.FetchOptions{
		BinarySection:     []*imap.FetchItemBinarySection{{Part: path, Peek: true}},
		BinarySectionSize: []*imap.FetchItemBinarySectionSize{{Part: path}},
	}
	got, err := f.c.Fetch(imap.UIDSetNum(f.uid), o).Collect()
	switch part.Encoding {
	case "7bit", "8bit", "binary", "base64", "quoted-printable":
	default:
		if err == nil || !strings.Contains(err.Error(), "UNKNOWN-CTE") {
			f.t.Errorf("%s: BINARY of %s: %v", f.path, part.Encoding, err)
		}
		return
	}
	if err != nil || len(got) != 1 {
		f.t.Fatalf("%s: BINARY: %v", f.path, err)
	}
	decoded := got[0].BinarySection[0].Bytes
	if int(got[0].BinarySectionSize[0].Size) != len(decoded) {
		f.t.Errorf("%s: BINARY.SIZE%v is %d of %d", f.path, path, got[0].BinarySectionSize[0].Size, len(decoded))
	}
	if part.Encoding != "base64" && part.Encoding != "quoted-printable" {
		f.same("BINARY", decoded, body)
	}
}

// embedded is a message within the message.
func (f *fetched) embedded(path []int, part *imap.BodyStructureSinglePart, body []byte) {
	header := f.section(imap.FetchItemBodySection{Part: path, Specifier: imap.PartSpecifierHeader})
	text := f.section(imap.FetchItemBodySection{Part: path, Specifier: imap.PartSpecifierText})
	if part.MessageRFC822 == nil {
		body = nil
	}
	f.same(fmt.Sprintf("%v.HEADER and .TEXT", path), slices.Concat(header, text), body)
}

// What clients ask for of a message in a message, said in full.
func TestSectionsOfForwarded(t *testing.T) {
	const msg = "Subject: outer\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\npreamble\r\n" +
		"--x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ncaf=C3=A9\r\n" +
		"--x\r\nContent-Type: message/rfc822\r\nContent-Description: fwd\r\n\r\n" +
		"Subject: inner\r\nTo: x@y.z\r\nContent-Type: multipart/alternative; boundary=y\r\n\r\n" +
		"--y\r\n\r\none\r\n--y\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+dHdvPC9iPg==\r\n--y--\r\n" +
		"--x\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: x-unknown\r\n\r\n?\r\n--x--\r\n"
	h := newHouse(t)
	h.deliver("INBOX", msg)
	c := h.loggedIn()
	c.open("INBOX")
	for item, want := range map[string]string{
		"BODY[1]":                                "caf=C3=A9",
		"BODY[1.MIME]":                           "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
		"BODY[2.MIME]":                           "Content-Type: message/rfc822\r\nContent-Description: fwd\r\n\r\n",
		"BODY[2.HEADER]":                         "Subject: inner\r\nTo: x@y.z\r\nContent-Type: multipart/alternative; boundary=y\r\n\r\n",
		"BODY[2.TEXT]<0.9>":                      "--y\r\n\r\none"[:9],
		"BODY[2.1]":                              "one",
		"BODY[2.2]":                              "PGI+dHdvPC9iPg==",
		"BODY[2.2.MIME]":                         "Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n",
		"BODY[2.HEADER.FIELDS (TO)]":             "To: x@y.z\r\n\r\n",
		"BODY[HEADER.FIELDS.NOT (Content-Type)]": "Subject: outer\r\n\r\n",
		"BINARY[1]":                              "caf\xc3\xa9",
		"BINARY[2.2]":                            "<b>two</b>",
		"BINARY[2.2]<3.4>":                       "two<",
	} {
		asked := strings.Replace(strings.Replace(item, "BODY[", "BODY.PEEK[", 1), "BINARY[", "BINARY.PEEK[", 1)
		c.send("a FETCH 1 " + asked + "\r\n")
		line := c.line()
		if !strings.HasSuffix(line, fmt.Sprintf("{%d}", len(want))) {
			t.Errorf("%s: %s, want %d octets", item, line, len(want))
		}
		var rest strings.Builder
		for !strings.HasPrefix(line, "a ") {
			line = c.line()
			rest.WriteString(line + "\r\n")
		}
		if got := rest.String(); got != want+")\r\na OK FETCH completed\r\n" {
			t.Errorf("%s: %q, want %q", item, got, want)
		}
	}
	c.dialog(`
		> b FETCH 1 (UID BINARY.PEEK[3])
		< b NO [UNKNOWN-CTE] ...
		> c FETCH 1 (BINARY.SIZE[2.2] BINARY.SIZE[1])
		< * 1 FETCH (BINARY.SIZE[2.2] 10 BINARY.SIZE[1] 5)
		< c OK ...`)
}

func TestEnvelope(t *testing.T) {
	for _, tt := range []struct{ name, header, want string }{
		{"encoded words as they stand", "Subject: =?utf-8?q?caf=C3=A9?=\r\n", `(NIL "=?utf-8?q?caf=C3=A9?=" NIL NIL NIL NIL NIL NIL NIL NIL)`},
		{"groups", "To: us: a@b.c, D <d@e.f>;\r\n", `(NIL NIL NIL NIL NIL ((NIL NIL "us" NIL)(NIL NIL "a" "b.c")("D" NIL "d" "e.f")(NIL NIL NIL NIL)) NIL NIL NIL NIL)`},
		{"one bad address does not hide the others", "Cc: a@b.c, <<>>, d@e.f\r\n", `(... "a" "b.c")... "d" "e.f")) NIL NIL NIL)`},
		{"ids", "Message-ID: <a@b>\r\nIn-Reply-To: <c@d> <e@f>\r\n", `(NIL NIL NIL NIL NIL NIL NIL NIL "<c@d> <e@f>" "<a@b>")`},
		{"date", "Date: Mon, 6 May 2024 07:08:09 +0200\r\n", `("Mon, 6 May 2024 07:08:09 +0200" NIL NIL NIL NIL NIL NIL NIL NIL NIL)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.deliver("INBOX", tt.header+"\r\n")
			c := h.loggedIn()
			c.open("INBOX")
			c.send("a FETCH 1 ENVELOPE\r\n")
			got := strings.ReplaceAll(c.line(), ") (", ")(")
			if !like("* 1 FETCH (ENVELOPE "+tt.want+")", got) {
				t.Errorf("%s", got)
			}
		})
	}
}

// Messages that have made servers panic or clients stumble can be listed.
func TestPoison(t *testing.T) {
	h := newHouse(t)
	deep := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 2000)
	for _, msg := range []string{
		"",
		"Content-Type: multipart/mixed\r\n\r\n",
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n",
		"Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/x; boundary=a\r\n\r\n",
		"Content-Type: text/plain; =x; =y; charset\r\n\r\n",
		"Content-Type: \"\"/; x=\"\x00\r\n\r\n",
		"Content-Disposition: ;;\r\nContent-Language: ,,\r\n\r\n",
		"From: :;:;<<>>@@,\x80\xff\r\nTo: " + strings.Repeat("(", 5000) + "\r\n\r\n",
		deep,
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + strings.Repeat("--x\r\n\r\n\r\n", 50_000),
		"Content-Type: multipart/digest; boundary=x\r\n\r\n" + strings.Repeat("--x\r\n\r\nTo: a@b\r\n\r\n", 50_000),
		strings.Repeat("To: "+strings.Repeat("a@b,", 5000)+"\r\n", 50) + "\r\n",
		strings.Repeat("Received: x\r\n", 100_000) + "\r\n",
		"Subject:" + strings.Repeat("\r\n x", 100_000) + "\r\n\r\n",
	} {
		h.deliver("INBOX", msg)
	}
	c := h.client(nil)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	all := imap.SeqSet{{Start: 1, Stop: 0}}
	got, err := c.Fetch(all, &imap.FetchOptions{Envelope: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
		BodySection: []*imap.FetchItemBodySection{{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Received", "To"}, Peek: true}}}).Collect()
	if err != nil || len(got) != 14 {
		t.Errorf("%d messages, %v", len(got), err)
	}
}

// BenchmarkFetch fetches from a mailbox of messages such as people get: a header of 2 KiB, and a body of 1 to 90 KiB.
func BenchmarkFetch(b *testing.B) {
	const messages = 10_000
	h := newHouse(b)
	h.deliverMany("INBOX", messages)
	c := h.loggedIn()
	c.open("INBOX")
	buf := make([]byte, 256<<10)
	for _, items := range []string{
		"FLAGS", "(UID FLAGS)", "(UID RFC822.SIZE FLAGS INTERNALDATE)", "ENVELOPE", "BODYSTRUCTURE", "BODY",
		"(UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID References In-Reply-To)])",
		"BODY.PEEK[HEADER]", "BODY.PEEK[]", "BODY.PEEK[1]", "BINARY.PEEK[1]",
	} {
		b.Run(items, func(b *testing.B) {
			b.ReportAllocs()
			octets := 0
			for b.Loop() {
				c.send("x FETCH 1:* " + items + "\r\n")
				octets += c.until(buf, "x OK FETCH completed\r\n")
			}
			b.SetBytes(int64(octets / b.N))
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/op")
		})
	}
}

// until reads up to a line that ends all, and returns how many octets there were.
func (c *raw) until(buf []byte, last string) (octets int) {
	c.conn.SetReadDeadline(time.Now().Add(time.Minute))
	kept := 0
	for {
		n, err := c.conn.Read(buf[kept:])
		if err != nil {
			c.t.Fatal(err)
		}
		octets += n
		if n += kept; bytes.HasSuffix(buf[:n], []byte(last)) {
			return octets
		}
		kept = copy(buf, buf[max(0, n-len(last)):n])
	}
}

// deliverMany delivers messages of all sizes.
func (h *house) deliverMany(name string, n int) {
	h.t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	line := strings.Repeat("0123456789", 7) + "\r\n"
	for ; n > 0; n -= 100 {
		h.deliverSome(name, min(n, 100), func(i int) []byte {
			return []byte(typicalHeader(n-i) + strings.Repeat(line, 14+r.IntN(1300)))
		})
	}
}

func typicalHeader(n int) string {
	return strings.Repeat("Received: from mail.example.test (mail.example.test [192.0.2.1])\r\n\tby mx.example.test (postroad) with ESMTPS "+
		"id 0123456789abcdef\r\n\tfor <alice@example.test>; Mon, 6 May 2024 07:08:09 +0200\r\n", 4) +
		"DKIM-Signature: v=1; a=rsa-sha256; d=example.test; s=2024;\r\n\tb=" + strings.Repeat("A", 340) + "\r\n" +
		"Authentication-Results: mx.example.test; dkim=pass header.d=example.test; spf=pass\r\n" +
		fmt.Sprintf("Message-ID: <%d.0123456789@mail.example.test>\r\n", n) +
		"Date: Mon, 6 May 2024 07:08:09 +0200\r\nFrom: Ann Other <ann.other@example.test>\r\n" +
		"To: Alice Example <alice@example.test>, bob@example.test\r\nCc: Carl <carl@example.test>\r\n" +
		fmt.Sprintf("Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= number %d of the list\r\n", n) +
		fmt.Sprintf("In-Reply-To: <%d.0123456789@mail.example.test>\r\nReferences: <1@example.test>\r\n <%d.0123456789@mail.example.test>\r\n", n+1, n+1) +
		"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n" +
		"List-Id: <list.example.test>\r\nList-Unsubscribe: <https://example.test/unsubscribe>\r\nX-Mailer: none\r\n\r\n"
}

func BenchmarkLogin(b *testing.B) {
	h := newHouse(b)
	h.loggedIn()
	for b.Loop() {
		h.loggedIn().conn.Close()
	}
}
