package mailauth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"postroad/internal/dns"
	"postroad/internal/store"
)

// How often the record of a key in a state is looked for.
var every = map[KeyState]time.Duration{
	Waiting: 5 * time.Minute,
	Active:  6 * time.Hour,
	Old:     24 * time.Hour,
	Retired: 24 * time.Hour,
}

const (
	longest   = 24 * time.Hour // without a look at what there is
	shortest  = time.Second
	oneLookup = 20 * time.Second
)

// Run looks for the records of keys until ctx is done, and moves keys on: those that wait, once the DNS has them; those that
// are old, once their time is up; those that are retired, once their record is gone.
func (k *Keys) Run(ctx context.Context) {
	for {
		next, err := k.check(ctx, "", false)
		if err != nil && ctx.Err() == nil {
			k.cfg.Log.Error("DKIM keys cannot be looked after", "err", err)
		}
		t := time.NewTimer(min(max(next.Sub(k.cfg.Now()), shortest), longest))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-k.wake:
			t.Stop()
		case <-t.C:
		}
	}
}

// Check looks for the records of a domain's keys now, of all domains when it is empty, and returns what they are then.
func (k *Keys) Check(ctx context.Context, domain string) ([]Key, error) {
	if _, err := k.check(k.anew(ctx), domain, true); err != nil {
		return nil, err
	}
	return k.List(domain)
}

// anew returns a context in which the DNS is asked, whatever it said before: who publishes a record and has it looked for
// is not to be told for minutes that it is not there.
func (k *Keys) anew(ctx context.Context) context.Context { return dns.NotBefore(ctx, k.cfg.Now()) }

// check looks for the records that are due, or for all, and returns when the next one is.
func (k *Keys) check(ctx context.Context, domain string, all bool) (next time.Time, err error) {
	next = k.cfg.Now().Add(longest)
	rows, err := k.rows(domain)
	if err != nil {
		return k.cfg.Now().Add(time.Minute), err
	}
	for _, r := range rows {
		key := r.Key
		if all || !k.cfg.Now().Before(due(&key)) {
			seen := k.look(ctx, &key)
			if ctx.Err() != nil {
				return next, ctx.Err()
			}
			if key, err = k.note(key, seen); err != nil {
				return k.cfg.Now().Add(time.Minute), err
			}
		}
		if at := due(&key); at.Before(next) {
			next = at
		}
	}
	return next, nil
}

// due is when a key's record is looked for again.
func due(k *Key) time.Time {
	at := k.Checked.Add(every[k.State])
	if k.State == Old && k.Until.Before(at) {
		return k.Until
	}
	return at
}

// sight is what a look at the DNS showed.
type sight struct {
	found   bool   // the key's record, and nothing that stands in its way
	gone    bool   // there is surely no record
	finding string // what is wrong, in words
}

// look asks the DNS for a key's record.
func (k *Keys) look(ctx context.Context, key *Key) sight {
	ctx, cancel := context.WithTimeout(ctx, oneLookup)
	defer cancel()
	answer, err := k.cfg.Resolver.LookupTXT(ctx, key.Name())
	switch {
	case errors.Is(err, dns.ErrNotFound):
		return sight{gone: true, finding: "the DNS has no record " + key.Name()}
	case err != nil:
		return sight{finding: "the record cannot be looked up: " + err.Error()}
	case len(answer.Records) > 1:
		return sight{finding: fmt.Sprintf("the DNS has %d records %s, and one is allowed", len(answer.Records), key.Name())}
	}
	record, err := parseKey(answer.Records[0])
	switch {
	case err != nil:
		return sight{finding: "of the record " + key.Name() + ": " + err.Error()}
	case !bytes.Equal(marshalPublic(record.public), key.Public):
		return sight{finding: "the record " + key.Name() + " is of another key"}
	}
	return sight{found: true}
}

func marshalPublic(public any) []byte {
	switch p := public.(type) {
	case ed25519.PublicKey:
		return p
	case *rsa.PublicKey:
		der, _ := x509.MarshalPKIXPublicKey(p) // nil equals no key
		return der
	}
	return nil
}

// note writes down what was seen of a key, and what follows from it. A key that has changed meanwhile is left alone.
func (k *Keys) note(key Key, seen sight) (now Key, err error) {
	var moved []Key
	err = k.cfg.Store.Update(func(tx store.Tx) error {
		moved = nil
		now = key
		r, ok, err := rowAt(tx, key.Domain, key.Selector)
		if err != nil || !ok || r.State != key.State {
			return err
		}
		r.Checked, r.Finding = k.cfg.Now(), seen.finding
		if moved, err = k.move(tx, &r, seen); err == nil {
			now = r.Key
		}
		return err
	})
	if err != nil {
		return now, err
	}
	if len(moved) > 0 {
		k.changed()
	}
	k.tell(key, now, moved)
	return now, nil
}

func rowAt(r store.Reader, domain, selector string) (one row, ok bool, err error) {
	v := r.Get(rowKey(domain, selector))
	if v == nil {
		return one, false, nil
	}
	if json.Unmarshal(v, &one) != nil {
		return one, false, fmt.Errorf("DKIM keys: %w", store.ErrRecord)
	}
	return one, true, nil
}

// move puts r into the state that follows from what was seen, and returns all keys that changed theirs.
func (k *Keys) move(tx store.Tx, r *row, seen sight) (moved []Key, err error) {
	now := k.cfg.Now()
	switch {
	case r.State == Waiting && seen.found:
		if moved, err = k.relieve(tx, r); err != nil {
			return nil, err
		}
		r.State, r.Since = Active, now
		moved = append(moved, r.Key)
	case r.State == Old && !now.Before(r.Until):
		r.State, r.Since, r.Until, r.Private, r.Finding = Retired, now, time.Time{}, nil, ""
		moved = append(moved, r.Key)
	case r.State == Retired && seen.gone:
		tx.Delete(rowKey(r.Domain, r.Selector))
		return nil, nil
	case r.State == Retired:
		r.Finding = ""
	}
	putRow(tx, r)
	return moved, nil
}

// relieve makes old the keys whose place a new one takes.
func (k *Keys) relieve(tx store.Tx, by *row) (moved []Key, err error) {
	rows, err := readRows(tx, store.NewKey("dk").Text(by.Domain))
	if err != nil {
		return nil, err
	}
	for i := range rows {
		r := &rows[i]
		if r.State != Active || r.Algorithm != by.Algorithm || r.Selector == by.Selector {
			continue
		}
		r.State, r.Since, r.Until = Old, k.cfg.Now(), k.cfg.Now().Add(k.cfg.Keep)
		putRow(tx, r)
		moved = append(moved, r.Key)
	}
	return moved, nil
}

// tell logs what has become of keys.
func (k *Keys) tell(before, now Key, moved []Key) {
	for _, m := range moved {
		words := map[KeyState]string{
			Active: "a DKIM key signs from now on", Old: "a DKIM key signs no more; its record must stay",
			Retired: "the record of a DKIM key may be removed",
		}
		k.cfg.Log.Info(words[m.State], "domain", m.Domain, "selector", m.Selector, "algorithm", string(m.Algorithm), "record", m.Name())
	}
	if now.State == Active && now.Finding != "" && before.Finding == "" {
		k.cfg.Log.Warn("mail is signed with a key that nobody can look up", "domain", now.Domain, "selector", now.Selector, "err", now.Finding)
	}
}

// Trouble says what of the key needs a person, or nothing.
func (k *Key) Trouble(now time.Time) string {
	name := k.Selector + " of " + k.Domain
	switch {
	case k.State == Waiting && k.Finding != "" && now.Sub(k.Made) > time.Hour:
		return name + " does not sign yet: " + k.Finding
	case k.State == Active && k.Finding != "":
		return name + " signs, and nobody can verify it: " + k.Finding
	case k.State == Old && k.Finding != "":
		return name + " has signed what is still on its way: " + k.Finding
	case k.State == Retired:
		return name + " is no longer used: remove the record " + k.Name() + " from the DNS"
	}
	return ""
}
