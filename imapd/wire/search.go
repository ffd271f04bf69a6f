package wire

import (
	"math"
	"strings"
)

// search = "SEARCH" [SP search-return-opts] SP [charset SP] search-key *(SP search-key) (RFC 9051, 6.4.4)
func (d *Decoder) search() any {
	d.space()
	s := &Search{UID: d.uid, Return: d.searchReturn()}
	d.program(s)
	return s
}

// esearch = "ESEARCH" [SP esearch-source-opts] [SP search-return-opts] SP search-program (RFC 7377, 3). Without a
// source it searches the selected mailbox. It always tells UIDs.
func (d *Decoder) esearch() any {
	d.space()
	s := &Search{UID: true, In: &Sources{Filters: []Filter{{Kind: FilterSelected}}}}
	if d.word("IN") {
		d.space()
		s.In.Filters = d.sources()
		d.space()
	}
	if s.Return = d.searchReturn(); s.Return == nil {
		s.Return = &SearchReturn{All: true}
	}
	d.program(s)
	return s
}

// sources = "(" filter-mailboxes *(SP filter-mailboxes) [SP "(" scope-options ")"] ")"; no scope option exists
func (d *Decoder) sources() (filters []Filter) {
	d.some("mailboxes", func() {
		if d.peek() == '(' {
			d.fail("", "unknown scope options")
		}
		filters = append(filters, d.filter())
	})
	return filters
}

func (d *Decoder) program(s *Search) {
	if d.word("CHARSET") {
		d.space()
		s.Charset = d.astring("a charset")
		d.space()
	}
	s.Key = d.searchKeys()
}

// sort = "SORT" [SP search-return-opts] SP "(" sort-criterion *(SP sort-criterion) ")" SP charset 1*(SP search-key)
// (RFC 5256, 5; RFC 5267, 3)
func (d *Decoder) sort() any {
	d.space()
	s := &Sort{UID: d.uid, Return: d.searchReturn()}
	d.some("criteria", func() { s.By = append(s.By, d.sortKey()) })
	d.space()
	s.Charset = d.astring("a charset")
	d.space()
	s.Key = d.searchKeys()
	return s
}

// sort-criterion (RFC 5256, 5; RFC 5957; RFC 6203, 4)
func (d *Decoder) sortKey() (k SortKey) {
	if d.word("REVERSE") {
		k.Reverse = true
		d.space()
	}
	from := d.pos
	switch name := d.keyword("a criterion"); string(name) {
	case "ARRIVAL", "CC", "DATE", "FROM", "SIZE", "SUBJECT", "TO", "DISPLAYFROM", "DISPLAYTO", "RELEVANCY":
		k.Name = string(name)
	default:
		d.pos = from
		d.want("a criterion of SORT")
	}
	return k
}

// thread = "THREAD" SP thread-alg SP charset 1*(SP search-key) (RFC 5256, 5)
func (d *Decoder) thread() any {
	d.space()
	t := &Thread{UID: d.uid, Algorithm: d.capital("an algorithm")}
	d.space()
	t.Charset = d.astring("a charset")
	d.space()
	t.Key = d.searchKeys()
	return t
}

// cancelUpdate = "CANCELUPDATE" 1*(SP quoted) (RFC 5267, 6)
func (d *Decoder) cancelUpdate() any {
	d.space()
	c := &CancelUpdate{}
	for more := true; more; more = d.optional() {
		d.count()
		c.Tags = append(c.Tags, d.astring("the tag of a search"))
	}
	return c
}

// searchReturn = "RETURN" SP "(" [search-return-opt *(SP search-return-opt)] ")" and the space after it; nil without.
// With nothing in it, it is ALL (RFC 9051, 6.4.4).
func (d *Decoder) searchReturn() *SearchReturn {
	if !d.word("RETURN") {
		return nil
	}
	d.space()
	r, some := &SearchReturn{}, false
	d.list(func() {
		some = true
		d.searchReturnOption(r)
	})
	r.All = r.All || !some
	if r.All && r.Partial != nil {
		d.fail("", "RETURN with both ALL and PARTIAL")
	}
	d.space()
	return r
}

func (d *Decoder) searchReturnOption(r *SearchReturn) {
	switch {
	case d.word("MIN"):
		r.Min = true
	case d.word("MAX"):
		r.Max = true
	case d.word("ALL"):
		r.All = true
	case d.word("COUNT"):
		r.Count = true
	case d.word("SAVE"):
		r.Save = true
	case d.word("RELEVANCY"):
		r.Relevancy = true
	case d.word("UPDATE"):
		r.Update = true
		if d.beforeList() {
			r.Fetch = d.fetchItems()
		}
	case d.word("CONTEXT"):
		r.Context = true
	case r.Partial == nil && d.word("PARTIAL"):
		d.space()
		r.Partial = d.partial()
	default:
		d.want("MIN, MAX, ALL, COUNT, SAVE, PARTIAL, UPDATE, CONTEXT or RELEVANCY, each once")
	}
}

// partial = nz-number ":" nz-number, or both with "-" in front (RFC 9394, 4)
func (d *Decoder) partial() *Partial {
	first, back := d.partialNumber()
	d.expect(':')
	last, back2 := d.partialNumber()
	if back != back2 {
		d.fail("", "a range counts from one end")
	}
	if back {
		first, last = -first, -last
	}
	return &Partial{first, last}
}

func (d *Decoder) partialNumber() (n int64, back bool) {
	back = d.accept('-')
	return int64(d.nonZero("a number of a range", math.MaxUint32)), back
}

// searchKeys = search-key *(SP search-key)
func (d *Decoder) searchKeys() SearchKey {
	p := keys{Decoder: d}
	key := p.key()
	if !d.optional() {
		return key
	}
	and := SearchKey{Keys: []SearchKey{key}}
	for more := true; more; more = d.optional() {
		and.Keys = append(and.Keys, p.key())
	}
	return and
}

// keys reads the keys of a search.
type keys struct {
	*Decoder
	depth int
}

// key = search-key (RFC 9051, 9; RFC 5032; RFC 6203; RFC 7162; RFC 8474; RFC 8514)
func (p *keys) key() (k SearchKey) {
	p.count()
	if p.depth++; p.depth > maxDepth {
		p.fail("", "search keys more than %d deep in one another", maxDepth)
	}
	defer func() { p.depth-- }()
	switch c := p.peek(); {
	case c == '(':
		p.some("search keys", func() { k.Keys = append(k.Keys, p.key()) })
		return k
	case c == '$' || classes[c]&isSetChar != 0:
		return SearchKey{Op: SearchSeq, Set: p.set()}
	}
	return p.named()
}

// named is a key that begins with its name.
func (p *keys) named() SearchKey {
	from := p.pos
	switch name := string(p.keyword("a search key")); name {
	case "ALL":
		return SearchKey{}
	case "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "SEEN":
		return systemFlag(name)
	case "UNANSWERED", "UNDELETED", "UNDRAFT", "UNFLAGGED", "UNSEEN":
		return not(systemFlag(name[2:]))
	case "RECENT":
		return SearchKey{Op: SearchRecent}
	case "OLD":
		return not(SearchKey{Op: SearchRecent})
	case "NEW":
		return SearchKey{Keys: []SearchKey{{Op: SearchRecent}, not(systemFlag("SEEN"))}}
	case "NOT":
		p.space()
		return not(p.key())
	case "OR":
		p.space()
		one := p.key()
		p.space()
		return SearchKey{Op: SearchOr, Keys: []SearchKey{one, p.key()}}
	case "FUZZY":
		p.space()
		k := p.key()
		k.Fuzzy = true
		return k
	case "SAVEDATESUPPORTED":
		return SearchKey{Op: SearchSaveDateSupported}
	default:
		if k, ok := p.withArgument(name); ok {
			return k
		}
	}
	p.pos = from
	p.want("a search key")
	return SearchKey{}
}

func systemFlag(name string) SearchKey {
	return SearchKey{Op: SearchFlag, Text: `\` + name[:1] + strings.ToLower(name[1:])}
}

func not(k SearchKey) SearchKey { return SearchKey{Op: SearchNot, Keys: []SearchKey{k}} }

// withArgument is a key that has something to compare with.
func (p *keys) withArgument(name string) (k SearchKey, ok bool) {
	if op, ok := dateKeys[name]; ok {
		p.space()
		return SearchKey{Op: op, Date: p.date()}, true
	}
	if op, ok := textKeys[name]; ok {
		p.space()
		return SearchKey{Op: op, Text: p.astring("a text to search for")}, true
	}
	switch name {
	case "FROM", "TO", "CC", "BCC", "SUBJECT":
		p.space()
		field := name[:1] + strings.ToLower(name[1:])
		return SearchKey{Op: SearchEnvelope, Field: field, Text: p.astring("a text to search for")}, true
	case "HEADER":
		p.space()
		field := p.astring("the name of a header field")
		p.space()
		return SearchKey{Op: SearchHeader, Field: field, Text: p.astring("a text to search for")}, true
	case "KEYWORD", "UNKEYWORD":
		p.space()
		k = SearchKey{Op: SearchKeyword, Text: p.flagKeyword()}
		if name == "UNKEYWORD" {
			k = not(k)
		}
		return k, true
	case "LARGER":
		p.space()
		return SearchKey{Op: SearchLarger, Number: p.number64("a number of octets")}, true
	case "SMALLER":
		p.space()
		return SearchKey{Op: SearchSmaller, Number: p.number64("a number of octets")}, true
	case "OLDER":
		p.space()
		return SearchKey{Op: SearchOlder, Number: p.nonZero("a number of seconds", math.MaxUint32)}, true
	case "YOUNGER":
		p.space()
		return SearchKey{Op: SearchYounger, Number: p.nonZero("a number of seconds", math.MaxUint32)}, true
	case "UID":
		p.space()
		return SearchKey{Op: SearchUID, Set: p.set()}, true
	case "MODSEQ":
		p.space()
		return p.modSeq(), true
	}
	return SearchKey{}, false
}

var dateKeys = map[string]SearchOp{
	"BEFORE": SearchBefore, "ON": SearchOn, "SINCE": SearchSince,
	"SENTBEFORE": SearchSentBefore, "SENTON": SearchSentOn, "SENTSINCE": SearchSentSince,
	"SAVEDBEFORE": SearchSavedBefore, "SAVEDON": SearchSavedOn, "SAVEDSINCE": SearchSavedSince,
}

var textKeys = map[string]SearchOp{
	"BODY": SearchBody, "TEXT": SearchText, "EMAILID": SearchEmailID, "THREADID": SearchThreadID,
}

// flagKeyword = atom. "]" is let through as in flags.
func (p *keys) flagKeyword() string {
	word := p.take(isStringChar)
	if len(word) == 0 {
		p.want("a keyword")
	}
	return string(word)
}

// modSeq = [entry-name SP entry-type-req SP] mod-sequence-valzer (RFC 7162, 7)
func (p *keys) modSeq() SearchKey {
	k := SearchKey{Op: SearchModSeq}
	if p.peek() == '"' {
		k.Entry = p.quoted()
		p.space()
		switch of := string(p.keyword("priv, shared or all")); of {
		case "PRIV", "SHARED", "ALL":
			k.EntryOf = strings.ToLower(of)
		default:
			p.fail("", "a mod-sequence is of priv, shared or all")
		}
		p.space()
	}
	k.Number = p.number64("a mod-sequence")
	return k
}
