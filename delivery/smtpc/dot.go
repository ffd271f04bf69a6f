package smtpc

import (
	"bytes"
	"io"
)

// A lineWriter writes a message with CRLF line ends only and a final CRLF. A bare CR or LF becomes a line end, so that no two
// servers can differ on where the message ends. With dots it is as DATA wants it: dots at the start of a line are doubled
// (RFC 5321, 4.5.2), and Close writes the final dot.
type lineWriter struct {
	w      io.Writer
	dots   bool
	before func() error // is called before each block; nil is nothing
	cr     bool         // the last octet was a CR; its line end is written
	middle bool         // something of the line is written
	err    error
}

// Write takes octets of the message.
func (l *lineWriter) Write(p []byte) (int, error) {
	if l.before != nil {
		if l.err = l.before(); l.err != nil {
			return 0, l.err
		}
	}
	for rest := p; len(rest) > 0; {
		rest = l.line(rest)
	}
	return len(p), l.err
}

// line writes up to and with the next line end, and returns what follows.
func (l *lineWriter) line(p []byte) []byte {
	if l.cr && p[0] == '\n' {
		l.cr = false
		return p[1:]
	}
	if l.cr = false; !l.middle && l.dots && p[0] == '.' {
		l.put(".")
	}
	text, end := cutLine(p)
	switch n := len(text); {
	case end == '\r' && n+1 < len(p) && p[n+1] == '\n': // as it should be, and in one piece
		l.middle = false
		l.write(p[:n+2])
		return p[n+2:]
	case end == 0:
		l.middle = true
		l.write(text)
		return nil
	}
	l.cr, l.middle = end == '\r', false
	l.write(text)
	l.put("\r\n")
	return p[len(text)+1:]
}

// cutLine returns what stands before the first CR or LF, and which of the two it is;
// 0 when there is none.
func cutLine(p []byte) (text []byte, end byte) {
	if i := bytes.IndexByte(p, '\n'); i >= 0 {
		text, end = p[:i], '\n'
	} else {
		text = p
	}
	if i := bytes.IndexByte(text, '\r'); i >= 0 {
		text, end = text[:i], '\r'
	}
	return text, end
}

// Close ends the message.
func (l *lineWriter) Close() error {
	if l.middle {
		l.put("\r\n")
	}
	if l.middle = false; l.dots {
		l.put(".\r\n")
	}
	return l.err
}

func (l *lineWriter) put(s string) { l.write([]byte(s)) }

func (l *lineWriter) write(p []byte) {
	if l.err == nil && len(p) > 0 {
		_, l.err = l.w.Write(p)
	}
}

// InLines reports whether Lines would read b as it is.
func InLines(b []byte) bool {
	if n := len(b); n > 0 && b[n-1] != '\n' || bytes.Count(b, []byte{'\r'}) != bytes.Count(b, []byte{'\n'}) {
		return false
	}
	for rest := b; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n') // there is one, at the end
		if n == 0 || rest[n-1] != '\r' {
			return false
		}
		rest = rest[n+1:]
	}
	return true
}

// Lines reads a message as Send sends it, but for the dots: every bare CR or LF of r is a line end, and the last line has one.
// What is signed, and what is measured, must be read through it. Errors are those of r.
func Lines(r io.Reader) io.Reader {
	l := &lineReader{src: r}
	l.lines.w = &l.out
	return l
}

type lineReader struct {
	src   io.Reader
	in    [4096]byte
	lines lineWriter
	out   bytes.Buffer
	err   error
}

func (l *lineReader) Read(p []byte) (int, error) {
	for l.out.Len() == 0 && l.err == nil {
		var n int
		n, l.err = l.src.Read(l.in[:])
		l.lines.Write(l.in[:n])
		if l.err == io.EOF {
			l.lines.Close()
		}
	}
	if l.out.Len() == 0 {
		return 0, l.err
	}
	return l.out.Read(p)
}
