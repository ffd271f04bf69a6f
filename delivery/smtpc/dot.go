package smtpc

import (
	"bytes"
	"io"
)

// dotWriter writes a message as DATA wants it: CRLF line ends only, dots at the
// start of a line doubled, a final CRLF (RFC 5321, 4.5.2). A bare CR or LF becomes a
// line end, so that no two servers can differ on where the message ends. Close
// writes the final dot.
type dotWriter struct {
	w      io.Writer
	before func() error // is called before each block
	cr     bool         // the last octet was a CR; its line end is written
	middle bool         // something of the line is written
	err    error
}

// Write takes octets of the message.
func (d *dotWriter) Write(p []byte) (int, error) {
	if d.err = d.before(); d.err != nil {
		return 0, d.err
	}
	for rest := p; len(rest) > 0; {
		rest = d.line(rest)
	}
	return len(p), d.err
}

// line writes up to and with the next line end, and returns what follows.
func (d *dotWriter) line(p []byte) []byte {
	if d.cr && p[0] == '\n' {
		d.cr = false
		return p[1:]
	}
	text, end := cutLine(p)
	if d.cr = false; len(text) > 0 {
		if text[0] == '.' && !d.middle {
			d.put(".")
		}
		d.middle = true
		d.write(text)
	}
	if end == 0 {
		return nil
	}
	d.cr, d.middle = end == '\r', false
	d.put("\r\n")
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
func (d *dotWriter) Close() error {
	if d.middle {
		d.put("\r\n")
	}
	d.put(".\r\n")
	return d.err
}

func (d *dotWriter) put(s string) { d.write([]byte(s)) }

func (d *dotWriter) write(p []byte) {
	if d.err == nil {
		_, d.err = d.w.Write(p)
	}
}
