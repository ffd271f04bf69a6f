package mailbox

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/store"
)

// sheetUIDs is how many UIDs a sheet covers.
const sheetUIDs = 512

// A sheet is what changes of the messages whose UIDs are number*512 to number*512+511: which of them are there,
// their flags, and the modseq of each one's last change. Of those that were expunged it has the modseq of their end.
//
// On disk it is
//
//	kind      1
//	highest   the greatest modseq in it
//	present   set of the messages that are there
//	sets      one for each system flag, in the order of the bits
//	words     how many keywords; for each its place in the mailbox's table, and a set
//	modseqs   runs, until all UIDs that were given out are covered: how many, doubled, and 1 more when they
//	          rise by one from message to message; and the first one's distance from the last before it
//
// A set is 0xFF and 64 octets, or 0xFE for the same as present, or how many runs of ones it has, each with how many
// zeros are before it and its length less one.
//
// Sheets whose UIDs were all given out and that have no message left are one record, under the number of the first:
//
//	kind      2
//	sheets    how many
//	highest   the greatest modseq in them
//
// so that the history of expunges takes no more room than the messages that are left. What was expunged from such
// sheets counts as expunged at the greatest modseq.
type sheet struct {
	number  uint32
	dead    uint32 // how many sheets without messages this stands for; 0 for a sheet with messages
	highest uint64
	present bitset
	system  [systemFlags]bitset
	words   []wordSet
	came    int               // the UIDs of the first so many were given out; UID 0 counts as one
	modseqs [sheetUIDs]uint64 // of those that came
}

// A wordSet is the messages of a sheet that have a keyword.
type wordSet struct {
	place uint16 // in the mailbox's table
	in    bitset
}

const (
	sheetRecord = 1
	deadRecord  = 2

	rawSet     = 0xFF
	presentSet = 0xFE
	maxRuns    = 20 // more take about as much room as the bits
)

func sheetsOf(id ID) store.Key                { return store.NewKey("mf").Uint(uint64(id)) }
func sheetKey(id ID, number uint32) store.Key { return sheetsOf(id).Uint(uint64(number)) }

// sheetOf returns the sheet of a UID and the message's place there.
func sheetOf(uid UID) (number uint32, i uint) { return uid / sheetUIDs, uint(uid % sheetUIDs) }

func (b *sheet) first() UID     { return b.number * sheetUIDs }
func (b *sheet) uid(i uint) UID { return b.first() + UID(i) }
func (b *sheet) isDead() bool   { return b.came == sheetUIDs && b.present.empty() }
func (b *sheet) end() uint64    { return (uint64(b.number) + uint64(max(b.dead, 1))) * sheetUIDs }

// A depth is how much of a sheet is decoded.
type depth uint8

const (
	presence depth = iota // who is there
	andFlags              // and with which system flags
	andWords              // and which keywords
	andModSeqs
)

// decodeSheet reads a record. b is used again; what is deeper than wanted is not touched.
func decodeSheet(b *sheet, id ID, number uint32, v []byte, how depth) error {
	d := sheetDecoder{rest: v}
	kind := d.uint()
	b.number, b.dead = number, 0
	if kind == deadRecord {
		b.dead = uint32(d.uint())
	}
	b.highest = d.uint()
	switch {
	case kind == deadRecord && b.dead > 0 && uint64(number)+uint64(b.dead) <= 1<<32/sheetUIDs:
	case kind == sheetRecord:
		d.sheet(b, how)
	default:
		d.bad = true
	}
	if d.bad {
		return fmt.Errorf("messages from %d on of mailbox %d: %w", uint64(number)*sheetUIDs, id, store.ErrRecord)
	}
	return nil
}

type sheetDecoder struct {
	rest []byte
	bad  bool
}

func (d *sheetDecoder) sheet(b *sheet, how depth) {
	b.present = bitset{}
	d.set(&b.present, nil)
	if how < andFlags {
		return
	}
	for i := range b.system {
		d.set(&b.system[i], &b.present)
	}
	if how < andWords {
		return
	}
	n := d.uint()
	if n > uint64(len(d.rest)) {
		d.bad = true
		return
	}
	b.words = b.words[:0]
	for range n {
		w := wordSet{place: uint16(min(d.uint(), 1<<16-1))}
		d.set(&w.in, &b.present)
		b.words = append(b.words, w)
	}
	if how == andModSeqs {
		d.modseqs(b)
	}
}

func (d *sheetDecoder) uint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// set reads a set into s.
func (d *sheetDecoder) set(s, present *bitset) {
	*s = bitset{}
	if len(d.rest) == 0 {
		d.bad = true
		return
	}
	kind := d.rest[0]
	d.rest = d.rest[1:]
	switch {
	case kind == presentSet && present != nil:
		*s = *present
	case kind == rawSet && len(d.rest) >= sheetUIDs/8:
		for i := range s {
			s[i] = binary.LittleEndian.Uint64(d.rest[8*i:])
		}
		d.rest = d.rest[sheetUIDs/8:]
	case kind <= maxRuns:
		d.runs(s, kind)
	default:
		d.bad = true
	}
}

func (d *sheetDecoder) runs(s *bitset, n byte) {
	at := uint64(0)
	for range n {
		from := at + d.uint()
		at = from + d.uint() + 1
		if d.bad || at > sheetUIDs || at <= from {
			d.bad = true
			return
		}
		s.setRange(uint(from), uint(at))
	}
}

func (d *sheetDecoder) modseqs(b *sheet) {
	b.came = 0
	last := uint64(0)
	for len(d.rest) > 0 && !d.bad {
		head := d.uint()
		delta, n := binary.Varint(d.rest)
		if n <= 0 || head>>1 > uint64(sheetUIDs-b.came) {
			d.bad = true
			return
		}
		d.rest = d.rest[n:]
		value := last + uint64(delta)
		for range head >> 1 {
			b.modseqs[b.came] = value
			b.came++
			last = value
			value += head & 1
		}
	}
	clear(b.modseqs[b.came:])
}

// append writes the record.
func (b *sheet) append(v []byte) []byte {
	if b.dead > 0 {
		v = append(v, deadRecord)
		v = binary.AppendUvarint(v, uint64(b.dead))
		return binary.AppendUvarint(v, b.highest)
	}
	v = append(v, sheetRecord)
	v = binary.AppendUvarint(v, b.highest)
	v = b.present.append(v, nil)
	for i := range b.system {
		v = b.system[i].append(v, &b.present)
	}
	b.words = slices.DeleteFunc(b.words, func(w wordSet) bool { return w.in.empty() })
	v = binary.AppendUvarint(v, uint64(len(b.words)))
	for i := range b.words {
		v = binary.AppendUvarint(v, uint64(b.words[i].place))
		v = b.words[i].in.append(v, &b.present)
	}
	return b.appendModSeqs(v)
}

func (b *sheet) appendModSeqs(v []byte) []byte {
	last := uint64(0)
	for i := 0; i < b.came; {
		n, rising := run(b.modseqs[i:b.came])
		v = binary.AppendUvarint(v, uint64(n)<<1|rising)
		v = binary.AppendVarint(v, int64(b.modseqs[i]-last))
		i += n
		last = b.modseqs[i-1]
	}
	return v
}

// run is how many numbers at the beginning of list are equal, or each one more than the last.
func run(list []uint64) (n int, rising uint64) {
	if len(list) > 1 && list[1] == list[0]+1 {
		rising = 1
	}
	n = 1
	for n < len(list) && list[n] == list[n-1]+rising {
		n++
	}
	return n, rising
}

// all returns the messages that are there.
func (b *sheet) all() *bitset { return &b.present }

// of returns the messages that have a system flag.
func (b *sheet) of(bit uint8) *bitset { return &b.system[bits.TrailingZeros8(bit)] }

// word returns the messages that have the keyword at a place.
func (b *sheet) word(place uint16) *bitset {
	i, found := slices.BinarySearchFunc(b.words, place, func(w wordSet, p uint16) int { return int(w.place) - int(p) })
	if !found {
		b.words = slices.Insert(b.words, i, wordSet{place: place})
	}
	return &b.words[i].in
}

// with returns the messages that have the keyword at a place, if there are any.
func (b *sheet) with(place int) (in bitset) {
	for i := range b.words {
		if int(b.words[i].place) == place {
			in = b.words[i].in
		}
	}
	return in
}

// flags returns the flags of the message at i.
func (b *sheet) flags(i uint) flagSet {
	f := flagSet{system: b.systemOf(i)}
	for w := range b.words {
		if b.words[w].in.has(i) {
			f.keywords = append(f.keywords, b.words[w].place)
		}
	}
	return f
}

func (b *sheet) systemOf(i uint) (system uint8) {
	for bit := range b.system {
		system |= uint8(b.system[bit][i/64]>>(i%64)&1) << bit
	}
	return system
}

// touch has the messages of s changed at a modseq.
func (b *sheet) touch(s *bitset, modseq uint64) {
	for i := range s.all() {
		b.modseqs[i] = modseq
	}
	b.highest = max(b.highest, modseq)
}

// place puts a message in.
func (b *sheet) place(i uint, f flagSet, modseq uint64) {
	b.present.set(i)
	for bit := range b.system {
		if f.has(1 << bit) {
			b.system[bit].set(i)
		}
	}
	for _, place := range f.keywords {
		b.word(place).set(i)
	}
	b.modseqs[i], b.came = modseq, int(i)+1
	b.highest = max(b.highest, modseq)
}

// take takes messages out.
func (b *sheet) take(gone *bitset, modseq uint64) {
	b.touch(gone, modseq)
	b.present.remove(gone)
	for bit := range b.system {
		b.system[bit].remove(gone)
	}
	for w := range b.words {
		b.words[w].in.remove(gone)
	}
}

// reflag changes the flags of messages and returns those whose flags were not so already.
func (b *sheet) reflag(target *bitset, op FlagOp, f flagSet, modseq uint64) (changed bitset) {
	change := func(s *bitset, on bool) {
		differ := s.and(target)
		if on {
			differ = target.without(s)
			s.add(&differ)
		} else {
			s.remove(&differ)
		}
		changed.add(&differ)
	}
	for bit := range b.system {
		if on := f.has(1 << bit); on || op == SetFlags {
			change(&b.system[bit], on && op != RemoveFlags)
		}
	}
	for _, place := range f.keywords {
		change(b.word(place), op != RemoveFlags)
	}
	if op == SetFlags {
		for w := range b.words {
			if !slices.Contains(f.keywords, b.words[w].place) {
				change(&b.words[w].in, false)
			}
		}
	}
	b.touch(&changed, modseq)
	return changed
}

// newer returns those of s that came or changed after a modseq.
func (b *sheet) newer(s *bitset, modseq uint64) (newer bitset) {
	if b.highest <= modseq {
		return newer
	}
	for i := range s.all() {
		if b.modseqs[i] > modseq {
			newer.set(i)
		}
	}
	return newer
}

// since returns the messages that came or changed after a modseq, and those that were expunged after it. It wants
// the entire sheet.
func (b *sheet) since(modseq uint64) (changed, gone bitset) {
	if b.highest <= modseq {
		return changed, gone
	}
	var came bitset
	came.setRange(0, uint(b.came))
	newer := b.newer(&came, modseq)
	return newer.and(&b.present), newer.without(&b.present)
}

// getSheet reads which messages there are beside one; nil when there are none.
func getSheet(r store.Reader, id ID, uid UID) (*sheet, error) {
	number, _ := sheetOf(uid)
	v := r.Get(sheetKey(id, number))
	if v == nil {
		return nil, nil
	}
	b := &sheet{}
	err := decodeSheet(b, id, number, v, presence)
	return b, err
}

// sheets yields the records of a mailbox's sheets from a number on, also the dead ones; or an error, the last.
// The sheet is used again for the next.
func sheets(r store.Reader, id ID, from uint32, how depth) iter.Seq2[*sheet, error] {
	return func(yield func(*sheet, error) bool) {
		var b sheet
		for k, v := range r.Scan(sheetKey(id, from), sheetsOf(id).End()) {
			err := decodeSheet(&b, id, uint32(lastUint(k)), v, how)
			if !yield(&b, err) || err != nil {
				return
			}
		}
	}
}

// changedSheets is sheets from the first on, those only in which something has changed after a modseq, entire.
func changedSheets(r store.Reader, id ID, since uint64) iter.Seq2[*sheet, error] {
	return func(yield func(*sheet, error) bool) {
		var b sheet
		for k, v := range r.Scan(sheetsOf(id), sheetsOf(id).End()) {
			err := decodeSheet(&b, id, uint32(lastUint(k)), v, presence)
			if err == nil && b.highest <= since {
				continue
			}
			if err == nil && b.dead == 0 {
				err = decodeSheet(&b, id, b.number, v, andModSeqs)
			}
			if !yield(&b, err) || err != nil {
				return
			}
		}
	}
}

// someSheets is changedSheets of the sheets with some numbers; false when one of them is not, or no longer, a record of
// its own.
func (s *Service) someSheets(r store.Reader, id ID, numbers []uint32, fn func(*sheet)) (whole bool, err error) {
	b := s.takeSheet()
	defer s.sheets.Put(b)
	for _, number := range numbers {
		v := r.Get(sheetKey(id, number))
		if v == nil {
			return false, nil
		}
		if err := decodeSheet(b, id, number, v, andModSeqs); err != nil || b.dead > 0 {
			return false, err
		}
		fn(b)
	}
	return true, nil
}

// takeSheet returns a sheet for use, with whatever is in it.
func (s *Service) takeSheet() *sheet {
	if b, ok := s.sheets.Get().(*sheet); ok {
		return b
	}
	return &sheet{}
}

// walk calls fn with each sheet that has messages of uids (nil: all) from a UID on, and with those. Sheets and
// sets are used again. It ends when fn returns false.
func walk(r store.Reader, id ID, uids *roaring.Bitmap, from UID, how depth, fn func(*sheet, *bitset) (bool, error)) error {
	const unwanted = 4 // about as many cost what finding a place in the tree does
	p := newPicker(uids, from)
	for p.more() {
		missed := 0
		start, _ := sheetOf(p.next())
		more := false
		for b, err := range sheets(r, id, start, how) {
			if err != nil {
				return err
			}
			wanted := p.pick(b)
			if wanted.empty() {
				if missed++; missed == unwanted && uids != nil && p.more() {
					more = true
					break
				}
				continue
			}
			missed = 0
			if on, err := fn(b, &wanted); !on || err != nil {
				return err
			}
			if !p.more() {
				return nil
			}
		}
		if !more {
			return nil
		}
	}
	return nil
}

// A picker says which messages of a sheet are wanted. It is asked about sheets in order.
type picker struct {
	from UID
	it   roaring.IntPeekable // nil: all are wanted
}

func newPicker(uids *roaring.Bitmap, from UID) *picker {
	p := &picker{from: from}
	if uids != nil {
		p.it = uids.Iterator()
		p.it.AdvanceIfNeeded(from)
	}
	return p
}

// more reports whether there may be wanted messages after those that were picked.
func (p *picker) more() bool { return p.it == nil || p.it.HasNext() }

// next is the first UID that may be wanted next.
func (p *picker) next() UID {
	if p.it == nil {
		return p.from
	}
	return p.it.PeekNext()
}

func (p *picker) pick(b *sheet) (wanted bitset) {
	if b.dead > 0 {
		if p.it != nil && b.end() <= 1<<32-1 {
			p.it.AdvanceIfNeeded(UID(b.end()))
		}
		return wanted
	}
	if p.it == nil {
		wanted = b.present
		if p.from > b.first() {
			wanted.clearBelow(uint(min(p.from-b.first(), sheetUIDs)))
		}
		return wanted
	}
	p.it.AdvanceIfNeeded(b.first())
	for end := b.end(); p.it.HasNext() && uint64(p.it.PeekNext()) < end; {
		wanted.set(uint(p.it.Next() - b.first()))
	}
	return wanted.and(&b.present)
}

// A bitset is some messages of a sheet.
type bitset [sheetUIDs / 64]uint64

func (s *bitset) has(i uint) bool { return s[i/64]>>(i%64)&1 != 0 }
func (s *bitset) set(i uint)      { s[i/64] |= 1 << (i % 64) }
func (s *bitset) unset(i uint)    { s[i/64] &^= 1 << (i % 64) }
func (s *bitset) empty() bool     { return *s == bitset{} }

func (s *bitset) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

func (s *bitset) setRange(from, to uint) {
	for from < to {
		n := min(to-from, 64-from%64)
		s[from/64] |= (^uint64(0) >> (64 - n)) << (from % 64)
		from += n
	}
}

func (s *bitset) clearBelow(i uint) {
	clear(s[:i/64])
	if i%64 != 0 {
		s[i/64] &^= 1<<(i%64) - 1
	}
}

// lowest is the first of s, which is not empty.
func (s *bitset) lowest() uint {
	for i, w := range s {
		if w != 0 {
			return uint(i*64 + bits.TrailingZeros64(w))
		}
	}
	return 0
}

func (s *bitset) and(t *bitset) (u bitset) {
	for i := range s {
		u[i] = s[i] & t[i]
	}
	return u
}

func (s *bitset) without(t *bitset) (u bitset) {
	for i := range s {
		u[i] = s[i] &^ t[i]
	}
	return u
}

func (s *bitset) add(t *bitset) {
	for i := range s {
		s[i] |= t[i]
	}
}

func (s *bitset) remove(t *bitset) {
	for i := range s {
		s[i] &^= t[i]
	}
}

// all yields the members in order.
func (s *bitset) all() iter.Seq[uint] {
	return func(yield func(uint) bool) {
		for i, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(uint(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// append writes a set.
func (s *bitset) append(v []byte, present *bitset) []byte {
	if present != nil && *s == *present && !s.empty() {
		return append(v, presentSet)
	}
	start := len(v)
	v = append(v, 0)
	at, n := uint(0), byte(0)
	for i := s.next(0, true); i < sheetUIDs; n++ {
		if n == maxRuns {
			return s.appendRaw(v[:start])
		}
		end := s.next(i, false)
		v = binary.AppendUvarint(v, uint64(i-at))
		v = binary.AppendUvarint(v, uint64(end-i-1))
		at = end
		i = s.next(end, true)
	}
	v[start] = n
	return v
}

func (s *bitset) appendRaw(v []byte) []byte {
	v = append(v, rawSet)
	for _, w := range s {
		v = binary.LittleEndian.AppendUint64(v, w)
	}
	return v
}

// next returns the first place from i on that is in s, or that is not; 512 when there is none.
func (s *bitset) next(i uint, in bool) uint {
	for i < sheetUIDs {
		w := s[i/64]
		if !in {
			w = ^w
		}
		if w >>= i % 64; w != 0 {
			return i + uint(bits.TrailingZeros64(w))
		}
		i = (i/64 + 1) * 64
	}
	return sheetUIDs
}

// A gatherer makes a bitmap of the sets of sheets that come in order.
type gatherer struct {
	all   *roaring.Bitmap
	high  uint32 // the UIDs under way have these upper 16 bits
	some  bool
	words []uint64 // nil until a set is worth it
}

const (
	gathered = 1 << 16 // the UIDs that a gatherer has under way
	singles  = 16      // so many are added one by one
)

func newGatherer() *gatherer { return &gatherer{all: roaring.New()} }

// add adds messages of a sheet.
func (g *gatherer) add(b *sheet, s *bitset) {
	switch n := s.count(); {
	case n == 0:
	case n <= singles && !g.some:
		for i := range s.all() {
			g.all.Add(b.uid(i))
		}
	default:
		g.addMany(b, s)
	}
}

func (g *gatherer) addMany(b *sheet, s *bitset) {
	if g.words == nil {
		g.words = make([]uint64, gathered/64)
	}
	if high := b.first() >> 16; high != g.high {
		g.flush()
		g.high = high
	}
	copy(g.words[b.first()%gathered/64:], s[:])
	g.some = true
}

// addDead adds all UIDs of dead sheets.
func (g *gatherer) addDead(b *sheet) {
	g.flush()
	g.all.AddRange(max(uint64(b.first()), 1), b.end())
}

func (g *gatherer) flush() {
	if !g.some {
		return
	}
	dense := roaring.FromDense(g.words, true)
	g.all.Or(roaring.AddOffset(dense, g.high<<16))
	clear(g.words)
	g.some = false
}

// scattered returns what was gathered, for messages here and there: it is not held together by runs, with which And and
// AndNot take time by the square of their number.
func (g *gatherer) scattered() *roaring.Bitmap {
	g.flush()
	return g.all
}

// bitmap returns what was gathered.
func (g *gatherer) bitmap() *roaring.Bitmap {
	g.flush()
	g.all.RunOptimize()
	return g.all
}
