package delivery

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/account"
	"postroad/internal/dns/dnstest"
	"postroad/internal/envelope"
	"postroad/internal/event"
	"postroad/internal/mailbox"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/internal/trace"
	"postroad/spool"
)

// fixture is a whole house without its doors: store, spool, mailboxes, directory.
// The accounts are alice@a.test and bob@a.test. In a bubble of synctest, time passes
// only when a test says so.
type fixture struct {
	t   testing.TB
	dir string
	cfg Config
	dns *dnstest.Resolver
	net *network
	fs  store.FS // of the bodies; nil is the real one
	st  *store.Store
	sp  *spool.Spool
	mb  *mailbox.Service
	ac  *account.Directory
	run *Runner

	outbox *event.Outbox // of the last start
	stop   func()        // of the runner
}

// template is a data directory with the accounts in it: making their password
// hashes anew for each test would take most of the time.
var template string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "delivery")
	if err == nil {
		template = dir
		err = makeTemplate(dir)
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func makeTemplate(dir string) error {
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		return err
	}
	ac, mb := account.Open(st, nil), mailbox.New(st, mailbox.Options{})
	if _, err := ac.AddDomain("a.test"); err != nil {
		return err
	}
	for _, name := range []string{"alice", "bob"} {
		_, err := ac.Add(envelope.Address{Local: name, Domain: "a.test"}, "secret secret", func(tx store.Tx, a account.Account) error {
			return mb.CreateDefaults(tx, mailbox.Owner(a.ID))
		})
		if err != nil {
			return err
		}
	}
	return st.Close()
}

func newFixture(t testing.TB) *fixture { return newFixtureOn(t, nil) }

// newFixtureOn keeps the bodies on another disk.
func newFixtureOn(t testing.TB, fs store.FS) *fixture {
	f := &fixture{t: t, fs: fs, dir: filepath.Join(storetest.MemoryDir(t), "data"), dns: new(dnstest.Resolver), net: new(network)}
	if err := os.CopyFS(f.dir, os.DirFS(template)); err != nil {
		t.Fatal(err)
	}
	f.open()
	t.Cleanup(func() { f.check(); f.close() })
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	var err error
	if f.st, err = store.Open(f.dir, store.Options{FS: f.fs}); err != nil {
		f.t.Fatal(err)
	}
	f.sp = spool.Open(f.st, time.Now)
	f.mb = mailbox.New(f.st, mailbox.Options{Now: time.Now})
	f.ac = account.Open(f.st, time.Now)
}

func (f *fixture) close() {
	f.halt()
	if err := f.st.Close(); err != nil {
		f.t.Error(err)
	}
}

func (f *fixture) reopen() { f.close(); f.open() }

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
	c.Hostname = "mx.a.test"
	if c.Dial == nil {
		c.Dial = f.net.Dial
	}
	c.Schedule.Jitter = cmp.Or(c.Schedule.Jitter, -1)
	if testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(f.t.Output(), nil))
	}
	f.outbox = event.Open(f.st, f.sp, Hooks(c.Webhooks), slog.New(slog.DiscardHandler))
	c.Events = f.outbox
	r := New(c)
	f.run = r
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

// runnerBusy is the number of attempts under way.
func (f *fixture) runnerBusy() int {
	f.run.mu.Lock()
	defer f.run.mu.Unlock()
	return f.run.active.sum
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
			rcpts = append(rcpts, recipient(x))
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
	if err := f.sp.Accept(m, rcpts, draft, nil); err != nil {
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

// settle lets happen what is under way; local delivery waits 2 ms for a commit that it
// can join, and a report takes several deliveries.
func settle() {
	time.Sleep(20 * time.Millisecond) // of the bubble's time
	synctest.Wait()
}

// drained waits until nothing more happens, and then the queue must be empty.
func (f *fixture) drained() {
	f.t.Helper()
	settle()
	if q := f.queue(); len(q) > 0 {
		f.t.Fatalf("the queue holds %q", q)
	}
}

// pass lets time pass, and what it brings happen.
func (f *fixture) pass(d time.Duration) {
	time.Sleep(d)
	settle()
}

func contextDone(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}
