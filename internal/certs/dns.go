package certs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"
)

// DNS says how to put a record into a zone (RFC 2136).
type DNS struct {
	Server  string // where updates go, "address:port"
	KeyFile string // what they are signed with: a file as `tsig-keygen` writes it (RFC 8945)
}

// A record lives as long as a challenge; whether it has spread is looked at until enough time has passed.
const (
	recordTTL    = 60 // seconds
	spreadWithin = 2 * time.Minute
	spreadEvery  = time.Second
	askWithin    = 5 * time.Second
)

// dnsSolver answers DNS-01 (RFC 8555, 8.4). Any number of goroutines.
type dnsSolver struct {
	server string // that takes updates
	key    tsigKey
	port   string // of the zone's other servers
}

// tsigKey signs updates.
type tsigKey struct{ name, algorithm, secret string }

func openDNS(cfg DNS) (*dnsSolver, error) {
	text, err := readFile(cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the key for updates of DNS: %w", err)
	}
	key, err := parseKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.KeyFile, err)
	}
	return &dnsSolver{server: cfg.Server, key: key, port: "53"}, nil
}

// How named.conf(5) writes a key.
var (
	keyComment   = regexp.MustCompile(`"[^"\n]*"|(?s:/\*.*?\*/)|(?:#|//)[^\n]*`) // or a text, in which there is none
	keyStatement = regexp.MustCompile(`(?s)\bkey\s+"?([^\s"{};]+)"?\s*\{(.*?)\}`)
	keyAlgorithm = regexp.MustCompile(`\balgorithm\s+"?([A-Za-z0-9-]+)"?\s*;`)
	keySecret    = regexp.MustCompile(`\bsecret\s+"?([A-Za-z0-9+/=]+)"?\s*;`)
)

// algorithms are those that a key may have.
var algorithms = map[string]string{
	"hmac-sha256": dns.HmacSHA256, "hmac-sha384": dns.HmacSHA384, "hmac-sha512": dns.HmacSHA512,
	"hmac-sha224": dns.HmacSHA224, "hmac-sha1": dns.HmacSHA1,
}

// parseKey reads the first key of a text.
func parseKey(text string) (tsigKey, error) {
	key := keyStatement.FindStringSubmatch(keyComment.ReplaceAllStringFunc(text, func(s string) string {
		if s[0] == '"' {
			return s
		}
		return " "
	}))
	if key == nil {
		return tsigKey{}, errors.New("holds no key; make one with tsig-keygen")
	}
	algorithm, secret := keyAlgorithm.FindStringSubmatch(key[2]), keySecret.FindStringSubmatch(key[2])
	if algorithm == nil || secret == nil {
		return tsigKey{}, fmt.Errorf("the key %s wants an algorithm and a secret; make one with tsig-keygen", key[1])
	}
	known := algorithms[strings.ToLower(algorithm[1])]
	if known == "" {
		return tsigKey{}, fmt.Errorf("the key %s is for %s; make one for hmac-sha256", key[1], algorithm[1])
	}
	return tsigKey{name: dns.CanonicalName(key[1]), algorithm: known, secret: secret[1]}, nil
}

// Present adds the record of a challenge.
func (s *dnsSolver) Present(ctx context.Context, c acme.Challenge) error {
	zone, record, err := s.record(ctx, c)
	if err != nil {
		return err
	}
	m := new(dns.Msg).SetUpdate(zone)
	m.Insert([]dns.RR{record})
	return s.update(ctx, m)
}

// CleanUp removes it.
func (s *dnsSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	zone, record, err := s.record(ctx, c)
	if err != nil {
		return err
	}
	m := new(dns.Msg).SetUpdate(zone)
	m.Remove([]dns.RR{record})
	return s.update(ctx, m)
}

// Wait returns once all servers of the zone that answer have the record, or when that has taken so long that the
// authority may find out for itself.
func (s *dnsSolver) Wait(ctx context.Context, c acme.Challenge) error {
	zone, record, err := s.record(ctx, c)
	if err != nil {
		return err
	}
	servers := s.servers(ctx, zone)
	for began := time.Now(); time.Since(began) < spreadWithin; {
		if servers = s.without(ctx, servers, record); len(servers) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(spreadEvery):
		}
	}
	return nil
}

// record is the record of a challenge and the zone that it belongs to.
func (s *dnsSolver) record(ctx context.Context, c acme.Challenge) (zone string, record *dns.TXT, err error) {
	name := dns.Fqdn(c.DNS01TXTRecordName())
	zone, err = s.zone(ctx, name)
	return zone, &dns.TXT{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: recordTTL},
		Txt: []string{c.DNS01KeyAuthorization()},
	}, err
}

// zone is the zone that name is in, as its server says: the SOA of an answer, or of the authority of none, names it.
func (s *dnsSolver) zone(ctx context.Context, name string) (string, error) {
	for at, end := 0, false; !end; at, end = dns.NextLabel(name, at) {
		reply, err := s.ask(ctx, s.server, name[at:], dns.TypeSOA)
		if err != nil {
			return "", fmt.Errorf("ask %s for the zone of %s: %w", s.server, name, err)
		}
		for _, rr := range append(reply.Answer, reply.Ns...) {
			if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) {
				return soa.Hdr.Name, nil
			}
		}
	}
	return "", fmt.Errorf("%s has no zone with %s; name the zone's first server as acme.dns_server", s.server, name)
}

// update sends m, signed.
func (s *dnsSolver) update(ctx context.Context, m *dns.Msg) error {
	m.SetTsig(s.key.name, s.key.algorithm, 300, time.Now().Unix())
	client := dns.Client{Net: "tcp", Timeout: askWithin, TsigSecret: map[string]string{s.key.name: s.key.secret}}
	reply, _, err := client.ExchangeContext(ctx, m, s.server)
	if err == nil && reply.Rcode != dns.RcodeSuccess {
		err = fmt.Errorf("the server says %s; see that it lets the key %s update the zone", dns.RcodeToString[reply.Rcode], s.key.name)
	}
	if err != nil {
		return fmt.Errorf("update the zone %s at %s: %w", m.Question[0].Name, s.server, err)
	}
	return nil
}

// servers are the addresses of the zone's servers, the one that takes updates first. Those that cannot be found
// are left out.
func (s *dnsSolver) servers(ctx context.Context, zone string) []string {
	list := []string{s.server}
	reply, err := s.ask(ctx, s.server, zone, dns.TypeNS)
	if err != nil {
		return list
	}
	for _, rr := range reply.Answer {
		if ns, ok := rr.(*dns.NS); ok {
			list = append(list, s.addresses(ctx, ns.Ns, reply.Extra)...)
		}
	}
	return list
}

// addresses are a server's: what came along, else what the system finds.
func (s *dnsSolver) addresses(ctx context.Context, name string, extra []dns.RR) (list []string) {
	for _, rr := range extra {
		switch rr := rr.(type) {
		case *dns.A:
			if dns.CanonicalName(rr.Hdr.Name) == dns.CanonicalName(name) {
				list = append(list, net.JoinHostPort(rr.A.String(), s.port))
			}
		case *dns.AAAA:
			if dns.CanonicalName(rr.Hdr.Name) == dns.CanonicalName(name) {
				list = append(list, net.JoinHostPort(rr.AAAA.String(), s.port))
			}
		}
	}
	if len(list) > 0 {
		return list
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	found, _ := net.DefaultResolver.LookupHost(ctx, name)
	for _, ip := range found {
		list = append(list, net.JoinHostPort(ip, s.port))
	}
	return list
}

// without returns those of servers that answer and do not have the record.
func (s *dnsSolver) without(ctx context.Context, servers []string, record *dns.TXT) (list []string) {
	for _, server := range servers {
		reply, err := s.ask(ctx, server, record.Hdr.Name, dns.TypeTXT)
		if err == nil && !hasText(reply.Answer, record.Txt[0]) {
			list = append(list, server)
		}
	}
	return list
}

func hasText(answer []dns.RR, text string) bool {
	for _, rr := range answer {
		if txt, ok := rr.(*dns.TXT); ok && strings.Join(txt.Txt, "") == text {
			return true
		}
	}
	return false
}

// ask asks one server, which is expected to know by itself. NXDOMAIN is an answer.
func (s *dnsSolver) ask(ctx context.Context, server, name string, kind uint16) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	m.RecursionDesired = false
	client := dns.Client{Timeout: askWithin}
	reply, _, err := client.ExchangeContext(ctx, m, server)
	if err == nil && reply.Truncated {
		client.Net = "tcp"
		reply, _, err = client.ExchangeContext(ctx, m, server)
	}
	if err == nil && reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		err = errors.New(cmp.Or(dns.RcodeToString[reply.Rcode], "no answer that is known"))
	}
	return reply, err
}
