package smtpc

import (
	"slices"
	"strings"

	"postroad/internal/envelope"
)

// Bounds of a Transcript, in octets.
const (
	maxHead     = 4 << 10 // kept of how a dialogue begins
	maxTail     = 4 << 10 // and of how it ends
	maxRecorded = 300     // of one line
)

// Transcript is what was said on a connection, for a person to read: "> MAIL FROM:<a@b.test>" is ours,
// "< 250 2.1.0 ok" the server's, "= TLS 1.3 ..." what happened without words. Of a message it has the number of
// octets, of a login the mechanism. Its lines are fit for logs and its size is bounded: what is too much is left
// out in the middle. The zero value is ready for use; nil records nothing.
type Transcript struct {
	head, tail []string
	headSize   int
	tailSize   int
	omitted    int // lines that went from the start of tail
}

// String is the dialogue, each line with its "\n".
func (t *Transcript) String() string {
	if t == nil {
		return ""
	}
	lines := slices.Clone(t.head)
	if t.omitted > 0 {
		lines = append(lines, "...")
	}
	lines = append(lines, t.tail...)
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// Note adds a line of what happened without words.
func (t *Transcript) Note(what string) { t.note("=", what) }

// note adds a line; mark says whose it is.
func (t *Transcript) note(mark, text string) {
	if t == nil {
		return
	}
	line := mark + " " + envelope.Sanitize(text, maxRecorded)
	if t.tail == nil && t.headSize+len(line) < maxHead {
		t.head, t.headSize = append(t.head, line), t.headSize+len(line)+1
		return
	}
	t.tail, t.tailSize = append(t.tail, line), t.tailSize+len(line)+1
	for ; t.tailSize > maxTail; t.omitted++ {
		t.tailSize -= len(t.tail[0]) + 1
		t.tail = t.tail[1:]
	}
}
