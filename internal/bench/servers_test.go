package bench

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"postroad/internal/listen/listentest"
)

// A sink is an SMTP server that keeps what it accepts, and refuses what refuse
// says.
type sink struct {
	mu       sync.Mutex
	messages []received // guarded by mu
	sessions int        // guarded by mu
	logins   int        // guarded by mu

	refuse  func(stage, arg string) error // nil accepts all
	deliver func(to string, message []byte) error
}

type received struct {
	from string
	to   []string
	body []byte
}

func (s *sink) NewSession(*smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	return &sinkSession{sink: s}, nil
}

type sinkSession struct {
	*sink
	received
}

func (s *sinkSession) check(stage, arg string) error {
	if s.refuse == nil {
		return nil
	}
	return s.refuse(stage, arg)
}

func (s *sinkSession) Reset()        { s.received = received{} }
func (s *sinkSession) Logout() error { return nil }

func (s *sinkSession) AuthMechanisms() []string { return []string{"PLAIN"} }
func (s *sinkSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "alice" || password != "secret" {
			return smtp.ErrAuthFailed
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.logins++
		return nil
	}), nil
}

func (s *sinkSession) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return s.check("MAIL", from)
}

func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := s.check("RCPT", to); err != nil {
		return err
	}
	s.to = append(s.to, to)
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.check("DATA", s.to[0]); err != nil {
		return err
	}
	s.keep(s.to, body)
	return nil
}

func (s *sinkSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	for _, to := range s.to {
		err := s.check("DATA", to)
		status.SetStatus(to, err)
		if err == nil {
			s.keep([]string{to}, body)
		}
	}
	return nil
}

func (s *sinkSession) keep(to []string, body []byte) {
	s.mu.Lock()
	s.messages = append(s.messages, received{s.from, to, body})
	s.mu.Unlock()
	if s.deliver == nil {
		return
	}
	for _, to := range to {
		s.deliver(to, body)
	}
}

// serve runs a server on loopback until the test ends and returns its address.
func serve(t *testing.T, implicit *tls.Config, serve func(net.Listener) error, stop func() error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if implicit != nil {
		l = tls.NewListener(l, implicit)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); serve(l) }()
	t.Cleanup(func() { stop(); l.Close(); <-ended })
	return addr
}

func (s *sink) start(t *testing.T, change func(*smtp.Server)) string {
	t.Helper()
	server := smtp.NewServer(s)
	server.AllowInsecureAuth = true
	server.ErrorLog = log.New(io.Discard, "", 0)
	if change != nil {
		change(server)
	}
	return serve(t, nil, server.Serve, server.Close)
}

// startIMAP serves one user per name, all with the password "secret".
func startIMAP(t *testing.T, caps imap.CapSet, names ...string) (addr string, users map[string]*imapmemserver.User) {
	t.Helper()
	memory := imapmemserver.New()
	users = map[string]*imapmemserver.User{}
	for _, name := range names {
		users[name] = imapmemserver.NewUser(name, "secret")
		users[name].Create("INBOX", nil)
		memory.AddUser(users[name])
	}
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return pushing{memory.NewSession().(imapserver.SessionIMAP4rev2)}, nil, nil
		},
		Caps: caps, InsecureAuth: true, Logger: log.New(io.Discard, "", 0),
	})
	return serve(t, nil, server.Serve, server.Close), users
}

// pushing is a session that looks for news while idle. The library's own Idle
// forgets to push what came between SELECT and its first moment.
type pushing struct{ imapserver.SessionIMAP4rev2 }

func (s pushing) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-t.C:
			if err := s.Poll(w, true); err != nil {
				return err
			}
		}
	}
}

// literal is a message as imapmemserver takes it.
type literal struct{ *bytes.Reader }

func (l literal) Size() int64 { return l.Reader.Size() }

func put(u *imapmemserver.User, message []byte) error {
	_, err := u.Append("INBOX", literal{bytes.NewReader(message)}, &imap.AppendOptions{})
	return err
}

func certificate(t *testing.T) *tls.Config {
	t.Helper()
	config, _ := listentest.Certificate(t, "localhost")
	return config
}

// script sends greeting to every connection, and after each thing read the next of
// replies, and then closes it.
func script(t *testing.T, greeting string, replies ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var playing sync.WaitGroup
	playing.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			playing.Go(func() { play(c, greeting, replies) })
		}
	})
	t.Cleanup(func() { l.Close(); playing.Wait() })
	return l.Addr().String()
}

func play(c net.Conn, greeting string, replies []string) {
	defer c.Close()
	io.WriteString(c, greeting)
	buffer := make([]byte, 64<<10)
	for _, reply := range replies {
		if _, err := c.Read(buffer); err != nil {
			return
		}
		io.WriteString(c, strings.ReplaceAll(reply, "\n", "\r\n"))
	}
}
