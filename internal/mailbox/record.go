package mailbox

import (
	"encoding/binary"
	"fmt"
	"math"
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
func changesOf(id ID) store.Key                   { return store.NewKey("mc").Uint(uint64(id)) }
func changeKey(id ID, modseq uint64) store.Key    { return changesOf(id).Uint(modseq) }
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

// A record is a message as the index has it. Times are in seconds: INTERNALDATE has no more.
type record struct {
	uid      UID
	body     store.ID
	size     int64
	internal int64 // Unix time
	zone     int64 // minutes east
	saved    int64 // Unix time
	flags    flagSet
	modseq   uint64
	changed  bool // since it came: mc has an entry for modseq
}

func (m *record) put(tx store.Tx, id ID) {
	e := make(store.Encoder, 0, 48)
	e.Uint(recordVersion)
	e.Uint(uint64(m.body))
	e.Int(m.size)
	e.Int(m.internal)
	e.Int(m.zone)
	e.Int(m.saved - m.internal)
	e.Uint(uint64(m.flags.system))
	e.Uint(m.modseq)
	e.Bool(m.changed)
	e.Uint(uint64(len(m.flags.keywords)))
	for _, k := range m.flags.keywords {
		e.Uint(uint64(k))
	}
	tx.Put(messageKey(id, m.uid), e)
}

func decodeRecord(id ID, uid UID, v []byte) (record, error) {
	d := store.NewDecoder(v)
	version := d.Uint()
	m := record{uid: uid, body: store.ID(d.Uint()), size: d.Int(), internal: d.Int(), zone: d.Int()}
	m.saved = m.internal + d.Int()
	m.flags.system = uint8(d.Uint())
	m.modseq = d.Uint()
	m.changed = d.Bool()
	if n := d.Count(); n > 0 {
		m.flags.keywords = make([]uint16, n)
		for i := range m.flags.keywords {
			m.flags.keywords[i] = uint16(min(d.Uint(), math.MaxUint16))
		}
	}
	if d.Err() != nil || version != recordVersion {
		return m, fmt.Errorf("message %d of mailbox %d: %w", uid, id, store.ErrRecord)
	}
	return m, nil
}

// setInternal keeps an INTERNALDATE with its zone.
func (m *record) setInternal(t time.Time) {
	_, offset := t.Zone()
	m.internal, m.zone = t.Unix(), int64(offset/60)
}

func (m *record) message(s *flagShower) Message {
	return Message{
		UID:      m.uid,
		Body:     m.body,
		Size:     m.size,
		Internal: time.Unix(m.internal, 0).In(zone(m.zone)),
		Saved:    time.Unix(m.saved, 0).UTC(),
		Flags:    s.flags(m.flags),
		ModSeq:   m.modseq,
	}
}

func zone(minutes int64) *time.Location {
	if minutes == 0 {
		return time.UTC
	}
	return time.FixedZone("", int(minutes)*60)
}

// getRecord reads a message; false when it is gone.
func getRecord(r store.Reader, id ID, uid UID) (record, bool, error) {
	v := r.Get(messageKey(id, uid))
	if v == nil {
		return record{}, false, nil
	}
	m, err := decodeRecord(id, uid, v)
	return m, err == nil, err
}

// A change is the value of an mc entry: which message, and whether it was expunged.
type change struct {
	uid  UID
	gone bool
}

func (c change) put(tx store.Tx, id ID, modseq uint64) {
	v := uint64(c.uid) << 1
	if c.gone {
		v |= 1
	}
	tx.Put(changeKey(id, modseq), binary.AppendUvarint(nil, v))
}

func decodeChange(v []byte) change {
	n, _ := binary.Uvarint(v)
	return change{uid: UID(n >> 1), gone: n&1 != 0}
}

// usage is what an owner has.
type usage struct {
	octets, messages, mailboxes int64
}

func loadUsage(r store.Reader, o Owner) (usage, error) {
	v := r.Get(usageKey(o))
	if v == nil {
		return usage{}, nil
	}
	d := store.NewDecoder(v)
	version := d.Uint()
	u := usage{octets: d.Int(), messages: d.Int(), mailboxes: d.Int()}
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
	u.put(tx, o)
	return nil
}
