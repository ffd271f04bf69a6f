package delivery

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/url"
	"strings"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// A list is one recipient of a message until it is delivered: then its members are the recipients of a new message, which
// comes from the list's owner. What is promised:
//
//   - The recipient is settled and the new message is in the spool in one transaction; the bound on a list's members bounds it.
//   - Each address that members lead to gets the message once.
//   - A report (the null sender) goes to no list, and a message goes through a list once.
//   - What the sender asked of the delivery (NOTIFY, ORCPT, ENVID) ends at the list (RFC 3461, 5.2.7): success is
//     reported when the list has taken the message, and what fails after that is the owner's to hear of.

// An expansion is what a list makes of a message.
type expansion struct {
	list    account.List
	lost    []envelope.Address // members that lead nowhere
	message *spool.Message
	rcpts   []spool.Recipient // none when the list has no members that lead somewhere
	draft   *store.Draft      // nil then
	report  *report           // that the message was delivered; nil for none
	settled bool              // false when an administrator has removed the recipient meanwhile
}

// notForList is why a list does not take a message, for good.
type notForList struct{ status, text string }

func (e *notForList) Error() string { return e.text }

// expand delivers a recipient that is a list.
func (r *Runner) expand(ctx context.Context, d spool.Due) {
	var x expansion
	err := r.guarded("expand the list "+d.Recipient.To.String(), func() error { return r.prepareExpansion(&x, d) })
	if err != nil {
		discard([]*report{x.report})
		if x.draft != nil {
			x.draft.Discard()
		}
	} else {
		err = r.commitExpansion(&x, d)
	}
	r.concludeExpansion(ctx, &x, d, err)
}

func (r *Runner) concludeExpansion(ctx context.Context, x *expansion, d spool.Due, err error) {
	never, rejected := errors.AsType[*notForList](err)
	_, broken := errors.AsType[*refusal](err)
	switch {
	case err == nil && x.settled:
		r.logExpansion(x, d)
	case err == nil:
	case rejected:
		reply := r.ours(never.status, never.text)
		reply.Code = 550
		r.record(ctx, []outcome{{due: d, reply: reply}})
	case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrNoBody):
		r.unreadable(ctx, d, err)
	case broken, errors.Is(err, store.ErrFull):
		r.record(ctx, []outcome{{due: d, reply: r.ours("4.3.0", "the list cannot be served: "+err.Error())}})
	default:
		r.storeTrouble(ctx, err, d)
	}
}

// prepareExpansion does what need not be done in the transaction.
func (r *Runner) prepareExpansion(x *expansion, d spool.Due) error {
	if err := r.members(x, d); err != nil {
		return err
	}
	if len(x.rcpts) > 0 {
		if err := r.remail(x, d); err != nil {
			return err
		}
	}
	if !d.Recipient.Notify.Wants(envelope.NotifySuccess) {
		return nil
	}
	done := outcome{due: d, verdict: delivered, reply: r.ours("2.1.5", "the list has taken it")}
	var err error
	x.report, err = r.report(d.Message, []outcome{done})
	return err
}

// members finds out who gets the message.
func (r *Runner) members(x *expansion, d spool.Due) error {
	from := d.Message.Envelope.From
	l, targets, lost, err := r.cfg.Accounts.Expand(d.Recipient.To, from)
	switch {
	case errors.Is(err, account.ErrNotFound):
		return &notForList{"5.1.1", "the list no longer exists"}
	case errors.Is(err, account.ErrPost):
		return &notForList{"5.7.2", from.Path() + " may not write to the list"}
	case errors.Is(err, account.ErrTargets):
		return &notForList{"5.5.3", "the list leads to too many addresses"}
	}
	x.list, x.lost = l, lost
	for _, t := range targets {
		x.rcpts = append(x.rcpts, recipient(t))
	}
	return err
}

// remail drafts the message as the list's members get it.
func (r *Runner) remail(x *expansion, d spool.Due) error {
	body, err := r.openBody(d.Message)
	if err != nil {
		return err
	}
	defer body.Close()
	x.draft = r.cfg.Store.NewDraft()
	e := d.Message.Envelope
	x.message = &spool.Message{
		MessageID: d.Message.MessageID, About: d.Message.ID.String(), Origin: postedBy(d.Message),
		Envelope: envelope.Envelope{
			From: x.list.Owner(), Body: e.Body, UTF8: e.UTF8, RequireTLS: e.RequireTLS, Priority: e.Priority, Return: envelope.ReturnHeaders,
		},
	}
	fields, skip := r.listFields(x)
	x.message.Skip = skip
	if _, err := io.WriteString(x.draft, fields); err != nil {
		return err
	}
	return copyForList(x.draft, body, x.list.Address)
}

// postedBy is who has brought what a list sends on, when that was a stranger: the list vouches for what it adds, not for who
// the author is.
func postedBy(m *spool.Message) spool.Origin {
	switch {
	case m.Origin.Protocol == "": // of a list before this one, if it has any
		return m.Origin
	case known(m):
		return spool.Origin{}
	}
	return spool.Origin{Peer: m.Origin.Peer, Helo: m.Origin.Helo}
}

// listFields are what a list puts before a message, and the length of the first: trace fields (RFC 5321, 4.4), and what
// members' programs show of the list (RFC 2369, RFC 2919).
func (r *Runner) listFields(x *expansion) (fields string, skip int64) {
	l := &x.list
	list, owner := mailto(l.Address), mailto(l.Owner())
	post := "<" + list + ">"
	if l.Post == account.PostOwners {
		post = "NO"
	}
	returnPath := "Return-Path: " + l.Owner().Path() + "\r\n"
	return returnPath +
		"Delivered-To: " + l.Address.String() + "\r\n" +
		fmt.Sprintf("Received: by %s id %s\r\n\tfor %s; %s\r\n", r.cfg.Hostname, x.draft.ID(), l.Address.Path(), r.cfg.Now().Format(dateFormat)) +
		"List-Id: " + phrase(l.Title) + "<" + l.Address.Local + "." + l.Address.Domain + ">\r\n" +
		"List-Post: " + post + "\r\n" +
		"List-Owner: <" + owner + ">\r\n" +
		"List-Unsubscribe: <" + owner + "?subject=unsubscribe%20" + url.PathEscape(l.Address.String()) + ">\r\n" +
		"Precedence: list\r\n", int64(len(returnPath))
}

// dateFormat is date-time of RFC 5322, 3.3.
const dateFormat = "Mon, 2 Jan 2006 15:04:05 -0700"

// mailto is an address as a URI (RFC 6068).
func mailto(a envelope.Address) string { return "mailto:" + url.PathEscape(a.Local) + "@" + a.Domain }

// phrase is a title before an address, or nothing (RFC 5322, 3.2.5; RFC 2047).
func phrase(title string) string {
	switch encoded := mime.BEncoding.Encode("utf-8", title); {
	case title == "":
		return ""
	case encoded != title:
		return strings.ReplaceAll(encoded, " ", "\r\n\t") + " "
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(title) + `" `
}

// listOnly are the fields of which a message has those of one list (RFC 2369, 2; RFC 2919, 6; RFC 8058): what came in is
// of a list before this one, or made up.
var listOnly = [...]string{
	"list-id", "list-post", "list-owner", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-help", "list-archive", "precedence",
}

// copyForList copies a message without the fields that a list puts itself. A message that has been through the list
// before is a notForList.
func copyForList(w io.Writer, r io.Reader, list envelope.Address) error {
	c := headerCopy{out: bufio.NewWriterSize(w, 32<<10), list: list}
	in := bufio.NewReaderSize(r, 32<<10)
	for !c.over {
		piece, err := in.ReadSlice('\n')
		c.piece(piece)
		if err != nil && err != bufio.ErrBufferFull {
			c.endField()
			if err != io.EOF {
				return err
			}
			break
		}
	}
	if c.loop {
		return &notForList{"5.4.6", "the message has been through this list before"}
	}
	if _, err := io.Copy(c.out, in); err != nil {
		return err
	}
	return c.out.Flush()
}

// headerCopy copies a header in pieces of lines. It keeps the beginning of one field at a time.
type headerCopy struct {
	out  *bufio.Writer // keeps its first error for Flush
	list envelope.Address

	middle bool   // the last piece did not end its line
	drop   bool   // the present field is not copied
	field  []byte // the beginning of the present field
	loop   bool   // the message has been through the list
	over   bool   // the header is
}

// judged is how much of a field is looked at.
const judged = 1 << 10

func (c *headerCopy) piece(p []byte) {
	if !c.middle && len(p) > 0 && p[0] != ' ' && p[0] != '\t' {
		c.endField()
		c.over = len(bytes.TrimRight(p, "\r\n")) == 0
		c.drop = isListOnly(p)
	}
	c.middle = len(p) > 0 && p[len(p)-1] != '\n'
	c.field = append(c.field, p[:min(len(p), judged-min(len(c.field), judged))]...)
	if !c.drop {
		c.out.Write(p)
	}
}

// endField judges the field that is complete.
func (c *headerCopy) endField() {
	name, body, _ := bytes.Cut(c.field, []byte(":"))
	value := strings.TrimSpace(string(body))
	switch strings.ToLower(string(bytes.TrimRight(name, " \t"))) {
	case "delivered-to":
		addr, err := envelope.ParsePath(value)
		c.loop = c.loop || err == nil && addr.Canonical() == c.list
	case "list-id":
		c.loop = c.loop || strings.HasSuffix(strings.ToLower(value), "<"+c.list.Local+"."+c.list.Domain+">")
	}
	c.field = c.field[:0]
}

func isListOnly(line []byte) bool {
	name, _, ok := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	for _, f := range listOnly {
		if ok && len(name) == len(f) && strings.EqualFold(string(name), f) {
			return true
		}
	}
	return false
}

// commitExpansion settles the list and queues what its members get.
func (r *Runner) commitExpansion(x *expansion, d spool.Due) error {
	all := drafts(x.report)
	if x.draft != nil {
		x.message.ID, x.message.Size = x.draft.ID(), x.draft.Size()
		all = append(all, x.draft)
	}
	return r.guarded("expand the list "+x.list.Address.String(), func() error {
		return r.cfg.Store.Update(func(tx store.Tx) error {
			if x.settled = r.cfg.Spool.Settle(tx, d); !x.settled {
				return nil // drafts without a reference are dropped
			}
			trace.Record(tx, d.Message.ID, x.event(r.cfg.Now(), d))
			r.tellDelivered(tx, r.cfg.Now(), &d, "the list has taken it")
			if len(x.rcpts) > 0 {
				if err := r.cfg.Spool.Add(tx, x.message, x.rcpts, trace.Generated); err != nil {
					return err
				}
			}
			return r.addReport(tx, x.report)
		}, all...)
	})
}

// event says that the list has taken the message. Related is what its members get.
func (x *expansion) event(now time.Time, d spool.Due) trace.Event {
	e := trace.Event{Time: now, Kind: trace.Delivered, To: []string{d.Recipient.To.String()}, Mailbox: fmt.Sprintf("list of %d", len(x.rcpts))}
	if x.message != nil {
		e.Related = x.message.ID.String()
	}
	return e
}

// namedLost is how many members that lead nowhere the log names.
const namedLost = 10

func (r *Runner) logExpansion(x *expansion, d spool.Due) {
	m := d.Message
	args := []any{"id", m.ID, "from", m.Envelope.From.Path(), "to", d.Recipient.To.String(), "outcome", "delivered", "recipients", len(x.rcpts)}
	if x.message != nil {
		args = append(args, "related", x.message.ID)
	}
	r.cfg.Log.Info("delivered to a list", args...)
	if len(x.lost) > 0 {
		r.cfg.Log.Warn("a list has members that lead nowhere", "list", x.list.Address.String(), "members", len(x.lost),
			"such_as", fmt.Sprint(x.lost[:min(len(x.lost), namedLost)]))
	}
}
