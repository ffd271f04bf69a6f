package account

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var (
	near     = netip.MustParseAddr("127.0.0.1")
	attacker = netip.MustParseAddr("192.0.2.1")
	honest   = netip.MustParseAddr("198.51.100.7")
)

// guarding is a guard with a clock of a bubble.
type guarding struct {
	*Guard
	t       *testing.T
	guesses *int
}

func newGuarding(t *testing.T) guarding { return guarding{NewGuard(time.Now), t, new(int)} }

func (g guarding) enter(from netip.Addr, name string) *Try {
	g.t.Helper()
	try, err := g.Enter(g.t.Context(), from, name)
	if err != nil {
		g.t.Fatalf("from %s to %s: %v", from, name, err)
	}
	return try
}

// fail has n different passwords fail.
func (g guarding) fail(n int, from netip.Addr, name string) (delay time.Duration) {
	g.t.Helper()
	for range n {
		*g.guesses++
		delay = g.enter(from, name).Failed(fmt.Sprint("guess ", *g.guesses))
	}
	return delay
}

func (g guarding) refused(from netip.Addr, name string) bool {
	g.t.Helper()
	try, err := g.Enter(g.t.Context(), from, name)
	if err == nil {
		try.Drop()
		return false
	}
	if !errors.Is(err, ErrGuessing) {
		g.t.Fatal(err)
	}
	return true
}

func TestGuardRefusesAGuessingNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarding(t)
		for i := range netFailures {
			name := fmt.Sprintf("user%d", i)
			if g.refused(attacker, name) {
				t.Fatalf("refused after %d failures", i)
			}
			if delay := g.fail(1, attacker, name); delay != min(time.Duration(i+1)*time.Second, maxFailDelay) {
				t.Errorf("failure %d is answered after %v", i+1, delay)
			}
		}
		if !g.refused(attacker, "a") || !g.refused(attacker, "nobody") {
			t.Error("it may go on")
		}
		if g.refused(honest, "user1") {
			t.Error("somebody else is refused")
		}
		time.Sleep(forgiven)
		if g.refused(attacker, "a") {
			t.Error("refused for longer than a failure takes to be forgiven")
		}
		g.fail(1, attacker, "a")
		if !g.refused(attacker, "a") {
			t.Error("more than one failure was forgiven")
		}
		time.Sleep(netFailures * forgiven)
		g.fail(netFailures, attacker, "a")
	})
}

func TestGuardIsLenient(t *testing.T) {
	for _, c := range []struct {
		name string
		from netip.Addr
		do   func(g guarding)
	}{
		{"loopback is never refused", near, func(g guarding) { g.fail(1000, near, "a") }},
		{"nor a unix socket", netip.Addr{}, func(g guarding) { g.fail(1000, netip.Addr{}, "a") }},
		{"nor IPv6 loopback", netip.IPv6Loopback(), func(g guarding) { g.fail(1000, netip.IPv6Loopback(), "a") }},
		{"the same password again is one failure", honest, func(g guarding) {
			for range 1000 {
				g.enter(honest, "a").Failed("the old one")
			}
		}},
		{"what was not judged is no failure", honest, func(g guarding) {
			for range 1000 {
				g.enter(honest, "a").Drop()
			}
		}},
		{"what succeeds is no failure", honest, func(g guarding) {
			for range 1000 {
				g.enter(honest, "b").Succeeded()
			}
		}},
		{"what failed elsewhere is not ours", honest, func(g guarding) {
			for i := range 100 {
				g.fail(netFailures, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), "a")
			}
		}},
		{"another IPv6 network of the site", netip.MustParseAddr("2001:db8:0:2::1"), func(g guarding) {
			g.fail(netFailures, netip.MustParseAddr("2001:db8:0:1::1"), "a")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarding(t)
				c.do(g)
				if g.refused(c.from, "a") {
					t.Error("refused")
				}
			})
		})
	}
}

func TestGuardTakesNetworksTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarding(t)
		for i := range netFailures {
			g.fail(1, netip.MustParseAddr(fmt.Sprintf("2001:db8:0:1::%x", i+1)), "a")
		}
		if !g.refused(netip.MustParseAddr("2001:db8:0:1:2:3:4:5"), "a") {
			t.Error("a /64 has more than one address's failures")
		}
		g.fail(netFailures-1, netip.MustParseAddr("::ffff:192.0.2.1"), "a")
		g.fail(1, attacker, "a")
		if !g.refused(attacker, "b") {
			t.Error("an IPv4 address in IPv6 is another")
		}
		for i := range siteFailures {
			g.fail(1, netip.MustParseAddr(fmt.Sprintf("2001:db8:9:%x::1", i+1)), fmt.Sprint("user", i))
		}
		if !g.refused(netip.MustParseAddr("2001:db8:9:ffff::1"), "a") {
			t.Error("a /48 has as many failures as it has networks")
		}
		if g.refused(netip.MustParseAddr("2001:db8:10::1"), "a") {
			t.Error("another site is refused")
		}
	})
}

// A name that many guess at gets slow for strangers, and never out of reach.
func TestGuardSlowsANameDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarding(t)
		office := netip.MustParseAddr("203.0.113.250")
		g.enter(office, "a").Succeeded()
		began := time.Now()
		for i := range 100 {
			g.fail(1, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), "a")
		}
		if took := time.Since(began); took < 20*maxNameDelay/2 {
			t.Errorf("100 guesses from 100 networks took %v", took)
		}
		took := func(from netip.Addr, name string) time.Duration {
			began := time.Now()
			g.enter(from, name).Drop()
			return time.Since(began)
		}
		if d := took(honest, "a"); d != maxNameDelay {
			t.Errorf("a stranger waits %v", d)
		}
		if d := took(office, "a"); d != 0 {
			t.Errorf("who logged in before waits %v", d)
		}
		if d := took(honest, "b"); d != 0 {
			t.Errorf("another name is slow: %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Enter(ctx, honest, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it waits on: %v", err)
		}
		if n := g.network(netip.PrefixFrom(honest, 32)); n.trying != 0 {
			t.Errorf("%d are still looked at", n.trying)
		}
		time.Sleep(100 * forgivenName)
		if d := took(honest, "a"); d != 0 {
			t.Errorf("never forgiven: %v", d)
		}
	})
}

// Where one user of a network guesses, or has a program with an old password, the others go on.
func TestGuardKnowsOldHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarding(t)
		g.enter(honest, "a").Succeeded()
		g.fail(netFailures, honest, "b")
		if g.refused(honest, "a") || !g.refused(honest, "b") || !g.refused(honest, "c") {
			t.Error("an old hand is refused, or a stranger is not")
		}
		g.fail(knownFailures, honest, "a")
		if !g.refused(honest, "a") {
			t.Error("an old hand may guess for ever")
		}
		time.Sleep(netFailures * forgiven)
		g.enter(honest, "a").Succeeded()
		time.Sleep(knownFor)
		g.fail(netFailures, honest, "b")
		if !g.refused(honest, "a") {
			t.Error("an old hand for ever")
		}
	})
}

// Many logins at once have no more tries together than one after the other.
func TestGuardCountsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarding(t)
		const clients = 100
		outcome := make(chan error, clients)
		for i := range clients {
			go func() {
				try, err := g.Enter(t.Context(), attacker, fmt.Sprint("user", i))
				if err == nil {
					time.Sleep(time.Second)
					try.Failed("x")
				}
				outcome <- err
			}()
		}
		looked := 0
		for range clients {
			if err := <-outcome; err == nil {
				looked++
			} else if !errors.Is(err, ErrGuessing) {
				t.Error(err)
			}
		}
		if looked != netFailures {
			t.Errorf("%d passwords were looked at", looked)
		}
		for range clients { // an office in the morning
			go func() {
				try, err := g.Enter(t.Context(), honest, "a")
				if err == nil {
					time.Sleep(10 * time.Millisecond)
					try.Succeeded()
				}
				outcome <- err
			}()
		}
		for range clients {
			if err := <-outcome; err != nil {
				t.Error("an honest client among many:", err)
			}
		}
	})
}

func TestGuardIsBounded(t *testing.T) {
	g := NewGuard(nil)
	for i := range 3 * guarded {
		from := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		try := &Try{g: g, name: g.hash(fmt.Sprint(i)), net: netip.PrefixFrom(from, 32)}
		try.Failed("x")
		try.Succeeded()
	}
	for what, n := range map[string]int{
		"networks": len(g.nets.young) + len(g.nets.old), "names": len(g.names.young) + len(g.names.old),
		"old hands": len(g.known.young) + len(g.known.old),
	} {
		if n > 2*guarded {
			t.Errorf("%d %s", n, what)
		}
	}
}
