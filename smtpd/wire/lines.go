package wire

import "bytes"

// LineWatch watches the lines of a message that comes in pieces. The zero LineWatch is at its beginning.
type LineWatch struct {
	Bare bool // a CR without LF, or an LF without CR, was seen
	NUL  bool // a NUL was seen

	cr bool // the last octet was a CR
}

// Write looks at the next octets.
func (l *LineWatch) Write(p []byte) {
	if len(p) == 0 {
		return
	}
	l.NUL = l.NUL || bytes.IndexByte(p, 0) >= 0
	if l.Bare {
		return
	}
	l.Bare = bare(p, l.cr)
	l.cr = p[len(p)-1] == '\r'
}

// bare reports whether p, which follows a CR if cr, has a CR or LF that is not part of CRLF. A CR at its end is
// still open.
func bare(p []byte, cr bool) bool {
	if cr && p[0] != '\n' {
		return true
	}
	crs := bytes.Count(p, []byte("\r")) // that are to be followed by LF
	if p[len(p)-1] == '\r' {
		crs--
	}
	for at := 0; ; crs-- {
		i := bytes.IndexByte(p[at:], '\n')
		if i < 0 {
			return crs != 0
		}
		if i > 0 && p[at+i-1] != '\r' || i == 0 && (at > 0 || !cr) {
			return true
		}
		if at += i + 1; at == 1 {
			crs++ // its CR is not in p
		}
	}
}

// End tells that the message is over.
func (l *LineWatch) End() { l.Bare = l.Bare || l.cr }
