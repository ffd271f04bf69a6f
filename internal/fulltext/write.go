package fulltext

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

const (
	magic      = 0x31746670 // "pft1"
	bucketSize = 16 << 10   // octets after which a bucket ends
	tailSize   = 32
	entrySize  = 8 // of the directory
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Builder gathers messages for a block. It keeps 4 octets for each distinct gram of each message, and 4 MiB besides
// while it writes. The zero value is ready for use. One goroutine.
type Builder struct {
	numbers *roaring.Bitmap
	whole   *roaring.Bitmap
	grams   []Gram // of all messages, one after the other
	ends    []int  // where each message's end
}

// Add adds a message, whose number is greater than all before it, with its distinct grams.
func (b *Builder) Add(number uint32, grams []Gram) {
	b.add(number)
	b.grams = append(b.grams, grams...)
	b.ends = append(b.ends, len(b.grams))
}

// AddWhole adds a message that is always a candidate.
func (b *Builder) AddWhole(number uint32) {
	b.add(number)
	b.whole.Add(number)
	b.ends = append(b.ends, len(b.grams))
}

func (b *Builder) add(number uint32) {
	if b.numbers == nil {
		b.numbers, b.whole = roaring.New(), roaring.New()
	}
	b.numbers.Add(number)
}

// Messages is the number of messages added.
func (b *Builder) Messages() int { return len(b.ends) }

// Grams is the number of grams that are kept.
func (b *Builder) Grams() int { return len(b.grams) }

// WriteTo writes the block. There is at least one message. The Builder is then as new.
func (b *Builder) WriteTo(w io.Writer) (int64, error) {
	out := newWriter(w, b.numbers, b.whole)
	starts, places := b.sort()
	for gram, start := range starts[:Space] {
		if end := starts[gram+1]; end > start {
			out.list(Gram(gram), places[start:end])
		}
	}
	n, err := out.finish()
	*b = Builder{grams: b.grams[:0], ends: b.ends[:0]}
	return n, err
}

// sort returns the messages, by their places in the block, of each gram, and where those of a gram begin.
func (b *Builder) sort() (starts []uint32, places []uint32) {
	starts = make([]uint32, Space+2)
	for _, g := range b.grams {
		starts[g+2]++
	}
	for i := range starts[1:] {
		starts[i+1] += starts[i]
	}
	places = make([]uint32, len(b.grams))
	from := 0
	for place, end := range b.ends {
		for _, g := range b.grams[from:end] {
			places[starts[g+1]] = uint32(place)
			starts[g+1]++
		}
		from = end
	}
	return starts, places
}

// A writer writes a block, gram by gram.
type writer struct {
	w       io.Writer
	numbers *roaring.Bitmap
	whole   *roaring.Bitmap
	n       int // messages

	bucket  []byte
	last    Gram // of the bucket
	coded   []byte
	without []uint32
	entries []byte // of the directory
	written int64
	err     error
}

func newWriter(w io.Writer, numbers, whole *roaring.Bitmap) *writer {
	return &writer{w: w, numbers: numbers, whole: whole, n: int(numbers.GetCardinality())}
}

// list writes the places of the messages that have a gram. Of one that most have, it writes those without it.
func (w *writer) list(g Gram, places []uint32) {
	if len(w.bucket) == 0 {
		w.entries = binary.LittleEndian.AppendUint32(w.entries, uint32(g))
		w.last = g
	}
	kept := places
	if 2*len(places) > w.n {
		w.without = others(w.without[:0], places, w.n)
		kept = w.without
	}
	w.coded = appendList(w.coded[:0], kept, w.n)
	w.bucket = binary.AppendUvarint(w.bucket, uint64(g-w.last))
	w.bucket = binary.AppendUvarint(w.bucket, uint64(len(places)))
	w.bucket = binary.AppendUvarint(w.bucket, uint64(len(w.coded)))
	w.bucket = append(w.bucket, w.coded...)
	w.last = g
	if len(w.bucket) >= bucketSize {
		w.endBucket()
	}
}

// others appends the numbers below n that are not in list.
func others(out, list []uint32, n int) []uint32 {
	next := uint32(0)
	for _, v := range list {
		for ; next < v; next++ {
			out = append(out, next)
		}
		next = v + 1
	}
	for ; next < uint32(n); next++ {
		out = append(out, next)
	}
	return out
}

func (w *writer) endBucket() {
	if len(w.bucket) == 0 {
		return
	}
	w.bucket = binary.LittleEndian.AppendUint32(w.bucket, crc32.Checksum(w.bucket, castagnoli))
	w.entries = binary.LittleEndian.AppendUint32(w.entries, uint32(len(w.bucket)))
	w.write(w.bucket)
	w.bucket = w.bucket[:0]
}

func (w *writer) write(p []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(p)
	w.written += int64(n)
	w.err = err
}

// finish writes what follows the buckets.
func (w *writer) finish() (int64, error) {
	w.endBucket()
	numbers, err := w.numbers.ToBytes()
	if err != nil {
		return w.written, err
	}
	whole, err := w.whole.ToBytes()
	if err != nil {
		return w.written, err
	}
	buckets := w.written
	end := slices.Concat(numbers, whole, w.entries)
	end = binary.LittleEndian.AppendUint64(end, uint64(buckets))
	end = binary.LittleEndian.AppendUint32(end, uint32(len(numbers)))
	end = binary.LittleEndian.AppendUint32(end, uint32(len(whole)))
	end = binary.LittleEndian.AppendUint32(end, uint32(len(w.entries)/entrySize))
	end = binary.LittleEndian.AppendUint32(end, uint32(w.n))
	end = binary.LittleEndian.AppendUint32(end, magic)
	end = binary.LittleEndian.AppendUint32(end, crc32.Checksum(end, castagnoli))
	w.write(end)
	return w.written, w.err
}
