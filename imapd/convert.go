package imapd

import (
	"bytes"
	"math"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"postroad/internal/mailbox"
	"postroad/internal/mime"
)

// This file and its neighbours fetchitems.go and criteria.go are where the library's types become ours and the other way round.

// systemFlags are the flags that every mailbox has.
func systemFlags() []imap.Flag {
	return []imap.Flag{imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagSeen, imap.FlagDraft}
}

// mailboxFlags are the flags of a mailbox with these keywords.
func mailboxFlags(keywords []string) []imap.Flag { return toFlags(systemFlags(), keywords) }

// toFlags appends flags as the library has them.
func toFlags(out []imap.Flag, flags []string) []imap.Flag {
	for _, f := range flags {
		out = append(out, imap.Flag(f))
	}
	return out
}

func fromFlags(flags []imap.Flag) []string {
	var out []string
	for _, f := range flags {
		out = append(out, string(f))
	}
	return out
}

func storeOp(op imap.StoreFlagsOp) mailbox.FlagOp {
	switch op {
	case imap.StoreFlagsAdd:
		return mailbox.AddFlags
	case imap.StoreFlagsDel:
		return mailbox.RemoveFlags
	}
	return mailbox.SetFlags
}

// selectData is the answer to SELECT. A client that enabled IMAP4rev2 also gets the mailbox's LIST.
func (s *session) selectData(mb mailbox.Mailbox, keywords []string) *imap.SelectData {
	data := &imap.SelectData{
		Flags:       mailboxFlags(keywords),
		NumMessages: mb.Messages,
		UIDNext:     imap.UID(mb.UIDNext),
		UIDValidity: mb.UIDValidity,
	}
	data.PermanentFlags = append(mailboxFlags(keywords), imap.FlagWildcard)
	if s.sel.readOnly {
		data.PermanentFlags = nil
	}
	if s.conn.EnabledCaps().Has(imap.CapIMAP4rev2) {
		data.List = &imap.ListData{Delim: '/', Mailbox: mb.Name}
	}
	return data
}

// statusData counts a mailbox. The library picks what was asked for.
func (s *session) statusData(mb mailbox.Mailbox) *imap.StatusData {
	limit, recent := s.AppendLimit(), uint32(0)
	return &imap.StatusData{
		Mailbox:     mb.Name,
		NumMessages: &mb.Messages,
		NumRecent:   &recent,
		UIDNext:     imap.UID(mb.UIDNext),
		UIDValidity: mb.UIDValidity,
		NumUnseen:   &mb.Unseen,
		NumDeleted:  &mb.Deleted,
		Size:        &mb.Octets,
		AppendLimit: &limit,
	}
}

// listData is the answer of LIST for one name.
func (s *session) listData(n *node, c *choice) *imap.ListData {
	data := &imap.ListData{Delim: '/', Mailbox: n.name}
	switch {
	case c.lsub && !n.subscribed, c.lsub && n.mailbox == nil:
		data.Attrs = append(data.Attrs, imap.MailboxAttrNoSelect)
	case n.mailbox == nil:
		data.Attrs = append(data.Attrs, imap.MailboxAttrNonExistent)
	}
	if c.lsub {
		return data
	}
	if n.children {
		data.Attrs = append(data.Attrs, imap.MailboxAttrHasChildren)
	} else if n.mailbox != nil {
		data.Attrs = append(data.Attrs, imap.MailboxAttrHasNoChildren)
	}
	if n.subscribed && (c.options.SelectSubscribed || c.options.ReturnSubscribed) {
		data.Attrs = append(data.Attrs, imap.MailboxAttrSubscribed)
	}
	if c.standsFor(n) {
		data.ChildInfo = &imap.ListDataChildInfo{Subscribed: true}
	}
	if n.mailbox != nil {
		if n.mailbox.Role != "" {
			data.Attrs = append(data.Attrs, imap.MailboxAttr(n.mailbox.Role))
		}
		data.Status = s.statusData(*n.mailbox)
	}
	return data
}

// roleOf is the special use that CREATE asks for.
func roleOf(attrs []imap.MailboxAttr) (mailbox.Role, error) {
	if len(attrs) == 0 {
		return "", nil
	}
	role := mailbox.Role(attrs[0])
	switch role {
	case mailbox.Drafts, mailbox.Sent, mailbox.Junk, mailbox.Trash, mailbox.Archive:
		if len(attrs) == 1 {
			return role, nil
		}
	}
	return "", no("USEATTR", "a mailbox can have one of \\Drafts \\Sent \\Junk \\Trash \\Archive")
}

func copyData(to mailbox.Mailbox, pairs []mailbox.Pair) *imap.CopyData {
	from, into := roaring.New(), roaring.New()
	for _, p := range pairs {
		from.Add(p.From)
		into.Add(p.To)
	}
	return &imap.CopyData{UIDValidity: to.UIDValidity, SourceUIDs: uidSet(from), DestUIDs: uidSet(into)}
}

// searchData is the answer to SEARCH. The library picks what was asked for.
func searchData(kind imapserver.NumKind, found, known *roaring.Bitmap) *imap.SearchData {
	data := &imap.SearchData{Count: uint32(found.GetCardinality())}
	if kind == imapserver.NumKindUID {
		data.All = uidSet(found)
	} else {
		data.All = seqSet(found, known)
	}
	if found.IsEmpty() {
		return data
	}
	data.Min, data.Max = found.Minimum(), found.Maximum()
	if kind == imapserver.NumKindSeq {
		data.Min, data.Max = uint32(known.Rank(data.Min)), uint32(known.Rank(data.Max))
	}
	return data
}

// parsePlain reads a PLAIN response.
func parsePlain(response []byte) (id, user, password string, ok bool) {
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return "", "", "", false
	}
	return string(parts[0]), string(parts[1]), string(parts[2]), true
}

// toEnvelope gives the library an envelope so that it writes the header's own text, as far as it can.
func toEnvelope(e *mime.Envelope) *imap.Envelope {
	out := &imap.Envelope{
		Subject:   valid(e.Subject),
		From:      toAddresses(e.From),
		Sender:    toAddresses(e.Sender),
		ReplyTo:   toAddresses(e.ReplyTo),
		To:        toAddresses(e.To),
		Cc:        toAddresses(e.Cc),
		Bcc:       toAddresses(e.Bcc),
		MessageID: withoutAngles(e.MessageID),
	}
	if date, ok := mime.ParseDate(e.Date); ok && date.Year() > 0 && date.Year() < 10000 {
		out.Date = date
	}
	if ids := withoutAngles(e.InReplyTo); ids != "" {
		out.InReplyTo = []string{ids}
	}
	return out
}

func toAddresses(list []mime.Address) []imap.Address {
	var out []imap.Address
	for _, a := range list {
		out = append(out, imap.Address{Name: valid(a.Name), Mailbox: a.Mailbox, Host: a.Host})
	}
	return out
}

// valid makes UTF-8 of text that the library encodes.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// withoutAngles takes away the brackets that the library puts round a message id.
func withoutAngles(ids string) string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(ids), "<"), ">")
}

// toBodyStructure shows a part. Both forms of a part have their extension data; the library leaves it out for BODY.
func toBodyStructure(p *mime.Part) imap.BodyStructure {
	if p.Multipart() {
		m := &imap.BodyStructureMultiPart{Subtype: p.Subtype, Extended: &imap.BodyStructureMultiPartExt{
			Params:      toParams(p.Params),
			Disposition: toDisposition(p),
			Language:    p.Language,
			Location:    p.Location,
		}}
		for i := range p.Parts {
			m.Children = append(m.Children, toBodyStructure(&p.Parts[i]))
		}
		return m
	}
	return toSinglePart(p)
}

func toSinglePart(p *mime.Part) *imap.BodyStructureSinglePart {
	out := &imap.BodyStructureSinglePart{
		Type:        p.Type,
		Subtype:     p.Subtype,
		Params:      toParams(p.Params),
		ID:          p.ID,
		Description: p.Description,
		Encoding:    p.Encoding,
		Size:        uint32(min(p.Body.Len, math.MaxUint32)),
		Extended: &imap.BodyStructureSinglePartExt{
			Disposition: toDisposition(p),
			Language:    p.Language,
			Location:    p.Location,
		},
	}
	switch {
	case p.Message != nil:
		out.MessageRFC822 = &imap.BodyStructureMessageRFC822{
			Envelope:      toEnvelope(&p.Message.Envelope),
			BodyStructure: toBodyStructure(&p.Message.Root),
			NumLines:      p.Lines,
		}
	case p.Type == "text":
		out.Text = &imap.BodyStructureText{NumLines: p.Lines}
	}
	return out
}

// toParams leaves out what has no name, over which clients stumble.
func toParams(params []mime.Param) map[string]string {
	out := make(map[string]string, len(params))
	for _, p := range params {
		if p.Name != "" {
			out[p.Name] = p.Value
		}
	}
	return out
}

func toDisposition(p *mime.Part) *imap.BodyStructureDisposition {
	if p.Disposition == "" {
		return nil
	}
	return &imap.BodyStructureDisposition{Value: p.Disposition, Params: toParams(p.DispositionParams)}
}
