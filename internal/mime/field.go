package mime

import (
	"bytes"
	"strings"
)

// A field is a header field that a Structure is made of.
type field uint

const (
	otherField field = iota
	contentType
	contentEncoding
	contentDisposition
	contentID
	contentDescription
	contentLanguage
	contentLocation
	contentMD5
	dateField // this one and those after it count in the header of a message only
	subjectField
	inReplyToField
	messageIDField
	referencesField // in the outermost header only
	fromField
	senderField
	replyToField
	toField // this one and those after it may come more than once
	ccField
	bccField
)

type fieldSet uint32

func (s *fieldSet) add(f field)     { *s |= 1 << f }
func (s fieldSet) has(f field) bool { return s&(1<<f) != 0 }

// fieldOf recognises a field name in any case.
func fieldOf(name []byte) field {
	var low [len("content-transfer-encoding")]byte
	if len(name) > len(low) {
		return otherField
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		low[i] = c
	}
	switch string(low[:len(name)]) {
	case "content-type":
		return contentType
	case "content-transfer-encoding":
		return contentEncoding
	case "content-disposition":
		return contentDisposition
	case "content-id":
		return contentID
	case "content-description":
		return contentDescription
	case "content-language":
		return contentLanguage
	case "content-location":
		return contentLocation
	case "content-md5":
		return contentMD5
	case "date":
		return dateField
	case "subject":
		return subjectField
	case "in-reply-to":
		return inReplyToField
	case "message-id":
		return messageIDField
	case "references":
		return referencesField
	case "from":
		return fromField
	case "sender":
		return senderField
	case "reply-to":
		return replyToField
	case "to":
		return toField
	case "cc":
		return ccField
	case "bcc":
		return bccField
	}
	return otherField
}

// startField begins a field with its first line, if it is one that counts.
func (s *Scanner) startField(line []byte) {
	s.endField()
	f := s.top()
	colon := bytes.IndexByte(line, ':')
	if f.fields++; f.fields > maxFields || colon < 0 {
		return
	}
	kind := fieldOf(bytes.TrimRight(line[:colon], " \t"))
	if f.skips(kind) || kind == referencesField && len(s.stack) > 1 {
		return
	}
	f.seen.add(kind)
	s.kind = kind
	s.field = append(s.field[:0], line[colon+1:]...)
}

// skips reports whether a field means nothing here.
func (f *frame) skips(kind field) bool {
	return kind == otherField ||
		kind >= dateField && f.message == nil ||
		kind < toField && f.seen.has(kind)
}

// fold adds a continuation line to the current field.
func (s *Scanner) fold(line []byte) {
	if s.kind != otherField {
		s.field = append(s.field, line[:min(len(line), maxField-len(s.field))]...)
	}
}

// endField takes the value of the current field.
func (s *Scanner) endField() {
	kind := s.kind
	if kind == otherField {
		return
	}
	s.kind = otherField
	v := unfold(s.field)
	if s.kept += len(v); s.kept > maxKept {
		return
	}
	f := s.top()
	if kind < dateField {
		f.part.set(kind, string(v))
		return
	}
	s.setEnvelope(&f.message.Envelope, kind, string(v))
}

// set takes a Content-* field.
func (p *Part) set(kind field, v string) {
	switch kind {
	case contentType:
		p.setType(v)
	case contentEncoding:
		p.Encoding = lower(firstToken(v))
	case contentDisposition:
		word, rest := cutToken(v)
		p.Disposition = lower(word)
		p.DispositionParams, p.sentDisposition = decodeParams(parseParams(rest))
		if p.Disposition == "" && p.DispositionParams != nil {
			p.Disposition = "attachment" // RFC 2183 section 2.8
		}
	case contentID:
		p.ID = v
	case contentDescription:
		p.Description = v
	case contentLanguage:
		p.Language = languages(v)
	case contentLocation:
		p.Location = v
	case contentMD5:
		p.MD5 = v
	}
}

// setType takes a Content-Type. One that is not type/subtype is as good as none (RFC 2045 section 5.2).
func (p *Part) setType(v string) {
	typ, rest := cutToken(v)
	rest, ok := strings.CutPrefix(skipComments(rest), "/")
	if !ok || typ == "" {
		return
	}
	subtype, rest := cutToken(rest)
	if subtype == "" {
		return
	}
	p.Type, p.Subtype = lower(typ), lower(subtype)
	p.Params, p.sentParams = decodeParams(parseParams(rest))
}

// defaults fills in what the header did not say (RFC 2045 section 5.2, RFC 2046 section 5.1.5).
func (p *Part) defaults(digest bool) {
	if p.Encoding == "" {
		p.Encoding = "7bit"
	}
	switch {
	case p.Type != "":
	case digest:
		p.Type, p.Subtype = "message", "rfc822"
	default:
		p.Type, p.Subtype = "text", "plain"
		p.Params = []Param{{"charset", "us-ascii"}}
	}
}

// boundaryOf returns the boundary of a multipart, or "" when it has none that could be found in its body.
func boundaryOf(p *Part) string {
	b := strings.TrimRight(p.Param("boundary"), " \t")
	if len(b) > maxBoundary {
		return ""
	}
	return b
}

// languages splits a Content-Language.
func languages(v string) []string {
	var tags []string
	for v != "" && len(tags) < maxLanguages {
		var tag string
		if tag, v = cutToken(v); tag != "" {
			tags = append(tags, tag)
		}
		_, v, _ = strings.Cut(v, ",")
	}
	return tags
}

// setEnvelope takes a field of a message's header.
func (s *Scanner) setEnvelope(e *Envelope, kind field, v string) {
	if v == "" && kind <= messageIDField {
		e.blank.add(kind)
	}
	switch kind {
	case referencesField:
		s.references = references(v)
	case dateField:
		e.Date = v
	case subjectField:
		e.Subject = v
	case inReplyToField:
		e.InReplyTo = v
	case messageIDField:
		e.MessageID = v
	case fromField:
		e.From = s.addresses(e.From, v)
	case senderField:
		e.Sender = s.addresses(e.Sender, v)
	case replyToField:
		e.ReplyTo = s.addresses(e.ReplyTo, v)
	case toField:
		e.To = s.addresses(e.To, v)
	case ccField:
		e.Cc = s.addresses(e.Cc, v)
	case bccField:
		e.Bcc = s.addresses(e.Bcc, v)
	}
}

// addresses adds the addresses of v to list, within the limits.
func (s *Scanner) addresses(list []Address, v string) []Address {
	more := parseAddresses(v, min(maxFieldAddress-len(list), maxAddresses-s.addrs))
	s.addrs += len(more)
	if list == nil {
		return more
	}
	return append(list, more...)
}

// complete gives the envelope the addresses that it has from others (RFC 9051 section 7.5.2).
func (e *Envelope) complete() {
	if len(e.Sender) == 0 {
		e.Sender = e.From
	}
	if len(e.ReplyTo) == 0 {
		e.ReplyTo = e.From
	}
}
