package mime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"iter"
	"strings"
	"time"
)

// The stored form is
//
//	version     1 octet
//	checksum    4 octets: CRC-32C of what follows
//	size        number
//	header      number: its CRC-32C
//	sent        number: 0 for none, else 1 and
//	  seconds   number, zigzag: Unix time
//	  zone      number, zigzag: minutes east
//	lengths     5 numbers, of what follows
//	envelope    as ENVELOPE sends it
//	structure   as BODYSTRUCTURE sends it
//	places      for each part, outermost first: numbers, its header's distance from where the part around it has its body,
//	            its header's length, its body's length; of a multipart also 0, or 1 and the texts that BODYSTRUCTURE does
//	            not give: encoding, id, description, MD5
//	words       the texts below, then the ids of References (always as octets)
//	preview     text
//
// where a number is a uvarint. The words are what sorting, threading and showing take from the envelope, decoded. Each is a
// length and its place in the envelope, counted from 1, or 0 and the octets, if they do not stand there as they are.
const version = 2

// ErrRecord says that a stored structure is damaged or of a version that this program does not know.
var ErrRecord = errors.New("stored message structure is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is how long version and checksum are.
const head = 5

// AppendBinary appends the stored form of s to b. The error is always nil.
func (s *Structure) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, version, 0, 0, 0, 0)
	b = binary.AppendUvarint(b, uint64(s.Size))
	b = binary.AppendUvarint(b, uint64(s.HeaderSum))
	b = appendSent(b, s.Envelope.Date)
	wire := s.Envelope.appendWire(make([]byte, 0, 1024))
	envelope := len(wire)
	wire = s.Root.appendWire(wire)
	structure := len(wire)
	wire = s.Root.appendPlaces(wire, 0)
	places := len(wire)
	wire = s.appendWords(wire, wire[:envelope])
	for _, n := range [...]int{envelope, structure - envelope, places - structure, len(wire) - places, len(s.Preview)} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = append(append(b, wire...), s.Preview...)
	stored := b[start:]
	binary.BigEndian.PutUint32(stored[1:], crc32.Checksum(stored[head:], castagnoli))
	return b, nil
}

func appendSent(b []byte, date string) []byte {
	sent, ok := ParseDate(date)
	if !ok {
		return append(b, 0)
	}
	_, offset := sent.Zone()
	b = binary.AppendVarint(append(b, 1), sent.Unix())
	return binary.AppendVarint(b, int64(offset/60))
}

func (p *Part) appendPlaces(b []byte, base int64) []byte {
	for _, n := range [...]int64{p.Header.Off - base, p.Header.Len, p.Body.Len} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	if p.Multipart() {
		b = p.appendUnsent(b)
	}
	for i := range p.Parts {
		b = p.Parts[i].appendPlaces(b, p.Body.Off)
	}
	if p.Message != nil {
		b = p.Message.Root.appendPlaces(b, p.Body.Off)
	}
	return b
}

// appendUnsent appends what a multipart has and its BODYSTRUCTURE does not.
func (p *Part) appendUnsent(b []byte) []byte {
	if p.Encoding == "7bit" && p.ID == "" && p.Description == "" && p.MD5 == "" {
		return append(b, 0)
	}
	b = append(b, 1)
	for _, s := range [...]string{p.Encoding, p.ID, p.Description, p.MD5} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

// The words, in their order. Those of the first addresses are three for each AddressField.
const (
	subjectWord = iota
	messageIDWord
	addressWords
	words0 = addressWords + 3*addressFields // how many there are before the ids
)

// appendWords appends the words of a message whose ENVELOPE is envelope.
func (s *Structure) appendWords(b, envelope []byte) []byte {
	e := &s.Envelope
	b = appendWord(b, envelope, showable(e.Subject))
	b = appendWord(b, envelope, firstID(e.MessageID))
	for _, list := range [addressFields][]Address{e.From, e.To, e.Cc} {
		var a Address
		if len(list) > 0 {
			a = list[0]
		}
		if a.GroupStart() {
			a.Mailbox = showable(a.Mailbox)
		}
		b = appendWord(b, envelope, showable(a.Name))
		b = appendWord(b, envelope, a.Mailbox)
		b = appendWord(b, envelope, a.Host)
	}
	for _, id := range s.References {
		b = appendWord(b, nil, id)
	}
	return b
}

// showable decodes header text and makes it UTF-8.
func showable(v string) string { return strings.ToValidUTF8(DecodeHeader(v), "\uFFFD") }

func appendWord(b, envelope []byte, word string) []byte {
	b = binary.AppendUvarint(b, uint64(len(word)))
	if word == "" {
		return b
	}
	at := bytes.Index(envelope, []byte(word)) + 1
	b = binary.AppendUvarint(b, uint64(at))
	if at == 0 {
		b = append(b, word...)
	}
	return b
}

// Stored is the stored form of a Structure, read where it lies: nothing is copied or decoded before somebody asks for it.
// It is valid as long as the octets that it was opened from, and safe for any number of goroutines. What its methods
// return belongs to those octets. The zero Stored has nothing in it.
type Stored struct {
	size                                        int64
	headerSum                                   uint32
	sent, zone                                  int64
	dated                                       bool
	envelope, structure, places, words, preview []byte
}

// Open reads a stored form. It fails with ErrRecord if that is damaged or of another version, and then the message has to be
// scanned again.
func Open(b []byte) (Stored, error) {
	if len(b) < head || b[0] != version || crc32.Checksum(b[head:], castagnoli) != binary.BigEndian.Uint32(b[1:]) {
		return Stored{}, ErrRecord
	}
	r := numberReader{rest: b[head:]}
	s := Stored{size: r.number(), headerSum: uint32(r.number())}
	if s.dated = r.number() == 1; s.dated {
		s.sent, s.zone = r.signed(), r.signed()
	}
	var n [5]int64
	for i := range n {
		n[i] = r.number()
	}
	for i, section := range [...]*[]byte{&s.envelope, &s.structure, &s.places, &s.words, &s.preview} {
		*section = r.octets(n[i])
	}
	if r.bad || len(r.rest) > 0 {
		return Stored{}, ErrRecord
	}
	return s, nil
}

// Size is the octets of the whole message.
func (s Stored) Size() int64 { return s.size }

// Header is where the message's header lies, and the CRC-32C of its octets.
func (s Stored) Header() (Span, uint32) {
	r := numberReader{rest: s.places}
	off, length := r.number(), r.number()
	if off != 0 || length > s.size {
		return Span{}, 0
	}
	return Span{0, length}, s.headerSum
}

// Envelope is the message's ENVELOPE as RFC 9051 section 7.5.2 writes it, parentheses included, ready to be sent to any
// client: strings are quoted, or literals where they have octets that quoted strings cannot or should not have.
func (s Stored) Envelope() []byte { return s.envelope }

// BodyStructure is the message's BODYSTRUCTURE in the same way, with extension data.
func (s Stored) BodyStructure() []byte { return s.structure }

// AppendBody appends the message's BODY, which is its BODYSTRUCTURE without extension data, to b. ErrRecord.
func (s Stored) AppendBody(b []byte) ([]byte, error) {
	r := wireReader{text: string(s.structure)}
	out := r.appendBody(b, 1)
	if r.bad || r.at != len(r.text) {
		return b, ErrRecord
	}
	return out, nil
}

// Preview is up to 200 characters of readable text, in UTF-8 (RFC 8970).
func (s Stored) Preview() []byte { return s.preview }

// Sent is what the Date field says, with its zone. It reports false if there is none that can be read.
func (s Stored) Sent() (time.Time, bool) {
	if !s.dated {
		return time.Time{}, false
	}
	return time.Unix(s.sent, 0).In(zone(int(s.zone) * 60)), true
}

// Subject is the Subject, unfolded and decoded, in UTF-8.
func (s Stored) Subject() []byte { return s.word(subjectWord) }

// HasSubject reports whether there is a Subject, be it empty: ENVELOPE tells NIL from an empty string (RFC 9051, 7.5.2).
func (s Stored) HasSubject() bool {
	if len(s.Subject()) > 0 {
		return true
	}
	r := wireReader{text: string(s.envelope)}
	r.pass("(")
	r.nstring() // the date
	r.pass(" ")
	return !r.isNil() && !r.bad
}

// MessageID is the message's own id as References gives ids; empty if it has none that is valid.
func (s Stored) MessageID() []byte { return s.word(messageIDWord) }

// An AddressField is a field whose first address is kept for sorting.
type AddressField int

const (
	From AddressField = iota
	To
	Cc
	addressFields = 3
)

// First returns the first address of a field: its display name, decoded, and its mailbox and host as they stand. If the field
// starts with a group, mailbox is the decoded name of the group, and host is empty. A field without an address has three empty words.
func (s Stored) First(f AddressField) (name, mailbox, host []byte) {
	r := numberReader{rest: s.words}
	for range addressWords + 3*int(f) {
		r.word(s.envelope)
	}
	return r.word(s.envelope), r.word(s.envelope), r.word(s.envelope)
}

// word returns the nth word.
func (s Stored) word(n int) []byte {
	r := numberReader{rest: s.words}
	for range n {
		r.word(s.envelope)
	}
	return r.word(s.envelope)
}

// References are the ids of the messages that this one answers, oldest first, as RFC 5256 takes them for threads: those of
// References or, without a valid one there, the first of In-Reply-To. Ids come without angle brackets, white space and needless quotes,
// so that equal ids have equal octets.
func (s Stored) References() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		r := numberReader{rest: s.words}
		for range words0 {
			r.word(s.envelope)
		}
		for len(r.rest) > 0 && yield(r.word(nil)) {
		}
	}
}

// DecodeEnvelope decodes the envelope. ErrRecord.
func (s Stored) DecodeEnvelope() (Envelope, error) {
	r := wireReader{text: string(s.envelope)}
	e := r.envelope()
	if r.bad || r.at != len(r.text) {
		return Envelope{}, ErrRecord
	}
	return e, nil
}

// Structure decodes the whole. It keeps every promise of the package, or there is an error that is ErrRecord, and it keeps
// none of the octets that s was opened from.
func (s Stored) Structure() (*Structure, error) {
	st := &Structure{Size: s.size, HeaderSum: s.headerSum, Preview: string(s.preview)}
	e := wireReader{text: string(s.envelope)}
	st.Envelope = e.envelope()
	root, err := s.Root()
	if err != nil || e.bad || e.at != len(e.text) {
		return nil, ErrRecord
	}
	st.Root = *root
	for id := range s.References() {
		st.References = append(st.References, string(id))
	}
	return st, nil
}

// Root decodes the tree of parts, which is Structure's without the rest. ErrRecord.
func (s Stored) Root() (*Part, error) {
	d := decoding{
		wireReader: wireReader{text: string(s.structure)},
		places:     numberReader{rest: s.places},
		parts:      2 * maxParts,
	}
	root := d.part(Span{0, s.size}, 1)
	whole := root.Header.Off == 0 && root.Body.End() == s.size
	if d.bad || d.at != len(d.text) || d.places.bad || len(d.places.rest) > 0 || !whole {
		return nil, ErrRecord
	}
	return &root, nil
}

// Decode reads a stored form into a Structure: Open and Stored.Structure in one. ErrRecord.
func Decode(b []byte) (*Structure, error) {
	s, err := Open(b)
	if err != nil {
		return nil, err
	}
	return s.Structure()
}

// A numberReader reads numbers and octets. Once bad is set, everything read is empty.
type numberReader struct {
	rest []byte
	bad  bool
}

func (r *numberReader) fail() {
	r.bad, r.rest = true, nil
}

func (r *numberReader) number() int64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || int64(n) < 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return int64(n)
}

func (r *numberReader) signed() int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *numberReader) octets(n int64) []byte {
	if n > int64(len(r.rest)) {
		r.fail()
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// word reads a word, which may stand in the envelope.
func (r *numberReader) word(envelope []byte) []byte {
	n := r.number()
	if n == 0 {
		return nil
	}
	at := r.number()
	switch {
	case at == 0:
		return r.octets(n)
	case at > int64(len(envelope)) || n > int64(len(envelope))-(at-1):
		r.fail()
		return nil
	}
	return envelope[at-1 : at-1+n : at-1+n]
}

// decoding is the state of Structure.
type decoding struct {
	wireReader
	places numberReader
	parts  int // that may still come
}

// part reads a part that lies within the span, at the depth.
func (d *decoding) part(within Span, depth int) Part {
	var p Part
	if d.parts--; d.parts < 0 || depth > maxDepth+1 {
		d.fail()
		return p
	}
	d.place(&p, within)
	d.pass("(")
	if d.at < len(d.text) && d.text[d.at] == '(' {
		d.multipart(&p, depth)
	} else {
		d.leaf(&p, depth)
	}
	d.extension(&p)
	if p.Type == "" || p.Subtype == "" || p.Encoding == "" || p.Lines > p.Body.Len || p.Multipart() != (p.Parts != nil) {
		d.fail()
	}
	return p
}

// place reads where the part is.
func (d *decoding) place(p *Part, within Span) {
	off, header, body := d.places.number(), d.places.number(), d.places.number()
	if off > within.Len || header > within.Len-off || body > within.Len-off-header {
		d.fail()
		return
	}
	p.Header = Span{within.Off + off, header}
	p.Body = Span{p.Header.End(), body}
}

// multipart reads a multipart, up to its parameters.
func (d *decoding) multipart(p *Part, depth int) {
	p.Type, p.Encoding = "multipart", "7bit"
	if d.places.number() == 1 {
		for _, s := range [...]*string{&p.Encoding, &p.ID, &p.Description, &p.MD5} {
			*s = string(d.places.octets(d.places.number()))
		}
	}
	for d.at < len(d.text) && d.text[d.at] == '(' {
		p.Parts = append(p.Parts, d.part(p.Body, depth+1))
	}
	d.pass(" ")
	p.Subtype = d.nstring()
	d.pass(" ")
	p.Params, p.sentParams = decodeParams(d.params())
}

// leaf reads a part that is no multipart, up to its MD5.
func (d *decoding) leaf(p *Part, depth int) {
	if d.simple(p) != p.Body.Len {
		d.fail()
	}
	if p.isMessage() {
		d.pass(" ")
		p.Message = &Message{Envelope: d.envelope()}
		d.pass(" ")
		p.Message.Root = d.part(p.Body, depth+1)
	}
	if p.hasLines() {
		d.pass(" ")
		p.Lines = d.number()
	}
	d.pass(" ")
	p.MD5 = d.nstring()
}
