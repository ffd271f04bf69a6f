package store

import (
	"encoding/binary"
	"errors"
	"time"
)

// ErrRecord means that a stored record cannot be read: damage, or a newer version.
var ErrRecord = errors.New("a stored record cannot be read")

// Encoder builds a compact record: numbers as varints, strings with their length.
// The first field of a record is its version.
type Encoder []byte

// Uint appends a number.
func (e *Encoder) Uint(v uint64) { *e = binary.AppendUvarint(*e, v) }

// Int appends a number that may be negative.
func (e *Encoder) Int(v int64) { *e = binary.AppendVarint(*e, v) }

// Text appends a string.
func (e *Encoder) Text(s string) {
	e.Uint(uint64(len(s)))
	*e = append(*e, s...)
}

// Bool appends a truth value.
func (e *Encoder) Bool(b bool) {
	if b {
		e.Uint(1)
	} else {
		e.Uint(0)
	}
}

// Time appends an instant in microseconds; the zero time stays zero.
func (e *Encoder) Time(t time.Time) {
	if t.IsZero() {
		e.Int(0)
		return
	}
	e.Int(t.UnixMicro())
}

// Decoder reads what an Encoder wrote, in the same order. After the first fault
// every method returns zero values and Err says so: check it once at the end.
type Decoder struct {
	b   []byte
	bad bool
}

// NewDecoder reads b, which it does not keep parts of.
func NewDecoder(b []byte) *Decoder { return &Decoder{b: b} }

// Uint reads a number.
func (d *Decoder) Uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Int reads a number that may be negative.
func (d *Decoder) Int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Text reads a string.
func (d *Decoder) Text() string {
	n := d.Uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// Bool reads a truth value.
func (d *Decoder) Bool() bool { return d.Uint() != 0 }

// Time reads an instant.
func (d *Decoder) Time() time.Time {
	v := d.Int()
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMicro(v)
}

// Count reads a number of things that follow, each at least one octet long, so that
// a damaged count cannot ask for more memory than the record has.
func (d *Decoder) Count() int {
	n := d.Uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

// Err returns ErrRecord when something could not be read.
func (d *Decoder) Err() error {
	if d.bad {
		return ErrRecord
	}
	return nil
}

func (d *Decoder) fail() { d.b, d.bad = nil, true }
