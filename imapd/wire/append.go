package wire

import (
	"io"
	"math"
	"time"
)

// Message is one message of an APPEND or REPLACE. Its text is that of its parts, one after the other; a message is
// one part unless it came by CATENATE (RFC 4469).
type Message struct {
	Flags    []string  // as written
	Date     time.Time // zero without
	Catenate bool

	d    *Decoder
	done bool // no part is to come
}

// Part is a piece of a message: the octets that its Read gives, or what a URL names.
type Part struct {
	URL    string // of CATENATE; "" for a literal
	Size   int64  // octets of the literal
	Binary bool   // a literal8: it may have NUL (RFC 3516)
	UTF8   bool   // it is said to be UTF-8 (RFC 6855, 4)
	Sync   bool   // the client waits: refused now, it need not be sent

	d        *Decoder
	accepted bool
	left     int64
}

// appendTo = "APPEND" SP mailbox 1*append-message (RFC 3502, 6.3.11)
func (d *Decoder) appendTo() any {
	d.space()
	a := &Append{Mailbox: d.mailbox()}
	d.more, d.first, d.one = true, true, false
	return a
}

// replace = "REPLACE" SP seq-number SP mailbox append-message (RFC 8508, 4)
func (d *Decoder) replace() any {
	d.space()
	r := &Replace{UID: d.uid}
	if !d.accept('*') {
		r.Number = uint32(d.nonZero("the number of a message", math.MaxUint32))
	}
	d.space()
	r.Mailbox = d.mailbox()
	d.more, d.first, d.one = true, true, true
	return r
}

// NextMessage is the next message of the APPEND or REPLACE that Command returned, up to its text; nil at the end of the
// command. A *SyntaxError ends the command.
func (d *Decoder) NextMessage() (m *Message, err error) {
	if !d.more {
		return nil, nil
	}
	defer d.catch(&err)
	d.finishPart()
	if !d.first && (d.one || !d.optional()) {
		d.end()
		d.more = false
		return nil, nil
	}
	if d.first {
		d.space()
	}
	d.first = false
	d.used, d.listed = 0, 0 // the limits are for each message
	return d.message(), nil
}

// append-message = [SP flag-list] [SP date-time] SP append-data, after its first space (RFC 3502; RFC 4466, 6)
func (d *Decoder) message() *Message {
	m := &Message{d: d}
	if d.peek() == '(' {
		m.Flags = d.flagList()
		d.space()
	}
	if d.peek() == '"' {
		m.Date = d.dateTime()
		d.space()
	}
	if d.word("CATENATE") {
		m.Catenate = true
		d.space()
		d.expect('(')
		d.skipSpaces()
		if d.peek() == ')' {
			d.want("TEXT, URL or UTF8")
		}
	}
	return m
}

// NextPart is the next part of the message; nil after the last one.
func (m *Message) NextPart() (p *Part, err error) {
	if m.done {
		return nil, nil
	}
	d := m.d
	defer d.catch(&err)
	defer func() { m.done = m.done || !d.more }()
	d.finishPart()
	if !m.Catenate {
		m.done = true
		return d.textPart(), nil
	}
	d.skipSpaces()
	if m.done = d.accept(')'); m.done {
		return nil, nil
	}
	d.count()
	return d.catPart(), nil
}

// cat-part = "TEXT" SP literal / "URL" SP astring / utf8-literal (RFC 4469, 5; RFC 6855, 4)
func (d *Decoder) catPart() *Part {
	switch {
	case d.word("URL"):
		d.space()
		return &Part{URL: d.url()}
	case d.word("TEXT"):
		d.space()
		return d.textPart()
	case d.word("UTF8"):
		return d.utf8Part()
	}
	d.want("TEXT, URL or UTF8")
	return nil
}

func (d *Decoder) url() string {
	u := d.astring("a URL")
	if u == "" {
		d.refuse("NO", `BADURL ""`, "a URL of no octets leads nowhere")
	}
	return u
}

// textPart = literal / literal8 / "UTF8" SP "(" literal8 ")"
func (d *Decoder) textPart() *Part {
	if d.word("UTF8") {
		return d.utf8Part()
	}
	binary := d.accept('~')
	size, waits := d.announcement()
	d.part = &Part{d: d, Size: size, Binary: binary, Sync: waits, left: size}
	return d.part
}

func (d *Decoder) utf8Part() *Part {
	d.space()
	d.expect('(')
	if d.peek() != '~' {
		d.want("a literal8")
	}
	p := d.textPart()
	p.UTF8 = true
	return p
}

// Accept asks for the octets of the part, unless the client sends them anyway. Read does it as well.
func (p *Part) Accept() error {
	if p.accepted || p.d == nil {
		return nil
	}
	p.accepted = true
	if p.Sync {
		return p.d.proceed()
	}
	return nil
}

// Read reads octets of a literal. Its errors, but for io.EOF, are those of the connection.
func (p *Part) Read(b []byte) (int, error) {
	if p.left == 0 || p.d == nil || p.d.part != p {
		return 0, io.EOF
	}
	if err := p.Accept(); err != nil {
		return 0, err
	}
	n, err := p.d.stream(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	return n, err
}

// finishPart goes on after the part that was being read.
func (d *Decoder) finishPart() {
	p := d.part
	if p == nil {
		return
	}
	d.check(p.Accept())
	d.check(d.skip(p.left, d.limits.Discard))
	d.part = nil
	d.next()
	if p.UTF8 {
		d.expect(')')
	}
}

// Abandon reads away what is left of an APPEND or REPLACE that was refused. A text that the client waits to be asked for
// is not asked for.
func (d *Decoder) Abandon() error {
	if !d.more {
		return nil
	}
	d.more = false
	p := d.part
	d.part = nil
	if p == nil || !p.accepted {
		return d.discard(d.limits.Discard)
	}
	if err := d.skip(p.left, d.limits.Discard); err != nil {
		return err
	}
	if err := d.skipLine(d.limits.Discard); err != nil {
		return err
	}
	return d.discard(d.limits.Discard)
}
