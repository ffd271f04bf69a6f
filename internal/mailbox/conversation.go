package mailbox

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"postroad/internal/mime"
	"postroad/internal/store"
)

// Each message has a thread ID from its arrival on (RFC 8474, 5.2): that of the messages that it refers to, which is the
// hash of the first one's Message-ID. The table mt knows the thread of those for which that is not so, which are replies. It
// is needed for replies to them that name no other message.
//
//	mt  owner, generation, hash of a Message-ID    the message's thread
//
// A generation has 50,000 entries. All of the last two are kept; older ones go, a few with each new entry.
const (
	generation = 50_000
	dropAtOnce = 16
	maxAsked   = 5 // messages referred to that are looked up: the first and the last ones
)

func threadsOf(o Owner, generation int64) store.Key {
	return store.NewKey("mt").Uint(uint64(o)).Uint(uint64(generation))
}

func threadKey(o Owner, generation int64, message uint64) store.Key {
	return threadsOf(o, generation).Uint(message)
}

// conversation returns the thread of an arriving message, and remembers what later ones need.
func (e *edit) conversation(a *Arrival) (uint64, error) {
	st, err := mime.Open(a.Structure)
	if err != nil {
		return uint64(a.Body), nil // it belongs to none that we know
	}
	own := st.MessageID()
	asked := ends(slices.Collect(st.References()))
	switch {
	case len(asked) > 0:
	case len(own) > 0:
		return hashOf(own), nil
	default:
		return uint64(a.Body), nil
	}
	u, err := loadUsage(e.tx, e.box.Owner)
	if err != nil {
		return 0, err
	}
	thread := known(e.tx, e.box.Owner, u.threads/generation, asked)
	if len(own) > 0 && hashOf(own) != thread {
		e.remember(u.threads, hashOf(own), thread)
	}
	return thread, nil
}

// ends returns the first of ids and the last ones.
func ends(ids [][]byte) [][]byte {
	if len(ids) <= maxAsked {
		return ids
	}
	return append(ids[:1], ids[len(ids)-maxAsked+1:]...)
}

// known returns the thread that messages belong to, of which at least one is given.
func known(r store.Reader, o Owner, now int64, ids [][]byte) uint64 {
	for _, id := range ids {
		for g := now; g >= max(now-1, 0); g-- {
			if v := r.Get(threadKey(o, g, hashOf(id))); len(v) == 8 {
				return lastUint(v)
			}
		}
	}
	return hashOf(ids[0])
}

// remember adds an entry. n is how many there ever were.
func (e *edit) remember(n int64, message, thread uint64) {
	o, g := e.box.Owner, n/generation
	e.tx.Put(threadKey(o, g, message), binary.BigEndian.AppendUint64(nil, thread))
	e.used.threads++
	if g >= 2 {
		dropKeys(e.tx, threadsOf(o, g-2), dropAtOnce)
	}
}

func hashOf(id []byte) uint64 {
	sum := sha256.Sum256(id)
	return max(lastUint(sum[:8]), 1)
}

// conversations holds what is known of threads against how much of it there ever was.
func (c *checker) conversations() {
	type place struct{ owner, generation uint64 }
	found := map[place]int64{}
	for k, v := range c.table("mt") {
		owner, rest := store.TakeUint(k)
		g, _ := store.TakeUint(rest)
		found[place{owner, g}]++
		if len(v) != 8 {
			c.problem(fmt.Sprintf("owner %d", owner), "the thread of a message cannot be read")
		}
	}
	for p, n := range found {
		u, err := loadUsage(c.r, Owner(p.owner))
		if has := u.threads - int64(p.generation)*generation; err == nil && n > has {
			c.problem(fmt.Sprintf("owner %d", p.owner), "generation %d of threads has %d entries, and there were never more than %d", p.generation, n, max(has, 0))
		}
	}
}
