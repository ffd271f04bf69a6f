package mailauth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"postroad/internal/dns/dnstest"
)

// forwarded is what leaves for elsewhere of a message from outside.
func (f *fixture) forwarded(message string) string {
	return f.sign(Outbound{
		From: addr("ann@far.test"), Via: addr("fwd@example.test"), Client: Client{netip.MustParseAddr("192.0.2.1"), "mx.far.test"},
	}, message)
}

func (f *fixture) verify(message string) Results {
	f.t.Helper()
	got, err := Verify(f.t.Context(), f.resolver, f.now, strings.NewReader(message))
	if err != nil {
		f.t.Fatal(err)
	}
	return got
}

var fromAfar = strings.NewReplacer("ann@example.test", "ann@far.test").Replace(plain)

func TestWhatIsForwardedIsSealed(t *testing.T) {
	f := open(t)
	f.activeKeys("example.test")
	f.resolver.TXT("far.test", "v=spf1 ip4:192.0.2.1 -all")

	// far.test signs too: with a key that we happen to have.
	keys, err := f.keys.Add("far.test", "s", RSA)
	if err != nil {
		t.Fatal(err)
	}
	f.publish(keys...)
	if _, err := f.keys.Activate(t.Context(), "far.test", "", false); err != nil {
		t.Fatal(err)
	}
	far := NewSigner(SignerConfig{Hostname: "mx.far.test", Keys: f.keys, Resolver: f.resolver, Now: f.signer.cfg.Now,
		Local: func(string) (bool, error) { return true, nil }})
	ours := f.signer
	f.signer = far
	signed := f.sign(Outbound{Own: true}, fromAfar)
	f.signer = ours

	once := f.forwarded(signed)
	got := f.verify(once)
	if a := got.ARC; a.Verdict != Pass || a.Sets != 1 || a.Sealers[0] != "example.test" {
		t.Errorf("%+v\n%s", a, once)
	}
	if len(got.DKIM) != 1 || got.DKIM[0].Verdict != Pass {
		t.Errorf("%+v", got.DKIM)
	}
	for _, want := range []string{"i=1; mx.example.test;", "arc=none;", "spf=pass smtp.mailfrom=ann@far.test smtp.remote-ip=192.0.2.1;",
		"dkim=pass header.d=far.test header.s=s header.a=rsa-sha256", "\r\nDelivered-To: fwd@example.test\r\nDKIM-Signature:"} {
		if !strings.Contains(once, want) {
			t.Errorf("no %q in\n%s", want, once)
		}
	}

	twice := f.forwarded("Received: from elsewhere\r\n" + once)
	if a := f.verify(twice).ARC; a.Verdict != Pass || a.Sets != 2 {
		t.Errorf("%+v\n%s", a, twice)
	}
	if n := strings.Count(twice, "Delivered-To: "); n != 1 {
		t.Errorf("%d Delivered-To fields", n)
	}

	// Somebody on the way changes it: that is said once, and then nothing more.
	broken := f.forwarded(strings.Replace(twice, "Hello  Bob", "Hello  Eve", 1))
	if a := f.verify(broken).ARC; a.Verdict != Fail || a.Sets != 3 || !strings.Contains(broken, "cv=fail;") || !strings.Contains(broken, "arc=fail;") {
		t.Errorf("%+v\n%s", a, broken)
	}
	if again := f.forwarded(broken); again != broken {
		t.Errorf("a chain that says of itself that it failed was gone on with:\n%s", again)
	}
}

func TestWhatIsNotSealed(t *testing.T) {
	f := open(t)
	out := Outbound{From: addr("ann@far.test"), Via: addr("fwd@example.test")}
	if got := f.sign(out, fromAfar); strings.Contains(got, "ARC-") {
		t.Error("without a key")
	}
	f.activeKeys("example.test")
	for name, o := range map[string]Outbound{
		"our own":         {Own: true, From: addr("ann@example.test"), Via: addr("fwd@example.test")},
		"not forwarded":   {From: addr("ann@far.test")},
		"another's alias": {From: addr("ann@far.test"), Via: addr("fwd@else.test")},
	} {
		if got := f.sign(o, fromAfar); strings.Contains(got, "ARC-") {
			t.Errorf("%s:\n%s", name, got)
		}
	}
	f.signer.cfg.NoSeals = true
	if got := f.sign(out, fromAfar); strings.Contains(got, "ARC-") {
		t.Error("where it is off")
	}
}

// What cannot be known now is not called a failure: that would be for good.
func TestNothingIsSealedWhileTheDNSIsSilent(t *testing.T) {
	f := open(t)
	keys := f.activeKeys("example.test")
	once := f.forwarded(fromAfar)
	for _, k := range keys {
		f.resolver.Fail(k.Name(), dnstest.ErrServFail)
	}
	if got := f.forwarded(once); got != once {
		t.Errorf("sealed:\n%s", got)
	}
	if a := f.verify(once).ARC; a.Verdict != TempError {
		t.Errorf("%+v", a)
	}
}

// D11: a chain ends at fifty sets, and more are none that could be valid.
func TestD11FiftySets(t *testing.T) {
	f := open(t)
	f.activeKeys("example.test")
	m := fromAfar
	for range maxSets {
		m = f.forwarded(m)
	}
	if a := f.verify(m).ARC; a.Verdict != Pass || a.Sets != 50 {
		t.Fatalf("%s of %d: %s", a.Verdict, a.Sets, a.Reason)
	}
	if again := f.forwarded(m); again != m {
		t.Error("a chain of fifty was gone on with")
	}
	for _, i := range []string{"51", "0", "-1", "1000000000000", "+1", "1x"} {
		more := fmt.Sprintf("ARC-Seal: i=%s; a=rsa-sha256; cv=pass; d=example.test; s=s; b=AAAA\r\n", i) + fromAfar
		if a := f.verify(more).ARC; a.Verdict != Fail {
			t.Errorf("i=%s: %+v", i, a)
		}
	}
}

// D06: what a stranger's message can make us do is bounded.
func TestD06Bounds(t *testing.T) {
	f := open(t)
	f.activeKeys("example.test")
	signed := f.sign(Outbound{Own: true}, plain)
	fields := signed[:strings.Index(signed, "Received:")]
	many := strings.Repeat(fields, 20) + plain
	got := f.verify(many)
	if len(got.DKIM) != maxSignatures {
		t.Errorf("%d signatures were looked at", len(got.DKIM))
	}
	for _, k := range []string{"20261120-rsa", "20261120-ed"} {
		if n := f.resolver.Asked(k + "._domainkey.example.test"); n > 5 {
			t.Errorf("%d questions about %s", n, k)
		}
	}
	key := strings.SplitN(fields, "\r\nDKIM", 2)[0] + "\r\n"
	for name, c := range map[string]struct {
		field string
		want  Verdict
	}{
		"as it is":              {key, Pass},
		"10,000 names":          {strings.Replace(key, "h=from", "h="+strings.Repeat("x:", 10_000)+"from", 1), PermError},
		"a tag twice":           {strings.Replace(key, "v=1;", "v=1; v=1;", 1), PermError},
		"a tag of 100 kB":       {strings.Replace(key, "v=1;", "v=1; z="+strings.Repeat("x", 100_000)+";", 1), Fail},
		"no version":            {strings.Replace(key, "v=1; ", "", 1), PermError},
		"sha1":                  {strings.Replace(key, "rsa-sha256", "rsa-sha1", 1), PermError},
		"ed25519 with its key":  {strings.Replace(key, "rsa-sha256", "ed25519-sha256", 1), PermError},
		"from is not signed":    {strings.Replace(strings.Replace(key, "h=from", "h=x", 1), ":from:", ":x:", 1), PermError},
		"i of another domain":   {strings.Replace(key, "v=1;", "v=1; i=@evil.test;", 1), PermError},
		"i of a domain below":   {strings.Replace(key, "v=1;", "v=1; i=ann@x.example.test;", 1), Fail},
		"a selector that walks": {strings.Replace(key, "s=20261120-rsa", "s=a b", 1), PermError},
		"l=0":                   {strings.Replace(key, "v=1;", "v=1; l=0;", 1), Fail},
		"no such key":           {strings.Replace(key, "s=20261120-rsa", "s=none", 1), PermError},
	} {
		got := f.verify(c.field + plain)
		if len(got.DKIM) != 1 || got.DKIM[0].Verdict != c.want {
			t.Errorf("%s: %+v", name, got.DKIM)
		}
	}
	f.now = f.now.Add(lifetime + 2*60*60*1e9)
	if got := f.verify(key + plain).DKIM; got[0].Verdict != Fail || got[0].Reason != errExpired.Error() {
		t.Errorf("after its time: %+v", got)
	}
}

func TestKeyRecords(t *testing.T) {
	f := open(t)
	keys, err := f.keys.Add("example.test", "k", RSA, Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	rsa, ed := keys[0].Record(), keys[1].Record()
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{rsa, true}, {ed, true}, {"k=rsa; p=" + rsa[len("v=DKIM1; k=rsa; p="):], true},
		{rsa + ";", true}, {rsa + "; t=y:s; n=x; unknown=1", true}, {strings.Replace(rsa, "k=rsa; ", "", 1), true},
		{strings.Replace(rsa, "k=rsa", "k=rsa; h=sha1:sha256; s=email:x", 1), true}, {strings.ReplaceAll(rsa, "A", "A "), true},
		{strings.Replace(rsa, "DKIM1", "DKIM2", 1), false}, {"k=rsa; v=DKIM1; p=x", false}, {rsa + "; k=rsa", false},
		{strings.Replace(rsa, "k=rsa", "k=rsa; h=sha1", 1), false}, {strings.Replace(rsa, "k=rsa", "k=rsa; s=tlsrpt", 1), false},
		{"v=DKIM1; p=", false}, {"v=DKIM1", false}, {"", false}, {"v=spf1 -all", false}, {strings.Replace(rsa, "k=rsa", "k=ed25519", 1), false},
		{strings.Replace(ed, "k=ed25519", "k=rsa", 1), false}, {strings.Replace(rsa, "k=rsa", "k=dsa", 1), false}, {"v=DKIM1; p=*", false},
	} {
		if k, err := parseKey(c.text); (err == nil) != c.ok {
			t.Errorf("%q: %+v, %v", c.text, k, err)
		}
	}
	// A key of 512 bits, of another test suite.
	if _, err := parseKey("v=DKIM1; k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAIe2MAJjWD0KQiUbGmd97ikhKjXg4Brl9Xq6PlVnPnHJ9wnWvhwUJ5gCbCRRn/GZnfMUJyDx5H1zBk5bO6TBC4cCAwEAAQ=="); err == nil {
		t.Error("a key of 512 bits was taken")
	}
}
