package tlspolicy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"postroad/internal/dns"
	"postroad/internal/store"
	"postroad/internal/tlsrpt"
)

const (
	sweepEach   = time.Hour
	refreshEach = 24 * time.Hour      // RFC 8461, 3.3
	repeatEach  = 4 * time.Hour       // a refresh that failed
	useless     = 30 * 24 * time.Hour // a policy that no mail has asked for is not refreshed after it
	backOff     = 5 * time.Minute     // after a fetch that failed (RFC 8461, 3.3)
	refreshers  = 8                   // policies that are refreshed at the same time
	maxFailed   = 10_000              // failures that are remembered
	askTime     = 30 * time.Second    // of one question to the DNS
)

const recordVersion = 1

func (s *STS) encode() []byte {
	var e store.Encoder
	e.Uint(recordVersion)
	e.Text(s.ID)
	e.Text(string(s.Mode))
	e.Uint(uint64(len(s.MX)))
	for _, mx := range s.MX {
		e.Text(mx)
	}
	e.Int(int64(s.MaxAge / time.Second))
	e.Time(s.Fetched)
	e.Time(s.Used)
	e.Time(s.Tried)
	e.Text(s.Trouble)
	return e
}

func decodeSTS(b []byte) (*STS, error) {
	d := store.NewDecoder(b)
	if d.Uint() != recordVersion {
		return nil, store.ErrRecord
	}
	s := &STS{ID: d.Text(), Mode: Mode(d.Text())}
	for range d.Count() {
		s.MX = append(s.MX, d.Text())
	}
	s.MaxAge = time.Duration(d.Int()) * time.Second
	s.Fetched, s.Used, s.Tried, s.Trouble = d.Time(), d.Time(), d.Time(), d.Text()
	return s, d.Err()
}

// load returns the policy that is stored for a domain and holds; nil when there is none.
func (p *Policies) load(domain string, now time.Time) (*STS, error) {
	s, err := p.stored(domain)
	if err != nil || s == nil || !now.Before(s.Expires()) {
		return nil, err
	}
	return s, nil
}

// stored returns the policy that is stored for a domain, whether it holds or not.
func (p *Policies) stored(domain string) (*STS, error) {
	v, err := p.sts.get(p.cfg.Store, domain)
	if err != nil || v == nil {
		return nil, err
	}
	s, err := decodeSTS(v)
	if err != nil {
		return nil, fmt.Errorf("the MTA-STS policy of %s: %w", domain, err)
	}
	return s, nil
}

// discover returns the policy that is to be applied to a domain's mail; nil when there is none (RFC 8461, 3.3 and 5.1).
// As long as a stored one holds, only another one that was fetched takes its place.
//
// unsure says that there may be one which cannot be had now.
func (p *Policies) discover(ctx context.Context, domain string, now time.Time) (policy *STS, unsure bool, err error) {
	if isLiteral(domain) {
		return nil, false, nil
	}
	if policy, err = p.load(domain, now); err != nil {
		return nil, false, err
	}
	id, err := p.announced(ctx, domain)
	if id != "" && (policy == nil || policy.ID != id && now.Sub(policy.Fetched) >= minAge) {
		if fresh := p.fetch(ctx, domain, id, policy); fresh != nil {
			policy = fresh
		}
	}
	if policy == nil || policy.Mode == Off {
		return nil, policy == nil && (id != "" || dns.Temporary(err)), nil
	}
	p.use(domain, policy, now)
	return policy, false, nil
}

// announced returns the id that the domain's text record tells of; empty when there is no good one, or no answer.
func (p *Policies) announced(ctx context.Context, domain string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	answer, err := p.cfg.Resolver.LookupTXT(ctx, "_mta-sts."+domain)
	if err != nil {
		return "", err
	}
	id, _ := recordID(answer.Records)
	return id, nil
}

// flight is a fetch that is under way, for all who want it.
type flight struct {
	done   chan struct{} // closed when it has ended
	policy *STS
	err    error
}

// fetch brings a domain's policy, and stores it. It returns nil when there is none to be had now, which is no reason to
// keep mail back (RFC 8461, 3.3). old is the one that holds, nil for none.
func (p *Policies) fetch(ctx context.Context, domain, id string, old *STS) *STS {
	for ctx.Err() == nil {
		f, leads := p.board(domain)
		if f == nil {
			return nil
		}
		if leads {
			f.policy, f.err = p.fetchNow(ctx, domain, id, old)
			p.land(ctx, domain, f)
			return f.policy
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil
		}
		if !errors.Is(f.err, context.Canceled) { // else whoever led gave up: somebody else leads
			return f.policy
		}
	}
	return nil
}

// board returns the fetch that is under way, or begins one, which the caller leads then. It returns nil when one has
// failed a short while ago.
func (p *Policies) board(domain string) (f *flight, leads bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.flights[domain]; f != nil {
		return f, false
	}
	if at, ok := p.failed[domain]; ok && p.cfg.Now().Sub(at) < backOff {
		return nil, false
	}
	f = &flight{done: make(chan struct{})}
	p.flights[domain] = f
	return f, true
}

// land ends a fetch.
func (p *Policies) land(ctx context.Context, domain string, f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flights, domain)
	delete(p.failed, domain)
	if ctx.Err() != nil {
		f.err = context.Canceled
	} else if f.err != nil {
		p.forgetFailed()
		p.failed[domain] = p.cfg.Now()
	}
	close(f.done)
}

// forgetFailed makes room. mu must be held.
func (p *Policies) forgetFailed() {
	if len(p.failed) < maxFailed {
		return
	}
	for domain, at := range p.failed {
		if p.cfg.Now().Sub(at) >= backOff {
			delete(p.failed, domain)
		}
	}
	if len(p.failed) >= maxFailed {
		clear(p.failed)
	}
}

// fetchNow asks the policy host, and stores what it says, or why it says nothing beside the policy that holds.
func (p *Policies) fetchNow(ctx context.Context, domain, id string, old *STS) (*STS, error) {
	fresh, err := p.download(ctx, domain)
	now := p.cfg.Now()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		p.fetchFailed(domain, old, err, now)
		return nil, err
	}
	fresh.ID, fresh.Fetched, fresh.Tried, fresh.Used = id, now, now, now
	if old != nil {
		fresh.ID, fresh.Used = cmp.Or(id, old.ID), old.Used
	}
	if err := p.save(domain, fresh); err != nil { // it serves this once, and is fetched again
		p.cfg.Log.Error("an MTA-STS policy could not be stored", "domain", domain, "err", err)
	}
	p.stamp(domain).Add(1)
	p.cfg.Log.Info("MTA-STS policy", "domain", domain, "id", fresh.ID, "mode", string(fresh.Mode), "expires", fresh.Expires())
	return fresh, nil
}

// fetchFailed tells that a policy could not be had.
func (p *Policies) fetchFailed(domain string, old *STS, why error, now time.Time) {
	policy := tlsrpt.Policy{Type: tlsrpt.STS}
	if old != nil {
		policy = old.report()
	}
	p.record(tlsrpt.Result{Domain: domain, Policy: policy, Failure: fetchFailure(why), Reason: why.Error()})
	if old == nil {
		p.cfg.Log.Info("no MTA-STS policy can be had", "domain", domain, "err", why)
		return
	}
	if old.Mode != Off {
		p.cfg.Log.Warn("an MTA-STS policy could not be refreshed", "domain", domain, "err", why, "holds_until", old.Expires())
	}
	err := p.change(domain, func(s *STS) { s.Tried, s.Trouble = now, why.Error() })
	if err != nil {
		p.cfg.Log.Error("the state of an MTA-STS policy could not be stored", "domain", domain, "err", err)
	}
}

// save stores a policy. It is durable when save returns.
func (p *Policies) save(domain string, s *STS) error {
	return p.cfg.Store.Update(func(tx store.Tx) error {
		p.sts.put(tx, domain, s.encode(), p.worthOfPolicy)
		return nil
	})
}

// worthOfPolicy is when a policy was last used; those that ask for nothing are worth less.
func (p *Policies) worthOfPolicy(record []byte) int64 {
	s, err := decodeSTS(record)
	switch {
	case err != nil || !p.cfg.Now().Before(s.Expires()):
		return 0
	case s.Mode != Enforce:
		return s.Used.Unix() / 2
	}
	return s.Used.Unix()
}

// change changes the stored policy of a domain, if there is one.
func (p *Policies) change(domain string, fn func(*STS)) error {
	return p.cfg.Store.UpdateSoon(func(tx store.Tx) error {
		v := tx.Get(p.sts.key(domain))
		if v == nil {
			return nil
		}
		s, err := decodeSTS(v)
		if err != nil {
			return err
		}
		fn(s)
		p.sts.put(tx, domain, s.encode(), p.worthOfPolicy)
		return nil
	})
}

// use remembers that a policy is in use.
func (p *Policies) use(domain string, s *STS, now time.Time) {
	if now.Sub(s.Used) < refreshEach {
		return
	}
	if err := p.change(domain, func(s *STS) { s.Used = now }); err != nil {
		p.cfg.Log.Error("the state of an MTA-STS policy could not be stored", "domain", domain, "err", err)
	}
}

// sweep refreshes the policies that are due, and forgets what no longer holds.
func (p *Policies) sweep(ctx context.Context) error {
	now := p.cfg.Now()
	due := make(chan string)
	var work sync.WaitGroup
	for range refreshers {
		work.Go(func() {
			for domain := range due {
				p.refresh(ctx, domain)
			}
		})
	}
	err := p.sweepPolicies(ctx, now, due)
	close(due)
	work.Wait()
	return errors.Join(err, p.sweepMemory(ctx, now))
}

func (p *Policies) sweepPolicies(ctx context.Context, now time.Time, due chan<- string) error {
	return p.sts.walk(ctx, p.cfg.Store, func(domain string, record []byte) (drop bool) {
		s, err := decodeSTS(record)
		if err != nil || !now.Before(s.Expires()) {
			return err == nil
		}
		if s.due(now) {
			select {
			case due <- domain:
			case <-ctx.Done():
			}
		}
		return false
	})
}

// due reports whether a policy is to be refreshed.
func (s *STS) due(now time.Time) bool {
	wait := refreshEach
	if s.Trouble != "" {
		wait = repeatEach
	}
	return now.Sub(s.Used) < useless && now.Sub(s.Tried) >= wait
}

// refresh fetches a domain's policy anew, whatever the text record says: an attacker can take that away.
func (p *Policies) refresh(ctx context.Context, domain string) {
	old, err := p.load(domain, p.cfg.Now())
	if err == nil && old != nil {
		id, _ := p.announced(ctx, domain)
		p.fetch(ctx, domain, cmp.Or(id, old.ID), old)
	}
}
