package imapd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// getMetadata is GETMETADATA (RFC 5464, 4.2). An entry that was named and has no value is NIL.
func (s *session) getMetadata(c *wire.GetMetadata) reply {
	most := int64(-1)
	if c.MaxSize != nil {
		most = int64(*c.MaxSize)
	}
	notes, longest, err := s.access.Metadata(c.Mailbox, c.Entries, c.Depth, most)
	if err != nil {
		return s.refuseMetadata("read the annotations", err)
	}
	if c.Depth == 0 && longest == 0 {
		notes = withMissing(notes, c.Entries)
	}
	s.tellMetadata(c.Mailbox, notes)
	if longest > 0 {
		return ok(fmt.Sprintf("METADATA LONGENTRIES %d", longest), "")
	}
	return reply{}
}

// withMissing adds the entries that have no value.
func withMissing(notes []mailbox.Annotation, entries []string) []mailbox.Annotation {
	for _, e := range entries {
		same := func(n mailbox.Annotation) bool { return strings.EqualFold(n.Entry, e) }
		if !slices.ContainsFunc(notes, same) {
			notes = append(notes, mailbox.Annotation{Entry: e})
		}
	}
	return notes
}

// tellMetadata tells entries and values. A value that has a NUL is sent as binary.
func (s *session) tellMetadata(name string, notes []mailbox.Annotation) {
	if len(notes) == 0 {
		return
	}
	s.out.Raw("* METADATA ").Mailbox(name).SP().Begin()
	for _, n := range notes {
		s.out.AString(n.Entry)
		switch {
		case n.Value == nil:
			s.out.Nil()
		case slices.Contains(n.Value, 0):
			s.out.Literal8(int64(len(n.Value))).Write(n.Value)
		default:
			s.out.String(string(n.Value))
		}
	}
	s.out.End().CRLF()
}

// listMetadata tells the entries that LIST was asked for (RFC 9590).
func (s *session) listMetadata(n *node, entries []string) error {
	notes, _, err := s.access.Metadata(n.name, entries, 0, -1)
	if errors.Is(err, mailbox.ErrRights) || errors.Is(err, mailbox.ErrNotFound) {
		return nil
	}
	if err == nil {
		s.tellMetadata(n.name, withMissing(notes, entries))
	}
	return err
}

// setMetadata is SETMETADATA (RFC 5464, 4.3).
func (s *session) setMetadata(c *wire.SetMetadata) reply {
	notes := make([]mailbox.Annotation, len(c.Entries))
	for i, e := range c.Entries {
		notes[i] = mailbox.Annotation{Entry: e.Name, Value: e.Value}
	}
	return s.refuseMetadata("set the annotations", s.access.SetMetadata(c.Mailbox, notes))
}

// refuseMetadata is refuse with the response codes of RFC 5464, 4.3.
func (s *session) refuseMetadata(doing string, err error) reply {
	switch {
	case errors.Is(err, mailbox.ErrAnnotationSize):
		return no(fmt.Sprintf("METADATA MAXSIZE %d", mailbox.MaxAnnotation), "a value is too long")
	case errors.Is(err, mailbox.ErrAnnotationCount):
		return no("METADATA TOOMANY", "there are too many annotations already")
	case errors.Is(err, mailbox.ErrEntry):
		return no(codeCannot, "%v", err)
	}
	return s.refuse(doing, err)
}
