package imapd

import (
	"context"
	"fmt"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// sortCriteria are the criteria of SORT (RFC 5256, 3; RFC 5957, 4; RFC 6203, 5).
var sortCriteria = map[string]mailbox.SortBy{
	"ARRIVAL": mailbox.ByArrival, "CC": mailbox.ByCc, "DATE": mailbox.ByDate, "FROM": mailbox.ByFrom,
	"SIZE": mailbox.BySize, "SUBJECT": mailbox.BySubject, "TO": mailbox.ByTo,
	"DISPLAYFROM": mailbox.ByDisplayFrom, "DISPLAYTO": mailbox.ByDisplayTo, "RELEVANCY": mailbox.ByRelevancy,
}

// sort is SORT and UID SORT (RFC 5256, 3), with RETURN as RFC 5267 has it.
func (s *session) sort(c *wire.Sort) reply {
	if r := s.mayWatch(c.Return); r != (reply{}) {
		return r
	}
	f, err := s.find(c.Charset, &c.Key, c.UID)
	if err == nil {
		f.keys = sortKeys(c.By)
		err = f.sort()
	}
	if err == nil {
		f.tells(c.Return)
		code := f.limit()
		if err = f.save(); err == nil {
			err = f.tell("SORT")
		}
		if err == nil {
			s.watch(f, c.Charset, &c.Key)
			return ok(code, "")
		}
	}
	return s.searchFailed(c.Return, err)
}

func sortKeys(by []wire.SortKey) []mailbox.SortKey {
	keys := make([]mailbox.SortKey, len(by))
	for i, k := range by {
		keys[i] = mailbox.SortKey{By: sortCriteria[k.Name], Reverse: k.Reverse}
	}
	return keys
}

// sort puts what was found in order.
func (f *finding) sort() error {
	f.order = []mailbox.UID{}
	if f.count() == 0 {
		return nil // nothing, and not all
	}
	return f.during(func(ctx context.Context) error {
		order, err := f.srv.Mailboxes.Sort(ctx, f.box.ID, f.found, f.keys, f.ranks)
		f.order = append(f.order, order...)
		return err
	})
}

// partialRange writes a range of results as the client wrote it.
func partialRange(p *wire.Partial) string { return fmt.Sprintf("%d:%d", p.From, p.To) }
