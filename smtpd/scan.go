package smtpd

import (
	"bytes"
	"strings"

	"postroad/internal/envelope"
)

// Bounds of a header: how long it may be, which is also what package mime takes for one, and how much of a field is kept.
const (
	headerSize = 1 << 20
	fieldSize  = 16 << 10

	maxMessageID = 998 // octets: a line (RFC 5322, 2.1.1)
)

// header finds in a message's header what decides about its coming in. It keeps one
// field at a time.
type header struct {
	ended bool // the header is over; nothing changes any more

	received    int // Received fields
	delivered   deliveries
	date        bool // there is a Date field
	identified  bool // there is a Message-ID field
	messageID   string
	from        addressField
	sender      addressField
	solicits    string // the body of the first Solicitation field (RFC 3865, 2.5)
	tlsOptional bool   // "TLS-Required: No" (RFC 8689, 3)
	tooBig      bool   // it is longer than headerSize

	seen  int
	field []byte // the present field, unfinished
	cut   bool   // the present field was longer than what is kept
	line  int    // octets of the present line so far
	cr    bool   // the present line is a CR so far
}

// write looks at the next octets.
func (h *header) write(p []byte) {
	for len(p) > 0 && !h.ended {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			h.part(p)
			return
		}
		h.part(p[:i+1])
		h.endLine()
		p = p[i+1:]
	}
}

// part takes a piece of a line.
func (h *header) part(p []byte) {
	if h.line == 0 && p[0] != ' ' && p[0] != '\t' {
		h.endField()
	}
	h.cr = h.line == 0 && p[0] == '\r' || h.cr && p[0] == '\n'
	h.line += len(p)
	h.seen += len(p)
	room := max(0, fieldSize-len(h.field))
	h.cut = h.cut || len(p) > room
	h.field = append(h.field, p[:min(len(p), room)]...)
	if h.seen > headerSize {
		h.tooBig = true
		h.end()
	}
}

// endLine follows the line's LF. A line of nothing else ends the header.
func (h *header) endLine() {
	if h.line == 1 || h.line == 2 && h.cr {
		h.end()
	}
	h.line, h.cr = 0, false
}

// endField judges the field that is complete.
func (h *header) endField() {
	name, body, ok := bytes.Cut(h.field, []byte(":"))
	if ok {
		h.take(string(bytes.ToLower(bytes.TrimRight(name, " \t"))), body)
	}
	h.field, h.cut = h.field[:0], false
}

func (h *header) take(name string, body []byte) {
	switch name {
	case "received":
		h.received++
	case "delivered-to":
		h.delivered.take(body, h.received)
	case "date":
		h.date = true
	case "message-id":
		if !h.identified {
			h.identified = true
			h.messageID = envelope.Sanitize(string(bytes.TrimSpace(body)), maxMessageID)
		}
	case "solicitation":
		if h.solicits == "" && !h.cut {
			h.solicits = unfold(string(body))
		}
	case "tls-required":
		h.tlsOptional = h.tlsOptional || strings.EqualFold(unfold(string(body)), "no")
	case "from":
		h.from.take(body, h.cut)
	case "sender":
		h.sender.take(body, h.cut)
	}
}

// end tells that the header is over.
func (h *header) end() {
	if !h.ended {
		h.endField()
		h.ended, h.field = true, nil
	}
}
