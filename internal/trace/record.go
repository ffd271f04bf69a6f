package trace

import (
	"fmt"
	"time"

	"postroad/internal/store"
)

const (
	table         = "tr"
	recordVersion = 2
)

func eventKey(id store.ID, at uint64) store.Key {
	return store.NewKey(table).Uint(uint64(id)).Uint(at)
}

// encode writes all but the id and the time, which are the key.
func (e *Event) encode() []byte {
	b := make(store.Encoder, 0, 256)
	b.Uint(recordVersion)
	b.Text(string(e.Kind))
	b.Text(e.From)
	putTexts(&b, e.To)
	putTexts(&b, e.Given)
	b.Int(e.Size)
	b.Uint(uint64(e.UID))
	for _, s := range e.texts() {
		b.Text(*s)
	}
	return b
}

// texts are the fields of text that most events have not, in the order in which they are kept.
func (e *Event) texts() [11]*string {
	return [...]*string{
		&e.MessageID, &e.Protocol, &e.Peer, &e.TLS, &e.Account, &e.Reply, &e.Mailbox, &e.By, &e.Next, &e.Related, &e.Dialogue,
	}
}

func putTexts(b *store.Encoder, texts []string) {
	b.Uint(uint64(len(texts)))
	for _, s := range texts {
		b.Text(s)
	}
}

func takeTexts(d *store.Decoder) []string {
	n := d.Count()
	if n == 0 {
		return nil
	}
	texts := make([]string, n)
	for i := range texts {
		texts[i] = d.Text()
	}
	return texts
}

func decode(k, v []byte) (Event, error) {
	id, at := store.TakeUint(k[len(table):])
	nanoseconds, _ := store.TakeUint(at)
	d := store.NewDecoder(v)
	version := d.Uint()
	e := Event{ID: store.ID(id), Time: time.Unix(0, int64(nanoseconds)), Kind: Kind(d.Text()), From: d.Text()}
	e.To, e.Given = takeTexts(d), takeTexts(d)
	e.Size, e.UID = d.Int(), uint32(d.Uint())
	for _, s := range e.texts() {
		*s = d.Text()
	}
	if d.Err() != nil || version != recordVersion {
		return e, fmt.Errorf("trace of %s: %w", e.ID, store.ErrRecord)
	}
	return e, nil
}
