package mime

import (
	"bytes"
	"hash/crc32"
	"io"
)

// A Scanner reads the structure of one message that is written to it in pieces of any size. It keeps a bounded part of
// header fields and of one unfinished line, never the message. The zero Scanner is not ready; see NewScanner.
type Scanner struct {
	// The place in the message. pos is where the current line starts; lineLen octets of it came in earlier
	// pieces, of which held has the first, as far as anybody wants them.
	pos, lineLen int64
	held         []byte
	keep         int    // how much of the current line held may hold
	tail         tail   // what stands before the current line
	lineTail     tail   // what stands before the next octet, while a line is unfinished
	lines        int64  // line ends so far
	sum          uint32 // of the outermost header so far

	// The tree: the open entities, outermost first, and the boundaries that may end them.
	stack []frame
	open  map[string]int // boundary, to the innermost frame that has it
	parts int

	// The header field being read, if known.
	kind  field
	field []byte
	kept  int // octets of values kept so far
	addrs int // addresses kept so far

	// The text being gathered for the preview, which is the start of the innermost part's body.
	sampling bool
	sample   []byte
	tries    int
	preview  string

	references []string

	root   Message
	done   *Structure
	frames [4]frame  // where stack starts
	text   [512]byte // where field starts
}

// A frame is an entity whose end has not been seen.
type frame struct {
	part     Part
	message  *Message // when the entity is a message; part becomes its Root
	header   bool     // its header is being read
	cut      bool     // its header was over the limit
	digest   bool     // it is a child of multipart/digest
	fields   int
	seen     fieldSet
	lines0   int64  // line ends before its body
	boundary string // of a multipart whose parts may still come, else ""
	shadowed int    // the frame outside with the same boundary, or -1
}

// NewScanner returns a Scanner for one message.
func NewScanner() *Scanner {
	s := new(Scanner)
	s.stack, s.field = s.frames[:0], s.text[:0]
	s.push(0, frame{message: &s.root})
	return s
}

// Scan reads the structure of the message that r holds. An error is r's; the structure is then that of what was read.
func Scan(r io.Reader) (*Structure, error) {
	s := NewScanner()
	_, err := io.Copy(s, r)
	return s.Finish(), err
}

// Write reads the next octets of the message. It takes all of them and never fails.
func (s *Scanner) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		step := p
		if s.top().header {
			step = p[:min(int64(len(p)), s.headerRoom())]
		}
		own := s.top().header && len(s.stack) == 1
		k := s.step(step)
		if own {
			s.sum = crc32.Update(s.sum, castagnoli, step[:k])
		}
		p = p[k:]
		if s.top().header && s.headerRoom() == 0 {
			s.cutHeader()
		}
	}
	return n, nil
}

// Finish says that the message is complete and returns its structure. Nothing may be written after it.
func (s *Scanner) Finish() *Structure {
	if s.done != nil {
		return s.done
	}
	if s.lineLen > 0 {
		s.endLine(s.held, s.lineLen, false)
	}
	s.dropNothing()
	size := s.pos
	last := end{at: size, lines: s.lines}
	s.closeTo(0, last)
	s.close(last)
	s.done = &Structure{Root: s.root.Root, Envelope: s.root.Envelope, Preview: s.preview, Size: size, HeaderSum: s.sum,
		References: s.references}
	if id := firstID(s.root.Envelope.InReplyTo); id != "" && s.references == nil {
		s.done.References = []string{id}
	}
	return s.done
}

// dropNothing takes a boundary with nothing after it, at the end of the message, for a last one.
func (s *Scanner) dropNothing() {
	f := s.top()
	if n := len(s.stack) - 1; f.message == nil && f.part.Header.Off == s.pos && len(s.stack[n-1].part.Parts) > 0 {
		s.stack = s.stack[:n]
	}
}

// step reads some of p, which is not empty: as much as one rule covers. It returns how much.
func (s *Scanner) step(p []byte) int {
	switch {
	case s.lineLen > 0:
		return s.resume(p)
	case s.top().header:
		return s.headerLine(p)
	case len(s.open) == 0:
		return s.skip(p)
	}
	return s.bodyLines(p)
}

// skip reads body that nothing but the end of the message can end.
func (s *Scanner) skip(p []byte) int {
	s.gather(p)
	s.lines += int64(bytes.Count(p, newline))
	s.pos += int64(len(p))
	s.tail.push(p)
	return len(p)
}

var newline = []byte{'\n'}

// bodyLines reads lines of a body up to and including a boundary, or to the end of p.
func (s *Scanner) bodyLines(p []byte) int {
	at := 0
	for at < len(p) {
		n := bytes.IndexByte(p[at:], '\n') + 1
		if n == 0 {
			break
		}
		if line := p[at : at+n]; dashes(line) && s.isBoundary(line) {
			s.body(p[:at])
			s.endLine(line, int64(n), true)
			return at + n
		}
		s.lines++
		at += n
	}
	s.body(p[:at])
	if at < len(p) {
		s.startLine(p[at:], maxBoundaryLine+1)
	}
	return len(p)
}

// body passes whole lines of body.
func (s *Scanner) body(p []byte) {
	s.gather(p)
	s.pos += int64(len(p))
	s.tail.push(p)
}

// headerLine reads one line of a header, or what there is of it.
func (s *Scanner) headerLine(p []byte) int {
	n := bytes.IndexByte(p, '\n') + 1
	if n == 0 {
		s.startLine(p, maxField)
		return len(p)
	}
	s.endLine(p[:n], int64(n), true)
	return n
}

// startLine begins a line whose end has not come, of which the first keep octets are wanted.
func (s *Scanner) startLine(p []byte, keep int) {
	s.keep, s.held, s.lineTail = keep, s.held[:0], s.tail
	s.hold(p)
}

// resume goes on with an unfinished line.
func (s *Scanner) resume(p []byte) int {
	n := bytes.IndexByte(p, '\n') + 1
	if n == 0 {
		s.hold(p)
		return len(p)
	}
	s.hold(p[:n])
	s.endLine(s.held, s.lineLen, true)
	return n
}

// hold takes p, more of an unfinished line.
func (s *Scanner) hold(p []byte) {
	s.lineLen += int64(len(p))
	s.lineTail.push(p)
	header := s.top().header
	if !header {
		s.gather(p)
	}
	s.held = append(s.held, p[:min(len(p), max(0, s.keep-len(s.held)))]...)
	if !header && !mayBeBoundary(s.held) {
		s.keep, s.held = 0, s.held[:0]
	}
}

// endLine acts on a whole line of n octets, of which line has the first. Only the last line may lack its line end.
func (s *Scanner) endLine(line []byte, n int64, ended bool) {
	before := end{at: s.pos, lines: s.lines, eol: s.tail.eol()}
	s.pos += n
	if ended {
		s.lines++
	}
	switch {
	case int64(len(line)) == n && dashes(line) && s.isBoundary(line):
		s.boundary(line, before)
	case s.top().header:
		s.headerText(line[:min(len(line), maxField)])
	}
	if s.lineLen > 0 {
		s.tail, s.lineLen = s.lineTail, 0
		return
	}
	s.tail.push(line)
}

// An end is a place where parts end: before the line that starts at at.
type end struct {
	at    int64
	lines int64 // line ends before at
	eol   int   // octets of the line end before at that belong to the boundary
}

// mayBeBoundary reports whether a line that starts so can still become a boundary.
func mayBeBoundary(held []byte) bool {
	return string(held[:min(len(held), 2)]) == "--"[:min(len(held), 2)]
}

func dashes(line []byte) bool { return len(line) > 2 && line[0] == '-' && line[1] == '-' }

// lookup finds the open multipart whose boundary line this is, and whether it is the last one. The whole line counts, so a
// boundary that starts like another one is not taken for it.
func (s *Scanner) lookup(line []byte) (k int, last, ok bool) {
	if len(s.open) == 0 || len(line) > maxBoundaryLine {
		return 0, false, false
	}
	line = line[2:]
	for len(line) > 0 && isSpace(line[len(line)-1]) {
		line = line[:len(line)-1]
	}
	if k, ok = s.open[string(line)]; ok {
		return k, false, true
	}
	line, last = bytes.CutSuffix(line, []byte("--"))
	if last {
		k, ok = s.open[string(line)]
	}
	return k, last, ok
}

func (s *Scanner) isBoundary(line []byte) bool {
	_, _, ok := s.lookup(line)
	return ok
}

// boundary ends what is open inside the multipart that the line belongs to, and begins its next part. s.pos is after
// the line.
func (s *Scanner) boundary(line []byte, before end) {
	k, last, _ := s.lookup(line)
	s.closeTo(k, before)
	if last {
		s.forget(k)
		return
	}
	f := &s.stack[k]
	s.push(s.pos, frame{digest: f.part.Subtype == "digest"})
}

// push opens an entity whose header starts at off.
func (s *Scanner) push(off int64, f frame) {
	f.header, f.shadowed = true, -1
	f.part.Header.Off = off
	s.stack = append(s.stack, f)
	s.parts++
	if s.parts >= maxParts {
		clear(s.open)
	}
}

func (s *Scanner) top() *frame { return &s.stack[len(s.stack)-1] }

// closeTo ends every entity inside frame k. A header keeps its last line end even if the boundary follows at once; what is
// round it then ends there too.
func (s *Scanner) closeTo(k int, e end) {
	for s.top().header {
		s.endHeader(e.at)
	}
	if s.top().part.Body.Off > e.at-int64(e.eol) {
		e.eol = 0
	}
	for len(s.stack) > k+1 {
		s.close(e)
	}
}

// close ends the innermost entity and hands it to the one it belongs to.
func (s *Scanner) close(e end) {
	f := s.top()
	f.end(e)
	if s.sampling {
		s.takePreview(&f.part)
	}
	s.forget(len(s.stack) - 1)
	s.stack = s.stack[:len(s.stack)-1]
	switch {
	case f.message != nil:
		f.message.Envelope.complete()
		f.message.Root = f.part
		if len(s.stack) > 0 {
			s.top().part.Message = f.message
		}
	default:
		up := &s.top().part
		if up.Parts == nil {
			up.Parts = make([]Part, 0, 2)
		}
		up.Parts = append(up.Parts, f.part)
	}
}

// end gives the part its body and, where it needs one, a child.
func (f *frame) end(e end) {
	p := &f.part
	p.Body.Len = e.at - int64(e.eol) - p.Body.Off
	if p.hasLines() {
		p.Lines = f.lines(e)
	}
	if p.Multipart() && len(p.Parts) == 0 {
		p.Parts = []Part{emptyText(p.Body.Off)}
	}
}

// lines counts the line ends in a body.
func (f *frame) lines(e end) int64 {
	if f.part.Body.Len == 0 {
		return 0
	}
	n := e.lines - f.lines0
	if e.eol > 0 {
		n--
	}
	return n
}

// emptyText is the child of a multipart that has none.
func emptyText(off int64) Part {
	p := Part{Header: Span{Off: off}, Body: Span{Off: off}}
	p.defaults(false)
	return p
}

// listen makes b the boundary of the innermost entity.
func (s *Scanner) listen(b string) {
	if s.open == nil {
		s.open = make(map[string]int)
	}
	f := s.top()
	f.boundary = b
	if k, ok := s.open[b]; ok {
		f.shadowed = k
	}
	s.open[b] = len(s.stack) - 1
}

// forget stops listening for the boundary of frame k, which is the innermost that has one.
func (s *Scanner) forget(k int) {
	f := &s.stack[k]
	switch {
	case f.boundary == "" || len(s.open) == 0:
	case f.shadowed >= 0:
		s.open[f.boundary] = f.shadowed
	default:
		delete(s.open, f.boundary)
	}
	f.boundary = ""
}

// headerRoom is how many octets more the header may have.
func (s *Scanner) headerRoom() int64 {
	return s.top().part.Header.Off + maxHeader - s.pos - s.lineLen
}

// cutHeader ends a header that is over its limit, in the middle of a line perhaps.
func (s *Scanner) cutHeader() {
	s.top().cut = true
	s.keep, s.held = 0, s.held[:0]
	s.endHeader(s.pos + s.lineLen)
}

// headerText acts on a line of a header. A line without a colon is kept and means nothing: an mbox "From " line, or text of
// a message without a header.
func (s *Scanner) headerText(line []byte) {
	switch {
	case blank(line):
		s.endHeader(s.pos)
	case line[0] == ' ' || line[0] == '\t':
		s.fold(line)
	default:
		s.startField(line)
	}
}

// blank reports whether the line ends a header: nothing but its line end, which may have more than one CR.
func blank(line []byte) bool {
	n := len(line) - 1
	return line[n] == '\n' && (n == 0 || line[0] == '\r' && len(bytes.TrimLeft(line, "\r")) == 1)
}

// endHeader begins the body of the innermost entity at at, and opens what is inside it.
func (s *Scanner) endHeader(at int64) {
	s.endField()
	f := s.top()
	p := &f.part
	f.header = false
	p.Header.Len, p.Body.Off = at-p.Header.Off, at
	f.lines0 = s.lines
	p.defaults(f.digest)
	switch closed := f.cut || len(s.stack) >= maxDepth || s.parts >= maxParts; {
	case closed && (p.Multipart() || p.isMessage()) || p.isMessage() && !p.identity():
		p.opaque()
	case p.isMessage():
		s.push(at, frame{message: new(Message)})
	case p.Multipart():
		if b := boundaryOf(p); b != "" {
			s.listen(b)
		}
	default:
		s.sampling = s.wanted(p)
	}
}

// A tail is the last few octets of what came before.
type tail [3]byte

func (t *tail) push(p []byte) {
	if len(p) >= len(t) {
		copy(t[:], p[len(p)-len(t):])
		return
	}
	copy(t[:], t[len(p):])
	copy(t[len(t)-len(p):], p)
}

// eol is the length of the line end that what came before ends with.
func (t *tail) eol() int {
	switch {
	case t[2] != '\n':
		return 0
	case t[1] == '\r':
		return 2
	}
	return 1
}
