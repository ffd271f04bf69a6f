package postroad_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postroad"
	"postroad/internal/control"
	"postroad/internal/dns/dnstest"
	"postroad/internal/listen/listentest"
)

// One server sends to another, whose domain says by MTA-STS how it is to be reached: the policy is fetched and held to,
// and an administrator sees it and can have it forgotten.
func TestMailGoesAsMTASTSWants(t *testing.T) {
	cert, key, pool := listentest.PEM(t, "mx.two.test", "mta-sts.two.test")
	cfg := testConfig(t, "mx.two.test")
	dir := t.TempDir()
	cfg.TLS.Cert, cfg.TLS.Key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, text := range map[string][]byte{cfg.TLS.Cert: cert, cfg.TLS.Key: key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bob := postroad.Credential{Address: "bob@two.test", Password: "secret of bob"}
	two := embed(t, cfg, postroad.Options{}, bob)

	var dns dnstest.Resolver
	dns.MX("two.test", "mx.two.test")
	dns.Host("mx.two.test", "127.0.0.1")
	dns.Host("mta-sts.two.test", "127.0.0.1")
	dns.TXT("_mta-sts.two.test", "v=STSv1; id=1;")
	ann := postroad.Credential{Address: "ann@one.test", Password: "secret of ann"}
	one := embed(t, testConfig(t, "mx.one.test"), postroad.Options{
		Resolver: &dns, AllowPrivate: true, RootCAs: pool, MXPort: portOf(t, two.Addr("smtp")), PolicyPort: policyHost(t, cert, key),
	}, ann)
	if err := submit(t, one, ann, []string{bob.Address}, "From: ann@one.test\r\nSubject: hello\r\n\r\nx\r\n"); err != nil {
		t.Fatal(err)
	}
	text := newest(t, login(t, two.Addr("imap"), bob, "INBOX", nil), 2)
	if !strings.Contains(text, "with ESMTPS") {
		t.Errorf("it did not come by TLS: %s", text)
	}
	known, err := one.Admin().TLSDomain(t.Context(), "TWO.test")
	if err != nil || known.MTASTS == nil || known.MTASTS.Mode != "enforce" || known.MTASTS.ID != "1" || known.Memory == nil {
		t.Errorf("%+v, %v", known, err)
	}
	n := 0
	for d, err := range one.Admin().TLSDomains(t.Context()) {
		if n++; err != nil || d.Domain != "two.test" {
			t.Errorf("%+v, %v", d, err)
		}
	}
	if err := one.Admin().ForgetTLS(t.Context(), "two.test"); err != nil || n != 1 {
		t.Errorf("%d domains, %v", n, err)
	}
	_, err = one.Admin().TLSDomain(t.Context(), "two.test")
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.NotFound {
		t.Errorf("%v", err)
	}
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// policyHost serves the policy of two.test at a port of this machine.
func policyHost(t *testing.T, cert, key []byte) int {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, "version: STSv1\nmode: enforce\nmx: mx.two.test\nmax_age: 86400\n")
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return portOf(t, l.Addr().String())
}
