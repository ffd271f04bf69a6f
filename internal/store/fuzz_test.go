package store

import (
	"bytes"
	"testing"
	"time"
)

func FuzzHeader(f *testing.F) {
	var b [headerLen]byte
	putHeader(b[:], 1<<50, 4096, 0xdeadbeef)
	f.Add(b[:])
	f.Add([]byte("postroad 0000000000000 000000000000 00000000\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		id, size, crc, err := parseHeader(line)
		if err != nil {
			return
		}
		var again [headerLen]byte
		putHeader(again[:], id, size, crc)
		if !bytes.Equal(again[:], line[:headerLen]) {
			t.Errorf("%q reads as what is written %q", line, again)
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Add(bodyRecord{location{1, 45, 4096, 7}, 1}.append(nil))
	f.Add((&segment{own: true, end: 5, live: 4, bodies: 1}).append(nil))
	f.Add(superRecord{1 << 50, 9}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseBody(b); err == nil {
			again, err := parseBody(r.append(nil))
			if err != nil || again != r {
				t.Errorf("%+v reads as %+v, %v", r, again, err)
			}
			if r.segment == 0 || r.offset < 0 || r.size < 0 || r.refs < 1 {
				t.Errorf("%+v is no body", r)
			}
		}
		if g, err := parseSegment(3, b); err == nil {
			if again, err := parseSegment(3, g.append(nil)); err != nil || *again != *g {
				t.Errorf("%+v reads as %+v, %v", g, again, err)
			}
		}
		if r, err := parseSuper(b); err == nil {
			if again, err := parseSuper(r.append(nil)); err != nil || again != r {
				t.Errorf("%+v reads as %+v, %v", r, again, err)
			}
		}
		d := NewDecoder(b)
		d.Uint()
		d.Int()
		d.Bool()
		d.Time()
		for range d.Count() {
			d.Text()
		}
		if d.Err() == nil && len(b) == 0 {
			t.Error("an empty record has fields")
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add("a", "a\x00b", uint64(1), uint64(256))
	f.Fuzz(func(t *testing.T, a, b string, m, n uint64) {
		ka, kb := NewKey("te").Text(a).Uint(m), NewKey("te").Text(b).Uint(n)
		want := bytes.Compare([]byte(a), []byte(b))
		if a == b {
			want = compareUint(m, n)
		}
		if got := bytes.Compare(ka, kb); got != want {
			t.Errorf("keys of %q %d and %q %d compare as %d", a, m, b, n, got)
		}
		s, rest := TakeText(ka[2:])
		if v, end := TakeUint(rest); s != a || v != m || len(end) != 0 {
			t.Errorf("%q %d come back as %q %d and %d octets", a, m, s, v, len(end))
		}
		if prefix := NewKey("te").Text(a); bytes.Compare(ka, prefix.End()) >= 0 || bytes.Compare(ka, prefix) < 0 {
			t.Errorf("%q is not below its prefix's end", ka)
		}
		TakeText([]byte(b)) // of a damaged key: anything, but no panic
		TakeUint([]byte(b))
	})
}

func compareUint(m, n uint64) int {
	switch {
	case m < n:
		return -1
	case m > n:
		return 1
	}
	return 0
}

func FuzzID(f *testing.F) {
	f.Add(ID(1 << 50).String())
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			return
		}
		if again, err := ParseID(id.String()); err != nil || again != id {
			t.Errorf("%q is %s, which is %s", s, id, again)
		}
	})
}

func TestRecordFields(t *testing.T) {
	var e Encoder
	now := time.UnixMicro(1_790_000_000_123_456)
	e.Uint(7)
	e.Int(-3)
	e.Text("grüße")
	e.Bool(true)
	e.Time(now)
	e.Time(time.Time{})
	d := NewDecoder(e)
	if d.Uint() != 7 || d.Int() != -3 || d.Text() != "grüße" || !d.Bool() || !d.Time().Equal(now) || !d.Time().IsZero() || d.Err() != nil {
		t.Error("a record does not come back")
	}
	if d.Uint(); d.Err() == nil {
		t.Error("a field after the last is no error")
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]uint64{"00000001": 1, "12345678": 12345678, "123456789": 123456789} {
		if n, ok := parseSegmentName(name); !ok || n != want {
			t.Errorf("%s is segment %d, %v", name, n, ok)
		}
	}
	for _, name := range []string{"", "1", "00000000", "000000001", "+0000001", "0000001a", "00000001.bak"} {
		if _, ok := parseSegmentName(name); ok {
			t.Errorf("%q passes as a segment", name)
		}
	}
}
