package mailbox

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What was written is read again, in whatever state the sheet is.
func TestSheetRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := drawSheet(t)
		var got sheet
		if err := decodeSheet(&got, 1, b.number, b.append(nil), andModSeqs); err != nil {
			t.Fatal(err)
		}
		got.words, b.words = slices.Clip(got.words), slices.Clip(b.words)
		if len(got.words)+len(b.words) == 0 {
			got.words, b.words = nil, nil
		}
		if !reflect.DeepEqual(got, *b) {
			t.Fatalf("got %+v, want %+v", got, *b)
		}
		again := got.append(nil)
		if !slices.Equal(again, b.append(nil)) {
			t.Fatal("the same sheet is written otherwise")
		}
	})
}

func drawSheet(t *rapid.T) *sheet {
	b := &sheet{number: rapid.Uint32Range(0, 1<<32/sheetUIDs-1).Draw(t, "number")}
	modseq := rapid.Uint64Range(1, 1<<60).Draw(t, "modseq")
	step := rapid.Uint64Range(1, 3).Draw(t, "step")
	if b.number == 0 {
		b.came = 1
	}
	for b.came < rapid.IntRange(1, sheetUIDs).Draw(t, "came") {
		b.place(uint(b.came), flagSet{system: uint8(modseq) & (1<<systemFlags - 1)}, modseq)
		modseq += step
	}
	for range rapid.IntRange(0, 5).Draw(t, "changes") {
		target := drawSet(t)
		target = target.and(&b.present)
		modseq++
		switch rapid.IntRange(0, 2).Draw(t, "change") {
		case 0:
			b.take(&target, modseq)
		default:
			f := flagSet{rapid.Uint8Range(0, 31).Draw(t, "system"), rapid.SliceOfN(rapid.Uint16Range(0, 3), 0, 1).Draw(t, "words")}
			b.reflag(&target, FlagOp(rapid.IntRange(0, 2).Draw(t, "op")), f, modseq)
		}
	}
	b.words = slices.DeleteFunc(b.words, func(w wordSet) bool { return w.in.empty() })
	return b
}

// drawSet draws one of few runs, or of scattered places.
func drawSet(t *rapid.T) (s bitset) {
	if rapid.Bool().Draw(t, "scattered") {
		for i := range s {
			s[i] = rapid.Uint64().Draw(t, "bits")
		}
		return s
	}
	for range rapid.IntRange(0, 3).Draw(t, "runs") {
		from := rapid.UintRange(0, sheetUIDs-1).Draw(t, "from")
		s.setRange(from, rapid.UintRange(from, sheetUIDs).Draw(t, "to"))
	}
	return s
}

// A bitset does what a plain list of truths does.
func TestBitset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, u := drawSet(t), drawSet(t)
		and, without, or := s.and(&u), s.without(&u), s
		or.add(&u)
		below := rapid.UintRange(0, sheetUIDs).Draw(t, "below")
		high := s
		high.clearBelow(below)
		n := 0
		for i := range uint(sheetUIDs) {
			a, b := s.has(i), u.has(i)
			if and.has(i) != (a && b) || without.has(i) != (a && !b) || or.has(i) != (a || b) || high.has(i) != (a && i >= below) {
				t.Fatalf("at %d of %v and %v", i, s, u)
			}
			if a {
				n++
			}
		}
		if members := slices.Collect(s.all()); s.count() != n || len(members) != n || s.empty() != (n == 0) || n > 0 && members[0] != s.lowest() {
			t.Fatalf("%d members of %v", n, s)
		}
	})
}

func FuzzSheet(f *testing.F) {
	b := &sheet{}
	b.came = 1
	for i := range uint(20) {
		b.place(i+1, flagSet{uint8(i), []uint16{uint16(i % 3)}}, uint64(i*i))
	}
	f.Add(b.append(nil))
	f.Add((&sheet{dead: 3, highest: 9}).append(nil))
	f.Fuzz(func(t *testing.T, v []byte) {
		var b, again sheet
		if decodeSheet(&b, 1, 5, v, andModSeqs) != nil {
			return
		}
		if err := decodeSheet(&again, 1, 5, b.append(nil), andModSeqs); err != nil {
			t.Errorf("%+v cannot be read again: %v", b, err)
		}
	})
}
