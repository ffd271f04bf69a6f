package delivery

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"postroad/delivery/smtpc"
	"postroad/internal/envelope"
	"postroad/internal/listen/listentest"
	"postroad/smtpd"
	"postroad/spool"
)

// TestOurOwnServer: what one postroad sends, another takes as it is, by every way there is to send it.
func TestOurOwnServer(t *testing.T) {
	config, roots := listentest.Certificate(t, "mx.a.test")
	for name, kind := range map[string]smtpd.Kind{"SMTP": smtpd.MX, "LMTP": smtpd.LMTP} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			server := smtpd.NewServer(kind, false, smtpd.Config{Hostname: "mx.a.test", Store: f.st, Spool: f.sp, Accounts: f.ac, TLS: config})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			over := make(chan error)
			go func() { over <- server.Serve(l) }()
			nc, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			clientConfig := config.Clone()
			clientConfig.RootCAs = roots
			said := new(smtpc.Transcript)
			conn, err := smtpc.Open(t.Context(), nc, "mx.a.test", smtpc.Options{Hostname: "us.test", LMTP: kind == smtpd.LMTP, TLS: smtpc.Required, Config: clientConfig, Record: said})
			if err != nil {
				t.Fatal(err)
			}
			if !conn.Offers("CHUNKING") || !conn.Offers("PIPELINING") || conn.Verified() != nil {
				t.Errorf("%q, %v", conn.Extensions(), conn.Verified())
			}
			for i, m := range []smtpc.Message{
				{Envelope: envelope.Envelope{}, Body: strings.NewReader("A: b\r\n\r\n.\r\n..x\r\nz\r\n")},
				{Envelope: envelope.Envelope{Body: envelope.Body8Bit, ID: "a+b", Return: envelope.ReturnFull}, Body: strings.NewReader("A: ö\r\n\r\nö\r\n"), UTF8: true},
				{Envelope: envelope.Envelope{Body: envelope.BodyBinary, Priority: 3}, Body: strings.NewReader("A: b\r\n\r\n\x00\n\r.\r\n\xff"), Binary: true},
				{Envelope: envelope.Envelope{Body: envelope.BodyBinary}, Body: strings.NewReader("A: b\r\n\r\n" + strings.Repeat("\x00\r\n\n", 100_000)), Binary: true},
				{Envelope: envelope.Envelope{}, Body: strings.NewReader("A: b\r\n\r\n" + strings.Repeat(".0123456789\r\n", 100_000))},
			} {
				text, _ := io.ReadAll(m.Body)
				m.Body, m.Size, m.Envelope.From = strings.NewReader(string(text)), int64(len(text)), path(fmt.Sprintf("<s%d@x.test>", i))
				for _, to := range []string{"<alice@a.test>", "<nobody@a.test>", "<bob@a.test>"} {
					m.Recipients = append(m.Recipients, envelope.Recipient{To: path(to), Notify: envelope.NotifyFailure})
				}
				r := conn.Send(m)
				if r.Replies[0].Code != 250 || r.Replies[1].Code != 550 || r.Replies[2].Code != 250 || conn.Broken() {
					t.Fatalf("message %d: %+v\n%s", i, r, said)
				}
				if got := f.spooled(m.Envelope.From); !strings.HasSuffix(got, string(text)) {
					t.Errorf("message %d came as %.300q", i, got)
				}
			}
			conn.Close()
			server.Shutdown(context.Background())
			if err := <-over; err != nil {
				t.Error(err)
			}
		})
	}
}

// spooled is the body of the message from a sender in the spool.
func (f *fixture) spooled(from envelope.Address) string {
	f.t.Helper()
	list, err := f.sp.List(context.Background(), spool.Filter{}, 0, 1000)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range list {
		if e.Message.Envelope.From != from {
			continue
		}
		body, err := f.st.OpenBody(e.Message.ID)
		if err != nil {
			f.t.Fatal(err)
		}
		defer body.Close()
		b, err := io.ReadAll(body.Reader())
		if err != nil {
			f.t.Fatal(err)
		}
		return string(b)
	}
	return ""
}
