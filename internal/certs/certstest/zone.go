package certstest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A Zone is a DNS server for example.test and what is below it, where every name is this machine. It takes updates
// that are signed with its key (RFC 2136).
type Zone struct {
	Addr    string // where it is asked, over UDP and TCP
	KeyFile string // the key, as tsig-keygen writes it

	mu      sync.Mutex
	text    map[string][]string // TXT records by name
	servers []net.IP            // that the zone says it has
}

// serve answers at addr until the test ends, and returns the address.
func serve(t testing.TB, addr string, h dns.Handler, secret string) string {
	t.Helper()
	packets, stream := both(t, addr)
	for _, s := range []*dns.Server{{PacketConn: packets}, {Listener: stream}} {
		s.Handler, s.TsigSecret = h, map[string]string{"acme.": secret}
		// Else updates are refused before they are looked at.
		s.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return stream.Addr().String()
}

// both binds one address for UDP and TCP. Where any port will do, it tries several: the one that is free for UDP may
// be taken for TCP.
func both(t testing.TB, addr string) (net.PacketConn, net.Listener) {
	t.Helper()
	for try := 0; ; try++ {
		packets, err := net.ListenPacket("udp", addr)
		must(t, err)
		stream, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, stream
		}
		packets.Close()
		if try == 20 {
			t.Fatal(err)
		}
	}
}

// Names makes the zone say that another of its servers has the address ip.
func (z *Zone) Names(ip string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.servers = append(z.servers, net.ParseIP(ip))
}

// A Second is another server of a zone, which has no records before it is told to Follow.
type Second struct {
	zone *Zone

	asked chan struct{} // one for each question; some are enough

	mu      sync.Mutex
	follows bool
}

// Second runs another server of the zone at an address of this machine, at the port of the first.
func (z *Zone) Second(t testing.TB, ip string) *Second {
	t.Helper()
	_, port, _ := net.SplitHostPort(z.Addr)
	s := &Second{zone: z, asked: make(chan struct{}, 100)}
	serve(t, net.JoinHostPort(ip, port), s, "")
	z.Names(ip)
	return s
}

// Await returns when it was asked n times more.
func (s *Second) Await(n int) {
	for range n {
		<-s.asked
	}
}

// Follow makes it answer what the first one answers.
func (s *Second) Follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follows = true
}

// ServeDNS answers a question.
func (s *Second) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.asked <- struct{}{}:
	default:
	}
	if s.follows {
		s.zone.ServeDNS(w, m)
		return
	}
	w.WriteMsg(new(dns.Msg).SetReply(m))
}

// NewZone runs one until the test ends.
func NewZone(t testing.TB) *Zone {
	t.Helper()
	z := &Zone{text: map[string][]string{}, KeyFile: filepath.Join(t.TempDir(), "dns.key")}
	const secret = "c2VjcmV0IGZvciB0ZXN0cyBvbmx5IC0tLS0tLS0tLS0="
	if err := os.WriteFile(z.KeyFile, []byte("key \"acme.\" {\n\talgorithm hmac-sha256;\n\tsecret \""+secret+"\";\n};\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	z.Addr = serve(t, "127.0.0.1:0", z, secret)
	return z
}

// Texts are the TXT records that there are, in no order.
func (z *Zone) Texts() (list []string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for name, values := range z.text {
		for _, v := range values {
			list = append(list, name+" "+v)
		}
	}
	return list
}

// ServeDNS answers a question or carries out an update.
func (z *Zone) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	reply := new(dns.Msg).SetReply(m)
	reply.Authoritative = true
	if m.Opcode == dns.OpcodeUpdate {
		reply.Rcode = z.update(w, m)
		if sig := m.IsTsig(); sig != nil && w.TsigStatus() == nil {
			reply.SetTsig(sig.Hdr.Name, sig.Algorithm, 300, time.Now().Unix())
		}
		w.WriteMsg(reply)
		return
	}
	name := strings.ToLower(m.Question[0].Name)
	header := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 1}
	}
	switch kind := m.Question[0].Qtype; {
	case kind == dns.TypeA:
		reply.Answer = append(reply.Answer, &dns.A{Hdr: header(kind), A: net.IPv4(127, 0, 0, 1)})
	case kind == dns.TypeTXT:
		for _, v := range z.text[name] {
			reply.Answer = append(reply.Answer, &dns.TXT{Hdr: header(kind), Txt: []string{v}})
		}
	case kind == dns.TypeNS && name == "example.test.":
		for _, ip := range z.servers {
			host := "ns" + ip.String() + ".example.test."
			reply.Answer = append(reply.Answer, &dns.NS{Hdr: header(kind), Ns: host})
			reply.Extra = append(reply.Extra, &dns.A{Hdr: dns.RR_Header{Name: host, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: ip})
		}
	case kind == dns.TypeSOA && name == "example.test.":
		reply.Answer = append(reply.Answer, &dns.SOA{Hdr: header(kind), Ns: "ns.example.test.", Mbox: "ann.example.test.", Serial: 1})
	}
	w.WriteMsg(reply)
}

// update carries out an update (RFC 2136, 3.4).
func (z *Zone) update(w dns.ResponseWriter, m *dns.Msg) int {
	if m.IsTsig() == nil || w.TsigStatus() != nil || m.Question[0].Name != "example.test." {
		return dns.RcodeRefused
	}
	for _, rr := range m.Ns {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			return dns.RcodeRefused
		}
		name := strings.ToLower(txt.Hdr.Name)
		var rest []string
		for _, v := range z.text[name] {
			if v != txt.Txt[0] {
				rest = append(rest, v)
			}
		}
		if txt.Hdr.Class == dns.ClassINET {
			rest = append(rest, txt.Txt[0])
		}
		z.text[name] = rest
	}
	return dns.RcodeSuccess
}
