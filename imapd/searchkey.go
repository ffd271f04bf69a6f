package imapd

import (
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
	"postroad/internal/mime"
)

// badCharset refuses a charset, with the ones that are likely to be of use (RFC 9051, 7.1).
func badCharset() reply {
	return no("BADCHARSET (US-ASCII UTF-8)", "texts in that charset cannot be searched for; use UTF-8")
}

// A searchKeys makes a mailbox.Criterion of search keys.
type searchKeys struct {
	*session
	charset string
	other   bool // of a mailbox that need not be the selected one: numbers and "$" mean nothing there

	modSeq bool // there was a MODSEQ key (RFC 7162, 3.1.5)
	fixed  bool // there were keys whose meaning ends with the command: numbers, "$", RECENT, and times seen from now
}

// newSearchKeys begins to read search keys whose texts are in a charset; "" is UTF-8, of which US-ASCII is part.
func (s *session) newSearchKeys(charset string) (*searchKeys, error) {
	if _, known := mime.ToUTF8(charset, ""); charset != "" && !known {
		return nil, badCharset()
	}
	return &searchKeys{session: s, charset: charset}, nil
}

// of makes a criterion of a key.
func (c *searchKeys) of(k *wire.SearchKey) (mailbox.Criterion, error) {
	switch k.Op {
	case wire.SearchAnd:
		and, err := c.each(k.Keys, k.Fuzzy)
		return mailbox.Criterion{And: and}, err
	case wire.SearchOr:
		or, err := c.each(k.Keys, k.Fuzzy)
		return mailbox.Criterion{Or: or}, err
	case wire.SearchNot:
		not, err := c.each(k.Keys, k.Fuzzy)
		if err != nil {
			return mailbox.Criterion{}, err
		}
		return mailbox.Criterion{Not: &not[0]}, nil
	case wire.SearchSeq, wire.SearchUID:
		uids, err := c.set(k)
		return mailbox.Criterion{UIDs: uids}, err
	case wire.SearchRecent:
		c.fixed = true
		return mailbox.Criterion{UIDs: c.recentSet()}, nil
	}
	return c.leaf(k)
}

// each makes criteria of keys. What is fuzzy makes all within it so (RFC 6203, 3).
func (c *searchKeys) each(keys []wire.SearchKey, fuzzy bool) ([]mailbox.Criterion, error) {
	list := make([]mailbox.Criterion, len(keys))
	for i := range keys {
		k := keys[i]
		k.Fuzzy = k.Fuzzy || fuzzy
		var err error
		if list[i], err = c.of(&k); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// set is the messages of a set of numbers or UIDs.
func (c *searchKeys) set(k *wire.SearchKey) (*roaring.Bitmap, error) {
	uid := k.Op == wire.SearchUID
	if !uid || k.Set.Saved {
		c.fixed = true
	}
	if !c.other && !uid {
		return c.resolve(c.present(k.Set), k.Set.Saved) // "$" is no number
	}
	if !c.other {
		return c.resolve(k.Set, true)
	}
	if !uid || k.Set.Saved {
		return nil, bad(codeClientBug, "message numbers and $ are of the selected mailbox only")
	}
	const highest = ^uint32(0)
	uids := roaring.New()
	for _, r := range k.Set.Ranges {
		from, to := bounds(r, highest)
		uids.AddRange(uint64(from), uint64(to)+1)
	}
	return uids, nil
}

// present leaves of a set the numbers that messages have. To look for others is no error: there are none.
func (c *searchKeys) present(set wire.Set) wire.Set {
	count := uint32(c.known().GetCardinality())
	out := wire.Set{Saved: set.Saved}
	for _, r := range set.Ranges {
		if r.From != 0 && r.To != 0 {
			if r.From, r.To = bounds(r, 0); r.From > count {
				continue
			}
			r.To = min(r.To, count)
		}
		out.Ranges = append(out.Ranges, r)
	}
	return out
}

// recentSet is the messages that are \Recent to the client.
func (c *searchKeys) recentSet() *roaring.Bitmap {
	if c.other {
		return roaring.New()
	}
	return c.recent()
}

// leaf makes a criterion of a key that has no others in it.
func (c *searchKeys) leaf(k *wire.SearchKey) (mailbox.Criterion, error) {
	out := mailbox.Criterion{Fuzzy: k.Fuzzy}
	text, known := mime.ToUTF8(c.charset, k.Text)
	if !known {
		return out, badCharset()
	}
	next := k.Date.AddDate(0, 0, 1)
	switch k.Op {
	case wire.SearchFlag, wire.SearchKeyword:
		out.Has = []string{k.Text}
	case wire.SearchBefore:
		out.Before = k.Date
	case wire.SearchOn:
		out.Since, out.Before = k.Date, next
	case wire.SearchSince:
		out.Since = k.Date
	case wire.SearchSentBefore:
		out.SentBefore = k.Date
	case wire.SearchSentOn:
		out.SentSince, out.SentBefore = k.Date, next
	case wire.SearchSentSince:
		out.SentSince = k.Date
	case wire.SearchSavedBefore:
		out.SavedBefore = k.Date
	case wire.SearchSavedOn:
		out.SavedSince, out.SavedBefore = k.Date, next
	case wire.SearchSavedSince:
		out.SavedSince = k.Date
	case wire.SearchSaveDateSupported: // it is, of every message
	case wire.SearchHeader:
		out.Header = []mailbox.HeaderTest{{Field: strings.TrimSpace(k.Field), Text: text}}
	case wire.SearchEnvelope:
		out.Envelope = []mailbox.HeaderTest{{Field: k.Field, Text: text}}
	case wire.SearchBody:
		out.Body = []string{text}
	case wire.SearchText:
		out.Text = []string{text}
	case wire.SearchLarger:
		out.Larger = octets(k.Number)
	case wire.SearchSmaller:
		out.Smaller = octets(k.Number)
	case wire.SearchOlder:
		c.fixed, out.Older = true, seconds(k.Number)
	case wire.SearchYounger:
		c.fixed, out.Younger = true, seconds(k.Number)
	case wire.SearchModSeq:
		c.modSeq, out.ModSeq = true, k.Number
	case wire.SearchEmailID:
		out.EmailID = text
	case wire.SearchThreadID:
		out.ThreadID = text
	}
	return out, nil
}

func octets(n uint64) *int64 {
	v := int64(min(n, 1<<62))
	return &v
}

func seconds(n uint64) *time.Duration {
	d := time.Duration(n) * time.Second
	return &d
}
