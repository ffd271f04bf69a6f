package dns

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxAliases bounds how many CNAME records lead from a name to what it stands for.
const maxAliases = 16

var errAliases = errors.New("aliases (CNAME) go round, or are too many")

// found is what the name system says to a question.
type found struct {
	records []dns.RR // of the type that was asked for; none: there are none
	name    string   // where aliases led
	secure  bool
	ttl     time.Duration
}

// How long an answer is remembered at most: that there is something, and that there is nothing, which is
// what a domain's owner mends.
const (
	maxTTL      = time.Hour
	maxEmptyTTL = 5 * time.Minute
)

// follow asks a question, and again for the name that an alias leads to if the server has not done so itself.
func (s *setup) follow(ctx context.Context, q question) (found, error) {
	f := found{name: q.name, secure: true, ttl: maxTTL}
	for aliases := 0; ; {
		m, secure, err := s.ask(ctx, question{f.name, q.typ})
		if err != nil {
			return found{}, err
		}
		f.secure = f.secure && secure
		n := f.read(m, q.typ)
		if aliases += n; aliases > maxAliases {
			return found{}, errAliases
		}
		if n == 0 || len(f.records) > 0 || m.Rcode == dns.RcodeNameError || soa(m) != nil {
			f.shorten(emptyTTL(m), len(f.records) == 0)
			return f, nil
		}
	}
}

// read goes along the aliases in an answer, takes the records at their end, and returns how many aliases there were.
func (f *found) read(m *dns.Msg, typ uint16) (aliases int) {
	for aliases <= maxAliases {
		var alias *dns.CNAME
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != f.name {
				continue
			}
			if h.Rrtype == typ {
				f.records = append(f.records, rr)
				f.shorten(ttl(h), true)
			} else if c, ok := rr.(*dns.CNAME); ok {
				alias = c
			}
		}
		if alias == nil || len(f.records) > 0 {
			break
		}
		f.name = dns.CanonicalName(alias.Target)
		f.shorten(ttl(alias.Header()), true)
		aliases++
	}
	return aliases
}

func (f *found) shorten(ttl time.Duration, when bool) {
	if when {
		f.ttl = min(f.ttl, ttl)
	}
}

// ttl is how long a record may be remembered; with the highest bit, it may not (RFC 2181, 8).
func ttl(h *dns.RR_Header) time.Duration {
	if h.Ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(h.Ttl) * time.Second
}

// emptyTTL is how long it may be remembered that there is nothing: without a SOA record, not at all (RFC 2308, 5).
func emptyTTL(m *dns.Msg) time.Duration {
	rr := soa(m)
	if rr == nil {
		return 0
	}
	return min(ttl(rr.Header()), time.Duration(rr.Minttl)*time.Second, maxEmptyTTL)
}

func soa(m *dns.Msg) *dns.SOA {
	for _, rr := range m.Ns {
		if rr, ok := rr.(*dns.SOA); ok {
			return rr
		}
	}
	return nil
}

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func unhex(s string) []byte {
	b, _ := hex.DecodeString(s) // dns.Msg has made it from octets
	return b
}

// unescape returns the octets of a text that dns.Msg has made fit for a zone file: \" and \\, and \DDD.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			b.WriteByte(s[i])
		case i+3 < len(s) && isDigit(s[i+1]):
			b.WriteByte((s[i+1]-'0')*100 + (s[i+2]-'0')*10 + s[i+3] - '0')
			i += 3
		default:
			i++
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
