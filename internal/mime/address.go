package mime

import "strings"

// parseAddresses reads the value of a From, To or like field. Whatever it says gives a list: an address is what stands
// between commas, the display name is what stands before "<" or in a comment after the address. Names are unquoted but
// their encoded-words stay. It returns at most limit addresses.
func parseAddresses(v string, limit int) []Address {
	p := addressParser{rest: v, limit: limit}
	for p.rest != "" && len(p.list) < p.limit {
		p.next()
	}
	if p.group {
		p.endGroup()
	}
	return p.list
}

// An addressParser goes through an address list from left to right. Each octet is looked at a bounded number of times.
type addressParser struct {
	rest  string
	list  []Address
	limit int
	group bool // inside a group
}

// next reads up to and including the next comma, colon or semicolon.
func (p *addressParser) next() {
	w := p.words("<,;:@")
	if w.stop == '@' {
		p.afterAt(w)
		return
	}
	switch w.stop {
	case '<':
		p.angle(w.name())
	case ':':
		p.startGroup(w)
	case ';':
		p.bare(w)
		if p.group {
			p.endGroup()
		}
	default:
		p.bare(w)
	}
}

// add takes an address.
func (p *addressParser) add(a Address) {
	if p.list == nil {
		p.list = make([]Address, 0, 1+min(strings.Count(p.rest, ","), 15))
	}
	p.list = append(p.list, a)
}

// bare takes words that turned out to be no address: a local part on its own, or a name.
func (p *addressParser) bare(w words) {
	text := w.text()
	if w.plain {
		text = strings.Trim(text, ">")
	}
	switch {
	case text == "":
	case strings.IndexByte(text, ' ') >= 0:
		p.add(Address{Name: text, Mailbox: MissingMailbox, Host: MissingHost})
	default:
		p.add(Address{Name: w.comment, Mailbox: text, Host: MissingHost})
	}
}

func (p *addressParser) startGroup(w words) {
	if name := w.text(); name != "" && !p.group {
		p.group = true
		p.add(Address{Mailbox: name})
	}
}

func (p *addressParser) endGroup() {
	p.group = false
	p.add(Address{})
}

// afterAt goes on after "local@". If a "<" follows, all of it was a display name that should have been quoted.
func (p *addressParser) afterAt(local words) {
	domain := p.words("<,;")
	switch {
	case domain.stop == '<':
		p.angle(local.text() + "@" + domain.text())
		return
	default:
		name, mailbox := local.split()
		host := strings.TrimRight(domain.joined(), ">")
		if i := strings.LastIndexByte(host, '@'); i >= 0 {
			mailbox, host = mailbox+"@"+host[:i], host[i+1:]
		}
		p.addMailbox(Address{Name: orElse(name, orElse(domain.comment, local.comment)), Mailbox: mailbox, Host: host})
	}
	if domain.stop == ';' && p.group {
		p.endGroup()
	}
}

// addMailbox takes an address with what is missing in it named.
func (p *addressParser) addMailbox(a Address) {
	if a.Mailbox == "" && a.Host == "" && a.Name == "" {
		return
	}
	a.Mailbox, a.Host = orElse(a.Mailbox, MissingMailbox), orElse(a.Host, MissingHost)
	p.add(a)
}

// angle goes on after "name <".
func (p *addressParser) angle(name string) {
	a := Address{Name: name}
	p.rest = skipComments(p.rest)
	if strings.HasPrefix(p.rest, "@") {
		a.Route = p.route()
	}
	local := p.words("@>,<;")
	a.Mailbox = local.joined()
	if local.stop == '@' {
		domain := p.words(">,<;")
		a.Host = domain.joined()
		if i := strings.LastIndexByte(a.Host, '@'); i >= 0 {
			a.Mailbox, a.Host = a.Mailbox+"@"+a.Host[:i], a.Host[i+1:]
		}
		local.stop = domain.stop
	}
	stop := local.stop
	if stop == '>' {
		after := p.words(",;")
		a.Name = orElse(a.Name, after.comment)
		stop = after.stop
	}
	p.addMailbox(a)
	if stop == ';' && p.group {
		p.endGroup()
	}
}

// route reads the "@a,@b:" of an obsolete source route, if it is one.
func (p *addressParser) route() string {
	n := strings.IndexAny(p.rest, ":<>;")
	if n < 0 || p.rest[n] != ':' {
		return ""
	}
	route := p.rest[:n]
	p.rest = p.rest[n+1:]
	return without(route, " \t\r\n")
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// words are what stands before one of the characters that mean something in an address list.
type words struct {
	raw     string // as it stands, without the white space round it
	plain   bool   // raw has no quotes, backslashes and comments
	comment string // the text of the last comment
	stop    byte   // what came after, 0 at the end of the list
}

// words reads up to and including one of the stops, outside of quotes, comments and domain literals.
func (p *addressParser) words(stops string) words {
	w := words{plain: true}
	i := 0
	for i < len(p.rest) {
		switch c := p.rest[i]; {
		case c == '"':
			w.plain = false
			i += quotedEnd(p.rest[i:])
		case c == '(':
			w.plain = false
			n := commentEnd(p.rest[i:])
			w.comment = commentText(p.rest[i : i+n])
			i += n
		case c == '[':
			i += literalEnd(p.rest[i:])
		case c == '\\' && i+1 < len(p.rest):
			w.plain = false
			i += 2
		case strings.IndexByte(stops, c) >= 0:
			w.raw, w.stop = strings.Trim(p.rest[:i], " \t\r\n"), c
			p.rest = p.rest[i+1:]
			return w
		default:
			i++
		}
	}
	w.raw = strings.Trim(p.rest, " \t\r\n")
	p.rest = ""
	return w
}

// literalEnd returns the length of the domain literal that v starts with; 1 if it is only a bracket.
func literalEnd(v string) int {
	if n := strings.IndexAny(v[1:], "[]<>,;\""); n >= 0 && v[n+1] == ']' {
		return n + 2
	}
	return 1
}

// commentText returns the inside of a comment.
func commentText(c string) string {
	c = strings.TrimSuffix(strings.TrimPrefix(c, "("), ")")
	return strings.Trim(unescape(c), " \t\r\n")
}

func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// name returns the words as a display name.
func (w words) name() string {
	if text := w.text(); text != "" {
		return text
	}
	return w.comment
}

// text returns the words without comments and quotes, with one space where there was white space or a comment.
func (w words) text() string { return w.build(" ") }

// joined returns the words without comments, quotes and the white space between them.
func (w words) joined() string { return w.build("") }

// split takes "Ann Other ann", before an "@", for a name and a local part. White space next to a dot is the local part's.
func (w words) split() (name, mailbox string) {
	i := strings.LastIndexAny(w.raw, " \t")
	if !w.plain || i < 0 || w.raw[i+1] == '.' || strings.HasSuffix(strings.TrimRight(w.raw[:i], " \t\r\n"), ".") {
		return "", w.joined()
	}
	return words{raw: strings.TrimRight(w.raw[:i], " \t\r\n"), plain: true}.text(), w.raw[i+1:]
}

func (w words) build(space string) string {
	if w.plain && !strings.ContainsAny(w.raw, " \t\r\n") {
		return w.raw
	}
	var b strings.Builder
	gap := false
	for v := w.raw; v != ""; {
		n := 1
		switch {
		case isSpace(v[0]):
			gap = true
		case v[0] == '(':
			n = commentEnd(v)
			gap = true
		default:
			if gap && b.Len() > 0 {
				b.WriteString(space)
			}
			gap = false
			n = writeWord(&b, v)
		}
		v = v[n:]
	}
	return b.String()
}

// writeWord writes the quoted string, the quoted pair or the run of other octets that v starts with and returns its length.
func writeWord(b *strings.Builder, v string) int {
	switch {
	case v[0] == '"':
		n := quotedEnd(v)
		b.WriteString(unquote(v[:n]))
		return n
	case v[0] == '\\' && len(v) > 1: // not allowed here, but "\"Name\" <a@b>" is seen
		b.WriteByte(v[1])
		return 2
	}
	n := strings.IndexAny(v[1:], " \t\r\n(\"\\") + 1
	if n == 0 {
		n = len(v)
	}
	b.WriteString(v[:n])
	return n
}
