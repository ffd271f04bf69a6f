// Package mime reads the structure of a message once, as it comes in, so that nobody has to parse it again: the tree of
// parts with the octets that each one covers, the envelope, and a preview. Header fields, address lists, dates and
// encoded-words of messages are read here too.
//
// What is promised:
//
//   - Any octets give a structure. Nothing here fails on what a message says; errors come from readers and from
//     damaged stored records only.
//   - One pass, linear time, and memory within the limits below however large or hostile the message is. What lies
//     beyond a limit is the opaque body of a leaf.
//   - Spans are octets of the message as it stands. A part's body begins where its header ends; the root's header and
//     body together are the whole message; a child lies within its parent's body.
//   - Every Part can be shown as an IMAP BODYSTRUCTURE: a multipart has at least one child, a message/rfc822 or
//     message/global has a Message. A multipart or message that cannot be opened (too deep, too many parts, header
//     over its limit, an embedded message in base64) is application/octet-stream.
//
// Where a message contradicts itself, the first Content-* field of a header and the first parameter of a name count,
// except that an RFC 2231 extended parameter wins over its plain twin.
package mime

import "strings"

// Limits. They bound what is kept and how deep we look, never whether a message is accepted.
const (
	maxHeader        = 1 << 20  // octets of one header; the rest is body, and the part is a leaf
	maxFields        = 2000     // fields looked at in one header; later ones are skipped
	maxField         = 64 << 10 // octets kept of one field, and of any line that has to be kept while it is unfinished
	maxKept          = 1 << 20  // octets of field values kept in one structure; later values are empty
	maxDepth         = 100      // levels of multipart and message; what is nested deeper is a leaf
	maxParts         = 10000    // parts; the last one runs to the end of the message
	maxBoundary      = 2048     // octets of a boundary; a multipart with a longer one has no parts
	maxBoundaryLine  = 4096     // octets of a boundary line with its white space and line end
	maxParams        = 200      // parameters of one field
	maxSegments      = 100      // RFC 2231 segments of one parameter
	maxLanguages     = 20       // tags of one Content-Language
	maxToken         = 256      // octets of a type, subtype, encoding, disposition, parameter name or language tag
	maxFieldAddress  = 1000     // addresses kept of one envelope field
	maxAddresses     = 10000    // addresses kept in one structure
	maxReferences    = 500      // ids kept of References: the first one, and the last ones
	maxPreview       = 200      // characters of a preview (RFC 8970)
	maxSample        = 2 << 10  // octets of a plain text part looked at for the preview
	maxSampleHTML    = 8 << 10  // the same for text/html
	maxPreviewTries  = 3        // text parts tried for a preview with something in it
	maxEncodedHeader = 64 << 10 // octets of a value in which DecodeHeader decodes encoded-words
)

// Structure is all that IMAP needs of a message without parsing it again.
type Structure struct {
	Root     Part // the message itself
	Envelope Envelope
	Preview  string // up to 200 characters of readable text (RFC 8970), from the first text part that has any
	Size     int64  // octets of the whole message

	HeaderSum uint32 // CRC-32C of Root.Header, so that it can be read on its own and held against it

	// References are the ids of the messages that this one answers, oldest first, as RFC 5256 takes them for threads and as
	// MessageIDs gives them: those of the References field or, without a valid one there, the first of In-Reply-To.
	References []string
}

// A Part is one MIME entity. Its strings may hold any octets but NUL, CR and LF.
type Part struct {
	Type, Subtype string  // lower case, "text", "plain"
	Params        []Param // of Content-Type, one per name
	ID            string  // Content-ID, unfolded
	Description   string  // Content-Description, unfolded, encoded-words as they stand
	Encoding      string  // Content-Transfer-Encoding in lower case; "7bit" when there is none

	Disposition       string // lower case; "" when there is none
	DispositionParams []Param
	Language          []string
	Location          string
	MD5               string

	// The parameters as BODYSTRUCTURE has them, if they came with RFC 2231 charsets; else nil.
	sentParams, sentDisposition []Param

	Header Span  // with the blank line: BODY[HEADER] of the root, BODY[n.MIME] of others
	Body   Span  // BODY[TEXT] of the root, BODY[n] of others; without the line end that belongs to the boundary
	Lines  int64 // line ends in Body; for text and embedded messages

	Parts   []Part   // children; at least one if and only if Type is "multipart"
	Message *Message // not nil if and only if the part is message/rfc822 or message/global
}

// A Message is a message inside a message. The spans of its Root are octets of the outermost message.
type Message struct {
	Envelope Envelope
	Root     Part
}

// A Span is a run of octets of the whole message.
type Span struct{ Off, Len int64 }

// End is the offset of the first octet after the span.
func (s Span) End() int64 { return s.Off + s.Len }

// A Param is a parameter of Content-Type or Content-Disposition: its name in lower case, its value unquoted and, if it
// came as RFC 2231 says, decoded into UTF-8. An extended value in an unknown charset is kept as it stands under the
// name with its "*".
type Param struct{ Name, Value string }

// An Envelope is what RFC 9051 section 7.5.2 calls so: header text, unfolded, with encoded-words as they stand.
// Sender and ReplyTo are From where the message has none of its own. To, Cc and Bcc join repeated fields; of the
// others the first counts.
type Envelope struct {
	Date, Subject, InReplyTo, MessageID string
	From, Sender, ReplyTo, To, Cc, Bcc  []Address

	blank fieldSet // which of the texts are "" because the field says so, not because there is none
}

// An Address is one address, or the start or end of a group, in the four words of RFC 9051 section 7.5.2. A group
// starts with Mailbox as its name and no Host, and ends with neither. An address that lacks a part has
// MissingMailbox or MissingHost in its place.
type Address struct{ Name, Route, Mailbox, Host string }

// What stands in an Address for what the header did not say, so that it is not taken for a group.
const (
	MissingMailbox = "MISSING_MAILBOX"
	MissingHost    = "MISSING_DOMAIN"
)

// GroupStart reports whether a opens a group, whose name is a.Mailbox.
func (a Address) GroupStart() bool { return a.Host == "" && a.Mailbox != "" }

// GroupEnd reports whether a closes a group.
func (a Address) GroupEnd() bool { return a.Host == "" && a.Mailbox == "" }

// Param returns the value of the Content-Type parameter of that lower-case name, or "".
func (p *Part) Param(name string) string { return param(p.Params, name) }

// Multipart reports whether p has children.
func (p *Part) Multipart() bool { return p.Type == "multipart" }

func param(params []Param, name string) string {
	for _, p := range params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

func (p *Part) isMessage() bool {
	return p.Type == "message" && (p.Subtype == "rfc822" || p.Subtype == "global")
}

// hasLines reports whether a BODYSTRUCTURE gives the lines of p.
func (p *Part) hasLines() bool { return p.Type == "text" || p.isMessage() }

// identity reports whether the body is there as it is, not in a transfer encoding.
func (p *Part) identity() bool {
	switch p.Encoding {
	case "7bit", "8bit", "binary":
		return true
	}
	return false
}

// opaque makes p a leaf that nobody looks into.
func (p *Part) opaque() {
	p.Type, p.Subtype, p.Parts, p.Message = "application", "octet-stream", nil, nil
}

// Find returns the part of p, which is the root of a message, that the numbers of BODY[1.2.3] name, or nil. No numbers
// name the message itself. The numbers go into a message/rfc822 part; 1 of a message that is not a multipart is its only
// part, which is the message's own root: its Header is the MIME header, its Body the part.
func (p *Part) Find(path []int) *Part {
	if len(path) == 0 {
		return p
	}
	child := p
	switch n := path[0]; {
	case p.Multipart() && n >= 1 && n <= len(p.Parts):
		child = &p.Parts[n-1]
	case p.Multipart() || n != 1:
		return nil
	}
	switch {
	case len(path) == 1:
		return child
	case child.Message != nil:
		return child.Message.Root.Find(path[1:])
	case child.Multipart():
		return child.Find(path[1:])
	}
	return nil
}

// lower is strings.ToLower for the ASCII of protocol words; other octets stay as they are.
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// without returns s without the octets that are in set.
func without(s, set string) string {
	if !strings.ContainsAny(s, set) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if strings.IndexByte(set, s[i]) < 0 {
			b = append(b, s[i])
		}
	}
	return string(b)
}
