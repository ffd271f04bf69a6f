package postroad

import (
	"io"
	"strings"
	"testing"
	"time"

	"postroad/internal/dns/dnstest"
	"postroad/internal/envelope"
	"postroad/internal/mailauth"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/spool"
)

const proofText = "From: S <s@s.test>\r\nTo: bob@a.test\r\nSubject: hello\r\nMessage-ID: <1@s.test>\r\n" +
	"Date: Fri, 2 Jan 2026 03:04:05 +0000\r\n\r\nbody\r\n"

// TestProven: who is told of what became of a stranger's message is who SPF or DKIM shows to have sent it, and nobody else.
func TestProven(t *testing.T) {
	st, err := store.Open(storetest.MemoryDir(t), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	resolver := &dnstest.Resolver{}
	resolver.TXT("spf.test", "v=spf1 ip4:192.0.2.7 -all")
	resolver.TXT("sub.s.test", "v=spf1 -all")
	resolver.Fail("lost.test", dnstest.ErrServFail)
	signature := proofSignature(t, st, resolver)
	for _, tt := range []struct {
		name, from, peer, text string
		want, open             bool
	}{
		{"by SPF", "s@spf.test", "192.0.2.7", proofText, true, false},
		{"against SPF", "s@spf.test", "192.0.2.8", proofText, false, false},
		{"by SPF in a socket", "s@spf.test", "local", proofText, false, false},
		{"by nothing", "s@s.test", "192.0.2.7", proofText, false, false},
		{"by DKIM", "s@s.test", "192.0.2.7", signature + proofText, true, false},
		{"by DKIM of a domain above", "s@sub.s.test", "192.0.2.7", signature + proofText, true, false},
		{"by DKIM of a domain below", "s@test", "192.0.2.7", signature + proofText, false, false},
		{"by DKIM of another", "s@spf.test", "192.0.2.8", signature + proofText, false, false},
		{"by DKIM of a name that ends alike", "s@xs.test", "192.0.2.8", signature + proofText, false, false},
		{"by DKIM of another message", "s@s.test", "192.0.2.7", signature + strings.Replace(proofText, "body", "spam", 1), false, false},
		{"not yet", "s@lost.test", "192.0.2.7", proofText, false, true},
	} {
		p := &proof{st, resolver, time.Now}
		proven, err := p.proven(t.Context(), proofMessage(t, st, tt.from, tt.peer, tt.text))
		if proven != tt.want || (err != nil) != tt.open {
			t.Errorf("%s: %v, %v", tt.name, proven, err)
		}
	}
}

// proofSignature is what s.test puts before proofText.
func proofSignature(t *testing.T, st *store.Store, resolver *dnstest.Resolver) string {
	keys := mailauth.OpenKeys(mailauth.KeysConfig{Store: st, Resolver: resolver})
	made, err := keys.Add("s.test", "", mailauth.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range made {
		resolver.TXT(k.Name(), k.Record())
	}
	if _, err := keys.Activate(t.Context(), "s.test", "", false); err != nil {
		t.Fatal(err)
	}
	signer := mailauth.NewSigner(mailauth.SignerConfig{
		Hostname: "mx.s.test", Keys: keys, Resolver: resolver, Local: func(domain string) (bool, error) { return domain == "s.test", nil },
	})
	fields, err := signer.Fields(t.Context(), mailauth.Outbound{Own: true, From: envelope.Address{Local: "s", Domain: "s.test"}},
		func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(proofText)), nil })
	if err != nil || !strings.HasPrefix(string(fields), "DKIM-Signature:") {
		t.Fatalf("signed %q, %v", fields, err)
	}
	return string(fields)
}

func proofMessage(t *testing.T, st *store.Store, from, peer, text string) *spool.Message {
	const returnPath = "Return-Path: <x@y.test>\r\n"
	addr, err := envelope.ParseAddress(from)
	if err != nil {
		t.Fatal(err)
	}
	m := &spool.Message{
		Skip: int64(len(returnPath)), Envelope: envelope.Envelope{From: addr},
		Origin: spool.Origin{Protocol: "ESMTP", Peer: peer, Helo: "mx.stranger.test"},
	}
	draft := st.NewDraft()
	io.WriteString(draft, returnPath+text)
	rcpt := spool.Recipient{Recipient: envelope.Recipient{To: envelope.Address{Local: "one", Domain: "y.test"}}}
	if err := spool.Open(st, nil).Accept(m, []spool.Recipient{rcpt}, draft, nil); err != nil {
		t.Fatal(err)
	}
	return m
}
