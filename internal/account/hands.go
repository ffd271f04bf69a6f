package account

import (
	"net/netip"
	"slices"
	"time"

	"postroad/internal/store"
)

// maxHands bounds the networks that are kept for one account.
const maxHands = 200

// handsKey begins the keys of an account's old hands; its name is its address in canonical form.
func handsKey(name string) store.Key { return store.NewKey("ak").Text(name) }

func handKey(name string, net netip.Prefix) store.Key { return handsKey(name).Text(net.String()) }

// KnownUntil is how long the account of that name knows a network that logged in to it, and zero when it does not. It
// makes a Directory the memory of a Guard.
func (d *Directory) KnownUntil(name string, net netip.Prefix) (until time.Time) {
	_ = d.st.View(func(r store.Reader) error { // who cannot be looked up is a stranger
		until = untilOf(r.Get(handKey(name, net)))
		return nil
	})
	return until
}

func untilOf(v []byte) time.Time {
	if len(v) != 8 {
		return time.Time{}
	}
	n, _ := store.TakeUint(v)
	return time.Unix(int64(n), 0)
}

// Know keeps that a network logged in to the account of that name. The networks that are no longer known are
// dropped then, and beyond 200 the one that is known for the shortest time.
func (d *Directory) Know(name string, net netip.Prefix, until time.Time) {
	_ = d.st.Update(func(tx store.Tx) error { // a login does not fail because this does
		for _, k := range staleHands(tx, handsKey(name), d.now()) {
			tx.Delete(k)
		}
		tx.Put(handKey(name, net), store.Key{}.Uint(uint64(until.Unix())))
		return nil
	})
}

// staleHands are the keys to drop so that there is room for one more.
func staleHands(r store.Reader, from store.Key, now time.Time) (stale [][]byte) {
	type hand struct {
		key   []byte
		until time.Time
	}
	var rest []hand
	for k, v := range r.Scan(from, from.End()) {
		h := hand{slices.Clone(k), untilOf(v)}
		if h.until.After(now) {
			rest = append(rest, h)
		} else {
			stale = append(stale, h.key)
		}
	}
	if len(rest) >= maxHands {
		stale = append(stale, slices.MinFunc(rest, func(a, b hand) int { return a.until.Compare(b.until) }).key)
	}
	return stale
}
