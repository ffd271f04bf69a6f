package mailbox

import (
	"fmt"
	"slices"
	"strings"

	"postroad/internal/store"
)

// Flags are a message's flags and keywords: sorted, each once, system flags with
// their backslash in RFC case, keywords in the case in which the mailbox first saw them.
type Flags []string

// Has reports whether f is set; the case of letters does not matter.
func (fl Flags) Has(f string) bool {
	return slices.ContainsFunc(fl, func(g string) bool { return strings.EqualFold(f, g) })
}

// FlagOp says how Store changes flags.
type FlagOp uint8

// The ways to change flags.
const (
	SetFlags FlagOp = iota
	AddFlags
	RemoveFlags
)

// The system flags as bits of a message record. They are on disk: never renumbered.
const (
	answered = 1 << iota
	deleted
	draft
	flagged
	seen

	systemFlags = 5
)

// systemFlag names the bit 1<<i. The names are in order.
func systemFlag(i int) string {
	return [systemFlags]string{`\Answered`, `\Deleted`, `\Draft`, `\Flagged`, `\Seen`}[i]
}

// systemBit returns the bit of a system flag in any case, or 0.
func systemBit(name string) uint8 {
	for i := range systemFlags {
		if strings.EqualFold(name, systemFlag(i)) {
			return 1 << i
		}
	}
	return 0
}

// maxKeyword bounds the octets of a keyword.
const maxKeyword = 128

// A flagSet is flags as a message record has them.
type flagSet struct {
	system   uint8
	keywords []uint16 // places in the mailbox's keyword table, sorted, each once
}

func (f flagSet) has(bit uint8) bool { return f.system&bit != 0 }

func union(a, b []uint16) []uint16 {
	if len(b) == 0 {
		return a
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// keywords is a mailbox's keyword table: a keyword's place never changes.
type keywords struct {
	names   []string
	changed bool
}

func loadKeywords(r store.Reader, id ID) (*keywords, error) {
	k := &keywords{}
	v := r.Get(keywordsKey(id))
	if v == nil {
		return k, nil
	}
	d := store.NewDecoder(v)
	version := d.Uint()
	for range d.Count() {
		k.names = append(k.names, d.Text())
	}
	if d.Err() != nil || version != recordVersion {
		return nil, fmt.Errorf("keywords of mailbox %d: %w", id, store.ErrRecord)
	}
	return k, nil
}

func (k *keywords) save(tx store.Tx, id ID) {
	if !k.changed {
		return
	}
	var e store.Encoder
	e.Uint(recordVersion)
	e.Uint(uint64(len(k.names)))
	for _, name := range k.names {
		e.Text(name)
	}
	tx.Put(keywordsKey(id), e)
}

// find returns the place of a keyword in any case, or -1.
func (k *keywords) find(name string) int {
	return slices.IndexFunc(k.names, func(n string) bool { return strings.EqualFold(n, name) })
}

// add returns the place of a keyword, new or not, or -1 when the table is full.
func (k *keywords) add(name string, most int) int {
	if i := k.find(name); i >= 0 {
		return i
	}
	if len(k.names) >= most {
		return -1
	}
	k.names, k.changed = append(k.names, name), true
	return len(k.names) - 1
}

// flags returns what a person sees of a set.
func (k *keywords) flags(set flagSet) Flags {
	fl := make(Flags, 0, systemFlags+len(set.keywords))
	for i := range systemFlags {
		if set.has(1 << i) {
			fl = append(fl, systemFlag(i))
		}
	}
	for _, place := range set.keywords {
		if int(place) < len(k.names) {
			fl = append(fl, k.names[place])
		}
	}
	slices.Sort(fl)
	return slices.Clip(fl) // it will be shared, and who appends to it must get a copy
}

// A flagShower turns sets into Flags and makes the same set's Flags once only, where it can.
type flagShower struct {
	keywords *keywords
	plain    [1 << systemFlags]Flags // of sets without keywords
	mixed    map[mixed]Flags         // of sets with keywords
}

// mixed is a set of flags with keywords: which of the first 64 words of some sheet.
type mixed struct {
	system uint8
	words  uint64
}

// maxMixed bounds the Flags that a shower keeps.
const maxMixed = 1000

// start is called for each sheet before its messages are shown.
func (s *flagShower) start() { clear(s.mixed) }

// flags returns what a person sees of the flags of the message at i.
func (s *flagShower) flags(b *sheet, i uint) Flags {
	system := b.systemOf(i)
	words, some := uint64(0), false
	for w := range b.words {
		if b.words[w].in.has(i) {
			words, some = words|1<<(w%64), true
		}
	}
	if !some {
		fl := &s.plain[system]
		if *fl == nil {
			*fl = s.keywords.flags(flagSet{system: system})
		}
		return *fl
	}
	if len(b.words) > 64 {
		return s.keywords.flags(b.flags(i))
	}
	fl := s.mixed[mixed{system, words}]
	if fl == nil {
		fl = s.keywords.flags(b.flags(i))
		s.keep(mixed{system, words}, fl)
	}
	return fl
}

func (s *flagShower) keep(of mixed, fl Flags) {
	if s.mixed == nil {
		s.mixed = map[mixed]Flags{}
	}
	if len(s.mixed) < maxMixed {
		s.mixed[of] = fl
	}
}

// splitFlags separates system flags from keywords. `\Recent` and system flags that are
// not ours are dropped, as a server does with flags that are not permanent (RFC 9051, 7.1).
func splitFlags(flags []string) (system uint8, keywords []string, err error) {
	for _, f := range flags {
		switch {
		case strings.HasPrefix(f, `\`):
			system |= systemBit(f)
		case !isKeyword(f):
			return 0, nil, fmt.Errorf("%w: %.40q", ErrFlag, f)
		default:
			keywords = append(keywords, f)
		}
	}
	return system, keywords, nil
}

// isKeyword reports whether f is an atom (RFC 9051, 9) of bearable length.
func isKeyword(f string) bool {
	if f == "" || len(f) > maxKeyword {
		return false
	}
	return !strings.ContainsFunc(f, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r)
	})
}
