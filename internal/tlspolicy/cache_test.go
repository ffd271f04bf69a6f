package tlspolicy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/dns"
	"postroad/internal/dns/dnstest"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/internal/tlspolicy/tlstest"
	"postroad/internal/tlsrpt"
)

// site is a domain d.example with MTA-STS, and its policy host.
type site struct {
	t        *testing.T
	dns      *dnstest.Resolver
	root     *tlstest.Authority
	web      *tlstest.Web
	store    Store
	recorder recorder
	policies *Policies

	mu      sync.Mutex // guards what follows
	cert    *tls.Certificate
	answer  http.HandlerFunc
	fetches int
}

const enforced = "version: STSv1\nmode: enforce\nmx: mx.d.example\nmax_age: 604800\n"

// newSite is used in a bubble.
func newSite(t *testing.T) *site {
	s := &site{t: t, dns: new(dnstest.Resolver), root: tlstest.NewAuthority(t), store: storetest.Open(t)}
	s.web = tlstest.NewWeb(t, func() *tls.Certificate {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.cert
	}, s)
	s.dns.Host("mta-sts.d.example", "203.0.114.9")
	s.shows(s.root.Issue("mta-sts.d.example"))
	s.publish("1", enforced)
	s.open()
	return s
}

func (s *site) open() {
	s.policies = openPolicies(s.t, Config{
		Store: s.store, Resolver: s.dns, Dial: s.web.Dial, RootCAs: s.root.Pool(), Recorder: &s.recorder,
	})
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.fetches++
	answer := s.answer
	s.mu.Unlock()
	if r.Host != "mta-sts.d.example" || r.URL.Path != "/.well-known/mta-sts.txt" || r.Method != "GET" {
		s.t.Errorf("%s %s %s is asked for", r.Method, r.Host, r.URL)
	}
	answer(w, r)
}

func (s *site) shows(cert *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert = cert
}

func (s *site) answers(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = h
}

// publish sets the text record, none for an empty id, and the file.
func (s *site) publish(id, file string) {
	s.record(id)
	s.answers(plain(file))
}

func (s *site) record(id string) {
	if id == "" {
		s.dns.TXT("_mta-sts.d.example")
	} else {
		s.dns.TXT("_mta-sts.d.example", "v=STSv1; id="+id+";")
	}
}

func plain(file string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, file)
	}
}

// fetched returns and forgets how often the file was asked for.
func (s *site) fetched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.fetches
	s.fetches = 0
	return n
}

// policy is what holds for d.example now.
func (s *site) policy() *Policy {
	s.t.Helper()
	d, err := s.policies.Domain(s.t.Context(), "d.example", dns.Answer[string]{Records: []string{"mx.d.example"}, Name: "d.example"})
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// want holds the mode that is applied, and its id, against what it should be: "enforce 1", or "" for none.
func (s *site) want(want string) {
	s.t.Helper()
	got := ""
	if d := s.policy(); d.sts != nil {
		got = string(d.sts.Mode) + " " + d.sts.ID
	}
	if got != want {
		s.t.Errorf("after %s the policy is %q, want %q", time.Since(epoch), got, want)
	}
}

// epoch is when bubbles begin.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// bubble runs a test of a site in a bubble.
func bubble(t *testing.T, fn func(*testing.T, *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, newSite(t)) })
}

// run lets Run go on until the returned function is called.
func (s *site) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.policies.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	}
}

// pass lets time pass.
func pass(d time.Duration) { time.Sleep(d); synctest.Wait() }

func TestPolicyIsFetchedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		for range 3 {
			s.want("enforce 1")
		}
		if n := s.fetched(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		if got := s.web.Dialled(); !slices.Equal(got, []string{"203.0.114.9:443"}) {
			t.Errorf("dialled: %q", got)
		}
		s.open() // as after a restart
		s.want("enforce 1")
		if n := s.fetched(); n != 0 {
			t.Errorf("%d fetches after a restart", n)
		}
	})
}

// TestPolicyHosts are the ways in which a policy cannot be had (RFC 8461, 3.3): mail goes as without one.
func TestPolicyHosts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*site)
		failure tlsrpt.Failure
	}{
		{"not found", func(s *site) { s.answers(http.NotFound) }, tlsrpt.STSPolicyFetchError},
		{"a redirect to itself", func(s *site) {
			s.answers(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, r.URL.String()+"?", http.StatusFound)
			})
		}, tlsrpt.STSPolicyFetchError},
		{"a redirect with a policy", func(s *site) {
			s.answers(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "https://mta-sts.d.example/other")
				w.Header().Set("Content-Type", "text/plain")
				w.WriteHeader(301)
				fmt.Fprint(w, enforced)
			})
		}, tlsrpt.STSPolicyFetchError},
		{"another success", func(s *site) {
			s.answers(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(203); plain(enforced)(w, r) })
		}, tlsrpt.STSPolicyFetchError},
		{"HTML", func(s *site) {
			s.answers(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				fmt.Fprint(w, enforced)
			})
		}, tlsrpt.STSPolicyInvalid},
		{"no type", func(s *site) {
			s.answers(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				fmt.Fprint(w, enforced)
			})
		}, tlsrpt.STSPolicyInvalid},
		{"too large", func(s *site) { s.publish("1", enforced+strings.Repeat("x: y\n", maxPolicy/5)) }, tlsrpt.STSPolicyInvalid},
		{"without an end", func(s *site) {
			s.answers(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				for {
					if _, err := fmt.Fprint(w, strings.Repeat("x: y\n", 1000)); err != nil {
						return
					}
				}
			})
		}, tlsrpt.STSPolicyInvalid},
		{"a header without an end", func(s *site) {
			s.answers(func(w http.ResponseWriter, r *http.Request) {
				for i := range 1000 {
					w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 100))
				}
				plain(enforced)(w, r)
			})
		}, tlsrpt.STSPolicyFetchError},
		{"slow", func(s *site) {
			s.answers(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		}, tlsrpt.STSPolicyFetchError},
		{"slow, but never silent", func(s *site) {
			s.answers(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				for r.Context().Err() == nil {
					fmt.Fprint(w, "x: y\n")
					w.(http.Flusher).Flush()
					time.Sleep(time.Second)
				}
			})
		}, tlsrpt.STSPolicyFetchError},
		{"no policy", func(s *site) { s.publish("1", "hello") }, tlsrpt.STSPolicyInvalid},
		{"another's certificate", func(s *site) { s.shows(s.root.Issue("d.example")) }, tlsrpt.STSWebPKIInvalid},
		{"a certificate that nobody knows", func(s *site) {
			s.shows(tlstest.NewAuthority(s.t).Issue("mta-sts.d.example"))
		}, tlsrpt.STSWebPKIInvalid},
		{"a certificate that has expired", func(s *site) {
			s.shows(s.root.IssueLeaf(tlstest.Leaf{Names: []string{"mta-sts.d.example"}, NotAfter: epoch.Add(-time.Hour)}))
		}, tlsrpt.STSWebPKIInvalid},
		{"no such host", func(s *site) { s.dns.Host("mta-sts.d.example") }, tlsrpt.STSPolicyFetchError},
		{"no answer of its name servers", func(s *site) { s.dns.Fail("mta-sts.d.example", dnstest.ErrServFail) }, tlsrpt.STSPolicyFetchError},
		{"an address inside", func(s *site) { s.dns.Host("mta-sts.d.example", "127.0.0.1", "10.0.0.1", "::1", "fe80::1") }, tlsrpt.STSPolicyFetchError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *site) {
				tt.change(s)
				start := time.Now()
				s.want("")
				if took := time.Since(start); took > fetchTime {
					t.Errorf("it took %s", took)
				}
				if got := s.recorder.failures(); !slices.Equal(got, []tlsrpt.Failure{tt.failure}) {
					t.Errorf("recorded: %q, want %q: %q", got, tt.failure, s.recorder.list)
				}
				s.dns.Fail("mta-sts.d.example", nil)
				s.dns.Host("mta-sts.d.example", "203.0.114.9")
				s.shows(s.root.Issue("mta-sts.d.example"))
				s.publish("1", enforced)
				s.fetched()
				s.want("") // it is not asked again at once
				if n := s.fetched(); n != 0 {
					t.Errorf("%d fetches", n)
				}
				time.Sleep(backOff)
				s.want("enforce 1")
			})
		})
	}
}

// TestPolicyHostDials: what was checked is what is dialled, whatever the name leads to a moment later.
func TestPolicyHostDials(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.dns.Host("mta-sts.d.example", "10.0.0.1", "203.0.114.7", "203.0.114.8", "192.168.0.1")
		dialled := []string(nil)
		s.policies.cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			s.dns.Host("mta-sts.d.example", "127.0.0.1")
			if dialled = append(dialled, addr); len(dialled) == 1 {
				return nil, errors.New("refused")
			}
			return s.web.Dial(ctx, network, addr)
		}
		s.want("enforce 1")
		if !slices.Equal(dialled, []string{"203.0.114.7:443", "203.0.114.8:443"}) {
			t.Errorf("dialled: %q", dialled)
		}
	})
}

// TestB07Cached: as long as a policy holds, nothing that an attacker can do takes it away (RFC 8461, 10.2).
func TestB07Cached(t *testing.T) {
	for name, attack := range map[string]func(*site){
		"the text record is gone":       func(s *site) { s.record("") },
		"the text record has shrunk":    func(s *site) { s.dns.TXT("_mta-sts.d.example", "v=STSv1;") },
		"there are two text records":    func(s *site) { s.dns.TXT("_mta-sts.d.example", "v=STSv1; id=1;", "v=STSv1; id=2;") },
		"name servers do not answer":    func(s *site) { s.dns.Fail("_mta-sts.d.example", dnstest.ErrServFail) },
		"the policy host is blocked":    func(s *site) { s.record("2"); s.dns.Fail("mta-sts.d.example", dnstest.ErrServFail) },
		"the policy host is another":    func(s *site) { s.record("2"); s.shows(tlstest.NewAuthority(s.t).Issue("mta-sts.d.example")) },
		"the policy host says nonsense": func(s *site) { s.publish("2", "mode: none") },
		"the policy host does not know": func(s *site) { s.record("2"); s.answers(http.NotFound) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *site) {
				s.want("enforce 1")
				stop := s.run()
				attack(s)
				s.answersToRefresh(name)
				for range 6 {
					s.want("enforce 1")
					pass(24 * time.Hour)
				}
				stop()
				s.open()
				s.want("enforce 1")
				pass(24 * time.Hour)
				s.want("") // it has run out: a week has passed
			})
		})
	}
}

// answersToRefresh keeps an attack of the text record alone from being undone by the daily refresh, which asks the policy
// host whatever the record says.
func (s *site) answersToRefresh(name string) {
	if !strings.Contains(name, "policy host") {
		s.answers(http.NotFound)
	}
}

func TestRefresh(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.want("enforce 1")
		defer s.run()()
		s.fetched()
		s.record("") // a refresh does not depend on it
		for day := range 20 {
			pass(24 * time.Hour)
			if n := s.fetched(); n != 1 {
				t.Errorf("day %d: %d fetches", day, n)
			}
			s.want("enforce 1")
		}
		s.answers(plain(strings.Replace(enforced, "enforce", "testing", 1)))
		pass(25 * time.Hour)
		s.want("testing 1")
		s.record("2")
		s.answers(plain(strings.Replace(enforced, "enforce", "none", 1)))
		s.want("")
		if s.fetched() != 2 {
			t.Error("the new id is not a reason to ask")
		}
		state, err := s.policies.Show("d.example")
		if err != nil || state.STS.Mode != Off || state.STS.ID != "2" {
			t.Errorf("%+v, %v", state.STS, err)
		}
	})
}

// TestRefreshTrouble: the administrator is told, the policy holds, and it is tried again sooner than in a day.
func TestRefreshTrouble(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.want("enforce 1")
		defer s.run()()
		s.answers(http.NotFound)
		pass(25 * time.Hour)
		state, err := s.policies.Show("d.example")
		if err != nil || !strings.Contains(state.STS.Trouble, "404") {
			t.Errorf("%+v, %v", state.STS, err)
		}
		s.answers(plain(enforced))
		pass(5 * time.Hour)
		if state, _ := s.policies.Show("d.example"); state.STS.Trouble != "" || time.Since(state.STS.Fetched) > 5*time.Hour {
			t.Errorf("%+v", state.STS)
		}
	})
}

// TestUnusedPolicyRunsOut: what no mail asks for is not asked of its host for ever.
func TestUnusedPolicyRunsOut(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.want("enforce 1")
		defer s.run()()
		pass(useless + 8*24*time.Hour)
		if n := s.fetched(); n < 25 || n > 32 {
			t.Errorf("%d fetches", n)
		}
		if state, err := s.policies.Show("d.example"); err != nil || state.STS != nil {
			t.Errorf("%+v, %v", state, err)
		}
		if n := s.policies.sts.count.Load(); n != 0 {
			t.Errorf("%d policies are counted", n)
		}
	})
}

// TestNewID: an id that changes is asked for, but not more often than every five minutes, however it goes.
func TestNewID(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.want("enforce 1")
		for i := range 100 {
			s.record(fmt.Sprint("x", i))
			s.want("enforce 1")
		}
		time.Sleep(minAge)
		s.want("enforce x99")
		if n := s.fetched(); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
}

// TestShortAge: a policy that is over at once serves until it may be asked for again.
func TestShortAge(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.publish("1", strings.Replace(enforced, "604800", "0", 1))
		for range 10 {
			s.want("enforce 1")
		}
		if n := s.fetched(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		s.record("")
		time.Sleep(minAge)
		s.want("")
	})
}

// TestOneFetchForAll: many who ask at the same time are one fetch; when the first gives up, another goes on.
func TestOneFetchForAll(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.answers(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(10 * time.Second)
			plain(enforced)(w, r)
		})
		first, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() {
			if _, err := s.policies.Domain(first, "d.example", dns.Answer[string]{}); err == nil {
				t.Error("who gives up is told of no policy")
			}
		})
		synctest.Wait()
		for range 50 {
			work.Go(func() { s.want("enforce 1") })
		}
		time.Sleep(5 * time.Second)
		cancel()
		work.Wait()
		if n := s.fetched(); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
}

// TestLiteral: nobody publishes a policy for an address.
func TestLiteral(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		d, err := s.policies.Domain(t.Context(), "[203.0.114.1]", dns.Answer[string]{Secure: true})
		if err != nil {
			t.Fatal(err)
		}
		need, err := d.Host(t.Context(), "[203.0.114.1]", dns.Answer[netip.Addr]{Secure: true})
		if err != nil || need.Level != Opportunistic {
			t.Errorf("%+v, %v", need, err)
		}
		d.Report(Session{Host: "[203.0.114.1]", Need: need, TLS: "TLS 1.3"})
	})
}

// faulty is a store that fails from some access on.
type faulty struct {
	Store
	left   atomic.Int64 // accesses until then
	landed bool         // what fails is done all the same
}

var errFault = errors.New("input/output error")

func (f *faulty) fails() bool { return f.left.Add(-1) < 0 }

func (f *faulty) View(fn func(store.Reader) error) error {
	if f.fails() {
		return errFault
	}
	return f.Store.View(fn)
}

func (f *faulty) Update(fn func(store.Tx) error, drafts ...*store.Draft) error {
	if f.fails() {
		if f.landed {
			f.Store.Update(fn, drafts...)
		}
		return errFault
	}
	return f.Store.Update(fn, drafts...)
}

func (f *faulty) UpdateSoon(fn func(store.Tx) error, drafts ...*store.Draft) error {
	return f.Update(fn, drafts...)
}

// TestStoreFaults: at each access of the store that fails, a policy that was there holds, or it is an error, and mail
// waits; it is never as if there were none. Once the store works again, all is as it should be.
func TestStoreFaults(t *testing.T) {
	for _, landed := range []bool{false, true} {
		for _, known := range []bool{false, true} {
			for n, more := int64(0), true; more; n++ {
				synctest.Test(t, func(t *testing.T) { more = testStoreFault(t, n, landed, known) })
				if n > 20 {
					t.Fatal("there is no end")
				}
			}
		}
	}
}

func testStoreFault(t *testing.T, n int64, landed, known bool) (tripped bool) {
	s := newSite(t)
	f := &faulty{Store: s.store, landed: landed}
	f.left.Store(1 << 40)
	s.store = f
	s.open()
	if known {
		s.want("enforce 1")
		s.publish("2", enforced)
		pass(25 * time.Hour)
	}
	f.left.Store(n)
	d, err := s.policies.Domain(t.Context(), "d.example", dns.Answer[string]{})
	if err == nil && (d.sts == nil || d.sts.Mode != Enforce) || err != nil && !errors.Is(err, errFault) {
		t.Errorf("with fault %d: %+v, %v", n, d, err)
	}
	tripped = f.left.Load() < 0
	f.left.Store(1 << 40)
	pass(minAge)
	want := "enforce 1"
	if known {
		want = "enforce 2"
	}
	s.want(want)
	s.open()
	s.want(want)
	if n := s.policies.sts.count.Load(); n != 1 {
		t.Errorf("%d policies are counted", n)
	}
	return tripped
}

// TestDamagedRecord: what cannot be read is no word that there is nothing.
func TestDamagedRecord(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		err := s.store.Update(func(tx store.Tx) error {
			tx.Put(s.policies.sts.key("d.example"), []byte{1, 2, 3})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.policies.Domain(t.Context(), "d.example", dns.Answer[string]{}); !errors.Is(err, store.ErrRecord) {
			t.Errorf("%v", err)
		}
		if err := s.policies.Forget("d.example"); err != nil {
			t.Fatal(err)
		}
		s.want("enforce 1")
	})
}

// TestTableIsBounded: when there are too many policies, those that ask for least go first.
func TestTableIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.policies.sts.most = 300
		add := func(domain string, mode Mode) {
			now := time.Now()
			if err := s.policies.save(domain, &STS{ID: "1", Mode: mode, MX: []string{"a"}, MaxAge: 7 * 24 * time.Hour, Fetched: now, Used: now}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		s.want("enforce 1")
		for i := range 150 {
			add(fmt.Sprintf("t%d.example", i), Testing)
		}
		for i := range 150 {
			add(fmt.Sprintf("e%d.example", i), Enforce)
		}
		count := func() (n int) {
			for state, err := range s.policies.List(t.Context()) {
				if err != nil || state.STS == nil {
					t.Fatal(state, err)
				}
				n++
			}
			return n
		}
		if n := count(); n > 300 || n < 290 || int64(n) != s.policies.sts.count.Load() {
			t.Errorf("%d policies, %d are counted", n, s.policies.sts.count.Load())
		}
		s.record("")
		s.want("enforce 1")
		for i := range 400 {
			add(fmt.Sprintf("f%d.example", i), Enforce)
		}
		if n := count(); n > 300 || n < 290 || int64(n) != s.policies.sts.count.Load() {
			t.Errorf("%d policies, %d are counted", n, s.policies.sts.count.Load())
		}
	})
}

func TestShowListForget(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.want("enforce 1")
		s.policies.cfg.Memory = 24 * time.Hour
		good := Session{Host: "mx", Need: Need{pkix: true}, TLS: "TLS 1.3"}
		for i := range 250 {
			if err := s.policies.learn(fmt.Sprintf("m%03d.example", i), &good, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.policies.learn("d.example", &good, ""); err != nil {
			t.Fatal(err)
		}
		var domains []string
		for state, err := range s.policies.List(t.Context()) {
			if err != nil || (state.STS != nil) != (state.Domain == "d.example") || state.Memory == nil {
				t.Errorf("%+v, %v", state, err)
			}
			domains = append(domains, state.Domain)
		}
		if len(domains) != 251 || !slices.IsSorted(domains) || len(slices.Compact(domains)) != 251 {
			t.Errorf("%d domains: %q", len(domains), domains)
		}
		policy := s.policy()
		if err := s.policies.Forget("d.example"); err != nil || policy.Holds() {
			t.Errorf("%v; connections go on: %v", err, policy.Holds())
		}
		if err := s.policies.Forget("d.example"); !errors.Is(err, ErrUnknown) {
			t.Errorf("%v", err)
		}
		if n := s.policies.memory.count.Load(); n != 250 {
			t.Errorf("%d memories are counted", n)
		}
	})
}
