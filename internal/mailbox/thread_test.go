package mailbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// letter is a message for tests of sorting and threading: "id subject <ref> <ref>", sent so many minutes after the first.
func letter(minute int, id, subject string, refs ...string) string {
	sent := time.Date(2024, 1, 1, 0, minute, 0, 0, time.UTC)
	s := "Date: " + sent.Format(time.RFC1123Z) + "\r\nSubject: " + subject + "\r\n"
	if id != "" {
		s += "Message-ID: <" + id + "@x>\r\n"
	}
	for i, r := range refs {
		if i == 0 {
			s += "References:"
		}
		s += "\r\n <" + r + "@x>"
	}
	return strings.TrimSuffix(s, "\r\n") + "\r\n\r\n"
}

// showThreads writes threads as THREAD does.
func showThreads(list []ThreadNode) string {
	var b strings.Builder
	var one func(first bool)
	one = func(first bool) {
		n := list[0]
		list = list[1:]
		if n.UID != 0 {
			if !first {
				b.WriteByte(' ')
			}
			fmt.Fprint(&b, n.UID)
			first = false
		}
		if n.Children == 1 {
			one(first)
			return
		}
		for i := range n.Children {
			if i == 0 && !first {
				b.WriteByte(' ')
			}
			b.WriteByte('(')
			one(true)
			b.WriteByte(')')
		}
	}
	for len(list) > 0 {
		b.WriteByte('(')
		one(true)
		b.WriteByte(')')
	}
	return b.String()
}

func TestThread(t *testing.T) {
	for _, c := range []struct {
		what     string
		messages []string
		subject  string // ORDEREDSUBJECT
		refs     string // REFS
		full     string // REFERENCES; "" is as REFS
	}{
		{"nothing", nil, "", "", ""},
		{"one", []string{letter(0, "a", "s")}, "(1)", "(1)", ""},
		{"an answer", []string{letter(0, "a", "s"), letter(1, "b", "Re: s", "a")}, "(1 2)", "(1 2)", ""},
		{"a chain and a branch", []string{
			letter(0, "a", "s"), letter(1, "b", "Re: s", "a"), letter(2, "c", "Re: s", "a", "b"), letter(3, "d", "Re: s", "a"), letter(4, "e", "Re: s", "a", "b"),
		}, "(1 (2)(3)(4)(5))", "(1 (2 (3)(5))(4))", ""},
		{"siblings in order of date", []string{
			letter(0, "a", "s"), letter(9, "b", "Re: s", "a"), letter(2, "c", "Re: s", "a"),
		}, "(1 (3)(2))", "(1 (3)(2))", ""},
		{"the answer came first", []string{letter(5, "b", "Re: s", "a"), letter(0, "a", "s")}, "(2 1)", "(2 1)", ""},
		{"a message that is not there", []string{
			letter(0, "b", "x", "a"), letter(1, "c", "y", "a"),
		}, "(1)(2)", "((1)(2))", ""},
		{"one that is not there, with one child", []string{letter(0, "c", "x", "a", "b")}, "(1)", "(1)", ""},
		{"ones that are not there between others", []string{
			letter(0, "a", "x"), letter(1, "d", "x", "a", "b", "c"), letter(2, "e", "x", "a", "b", "c2"),
		}, "(1 (2)(3))", "(1 (2)(3))", ""},
		{"one that is not there above another", []string{
			letter(0, "c", "x", "a", "b"), letter(1, "d", "y", "a", "b"), letter(2, "e", "z", "a"),
		}, "(1)(2)(3)", "((1)(2)(3))", ""},
		{"no reference, one subject: both not replies", []string{letter(0, "a", "s"), letter(1, "b", "s")}, "(1 2)", "(1)(2)", "((1)(2))"},
		{"no reference, a reply", []string{letter(0, "a", "s"), letter(1, "b", "Re: s")}, "(1 2)", "(1)(2)", "(1 2)"},
		{"no reference, the reply first", []string{letter(0, "a", "Re: s"), letter(1, "b", "s")}, "(1 2)", "(1)(2)", "(2 1)"},
		{"no reference, replies only", []string{letter(0, "a", "Re: s"), letter(1, "b", "Fwd: S")}, "(1 2)", "(1)(2)", "((1)(2))"},
		{"one subject, to one that is not there", []string{
			letter(0, "b", "Re: s", "a"), letter(1, "c", "Re: s", "a"), letter(2, "d", "s"),
		}, "(1 (2)(3))", "((1)(2))(3)", "((1)(2)(3))"},
		{"one subject, two that are not there", []string{
			letter(0, "b", "Re: s", "a"), letter(1, "c", "Re: s", "a"), letter(2, "e", "Re: s", "d"), letter(3, "f", "Re: s", "d"),
		}, "(1 (2)(3)(4))", "((1)(2))((3)(4))", "((1)(2)(3)(4))"},
		{"three of one subject", []string{letter(0, "a", "s"), letter(1, "b", "s"), letter(2, "c", "Re: s")}, "(1 (2)(3))", "(1)(2)(3)", "((1)(2)(3))"},
		{"no subject is not one", []string{letter(0, "a", ""), letter(1, "b", "Re:")}, "(1 2)", "(1)(2)", "(1)(2)"},
		{"one id twice", []string{letter(0, "a", "x"), letter(1, "a", "y"), letter(2, "c", "z", "a")}, "(1)(2)(3)", "(2)(1 3)", "(1 3)(2)"},
		{"no id", []string{letter(0, "", "x", "a"), letter(1, "a", "y")}, "(1)(2)", "(2 1)", ""},
		{"its own answer", []string{letter(0, "a", "x", "a")}, "(1)", "(1)", ""},
		{"a loop of two", []string{letter(0, "a", "x", "b"), letter(1, "b", "y", "a")}, "(1)(2)", "(2 1)", ""},
		{"a loop in one field", []string{letter(0, "c", "x", "a", "b", "a", "b")}, "(1)", "(1)", ""},
		{"a later message knows better", []string{
			letter(0, "z", "w", "b", "a"), letter(1, "b", "x"), letter(2, "c", "y"), letter(3, "a", "z", "c"),
		}, "(1)(2)(3)(4)", "(2)(3 4 1)", ""},
		{"the newest last", []string{letter(0, "a", "x"), letter(1, "b", "y"), letter(2, "c", "z", "a")}, "(1)(2)(3)", "(2)(1 3)", "(1 3)(2)"},
		{"in reply to", []string{
			letter(0, "a", "x"), "In-Reply-To: <a@x>\r\n" + letter(1, "b", "y"),
		}, "(1)(2)", "(1 2)", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := open(t, Options{})
			id := h.box("a").ID
			h.appendInTurn(id, c.messages)
			if c.full == "" {
				c.full = c.refs
			}
			for a, want := range map[Algorithm]string{OrderedSubject: c.subject, ThreadReferences: c.full, ThreadRefs: c.refs} {
				list, err := h.Thread(t.Context(), id, nil, a)
				h.must(err)
				if got := showThreads(list); got != want {
					t.Errorf("algorithm %d: %s, want %s", a, got, want)
				}
			}
		})
	}
}

// appendInTurn appends messages that come one a second.
func (h house) appendInTurn(id ID, texts []string) {
	h.Helper()
	var msgs []NewMessage
	for i, text := range texts {
		d, structure := h.draft(text)
		msgs = append(msgs, NewMessage{Draft: d, Structure: structure, Internal: time.Unix(1e9+int64(i), 0)})
	}
	if len(msgs) > 0 {
		_, err := h.AppendAll(id, msgs, nil, nil)
		h.must(err)
	}
}

// add puts a message in as Thread does, without a store.
func (t *threading) try(uid int, parent int32, sent int64) {
	n := int32(len(t.all))
	t.all = append(t.all, threaded{uid: UID(uid), first: n, parent: none, sent: sent, arrived: sent})
	t.messages++
	t.links.steps += stepsPerMessage
	node := t.links.named(fmt.Append(nil, uid))
	t.links.nodes[node].message = n
	t.links.messages = append(t.links.messages, node)
	if parent > 0 {
		t.links.link(t.links.named(fmt.Append(nil, parent)), node)
	}
}

// Threads that are as deep as there are messages, in whatever order these come, and loops, take no long time and no
// stack.
func TestThreadHostile(t *testing.T) {
	const n = 30_000
	for _, c := range []struct {
		what   string
		number func(i int) int
		parent func(number int) int32
	}{
		{"a chain", func(i int) int { return i + 1 }, func(k int) int32 { return int32(k - 1) }},
		{"a chain backwards", func(i int) int { return n - i }, func(k int) int32 { return int32(k - 1) }},
		{"every other first", func(i int) int { return (2*i)%n + (2*i)/n + 1 }, func(k int) int32 { return int32(k - 1) }},
		{"one loop", func(i int) int { return i + 1 }, func(k int) int32 { return int32(k%n + 1) }},
		{"one loop backwards", func(i int) int { return n - i }, func(k int) int32 { return int32(k%n + 1) }},
		{"all answer one", func(i int) int { return i + 1 }, func(k int) int32 { return n + 1 }},
		{"two halves", func(i int) int { return i%2*(n/2) + i/2 + 1 }, func(k int) int32 { return int32((k + n/2) % n) }},
	} {
		start := time.Now()
		for _, by := range []Algorithm{ThreadReferences, ThreadRefs} {
			th := newThreading(by, 0)
			for i := range n {
				k := c.number(i)
				th.try(k, c.parent(k), int64(i))
			}
			seen := map[UID]bool{}
			open := uint64(0)
			for _, node := range th.forest() {
				if node.UID != 0 && seen[node.UID] {
					t.Fatalf("%s: %d twice", c.what, node.UID)
				}
				seen[node.UID] = true
				if open > 0 {
					open--
				}
				open += uint64(node.Children)
			}
			delete(seen, 0)
			if len(seen) != n || open != 0 {
				t.Errorf("%s: %d messages, %d children missing", c.what, len(seen), open)
			}
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("%s takes %v", c.what, took)
		}
	}
}

// Of very many ids that nobody has, no more are kept; those of messages always are.
func TestThreadBoundsIDs(t *testing.T) {
	l := newLinks(0)
	known := l.named([]byte("known"))
	l.nodes = append(l.nodes, make([]link, maxMentioned)...)
	if n := l.mentioned([]byte("one more")); n != none {
		t.Errorf("one id too many is node %d", n)
	}
	if n := l.mentioned([]byte("known")); n != known {
		t.Errorf("a known id is node %d, want %d", n, known)
	}
	if n := l.own([]byte("a message's")); n == none {
		t.Error("no node for a message")
	}
}

// What sorts and threads waits until others are done with the memory, or nobody waits for it any more.
func TestGatheringWaits(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 3)
	h.must(h.gathered.Acquire(t.Context(), maxGathered-2))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Sort(gone, id, nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("sorted without memory: %v", err)
	}
	if _, err := h.Sort(t.Context(), id, set(1, 2), nil, nil); err != nil {
		t.Errorf("two are few enough: %v", err)
	}
	threads := make(chan int)
	go func() {
		list, _ := h.Thread(t.Context(), id, nil, ThreadRefs)
		threads <- len(list)
	}()
	h.gathered.Release(maxGathered - 2)
	if n := <-threads; n != 3 {
		t.Errorf("%d in threads", n)
	}
	if !h.gathered.TryAcquire(maxGathered) {
		t.Error("not all memory was given back")
	}
}

// Whatever answers whatever, each message is told once.
func FuzzThread(f *testing.F) {
	f.Add([]byte{1, 0, 2, 1, 3, 2})
	f.Add([]byte{2, 1, 1, 2})
	f.Fuzz(func(t *testing.T, pairs []byte) {
		for _, by := range []Algorithm{ThreadReferences, ThreadRefs} {
			th := newThreading(by, 0)
			th.subjects[digest{1}] = 1
			n := 0
			for i := 0; i+1 < len(pairs); i += 2 {
				th.try(i+1, int32(pairs[i]), int64(pairs[i+1]))
				th.all[n].subject, th.all[n].reply = int32(pairs[i+1]%2), pairs[i+1]%3 == 0
				n++
			}
			told := 0
			for _, node := range th.forest() {
				if node.UID != 0 {
					told++
				} else if node.Children < 2 {
					t.Errorf("a message that is not there, with %d children", node.Children)
				}
			}
			if told != n {
				t.Errorf("%d of %d messages", told, n)
			}
		}
	})
}
