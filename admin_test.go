package postroad

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"postroad/internal/account"
	"postroad/internal/config"
	"postroad/internal/control"
	"postroad/internal/dns/dnstest"
	"postroad/internal/envelope"
	"postroad/internal/trace"
	"postroad/spool"
)

// newAdmin returns an Admin on a new data directory with alice@example.test. What is
// stored is checked when the test ends.
func newAdmin(t *testing.T) *Admin {
	t.Helper()
	dir := t.TempDir()
	h, err := openHouse(dir, trace.Limits{}, account.Subaddress{}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h.keys = h.openKeys(config.Default(), &dnstest.Resolver{}, slog.New(slog.DiscardHandler))
	a := NewAdmin(h.adminConfig(dir, h.idleRunner(config.Default())))
	t.Cleanup(func() {
		r, err := a.Check(context.Background(), nil)
		if err != nil || len(r.Problems) > 0 {
			t.Errorf("check: %v %+v", err, r.Problems)
		}
		h.store.Close()
	})
	if _, err := a.AddDomain(t.Context(), "example.test"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AddAccount(t.Context(), control.NewAccount{Address: "alice@example.test", Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	return a
}

var inbox = control.MailboxName{Account: "alice@example.test", Mailbox: "INBOX"}

// letters yields n messages, each of about size octets; err, if not nil, comes after them.
func letters(n, size int, err error) iter.Seq2[control.ImportMessage, error] {
	return func(yield func(control.ImportMessage, error) bool) {
		for i := range n {
			text := fmt.Sprintf("Subject: letter %d\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\r\n%s\r\n", i, strings.Repeat("x", size))
			if !yield(control.ImportMessage{Name: fmt.Sprint(i), Body: strings.NewReader(text)}, nil) {
				return
			}
		}
		if err != nil {
			yield(control.ImportMessage{}, err)
		}
	}
}

func collect[T any](t *testing.T, seq iter.Seq2[T, error]) (all []T) {
	t.Helper()
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func TestImportKeepsOrderAndGoesInSteps(t *testing.T) {
	a := newAdmin(t)
	const n = 3*importMessages + 5
	before := a.c.Store.Stats().Commits
	steps := 0
	done, err := a.Import(t.Context(), inbox, letters(n, 10, nil), func(control.Imported) { steps++ })
	if err != nil || done.Messages != n || steps != 4 {
		t.Fatalf("%+v, %v, %d steps", done, err, steps)
	}
	if commits := a.c.Store.Stats().Commits - before; commits > 4 {
		t.Errorf("%d commits for 4 steps", commits)
	}
	list := collect(t, a.Messages(t.Context(), control.MessageList{MailboxName: inbox}))
	for i, m := range list {
		if m.Subject != fmt.Sprintf("letter %d", i) || !m.Internal.Equal(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)) {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
	if len(list) != n {
		t.Errorf("%d messages", len(list))
	}
	if rest := collect(t, a.Messages(t.Context(), control.MessageList{MailboxName: inbox, After: n - 2})); len(rest) != 2 {
		t.Errorf("%d messages after the one before the last but one", len(rest))
	}
}

func TestAnImportThatBreaksKeepsWhatWasWhole(t *testing.T) {
	cut := func(yield func(control.ImportMessage, error) bool) {
		for m, err := range letters(3, 10, nil) {
			if !yield(m, err) {
				return
			}
		}
		yield(control.ImportMessage{Name: "cut", Body: io.MultiReader(strings.NewReader("Subject: half"), iotest.ErrReader(errors.New("the disk is gone")))}, nil)
	}
	for name, tc := range map[string]struct {
		source iter.Seq2[control.ImportMessage, error]
		want   string
	}{
		"the source fails":           {letters(3, 10, errors.New("no more")), "no more"},
		"a message cannot be read":   {cut, "cut: the disk is gone"},
		"an error that has a code":   {letters(3, 10, control.Errorf(control.Damaged, "broken file")), "broken file"},
		"before the first of a step": {letters(3, importOctets, errors.New("no more")), "no more"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAdmin(t)
			done, err := a.Import(t.Context(), inbox, tc.source, nil)
			if err == nil || err.Error() != tc.want || done.Messages != 3 {
				t.Errorf("%+v, %v", done, err)
			}
			if list := collect(t, a.Messages(t.Context(), control.MessageList{MailboxName: inbox})); len(list) != 3 {
				t.Errorf("%d messages", len(list))
			}
		})
	}
}

func TestAnImportThatIsCancelledStoresNothingMore(t *testing.T) {
	a := newAdmin(t)
	ctx, cancel := context.WithCancel(t.Context())
	done, err := a.Import(ctx, inbox, letters(10*importMessages, 10, nil), func(control.Imported) { cancel() })
	if !errors.Is(err, control.Cancelled) || done.Messages != importMessages {
		t.Errorf("%+v, %v", done, err)
	}
	if m, _ := a.Account(t.Context(), inbox.Account); m.Messages != importMessages {
		t.Errorf("%d messages", m.Messages)
	}
}

func TestImportHonoursTheQuota(t *testing.T) {
	a := newAdmin(t)
	octets := int64(100_000)
	if _, err := a.SetAccount(t.Context(), control.SetAccount{Address: inbox.Account, Quota: &octets}); err != nil {
		t.Fatal(err)
	}
	done, err := a.Import(t.Context(), inbox, letters(3*importMessages, 500, nil), nil)
	if !errors.Is(err, control.OverQuota) || done.Messages != 2*importMessages {
		t.Errorf("%+v, %v", done, err)
	}
}

// The mailbox goes while an import is under way.
func TestImportIntoAMailboxThatIsRemoved(t *testing.T) {
	a := newAdmin(t)
	to := control.MailboxName{Account: inbox.Account, Mailbox: "Old"}
	if _, err := a.CreateMailbox(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	done, err := a.Import(t.Context(), to, letters(2*importMessages, 10, nil), func(control.Imported) {
		if err := a.RemoveMailbox(t.Context(), to); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, control.NotFound) || done.Messages != importMessages {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestMessagesComeOutAsTheyWentIn(t *testing.T) {
	a := newAdmin(t)
	text := "Subject: \xff\x00 =?utf-8?q?gr=C3=BC=C3=9Fe?= \r\nFrom: \"\xfe\" <a@b>\r\n\r\n\x00\x01\xff.\r\n.\r\n" + strings.Repeat("long ", 100_000)
	one := func(yield func(control.ImportMessage, error) bool) {
		yield(control.ImportMessage{Name: "x", Flags: []string{`\Flagged`, "$Label1"}, Body: iotest.HalfReader(strings.NewReader(text))}, nil)
	}
	if _, err := a.Import(t.Context(), inbox, one, nil); err != nil {
		t.Fatal(err)
	}
	m := collect(t, a.Messages(t.Context(), control.MessageList{MailboxName: inbox}))[0]
	if len(m.Flags) != 2 || m.Subject != "\ufffd\ufffd grüße" && !strings.HasSuffix(m.Subject, "grüße") {
		t.Errorf("%+v", m)
	}
	for _, name := range []control.MessageName{{ID: m.ID}, {Account: inbox.Account, Mailbox: "inbox", UID: m.UID}} {
		var b bytes.Buffer
		if err := a.ReadMessage(t.Context(), name, &b); err != nil || b.String() != text {
			t.Errorf("%+v: %d octets, %v", name, b.Len(), err)
		}
	}
}

func TestRemovingAnAccountLeavesNothing(t *testing.T) {
	a := newAdmin(t)
	if _, err := a.Import(t.Context(), inbox, letters(200, 100, nil), nil); err != nil {
		t.Fatal(err)
	}
	if err := a.RemoveAccount(t.Context(), inbox.Account); err != nil {
		t.Fatal(err)
	}
	if n := a.c.Store.Stats().Bodies; n != 0 {
		t.Errorf("%d bodies are left", n)
	}
	if _, err := a.Account(t.Context(), inbox.Account); !errors.Is(err, control.NotFound) {
		t.Errorf("got %v", err)
	}
	if err := a.RemoveDomain(t.Context(), "example.test"); err != nil {
		t.Error(err)
	}
}

func TestRemovingAnAccountCanBeInterruptedAndGivenAgain(t *testing.T) {
	a := newAdmin(t)
	if _, err := a.Import(t.Context(), inbox, letters(50, 100, nil), nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.RemoveAccount(ctx, inbox.Account); !errors.Is(err, control.Cancelled) {
		t.Errorf("got %v", err)
	}
	if acct, err := a.Account(t.Context(), inbox.Account); err != nil || !acct.Disabled {
		t.Errorf("%+v, %v", acct, err)
	}
	if err := a.RemoveAccount(t.Context(), inbox.Account); err != nil {
		t.Error(err)
	}
}

// accept puts a message for x@remote.example and y@remote.example into the queue.
func accept(t *testing.T, a *Admin, from string) string {
	t.Helper()
	draft := a.c.Store.NewDraft()
	io.WriteString(draft, "Subject: x\r\n\r\n")
	sender, err := envelope.ParsePath(from)
	if err != nil {
		t.Fatal(err)
	}
	m := &spool.Message{Arrived: time.Now(), Envelope: envelope.Envelope{From: sender}}
	rcpt := func(s string) spool.Recipient {
		to, err := envelope.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return spool.Recipient{Recipient: envelope.Recipient{To: to}}
	}
	if err := a.c.Spool.Accept(m, []spool.Recipient{rcpt("x@remote.example"), rcpt("y@remote.example")}, draft, nil); err != nil {
		t.Fatal(err)
	}
	return m.ID.String()
}

func TestQueueFilters(t *testing.T) {
	a := newAdmin(t)
	first, second := accept(t, a, "<one@example.net>"), accept(t, a, "<>")
	for _, tc := range []struct {
		name string
		f    control.QueueFilter
		want int // recipients
	}{
		{"nothing said is all", control.QueueFilter{}, 4},
		{"an id", control.QueueFilter{IDs: []string{first}}, 2},
		{"two ids and a recipient", control.QueueFilter{IDs: []string{second, first}, Recipient: "x@remote.example"}, 2},
		{"a sender in other letters", control.QueueFilter{Sender: "ONE@Example.NET"}, 2},
		{"a sender's domain", control.QueueFilter{Sender: "@example.net"}, 2},
		{"the null sender", control.QueueFilter{Sender: "<>"}, 2},
		{"a domain", control.QueueFilter{Domain: "Remote.Example"}, 4},
		{"another domain", control.QueueFilter{Domain: "else.example"}, 0},
		{"a state", control.QueueFilter{State: "hold"}, 0},
		{"old", control.QueueFilter{OlderThan: control.Seconds(time.Hour)}, 0},
		{"young", control.QueueFilter{YoungerThan: control.Seconds(time.Hour)}, 4},
		{"a limit", control.QueueFilter{Limit: 1}, 2},
	} {
		n := 0
		for _, e := range collect(t, a.Queue(t.Context(), tc.f)) {
			n += len(e.Recipients)
		}
		if n != tc.want {
			t.Errorf("%s: %d recipients, want %d", tc.name, n, tc.want)
		}
	}
	for _, f := range []control.QueueFilter{
		{IDs: []string{"x"}}, {IDs: []string{"0000000000000"}}, {Sender: "x"}, {Sender: "@"}, {Recipient: "a b"}, {Domain: "a..b"}, {State: "x"}, {OlderThan: -1},
	} {
		if _, err := a.RemoveQueue(t.Context(), f); !errors.Is(err, control.Invalid) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if n := len(collect(t, a.Queue(t.Context(), control.QueueFilter{}))); n != 2 {
		t.Errorf("a filter that makes no sense removed mail: %d are left", n)
	}
}

func TestQueueChanges(t *testing.T) {
	a := newAdmin(t)
	id := accept(t, a, "<one@example.net>")
	other := accept(t, a, "<>")
	ctx := control.WithCaller(t.Context(), 3_999_999_999)
	change := func(want int, fn func(context.Context, control.QueueFilter) (control.Changed, error), f control.QueueFilter) {
		t.Helper()
		if c, err := fn(ctx, f); err != nil || c.Recipients != want {
			t.Errorf("%+v, %v; want %d", c, err, want)
		}
	}
	hold := func(ctx context.Context, f control.QueueFilter) (control.Changed, error) {
		return a.HoldQueue(ctx, control.HoldQueue{QueueFilter: f})
	}
	change(1, hold, control.QueueFilter{Recipient: "x@remote.example", IDs: []string{id}})
	change(0, hold, control.QueueFilter{State: "hold"})
	change(1, a.ReleaseQueue, control.QueueFilter{IDs: []string{id}})
	change(2, a.RemoveQueue, control.QueueFilter{IDs: []string{other}})
	if c, err := a.RemoveQueue(ctx, control.QueueFilter{IDs: []string{other, id}}); !errors.Is(err, control.NotFound) || c.Recipients != 2 {
		t.Errorf("one of two is not there: %+v, %v", c, err)
	}
	lives := collect(t, a.Trace(ctx, control.TraceQuery{What: id}))
	if len(lives) != 1 || lives[0].Queue != nil {
		t.Fatalf("%+v", lives)
	}
	if last := lives[0].Events[len(lives[0].Events)-1]; last.Kind != "removed" || last.By != "uid 3999999999" {
		t.Errorf("%+v", last)
	}
}

func TestAliasesMayNotLeadNowhereByMistake(t *testing.T) {
	a := newAdmin(t)
	for _, al := range []control.Alias{{Address: "x"}, {Address: "@"}, {Address: ""}, {Address: "x@example.test", Targets: []string{"y"}}, {Address: "x@example.test", Targets: []string{""}}} {
		if _, err := a.AddAlias(t.Context(), al); err == nil {
			t.Errorf("%+v is accepted", al)
		}
	}
	if _, err := a.AddAlias(t.Context(), control.Alias{Address: "INFO@Example.test", Targets: []string{"Alice@Example.Test", "alice@example.test"}}); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, a.Aliases(t.Context(), "")); len(got) != 1 || len(got[0].Targets) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestErrorsHaveCodes(t *testing.T) {
	a := newAdmin(t)
	ctx := t.Context()
	_, noDomain := a.AddAccount(ctx, control.NewAccount{Address: "x@else.example", Password: "p"})
	_, exists := a.AddAccount(ctx, control.NewAccount{Address: "Alice@example.test", Password: "p"})
	_, empty := a.AddAccount(ctx, control.NewAccount{Address: "x@example.test"})
	_, local := a.AddAccount(ctx, control.NewAccount{Address: "postmaster", Password: "p"})
	_, negative := a.AddAccount(ctx, control.NewAccount{Address: "x@example.test", Password: "p", Quota: -1})
	_, unknown := a.QueueEntry(ctx, "0000000000001")
	for name, tc := range map[string]struct {
		err  error
		want control.Code
	}{
		"no domain":         {noDomain, control.NotFound},
		"exists":            {exists, control.Exists},
		"no password":       {empty, control.Invalid},
		"no domain given":   {local, control.Invalid},
		"a negative quota":  {negative, control.Invalid},
		"not in the queue":  {unknown, control.NotFound},
		"not empty":         {a.RemoveDomain(ctx, "example.test"), control.Refused},
		"no mailbox":        {a.RemoveMailbox(ctx, control.MailboxName{Account: inbox.Account, Mailbox: "x"}), control.NotFound},
		"INBOX":             {a.RemoveMailbox(ctx, inbox), control.Refused},
		"a bad name":        {a.RenameMailbox(ctx, control.RenameMailbox{Account: inbox.Account, From: "Sent", To: "a//b"}), control.Invalid},
		"no such account":   {a.SetPassword(ctx, control.Credential{Address: "x@example.test", Password: "p"}), control.NotFound},
		"no body":           {a.ReadMessage(ctx, control.MessageName{ID: "0000000000001"}, io.Discard), control.NotFound},
		"nothing is traced": {firstError(a.Trace(ctx, control.TraceQuery{What: "x"})), control.NotFound},
	} {
		if !errors.Is(tc.err, tc.want) {
			t.Errorf("%s: %v, want %s", name, tc.err, tc.want)
		}
	}
}

func firstError[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestOpenAdminMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	cfg := config.Default()
	cfg.DataDir = dir
	if _, _, err := OpenAdmin(cfg); !errors.Is(err, control.NotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("the directory was made")
	}
}

func TestOpenAdminBesideAServer(t *testing.T) {
	a := newAdmin(t)
	cfg := config.Default()
	cfg.DataDir = a.c.Dir
	if _, _, err := OpenAdmin(cfg); !errors.Is(err, control.Unavailable) {
		t.Errorf("got %v", err)
	}
}

// Without a server, too, it is the DNS servers of the config that are asked for the records of keys, each time anew.
func TestOpenAdminAsksTheConfiguredDNS(t *testing.T) {
	names := dnstest.NewServer(t)
	cfg := config.Default()
	cfg.DataDir, cfg.DNS.Servers = t.TempDir(), []string{names.Addr}
	h, err := openHouse(cfg.DataDir, trace.Limits{}, account.Subaddress{}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h.store.Close()
	a, closer, err := OpenAdmin(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	if _, err := a.AddDomain(t.Context(), "example.test"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AddDKIMKeys(t.Context(), control.NewDKIMKeys{Domain: "example.test", Algorithm: "ed25519"}); err != nil {
		t.Fatal(err)
	}
	keys, err := a.CheckDKIMKeys(t.Context(), "")
	if err != nil || keys[0].State != "waiting" {
		t.Errorf("%+v, %v", keys, err)
	}
	names.Add(keys[0].Name + `. 60 IN TXT "` + keys[0].Record + `"`)
	if keys, err = a.CheckDKIMKeys(t.Context(), ""); err != nil || keys[0].State != "active" {
		t.Errorf("%+v, %v", keys, err)
	}
}

func TestCheckTellsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	h, err := openHouse(dir, trace.Limits{}, account.Subaddress{}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.store.Close()
	h.keys = h.openKeys(config.Default(), &dnstest.Resolver{}, slog.New(slog.DiscardHandler))
	a := NewAdmin(h.adminConfig(dir, h.idleRunner(config.Default())))
	accept(t, a, "<>")
	var steps []string
	if r, err := a.Check(t.Context(), func(p control.Progress) { steps = append(steps, p.What) }); err != nil || len(r.Problems) != 0 || len(steps) == 0 {
		t.Fatalf("%+v, %v, %v", r, err, steps)
	}
	segment := filepath.Join(dir, "bodies", "00000001")
	b, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(segment, bytes.Replace(b, []byte("Subject: x"), []byte("Subject: y"), 1), 0o600)
	if r, err := a.Check(t.Context(), nil); err != nil || len(r.Problems) == 0 {
		t.Errorf("a body was changed, and check says %+v, %v", r, err)
	}
}
