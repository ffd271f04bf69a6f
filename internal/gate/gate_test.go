package gate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/store/storetest"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// newGate is a gate on a store of its own, with the clock of the bubble it is made in.
func newGate(t testing.TB, l Limits, trusted ...string) *Gate {
	t.Helper()
	bans, err := OpenBans(storetest.Open(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var nets []netip.Prefix
	for _, s := range trusted {
		nets = append(nets, netip.MustParsePrefix(s))
	}
	return New(Options{Limits: l, Trusted: nets, Bans: bans})
}

func enter(t testing.TB, g *Gate, from string) *Pass {
	t.Helper()
	p, err := g.Enter(addr(from))
	if err != nil {
		t.Fatalf("%s: %v", from, err)
	}
	return p
}

// count is how many of n calls are allowed.
func count(n int, fn func() error) (ok int) {
	for range n {
		if fn() == nil {
			ok++
		}
	}
	return ok
}

// come enters and leaves again.
func come(g *Gate, from string) func() error {
	return func() error {
		p, err := g.Enter(addr(from))
		p.Leave()
		return err
	}
}

// Each rate lets its limit through at once, not one more however often it is tried, and all again when its time has passed.
func TestRates(t *testing.T) {
	const limit = 40
	limits := Limits{
		Connections: limit, Messages: limit, Recipients: limit, AccountMessages: 2 * limit, AccountRecipients: 2 * limit,
	}
	for _, tt := range []struct {
		name   string
		limit  int
		within time.Duration
		do     func(g *Gate, p *Pass) func() error
	}{
		{"connections", limit, time.Minute, func(g *Gate, _ *Pass) func() error { return come(g, "192.0.2.1") }},
		{"messages", limit, time.Hour, func(_ *Gate, p *Pass) func() error { return p.Mail }},
		{"recipients", limit, time.Hour, func(_ *Gate, p *Pass) func() error { return p.Rcpt }},
		{"messages of an account", 2 * limit, time.Hour, func(_ *Gate, p *Pass) func() error { p.LoggedIn(7); return p.Mail }},
		{"recipients of an account", 2 * limit, time.Hour, func(_ *Gate, p *Pass) func() error { p.LoggedIn(7); return p.Rcpt }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, limits)
				do := tt.do(g, enter(t, g, "198.51.100.1")) // another one: it is itself a connection
				if n := count(tt.limit, do); n != tt.limit {
					t.Errorf("%d of %d are allowed", n, tt.limit)
				}
				if n := count(100*tt.limit, do); n != 0 {
					t.Errorf("%d more are allowed", n)
				}
				time.Sleep(tt.within / time.Duration(tt.limit))
				if n := count(2, do); n != 1 {
					t.Errorf("%d are allowed after the time of one", n)
				}
				time.Sleep(tt.within)
				if n := count(2*tt.limit, do); n != tt.limit {
					t.Errorf("%d are allowed after the time of all", n)
				}
			})
		})
	}
}

// Connections at once are bounded for a network, and free again when they end.
func TestConnectionsPerNetwork(t *testing.T) {
	const limit = 5
	for _, family := range []string{"192.0.2.%d", "2001:db8:0:%x::1"} {
		g := newGate(t, Limits{PerNetwork: limit})
		var in []*Pass
		for i := range 100 * limit {
			p, err := g.Enter(addr(fmt.Sprintf(family, i%250)))
			if err == nil {
				in = append(in, p)
			}
			if (err == nil) != (i < limit) {
				t.Fatalf("connection %d: %v", i+1, err)
			}
		}
		enter(t, g, "198.51.100.1") // others are free to come
		for _, p := range in {
			p.Leave()
			p.Leave() // counts once
		}
		if n := count(limit+1, func() error { _, err := g.Enter(addr(fmt.Sprintf(family, 9))); return err }); n != limit {
			t.Errorf("%d of %d places are free again", n, limit)
		}
	}
}

// Refused data is counted in octets; when there has been too much, no message begins.
func TestRefusedOctets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1_000_000
		g := newGate(t, Limits{RefusedOctets: limit})
		p := enter(t, g, "192.0.2.1")
		p.Refused(limit - 1)
		if err := p.Mail(); err != nil {
			t.Errorf("below the limit: %v", err)
		}
		p.Refused(1)
		if p.Mail() == nil {
			t.Error("at the limit a message begins")
		}
		for range 100 {
			p.Refused(limit)
		}
		time.Sleep(time.Hour)
		if p.Mail() == nil {
			t.Error("what came beyond the limit was not counted")
		}
		time.Sleep(time.Hour + time.Second)
		if err := p.Mail(); err != nil {
			t.Errorf("two hours later: %v", err)
		}
	})
}

// Errors keep an address from coming in again, for a while.
func TestErrorsOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Limits{Errors: 30})
		p := enter(t, g, "192.0.2.1")
		for range 29 {
			p.Erred(1)
		}
		enter(t, g, "192.0.2.1").Erred(1)
		if come(g, "192.0.2.1")() == nil {
			t.Error("it comes in")
		}
		enter(t, g, "192.0.2.2")
		time.Sleep(2*time.Minute + time.Second)
		enter(t, g, "192.0.2.1")
	})
}

// A network may do five times what an address may, and no more.
func TestRatesOfANetwork(t *testing.T) {
	const limit = 10
	for _, tt := range []struct{ name, family string }{{"IPv4 /24", "192.0.2.%d"}, {"IPv6 /48", "2001:db8:0:%x::1"}} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate(t, Limits{Messages: limit})
			total := 0
			for i := range 100 {
				total += count(2, enter(t, g, fmt.Sprintf(tt.family, i)).Mail)
			}
			if total != networkFactor*limit {
				t.Errorf("%d messages are allowed, want %d", total, networkFactor*limit)
			}
		})
	}
	g := newGate(t, Limits{Messages: limit})
	if n := count(100, enter(t, g, "2001:db8::1").Mail) + count(100, enter(t, g, "2001:db8::2").Mail); n != limit {
		t.Errorf("two addresses of one /64 are allowed %d messages", n)
	}
}

// Who has logged in may do ten times as much, for thirty days.
func TestKnownGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 10
		g := newGate(t, Limits{Connections: limit, PerNetwork: limit})
		enter(t, g, "192.0.2.1").LoggedIn(7)
		if n := count(1000, come(g, "192.0.2.1")); n < 9*limit || n > knownFactor*limit {
			t.Errorf("%d connections", n)
		}
		time.Sleep(goodFor + time.Hour)
		if n := count(1000, come(g, "192.0.2.1")); n != limit {
			t.Errorf("%d connections after thirty days", n)
		}
	})
}

// This machine, unix sockets and trusted networks are free of it all.
func TestExempt(t *testing.T) {
	l := Limits{
		PerNetwork: 1, Connections: 1, Messages: 1, Recipients: 1, RefusedOctets: 1, Errors: 1, AccountMessages: 1,
		AccountRecipients: 1, BanGuesses: 1, BanUnknown: 1, BanAbuse: 1,
	}
	g := newGate(t, l, "198.51.100.0/24", "2001:db8:1::/48")
	for _, a := range []netip.Addr{{}, addr("127.0.0.1"), addr("127.9.9.9"), addr("::1"), addr("::ffff:127.0.0.1"),
		addr("198.51.100.77"), addr("::ffff:198.51.100.77"), addr("2001:db8:1::5")} {
		for range 3 {
			p, err := g.Enter(a)
			if err != nil {
				t.Fatalf("%s: %v", a, err)
			}
			p.LoggedIn(7)
			p.Refused(1000)
			for _, err := range []error{p.Mail(), p.Rcpt(), p.Offend(Junk), p.Offend(Probe), p.Offend(Guess)} {
				if err != nil {
					t.Errorf("%s: %v", a, err)
				}
			}
			g.Guessed(a)
			if d := p.GreetDelay() + p.Erred(1000); d != 0 {
				t.Errorf("%s is delayed for %v", a, d)
			}
		}
	}
	if list := g.bans.List(); len(list) > 0 {
		t.Errorf("banned: %v", list)
	}
	var none *Gate
	if p, err := none.Enter(addr("192.0.2.1")); p != nil || err != nil {
		t.Errorf("no gate: %v %v", p, err)
	}
}

// The large senders: hundreds of messages an hour from each address of a /24, with stale addresses among them.
func TestLargeSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Limits{})
		for range 60 { // a minute each
			for host := range 60 {
				from := fmt.Sprintf("192.0.2.%d", host)
				for i := range 20 {
					p, err := g.Enter(addr(from))
					if err != nil {
						t.Fatal(err)
					}
					if err := p.Mail(); err != nil {
						t.Fatal(err)
					}
					for range 3 {
						if err := p.Rcpt(); err != nil {
							t.Fatal(err)
						}
					}
					if i%5 == 0 {
						if err := p.Offend(Probe); err != nil {
							t.Fatal(err)
						}
						p.Erred(1)
					}
					p.Accepted(2)
					p.Leave()
				}
			}
			time.Sleep(time.Minute)
		}
		if list := g.bans.List(); len(list) > 0 {
			t.Errorf("banned: %v", list)
		}
	})
}

// A stranger's greeting is delayed until it has sent a message or logged in.
func TestGreetDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Limits{GreetDelay: 3 * time.Second})
		for i, behave := range []func(*Pass){
			func(p *Pass) { p.Accepted(1) },
			func(p *Pass) { p.LoggedIn(7) },
		} {
			from := fmt.Sprintf("192.0.2.%d", i)
			p := enter(t, g, from)
			if d := p.GreetDelay(); d != 3*time.Second {
				t.Errorf("a stranger waits %v", d)
			}
			behave(p)
			if d := enter(t, g, from).GreetDelay(); d != 0 {
				t.Errorf("a friend waits %v", d)
			}
		}
		if d := enter(t, g, "192.0.2.77").GreetDelay(); d == 0 {
			t.Error("a neighbour is no stranger")
		}
		time.Sleep(goodFor)
		if d := enter(t, g, "192.0.2.1").GreetDelay(); d == 0 {
			t.Error("a friend stays one for ever")
		}
	})
}

func TestTarpit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Limits{Tarpit: 3})
		p := enter(t, g, "192.0.2.1")
		want := []time.Duration{0, 0, 0, 1, 2, 3, 4, 5, 5, 5}
		for i, w := range want {
			if d := p.Erred(i + 1); d != w*time.Second {
				t.Errorf("error %d waits %v, want %v s", i+1, d, int(w))
			}
		}
		begin := time.Now()
		p.Slow(t.Context(), 4*time.Second)
		if took := time.Since(begin); took != 4*time.Second {
			t.Errorf("slow took %v", took)
		}
		if d := enter(t, newGate(t, Limits{Tarpit: -1}), "192.0.2.1").Erred(1000); d != 0 {
			t.Errorf("no tarpit delays by %v", d)
		}
	})
}

// Who waits in the tarpit is let go of when the server ends.
func TestTarpitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := enter(t, newGate(t, Limits{}), "192.0.2.1")
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, stop)
		begin := time.Now()
		p.Slow(ctx, 5*time.Second)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it took %v", took)
		}
		if n := p.g.slowed.taken.Load(); n != 0 {
			t.Errorf("%d places are taken", n)
		}
	})
}

// No more than 1,000 connections wait in the tarpit; one more is answered at once.
func TestTarpitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Limits{PerNetwork: 10_000, Connections: 10_000})
		p := enter(t, g, "192.0.2.1")
		var waiting sync.WaitGroup
		for range slowAtOne {
			waiting.Go(func() { p.Slow(t.Context(), 5*time.Second) })
		}
		synctest.Wait()
		begin := time.Now()
		for range 100 * slowAtOne {
			p.Slow(t.Context(), 5*time.Second)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("they waited %v", took)
		}
		waiting.Wait()
		p.Slow(t.Context(), time.Second)
		if took := time.Since(begin); took != 6*time.Second {
			t.Errorf("a place that is free again was not taken: %v", took)
		}
	})
}

// A million addresses do not grow what is remembered beyond its bound, and the newest are among it.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("fills all tables")
	}
	g := newGate(t, Limits{})
	before := heap()
	for i := range 1_000_000 {
		from := netip.AddrFrom4([4]byte{1 + byte(i>>16), byte(i >> 8), byte(i), 1})
		if i%2 == 0 {
			from = netip.AddrFrom16([16]byte{0x20, 0x01, byte(i >> 16), byte(i >> 8), byte(i), 15: 1})
		}
		p, err := g.Enter(from)
		if err != nil {
			t.Fatal(err)
		}
		if i%8 == 0 {
			p.LoggedIn(uint64(i) + 1)
			if err := p.Mail(); err != nil {
				t.Fatal(err)
			}
		}
		p.Leave()
	}
	addresses, networks, open := 0, 0, 0
	for i := range g.shards {
		addresses += g.shards[i].addresses.len()
		networks += g.shards[i].networks.len()
		open += len(g.shards[i].open)
	}
	if addresses > remembered || networks > remembered/2 || g.accounts.len() > remembered/2 || open != 0 {
		t.Errorf("remembered: %d addresses, %d networks, %d accounts, %d open", addresses, networks, g.accounts.len(), open)
	}
	if grown := heap() - before; grown > 40<<20 {
		t.Errorf("the heap grew by %d octets", grown)
	} else {
		t.Logf("%d addresses, %d networks, %d accounts in %d octets", addresses, networks, g.accounts.len(), grown)
	}
	runtime.KeepAlive(g)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Everything at once, for the race detector; in the end nothing is open.
func TestManyGoroutines(t *testing.T) {
	g := newGate(t, Limits{BanAbuse: 3, BanUnknown: 5, BanGuesses: 5})
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for k := range 300 {
				from := fmt.Sprintf("192.0.%d.%d", k%7, i)
				p, err := g.Enter(addr(from))
				if err != nil {
					continue
				}
				_ = p.Mail()
				_ = p.Rcpt()
				p.Refused(100)
				p.Erred(k)
				p.Accepted(1)
				if k%3 == 0 {
					p.LoggedIn(uint64(k))
				}
				if k%50 == 0 {
					_ = p.Offend(Probe)
					g.Guessed(addr(from))
				}
				p.GreetDelay()
				g.bans.List()
				p.Leave()
			}
		})
	}
	all.Wait()
	for i := range g.shards {
		if n := len(g.shards[i].open); n != 0 {
			t.Errorf("%d networks have connections open", n)
		}
	}
}

// What a peer is told is one line of plain ASCII, and says what to do.
func TestRefusals(t *testing.T) {
	g := newGate(t, Limits{Messages: 1, Connections: 2})
	p := enter(t, g, "192.0.2.1")
	_ = p.Mail()
	err := p.Mail()
	r, ok := errors.AsType[*Refusal](err)
	if !ok || r.Over || r.Permanent || !strings.HasSuffix(r.Text, "; try again later") {
		t.Errorf("a message too many: %+v", r)
	}
	enter(t, g, "192.0.2.1")
	_, err = g.Enter(addr("192.0.2.1"))
	if r, ok = errors.AsType[*Refusal](err); !ok || !r.Over || r.Permanent {
		t.Errorf("a connection too many: %+v", r)
	}
}

func BenchmarkEnter(b *testing.B) {
	g := newGate(b, Limits{Connections: 1 << 40, PerNetwork: 1 << 40})
	for i := range 1000 { // bans of three lengths, which do not cover
		for _, s := range []string{"198.51.%d.%d/32", "2001:db8:%x:%x::/64"} {
			if _, err := g.bans.add(netip.MustParsePrefix(fmt.Sprintf(s, i>>8, i&255)), 0, ""); err != nil {
				b.Fatal(err)
			}
		}
	}
	from := make([]netip.Addr, 1024)
	for i := range from {
		from[i] = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			p, err := g.Enter(from[i%len(from)])
			if err != nil {
				b.Fatal(err)
			}
			p.Leave()
		}
	})
}
