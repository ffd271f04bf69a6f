package mime

import "strconv"

// The wire forms are ENVELOPE and BODYSTRUCTURE as RFC 9051 section 7.5.2 writes them and RFC 3501 section 7.4.2 did: any
// client may be sent them. A string is quoted where that needs no care and a literal otherwise, so that text beyond ASCII is
// a literal to all, whether or not they asked for UTF-8. A parameter in a charset of its own is sent as "name*" with the
// octets that RFC 2231 encodes it in, in one piece: RFC 2231 section 6 has servers join the pieces, and clients know the rest.

const (
	maxQuoted  = 4096 // octets of a quoted string; longer ones are literals
	maxEscapes = 4    // backslashes in a quoted string; clients are known to get them wrong
)

// appendWire appends the ENVELOPE.
func (e *Envelope) appendWire(b []byte) []byte {
	b = append(b, '(')
	b = append(e.appendText(b, dateField, e.Date), ' ')
	b = append(e.appendText(b, subjectField, e.Subject), ' ')
	for _, list := range [...][]Address{e.From, e.Sender, e.ReplyTo, e.To, e.Cc, e.Bcc} {
		b = append(appendAddresses(b, list), ' ')
	}
	b = append(e.appendText(b, inReplyToField, e.InReplyTo), ' ')
	return append(e.appendText(b, messageIDField, e.MessageID), ')')
}

// appendText tells a field that is empty from one that is not there.
func (e *Envelope) appendText(b []byte, f field, s string) []byte {
	if s == "" && e.blank.has(f) {
		return append(b, `""`...)
	}
	return appendNstring(b, s)
}

func appendAddresses(b []byte, list []Address) []byte {
	if len(list) == 0 {
		return append(b, "NIL"...)
	}
	b = append(b, '(')
	for i := range list {
		a := &list[i]
		b = append(appendNstring(append(b, '('), a.Name), ' ')
		b = append(appendNstring(b, a.Route), ' ')
		b = append(appendNstring(b, a.Mailbox), ' ')
		b = append(appendNstring(b, a.Host), ')')
	}
	return append(b, ')')
}

// appendWire appends the BODYSTRUCTURE.
func (p *Part) appendWire(b []byte) []byte {
	b = append(b, '(')
	if p.Multipart() {
		for i := range p.Parts {
			b = p.Parts[i].appendWire(b)
		}
		b = append(appendString(append(b, ' '), p.Subtype), ' ')
		return append(p.appendExtension(appendParams(b, orSent(p.Params, p.sentParams))), ')')
	}
	b = append(appendString(b, p.Type), ' ')
	b = append(appendString(b, p.Subtype), ' ')
	b = append(appendParams(b, orSent(p.Params, p.sentParams)), ' ')
	b = append(appendNstring(b, p.ID), ' ')
	b = append(appendNstring(b, p.Description), ' ')
	b = append(appendString(b, p.Encoding), ' ')
	b = strconv.AppendInt(b, p.Body.Len, 10)
	if p.Message != nil {
		b = p.Message.Envelope.appendWire(append(b, ' '))
		b = p.Message.Root.appendWire(append(b, ' '))
	}
	if p.hasLines() {
		b = strconv.AppendInt(append(b, ' '), p.Lines, 10)
	}
	b = appendNstring(append(b, ' '), p.MD5)
	return append(p.appendExtension(b), ')')
}

// appendExtension appends what all parts may have at their end.
func (p *Part) appendExtension(b []byte) []byte {
	b = append(b, ' ')
	if p.Disposition == "" {
		b = append(b, "NIL"...)
	} else {
		b = append(appendString(append(b, '('), p.Disposition), ' ')
		b = append(appendParams(b, orSent(p.DispositionParams, p.sentDisposition)), ')')
	}
	b = appendLanguages(append(b, ' '), p.Language)
	return appendNstring(append(b, ' '), p.Location)
}

func appendParams(b []byte, params []Param) []byte {
	if len(params) == 0 {
		return append(b, "NIL"...)
	}
	open := byte('(')
	for i := range params {
		b = append(appendString(append(b, open), params[i].Name), ' ')
		b = appendString(b, params[i].Value)
		open = ' '
	}
	return append(b, ')')
}

func orSent(params, sent []Param) []Param {
	if sent != nil {
		return sent
	}
	return params
}

func appendLanguages(b []byte, tags []string) []byte {
	if len(tags) == 0 {
		return append(b, "NIL"...)
	}
	open := byte('(')
	for _, tag := range tags {
		b = appendString(append(b, open), tag)
		open = ' '
	}
	return append(b, ')')
}

// appendNstring appends a string, or NIL for an empty one.
func appendNstring(b []byte, s string) []byte {
	if s == "" {
		return append(b, "NIL"...)
	}
	return appendString(b, s)
}

func appendString(b []byte, s string) []byte {
	escapes, ok := quotable(s)
	if !ok {
		b = append(strconv.AppendInt(append(b, '{'), int64(len(s)), 10), "}\r\n"...)
		return append(b, s...)
	}
	b = append(b, '"')
	if escapes == 0 {
		return append(append(b, s...), '"')
	}
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// quotable reports whether s is better quoted than a literal, and how many of its octets need a backslash.
func quotable(s string) (escapes int, ok bool) {
	if len(s) > maxQuoted {
		return 0, false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			escapes++
		case (c < ' ' && c != '\t') || c > '~':
			return 0, false
		}
	}
	return escapes, escapes <= maxEscapes
}

// A wireReader reads the wire forms again. Once bad is set, everything read is empty.
type wireReader struct {
	text string
	at   int
	bad  bool
}

func (r *wireReader) fail() {
	r.bad, r.at = true, len(r.text)
}

// next reports whether c comes next, and then passes it.
func (r *wireReader) next(c byte) bool {
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

// pass passes what has to come next.
func (r *wireReader) pass(s string) {
	if end := r.at + len(s); end <= len(r.text) && r.text[r.at:end] == s {
		r.at = end
		return
	}
	r.fail()
}

// isNil reports whether NIL comes next, and then passes it.
func (r *wireReader) isNil() bool {
	if r.at < len(r.text) && r.text[r.at] == 'N' {
		r.pass("NIL")
		return true
	}
	return false
}

// nstring reads a string; NIL is "".
func (r *wireReader) nstring() string {
	switch {
	case r.isNil():
		return ""
	case r.next('"'):
		return r.quoted()
	case r.next('{'):
		return r.literal()
	}
	r.fail()
	return ""
}

// quoted reads what follows the opening quote.
func (r *wireReader) quoted() string {
	start := r.at
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case '"':
			r.at++
			return r.text[start : r.at-1]
		case '\\':
			return r.escaped(start)
		}
		r.at++
	}
	r.fail()
	return ""
}

// escaped reads a quoted string that starts at start and has a backslash in it.
func (r *wireReader) escaped(start int) string {
	var out []byte
	for i := start; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			r.at = i + 1
			return string(out)
		case c == '\\' && i+1 < len(r.text):
			i++
		}
		out = append(out, r.text[i])
	}
	r.fail()
	return ""
}

// literal reads what follows the opening brace.
func (r *wireReader) literal() string {
	n := r.number()
	r.pass("}\r\n")
	if r.bad || n > int64(len(r.text)-r.at) {
		r.fail()
		return ""
	}
	r.at += int(n)
	return r.text[r.at-int(n) : r.at]
}

func (r *wireReader) number() int64 {
	start := r.at
	for r.at < len(r.text) && '0' <= r.text[r.at] && r.text[r.at] <= '9' {
		r.at++
	}
	n, err := strconv.ParseInt(r.text[start:r.at], 10, 64)
	if err != nil {
		r.fail()
	}
	return n
}

// envelope reads an ENVELOPE.
func (r *wireReader) envelope() Envelope {
	var e Envelope
	r.pass("(")
	e.Date = r.envelopeText(&e, dateField)
	r.pass(" ")
	e.Subject = r.envelopeText(&e, subjectField)
	for _, list := range [...]*[]Address{&e.From, &e.Sender, &e.ReplyTo, &e.To, &e.Cc, &e.Bcc} {
		r.pass(" ")
		*list = r.addresses()
	}
	r.pass(" ")
	e.InReplyTo = r.envelopeText(&e, inReplyToField)
	r.pass(" ")
	e.MessageID = r.envelopeText(&e, messageIDField)
	r.pass(")")
	return e
}

func (r *wireReader) envelopeText(e *Envelope, f field) string {
	null := r.at < len(r.text) && r.text[r.at] == 'N'
	s := r.nstring()
	if s == "" && !null {
		e.blank.add(f)
	}
	return s
}

func (r *wireReader) addresses() []Address {
	if r.isNil() {
		return nil
	}
	var list []Address
	for r.pass("("); r.next('('); r.pass(")") {
		var a Address
		a.Name = r.nstring()
		r.pass(" ")
		a.Route = r.nstring()
		r.pass(" ")
		a.Mailbox = r.nstring()
		r.pass(" ")
		a.Host = r.nstring()
		list = append(list, a)
	}
	r.pass(")")
	return list
}

func (r *wireReader) params() []Param {
	if r.isNil() {
		return nil
	}
	var list []Param
	for r.pass("("); !r.bad; r.pass(" ") {
		var p Param
		p.Name = r.nstring()
		r.pass(" ")
		p.Value = r.nstring()
		list = append(list, p)
		if r.next(')') {
			break
		}
	}
	return list
}

func (r *wireReader) languages() []string {
	if r.isNil() {
		return nil
	}
	var tags []string
	for r.pass("("); !r.bad; r.pass(" ") {
		tags = append(tags, r.nstring())
		if r.next(')') {
			break
		}
	}
	return tags
}

// extension reads what all parts may have at their end.
func (r *wireReader) extension(p *Part) {
	r.pass(" ")
	if !r.isNil() {
		r.pass("(")
		p.Disposition = r.nstring()
		r.pass(" ")
		p.DispositionParams, p.sentDisposition = decodeParams(r.params())
		r.pass(")")
	}
	r.pass(" ")
	p.Language = r.languages()
	r.pass(" ")
	p.Location = r.nstring()
	r.pass(")")
}

// simple reads the start of a part that is no multipart, up to its octets, and says how many those are.
func (r *wireReader) simple(p *Part) (octets int64) {
	for _, s := range [...]*string{&p.Type, &p.Subtype} {
		*s = r.nstring()
		r.pass(" ")
	}
	p.Params, p.sentParams = decodeParams(r.params())
	for _, s := range [...]*string{&p.ID, &p.Description, &p.Encoding} {
		r.pass(" ")
		*s = r.nstring()
	}
	r.pass(" ")
	return r.number()
}

// appendBody appends the BODY of the part that comes next, which is its BODYSTRUCTURE without extension data.
func (r *wireReader) appendBody(b []byte, depth int) []byte {
	if depth > maxDepth+1 {
		r.fail()
		return b
	}
	r.pass("(")
	b = append(b, '(')
	start, part := r.at, Part{}
	if r.at < len(r.text) && r.text[r.at] == '(' {
		for r.at < len(r.text) && r.text[r.at] == '(' {
			b = r.appendBody(b, depth+1)
		}
		start = r.at
		r.pass(" ")
		r.nstring()
		b = append(b, r.text[start:r.at]...)
		r.pass(" ")
		r.params()
		r.extension(&part)
		return append(b, ')')
	}
	r.simple(&part)
	if part.isMessage() {
		r.pass(" ")
		r.envelope()
		r.pass(" ")
		b = append(b, r.text[start:r.at]...)
		b = r.appendBody(b, depth+1)
		start = r.at
	}
	if part.hasLines() {
		r.pass(" ")
		r.number()
	}
	b = append(b, r.text[start:r.at]...)
	r.pass(" ")
	r.nstring()
	r.extension(&part)
	return append(b, ')')
}
