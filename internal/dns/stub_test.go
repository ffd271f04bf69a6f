package dns_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"postroad/internal/dns"
	"postroad/internal/dns/dnstest"
)

// dns.Stub is a Resolver.
var _ dns.Resolver = (*dns.Stub)(nil)

// quick asks servers once, and waits a second for those that say nothing: a good one answers in that time on any machine.
func quick(t *testing.T, servers ...string) *dns.Stub {
	t.Helper()
	r, err := dns.New(dns.Options{Servers: servers, Timeout: time.Second, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLookups(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Add("x.test. 300 IN MX 10 A.x.test.", "x.test. 300 IN MX 20 b.x.test.", "null.test. 300 IN MX 0 .",
		"a.x.test. 300 IN A 192.0.2.1", "a.x.test. 300 IN AAAA 2001:db8::1", "b.x.test. 300 IN A 192.0.2.2",
		`x.test. 300 IN TXT "v=x \"q\" \\ " "\200\001 joined"`,
		"_25._tcp.a.x.test. 300 IN TLSA 3 1 1 0102ff", "1.2.0.192.in-addr.arpa. 300 IN PTR a.x.test.")
	r := s.Resolver()
	mx, err := r.LookupMX(t.Context(), "x.test")
	if want := []dns.MX{{"A.x.test", 10}, {"b.x.test", 20}}; err != nil || !slices.Equal(mx.Records, want) || mx.Name != "x.test" {
		t.Errorf("MX: %+v, %v", mx, err)
	}
	if mx, err := r.LookupMX(t.Context(), "null.test."); err != nil || mx.Records[0].Host != "." {
		t.Errorf("null MX: %+v, %v", mx, err)
	}
	ips, err := r.LookupHost(t.Context(), "a.X.test")
	if want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}; err != nil || !slices.Equal(ips.Records, want) {
		t.Errorf("addresses: %+v, %v", ips, err)
	}
	if ips, err := r.LookupHost(t.Context(), "b.x.test"); err != nil || len(ips.Records) != 1 {
		t.Errorf("one address: %+v, %v", ips, err)
	}
	if txt, err := r.LookupTXT(t.Context(), "x.test"); err != nil || txt.Records[0] != "v=x \"q\" \\ \xc8\x01 joined" {
		t.Errorf("text: %q, %v", txt.Records, err)
	}
	tlsa, err := r.LookupTLSA(t.Context(), "_25._tcp.a.x.test")
	if err != nil || len(tlsa.Records) != 1 || tlsa.Records[0].Usage != 3 || string(tlsa.Records[0].Data) != "\x01\x02\xff" {
		t.Errorf("TLSA: %+v, %v", tlsa, err)
	}
	if names, err := r.LookupAddr(t.Context(), netip.MustParseAddr("192.0.2.1")); err != nil || names.Records[0] != "a.x.test" {
		t.Errorf("names: %+v, %v", names, err)
	}
}

// What there is not, and what cannot be told, are two things.
func TestNothingAndTrouble(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Add("x.test. 300 IN A 192.0.2.1", "alias.test. 300 IN CNAME gone.test.", "empty.below.test. 300 IN A 192.0.2.1")
	for name, rcode := range map[string]int{"servfail.test": mdns.RcodeServerFailure, "refused.test": mdns.RcodeRefused,
		"formerr.test": mdns.RcodeFormatError, "notimp.test": mdns.RcodeNotImplemented, "badvers.test": mdns.RcodeBadVers} {
		s.Rcode(name, rcode)
	}
	s.Answer("lame.test", func(_, m *mdns.Msg) []byte {
		m.RecursionAvailable, m.Rcode, m.Ns = false, mdns.RcodeSuccess, nil
		return pack(m)
	})
	r := quick(t, s.Addr)
	for _, tt := range []struct {
		name      string
		temporary bool
	}{
		{"gone.test", false}, {"x.test", false}, {"alias.test", false}, {"below.test", false},
		{"servfail.test", true}, {"refused.test", true}, {"formerr.test", true}, {"notimp.test", true}, {"badvers.test", true},
		{"lame.test", true}, {strings.Repeat("x", 64) + ".test", false}, {strings.Repeat("x.", 130) + "test", false}, {`a\b.test`, false}, {"a..test", false},
	} {
		a, err := r.LookupMX(t.Context(), tt.name)
		if err == nil || dns.Temporary(err) != tt.temporary || errors.Is(err, dns.ErrNotFound) == tt.temporary {
			t.Errorf("%s: %+v, %v", tt.name, a, err)
		}
	}
}

func pack(m *mdns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func TestSecure(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Add("signed.test. 300 IN A 192.0.2.1", "plain.test. 300 IN A 192.0.2.2", "in.signed.test. 300 IN CNAME signed.test.",
		"out.signed.test. 300 IN CNAME plain.test.", "into.plain.test. 300 IN CNAME signed.test.")
	s.Secure("signed.test")
	s.Bogus("bogus.test")
	secure := map[string]bool{"signed.test": true, "in.signed.test": true, "plain.test": false, "out.signed.test": false, "into.plain.test": false}
	for _, tt := range []struct {
		trust   dns.Trust
		believe bool
	}{{dns.TrustLocal, true}, {dns.TrustAll, true}, {dns.TrustNone, false}} {
		r, err := dns.New(dns.Options{Servers: []string{s.Addr}, Trust: tt.trust})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range secure {
			if a, err := r.LookupHost(t.Context(), name); err != nil || a.Secure != (want && tt.believe) {
				t.Errorf("trust %d: %s is secure: %v, %v", tt.trust, name, a.Secure, err)
			}
		}
		if a, err := r.LookupTLSA(t.Context(), "_25._tcp.signed.test"); !errors.Is(err, dns.ErrNotFound) || a.Secure != tt.believe {
			t.Errorf("trust %d: that there is nothing is secure: %v, %v", tt.trust, a.Secure, err)
		}
		if a, err := r.LookupHost(t.Context(), "bogus.test"); !dns.Temporary(err) || a.Secure {
			t.Errorf("trust %d: bogus: %+v, %v", tt.trust, a, err)
		}
	}
	a, err := s.Resolver().LookupHost(t.Context(), "out.signed.test")
	if err != nil || a.Name != "plain.test" {
		t.Errorf("the alias leads to %q, %v", a.Name, err)
	}
}

// When only one family's question has an answer, that counts.
func TestOneFamilyInTrouble(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Add("x.test. 300 IN A 192.0.2.1", "six.test. 300 IN AAAA 2001:db8::1")
	s.Secure("x.test", "six.test", "none.test")
	fail := func(typ uint16) func(query, m *mdns.Msg) []byte {
		return func(query, m *mdns.Msg) []byte {
			if query.Question[0].Qtype == typ {
				m.Rcode, m.Answer = mdns.RcodeServerFailure, nil
			}
			return pack(m)
		}
	}
	s.Answer("x.test", fail(mdns.TypeAAAA))
	s.Answer("six.test", fail(mdns.TypeA))
	s.Answer("none.test", fail(mdns.TypeA))
	r := s.Resolver()
	for _, name := range []string{"x.test", "six.test"} {
		if a, err := r.LookupHost(t.Context(), name); err != nil || len(a.Records) != 1 || !a.Secure {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if _, err := r.LookupHost(t.Context(), "none.test"); !dns.Temporary(err) {
		t.Errorf("no address of one family, the other not known: %v", err)
	}
}

// TestC12DNS: what others can make a DNS answer be, is bounded, or refused as trouble.
func TestC12DNS(t *testing.T) {
	s := dnstest.NewServer(t)
	for _, n := range []int{16, 17} {
		for i := range n {
			s.Add(fmt.Sprintf("a%d.chain%d.test. 300 IN CNAME a%d.chain%d.test.", i, n, i+1, n))
		}
		s.Add(fmt.Sprintf("a%d.chain%d.test. 300 IN A 192.0.2.1", n, n))
	}
	s.Add("round.test. 300 IN CNAME about.test.", "about.test. 300 IN CNAME round.test.", "self.test. 300 IN CNAME self.test.")
	for i := range 1000 {
		s.Add(fmt.Sprintf("many.test. 300 IN MX %d h%d.many.test.", i, i))
	}
	for range 230 {
		s.Add(fmt.Sprintf("long.test. 300 IN TXT %q", strings.Repeat("x", 255)))
	}
	s.Add("mixed.test. 300 IN MX 10 mx.mixed.test.", "short.test. 300 IN MX 10 mx.short.test.", "one.test. 300 IN TLSA 3 1 1 00", "cut.test. 300 IN MX 10 a.test.", "cut.test. 300 IN MX 20 b.test.")
	s.Answer("mixed.test", func(_, m *mdns.Msg) []byte {
		m.Question[0].Name, m.Answer[0].Header().Name = "mIxEd.TEST.", "MiXeD.tEsT."
		return pack(m)
	})
	for _, name := range []string{"short.test", "one.test"} {
		s.Answer(name, func(_, m *mdns.Msg) []byte { return shortened(m) })
	}
	s.Answer("cut.test", func(_, m *mdns.Msg) []byte { // after the first record
		m.Extra = nil
		whole, second := pack(m), m.Answer[1]
		m.Answer = m.Answer[:1]
		_ = second
		b := pack(m)
		binary.BigEndian.PutUint16(b[6:], 2)
		return b[:min(len(b), len(whole))]
	})
	r, ctx := quick(t, s.Addr), t.Context()
	patient, err := dns.New(dns.Options{Servers: []string{s.Addr}, Timeout: 30 * time.Second, Attempts: 1}) // large answers take a busy machine's time
	if err != nil {
		t.Fatal(err)
	}

	if _, err := patient.LookupHost(ctx, "a0.chain16.test"); err != nil {
		t.Errorf("a chain of 16 aliases: %v", err)
	}
	for _, name := range []string{"a0.chain17.test", "round.test", "self.test"} {
		if _, err := r.LookupHost(ctx, name); !dns.Temporary(err) || !strings.Contains(err.Error(), "aliases") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a, err := patient.LookupMX(ctx, "many.test"); err != nil || len(a.Records) != 1000 {
		t.Errorf("an MX list of 1,000: %d records, %v", len(a.Records), err)
	}
	if hosts, err := dns.Hosts(ctx, patient, "many.test", "us.test"); err != nil || len(hosts.Records) != 20 || hosts.Records[0] != "h0.many.test" {
		t.Errorf("an MX list of 1,000: %d hosts, %v", len(hosts.Records), err)
	}
	if a, err := patient.LookupTXT(ctx, "long.test"); err != nil || len(a.Records) != 230 {
		t.Errorf("TXT of 64 kB: %d records, %v", len(a.Records), err)
	}
	if a, err := patient.LookupMX(ctx, "mixed.test"); err != nil || a.Records[0].Host != "mx.mixed.test" {
		t.Errorf("an answer in another case: %+v, %v", a, err)
	}
	for _, name := range []string{"short.test", "cut.test"} {
		if a, err := r.LookupMX(ctx, name); !dns.Temporary(err) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if a, err := r.LookupTLSA(ctx, "one.test"); !dns.Temporary(err) {
		t.Errorf("a short TLSA record: %+v, %v", a, err)
	}
}

// shortened cuts the last record of an answer to two octets.
func shortened(m *mdns.Msg) []byte {
	m.Extra, m.Compress = nil, false
	b := pack(m)
	n := mdns.Len(m.Answer[0]) - len(m.Answer[0].Header().Name) - 1 - 10
	b = b[:len(b)-n+2]
	binary.BigEndian.PutUint16(b[len(b)-4:], 2)
	return b
}

// Who does not know the question cannot answer it, and who tries often enough is left behind by going to TCP.
func TestC12OffPath(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Add("x.test. 300 IN A 192.0.2.1", "flood.test. 300 IN A 192.0.2.1")
	forged := func(m *mdns.Msg, change func(*mdns.Msg)) []byte {
		f := m.Copy()
		rr, _ := mdns.NewRR(m.Question[0].Name + " 300 IN A 203.0.113.66")
		f.Answer = []mdns.RR{rr}
		change(f)
		return pack(f)
	}
	forgeries := []func(*mdns.Msg){
		func(m *mdns.Msg) { m.Id++ },
		func(m *mdns.Msg) { m.Question[0].Name = "y.test." },
		func(m *mdns.Msg) { m.Question[0].Qtype = mdns.TypeMX },
		func(m *mdns.Msg) { m.Question[0].Qclass = mdns.ClassCHAOS },
		func(m *mdns.Msg) { m.Question = nil },
		func(m *mdns.Msg) { m.Response = false },
	}
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tcp, err := net.Listen("tcp", l.LocalAddr().String())
	if err != nil {
		t.Skip("the port is taken: ", err)
	}
	defer tcp.Close()
	go serveTCP(tcp, s)
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			query := new(mdns.Msg)
			if query.Unpack(b[:n]) != nil {
				continue
			}
			m := s.Reply(query)
			rounds := 1
			if query.Question[0].Name == "flood.test." {
				rounds = 100
			}
			for range rounds {
				l.WriteTo([]byte("x"), from)
				for _, change := range forgeries {
					l.WriteTo(forged(m, change), from)
				}
			}
			if rounds == 1 {
				l.WriteTo(pack(m), from)
			}
		}
	}()
	r, err := dns.New(dns.Options{Servers: []string{l.LocalAddr().String()}, Timeout: 5 * time.Second, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x.test", "flood.test"} {
		a, err := r.LookupHost(t.Context(), name)
		if err != nil || !slices.Equal(a.Records, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func serveTCP(l net.Listener, s *dnstest.Server) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		c := &mdns.Conn{Conn: conn}
		if query, err := c.ReadMsg(); err == nil {
			c.WriteMsg(s.Reply(query))
		}
		conn.Close()
	}
}

// Servers are asked in their order, and the next when one cannot tell.
func TestServers(t *testing.T) {
	t.Parallel() // it waits for who is silent
	good, bad, silent := dnstest.NewServer(t), dnstest.NewServer(t), dnstest.NewServer(t)
	for _, s := range []*dnstest.Server{good, bad, silent} {
		s.Add("x.test. 300 IN MX 10 mx.x.test.")
	}
	bad.Rcode("x.test", mdns.RcodeRefused)
	silent.Answer("x.test", func(_, _ *mdns.Msg) []byte { return nil })
	for _, first := range []string{bad.Addr, silent.Addr, unused(t)} {
		if a, err := quick(t, first, good.Addr).LookupMX(t.Context(), "x.test"); err != nil || len(a.Records) != 1 {
			t.Errorf("%+v, %v", a, err)
		}
	}
	if good.Asked("x.test", mdns.TypeMX) != 3 {
		t.Errorf("the good one was asked %d times", good.Asked("x.test", mdns.TypeMX))
	}
	r, _ := dns.New(dns.Options{Servers: []string{bad.Addr, silent.Addr}, Timeout: time.Second, Attempts: 3})
	before := bad.Asked("x.test", mdns.TypeMX)
	if _, err := r.LookupMX(t.Context(), "x.test"); !dns.Temporary(err) {
		t.Error(err)
	}
	if n := bad.Asked("x.test", mdns.TypeMX) - before; n != 1 {
		t.Errorf("who refused was asked %d times", n)
	}
	if n := silent.Asked("x.test", mdns.TypeMX); n != 4 {
		t.Errorf("who is silent was asked %d times", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.LookupMX(dns.NotBefore(ctx, time.Now().Add(time.Hour)), "x.test"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the caller's time: %v", err)
	}
}

func unused(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

// A server that does not know EDNS is asked without it.
func TestWithoutEDNS(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Add("x.test. 300 IN MX 10 mx.x.test.")
	s.Answer("x.test", func(query, m *mdns.Msg) []byte {
		if query.IsEdns0() != nil {
			return pack(new(mdns.Msg).SetRcodeFormatError(query))
		}
		return pack(m)
	})
	if a, err := quick(t, s.Addr).LookupMX(t.Context(), "x.test"); err != nil || len(a.Records) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

// A server may leave it to us to go along an alias.
func TestAliasIsAskedFor(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Add("x.test. 300 IN CNAME y.test.", "y.test. 300 IN MX 10 mx.x.test.")
	s.Answer("x.test", func(_, m *mdns.Msg) []byte {
		m.Answer = m.Answer[:1]
		return pack(m)
	})
	if a, err := quick(t, s.Addr).LookupMX(t.Context(), "x.test"); err != nil || len(a.Records) != 1 || a.Name != "y.test" {
		t.Errorf("%+v, %v", a, err)
	}
}

// clock is a clock that a test sets forward.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestCache(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Add("x.test. 300 IN MX 10 mx.x.test.", "day.test. 86400 IN MX 10 mx.x.test.", "never.test. 0 IN MX 10 mx.x.test.", "neg.test. 3000000000 IN MX 10 mx.x.test.",
		"alias.test. 20 IN CNAME x.test.")
	s.Bogus("bogus.test")
	s.Answer("nosoa.test", func(_, m *mdns.Msg) []byte {
		m.Ns = nil
		return pack(m)
	})
	now := &clock{now: time.Now()}
	r, err := dns.New(dns.Options{Servers: []string{s.Addr}, Now: now.Now})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		lasts time.Duration
	}{
		{"x.test", 300 * time.Second}, {"day.test", time.Hour}, {"never.test", 0}, {"neg.test", 0}, {"alias.test", 20 * time.Second},
		{"gone.test", time.Minute}, {"nosoa.test", 0}, {"bogus.test", time.Second},
	} {
		ask := func() int { r.LookupMX(t.Context(), tt.name); return s.Asked(tt.name, mdns.TypeMX) }
		first := ask()
		if tt.lasts > 0 {
			now.add(tt.lasts - time.Nanosecond)
			if again := ask(); again != first {
				t.Errorf("%s is forgotten before %v", tt.name, tt.lasts)
			}
			now.add(time.Nanosecond)
		}
		if again := ask(); again == first {
			t.Errorf("%s is remembered longer than %v", tt.name, tt.lasts)
		}
	}
	r.LookupMX(t.Context(), "x.test")
	before := s.Asked("x.test", mdns.TypeMX)
	now.add(time.Second)
	anew := dns.NotBefore(t.Context(), now.Now())
	for _, ctx := range []context.Context{t.Context(), anew, anew, t.Context()} {
		r.LookupMX(ctx, "X.test")
	}
	if n := s.Asked("x.test", mdns.TypeMX) - before; n != 1 {
		t.Errorf("to ask anew and remember that took %d questions", n)
	}
}

// What many want to know at a time is asked once, also when the first who asked gives up.
func TestAskedOnce(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Add("x.test. 300 IN MX 10 mx.x.test.")
	s.Delay("x.test", 50*time.Millisecond)
	r := s.Resolver()
	impatient, giveUp := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for i := range 100 {
		ctx := t.Context()
		if i == 0 {
			ctx = impatient
		}
		asking.Go(func() {
			if _, err := r.LookupMX(ctx, "x.test"); err != nil && ctx == t.Context() {
				t.Error(err)
			}
		})
	}
	giveUp()
	asking.Wait()
	if n := s.Asked("x.test", mdns.TypeMX); n > 2 {
		t.Errorf("asked %d times", n)
	}
}

// Memory is bounded, whatever is asked.
func TestCacheBound(t *testing.T) {
	c := dns.NewCache(time.Now)
	big := &mdns.TXT{Hdr: mdns.RR_Header{Name: "x.test.", Rrtype: mdns.TypeTXT}, Txt: []string{strings.Repeat("x", 10_000)}}
	for i := range 10_000 {
		c.Put(fmt.Sprintf("n%d.test.", i), big)
	}
	if size, n := c.Size(); size > 8<<20 || n < 500 {
		t.Errorf("%d octets in %d entries", size, n)
	}
}

func TestResolvConf(t *testing.T) {
	s, other := dnstest.NewServer(t), dnstest.NewServer(t)
	s.Add("x.test. 300 IN MX 10 mx.x.test.")
	other.Add("x.test. 300 IN MX 10 other.x.test.")
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("# the first\nnameserver nonsense\nnameserver " + s.Addr + "\noptions timeout:1 attempts:1 edns0\n")
	r, err := dns.New(dns.Options{ResolvConf: path})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := r.LookupMX(t.Context(), "x.test"); err != nil || a.Records[0].Host != "mx.x.test" {
		t.Errorf("%+v, %v", a, err)
	}
	write("nameserver " + other.Addr + "\n# it has changed\n")
	if a, err := r.LookupMX(t.Context(), "x.test"); err != nil || a.Records[0].Host != "other.x.test" {
		t.Errorf("after a change: %+v, %v", a, err)
	}
	for _, server := range []string{"dns.example", "", "192.0.2.1:x", "192.0.2"} {
		if _, err := dns.New(dns.Options{Servers: []string{server}}); err == nil {
			t.Errorf("%q is taken for an address", server)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "127.0.0.1:53 trusted, [::1]:53 trusted; 5s 2"},
		{"as usual", "search a.test\nnameserver 192.0.2.1\nnameserver ::1\noptions ndots:2 timeout:3 attempts:4\n", "192.0.2.1:53, [::1]:53 trusted; 3s 4"},
		{"trust-ad", "nameserver 192.0.2.1\noptions edns0 trust-ad\n", "192.0.2.1:53 trusted; 5s 2"},
		{"too much", "nameserver 192.0.2.1\noptions timeout:1000 attempts:1000", "192.0.2.1:53; 30s 5"},
		{"nonsense", "nameserver\nnameserver x\noptions timeout:-1 attempts:x timeout\n\x00\xff", "127.0.0.1:53 trusted, [::1]:53 trusted; 5s 2"},
	} {
		if got := dns.ParseResolvConf(tt.text); got != tt.want {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
}

func TestHostsFile(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Add("x.test. 300 IN A 192.0.2.1")
	s.Secure("x.test")
	path := filepath.Join(t.TempDir(), "hosts")
	r, err := dns.New(dns.Options{Servers: []string{s.Addr}, Hosts: path})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := r.LookupHost(t.Context(), "x.test"); err != nil || a.Records[0].String() != "192.0.2.1" || !a.Secure {
		t.Errorf("without a file: %+v, %v", a, err)
	}
	if err := os.WriteFile(path, []byte("10.0.0.1 X.test relay # here\n10.0.0.2\trelay\nfe80::1%lo x6\nnonsense y.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"x.test": "[10.0.0.1]", "Relay": "[10.0.0.1 10.0.0.2]", "relay.": "[10.0.0.1 10.0.0.2]"} {
		if a, err := r.LookupHost(t.Context(), name); err != nil || fmt.Sprint(a.Records) != want || a.Secure {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}
