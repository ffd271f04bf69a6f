package mime

import "strings"

// maxWords bounds the encoded-words that are decoded in one value, since each may need a charset of its own.
const maxWords = 5000

// DecodeHeader returns a header value with its RFC 2047 encoded-words decoded into UTF-8, for searching and showing. What
// is not quite an encoded-word stays as it is, as does one in an unknown charset. Neighbours in one charset are joined before they
// are converted, since senders split characters between them.
func DecodeHeader(v string) string {
	if !strings.Contains(v, "=?") {
		return v
	}
	d := wordDecoder{}
	head := v[:min(len(v), maxEncodedHeader)]
	for d.words < maxWords {
		i := strings.Index(head, "=?")
		if i < 0 {
			break
		}
		w, rest, ok := cutWord(head[i:])
		if rest == "" && !ok {
			break
		}
		if !ok {
			d.plain(head[:i+2])
			head = head[i+2:]
			continue
		}
		d.word(head[:i], w)
		head = rest
	}
	d.plain(head)
	return d.out.String() + v[min(len(v), maxEncodedHeader):]
}

// An encodedWord is =?charset?Q or B?text?=.
type encodedWord struct {
	raw, charset, text string
	base64             bool
}

// cutWord cuts off the encoded-word that v starts with. If none does, rest is empty when no later one can either.
func cutWord(v string) (w encodedWord, rest string, ok bool) {
	cs, after, ok := strings.Cut(v[2:], "?")
	if !ok {
		return w, "", false
	}
	if cs == "" || strings.ContainsAny(cs, " \t=") || len(after) < 2 || after[1] != '?' {
		return w, v, false
	}
	text, rest, ok := strings.Cut(after[2:], "?=")
	if !ok {
		return w, "", false
	}
	cs, _, _ = strings.Cut(cs, "*") // RFC 2231 section 5
	w = encodedWord{raw: v[:len(v)-len(rest)], charset: lower(cs), text: text}
	switch after[0] {
	case 'B', 'b':
		w.base64 = true
	case 'Q', 'q':
	default:
		return w, v, false
	}
	return w, rest, true
}

// A wordDecoder puts a value together.
type wordDecoder struct {
	out     strings.Builder
	words   int
	charset string          // of the octets that wait
	octets  []byte          // decoded, not yet converted
	raw     strings.Builder // what they came from, in case they cannot be
	waiting bool
}

// plain takes text that is no encoded-word.
func (d *wordDecoder) plain(text string) {
	d.flush()
	d.out.WriteString(text)
}

// word takes an encoded-word and what stands before it. White space between two of them does not count.
func (d *wordDecoder) word(before string, w encodedWord) {
	d.words++
	if !d.waiting || strings.Trim(before, " \t\r\n") != "" {
		d.plain(before)
		before = ""
	}
	if d.waiting && d.charset != w.charset {
		d.flush()
	}
	d.waiting, d.charset = true, w.charset
	d.raw.WriteString(before)
	d.raw.WriteString(w.raw)
	d.octets = w.decode(d.octets)
}

// flush converts what waits.
func (d *wordDecoder) flush() {
	if !d.waiting {
		return
	}
	text, ok := toUTF8(d.charset, string(d.octets))
	if !ok {
		text = d.raw.String()
	}
	d.out.WriteString(clean(text))
	d.waiting, d.octets = false, d.octets[:0]
	d.raw.Reset()
}

// decode adds the octets that the word stands for to out.
func (w encodedWord) decode(out []byte) []byte {
	if w.base64 {
		var d base64Decoder
		return d.finish(d.code(out, []byte(w.text)))
	}
	for i := 0; i < len(w.text); i++ {
		c := w.text[i]
		switch {
		case c == '_':
			c = ' '
		case c == '=' && i+2 < len(w.text) && unhex(w.text[i+1]) >= 0 && unhex(w.text[i+2]) >= 0:
			c = byte(unhex(w.text[i+1])<<4 | unhex(w.text[i+2]))
			i += 2
		}
		out = append(out, c)
	}
	return out
}
