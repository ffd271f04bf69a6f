package store

import "fmt"

// The store's own tables.
//
//	bo id        a body: where it lies, how many references it has
//	bn id        its note, if it has one
//	sg number    a segment: how long, and how much of it is alive
//	sm           what is needed so that no ID and no segment number comes twice
const (
	tableBody    = "bo"
	tableNote    = "bn"
	tableSegment = "sg"
	tableSuper   = "sm"

	recordVersion = 1
)

func bodyKey(id ID) Key            { return NewKey(tableBody).Uint(uint64(id)) }
func noteKey(id ID) Key            { return NewKey(tableNote).Uint(uint64(id)) }
func segmentKey(number uint64) Key { return NewKey(tableSegment).Uint(number) }

// ownTable says whether a key is the store's.
func ownTable(k []byte) bool {
	if len(k) < 2 {
		return false
	}
	switch string(k[:2]) {
	case tableBody, tableNote, tableSegment, tableSuper:
		return true
	}
	return false
}

// A bodyRecord is a body in the index.
type bodyRecord struct {
	location
	refs int64
}

func (r bodyRecord) append(b []byte) []byte {
	e := Encoder(b)
	e.Uint(recordVersion)
	e.Uint(r.segment)
	e.Uint(uint64(r.offset))
	e.Uint(uint64(r.size))
	e.Uint(uint64(r.crc))
	e.Uint(uint64(r.refs))
	return e
}

func parseBody(b []byte) (r bodyRecord, err error) {
	d := Decoder{b: b}
	d.version()
	r.segment = d.Uint()
	r.offset = d.octets()
	r.size = d.octets()
	crc := d.Uint()
	r.crc = uint32(crc)
	r.refs = d.octets()
	if crc>>32 != 0 || r.segment == 0 || r.size > maxBody || r.offset < int64(headerLen) || r.refs == 0 {
		d.fail()
	}
	return r, d.ended()
}

func (g *segment) append(b []byte) []byte {
	e := Encoder(b)
	e.Uint(recordVersion)
	e.Bool(g.own)
	e.Uint(uint64(g.end))
	e.Uint(uint64(g.live))
	e.Uint(uint64(g.bodies))
	return e
}

func parseSegment(number uint64, b []byte) (*segment, error) {
	d := Decoder{b: b}
	d.version()
	g := &segment{number: number, own: d.Bool(), end: d.octets(), live: d.octets(), bodies: d.octets()}
	return g, d.ended()
}

// A superRecord is stored ahead of need: what is handed out stays below it.
type superRecord struct {
	lastID      ID     // no greater ID was ever committed
	nextSegment uint64 // no such number was ever used
}

// Format numbers what the whole store holds, the tables of other packages too. Whoever
// changes a key or a record anywhere raises it, and a store of another format is not
// opened: half of it would look like damage.
const Format = 5

func (r superRecord) append(b []byte) []byte {
	e := Encoder(b)
	e.Uint(Format)
	e.Uint(uint64(r.lastID))
	e.Uint(r.nextSegment)
	return e
}

func parseSuper(b []byte) (superRecord, error) {
	d := Decoder{b: b}
	if format := d.Uint(); d.Err() == nil && format != Format {
		return superRecord{}, fmt.Errorf("%w: it has format %d, and this version reads format %d", ErrFormat, format, Format)
	}
	r := superRecord{ID(d.Uint()), d.Uint()}
	return r, d.ended()
}

// version reads the record's version and fails for one that is not ours.
func (d *Decoder) version() {
	if d.Uint() != recordVersion {
		d.fail()
	}
}

// octets reads a number that must fit a file length.
func (d *Decoder) octets() int64 {
	v := d.Uint()
	if v > 1<<62 {
		d.fail()
		return 0
	}
	return int64(v)
}

// ended is Err, and also fails when something follows the last field.
func (d *Decoder) ended() error {
	if len(d.b) > 0 {
		d.fail()
	}
	return d.Err()
}

// super, bodies and segments read the store's records from a view.
func readSuper(r Reader) (superRecord, error) {
	b := r.Get(NewKey(tableSuper))
	if b == nil {
		return superRecord{nextSegment: 1}, nil
	}
	s, err := parseSuper(b)
	if err != nil {
		return s, fmt.Errorf("the store's own record: %w", err)
	}
	return s, nil
}

func readSegments(r Reader) (map[uint64]*segment, error) {
	all := map[uint64]*segment{}
	from := NewKey(tableSegment)
	for k, v := range r.Scan(from, from.End()) {
		number, rest, ok := takeID(k)
		g, err := parseSegment(number, v)
		if err != nil || !ok || len(rest) > 0 {
			return nil, fmt.Errorf("segment record %x: %w", k, ErrRecord)
		}
		all[g.number] = g
	}
	return all, nil
}

// takeID reads the number after a table's name, from a key that may be damaged.
func takeID(k []byte) (v uint64, rest []byte, ok bool) {
	if len(k) < 10 {
		return 0, nil, false
	}
	v, rest = TakeUint(k[2:])
	return v, rest, true
}
