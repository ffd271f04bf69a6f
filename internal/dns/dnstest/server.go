package dnstest

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"postroad/internal/dns"
)

// Server is a DNS server on loopback, by UDP and TCP, that says what a test wants. It does as one that is asked to
// recurse: it goes along aliases, and says of what it does not have that it does not exist. Any number of goroutines.
type Server struct {
	Addr string // "127.0.0.1:port"

	mu     sync.Mutex // guards all below; names are as mdns.CanonicalName has them
	zone   map[string][]mdns.RR
	secure map[string]bool
	rcode  map[string]int
	delay  map[string]time.Duration
	answer map[string]func(query, answer *mdns.Msg) []byte
	sign   func(*mdns.Msg) *mdns.Msg
	asked  map[string]int
	closed chan struct{}
}

// NewServer starts a server, which ends with the test.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s := &Server{closed: make(chan struct{})}
	l, c := listen(t)
	s.Addr = l.Addr().String()
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	for _, server := range []*mdns.Server{{Listener: l, Handler: s}, {PacketConn: c, Handler: s}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		serving.Go(func() {
			if err := server.ActivateAndServe(); err != nil {
				t.Error(err)
			}
		})
		<-started
		t.Cleanup(func() { server.Shutdown() })
	}
	t.Cleanup(func() { close(s.closed) }) // runs first: who waits, ends
	return s
}

// listen finds a port that is free for both.
func listen(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return l, c
		}
		l.Close()
	}
	t.Fatal("there is no port that is free for UDP and TCP")
	return nil, nil
}

// Resolver returns a resolver that asks the server, and trusts it.
func (s *Server) Resolver() *dns.Stub {
	r, err := dns.New(dns.Options{Servers: []string{s.Addr}})
	if err != nil {
		panic(err) // it is our own address
	}
	return r
}

// Add adds records as a zone file has them: "example.test. 300 IN MX 10 mx.example.test.". It panics when one is malformed.
func (s *Server) Add(records ...string) {
	for _, text := range records {
		rr, err := mdns.NewRR(text)
		if err != nil || rr == nil {
			panic(fmt.Sprintf("record %q: %v", text, err))
		}
		s.AddRR(rr)
	}
}

// AddRR adds records.
func (s *Server) AddRR(records ...mdns.RR) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rr := range records {
		name := mdns.CanonicalName(rr.Header().Name)
		set(&s.zone, name, append(s.zone[name], rr))
	}
}

// Remove removes all records of names.
func (s *Server) Remove(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		delete(s.zone, mdns.CanonicalName(name))
	}
}

// Secure makes all that is said of names, and of those below them, validated (the AD bit): also that there is nothing.
func (s *Server) Secure(names ...string) {
	for _, name := range names {
		put(s, &s.secure, name, true)
	}
}

// Bogus makes a validating server's answer of names that fail DNSSEC: SERVFAIL.
func (s *Server) Bogus(names ...string) {
	for _, name := range names {
		s.Rcode(name, mdns.RcodeServerFailure)
	}
}

// Rcode is what all questions about a name end with; 0 lets them be answered again.
func (s *Server) Rcode(name string, rcode int) { put(s, &s.rcode, name, rcode) }

// Delay is how long answers about a name take.
func (s *Server) Delay(name string, d time.Duration) { put(s, &s.delay, name, d) }

// Answer lets a test make the octets of answers about a name; nil octets are no answer. It is given the good answer.
func (s *Server) Answer(name string, answer func(query, answer *mdns.Msg) []byte) {
	put(s, &s.answer, name, answer)
}

// Sign lets a test change every good answer, as by what DNSSEC has in it.
func (s *Server) Sign(sign func(*mdns.Msg) *mdns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sign = sign
}

// Asked returns how many questions of a type there were about a name.
func (s *Server) Asked(name string, typ uint16) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[asked(name, typ)]
}

func asked(name string, typ uint16) string {
	return mdns.CanonicalName(name) + " " + mdns.TypeToString[typ]
}

// ServeDNS is mdns.Handler's.
func (s *Server) ServeDNS(w mdns.ResponseWriter, query *mdns.Msg) {
	name := mdns.CanonicalName(query.Question[0].Name)
	s.mu.Lock()
	key := asked(name, query.Question[0].Qtype)
	set(&s.asked, key, s.asked[key]+1)
	delay, octets := s.delay[name], s.answer[name]
	m := s.reply(query)
	s.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-s.closed:
			return
		}
	}
	if octets != nil {
		if b := octets(query, m); b != nil {
			w.Write(b)
		}
		return
	}
	if w.RemoteAddr().Network() == "udp" {
		m.Truncate(sizeBy(query))
	}
	w.WriteMsg(m)
}

// Reply is the good answer to a query.
func (s *Server) Reply(query *mdns.Msg) *mdns.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reply(query)
}

func sizeBy(query *mdns.Msg) int {
	if opt := query.IsEdns0(); opt != nil {
		return int(opt.UDPSize())
	}
	return mdns.MinMsgSize
}

// maxAliases is more than any resolver may follow.
const maxAliases = 50

// reply makes the answer to a query. mu must be held.
func (s *Server) reply(query *mdns.Msg) *mdns.Msg {
	m := new(mdns.Msg)
	m.SetReply(query)
	m.RecursionAvailable = true
	q := query.Question[0]
	name := mdns.CanonicalName(q.Name)
	if opt := query.IsEdns0(); opt != nil {
		m.SetEdns0(opt.UDPSize(), opt.Do())
	}
	if m.Rcode = s.rcode[name]; m.Rcode != mdns.RcodeSuccess {
		return m
	}
	m.AuthenticatedData = s.isSecure(name) && (query.AuthenticatedData || m.IsEdns0() != nil && m.IsEdns0().Do())
	for range maxAliases {
		alias := ""
		for _, rr := range s.zone[name] {
			if c, ok := rr.(*mdns.CNAME); ok && q.Qtype != mdns.TypeCNAME {
				m.Answer, alias = append(m.Answer, rr), mdns.CanonicalName(c.Target)
			} else if rr.Header().Rrtype == q.Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		if alias == "" {
			break
		}
		name = alias
		m.AuthenticatedData = m.AuthenticatedData && s.isSecure(name)
	}
	if len(m.Answer) == 0 || m.Answer[len(m.Answer)-1].Header().Rrtype != q.Qtype {
		s.nothing(m, name)
	}
	if s.sign != nil {
		return s.sign(m)
	}
	return m
}

// nothing makes m say that there is no such name, or no such record at it. mu must be held.
func (s *Server) nothing(m *mdns.Msg, name string) {
	if !s.exists(name) {
		m.Rcode = mdns.RcodeNameError
	}
	soa, _ := mdns.NewRR(". 60 IN SOA ns.test. root.test. 1 3600 600 86400 60")
	m.Ns = append(m.Ns, soa)
}

// exists reports whether there is a name, or one below it (RFC 8020). mu must be held.
func (s *Server) exists(name string) bool {
	for other := range s.zone {
		if other == name || strings.HasSuffix(other, "."+name) {
			return true
		}
	}
	return false
}

func (s *Server) isSecure(name string) bool {
	for off, end := 0, false; !end; off, end = mdns.NextLabel(name, off) {
		if s.secure[name[off:]] {
			return true
		}
	}
	return false
}

func put[V any](s *Server, m *map[string]V, name string, v V) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set(m, mdns.CanonicalName(name), v)
}
