package delivery

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/internal/dns"
	"postroad/internal/listen/listentest"
	"postroad/internal/tlspolicy"
)

// prober is a Runner for probes alone: it has no spool and no mail.
func (f *fixture) prober() *Runner {
	c := f.cfg
	c.Resolver, c.Hostname, c.Dial = f.dns, "mx.a.test", f.net.Dial
	return New(c)
}

func (f *fixture) probe(to string) Finding {
	f.t.Helper()
	return f.prober().Probe(f.t.Context(), path("<alice@a.test>"), path("<"+to+">"))
}

// A probe finds what an attempt would, and names no sender.
func TestProbe(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*fixture)
		verdict string
	}{
		{"a host", func(f *fixture) { f.site("y.test", public(1), &peer{}) }, "mail goes to mx.y.test (203.0.114.1), in the clear"},
		{"the second host", func(f *fixture) {
			f.dns.MX("y.test", "a.y.test", "b.y.test")
			f.dns.Host("a.y.test", public(1))
			f.dns.Host("b.y.test", public(2))
			f.net.peer(public(2)+":25", &peer{})
		}, "mail goes to b.y.test (203.0.114.2), in the clear"},
		{"nobody is there", func(f *fixture) {
			f.dns.MX("y.test", "a.y.test")
			f.dns.Host("a.y.test", public(1))
		}, "mail waits, and is tried again: 4.4.1 cannot connect to a.y.test (203.0.114.1)"},
		{"a greeting that refuses", func(f *fixture) {
			f.site("y.test", public(1), &peer{say: map[string]string{"greeting": "554 5.7.1 no"}})
		}, "mail waits, and is tried again: 4.4.2 greeting: 554 5.7.1 no"},
		{"null MX", func(f *fixture) { f.dns.MX("y.test", ".") }, "mail goes back to its sender: 556 5.1.10 the domain does not take mail (null MX)"},
		{"no such domain", func(f *fixture) {}, "mail goes back to its sender: 550 5.1.2 the domain has no mail host"},
		{"DNS is in trouble", func(f *fixture) { f.dns.Fail("y.test", errors.New("no answer")) }, "mail waits, and is tried again: 4.4.3 "},
		{"an address inside", func(f *fixture) {
			f.dns.MX("y.test", "a.y.test")
			f.dns.Host("a.y.test", "10.0.0.1")
		}, "mail goes back to its sender: 550 5.4.4 a.y.test leads to a private address only"},
		{"ourselves", func(f *fixture) {
			f.site("y.test", public(1), &peer{say: map[string]string{"EHLO": "250 mx.a.test"}})
		}, "mail goes back to its sender: 550 5.4.6 mail for this domain leads back to this server"},
		{"a route that discards", func(f *fixture) { f.cfg.Routes = []Route{{Domain: "y.test", Kind: Discard}} }, "mail is dropped, as the route says"},
		{"a route that rejects", func(f *fixture) {
			f.cfg.Routes = []Route{{Domain: "y.test", Kind: Reject, Text: "not from here"}}
		}, "mail goes back to its sender: 550 5.7.1 not from here"},
		{"an application", func(f *fixture) {
			f.cfg.Routes = []Route{{Domain: "y.test", Kind: HTTP, URL: "https://app.test/?token=secret"}}
		}, "mail is posted to app.test"},
		{"a smarthost", func(f *fixture) {
			f.cfg.Routes = []Route{{Sender: "@a.test", Host: public(1), Port: 2525}}
			f.net.peer(public(1)+":2525", &peer{})
		}, "mail goes to 203.0.114.1 (203.0.114.1), in the clear"},
		{"suspended", func(f *fixture) {
			f.site("y.test", public(1), &peer{})
			f.openRules().Suspend("y.test", "moving", "root")
		}, "mail waits: its destination is suspended since 2000-01-01 00:00:00 UTC by root (moving)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				tt.prepare(f)
				got := f.probe("bob@y.test")
				if !strings.HasPrefix(got.Verdict, tt.verdict) {
					t.Errorf("verdict: %s\nwant     %s", got.Verdict, tt.verdict)
				}
			})
		})
	}
}

// Nothing is said to a server that has to do with mail.
func TestProbeSendsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{extensions: []string{"SIZE 1000", "PIPELINING"}})
		got := f.probe("bob@y.test")
		if c := p.commands(); slices.ContainsFunc(c, func(s string) bool { return !strings.HasPrefix(s, "EHLO") && s != "QUIT" }) {
			t.Errorf("said: %q", c)
		}
		call := got.Hosts[0].Calls[0]
		if !slices.Equal(call.Extensions, []string{"PIPELINING", "SIZE 1000"}) || call.Name == "" || !strings.Contains(call.Dialogue, "> EHLO mx.a.test") {
			t.Errorf("%+v", call)
		}
	})
}

// Certificates are shown whether they are good or not, and with what they are held against.
func TestProbeShowsTLS(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		good, pool := listentest.Certificate(t, "mx.y.test")
		f.site("y.test", public(1), &peer{tls: good})
		f.site("z.test", public(2), &peer{tls: good})
		f.site("d.test", public(3), &peer{tls: good})
		f.cfg.TLS = &tls.Config{RootCAs: pool}
		var err error
		f.cfg.Policies, err = tlspolicy.Open(tlspolicy.Config{Store: f.st, Resolver: f.dns, RootCAs: pool, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		cert, _ := good.GetCertificate(&tls.ClientHelloInfo{})
		f.dns.Secure("d.test", "mx.d.test", "_25._tcp.mx.d.test")
		wrong := sha256.Sum256([]byte("another"))
		f.dns.TLSA("_25._tcp.mx.d.test", dns.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: wrong[:]})

		y := f.probe("bob@y.test")
		call := y.Hosts[0].Calls[0]
		if call.Unverified != "" || !strings.HasPrefix(call.TLS, "TLS 1.3") || len(call.Certificates) == 0 || !call.Certificates[0].Equal(cert.Leaf) {
			t.Errorf("%+v", call)
		}
		if y.Verdict != "mail goes to mx.y.test (203.0.114.1), by verified TLS" {
			t.Error(y.Verdict)
		}
		if z := f.probe("bob@z.test"); z.Hosts[0].Calls[0].Unverified == "" || !strings.HasSuffix(z.Verdict, "by TLS that shows nobody who it is") {
			t.Errorf("%+v", z)
		}
		d := f.probe("bob@d.test")
		host := d.Hosts[0]
		if !d.Secure || host.Need.Kind != tlspolicy.DANE || len(host.TLSA) != 1 || host.Calls[0].Trouble == "" || len(host.Calls[0].Certificates) == 0 {
			t.Errorf("%+v", d)
		}
		if !strings.HasPrefix(d.Verdict, "mail waits, and is tried again: 4.7.5") {
			t.Error(d.Verdict)
		}
		if s, err := f.cfg.Policies.Show("y.test"); err != nil || s.Memory != nil {
			t.Errorf("a probe was learned from: %+v, %v", s, err)
		}
	})
}

// However many addresses there are and however slow they answer, a probe has an end.
func TestProbeIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		var names []string
		for _, n := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"} {
			names = append(names, n+".y.test")
			f.dns.Host(n+".y.test", public(int(n[0])))
			f.net.peer(public(int(n[0]))+":25", &peer{say: map[string]string{"greeting": "silence"}})
		}
		f.dns.MX("y.test", names...)
		began := time.Now()
		got := f.probe("bob@y.test")
		if took := time.Since(began); took > probeTime+time.Minute {
			t.Errorf("it took %v", took)
		}
		calls := 0
		for _, h := range got.Hosts {
			calls += len(h.Calls)
		}
		if calls > maxAddresses {
			t.Errorf("%d calls", calls)
		}
	})
}
