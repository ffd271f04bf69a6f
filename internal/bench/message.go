package bench

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"time"
)

const (
	lineLength  = 78 // with its CRLF
	fillerLines = 4096
	idDomain    = "@bench.invalid>"
)

// A composer makes the messages of one run. Everything but header fields and the
// length is shared, so that a message costs a copy and nothing more. Safe for
// concurrent use: it never changes.
type composer struct {
	run    string    // random, in every Message-ID of the run
	epoch  time.Time // Message-IDs count nanoseconds from here
	from   string
	filler []byte // whole lines of words
}

func newComposer(from string) *composer {
	var id [6]byte
	rand.Read(id[:])
	return &composer{run: hex.EncodeToString(id[:]), epoch: time.Now(), from: from, filler: filler()}
}

// filler is text as ordinary as a search engine could wish: lower-case words,
// no line that begins with a dot.
func filler() []byte {
	const syllables = "ba be bi bo da de di do ka ke ki ko la le li lo ma me mi mo na ne ni no ra re ri ro sa se si so"
	words := bytes.Fields([]byte(syllables))
	text := make([]byte, 0, fillerLines*lineLength)
	for n := uint64(0); len(text) < cap(text); n++ {
		if col := len(text) % lineLength; col == lineLength-2 {
			text = append(text, "\r\n"...)
			continue
		}
		r := scatter(n)
		word := words[r%uint64(len(words))]
		if r>>32%3 == 0 {
			word = []byte(" ")
		}
		room := lineLength - 2 - len(text)%lineLength
		text = append(text, word[:min(len(word), room)]...)
	}
	return text
}

// A draft is one message to be written.
type draft struct {
	seq     int64
	start   time.Time // also in the Message-ID
	to      string
	subject string // begins the Subject
	opening string // begins the body, a line without its CRLF, or nothing
	thread  int64  // with answers: the message that the thread begins with
	answers bool   // it answers the message before it
}

// header appends the header section of d to b.
func (c *composer) header(b []byte, d *draft) []byte {
	b = append(b, "From: <"...)
	b = append(b, c.from...)
	b = append(b, ">\r\nTo: <"...)
	b = append(b, d.to...)
	b = append(b, ">\r\nSubject: "...)
	b = c.subject(b, d)
	b = append(b, "\r\nDate: "...)
	b = d.start.AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 -0700")
	b = append(b, "\r\nMessage-ID: <"...)
	b = c.appendID(b, d.seq, d.start)
	b = append(b, idDomain...)
	b = c.references(b, d)
	b = append(b, "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"...)
	if d.opening != "" {
		b = append(b, d.opening...)
		b = append(b, "\r\n"...)
	}
	return b
}

func (c *composer) subject(b []byte, d *draft) []byte {
	if d.answers {
		b = append(b, "Re: "...)
		return strconv.AppendInt(append(b, d.subject...), d.thread, 10)
	}
	return strconv.AppendInt(append(b, d.subject...), d.seq, 10)
}

// references names the message answered, and the thread's first.
func (c *composer) references(b []byte, d *draft) []byte {
	if !d.answers {
		return b
	}
	b = append(b, "\r\nReferences:"...)
	for seq := d.thread; ; seq = d.seq - 1 {
		b = c.appendID(append(b, " <"...), seq, c.sent(seq))
		b = append(b, idDomain...)
		if seq == d.seq-1 {
			return b
		}
	}
}

// sent is a time within the year before the run, always the same for a message.
func (c *composer) sent(seq int64) time.Time {
	const year = 365 * 24 * time.Hour
	return c.epoch.Add(-time.Duration(scatter(uint64(seq)) % uint64(year)))
}

func (c *composer) appendID(b []byte, seq int64, start time.Time) []byte {
	b = append(b, c.run...)
	b = append(b, '.')
	b = strconv.AppendInt(b, seq, 10)
	b = append(b, '.')
	return strconv.AppendInt(b, int64(start.Sub(c.epoch)), 10)
}

// parseID finds a Message-ID of this run in text and says which message it is
// and when its transaction began.
func (c *composer) parseID(text []byte) (seq int64, start time.Time, ok bool) {
	_, rest, found := bytes.Cut(text, []byte("<"+c.run+"."))
	if !found {
		return 0, time.Time{}, false
	}
	number, rest, found := bytes.Cut(rest, []byte("."))
	if !found {
		return 0, time.Time{}, false
	}
	nanos, _, found := bytes.Cut(rest, []byte("@"))
	seq, err1 := strconv.ParseInt(string(number), 10, 64)
	since, err2 := strconv.ParseInt(string(nanos), 10, 64)
	if !found || err1 != nil || err2 != nil || seq < 0 {
		return 0, time.Time{}, false
	}
	return seq, c.epoch.Add(time.Duration(since)), true
}

// bodyLength is what is left for the filler once the header has its length.
func bodyLength(size, header int) int { return max(size-header, len("\r\n")) }

// writeBody writes n octets (at least 2) of whole lines, which end in CRLF. Bodies
// of different messages begin at different lines.
func (c *composer) writeBody(w *bufio.Writer, seq int64, n int) error {
	n -= len("\r\n")
	from := int(scatter(uint64(seq))%fillerLines) * lineLength
	for n > 0 {
		piece := c.filler[from:]
		if len(piece) >= n {
			piece = piece[:n]
			if piece[n-1] == '\r' { // no bare CR before the last line end
				w.Write(piece[:n-1])
				piece = []byte("o")
			}
			n = 0
		} else {
			n -= len(piece)
		}
		w.Write(piece)
		from = 0
	}
	_, err := w.WriteString("\r\n")
	return err // a bufio.Writer keeps the first error
}
