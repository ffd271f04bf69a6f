package postroad

import (
	"net"
	"net/netip"
	"reflect"
	"testing"

	"postroad/delivery"
	"postroad/delivery/smtpc"
	"postroad/imapd"
	"postroad/internal/config"
	"postroad/internal/gate"
	"postroad/smtpd"
)

// The config's defaults and those of the packages that a program may use by themselves
// are the same.
func TestDefaultsAgree(t *testing.T) {
	s := &Server{cfg: config.Default(), house: &house{}}
	d := s.deliveryConfig(Options{})
	schedule, unset := d.Schedule.WithDefaults(), delivery.Schedule{}.WithDefaults()
	schedule.Rand, unset.Rand = nil, nil // functions do not compare
	for _, test := range []struct {
		name                string
		config, fromPackage any
	}{
		{"smtpd.Limits", s.smtpConfig(Options{}, nil).Limits.WithDefaults(), smtpd.Limits{}.WithDefaults()},
		{"imapd.Limits", s.imapConfig(Options{}, nil).Limits.WithDefaults(), imapd.Limits{}.WithDefaults()},
		{"gate.Limits", s.gateLimits().WithDefaults(), gate.Limits{}.WithDefaults()},
		{"delivery.Limits", d.Limits.WithDefaults(), delivery.Limits{}.WithDefaults()},
		{"delivery.Schedule", schedule, unset},
		{"smtpc.Timeouts", d.Timeouts.WithDefaults(), smtpc.Timeouts{}.WithDefaults()},
	} {
		if !reflect.DeepEqual(test.config, test.fromPackage) {
			t.Errorf("%s: the config says\n%+v, the package\n%+v", test.name, test.config, test.fromPackage)
		}
	}
}

// The addresses of this machine are known as such.
func TestIsOfThisMachine(t *testing.T) {
	for ip, want := range map[string]bool{"127.0.0.1": true, "127.1.2.3": true, "::1": true, "192.0.2.1": false, "2001:db8::1": false} {
		if isOfThisMachine(netip.MustParseAddr(ip)) != want {
			t.Errorf("%s is of this machine: %v", ip, !want)
		}
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		t.Skip(err)
	}
	for _, i := range interfaces {
		if ip := netip.MustParsePrefix(i.String()).Addr(); !isOfThisMachine(ip) {
			t.Errorf("%s is not of this machine", ip)
		}
	}
}
