package smtpd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/listen/listentest"
	"postroad/internal/sasl"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/spool"
)

// directory is a small town: example.test is ours.
type directory struct {
	mu     sync.Mutex
	broken error
	asked  int // passwords looked at

	// limits, if set, counts what alice sends, as its account limited.
	limits  *account.Directory
	limited account.ID

	saveSent account.Switch // of all accounts
}

var town = map[string][]account.Target{
	"alice@example.test":      {{Account: 1, Address: addr("alice@example.test")}},
	"bob@example.test":        {{Account: 2, Address: addr("bob@example.test")}},
	"postmaster@example.test": {{Account: 1, Address: addr("alice@example.test")}},
	"both@example.test":       {{Account: 1, Address: addr("alice@example.test")}, {Account: 2, Address: addr("bob@example.test")}},
	"away@example.test":       {{Address: addr("someone@elsewhere.test")}},
	"info@example.test":       {{Account: 1, Address: addr("alice@example.test")}},
	"list@example.test":       {{Address: addr("list@example.test"), List: true}},
	"jörg@example.test":       {{Account: 2, Address: addr("bob@example.test")}},
}

func addr(s string) envelope.Address {
	a, err := envelope.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func (d *directory) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.broken
}

func (d *directory) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = err
}

func (d *directory) IsLocal(domain string) (bool, error) {
	return strings.EqualFold(domain, "example.test"), d.failure()
}

func (d *directory) Resolve(a envelope.Address) ([]account.Target, error) {
	c := a.Canonical()
	if c.Domain == "" {
		c.Domain = "example.test" // the bare postmaster
	}
	if c.Domain != "example.test" {
		return []account.Target{{Address: a}}, d.failure()
	}
	if c.Local == "loop" {
		return nil, account.ErrLoop
	}
	if t, ok := town[c.String()]; ok {
		return t, d.failure()
	}
	return nil, errors.Join(account.ErrUnknown, d.failure())
}

// ByID knows when accounts were made: in 2020.
func (d *directory) ByID(id account.ID) (account.Account, error) {
	return account.Account{ID: id, Created: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), SaveSent: d.saveSent}, d.failure()
}

func (d *directory) Stands(account.Account) bool { return true }

func (d *directory) Mechanisms(account.Client) []string { return []string{sasl.Plain} }

func (d *directory) Begin(_ context.Context, _ account.Client, mechanism string) (account.Exchange, error) {
	x := &exchange{d: d}
	switch mechanism {
	case sasl.Plain:
		x.Server = sasl.NewPlain(x.check)
	case sasl.Login:
		x.Server = sasl.NewLogin(func(user, password string) error { return x.check("", user, password) })
	default:
		return nil, account.ErrMechanism
	}
	return x, nil
}

// exchange lets alice and bob in.
type exchange struct {
	sasl.Server
	d    *directory
	user string
}

func (x *exchange) check(identity, user, password string) error {
	x.d.mu.Lock()
	defer x.d.mu.Unlock()
	x.user = user
	x.d.asked++
	if x.d.broken != nil {
		return x.d.broken
	}
	if (user == "alice@example.test" || user == "bob@example.test") && password == "secret" && (identity == "" || identity == user) {
		return nil
	}
	return account.ErrCredentials
}

func (x *exchange) User() string { return x.user }

func (x *exchange) Login() account.Login {
	return account.Login{Account: account.Account{ID: town[x.user][0].Account, Address: addr(x.user)}}
}

func (d *directory) Get(a envelope.Address) (account.Account, error) {
	targets, ok := town[a.Canonical().String()]
	if !ok {
		return account.Account{}, account.ErrNotFound
	}
	return account.Account{ID: targets[0].Account, Address: a}, d.failure()
}

// MayPost lets all but the null sender write to any list.
func (d *directory) MayPost(_, from envelope.Address) (bool, error) {
	return !from.IsZero(), d.failure()
}

func (d *directory) Sending(a account.Account, configured account.Allowance) (*account.Sending, error) {
	if d.limits == nil || a.ID != 1 {
		return nil, d.failure()
	}
	a.ID = d.limited
	return d.limits.Sending(a, configured)
}

func (d *directory) MaySend(id account.ID, a envelope.Address) (bool, error) {
	targets, err := d.Resolve(a)
	if errors.Is(err, account.ErrUnknown) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, t := range targets {
		if t.Account == id {
			return true, nil
		}
	}
	return false, nil
}

// queue is the spool, watched: it remembers what was accepted.
type queue struct {
	*spool.Spool
	st *store.Store

	mu   sync.Mutex
	got  []accepted
	fail error
	dry  bool          // remember only, store nothing
	gate chan struct{} // if set, Accept waits for it
}

type accepted struct {
	spool.Message
	rcpts []spool.Recipient
}

func (q *queue) Accept(m *spool.Message, rcpts []spool.Recipient, d *store.Draft, with func(store.Tx) error) error {
	if q.gate != nil {
		<-q.gate
	}
	if err := q.accept(m, rcpts, d, with); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.got = append(q.got, accepted{*m, rcpts})
	return nil
}

func (q *queue) accept(m *spool.Message, rcpts []spool.Recipient, d *store.Draft, with func(store.Tx) error) error {
	q.mu.Lock()
	fail, dry := q.fail, q.dry
	q.mu.Unlock()
	switch {
	case fail != nil:
		return fail
	case dry:
		m.ID, m.Size = d.ID(), d.Size()
		d.Discard()
		return nil
	}
	return q.Spool.Accept(m, rcpts, d, with)
}

func (q *queue) set(dry bool, fail error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dry, q.fail = dry, fail
}

func (q *queue) messages() []accepted {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]accepted(nil), q.got...)
}

// take is messages, and forgets them.
func (q *queue) take() []accepted {
	q.mu.Lock()
	defer q.mu.Unlock()
	got := q.got
	q.got = nil
	return got
}

// body reads an accepted message as final delivery shows it.
func (q *queue) body(t *testing.T, m accepted) string {
	t.Helper()
	b, err := q.st.OpenBody(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	all, err := io.ReadAll(b.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// content is the body without our fields, found by the end of the Received field or
// of the fields that a submission lacked.
func (q *queue) content(t *testing.T, m accepted) string {
	t.Helper()
	body := q.body(t, m)
	_, rest, ok := strings.Cut(body, "; Fri, 20 Nov 2026 09:10:16 +0000\r\n")
	if !ok {
		t.Fatalf("no Received field in %q", body)
	}
	return rest
}

// clock is the time in all tests that do not watch it.
func clock() time.Time { return time.Date(2026, 11, 20, 9, 10, 16, 0, time.UTC) }

// house is a server with what stands behind it.
type house struct {
	*Server
	accounts *directory
	queue    *queue
	addr     string
	log      *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// open starts a server on loopback. change may change its config and its limits.
func open(t testing.TB, kind Kind, implicitTLS bool, change ...func(*Config)) *house {
	t.Helper()
	h := build(t, kind, implicitTLS, change...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.serve(t, l)
	return h
}

func build(t testing.TB, kind Kind, implicitTLS bool, change ...func(*Config)) *house {
	t.Helper()
	st := storetest.Open(t, new(spool.Spool).References)
	return buildOn(t, st, kind, implicitTLS, change...)
}

func buildOn(t testing.TB, st *store.Store, kind Kind, implicitTLS bool, change ...func(*Config)) *house {
	h := &house{accounts: &directory{}, log: &syncBuffer{}}
	h.queue = &queue{Spool: spool.Open(st, clock), st: st}
	certificate, _ := listentest.Certificate(t, "mx.example.test")
	c := Config{
		Hostname: "mx.example.test", Store: st, Spool: h.queue, Accounts: h.accounts, Logins: h.accounts,
		TLS: certificate, Now: clock, Log: slog.New(slog.NewTextHandler(h.log, nil)),
	}
	for _, f := range change {
		f(&c)
	}
	h.Server = NewServer(kind, implicitTLS, c)
	return h
}

// pipes is how a test reaches a server without a network.
type pipes struct{ *listentest.Pipes }

// piped starts a server that is reached by pipes.
func piped(t testing.TB, kind Kind, change ...func(*Config)) (*house, *pipes) {
	h := build(t, kind, false, change...)
	p := &pipes{listentest.NewPipes()}
	h.serve(t, p)
	return h, p
}

func (p *pipes) dial(t testing.TB) *client {
	return newClient(t, p.Dial())
}

// throw sends the pieces of a whole session one after the other and returns all that
// the server said until it closed.
func (p *pipes) throw(t testing.TB, pieces ...string) string {
	c := p.dial(t)
	said := make(chan string)
	go func() { b, _ := io.ReadAll(c); said <- string(b) }()
	for _, piece := range pieces {
		if _, err := io.WriteString(c, piece); err != nil {
			break // it has closed
		}
	}
	return <-said
}

func (h *house) serve(t testing.TB, l net.Listener) {
	h.addr = l.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stop, now := context.WithCancel(ctx)
		now() // what a test left open is cut off
		h.Shutdown(stop)
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		if h.panics.Load() != 0 {
			t.Errorf("a session panicked:\n%s", h.log)
		}
	})
}

// client is the peer's end of a dialogue.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (h *house) dial(t testing.TB) *client {
	t.Helper()
	nc, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, nc)
}

func newClient(t testing.TB, nc net.Conn) *client {
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{nc, t, bufio.NewReader(nc)}
}

// startTLS begins TLS on the connection.
func (c *client) startTLS() {
	c.t.Helper()
	tc := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		c.t.Fatalf("TLS handshake: %v", err)
	}
	c.Conn, c.r = tc, bufio.NewReader(tc)
}

func (c *client) send(s string) {
	io.WriteString(c.Conn, s) // when the server has closed, the missing reply tells
}

// reply reads a reply: all its lines, joined by LF.
func (c *client) reply() (string, error) {
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return strings.Join(append(lines, line), "\n"), err
		}
		line = strings.TrimSuffix(line, "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// talk plays a script: "> x" sends a line, "< x" expects a reply whose last line begins
// with x, "<-" expects the end of the connection, "tls" begins TLS.
func (c *client) talk(script string) {
	c.t.Helper()
	for line := range strings.SplitSeq(script, "\n") {
		line = strings.TrimLeft(line, "\t")
		switch {
		case line == "":
		case line == "tls":
			c.startTLS()
		case line == ">":
			c.send("\r\n")
		case strings.HasPrefix(line, "> "):
			c.send(line[2:] + "\r\n")
		case line == "<-":
			if got, err := c.reply(); err == nil {
				c.t.Errorf("the connection goes on: %q", got)
			}
		case strings.HasPrefix(line, "< "):
			c.expect(line[2:])
		default:
			c.t.Fatalf("a script has the line %q", line)
		}
	}
}

func (c *client) expect(prefix string) string {
	c.t.Helper()
	got, err := c.reply()
	last := got[strings.LastIndexByte(got, '\n')+1:]
	if err != nil || !strings.HasPrefix(last, prefix) {
		c.t.Fatalf("got %q (%v), want %q", got, err, prefix)
	}
	return got
}

func limits(f func(*Limits)) func(*Config) { return func(c *Config) { f(&c.Limits) } }
