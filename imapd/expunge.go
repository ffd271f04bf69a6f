package imapd

import (
	"context"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// expunge is EXPUNGE (RFC 9051, 6.4.3) and UID EXPUNGE (6.4.9). What is gone is told as everything is.
func (s *session) expunge(c *wire.Expunge) reply {
	sel, err := s.writable(mailbox.RightExpunge)
	if err != nil {
		return s.refuse("expunge messages", err)
	}
	var uids *roaring.Bitmap
	limit := ""
	if c.UID {
		if uids, err = s.resolve(c.Set, true); err != nil {
			return s.refuse("expunge messages", err)
		}
		uids, limit = s.withinLimit(uids)
	}
	err = s.during(func(ctx context.Context) error {
		_, err := s.access.Expunge(ctx, sel.id, uids)
		return err
	})
	if err != nil {
		return s.refuse("expunge messages", err)
	}
	if limit != "" {
		return ok(limit, "")
	}
	return s.upToDate()
}

// upToDate tells what happened, expunges too, and is an OK with the modseq up to which a client that follows it has
// heard everything (RFC 7162, 3.1.2.2 and 3.2.7).
func (s *session) upToDate() reply {
	if s.tell(true); s.sel == nil || !s.enabled.has(condStore) {
		return reply{}
	}
	return ok(fmt.Sprintf("HIGHESTMODSEQ %d", s.sel.view.Told()), "")
}
