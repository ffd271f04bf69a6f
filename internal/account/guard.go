package account

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// ErrGuessing refuses a login before it is looked at.
var ErrGuessing = errors.New("too many failed logins from your address; try again later")

// A Guard slows down who guesses passwords, for all protocols together:
//
//	a network     an IPv4 address or IPv6 /64, has ten failures to spend, and one more every six minutes;
//	              a /48 has a hundred. When they are spent its logins are refused before they are looked at
//	a name        has twenty. When they are spent, logins to it take longer, up to ten seconds; nobody is
//	              refused for what others did
//	an old hand   a network that logged in to that name in the last thirty days: neither applies to it, but it
//	              has ten failures of its own. When they are spent it is no old hand any more
//	a failure     is answered after one second, the next after two, up to five
//
// The same wrong password again, as a mail program sends it that was not told of a new one, is
// slow but spends nothing. This machine is slowed down and never refused: a web mail server
// may speak for everybody. Names that do not exist are treated as those that do.
//
// What is remembered is bounded, and is forgotten when the process ends. Any number of goroutines.
type Guard struct {
	now  func() time.Time
	seed maphash.Seed

	mu    sync.Mutex // guards what follows, and the networks' fields
	nets  recent[netip.Prefix, *network]
	names recent[uint64, leaky]
	known recent[acquaintance, acquainted]
}

const (
	forgiven      = 6 * time.Minute // after which a network has one failure more to spend
	forgivenName  = 3 * time.Minute
	netFailures   = 10
	siteFailures  = 100
	nameFailures  = 20
	knownFailures = 10
	knownFor      = 30 * 24 * time.Hour
	maxNameDelay  = 10 * time.Second
	failureDelay  = time.Second
	maxFailDelay  = 5 * time.Second
)

// guarded bounds each kind of what a Guard remembers.
const guarded = 1 << 15

// NewGuard returns a guard with nothing to remember. now is the clock; nil is time.Now.
func NewGuard(now func() time.Time) *Guard {
	if now == nil {
		now = time.Now
	}
	return &Guard{now: now, seed: maphash.MakeSeed()}
}

// leaky counts failures of which one is forgiven every so often: it is when all will be.
type leaky time.Time

func (l leaky) count(now time.Time, every time.Duration) int {
	left := time.Time(l).Sub(now)
	if left <= 0 {
		return 0
	}
	return int((left + every - 1) / every)
}

func (l leaky) more(now time.Time, every time.Duration) leaky {
	from := time.Time(l)
	if from.Before(now) {
		from = now
	}
	return leaky(from.Add(every))
}

// network is what is known of where clients come from.
type network struct {
	failures leaky
	last     uint64        // the name and password that failed last
	trying   int           // logins that are being looked at
	settled  chan struct{} // closed when one of them is; nil when nobody waits for that
}

// acquaintance is a network and a name that it logged in to.
type acquaintance struct {
	net  netip.Prefix
	name uint64
}

type acquainted struct {
	failures leaky
	until    time.Time
}

// Try is one login that is being looked at. It ends with one of its methods.
type Try struct {
	// Set by Enter, never changed after that.
	g     *Guard
	net   netip.Prefix
	site  netip.Prefix // zero when the network is in none
	name  uint64
	local bool
	known bool
	held  *network // where it counts as being looked at; nil when it does not
}

// Enter begins a login to name from an address; an invalid address is this machine. It
// waits for as long as the name is slow, and before that while so many logins from the
// network are looked at that this one would be refused if they failed. The error is
// ErrGuessing or ctx's.
func (g *Guard) Enter(ctx context.Context, from netip.Addr, name string) (*Try, error) {
	t := &Try{g: g, name: g.hash(name), local: !from.IsValid() || from.IsLoopback()}
	t.net, t.site = networkOf(from)
	for {
		settled, err := t.admit()
		if err != nil {
			return nil, err
		}
		if settled == nil {
			break
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := pause(ctx, t.slowness()); err != nil {
		t.Drop()
		return nil, err
	}
	return t, nil
}

// admit lets a login be looked at, refuses it, or returns what to wait for.
func (t *Try) admit() (settled <-chan struct{}, err error) {
	g, now := t.g, t.g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	k, ok := g.known.get(acquaintance{t.net, t.name})
	if t.known = ok && now.Before(k.until); t.known || t.local {
		return nil, nil
	}
	n, site := g.network(t.net), g.network(t.site)
	failed := n.failures.count(now, forgiven)
	switch {
	case failed >= netFailures || site.failures.count(now, forgiven) >= siteFailures:
		return nil, ErrGuessing
	case failed+n.trying >= netFailures:
		if n.settled == nil {
			n.settled = make(chan struct{})
		}
		return n.settled, nil
	}
	n.trying++
	t.held = n
	return nil, nil
}

// network returns what is known of a network. mu must be held.
func (g *Guard) network(p netip.Prefix) *network {
	n, ok := g.nets.get(p)
	if !ok {
		n = &network{}
		g.nets.put(p, n)
	}
	return n
}

// slowness is how long a login waits for the name's sake.
func (t *Try) slowness() time.Duration {
	if t.known {
		return 0
	}
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	failures, _ := t.g.names.get(t.name)
	above := failures.count(t.g.now(), forgivenName) - nameFailures
	return min(time.Duration(max(above, 0))*time.Second, maxNameDelay)
}

// Drop says that the login was not judged.
func (t *Try) Drop() {
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	t.settle()
}

// settle ends being looked at. mu must be held.
func (t *Try) settle() {
	n := t.held
	if t.held = nil; n == nil {
		return
	}
	n.trying--
	if n.settled != nil {
		close(n.settled)
		n.settled = nil
	}
}

// Succeeded says that the client is who it says.
func (t *Try) Succeeded() {
	g := t.g
	g.mu.Lock()
	defer g.mu.Unlock()
	t.settle()
	pair := acquaintance{t.net, t.name}
	k, _ := g.known.get(pair)
	k.until = g.now().Add(knownFor)
	g.known.put(pair, k)
}

// Failed says that the client is not who it says. password is what it gave, or empty when it did
// not show it. The answer is how long to let the client wait.
func (t *Try) Failed(password string) time.Duration {
	g, now := t.g, t.g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	t.settle()
	n := g.network(t.net)
	given := t.name ^ g.hash(password)
	again := password != "" && given == n.last
	n.last = given
	var failed int
	if t.known {
		failed = t.spendKnown(now, again)
	} else {
		failed = t.spend(n, now, again)
	}
	return min(time.Duration(max(failed, 1))*failureDelay, maxFailDelay)
}

// spend counts a failure of a stranger. mu must be held.
func (t *Try) spend(n *network, now time.Time, again bool) int {
	if !again {
		n.failures = n.failures.more(now, forgiven)
		if t.site.IsValid() {
			site := t.g.network(t.site)
			site.failures = site.failures.more(now, forgiven)
		}
		failures, _ := t.g.names.get(t.name)
		t.g.names.put(t.name, failures.more(now, forgivenName))
	}
	return n.failures.count(now, forgiven)
}

// spendKnown counts a failure of an old hand. mu must be held.
func (t *Try) spendKnown(now time.Time, again bool) int {
	pair := acquaintance{t.net, t.name}
	k, ok := t.g.known.get(pair)
	if ok && !again {
		k.failures = k.failures.more(now, forgiven)
		t.g.known.put(pair, k)
	}
	failed := k.failures.count(now, forgiven)
	if failed >= knownFailures {
		t.g.known.remove(pair)
	}
	return failed
}

func (g *Guard) hash(s string) uint64 { return maphash.String(g.seed, s) }

// networkOf returns the network of an address, and of an IPv6 address the site that it is in.
func networkOf(a netip.Addr) (network, site netip.Prefix) {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		network, _ = a.Prefix(64)
		site, _ = a.Prefix(48)
		return network, site
	}
	network, _ = a.Prefix(a.BitLen())
	return network, site
}

// pause returns after d, or with ctx's error when that ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// recent is a map of bounded size that forgets what was not asked for in a long while.
type recent[K comparable, V any] struct{ young, old map[K]V }

func (r *recent[K, V]) get(k K) (V, bool) {
	v, ok := r.young[k]
	if ok {
		return v, true
	}
	if v, ok = r.old[k]; ok {
		r.put(k, v)
	}
	return v, ok
}

func (r *recent[K, V]) put(k K, v V) {
	if r.young == nil || len(r.young) >= guarded {
		r.young, r.old = map[K]V{}, r.young
	}
	r.young[k] = v
}

func (r *recent[K, V]) remove(k K) {
	delete(r.young, k)
	delete(r.old, k)
}
