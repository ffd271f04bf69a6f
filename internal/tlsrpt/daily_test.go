package tlsrpt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/dns/dnstest"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/spool"
)

// house is a store with reports, in a bubble.
type house struct {
	t    *testing.T
	dir  string
	disk *storetest.FaultFS
	dns  dnstest.Resolver
	st   *store.Store
	sp   *spool.Spool
	r    *Reports
	stop func()
}

func inBubble(t *testing.T, fn func(*house)) {
	synctest.Test(t, func(t *testing.T) {
		h := &house{t: t, dir: filepath.Join(storetest.MemoryDir(t), "data"), disk: storetest.NewFaultFS()}
		h.start()
		fn(h)
		h.halt()
	})
}

// start opens the store as a new process would.
func (h *house) start() {
	h.t.Helper()
	var err error
	if h.st, err = store.Open(h.dir, store.Options{FS: h.disk}); err != nil {
		h.t.Fatal(err)
	}
	h.sp = spool.Open(h.st, time.Now)
	h.r = Open(Config{
		Store: h.st, Spool: h.sp, Resolver: &h.dns, Hostname: "mx.a.example", Organization: `A, "Inc"`, Log: slog.New(slog.DiscardHandler),
		Contact: func() envelope.Address { return address("postmaster@a.example") },
		Recipients: func(a envelope.Address) ([]spool.Recipient, error) {
			if a.Local == "nobody" {
				return nil, errors.New("no such account")
			}
			return []spool.Recipient{{Recipient: envelope.Recipient{To: a}}}, nil
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { h.r.Run(ctx) })
	h.stop = func() { cancel(); running.Wait() }
}

func (h *house) halt() {
	h.stop()
	if err := h.st.Close(); err != nil {
		h.t.Error(err)
	}
}

func address(s string) envelope.Address {
	a, err := envelope.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func (h *house) asks(domain, rua string) { h.dns.TXT("_smtp._tls."+domain, "v=TLSRPTv1; rua="+rua) }

// sent is a report that is in the spool.
type sent struct {
	to, transport, text string
	message             *spool.Message
	rcpt                spool.Recipient
}

// sent takes what was queued.
func (h *house) sent() (all []sent) {
	h.t.Helper()
	due, err := h.sp.Claim(1000)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, d := range due {
		body, err := h.st.OpenBody(d.Message.ID)
		if err != nil {
			h.t.Fatal(err)
		}
		text, err := io.ReadAll(body.Reader())
		if err != nil {
			h.t.Fatal(err)
		}
		body.Close()
		all = append(all, sent{d.Recipient.To.String(), d.Recipient.Transport, string(text[d.Message.Skip:]), d.Message, d.Recipient})
		if err := h.st.Update(func(tx store.Tx) error { h.sp.Settle(tx, d); return nil }); err != nil {
			h.t.Fatal(err)
		}
	}
	return all
}

func (h *house) left() (n int) {
	h.st.View(func(r store.Reader) error {
		for range r.Scan(store.NewKey(table), store.NewKey(table).End()) {
			n++
		}
		return nil
	})
	return n
}

var sts = Policy{Type: STS, Strings: []string{"version: STSv1", "mode: enforce", "mx: *.b.example"}, MX: []string{"*.b.example"}}

func result(domain string, failure Failure) Result {
	return Result{
		Domain: domain, Policy: sts, MX: "mx." + strings.ToLower(domain), IP: netip.MustParseAddr("::ffff:192.0.2.1"), Local: netip.MustParseAddr("2001:db8::1"),
		Failure: failure, Reason: "x509: bad\r\nbad",
	}
}

// A day's sessions are told the next day, once, whatever restarts there are between.
func TestDaily(t *testing.T) {
	inBubble(t, func(h *house) {
		h.asks("b.example", "mailto:tls@b.example")
		for hour := range 24 {
			if hour%5 == 0 {
				h.halt()
				h.start()
			}
			h.r.Record(result("b.example", ""))
			h.r.Record(result("B.example", CertificateExpired))
			time.Sleep(time.Hour - time.Second)
			if got := h.sent(); len(got) != 0 {
				t.Fatalf("told at %v: %v", time.Now(), got)
			}
			time.Sleep(time.Second)
		}
		for range 48 {
			time.Sleep(30 * time.Minute)
			if time.Now().Minute() == 0 {
				h.halt()
				h.start()
			}
		}
		all := h.sent()
		if len(all) != 1 {
			t.Fatalf("%d reports were sent", len(all))
		}
		m := all[0]
		if m.to != "tls@b.example" || m.transport != "" || m.message.Envelope.From != address("postmaster@a.example") || !m.message.Envelope.TLSOptional ||
			m.rcpt.Notify != envelope.NotifyNever || !IsReport(m.message) {
			t.Errorf("%+v", m)
		}
		for _, line := range []string{
			"\r\nTLS-Report-Domain: b.example\r\n", "\r\nTLS-Report-Submitter: mx.a.example\r\n", "\r\nTLS-Required: No\r\n",
			"\r\nContent-Type: multipart/report; report-type=\"tlsrpt\";\r\n", "filename=\"mx.a.example!b.example!946684800!946771199.json.gz\"",
			`From: "A, \"Inc\"" <postmaster@a.example>` + "\r\n", "\r\nTo: <tls@b.example>\r\n", "Subject: Report Domain: b.example\r\n Submitter: mx.a.example\r\n Report-ID: <2000-01-01.b.example.",
		} {
			if !strings.Contains(m.text, line) {
				t.Errorf("%q is missing in\n%s", line, m.text)
			}
		}
		r, err := Read(strings.NewReader(m.text))
		if err != nil {
			t.Fatal(err)
		}
		want := PolicyReport{
			Policy:  ReportedPolicy{Type: STS, Domain: "b.example", Strings: sts.Strings, MX: sts.MX},
			Summary: Summary{24, 24},
			Failures: []Detail{{
				Type: CertificateExpired, SendingIP: "2001:db8::1", MX: "mx.b.example", ReceivingIP: "192.0.2.1", Count: 24, Reason: "x509: bad bad",
			}},
		}
		if len(r.Policies) != 1 || fmt.Sprint(r.Policies[0]) != fmt.Sprint(want) {
			t.Errorf("it says %+v", r)
		}
		if r.Range.Start.Format(time.RFC3339) != "2000-01-01T00:00:00Z" || r.Range.End.Format(time.RFC3339) != "2000-01-01T23:59:59Z" || r.Organization != `A, "Inc"` || r.Contact != "postmaster@a.example" {
			t.Errorf("it says %+v", r)
		}
		if n := h.left(); n != 0 {
			t.Errorf("%d records are left", n)
		}
	})
}

// Each domain has its time, in the first hours of the day.
func TestDailySpread(t *testing.T) {
	inBubble(t, func(h *house) {
		for i := range 50 {
			domain := fmt.Sprintf("d%d.example", i)
			h.asks(domain, "mailto:tls@"+domain)
			h.r.Record(result(domain, ""))
		}
		time.Sleep(24 * time.Hour)
		var when []time.Duration
		for range 60 {
			for range h.sent() {
				when = append(when, time.Since(time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)))
			}
			time.Sleep(5 * time.Minute)
		}
		if len(when) != 50 || when[0] < firstAfter || when[49] > firstAfter+spread+lookEvery || when[49]-when[0] < spread/2 {
			t.Errorf("%d reports after %v", len(when), when)
		}
	})
}

func TestWhereReportsGo(t *testing.T) {
	inBubble(t, func(h *house) {
		h.asks("two.example", "mailto:a@x.example,https://r.example/v1")
		h.asks("gone.example", "mailto:nobody@x.example,mailto:b@x.example")
		for _, domain := range []string{"two.example", "gone.example", "silent.example", "[192.0.2.1]", ""} {
			h.r.Record(result(domain, ""))
		}
		time.Sleep(30 * time.Hour)
		var got []string
		for _, m := range h.sent() {
			got = append(got, strings.TrimSpace(m.to+" "+m.transport))
			if m.transport != "" {
				if r, err := Read(strings.NewReader(m.text)); err != nil || !bytes.HasPrefix([]byte(m.text), gzipMagic) || r.Sum() != (Summary{1, 0}) {
					t.Errorf("%q: %v", m.text, err)
				}
			}
		}
		slices.Sort(got)
		want := []string{"a@x.example", "b@x.example", "tlsrpt@two.example " + Transport("https://r.example/v1")}
		if !slices.Equal(got, want) {
			t.Errorf("reports went to %q", got)
		}
		if n := h.left(); n != 0 {
			t.Errorf("%d records are left", n)
		}
	})
}

// While the DNS says nothing, reports wait; for days, not for ever; and they do not hold up those of others.
func TestDNSTrouble(t *testing.T) {
	inBubble(t, func(h *house) {
		for i := range 20 {
			h.dns.Fail(fmt.Sprintf("_smtp._tls.a%d.example", i), errors.New("SERVFAIL"))
			h.r.Record(result(fmt.Sprintf("a%d.example", i), ""))
		}
		h.asks("z.example", "mailto:tls@z.example")
		h.r.Record(result("z.example", ""))
		time.Sleep(30 * time.Hour)
		if got := h.sent(); len(got) != 1 || got[0].to != "tls@z.example" {
			t.Errorf("sent %v", got)
		}
		h.dns.Fail("_smtp._tls.a3.example", nil)
		h.asks("a3.example", "mailto:tls@a3.example")
		time.Sleep(3 * time.Hour)
		if got := h.sent(); len(got) != 1 || got[0].to != "tls@a3.example" {
			t.Errorf("sent %v", got)
		}
		time.Sleep(5 * 24 * time.Hour)
		if n := h.left(); n != 0 || len(h.sent()) != 0 {
			t.Errorf("%d records are left", n)
		}
	})
}

// However much a day brings, what is kept is bounded, and the sessions are counted.
func TestBounds(t *testing.T) {
	inBubble(t, func(h *house) {
		h.asks("b.example", "mailto:tls@b.example")
		for i := range 3 * maxDetails {
			res := result("b.example", ValidationFailure)
			res.MX = fmt.Sprintf("mx%d.b.example", i)
			h.r.Record(res)
		}
		random := rand.New(rand.NewPCG(1, 1))
		for range 3 * maxPolicies {
			res := result("b.example", "")
			res.Policy.Strings = nil
			for range 2 * maxStrings {
				line := ""
				for len(line) < 2*maxLine { // that does not compress well, or it would be taken for a bomb
					line += fmt.Sprint(random.Uint64())
				}
				res.Policy.Strings = append(res.Policy.Strings, line)
			}
			h.r.Record(res)
			time.Sleep(2 * flushEvery)
		}
		for i := range maxBuffered + 100 {
			h.r.Record(result(fmt.Sprintf("d%d.example", i), ""))
		}
		h.r.mu.Lock()
		if n := len(h.r.buffer); n > maxBuffered {
			t.Errorf("%d tallies are in memory", n)
		}
		clear(h.r.buffer) // to write them all takes the test long
		h.r.mu.Unlock()
		time.Sleep(30 * time.Hour)
		for _, m := range h.sent() {
			r, err := Read(strings.NewReader(m.text))
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Policies) > maxPolicies || r.Sum().Failed != 3*maxDetails || len(m.text) > 200<<10 {
				t.Errorf("%d octets, %d policies: %v", len(m.text), len(r.Policies), r.Sum())
			}
		}
	})
}

// What the store does not take now is counted later, once.
func TestFlushUnderTrouble(t *testing.T) {
	inBubble(t, func(h *house) {
		h.asks("b.example", "mailto:tls@b.example")
		h.r.Record(result("b.example", ""))
		time.Sleep(time.Minute)
		h.halt()
		h.r.Record(result("b.example", "")) // the store is closed
		h.r.flush()
		old := h.r
		h.start()
		h.r.buffer, old.buffer = old.buffer, nil
		h.r.signal()
		time.Sleep(30 * time.Hour)
		all := h.sent()
		if len(all) != 1 {
			t.Fatalf("%d reports", len(all))
		}
		if r, err := Read(strings.NewReader(all[0].text)); err != nil || r.Sum() != (Summary{2, 0}) {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// Wherever the disk fails, the report is sent once.
func TestSendUnderFaults(t *testing.T) {
	for at := 0; ; at++ {
		tripped := false
		for _, fault := range storetest.Faults {
			inBubble(t, func(h *house) {
				h.asks("b.example", "mailto:tls@b.example")
				h.r.Record(result("b.example", ""))
				time.Sleep(24 * time.Hour)
				h.disk.FailAt(len(h.disk.Ops())+at, fault, false)
				time.Sleep(6 * time.Hour)
				tripped = tripped || h.disk.Tripped()
				h.stop()
				h.st.Close()
				if fault == storetest.Cut {
					h.disk.Crash(storetest.KeepNone, 1)
				}
				h.disk.FailAt(-1, storetest.NotDone, false)
				h.start()
				time.Sleep(24 * time.Hour)
				if n := len(h.sent()); n != 1 {
					t.Errorf("%s at %d: %d reports", fault, at, n)
				}
			})
		}
		if !tripped {
			t.Logf("%d steps were made to fail", at)
			if at < 2 {
				t.Errorf("only %d steps were made to fail", at)
			}
			return
		}
	}
}

// A report is no news any more when the server was off for days.
func TestOldReports(t *testing.T) {
	inBubble(t, func(h *house) {
		h.asks("b.example", "mailto:tls@b.example")
		h.r.Record(result("b.example", ""))
		time.Sleep(time.Minute)
		h.halt()
		time.Sleep(7 * 24 * time.Hour)
		h.start()
		time.Sleep(time.Hour)
		if n := len(h.sent()); n != 0 || h.left() > 1 {
			t.Errorf("%d reports, and %d records are left", n, h.left())
		}
	})
}

func TestNilReports(t *testing.T) {
	var r *Reports
	r.Record(result("b.example", ""))
	r.Run(t.Context())
}
