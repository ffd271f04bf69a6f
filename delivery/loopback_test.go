package delivery

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"postroad/internal/envelope"
	"postroad/internal/listen/listentest"
	"postroad/spool"
)

// sink is a backend of go-smtp's server, a second opinion on what we speak.
type sink struct{ got chan mailed }

func (s *sink) NewSession(*smtp.Conn) (smtp.Session, error) { return &sinkSession{sink: s}, nil }

type sinkSession struct {
	sink *sink
	mail mailed
}

func (s *sinkSession) Mail(from string, _ *smtp.MailOptions) error {
	s.mail = mailed{from: from}
	return nil
}

func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.to = append(s.mail.to, to)
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err == nil {
		s.mail.text = string(b)
		s.sink.got <- s.mail
	}
	return err
}

func (s *sinkSession) Reset()        {}
func (s *sinkSession) Logout() error { return nil }

// TestLoopback relays over real connections with TLS to another implementation, from
// two lanes at a time, and everything arrives once and unchanged.
func TestLoopback(t *testing.T) {
	config, _ := listentest.Certificate(t, "localhost")
	s := &sink{got: make(chan mailed, 1000)}
	server := smtp.NewServer(s)
	server.Domain, server.TLSConfig, server.EnableSMTPUTF8, server.EnableDSN = "sink.test", config, true, true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	defer server.Close()

	f := newFixture(t)
	f.cfg.Dial = dialFrom
	f.cfg.Port = l.Addr().(*net.TCPAddr).Port
	f.cfg.AllowPrivate = true
	f.dns.Host("y.test", "127.0.0.1")
	f.dns.Host("z.test", "127.0.0.1")
	f.start()
	const n = 200
	want := make(map[string]string)
	for i := range n {
		to := fmt.Sprintf("r%d@%c.test", i, 'y'+i%2)
		text := fmt.Sprintf("Subject: %d\r\n\r\n%s.\r\n..\r\n", i, strings.Repeat(".0123456789\r\n", i*20))
		want[to] = text
		f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<s@x.test>")}}, "Return-Path: <s@x.test>\r\n"+text, f.rcpts(to)...)
	}
	for range n {
		m := <-s.got
		if len(m.to) != 1 || m.from != "s@x.test" || want[m.to[0]] != m.text {
			t.Fatalf("%v came as %.200q", m.to, m.text)
		}
		delete(want, m.to[0])
	}
	f.halt()
	if q := f.queue(); len(q) != 0 || len(s.got) != 0 {
		t.Errorf("the queue holds %q; %d came again", q, len(s.got))
	}
}
