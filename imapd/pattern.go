package imapd

import "strings"

// A pattern is a LIST pattern ready to be matched against many names: a machine whose states are the pattern's
// places, run as bits. A match takes a number of steps that is the product of the name's length and of the pattern's length in
// words of 64 places, whatever the wildcards.
type pattern struct {
	words int               // of a state set
	last  int               // the place after the whole pattern
	wild  []uint64          // places with * or %
	deep  []uint64          // places with *
	at    map[byte][]uint64 // places with this octet
	none  []uint64
	steps int // made so far; for tests
}

// newPattern reads a pattern in which * is any octets and % any octets but "/".
func newPattern(s string) *pattern {
	s = collapse(s)
	p := &pattern{words: len(s)/64 + 1, last: len(s), at: map[byte][]uint64{}}
	p.wild, p.deep, p.none = p.set(), p.set(), p.set()
	for i := range len(s) {
		switch c := s[i]; c {
		case '*':
			add(p.wild, i)
			add(p.deep, i)
		case '%':
			add(p.wild, i)
		default:
			if p.at[c] == nil {
				p.at[c] = p.set()
			}
			add(p.at[c], i)
		}
	}
	return p
}

// collapse makes one wildcard of neighbours: a run with a * is a *.
func collapse(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		n := strings.IndexFunc(s[i:], func(r rune) bool { return r != '*' && r != '%' })
		if n < 0 {
			n = len(s) - i
		}
		switch run := s[i : i+n]; {
		case n == 0:
			b.WriteByte(s[i])
			n = 1
		case strings.Contains(run, "*"):
			b.WriteByte('*')
		default:
			b.WriteByte('%')
		}
		i += n
	}
	return b.String()
}

func (p *pattern) set() []uint64 { return make([]uint64, p.words) }

func add(set []uint64, place int)      { set[place/64] |= 1 << (place % 64) }
func has(set []uint64, place int) bool { return set[place/64]&(1<<(place%64)) != 0 }

// match reports whether the pattern matches the whole name. INBOX as the first level matches in any case.
func (p *pattern) match(name string) bool {
	fold := 0
	if name == "INBOX" || strings.HasPrefix(name, "INBOX/") {
		fold = len("INBOX")
	}
	state := p.set()
	state[0] = 1
	p.skipWild(state)
	for i := range len(name) {
		c := name[i]
		same, also := p.places(c), p.none
		if i < fold {
			also = p.places(c | 0x20)
		}
		stay := p.wild
		if c == '/' {
			stay = p.deep
		}
		p.step(state, same, also, stay)
	}
	return has(state, p.last)
}

func (p *pattern) places(c byte) []uint64 {
	if set := p.at[c]; set != nil {
		return set
	}
	return p.none
}

// step moves on from the places that have the octet, and stays at the wildcards that take it.
func (p *pattern) step(state, same, also, stay []uint64) {
	var carry uint64
	for w, s := range state {
		moved := s & (same[w] | also[w])
		state[w] = moved<<1 | carry | s&stay[w]
		carry = moved >> 63
		p.steps++
	}
	p.skipWild(state)
}

// skipWild passes the wildcards that take nothing. No two are neighbours.
func (p *pattern) skipWild(state []uint64) {
	var carry uint64
	for w, s := range state {
		passed := s & p.wild[w]
		state[w] = s | passed<<1 | carry
		carry = passed >> 63
	}
}
