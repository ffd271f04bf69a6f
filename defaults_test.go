package postroad

import (
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
