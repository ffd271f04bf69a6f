package tlspolicy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/internal/dns"
	"postroad/internal/dns/dnstest"
	"postroad/internal/tlspolicy/tlstest"
	"postroad/internal/tlsrpt"
)

var now = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// TestDANEMatches has each usage, selector and matching type, of the right certificate and of another.
func TestDANEMatches(t *testing.T) {
	root := tlstest.NewAuthority(t)
	middle := root.Intermediate()
	good, other := middle.Issue("mx.example"), middle.Issue("mx.example")
	chain := tlstest.Chain(t, root.WithRoot(good))
	strangers := tlstest.NewAuthority(t)
	for _, usage := range []uint8{daneTA, daneEE} {
		for _, selector := range []uint8{wholeCert, publicKey} {
			for _, matching := range []uint8{full, sha2256, sha2512} {
				t.Run(fmt.Sprint(usage, selector, matching), func(t *testing.T) {
					right, wrong := []*x509.Certificate{good.Leaf}, []*x509.Certificate{other.Leaf, root.Cert, middle.Cert}
					if usage == daneTA {
						right, wrong = []*x509.Certificate{root.Cert, middle.Cert}, []*x509.Certificate{strangers.Cert, other.Leaf}
					}
					for _, cert := range right {
						r := tlstest.Record(usage, selector, matching, cert)
						if err := verifyDANE(usable([]dns.TLSA{r}), chain, []string{"mx.example"}, now); err != nil {
							t.Error(err)
						}
					}
					for _, cert := range wrong {
						r := tlstest.Record(usage, selector, matching, cert)
						if err := verifyDANE(usable([]dns.TLSA{r}), chain, []string{"mx.example"}, now); err == nil {
							t.Error("it matches another certificate")
						}
					}
				})
			}
		}
	}
}

// TestDANERules are those of RFC 7672, 3.1 and 3.2, and RFC 7671, 5 to 9.
func TestDANERules(t *testing.T) {
	root := tlstest.NewAuthority(t)
	middle := root.Intermediate()
	expired := now.Add(-time.Hour)
	leaf := func(l tlstest.Leaf) *tls.Certificate { return middle.IssueLeaf(l) }
	good := leaf(tlstest.Leaf{Names: []string{"mx.example"}})
	stranger := tlstest.NewAuthority(t)
	broken := tlstest.Record(daneEE, publicKey, sha2512, good.Leaf)
	broken.Data = slices.Repeat([]byte{1}, 64)
	for _, tt := range []struct {
		name    string
		cert    *tls.Certificate
		records []dns.TLSA
		want    any // nil, or the error's type
	}{
		{"EE ignores names", leaf(tlstest.Leaf{Names: []string{"other.example"}}), nil, nil},
		{"EE ignores expiry", leaf(tlstest.Leaf{Names: []string{"mx.example"}, NotAfter: expired}), nil, nil},
		{"EE ignores that there is no name at all", leaf(tlstest.Leaf{}), nil, nil},
		{"TA wants a name", leaf(tlstest.Leaf{Names: []string{"other.example"}}), ta(root, 0, 1), x509.HostnameError{}},
		{"TA takes the next hop's domain", leaf(tlstest.Leaf{Names: []string{"next-hop.example"}}), ta(root, 0, 1), nil},
		{"TA takes a wildcard", leaf(tlstest.Leaf{Names: []string{"*.example"}}), ta(root, 0, 1), nil},
		{"TA takes a common name when there is no other", leaf(tlstest.Leaf{CommonName: "mx.example"}), ta(root, 0, 1), nil},
		{"TA takes no common name beside others", leaf(tlstest.Leaf{CommonName: "mx.example", Names: []string{"other.example"}}), ta(root, 0, 1), x509.HostnameError{}},
		{"TA wants dates", leaf(tlstest.Leaf{Names: []string{"mx.example"}, NotAfter: expired}), ta(root, 0, 1), x509.CertificateInvalidError{}},
		{"TA that is not sent, as a digest", good, ta(root, 0, 1), errNoMatch},
		{"TA that is not sent, whole", good, ta(root, 0, 0), nil},
		{"TA that is not sent, as a bare key", good, ta(root, 1, 0), nil},
		{"another's TA, whole", good, ta(stranger, 0, 0), x509.UnknownAuthorityError{}},
		{"another's TA, as a bare key", good, ta(stranger, 1, 0), errNoMatch},
		{"TA in the middle", good, ta(middle, 0, 2), nil},
		{"rollover: the new record first", good, slices.Concat(ee(middle.Issue("x.example"), 1, 1), ee(good, 1, 1)), nil},
		{"rollover: the old record first", good, slices.Concat(ee(good, 1, 1), ee(middle.Issue("x.example"), 1, 1)), nil},
		{"rollover: from TA to EE", good, slices.Concat(ta(stranger, 0, 1), ee(good, 1, 1)), nil},
		{"rollover: neither", good, slices.Concat(ee(middle.Issue("x.example"), 1, 1), ee(middle.Issue("y.example"), 1, 1)), errNoMatch},
		{"of two digests the stronger counts", good, append(ee(good, 1, 1), broken), errNoMatch},
		{"a stronger digest of something else does not count", good, append(ee(good, 0, 1), broken), nil},
		{"the whole counts beside a digest", good, append(ee(good, 1, 0), broken), nil},
		{"a chain without an end", &tls.Certificate{Certificate: good.Certificate[:1]}, ta(middle, 0, 1), errNoMatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			chain := tlstest.Chain(t, tt.cert)
			if tt.records == nil {
				tt.records = ee(tt.cert, 1, 1)
			} else if strings.HasPrefix(tt.name, "TA wants") || strings.HasPrefix(tt.name, "TA takes") {
				chain = append(chain, root.Cert)
			}
			err := verifyDANE(usable(tt.records), chain, []string{"mx.example", "next-hop.example"}, now)
			if fmt.Sprintf("%T", err) != fmt.Sprintf("%T", tt.want) || tt.want == errNoMatch && !errors.Is(err, errNoMatch) {
				t.Errorf("%T %v, want %T", err, err, tt.want)
			}
		})
	}
	if err := verifyDANE(ee(good, 1, 1), nil, nil, now); err == nil {
		t.Error("no certificate at all is good")
	}
}

func ta(a *tlstest.Authority, selector, matching uint8) []dns.TLSA {
	return []dns.TLSA{tlstest.Record(daneTA, selector, matching, a.Cert)}
}

func ee(cert *tls.Certificate, selector, matching uint8) []dns.TLSA {
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		panic(err)
	}
	return []dns.TLSA{tlstest.Record(daneEE, selector, matching, leaf)}
}

// TestB08Unusable: records of which nothing can be made are as good as none of them, and as bad as all of them: TLS must
// be, whatever the certificate.
func TestB08Unusable(t *testing.T) {
	a := tlstest.NewAuthority(t)
	cert := a.Issue("mx.example")
	good := tlstest.Record(daneEE, publicKey, sha2256, cert.Leaf)
	with := func(change func(*dns.TLSA)) dns.TLSA {
		r := good
		r.Data = slices.Clone(r.Data)
		change(&r)
		return r
	}
	for name, r := range map[string]dns.TLSA{
		"nothing":             {},
		"no data":             with(func(r *dns.TLSA) { r.Data = nil }),
		"3 octets":            with(func(r *dns.TLSA) { r.Data = r.Data[:3] }),
		"19 octets":           with(func(r *dns.TLSA) { r.Data = r.Data[:19] }),
		"33 octets":           with(func(r *dns.TLSA) { r.Data = append(r.Data, 0) }),
		"PKIX-TA":             with(func(r *dns.TLSA) { r.Usage = 0 }),
		"PKIX-EE":             with(func(r *dns.TLSA) { r.Usage = 1 }),
		"usage 4":             with(func(r *dns.TLSA) { r.Usage = 4 }),
		"usage 255":           with(func(r *dns.TLSA) { r.Usage = 255 }),
		"selector 2":          with(func(r *dns.TLSA) { r.Selector = 2 }),
		"matching 3":          with(func(r *dns.TLSA) { r.Matching = 3 }),
		"a digest of another": with(func(r *dns.TLSA) { r.Matching = sha2512 }),
		"no certificate":      with(func(r *dns.TLSA) { r.Matching, r.Selector = full, wholeCert }),
		"no key":              with(func(r *dns.TLSA) { r.Matching, r.Selector = full, publicKey }),
		"half a certificate":  {Usage: daneTA, Selector: wholeCert, Data: a.Cert.Raw[:len(a.Cert.Raw)/2]},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDANE(t)
			d.dns.TLSA("_25._tcp.mx.example", r)
			need := d.need(t)
			if need.Level != Encrypted || need.Kind != DANE || need.ServerName != "mx.example" {
				t.Errorf("%+v", need)
			}
			s := Session{Host: "mx.example", Need: need, TLS: "TLS 1.3"}
			if got := failure(&s); got != tlsrpt.TLSAInvalid {
				t.Errorf("it is reported as %q", got)
			}
			d.dns.TLSA("_25._tcp.mx.example", r, good)
			if need := d.need(t); need.Level != Verified || need.Verify(state(t, cert)) != nil || need.Verify(state(t, a.Issue("mx.example"))) == nil {
				t.Errorf("beside a good one: %+v", need)
			}
		})
	}
}

func state(t testing.TB, cert *tls.Certificate) tls.ConnectionState {
	return tls.ConnectionState{PeerCertificates: tlstest.Chain(t, cert)}
}

// daneWorld is a domain with one host, all of it signed.
type daneWorld struct {
	dns      *dnstest.Resolver
	policies *Policies
	recorder recorder
	mx       dns.Answer[string]
	addrs    dns.Answer[netip.Addr]
}

func newDANE(t *testing.T) *daneWorld {
	d := &daneWorld{
		dns: new(dnstest.Resolver), mx: dns.Answer[string]{Records: []string{"mx.example"}, Secure: true, Name: "d.example"},
		addrs: dns.Answer[netip.Addr]{Records: []netip.Addr{netip.MustParseAddr("203.0.114.1")}, Secure: true, Name: "mx.example"},
	}
	d.dns.Secure("_25._tcp.mx.example", "_25._tcp.alias.example")
	d.policies = openPolicies(t, Config{Resolver: d.dns, Recorder: &d.recorder})
	return d
}

func (d *daneWorld) host(t *testing.T) (Need, error) {
	t.Helper()
	policy, err := d.policies.Domain(t.Context(), "d.example", d.mx)
	if err != nil {
		t.Fatal(err)
	}
	return policy.Host(t.Context(), "mx.example", d.addrs)
}

func (d *daneWorld) need(t *testing.T) Need {
	t.Helper()
	need, err := d.host(t)
	if err != nil {
		t.Fatal(err)
	}
	return need
}

// TestWhereDANECounts: only where DNSSEC validated all on the way to the records (RFC 7672, 2.1 and 2.2).
func TestWhereDANECounts(t *testing.T) {
	cert := tlstest.NewAuthority(t).Issue("mx.example")
	record, other := ee(cert, 1, 1)[0], ee(tlstest.NewAuthority(t).Issue("mx.example"), 1, 1)[0]
	for _, tt := range []struct {
		name   string
		change func(*daneWorld)
		level  Level
		base   string
	}{
		{"all is signed", func(*daneWorld) {}, Verified, "mx.example"},
		{"the mail hosts are not", func(d *daneWorld) { d.mx.Secure = false }, Opportunistic, "mx.example"},
		{"the addresses are not", func(d *daneWorld) { d.addrs.Secure = false }, Opportunistic, "mx.example"},
		{"the records are not", func(d *daneWorld) {
			d.dns.TLSA("_25._tcp.mx.example")
			d.addrs.Name = "insecure.example"
			d.dns.TLSA("_25._tcp.insecure.example", record)
		}, Opportunistic, "mx.example"},
		{"there are none", func(d *daneWorld) { d.dns.TLSA("_25._tcp.mx.example") }, Opportunistic, "mx.example"},
		{"an alias has them", func(d *daneWorld) {
			d.addrs.Name = "alias.example"
			d.dns.TLSA("_25._tcp.alias.example", record)
			d.dns.TLSA("_25._tcp.mx.example", other)
		}, Verified, "alias.example"},
		{"an alias has none, the host has", func(d *daneWorld) { d.addrs.Name = "alias.example" }, Verified, "mx.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDANE(t)
			d.dns.TLSA("_25._tcp.mx.example", record)
			tt.change(d)
			need := d.need(t)
			if need.Level != tt.level || need.ServerName != tt.base {
				t.Errorf("%s, SNI %s: %s", need.Level, need.ServerName, need.Words)
			}
			if tt.level == Verified && (need.Verify(state(t, cert)) != nil || need.Kind != DANE) {
				t.Errorf("the certificate is not good: %+v", need)
			}
			if tt.level == Opportunistic && need.Kind != None {
				t.Errorf("it comes from %s", need.Kind)
			}
		})
	}
}

// TestB08Bogus: a question without an answer is no answer that there is nothing, at the host's name or its alias'.
func TestB08Bogus(t *testing.T) {
	record := ee(tlstest.NewAuthority(t).Issue("mx.example"), 1, 1)[0]
	for _, name := range []string{"_25._tcp.mx.example", "_25._tcp.alias.example"} {
		for _, err := range []error{dnstest.ErrServFail, context.DeadlineExceeded} {
			d := newDANE(t)
			d.addrs.Name = "alias.example"
			if strings.Contains(name, "alias") {
				d.dns.TLSA("_25._tcp.mx.example", record)
			}
			d.dns.Fail(name, err)
			if _, err := d.host(t); !errors.Is(err, ErrTLSA) {
				t.Errorf("%s: %v", name, err)
			}
			if got := d.recorder.failures(); !slices.Equal(got, []tlsrpt.Failure{tlsrpt.DNSSECInvalid}) {
				t.Errorf("recorded: %q", got)
			}
		}
	}
	d := newDANE(t) // nobody asks where nothing is signed: there are name servers that do not answer
	d.dns.Fail("_25._tcp.mx.example", dnstest.ErrServFail)
	d.mx.Secure = false
	if need := d.need(t); need.Level != Opportunistic || d.dns.Asked("_25._tcp.mx.example") > 0 {
		t.Errorf("%+v", need)
	}
}

// TestRFC6698Records: records as RFC 6698 and RFC 7672 show them. Each can be read; SMTP has no use for usages 0 and 1.
func TestRFC6698Records(t *testing.T) {
	const digest = "d2abde240d7cd3ee6b4b28c54df034b97983a1d16e8a410e4561cb106618e971"
	data, err := hex.DecodeString(digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		r    dns.TLSA
		want bool
	}{
		{dns.TLSA{Usage: 0, Selector: 0, Matching: 1, Data: data}, false}, // RFC 6698, 2.3, the first example
		{dns.TLSA{Usage: 1, Selector: 1, Matching: 2, Data: append(data, data...)}, false},
		{dns.TLSA{Usage: 3, Selector: 0, Matching: 1, Data: data}, true},
		{dns.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: data}, true}, // RFC 7672, 3.1.1: "3 1 1" is recommended
		{dns.TLSA{Usage: 2, Selector: 0, Matching: 1, Data: data}, true}, // RFC 7672, 3.1.2: "2 0 1"
	} {
		if got := isUsable(tt.r); got != tt.want {
			t.Errorf("%d %d %d: %v", tt.r.Usage, tt.r.Selector, tt.r.Matching, got)
		}
	}
}

// TestDANEBounds: however many records and certificates there are, it takes little time.
func TestDANEBounds(t *testing.T) {
	a := tlstest.NewAuthority(t)
	chain := tlstest.Chain(t, a.Issue("mx.example"))
	for range 1000 {
		chain = append(chain, a.Cert)
	}
	d := newDANE(t)
	stranger := tlstest.NewAuthority(t)
	var records []dns.TLSA
	for range 10_000 {
		records = append(records, tlstest.Record(daneTA, publicKey, full, stranger.Cert))
	}
	d.dns.TLSA("_25._tcp.mx.example", records...)
	need := d.need(t)
	start := time.Now()
	if need.Verify(tls.ConnectionState{PeerCertificates: chain}) == nil {
		t.Error("a stranger's anchor is good")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func FuzzTLSA(f *testing.F) {
	a := tlstest.NewAuthority(f)
	cert := a.Issue("mx.example")
	chain := append(tlstest.Chain(f, cert), a.Cert)
	for _, r := range slices.Concat(ta(a, 0, 0), ta(a, 1, 0), ta(a, 0, 1), ee(cert, 1, 1), ee(cert, 0, 2)) {
		f.Add(r.Usage, r.Selector, r.Matching, r.Data)
	}
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		r := dns.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: data}
		good := usable([]dns.TLSA{r})
		err := verifyDANE(good, chain, []string{"mx.example"}, now)
		if err == nil && (len(good) == 0 || !slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
			return matches(r, c) || matching == full
		})) {
			t.Errorf("%+v is for the certificate", r)
		}
	})
}
