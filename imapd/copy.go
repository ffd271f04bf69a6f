package imapd

import (
	"context"
	"errors"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// copy is COPY: all or none (RFC 9051, 6.4.7).
func (s *session) copy(c *wire.Copy) reply {
	sel, err := s.selection()
	if err != nil {
		return s.refuse("copy messages", err)
	}
	code, err := s.transfer(c, sel, s.access.Copy)
	if err != nil {
		return s.refuse("copy messages", err)
	}
	return ok(code, "")
}

// move is MOVE (RFC 9051, 6.4.8; RFC 6851). The COPYUID comes before the messages are told to be gone.
func (s *session) move(c *wire.Copy) reply {
	sel, err := s.writable(mailbox.RightTrash | mailbox.RightExpunge)
	if err != nil {
		return s.refuse("move messages", err)
	}
	code, err := s.transfer(c, sel, s.access.Move)
	if code != "" {
		s.out.Raw("* OK [").Raw(code).Raw("] moved").CRLF()
	}
	if err != nil {
		return s.refuse("move messages", err)
	}
	return s.upToDate()
}

type way func(ctx context.Context, from mailbox.ID, uids *roaring.Bitmap, to mailbox.Mailbox) ([]mailbox.Pair, error)

// transfer copies or moves messages, and returns the COPYUID that tells of it, if there is anything to tell. What is more
// than one command may speak of is refused as a whole (RFC 9738, 3.1).
func (s *session) transfer(c *wire.Copy, sel *selected, do way) (code string, err error) {
	uids, err := s.resolve(c.Set, c.UID)
	if err != nil {
		return "", err
	}
	to, err := s.destination(c.Mailbox)
	if err != nil {
		return "", err
	}
	if _, limit := s.withinLimit(uids); limit != "" {
		return "", no(fmt.Sprintf("MESSAGELIMIT %d", s.srv.Limits.Messages), "too many messages for one command")
	}
	if uids.IsEmpty() {
		return "", nil
	}
	var pairs []mailbox.Pair
	err = s.during(func(ctx context.Context) (err error) {
		pairs, err = do(ctx, sel.id, uids, to)
		return err
	})
	if err == nil && len(pairs) == 0 && !c.UID {
		err = mailbox.ErrExpunged
	}
	return copied(to, pairs), err
}

// destination is a mailbox that messages are to be put into. When there is none such, the client may try to make one.
func (s *session) destination(name string) (mailbox.Mailbox, error) {
	to, err := s.access.Mailbox(name, mailbox.RightInsert)
	if errors.Is(err, mailbox.ErrNotFound) {
		r := s.refuse("find the mailbox", err)
		r.code = codeTryCreate
		err = r
	}
	return to, err
}

// copied is the COPYUID of messages (RFC 4315, 3), unless the client may not know UIDs of that mailbox (5).
func copied(to mailbox.Mailbox, pairs []mailbox.Pair) string {
	if len(pairs) == 0 || !to.Rights.Has(mailbox.RightRead) {
		return ""
	}
	from, into := roaring.New(), roaring.New()
	for _, p := range pairs {
		from.Add(p.From)
		into.Add(p.To)
	}
	return fmt.Sprintf("COPYUID %d %s %s", to.UIDValidity, setText(from), setText(into))
}
