package gate

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"postroad/internal/store"
)

// A ban is stored under its network, as text.
const tableBans = "gb"

func banKey(p netip.Prefix) store.Key { return store.NewKey(tableBans).Text(p.String()) }

type banRecord struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
	Count  int       `json:"count,omitempty"`
	By     string    `json:"by"`
}

func readBans(st Store) (list []Ban, err error) {
	all := store.NewKey(tableBans)
	err = st.View(func(r store.Reader) error {
		list = nil
		for k, v := range r.Scan(all, all.End()) {
			ban, err := parseBan(k[len(all):], v)
			if err != nil {
				return err
			}
			list = append(list, ban)
		}
		return nil
	})
	return list, err
}

func parseBan(key, value []byte) (Ban, error) {
	text, _ := store.TakeText(key)
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return Ban{}, fmt.Errorf("ban %q: %w: %w", text, store.ErrRecord, err)
	}
	var rec banRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return Ban{}, fmt.Errorf("ban %q: %w: %w", text, store.ErrRecord, err)
	}
	return Ban{network, rec.Since, rec.Until, rec.Reason, rec.Count, rec.By}, nil
}

// write brings the store up to date with the list. What fails is to be written the next time.
func (b *Bans) write() error {
	b.writing.Lock()
	defer b.writing.Unlock()
	for {
		batch := b.takePending()
		if len(batch) == 0 {
			return nil
		}
		if err := b.st.Update(func(tx store.Tx) error { return putBans(tx, batch) }); err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, c := range batch {
				b.pending[c.network] = true
			}
			return fmt.Errorf("write the bans: %w", err)
		}
	}
}

// change is a ban as it is to be stored, or nil when it is not to be there.
type change struct {
	network netip.Prefix
	ban     *Ban
}

// takePending takes what is to be written, as much as fits into one transaction.
func (b *Bans) takePending() (batch []change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for p := range b.pending {
		c := change{network: p}
		if ban, ok := b.list[p]; ok {
			c.ban = &ban
		}
		batch = append(batch, c)
		delete(b.pending, p)
		if len(batch) == writeMost {
			break
		}
	}
	return batch
}

func putBans(tx store.Tx, batch []change) error {
	for _, c := range batch {
		if c.ban == nil {
			tx.Delete(banKey(c.network))
			continue
		}
		v, err := json.Marshal(banRecord{c.ban.Since, c.ban.Until, c.ban.Reason, c.ban.Count, c.ban.By})
		if err != nil {
			return err
		}
		tx.Put(banKey(c.network), v)
	}
	return nil
}
