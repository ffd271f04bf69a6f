package delivery

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/internal/account"
	"postroad/internal/dns/dnstest"
	"postroad/internal/envelope"
	"postroad/internal/mailbox"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// fixture is a whole house without its doors: store, spool, mailboxes, directory.
// The accounts are alice@a.test and bob@a.test.
type fixture struct {
	t     testing.TB
	dir   string
	clock *clock
	cfg   Config
	dns   *dnstest.Resolver
	st    *store.Store
	sp    *spool.Spool
	mb    *mailbox.Service
	ac    *account.Directory
	stop  func() // of the runner
}

// clock is the time that spool and runner see; waiting for it to come is not needed.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, dir: t.TempDir(), clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, dns: new(dnstest.Resolver)}
	f.open()
	t.Cleanup(func() { f.check(); f.close() })
	for _, name := range []string{"alice", "bob"} {
		f.account(name)
	}
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	var err error
	if f.st, err = store.Open(f.dir, store.Options{}); err != nil {
		f.t.Fatal(err)
	}
	f.sp = spool.Open(f.st, f.clock.Now)
	f.mb = mailbox.New(f.st, mailbox.Options{Now: f.clock.Now})
	f.ac = account.Open(f.st, f.clock.Now)
}

func (f *fixture) close() {
	f.halt()
	if err := f.st.Close(); err != nil {
		f.t.Error(err)
	}
}

func (f *fixture) reopen() { f.close(); f.open() }

func (f *fixture) account(name string) {
	f.ac.AddDomain("a.test")
	_, err := f.ac.Add(envelope.Address{Local: name, Domain: "a.test"}, "secret secret", func(tx store.Tx, a account.Account) error {
		return f.mb.CreateDefaults(tx, mailbox.Owner(a.ID))
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// check holds everything in the store against everything else.
func (f *fixture) check() {
	f.t.Helper()
	refs := []store.References{f.sp.References, f.mb.References}
	res, err := f.st.Check(context.Background(), refs, nil)
	if err != nil {
		f.t.Error(err)
	}
	problems := res.Problems
	for _, check := range []func(context.Context) ([]store.Problem, error){f.sp.Check, f.mb.Check} {
		more, err := check(context.Background())
		if err != nil {
			f.t.Error(err)
		}
		problems = append(problems, more...)
	}
	for _, p := range problems {
		f.t.Errorf("%s: %s", p.What, p.Text)
	}
}

// start runs a Runner until halt.
func (f *fixture) start() {
	f.t.Helper()
	c := f.cfg
	c.Store, c.Spool, c.Mailboxes, c.Accounts, c.Resolver = f.st, f.sp, f.mb, f.ac, f.dns
	c.Hostname, c.Now, c.AllowPrivate = "mx.a.test", f.clock.Now, true
	c.Schedule.Jitter = -1
	if testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(f.t.Output(), nil))
	}
	r := New(c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	f.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	}
}

func (f *fixture) halt() {
	if f.stop != nil {
		f.stop()
		f.stop = nil
	}
}

func path(s string) envelope.Address {
	a, err := envelope.ParsePath(s)
	if err != nil {
		panic(err)
	}
	return a
}

// letter is the message of most tests.
const letter = "Return-Path: <>\r\nReceived: from x\r\nMessage-ID: <1@x.test>\r\nSubject: hello\r\n\r\nbody\r\n.dot\r\n"

// submit accepts a letter from from for the recipients.
func (f *fixture) submit(from string, to ...string) store.ID {
	f.t.Helper()
	return f.accept(&spool.Message{Envelope: envelope.Envelope{From: path(from)}}, letter, f.rcpts(to...)...)
}

func (f *fixture) rcpts(to ...string) []spool.Recipient {
	f.t.Helper()
	var rcpts []spool.Recipient
	for _, s := range to {
		targets, err := f.ac.Resolve(path(s))
		if err != nil {
			f.t.Fatal(err)
		}
		for _, x := range targets {
			rcpts = append(rcpts, spool.Recipient{Recipient: envelope.Recipient{To: x.Address}, Account: uint64(x.Account)})
		}
	}
	return rcpts
}

func (f *fixture) accept(m *spool.Message, text string, rcpts ...spool.Recipient) store.ID {
	f.t.Helper()
	draft := f.st.NewDraft()
	if _, err := io.WriteString(draft, text); err != nil {
		f.t.Fatal(err)
	}
	m.Skip = int64(strings.Index(text, "\n") + 1)
	if err := f.sp.Accept(m, rcpts, draft); err != nil {
		f.t.Fatal(err)
	}
	return m.ID
}

// mail returns the texts in an account's INBOX, in order.
func (f *fixture) mail(name string) []string {
	f.t.Helper()
	a, err := f.ac.Get(envelope.Address{Local: name, Domain: "a.test"})
	if err != nil {
		f.t.Fatal(err)
	}
	box, err := f.mb.Get(mailbox.Owner(a.ID), "INBOX")
	if err != nil {
		f.t.Fatal(err)
	}
	var texts []string
	for m, err := range f.mb.Messages(box.ID, nil) {
		if err != nil {
			f.t.Fatal(err)
		}
		texts = append(texts, f.body(m.Body))
	}
	return texts
}

func (f *fixture) body(id store.ID) string {
	f.t.Helper()
	body, err := f.mb.OpenBody(id)
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

// events returns what the trace says of a message: "kind reply" for each event.
func (f *fixture) events(id store.ID) []string {
	f.t.Helper()
	list, err := trace.New(f.st, trace.Limits{}).Message(id)
	if err != nil {
		f.t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, strings.Join(e.To, ","), e.Reply)))
	}
	return all
}

// queue returns what is in the spool: "recipient state" for each.
func (f *fixture) queue() []string {
	f.t.Helper()
	list, err := f.sp.List(context.Background(), spool.Filter{}, 0, 1<<20)
	if err != nil {
		f.t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		for _, r := range e.Recipients {
			all = append(all, r.To.String()+" "+r.State.String())
		}
	}
	return all
}

// until waits for a condition that other goroutines bring about. Time on the wall
// decides nothing but when to give up.
func (f *fixture) until(what string, cond func() bool) {
	f.t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(end) {
			f.t.Fatalf("never: %s; the queue holds %v", what, f.queue())
		}
		time.Sleep(time.Millisecond)
	}
}

func (f *fixture) drained() {
	f.t.Helper()
	f.until("the queue is empty", func() bool { return len(f.queue()) == 0 })
}

// idle waits until nothing is due or being tried.
func (f *fixture) idle() {
	f.t.Helper()
	f.until("nothing is active", func() bool {
		for _, q := range f.queue() {
			if strings.HasSuffix(q, " active") {
				return false
			}
		}
		return true
	})
}

func contextDone(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}
