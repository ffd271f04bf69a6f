package dns_test

import (
	"crypto"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"postroad/internal/dns"
	"postroad/internal/dns/dnstest"
	"postroad/internal/listen/listentest"
)

// signedZone signs what a server says of one domain.
type signedZone struct {
	name   string
	key    *mdns.DNSKEY
	signer crypto.Signer
	forged bool // the signatures are not of what they are with
}

func newSignedZone(t *testing.T, name string) *signedZone {
	t.Helper()
	key := &mdns.DNSKEY{
		Hdr:   mdns.RR_Header{Name: name, Rrtype: mdns.TypeDNSKEY, Class: mdns.ClassINET, Ttl: 300},
		Flags: 257, Protocol: 3, Algorithm: mdns.ECDSAP256SHA256,
	}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	return &signedZone{name: name, key: key, signer: private.(crypto.Signer)}
}

// reply adds to an answer what DNSSEC has in it; that there is nothing, is said by an NSEC record of the name itself.
func (z *signedZone) reply(m *mdns.Msg) *mdns.Msg {
	q := m.Question[0]
	m.Authoritative, m.RecursionAvailable, m.AuthenticatedData = true, false, false
	if q.Qtype == mdns.TypeDNSKEY && q.Name == z.name {
		m.Rcode, m.Answer, m.Ns = mdns.RcodeSuccess, []mdns.RR{z.key}, nil
	}
	if len(m.Answer) == 0 {
		soa, _ := mdns.NewRR(z.name + " 60 IN SOA ns." + z.name + " root." + z.name + " 1 3600 600 86400 60")
		// All other types, or a server that draws conclusions would take none of them to be there.
		types := slices.DeleteFunc([]uint16{mdns.TypeA, mdns.TypeMX, mdns.TypeAAAA, mdns.TypeRRSIG, mdns.TypeNSEC, mdns.TypeTLSA},
			func(typ uint16) bool { return typ == q.Qtype })
		nsec := &mdns.NSEC{
			Hdr:        mdns.RR_Header{Name: q.Name, Rrtype: mdns.TypeNSEC, Class: mdns.ClassINET, Ttl: 60},
			NextDomain: `\000.` + q.Name, TypeBitMap: types,
		}
		m.Rcode, m.Ns = mdns.RcodeSuccess, z.sign([]mdns.RR{soa}, []mdns.RR{nsec})
		return m
	}
	sets := map[string][]mdns.RR{}
	for _, rr := range m.Answer {
		key := fmt.Sprint(rr.Header().Name, rr.Header().Rrtype)
		sets[key] = append(sets[key], rr)
	}
	m.Answer = nil
	for _, set := range sets {
		m.Answer = append(m.Answer, z.sign(set)...)
	}
	return m
}

// sign returns sets of records, each with its signature.
func (z *signedZone) sign(sets ...[]mdns.RR) (all []mdns.RR) {
	for _, set := range sets {
		sig := &mdns.RRSIG{
			Hdr:       mdns.RR_Header{Ttl: set[0].Header().Ttl},
			Algorithm: z.key.Algorithm, SignerName: z.name, KeyTag: z.key.KeyTag(),
			Inception:  uint32(time.Now().Add(-time.Hour).Unix()),
			Expiration: uint32(time.Now().Add(time.Hour).Unix()),
		}
		if err := sig.Sign(z.signer, set); err != nil {
			panic(err)
		}
		if z.forged && set[0].Header().Rrtype != mdns.TypeDNSKEY {
			sig.Expiration++
		}
		all = append(append(all, set...), sig)
	}
	return all
}

const unboundConf = `server:
  interface: 127.0.0.1
  port: %[1]s
  username: ""
  chroot: ""
  pidfile: ""
  directory: "%[2]s"
  use-syslog: no
  logfile: ""
  do-daemonize: no
  do-ip6: no
  do-not-query-localhost: no
  qname-minimisation: no
  module-config: "validator iterator"
  ede: yes
%[3]sremote-control:
  control-enable: no
%[4]s`

// unbound starts a validating server that knows the keys of zones, and returns its address.
func unbound(t *testing.T, authority string, zones []string, anchors ...*mdns.DNSKEY) string {
	t.Helper()
	path, err := exec.LookPath("unbound")
	if err != nil {
		if path = "/usr/sbin/unbound"; exec.Command(path, "-V").Run() != nil {
			t.Skip("unbound is not installed")
		}
	}
	dir := t.TempDir()
	addr := listentest.FreeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	var keys, stubs strings.Builder
	for _, key := range anchors {
		fmt.Fprintf(&keys, "  trust-anchor: %q\n", strings.ReplaceAll(key.String(), "\t", " "))
	}
	for _, zone := range zones {
		fmt.Fprintf(&stubs, "stub-zone:\n  name: %q\n  stub-addr: %s\n", zone, strings.Replace(authority, ":", "@", 1))
	}
	conf := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, unboundConf, port, dir, keys.String(), stubs.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var said listentest.Book
	cmd := exec.Command(path, "-c", conf)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	said.Await(t, 1, "start of service")
	return addr
}

// A server that validates says what is signed, what is not, and what is signed wrongly: so do we.
func TestValidatingServer(t *testing.T) {
	s := dnstest.NewServer(t)
	good, bogus := newSignedZone(t, "signed.example."), newSignedZone(t, "bogus.example.")
	bogus.forged = true
	s.Add("signed.example. 300 IN MX 10 mx.signed.example.", "mx.signed.example. 300 IN A 192.0.2.1",
		"_25._tcp.mx.signed.example. 300 IN TLSA 3 1 1 "+strings.Repeat("ab", 32),
		"out.signed.example. 300 IN CNAME mx.plain.example.",
		"plain.example. 300 IN MX 10 mx.plain.example.", "mx.plain.example. 300 IN A 192.0.2.2",
		"bogus.example. 300 IN MX 10 mx.bogus.example.")
	s.Sign(func(m *mdns.Msg) *mdns.Msg {
		for _, z := range []*signedZone{good, bogus} {
			if mdns.IsSubDomain(z.name, m.Question[0].Name) {
				return z.reply(m)
			}
		}
		m.Authoritative, m.RecursionAvailable = true, false
		return m
	})
	addr := unbound(t, s.Addr, []string{"signed.example", "bogus.example", "plain.example"}, good.key, bogus.key)
	r, err := dns.New(dns.Options{Servers: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if a, err := r.LookupMX(ctx, "signed.example"); err != nil || !a.Secure || a.Records[0].Host != "mx.signed.example" {
		t.Errorf("MX of the signed zone: %+v, %v", a, err)
	}
	if a, err := r.LookupHost(ctx, "mx.signed.example"); err != nil || !a.Secure || len(a.Records) != 1 {
		t.Errorf("addresses in the signed zone: %+v, %v", a, err)
	}
	if a, err := r.LookupTLSA(ctx, "_25._tcp.mx.signed.example"); err != nil || !a.Secure || len(a.Records) != 1 || len(a.Records[0].Data) != 32 {
		t.Errorf("TLSA in the signed zone: %+v, %v", a, err)
	}
	if a, err := r.LookupTLSA(ctx, "_465._tcp.mx.signed.example"); !errors.Is(err, dns.ErrNotFound) || !a.Secure {
		t.Errorf("TLSA that is not in the signed zone: %+v, %v", a, err)
	}
	if a, err := r.LookupHost(ctx, "out.signed.example"); err != nil || a.Secure || a.Name != "mx.plain.example" {
		t.Errorf("an alias out of the signed zone: %+v, %v", a, err)
	}
	if a, err := r.LookupMX(ctx, "plain.example"); err != nil || a.Secure {
		t.Errorf("MX of the unsigned zone: %+v, %v", a, err)
	}
	if a, err := r.LookupMX(ctx, "bogus.example"); !dns.Temporary(err) || a.Secure || len(a.Records) != 0 || !strings.Contains(err.Error(), "DNSSEC Bogus") {
		t.Errorf("MX of the bogus zone: %+v, %v", a, err)
	}
}

// FuzzAnswer reads what may come in place of an answer.
func FuzzAnswer(f *testing.F) {
	s := new(dnstest.Server)
	s.Add("x.test. 300 IN MX 10 mx.x.test.", `x.test. 300 IN TXT "a" "b"`, "x.test. 300 IN TLSA 3 1 1 00", "x.test. 300 IN A 192.0.2.1",
		"y.test. 300 IN CNAME x.test.", "round.test. 300 IN CNAME round.test.")
	types := []uint16{mdns.TypeMX, mdns.TypeTXT, mdns.TypeTLSA, mdns.TypeA, mdns.TypeAAAA, mdns.TypePTR}
	for i, typ := range types {
		for _, name := range []string{"x.test.", "y.test.", "round.test.", "gone.test."} {
			m := s.Reply(new(mdns.Msg).SetQuestion(name, typ))
			f.Add(pack(m), name, uint8(i))
			if len(m.Answer) > 0 && name == "x.test." {
				f.Add(shortened(m), name, uint8(i))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, name string, typ uint8) {
		if err := dns.Parse(b, name, types[int(typ)%len(types)]); err != nil {
			t.Fatal(err)
		}
	})
}
