package imapd

import (
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

const (
	// maxContexts bounds the searches of a session whose results are kept up to date.
	maxContexts = 16
	// maxSortedContext bounds the results of a SORT that is kept up to date: it is sorted again for what is new.
	maxSortedContext = 20_000
)

// A searchContext is a search whose client is told when its result changes (RFC 5267, 4).
type searchContext struct {
	tag     string
	charset string
	key     wire.SearchKey
	uid     bool
	fetch   []wire.FetchItem // of new messages
	found   *roaring.Bitmap
	keys    []mailbox.SortKey // of a SORT
	order   []mailbox.UID     // likewise; nil for a SEARCH
}

// watch keeps the result of a search up to date, if that is wanted. One that would mean something else later cannot
// be (RFC 5267, 4.2), nor can there be any number of them.
func (s *session) watch(f *finding, charset string, key *wire.SearchKey) {
	if f.ret == nil || !f.ret.Update {
		return
	}
	sel := s.sel
	if f.fixed || slices.ContainsFunc(f.keys, byRelevancy) || len(sel.contexts) >= maxContexts || len(f.order) > maxSortedContext {
		s.out.Raw("* NO [NOUPDATE ").Quoted(s.tag).Raw("] this result is not kept up to date").CRLF()
		return
	}
	sel.contexts = append(sel.contexts, &searchContext{
		tag: s.tag, charset: charset, key: *key, uid: f.uid, fetch: f.ret.Fetch, found: f.found.Clone(), keys: f.keys, order: f.order,
	})
}

// mayWatch refuses the tag of a search whose result is kept up to date to another such (RFC 5267, 4.3).
func (s *session) mayWatch(ret *wire.SearchReturn) reply {
	if ret == nil || !ret.Update || s.sel == nil {
		return reply{}
	}
	if slices.ContainsFunc(s.sel.contexts, func(c *searchContext) bool { return c.tag == s.tag }) {
		return bad(codeClientBug, "a search with this tag is kept up to date already")
	}
	return reply{}
}

// byRelevancy is an order that is known of one search only: how well messages fit is not asked again.
func byRelevancy(k mailbox.SortKey) bool { return k.By == mailbox.ByRelevancy }

func (sel *selected) cancelUpdates(tags ...string) {
	sel.contexts = slices.DeleteFunc(sel.contexts, func(c *searchContext) bool { return slices.Contains(tags, c.tag) })
}

// cancelUpdate is CANCELUPDATE (RFC 5267, 4.4).
func (s *session) cancelUpdate(c *wire.CancelUpdate) reply {
	s.sel.cancelUpdates(c.Tags...)
	return reply{}
}

// tellRemoved tells which expunged messages leave results, by the numbers that they had before.
func (s *session) tellRemoved(expunged, before *roaring.Bitmap) {
	for _, c := range s.sel.contexts {
		s.tellLeft(c, roaring.And(c.found, expunged), before)
	}
}

// noteUpdates adds messages of which it is to be told whether they enter results or leave them.
func (sel *selected) noteUpdates(came, changed *roaring.Bitmap) {
	if len(sel.contexts) == 0 {
		return
	}
	if sel.moved == nil {
		sel.moved, sel.came = roaring.New(), roaring.New()
	}
	sel.moved.Or(came)
	sel.moved.Or(changed)
	sel.came.Or(came)
}

// tellUpdates tells which of the messages that are new or changed enter results, and which leave them. Their flags were
// told before (RFC 5465, 5.1).
func (s *session) tellUpdates() error {
	if s.sel.moved == nil || s.sel.moved.IsEmpty() {
		return nil
	}
	for _, c := range s.sel.contexts {
		if err := s.tellUpdate(c, s.sel.moved); err != nil {
			return err
		}
	}
	s.sel.moved, s.sel.came = nil, nil
	return nil
}

func (s *session) tellUpdate(c *searchContext, changed *roaring.Bitmap) error {
	reader, err := s.newSearchKeys(c.charset)
	if err != nil {
		return err
	}
	criterion, err := reader.of(&c.key)
	if err != nil {
		return err
	}
	now, err := s.srv.Mailboxes.Search(s.ctx, s.sel.id, changed, criterion)
	if err != nil {
		return err
	}
	now.And(s.known())
	left := roaring.And(c.found, changed)
	left.AndNot(now)
	now.AndNot(c.found)
	s.tellLeft(c, left, s.known())
	if err := s.fetchNew(roaring.And(now, s.sel.came), c.fetch); err != nil {
		return err
	}
	return s.tellEntered(c, now)
}

// tellLeft tells that messages have left a result (RFC 5267, 4.3.2). Of a SORT the last are told first, so that the
// positions of the others stay as they are.
func (s *session) tellLeft(c *searchContext, left, known *roaring.Bitmap) {
	if left.IsEmpty() {
		return
	}
	c.found.AndNot(left)
	s.beginUpdate(c, "REMOVEFROM")
	if c.keys == nil {
		s.out.Number(0)
		c.set(s, left, known)
	}
	for i, uid := range slices.Backward(c.order) {
		if left.Contains(uid) {
			s.out.Number(uint64(i + 1))
			c.set(s, roaring.BitmapOf(uid), known)
		}
	}
	c.order = slices.DeleteFunc(c.order, left.Contains)
	s.out.End().CRLF()
}

// tellEntered tells that messages have entered a result (RFC 5267, 4.3.1). Of a SORT the first are told first, so that
// each is put in the place that it has in the end.
func (s *session) tellEntered(c *searchContext, entered *roaring.Bitmap) error {
	if entered.IsEmpty() {
		return nil
	}
	c.found.Or(entered)
	if c.keys != nil {
		order, err := s.srv.Mailboxes.Sort(s.ctx, s.sel.id, c.found, c.keys, nil)
		if err != nil {
			return err
		}
		c.order = order
	}
	s.beginUpdate(c, "ADDTO")
	if c.keys == nil {
		s.out.Number(0)
		c.set(s, entered, s.known())
	}
	for i, uid := range c.order {
		if entered.Contains(uid) {
			s.out.Number(uint64(i + 1))
			c.set(s, roaring.BitmapOf(uid), s.known())
		}
	}
	s.out.End().CRLF()
	return nil
}

func (s *session) beginUpdate(c *searchContext, what string) {
	s.out.Raw("* ESEARCH ").Begin().Atom("TAG").Quoted(c.tag).End()
	if c.uid {
		s.out.Atom("UID")
	}
	s.out.Atom(what).Begin()
}

// set writes messages as the client knows them.
func (c *searchContext) set(s *session, uids, known *roaring.Bitmap) {
	if !c.uid {
		uids = numbersOf(uids, known)
	}
	s.out.Set(uids)
}
