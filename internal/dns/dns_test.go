package dns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"postroad/internal/dns"
	"postroad/internal/dns/dnstest"
)

type records []dns.MX

func TestHosts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		records records
		want    []string
		err     error
	}{
		{"the lower preference first", records{{"b.example", 20}, {"a.example", 10}}, []string{"a.example", "b.example"}, nil},
		{"none: the domain itself", nil, []string{"x.example"}, nil},
		{"null MX", records{{".", 0}}, nil, dns.ErrNullMX},
		{"null MX beside another says nothing", records{{".", 0}, {"a.example", 10}}, []string{"a.example"}, nil},
		{"names in one case, without the final dot, each once", records{{"A.example.", 10}, {"a.EXAMPLE", 20}}, []string{"a.example"}, nil},
		{"an address is no name", records{{"192.0.2.1", 10}, {"[192.0.2.1]", 11}, {"a.example", 20}}, []string{"a.example"}, nil},
		{"ours, equals and worse are left out", records{{"a.example", 10}, {"b.example", 20}, {"Us.example.", 20}, {"c.example", 30}},
			[]string{"a.example"}, nil},
		{"ours is the best", records{{"us.example", 10}, {"b.example", 10}, {"c.example", 30}}, nil, dns.ErrLoop},
		{"nothing usable", records{{"192.0.2.1", 10}, {"bad name", 5}}, nil, dns.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := dns.Hosts(t.Context(), fixed{mx: tt.records}, "x.example", "us.example")
			if !slices.Equal(got.Records, tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("got %v, %v; want %v, %v", got.Records, err, tt.want, tt.err)
			}
		})
	}
}

// fixed gives one answer to every MX question.
type fixed struct {
	dns.Resolver
	mx []dns.MX
}

func (f fixed) LookupMX(context.Context, string) (dns.Answer[dns.MX], error) {
	return dns.Answer[dns.MX]{Records: f.mx}, nil
}

func TestEqualsTakeTurns(t *testing.T) {
	first := make(map[string]bool)
	for range 200 {
		answer, err := dns.Hosts(t.Context(), fixed{mx: records{{"a.example", 1}, {"b.example", 1}, {"c.example", 2}}}, "x.example", "us.example")
		hosts := answer.Records
		if err != nil || len(hosts) != 3 || hosts[2] != "c.example" {
			t.Fatal(hosts, err)
		}
		first[hosts[0]] = true
	}
	if len(first) != 2 {
		t.Errorf("first was always one of %v", first)
	}
}

func TestHostsBound(t *testing.T) {
	var many records
	for i := range 1000 {
		many = append(many, dns.MX{Host: fmt.Sprintf("h%d.example", i), Preference: uint16(i)})
	}
	hosts, err := dns.Hosts(t.Context(), fixed{mx: many}, "x.example", "us.example")
	if err != nil || len(hosts.Records) != 20 || hosts.Records[0] != "h0.example" {
		t.Errorf("%d hosts, %v", len(hosts.Records), err)
	}
}

func TestTrouble(t *testing.T) {
	var r dnstest.Resolver
	r.Fail("servfail.example", dnstest.ErrServFail)
	if _, err := dns.Hosts(t.Context(), &r, "servfail.example", "us.example"); !dns.Temporary(err) {
		t.Errorf("a server failure is taken for an answer: %v", err)
	}
	hosts, err := dns.Hosts(t.Context(), &r, "gone.example", "us.example")
	if err != nil || hosts.Records[0] != "gone.example" {
		t.Errorf("got %v, %v", hosts, err)
	}
	if _, err := r.LookupHost(t.Context(), "gone.example"); dns.Temporary(err) || !errors.Is(err, dns.ErrNotFound) {
		t.Errorf("a name that does not exist: %v", err)
	}
	if dns.Temporary(nil) || dns.Temporary(dns.ErrNullMX) {
		t.Error("null MX is an answer")
	}
}

func TestSystemLocalhost(t *testing.T) {
	if _, err := net.DefaultResolver.LookupHost(t.Context(), "localhost"); err != nil {
		t.Skip("this machine does not know localhost: ", err)
	}
	ips, err := dns.System().LookupHost(t.Context(), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	if !ips.Records[0].IsLoopback() || ips.Records[0].Is4In6() {
		t.Errorf("localhost is %v", ips)
	}
}
