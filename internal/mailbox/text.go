package mailbox

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Texts are compared as i;unicode-casemap does (RFC 5051): decomposed, also by compatibility, and in title case. Beyond
// it the letters that a decomposition yields are put into title case too, and marks into their canonical order, so that
// "ﬁ" is "fi" and two ways to write one letter are one. A letter is found in the same letter with marks.

// fold returns s as it is compared.
func fold(s string) []byte {
	var f folder
	return f.append(nil, []byte(s))
}

// A folder folds one text after the other. The zero value is ready for use.
type folder struct{ decomposed []byte }

// append appends src as it is compared. Octets that are not UTF-8 stay as they are.
func (f *folder) append(dst, src []byte) []byte {
	ascii := asciiPrefix(src)
	dst = appendCapitals(dst, src[:ascii])
	if ascii == len(src) {
		return dst
	}
	f.decomposed = norm.NFKD.Append(f.decomposed[:0], src[ascii:]...)
	for b := f.decomposed; len(b) > 0; {
		r, n := utf8.DecodeRune(b)
		switch {
		case r < utf8.RuneSelf:
			dst = append(dst, capital(b[0]))
		case r == utf8.RuneError && n == 1:
			dst = append(dst, b[0])
		default:
			dst = utf8.AppendRune(dst, unicode.ToTitle(r))
		}
		b = b[n:]
	}
	return dst
}

// asciiPrefix is how much of the front of b is ASCII. What follows does not change how that is compared.
func asciiPrefix(b []byte) int {
	for i, c := range b {
		if c >= utf8.RuneSelf {
			return i
		}
	}
	return len(b)
}

func appendCapitals(dst, src []byte) []byte {
	from := len(dst)
	dst = append(dst, src...)
	for i, c := range dst[from:] {
		dst[from+i] = capital(c)
	}
	return dst
}

func capital(c byte) byte {
	if 'a' <= c && c <= 'z' {
		c -= 'a' - 'A'
	}
	return c
}

// withoutMarks takes the marks away that combine with letters, in the memory of folded.
func withoutMarks(folded []byte) []byte {
	if asciiPrefix(folded) == len(folded) {
		return folded
	}
	out := folded[:0]
	for len(folded) > 0 {
		r, n := utf8.DecodeRune(folded)
		if !unicode.Is(unicode.Mn, r) {
			out = append(out, folded[:n]...)
		}
		folded = folded[n:]
	}
	return out
}

// words returns the words of folded text, without marks.
func words(folded []byte) [][]byte {
	return bytes.FieldsFunc(withoutMarks(slices.Clone(folded)), func(r rune) bool { return !inWord(r) })
}

func inWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

// chunk is how much text a finder reads at a time.
const chunk = 16 << 10

// A reader of texts hears each of them in pieces, folded. No letter is cut between pieces.
type pieces struct {
	folder folder
	raw    []byte // read, not yet folded: up to where the next octets cannot change it
	folded []byte
}

// read folds what r has and passes it to next, until that returns false.
func (p *pieces) read(r io.Reader, next func(piece []byte, last bool) bool) error {
	p.raw = p.raw[:0]
	for {
		p.raw = slices.Grow(p.raw, chunk)
		n, err := io.ReadFull(r, p.raw[len(p.raw):len(p.raw)+chunk])
		p.raw = p.raw[:len(p.raw)+n]
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return err
		}
		n = len(p.raw)
		if !ended {
			n = settled(p.raw)
		}
		p.folded = p.folder.append(p.folded[:0], p.raw[:n])
		p.raw = append(p.raw[:0], p.raw[n:]...)
		if !next(p.folded, ended) || ended {
			return nil
		}
	}
}

// settled returns how much of b normalises the same way whatever follows. More than a chunk of nothing but combining
// characters is cut between any two of them.
func settled(b []byte) int {
	if n := norm.NFKD.LastBoundary(b); n > 0 {
		return n
	}
	if len(b) <= chunk {
		return 0
	}
	for cut := len(b) - 1; cut > len(b)-utf8.UTFMax; cut-- {
		if utf8.RuneStart(b[cut]) {
			return cut
		}
	}
	return len(b)
}

// A finder looks for texts in one stream after the other. Its memory is a few chunks and the texts.
type finder struct {
	needles []needle
	fuzzy   bool // marks make no difference, and how well a word fits is told

	pieces pieces
	window []byte // folded: the end of what was looked at, and what comes next
	begins bool   // the window is where a stream begins
}

// A needle is a text that is looked for.
type needle struct {
	text  []byte // folded
	found fit
}

// A fit is how well a text fits where it was found.
type fit uint8

const (
	unfound fit = iota
	inside      // somewhere in a word
	atStart     // at the beginning of a word
	entire      // a word, or words
)

// start begins to look for texts that are folded.
func (f *finder) start(texts [][]byte, fuzzy bool) {
	f.needles, f.fuzzy = f.needles[:0], fuzzy
	for _, t := range texts {
		n := needle{text: t}
		if len(t) == 0 {
			n.found = entire
		}
		f.needles = append(f.needles, n)
	}
}

// done reports whether it cannot find more.
func (f *finder) done() bool {
	for i := range f.needles {
		if f.needles[i].found == unfound || f.fuzzy && f.needles[i].found < entire {
			return false
		}
	}
	return true
}

// all reports whether all texts were found.
func (f *finder) all() bool {
	return !slices.ContainsFunc(f.needles, func(n needle) bool { return n.found == unfound })
}

// rank is how well the texts fit where they were found, from 1 to 100.
func (f *finder) rank() int {
	sum := 0
	for i := range f.needles {
		sum += [...]int{unfound: 0, inside: 50, atStart: 80, entire: 100}[f.needles[i].found]
	}
	return sum / len(f.needles)
}

// read looks for the texts in r until all are found. A text must lie within one stream.
func (f *finder) read(r io.Reader) error {
	if f.done() {
		return nil
	}
	f.window, f.begins = f.window[:0], true
	return f.pieces.read(r, func(piece []byte, last bool) bool {
		f.window = append(f.window, piece...)
		if f.fuzzy {
			f.window = withoutMarks(f.window)
		}
		f.look(last)
		return !f.done()
	})
}

// text looks for the texts in one that is folded.
func (f *finder) text(folded []byte) {
	f.window, f.begins = append(f.window[:0], folded...), true
	if f.fuzzy {
		f.window = withoutMarks(f.window)
	}
	f.look(true)
}

// look looks into the window and keeps what the next one needs of it.
func (f *finder) look(last bool) {
	overlap := 0
	for i := range f.needles {
		n := &f.needles[i]
		if n.found == unfound || f.fuzzy && n.found < entire {
			f.find(n, last)
			overlap = max(overlap, len(n.text)+2*utf8.UTFMax)
		}
	}
	if keep := min(overlap, len(f.window)); keep < len(f.window) {
		f.window, f.begins = append(f.window[:0], f.window[len(f.window)-keep:]...), false
	}
}

func (f *finder) find(n *needle, last bool) {
	if !f.fuzzy {
		if bytes.Contains(f.window, n.text) {
			n.found = entire
		}
		return
	}
	for from := 0; n.found < entire; {
		at := bytes.Index(f.window[from:], n.text)
		if at < 0 {
			return
		}
		at += from
		n.found = max(n.found, f.fit(at, at+len(n.text), last))
		from = at + 1
	}
}

// fit says how well what was found fits. At an end of the window that is none of the text it cannot be told: the next
// window, or the one before, has it too.
func (f *finder) fit(from, to int, last bool) fit {
	before, _ := utf8.DecodeLastRune(f.window[:from])
	after, _ := utf8.DecodeRune(f.window[to:])
	switch {
	case from == 0 && !f.begins || from > 0 && inWord(before):
		return inside
	case to == len(f.window) && !last || to < len(f.window) && inWord(after):
		return atStart
	}
	return entire
}
