package mailbox

import (
	"encoding/binary"
	"fmt"
	"time"

	"postroad/internal/store"
)

// recordVersion is the first field of the records written here.
const recordVersion = 1

func boxKey(id ID) store.Key              { return store.NewKey("mb").Uint(uint64(id)) }
func ownerNames(o Owner) store.Key        { return store.NewKey("mn").Uint(uint64(o)) }
func nameKey(o Owner, n string) store.Key { return ownerNames(o).Text(n) }
func ownerSubscriptions(o Owner) store.Key {
	return store.NewKey("ms").Uint(uint64(o))
}
func subscriptionKey(o Owner, n string) store.Key { return ownerSubscriptions(o).Text(n) }
func keywordsKey(id ID) store.Key                 { return store.NewKey("mk").Uint(uint64(id)) }
func messagesOf(id ID) store.Key                  { return store.NewKey("mm").Uint(uint64(id)) }
func messageKey(id ID, uid UID) store.Key         { return messagesOf(id).Uint(uint64(uid)) }
func doomedOf(id ID) store.Key                    { return store.NewKey("md").Uint(uint64(id)) }
func doomedKey(id ID, sheet uint32) store.Key     { return doomedOf(id).Uint(uint64(sheet)) }
func ownerRemoved(o Owner) store.Key              { return store.NewKey("mr").Uint(uint64(o)) }
func removedKey(o Owner, id ID) store.Key         { return ownerRemoved(o).Uint(uint64(id)) }
func validityKey(o Owner) store.Key               { return store.NewKey("mv").Uint(uint64(o)) }
func usageKey(o Owner) store.Key                  { return store.NewKey("mu").Uint(uint64(o)) }

// lastUint reads the number at the end of a key.
func lastUint(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

// A box is a mailbox's record.
type box struct {
	Mailbox      // but Subscribed, which has a table of its own
	removed bool // without a name; its messages are on their way out
	claimed UID  // messages below it are no longer recent
}

func (b *box) put(tx store.Tx) {
	e := make(store.Encoder, 0, 96)
	e.Uint(recordVersion)
	e.Bool(b.removed)
	e.Uint(uint64(b.Owner))
	e.Text(b.Name)
	e.Text(string(b.Role))
	e.Uint(uint64(b.UIDValidity))
	e.Uint(uint64(b.UIDNext))
	e.Uint(b.ModSeq)
	e.Uint(uint64(b.Messages))
	e.Uint(uint64(b.Unseen))
	e.Uint(uint64(b.Deleted))
	e.Int(b.Octets)
	e.Time(b.Created)
	e.Uint(uint64(b.claimed))
	tx.Put(boxKey(b.ID), e)
}

// getBox reads a mailbox, also a removed one; nil when there is none.
func getBox(r store.Reader, id ID) (*box, error) {
	v := r.Get(boxKey(id))
	if v == nil {
		return nil, nil
	}
	return decodeBox(id, v)
}

func decodeBox(id ID, v []byte) (*box, error) {
	d := store.NewDecoder(v)
	version := d.Uint()
	b := &box{removed: d.Bool(), Mailbox: Mailbox{
		ID:          id,
		Owner:       Owner(d.Uint()),
		Name:        d.Text(),
		Role:        Role(d.Text()),
		UIDValidity: uint32(d.Uint()),
		UIDNext:     UID(d.Uint()),
		ModSeq:      d.Uint(),
		Messages:    uint32(d.Uint()),
		Unseen:      uint32(d.Uint()),
		Deleted:     uint32(d.Uint()),
		Octets:      d.Int(),
		Created:     d.Time(),
	}}
	b.claimed = UID(d.Uint())
	if d.Err() != nil || version != recordVersion {
		return nil, fmt.Errorf("mailbox %d: %w", id, store.ErrRecord)
	}
	return b, nil
}

// loadBox reads a mailbox that people can see.
func loadBox(r store.Reader, id ID) (*box, error) {
	b, err := getBox(r, id)
	if err == nil && (b == nil || b.removed) {
		err = ErrNotFound
	}
	return b, err
}

// named returns the id under a clean name, or 0.
func named(r store.Reader, o Owner, name string) ID {
	if v := r.Get(nameKey(o, name)); len(v) == 8 {
		return ID(lastUint(v))
	}
	return 0
}

// loadNamed reads a mailbox by its clean name.
func loadNamed(r store.Reader, o Owner, name string) (*box, error) {
	id := named(r, o, name)
	if id == 0 {
		return nil, notFound(name)
	}
	return loadBox(r, id)
}

// A record is a message as the index has it: what never changes has a record of its own, and the rest comes from the
// message's sheet. Times are in seconds: INTERNALDATE has no more.
type record struct {
	uid      UID
	body     store.ID
	size     int64
	internal int64 // Unix time
	zone     int64 // minutes east
	saved    int64 // Unix time
	thread   uint64

	// In the sheet.
	flags  flagSet
	modseq uint64
}

// put writes what never changes.
func (m *record) put(tx store.Tx, id ID) {
	e := make(store.Encoder, 0, 48)
	e.Uint(recordVersion)
	e.Uint(uint64(m.body))
	e.Int(m.size)
	e.Int(m.internal)
	e.Int(m.zone)
	e.Int(m.saved - m.internal)
	e.Uint(m.thread)
	tx.Put(messageKey(id, m.uid), e)
}

// decode reads what never changes.
func (m *record) decode(id ID, uid UID, v []byte) error {
	d := store.NewDecoder(v)
	version := d.Uint()
	m.uid, m.body, m.size, m.internal, m.zone = uid, store.ID(d.Uint()), d.Int(), d.Int(), d.Int()
	m.saved = m.internal + d.Int()
	m.thread = d.Uint()
	if d.Err() != nil || version != recordVersion {
		return fmt.Errorf("message %d of mailbox %d: %w", uid, id, store.ErrRecord)
	}
	return nil
}

// facts calls fn with what never changes of messages of a sheet, in order. The record is used again for the next.
func facts(r store.Reader, id ID, b *sheet, wanted bitset, fn func(*record) error) error {
	const unwanted = 16 // about as many cost what finding a place in the tree does
	var m record
	for !wanted.empty() {
		missed := 0
		for k, v := range r.Scan(messageKey(id, b.uid(wanted.lowest())), messageKey(id, b.first()+sheetUIDs-1).End()) {
			uid := UID(lastUint(k))
			_, i := sheetOf(uid)
			wanted.clearBelow(i)
			if !wanted.has(i) {
				if missed++; missed == unwanted || wanted.empty() {
					break
				}
				continue
			}
			missed = 0
			err := m.decode(id, uid, v)
			if err == nil {
				err = fn(&m)
			}
			if err != nil {
				return err
			}
			wanted.unset(i)
		}
		if missed == 0 {
			return nil
		}
	}
	return nil
}

// setInternal keeps an INTERNALDATE with its zone.
func (m *record) setInternal(t time.Time) {
	_, offset := t.Zone()
	m.internal, m.zone = t.Unix(), int64(offset/60)
}

// usage is what an owner has.
type usage struct {
	octets, messages, mailboxes int64
	threads                     int64 // entries that mt has ever had
}

func loadUsage(r store.Reader, o Owner) (usage, error) {
	v := r.Get(usageKey(o))
	if v == nil {
		return usage{}, nil
	}
	d := store.NewDecoder(v)
	version := d.Uint()
	u := usage{octets: d.Int(), messages: d.Int(), mailboxes: d.Int(), threads: d.Int()}
	if d.Err() != nil || version != recordVersion {
		return u, fmt.Errorf("usage of owner %d: %w", o, store.ErrRecord)
	}
	return u, nil
}

func (u usage) put(tx store.Tx, o Owner) {
	var e store.Encoder
	e.Uint(recordVersion)
	e.Int(u.octets)
	e.Int(u.messages)
	e.Int(u.mailboxes)
	e.Int(u.threads)
	tx.Put(usageKey(o), e)
}

// changeUsage adds d to what an owner has.
func changeUsage(tx store.Tx, o Owner, d usage) error {
	if d == (usage{}) {
		return nil
	}
	u, err := loadUsage(tx, o)
	if err != nil {
		return err
	}
	u.octets, u.messages, u.mailboxes = u.octets+d.octets, u.messages+d.messages, u.mailboxes+d.mailboxes
	u.threads += d.threads
	u.put(tx, o)
	return nil
}
