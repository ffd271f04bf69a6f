package imapd

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
)

// A messageURL names octets of a message here (RFC 5092, 6 and 7.1): those of a section, or some of them.
type messageURL struct {
	mailbox  string // "" is the selected one
	validity uint32 // UIDVALIDITY; 0 when it was not said
	uid      mailbox.UID
	section  wire.Section // with its Cut, for ";PARTIAL="
}

// parseURL reads a URL relative to this server, "/mailbox;UIDVALIDITY=1/;UID=2/;SECTION=3.MIME/;PARTIAL=0.10", or
// relative to the selected mailbox, ";UID=2" (RFC 4469, 2; RFC 5092, 7). One with a server's name is another server's for us.
func parseURL(s string) (u messageURL, ok bool) {
	path, rest, found := cutFold(s, ";UID=")
	if !found {
		return u, false
	}
	if u.mailbox, u.validity, ok = parseMailboxPath(path); !ok {
		return u, false
	}
	uid, rest, _ := strings.Cut(rest, "/")
	n, ok := parseNumber(uid, math.MaxUint32)
	u.uid = mailbox.UID(n)
	for ok && n > 0 && rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		ok = u.parsePart(part)
	}
	return u, ok && n > 0
}

// parseMailboxPath reads "/mailbox;UIDVALIDITY=1/", "/mailbox/", "/" or nothing.
func parseMailboxPath(path string) (name string, validity uint32, ok bool) {
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		return "", 0, true
	}
	path, absolute := strings.CutPrefix(path, "/")
	encoded, number, given := cutFold(path, ";UIDVALIDITY=")
	n := uint64(1)
	if given {
		n, ok = parseNumber(number, math.MaxUint32)
		validity = uint32(n)
		if !ok {
			return "", 0, false
		}
	}
	name, err := url.PathUnescape(encoded)
	return name, validity, absolute && err == nil && n > 0 && name != "" && !strings.Contains(encoded, ";")
}

func (u *messageURL) parsePart(part string) bool {
	if text, ok := cutPrefixFold(part, ";SECTION="); ok {
		text, err := url.PathUnescape(text)
		return err == nil && parseSection(&u.section, text)
	}
	if text, ok := cutPrefixFold(part, ";PARTIAL="); ok {
		return parsePartial(&u.section, text)
	}
	return false
}

// parseSection reads a section as BODY[] has it, but for lists of header fields in quotes.
func parseSection(sec *wire.Section, text string) bool {
	for text != "" && text[0] >= '0' && text[0] <= '9' {
		number, rest, _ := strings.Cut(text, ".")
		n, ok := parseNumber(number, math.MaxInt32)
		if !ok || n == 0 || len(sec.Part) == 100 {
			return false
		}
		sec.Part, text = append(sec.Part, int(n)), rest
	}
	word, list, fields := strings.Cut(strings.ToUpper(text), " ")
	switch word {
	case "":
		return len(sec.Part) > 0 && !fields
	case "HEADER":
		sec.Text = wire.SectionHeader
	case "TEXT":
		sec.Text = wire.SectionTextPart
	case "MIME":
		sec.Text = wire.SectionMIME
		return len(sec.Part) > 0 && !fields
	case "HEADER.FIELDS":
		sec.Text = wire.SectionFields
	case "HEADER.FIELDS.NOT":
		sec.Text = wire.SectionFieldsNot
	default:
		return false
	}
	wants := sec.Text == wire.SectionFields || sec.Text == wire.SectionFieldsNot
	if wants && strings.HasPrefix(list, "(") && strings.HasSuffix(list, ")") {
		sec.Fields = strings.Fields(list[1 : len(list)-1])
	}
	return wants == fields && wants == (len(sec.Fields) > 0)
}

// parsePartial reads "from.count", or "from" for all from there on (RFC 5092, 7.1; RFC 5550, 4.4).
func parsePartial(sec *wire.Section, text string) bool {
	first, count, both := strings.Cut(text, ".")
	from, ok := parseNumber(first, math.MaxInt64)
	sec.Cut, sec.From, sec.Count = true, int64(from), math.MaxInt64-int64(from)
	if both && ok {
		var n uint64
		n, ok = parseNumber(count, math.MaxInt64)
		sec.Count = min(int64(n), sec.Count)
		ok = ok && n > 0
	}
	return ok
}

func parseNumber(s string, most uint64) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n <= most && s[0] != '+'
}

func cutFold(s, sep string) (before, after string, found bool) {
	i := strings.Index(strings.ToUpper(s), sep)
	if i < 0 || len(strings.ToUpper(s)) != len(s) {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// badURL is the answer to a URL that does not lead to octets that the client may read (RFC 4469, 4).
func badURL(u string) error {
	shown := strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f || r == ']' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, u)
	const most = 500
	return no(fmt.Sprintf("BADURL %q", shown[:min(len(shown), most)]), "this URL leads to no message or part here")
}

// paste adds the octets that a URL names.
func (a *arrival) paste(text string) error {
	u, ok := parseURL(text)
	if !ok {
		return badURL(text)
	}
	mb, err := a.in.urlMailbox(&u)
	if errors.Is(err, mailbox.ErrNotFound) || errors.Is(err, mailbox.ErrRights) {
		return badURL(text)
	}
	if err != nil {
		return err
	}
	for item, err := range a.in.srv.Mailboxes.Read(mb.ID, roaring.BitmapOf(u.uid), mailbox.Notes|mailbox.Bodies) {
		if err == nil {
			err = item.Err
		}
		if err == nil {
			err = item.Body.Verify()
		}
		if err != nil {
			return err
		}
		return a.pasteFrom(item, &u, text)
	}
	return badURL(text)
}

// urlMailbox is the mailbox that a URL names, if the client may read it and it is the one that is meant.
func (s *session) urlMailbox(u *messageURL) (mb mailbox.Mailbox, err error) {
	switch {
	case u.mailbox != "":
		mb, err = s.access.Mailbox(u.mailbox, mailbox.RightRead)
	case s.sel != nil && !s.sel.gone:
		mb, err = s.access.Check(s.sel.id, mailbox.RightRead)
	default:
		err = mailbox.ErrNotFound
	}
	if err == nil && u.validity != 0 && u.validity != mb.UIDValidity {
		err = mailbox.ErrNotFound
	}
	return mb, err
}

// pasteFrom adds the octets of a section of a message.
func (a *arrival) pasteFrom(item *mailbox.Item, u *messageURL, text string) error {
	sec := section{&u.section}
	root, err := item.Stored.Root()
	if err != nil {
		return err
	}
	span, ok := (&source{item: item, root: root}).span(sec)
	if !ok {
		return badURL(text)
	}
	var r io.ReaderAt = item.Body
	if sec.isFields() {
		fields, err := pickFields(item.Body, span, sec)
		if err != nil {
			return err
		}
		r, span = strings.NewReader(fields), mime.Span{Len: int64(len(fields))}
	}
	off, size := sec.cut(span.Len)
	if err := a.in.fits(a.draft.Size(), size); err != nil {
		return err
	}
	_, err = a.take(io.NewSectionReader(r, span.Off+off, size), size)
	if lost, ok := errors.AsType[lostError](err); ok {
		err = lost.error // it is the disk's, and not the connection's
	}
	return err
}

// maxPickedHeader is as much of a header as fields are picked from.
const maxPickedHeader = 1 << 20

func pickFields(b *store.Body, span mime.Span, sec section) (string, error) {
	header := make([]byte, min(span.Len, maxPickedHeader))
	if n, err := b.ReadAt(header, span.Off); n < len(header) {
		return "", err
	}
	return string(mime.AppendFields(nil, header, sec.Fields, sec.Text == wire.SectionFieldsNot)), nil
}
