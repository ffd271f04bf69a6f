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

// fold returns s in NFC with the differences of case taken away.
func fold(s string) []byte { return appendFolded(nil, norm.NFC.Bytes([]byte(s))) }

// appendFolded folds text that is in NFC. Octets that are not UTF-8 stay as they are.
func appendFolded(dst, src []byte) []byte {
	for len(src) > 0 {
		if c := src[0]; c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst, src = append(dst, c), src[1:]
			continue
		}
		r, n := utf8.DecodeRune(src)
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, src[0])
		} else {
			dst = utf8.AppendRune(dst, foldRune(r))
		}
		src = src[n:]
	}
	return dst
}

// foldRune goes by way of the capital, so that σ and ς, s and ſ are alike.
func foldRune(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }

// chunk is how much text a finder reads at a time.
const chunk = 16 << 10

// A finder looks for texts in one stream after the other. Its memory is a few chunks and the texts.
type finder struct {
	texts [][]byte // folded
	found []bool

	raw    []byte // read, not yet folded: up to where the next octets cannot change it
	window []byte // folded: the end of what was looked at, and what comes next
}

func (f *finder) start(texts []string) {
	f.texts, f.found = f.texts[:0], f.found[:0]
	for _, t := range texts {
		folded := fold(t)
		f.texts, f.found = append(f.texts, folded), append(f.found, len(folded) == 0)
	}
}

// done reports whether all texts were found.
func (f *finder) done() bool { return !slices.Contains(f.found, false) }

// read looks for the texts in r until all are found. A text must lie within one stream.
func (f *finder) read(r io.Reader) error {
	f.raw, f.window = f.raw[:0], f.window[:0]
	for !f.done() {
		f.raw = slices.Grow(f.raw, chunk)
		n, err := io.ReadFull(r, f.raw[len(f.raw):len(f.raw)+chunk])
		f.raw = f.raw[:len(f.raw)+n]
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return err
		}
		f.look(ended)
		if ended {
			return nil
		}
	}
	return nil
}

// look folds what was read and looks at it together with the end of what was before.
func (f *finder) look(last bool) {
	n := len(f.raw)
	if !last {
		n = settled(f.raw)
	}
	f.window = appendFolded(f.window, norm.NFC.Bytes(f.raw[:n]))
	f.raw = append(f.raw[:0], f.raw[n:]...)
	overlap := 0
	for i, text := range f.texts {
		if !f.found[i] {
			f.found[i] = bytes.Contains(f.window, text)
			overlap = max(overlap, len(text)-1)
		}
	}
	keep := min(overlap, len(f.window))
	f.window = append(f.window[:0], f.window[len(f.window)-keep:]...)
}

// settled returns how much of b normalises the same way whatever follows. More than a chunk of
// nothing but combining characters is cut anywhere.
func settled(b []byte) int {
	if n := norm.NFC.LastBoundary(b); n > 0 {
		return n
	}
	if len(b) > chunk {
		return len(b)
	}
	return 0
}
