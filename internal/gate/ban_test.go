package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func offend(t *testing.T, p *Pass, n int, o Offence) (banned bool) {
	t.Helper()
	for range n {
		err := p.Offend(o)
		if r, ok := errors.AsType[*Refusal](err); err != nil && (!ok || !r.Over) {
			t.Fatalf("%v", err)
		}
		banned = err != nil
	}
	return banned
}

// Each offence bans at its limit and not before it; the network is not banned with the address.
func TestBansForOffences(t *testing.T) {
	for _, tt := range []struct {
		name    string
		offence Offence
		limit   int
		within  time.Duration
	}{
		{"guesses", Guess, 20, 6 * time.Hour},
		{"unknown recipients", Probe, 100, time.Hour},
		{"junk", Junk, 10, time.Hour},
		{"early talk", Early, 10, time.Hour},
		{"smuggling", Smuggle, 10, time.Hour},
	} {
		for _, family := range [][3]string{
			{"192.0.2.1", "192.0.2.1/32", "192.0.2.2"},
			{"2001:db8::1", "2001:db8::/64", "2001:db8:0:1::1"},
		} {
			t.Run(tt.name+" "+family[0], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := newGate(t, Limits{})
					p := enter(t, g, family[0])
					if offend(t, p, tt.limit-1, tt.offence) {
						t.Fatal("banned below the limit")
					}
					time.Sleep(tt.within)
					if offend(t, p, tt.limit-1, tt.offence) {
						t.Fatal("banned below the limit once more")
					}
					if !offend(t, p, 1, tt.offence) {
						t.Fatal("not banned at the limit")
					}
					if _, err := g.Enter(addr(family[0])); err == nil {
						t.Error("it comes in")
					}
					enter(t, g, family[2]) // a neighbour
					if list := g.bans.List(); len(list) != 1 || list[0].Network.String() != family[1] || list[0].By != ByGate {
						t.Errorf("bans: %+v", list)
					}
				})
			})
		}
	}
}

// Each ban is longer than the one before it, up to a week; a week of peace after it is forgiven.
func TestBansGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Limits{})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { g.bans.Run(ctx); close(ended) }()
		ban := func() time.Duration {
			if !offend(t, enter(t, g, "192.0.2.1"), 100, Junk) {
				t.Fatal("not banned")
			}
			begin := time.Now()
			for come(g, "192.0.2.1")() != nil {
				time.Sleep(time.Minute)
			}
			return time.Since(begin)
		}
		for i, want := range []time.Duration{10 * time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 7 * 24 * time.Hour} {
			if got := ban(); got != want {
				t.Errorf("ban %d lasts %v, want %v", i+1, got, want)
			}
			time.Sleep(6 * 24 * time.Hour)
		}
		time.Sleep(2 * 24 * time.Hour)
		if got := ban(); got != 10*time.Minute {
			t.Errorf("after a week of peace a ban lasts %v", got)
		}
		stop()
		<-ended
	})
}

// Failed logins that nobody has a pass for count, too, and close the door to those inside and outside.
func TestGuessed(t *testing.T) {
	g := newGate(t, Limits{BanGuesses: 7})
	for i := range 7 {
		if come(g, "192.0.2.1")() != nil {
			t.Fatalf("banned after %d", i)
		}
		g.Guessed(addr("::ffff:192.0.2.1"))
	}
	if come(g, "192.0.2.1")() == nil {
		t.Error("not banned")
	}
}

// Many addresses of one network that offend a little get the network banned.
func TestNetworkIsBanned(t *testing.T) {
	for _, tt := range []struct{ family, network, other string }{
		{"192.0.2.%d", "192.0.2.0/24", "192.0.3.1"},
		{"2001:db8:0:%x::1", "2001:db8::/48", "2001:db8:1::1"},
	} {
		g := newGate(t, Limits{})
		banned := 0
		for i := range 10*networkFactor - 1 {
			if err := enter(t, g, fmt.Sprintf(tt.family, i)).Offend(Junk); err != nil {
				banned++
			}
		}
		last := enter(t, g, fmt.Sprintf(tt.family, 100)).Offend(Junk)
		if banned != 0 || last == nil {
			t.Errorf("%d were banned before the limit; at it: %v", banned, last)
		}
		if come(g, fmt.Sprintf(tt.family, 200))() == nil {
			t.Error("one of the network comes in")
		}
		enter(t, g, tt.other)
		if list := g.bans.List(); len(list) != 1 || list[0].Network != prefix(tt.network) {
			t.Errorf("bans: %v", list)
		}
	}
}

// Who has logged in is banned for ten times as much only.
func TestKnownGoodIsHardToBan(t *testing.T) {
	g := newGate(t, Limits{})
	p := enter(t, g, "192.0.2.1")
	p.LoggedIn(7)
	p.LoggedIn(0)
	if offend(t, p, 10*knownFactor-1, Junk) {
		t.Error("banned")
	}
	if !offend(t, p, 1, Junk) {
		t.Error("not banned at ten times the limit")
	}
}

// Unknown recipients of who sends mail, too, are stale addresses; those of an account are typing errors.
func TestProbingBesideMail(t *testing.T) {
	g := newGate(t, Limits{})
	p := enter(t, g, "192.0.2.1")
	for i := range 1000 {
		if err := p.Offend(Probe); err != nil {
			t.Fatalf("banned after %d unknown and as many known recipients", i)
		}
		p.Accepted(1)
	}
	if !offend(t, p, 100, Probe) {
		t.Error("not banned for probing after all that")
	}
	p = enter(t, g, "192.0.2.2")
	p.LoggedIn(7)
	if offend(t, p, 5000, Probe) {
		t.Error("an account is banned for unknown recipients")
	}
}

// Nobody is banned by itself whose address many share, and offences that are switched off ban nobody.
func TestNotBannedByItself(t *testing.T) {
	g := newGate(t, Limits{PerNetwork: 1000, Connections: 10_000})
	for _, s := range []string{"10.1.2.3", "172.17.0.1", "192.168.1.1", "100.64.1.1", "169.254.1.1", "fd00::1", "fe80::1", "0.0.0.0"} {
		if offend(t, enter(t, g, s), 1000, Junk) {
			t.Errorf("%s is banned", s)
		}
	}
	g = newGate(t, Limits{BanAbuse: -1, BanGuesses: -1, BanUnknown: -1})
	for _, o := range []Offence{Guess, Probe, Junk} {
		if offend(t, enter(t, g, "192.0.2.1"), 1000, o) {
			t.Errorf("banned for %s", o.reason)
		}
	}
}

func TestBanByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := storetest.Open(t)
		b, err := OpenBans(st, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		var seen []string
		b.Watch(func(n Ban) { seen = append(seen, n.Network.String()) })
		for _, tt := range []struct {
			network string
			err     error
			is      string
		}{
			{"192.0.2.77/24", nil, "192.0.2.0/24"},
			{"192.0.2.1/32", nil, "192.0.2.1/32"},
			{"2001:db8::1/64", nil, "2001:db8::/64"},
			{"::ffff:198.51.100.1/120", nil, "198.51.100.0/24"},
			{"127.0.0.1/32", ErrThisHost, ""},
			{"127.0.0.0/8", ErrThisHost, ""},
			{"::1/128", ErrThisHost, ""},
			{"::/16", ErrThisHost, ""},
			{"0.0.0.0/0", ErrTooWide, ""},
			{"96.0.0.0/7", ErrTooWide, ""},
			{"::/0", ErrTooWide, ""},
			{"::ffff:0.0.0.0/96", ErrTooWide, ""},
		} {
			ban, err := b.Add(prefix(tt.network), time.Hour, "by hand")
			if !errors.Is(err, tt.err) || err == nil && ban.Network.String() != tt.is {
				t.Errorf("%s: %v, %v", tt.network, ban, err)
			}
		}
		for _, reason := range []string{"two\nlines", "\x00", "\xff", strings.Repeat("x", maxReason+1)} {
			if _, err := b.Add(prefix("192.0.2.0/24"), 0, reason); !errors.Is(err, ErrBanReason) {
				t.Errorf("%q: %v", reason, err)
			}
		}
		if want := []string{"192.0.2.0/24", "192.0.2.1/32", "2001:db8::/64", "198.51.100.0/24"}; !slices.Equal(seen, want) {
			t.Errorf("told of %v", seen)
		}
		if n, ok := b.Covers(addr("192.0.2.1")); !ok || n.Network.Bits() != 32 {
			t.Errorf("the smallest is %v", n)
		}
		if err := b.Remove(prefix("192.0.2.1/32")); err != nil {
			t.Error(err)
		}
		err = b.Remove(prefix("192.0.2.1/32"))
		if !errors.Is(err, ErrNoBan) || !strings.Contains(err.Error(), "192.0.2.0/24") {
			t.Errorf("removed twice: %v", err)
		}
		if err := b.Remove(prefix("203.0.113.0/24")); !errors.Is(err, ErrNoBan) {
			t.Errorf("never banned: %v", err)
		}
		time.Sleep(time.Hour)
		if list := b.List(); len(list) != 0 {
			t.Errorf("after an hour: %v", list)
		}
		if _, ok := b.Covers(addr("192.0.2.1")); ok {
			t.Error("a ban that is over covers")
		}
	})
}

// What an administrator does to bans is in the log.
func TestBansByHandAreLogged(t *testing.T) {
	var log strings.Builder
	b, err := OpenBans(storetest.Open(t), nil, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	add := func(network string, term time.Duration, reason string) {
		_, _ = b.Add(prefix(network), term, reason)
	}
	for _, step := range []struct {
		do   func()
		want string // in the log; empty is nothing
	}{
		{func() { add("192.0.2.0/24", 0, "noise") }, `msg=banned network=192.0.2.0/24 for=ever reason=noise by="the administrator"`},
		{func() { add("198.51.100.1/32", time.Hour, "") }, `msg=banned network=198.51.100.1/32 for=1h0m0s reason="" by="the administrator"`},
		{func() { add("127.0.0.0/8", 0, "") }, ""},
		{func() { _ = b.Remove(prefix("192.0.2.0/24")) }, `msg="ban removed" network=192.0.2.0/24 reason=noise by="the administrator"`},
		{func() { _ = b.Remove(prefix("192.0.2.0/24")) }, ""},
	} {
		log.Reset()
		step.do()
		if said := log.String(); !strings.Contains(said, step.want) || step.want == "" && said != "" {
			t.Errorf("logged %q, want %q", said, step.want)
		}
	}
}

// By hand a network is refused for good, by itself for a while.
func TestWhatTheBannedAreTold(t *testing.T) {
	g := newGate(t, Limits{})
	if _, err := g.bans.Add(prefix("192.0.2.0/24"), 0, "enough"); err != nil {
		t.Fatal(err)
	}
	_, err := g.Enter(addr("192.0.2.1"))
	if r, ok := errors.AsType[*Refusal](err); !ok || !r.Permanent || !r.Over || strings.Contains(r.Text, "enough") {
		t.Errorf("by hand: %+v", r)
	}
	offend(t, enter(t, g, "198.51.100.1"), 10, Smuggle)
	_, err = g.Enter(addr("198.51.100.1"))
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Permanent || !strings.HasSuffix(r.Text, " UTC") {
		t.Errorf("by itself: %+v", r)
	}
}

// Bans survive a restart: those by hand at once, those for offences a second later, and what was removed stays so.
func TestBansAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := storetest.Open(t)
		b, err := OpenBans(st, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		again := func() []string {
			t.Helper()
			b, err := OpenBans(st, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			var list []string
			for _, n := range b.List() {
				list = append(list, fmt.Sprint(n.Network, " ", n.Reason, " ", n.Count, " ", n.By, " ", n.Until.Sub(n.Since)))
			}
			return list
		}
		for _, s := range []string{"192.0.2.0/24", "203.0.113.0/24"} {
			if _, err := b.Add(prefix(s), 2*time.Hour, "by hand"); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Remove(prefix("203.0.113.0/24")); err != nil {
			t.Fatal(err)
		}
		if got := again(); !slices.Equal(got, []string{"192.0.2.0/24 by hand 0 admin 2h0m0s"}) {
			t.Errorf("by hand: %q", got)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { b.Run(ctx); close(ended) }()
		commits := st.Stats().Commits
		for i := range 200 {
			b.punish(prefix(fmt.Sprintf("198.51.100.%d/32", i)), "junk")
		}
		time.Sleep(writeSoon + time.Second)
		if got := again(); len(got) != 201 || got[200] != "198.51.100.199/32 junk 1 gate 10m0s" {
			t.Errorf("for offences: %d, %q", len(got), got[len(got)-1])
		}
		if n := st.Stats().Commits - commits; n > 1 {
			t.Errorf("%d commits", n)
		}
		b.punish(prefix("2001:db8::/64"), "junk")
		stop()
		<-ended
		if got := again(); len(got) != 202 {
			t.Errorf("at the end %d are written", len(got))
		}
	})
}

// Bans that are over are forgotten in memory and in the store.
func TestBansExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := storetest.Open(t)
		b, err := OpenBans(st, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { b.Run(ctx); close(ended) }()
		b.punish(prefix("192.0.2.1/32"), "junk")
		time.Sleep(terms[0] + remorse + sweepEach + time.Second)
		stop()
		<-ended
		if len(b.list) != 0 || len(b.lengths[0].used) != 0 || b.count.Load() != 0 {
			t.Errorf("remembered: %v", b.list)
		}
		if list, err := readBans(st); len(list) != 0 || err != nil {
			t.Errorf("stored: %v, %v", list, err)
		}
	})
}

// Beyond 100,000 bans the oldest are forgotten, and those by hand last.
func TestBansAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("fills all tables")
	}
	now := time.Unix(1e9, 0)
	b, err := OpenBans(storetest.Open(t), func() time.Time { now = now.Add(time.Millisecond); return now }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Add(prefix("192.0.2.0/24"), 0, ""); err != nil {
		t.Fatal(err)
	}
	before := heap()
	for i := range maxBans + 1000 {
		b.punish(netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32), "junk")
		if len(b.list) > maxBans {
			t.Fatalf("%d bans", len(b.list))
		}
	}
	if _, ok := b.Covers(addr("20.0.0.0")); ok {
		t.Error("the oldest is remembered")
	}
	for _, s := range []string{"192.0.2.1", "20.1.137.0"} {
		if _, ok := b.Covers(addr(s)); !ok {
			t.Errorf("%s is forgotten", s)
		}
	}
	if err := b.write(); err != nil {
		t.Fatal(err)
	}
	if grown := heap() - before; grown > 48<<20 {
		t.Errorf("the heap grew by %d octets", grown)
	} else {
		t.Logf("%d bans in %d octets", len(b.list), grown)
	}
	if list, err := readBans(b.st); err != nil || len(list) != len(b.list) {
		t.Errorf("%d of %d are stored: %v", len(list), len(b.list), err)
	}
}

// failing is a store that cannot be written to for a while.
type failing struct {
	Store
	err error
}

func (f *failing) Update(fn func(store.Tx) error, drafts ...*store.Draft) error {
	if f.err != nil {
		return f.err
	}
	return f.Store.Update(fn, drafts...)
}

// A ban that cannot be written is in force all the same, and is written later.
func TestBansAreWrittenLater(t *testing.T) {
	st := &failing{storetest.Open(t), store.ErrFull}
	b, err := OpenBans(st, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.punish(prefix("192.0.2.1/32"), "junk")
	if _, err := b.Add(prefix("192.0.2.2/32"), 0, ""); !errors.Is(err, store.ErrFull) {
		t.Errorf("by hand: %v", err)
	}
	if len(b.List()) != 2 {
		t.Errorf("in force: %v", b.List())
	}
	st.err = nil
	if err := b.write(); err != nil {
		t.Error(err)
	}
	if list, err := readBans(st); len(list) != 2 || err != nil {
		t.Errorf("stored: %v, %v", list, err)
	}
}

func TestDamagedBan(t *testing.T) {
	for _, tt := range []struct{ key, value string }{{"192.0.2.0/24", "{"}, {"not a network", "{}"}} {
		st := storetest.Open(t)
		err := st.Update(func(tx store.Tx) error {
			tx.Put(store.NewKey(tableBans).Text(tt.key), []byte(tt.value))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenBans(st, nil, nil); !errors.Is(err, store.ErrRecord) || !strings.Contains(err.Error(), tt.key) {
			t.Errorf("%v", err)
		}
	}
}

// Covers finds what a walk over all bans finds.
func TestCoversTheLongestPrefix(t *testing.T) {
	b, err := OpenBans(storetest.Open(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var seed uint32 = 1
	random := func(n int) int { seed = seed*1664525 + 1013904223; return int(seed>>8) % n }
	var all []netip.Prefix
	for range 300 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, byte(random(4)), byte(random(8)), byte(random(256))}), 10+random(23)).Masked()
		all = append(all, p)
		if _, err := b.add(p, 0, ""); err != nil {
			t.Fatal(err)
		}
		if random(3) == 0 {
			i := random(len(all))
			b.mu.Lock()
			b.drop(all[i])
			b.mu.Unlock()
			all = slices.DeleteFunc(all, func(p netip.Prefix) bool { _, ok := b.list[p]; return !ok })
		}
		a := netip.AddrFrom4([4]byte{192, byte(random(4)), byte(random(8)), byte(random(256))})
		want := -1
		for _, p := range all {
			if p.Contains(a) {
				want = max(want, p.Bits())
			}
		}
		got := -1
		if n, ok := b.Covers(a); ok {
			got = n.Network.Bits()
		}
		if got != want {
			t.Fatalf("%s is covered by a /%d, want /%d", a, got, want)
		}
	}
}
