package tlspolicy

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"postroad/internal/store"
)

// How much is kept. Beyond it, what is worth least is forgotten, some at once.
const (
	maxPolicies = 10_000
	maxMemories = 100_000
)

// table is a table of the store that is keyed by domain and bounded.
type table struct {
	name  string
	most  int64
	count atomic.Int64 // of records that are committed
}

// open counts the records.
func (t *table) open(st Store) error {
	all := store.NewKey(t.name)
	return st.View(func(r store.Reader) error {
		n := int64(0)
		for range r.Scan(all, all.End()) {
			n++
		}
		t.count.Store(n)
		return nil
	})
}

func (t *table) key(domain string) store.Key { return store.NewKey(t.name).Text(domain) }

// put sets a domain's record. worth reads what a record is worth: the lowest are forgotten when there is no room.
func (t *table) put(tx store.Tx, domain string, value []byte, worth func(value []byte) int64) {
	key := t.key(domain)
	if tx.Get(key) == nil {
		if t.count.Load() >= t.most {
			t.makeRoom(tx, worth)
		}
		tx.OnCommit(func() { t.count.Add(1) })
	}
	tx.Put(key, value)
}

// makeRoom forgets a hundredth of all records.
func (t *table) makeRoom(tx store.Tx, worth func(value []byte) int64) {
	type entry struct {
		key   []byte
		worth int64
	}
	var all []entry
	from := store.NewKey(t.name)
	for k, v := range tx.Scan(from, from.End()) {
		all = append(all, entry{slices.Clone(k), worth(v)})
	}
	slices.SortFunc(all, func(a, b entry) int { return int(min(max(a.worth-b.worth, -1), 1)) })
	n := min(len(all), int(t.most/100)+1)
	for _, e := range all[:n] {
		tx.Delete(e.key)
	}
	tx.OnCommit(func() { t.count.Add(int64(-n)) })
}

// drop removes a domain's record, and reports whether there was one.
func (t *table) drop(tx store.Tx, domain string) bool {
	key := t.key(domain)
	if tx.Get(key) == nil {
		return false
	}
	tx.Delete(key)
	tx.OnCommit(func() { t.count.Add(-1) })
	return true
}

// pageSize is how many records are read in one transaction of the store.
const pageSize = 100

// page returns the records after a domain, in order; fewer than pageSize are the last.
func (t *table) page(st Store, after string) (domains []string, values [][]byte, err error) {
	from, end := store.NewKey(t.name), store.NewKey(t.name).End()
	if after != "" {
		from = append(t.key(after), 0)
	}
	err = st.View(func(r store.Reader) error {
		domains, values = nil, nil
		for k, v := range r.Scan(from, end) {
			domain, _ := store.TakeText(k[len(t.name):])
			domains, values = append(domains, domain), append(values, slices.Clone(v))
			if len(domains) == pageSize {
				break
			}
		}
		return nil
	})
	return domains, values, err
}

// get returns a copy of a domain's record; nil when there is none.
func (t *table) get(st Store, domain string) (value []byte, err error) {
	err = st.View(func(r store.Reader) error {
		value = slices.Clone(r.Get(t.key(domain)))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what is known of the TLS of %s: %w", domain, err)
	}
	return value, nil
}

// walk calls fn with each record, a copy, and drops those for which it says so. Then it knows again how many there are,
// whoever else writes here.
func (t *table) walk(ctx context.Context, st Store, fn func(domain string, record []byte) (drop bool)) error {
	n := 0
	for after := ""; ctx.Err() == nil; {
		domains, values, err := t.page(st, after)
		if err != nil {
			return err
		}
		n += len(domains)
		old := make(map[string][]byte)
		for i, domain := range domains {
			if fn(domain, values[i]) {
				old[domain] = values[i]
			}
		}
		if err := t.dropUnchanged(st, old); err != nil {
			return err
		}
		n -= len(old)
		if len(domains) < pageSize {
			t.count.Store(int64(n))
			return nil
		}
		after = domains[len(domains)-1]
	}
	return ctx.Err()
}

// dropUnchanged removes records that are still as they were.
func (t *table) dropUnchanged(st Store, old map[string][]byte) error {
	if len(old) == 0 {
		return nil
	}
	return st.UpdateSoon(func(tx store.Tx) error {
		for domain, value := range old {
			if bytes.Equal(tx.Get(t.key(domain)), value) {
				t.drop(tx, domain)
			}
		}
		return nil
	})
}
