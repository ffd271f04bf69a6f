package delivery

import (
	"bytes"
	"encoding/binary"
	"io"
)

// survey is what a message's octets ask of the next hop.
type survey struct {
	size       int64
	eight      bool // there are octets above 127
	headerUTF8 bool // in the header too: it needs SMTPUTF8 to travel
	signed     bool // a server signed it before us, and a conversion would break that
}

// look surveys what open reads.
func look(open func() (io.ReadCloser, error)) (survey, error) {
	body, err := open()
	if err != nil {
		return survey{}, err
	}
	defer body.Close()
	var s surveyor
	_, err = io.Copy(&s, body) // without a buffer where all of it is in memory
	return s.survey, err
}

// maxSurveyed is how much of a header is looked at.
const maxSurveyed = 1 << 20

// surveyor surveys a message that is written to it.
type surveyor struct {
	survey
	body  bool   // the header is over
	start []byte // of the line, as far as it tells the name of a field
}

// signatures are the fields by which servers vouch for the octets of a message (RFC 6376, 3.5; RFC 8617, 4.1).
var signatures = [...]string{"dkim-signature:", "arc-message-signature:", "arc-seal:"}

const longestName = 24

func (s *surveyor) Write(p []byte) (int, error) {
	s.eight = s.eight || hasHighOctet(p)
	for rest := p; len(rest) > 0 && !s.body; {
		n := bytes.IndexByte(rest, '\n') + 1
		if n == 0 {
			n = len(rest)
		}
		s.headerPiece(rest[:n])
		rest = rest[n:]
	}
	if s.size += int64(len(p)); s.size > maxSurveyed {
		s.body = true
	}
	return len(p), nil
}

// headerPiece looks at a line of the header, or at what there is of it.
func (s *surveyor) headerPiece(p []byte) {
	s.headerUTF8 = s.headerUTF8 || hasHighOctet(p)
	s.start = append(s.start, p[:min(len(p), longestName-len(s.start))]...)
	if p[len(p)-1] != '\n' {
		return
	}
	s.body = len(bytes.TrimRight(s.start, "\r\n")) == 0
	for _, name := range signatures {
		s.signed = s.signed || len(s.start) >= len(name) && bytes.EqualFold(s.start[:len(name)], []byte(name))
	}
	s.start = s.start[:0]
}

// hasHighOctet reports whether p is not ASCII.
func hasHighOctet(p []byte) bool {
	for ; len(p) >= 8; p = p[8:] {
		if binary.LittleEndian.Uint64(p)&0x8080808080808080 != 0 {
			return true
		}
	}
	for _, c := range p {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
