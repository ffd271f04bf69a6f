package tlspolicy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/internal/dns"
	"postroad/internal/store"
	"postroad/internal/tlspolicy/tlstest"
	"postroad/internal/tlsrpt"
)

// remembering is a site without a policy, with a memory of a day.
func remembering(t *testing.T, fn func(*testing.T, *site, *bytes.Buffer)) {
	t.Helper()
	bubble(t, func(t *testing.T, s *site) {
		s.publish("", "")
		var log bytes.Buffer
		s.policies.cfg.Memory = 24 * time.Hour
		s.policies.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		fn(t, s, &log)
	})
}

// session begins a session as the policies want it, with a certificate, or in the clear with none. It returns the need.
func (s *site) session(cert *tls.Certificate) Need {
	s.t.Helper()
	d := s.policy()
	need, err := d.Host(s.t.Context(), "mx.d.example", dns.Answer[netip.Addr]{})
	if err != nil {
		s.t.Fatal(err)
	}
	x := Session{Host: "mx.d.example", Need: need}
	switch {
	case cert != nil:
		if x.Verified = need.Verify(state(s.t, cert)); x.Verified == nil || need.Level < Verified {
			x.TLS = "TLS 1.3"
		} else {
			x.Err = x.Verified
		}
	case need.Level > Opportunistic:
		x.Err, x.NotOffered = errors.New("the host does not offer STARTTLS"), true
	}
	d.Report(x)
	return need
}

// TestMemoryIsEstablished: by five sessions at least, an hour apart, over three days, all of them good.
func TestMemoryIsEstablished(t *testing.T) {
	const good, bad, clear = "g", "b", "c"
	for _, tt := range []struct {
		name     string
		sessions string
		each     time.Duration
		want     bool
	}{
		{"five over four days", "ggggg", 24 * time.Hour, true},
		{"four over six days", "gggg", 48 * time.Hour, false},
		{"many in two days", strings.Repeat("g", 40), time.Hour, false},
		{"many in three days and an hour", strings.Repeat("g", 75), time.Hour, true},
		{"thousands at once, then a few", strings.Repeat("g", 2000), time.Minute, false},
		{"a bad one between", "gggbgggg", 24 * time.Hour, false},
		{"a bad one between, long ago", "gggbggggg", 24 * time.Hour, true},
		{"one in the clear", "gggcg", 24 * time.Hour, false},
		{"always bad", "bbbbbbbb", 24 * time.Hour, false},
		{"none", "", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			remembering(t, func(t *testing.T, s *site, log *bytes.Buffer) {
				certs := map[string]*tls.Certificate{good: s.root.Issue("mx.d.example"), bad: s.root.Issue("other.example"), clear: nil}
				for _, kind := range tt.sessions {
					s.session(certs[string(kind)])
					time.Sleep(tt.each)
				}
				need := s.session(certs[good])
				if got := need.Kind == Remembered; got != tt.want || got != (need.Level == Verified) {
					t.Errorf("%+v", need)
				}
				if log.Len() > 0 {
					t.Errorf("logged: %s", log)
				}
			})
		})
	}
}

// TestMemoryFails: mail waits from the first failure for as long as is set, all are told once, and then it goes as before.
func TestMemoryFails(t *testing.T) {
	remembering(t, func(t *testing.T, s *site, log *bytes.Buffer) {
		good := s.root.Issue("mx.d.example")
		for range 5 {
			s.session(good)
			time.Sleep(24 * time.Hour)
		}
		for hour := range 24 {
			if need := s.session(nil); need.Kind != Remembered || !strings.Contains(need.Words, "postroad tls forget d.example") {
				t.Fatalf("hour %d: %+v", hour, need)
			}
			time.Sleep(time.Hour)
		}
		if n := strings.Count(log.String(), "its mail waits"); n != 1 || !strings.Contains(log.String(), "level=WARN") {
			t.Errorf("told %d times: %s", n, log)
		}
		if need := s.session(nil); need.Level != Opportunistic {
			t.Errorf("after a day: %+v", need)
		}
		if state, err := s.policies.Show("d.example"); err != nil || state.Memory != nil {
			t.Errorf("%+v, %v", state.Memory, err)
		}
		if n := s.policies.memory.count.Load(); n != 0 {
			t.Errorf("%d memories are counted", n)
		}
	})
}

// TestMemoryRecovers: a good session ends the waiting, and its end begins anew with the next failure.
func TestMemoryRecovers(t *testing.T) {
	remembering(t, func(t *testing.T, s *site, log *bytes.Buffer) {
		good := s.root.Issue("mx.d.example")
		for range 5 {
			s.session(good)
			time.Sleep(24 * time.Hour)
		}
		for range 10 {
			s.session(nil)
			time.Sleep(20 * time.Hour)
			s.session(good)
			time.Sleep(20 * time.Hour)
		}
		if need := s.session(nil); need.Kind != Remembered {
			t.Errorf("%+v", need)
		}
		if n := strings.Count(log.String(), "its mail waits"); n != 11 {
			t.Errorf("told %d times", n)
		}
	})
}

// TestMemoryForgivesExpiry, and nothing else: a certificate that has run out is a mistake, which the right key goes with.
func TestMemoryForgivesExpiry(t *testing.T) {
	remembering(t, func(t *testing.T, s *site, _ *bytes.Buffer) {
		good := s.root.Issue("mx.d.example")
		for range 5 {
			s.session(good)
			time.Sleep(24 * time.Hour)
		}
		need := s.session(good)
		over := time.Now().Add(-time.Hour)
		for _, tt := range []struct {
			cert *tls.Certificate
			good bool
		}{
			{s.root.IssueLeaf(tlstest.Leaf{Names: []string{"mx.d.example"}, NotAfter: over}), true},
			{s.root.IssueLeaf(tlstest.Leaf{Names: []string{"other.example"}, NotAfter: over}), false},
			{tlstest.NewAuthority(t).IssueLeaf(tlstest.Leaf{Names: []string{"mx.d.example"}, NotAfter: over}), false},
		} {
			if err := need.Verify(state(t, tt.cert)); (err == nil) != tt.good {
				t.Errorf("%q: %v", tt.cert.Leaf.DNSNames, err)
			}
		}
		if need.Verify(tls.ConnectionState{}) == nil {
			t.Error("no certificate is good")
		}
	})
}

// TestMemoryAges: of a domain to which no mail goes, nothing is remembered after two months.
func TestMemoryAges(t *testing.T) {
	remembering(t, func(t *testing.T, s *site, _ *bytes.Buffer) {
		good := s.root.Issue("mx.d.example")
		for range 5 {
			s.session(good)
			time.Sleep(24 * time.Hour)
		}
		defer s.run()()
		pass(50 * 24 * time.Hour)
		if state, _ := s.policies.Show("d.example"); state.Memory == nil {
			t.Error("it is forgotten too soon")
		}
		pass(15 * 24 * time.Hour)
		if state, _ := s.policies.Show("d.example"); state.Memory != nil {
			t.Error("it is not forgotten")
		}
	})
}

// TestMemoryIsOff: where nothing is to be remembered, nothing is stored.
func TestMemoryIsOff(t *testing.T) {
	remembering(t, func(t *testing.T, s *site, _ *bytes.Buffer) {
		s.policies.cfg.Memory = 0
		for range 10 {
			s.session(s.root.Issue("mx.d.example"))
			time.Sleep(24 * time.Hour)
		}
		if need := s.session(nil); need.Level != Opportunistic {
			t.Errorf("%+v", need)
		}
		if state, err := s.policies.Show("d.example"); err != nil || state.Memory != nil {
			t.Errorf("%+v, %v", state, err)
		}
	})
}

// TestMemoryWritesLittle: sessions that change nothing write nothing.
func TestMemoryWritesLittle(t *testing.T) {
	remembering(t, func(t *testing.T, s *site, _ *bytes.Buffer) {
		f := &faulty{Store: s.policies.cfg.Store}
		f.left.Store(1 << 40)
		s.policies.cfg.Store = counting{f, new(int)}
		writes := s.policies.cfg.Store.(counting).n
		good := s.root.Issue("mx.d.example")
		for range 30 * 24 * 6 { // a month, a session every ten minutes
			s.session(good)
			time.Sleep(10 * time.Minute)
		}
		if *writes > 72+30 {
			t.Errorf("%d writes", *writes)
		}
	})
}

// counting counts what is written.
type counting struct {
	*faulty
	n *int
}

// TestMemoryBesidePolicies: an enforced policy comes first; one that is only tested does not take the memory's place.
func TestMemoryBesidePolicies(t *testing.T) {
	remembering(t, func(t *testing.T, s *site, _ *bytes.Buffer) {
		good := s.root.Issue("mx.d.example")
		for range 5 {
			s.session(good)
			time.Sleep(24 * time.Hour)
		}
		s.publish("1", strings.Replace(enforced, "enforce", "testing", 1))
		if need := s.session(good); need.Kind != Remembered || need.Policy().Type != tlsrpt.STS {
			t.Errorf("beside a policy that is tested: %+v", need)
		}
		time.Sleep(minAge)
		s.publish("2", enforced)
		if need := s.session(good); need.Kind != MTASTS || need.Level != Verified {
			t.Errorf("beside an enforced policy: %+v", need)
		}
	})
}

// TestReports: each session is one result, of the type that RFC 8460, 4.3 has for it, under the policy that was applied.
func TestReports(t *testing.T) {
	root := tlstest.NewAuthority(t)
	chain := state(t, root.Issue("mx.d.example"))
	verify := func(o x509.VerifyOptions) error { return verifyChain(chain.PeerCertificates, o) }
	sts := Need{Kind: MTASTS, Level: Verified, policy: (&STS{Mode: Enforce, MX: []string{"mx.d.example"}, MaxAge: time.Hour}).report()}
	tested := sts
	tested.Level = Opportunistic
	none := Need{policy: tlsrpt.Policy{Type: tlsrpt.NoPolicy}}
	for _, tt := range []struct {
		name string
		s    Session
		want tlsrpt.Failure
	}{
		{"good", Session{Need: sts, TLS: "TLS 1.3"}, ""},
		{"no STARTTLS", Session{Need: sts, Err: errors.New("x"), NotOffered: true}, tlsrpt.StartTLSNotSupported},
		{"no STARTTLS, nobody minds", Session{Need: tested, Verified: errors.New("in the clear")}, tlsrpt.StartTLSNotSupported},
		{"no STARTTLS, without a policy", Session{Need: none, Verified: errors.New("in the clear")}, tlsrpt.StartTLSNotSupported},
		{"another's name", Session{Need: sts, Err: fmt.Errorf("TLS: %w", verify(x509.VerifyOptions{Roots: root.Pool(), CurrentTime: now, DNSName: "x.example"}))}, tlsrpt.CertificateHostMismatch},
		{"expired", Session{Need: sts, Err: verify(x509.VerifyOptions{Roots: root.Pool(), CurrentTime: now.AddDate(200, 0, 0)})}, tlsrpt.CertificateExpired},
		{"nobody's", Session{Need: sts, Err: verify(x509.VerifyOptions{Roots: x509.NewCertPool(), CurrentTime: now})}, tlsrpt.CertificateNotTrusted},
		{"nobody's, nobody minds", Session{Need: tested, TLS: "TLS 1.3", Verified: verify(x509.VerifyOptions{Roots: x509.NewCertPool(), CurrentTime: now})}, tlsrpt.CertificateNotTrusted},
		{"nobody's, without a policy", Session{Need: none, TLS: "TLS 1.3", Verified: verify(x509.VerifyOptions{Roots: x509.NewCertPool(), CurrentTime: now})}, ""},
		{"no TLSA record is for it", Session{Need: sts, Err: errNoMatch}, tlsrpt.CertificateNotTrusted},
		{"the handshake fails", Session{Need: none, Err: errors.New("EOF")}, tlsrpt.ValidationFailure},
		{"unlisted", Session{Need: tested, TLS: "TLS 1.3", Verified: unlisted("d.example", "mx")}, tlsrpt.ValidationFailure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := resultOf("d.example", &tt.s)
			if r.Failure != tt.want || r.Domain != "d.example" || r.Policy.Type != tt.s.Need.policy.Type {
				t.Errorf("%+v, want %q", r, tt.want)
			}
			if (r.Failure != "") != (r.Reason != "") && !tt.s.NotOffered {
				t.Errorf("%q because of %q", r.Failure, r.Reason)
			}
		})
	}
	if got := sts.Policy(); !slices.Equal(got.Strings, []string{"version: STSv1", "mode: enforce", "mx: mx.d.example", "max_age: 3600"}) {
		t.Errorf("%q", got.Strings)
	}
}

func (c counting) UpdateSoon(fn func(store.Tx) error, drafts ...*store.Draft) error {
	*c.n++
	return c.faulty.UpdateSoon(fn, drafts...)
}
