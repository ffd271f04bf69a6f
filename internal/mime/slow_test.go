package mime

import (
	"bytes"
	"strings"
	"testing"
)

// A slow reads a message the plain way: all of it in memory, by descent, every line against every open boundary. It says
// what the Scanner should find, except for limits of counts and of headers.
type slow struct {
	msg   []byte
	lines [][]byte
	offs  []int64
}

func slowScan(msg []byte) Part {
	s := slow{msg: msg}
	off := int64(0)
	for line := range bytes.Lines(msg) {
		s.lines, s.offs = append(s.lines, line), append(s.offs, off)
		off += int64(len(line))
	}
	s.offs = append(s.offs, off)
	root, _ := s.part(0, nil, false, 1)
	return root
}

// match returns which open boundary the line is, the innermost first, or -1; and whether it is a last one.
func (s *slow) match(i int, open []string) (k int, last bool) {
	text, ok := strings.CutPrefix(string(s.lines[i]), "--")
	if !ok || len(s.lines[i]) > maxBoundaryLine {
		return -1, false
	}
	text = strings.TrimRight(text, " \t\r\n")
	for k := len(open) - 1; k >= 0; k-- {
		if open[k] == text {
			return k, false
		}
	}
	for k := len(open) - 1; k >= 0; k-- {
		if open[k]+"--" == text {
			return k, true
		}
	}
	return -1, false
}

// skip returns the first line from i on that is an open boundary.
func (s *slow) skip(i int, open []string) int {
	for i < len(s.lines) {
		if k, _ := s.match(i, open); k >= 0 {
			break
		}
		i++
	}
	return i
}

// end closes a body at line i.
func (s *slow) end(p *Part, i int) {
	end := s.offs[i]
	if i < len(s.lines) && i > 0 {
		line := s.lines[i-1]
		end -= int64(len(line) - len(bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))))
	}
	if end < p.Body.Off {
		end = s.offs[i]
	}
	p.Body.Len = end - p.Body.Off
}

// part reads the part whose header starts at line i, to the line after it.
func (s *slow) part(i int, open []string, digest bool, depth int) (Part, int) {
	var p Part
	p.Header.Off = s.offs[i]
	for i < len(s.lines) {
		if k, _ := s.match(i, open); k >= 0 {
			break
		}
		i++
		if blank(s.lines[i-1]) {
			break
		}
	}
	p.Body.Off = s.offs[i]
	p.Header.Len = p.Body.Off - p.Header.Off
	s.types(&p, digest)
	switch {
	case depth == maxDepth && (p.Multipart() || p.isMessage()), p.isMessage() && !p.identity():
		p.opaque()
	case p.isMessage():
		root, next := s.part(i, open, false, depth+1)
		p.Message = &Message{Root: root}
		p.Body.Len = root.Body.End() - p.Body.Off
		return p, next
	case p.Multipart() && boundaryOf(&p) != "":
		return s.multipart(p, i, append(open[:len(open):len(open)], boundaryOf(&p)), depth)
	}
	i = s.skip(i, open)
	s.end(&p, i)
	if p.Multipart() {
		p.Parts = []Part{emptyText(p.Body.Off)}
	}
	return p, i
}

func (s *slow) multipart(p Part, i int, open []string, depth int) (Part, int) {
	own := len(open) - 1
	i = s.skip(i, open)
	s.end(&p, i)
	for i < len(s.lines) {
		k, last := s.match(i, open)
		if k != own {
			break
		}
		if last {
			i = s.skip(i+1, open[:own])
			s.end(&p, i)
			break
		}
		if i+1 == len(s.lines) && p.Parts != nil {
			i++
			s.end(&p, i)
			break
		}
		var child Part
		child, i = s.part(i+1, open, p.Subtype == "digest", depth+1)
		p.Parts = append(p.Parts, child)
		p.Body.Len = child.Body.End() - p.Body.Off
	}
	if p.Parts == nil {
		p.Parts = []Part{emptyText(p.Body.Off)}
	}
	return p, i
}

// types reads the fields that decide what is inside.
func (s *slow) types(p *Part, digest bool) {
	seen := map[string]bool{}
	for name, raw := range HeaderFields(s.msg[p.Header.Off:p.Header.End()]) {
		name = strings.ToLower(name)
		kind := fieldOf([]byte(name))
		if (kind == contentType || kind == contentEncoding) && !seen[name] {
			p.set(kind, Unfold(raw))
			seen[name] = true
		}
	}
	p.defaults(digest)
}

// checkSlow holds what the Scanner found against what a slow finds.
func checkSlow(t testing.TB, msg []byte, s *Structure) {
	t.Helper()
	want := slowScan(msg)
	if got, want := spans(&s.Root), spans(&want); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func spans(p *Part) string {
	var b strings.Builder
	bare := Part{Type: p.Type, Subtype: p.Subtype, Header: p.Header, Body: p.Body}
	dumpPart(&b, &bare, "", "")
	for i := range p.Parts {
		b.WriteString(spans(&p.Parts[i]))
	}
	if p.Message != nil {
		b.WriteString("message" + spans(&p.Message.Root))
	}
	return b.String()
}
