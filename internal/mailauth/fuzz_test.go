package mailauth

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"postroad/internal/dns/dnstest"
)

// FuzzKeyRecord: a record is a key that can be used, or an error.
func FuzzKeyRecord(f *testing.F) {
	for _, s := range []string{"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "v=DKIM1; p=", "k=rsa; h=sha256 : sha1; t=y:s; p=AAAA", "=;;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseKey(text)
		if (err == nil) != (k != nil && k.public != nil) && err == nil {
			t.Errorf("%+v, %v", k, err)
		}
		if err == nil && marshalPublic(k.public) == nil {
			t.Error("a key that is none")
		}
	})
}

// FuzzARCSets: whatever fields a message has, its chain is read, and gone on with or not; what we add is well formed.
func FuzzARCSets(f *testing.F) {
	f.Add("ARC-Seal: i=1; a=rsa-sha256; cv=none; d=x.test; s=s; b=AAAA\r\nARC-Message-Signature: i=1; a=rsa-sha256; d=x.test; s=s; h=from; bh=AAAA; b=AAAA\r\nARC-Authentication-Results: i=1; x.test; none\r\n")
	f.Add("ARC-Seal: i=50; cv=fail\r\nARC-Authentication-Results: i=1\r\n")
	signer, err := generate(Ed25519)
	if err != nil {
		f.Fatal(err)
	}
	key := &SigningKey{"example.test", "s", Ed25519, signer}
	f.Fuzz(func(t *testing.T, header string) {
		text := header + "\r\nFrom: a@example.test\r\n\r\nbody\r\n"
		res, err := Verify(context.Background(), &dnstest.Resolver{}, time.Unix(1, 0), strings.NewReader(text))
		if err != nil || res.ARC.Verdict == Pass {
			t.Fatalf("%+v, %v", res.ARC, err)
		}
		fields, err := readHeader(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		c := readChain(fields)
		if res.ARC.Verdict == None && c.fields > 0 {
			t.Errorf("%d fields are none", c.fields)
		}
		set, err := seal(key, c, res.ARC.Verdict, fields, signedNames(fields), []byte{1}, "example.test; arc=fail", time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		if len(set) > 0 && !after(c, set, fields) {
			t.Errorf("after %q came\n%s", header, set)
		}
	})
}

// after reports whether set is the next of the chain.
func after(c *chain, set []byte, fields []field) bool {
	added, err := readHeader(bufio.NewReader(bytes.NewReader(set)))
	if err != nil || len(added) != 3 {
		return false
	}
	next := readChain(append(added, fields...))
	return next.highest == c.highest+1 && next.highest <= maxSets && (next.marked || c.err == nil)
}

// FuzzSignature: a signature field is read or refused, and one that was read is one again without its value.
func FuzzSignature(f *testing.F) {
	f.Add("DKIM-Signature: v=1; a=rsa-sha256; d=x.test; s=s; c=relaxed; h=from:to; bh=AAAA; b=AA\r\n AA; l=1\r\n")
	f.Fuzz(func(t *testing.T, raw string) {
		x := newField([]byte(raw))
		s, err := parseDKIM(&x)
		if err != nil {
			return
		}
		rest := withoutValue(x.raw)
		tags, err := parseTags(string((&field{raw: rest}).body()))
		if err != nil || tags["b"] != "" || len(rest) >= len(raw) {
			t.Errorf("%q without its value %x is %q: %v", raw, s.value, rest, err)
		}
	})
}

// FuzzCanonicalBody: how a body is cut into pieces makes no difference, and what is canonical stays as it is.
func FuzzCanonicalBody(f *testing.F) {
	f.Add("a \t b \r\n\r\n \r\n", 3, true)
	f.Add("\r\r\n\n\r", 1, false)
	f.Fuzz(func(t *testing.T, body string, cut int, relaxed bool) {
		if cut <= 0 || cut > len(body) {
			cut = len(body)
		}
		whole, pieces := hashed(relaxed, body), hashed(relaxed, body[:cut], body[cut:])
		if whole != pieces {
			t.Errorf("%q: whole %q, in pieces %q", body, whole, pieces)
		}
		if again := hashed(relaxed, whole); again != whole {
			t.Errorf("%q: %q, and that %q", body, whole, again)
		}
	})
}

func hashed(relaxed bool, pieces ...string) string {
	var b bytes.Buffer
	c := &canonicalBody{w: &b, relaxed: relaxed}
	for _, p := range pieces {
		io.WriteString(c, p)
	}
	c.Close()
	return b.String()
}
