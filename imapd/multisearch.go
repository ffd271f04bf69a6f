package imapd

import (
	"errors"
	"slices"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// multiSearch is ESEARCH (RFC 7377): one search of several mailboxes, each of which has its own response if something
// was found in it.
func (s *session) multiSearch(c *wire.Search) reply {
	if r := s.mayMultiSearch(c); r != (reply{}) {
		return r
	}
	boxes, err := s.sources(c.In.Filters)
	if err != nil {
		return s.searchFailed(c.Return, err)
	}
	code := ""
	for _, box := range boxes {
		more, err := s.searchIn(c, box)
		if err != nil {
			return s.searchFailed(c.Return, err)
		}
		if more != "" {
			code = more
		}
	}
	if c.Return.Update {
		s.out.Raw("* NO [NOUPDATE ").Quoted(s.tag).Raw("] results of ESEARCH are not kept up to date").CRLF()
	}
	return ok(code, "")
}

// mayMultiSearch refuses what needs the selected mailbox and has another or none (RFC 7377, 2.2).
func (s *session) mayMultiSearch(c *wire.Search) reply {
	others := slices.ContainsFunc(c.In.Filters, func(f wire.Filter) bool { return !ofSelected(f) })
	switch {
	case slices.ContainsFunc(c.In.Filters, func(f wire.Filter) bool { return f.Kind == wire.FilterSelectedDelayed }):
		return bad(codeClientBug, "SELECTED-DELAYED is for NOTIFY")
	case s.sel == nil && (c.Return.Update || slices.ContainsFunc(c.In.Filters, ofSelected)):
		return bad(codeClientBug, "no mailbox is selected")
	case c.Return.Save && others:
		return bad(codeClientBug, "SAVE is for searches of the selected mailbox only")
	}
	return reply{}
}

func ofSelected(f wire.Filter) bool { return f.Kind == wire.FilterSelected }

// searchIn searches one mailbox. One that was removed meanwhile has nothing in it.
func (s *session) searchIn(c *wire.Search, box mailbox.Mailbox) (code string, err error) {
	reader, err := s.newSearchKeys(c.Charset)
	if err != nil {
		return "", err
	}
	f := &finding{session: s, uid: true, box: box}
	reader.other = !s.isSelected(box.ID)
	if reader.other {
		err = f.search(reader, &c.Key, nil)
	} else {
		err = f.search(reader, &c.Key, s.known())
	}
	if errors.Is(err, mailbox.ErrNotFound) && reader.other {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	f.tells(c.Return)
	code = f.limit()
	f.selected = !reader.other
	if err := f.save(); err != nil || f.count() == 0 {
		return code, err
	}
	f.selected = false // the response says which mailbox, also of the selected one
	return code, f.tell("")
}

// sources are the mailboxes that filters name and that the client may read, each once (RFC 5465, 6; RFC 7377, 2.2).
// Names that lead to none are passed over.
func (s *session) sources(filters []wire.Filter) ([]mailbox.Mailbox, error) {
	list, err := s.access.List()
	if err != nil {
		return nil, err
	}
	rules := make([]rule, len(filters))
	for i, f := range filters {
		rules[i].filter = wire.Filter{Kind: f.Kind, Names: s.cleanNames(f.Names)}
	}
	return slices.DeleteFunc(list, func(box mailbox.Mailbox) bool {
		names := func(r rule) bool {
			return r.covers(box.Name, box.Subscribed) || ofSelected(r.filter) && s.isSelected(box.ID)
		}
		return !box.Rights.Has(mailbox.RightRead) || !slices.ContainsFunc(rules, names)
	}), nil
}
