package tlsrpt

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

const (
	table         = "tl"
	recordVersion = 1
)

// day is a number of days since 1970, in UTC.
type day uint64

func dayOf(t time.Time) day { return day(t.Unix() / 86_400) }

func (d day) start() time.Time { return time.Unix(int64(d)*86_400, 0).UTC() }

// key names the tally of one policy.
type key struct {
	day    day
	domain string
	policy uint64 // a hash
}

func (k key) store() store.Key { return domainKey(k.day, k.domain).Uint(k.policy) }

func dayKey(d day) store.Key                   { return store.NewKey(table).Uint(uint64(d)) }
func domainKey(d day, domain string) store.Key { return dayKey(d).Text(domain) }

// tally is what was counted of one policy on one day.
type tally struct {
	policy     Policy
	successful int64
	failed     int64
	details    []detail
}

// detail is one kind of failure; Reason is that of the first session.
type detail struct {
	failure       Failure
	local, mx, ip string
	reason        string
	count         int64
}

func (d *detail) same(e *detail) bool {
	return d.failure == e.failure && d.local == e.local && d.mx == e.mx && d.ip == e.ip
}

// Record counts a session. It never waits for the store.
func (r *Reports) Record(res Result) {
	if r == nil || res.Domain == "" || res.Domain[0] == '[' { // an address has no records
		return
	}
	res.Policy = res.Policy.bounded(res.Domain)
	k := key{dayOf(r.cfg.Now()), strings.ToLower(res.Domain), res.Policy.hash()}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.buffer[k]
	if t == nil && len(r.buffer) >= maxBuffered {
		r.dropped++
		return
	}
	if t == nil {
		t = &tally{policy: res.Policy}
		r.buffer[k] = t
	}
	t.count(&res)
	r.signal()
}

func (r *Reports) signal() {
	select {
	case r.counted <- struct{}{}:
	default:
	}
}

// bounded is a policy as it is kept.
func (p Policy) bounded(domain string) Policy {
	p.Domain = strings.ToLower(cmp.Or(p.Domain, domain))
	p.Strings, p.MX = boundedTexts(p.Strings), boundedTexts(p.MX)
	return p
}

func boundedTexts(list []string) []string {
	var all []string
	for _, s := range list[:min(len(list), maxStrings)] {
		all = append(all, envelope.Sanitize(s, maxLine))
	}
	return all
}

func (p *Policy) hash() uint64 {
	h := sha256.New()
	for _, s := range slices.Concat([]string{string(p.Type), p.Domain}, p.Strings, []string{""}, p.MX) {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

func (t *tally) count(res *Result) {
	if res.Failure == "" {
		t.successful++
		return
	}
	t.failed++
	d := detail{
		failure: res.Failure, mx: envelope.Sanitize(res.MX, 255), reason: envelope.Sanitize(res.Reason, maxLine), count: 1,
	}
	if res.Local.IsValid() {
		d.local = res.Local.Unmap().WithZone("").String()
	}
	if res.IP.IsValid() {
		d.ip = res.IP.Unmap().WithZone("").String()
	}
	t.add(d)
}

// add counts sessions of one kind of failure, where there is room for one more kind.
func (t *tally) add(d detail) {
	i := slices.IndexFunc(t.details, func(e detail) bool { return e.same(&d) })
	switch {
	case i >= 0:
		t.details[i].count += d.count
	case len(t.details) < maxDetails:
		t.details = append(t.details, d)
	}
}

func (t *tally) merge(u *tally) {
	t.successful += u.successful
	t.failed += u.failed
	for _, d := range u.details {
		t.add(d)
	}
}

func (t *tally) encode() []byte {
	b := make(store.Encoder, 0, 256)
	b.Uint(recordVersion)
	b.Text(string(t.policy.Type))
	b.Text(t.policy.Domain)
	for _, list := range [][]string{t.policy.Strings, t.policy.MX} {
		b.Uint(uint64(len(list)))
		for _, s := range list {
			b.Text(s)
		}
	}
	b.Int(t.successful)
	b.Int(t.failed)
	b.Uint(uint64(len(t.details)))
	for _, d := range t.details {
		for _, s := range []string{string(d.failure), d.local, d.mx, d.ip, d.reason} {
			b.Text(s)
		}
		b.Int(d.count)
	}
	return b
}

func decode(v []byte) (*tally, error) {
	d := store.NewDecoder(v)
	version := d.Uint()
	t := &tally{policy: Policy{Type: PolicyType(d.Text()), Domain: d.Text()}}
	for _, list := range []*[]string{&t.policy.Strings, &t.policy.MX} {
		for range d.Count() {
			*list = append(*list, d.Text())
		}
	}
	t.successful, t.failed = d.Int(), d.Int()
	for range d.Count() {
		t.details = append(t.details, detail{Failure(d.Text()), d.Text(), d.Text(), d.Text(), d.Text(), d.Int()})
	}
	if d.Err() != nil || version != recordVersion {
		return nil, fmt.Errorf("a count of TLS sessions: %w", store.ErrRecord)
	}
	return t, nil
}

// maxMerged bounds one transaction.
const maxMerged = 500

// flush writes what is in memory. What the store does not take is kept for the next time, and nothing is counted twice.
func (r *Reports) flush() {
	r.mu.Lock()
	buffer, dropped := r.buffer, r.dropped
	r.buffer, r.dropped = map[key]*tally{}, 0
	r.mu.Unlock()
	if dropped > 0 {
		r.cfg.Log.Warn("TLS sessions were not counted: too many destinations at once", "sessions", dropped)
	}
	keys := make([]key, 0, len(buffer))
	for k := range buffer {
		if k.day >= dayOf(r.cfg.Now().Add(-firstAfter/2)) { // of what is older, the report may have gone
			keys = append(keys, k)
		}
	}
	for piece := range slices.Chunk(keys, maxMerged) {
		err := r.cfg.Store.UpdateSoon(func(tx store.Tx) error {
			for _, k := range piece {
				if err := mergeInto(tx, k, buffer[k]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			r.cfg.Log.Error("TLS sessions are not counted", "err", err)
			if !errors.Is(err, store.ErrRecord) {
				r.putBack(piece, buffer)
			}
		}
	}
}

// putBack keeps what could not be written, as far as there is room.
func (r *Reports) putBack(keys []key, buffer map[key]*tally) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.signal()
	for _, k := range keys {
		switch t := r.buffer[k]; {
		case t != nil:
			t.merge(buffer[k])
		case len(r.buffer) < maxBuffered:
			r.buffer[k] = buffer[k]
		}
	}
}

// mergeInto adds a tally to what the store has, within the bounds on a day and a domain.
func mergeInto(tx store.Tx, k key, t *tally) error {
	if v := tx.Get(k.store()); v != nil {
		kept, err := decode(v)
		if err != nil {
			return err
		}
		kept.merge(t)
		tx.Put(k.store(), kept.encode())
		return nil
	}
	policies := 0
	for range tx.Scan(domainKey(k.day, k.domain), domainKey(k.day, k.domain).End()) {
		policies++
	}
	if policies >= maxPolicies || policies == 0 && !anotherDomain(tx, k.day) {
		return nil
	}
	tx.Put(k.store(), t.encode())
	return nil
}

// anotherDomain counts a day's domains, and reports whether there is room for one more.
func anotherDomain(tx store.Tx, d day) bool {
	n := store.NewDecoder(tx.Get(dayKey(d))).Uint()
	if n >= maxDomains {
		return false
	}
	var b store.Encoder
	b.Uint(n + 1)
	tx.Put(dayKey(d), b)
	return true
}
