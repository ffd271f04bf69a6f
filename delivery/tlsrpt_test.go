package delivery

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/tlspolicy"
	"postroad/internal/tlspolicy/tlstest"
	"postroad/internal/tlsrpt"
	"postroad/spool"
)

// The sessions of a day are told to their domain by a mail of ours, and the session that brings it to nobody: z.test asks
// for reports too, and has had nothing but one.
func TestReportsAreMailedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		root := tlstest.NewAuthority(t)
		f.site("y.test", public(1), &peer{tls: serving(root.Issue("mx.y.test"))})
		z := f.site("z.test", public(2), &peer{tls: serving(root.Issue("elsewhere.test"))})
		for _, domain := range []string{"y.test", "z.test"} {
			f.dns.TXT("_smtp._tls."+domain, "v=TLSRPTv1; rua=mailto:tls@z.test")
		}
		reports := tlsrpt.Open(tlsrpt.Config{
			Store: f.st, Spool: f.sp, Resolver: f.dns, Hostname: "mx.a.example", Log: slog.New(slog.DiscardHandler),
			Contact:    func() envelope.Address { return path("<postmaster@a.test>") },
			Recipients: func(a envelope.Address) ([]spool.Recipient, error) { return f.rcpts(a.String()), nil },
		})
		policies, err := tlspolicy.Open(tlspolicy.Config{Store: f.st, Resolver: f.dns, RootCAs: root.Pool(), Recorder: reports})
		if err != nil {
			t.Fatal(err)
		}
		f.cfg.Policies, f.cfg.TLS = policies, &tls.Config{RootCAs: root.Pool()}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { reports.Run(ctx) })
		f.start()
		f.submit("<alice@a.test>", "one@y.test")
		f.pass(4 * 24 * time.Hour)
		f.drained()
		cancel()
		running.Wait()
		got := z.got()
		if len(got) != 1 || len(got[0].to) != 1 || !strings.Contains(got[0].text, "\r\nTLS-Report-Domain: y.test\r\n") {
			t.Fatalf("z.test has %q", got)
		}
		r, err := tlsrpt.Read(strings.NewReader(got[0].text))
		if err != nil || r.Sum() != (tlsrpt.Summary{Successful: 1}) || r.Policies[0].Policy.Type != tlsrpt.NoPolicy {
			t.Errorf("the report says %+v, %v", r, err)
		}
	})
}
