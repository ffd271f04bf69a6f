package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/internal/dns"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/tlspolicy"
	"postroad/internal/tlspolicy/tlstest"
	"postroad/spool"
)

// secured is a fixture whose Runner has policies, and a domain y.test with the host mx.y.test, which does all as it should.
type secured struct {
	*fixture
	root     *tlstest.Authority // whom everybody trusts
	host     *peer
	policies *tlspolicy.Policies

	mu      sync.Mutex // guards what follows
	webCert *tls.Certificate
	webDead bool
	file    string
	clear   int // messages that began in the clear, at any host
}

const enforced = "version: STSv1\nmode: enforce\nmx: mx.y.test\nmax_age: 604800\n"

// secure runs a test in a bubble.
func secure(t *testing.T, fn func(*testing.T, *secured)) {
	t.Helper()
	bubble(t, func(t *testing.T, f *fixture) { fn(t, newSecured(t, f)) })
}

func newSecured(t *testing.T, f *fixture) *secured {
	s := &secured{fixture: f, root: tlstest.NewAuthority(t), file: enforced}
	s.webCert = s.root.Issue("mta-sts.y.test")
	web := tlstest.NewWeb(t, s.certOfWeb, s)
	f.dns.Host("mta-sts.y.test", public(9))
	s.host = s.watched(f.site("y.test", public(1), &peer{extensions: []string{"REQUIRETLS"}, tls: serving(s.root.Issue("mx.y.test"))}))
	var err error
	s.policies, err = tlspolicy.Open(tlspolicy.Config{
		Store: f.st, Resolver: f.dns, RootCAs: s.root.Pool(), Memory: 24 * time.Hour,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.webDead {
				return nil, errors.New("connection refused")
			}
			return web.Dial(ctx, network, addr)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.cfg.Policies, f.cfg.TLS = s.policies, &tls.Config{RootCAs: s.root.Pool()}
	return s
}

func serving(cert *tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{*cert}}
}

func (s *secured) certOfWeb() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.webCert
}

func (s *secured) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprint(w, s.file)
}

// watched counts the messages that a peer is told of in the clear.
func (s *secured) watched(p *peer) *peer {
	p.script = func(x *session, phase string) string {
		if _, ok := x.conn.(*tls.Conn); phase == "MAIL" && !ok {
			s.mu.Lock()
			s.clear++
			s.mu.Unlock()
		}
		return ""
	}
	return p
}

func (s *secured) inClear() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clear
}

// publish has y.test announce its policy; "" takes the announcement back.
func (s *secured) publish(id string) {
	if id == "" {
		s.dns.TXT("_mta-sts.y.test")
		return
	}
	s.dns.TXT("_mta-sts.y.test", "v=STSv1; id="+id+";")
}

// sign has DNSSEC for y.test, and TLSA records of its host.
func (s *secured) sign(records ...dns.TLSA) {
	s.dns.Secure("y.test", "mx.y.test", "_25._tcp.mx.y.test")
	s.dns.TLSA("_25._tcp.mx.y.test", records...)
}

// shows gives the host another certificate, or no TLS.
func (s *secured) shows(cert *tls.Certificate) {
	s.host.mu.Lock()
	defer s.host.mu.Unlock()
	if s.host.tls = nil; cert != nil {
		s.host.tls = serving(cert)
	}
}

func (s *secured) leaf() dns.TLSA {
	leaf := tlstest.Chain(s.t, &s.host.tls.Certificates[0])[0]
	return tlstest.Record(3, 1, 1, leaf)
}

// post accepts a message to one@y.test.
func (s *secured) post(change ...func(*envelope.Envelope)) store.ID {
	e := envelope.Envelope{From: path("<alice@a.test>")}
	for _, fn := range change {
		fn(&e)
	}
	return s.accept(&spool.Message{Envelope: e}, letter, s.rcpts("one@y.test")...)
}

func requireTLS(e *envelope.Envelope)  { e.RequireTLS = true }
func tlsOptional(e *envelope.Envelope) { e.TLSOptional = true }

// TestB06Fallback: in the clear goes only what nobody wants to go otherwise.
func TestB06Fallback(t *testing.T) {
	servers := map[string]func(*secured){
		"good":           func(*secured) {},
		"no STARTTLS":    func(s *secured) { s.shows(nil) },
		"refused":        func(s *secured) { s.host.answers("STARTTLS", "454 4.7.0 not now") },
		"cut off":        func(s *secured) { s.host.answers("STARTTLS", "FIN") },
		"nonsense":       func(s *secured) { s.host.answers("STARTTLS", "220 go\r\n250 on") },
		"another's name": func(s *secured) { s.shows(s.root.Issue("other.test")) },
		"nobody's":       func(s *secured) { s.shows(tlstest.NewAuthority(s.t).Issue("mx.y.test")) },
		"expired": func(s *secured) {
			s.shows(s.root.IssueLeaf(tlstest.Leaf{Names: []string{"mx.y.test"}, NotAfter: time.Now().Add(-time.Hour)}))
		},
		"TLS 1.1 at most": func(s *secured) {
			s.host.tls = s.host.tls.Clone()
			s.host.tls.MaxVersion = tls.VersionTLS11
			s.host.tls.MinVersion = tls.VersionTLS10
		},
	}
	policies := map[string]struct {
		set  func(*secured)
		want map[string]string // by server; "secure", "clear", else nothing is sent
	}{
		"none": {func(*secured) {}, map[string]string{
			"good": "secure", "no STARTTLS": "clear", "refused": "clear", "cut off": "clear", "nonsense": "clear",
			"another's name": "secure", "nobody's": "secure", "expired": "secure", "TLS 1.1 at most": "clear",
		}},
		"testing": {func(s *secured) { s.publish("1"); s.file = strings.Replace(enforced, "enforce", "testing", 1) }, map[string]string{
			"good": "secure", "no STARTTLS": "clear", "refused": "clear", "cut off": "clear", "nonsense": "clear",
			"another's name": "secure", "nobody's": "secure", "expired": "secure", "TLS 1.1 at most": "clear",
		}},
		"MTA-STS": {func(s *secured) { s.publish("1") }, map[string]string{"good": "secure"}},
		"DANE-EE": {func(s *secured) { s.sign(s.leaf()) }, map[string]string{"good": "secure"}},
		"DANE-TA": {func(s *secured) { s.sign(tlstest.Record(2, 0, 0, s.root.Cert)) }, map[string]string{"good": "secure"}},
		"TLSA of which none can be used": {func(s *secured) { s.sign(dns.TLSA{Usage: 1}) }, map[string]string{
			"good": "secure", "another's name": "secure", "nobody's": "secure", "expired": "secure",
		}},
		"TLSA of which none can be used, and MTA-STS": {func(s *secured) { s.sign(dns.TLSA{Usage: 1}); s.publish("1") }, map[string]string{"good": "secure"}},
	}
	for policy, p := range policies {
		for server, change := range servers {
			t.Run(policy+", "+server, func(t *testing.T) {
				secure(t, func(t *testing.T, s *secured) {
					p.set(s)
					change(s)
					s.start()
					id := s.post()
					s.pass(time.Hour)
					got := ""
					if n := len(s.host.got()); n == 1 {
						got = "secure"
						if s.inClear() > 0 {
							got = "clear"
						}
					}
					if want := p.want[server]; got != want || want != "clear" && s.inClear() > 0 {
						t.Errorf("it went %q, want %q; %d times in the clear: %q", got, want, s.inClear(), s.events(id))
					}
					if q := s.queue(); got == "" && (len(q) != 1 || q[0] != "one@y.test deferred") {
						t.Errorf("the queue holds %q", q)
					}
				})
			})
		}
	}
}

// TestDANEBeforeSTS: a host that DANE knows is not held against an MTA-STS policy, and none that DANE refuses is saved by
// one (RFC 8461, 2).
func TestDANEBeforeSTS(t *testing.T) {
	for name, tt := range map[string]struct {
		cert func(*secured) *tls.Certificate
		want int
	}{
		"DANE alone likes it":    {func(s *secured) *tls.Certificate { return tlstest.NewAuthority(s.t).Issue("other.test") }, 1},
		"MTA-STS alone likes it": {func(s *secured) *tls.Certificate { s.sign(s.leaf()); return s.root.Issue("mx.y.test") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			secure(t, func(t *testing.T, s *secured) {
				s.publish("1")
				s.shows(tt.cert(s))
				if tt.want == 1 {
					s.sign(s.leaf())
				}
				s.start()
				s.post()
				s.pass(time.Hour)
				if got := s.host.got(); len(got) != tt.want || s.inClear() > 0 {
					t.Errorf("the host has %q", got)
				}
			})
		})
	}
}

// TestNextHostThatDoes: hosts that a policy does not let in are passed over, with no word said to them.
func TestNextHostThatDoes(t *testing.T) {
	secure(t, func(t *testing.T, s *secured) {
		s.publish("1")
		s.dns.MX("y.test", "unlisted.test", "bad.y.test", "mx.y.test")
		unlisted := s.watched(&peer{tls: serving(s.root.Issue("unlisted.test"))})
		bad := s.watched(&peer{tls: serving(s.root.Issue("x.test"))})
		s.dns.Host("unlisted.test", public(2))
		s.dns.Host("bad.y.test", public(3))
		s.net.peer(public(2)+":25", unlisted)
		s.net.peer(public(3)+":25", bad)
		s.file = strings.Replace(enforced, "mx: mx.y.test", "mx: *.y.test", 1)
		s.start()
		s.post()
		s.drained()
		if len(s.host.got()) != 1 || unlisted.conns != 0 || bad.conns != 1 || len(bad.got()) != 0 || s.inClear() > 0 {
			t.Errorf("%d mails; connections: unlisted %d, bad %d", len(s.host.got()), unlisted.conns, bad.conns)
		}
	})
}

// TestB08TLSAWithoutAnswer: a host whose TLSA records cannot be looked up is not used; another is, if there is one.
func TestB08TLSAWithoutAnswer(t *testing.T) {
	secure(t, func(t *testing.T, s *secured) {
		s.sign()
		s.dns.Fail("_25._tcp.mx.y.test", errors.New("SERVFAIL"))
		s.start()
		id := s.post()
		s.pass(time.Hour)
		if s.host.conns != 0 || !strings.Contains(strings.Join(s.events(id), "\n"), "TLSA records cannot be looked up") {
			t.Errorf("%d connections: %q", s.host.conns, s.events(id))
		}
		other := s.watched(&peer{})
		s.dns.MX("y.test", "mx.y.test", "mx2.y.test")
		s.dns.Host("mx2.y.test", public(2))
		s.dns.Secure("mx2.y.test", "_25._tcp.mx2.y.test")
		s.net.peer(public(2)+":25", other)
		s.pass(4 * time.Hour)
		if s.host.conns != 0 || len(other.got()) != 1 {
			t.Errorf("%d connections, the other host has %d", s.host.conns, len(other.got()))
		}
	})
}

// TestREQUIRETLS: a message that must go by TLS all the way goes to hosts whose names are known to be the domain's, that
// show a good certificate and promise the same, or back to its sender (RFC 8689, 4.2.1 and 5).
func TestREQUIRETLS(t *testing.T) {
	signed := func(s *secured) { s.sign() }
	dane := func(s *secured) { s.sign(s.leaf()) }
	sts := func(s *secured) { s.publish("1") }
	for _, tt := range []struct {
		name string
		set  []func(*secured)
		want string // "sent", "waits", or the code of the report
	}{
		{"DNSSEC, and a good certificate", []func(*secured){signed}, "sent"},
		{"DANE", []func(*secured){dane}, "sent"},
		{"MTA-STS", []func(*secured){sts}, "sent"},
		{"MTA-STS in testing", []func(*secured){sts, func(s *secured) { s.file = strings.Replace(enforced, "enforce", "testing", 1) }}, "sent"},
		{"no word of who the host is", nil, "5.7.10"},
		{"a policy that cannot be had now", []func(*secured){sts, func(s *secured) { s.webDead = true }}, "waits"},
		{"no answer whether there is a policy", []func(*secured){func(s *secured) {
			s.dns.Fail("_mta-sts.y.test", errors.New("SERVFAIL"))
		}}, "waits"},
		{"no MX, but a certificate of the domain", []func(*secured){func(s *secured) {
			s.dns.MX("y.test")
			s.dns.Host("y.test", public(1))
			s.shows(s.root.Issue("y.test"))
		}}, "sent"},
		{"no STARTTLS", []func(*secured){signed, func(s *secured) { s.shows(nil) }}, "5.7.10"},
		{"another's certificate", []func(*secured){signed, func(s *secured) { s.shows(s.root.Issue("x.test")) }}, "5.7.10"},
		{"another's certificate, by DANE", []func(*secured){dane, func(s *secured) { s.shows(s.root.Issue("mx.y.test")) }}, "5.7.10"},
		{"no promise", []func(*secured){signed, func(s *secured) { s.host.extensions = nil }}, "5.7.30"},
		{"no promise of one host, but of another", []func(*secured){signed, func(s *secured) {
			s.dns.MX("y.test", "mx0.y.test", "mx.y.test")
			s.dns.Host("mx0.y.test", public(2))
			s.dns.Secure("mx0.y.test")
			s.net.peer(public(2)+":25", s.watched(&peer{tls: serving(s.root.Issue("mx0.y.test"))}))
		}}, "sent"},
		{"no promise of one host, and no word of another", []func(*secured){signed, func(s *secured) {
			s.host.extensions = nil
			s.dns.MX("y.test", "mx.y.test", "mx2.y.test")
			s.dns.Host("mx2.y.test", public(2))
			s.dns.Secure("mx2.y.test")
		}}, "waits"},
		{"TLSA records cannot be looked up", []func(*secured){signed, func(s *secured) {
			s.dns.Fail("_25._tcp.mx.y.test", errors.New("SERVFAIL"))
		}}, "waits"},
		{"STARTTLS is refused for now", []func(*secured){signed, func(s *secured) { s.host.answers("STARTTLS", "454 4.7.0 later") }}, "waits"},
		{"the handshake is cut off", []func(*secured){signed, func(s *secured) { s.host.answers("STARTTLS", "RST") }}, "waits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			secure(t, func(t *testing.T, s *secured) {
				for _, set := range tt.set {
					set(s)
				}
				s.start()
				id := s.post(requireTLS)
				s.pass(time.Hour)
				got := "waits"
				switch report := strings.Join(s.mail("alice"), "\n"); {
				case len(s.host.got()) == 1 && strings.Contains(s.host.got()[0].from, "REQUIRETLS"):
					got = "sent"
				case strings.Contains(report, "Status: 5.7.10"):
					got = "5.7.10"
				case strings.Contains(report, "Status: 5.7.30"):
					got = "5.7.30"
				}
				if got != tt.want || s.inClear() > 0 || (len(s.queue()) > 0) != (got == "waits") {
					t.Errorf("it is %q, want %q; the queue holds %q: %q", got, tt.want, s.queue(), s.events(id))
				}
			})
		})
	}
}

// TestTLSOptional: the sender's "TLS-Required: No" waives what policies ask, and nothing but that (RFC 8689, 4.2.2).
func TestTLSOptional(t *testing.T) {
	for name, set := range map[string]func(*secured){
		"MTA-STS, no STARTTLS":    func(s *secured) { s.publish("1"); s.shows(nil) },
		"MTA-STS, unlisted":       func(s *secured) { s.publish("1"); s.file = strings.Replace(enforced, "mx.y", "mx.x", 1) },
		"DANE, another's":         func(s *secured) { s.sign(s.leaf()); s.shows(s.root.Issue("mx.y.test")) },
		"TLSA without an answer":  func(s *secured) { s.sign(); s.dns.Fail("_25._tcp.mx.y.test", errors.New("SERVFAIL")) },
		"TLS where it is offered": func(s *secured) {},
	} {
		t.Run(name, func(t *testing.T) {
			secure(t, func(t *testing.T, s *secured) {
				set(s)
				s.start()
				s.post(tlsOptional)
				s.drained()
				if len(s.host.got()) != 1 || (s.inClear() > 0) != strings.Contains(name, "no STARTTLS") {
					t.Errorf("the host has %d, %d times in the clear", len(s.host.got()), s.inClear())
				}
			})
		})
	}
}

// TestB09KeptConnection: a connection that was made under a weaker need carries no message that needs more.
func TestB09KeptConnection(t *testing.T) {
	for name, tt := range map[string]struct {
		between func(*secured) // what happens between two messages
		first   func(*envelope.Envelope)
		second  func(*envelope.Envelope)
		clear   bool // the first goes in the clear
		conns   int
	}{
		"nothing happens":                 {func(*secured) {}, nil, nil, true, 1},
		"a policy is there":               {func(s *secured) { s.publish("1"); s.pass(10 * time.Minute) }, nil, nil, true, 2},
		"the second must go by TLS":       {func(s *secured) { s.sign() }, nil, requireTLS, true, 2},
		"the first waived all":            {func(*secured) {}, tlsOptional, nil, true, 2},
		"the second waives all":           {func(*secured) {}, nil, tlsOptional, false, 2},
		"what is remembered is forgotten": {func(s *secured) { s.publish("1"); _ = s.policies.Forget("y.test") }, nil, nil, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			secure(t, func(t *testing.T, s *secured) {
				s.cfg.Limits.Idle = time.Hour
				good := s.host.tls
				if tt.clear {
					s.shows(nil)
				}
				s.start()
				change := func(fn func(*envelope.Envelope)) func(*envelope.Envelope) {
					if fn == nil {
						return func(*envelope.Envelope) {}
					}
					return fn
				}
				s.post(change(tt.first))
				settle()
				if len(s.host.got()) != 1 || (s.inClear() == 1) != tt.clear {
					t.Fatalf("the host has %d, %d in the clear", len(s.host.got()), s.inClear())
				}
				before := s.inClear()
				s.host.mu.Lock()
				s.host.tls = good
				s.host.mu.Unlock()
				tt.between(s)
				s.post(change(tt.second))
				settle()
				if len(s.host.got()) != 2 || s.host.conns != tt.conns || tt.conns == 2 && s.inClear() != before {
					t.Errorf("the host has %d by %d connections, %d in the clear: %q", len(s.host.got()), s.host.conns, s.inClear(), s.queue())
				}
			})
		})
	}
}

// TestMemory: a domain that always showed a good certificate and suddenly does not gets nothing for a day, unless it does
// again, or the administrator says that it is right. All are told.
func TestMemory(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*secured)
		held   bool
	}{
		"no STARTTLS":    {func(s *secured) { s.shows(nil) }, true},
		"nobody's":       {func(s *secured) { s.shows(tlstest.NewAuthority(s.t).Issue("mx.y.test")) }, true},
		"another's name": {func(s *secured) { s.shows(s.root.Issue("x.test")) }, true},
		"merely run out": {func(s *secured) {
			s.shows(s.root.IssueLeaf(tlstest.Leaf{Names: []string{"mx.y.test"}, NotAfter: time.Now()}))
		}, false},
		"another host, good": {func(s *secured) {
			s.dns.MX("y.test", "mx2.test")
			s.dns.Host("mx2.test", public(1))
			s.shows(s.root.Issue("mx2.test"))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			secure(t, func(t *testing.T, s *secured) {
				s.start()
				for range 5 {
					s.post()
					s.drained()
					s.pass(20 * time.Hour)
				}
				tt.change(s)
				before := len(s.host.got())
				id := s.post()
				s.pass(20 * time.Hour)
				sent := len(s.host.got()) - before
				if (sent == 0) != tt.held {
					t.Fatalf("%d sent: %q", sent, s.events(id))
				}
				if !tt.held {
					return
				}
				if said := strings.Join(s.events(id), "\n"); !strings.Contains(said, "postroad tls forget y.test") {
					t.Errorf("the trace does not say what to do: %q", said)
				}
				if s.inClear() > 0 {
					t.Error("it went in the clear")
				}
				s.pass(8 * time.Hour) // a day is over
				if len(s.host.got()) != before+1 {
					t.Errorf("after a day: %q, %q", s.queue(), s.events(id))
				}
			})
		})
	}
}

func TestMemoryForgotten(t *testing.T) {
	secure(t, func(t *testing.T, s *secured) {
		s.start()
		for range 5 {
			s.post()
			s.drained()
			s.pass(20 * time.Hour)
		}
		s.shows(nil)
		s.post()
		s.pass(time.Hour)
		state, err := s.policies.Show("y.test")
		if err != nil || state.Memory == nil || state.Memory.Failing.IsZero() || !strings.Contains(state.Memory.Trouble, "STARTTLS") {
			t.Errorf("%+v, %v", state.Memory, err)
		}
		if err := s.policies.Forget("y.test"); err != nil {
			t.Fatal(err)
		}
		s.pass(4 * time.Hour)
		if len(s.host.got()) != 6 || s.inClear() != 1 {
			t.Errorf("the host has %d, %d in the clear", len(s.host.got()), s.inClear())
		}
	})
}

// TestNoMemoryOfTheUnsteady: a domain that did not always show a good certificate is not asked for one.
func TestNoMemoryOfTheUnsteady(t *testing.T) {
	secure(t, func(t *testing.T, s *secured) {
		good := &s.host.tls.Certificates[0]
		s.start()
		for day := range 12 {
			if s.shows(good); day%4 == 3 {
				s.shows(nil)
			}
			s.post()
			s.drained()
			s.pass(24 * time.Hour)
		}
		if n := s.inClear(); n != 3 {
			t.Errorf("%d in the clear", n)
		}
	})
}

// TestRoutesHaveNoPolicies: what the administrator says of a smarthost is not held against what its domain says.
func TestRoutesHaveNoPolicies(t *testing.T) {
	secure(t, func(t *testing.T, s *secured) {
		s.publish("1")
		s.shows(nil)
		s.cfg.Routes = []Route{{Domain: "y.test", Host: "mx.y.test"}}
		s.start()
		s.post()
		s.drained()
		if len(s.host.got()) != 1 || s.dns.Asked("_mta-sts.y.test") > 0 {
			t.Errorf("the host has %d", len(s.host.got()))
		}
	})
}

// TestPolicyUnreadable: as long as the store does not say whether there is a policy, mail waits.
func TestPolicyUnreadable(t *testing.T) {
	secure(t, func(t *testing.T, s *secured) {
		err := s.st.Update(func(tx store.Tx) error {
			tx.Put(store.NewKey("ts").Text("y.test"), []byte{9})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.shows(nil)
		s.start()
		id := s.post()
		s.pass(time.Hour)
		if q := s.queue(); s.host.conns > 0 || !slices.Equal(q, []string{"one@y.test deferred"}) {
			t.Errorf("%d connections, the queue holds %q: %q", s.host.conns, q, s.events(id))
		}
	})
}
