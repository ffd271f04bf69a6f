package imapd

import (
	"github.com/RoaringBitmap/roaring/v2"
	"github.com/emersion/go-imap/v2"

	"postroad/internal/mailbox"
)

// criterion is a search as the mailbox understands it: sequence numbers and "$" have become UIDs.
func (sel *selected) criterion(c *imap.SearchCriteria) (mailbox.Criterion, error) {
	out := mailbox.Criterion{
		Since: c.Since, Before: c.Before, SentSince: c.SentSince, SentBefore: c.SentBefore,
		Body: c.Body, Text: c.Text,
		Larger: positive(c.Larger), Smaller: positive(c.Smaller),
	}
	for _, h := range c.Header {
		out.Header = append(out.Header, mailbox.HeaderTest{Field: h.Key, Text: h.Value})
	}
	sel.flagTests(&out, c)
	if err := sel.setTests(&out, c); err != nil {
		return out, err
	}
	return out, sel.combinations(&out, c)
}

func positive(n int64) *int64 {
	if n <= 0 {
		return nil
	}
	return &n
}

// flagTests are about flags. No message is \Recent: that is for servers that keep it (RFC 9051, appendix E).
func (sel *selected) flagTests(out *mailbox.Criterion, c *imap.SearchCriteria) {
	for _, f := range c.Flag {
		if f == `\Recent` {
			out.UIDs = roaring.New()
			continue
		}
		out.Has = append(out.Has, string(f))
	}
	for _, f := range c.NotFlag {
		if f != `\Recent` {
			out.HasNot = append(out.HasNot, string(f))
		}
	}
}

// setTests are about which messages.
func (sel *selected) setTests(out *mailbox.Criterion, c *imap.SearchCriteria) error {
	narrow := func(set imap.NumSet) error {
		uids, err := sel.resolve(set, false)
		if err == nil && out.UIDs != nil {
			uids.And(out.UIDs)
		}
		out.UIDs = uids
		return err
	}
	for _, set := range c.SeqNum {
		if err := narrow(set); err != nil {
			return err
		}
	}
	for _, set := range c.UID {
		if err := narrow(set); err != nil {
			return err
		}
	}
	return nil
}

// combinations are NOT and OR.
func (sel *selected) combinations(out *mailbox.Criterion, c *imap.SearchCriteria) error {
	for i := range c.Not {
		not, err := sel.criterion(&c.Not[i])
		if err != nil {
			return err
		}
		out.And = append(out.And, mailbox.Criterion{Not: &not})
	}
	for i := range c.Or {
		one, err := sel.criterion(&c.Or[i][0])
		if err != nil {
			return err
		}
		other, err := sel.criterion(&c.Or[i][1])
		if err != nil {
			return err
		}
		out.And = append(out.And, mailbox.Criterion{Or: []mailbox.Criterion{one, other}})
	}
	return nil
}
