package tlspolicy

import (
	"context"
	"fmt"
	"time"

	"postroad/internal/store"
)

// When a domain has always shown a good certificate, and how long that is remembered.
const (
	enoughSessions = 5                   // counted once an hour at most
	enoughTime     = 3 * 24 * time.Hour  // between the first and the last of them
	countEach      = time.Hour           // sessions are counted
	writeEach      = 24 * time.Hour      // once it is established
	memoryAge      = 60 * 24 * time.Hour // after the last of them it is forgotten
)

// Memory is how a domain's mail hosts have shown themselves, in all sessions since Since.
type Memory struct {
	Since, Last time.Time // with a good certificate; Last to within a day
	Sessions    int       // with a good certificate, counted once an hour at most, and once a day after a while
	Failing     time.Time // since when they do not any more; zero: they do
	Trouble     string    // what they did then
}

// Established reports whether the domain has shown a good certificate often and long enough for anything else to be odd.
func (m *Memory) Established() bool {
	return m.Sessions >= enoughSessions && m.Last.Sub(m.Since) >= enoughTime
}

func (m *Memory) encode() []byte {
	var e store.Encoder
	e.Uint(recordVersion)
	e.Time(m.Since)
	e.Time(m.Last)
	e.Uint(uint64(m.Sessions))
	e.Time(m.Failing)
	e.Text(m.Trouble)
	return e
}

func decodeMemory(b []byte) (*Memory, error) {
	d := store.NewDecoder(b)
	if d.Uint() != recordVersion {
		return nil, store.ErrRecord
	}
	m := &Memory{Since: d.Time(), Last: d.Time(), Sessions: int(d.Uint()), Failing: d.Time(), Trouble: d.Text()}
	return m, d.Err()
}

// recall returns what is stored of a domain; nil when there is nothing.
func (p *Policies) recall(domain string) (*Memory, error) {
	v, err := p.memory.get(p.cfg.Store, domain)
	if err != nil || v == nil {
		return nil, err
	}
	m, err := decodeMemory(v)
	if err != nil {
		return nil, fmt.Errorf("what is remembered of the TLS of %s: %w", domain, err)
	}
	return m, nil
}

// remember returns the memory of a domain that asks for something; nil when there is none. One that has kept mail back
// for long enough is forgotten: the domain has changed, and nobody has promised otherwise.
func (p *Policies) remember(domain string, now time.Time) (*Memory, error) {
	if p.cfg.Memory == 0 || isLiteral(domain) {
		return nil, nil
	}
	m, err := p.recall(domain)
	if err != nil || m == nil || !m.Established() {
		return nil, err
	}
	if !m.Failing.IsZero() && now.Sub(m.Failing) >= p.cfg.Memory {
		p.cfg.Log.Warn("mail goes again to a domain whose TLS has changed; it was kept back for long enough",
			"domain", domain, "since", m.Failing, "trouble", m.Trouble)
		return nil, p.forget(p.memory, domain)
	}
	return m, nil
}

// byMemory is what a domain's past asks for, in place of less.
func (d *Policy) byMemory(host string, need Need) Need {
	m, until := d.memory, d.memory.Failing.Add(d.p.cfg.Memory)
	if m.Failing.IsZero() {
		until = d.at.Add(d.p.cfg.Memory)
	}
	need.Level, need.Kind, need.pkix, need.Verify = Verified, Remembered, true, d.p.forgiving(host)
	need.Words = fmt.Sprintf("since %s the hosts of %s have always shown a good certificate; without one its mail waits until %s, "+
		"or until `postroad tls forget %s`", m.Since.UTC().Format(time.DateOnly), d.domain, until.UTC().Format(time.RFC3339), d.domain)
	return need
}

// Report tells how a session began: for the memory, and for TLS reports.
func (d *Policy) Report(s Session) {
	d.p.record(resultOf(d.domain, &s))
	if d.p.cfg.Memory == 0 || !s.Need.pkix || s.Need.Kind == TLSOptional || isLiteral(d.domain) {
		return
	}
	if err := d.p.learn(d.domain, &s, s.trouble()); err != nil {
		d.p.cfg.Log.Error("what a session showed of a domain's TLS could not be stored", "domain", d.domain, "err", err)
	}
}

// trouble is what is wrong with a session.
func (s *Session) trouble() string {
	switch {
	case s.NotOffered || s.Err == nil && s.TLS == "":
		return s.Host + " does not offer STARTTLS"
	case s.Err != nil:
		return s.Host + ": " + s.Err.Error()
	case s.Verified != nil:
		return s.Host + ": " + s.Verified.Error()
	}
	return ""
}

// learn takes a session into the memory of a domain. Most change nothing, and write nothing.
func (p *Policies) learn(domain string, s *Session, trouble string) error {
	good := s.Err == nil && s.TLS != "" && s.Verified == nil
	now := p.cfg.Now()
	old, err := p.recall(domain)
	if err != nil {
		return err
	}
	m := next(old, good, now, trouble)
	if old == nil && m == nil || old != nil && m != nil && *old == *m {
		return nil
	}
	err = p.cfg.Store.UpdateSoon(func(tx store.Tx) error { return p.learnIn(tx, domain, good, now, trouble) })
	if err == nil {
		p.changed(domain, s, old, m)
	}
	return err
}

func (p *Policies) learnIn(tx store.Tx, domain string, good bool, now time.Time, trouble string) (err error) {
	var old *Memory
	if v := tx.Get(p.memory.key(domain)); v != nil {
		if old, err = decodeMemory(v); err != nil {
			return err
		}
	}
	if m := next(old, good, now, trouble); m != nil {
		p.memory.put(tx, domain, m.encode(), worthOfMemory)
	} else {
		p.memory.drop(tx, domain)
	}
	return nil
}

// changed tells of a memory that asks for something since now, or that is not fulfilled any more.
func (p *Policies) changed(domain string, s *Session, old, m *Memory) {
	if asks := m != nil && m.Established(); asks != (old != nil && old.Established()) {
		p.stamp(domain).Add(1)
	}
	if m == nil || m.Failing.IsZero() || old != nil && !old.Failing.IsZero() {
		return
	}
	p.cfg.Log.Warn("a domain that always showed a good certificate does not any more; its mail waits",
		"domain", domain, "host", s.Host, "since", m.Since, "sessions", m.Sessions, "trouble", m.Trouble,
		"until", m.Failing.Add(p.cfg.Memory), "hint", "if this is known to be right: postroad tls forget "+domain)
}

// next is what a session makes of a memory; nil is nothing to remember.
func next(old *Memory, good bool, now time.Time, trouble string) *Memory {
	switch {
	case old == nil && good:
		return &Memory{Since: now, Last: now, Sessions: 1}
	case old == nil || !good && !old.Established():
		return nil
	}
	m := *old
	wait := countEach
	if m.Established() {
		wait = writeEach
	}
	switch {
	case !good && m.Failing.IsZero():
		m.Failing, m.Trouble = now, trouble
	case good:
		m.Failing, m.Trouble = time.Time{}, ""
		if now.Sub(m.Last) >= wait {
			m.Last, m.Sessions = now, m.Sessions+1
		}
	}
	return &m
}

// worthOfMemory is when a session was last counted.
func worthOfMemory(record []byte) int64 {
	m, err := decodeMemory(record)
	switch {
	case err != nil:
		return 0
	case !m.Established():
		return m.Last.Unix() / 2
	}
	return m.Last.Unix()
}

// sweepMemory forgets domains to which no mail has gone for long.
func (p *Policies) sweepMemory(ctx context.Context, now time.Time) error {
	return p.memory.walk(ctx, p.cfg.Store, func(_ string, record []byte) (drop bool) {
		m, err := decodeMemory(record)
		return err == nil && now.Sub(m.Last) >= memoryAge
	})
}

// WaitsUntil is until when mail waits for a domain to show a good certificate again; zero when it does not wait.
func (p *Policies) WaitsUntil(m *Memory) time.Time {
	if m.Failing.IsZero() || !m.Established() || p.cfg.Memory == 0 {
		return time.Time{}
	}
	return m.Failing.Add(p.cfg.Memory)
}
