package dns

import (
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// NewCache, Put and Size are for tests.
var NewCache = newCache

func (c *cache) Put(name string, rr dns.RR) {
	q := question{name, rr.Header().Rrtype}
	c.begin(c.of, q, time.Time{})
	c.give(c.of, q, &known{found: found{records: []dns.RR{rr}, ttl: time.Hour}})
}

func (c *cache) Size() (octets, entries int) { return c.size, len(c.known) }

// ParseResolvConf says what a resolv.conf means.
func ParseResolvConf(text string) string {
	s := new(Options).parseResolvConf([]byte(text))
	var servers []string
	for _, server := range s.servers {
		text := server.addr.String()
		if server.trusted {
			text += " trusted"
		}
		servers = append(servers, text)
	}
	return fmt.Sprintf("%s; %v %d", strings.Join(servers, ", "), s.timeout, s.attempts)
}

// Parse reads an answer to the question for the records of a type at a name, and returns what must not be.
func Parse(b []byte, name string, typ uint16) error {
	query := newQuery(question{name, typ})
	if len(b) >= 2 {
		query.Id = uint16(b[0])<<8 | uint16(b[1])
	}
	m, err := parse(b, query)
	if err != nil || verdict(m) != nil {
		return nil
	}
	f := found{name: dns.CanonicalName(name), ttl: maxTTL}
	n := f.read(m, typ)
	f.shorten(emptyTTL(m), len(f.records) == 0)
	switch {
	case n > maxAliases+1:
		return fmt.Errorf("%d aliases were followed", n)
	case f.ttl < 0 || f.ttl > maxTTL:
		return fmt.Errorf("remembered for %v", f.ttl)
	}
	for _, rr := range f.records {
		if rr.Header().Rrtype != typ || dns.CanonicalName(rr.Header().Name) != f.name {
			return fmt.Errorf("%v is no answer at %s", rr, f.name)
		}
		if txt, ok := rr.(*dns.TXT); ok {
			unescape(strings.Join(txt.Txt, ""))
		}
	}
	return nil
}
