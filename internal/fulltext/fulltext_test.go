package fulltext

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
)

func gramsOf(texts ...string) []Gram {
	var g Grams
	for _, t := range texts {
		g.Add([]byte(t))
		g.Break()
	}
	return slices.Clone(g.List())
}

func TestGrams(t *testing.T) {
	for _, c := range []struct {
		what, text string
		n          int
	}{
		{"nothing", "", 0},
		{"two letters", "AB", 0},
		{"three", "ABC", 1},
		{"each once", "ABABABA", 2},
		{"not across a line end", "AB\r\nCD", 0},
		{"not across what is no UTF-8", "AB\xffCD", 0},
		{"Cyrillic", "ПРИВ", 2},
		{"two ideographs", "東京", 1},
		{"three ideographs", "東京都", 3},
		{"marks are left out", "CAFE\u0301 ", 3},
	} {
		if got := gramsOf(c.text); len(got) != c.n {
			t.Errorf("%s: %d grams, want %d", c.what, len(got), c.n)
		}
	}
	if !slices.Equal(gramsOf("CAFE\u0301S"), gramsOf("CAFES")) {
		t.Error("a mark makes a difference")
	}
	var g Grams
	g.Add([]byte("AB"))
	g.Add([]byte("CD"))
	if !slices.Equal(g.List(), gramsOf("ABCD")) {
		t.Error("pieces of a text are not one text")
	}
	g.Reset()
	if g.Add([]byte("ABC")); !slices.Equal(g.List(), gramsOf("ABC")) {
		t.Error("a Reset does not forget")
	}
}

// What lies within a text has no gram that the text does not have: the promise of the package hangs on it.
func FuzzGrams(f *testing.F) {
	f.Add("some text", uint16(2), uint16(6))
	f.Add("пе́ре\xffвод 東京", uint16(3), uint16(12))
	f.Fuzz(func(t *testing.T, text string, from, to uint16) {
		a, b := int(min(from, to)), int(max(from, to))
		if b > len(text) {
			return
		}
		all := gramsOf(text)
		for _, g := range gramsOf(text[a:b]) {
			if !slices.Contains(all, g) {
				t.Errorf("%q has a gram that %q does not have", text[a:b], text)
			}
		}
	})
}

func TestLists(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 7, 64, 1000, 65536} {
		for _, odds := range []float64{0, 1e-4, 0.01, 0.3, 0.9, 1} {
			var list []uint32
			for i := range uint32(n) {
				if random.Float64() < odds {
					list = append(list, i)
				}
			}
			in := appendList([]byte("x"), list, n)
			got, ok := readList(nil, in[1:], len(list), n)
			if !ok || !slices.Equal(got, list) {
				t.Errorf("%d of %d do not come back", len(list), n)
			}
			if got := others(nil, others(nil, list, n), n); !slices.Equal(got, list) {
				t.Errorf("the others of the others are not the list")
			}
			if most := float64(len(list)) * (2.2 + float64(riceBits(n, max(len(list), 1)))); float64(8*(len(in)-2)) > most {
				t.Errorf("%d of %d take %d bits", len(list), n, 8*len(in))
			}
		}
	}
}

// doc is a text of random words, some of them rare.
func doc(random *rand.Rand, i int) string {
	var b strings.Builder
	for range 40 {
		fmt.Fprintf(&b, "%x ", random.IntN(500)*7919)
	}
	return strings.ToUpper(b.String()) + fmt.Sprintf("NUMBER%dX", i)
}

type docs struct {
	texts map[uint32]string
	max   uint32
}

// build makes a block of n documents with gaps between their numbers.
func (d *docs) build(t testing.TB, n int) *Block {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(d.max), 3))
	var b Builder
	for range n {
		d.max += 1 + uint32(random.IntN(3))
		if random.IntN(50) == 0 {
			d.texts[d.max] = "WHOLE"
			b.AddWhole(d.max)
			continue
		}
		d.texts[d.max] = doc(random, int(d.max))
		b.Add(d.max, gramsOf(d.texts[d.max]))
	}
	var out bytes.Buffer
	if written, err := b.WriteTo(&out); err != nil || written != int64(out.Len()) {
		t.Fatalf("write: %d of %d, %v", written, out.Len(), err)
	}
	return reopen(t, out.Bytes())
}

func reopen(t testing.TB, b []byte) *Block {
	t.Helper()
	block, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// check looks for texts and for what is in none, and returns how many candidates there were for each found.
func (d *docs) check(t testing.TB, b *Block) {
	t.Helper()
	for _, text := range []string{"NUMBER", "12", "F00", "7B", "NUMBER17X", "NUMBER1", "ABSENT WORD", "", "X", " 1EEF "} {
		got, err := b.Candidates(gramsOf(text))
		if err != nil {
			t.Fatal(err)
		}
		for number := range roaring.Values(b.Numbers()) {
			doc := d.texts[number]
			has := strings.Contains(doc, text) || doc == "WHOLE"
			if has && !got.Contains(number) {
				t.Errorf("%q: %d is missing", text, number)
			}
			if text == "ABSENT WORD" && got.Contains(number) && !has {
				t.Errorf("%q: %d is a candidate", text, number)
			}
		}
		if !roaring.AndNot(got, b.Numbers()).IsEmpty() {
			t.Errorf("%q: candidates that are not in the block", text)
		}
	}
}

func TestBlock(t *testing.T) {
	for _, n := range []int{1, 2, 33, 700} {
		d := docs{texts: map[uint32]string{}}
		b := d.build(t, n)
		if int(b.Numbers().GetCardinality()) != n {
			t.Errorf("%d messages, want %d", b.Numbers().GetCardinality(), n)
		}
		d.check(t, b)
	}
}

func never() error { return nil }

func TestMerge(t *testing.T) {
	d := docs{texts: map[uint32]string{}}
	blocks := []*Block{d.build(t, 1), d.build(t, 300), d.build(t, 40)}
	keep := roaring.New()
	for number := range d.texts {
		if number%5 != 0 {
			keep.Add(number)
		}
	}
	var out bytes.Buffer
	n, err := Merge(&out, blocks, keep, never)
	if err != nil || n != int64(out.Len()) {
		t.Fatalf("merge: %d of %d, %v", n, out.Len(), err)
	}
	merged := reopen(t, out.Bytes())
	if !merged.Numbers().Equals(keep) {
		t.Error("the merged block does not have what was to be kept")
	}
	d.check(t, merged)

	// Merging again what is merged changes nothing.
	var again bytes.Buffer
	if _, err := Merge(&again, []*Block{merged}, keep, never); err != nil || !bytes.Equal(again.Bytes(), out.Bytes()) {
		t.Errorf("a block merged alone is another: %v", err)
	}
	stop := errors.New("stop")
	if _, err := Merge(io.Discard, blocks, keep, func() error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a merge that is to stop: %v", err)
	}
	if _, err := Merge(full{}, blocks, keep, never); !errors.Is(err, errFull) {
		t.Errorf("a merge that cannot write: %v", err)
	}
}

var errFull = errors.New("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// Wherever one bit is wrong, or the block too short, the answer is the right one or ErrDamaged.
func TestDamage(t *testing.T) {
	d := docs{texts: map[uint32]string{}}
	var b Builder
	for i := range uint32(50) {
		d.texts[i] = doc(rand.New(rand.NewPCG(1, uint64(i))), int(i))
		b.Add(i, gramsOf(d.texts[i]))
	}
	var out bytes.Buffer
	if _, err := b.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	good := reopen(t, out.Bytes())
	query := gramsOf("NUMBER17X")
	want, err := good.Candidates(query)
	if err != nil || !want.Contains(17) {
		t.Fatalf("%v, %v", want, err)
	}
	look := func(what string, raw []byte) {
		b, err := Open(bytes.NewReader(raw), int64(len(raw)))
		if err == nil {
			var got *roaring.Bitmap
			if got, err = b.Candidates(query); err == nil && !got.Equals(want) {
				t.Errorf("%s: another answer", what)
			}
			if err == nil {
				_, err = Merge(io.Discard, []*Block{b}, b.Numbers(), never)
			}
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range out.Len() {
		raw := bytes.Clone(out.Bytes())
		raw[i] ^= 1 << (i % 8)
		look(fmt.Sprintf("octet %d", i), raw)
		if i%37 == 0 {
			look(fmt.Sprintf("cut at %d", i), out.Bytes()[:i])
		}
	}
}

// mended gives a damaged block sums that are right again.
func mended(raw []byte) []byte {
	if len(raw) < tailSize {
		return raw
	}
	raw = bytes.Clone(raw)
	tail := raw[len(raw)-tailSize:]
	binary.LittleEndian.PutUint32(tail[24:], magic)
	entries := min(int64(binary.LittleEndian.Uint32(tail[16:])), int64(len(raw)))
	rest := int64(binary.LittleEndian.Uint32(tail[8:])) + int64(binary.LittleEndian.Uint32(tail[12:])) + entries*entrySize
	buckets := int64(len(raw)) - tailSize - rest
	if buckets < 0 {
		return raw
	}
	binary.LittleEndian.PutUint64(tail, uint64(buckets))
	at := int64(0)
	for i := range entries {
		length := int64(binary.LittleEndian.Uint32(raw[int64(len(raw))-tailSize-(entries-i)*entrySize+4:]))
		if length < 4 || at+length > buckets {
			break
		}
		bucket := raw[at : at+length]
		binary.LittleEndian.PutUint32(bucket[length-4:], crc32.Checksum(bucket[:length-4], castagnoli))
		at += length
	}
	end := raw[buckets:]
	binary.LittleEndian.PutUint32(end[len(end)-4:], crc32.Checksum(end[:len(end)-4], castagnoli))
	return raw
}

// Whatever the octets, also with sums that are right, reading them ends, in bounded memory.
func FuzzBlock(f *testing.F) {
	var b Builder
	b.Add(3, gramsOf("ONE TEXT"))
	b.AddWhole(9)
	b.Add(70000, gramsOf("ANOTHER TEXT"))
	var out bytes.Buffer
	if _, err := b.WriteTo(&out); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes(), "TEXT")
	f.Fuzz(func(t *testing.T, raw []byte, text string) {
		for _, raw := range [][]byte{raw, mended(raw)} {
			b, err := Open(bytes.NewReader(raw), int64(len(raw)))
			if err != nil {
				continue
			}
			if _, err := b.Candidates(gramsOf(text)); err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("candidates: %v", err)
			}
			if _, err := Merge(io.Discard, []*Block{b}, b.Numbers(), never); err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("merge: %v", err)
			}
		}
	})
}

func FuzzList(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint16(3), uint16(20))
	f.Fuzz(func(t *testing.T, in []byte, count, n uint16) {
		if count == 0 || count > n {
			return
		}
		list, ok := readList(nil, in, int(count), int(n))
		if !ok {
			return
		}
		if len(list) != int(count) || !slices.IsSorted(list) || list[len(list)-1] >= uint32(n) {
			t.Errorf("%d of %d: %v", count, n, list)
		}
	})
}
