package certs

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"

	"postroad/internal/certs/certstest"
)

const goodKey = `// made by hand
key "acme-key." { # for ACME
	algorithm "hmac-SHA256"; /* secret "no"; */
	secret "c2VjcmV0";
};
`

// What a key file may look like, and what is said of one that is none.
func TestParseKey(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       tsigKey
		err        string
	}{
		{"as tsig-keygen writes it", "key \"a\" {\n\talgorithm hmac-sha512;\n\tsecret \"YQ==\";\n};\n", tsigKey{"a.", dns.HmacSHA512, "YQ=="}, ""},
		{"with comments", goodKey, tsigKey{"acme-key.", dns.HmacSHA256, "c2VjcmV0"}, ""},
		{"on one line", `key A.Example { algorithm hmac-sha1; secret YQ==; };`, tsigKey{"a.example.", dns.HmacSHA1, "YQ=="}, ""},
		{"the first of two", goodKey + `key "b" { algorithm hmac-sha224; secret "Yg=="; };`, tsigKey{"acme-key.", dns.HmacSHA256, "c2VjcmV0"}, ""},
		{"slashes in the secret", `key "b" { algorithm hmac-sha256; secret "ab//cd=="; };`, tsigKey{"b.", dns.HmacSHA256, "ab//cd=="}, ""},
		{"nothing", "", tsigKey{}, "holds no key"},
		{"a private key", "-----BEGIN PRIVATE KEY-----\nMIG=\n-----END PRIVATE KEY-----\n", tsigKey{}, "holds no key"},
		{"all in a comment", "/* " + `key "b" { algorithm hmac-sha224; secret "Yg=="; };` + " */", tsigKey{}, "holds no key"},
		{"no secret", `key "b" { algorithm hmac-sha256; };`, tsigKey{}, "wants an algorithm and a secret"},
		{"MD5", `key "b" { algorithm hmac-md5; secret "Yg=="; };`, tsigKey{}, "is for hmac-md5; make one for hmac-sha256"},
	} {
		got, err := parseKey(tt.text)
		if got != tt.want || tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(goodKey)
	f.Add(`key "b" { algorithm hmac-md5; secret "Yg=="; };`)
	f.Fuzz(func(t *testing.T, text string) {
		if key, err := parseKey(text); err == nil && (key.secret == "" || !dns.IsFqdn(key.name)) {
			t.Errorf("%+v", key)
		}
	})
}

func challengeFor(name string) acme.Challenge {
	return acme.Challenge{Type: "dns-01", Token: "t", KeyAuthorization: "t." + name, Identifier: acme.Identifier{Type: "dns", Value: name}}
}

// Records come and go with their challenges, two of one name side by side.
func TestDNSChallenge(t *testing.T) {
	z := certstest.NewZone(t)
	s, err := openDNS(DNS{Server: z.Addr, KeyFile: z.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	one, other := challengeFor("mx.example.test"), challengeFor("mx.example.test")
	other.KeyAuthorization = "another"
	for _, c := range []acme.Challenge{one, other} {
		if err := s.Present(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if got := z.Texts(); len(got) != 2 {
		t.Errorf("the zone has %q", got)
	}
	if err := s.CleanUp(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if got := z.Texts(); len(got) != 1 || got[0] != "_acme-challenge.mx.example.test. "+other.DNS01KeyAuthorization() {
		t.Errorf("the zone has %q", got)
	}
}

// What is said of a zone that is not the server's, a key that it does not know, and a server that is not there.
func TestDNSChallengeFails(t *testing.T) {
	z := certstest.NewZone(t)
	wrong := filepath.Join(t.TempDir(), "wrong.key")
	if err := os.WriteFile(wrong, []byte(goodKey), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	for _, tt := range []struct{ name, server, key, host, want string }{
		{"another zone", z.Addr, z.KeyFile, "mx.example.net", "has no zone with _acme-challenge.mx.example.net.; name the zone's first server as acme.dns_server"},
		{"another key", z.Addr, wrong, "mx.example.test", "see that it lets the key acme-key. update the zone"},
		{"no server", nobody.Addr().String(), z.KeyFile, "mx.example.test", "ask " + nobody.Addr().String() + " for the zone of"},
	} {
		s, err := openDNS(DNS{Server: tt.server, KeyFile: tt.key})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Present(t.Context(), challengeFor(tt.host)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	if got := z.Texts(); len(got) > 0 {
		t.Errorf("the zone has %q", got)
	}
	for name, text := range map[string]string{"holds no key": "", "read the key": "-"} {
		file := filepath.Join(t.TempDir(), "key")
		if text == "" {
			os.WriteFile(file, nil, 0o600)
		}
		if _, err := openDNS(DNS{KeyFile: file}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

// The authority is asked to look once every server of the zone has the record: not before, and those that are not
// there are not waited for.
func TestDNSChallengeWaitsForAllServers(t *testing.T) {
	z := certstest.NewZone(t)
	_, port, _ := net.SplitHostPort(z.Addr)
	s, err := openDNS(DNS{Server: z.Addr, KeyFile: z.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	s.port = port
	slow := z.Second(t, "127.0.0.2")
	z.Names("127.0.0.3") // nobody is there
	c := challengeFor("mx.example.test")
	if err := s.Present(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- s.Wait(t.Context(), c) }()
	slow.Await(2)
	select {
	case err := <-waited:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	slow.Follow()
	if err := <-waited; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx, c); err == nil {
		t.Error("it waits when nobody does any more")
	}
}
