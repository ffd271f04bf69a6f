// Package fulltext narrows a search for a text to the few messages that may have it. It answers with candidates: no
// message that has the text is ever missing, some that do not have it may be among them, and the message itself
// decides. So substrings are found as if there were no index.
//
// A block is the index of a run of messages, by number. It is written once, never changed, and merged with others into a
// larger one:
//
//	bucket ...   grams in order; for each how many messages have it, and which
//	numbers      the messages of the block: a roaring bitmap
//	whole        those of them that are always candidates: a roaring bitmap
//	directory    the first gram and the length of each bucket
//	tail         of fixed length: how long the other pieces are
//
// Each bucket, and all after the last one, has a checksum, so that damage is an error and never a message that is
// missed. A list of messages takes about as many bits for each as it takes to say how rare the gram is.
//
// What a text is folded into before it comes here is the caller's: the same for messages and for what is looked for.
package fulltext

import (
	"errors"
	"unicode"
	"unicode/utf8"
)

// ErrDamaged means that a block is not what was written. Its messages have to be looked at themselves.
var ErrDamaged = errors.New("damaged block of the full-text index")

// A Gram is a few letters in a row, as a number. Different letters may share one; there are Space of them.
type Gram uint32

const (
	gramBits = 20
	// Space is the number of grams.
	Space = 1 << gramBits
	// pair stands for the third letter of a gram of two.
	pair = 1<<21 - 1
	// ideographs is where scripts begin whose words are often of two letters.
	ideographs = 0x2e80
)

// gramOf spreads the letters over the space of grams.
func gramOf(a, b, c rune) Gram {
	x := uint64(a) | uint64(b)<<21 | uint64(c)<<42
	return Gram(x * 0x9e3779b97f4a7c15 >> (64 - gramBits))
}

// Grams gathers the distinct grams of texts: each three letters in a row, and each two of scripts that write words
// with two. Marks that combine with a letter are left out, so that a search which disregards them can be narrowed too;
// nothing runs across a control character or an octet that is not UTF-8. A part of a text has no gram that the text
// does not have. The zero value is ready for use. One goroutine.
type Grams struct {
	seen []uint64 // a bit for each gram
	list []Gram   // those that are set, in the order in which they came
	a, b rune     // the letters before
	n    int      // how many of them there are
}

// Reset forgets all grams.
func (g *Grams) Reset() {
	for _, x := range g.list {
		g.seen[x/64] = 0
	}
	g.list, g.n = g.list[:0], 0
}

// Break ends a text: what comes next does not follow on it.
func (g *Grams) Break() { g.n = 0 }

// List returns the grams, each once. It is valid until the next call.
func (g *Grams) List() []Gram { return g.list }

// Add adds the grams of the next piece of a text. No letter is cut between pieces.
func (g *Grams) Add(text []byte) {
	if g.seen == nil {
		g.seen = make([]uint64, Space/64)
	}
	for len(text) > 0 {
		r, size := rune(text[0]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(text)
		}
		text = text[size:]
		switch {
		case r < ' ' || r == utf8.RuneError && size == 1:
			g.n = 0
		case !isMark(r):
			g.letter(r)
		}
	}
}

func (g *Grams) letter(c rune) {
	if g.n >= 2 {
		g.set(gramOf(g.a, g.b, c))
	}
	if g.n >= 1 && c >= ideographs && g.b >= ideographs {
		g.set(gramOf(g.b, c, pair))
	}
	g.a, g.b = g.b, c
	g.n++
}

func (g *Grams) set(x Gram) {
	bit := uint64(1) << (x % 64)
	if g.seen[x/64]&bit == 0 {
		g.seen[x/64] |= bit
		g.list = append(g.list, x)
	}
}

// isMark reports whether a letter with r is the letter with something added.
func isMark(r rune) bool {
	return r >= 0x300 && (r < 0x370 || r >= 0x483 && unicode.Is(unicode.Mn, r))
}
