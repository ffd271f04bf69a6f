package store

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// ID names a message and its body for ever. IDs rise with time: an ID is the
// microsecond in which it was made, or the one after the last ID.
type ID uint64

// idDigits is Crockford's base 32 in lower case: no i, l, o, u. It sorts as the numbers do.
const idDigits = "0123456789abcdefghjkmnpqrstvwxyz"

// idLen is the length of an ID as text: 13 digits of 5 bits hold 64.
const idLen = 13

// String returns the 13 digits by which people and logs name the ID.
func (id ID) String() string {
	var b [idLen]byte
	v := uint64(id)
	for i := idLen - 1; i >= 0; i-- {
		b[i] = idDigits[v&31]
		v >>= 5
	}
	return string(b[:])
}

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	if len(s) != idLen || s[0] > 'f' {
		return 0, fmt.Errorf("%q is not a message id (13 letters and digits)", s)
	}
	var v uint64
	for _, c := range []byte(strings.ToLower(s)) {
		d := strings.IndexByte(idDigits, c)
		if d < 0 {
			return 0, fmt.Errorf("%q is not a message id: %q is not one of its digits", s, c)
		}
		v = v<<5 | uint64(d)
	}
	return ID(v), nil
}

// Key is an index key under construction. Keys of one table sort by their parts.
// Each method returns the longer key and may reuse the old one's memory, so a
// prefix that is used twice is built twice or cloned.
type Key []byte

// NewKey starts a key of a table. Table names are two letters; each package lists its own.
func NewKey(table string) Key {
	return append(make(Key, 0, 32), table...)
}

// Uint appends a number that sorts as numbers do.
func (k Key) Uint(v uint64) Key { return binary.BigEndian.AppendUint64(k, v) }

// Text appends a string that sorts as bytes do, with an end mark so that "a" sorts
// before "aa" whatever follows. A zero octet in s is escaped.
func (k Key) Text(s string) Key {
	for i := range len(s) {
		k = append(k, s[i])
		if s[i] == 0 {
			k = append(k, 0xff)
		}
	}
	return append(k, 0, 1)
}

// End returns the smallest key after all keys that begin with k: Scan(k, k.End()).
func (k Key) End() Key {
	end := append(Key(nil), k...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] != 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}

// TakeUint reads a number from the front of a key's rest; of a damaged one that is too
// short it reads 0 and leaves nothing.
func TakeUint(k []byte) (v uint64, rest []byte) {
	if len(k) < 8 {
		return 0, nil
	}
	return binary.BigEndian.Uint64(k), k[8:]
}

// TakeText reads a text from the front of a key's rest.
func TakeText(k []byte) (s string, rest []byte) {
	var b []byte
	for i := 0; i+1 < len(k); i++ {
		if k[i] != 0 {
			b = append(b, k[i])
			continue
		}
		i++
		if k[i] != 0xff {
			return string(b), k[i+1:]
		}
		b = append(b, 0)
	}
	return string(b), nil
}
