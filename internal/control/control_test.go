package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a service whose answers are made from what it was asked, so that an
// argument that got lost shows. Everything about "bad" fails.
type echo struct{}

var born = time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)

func fails(s string) error {
	if s == "bad" {
		return Errorf(Refused, "%s is refused\nfor good", s).WithHint("ask for something else")
	}
	return nil
}

func seq[T any](bad string, values ...T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range values {
			if !yield(v, nil) {
				return
			}
		}
		if err := fails(bad); err != nil {
			var zero T
			yield(zero, err)
		}
	}
}

func (echo) Status(context.Context) (Status, error) {
	return Status{Version: "1", Running: true, Started: born, Listeners: map[string]string{"smtp": "x"}, Queue: QueueCounts{1, 2, 3, 4}, Store: StoreStats{1, 2, 3, 4, 5, 6, 7, 8, 9}}, nil
}
func (echo) Check(_ context.Context, progress func(Progress)) (CheckReport, error) {
	if progress != nil {
		progress(Progress{"bodies", 1, 2})
		progress(Progress{"bodies", 2, 2})
	}
	return CheckReport{Bodies: 3, Problems: []Problem{{"a", "b"}}}, nil
}
func (echo) Compact(context.Context) (Compacted, error) { return Compacted{7}, errors.New("halfway") }
func (echo) Domains(context.Context) ([]Domain, error) {
	return []Domain{{Name: "a.example", Created: born, Accounts: 1, Aliases: 2, Lists: 3, Alias: "b.example"}}, nil
}
func (echo) AddDomain(_ context.Context, n string) (Domain, error) {
	return Domain{Name: n}, fails(n)
}
func (echo) RemoveDomain(_ context.Context, n string) error { return fails(n) }
func (echo) Accounts(_ context.Context, d string) iter.Seq2[Account, error] {
	return seq(d, Account{Address: "1@" + d}, Account{Address: "2@" + d})
}
func (echo) Account(_ context.Context, n string) (Account, error) {
	return Account{Address: n, Created: born}, fails(n)
}
func (echo) AddAccount(_ context.Context, a NewAccount) (Account, error) {
	return Account{Address: a.Address + a.Password, Quota: a.Quota}, fails(a.Address)
}
func (echo) SetPassword(_ context.Context, c Credential) error  { return fails(c.Password) }
func (echo) SetDisabled(_ context.Context, c SetDisabled) error { return fails(c.Address) }
func (echo) SetAccount(_ context.Context, c SetAccount) (Account, error) {
	return Account{Address: c.Address, Quota: *c.Quota, Hidden: c.Hide}, fails(c.Address)
}
func (echo) AppPasswords(_ context.Context, n string) ([]AppPassword, error) {
	return []AppPassword{{Name: n, Protocols: []string{"imap"}, Created: born, Used: born}}, fails(n)
}
func (echo) AddAppPassword(_ context.Context, n NewAppPassword) (MadeAppPassword, error) {
	return MadeAppPassword{AppPassword{Name: n.Name, Protocols: n.Protocols, Expires: born.Add(time.Duration(n.Lifetime))}, "pw"}, fails(n.Address)
}
func (echo) RevokeAppPassword(_ context.Context, n AppPasswordName) error { return fails(n.Name) }
func (echo) RemoveAccount(_ context.Context, n string) error              { return fails(n) }
func (echo) Aliases(_ context.Context, d string) iter.Seq2[Alias, error] {
	return seq(d, Alias{d, []string{"x", "y"}, []string{"y"}})
}
func (echo) AddAlias(_ context.Context, a Alias) (Alias, error) { return a, fails(a.Address) }
func (echo) RemoveAlias(_ context.Context, a Alias) error       { return fails(a.Address) }
func (echo) Bans(context.Context) iter.Seq2[Ban, error] {
	return seq("good", Ban{Network: "192.0.2.0/24", Since: born, By: "gate"}, Ban{Until: born, Count: 3})
}
func (echo) AddBan(_ context.Context, b NewBan) (Ban, error) {
	return Ban{Network: b.Network, Until: born.Add(time.Duration(b.For)), Reason: b.Reason}, fails(b.Network)
}
func (echo) RemoveBan(_ context.Context, n string) error { return fails(n) }
func (echo) TLSDomains(context.Context) iter.Seq2[DomainTLS, error] {
	return seq("good", DomainTLS{Domain: "a", MTASTS: &MTASTSPolicy{ID: "1", Hosts: []string{"b"}, Fetched: born}}, DomainTLS{Memory: &TLSMemory{Since: born}})
}
func (echo) TLSDomain(_ context.Context, d string) (DomainTLS, error) {
	return DomainTLS{Domain: d, Memory: &TLSMemory{Sessions: 5, Established: true, Failing: born, Trouble: "t"}}, fails(d)
}
func (echo) ForgetTLS(_ context.Context, d string) error { return fails(d) }
func (echo) Webhooks(context.Context) iter.Seq2[Webhook, error] {
	return seq("", Webhook{Name: "n", URL: "u", Events: []string{"e"}, Accounts: []string{"a"}, KeyID: "k", Waiting: 7})
}
func (echo) TestWebhook(_ context.Context, n string) (WebhookAnswer, error) {
	return WebhookAnswer{200, n, "t", "p"}, fails(n)
}
func (echo) Certificates(context.Context) iter.Seq2[Certificate, error] {
	return seq("good", Certificate{Names: []string{"a", "b"}, Issuer: "i", Until: born, Source: "file", File: "f"}, Certificate{Trouble: "t"})
}
func (echo) RenewCertificate(_ context.Context, n string) error { return fails(n) }
func (echo) AliasDomain(_ context.Context, a DomainAlias) (Domain, error) {
	return Domain{Name: a.Name, Alias: a.Of}, fails(a.Name)
}
func (echo) RemoveDomainAlias(_ context.Context, n string) error { return fails(n) }
func (echo) Forwards(_ context.Context, d string) iter.Seq2[Forward, error] {
	return seq(d, Forward{Account: d, Targets: []string{"x"}, Keep: new(bool)})
}
func (echo) AddForward(_ context.Context, f Forward) (Forward, error) { return f, fails(f.Account) }
func (echo) RemoveForward(_ context.Context, f Forward) (Forward, error) {
	return Forward{Account: f.Account}, fails(f.Account)
}
func (echo) DKIMKeys(_ context.Context, d string) iter.Seq2[DKIMKey, error] {
	return seq(d, DKIMKey{Domain: d, Selector: "s", Algorithm: "a", Bits: 2048, State: "old", Made: born, Until: born, Zone: "z"})
}
func (echo) AddDKIMKeys(_ context.Context, n NewDKIMKeys) ([]DKIMKey, error) {
	return []DKIMKey{{Domain: n.Domain, Selector: n.Selector, Algorithm: n.Algorithm}}, fails(n.Domain)
}
func (echo) ImportDKIMKey(_ context.Context, i DKIMImport) (DKIMKey, error) {
	return DKIMKey{Domain: i.Domain, Selector: i.Selector, Record: i.PEM}, fails(i.Domain)
}
func (echo) RotateDKIMKeys(_ context.Context, d string) ([]DKIMKey, error) {
	return []DKIMKey{{Domain: d}}, fails(d)
}
func (echo) CheckDKIMKeys(_ context.Context, d string) ([]DKIMKey, error) {
	return []DKIMKey{{Domain: d, Finding: "f"}}, fails(d)
}
func (echo) ActivateDKIMKeys(_ context.Context, n DKIMKeyName) ([]DKIMKey, error) {
	return []DKIMKey{{Domain: n.Domain, Selector: n.Selector}}, fails(n.Domain)
}
func (echo) RemoveDKIMKeys(_ context.Context, n DKIMKeyName) error { return fails(n.Domain) }
func (echo) Delegations(_ context.Context) iter.Seq2[Delegation, error] {
	return seq("good", Delegation{"@a.example", "b"})
}
func (echo) Delegate(_ context.Context, d Delegation) (Delegation, error) { return d, fails(d.As) }
func (echo) Undelegate(_ context.Context, d Delegation) error             { return fails(d.Delegate) }
func (echo) Lists(_ context.Context, d string) iter.Seq2[List, error] {
	return seq(d, List{Address: d, Owners: []string{"x"}, Post: "anyone", Title: "t", Members: 3, Created: born})
}
func (echo) List(_ context.Context, n string) (List, error) { return List{Address: n}, fails(n) }
func (echo) AddList(_ context.Context, l NewList) (List, error) {
	return List{Address: l.Address, Owners: l.Owners, Post: l.Post, Title: l.Title, Members: len(l.Members)}, fails(l.Address)
}
func (echo) SetList(_ context.Context, l SetList) (List, error) {
	return List{Address: l.Address, Post: *l.Post, Title: *l.Title}, fails(l.Address)
}
func (echo) RemoveList(_ context.Context, n string) error { return fails(n) }
func (echo) Members(_ context.Context, n string) iter.Seq2[Member, error] {
	return seq(n, Member{n}, Member{"2"})
}
func (echo) AddMembers(_ context.Context, m ListMembers) (List, error) {
	return List{Address: m.Address, Members: len(m.Members)}, fails(m.Address)
}
func (echo) RemoveMembers(_ context.Context, m ListMembers) (List, error) {
	return List{Address: m.Address, Members: -len(m.Members)}, fails(m.Address)
}
func (echo) Queue(_ context.Context, f QueueFilter) iter.Seq2[QueueEntry, error] {
	return seq(f.Sender, QueueEntry{ID: fmt.Sprint(f), Arrived: born, Recipients: []QueueRecipient{{To: "x", Next: born}, {To: "y"}}})
}
func (echo) QueueEntry(_ context.Context, id string) (QueueEntry, error) {
	return QueueEntry{ID: id, From: "<>"}, fails(id)
}
func (echo) RetryQueue(_ context.Context, f QueueFilter) (Changed, error) {
	return Changed{len(f.IDs)}, fails(f.Sender)
}
func (echo) ReleaseQueue(_ context.Context, f QueueFilter) (Changed, error) {
	return Changed{len(f.IDs) + 20}, fails(f.Sender)
}
func (echo) RemoveQueue(_ context.Context, f QueueFilter) (Changed, error) {
	return Changed{len(f.IDs) + 30}, fails(f.Sender)
}
func (echo) Mailboxes(_ context.Context, n string) ([]Mailbox, error) {
	if n == "none" {
		return nil, nil
	}
	return []Mailbox{{Name: n, ModSeq: 1 << 60}}, fails(n)
}
func (echo) CreateMailbox(_ context.Context, m MailboxName) (Mailbox, error) {
	return Mailbox{Name: m.Account + m.Mailbox + m.Role}, fails(m.Mailbox)
}
func (echo) RenameMailbox(_ context.Context, r RenameMailbox) error { return fails(r.To) }
func (echo) RemoveMailbox(_ context.Context, m MailboxName) error   { return fails(m.Mailbox) }
func (echo) Shares(_ context.Context, m MailboxName) ([]Share, error) {
	return []Share{{m.Account, "lr"}, {"anyone", m.Mailbox}}, fails(m.Account)
}
func (echo) ShareMailbox(_ context.Context, s ShareMailbox) (Share, error) {
	return s.Share, fails(s.Account)
}
func (echo) Index(_ context.Context, n string) iter.Seq2[IndexedMailbox, error] {
	return seq(n, IndexedMailbox{Account: n, Indexed: 1 << 60}, IndexedMailbox{Mailbox: "b"})
}
func (echo) RebuildIndex(_ context.Context, n string, progress func(Progress)) (Reindexed, error) {
	if progress != nil {
		progress(Progress{"x", 1, 2})
	}
	return Reindexed{Mailboxes: 3}, fails(n)
}
func (echo) Messages(_ context.Context, l MessageList) iter.Seq2[Message, error] {
	return seq(l.Account, Message{UID: l.After + 1, Flags: []string{l.Mailbox}}, Message{UID: l.After + 2, Subject: "\x00\u202e<&>"})
}
func (echo) ReadMessage(_ context.Context, m MessageName, w io.Writer) error {
	for range 3 {
		if _, err := w.Write(bytes.Repeat([]byte("\x00\xff\r\n"+m.ID), 20_000)); err != nil {
			return err
		}
	}
	return fails(m.ID)
}
func (echo) Import(_ context.Context, to MailboxName, messages iter.Seq2[ImportMessage, error], progress func(Imported)) (done Imported, err error) {
	if err := fails(to.Mailbox); err != nil {
		return done, err
	}
	for m, err := range messages {
		if err != nil {
			return done, err
		}
		b, err := io.ReadAll(m.Body)
		if err != nil {
			return done, fmt.Errorf("%s: %w", m.Name, err)
		}
		done.Messages++
		done.Octets += int64(len(b)) + int64(len(m.Flags)) + m.Internal.Unix()
		if progress != nil {
			progress(done)
		}
	}
	return done, nil
}
func (echo) Trace(_ context.Context, q TraceQuery) iter.Seq2[Life, error] {
	return seq(q.What, Life{ID: q.What, Events: []Event{{Time: born, To: []string{"a"}, UID: 1 << 31}}, Queue: &QueueEntry{ID: "q"}})
}

// start serves svc at a socket and returns a client. All is gone when the test ends.
func start(t *testing.T, svc Service) *Client {
	t.Helper()
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- Serve(l, svc) }()
	c, err := Dial(SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		l.Close()
		if err := <-served; err != nil {
			t.Error("Serve:", err)
		}
	})
	return c
}

// transcript is all that a service answers to a fixed conversation.
func transcript(svc Service) (lines []string) {
	ctx := context.Background()
	say := func(what string, values ...any) {
		line := what
		for _, v := range values {
			if err, ok := v.(error); ok {
				v = describe(err)
			}
			line += fmt.Sprintf(" %+v", v)
		}
		lines = append(lines, line)
	}
	for _, n := range []string{"good", "bad", "", "ä\u0000\n"} {
		talk(ctx, svc, n, say)
	}
	return lines
}

// describe shows all of an error that must survive.
func describe(err error) string {
	e := asError(err)
	if e == nil {
		return "fine"
	}
	return fmt.Sprintf("%s %q %q", e.Code, e.Text, e.Hint)
}

func talk(ctx context.Context, svc Service, n string, say func(string, ...any)) {
	one := func(what string) func(any, error) {
		return func(v any, err error) { say(what, v, describe(err)) }
	}
	st, err := svc.Status(ctx)
	one("status")(st, err)
	r, err := svc.Check(ctx, func(p Progress) { say("progress", p) })
	one("check")(r, err)
	r, err = svc.Check(ctx, nil)
	one("check")(r, err)
	cp, err := svc.Compact(ctx)
	one("compact")(cp, err)
	ds, err := svc.Domains(ctx)
	one("domains")(ds, err)
	d, err := svc.AddDomain(ctx, n)
	one("add domain")(d, err)
	say("remove domain", describe(svc.RemoveDomain(ctx, n)))
	drain(say, "accounts", svc.Accounts(ctx, n))
	a, err := svc.Account(ctx, n)
	one("account")(a, err)
	a, err = svc.AddAccount(ctx, NewAccount{n, "pw", 9, 8})
	one("add account")(a, err)
	say("password", describe(svc.SetPassword(ctx, Credential{"x", n})))
	say("disabled", describe(svc.SetDisabled(ctx, SetDisabled{n, true})))
	quota := int64(1)
	a, err = svc.SetAccount(ctx, SetAccount{Address: n, Quota: &quota, Hide: []string{"A", "B"}})
	one("set account")(a, err)
	apps, err := svc.AppPasswords(ctx, n)
	one("app passwords")(apps, err)
	app, err := svc.AddAppPassword(ctx, NewAppPassword{AppPasswordName{n, "phone"}, []string{"smtp"}, Seconds(time.Hour)})
	one("add app password")(app, err)
	say("revoke app password", describe(svc.RevokeAppPassword(ctx, AppPasswordName{"a", n})))
	say("remove account", describe(svc.RemoveAccount(ctx, n)))
	drain(say, "aliases", svc.Aliases(ctx, n))
	al, err := svc.AddAlias(ctx, Alias{Address: n, Targets: []string{"t"}})
	one("add alias")(al, err)
	say("remove alias", describe(svc.RemoveAlias(ctx, Alias{Address: n})))
	drain(say, "bans", svc.Bans(ctx))
	bn, err := svc.AddBan(ctx, NewBan{n, Seconds(90 * time.Minute), "why"})
	one("add ban")(bn, err)
	say("remove ban", describe(svc.RemoveBan(ctx, n)))
	drain(say, "TLS domains", svc.TLSDomains(ctx))
	td, err := svc.TLSDomain(ctx, n)
	one("TLS domain")(string(raw(td)), err)
	say("forget TLS", describe(svc.ForgetTLS(ctx, n)))
	drain(say, "webhooks", svc.Webhooks(ctx))
	wa, err := svc.TestWebhook(ctx, n)
	one("test webhook")(wa, err)
	drain(say, "certificates", svc.Certificates(ctx))
	say("renew certificate", describe(svc.RenewCertificate(ctx, n)))
	d, err = svc.AliasDomain(ctx, DomainAlias{n, "of"})
	one("alias domain")(d, err)
	say("remove domain alias", describe(svc.RemoveDomainAlias(ctx, n)))
	drain(say, "forwards", svc.Forwards(ctx, n))
	fw, err := svc.AddForward(ctx, Forward{Account: n, Targets: []string{"t"}})
	one("add forward")(fw, err)
	fw, err = svc.RemoveForward(ctx, Forward{Account: n})
	one("remove forward")(fw, err)
	drain(say, "DKIM keys", svc.DKIMKeys(ctx, n))
	dk, err := svc.AddDKIMKeys(ctx, NewDKIMKeys{n, "s", "both"})
	one("add DKIM keys")(dk, err)
	dk1, err := svc.ImportDKIMKey(ctx, DKIMImport{n, "s", "pem"})
	one("import DKIM key")(dk1, err)
	dk, err = svc.RotateDKIMKeys(ctx, n)
	one("rotate DKIM keys")(dk, err)
	dk, err = svc.CheckDKIMKeys(ctx, n)
	one("check DKIM keys")(dk, err)
	dk, err = svc.ActivateDKIMKeys(ctx, DKIMKeyName{n, "s", true})
	one("activate DKIM keys")(dk, err)
	say("remove DKIM keys", describe(svc.RemoveDKIMKeys(ctx, DKIMKeyName{Domain: n})))
	drain(say, "delegations", svc.Delegations(ctx))
	de, err := svc.Delegate(ctx, Delegation{n, "d"})
	one("delegate")(de, err)
	say("undelegate", describe(svc.Undelegate(ctx, Delegation{"a", n})))
	drain(say, "lists", svc.Lists(ctx, n))
	li, err := svc.List(ctx, n)
	one("list")(li, err)
	li, err = svc.AddList(ctx, NewList{n, []string{"o"}, "p", "t", []string{"1", "2"}})
	one("add list")(li, err)
	li, err = svc.SetList(ctx, SetList{n, nil, new("p"), new("t")})
	one("set list")(li, err)
	say("remove list", describe(svc.RemoveList(ctx, n)))
	drain(say, "members", svc.Members(ctx, n))
	li, err = svc.AddMembers(ctx, ListMembers{n, []string{"1"}})
	one("add members")(li, err)
	li, err = svc.RemoveMembers(ctx, ListMembers{n, []string{"1"}})
	one("remove members")(li, err)
	f := QueueFilter{IDs: []string{"1", "2"}, Sender: n, Recipient: "r", Domain: "d", State: "s", OlderThan: Seconds(90 * time.Second), YoungerThan: Seconds(time.Hour), Limit: 3}
	drain(say, "queue", svc.Queue(ctx, f))
	q, err := svc.QueueEntry(ctx, n)
	one("queue entry")(q, err)
	for _, change := range []func(context.Context, QueueFilter) (Changed, error){svc.RetryQueue, svc.ReleaseQueue, svc.RemoveQueue} {
		c, err := change(ctx, f)
		one("change")(c, err)
	}
	outbound(ctx, svc, n, say, one)
	ms, err := svc.Mailboxes(ctx, n)
	one("mailboxes")(ms, err)
	shares, err := svc.Shares(ctx, MailboxName{Account: n, Mailbox: "lrs"})
	one("shares")(shares, err)
	share, err := svc.ShareMailbox(ctx, ShareMailbox{n, "m", Share{"anyone", "l"}})
	one("share")(share, err)
	ms, err = svc.Mailboxes(ctx, "none")
	one("no mailboxes")(ms, err)
	m, err := svc.CreateMailbox(ctx, MailboxName{"a", n, "r"})
	one("create")(m, err)
	say("rename", describe(svc.RenameMailbox(ctx, RenameMailbox{"a", "f", n})))
	say("remove", describe(svc.RemoveMailbox(ctx, MailboxName{"a", n, ""})))
	drain(say, "index", svc.Index(ctx, n))
	re, err := svc.RebuildIndex(ctx, n, func(p Progress) { say("progress", p) })
	one("rebuild")(re, err)
	drain(say, "messages", svc.Messages(ctx, MessageList{MailboxName{n, "m", ""}, 5, 6}))
	var b bytes.Buffer
	err = svc.ReadMessage(ctx, MessageName{ID: n}, &b)
	say("read", b.Len(), describe(err))
	im, err := svc.Import(ctx, MailboxName{Account: "a", Mailbox: n}, letters(n, nil), func(p Imported) { say("progress", p) })
	one("import")(im, err)
	im, err = svc.Import(ctx, MailboxName{Account: "a"}, letters(n, Errorf(Invalid, "the source broke").WithHint("mend it")), nil)
	one("broken import")(im, err)
	drain(say, "trace", svc.Trace(ctx, TraceQuery{n, 2}))
}

func drain[T any](say func(string, ...any), what string, values iter.Seq2[T, error]) {
	for v, err := range values {
		// Times may differ in how they hold their zone.
		say(what, string(raw(v)), describe(err))
	}
}

// letters are messages to import; the second has a body that err ends, if not nil.
func letters(text string, err error) iter.Seq2[ImportMessage, error] {
	return func(yield func(ImportMessage, error) bool) {
		if !yield(ImportMessage{Name: "1", Body: strings.NewReader(strings.Repeat(text, 100_000))}, nil) {
			return
		}
		body := io.Reader(strings.NewReader("\x00\xff\r\n"))
		if err != nil {
			body = io.MultiReader(body, iotest.ErrReader(err))
		}
		if !yield(ImportMessage{Name: "2", Internal: time.Unix(7, 0), Flags: []string{"a", "b"}, Body: body}, nil) {
			return
		}
		if !yield(ImportMessage{Name: "3", Body: strings.NewReader("")}, nil) {
			return
		}
		yield(ImportMessage{}, Errorf(NotFound, "no more"))
	}
}

func TestTheSocketChangesNothing(t *testing.T) {
	want, got := transcript(echo{}), transcript(start(t, echo{}))
	if len(want) < 100 {
		t.Fatalf("a conversation of %d lines", len(want))
	}
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Fatalf("line %d:\nin process  %.300q\nover socket %.300q", i, append(want, make([]string, 1000)...)[i], append(got, make([]string, 1000)...)[i])
		}
	}
}

// The transcript must not miss a method that is added later.
func TestEveryMethodIsOffered(t *testing.T) {
	ops := operations(echo{})
	for m := range reflect.TypeFor[Service]().Methods() {
		if ops[m.Name] == nil {
			t.Errorf("%s is not offered at the socket", m.Name)
		}
		delete(ops, m.Name)
	}
	for name := range ops {
		t.Errorf("%s is offered, but no method", name)
	}
}

func TestCodesAreErrors(t *testing.T) {
	_, err := start(t, echo{}).AddDomain(t.Context(), "bad")
	if !errors.Is(err, Refused) || errors.Is(err, NotFound) {
		t.Errorf("got %v", err)
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Hint != "ask for something else" {
		t.Errorf("got %#v", err)
	}
}

// waiting blocks in Status and lists without end.
type waiting struct {
	echo
	entered chan struct{}
	ended   chan error
}

func (w waiting) Status(ctx context.Context) (Status, error) {
	close(w.entered)
	<-ctx.Done()
	w.ended <- ctx.Err()
	return Status{}, ctx.Err()
}

func (w waiting) Accounts(ctx context.Context, _ string) iter.Seq2[Account, error] {
	return func(yield func(Account, error) bool) {
		for yield(Account{Address: strings.Repeat("x", 1000)}, ctx.Err()) {
			if ctx.Err() != nil {
				break
			}
		}
		w.ended <- ctx.Err()
	}
}

func TestACallerThatLeavesEndsItsCall(t *testing.T) {
	w := waiting{entered: make(chan struct{}), ended: make(chan error, 1)}
	c := start(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-w.entered; cancel() }()
	if _, err := c.Status(ctx); !errors.Is(err, Cancelled) {
		t.Errorf("got %v", err)
	}
	if err := <-w.ended; err == nil {
		t.Error("the server's call was not cancelled")
	}
}

func TestAListMayBeLeft(t *testing.T) {
	w := waiting{ended: make(chan error, 1)}
	c := start(t, w)
	n := 0
	for _, err := range c.Accounts(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 {
			break
		}
	}
	<-w.ended
}

func TestClosingTheListenerEndsCalls(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := waiting{entered: make(chan struct{}), ended: make(chan error, 1)}
	served := make(chan error, 1)
	go func() { served <- Serve(l, w) }()
	c, err := Dial(SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { <-w.entered; l.Close() }()
	if _, err := c.Status(t.Context()); err == nil {
		t.Error("a call that was ended has no error")
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(SocketPath(dir)); !os.IsNotExist(err) {
		t.Error("the socket's name is still there")
	}
	if _, err := Dial(SocketPath(dir)); !errors.Is(err, ErrNoServer) {
		t.Errorf("Dial: %v", err)
	}
}

// broken panics.
type broken struct{ echo }

func (broken) Account(context.Context, string) (Account, error) { panic("a bug") }

func TestAPanicEndsTheCallOnly(t *testing.T) {
	c := start(t, broken{})
	if _, err := c.Account(t.Context(), "x"); !errors.Is(err, Unavailable) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// A server that refuses an import does not read it.
func TestAnImportThatIsRefusedAtOnce(t *testing.T) {
	c := start(t, echo{})
	endless := func(yield func(ImportMessage, error) bool) {
		yield(ImportMessage{Name: "endless", Body: zeros{}}, nil)
	}
	_, err := c.Import(t.Context(), MailboxName{Mailbox: "bad"}, endless, nil)
	if !errors.Is(err, Refused) {
		t.Errorf("got %v", err)
	}
}

// What is known of an import that is broken off is told.
func TestAnImportThatIsCancelled(t *testing.T) {
	c := start(t, echo{})
	ctx, cancel := context.WithCancel(t.Context())
	source := func(yield func(ImportMessage, error) bool) {
		for yield(ImportMessage{Name: "x", Body: strings.NewReader("text")}, nil) {
		}
	}
	done, err := c.Import(ctx, MailboxName{}, source, func(p Imported) {
		if p.Messages == 3 {
			cancel()
		}
	})
	if !errors.Is(err, Cancelled) || done.Messages < 3 {
		t.Errorf("%+v, %v", done, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestCallersAreKnown(t *testing.T) {
	c := start(t, named{})
	st, err := c.Status(t.Context())
	if want := Caller(WithCaller(t.Context(), os.Getuid())); err != nil || st.Hostname != want {
		t.Errorf("got %q, %v; want %q", st.Hostname, err, want)
	}
	if got := Caller(t.Context()); got != "the server" {
		t.Errorf("without a caller: %q", got)
	}
	if got := Caller(WithCaller(t.Context(), 3_999_999_999)); got != "uid 3999999999" {
		t.Errorf("a user without a name: %q", got)
	}
}

type named struct{ echo }

func (named) Status(ctx context.Context) (Status, error) { return Status{Hostname: Caller(ctx)}, nil }

func TestStrangersAreTurnedAway(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen []int
	l.(*socket).admits = func(uid int) bool {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, uid)
		return false
	}
	served := make(chan error, 1)
	go func() { served <- Serve(l, echo{}) }()
	c, err := Dial(SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, Unavailable) {
		t.Errorf("got %v", err)
	}
	l.Close()
	<-served
	if len(seen) == 0 || seen[0] != os.Getuid() {
		t.Errorf("the kernel's word: %v", seen)
	}
	for uid, want := range map[int]bool{0: true, os.Geteuid(): true, 65534: os.Geteuid() == 65534} {
		if allowed(uid) != want {
			t.Errorf("uid %d: %v", uid, !want)
		}
	}
}

func TestTheSocketIsItsOwnersOnly(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(SocketPath(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestListen(t *testing.T) {
	t.Run("replaces what a server left", func(t *testing.T) {
		dir := t.TempDir()
		old, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(dir), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		old.SetUnlinkOnClose(false)
		old.Close()
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
	t.Run("but not a server that answers", func(t *testing.T) {
		dir := t.TempDir()
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := Listen(dir); err == nil || !strings.Contains(err.Error(), "another server") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(SocketPath(dir)); err != nil {
			t.Error(err)
		}
	})
	t.Run("nor what is no socket", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(SocketPath(dir), []byte("x"), 0o600)
		if _, err := Listen(dir); err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("in a directory with a long name", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- Serve(l, echo{}) }()
		c, err := Dial(SocketPath(dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
		l.Close()
		<-served
		if _, err := os.Lstat(SocketPath(dir)); !os.IsNotExist(err) {
			t.Error("the socket's name is still there")
		}
	})
	t.Run("in no directory", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "none")
		if _, err := Listen(dir); err == nil {
			t.Error("no error")
		}
		if _, err := Dial(SocketPath(dir)); !errors.Is(err, ErrNoServer) {
			t.Errorf("Dial: %v", err)
		}
		if _, err := Dial(SocketPath(filepath.Join(dir, strings.Repeat("long/", 40)))); !errors.Is(err, ErrNoServer) {
			t.Errorf("Dial: %v", err)
		}
	})
}

// rawServer answers every request with fixed octets and hangs up.
func rawServer(t *testing.T, answer string) *Client {
	t.Helper()
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) })}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	c, err := Dial(SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); srv.Close(); <-served })
	return c
}

func TestACutReplyIsAnError(t *testing.T) {
	for _, answer := range []string{"", "{", `{"item":{"address":"a"}}` + "\n", "{\"result\":{}}\n", "<html>", `{"item":{"address":"a"}}` + "\n{\"do"} {
		c := rawServer(t, answer)
		var last error
		for _, err := range c.Accounts(t.Context(), "") {
			last = err
		}
		if !errors.Is(last, Unavailable) {
			t.Errorf("%q: %v", answer, last)
		}
	}
}

func TestUnknownOperations(t *testing.T) {
	c := start(t, echo{})
	if err := tell(t.Context(), c, "Explode", none{}); !errors.Is(err, Invalid) || !strings.Contains(err.Error(), "Explode") {
		t.Errorf("got %v", err)
	}
	if err := tell(t.Context(), c, "../Status", none{}); !errors.Is(err, Invalid) {
		t.Errorf("got %v", err)
	}
	if err := tell(t.Context(), c, "AddDomain", 7); !errors.Is(err, Invalid) {
		t.Errorf("an argument of the wrong kind: %v", err)
	}
}

// What follows an import's argument is bounded and never believed.
func FuzzReceive(f *testing.F) {
	var b bytes.Buffer
	send(newFrameWriter(&b), letters("text", nil))
	f.Add(b.Bytes())
	f.Add([]byte(`{"message":{"name":"x"}}` + "\n" + `{"bytes":"AAAA"}` + "\n" + `{"done":true}` + "\n" + `{"done":true}` + "\n"))
	f.Add([]byte(`{"message":{}}` + "\n" + `{"message":{}}` + "\n"))
	f.Add([]byte(`{"done":true,"error":{"code":"x","text":"y"}}` + "\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var failed error
		for m, err := range receive(newFrameReader(bytes.NewReader(stream))) {
			if failed != nil {
				t.Fatal("it goes on after an error")
			}
			if failed = err; err == nil {
				_, failed = io.Copy(io.Discard, m.Body)
			}
			if failed != nil && failed.Error() == "" && !bytes.Contains(stream, []byte("error")) {
				t.Fatal("an error without words")
			}
			if err == nil && failed != nil {
				failed = nil // the sequence itself has to tell
			}
		}
	})
}
