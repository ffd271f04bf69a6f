package dsn

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"postroad/internal/envelope"
)

// Bounds of what Parse reads.
const (
	maxReport     = 1 << 20
	maxRecipients = 1000
	maxParts      = 20
	maxFields     = 1000 // in a header or a group
)

// ErrNotReport means that a message is not a delivery report.
var ErrNotReport = errors.New("not a delivery report")

// Parse reads a delivery report, at most 1 MiB of it and 1,000 recipients; the
// message that it carries is not returned. What a report says is claimed, not proven:
// anyone can write one. ErrNotReport when r is another message.
func Parse(r io.Reader) (Report, error) {
	in := bufio.NewReader(io.LimitReader(r, maxReport))
	header := readFields(in)
	kind, params, _ := mime.ParseMediaType(header["content-type"])
	if kind != "multipart/report" || params["boundary"] == "" {
		return Report{}, ErrNotReport
	}
	rep := Report{
		MessageID: clean(header["message-id"], maxField), Answers: clean(header["in-reply-to"], maxField),
		Date: when(header["date"]), Boundary: params["boundary"],
	}
	rep.To, _ = envelope.ParseAddress(header["to"])
	return rep, rep.readParts(multipart.NewReader(in, rep.Boundary))
}

// readParts looks for the part with the facts.
func (r *Report) readParts(parts *multipart.Reader) error {
	for range maxParts {
		part, err := parts.NextPart()
		if err != nil {
			break
		}
		kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if kind == "message/delivery-status" || kind == "message/global-delivery-status" {
			r.UTF8 = kind == "message/global-delivery-status"
			return r.readFacts(decoded(part))
		}
	}
	return ErrNotReport
}

// decoded undoes base64, which has no place here but is met; quoted-printable is undone by the reader of parts.
func decoded(part *multipart.Part) io.Reader {
	if strings.EqualFold(strings.TrimSpace(part.Header.Get("Content-Transfer-Encoding")), "base64") {
		return base64.NewDecoder(base64.StdEncoding, part)
	}
	return part
}

// readFacts reads groups of fields: the message's, then one for each recipient. Where nothing separates the first two,
// they are one.
func (r *Report) readFacts(part io.Reader) error {
	in := bufio.NewReader(part)
	first := readFields(in)
	r.Host = value(first["reporting-mta"])
	r.EnvelopeID = clean(first["original-envelope-id"], maxField)
	r.Arrived, r.DeliverBy = when(first["arrival-date"]), when(first["deliver-by-date"])
	if until, ok := strings.CutPrefix(first["future-release-request"], "until;"); ok {
		r.Release, _ = envelope.ParseDateTime(strings.TrimSpace(until))
	}
	for group := first; len(group) > 0 && len(r.Recipients) < maxRecipients; group = readFields(in) {
		if group["final-recipient"] != "" {
			r.ID = clean(group["final-log-id"], maxField)
			r.Recipients = append(r.Recipients, readRecipient(group))
		}
	}
	if len(r.Recipients) == 0 {
		return ErrNotReport
	}
	return nil
}

func readRecipient(f fields) Recipient {
	rcpt := Recipient{
		Action:      Action(strings.ToLower(clean(f["action"], 40))),
		Status:      readStatus(f["status"]),
		Reply:       readReply(value(f["diagnostic-code"])),
		LastAttempt: when(f["last-attempt-date"]),
		RetryUntil:  when(f["will-retry-until"]),
	}
	_, final := readAddress(f["final-recipient"])
	rcpt.Final, _ = envelope.ParsePath(final)
	rcpt.Reply.From = value(f["remote-mta"])
	if kind, addr := readAddress(f["original-recipient"]); addr != "" {
		rcpt.Original = kind + ";" + addr
	}
	return rcpt
}

// readAddress reads "type; address".
func readAddress(s string) (kind, addr string) {
	kind, addr, ok := strings.Cut(clean(s, maxField), ";")
	if !ok {
		return "", ""
	}
	kind, addr = strings.ToLower(strings.TrimSpace(kind)), strings.TrimSpace(addr)
	if kind == "utf-8" {
		addr = clean(hexPoint.ReplaceAllStringFunc(addr, fromHex), maxField)
	}
	return kind, addr
}

// hexPoint is a character in the ASCII form of an address in UTF-8 (RFC 6533, 3).
var hexPoint = regexp.MustCompile(`\\x\{[0-9A-Fa-f]{2,6}\}`)

func fromHex(s string) string {
	n, err := strconv.ParseUint(s[len(`\x{`):len(s)-1], 16, 32)
	if err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
		return s
	}
	return string(rune(n))
}

// readStatus takes "5.1.1" from the front; what follows is a comment.
func readStatus(s string) string {
	s, _, _ = strings.Cut(clean(s, 40), " ")
	if !isStatus(s) {
		return ""
	}
	return s
}

// isStatus reports whether s is class.subject.detail (RFC 3463, 2).
func isStatus(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != "2" && parts[0] != "4" && parts[0] != "5" {
		return false
	}
	for _, p := range parts[1:] {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// readReply takes "550 5.1.1 text" apart.
func readReply(s string) envelope.Reply {
	r := envelope.Reply{Text: s}
	if code, rest, _ := strings.Cut(r.Text, " "); len(code) == 3 && code[0] >= '2' && code[0] <= '5' {
		if n, err := strconv.Atoi(code); err == nil {
			r.Code, r.Text = n, rest
		}
	}
	if status, rest, _ := strings.Cut(r.Text, " "); isStatus(status) {
		r.Enhanced, r.Text = status, rest
	}
	return r
}

// value drops the type of "type; value".
func value(s string) string {
	if _, v, ok := strings.Cut(s, ";"); ok {
		return clean(v, maxField)
	}
	return ""
}

func when(s string) time.Time {
	t, _ := mail.ParseDate(s)
	return t
}

// fields are the fields of a header or a group, unfolded, by name in lower case. Of several with one name the first counts.
type fields map[string]string

// readFields reads up to an empty line. Lines before it that are no field are passed over, as are empty lines in front.
func readFields(in *bufio.Reader) fields {
	f := fields{}
	last := ""
	for n := 0; n < maxFields; n++ {
		line, err := in.ReadString('\n')
		text := strings.TrimRight(line, "\r\n \t")
		switch {
		case text == "" && len(f) > 0:
			return f
		case text == "":
		case line[0] == ' ' || line[0] == '\t':
			if last != "" && len(f[last]) < maxField {
				f[last] += " " + strings.TrimSpace(text)
			}
		default:
			last = f.add(text)
		}
		if err != nil {
			return f
		}
	}
	return f
}

// add takes a line that begins a field, and returns the field's name; empty when what continues it is to be passed over.
func (f fields) add(line string) string {
	name, value, ok := strings.Cut(line, ":")
	name = strings.ToLower(strings.TrimRight(name, " \t"))
	if _, known := f[name]; !ok || known || strings.ContainsAny(name, " \t") {
		return ""
	}
	f[name] = strings.TrimSpace(value)
	return name
}
