package delivery

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/delivery/smtpc"
	"postroad/internal/dns"
	"postroad/internal/dns/dnstest"
	"postroad/internal/envelope"
	"postroad/internal/listen/listentest"
	"postroad/spool"
)

// bubble runs a test in a bubble, with a house in it.
func bubble(t *testing.T, fn func(*testing.T, *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, newFixture(t)) })
}

// site gives a domain one mail host with one address, and a peer there.
func (f *fixture) site(domain, ip string, p *peer) *peer {
	f.dns.MX(domain, "mx."+domain)
	f.dns.Host("mx."+domain, ip)
	return f.net.peer(ip+":25", p)
}

// public is an address that mail may go to, for site n.
func public(n int) string { return fmt.Sprintf("203.0.114.%d", n) }

func TestRelay(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{extensions: []string{"PIPELINING", "SIZE 1000000", "8bitmime"}})
		f.start()
		id := f.submit("<alice@a.test>", "one@y.test", "two@y.test", "bob@a.test")
		f.drained()
		got := p.got()
		want := letter[strings.Index(letter, "\n")+1:]
		if len(got) != 1 || got[0].text != want || !slices.Equal(got[0].to, []string{"one@y.test", "two@y.test"}) {
			t.Fatalf("the peer has %q", got)
		}
		if got[0].from != fmt.Sprintf("FROM:<alice@a.test> SIZE=%d", len(want)) {
			t.Errorf("MAIL %s", got[0].from)
		}
		if b := f.mail("bob"); len(b) != 1 {
			t.Errorf("bob has %q", b)
		}
		if ev := f.events(id); !slices.Contains(ev, "relayed one@y.test,two@y.test 250 2.0.0 queued as 1") {
			t.Errorf("trace: %q", ev)
		}
		if a := f.mail("alice"); len(a) != 0 {
			t.Errorf("alice has %q", a)
		}
	})
}

// TestFaults breaks each step of a conversation in each way. Only a 5yz reply to a
// command about the message fails it; whatever else happens, it is deferred, and
// relayed once the fault is gone.
func TestFaults(t *testing.T) {
	for _, pipelining := range []bool{false, true} {
		for _, phase := range []string{"greeting", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "dot"} {
			for _, fault := range []string{"451 4.3.0 later", "551 5.5.0 never", "421 4.3.2 closing", "FIN", "RST", "%$garbage", "silence", "250-never\r\n251 mixed", "199 what"} {
				t.Run(fmt.Sprintf("%s %q %v", phase, fault, pipelining), func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T, f *fixture) { testFault(t, f, phase, fault, pipelining) })
				})
			}
		}
	}
}

func testFault(t *testing.T, f *fixture, phase, fault string, pipelining bool) {
	p := f.site("y.test", public(1), &peer{say: map[string]string{phase: fault}})
	if pipelining {
		p.extensions = append(p.extensions, "PIPELINING")
	}
	if phase == "STARTTLS" {
		p.tls, _ = listentest.Certificate(t, "other.test")
	}
	f.start()
	id := f.submit("<alice@a.test>", "one@y.test")
	f.pass(time.Hour)
	about := phase == "MAIL" || phase == "RCPT" || phase == "DATA" || phase == "dot"
	refusal := strings.HasPrefix(fault, "4") || strings.HasPrefix(fault, "5")
	switch {
	case phase == "STARTTLS", phase == "EHLO" && strings.HasPrefix(fault, "551"): // there is a way without
		f.drained()
		if got := p.got(); len(got) != 1 {
			t.Errorf("the peer has %q", got)
		}
		return
	case about && strings.HasPrefix(fault, "551"):
		f.drained()
		if got := f.mail("alice"); len(got) != 1 || !strings.Contains(got[0], "Diagnostic-Code: smtp; 551 5.5.0 never") {
			t.Errorf("alice has %q", got)
		}
		return
	}
	if q := f.queue(); len(q) != 1 || q[0] != "one@y.test deferred" {
		t.Fatalf("the queue holds %q", q)
	}
	doubtful := slices.ContainsFunc(f.events(id), func(e string) bool { return strings.Contains(e, "possibly delivered") })
	if want := phase == "dot" && !refusal; doubtful != want {
		t.Errorf("possibly delivered: %v, want %v: %q", doubtful, want, f.events(id))
	}
	before := len(p.got())
	p.answers(phase, "")
	f.pass(4 * time.Hour)
	f.drained()
	if got := p.got(); len(got) != before+1 {
		t.Errorf("the peer has %q", got)
	}
}

func TestMixedRecipients(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{extensions: []string{"PIPELINING"}, say: map[string]string{
			"RCPT no@y.test": "550 5.1.1 unknown", "RCPT later@y.test": "450 4.2.0 greylisted"}})
		f.start()
		f.submit("<alice@a.test>", "yes@y.test", "no@y.test", "later@y.test")
		settle()
		if q := f.queue(); len(q) != 1 || q[0] != "later@y.test deferred" {
			t.Errorf("the queue holds %q", q)
		}
		got := f.mail("alice")
		if len(got) != 1 || !strings.Contains(got[0], "rfc822; no@y.test") || strings.Contains(got[0], "rfc822; yes@y.test") || strings.Contains(got[0], "rfc822; later@y.test") {
			t.Errorf("alice has %q", got)
		}
		p.answers("RCPT later@y.test", "")
		f.pass(10 * time.Minute)
		f.drained()
		if got := p.got(); len(got) != 2 || !slices.Equal(got[0].to, []string{"yes@y.test"}) || !slices.Equal(got[1].to, []string{"later@y.test"}) {
			t.Errorf("the peer has %q", got)
		}
	})
}

func TestFallbackToTheNextHost(t *testing.T) {
	for name, first := range map[string]*peer{
		"refuses connections": nil,
		"does not answer":     {blackhole: true},
		"greets with 554":     {say: map[string]string{"greeting": "554 5.7.1 not you"}},
		"takes no mail":       {say: map[string]string{"greeting": "521 5.3.2 not here"}},
		"says 421":            {say: map[string]string{"MAIL": "421 4.3.2 busy"}},
		"says 452":            {say: map[string]string{"MAIL": "452 4.3.1 disk full"}},
		"dies in mid-message": {say: map[string]string{"DATA": "RST"}},
		"knows only its own":  {say: map[string]string{"RCPT": "450 4.2.0 later"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				f.dns.MX("y.test", "mx1.y.test", "mx2.y.test")
				f.dns.Host("mx1.y.test", public(1))
				f.dns.Host("mx2.y.test", public(2))
				if first != nil {
					f.net.peer(public(1)+":25", first)
				}
				second := f.net.peer(public(2)+":25", &peer{})
				f.start()
				f.submit("<alice@a.test>", "one@y.test")
				f.pass(time.Minute)
				f.drained()
				if got := second.got(); len(got) != 1 {
					t.Errorf("the second host has %q", got)
				}
			})
		})
	}
}

// TestHostsThatTakeNoMail: what one host says of itself ends nothing as long as another may take the mail (RFC 7504).
func TestHostsThatTakeNoMail(t *testing.T) {
	no := map[string]string{"greeting": "521 5.3.2 not here"}
	for name, tt := range map[string]struct {
		first, second *peer // nil refuses connections
		trouble       bool  // the first cannot be looked up
		want          string
	}{
		"all of them":              {&peer{say: no}, &peer{say: no}, false, "Status: 5.3.2"},
		"the best does not answer": {nil, &peer{say: no}, false, ""},
		"the best says later":      {&peer{say: map[string]string{"RCPT": "450 4.2.0 later"}}, &peer{say: no}, false, ""},
		"the best has no address":  {nil, &peer{say: no}, true, ""},
		"the last does not answer": {&peer{say: no}, nil, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				f.dns.MX("y.test", "mx1.y.test", "mx2.y.test")
				f.dns.Host("mx1.y.test", public(1))
				f.dns.Host("mx2.y.test", public(2))
				if tt.trouble {
					f.dns.Fail("mx1.y.test", dnstest.ErrServFail)
				}
				for i, p := range []*peer{tt.first, tt.second} {
					if p != nil {
						f.net.peer(public(i+1)+":25", p)
					}
				}
				f.start()
				f.submit("<alice@a.test>", "one@y.test")
				f.pass(time.Minute)
				got := f.mail("alice")
				if tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
					t.Errorf("alice has %q", got)
				}
				if q := f.queue(); tt.want == "" && (len(got) > 0 || len(q) != 1 || q[0] != "one@y.test deferred") {
					t.Errorf("alice has %q, the queue %q", got, q)
				}
			})
		})
	}
}

// TestTooManyAtOnce: whom a server would only hear of in another transaction waits for nobody who is put off, and a 552 of
// one recipient too many fails nobody (RFC 9422, 4; RFC 5321, 4.5.3.1.10).
func TestTooManyAtOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		peer *peer
		want []string // deferred
	}{
		"the first is put off": {&peer{extensions: []string{"LIMITS RCPTMAX=1"}, say: map[string]string{"RCPT a@y.test": "450 4.2.0 later"}}, []string{"a@y.test deferred"}},
		"all are put off":      {&peer{extensions: []string{"LIMITS RCPTMAX=1"}, say: map[string]string{"RCPT": "452 4.2.0 later"}}, []string{"a@y.test deferred", "b@y.test deferred", "c@y.test deferred"}},
		"one at a time":        {&peer{extensions: []string{"LIMITS RCPTMAX=1"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				p := f.site("y.test", public(1), tt.peer)
				f.start()
				f.submit("<alice@a.test>", "a@y.test", "b@y.test", "c@y.test")
				f.pass(time.Minute)
				if q := f.queue(); !slices.Equal(q, tt.want) {
					t.Errorf("the queue holds %q, want %q", q, tt.want)
				}
				if got := p.got(); len(got) != 3-len(tt.want) {
					t.Errorf("the peer has %q", got)
				}
			})
		})
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(*fixture)
		want  string // in the report; empty when it is deferred
	}{
		{"null MX", func(f *fixture) { f.dns.MX("y.test", ".") }, "Status: 5.1.10"},
		{"no such domain", func(f *fixture) {}, "Status: 5.1.2"},
		{"mail host without address", func(f *fixture) { f.dns.MX("y.test", "gone.y.test") }, "Status: 5.1.2"},
		{"we are the mail host", func(f *fixture) { f.dns.MX("y.test", "MX.a.test", "worse.y.test") }, "Status: 5.4.6"},
		{"a private address", func(f *fixture) { f.dns.Host("y.test", "10.0.0.1", "::1", "127.0.0.1") }, "Status: 5.4.4"},
		{"a host with our name", func(f *fixture) {
			f.dns.Host("y.test", public(1))
			f.net.peer(public(1)+":25", &peer{say: map[string]string{"EHLO": "250 mx.a.test"}})
		}, "Status: 5.4.6"},
		{"MX in trouble", func(f *fixture) { f.dns.Fail("y.test", dnstest.ErrServFail) }, ""},
		{"address in trouble", func(f *fixture) {
			f.dns.MX("y.test", "gone.y.test", "mx.y.test")
			f.dns.Fail("mx.y.test", dnstest.ErrServFail)
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				tt.setup(f)
				f.start()
				f.submit("<alice@a.test>", "one@y.test")
				settle()
				got := f.mail("alice")
				if tt.want == "" {
					if q := f.queue(); len(q) != 1 || q[0] != "one@y.test deferred" || len(got) != 0 {
						t.Errorf("the queue holds %q, alice has %q", q, got)
					}
					return
				}
				if len(got) != 1 || !strings.Contains(got[0], tt.want) {
					t.Errorf("alice has %q, want %s", got, tt.want)
				}
				if d := f.net.dialled(); len(d) > 0 && !strings.HasPrefix(d[0], public(1)) {
					t.Errorf("dialled %q", d)
				}
			})
		})
	}
}

func TestImplicitMXAndLiteral(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.dns.Host("y.test", public(1))
		p1, p2 := f.net.peer(public(1)+":25", &peer{}), f.net.peer(public(2)+":25", &peer{})
		f.start()
		f.submit("<alice@a.test>", "one@y.test", "two@["+public(2)+"]")
		f.drained()
		if len(p1.got()) != 1 || len(p2.got()) != 1 {
			t.Errorf("the peers have %q and %q", p1.got(), p2.got())
		}
	})
}

func TestSmarthost(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		config, pool := listentest.Certificate(t, "relay.isp.test")
		p := f.net.peer("10.0.0.9:587", &peer{user: "me secret", tls: config})
		other := f.net.peer("10.0.0.8:25", &peer{})
		f.dns.Host("relay.isp.test", "10.0.0.9")
		f.cfg.TLS = &tls.Config{RootCAs: pool}
		f.cfg.Routes = []Route{
			{Domain: "*", Host: "relay.isp.test", Port: 587, TLS: smtpc.Required, Username: "me", Password: "secret"},
			{Domain: "inside.test", Host: "10.0.0.8", TLS: smtpc.None},
		}
		f.start()
		f.submit("<alice@a.test>", "one@y.test", "two@z.test", "three@inside.test")
		f.drained()
		if got := p.got(); len(got) != 1 || len(got[0].to) != 2 || p.secure != 1 {
			t.Errorf("the smarthost has %q, %d secure", got, p.secure)
		}
		if got := other.got(); len(got) != 1 || !slices.Equal(got[0].to, []string{"three@inside.test"}) {
			t.Errorf("the host inside has %q", got)
		}
	})
}

// TestSmarthostTrouble: a mistake in the route is not the sender's; the mail waits.
func TestSmarthostTrouble(t *testing.T) {
	config, _ := listentest.Certificate(t, "relay.isp.test")
	for name, tt := range map[string]struct {
		peer  *peer
		route Route
	}{
		"wrong password":       {&peer{user: "me other", tls: config}, Route{TLS: smtpc.Opportunistic, Username: "me", Password: "secret"}},
		"no password in clear": {&peer{user: "me secret"}, Route{TLS: smtpc.Opportunistic, Username: "me", Password: "secret"}},
		"no TLS offered":       {&peer{}, Route{TLS: smtpc.Required}},
		"unknown certificate":  {&peer{tls: config}, Route{TLS: smtpc.Required}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				tt.route.Domain, tt.route.Host = "*", "relay.isp.test"
				f.cfg.Routes = []Route{tt.route}
				f.dns.Host("relay.isp.test", "10.0.0.9")
				f.net.peer("10.0.0.9:25", tt.peer)
				f.start()
				f.submit("<alice@a.test>", "one@y.test")
				f.pass(time.Minute)
				if q := f.queue(); len(q) != 1 || q[0] != "one@y.test deferred" {
					t.Errorf("the queue holds %q", q)
				}
				for _, line := range tt.peer.commands() {
					if strings.HasPrefix(line, "MAIL") || strings.HasPrefix(line, "AUTH") && tt.peer.tls == nil {
						t.Errorf("it was told %q", line)
					}
				}
			})
		})
	}
}

func TestOpportunisticTLS(t *testing.T) {
	good, _ := listentest.Certificate(t, "whatever.test")
	old := good.Clone()
	old.MaxVersion = tls.VersionTLS11
	old.MinVersion = tls.VersionTLS10
	for name, tt := range map[string]struct {
		config *tls.Config
		conns  int
		secure int
	}{
		"any certificate will do":                    {good, 1, 1},
		"a failed handshake: once more in the clear": {old, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				p := f.site("y.test", public(1), &peer{tls: tt.config})
				f.start()
				f.submit("<alice@a.test>", "one@y.test")
				f.drained()
				if len(p.got()) != 1 || p.conns != tt.conns || p.secure != tt.secure {
					t.Errorf("%d mails, %d connections, %d secure", len(p.got()), p.conns, p.secure)
				}
			})
		})
	}
}

// TestRequireTLS: never in the clear (RFC 8689).
func TestRequireTLS(t *testing.T) {
	config, pool := listentest.Certificate(t, "mx.y.test")
	for name, tt := range map[string]struct {
		peer *peer
		from string
		want int
	}{
		"kept":                 {&peer{tls: config, extensions: []string{"REQUIRETLS"}}, "<alice@a.test>", 1},
		"no TLS":               {&peer{extensions: []string{"REQUIRETLS"}}, "<alice@a.test>", 0},
		"no promise":           {&peer{tls: config}, "<alice@a.test>", 0},
		"a report, kept":       {&peer{tls: config, extensions: []string{"REQUIRETLS"}}, "<>", 1},
		"a report, no TLS":     {&peer{extensions: []string{"REQUIRETLS"}}, "<>", 0},
		"a report, no promise": {&peer{tls: config}, "<>", 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				f.cfg.TLS = &tls.Config{RootCAs: pool}
				f.site("y.test", public(1), tt.peer)
				f.start()
				f.accept(&spool.Message{Envelope: envelope.Envelope{From: path(tt.from), RequireTLS: true}}, letter, f.rcpts("one@y.test")...)
				settle()
				if got := tt.peer.got(); len(got) != tt.want {
					t.Errorf("the peer has %q", got)
				}
			})
		})
	}
}

func TestConnectionIsUsedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		f.cfg.Limits = Limits{PerDestination: 1, MessagesPerConnection: 4}
		f.start()
		for range 10 {
			f.submit("<alice@a.test>", "one@y.test")
			f.drained()
		}
		if len(p.got()) != 10 || p.conns != 3 {
			t.Errorf("%d mails on %d connections", len(p.got()), p.conns)
		}
		f.pass(31 * time.Second) // idle ones are closed
		f.submit("<alice@a.test>", "one@y.test")
		f.drained()
		if p.conns != 4 {
			t.Errorf("%d connections", p.conns)
		}
	})
}

func TestIdleConnectionThatDied(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		p.before = func(phase string) {
			if phase == "greeting" {
				p.answers("MAIL", "")
			}
		}
		f.start()
		f.submit("<alice@a.test>", "one@y.test")
		f.drained()
		p.answers("MAIL", "RST")
		id := f.submit("<alice@a.test>", "one@y.test")
		f.drained()
		if len(p.got()) != 2 || p.conns != 2 || len(f.events(id)) != 2 {
			t.Errorf("%d mails on %d connections; %q", len(p.got()), p.conns, f.events(id))
		}
	})
}

// TestFiveDays: a destination that never takes it. The attempts follow the schedule,
// the sender is told of the delay once, and at the end of the failure.
func TestFiveDays(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "450 4.2.0 not today"}})
		start := time.Now()
		var at []time.Duration
		p.before = func(phase string) {
			if phase == "RCPT" {
				at = append(at, time.Since(start).Round(time.Minute))
			}
		}
		f.start()
		id := f.submit("<alice@a.test>", "one@y.test")
		f.pass(6 * 24 * time.Hour)
		f.drained()
		minutes := []time.Duration{0, 5, 10, 20, 40, 80, 160, 320, 560}
		for i, m := range minutes {
			if at[i] != m*time.Minute {
				t.Errorf("attempts at %v", at)
				break
			}
		}
		if last := at[len(at)-1]; last != 5*24*time.Hour || len(at) < 30 {
			t.Errorf("%d attempts, the last at %v", len(at), last)
		}
		got := f.mail("alice")
		if len(got) != 2 || !strings.Contains(got[0], "Action: delayed") || !strings.Contains(got[0], "Will-Retry-Until: Thu, 6 Jan 2000 00:00:00 +0000") ||
			!strings.Contains(got[1], "Action: failed") || !strings.Contains(got[1], "Status: 4.4.7") || !strings.Contains(got[1], "450 4.2.0 not today") {
			t.Errorf("alice has %q", got)
		}
		ev := f.events(id)
		if !slices.Contains(ev, "delayed one@y.test") || ev[len(ev)-1] != "expired one@y.test 450 4.2.0 not today" {
			t.Errorf("trace: %q", ev)
		}
	})
}

// TestReleaseTime: until then nothing is tried, also across a restart, and the days that a message has for delivery
// begin there.
func TestReleaseTime(t *testing.T) {
	const day = 24 * time.Hour
	bubble(t, func(t *testing.T, f *fixture) {
		start := time.Now()
		var mu sync.Mutex
		var seen []time.Duration
		attempts := func() []time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(seen)
		}
		p := f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "450 4.2.0 not today"}})
		p.before = func(phase string) {
			mu.Lock()
			defer mu.Unlock()
			if phase == "RCPT" {
				seen = append(seen, time.Since(start).Round(time.Minute))
			}
		}
		f.start()
		f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), Release: start.Add(10 * day)}},
			letter, f.rcpts("one@y.test", "bob@a.test")...)
		f.pass(5 * day)
		f.reopen()
		f.start()
		f.pass(5*day - time.Minute)
		if at, got := attempts(), f.mail("bob"); len(at) > 0 || len(got) > 0 {
			t.Fatalf("before its release: attempts at %v, bob has %q", at, got)
		}
		f.pass(2 * time.Minute)
		if got := f.mail("bob"); len(got) != 1 {
			t.Errorf("bob has %q", got)
		}
		f.pass(6 * day)
		f.drained()
		at := attempts()
		if len(at) < 30 || at[0] != 10*day || at[len(at)-1] != 15*day {
			t.Errorf("attempts at %v", at)
		}
		got := f.mail("alice")
		if len(got) != 2 || !strings.Contains(got[0], "Will-Retry-Until: Sun, 16 Jan 2000 00:00:00 +0000") || !strings.Contains(got[1], "Action: failed") {
			t.Errorf("alice has %q", got)
		}
	})
}

func TestNoReportAboutReports(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{say: map[string]string{"MAIL": "550 5.7.1 no"}})
		f.start()
		f.submit("<>", "one@y.test")
		f.submit("<nobody@y.test>", "two@y.test") // its report is refused, too
		f.pass(6 * 24 * time.Hour)
		f.drained()
		if got := f.mail("alice"); len(got) != 0 {
			t.Errorf("alice has %q", got)
		}
	})
}

func TestReportGoesToRemoteSender(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "550 5.1.1 no"}})
		home := f.site("x.test", public(2), &peer{})
		f.start()
		f.submit("<s@x.test>", "one@y.test")
		f.drained()
		if got := home.got(); len(got) != 1 || got[0].from != "FROM:<>" || !strings.Contains(got[0].text, "Status: 5.1.1") || strings.HasPrefix(got[0].text, "Return-Path") {
			t.Errorf("the sender's server has %q", got)
		}
	})
}

// TestNotifyIsPassedOn: a next hop that reports itself is told what is asked for, and one that does not is told nothing.
func TestNotifyIsPassedOn(t *testing.T) {
	for _, tt := range []struct {
		extensions []string
		mail, rcpt string
	}{
		{nil, "MAIL FROM:<alice@a.test>", "RCPT TO:<one@y.test>"},
		{[]string{"DSN"}, "MAIL FROM:<alice@a.test> RET=HDRS ENVID=e+201", "RCPT TO:<one@y.test> NOTIFY=SUCCESS ORCPT=rfc822;o+2Bne@y.test"},
	} {
		bubble(t, func(t *testing.T, f *fixture) {
			p := f.site("y.test", public(1), &peer{extensions: tt.extensions})
			f.start()
			rcpts := f.rcpts("one@y.test")
			rcpts[0].Notify, rcpts[0].Original = envelope.NotifySuccess, "rfc822;o+ne@y.test"
			f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), ID: "e 1", Return: envelope.ReturnHeaders}}, letter, rcpts...)
			f.drained()
			if said := p.commands(); !slices.Contains(said, tt.mail) || !slices.Contains(said, tt.rcpt) {
				t.Errorf("the peer was told %q", said)
			}
		})
	}
}

func TestReturnedMessage(t *testing.T) {
	big := letter + strings.Repeat("0123456789abcdef\r\n", 5000)
	for _, tt := range []struct {
		name string
		ret  envelope.Return
		text string
		full bool
		tls  bool // required
	}{
		{"small", "", letter, true, false},
		{"small, header wanted", envelope.ReturnHeaders, letter, false, false},
		{"big", "", big, false, false},
		{"big, full wanted", envelope.ReturnFull, big, true, false},
		{"small, full wanted, TLS required", envelope.ReturnFull, letter, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "550 5.1.1 no"}})
				f.start()
				f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), Return: tt.ret, RequireTLS: tt.tls}}, tt.text, f.rcpts("one@y.test")...)
				f.pass(6 * 24 * time.Hour) // without TLS it is tried in vain for five days
				f.drained()
				got := f.mail("alice")
				last := got[len(got)-1]
				whole := tt.text[strings.Index(tt.text, "\n")+1:]
				if strings.Contains(last, whole) != tt.full || !strings.Contains(last, "Action: failed") || !strings.Contains(last, "Subject: hello") {
					t.Errorf("alice has %.2000q", got)
				}
			})
		})
	}
}

// TestSlowDestination: a destination that does not answer holds up nobody else.
func TestSlowDestination(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("slow.test", public(1), &peer{say: map[string]string{"MAIL": "silence"}})
		quick := f.site("y.test", public(2), &peer{})
		f.cfg.Limits = Limits{Attempts: 10, PerDestination: 5}
		f.start()
		for range 300 {
			f.submit("<alice@a.test>", "one@slow.test")
		}
		f.submit("<alice@a.test>", "one@y.test", "bob@a.test")
		settle() // hardly any time passes
		if len(quick.got()) != 1 || len(f.mail("bob")) != 1 {
			t.Errorf("the quick peer has %d, bob %d", len(quick.got()), len(f.mail("bob")))
		}
	})
}

// TestManyDeadDestinations: what is tried again for hosts that do not answer leaves
// room for new mail.
func TestManyDeadDestinations(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		for i := range 20 {
			f.site(fmt.Sprintf("dead%d.test", i), public(i+10), &peer{blackhole: true})
		}
		quick := f.site("y.test", public(2), &peer{})
		f.cfg.Limits = Limits{Attempts: 4}
		f.start()
		for i := range 20 {
			f.submit("<alice@a.test>", fmt.Sprintf("one@dead%d.test", i))
		}
		f.pass(4 * time.Minute) // all have failed once
		f.pass(3 * time.Minute) // and are being tried again
		if f.runnerBusy() == 0 {
			t.Error("nothing is being tried")
		}
		f.submit("<alice@a.test>", "one@y.test")
		settle()
		if len(quick.got()) != 1 {
			t.Error("new mail waits for dead hosts")
		}
	})
}

func TestDeadDestinationIsTriedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{blackhole: true})
		f.start()
		for range 50 {
			f.submit("<alice@a.test>", "one@y.test")
		}
		f.pass(2 * time.Minute)
		if n := len(f.net.dialled()); n > 4 {
			t.Errorf("%d connections were tried", n)
		}
		if q := f.queue(); len(q) != 50 || slices.Contains(q, "one@y.test active") {
			t.Errorf("the queue holds %q", q)
		}
	})
}

func TestDeadNameServersAreAskedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.dns.Fail("y.test", dnstest.ErrServFail)
		for range 50 {
			f.submit("<alice@a.test>", "one@y.test")
		}
		f.start()
		settle()
		if n := f.dns.Asked("y.test"); n > 4 {
			t.Errorf("%d questions", n)
		}
		f.dns.Fail("y.test", nil)
		p := f.site("y.test", public(1), &peer{})
		f.pass(10 * time.Minute)
		f.drained()
		if n := len(p.got()); n != 50 {
			t.Errorf("the peer has %d", n)
		}
	})
}

// TestMemoryIsBounded: recipients beyond the bound go back into the spool and are
// tried later; none is lost and none counts it as an attempt.
func TestMemoryIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		f.cfg.Limits = Limits{Waiting: 8, PerDestination: 1}
		for range 100 {
			f.submit("<alice@a.test>", "one@y.test")
		}
		f.start()
		f.pass(2 * time.Hour)
		f.drained()
		if n := len(p.got()); n != 100 {
			t.Errorf("the peer has %d", n)
		}
	})
}

// TestBacklogKeepsItsDestinationBusy: what did not fit into memory comes back as fast
// as the destination takes it, not all at once and late.
func TestBacklogKeepsItsDestinationBusy(t *testing.T) {
	for _, each := range []time.Duration{10 * time.Millisecond, time.Second, 10 * time.Second} {
		t.Run(each.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				p := f.site("y.test", public(1), &peer{})
				p.before = func(phase string) {
					if phase == "DATA" {
						time.Sleep(each)
					}
				}
				f.cfg.Limits = Limits{Waiting: 80, PerDestination: 1}
				for range 200 {
					f.submit("<alice@a.test>", "one@y.test")
				}
				f.start()
				f.pass(200*each*3/2 + time.Minute)
				f.drained()
				if n := len(p.got()); n != 200 {
					t.Errorf("the peer has %d", n)
				}
			})
		})
	}
}

func TestTooManyRecipients(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{extensions: []string{"PIPELINING"}})
		n := 0
		p.before = func(phase string) {
			switch {
			case phase == "MAIL":
				n = 0
				p.answers("RCPT", "")
			case phase == "RCPT":
				if n++; n == 3 {
					p.answers("RCPT", "452 4.5.3 too many recipients")
				}
			}
		}
		f.start()
		f.submit("<alice@a.test>", "r1@y.test", "r2@y.test", "r3@y.test", "r4@y.test", "r5@y.test")
		f.drained()
		got := p.got()
		if len(got) != 2 && len(got) != 3 || p.conns != 1 {
			t.Errorf("%q on %d connections", got, p.conns)
		}
	})
}

func TestManyRecipientsGoInHundreds(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		f.start()
		var to []string
		for i := range 250 {
			to = append(to, fmt.Sprintf("r%d@y.test", i))
		}
		f.submit("<alice@a.test>", to...)
		f.drained()
		var all []string
		for _, m := range p.got() {
			if len(m.to) > 100 {
				t.Errorf("%d recipients in one transaction", len(m.to))
			}
			all = append(all, m.to...)
		}
		slices.Sort(all)
		slices.Sort(to)
		if !slices.Equal(all, to) {
			t.Errorf("the peer has %q", all)
		}
	})
}

func TestUTF8(t *testing.T) {
	utf8Letter := strings.Replace(letter, "hello", "grüße", 1)
	for _, tt := range []struct {
		name, text, to string
		ext            []string
		mail           string // empty when it fails with 5.6.7
	}{
		{"offered", utf8Letter, "ä@y.test", []string{"SMTPUTF8"}, "MAIL FROM:<alice@a.test> SMTPUTF8"},
		{"not offered", utf8Letter, "one@y.test", nil, ""},
		{"asked for and not needed", letter, "one@y.test", nil, "MAIL FROM:<alice@a.test>"},
		{"address, not offered", letter, "ä@y.test", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				p := f.site("y.test", public(1), &peer{extensions: tt.ext})
				f.start()
				f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), UTF8: true}}, tt.text, f.rcpts(tt.to)...)
				f.drained()
				got := f.mail("alice")
				if tt.mail == "" && (len(got) != 1 || !strings.Contains(got[0], "5.6.7")) || tt.mail != "" && len(got) != 0 {
					t.Errorf("alice has %q", got)
				}
				if tt.mail != "" && (!slices.Contains(p.commands(), tt.mail) || len(p.got()) != 1) {
					t.Errorf("the peer was told %q", p.commands())
				}
			})
		})
	}
}

// TestRemovedWhileTried: the sender hears nothing about a recipient that an
// administrator took out during the attempt.
func TestRemovedWhileTried(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "550 5.1.1 no"}})
		removed := false
		p.before = func(phase string) {
			if phase == "RCPT" && !removed {
				removed = true
				if n, err := f.sp.Remove(t.Context(), spool.Filter{Recipient: "one@y.test"}, "admin"); n != 1 || err != nil {
					t.Error(n, err)
				}
			}
		}
		f.start()
		f.submit("<alice@a.test>", "one@y.test", "two@y.test")
		f.drained()
		got := f.mail("alice")
		if len(got) != 1 || strings.Contains(got[0], "one@y.test") || !strings.Contains(got[0], "two@y.test") {
			t.Errorf("alice has %q", got)
		}
	})
}

// TestStopDuringAttempt: an attempt under way may end; one that does not is given
// back untouched, and the next process tries it.
func TestStopDuringAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{say: map[string]string{"DATA": "silence"}})
		f.start()
		id := f.submit("<alice@a.test>", "one@y.test")
		settle()
		began := time.Now()
		f.halt()
		if d := time.Since(began); d != 10*time.Second {
			t.Errorf("it took %v to stop", d)
		}
		if q := f.queue(); len(q) != 1 || q[0] != "one@y.test active" || len(f.events(id)) != 1 {
			t.Errorf("the queue holds %q; %q", q, f.events(id))
		}
		p.answers("DATA", "")
		f.start()
		f.drained()
		if len(p.got()) != 1 {
			t.Errorf("the peer has %q", p.got())
		}
	})
}

func TestStopIsQuick(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.site("y.test", public(1), &peer{})
		f.start()
		f.submit("<alice@a.test>", "one@y.test") // leaves an idle connection
		f.drained()
		began := time.Now()
		f.halt()
		if d := time.Since(began); d > time.Second {
			t.Errorf("it took %v to stop", d)
		}
	})
}

// TestDamagedBodyOnTheWay: a peer never sees the end of a message whose bytes have
// changed; it is held.
func TestDamagedBodyOnTheWay(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}, strings.Replace(letter, "body", "UNIQUE-MARK", 1), f.rcpts("one@y.test")...)
		flip(t, f.dir, "UNIQUE-MARK")
		f.start()
		settle()
		if q := f.queue(); len(q) != 1 || q[0] != "one@y.test hold" || len(p.got()) != 0 {
			t.Errorf("the queue holds %q, the peer has %q", q, p.got())
		}
		flip(t, f.dir, "uNIQUE-MARK")
	})
}

func TestSchedule(t *testing.T) {
	s := Schedule{Jitter: -1}.WithDefaults()
	arrived := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name      string
		age, wait time.Duration
		again     bool
	}{
		{"first failure waits Min", 0, 5 * time.Minute, true},
		{"later waits its age", 20 * time.Minute, 20 * time.Minute, true},
		{"at most Max", 30 * time.Hour, 4 * time.Hour, true},
		{"the last attempt comes at the end", 119 * time.Hour, time.Hour, true},
		{"and expires", 5 * 24 * time.Hour, 0, false},
		{"a clock that was set back", -10 * 24 * time.Hour, 5 * time.Minute, true},
		{"a clock that was set far ahead", 87600 * time.Hour, 0, false},
	} {
		now := arrived.Add(tt.age)
		next, again := s.Next(arrived, now)
		if again != tt.again || again && next.Sub(now) != tt.wait {
			t.Errorf("%s: %v, %v", tt.name, next.Sub(now), again)
		}
	}
}

func TestJitter(t *testing.T) {
	for random, want := range map[float64]time.Duration{0: 54 * time.Minute, 0.5: time.Hour, 0.999999: 66 * time.Minute} {
		s := Schedule{Rand: func() float64 { return random }}.WithDefaults()
		now := time.Date(2026, 3, 1, 1, 0, 0, 0, time.UTC)
		next, _ := s.Next(now.Add(-time.Hour), now)
		if got := next.Sub(now).Round(time.Second); got != want {
			t.Errorf("%v: %v, want %v", random, got, want)
		}
	}
}

var _ dns.Resolver = (*dnstest.Resolver)(nil)
