// Package gate decides who may come in, and how often, for the servers of all protocols together: rates of what an
// address, a network and an account do, and bans of those that misbehave.
//
//	an address  an IPv4 address, or an IPv6 /64, which is the least that a subscriber is given
//	a network   the IPv4 /24 or IPv6 /48 that an address is in; it may do five times what an address may
//	an account  whoever is logged in: its mail counts against the account, and no longer against where it comes from
//
// What is counted drains evenly: a limit of 600 in a minute lets 600 come at once, and ten a second after that. Limits
// has the table. A server asks at Enter, holds the Pass as long as the connection lasts, and tells it what happens.
//
// Who is exempt: this machine, since web mail on it speaks for everybody, and the networks that the administrator
// trusts. Who is known good, having logged in from there in the last thirty days, may do ten times as much, and
// misbehave ten times as much. Nobody is banned by itself at an address that many share: private ones (RFC 1918, RFC 4193,
// RFC 6598), behind which stands a router or a proxy, that is, all the world.
//
// What is promised of memory: 2^16 addresses, 2^15 networks and 2^15 accounts are remembered, in some 20 MB; beyond that the
// oldest are forgotten. Bans are kept in the store and outlive a restart (100,000 of them, in some 40 MB); the rest does not.
// What is promised of time: no method waits, but Slow, which is for that. Any number of goroutines.
package gate

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Options are what a Gate is made of.
type Options struct {
	Limits  Limits // zero fields take their defaults
	Trusted []netip.Prefix
	Bans    *Bans
	Now     func() time.Time // nil is time.Now
}

// Gate is the connection policy of all servers of a house.
type Gate struct {
	// Set by New, never changed.
	limits  Limits
	rules   [measures]rule
	trusted []netip.Prefix
	bans    *Bans
	now     func() time.Time
	born    time.Time
	seed    maphash.Seed

	shards [shards]shard
	slowed slots

	mu       sync.Mutex // guards accounts
	accounts table[uint64]
}

// New returns a gate with nothing to remember but the bans.
func New(o Options) *Gate {
	if o.Now == nil {
		o.Now = time.Now
	}
	l := o.Limits.WithDefaults()
	g := &Gate{
		limits: l, rules: l.rules(), trusted: o.Trusted, bans: o.Bans, now: o.Now, born: o.Now(),
		seed: maphash.MakeSeed(), accounts: table[uint64]{most: remembered / 2},
	}
	for i := range g.shards {
		g.shards[i] = newShard()
	}
	return g
}

// A Refusal is why somebody is not let in, or not let on.
type Refusal struct {
	Text string // for the peer
	Over bool   // the connection is to end
	// Permanent says that trying again does not help: an administrator wants it so.
	Permanent bool
}

// Error is the refusal's text.
func (r *Refusal) Error() string { return r.Text }

// Exempt reports whether an address is free of all rates and bans. An invalid one is a unix socket's.
func (g *Gate) Exempt(a netip.Addr) bool {
	if !a.IsValid() || a.IsLoopback() {
		return true
	}
	for _, p := range g.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Pass is what a connection holds while it is in. Its methods may be called by any goroutine; those of a nil Pass, and
// of one that is exempt, allow everything.
type Pass struct {
	// Set by Enter, never changed.
	g      *Gate
	addr   netip.Addr
	source source
	exempt bool

	once sync.Once // Leave

	mu      sync.Mutex // guards account
	account uint64     // who is logged in; 0 is nobody
}

// Enter lets a connection in from an address, which is the peer's own or, behind a proxy, the one that the proxy names. The
// error is a *Refusal. A nil Gate lets everybody in. The caller calls Leave in the end.
func (g *Gate) Enter(from netip.Addr) (*Pass, error) {
	if g == nil {
		return nil, nil
	}
	from = from.Unmap().WithZone("")
	p := &Pass{g: g, addr: from, exempt: g.Exempt(from)}
	if p.exempt {
		return p, nil
	}
	if ban, ok := g.bans.Covers(from); ok {
		return nil, refusalOf(ban)
	}
	p.source = sourceOf(from)
	if r := p.enter(); r != nil {
		return nil, r
	}
	return p, nil
}

func refusalOf(b Ban) *Refusal {
	if b.Until.IsZero() {
		return &Refusal{Text: "your address is banned", Over: true, Permanent: b.By != ByGate}
	}
	until := b.Until.UTC().Format("2006-01-02 15:04:05")
	return &Refusal{Text: fmt.Sprintf("your address is banned until %s UTC", until), Over: true, Permanent: b.By != ByGate}
}

// enter counts the connection in.
func (p *Pass) enter() *Refusal {
	v := p.state()
	defer v.unlock()
	network := p.source.network
	switch {
	case v.shard.open[network] >= p.g.limits.PerNetwork*v.network.factor(v.now):
		return &Refusal{Text: "too many connections from your network", Over: true}
	case v.full(failures):
		return &Refusal{Text: "too many errors from your address; try again later", Over: true}
	case !v.take(connections, 1):
		return &Refusal{Text: "too many connections in a minute from your address; try again later", Over: true}
	}
	v.shard.open[network]++
	return nil
}

// Leave ends the pass. Only the first call counts.
func (p *Pass) Leave() {
	if p.free() {
		return
	}
	p.once.Do(func() {
		v := p.state()
		defer v.unlock()
		network := p.source.network
		if v.shard.open[network]--; v.shard.open[network] == 0 {
			delete(v.shard.open, network)
		}
	})
}

// Exempt reports whether nothing is asked of the connection.
func (p *Pass) Exempt() bool { return p.free() }

func (p *Pass) free() bool { return p == nil || p.exempt }

// Mail asks whether a transaction may begin, and counts it. The error is a *Refusal: the connection is to end when its
// address has been banned meanwhile.
func (p *Pass) Mail() error {
	if p.free() {
		return nil
	}
	if ban, ok := p.g.bans.Covers(p.addr); ok {
		return refusalOf(ban)
	}
	if id := p.who(); id != 0 {
		return p.asAccount(id, accountMessages, "your account has sent too many messages in an hour")
	}
	v := p.state()
	defer v.unlock()
	switch {
	case v.full(refused):
		return &Refusal{Text: "too much refused data from your address; try again later"}
	case !v.take(messages, 1):
		return &Refusal{Text: "too many messages in an hour from your address; try again later"}
	}
	return nil
}

// Rcpt asks whether a recipient may be named, and counts it. The error is a *Refusal, which is temporary.
func (p *Pass) Rcpt() error {
	if p.free() {
		return nil
	}
	if id := p.who(); id != 0 {
		return p.asAccount(id, accountRecipients, "your account has written to too many recipients in an hour")
	}
	v := p.state()
	defer v.unlock()
	if !v.take(recipients, 1) {
		return &Refusal{Text: "too many recipients in an hour from your address; try again later"}
	}
	return nil
}

// asAccount counts one thing that an account does.
func (p *Pass) asAccount(id uint64, m measure, text string) error {
	g := p.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.accounts.get(id).buckets[m].take(g.clock(), g.rules[m], 1, 1) {
		return &Refusal{Text: text + "; try again later"}
	}
	return nil
}

// Accepted tells of a message that was accepted for so many recipients. Who sends honest mail is not delayed at its
// next greeting, and may name as many unknown recipients more: a large sender has stale addresses, too.
func (p *Pass) Accepted(rcpts int) {
	if p.free() {
		return
	}
	v := p.state()
	defer v.unlock()
	v.behaved()
	v.drain(unknown, rcpts)
}

// Refused tells of octets of a message that came and were not accepted, or were cut off.
func (p *Pass) Refused(octets int64) {
	if p.free() {
		return
	}
	v := p.state()
	defer v.unlock()
	v.pour(refused, octets)
}

// LoggedIn tells who is logged in; 0 is nobody any more.
func (p *Pass) LoggedIn(account uint64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.account = account
	p.mu.Unlock()
	if p.exempt || account == 0 {
		return
	}
	v := p.state()
	defer v.unlock()
	v.behaved()
	v.good()
}

func (p *Pass) who() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.account
}

// Stranger reports whether nothing good is known of the address: no message of it was accepted, nobody has logged in from it.
func (p *Pass) Stranger() bool {
	if p.free() {
		return false
	}
	v := p.state()
	defer v.unlock()
	return v.address.behaved <= v.now
}

// GreetDelay is how long the peer's silence before the greeting is watched: nothing for who has behaved.
func (p *Pass) GreetDelay() time.Duration {
	if !p.Stranger() {
		return 0
	}
	return p.g.limits.GreetDelay
}

// An Offence is what gets an address banned when it is done too often.
type Offence struct {
	m      measure
	reason string
}

// The offences.
var (
	Guess   = Offence{guesses, "guessing passwords"}           // a login that failed
	Probe   = Offence{unknown, "looking for recipients"}       // an unknown recipient
	Junk    = Offence{abuse, "speaking another protocol"}      // HTTP, a TLS or SSH greeting, no commands
	Early   = Offence{abuse, "talking before the greeting"}    // or past a point where it must wait
	Smuggle = Offence{abuse, "smuggling a message in another"} // an end of data that is none
)

// Offend tells of an offence. The error is a *Refusal when the address has been banned for it: the connection is to end.
// Who is logged in may mistype recipients.
func (p *Pass) Offend(o Offence) error {
	if p.free() || o == Probe && p.who() != 0 {
		return nil
	}
	banned, ok := p.g.offend(p.addr, o)
	if !ok {
		return nil
	}
	return refusalOf(banned)
}

// Guessed tells of a login from an address that failed, where nobody has a Pass at hand.
func (g *Gate) Guessed(from netip.Addr) {
	from = from.Unmap().WithZone("")
	if g != nil && !g.Exempt(from) {
		g.offend(from, Guess)
	}
}

// offend counts an offence against an address and its network, and bans what has offended too often.
func (g *Gate) offend(a netip.Addr, o Offence) (Ban, bool) {
	if g.rules[o.m].most <= 0 {
		return Ban{}, false
	}
	s := sourceOf(a)
	v := g.state(s)
	v.pour(o.m, 1)
	address, network := v.reached(o.m)
	v.unlock()
	if shared(a) {
		return Ban{}, false
	}
	switch {
	case network:
		return g.bans.punish(s.network, o.reason)
	case address:
		return g.bans.punish(s.address, o.reason)
	}
	return Ban{}, false
}

var carrierGrade = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// shared reports whether an address is not one peer's: it belongs to a private network, or to nobody.
func shared(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || carrierGrade.Contains(a)
}
