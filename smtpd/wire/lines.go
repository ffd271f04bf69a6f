package wire

import "bytes"

// LineWatch watches the lines of a message that comes in pieces. The zero LineWatch is at its beginning.
type LineWatch struct {
	Bare bool // a CR without LF, or an LF without CR, was seen
	NUL  bool // a NUL was seen

	cr    bool // the last octet was a CR
	start bool // the last two were CRLF
}

// Write looks at the next octets.
func (l *LineWatch) Write(p []byte) {
	l.NUL = l.NUL || bytes.IndexByte(p, 0) >= 0
	for len(p) > 0 && !l.Bare {
		p = p[l.lines(p):]
	}
}

// End tells that the message is over.
func (l *LineWatch) End() { l.Bare = l.Bare || l.cr }

// lines looks at the lines of p up to one that begins with a dot behind a CRLF, and returns their length. p is not empty.
func (l *LineWatch) lines(p []byte) (n int) {
	l.Bare = l.Bare || l.cr && p[0] != '\n'
	l.start = false
	crs := 0 // that are in p, and followed by LF
	for n < len(p) && !(l.start && p[n] == '.') {
		i := bytes.IndexByte(p[n:], '\n')
		if i < 0 {
			n, l.start = len(p), false
			break
		}
		if n += i + 1; n == 1 {
			l.start = l.cr
		} else if l.start = p[n-2] == '\r'; l.start {
			crs++
		}
		l.Bare = l.Bare || !l.start
	}
	if l.cr = p[n-1] == '\r'; l.cr {
		crs++ // it may be
	}
	l.Bare = l.Bare || bytes.Count(p[:n], []byte("\r")) != crs
	return n
}
