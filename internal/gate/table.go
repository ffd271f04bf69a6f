package gate

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// remembered is how many addresses there are in the tables; of networks and accounts half as many.
const remembered = 1 << 16

// shards share the addresses out, each with a lock of its own. An address and its network are in the same one.
const shards = 16

const (
	networkFactor = 5  // what a network may do, of what an address may
	knownFactor   = 10 // the same of who is known good
	goodFor       = 30 * 24 * time.Hour
)

// entry is what is remembered of an address, a network or an account. Times are those of the gate's clock.
type entry struct {
	buckets [measures]bucket
	known   int64 // until when it is known good: it has logged in
	behaved int64 // until when it is no stranger
}

// factor is how many times the limit is allowed.
func (e *entry) factor(now int64) int {
	if e.known > now {
		return knownFactor
	}
	return 1
}

// table is a map of bounded size that forgets what was not asked for in a long while.
type table[K comparable] struct {
	most       int // of young and old together
	young, old map[K]*entry
}

// get returns the entry of k, which is made when it is not there.
func (t *table[K]) get(k K) *entry {
	if e, ok := t.young[k]; ok {
		return e
	}
	e, ok := t.old[k]
	if ok {
		delete(t.old, k)
	} else {
		e = &entry{}
	}
	if t.young == nil || len(t.young) >= t.most/2 {
		t.young, t.old = map[K]*entry{}, t.young
	}
	t.young[k] = e
	return e
}

func (t *table[K]) len() int { return len(t.young) + len(t.old) }

// shard is a part of the addresses with their networks.
type shard struct {
	mu        sync.Mutex // guards what follows
	addresses table[netip.Prefix]
	networks  table[netip.Prefix]
	open      map[netip.Prefix]int // connections by network
}

func newShard() shard {
	return shard{
		addresses: table[netip.Prefix]{most: remembered / shards},
		networks:  table[netip.Prefix]{most: remembered / shards / 2},
		open:      map[netip.Prefix]int{},
	}
}

// source is what an address is counted as.
type source struct{ address, network netip.Prefix }

func sourceOf(a netip.Addr) (s source) {
	if a.Is4() {
		s.address, _ = a.Prefix(32)
		s.network, _ = a.Prefix(24)
		return s
	}
	s.address, _ = a.Prefix(64)
	s.network, _ = a.Prefix(48)
	return s
}

// view is what is remembered of a source, while its shard is locked.
type view struct {
	g                *Gate
	now              int64
	shard            *shard
	address, network *entry
}

func (p *Pass) state() view { return p.g.state(p.source) }

func (g *Gate) clock() int64 { return int64(g.now().Sub(g.born)) }

// state locks what is remembered of a source. The caller unlocks it.
func (g *Gate) state(s source) view {
	sh := &g.shards[maphash.Comparable(g.seed, s.network)%shards]
	sh.mu.Lock()
	return view{g, g.clock(), sh, sh.addresses.get(s.address), sh.networks.get(s.network)}
}

func (v view) unlock() { v.shard.mu.Unlock() }

func (v view) addressFactor() int { return v.address.factor(v.now) }
func (v view) networkFactor() int { return v.network.factor(v.now) * networkFactor }

// take counts n against address and network, when both have room.
func (v view) take(m measure, n float64) bool {
	r := v.g.rules[m]
	if !v.network.buckets[m].room(v.now, r, n, v.networkFactor()) {
		return false
	}
	ok := v.address.buckets[m].take(v.now, r, n, v.addressFactor())
	if ok {
		v.network.buckets[m].pour(v.now, r, n, v.networkFactor())
	}
	return ok
}

// pour counts n against address and network.
func (v view) pour(m measure, n int64) {
	r := v.g.rules[m]
	v.address.buckets[m].pour(v.now, r, float64(n), v.addressFactor())
	v.network.buckets[m].pour(v.now, r, float64(n), v.networkFactor())
}

// drain takes n back.
func (v view) drain(m measure, n int) {
	r := v.g.rules[m]
	if r.most <= 0 {
		return
	}
	v.address.buckets[m].drain(v.now, r, float64(n), v.addressFactor())
	v.network.buckets[m].drain(v.now, r, float64(n), v.networkFactor())
}

// reached reports whose limit has been reached: nothing more fits in.
func (v view) reached(m measure) (address, network bool) {
	r := v.g.rules[m]
	return !v.address.buckets[m].room(v.now, r, 1, v.addressFactor()),
		!v.network.buckets[m].room(v.now, r, 1, v.networkFactor())
}

// full reports whether the limit of either has been reached.
func (v view) full(m measure) bool {
	address, network := v.reached(m)
	return address || network
}

func (v view) behaved() { v.address.behaved = v.now + int64(goodFor) }

func (v view) good() {
	v.address.known = v.now + int64(goodFor)
	v.network.known = v.address.known
}
