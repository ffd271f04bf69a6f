package delivery

import (
	"reflect"
	"testing"
	"time"

	"postroad/internal/envelope"
)

// Records that are read are written as they were, whatever octets they are made of.
func FuzzRuleRecords(f *testing.F) {
	f.Add((&Suspension{Destination: "y.test", Since: time.UnixMicro(1), Reason: "why", By: "root"}).encode())
	f.Add((&HoldRule{Sender: "@x.test", Account: "a@x.test", Since: time.UnixMicro(1)}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeSuspension(b); err == nil {
			if again, err := decodeSuspension(s.encode()); err != nil || !reflect.DeepEqual(s, again) {
				t.Errorf("%+v, then %+v, %v", s, again, err)
			}
		}
		if h, err := decodeHold(b); err == nil {
			if again, err := decodeHold(h.encode()); err != nil || !reflect.DeepEqual(h, again) {
				t.Errorf("%+v, then %+v, %v", h, again, err)
			}
		}
	})
}

// A route is found for any sender and domain, and for the canonical form of a domain the same.
func FuzzRoutes(f *testing.F) {
	f.Add("example.org", "@our.test", "ann@our.test", "mx.example.org")
	f.Add(".example.org", "<>", "", "bücher.example")
	f.Fuzz(func(t *testing.T, domain, sender, from, to string) {
		table := newRouting([]Route{{Domain: domain, Sender: sender, Host: "a"}, {Domain: "*", Host: "b"}})
		sent, _ := envelope.ParseAddress(from)
		if route := table.find(sent, to); route == nil {
			t.Errorf("no route from %q to %q", from, to)
		}
	})
}
