package mailauth

import (
	"net/netip"
	"strings"
	"testing"

	"postroad/internal/dns/dnstest"
)

func TestSPF(t *testing.T) {
	r := &dnstest.Resolver{}
	r.TXT("far.test", "v=spf1 ip4:192.0.2.0/24 mx ~all")
	r.MX("far.test", "mx.far.test")
	r.Host("mx.far.test", "198.51.100.7", "2001:db8::7")
	r.TXT("strict.test", "v=spf1 -all")
	r.TXT("twice.test", "v=spf1 -all", "v=spf1 +all")
	r.TXT("mx.helo.test", "v=spf1 a -all")
	r.Host("mx.helo.test", "192.0.2.9")
	r.Fail("down.test", dnstest.ErrServFail)
	r.TXT("xn--bcher-kva.test", "v=spf1 +all")
	for _, c := range []struct {
		name, ip, helo, from string
		want                 Verdict
		domain               string
	}{
		{"by address", "192.0.2.1", "x.test", "ann@far.test", Pass, "far.test"},
		{"by mail host", "2001:db8::7", "x.test", "ann@far.test", Pass, "far.test"},
		{"mapped", "::ffff:192.0.2.1", "x.test", "ann@far.test", Pass, "far.test"},
		{"another", "203.0.113.1", "x.test", "ann@far.test", SoftFail, "far.test"},
		{"nobody", "203.0.113.1", "x.test", "ann@strict.test", Fail, "strict.test"},
		{"two records", "203.0.113.1", "x.test", "ann@twice.test", PermError, "twice.test"},
		{"no answer", "203.0.113.1", "x.test", "ann@down.test", TempError, "down.test"},
		{"no record", "203.0.113.1", "x.test", "ann@none.test", None, "none.test"},
		{"a report", "192.0.2.9", "mx.helo.test", "<>", Pass, "mx.helo.test"},
		{"a report of somebody else", "192.0.2.8", "mx.helo.test", "<>", Fail, "mx.helo.test"},
		{"a report of a literal", "192.0.2.8", "[192.0.2.8]", "<>", None, "[192.0.2.8]"},
		{"international", "192.0.2.8", "x.test", "grüße@bücher.test", Pass, "xn--bcher-kva.test"},
		{"a quoted at sign", "192.0.2.1", "x.test", `"a@strict.test"@far.test`, Pass, "far.test"},
	} {
		got := CheckSPF(t.Context(), r, Client{netip.MustParseAddr(c.ip), c.helo}, addr(c.from))
		if got.Verdict != c.want || got.Domain != c.domain {
			t.Errorf("%s: %+v, want %s of %s", c.name, got, c.want, c.domain)
		}
	}
	if got := CheckSPF(t.Context(), r, Client{Helo: "x.test"}, addr("ann@strict.test")); got.Verdict != None {
		t.Errorf("without a client: %+v", got)
	}
}

func TestWhatWasFoundIsDescribed(t *testing.T) {
	got := describe("mx.example.test", Results{
		ARC:  ARC{Verdict: None},
		DKIM: []DKIM{{Verdict: Pass, Domain: "far.test", Selector: "s1", Algorithm: RSA, Value: "abc/+=12"}, {Verdict: PermError}},
	}, SPF{Verdict: Pass, Domain: "far.test"}, Client{IP: netip.MustParseAddr("2001:db8::1")}, addr("ann@far.test"))
	want := "mx.example.test;\r\n\tarc=none;\r\n\tspf=pass smtp.mailfrom=ann@far.test smtp.remote-ip=\"2001:db8::1\";\r\n" +
		"\tdkim=pass header.d=far.test header.s=s1 header.a=rsa-sha256 header.b=\"abc/+=12\";\r\n\tdkim=permerror"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for from, want := range map[string]string{
		`"a b"@far.test`: "smtp.mailfrom=far.test", "grüße@bücher.test": "smtp.mailfrom=xn--bcher-kva.test",
		`"x;y=z"@[192.0.2.1]`: `smtp.mailfrom="[192.0.2.1]"`,
	} {
		if got := describeSPF(SPF{Verdict: Fail}, Client{}, addr(from)); got != "spf=fail "+want {
			t.Errorf("%s: %s", from, got)
		}
	}
	if got := value("a\r\nb\"\\é"); strings.ContainsAny(got, "\r\n") || got != `"a??b\"\\?"` {
		t.Errorf("%s", got)
	}
}
