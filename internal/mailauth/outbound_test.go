package mailauth

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"postroad/internal/dns/dnstest"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// fixture is a Signer of example.test, whose keys the DNS has.
type fixture struct {
	t        testing.TB
	store    *store.Store
	resolver *dnstest.Resolver
	keys     *Keys
	signer   *Signer
	now      time.Time
}

func open(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{t: t, resolver: &dnstest.Resolver{}, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	var err error
	if f.store, err = store.Open(storetest.MemoryDir(t), store.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.store.Close() })
	now := func() time.Time { return f.now }
	f.keys = OpenKeys(KeysConfig{Store: f.store, Resolver: f.resolver, Now: now})
	f.signer = NewSigner(SignerConfig{
		Hostname: "mx.example.test", Keys: f.keys, Resolver: f.resolver, Now: now,
		Local: func(domain string) (bool, error) { return strings.HasSuffix(domain, "example.test"), nil },
	})
	return f
}

// publish gives the DNS the records of keys.
func (f *fixture) publish(keys ...Key) {
	for _, k := range keys {
		f.resolver.TXT(k.Name(), k.Record())
	}
}

// activeKeys makes keys of both kinds that sign.
func (f *fixture) activeKeys(domain string) []Key {
	f.t.Helper()
	var keys []Key
	for selector, text := range map[string][]byte{"20261120-rsa": someRSA(), "20261120-ed": someEd25519()} {
		k, err := f.keys.Import(domain, selector, text)
		if err != nil {
			f.t.Fatal(err)
		}
		keys = append(keys, k)
	}
	f.publish(keys...)
	keys, err := f.keys.Activate(f.t.Context(), domain, "", false)
	if err != nil || len(keys) != 2 {
		f.t.Fatalf("%+v, %v", keys, err)
	}
	if keys[0].State != Active {
		f.t.Fatal(keys[0].State, keys[0].Finding)
	}
	return keys
}

// Making a key of RSA takes its time: these are made once.
var (
	someRSA     = sync.OnceValue(func() []byte { return newPEM(RSA) })
	someEd25519 = sync.OnceValue(func() []byte { return newPEM(Ed25519) })
)

func newPEM(a Algorithm) []byte {
	signer, err := generate(a)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func addr(s string) envelope.Address {
	a, err := envelope.ParsePath(s)
	if err != nil {
		panic(err)
	}
	return a
}

// sign returns the message as it leaves.
func (f *fixture) sign(o Outbound, message string) string {
	f.t.Helper()
	fields, err := f.signer.Fields(f.t.Context(), o, func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(message)), nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return string(fields) + message
}

// crlf writes a message by lines.
func crlf(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n" }

var plain = crlf("Received: by mx.example.test; Fri, 20 Nov 2026 12:00:00 +0000", "From: Ann <ann@example.test>", "To: bob@far.test",
	"Subject: Hello", "Date: Fri, 20 Nov 2026 12:00:00 +0000", "Message-ID: <1@example.test>", "", "Hello  Bob,\t", "", "bye ", "", "")

// verified returns the domains and errors of a message's signatures, as another program sees them.
func (f *fixture) verified(message string) []*dkim.Verification {
	f.t.Helper()
	got, err := dkim.VerifyWithOptions(strings.NewReader(message), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		a, err := f.resolver.LookupTXT(f.t.Context(), name)
		return a.Records, err
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	return got
}

func (f *fixture) expectGood(message string, domain string, n int) {
	f.t.Helper()
	got := f.verified(message)
	if len(got) != n {
		f.t.Fatalf("%d signatures, want %d:\n%s", len(got), n, message)
	}
	for _, v := range got {
		if v.Err != nil || v.Domain != domain {
			f.t.Errorf("signature of %s: %v\n%s", v.Domain, v.Err, message)
		}
	}
}

func TestWhoSigns(t *testing.T) {
	f := open(t)
	f.activeKeys("example.test")
	from := func(s string) string { return strings.Replace(plain, "Ann <ann@example.test>", s, 1) }
	for _, c := range []struct {
		name    string
		o       Outbound
		message string
		domain  string // empty: no signature
	}{
		{"the author's domain", Outbound{Own: true, From: addr("ann@example.test")}, plain, "example.test"},
		{"not for strangers, whatever they say to be", Outbound{From: addr("ann@example.test")}, plain, ""},
		{"the domain above the author's", Outbound{Own: true}, from("mailer-daemon@mx.example.test"), "example.test"},
		{"a list for foreign authors", Outbound{Own: true, From: addr("news-owner@example.test")}, from("eve@far.test"), "example.test"},
		{"a list for a stranger", Outbound{Own: true, Posted: true, From: addr("news-owner@example.test")}, from("eve@far.test"), "example.test"},
		{"a list for a stranger who says to be one of us", Outbound{Own: true, Posted: true, From: addr("news-owner@example.test")}, plain, ""},
		{"the same, below the list's domain", Outbound{Own: true, Posted: true, From: addr("news-owner@example.test")}, from("boss@sub.example.test"), ""},
		{"the same, above it", Outbound{Own: true, Posted: true, From: addr("news-owner@lists.example.test")}, from("boss@example.test"), ""},
		{"the same, behind another", Outbound{Own: true, Posted: true, From: addr("news-owner@example.test")}, from("eve@far.test, ann@example.test"), ""},
		{"the same, in a second field", Outbound{Own: true, Posted: true, From: addr("news-owner@example.test")}, from("eve@far.test\r\nFrom: ann@example.test"), ""},
		{"a stranger who cannot be read", Outbound{Own: true, Posted: true, From: addr("news-owner@example.test")}, from("=?x?q?"), ""},
		{"nobody without a key", Outbound{Own: true, From: addr("eve@far.test")}, from("eve@far.test"), ""},
		{"not for a name that only ends the same", Outbound{Own: true}, from("eve@notexample.test"), ""},
		{"a From that cannot be read", Outbound{Own: true, From: addr("ann@example.test")}, from("=?x?q?"), "example.test"},
		{"a name in an unknown charset", Outbound{Own: true}, from("=?nonsense?q?Ann?= <ann@EXAMPLE.test>"), "example.test"},
		{"a quoted at sign", Outbound{Own: true}, from(`"x@far.test" <"a@far.test"@example.test>`), "example.test"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.t = t
			n := 2
			if c.domain == "" {
				n = 0
			}
			f.expectGood(f.sign(c.o, c.message), c.domain, n)
		})
	}
}

// D04: nothing that a reader sees can be added to what was signed, and nothing can be changed.
func TestD04Oversigned(t *testing.T) {
	f := open(t)
	f.activeKeys("example.test")
	signed := f.sign(Outbound{Own: true}, plain)
	f.expectGood(signed, "example.test", 2)
	for _, name := range []string{"From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"} {
		for where, message := range map[string]string{
			"above":  name + ": x@evil.test\r\n" + signed,
			"within": strings.Replace(signed, "Subject:", name+": x@evil.test\r\nSubject:", 1),
		} {
			for _, v := range f.verified(message) {
				if v.Err == nil {
					t.Errorf("a second %s %s leaves a signature valid", name, where)
				}
			}
		}
	}
	if strings.Contains(signed, " l=") {
		t.Error("the signature covers a part of the body only")
	}
	for _, message := range []string{signed + "more\r\n", strings.Replace(signed, "Hello  Bob", "Hello  Eve", 1)} {
		for _, v := range f.verified(message) {
			if v.Err == nil {
				t.Error("the body was changed and a signature is valid")
			}
		}
	}
}

func TestBodies(t *testing.T) {
	f := open(t)
	f.activeKeys("example.test")
	head, _, _ := strings.Cut(plain, "\r\n\r\n")
	for name, body := range map[string]string{
		"no line end": "a\r\nb", "empty": "", "blank": "\r\n \r\n\r\n", "white space": "\t a \t b\t \r\n\r\n \r\n",
		"many line ends": "a" + strings.Repeat("\r\n", 10_000) + "b\r\n", "long": strings.Repeat("x", 100_000) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			f.expectGood(f.sign(Outbound{Own: true}, head+"\r\n\r\n"+body), "example.test", 2)
		})
	}
	t.Run("no body", func(t *testing.T) {
		f.t = t
		f.expectGood(f.sign(Outbound{Own: true}, head+"\r\n\r\n"), "example.test", 2)
	})
}

func TestSignatureFields(t *testing.T) {
	f := open(t)
	f.activeKeys("example.test")
	signed := f.sign(Outbound{Own: true}, plain)
	fields, _, _ := strings.Cut(signed, "Received:")
	for line := range strings.SplitSeq(fields, "\r\n") {
		if len(line) > 78 {
			t.Errorf("a line of %d octets: %s", len(line), line)
		}
	}
	if !strings.HasPrefix(fields, "DKIM-Signature: v=1; a=rsa-sha256; d=example.test; s=20261120-rsa;") {
		t.Errorf("RSA is not the first:\n%s", fields)
	}
	for _, want := range []string{"t=1795176000;", "x=1795780800;", "c=relaxed/relaxed;"} {
		if strings.Count(fields, want) != 2 {
			t.Errorf("no %s:\n%s", want, fields)
		}
	}
}

func TestABodyThatCannotBeReadIsNotSigned(t *testing.T) {
	f := open(t)
	f.activeKeys("example.test")
	broken := errors.New("broken")
	_, err := f.signer.Fields(t.Context(), Outbound{Own: true}, func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(plain), &failing{broken})), nil
	})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestAHeaderThatIsTooLargeIsNotSigned(t *testing.T) {
	f := open(t)
	f.activeKeys("example.test")
	large := strings.Repeat("X: y\r\n", maxHeader/6+1) + plain
	if got := f.sign(Outbound{Own: true, From: addr("ann@example.test")}, large); got != large {
		t.Error("it was")
	}
	if _, err := Verify(t.Context(), f.resolver, f.now, strings.NewReader(large)); !errors.Is(err, ErrHeader) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }
