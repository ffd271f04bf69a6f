package mailbox

import (
	"cmp"
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// Algorithm is a way to find out which messages answer which.
type Algorithm uint8

// The threading algorithms.
const (
	OrderedSubject   Algorithm = iota // by subject only (RFC 5256)
	ThreadReferences                  // by ids, then by subject (RFC 5256)
	ThreadRefs                        // by ids only, the thread with the newest message last (draft-ietf-morg-inthread)
)

// A ThreadNode is a message in its place in a forest of threads.
type ThreadNode struct {
	UID      UID    // 0 is a message that is not there, which only stands at the top
	Children uint32 // they follow, each with what is below it
}

// Thread returns the messages of uids as threads: each message, then those that answer it and what is below them. It
// reads in pages and can be cancelled. Time is linear in messages and references, but for sorting, whatever the references
// say. Its memory is some 200 octets a message, and 50 for each of the first 2,000,000 ids that no message has; as with
// Sort it waits until that is there. ErrNotFound.
func (s *Service) Thread(ctx context.Context, id ID, uids *roaring.Bitmap, a Algorithm) ([]ThreadNode, error) {
	n, leave, err := s.gathering(ctx, id, uids)
	if err != nil {
		return nil, err
	}
	defer leave()
	t := newThreading(a, n)
	for item, err := range s.Read(id, uids, Notes) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		t.add(item)
	}
	return t.forest(), ctx.Err()
}

// none is no message.
const none = -1

// A threading is messages that are being threaded, by numbers: first the messages in order of UID, then those that are
// not there and keep several threads together at the top.
type threading struct {
	by       Algorithm
	links    links
	subjects map[digest]int32 // base subjects, as numbers; the empty one is 0
	all      []threaded
	messages int // how many are there
	folder   folder
	key      []byte
}

// A threaded is one message among threads.
type threaded struct {
	uid     UID   // 0 when it is not there; then what follows is its first child's
	first   int32 // it or its first child
	parent  int32
	subject int32
	reply   bool
	sent    int64
	arrived int64
}

// newThreading is for some n messages.
func newThreading(by Algorithm, n int) *threading {
	t := &threading{by: by, links: newLinks(0), all: make([]threaded, 0, n)}
	if by != OrderedSubject {
		t.links = newLinks(n)
	}
	t.subjects = map[digest]int32{t.links.digester.of(nil): 0}
	return t
}

func (t *threading) add(item *Item) {
	m := threaded{
		uid: item.UID, first: int32(len(t.all)), parent: none,
		sent: sentDate(item), arrived: item.Internal.Unix(),
	}
	if t.by != ThreadRefs {
		m.subject, m.reply = t.subject(item.Stored.Subject())
	}
	if t.by != OrderedSubject {
		t.links.add(item)
	}
	t.all = append(t.all, m)
	t.messages++
}

func (t *threading) subject(subject []byte) (int32, bool) {
	var reply bool
	t.key, reply = subjectKey(&t.folder, t.key[:0], subject)
	d := t.links.digester.of(t.key)
	n, ok := t.subjects[d]
	if !ok {
		n = int32(len(t.subjects))
		t.subjects[d] = n
	}
	return n, reply
}

// forest makes the threads and puts them in order.
func (t *threading) forest() []ThreadNode {
	switch t.by {
	case OrderedSubject:
		t.bySubject()
	case ThreadReferences:
		t.byReferences()
		t.gather()
	case ThreadRefs:
		t.byReferences()
	}
	return t.list()
}

// bySubject makes the first message of each subject the parent of the others.
func (t *threading) bySubject() {
	heads := t.heads()
	for _, n := range t.bySent() {
		if head := &heads[t.all[n].subject]; *head == none {
			*head = n
		} else {
			t.all[n].parent = *head
		}
	}
}

// heads is a table of subjects without a message.
func (t *threading) heads() []int32 {
	return slices.Repeat([]int32{none}, len(t.subjects))
}

// bySent returns the messages in order of the dates when they were sent.
func (t *threading) bySent() []int32 {
	order := make([]int32, t.messages)
	for i := range order {
		order[i] = int32(i)
	}
	t.sortBySent(order)
	return order
}

func (t *threading) sortBySent(list []int32) {
	slices.SortFunc(list, func(a, b int32) int {
		x, y := &t.all[a], &t.all[b]
		return cmp.Or(cmp.Compare(x.sent, y.sent), cmp.Compare(x.first, y.first))
	})
}

// byReferences gives each message the parent that the ids say (steps 1 to 3). A message that is not there stays only
// at the top, and only when it keeps several threads together.
func (t *threading) byReferences() {
	parents := t.links.nearest()
	missing := map[int32]int32{} // how many children have those of the parents that are not there
	for _, p := range parents {
		if t.links.missing(p) {
			missing[p]++
		}
	}
	places := map[int32]int32{}
	for i, p := range parents {
		switch {
		case p == none:
		case !t.links.missing(p):
			t.all[i].parent = t.links.nodes[p].message
		case missing[p] > 1:
			if _, ok := places[p]; !ok {
				places[p] = t.absent()
			}
			t.all[i].parent = places[p]
		}
	}
	t.represent()
}

// absent adds a message that is not there.
func (t *threading) absent() int32 {
	t.all = append(t.all, threaded{first: none, parent: none})
	return int32(len(t.all) - 1)
}

// represent gives each message that is not there what its first child has.
func (t *threading) represent() {
	for i := t.messages; i < len(t.all); i++ {
		t.all[i].first = none
	}
	for i := range t.messages {
		m := &t.all[i]
		if m.parent < int32(t.messages) {
			continue
		}
		p := &t.all[m.parent]
		if p.first == none || m.sent < p.sent {
			p.first, p.subject, p.reply, p.sent = int32(i), m.subject, m.reply, m.sent
		}
	}
}

// top returns what stands at the top, in order.
func (t *threading) top() (top []int32) {
	for i := range t.all {
		if m := &t.all[i]; m.parent == none && m.first != none {
			top = append(top, int32(i))
		}
	}
	t.sortBySent(top)
	return top
}

// gather puts threads of one subject together (steps 4 and 5 of REFERENCES).
func (t *threading) gather() {
	top, heads := t.top(), t.heads()
	for _, n := range top {
		if head := &heads[t.all[n].subject]; *head == none || t.leads(n, *head) {
			*head = n
		}
	}
	merged := map[int32]int32{} // messages that are not there, and those whose children they gave theirs to
	for _, n := range top {
		head := &heads[t.all[n].subject]
		if t.all[n].subject == 0 || *head == n {
			continue
		}
		if t.all[n].uid == 0 {
			merged[n] = *head // which is not there either: it would not lead otherwise
			continue
		}
		*head = t.join(*head, n)
	}
	for i := range t.messages {
		if head, ok := merged[t.all[i].parent]; ok {
			t.all[i].parent = head
		}
	}
	t.represent()
}

// leads reports whether a message is a better head of its subject's threads than another.
func (t *threading) leads(n, other int32) bool {
	m, o := &t.all[n], &t.all[other]
	return o.uid != 0 && (m.uid == 0 || o.reply && !m.reply)
}

// join puts a thread to the head of its subject's threads, and returns the head.
func (t *threading) join(head, n int32) int32 {
	h, m := &t.all[head], &t.all[n]
	if h.uid == 0 || m.reply && !h.reply {
		m.parent = head
		return head
	}
	both := t.absent()
	t.all[head].parent, t.all[n].parent = both, both
	return both
}

// list writes the threads one after the other (step 6). It does not recurse, however deep they are.
func (t *threading) list() []ThreadNode {
	children := t.children()
	threads := make([]thread, 0, len(t.all))
	out := make([]ThreadNode, 0, len(t.all))
	var stack []int32
	for _, n := range t.top() {
		thread := thread{from: len(out), newest: t.all[t.all[n].first].arrived}
		for stack = append(stack[:0], n); len(stack) > 0; {
			n := stack[len(stack)-1]
			below := children.of(n)
			out = append(out, ThreadNode{t.all[n].uid, uint32(len(below))})
			if t.all[n].uid != 0 {
				thread.newest = max(thread.newest, t.all[n].arrived)
			}
			stack = stack[:len(stack)-1]
			for _, c := range slices.Backward(below) {
				stack = append(stack, c)
			}
		}
		thread.to = len(out)
		threads = append(threads, thread)
	}
	if t.by == ThreadRefs {
		return byNewest(out, threads)
	}
	return out
}

// A thread is a run of the list.
type thread struct {
	from, to int
	newest   int64
}

// byNewest puts threads in order of the newest message that each has.
func byNewest(list []ThreadNode, threads []thread) []ThreadNode {
	slices.SortStableFunc(threads, func(a, b thread) int { return cmp.Compare(a.newest, b.newest) })
	out := make([]ThreadNode, 0, len(list))
	for _, t := range threads {
		out = append(out, list[t.from:t.to]...)
	}
	return out
}

// An offspring is the children of each message, in order.
type offspring struct{ ends, list []int32 }

func (f offspring) of(n int32) []int32 {
	from := int32(0)
	if n > 0 {
		from = f.ends[n-1]
	}
	return f.list[from:f.ends[n]]
}

func (t *threading) children() offspring {
	counts := make([]int32, len(t.all)+1)
	for i := range t.messages {
		counts[t.all[i].parent+1]++ // that of those at the top is not used
	}
	f := offspring{ends: make([]int32, len(t.all))}
	sum := int32(0)
	for i := range f.ends {
		f.ends[i] = sum
		sum += counts[i+1]
	}
	f.list = make([]int32, sum)
	for _, n := range t.bySent() {
		if p := t.all[n].parent; p != none {
			f.list[f.ends[p]] = n
			f.ends[p]++
		}
	}
	return f
}
