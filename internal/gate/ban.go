package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"postroad/internal/store"
)

// A Ban keeps a network out.
type Ban struct {
	Network netip.Prefix
	Since   time.Time
	Until   time.Time // zero is until it is removed
	Reason  string
	Count   int    // how often the network was banned by itself, this time included
	By      string // ByGate or ByAdmin
}

// Who bans.
const (
	ByGate  = "gate"  // for offences
	ByAdmin = "admin" // by hand
)

// terms are how long a network is banned by itself: the first time, the second, and so on; the last one stays.
var terms = [...]time.Duration{10 * time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}

const (
	remorse   = 7 * 24 * time.Hour // after a ban; who is banned again before it has passed is banned for longer
	maxBans   = 100_000            // beyond it the oldest are forgotten, those by hand last
	maxReason = 200                // octets
	writeSoon = time.Second        // after a ban by itself: others come along
	sweepEach = 10 * time.Minute
	writeMost = 1000 // bans in one transaction
)

// What is wrong with a ban.
var (
	ErrNoBan     = errors.New("is not banned")
	ErrThisHost  = errors.New("is this machine, which cannot be banned")
	ErrTooWide   = errors.New("is too large a part of the Internet to be banned; use an IPv4 /8 or an IPv6 /16 at most")
	ErrBanReason = errors.New("the reason is too long, or not plain text")
)

// Store is what bans ask of the store.
type Store interface {
	View(fn func(store.Reader) error) error
	Update(fn func(store.Tx) error, drafts ...*store.Draft) error
}

// Bans are the networks that are kept out. Those that an administrator makes are durable when Add returns; those for
// offences are written soon after, by Run. Any number of goroutines.
type Bans struct {
	// Set by OpenBans, never changed.
	st    Store
	now   func() time.Time
	log   *slog.Logger
	dirty chan struct{} // holds one value when there is something to write

	count atomic.Int64 // of list; most of the time there are none

	writing sync.Mutex // held from taking what is to be written to having written it

	mu      sync.RWMutex // guards what follows
	list    map[netip.Prefix]Ban
	lengths [2]lengths // of the prefixes in list: IPv4, IPv6
	pending map[netip.Prefix]bool
	watch   []func(Ban)
}

// lengths counts prefixes by their length.
type lengths struct {
	count [129]int
	used  []int // those that occur, the longest first
}

func (l *lengths) add(bits, n int) {
	l.count[bits] += n
	i, found := slices.BinarySearchFunc(l.used, bits, func(a, b int) int { return cmp.Compare(b, a) })
	switch {
	case l.count[bits] > 0 && !found:
		l.used = slices.Insert(l.used, i, bits)
	case l.count[bits] == 0 && found:
		l.used = slices.Delete(l.used, i, i+1)
	}
}

// OpenBans reads the bans that the store has. now is the clock, nil is time.Now; a nil log discards.
func OpenBans(st Store, now func() time.Time, log *slog.Logger) (*Bans, error) {
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Bans{st: st, now: now, log: log, dirty: make(chan struct{}, 1)}
	b.list, b.pending = map[netip.Prefix]Ban{}, map[netip.Prefix]bool{}
	list, err := readBans(st)
	for _, ban := range list {
		b.put(ban)
	}
	return b, err
}

// Watch has fn called with each new ban, while nothing is locked. It must not block.
func (b *Bans) Watch(fn func(Ban)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watch = append(b.watch, fn)
}

// put makes ban that of its network. mu must be held.
func (b *Bans) put(ban Ban) {
	if _, ok := b.list[ban.Network]; !ok {
		b.lengthsOf(ban.Network.Addr()).add(ban.Network.Bits(), 1)
		b.count.Add(1)
	}
	b.list[ban.Network] = ban
}

// drop forgets the ban of a network. mu must be held.
func (b *Bans) drop(p netip.Prefix) {
	if _, ok := b.list[p]; ok {
		b.lengthsOf(p.Addr()).add(p.Bits(), -1)
		b.count.Add(-1)
	}
	delete(b.list, p)
}

func (b *Bans) lengthsOf(a netip.Addr) *lengths {
	if a.Is4() {
		return &b.lengths[0]
	}
	return &b.lengths[1]
}

// over reports whether a ban has run out.
func (n Ban) over(now time.Time) bool { return !n.Until.IsZero() && !now.Before(n.Until) }

// Covers returns the ban that an address is under, that of the smallest network if there are several. It looks once
// for each length of prefix that occurs.
func (b *Bans) Covers(a netip.Addr) (Ban, bool) {
	if b == nil || b.count.Load() == 0 {
		return Ban{}, false
	}
	a = a.Unmap().WithZone("")
	now := b.now()
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, bits := range b.lengthsOf(a).used {
		p, _ := a.Prefix(bits)
		if ban, ok := b.list[p]; ok && !ban.over(now) {
			return ban, true
		}
	}
	return Ban{}, false
}

// List returns the bans that hold, by network.
func (b *Bans) List() []Ban {
	now := b.now()
	b.mu.RLock()
	defer b.mu.RUnlock()
	var list []Ban
	for _, ban := range b.list {
		if !ban.over(now) {
			list = append(list, ban)
		}
	}
	slices.SortFunc(list, func(a, b Ban) int { return a.Network.Compare(b.Network) })
	return list
}

// Add bans a network for a time, 0 is until it is removed, in place of the ban that it is under already. The ban is durable
// when Add returns. ErrThisHost, ErrTooWide, ErrBanReason.
func (b *Bans) Add(p netip.Prefix, term time.Duration, reason string) (Ban, error) {
	ban, err := b.add(p, term, reason)
	if err != nil {
		return Ban{}, err
	}
	b.log.Warn("banned", "network", ban.Network.String(), "for", lasting(term), "reason", reason, "by", "the administrator")
	b.tell(ban)
	return ban, b.write()
}

// lasting is how long a ban is for, in the log.
func lasting(term time.Duration) string {
	if term <= 0 {
		return "ever"
	}
	return term.String()
}

// add is Add before anything is told or written.
func (b *Bans) add(p netip.Prefix, term time.Duration, reason string) (Ban, error) {
	p, err := bannable(p)
	if err != nil {
		return Ban{}, err
	}
	if len(reason) > maxReason || !utf8.ValidString(reason) || strings.ContainsFunc(reason, notPrint) {
		return Ban{}, ErrBanReason
	}
	ban := Ban{Network: p, Since: b.now(), Reason: reason, By: ByAdmin}
	if term > 0 {
		ban.Until = ban.Since.Add(term)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ban.Count = b.list[p].Count
	b.put(ban)
	b.pending[p] = true
	b.makeRoom(ban.Since)
	return ban, nil
}

func notPrint(r rune) bool { return !unicode.IsPrint(r) }

// bannable returns the prefix of a network that may be banned.
func bannable(p netip.Prefix) (netip.Prefix, error) {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	p = p.Masked()
	least := 16
	if p.Addr().Is4() {
		least = 8
	}
	switch {
	case !p.IsValid() || p.Bits() < least:
		return p, fmt.Errorf("%s %w", p, ErrTooWide)
	case p.Addr().IsLoopback() || p.Contains(netip.IPv6Loopback()):
		return p, fmt.Errorf("%s %w", p, ErrThisHost)
	}
	return p, nil
}

// Remove ends the ban of exactly this network, and forgets that it was banned. Durable when it returns. ErrNoBan, which
// names the ban of a larger network that the address is under.
func (b *Bans) Remove(p netip.Prefix) error {
	p = p.Masked()
	b.mu.Lock()
	ban, ok := b.list[p]
	ok = ok && !ban.over(b.now())
	if ok {
		b.drop(p)
		b.pending[p] = true
	}
	b.mu.Unlock()
	if ok {
		b.log.Info("ban removed", "network", p.String(), "reason", ban.Reason, "by", "the administrator")
		return b.write()
	}
	if wider, ok := b.Covers(p.Addr()); ok {
		return fmt.Errorf("%s %w by itself, but %s is", p, ErrNoBan, wider.Network)
	}
	return fmt.Errorf("%s %w", p, ErrNoBan)
}

// punish bans a network for an offence, for longer than last time. It reports false when the network is banned already.
func (b *Bans) punish(p netip.Prefix, reason string) (Ban, bool) {
	if b == nil {
		return Ban{}, false
	}
	now := b.now()
	b.mu.Lock()
	before, ok := b.list[p]
	if ok && !before.over(now) {
		b.mu.Unlock()
		return before, true
	}
	term := terms[min(before.Count, len(terms)-1)]
	ban := Ban{Network: p, Since: now, Until: now.Add(term), Reason: reason, Count: before.Count + 1, By: ByGate}
	b.put(ban)
	b.pending[p] = true
	b.makeRoom(now)
	b.mu.Unlock()
	b.log.Warn("banned", "network", p.String(), "for", term.String(), "reason", reason, "count", ban.Count)
	b.tell(ban)
	select {
	case b.dirty <- struct{}{}:
	default:
	}
	return ban, true
}

// makeRoom forgets the oldest bans, some at once, when there are too many. mu must be held.
func (b *Bans) makeRoom(now time.Time) {
	if len(b.list) <= maxBans {
		return
	}
	b.expire(now)
	over := len(b.list) - maxBans
	if over <= 0 {
		return
	}
	oldest := slices.SortedFunc(maps.Values(b.list), func(a, b Ban) int {
		return cmp.Or(cmp.Compare(b.By, a.By), a.Since.Compare(b.Since)) // "gate" before "admin"
	})
	for _, ban := range oldest[:over+maxBans/100] {
		b.drop(ban.Network)
		b.pending[ban.Network] = true
	}
}

// expire forgets bans that have run out so long ago that a new one would be a first. mu must be held.
func (b *Bans) expire(now time.Time) {
	for p, ban := range b.list {
		if ban.over(now.Add(-remorse)) {
			b.drop(p)
			b.pending[p] = true
		}
	}
}

func (b *Bans) tell(ban Ban) {
	b.mu.RLock()
	watch := slices.Clone(b.watch)
	b.mu.RUnlock()
	for _, fn := range watch {
		fn(ban)
	}
}

// Run writes bans and forgets those that are over, until ctx is done; then it writes what is left. What cannot be written
// is logged, stays in force, and is tried again.
func (b *Bans) Run(ctx context.Context) {
	sweep := time.NewTicker(sweepEach)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			b.writeLogged()
			return
		case <-b.dirty:
			select {
			case <-time.After(writeSoon):
			case <-ctx.Done():
			}
		case <-sweep.C:
			b.mu.Lock()
			b.expire(b.now())
			b.mu.Unlock()
		}
		b.writeLogged()
	}
}

func (b *Bans) writeLogged() {
	if err := b.write(); err != nil {
		b.log.Error("bans could not be written", "err", err)
	}
}
