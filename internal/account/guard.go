package account

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ErrGuessing refuses a login before it is looked at.
var ErrGuessing = errors.New("too many failed logins; try again later")

// A Guard slows down who guesses passwords, for all protocols together:
//
//	a network     an IPv4 address or IPv6 /64, has ten failures to spend, and one more every six minutes;
//	              a site, an IPv4 /24 or IPv6 /48, has a hundred. When they are spent its logins are refused
//	              before they are looked at
//	a name        has ten for all strangers together, and one more every six minutes: in no hour more than
//	              twenty of their passwords are looked at
//	an old hand   a network that logged in to that name in the last thirty days: none of these apply to it, but it
//	              has ten failures of its own. When they are spent it counts as a stranger until one is forgiven
//	a failure     is answered after one second, the next after two, up to five
//
// What nobody can guess (app passwords, tokens, certificates) is not held up by what others tried on the name. The
// same wrong password again, as a mail program sends it that was not told of a new one, is
// slow but spends nothing. This machine is slowed down and never refused: a web mail server may speak for everybody.
// What is tried from it spends nothing of the strangers': who guesses by web mail keeps nobody else out. Names that do
// not exist are treated as those that do.
//
// What is remembered is bounded; but for old hands it is forgotten when the process ends. Any number of goroutines.
type Guard struct {
	// Set before use, never changed.
	OnGuess func(from netip.Addr) // told of each failure of a stranger that spends something; must not block
	now     func() time.Time
	memory  Memory
	seed    maphash.Seed

	mu    sync.Mutex // guards what follows, and what these point to
	nets  recent[netip.Prefix, *network]
	names recent[tried, *budget]
	known recent[acquaintance, *acquainted]
}

// Memory keeps old hands over a restart. Any number of goroutines.
type Memory interface {
	// KnownUntil returns until when a name knows a network; zero when it does not.
	KnownUntil(name string, net netip.Prefix) time.Time
	Know(name string, net netip.Prefix, until time.Time)
}

const (
	forgiven      = 6 * time.Minute // after which there is one failure more to spend
	netFailures   = 10
	siteFailures  = 100
	nameFailures  = 10
	knownFailures = 10
	knownFor      = 30 * 24 * time.Hour
	renewedAfter  = 24 * time.Hour // how old the memory of an old hand may be
	maxNameDelay  = 10 * time.Second
	failureDelay  = time.Second
	maxFailDelay  = 5 * time.Second
)

// guarded bounds each kind of what a Guard remembers.
const guarded = 1 << 15

// NewGuard returns a guard. now is the clock; nil is time.Now. memory may be nil: then a restart makes strangers of all.
func NewGuard(now func() time.Time, memory Memory) *Guard {
	if now == nil {
		now = time.Now
	}
	return &Guard{now: now, memory: memory, seed: maphash.MakeSeed()}
}

// budget counts failures, of which one is forgiven every so often, and the logins that may become some.
type budget struct {
	until   time.Time     // when all will be forgiven
	trying  int           // logins that are being looked at
	settled chan struct{} // closed when one of them is; nil when nobody waits for that
}

// spent is how many failures are not forgiven yet.
func (b *budget) spent(now time.Time) int {
	left := b.until.Sub(now)
	if left <= 0 {
		return 0
	}
	return int((left + forgiven - 1) / forgiven)
}

func (b *budget) spend(now time.Time) {
	if b.until.Before(now) {
		b.until = now
	}
	b.until = b.until.Add(forgiven)
}

func (b *budget) wait() <-chan struct{} {
	if b.settled == nil {
		b.settled = make(chan struct{})
	}
	return b.settled
}

func (b *budget) settle() {
	b.trying--
	if b.settled != nil {
		close(b.settled)
		b.settled = nil
	}
}

// network is what is known of where clients come from.
type network struct {
	budget
	last uint64 // the name and password that failed last
}

// tried is a name that this machine, or strangers, have tried.
type tried struct {
	name  uint64
	local bool
}

// acquaintance is a network and a name that it logged in to.
type acquaintance struct {
	net  netip.Prefix
	name uint64
}

type acquainted struct {
	budget
	known time.Time // until when
	kept  time.Time // until when the memory says
}

// Try is one login that is being looked at. It ends with one of its methods.
type Try struct {
	// Set by Enter, never changed after that.
	g     *Guard
	from  netip.Addr
	net   netip.Prefix
	site  netip.Prefix
	user  string
	name  uint64
	local bool
	safe  bool // what it shows cannot be guessed

	known *acquainted // the client is an old hand; else nil
	held  []*budget   // where it counts as being looked at
}

// Enter begins a login to name from an address; an invalid address is this machine. It
// waits while so many logins are looked at that this one would be refused if they failed. The error is
// ErrGuessing or ctx's.
func (g *Guard) Enter(ctx context.Context, from netip.Addr, name string) (*Try, error) {
	return g.try(from, name, false).enter(ctx)
}

// EnterSafely is Enter for what cannot be guessed: what others tried on the name does not matter.
func (g *Guard) EnterSafely(ctx context.Context, from netip.Addr, name string) (*Try, error) {
	return g.try(from, name, true).enter(ctx)
}

// Welcome says that a client has logged in to name by what cannot be guessed and costs nothing to look at.
func (g *Guard) Welcome(from netip.Addr, name string) { g.try(from, name, true).Succeeded() }

func (g *Guard) try(from netip.Addr, name string, safe bool) *Try {
	t := &Try{g: g, from: from, user: name, name: g.hash(name), safe: safe}
	t.local = !from.IsValid() || from.Unmap().IsLoopback()
	t.net, t.site = networkOf(from)
	return t
}

func (t *Try) enter(ctx context.Context) (*Try, error) {
	t.recall()
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

// recall takes an old hand from the memory, when the process does not know it yet.
func (t *Try) recall() {
	g, pair := t.g, acquaintance{t.net, t.name}
	if g.memory == nil || t.local || t.acquainted() {
		return
	}
	until := g.memory.KnownUntil(t.user, t.net)
	if !g.now().Before(until) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.known.get(pair); !ok {
		g.known.put(pair, &acquainted{known: until, kept: until})
	}
}

func (t *Try) acquainted() bool {
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	_, ok := t.g.known.get(acquaintance{t.net, t.name})
	return ok
}

// A limit is a budget and how much there is to spend.
type limit struct {
	*budget
	most int
}

// limits are those that a login counts in. mu must be held.
func (t *Try) limits(now time.Time) []limit {
	g := t.g
	if k, ok := g.known.get(acquaintance{t.net, t.name}); ok && now.Before(k.known) && k.spent(now) < knownFailures {
		t.known = k
		return []limit{{&k.budget, knownFailures}}
	}
	t.known = nil
	if t.local {
		return nil
	}
	list := []limit{{&g.network(t.net).budget, netFailures}, {&g.network(t.site).budget, siteFailures}}
	if !t.safe && !spent(list, now) { // names that only refused clients give are not remembered
		list = append(list, limit{t.nameBudget(), nameFailures})
	}
	return list
}

func spent(list []limit, now time.Time) bool {
	return slices.ContainsFunc(list, func(l limit) bool { return l.spent(now) >= l.most })
}

// admit lets a login be looked at, refuses it, or returns what to wait for.
func (t *Try) admit() (settled <-chan struct{}, err error) {
	now := t.g.now()
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	list := t.limits(now)
	if spent(list, now) {
		return nil, ErrGuessing
	}
	for _, l := range list {
		if l.spent(now)+l.trying >= l.most {
			return l.wait(), nil
		}
	}
	for _, l := range list {
		l.trying++
		t.held = append(t.held, l.budget)
	}
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

// nameBudget returns what has been spent on the name, by this machine or by strangers. mu must be held.
func (t *Try) nameBudget() *budget {
	of := tried{t.name, t.local}
	b, ok := t.g.names.get(of)
	if !ok {
		b = &budget{}
		t.g.names.put(of, b)
	}
	return b
}

// slowness is how long this machine waits for the name's sake, which is not refused.
func (t *Try) slowness() time.Duration {
	if t.known != nil || !t.local || t.safe {
		return 0
	}
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	above := t.nameBudget().spent(t.g.now()) - nameFailures
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
	for _, b := range t.held {
		b.settle()
	}
	t.held = nil
}

// Succeeded says that the client is who it says.
func (t *Try) Succeeded() {
	if until, keep := t.succeeded(); keep {
		t.g.memory.Know(t.user, t.net, until)
	}
}

// succeeded makes an old hand of the client, and reports whether that is to be kept.
func (t *Try) succeeded() (until time.Time, keep bool) {
	g, now := t.g, t.g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	t.settle()
	pair := acquaintance{t.net, t.name}
	k, ok := g.known.get(pair)
	if !ok {
		k = &acquainted{}
		g.known.put(pair, k)
	}
	k.known = now.Add(knownFor)
	if g.memory == nil || t.local || k.known.Sub(k.kept) < renewedAfter {
		return k.known, false
	}
	k.kept = k.known
	return k.known, true
}

// Failed says that the client is not who it says. password is what it gave, or empty when it did
// not show it. The answer is how long to let the client wait.
func (t *Try) Failed(password string) time.Duration {
	failed, guessed := t.failed(password)
	if guessed && t.g.OnGuess != nil {
		t.g.OnGuess(t.from)
	}
	return min(time.Duration(max(failed, 1))*failureDelay, maxFailDelay)
}

// failed counts a failure. It returns how many are spent, and whether this was a stranger's guess.
func (t *Try) failed(password string) (spent int, guessed bool) {
	g, now := t.g, t.g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	t.settle()
	n := g.network(t.net)
	given := t.name ^ g.hash(password)
	again := password != "" && given == n.last
	n.last = given
	if t.known != nil {
		if !again {
			t.known.spend(now)
		}
		return t.known.spent(now), false
	}
	if !again {
		n.spend(now)
		if !t.local { // which may have no address, and so no site
			g.network(t.site).spend(now)
		}
		if !t.safe {
			t.nameBudget().spend(now)
		}
	}
	return n.spent(now), !again && !t.local
}

func (g *Guard) hash(s string) uint64 { return maphash.String(g.seed, s) }

// networkOf returns the network of an address, and the site that it is in.
func networkOf(a netip.Addr) (network, site netip.Prefix) {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		network, _ = a.Prefix(64)
		site, _ = a.Prefix(48)
		return network, site
	}
	network, _ = a.Prefix(a.BitLen())
	site, _ = a.Prefix(min(24, a.BitLen()))
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
