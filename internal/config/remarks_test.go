package config

import (
	"slices"
	"strings"
	"testing"
)

func TestRemarks(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"defaults", ``, nil},
		{"a real MX", "hostname = \"mail.example.org\"\n[listen]\nsmtp = \":25\"", nil},
		{"users only", "[listen]\nsubmission = \":587\"", nil},
		{"a name for nobody", "[listen]\nsmtp = \":25\"", []string{"hostname"}},
		{"on one address", "[listen]\nsmtp = \"192.0.2.1:25\"", []string{"hostname"}},
		{"LMTP here", "[listen]\nlmtp = \"localhost:24\"", nil},
		{"LMTP by IPv6 here", "[listen]\nlmtp = \"[::1]:24\"", nil},
		{"LMTP by a socket", "[listen]\nlmtp = \"unix:/run/lmtp\"", nil},
		{"LMTP for all", "[listen]\nlmtp = \"0.0.0.0:24\"", []string{"listen.lmtp"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Parse(strings.NewReader(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			begins := func(remark, want string) bool { return strings.HasPrefix(remark, want+" ") }
			if got := c.Remarks(); !slices.EqualFunc(got, tc.want, begins) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
