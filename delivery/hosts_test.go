package delivery

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func addrs(list ...string) (ips []netip.Addr) {
	for _, s := range list {
		ips = append(ips, netip.MustParseAddr(s))
	}
	return ips
}

// The families take turns, so that one that leads nowhere costs one address.
func TestInterleave(t *testing.T) {
	for _, tt := range []struct {
		ips  []netip.Addr
		want string // 6 and 4 for the families
	}{
		{addrs("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"), "6464"},
		{addrs("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"), "6444"},
		{addrs("2001:db8::1", "2001:db8::2", "192.0.2.1"), "646"},
		{addrs("192.0.2.1"), "4"}, {nil, ""},
	} {
		seen := map[netip.Addr]bool{}
		for range 50 {
			got := ""
			mixed := interleave(tt.ips)
			for _, ip := range mixed {
				got += map[bool]string{true: "4", false: "6"}[ip.Is4()]
			}
			if got != tt.want {
				t.Fatalf("%v: %s", tt.ips, got)
			}
			if len(mixed) > 2 {
				seen[mixed[1]] = true
			}
		}
		if tt.want == "6464" && len(seen) != 2 {
			t.Errorf("equals are always in one order: %v", seen)
		}
	}
}

// Mail goes out from the addresses of the route, or the server's, and by no other family than theirs.
func TestSource(t *testing.T) {
	for _, tt := range []struct {
		name          string
		server, route []netip.Addr
		want          string // from and to
	}{
		{"any", nil, nil, "invalid IP 2001:db8::1, invalid IP 203.0.114.1"},
		{"one of each", addrs("192.0.2.9", "2001:db8::9"), nil, "2001:db8::9 2001:db8::1, 192.0.2.9 203.0.114.1"},
		{"IPv4 alone", addrs("192.0.2.9"), nil, "192.0.2.9 203.0.114.1"},
		{"the route's", addrs("192.0.2.9"), addrs("2001:db8::8"), "2001:db8::8 2001:db8::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				f.dns.Host("y.test", public(1), "2001:db8::1")
				f.cfg.Source = tt.server
				if tt.route != nil {
					f.cfg.Routes = []Route{{Domain: "y.test", Kind: MX, Source: tt.route}}
				}
				var got []string
				f.cfg.Dial = func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
					host, _, _ := net.SplitHostPort(addr)
					got = append(got, from.String()+" "+host)
					return f.net.Dial(ctx, from, network, addr)
				}
				f.cfg.AllowPrivate = true // 2001:db8::/32 among it
				f.start()
				f.submit("<alice@a.test>", "one@y.test")
				settle()
				if strings.Join(got, ", ") != tt.want {
					t.Errorf("from and to: %q", got)
				}
			})
		})
	}
}

// Without an address of a family that goes out, mail waits: it is for the administrator to mend.
func TestNoSource(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.dns.Host("y.test", public(1))
		f.cfg.Source = addrs("2001:db8::9")
		f.start()
		id := f.submit("<alice@a.test>", "one@y.test")
		settle()
		if q, ev := f.queue(), f.events(id); len(q) != 1 || !strings.Contains(strings.Join(ev, ""), "no address of a family") {
			t.Errorf("the queue holds %q, the trace %q", q, ev)
		}
	})
}

// The addresses of a host share the time that there is to connect: a dead one does not take all of it.
func TestDeadAddresses(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.dns.MX("y.test", "mx.y.test")
		var ips []string
		for i := range 4 {
			ips = append(ips, public(i+1))
			f.net.peer(public(i+1)+":25", &peer{blackhole: true})
		}
		f.dns.Host("mx.y.test", ips...)
		f.site("z.test", public(9), &peer{})
		f.start()
		begun := time.Now()
		f.submit("<alice@a.test>", "one@y.test")
		settle()
		for len(f.net.dialled()) < 4 {
			time.Sleep(time.Second)
		}
		if waited := time.Since(begun); waited > 25*time.Second {
			t.Errorf("the fourth was dialled after %v", waited)
		}
	})
	a := &attempt{r: &Runner{cfg: Config{Limits: Limits{}.WithDefaults()}}}
	for n, want := range map[int]time.Duration{1: 30 * time.Second, 3: 10 * time.Second, 10: 5 * time.Second} {
		if got := a.patience(n); got != want {
			t.Errorf("patience with %d addresses left: %v", n, got)
		}
	}
}

// An attempt connects to ten addresses at most, whatever DNS lists.
func TestManyDeadAddresses(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.dns.MX("y.test", "mx1.y.test", "mx2.y.test")
		for h := range 2 {
			var ips []string
			for i := range 50 {
				ips = append(ips, public(100*h+i+1))
			}
			f.dns.Host(fmt.Sprintf("mx%d.y.test", h+1), ips...)
		}
		f.start()
		f.submit("<alice@a.test>", "one@y.test")
		settle()
		if n := len(f.net.dialled()); n != 10 {
			t.Errorf("%d addresses were dialled", n)
		}
	})
}

// TestC10Own: mail is not sent to an address at which we take mail ourselves, nor to hosts that are worse; while a better
// one does not answer, it waits.
func TestC10Own(t *testing.T) {
	for _, tt := range []struct {
		name   string
		better *peer
		hosts  []string
		waits  bool
	}{
		{"we are the best", nil, []string{"us.y.test", "worse.y.test"}, false},
		{"a better one is dead", &peer{blackhole: true}, []string{"better.y.test", "us.y.test", "worse.y.test"}, true},
		{"a better one is not to be found", nil, []string{"nowhere.y.test", "us.y.test", "worse.y.test"}, true},
		{"we answer by our name", nil, []string{"greets.y.test", "worse.y.test"}, false},
		{"a better one is dead, then we answer", &peer{blackhole: true}, []string{"better.y.test", "greets.y.test", "worse.y.test"}, true},
		{"a better one is not to be found, then we answer", nil, []string{"nowhere.y.test", "greets.y.test", "worse.y.test"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				f.dns.MX("y.test", tt.hosts...)
				for i, name := range []string{"better", "us", "worse", "greets"} {
					f.dns.Host(name+".y.test", public(i+1))
				}
				f.dns.Fail("nowhere.y.test", fmt.Errorf("trouble"))
				if tt.better != nil {
					f.net.peer(public(1)+":25", tt.better)
				}
				worse := f.net.peer(public(3)+":25", &peer{})
				f.net.peer(public(4)+":25", &peer{say: map[string]string{"EHLO": "250 mx.a.test"}})
				f.cfg.Own = func(at netip.AddrPort) bool { return at == netip.MustParseAddrPort(public(2)+":25") }
				f.start()
				f.submit("<alice@a.test>", "one@y.test")
				settle()
				time.Sleep(time.Minute)
				if slices.Contains(f.net.dialled(), public(2)+":25") || len(worse.got()) != 0 {
					t.Errorf("dialled %q", f.net.dialled())
				}
				if q := f.queue(); (len(q) == 1) != tt.waits {
					t.Errorf("the queue holds %q", q)
				}
				if got := strings.Join(f.mail("alice"), ""); strings.Contains(got, "Status: 5.4.6") == tt.waits {
					t.Errorf("alice has %q", got)
				}
			})
		})
	}
}
