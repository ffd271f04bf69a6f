package smtpd

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"postroad/internal/envelope"
	"postroad/smtpd/wire"
)

// etrn is ETRN (RFC 1985): mail that waits for a domain is tried now. It is sent where it would be sent anyway, so the
// asker gets none of it by asking. All the same only a proxy of ours may name any domain; others may name those that have a
// route of their own, whose servers are the ones that have reason to ask. It is not for submission (RFC 6409, 7).
func (s *session) etrn(arg string) *wire.Reply {
	domain, err := envelope.ParseDomain(arg)
	switch {
	case s.srv.Flush == nil:
		return replyNoQueue
	case strings.HasPrefix(arg, "@") || strings.HasPrefix(arg, "#"):
		return replyNode
	case err != nil || strings.HasPrefix(domain, "["):
		return reply(501, "5.5.4", "ETRN has a domain as its argument")
	case !s.mayFlush(domain):
		return reply(459, "4.7.1", "node %s not allowed: it has no route of its own here", domain)
	case !s.srv.flushes.may(domain, s.srv.Now()):
		return reply(250, "2.0.0", "queuing for node %s has started already", domain)
	}
	return s.flushed(domain)
}

func (s *session) mayFlush(domain string) bool {
	return s.isProxy() || s.srv.Routed(domain)
}

// flushed has mail for a domain tried now.
func (s *session) flushed(domain string) *wire.Reply {
	n, err := s.srv.Flush(s.srv.ctx, domain, "ETRN from "+s.peer.String())
	switch {
	case err != nil:
		s.log.Error("ETRN failed", "domain", domain, "err", err)
		return reply(458, "4.3.0", "unable to queue messages for node %s", domain)
	case n == 0:
		return reply(251, "2.0.0", "no messages waiting for node %s", domain)
	}
	s.log.Info("mail is tried again", "domain", domain, "recipients", n)
	return reply(253, "2.0.0", "%s pending messages for node %s started", strconv.Itoa(n), domain)
}

// flushEvery is how often a domain's mail is tried on demand: each time the whole queue is read.
const flushEvery = time.Minute

// flushedDomains bounds how many domains are remembered to have been flushed.
const flushedDomains = 1000

// flushes remembers when mail for each domain was last tried on demand.
type flushes struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// may reports whether a domain's mail may be tried now, and remembers it.
func (f *flushes) may(domain string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, ok := f.last[domain]; ok && now.Sub(at) < flushEvery {
		return false
	}
	if f.last == nil || len(f.last) >= flushedDomains {
		f.forget(now)
	}
	if len(f.last) >= flushedDomains {
		return false
	}
	f.last[domain] = now
	return true
}

// forget drops what does not count any more. mu must be held.
func (f *flushes) forget(now time.Time) {
	young := map[string]time.Time{}
	for domain, at := range f.last {
		if now.Sub(at) < flushEvery {
			young[domain] = at
		}
	}
	f.last = young
}
