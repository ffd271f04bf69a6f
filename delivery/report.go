package delivery

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"postroad/internal/account"
	"postroad/internal/dsn"
	"postroad/internal/envelope"
	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// report is a delivery report that waits to be queued: a message of our own with
// the null reverse-path. A nil report is none at all.
type report struct {
	kind     verdict // delivered, relayed, deferred or failed
	original *spool.Message
	about    []string

	unsent  string // why the sender is not told; the rest is not set then
	draft   *store.Draft
	message *spool.Message
	rcpts   []spool.Recipient
}

func (rep *report) sent() bool { return rep != nil && rep.unsent == "" }

func (rep *report) id() string {
	if !rep.sent() {
		return ""
	}
	return rep.message.ID.String()
}

// addReport queues a report within the transaction that makes it true.
func (r *Runner) addReport(tx store.Tx, rep *report) error {
	switch {
	case rep == nil:
		return nil
	case !rep.sent():
		r.recordUnsent(tx, rep)
		return nil
	case !known(rep.original):
		r.count(tx, rep.original.Envelope.From)
	}
	return r.cfg.Spool.Add(tx, rep.message, rep.rcpts, trace.Generated)
}

func drafts(reports ...*report) []*store.Draft {
	var all []*store.Draft
	for _, rep := range reports {
		if rep.sent() {
			all = append(all, rep.draft)
		}
	}
	return all
}

// reportKind returns the kind of report that an outcome asks for, or undecided.
func reportKind(o *outcome) verdict {
	n := o.due.Recipient.Notify
	switch {
	case o.quiet, o.due.Message.Envelope.From.IsZero(): // RFC 3461, 6.2, and RFC 5321, 4.5.5
		return undecided
	case (o.verdict == failed || o.verdict == expired || o.verdict == suppressed) && n.Wants(envelope.NotifyFailure):
		return failed
	case o.verdict == deferred && o.delay && n.Wants(envelope.NotifyDelay):
		return deferred
	case o.verdict == relayed && o.final && !o.reports && n.Wants(envelope.NotifySuccess):
		return delivered
	case o.verdict == relayed && !o.final && (!o.reports && n.Wants(envelope.NotifySuccess) || tellsRelay(o)):
		return relayed
	case (o.verdict == delivered || o.verdict == expanded) && n.Wants(envelope.NotifySuccess):
		return o.verdict
	}
	return undecided
}

// tellsRelay reports whether a message that has a deadline is reported as relayed, whatever NOTIFY says but NEVER: when
// its sender asked for a trace, or when the next hop knows nothing of the deadline (RFC 2852, 4.1.4).
func tellsRelay(o *outcome) bool {
	by, n := o.due.Message.Envelope.DeliverBy, o.due.Recipient.Notify
	return !by.Deadline.IsZero() && (by.Trace || !o.keeps) && n&envelope.NotifyNever == 0
}

// reports writes the reports that follow from outcomes of one message: at most one
// of each kind.
func (r *Runner) reports(outcomes []outcome) ([]*report, error) {
	var reports []*report
	for _, kind := range []verdict{failed, deferred, relayed, delivered, expanded} {
		var about []outcome
		for i := range outcomes {
			if reportKind(&outcomes[i]) == kind {
				about = append(about, outcomes[i])
			}
		}
		if len(about) == 0 {
			continue
		}
		rep, err := r.report(about[0].due.Message, about)
		if err != nil {
			discard(reports)
			return nil, err
		}
		reports = append(reports, rep)
	}
	return reports, nil
}

func discard(reports []*report) {
	for _, draft := range drafts(reports...) {
		draft.Discard()
	}
}

// report writes one report to the sender of m, or says why there is none.
func (r *Runner) report(m *spool.Message, about []outcome) (*report, error) {
	rep := &report{kind: reportKind(&about[0]), original: m}
	for i := range about {
		rep.about = append(rep.about, about[i].due.Recipient.To.String())
	}
	targets, err := r.cfg.Accounts.Resolve(m.Envelope.From)
	if errors.Is(err, account.ErrUnknown) || errors.Is(err, account.ErrLoop) {
		rep.unsent, err = m.Envelope.From.Path()+" leads nowhere", nil
	} else if err == nil {
		rep.unsent, err = r.unsent(m, isLocal(&about[0].due))
	}
	if err != nil {
		return nil, err
	}
	if rep.unsent != "" {
		r.cfg.Log.Warn("the sender is not told", "id", m.ID, "from", m.Envelope.From.Path(), "about", rep.kind.String(), "reason", rep.unsent)
		return rep, nil
	}
	for _, t := range targets {
		rep.rcpts = append(rep.rcpts, recipient(t))
	}
	return rep, r.writeReport(rep, m, about)
}

// recipient is who a message of our own goes to.
func recipient(t account.Target) spool.Recipient {
	return spool.Recipient{
		Recipient: envelope.Recipient{To: t.Address}, Account: uint64(t.Account), Mailbox: t.Mailbox, List: t.List, Via: t.Via,
	}
}

// writeReport drafts the report; when the message cannot be read, without it.
func (r *Runner) writeReport(rep *report, m *spool.Message, about []outcome) error {
	body, err := r.openBody(m)
	if err == nil {
		defer body.Close()
		err = r.draftReport(rep, m, about, body)
	}
	if err != nil && r.cfg.Store.Failed() == nil && !errors.Is(err, store.ErrFull) {
		r.cfg.Log.Error("the report goes without its message", "id", m.ID, "err", err)
		err = r.draftReport(rep, m, about, nil)
	}
	return err
}

// returnPath begins a report, as it does every message at final delivery.
const returnPath = "Return-Path: <>\r\n"

// peeked is how far into a message its subject is looked for.
const peeked = 16 << 10

// subject is a message's subject in UTF-8, if it is near the beginning.
func subject(in *bufio.Reader) string {
	header, _ := in.Peek(peeked)
	for name, raw := range mime.HeaderFields(header) {
		if strings.EqualFold(name, "Subject") {
			return mime.DecodeHeader(mime.Unfold(raw))
		}
	}
	return ""
}

func (r *Runner) draftReport(rep *report, m *spool.Message, about []outcome, body io.Reader) error {
	rep.draft = r.cfg.Store.NewDraft()
	doc := r.document(m, about)
	doc.MessageID = fmt.Sprintf("<%s@%s>", rep.draft.ID(), r.cfg.Hostname)
	if body != nil {
		in := bufio.NewReaderSize(body, peeked)
		doc.Subject, doc.Original = subject(in), in
	}
	_, err := io.WriteString(rep.draft, returnPath)
	if err == nil {
		err = dsn.Write(rep.draft, doc)
	}
	if err != nil {
		rep.draft.Discard()
		return err
	}
	rep.message = &spool.Message{
		ID: rep.draft.ID(), Size: rep.draft.Size(), Skip: int64(len(returnPath)), MessageID: doc.MessageID,
		About: m.ID.String(),
		Envelope: envelope.Envelope{
			Body: envelope.Body8Bit, UTF8: doc.UTF8,
			Priority:   m.Envelope.Priority,   // RFC 6710, 4.6
			RequireTLS: m.Envelope.RequireTLS, // RFC 8689, 5
		},
	}
	return nil
}

// document is the report's contents.
func (r *Runner) document(m *spool.Message, about []outcome) dsn.Report {
	doc := dsn.Report{
		Host: r.cfg.Hostname, To: m.Envelope.From, Date: r.cfg.Now(), ID: m.ID.String(), Answers: m.MessageID, EnvelopeID: m.Envelope.ID, Arrived: m.Arrived,
		DeliverBy: m.Envelope.DeliverBy.Deadline, Release: m.Envelope.Release,
		HeaderOnly: r.headerOnly(m, about),
	}
	_, ascii := m.Envelope.From.ASCII()
	doc.UTF8 = m.Envelope.UTF8 || !ascii // else its reader may know nothing of UTF-8 in headers
	for i := range about {
		doc.Recipients = append(doc.Recipients, r.recipient(&about[i]))
	}
	return doc
}

// headerOnly follows RET (RFC 3461, 4.3) as far as sizes allow. Only a failure
// returns a message at all, and what needed TLS does not go back without (RFC 8689, 5).
func (r *Runner) headerOnly(m *spool.Message, about []outcome) bool {
	most := r.cfg.Limits.ReturnSize
	if m.Envelope.Return == envelope.ReturnFull {
		most = r.cfg.Limits.ReturnMost
	}
	return reportKind(&about[0]) != failed || m.Envelope.Return == envelope.ReturnHeaders || m.Size > most ||
		m.Envelope.Body == envelope.BodyBinary || m.Envelope.RequireTLS
}

func (r *Runner) recipient(o *outcome) dsn.Recipient {
	rcpt := dsn.Recipient{
		Original: o.due.Recipient.Original, Final: o.due.Recipient.To, Action: dsn.Failed,
		Status: status(o), Reply: o.reply, LastAttempt: o.reply.At,
		Attempts: o.due.Recipient.Attempts, Doubtful: o.doubtful,
	}
	switch reportKind(o) {
	case delivered:
		rcpt.Action = dsn.Delivered
	case relayed:
		rcpt.Action = dsn.Relayed
	case expanded:
		rcpt.Action = dsn.Expanded
	case deferred:
		rcpt.Action = dsn.Delayed
		rcpt.RetryUntil = r.giveUpAt(&o.due)
	}
	return rcpt
}

// giveUpAt is when a recipient is tried no longer.
func (r *Runner) giveUpAt(d *spool.Due) time.Time {
	end := d.Message.Ready().Add(r.scheduleOf(d).Expire)
	if by := d.Message.Envelope.DeliverBy; by.Return && by.Deadline.Before(end) {
		return by.Deadline
	}
	return end
}

// status is the code that fits the verdict (RFC 3463): the other side's where it
// gave one of the right class.
func status(o *outcome) string {
	class := map[verdict]string{delivered: "2", relayed: "2", expanded: "2", deferred: "4", failed: "5", suppressed: "5"}[o.verdict]
	switch said := o.reply.Enhanced; {
	case o.verdict == expired && o.overdue:
		return "5.4.7"
	case o.verdict == expired, o.overdue && o.verdict == deferred:
		return "4.4.7"
	case said != "" && said[:1] == class:
		return said
	case o.reply.Code == 0 && o.verdict == deferred:
		return "4.4.1"
	}
	return class + ".0.0"
}

// openBody opens a message as it goes out: without what only final delivery shows.
func (r *Runner) openBody(m *spool.Message) (*outBody, error) {
	body, err := r.cfg.Store.OpenBody(m.ID)
	if err != nil {
		return nil, err
	}
	in := body.Reader()
	if _, err := io.CopyN(io.Discard, in, m.Skip); err != nil {
		body.Close()
		return nil, err
	}
	return &outBody{in, body}, nil
}

// outBody is an open message without its first octets. Its last Read checks the
// checksum over all of them.
type outBody struct {
	io.Reader
	io.Closer
}
