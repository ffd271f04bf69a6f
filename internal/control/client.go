package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"time"
)

// Client is the service of a running server. Any number of goroutines.
type Client struct {
	socket string
	http   *http.Client
}

var _ Service = (*Client)(nil)

// answerTimeout is how long a server may be silent after it got a request. It answers
// before it begins its work.
const answerTimeout = 30 * time.Second

// Dial returns the service of the server that listens at a socket, or ErrNoServer.
func Dial(socket string) (*Client, error) {
	c, err := connect(context.Background(), socket)
	if err != nil {
		return nil, err
	}
	c.Close()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return connect(ctx, socket) }
	return &Client{socket, &http.Client{Transport: &http.Transport{
		DialContext: dial, DisableKeepAlives: true, ResponseHeaderTimeout: answerTimeout,
	}}}, nil
}

// Close lets go of idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// post calls an operation; the reply's frames are in the returned body.
func (c *Client) post(ctx context.Context, name string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://postroad"+pathPrefix+name, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, Errorf(Unavailable, "control socket %s: the server answers %s", c.socket, resp.Status)
	}
	return resp.Body, nil
}

// broken says what it means that a call had no full answer.
func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &Error{Code: Cancelled, Text: context.Cause(ctx).Error()}
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return Errorf(Unavailable, "control socket %s: the server did not answer: %v", c.socket, err).
		WithHint("it may have stopped, or it is the server of another user; its log says more")
}

// A reply is read frame by frame; each function may be nil.
type reply struct {
	item     func(json.RawMessage) error
	progress func(json.RawMessage) error
	bytes    func([]byte) error
}

// follow reads a reply to its end and returns its result.
func (c *Client) follow(ctx context.Context, body io.ReadCloser, r reply) (json.RawMessage, error) {
	defer body.Close()
	in := newFrameReader(body)
	for {
		var f frame
		if err := in.read(&f); err != nil {
			return nil, c.broken(ctx, err)
		}
		if f.Done {
			return f.Result, lastError(f)
		}
		if err := r.take(f); err != nil {
			return nil, err
		}
	}
}

// lastError avoids a typed nil.
func lastError(f frame) error {
	if f.Error == nil {
		return nil
	}
	return f.Error
}

func (r reply) take(f frame) error {
	switch {
	case f.Item != nil && r.item != nil:
		return r.item(f.Item)
	case f.Progress != nil && r.progress != nil:
		return r.progress(f.Progress)
	case f.Bytes != nil && r.bytes != nil:
		return r.bytes(f.Bytes)
	}
	return nil
}

// request encodes an argument.
func request(arg any) io.Reader { return bytes.NewReader(append(raw(arg), '\n')) }

// ask calls an operation and decodes its result. An error may come with a result.
func ask[R any](ctx context.Context, c *Client, name string, arg any, r reply) (result R, err error) {
	body, err := c.post(ctx, name, request(arg))
	if err != nil {
		return result, err
	}
	return decode[R](c.follow(ctx, body, r))
}

func decode[R any](b json.RawMessage, err error) (result R, _ error) {
	if b == nil {
		return result, err
	}
	if bad := json.Unmarshal(b, &result); bad != nil {
		return result, errors.Join(err, fmt.Errorf("read the reply: %w", bad))
	}
	return result, err
}

// tell calls an operation that has no result.
func tell(ctx context.Context, c *Client, name string, arg any) error {
	_, err := ask[none](ctx, c, name, arg, reply{})
	return err
}

var errStopped = errors.New("the caller has seen enough")

// items calls an operation that yields values.
func items[R any](ctx context.Context, c *Client, name string, arg any) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		_, err := ask[none](ctx, c, name, arg, reply{item: func(b json.RawMessage) error {
			var v R
			if err := json.Unmarshal(b, &v); err != nil {
				return fmt.Errorf("read the reply: %w", err)
			}
			if !yield(v, nil) {
				return errStopped
			}
			return nil
		}})
		if err != nil && err != errStopped {
			var zero R
			yield(zero, err)
		}
	}
}

// following returns the reply that passes progress on.
func following[P any](progress func(P)) reply {
	if progress == nil {
		return reply{}
	}
	return reply{progress: func(b json.RawMessage) error {
		var p P
		if err := json.Unmarshal(b, &p); err != nil {
			return fmt.Errorf("read the reply: %w", err)
		}
		progress(p)
		return nil
	}}
}

// The methods of Service, each as Service says.

func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, "Status", none{}, reply{})
}

func (c *Client) Check(ctx context.Context, progress func(Progress)) (CheckReport, error) {
	return ask[CheckReport](ctx, c, "Check", none{}, following(progress))
}

func (c *Client) Compact(ctx context.Context) (Compacted, error) {
	return ask[Compacted](ctx, c, "Compact", none{}, reply{})
}

func (c *Client) Domains(ctx context.Context) ([]Domain, error) {
	return ask[[]Domain](ctx, c, "Domains", none{}, reply{})
}

func (c *Client) AddDomain(ctx context.Context, name string) (Domain, error) {
	return ask[Domain](ctx, c, "AddDomain", name, reply{})
}

func (c *Client) RemoveDomain(ctx context.Context, name string) error {
	return tell(ctx, c, "RemoveDomain", name)
}

func (c *Client) Accounts(ctx context.Context, domain string) iter.Seq2[Account, error] {
	return items[Account](ctx, c, "Accounts", domain)
}

func (c *Client) Account(ctx context.Context, address string) (Account, error) {
	return ask[Account](ctx, c, "Account", address, reply{})
}

func (c *Client) AddAccount(ctx context.Context, a NewAccount) (Account, error) {
	return ask[Account](ctx, c, "AddAccount", a, reply{})
}

func (c *Client) SetPassword(ctx context.Context, cr Credential) error {
	return tell(ctx, c, "SetPassword", cr)
}

func (c *Client) SetDisabled(ctx context.Context, s SetDisabled) error {
	return tell(ctx, c, "SetDisabled", s)
}

func (c *Client) SetAccount(ctx context.Context, s SetAccount) (Account, error) {
	return ask[Account](ctx, c, "SetAccount", s, reply{})
}

func (c *Client) AppPasswords(ctx context.Context, address string) ([]AppPassword, error) {
	return ask[[]AppPassword](ctx, c, "AppPasswords", address, reply{})
}

func (c *Client) AddAppPassword(ctx context.Context, n NewAppPassword) (MadeAppPassword, error) {
	return ask[MadeAppPassword](ctx, c, "AddAppPassword", n, reply{})
}

func (c *Client) RevokeAppPassword(ctx context.Context, n AppPasswordName) error {
	return tell(ctx, c, "RevokeAppPassword", n)
}

func (c *Client) RemoveAccount(ctx context.Context, address string) error {
	return tell(ctx, c, "RemoveAccount", address)
}

func (c *Client) Aliases(ctx context.Context, domain string) iter.Seq2[Alias, error] {
	return items[Alias](ctx, c, "Aliases", domain)
}

func (c *Client) AddAlias(ctx context.Context, a Alias) (Alias, error) {
	return ask[Alias](ctx, c, "AddAlias", a, reply{})
}

func (c *Client) RemoveAlias(ctx context.Context, a Alias) error {
	return tell(ctx, c, "RemoveAlias", a)
}

func (c *Client) Certificates(ctx context.Context) iter.Seq2[Certificate, error] {
	return items[Certificate](ctx, c, "Certificates", none{})
}

func (c *Client) RenewCertificate(ctx context.Context, name string) error {
	return tell(ctx, c, "RenewCertificate", name)
}

func (c *Client) Bans(ctx context.Context) iter.Seq2[Ban, error] {
	return items[Ban](ctx, c, "Bans", none{})
}

func (c *Client) AddBan(ctx context.Context, b NewBan) (Ban, error) {
	return ask[Ban](ctx, c, "AddBan", b, reply{})
}

func (c *Client) RemoveBan(ctx context.Context, network string) error {
	return tell(ctx, c, "RemoveBan", network)
}

func (c *Client) AliasDomain(ctx context.Context, a DomainAlias) (Domain, error) {
	return ask[Domain](ctx, c, "AliasDomain", a, reply{})
}

func (c *Client) RemoveDomainAlias(ctx context.Context, name string) error {
	return tell(ctx, c, "RemoveDomainAlias", name)
}

func (c *Client) Forwards(ctx context.Context, domain string) iter.Seq2[Forward, error] {
	return items[Forward](ctx, c, "Forwards", domain)
}

func (c *Client) AddForward(ctx context.Context, f Forward) (Forward, error) {
	return ask[Forward](ctx, c, "AddForward", f, reply{})
}

func (c *Client) RemoveForward(ctx context.Context, f Forward) (Forward, error) {
	return ask[Forward](ctx, c, "RemoveForward", f, reply{})
}

func (c *Client) Delegations(ctx context.Context) iter.Seq2[Delegation, error] {
	return items[Delegation](ctx, c, "Delegations", none{})
}

func (c *Client) Delegate(ctx context.Context, d Delegation) (Delegation, error) {
	return ask[Delegation](ctx, c, "Delegate", d, reply{})
}

func (c *Client) Undelegate(ctx context.Context, d Delegation) error {
	return tell(ctx, c, "Undelegate", d)
}

func (c *Client) Lists(ctx context.Context, domain string) iter.Seq2[List, error] {
	return items[List](ctx, c, "Lists", domain)
}

func (c *Client) List(ctx context.Context, address string) (List, error) {
	return ask[List](ctx, c, "List", address, reply{})
}

func (c *Client) AddList(ctx context.Context, l NewList) (List, error) {
	return ask[List](ctx, c, "AddList", l, reply{})
}

func (c *Client) SetList(ctx context.Context, l SetList) (List, error) {
	return ask[List](ctx, c, "SetList", l, reply{})
}

func (c *Client) RemoveList(ctx context.Context, address string) error {
	return tell(ctx, c, "RemoveList", address)
}

func (c *Client) Members(ctx context.Context, address string) iter.Seq2[Member, error] {
	return items[Member](ctx, c, "Members", address)
}

func (c *Client) AddMembers(ctx context.Context, m ListMembers) (List, error) {
	return ask[List](ctx, c, "AddMembers", m, reply{})
}

func (c *Client) RemoveMembers(ctx context.Context, m ListMembers) (List, error) {
	return ask[List](ctx, c, "RemoveMembers", m, reply{})
}

func (c *Client) Queue(ctx context.Context, f QueueFilter) iter.Seq2[QueueEntry, error] {
	return items[QueueEntry](ctx, c, "Queue", f)
}

func (c *Client) QueueEntry(ctx context.Context, id string) (QueueEntry, error) {
	return ask[QueueEntry](ctx, c, "QueueEntry", id, reply{})
}

func (c *Client) RetryQueue(ctx context.Context, f QueueFilter) (Changed, error) {
	return ask[Changed](ctx, c, "RetryQueue", f, reply{})
}

func (c *Client) ReleaseQueue(ctx context.Context, f QueueFilter) (Changed, error) {
	return ask[Changed](ctx, c, "ReleaseQueue", f, reply{})
}

func (c *Client) RemoveQueue(ctx context.Context, f QueueFilter) (Changed, error) {
	return ask[Changed](ctx, c, "RemoveQueue", f, reply{})
}

func (c *Client) Mailboxes(ctx context.Context, account string) ([]Mailbox, error) {
	return ask[[]Mailbox](ctx, c, "Mailboxes", account, reply{})
}

func (c *Client) CreateMailbox(ctx context.Context, m MailboxName) (Mailbox, error) {
	return ask[Mailbox](ctx, c, "CreateMailbox", m, reply{})
}

func (c *Client) RenameMailbox(ctx context.Context, r RenameMailbox) error {
	return tell(ctx, c, "RenameMailbox", r)
}

func (c *Client) RemoveMailbox(ctx context.Context, m MailboxName) error {
	return tell(ctx, c, "RemoveMailbox", m)
}

func (c *Client) Shares(ctx context.Context, m MailboxName) ([]Share, error) {
	return ask[[]Share](ctx, c, "Shares", m, reply{})
}

func (c *Client) ShareMailbox(ctx context.Context, s ShareMailbox) (Share, error) {
	return ask[Share](ctx, c, "ShareMailbox", s, reply{})
}

func (c *Client) Index(ctx context.Context, account string) iter.Seq2[IndexedMailbox, error] {
	return items[IndexedMailbox](ctx, c, "Index", account)
}

func (c *Client) RebuildIndex(ctx context.Context, account string, progress func(Progress)) (Reindexed, error) {
	return ask[Reindexed](ctx, c, "RebuildIndex", account, following(progress))
}

func (c *Client) Messages(ctx context.Context, l MessageList) iter.Seq2[Message, error] {
	return items[Message](ctx, c, "Messages", l)
}

func (c *Client) ReadMessage(ctx context.Context, m MessageName, w io.Writer) error {
	_, err := ask[none](ctx, c, "ReadMessage", m, reply{bytes: func(b []byte) error {
		_, err := w.Write(b)
		return err
	}})
	return err
}

// Import sends the messages while the server's progress comes in.
func (c *Client) Import(ctx context.Context, to MailboxName, messages iter.Seq2[ImportMessage, error], progress func(Imported)) (Imported, error) {
	in, out := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffered := bufio.NewWriterSize(out, 64<<10) // frames are small, and a pipe wakes its reader for each write
		err := send(newFrameWriter(buffered), messages)
		out.CloseWithError(errors.Join(err, buffered.Flush()))
	}()
	defer func() { in.Close(); <-ended }() // the source is not read after we return
	body, err := c.post(ctx, "Import", io.MultiReader(request(to), in))
	if err != nil {
		return Imported{}, err
	}
	var last Imported // what is known when the call is broken off
	result, err := c.follow(ctx, body, following(func(p Imported) {
		last = p
		if progress != nil {
			progress(p)
		}
	}))
	if result == nil {
		return last, err
	}
	return decode[Imported](result, err)
}

func (c *Client) Trace(ctx context.Context, q TraceQuery) iter.Seq2[Life, error] {
	return items[Life](ctx, c, "Trace", q)
}
