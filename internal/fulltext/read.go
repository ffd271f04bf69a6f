package fulltext

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sort"

	"github.com/RoaringBitmap/roaring/v2"
)

const (
	maxMessages = 1 << 20 // of a block
	maxBucket   = 1 << 30 // octets
	maxGrams    = 32      // of one text that are looked up: more hardly narrow
)

// A Block is the index of a run of messages, open for reading. Its directory is in memory, some 100 KiB for 65,536
// messages; the rest is read when it is asked for. Any number of goroutines.
type Block struct {
	r         io.ReaderAt
	numbers   *roaring.Bitmap
	whole     *roaring.Bitmap
	directory []entry
	n         int
}

// An entry of the directory is a bucket.
type entry struct {
	first  Gram
	length uint32
	at     int64
}

// Open reads the directory of a block of size octets. ErrDamaged, or an error of r.
func Open(r io.ReaderAt, size int64) (*Block, error) {
	var tail [tailSize]byte
	if size < tailSize {
		return nil, ErrDamaged
	}
	if err := readFull(r, tail[:], size-tailSize); err != nil {
		return nil, err
	}
	buckets := int64(binary.LittleEndian.Uint64(tail[0:]))
	numbers, whole := binary.LittleEndian.Uint32(tail[8:]), binary.LittleEndian.Uint32(tail[12:])
	entries := binary.LittleEndian.Uint32(tail[16:])
	rest := int64(numbers) + int64(whole) + int64(entries)*entrySize
	if buckets < 0 || rest > size || buckets != size-tailSize-rest || binary.LittleEndian.Uint32(tail[24:]) != magic {
		return nil, ErrDamaged
	}
	end := make([]byte, rest+tailSize)
	if err := readFull(r, end, buckets); err != nil {
		return nil, err
	}
	sum := len(end) - 4
	if crc32.Checksum(end[:sum], castagnoli) != binary.LittleEndian.Uint32(end[sum:]) {
		return nil, ErrDamaged
	}
	b := &Block{r: r, n: int(binary.LittleEndian.Uint32(tail[20:]))}
	return b, b.decode(end, int(numbers), int(whole), int(entries), buckets)
}

// readFull reads all of p. A block that is too short is damaged.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == io.EOF:
		return ErrDamaged
	}
	return err
}

// decode reads what follows the buckets.
func (b *Block) decode(end []byte, numbers, whole, entries int, buckets int64) (err error) {
	if b.numbers, err = bitmap(end[:numbers]); err != nil {
		return err
	}
	if b.whole, err = bitmap(end[numbers : numbers+whole]); err != nil {
		return err
	}
	if b.numbers.GetCardinality() != uint64(b.n) || b.n == 0 || b.n > maxMessages {
		return ErrDamaged
	}
	at := int64(0)
	b.directory = make([]entry, entries)
	for i := range b.directory {
		e := end[numbers+whole+i*entrySize:]
		b.directory[i] = entry{Gram(binary.LittleEndian.Uint32(e)), binary.LittleEndian.Uint32(e[4:]), at}
		at += int64(b.directory[i].length)
		if i > 0 && b.directory[i].first <= b.directory[i-1].first || b.directory[i].length > maxBucket {
			return ErrDamaged
		}
	}
	if at != buckets {
		return ErrDamaged
	}
	return nil
}

func bitmap(b []byte) (*roaring.Bitmap, error) {
	m := roaring.New()
	if err := m.UnmarshalBinary(b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return m, nil
}

// Numbers are the messages of the block. Not to be changed.
func (b *Block) Numbers() *roaring.Bitmap { return b.numbers }

// Candidates returns the messages of the block that may have a text, by its grams. The caller may change the result.
func (b *Block) Candidates(grams []Gram) (*roaring.Bitmap, error) {
	found := b.whole.Clone()
	if len(grams) == 0 {
		return b.numbers.Clone(), nil
	}
	lists, err := b.lists(grams)
	if err != nil || lists == nil {
		return found, err
	}
	slices.SortFunc(lists, func(a, b list) int { return cmp.Compare(a.count, b.count) })
	places, err := lists[0].places(nil, b.n)
	var other []uint32
	for _, l := range lists[1:] {
		if err != nil || len(places) == 0 {
			break
		}
		if other, err = l.places(other[:0], b.n); err == nil {
			places = intersect(places, other)
		}
	}
	if err != nil {
		return nil, err
	}
	b.addPlaces(found, places)
	return found, nil
}

// addPlaces adds the messages at some places of the block.
func (b *Block) addPlaces(found *roaring.Bitmap, places []uint32) {
	const few = 64
	if len(places) <= few {
		for _, p := range places {
			if number, err := b.numbers.Select(p); err == nil {
				found.Add(number)
			}
		}
		return
	}
	numbers := b.numbers.ToArray()
	for _, p := range places {
		found.Add(numbers[p])
	}
}

// intersect returns what is in both, in a's memory.
func intersect(a, b []uint32) []uint32 {
	out := a[:0]
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] < b[j]:
			i++
		case a[i] > b[j]:
			j++
		default:
			out = append(out, a[i])
			i++
			j++
		}
	}
	return out
}

// lists returns what the block has of the grams, or nil when there is one that no message has.
func (b *Block) lists(grams []Gram) ([]list, error) {
	grams = slices.Clone(grams[:min(len(grams), maxGrams)])
	slices.Sort(grams)
	lists := make([]list, 0, len(grams))
	at, bucket := -1, []byte(nil)
	for _, g := range slices.Compact(grams) {
		i := sort.Search(len(b.directory), func(i int) bool { return b.directory[i].first > g }) - 1
		if i < 0 {
			return nil, nil
		}
		if i != at {
			var err error
			if bucket, err = b.bucket(i, nil); err != nil {
				return nil, err
			}
			at = i
		}
		l, err := b.find(bucket, b.directory[i].first, g)
		if err != nil || l.count == 0 {
			return nil, err
		}
		lists = append(lists, l)
	}
	return lists, nil
}

// bucket reads a bucket without its checksum, into buf if it is large enough.
func (b *Block) bucket(i int, buf []byte) ([]byte, error) {
	e := b.directory[i]
	if e.length < 4 {
		return nil, ErrDamaged
	}
	buf = slices.Grow(buf[:0], int(e.length))[:e.length]
	if err := readFull(b.r, buf, e.at); err != nil {
		return nil, err
	}
	sum := len(buf) - 4
	if crc32.Checksum(buf[:sum], castagnoli) != binary.LittleEndian.Uint32(buf[sum:]) {
		return nil, ErrDamaged
	}
	return buf[:sum], nil
}

// find returns the list of a gram in its bucket; one without messages when it is not there.
func (b *Block) find(bucket []byte, first, g Gram) (list, error) {
	for last := first; len(bucket) > 0; {
		l, rest, err := cutList(bucket, last, b.n)
		if err != nil || l.gram == g {
			return l, err
		}
		if l.gram > g {
			break
		}
		bucket, last = rest, l.gram
	}
	return list{}, nil
}

// A list is the messages that have a gram.
type list struct {
	gram  Gram
	count int
	bits  []byte // of those that have it, or when these are most, of the others
}

// cutList reads a list of messages from the front of a bucket.
func cutList(in []byte, last Gram, n int) (l list, rest []byte, err error) {
	delta, a := binary.Uvarint(in)
	if a <= 0 || delta > Space {
		return l, nil, ErrDamaged
	}
	count, c := binary.Uvarint(in[a:])
	if c <= 0 || count == 0 || count > uint64(n) {
		return l, nil, ErrDamaged
	}
	length, d := binary.Uvarint(in[a+c:])
	in = in[a+max(c, 0)+max(d, 0):]
	if d <= 0 || length > uint64(len(in)) {
		return l, nil, ErrDamaged
	}
	return list{last + Gram(delta), int(count), in[:length]}, in[length:], nil
}

// places appends the places in a block of n messages.
func (l list) places(out []uint32, n int) ([]uint32, error) {
	if 2*l.count <= n {
		out, ok := readList(out, l.bits, l.count, n)
		if !ok {
			return nil, ErrDamaged
		}
		return out, nil
	}
	without, ok := readList(nil, l.bits, n-l.count, n)
	if !ok {
		return nil, ErrDamaged
	}
	return others(out, without, n), nil
}
