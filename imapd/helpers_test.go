package imapd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"iter"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/imaptest"
	"postroad/internal/listen/listentest"
	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

const (
	user     = "alice@example.test"
	password = "correct horse"
)

// A house is a server with a store below it and an account.
type house struct {
	t      testing.TB
	srv    *Server
	config Config
	addr   string
	owner  mailbox.Owner
	dir    string // of the store
}

type option func(*Config)

func newHouse(t testing.TB, options ...option) *house {
	t.Helper()
	h := buildHouse(t, store.Options{}, options...)
	h.srv, h.addr = h.serve(false)
	return h
}

// buildHouse is newHouse without a listener.
func buildHouse(t testing.TB, so store.Options, options ...option) *house {
	t.Helper()
	h := &house{t: t, dir: storetest.MemoryDir(t)}
	st := storetest.OpenDir(t, h.dir, so, func(r store.Reader) iter.Seq[store.ID] { return h.config.Mailboxes.References(r) })
	h.config = Config{
		Store:     st,
		Mailboxes: mailbox.New(st, mailbox.Options{Quota: quotaOf}),
		Accounts:  account.Open(st, time.Now),
		Log:       slog.New(strict{t}),
	}
	for _, o := range options {
		o(&h.config)
	}
	h.owner = h.addAccount(user)
	return h
}

// setQuota bounds what the first account may hold.
func (h *house) setQuota(octets int64) {
	h.t.Helper()
	addr, err := envelope.ParseAddress(user)
	h.must(err)
	_, err = h.config.Accounts.Set(addr, account.Settings{Octets: &octets})
	h.must(err)
}

func (h *house) addAccount(address string) (o mailbox.Owner) {
	h.t.Helper()
	addr, err := envelope.ParseAddress(address)
	h.must(err)
	h.config.Accounts.AddDomain(addr.Domain)
	a, err := h.config.Accounts.Add(addr, password, func(tx store.Tx, a account.Account) error {
		return h.config.Mailboxes.CreateDefaults(tx, mailbox.Owner(a.ID))
	})
	h.must(err)
	return mailbox.Owner(a.ID)
}

// serve starts a server and stops it at the end of the test.
func (h *house) serve(implicitTLS bool) (*Server, string) {
	h.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	return h.serveOn(ln, implicitTLS), ln.Addr().String()
}

func (h *house) serveOn(ln net.Listener, implicitTLS bool) *Server {
	srv := NewServer(implicitTLS, h.config)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			h.t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			h.t.Errorf("serve: %v", err)
		}
	})
	return srv
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// deliver puts a message into a mailbox as delivery does.
func (h *house) deliver(name, msg string) mailbox.UID {
	h.t.Helper()
	draft := h.config.Store.NewDraft()
	io.WriteString(draft, msg)
	st, err := mime.Scan(strings.NewReader(msg))
	h.must(err)
	structure, err := st.AppendBinary(nil)
	h.must(err)
	var p mailbox.Placed
	h.must(h.config.Store.Update(func(tx store.Tx) (err error) {
		p, err = h.config.Mailboxes.Add(tx, h.owner, name, mailbox.Arrival{
			Body: draft.ID(), Size: draft.Size(), Structure: structure,
			Internal: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC),
		})
		return err
	}, draft))
	return p.UID
}

// client is go-imap's client, logged in.
func (h *house) client(o *imapclient.Options) *imapclient.Client {
	h.t.Helper()
	c, err := imapclient.DialInsecure(h.addr, o)
	h.must(err)
	h.t.Cleanup(func() { c.Close() })
	h.must(c.Login(user, password).Wait())
	return c
}

// append appends with go-imap's client.
func appendTo(c *imapclient.Client, name string, msg []byte) (*imap.AppendData, error) {
	cmd := c.Append(name, int64(len(msg)), nil)
	_, err1 := cmd.Write(msg)
	err2 := cmd.Close()
	data, err := cmd.Wait()
	if err == nil {
		err = err1
	}
	if err == nil {
		err = err2
	}
	return data, err
}

// strict is a log in which an error is a test's failure: the server met something that it should have understood.
type strict struct{ t testing.TB }

func (s strict) Enabled(context.Context, slog.Level) bool { return true }
func (s strict) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s strict) WithGroup(string) slog.Handler            { return s }
func (s strict) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelError {
		return nil
	}
	s.t.Errorf("logged: %s", r.Message)
	r.Attrs(func(a slog.Attr) bool {
		s.t.Logf("  %s", a)
		return true
	})
	return nil
}

// A raw is a connection on which a test says what it likes.
type raw struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader

	strict *imaptest.Reader // reads from r, ahead
}

func (h *house) raw() *raw {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	h.must(err)
	return newRaw(h.t, conn)
}

func newRaw(t testing.TB, conn net.Conn) *raw {
	t.Cleanup(func() { conn.Close() })
	return &raw{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// loggedIn is raw after the greeting and LOGIN.
func (h *house) loggedIn() *raw {
	h.t.Helper()
	c := h.raw()
	c.dialog(`
		< * OK [...
		> l LOGIN alice@example.test "correct horse"
		< l OK [CAPABILITY ...
	`)
	return c
}

func (c *raw) send(s string) {
	c.t.Helper()
	c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *raw) line() string {
	if here, _ := c.r.Peek(c.r.Buffered()); !bytes.Contains(here, []byte("\n")) { // else a test of many lines takes twice the time
		c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Helper()
		c.t.Fatalf("read: %v after %q", err, line)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// closed expects the end of the connection.
func (c *raw) closed() {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if line, err := c.r.ReadString('\n'); err == nil || strings.Contains(err.Error(), "timeout") {
		c.t.Errorf("the connection goes on: %q, %v", line, err)
	}
}

// dialog runs a script: "> " sends a line, "< " expects one, in which ... stands for anything.
func (c *raw) dialog(script string) {
	c.t.Helper()
	for line := range strings.SplitSeq(script, "\n") {
		switch line = strings.TrimLeft(line, "\t "); {
		case line == "":
		case strings.HasPrefix(line, ">"):
			c.send(strings.TrimPrefix(strings.TrimPrefix(line, ">"), " ") + "\r\n")
		case strings.HasPrefix(line, "< "):
			c.expect(line[2:])
		default:
			c.t.Fatalf("neither > nor <: %q", line)
		}
	}
}

func (c *raw) expect(want string) {
	c.t.Helper()
	got := c.line()
	for strings.HasSuffix(got, " RECENT") && !strings.HasSuffix(want, " RECENT") {
		got = c.line()
	}
	if !like(want, got) {
		c.t.Fatalf("got  %q\nwant %q", got, want)
	}
}

func like(want, got string) bool {
	parts := strings.Split(want, "...")
	if len(parts) == 1 {
		return want == got
	}
	got, ok := strings.CutPrefix(got, parts[0])
	last := len(parts) - 1
	for _, p := range parts[1:last] {
		var found bool
		_, got, found = strings.Cut(got, p)
		ok = ok && found
	}
	return ok && strings.HasSuffix(got, parts[last])
}

// certificate is one for 127.0.0.1.
func certificate(t testing.TB) *tls.Config {
	config, _ := listentest.Certificate(t)
	return config
}

func withTLS(t testing.TB) option { return func(c *Config) { c.TLS = certificate(t) } }

func insecureTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// quotaOf asks the directory what an owner may hold.
func quotaOf(r store.Reader, o mailbox.Owner) mailbox.Quota {
	return mailbox.Quota(account.QuotaOf(r, account.ID(o)))
}

// open selects a mailbox and passes over the answers.
func (c *raw) open(name string) {
	c.t.Helper()
	c.send("open SELECT " + name + "\r\n")
	for line := c.line(); !strings.HasPrefix(line, "open "); line = c.line() {
	}
}
