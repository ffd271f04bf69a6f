package delivery

import (
	"crypto/tls"
	"testing"
	"time"

	"postroad/delivery/smtpc"
	"postroad/internal/envelope"
	"postroad/internal/listen/listentest"
	"postroad/spool"
)

// The most exact route counts: first by the recipient's domain, then by the sender.
func TestTheMostExactRouteCounts(t *testing.T) {
	r := &Runner{routes: newRouting([]Route{
		{Domain: "*", Host: "any"},
		{Domain: "Example.org", Host: "exact"},
		{Domain: ".example.org", Host: "below"},
		{Domain: ".deep.example.org", Host: "deep"},
		{Domain: "example.org", Sender: "@our.test", Host: "exact from domain"},
		{Domain: "example.org", Sender: "Ann@our.test", Host: "exact from ann"},
		{Sender: "ann@OUR.test", Host: "from ann"},
		{Domain: "*", Sender: "@our.test", Host: "from domain"},
		{Sender: "<>", Host: "reports"},
		{Domain: "bücher.example", Host: "idn"},
		{Domain: "direct.test", Kind: MX},
		{Name: "spare", Host: "by name only"},
	})}
	for _, tt := range []struct{ from, to, transport, want string }{
		{"x@else.test", "a@example.org", "", "exact"},
		{"x@else.test", "a@EXAMPLE.ORG", "", "exact"},
		{"x@our.test", "a@example.org", "", "exact from domain"},
		{"ANN@our.test", "a@example.org", "", "exact from ann"},
		{"x@else.test", "a@mx.example.org", "", "below"},
		{"ann@our.test", "a@mx.example.org", "", "below"},
		{"x@else.test", "a@deep.example.org", "", "below"},
		{"x@else.test", "a@mx.deep.example.org", "", "deep"},
		{"x@else.test", "a@notexample.org", "", "any"},
		{"x@else.test", "a@example.org.test", "", "any"},
		{"x@else.test", "a@[192.0.2.1]", "", "any"},
		{"ann@our.test", "a@else.test", "", "from ann"},
		{"bob@our.test", "a@else.test", "", "from domain"},
		{"bob@sub.our.test", "a@else.test", "", "any"},
		{"", "a@else.test", "", "reports"},
		{"", "a@example.org", "", "exact"},
		{"x@else.test", "a@bücher.example", "", "idn"},
		{"x@else.test", "a@xn--bcher-kva.example", "", "idn"},
		{"ann@our.test", "a@direct.test", "", "mx"},
		{"ann@our.test", "a@example.org", "spare", "by name only"},
		{"ann@our.test", "a@example.org", "mx", "none"},
		{"ann@our.test", "a@example.org", "from ann@our.test", "from ann"},
		{"ann@our.test", "a@example.org", "example.org from @our.test", "exact from domain"},
		{"ann@our.test", "a@example.org", "gone", "missing"},
	} {
		d := spool.Due{Message: &spool.Message{}}
		d.Recipient.To, d.Recipient.Transport = address(t, tt.to), tt.transport
		if tt.from != "" {
			d.Message.Envelope.From = address(t, tt.from)
		}
		if got := routeWord(r.route(&d)); got != tt.want {
			t.Errorf("from %s to %s by %q: %s, want %s", tt.from, tt.to, tt.transport, got, tt.want)
		}
	}
}

func routeWord(route *Route, ok bool) string {
	switch {
	case !ok:
		return "missing"
	case route == nil:
		return "none"
	case route.Kind == MX:
		return "mx"
	}
	return route.Host
}

func address(t *testing.T, s string) envelope.Address {
	t.Helper()
	a, err := envelope.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWithoutRoutesAllGoesByMX(t *testing.T) {
	r := &Runner{routes: newRouting(nil)}
	d := spool.Due{Message: &spool.Message{}}
	d.Recipient.To = address(t, "a@example.org")
	if route, ok := r.route(&d); route != nil || !ok {
		t.Errorf("got %v, %v", route, ok)
	}
}

func TestRoutesHaveTheirDefaults(t *testing.T) {
	for _, tt := range []struct {
		give Route
		name string
		port int
	}{
		{Route{Domain: "A.test"}, "a.test", 25},
		{Route{Domain: "a.test", Kind: LMTP}, "a.test", 24},
		{Route{Domain: "a.test", Kind: MX}, "a.test", 0},
		{Route{Sender: "@b.test", Port: 587}, "from @b.test", 587},
		{Route{Domain: ".a.test", Sender: "x@b.test"}, ".a.test from x@b.test", 25},
		{Route{Domain: "a.test", Name: "spare"}, "spare", 25},
	} {
		if r := tt.give.withDefaults(); r.Name != tt.name || r.Port != tt.port {
			t.Errorf("%+v: %q, %d", tt.give, r.Name, r.Port)
		}
	}
}

// What a route by MX says of TLS is asked of the hosts that DNS names, and never less than their domain asks for.
func TestRoutesByMXAskForTLS(t *testing.T) {
	good, pool := listentest.Certificate(t, "mx.y.test")
	other, _ := listentest.Certificate(t, "other.test")
	for _, tt := range []struct {
		mode   smtpc.TLS
		server *tls.Config
		sent   bool
		secure int
	}{
		{smtpc.Opportunistic, nil, true, 0},
		{smtpc.Opportunistic, other, true, 1},
		{smtpc.None, good, true, 0},
		{smtpc.Encrypted, nil, false, 0},
		{smtpc.Encrypted, other, true, 1},
		{smtpc.Required, nil, false, 0},
		{smtpc.Required, other, false, 0},
		{smtpc.Required, good, true, 1},
	} {
		bubble(t, func(t *testing.T, f *fixture) {
			p := f.site("y.test", public(1), &peer{tls: tt.server})
			f.cfg.TLS = &tls.Config{RootCAs: pool}
			f.cfg.Routes = []Route{{Domain: "y.test", Kind: MX, TLS: tt.mode}}
			f.start()
			f.submit("<alice@a.test>", "one@y.test")
			f.pass(time.Minute)
			if sent := len(p.got()) == 1; sent != tt.sent || sent && p.secure != tt.secure {
				t.Errorf("%v, %v: sent %v, over TLS %d", tt.mode, tt.server != nil, sent, p.secure)
			}
		})
	}
}
