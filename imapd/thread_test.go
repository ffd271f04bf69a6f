package imapd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// threads writes a THREAD response.
func threads(list []mailbox.ThreadNode) string {
	var b bytes.Buffer
	out := wire.NewEncoder(&b)
	f := &finding{session: &session{out: out}, uid: true, found: roaring.New()}
	f.tellThreads(list)
	out.Flush()
	return b.String()
}

// oneByOne writes the first thread of a list as RFC 5256 section 4 defines it, and returns the rest.
func oneByOne(b *strings.Builder, list []mailbox.ThreadNode) []mailbox.ThreadNode {
	n, rest := list[0], list[1:]
	if n.UID != 0 {
		fmt.Fprint(b, n.UID)
	}
	if n.UID != 0 && n.Children > 0 {
		b.WriteByte(' ')
	}
	for range n.Children {
		if n.Children > 1 {
			b.WriteByte('(')
		}
		rest = oneByOne(b, rest)
		if n.Children > 1 {
			b.WriteByte(')')
		}
	}
	return rest
}

// growThread makes a random thread of at most n messages.
func growThread(r *rand.Rand, list []mailbox.ThreadNode, n int) []mailbox.ThreadNode {
	at := len(list)
	list = append(list, mailbox.ThreadNode{UID: mailbox.UID(at + 1)})
	for n--; n > 0 && r.IntN(4) > 0; {
		before := len(list)
		list = growThread(r, list, 1+r.IntN(n))
		list[at].Children++
		n -= len(list) - before
	}
	return list
}

func TestThreadResponse(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		var list []mailbox.ThreadNode
		for range r.IntN(4) {
			from := len(list)
			if list = growThread(r, list, 1+r.IntN(12)); list[from].Children > 1 && r.IntN(3) == 0 {
				list[from].UID = 0
			}
		}
		var want strings.Builder
		want.WriteString("* THREAD")
		for rest := list; len(rest) > 0; {
			if len(rest) == len(list) {
				want.WriteByte(' ')
			}
			want.WriteByte('(')
			rest = oneByOne(&want, rest)
			want.WriteByte(')')
		}
		if got := threads(list); got != want.String()+"\r\n" {
			t.Fatalf("got  %s\nwant %s", got, want.String())
		}
	}
}

// A thread as deep as a mailbox, with a second answer at each level, needs no stack.
func TestThreadResponseDeep(t *testing.T) {
	const depth = 100_000
	var list []mailbox.ThreadNode
	for i := range mailbox.UID(depth) {
		list = append(list, mailbox.ThreadNode{UID: 2*i + 1, Children: 2}, mailbox.ThreadNode{UID: 2*i + 2})
	}
	list = append(list, mailbox.ThreadNode{UID: 2*depth + 1})
	got := threads(list)
	if opened := strings.Count(got, "("); opened != 2*depth+1 || strings.Count(got, ")") != opened {
		t.Errorf("%d opened, %d closed", opened, strings.Count(got, ")"))
	}
}
