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
	l.NUL = l.NUL || bytes.IndexByte(p, 0) >= 0
	if l.Bare || len(p) == 0 {
		return
	}
	l.Bare = isBare(p, l.cr)
	l.cr = p[len(p)-1] == '\r'
}

// End tells that the message is over.
func (l *LineWatch) End() { l.Bare = l.Bare || l.cr }

// isBare reports whether p, which follows a CR if cr, has a CR or LF that is not part of a CRLF. A CR at its end may be.
func isBare(p []byte, cr bool) bool {
	if cr && p[0] != '\n' {
		return true
	}
	crs := 0 // that are in p, and followed by LF
	for n := 0; ; {
		i := bytes.IndexByte(p[n:], '\n')
		if i < 0 {
			break
		}
		if n += i + 1; n > 1 && p[n-2] == '\r' {
			crs++
		} else if n > 1 || !cr {
			return true
		}
	}
	if p[len(p)-1] == '\r' {
		crs++
	}
	return bytes.Count(p, []byte("\r")) != crs
}
