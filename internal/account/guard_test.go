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

func newGuarding(t *testing.T) guarding { return guarding{NewGuard(time.Now, nil), t, new(int)} }

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
		{"what was tried on other names is not this one's", honest, func(g guarding) {
			for i := range 100 {
				g.fail(1, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), fmt.Sprint("other", i))
			}
		}},
		{"another IPv6 network of the site", netip.MustParseAddr("2001:db8:0:2::1"), func(g guarding) {
			g.fail(netFailures, netip.MustParseAddr("2001:db8:0:1::1"), "b")
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
			g.fail(1, netip.MustParseAddr(fmt.Sprintf("2001:db8:0:1::%x", i+1)), fmt.Sprint("name", i))
		}
		if !g.refused(netip.MustParseAddr("2001:db8:0:1:2:3:4:5"), "a") {
			t.Error("a /64 has more than one address's failures")
		}
		g.fail(netFailures-1, netip.MustParseAddr("::ffff:192.0.2.1"), "c")
		g.fail(1, attacker, "d")
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
		for i := range siteFailures {
			g.fail(1, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), fmt.Sprint("one", i))
		}
		if !g.refused(netip.MustParseAddr("203.0.113.255"), "a") || g.refused(netip.MustParseAddr("203.0.112.255"), "a") {
			t.Error("a /24 has as many failures as it has addresses, or its neighbour none")
		}
	})
}

// A name that many guess at is out of reach for strangers who must be believed, and for nobody else.
func TestGuardKeepsStrangersFromAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarding(t)
		office := netip.MustParseAddr("203.0.113.250")
		g.enter(office, "a").Succeeded()
		for i := range nameFailures {
			g.fail(1, netip.AddrFrom4([4]byte{203, 0, byte(i), 1}), "a")
		}
		if !g.refused(honest, "a") || g.refused(honest, "b") {
			t.Error("a stranger may go on, or another name is out of reach")
		}
		if g.refused(office, "a") {
			t.Error("who logged in before is refused")
		}
		if try, err := g.EnterSafely(t.Context(), honest, "a"); err != nil {
			t.Errorf("what cannot be guessed is refused: %v", err)
		} else {
			try.Failed("token")
		}
		g.Welcome(honest, "a")
		if g.refused(honest, "a") {
			t.Error("who was welcomed is a stranger")
		}
		if g.refused(near, "a") {
			t.Error("this machine is refused")
		}
		time.Sleep(forgiven)
		if g.refused(attacker, "a") {
			t.Error("never forgiven")
		}
	})
}

// This machine, which speaks for many, gets slow where others are refused.
func TestGuardSlowsThisMachineDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarding(t)
		g.fail(100, near, "a")
		took := func(name string) time.Duration {
			began := time.Now()
			g.enter(near, name).Drop()
			return time.Since(began)
		}
		if d := took("a"); d != maxNameDelay {
			t.Errorf("it waits %v", d)
		}
		if d := took("b"); d != 0 {
			t.Errorf("another name is slow: %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Enter(ctx, near, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it waits on: %v", err)
		}
		time.Sleep(200 * forgiven)
		if d := took("a"); d != 0 {
			t.Errorf("never forgiven: %v", d)
		}
	})
}

// Who guesses by a web mail on this machine keeps nobody out who is on the road, and strangers do not slow it down.
func TestGuardKeepsThisMachineApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarding(t)
		g.fail(100, near, "a")
		g.fail(100, netip.Addr{}, "a")
		if g.refused(honest, "a") {
			t.Error("guesses from this machine keep a stranger out")
		}
		g.fail(nameFailures-1, attacker, "a")
		if g.refused(honest, "a") {
			t.Error("strangers have less to spend than they had")
		}
		for i := range nameFailures {
			g.fail(1, netip.AddrFrom4([4]byte{203, 0, byte(i), 1}), "b")
		}
		g.fail(nameFailures, near, "b")
		began := time.Now()
		if g.refused(near, "b") || time.Since(began) != 0 {
			t.Errorf("it waits %v for what strangers tried", time.Since(began))
		}
	})
}

// E04: 10^5 tries from 1,000 addresses. In no hour more than 20 of them are looked at for one name, and the
// real user's known address logs in within two seconds, at any time and after a restart.
func TestE04GuessingFromAThousandAddresses(t *testing.T) {
	for _, form := range []func(i int) netip.Addr{
		func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}) }, // each its own /24
		func(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}) },
		func(i int) netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 8), byte(i), 15: 1})
		},
	} {
		synctest.Test(t, func(t *testing.T) { guessFromAThousand(t, form) })
	}
}

func guessFromAThousand(t *testing.T, address func(i int) netip.Addr) {
	const addresses, tries, hours = 1000, 100, 3
	memory := &notebook{}
	g := NewGuard(time.Now, memory)
	user := func() {
		t.Helper()
		began := time.Now()
		try, err := g.Enter(t.Context(), honest, "a")
		if err != nil || time.Since(began) > 2*time.Second {
			t.Fatalf("the user waits %v: %v", time.Since(began), err)
		}
		try.Succeeded()
	}
	user()
	var looked []time.Time
	for n := range tries {
		for i := range addresses {
			try, err := g.Enter(t.Context(), address(i), "a")
			if err == nil {
				looked = append(looked, time.Now())
				try.Failed(fmt.Sprint(n, i))
			}
			time.Sleep(hours * time.Hour / (addresses * tries))
		}
		user()
		if n == tries/2 {
			g = NewGuard(time.Now, memory) // a restart
			user()
			looked = nil // what the old process counted is gone with it
		}
	}
	for i, from := range looked {
		within := 0
		for _, at := range looked[i:] {
			if at.Sub(from) < time.Hour {
				within++
			}
		}
		if within > 20 {
			t.Fatalf("%d guesses were looked at within an hour", within)
		}
	}
	if len(looked) < 10 {
		t.Errorf("%d guesses were looked at: this proves nothing", len(looked))
	}
	if memory.kept != 1 {
		t.Errorf("it was kept %d times that the user is known", memory.kept)
	}
}

// notebook is a Memory.
type notebook struct {
	until map[string]time.Time
	kept  int
}

func (n *notebook) KnownUntil(name string, net netip.Prefix) time.Time {
	return n.until[name+" "+net.String()]
}

func (n *notebook) Know(name string, net netip.Prefix, until time.Time) {
	if n.until == nil {
		n.until = map[string]time.Time{}
	}
	n.kept++
	n.until[name+" "+net.String()] = until
}

// What is known of old hands is written when it is new, and then once a day.
func TestGuardWritesSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := &notebook{}
		g := guarding{NewGuard(time.Now, memory), t, new(int)}
		for range 7 * 24 {
			g.enter(honest, "a").Succeeded()
			g.enter(near, "a").Succeeded()
			time.Sleep(time.Hour)
		}
		if memory.kept != 7 {
			t.Errorf("written %d times in seven days", memory.kept)
		}
		time.Sleep(knownFor)
		g.fail(netFailures, honest, "b")
		if !g.refused(honest, "a") {
			t.Error("known for ever")
		}
	})
}

// Who guesses is told of, once for each guess; who has an old password, is known or is this machine is not.
func TestGuardTellsOfGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarding(t)
		told := map[netip.Addr]int{}
		g.OnGuess = func(from netip.Addr) { told[from]++ }
		g.fail(3, attacker, "a")
		for range 5 {
			g.enter(attacker, "a").Failed("the same")
		}
		g.enter(honest, "a").Succeeded()
		g.fail(3, honest, "a")
		g.fail(3, near, "a")
		if len(told) != 1 || told[attacker] != 4 {
			t.Errorf("told of %v", told)
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
		time.Sleep(forgiven)
		if g.refused(honest, "a") {
			t.Error("an old hand never more")
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
		for i := range clients { // many networks at one name
			go func() {
				try, err := g.Enter(t.Context(), netip.AddrFrom4([4]byte{10, byte(i), 0, 1}), "b")
				if err == nil {
					time.Sleep(time.Second)
					try.Failed("x")
				}
				outcome <- err
			}()
		}
		looked = 0
		for range clients {
			if err := <-outcome; err == nil {
				looked++
			}
		}
		if looked != nameFailures {
			t.Errorf("%d passwords of one name were looked at", looked)
		}
	})
}

func TestGuardIsBounded(t *testing.T) {
	g := NewGuard(nil, nil)
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
