package mime

import (
	"bytes"
	"cmp"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Conversion makes a message fit for a next hop that does not take all octets (RFC 6152, 3; RFC 3030, 3): parts get
// another transfer encoding, in which they mean the same, and fields say so; nothing else changes. What is signed or
// encrypted (multipart/signed, multipart/encrypted) stays as it is, and so does what must not have an encoding: header
// fields, message/delivery-status and the like.
type Conversion struct {
	edits  []edit // in order, apart from each other
	binary bool
}

// Binary reports whether there stays in a part what is no lines: a NUL, a CR or LF alone, a line that is too long.
func (c *Conversion) Binary() bool { return c.binary }

// PlanConversion plans how a message becomes lines: of ASCII with sevenBit set, else of octets of eight bits. s is its
// structure; the message is read once. An error is that of message.
func PlanConversion(s *Structure, message io.Reader, sevenBit bool) (*Conversion, error) {
	p := planner{sevenBit: sevenBit, size: s.Size}
	root := p.entity(&s.Root, 0, true)
	p.passed()
	if _, err := io.Copy(&p, message); err != nil {
		return nil, err
	}
	p.out.binary = p.fix(root).binary
	slices.SortStableFunc(p.out.edits, func(a, b edit) int { return cmp.Compare(a.Off, b.Off) })
	return &p.out, nil
}

// Reader reads the message as converted, given the message. Errors are those of message.
func (c *Conversion) Reader(message io.Reader) io.Reader {
	return &convertedReader{src: message, edits: c.edits}
}

// maxLineOctets is how long a line may be, without its line end (RFC 5321, 4.5.3.1.6).
const maxLineOctets = 998

// planner makes one Conversion.
type planner struct {
	sevenBit bool
	size     int64
	nodes    int
	regions  []region // in order: what has to be looked at
	pos      int64
	out      Conversion
}

// A node is what is known of one entity.
type node struct {
	part    *Part
	kids    []*node // the parts of a multipart, or the message in a message
	message bool    // it is a message, so that MIME-Version belongs into its header
	closed  bool    // it lies too deep to be known for what it is

	header headerFacts
	body   octetFacts // of a leaf
}

// A region is a header, or the body of a leaf.
type region struct {
	Span
	look interface {
		take(b []byte) // the next octets of it
		finish()
	}
}

// entity adds an entity and what is in it.
func (p *planner) entity(part *Part, depth int, message bool) *node {
	n := &node{part: part, message: message}
	p.nodes++
	n.closed = depth >= maxDepth-1 || p.nodes >= maxParts || part.Header.Len >= maxHeader
	n.header.pos, n.header.blank = part.Header.Off, -1
	p.regions = append(p.regions, region{part.Header, &n.header})
	switch {
	case part.Message != nil && part.Subtype == "rfc822":
		n.kids = append(n.kids, p.entity(&part.Message.Root, depth+1, true))
	case part.Multipart():
		for i := range part.Parts {
			n.kids = append(n.kids, p.entity(&part.Parts[i], depth+1, false))
		}
	default: // message/global too: as a whole it may have an encoding (RFC 6532, 3.7)
		p.regions = append(p.regions, region{part.Body, &n.body})
	}
	return n
}

// Write looks at the next octets of the message.
func (p *planner) Write(b []byte) (int, error) {
	total := len(b)
	for len(b) > 0 && len(p.regions) > 0 {
		r := p.regions[0]
		n := min(int64(len(b)), r.Off-p.pos)
		if n <= 0 {
			n = min(int64(len(b)), r.End()-p.pos)
			r.look.take(b[:n])
		}
		p.pos, b = p.pos+n, b[n:]
		p.passed()
	}
	return total, nil
}

// passed ends the regions that lie behind.
func (p *planner) passed() {
	for len(p.regions) > 0 && p.regions[0].End() <= p.pos {
		p.regions[0].look.finish()
		p.regions = p.regions[1:]
	}
}

// leftover is what a conversion leaves in an entity.
type leftover struct{ eight, binary bool }

func (l leftover) and(m leftover) leftover { return leftover{l.eight || m.eight, l.binary || m.binary} }

// fix plans the conversion of an entity.
func (p *planner) fix(n *node) leftover {
	left := n.left()
	switch {
	case untouchable(n.part):
		return left.and(n.header.left())
	case n.kids != nil:
		left = leftover{}
		for _, kid := range n.kids {
			left = left.and(p.fix(kid))
		}
	case left.binary || left.eight && p.sevenBit:
		if !n.encodable() {
			break
		}
		p.encode(n)
		return n.header.left()
	}
	p.relabel(n, left)
	return left.and(n.header.left())
}

// left is what is in the bodies of an entity as it stands.
func (n *node) left() leftover {
	left := n.body.left()
	for _, kid := range n.kids {
		left = left.and(kid.left()).and(kid.header.left())
	}
	return left
}

// untouchable reports whether nothing in a part may change (RFC 1847, 2).
func untouchable(p *Part) bool {
	return p.Type == "multipart" && (p.Subtype == "signed" || p.Subtype == "encrypted")
}

// encodable reports whether a leaf may have another transfer encoding: those of message may not, but for those that hold
// UTF-8 (RFC 2046, 5.2; RFC 6532, 3.7; RFC 6533, 4), and of what is encoded already the encoding must be known.
func (n *node) encodable() bool {
	p := n.part
	switch {
	case n.closed, n.header.fields == nil && n.header.blank < 0:
		return false
	case p.Type == "message" && !strings.HasPrefix(p.Subtype, "global"):
		return false
	}
	return p.identity() || decoderOf(p.Encoding) != nil
}

// encode gives a leaf a transfer encoding.
func (p *planner) encode(n *node) {
	to, is := n.encoding(), n.part
	p.label(n, to)
	// The line end before a boundary may belong to the header of a message that has no body.
	last := is.Body.End() == p.size || is.Type == "message"
	p.out.edits = append(p.out.edits, edit{Span: is.Body, encoding: to, from: is.Encoding, last: last})
}

// encoding chooses quoted-printable for a text where that is the shorter one, and base64 for all else.
func (n *node) encoding() string {
	p, b := n.part, &n.body
	switch {
	case !p.identity():
		return p.Encoding
	case p.Type == "text" && !b.nul && b.eight <= p.Body.Len/6:
		return "quoted-printable"
	}
	return "base64"
}

// relabel takes back what a transfer encoding says beyond what is there.
func (p *planner) relabel(n *node, left leftover) {
	is := n.part.Encoding
	switch {
	case is == "binary" && left.eight && !left.binary:
		p.label(n, "8bit")
	case (is == "binary" || is == "8bit" && p.sevenBit) && !left.eight && !left.binary:
		p.label(n, "7bit")
	}
}

// label sets the Content-Transfer-Encoding of an entity. Of several, the first counted.
func (p *planner) label(n *node, encoding string) {
	text := "Content-Transfer-Encoding: " + encoding + "\r\n"
	if n.header.fields == nil {
		if n.message && !n.header.version {
			text = "MIME-Version: 1.0\r\n" + text
		}
		p.out.edits = append(p.out.edits, edit{Span: Span{Off: n.header.blank}, text: text})
		return
	}
	for _, field := range n.header.fields {
		p.out.edits = append(p.out.edits, edit{Span: field, text: text})
		text = ""
	}
}

// octetFacts are facts of a leaf's body.
type octetFacts struct {
	eight           int64 // octets above 127
	nul, bare, long bool

	line int64 // octets of this line so far
	cr   bool  // the last octet was a CR
}

func (f *octetFacts) take(b []byte) {
	for _, c := range b {
		f.bare = f.bare || f.cr != (c == '\n')
		f.line++
		switch f.cr = c == '\r'; {
		case c == '\n':
			f.line = 0
		case c == 0:
			f.nul = true
		case c >= 0x80:
			f.eight++
		}
		f.long = f.long || f.line > maxLineOctets+1
	}
}

func (f *octetFacts) finish() { f.bare = f.bare || f.cr }

func (f *octetFacts) left() leftover {
	return leftover{eight: f.eight > 0, binary: f.nul || f.bare || f.long}
}

// headerFacts are facts of a header.
type headerFacts struct {
	fields  []Span // those named Content-Transfer-Encoding
	version bool   // there is a MIME-Version
	blank   int64  // where the line begins that ends it; -1 when there is none
	eight   bool

	pos   int64  // where the line begins
	n     int64  // octets of it so far
	line  []byte // as much of it as tells what it is
	field *Span  // the one that the last line belongs to, if it is of fields
}

const maxFieldStart = 80

func (f *headerFacts) take(b []byte) {
	for len(b) > 0 {
		piece := firstLine(b)
		b = b[len(piece):]
		f.n += int64(len(piece))
		f.line = append(f.line, piece[:min(len(piece), maxFieldStart-len(f.line))]...)
		f.eight = f.eight || bytes.ContainsFunc(piece, func(r rune) bool { return r >= utf8.RuneSelf })
		if piece[len(piece)-1] == '\n' {
			f.endLine(true)
		}
	}
}

func (f *headerFacts) finish() {
	if f.n > 0 {
		f.endLine(false)
	}
}

func (f *headerFacts) endLine(ended bool) {
	at := Span{f.pos, f.n}
	name := string(fieldName(f.line))
	switch {
	case ended && f.n <= int64(len(f.line)) && blank(f.line):
		f.blank = f.pos
	case f.line[0] == ' ' || f.line[0] == '\t':
		if f.field != nil {
			f.field.Len += f.n
		}
	case strings.EqualFold(name, "Content-Transfer-Encoding"):
		f.fields = append(f.fields, at)
		f.field = &f.fields[len(f.fields)-1]
	default:
		f.field = nil
		f.version = f.version || strings.EqualFold(name, "MIME-Version")
	}
	f.pos, f.n, f.line = f.pos+f.n, 0, f.line[:0]
}

func (f *headerFacts) left() leftover { return leftover{eight: f.eight} }
