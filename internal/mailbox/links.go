package mailbox

import "hash/maphash"

// links are the ids of messages and which is said to answer which (RFC 5256, REFERENCES, step 1). Its nodes are
// messages, and ids that only others mention.
type links struct {
	digester digester
	ids      map[digest]int32
	nodes    []link
	messages []int32 // their nodes, in order of UID
	steps    int     // that looking for loops may still take
}

type link struct {
	message  int32 // none when no message has the id
	parent   int32
	children bool // it has had some
}

// stepsPerMessage bounds how long loops are looked for. In honest mail threads are some hundred messages deep, and an
// answer seldom comes before what it answers.
const stepsPerMessage = 1000

// maxMentioned bounds the ids that only others mention. Honest mail has a few for each message; of more, those that come
// later are passed over.
const maxMentioned = 2_000_000

func newLinks(messages int) links {
	return links{
		digester: newDigester(),
		ids:      make(map[digest]int32, messages),
		nodes:    make([]link, 0, messages),
		messages: make([]int32, 0, messages),
	}
}

// A digest stands for a text. With its 128 bits, which nobody can foresee, two texts never have the same.
type digest [2]uint64

type digester [2]maphash.Seed

func newDigester() digester { return digester{maphash.MakeSeed(), maphash.MakeSeed()} }

func (d *digester) of(text []byte) digest {
	return digest{maphash.Bytes(d[0], text), maphash.Bytes(d[1], text)}
}

func (l *links) node() int32 {
	l.nodes = append(l.nodes, link{message: none, parent: none})
	return int32(len(l.nodes) - 1)
}

// named returns the node of an id.
func (l *links) named(id []byte) int32 {
	d := l.digester.of(id)
	n, ok := l.ids[d]
	if !ok {
		n = l.node()
		l.ids[d] = n
	}
	return n
}

// mentioned is named for an id that another message mentions; none when there are too many of them.
func (l *links) mentioned(id []byte) int32 {
	if len(l.nodes) < maxMentioned+2*len(l.messages) {
		return l.named(id)
	}
	if n, ok := l.ids[l.digester.of(id)]; ok {
		return n
	}
	return none
}

// missing reports whether a node is no message.
func (l *links) missing(n int32) bool { return n != none && l.nodes[n].message == none }

// add takes in a message and what it says of others. Each id of References answers the one before it, unless an
// earlier message said otherwise; the message itself answers the last.
func (l *links) add(item *Item) {
	l.steps += stepsPerMessage
	n := l.own(item.Stored.MessageID())
	l.nodes[n].message = int32(len(l.messages))
	l.messages = append(l.messages, n)
	last := int32(none)
	for id := range item.Stored.References() {
		next := l.mentioned(id)
		if next == none {
			continue
		}
		if last != none && l.nodes[next].parent == none {
			l.link(last, next)
		}
		last = next
	}
	if last != none {
		l.link(last, n)
	}
}

// own returns the node of a message. One without an id, or with that of an earlier message, has a node of its own.
func (l *links) own(id []byte) int32 {
	if len(id) == 0 {
		return l.node()
	}
	n := l.named(id)
	if !l.missing(n) {
		return l.node()
	}
	return n
}

// link makes a node the child of another, unless that would make a loop.
func (l *links) link(parent, child int32) {
	if l.leadsTo(parent, child) {
		return
	}
	l.nodes[child].parent = parent
	l.nodes[parent].children = true
}

// leadsTo reports whether going up from a node leads to another. When looking has taken too long the answer is yes.
func (l *links) leadsTo(node, other int32) bool {
	if node == other || !l.nodes[other].children {
		return node == other
	}
	for ; node != none && node != other && l.steps > 0; l.steps-- {
		node = l.nodes[node].parent
	}
	return node != none
}

// nearest returns for each message the nearest one above it, or if none is there the topmost id, or none.
func (l *links) nearest() []int32 {
	known := make([]int32, len(l.nodes)) // of ids without message; 0 is not known yet
	out := make([]int32, len(l.messages))
	var path []int32
	for i, n := range l.messages {
		at := l.nodes[n].parent
		path = path[:0]
		for l.missing(at) && known[at] == 0 && l.nodes[at].parent != none {
			path = append(path, at)
			at = l.nodes[at].parent
		}
		if l.missing(at) && known[at] != 0 {
			at = known[at] - 1
		}
		for _, p := range path {
			known[p] = at + 1
		}
		out[i] = at
	}
	return out
}
