package tlsrpt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"strings"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// The rhythm of reports: each domain has its own time in the first hours of a day, so that not all servers of the world
// write to it at once (RFC 8460, 4.1).
const (
	lookEvery  = 5 * time.Minute
	firstAfter = 15 * time.Minute
	spread     = 4 * time.Hour
	keepFor    = 3 * 24 * time.Hour // after the day: nobody could be asked where reports go, or the server was off
	askFor     = 30 * time.Second   // one question to the DNS
	maxTrouble = 5                  // domains in trouble, after which all others wait until the next look
	againAfter = time.Hour          // a domain in trouble waits
	maxLater   = 10_000             // domains in trouble that are remembered
)

// due is when a domain's report of a day is to be sent.
func (r *Reports) due(d day, domain string) time.Time {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", d, domain, r.cfg.Hostname))
	wait := time.Duration(binary.BigEndian.Uint64(sum[:]) % uint64(spread))
	return (d + 1).start().Add(firstAfter + wait)
}

// sendDue sends the reports whose time has come.
func (r *Reports) sendDue(ctx context.Context) {
	trouble, now := 0, r.cfg.Now()
	after := store.NewKey(table)
	for ctx.Err() == nil && trouble < maxTrouble {
		d, domain, ok, err := r.next(after)
		if err != nil {
			r.cfg.Log.Error("TLS reports cannot be read", "err", err)
			return
		}
		if !ok {
			return
		}
		if after = domainKey(d, domain).End(); domain == "" {
			after = append(dayKey(d), 0)
		}
		if now.Before(r.due(d, domain)) || now.Before(r.later[domain]) {
			continue
		}
		delete(r.later, domain)
		if err := r.send(ctx, d, domain); err != nil && ctx.Err() == nil {
			trouble++
			r.later[domain] = now.Add(againAfter)
			r.cfg.Log.Warn("a TLS report waits", "domain", domain, "day", d.start().Format(time.DateOnly), "err", err)
		}
	}
	if len(r.later) > maxLater {
		clear(r.later)
	}
}

// next returns the first domain at or after a key, of the days that are over. A domain of "" is the day's own record.
func (r *Reports) next(from store.Key) (d day, domain string, ok bool, err error) {
	today := dayKey(dayOf(r.cfg.Now()))
	if bytes.Compare(from, today) >= 0 {
		return 0, "", false, nil
	}
	err = r.cfg.Store.View(func(tx store.Reader) error {
		d, domain, ok = 0, "", false
		for k := range tx.Scan(from, today) {
			n, rest := store.TakeUint(k[len(table):])
			d, ok = day(n), true
			if len(rest) > 0 {
				domain, _ = store.TakeText(rest)
			}
			return nil
		}
		return nil
	})
	return d, domain, ok, err
}

// send puts the report about a domain into the spool, if the domain asks for it, and forgets what it was about. An error
// leaves it for later.
func (r *Reports) send(ctx context.Context, d day, domain string) error {
	if domain == "" {
		return r.forgetDay(d)
	}
	ask, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	targets, err := lookup(ask, r.cfg.Resolver, domain)
	switch {
	case errors.Is(err, ErrNotAsked):
		return r.commit(d, domain, nil)
	case r.cfg.Now().Sub((d + 1).start()) > keepFor:
		r.cfg.Log.Warn("a TLS report is dropped: it is too old", "domain", domain, "day", d.start().Format(time.DateOnly), "err", err)
		return r.commit(d, domain, nil)
	case err != nil:
		return err
	}
	report, err := r.report(d, domain)
	if errors.Is(err, store.ErrRecord) {
		r.cfg.Log.Error("a TLS report is dropped: its counts are damaged", "domain", domain, "err", err)
		return r.commit(d, domain, nil)
	}
	if err != nil {
		return err
	}
	posts, err := r.posts(report, domain, targets)
	if err != nil {
		return err
	}
	return r.commit(d, domain, posts)
}

// forgetDay drops a day's own record once it has no domains any more.
func (r *Reports) forgetDay(d day) error {
	return r.cfg.Store.UpdateSoon(func(tx store.Tx) error {
		n := 0
		for range tx.Scan(dayKey(d), dayKey(d).End()) {
			if n++; n > 1 {
				return nil
			}
		}
		tx.Delete(dayKey(d))
		return nil
	})
}

// report is what the store has about a domain's day.
func (r *Reports) report(d day, domain string) (*Report, error) {
	rep := &Report{
		Organization: r.cfg.Organization, Contact: r.cfg.Contact().String(),
		Range: Range{Start: d.start(), End: (d + 1).start().Add(-time.Second)},
		ID:    fmt.Sprintf("%s.%s.%s@%s", d.start().Format(time.DateOnly), domain, r.cfg.Store.NewID(), r.cfg.Hostname),
	}
	err := r.cfg.Store.View(func(tx store.Reader) error {
		rep.Policies = nil
		for _, v := range tx.Scan(domainKey(d, domain), domainKey(d, domain).End()) {
			t, err := decode(v)
			if err != nil {
				return err
			}
			rep.Policies = append(rep.Policies, t.report())
		}
		return nil
	})
	return rep, err
}

func (t *tally) report() PolicyReport {
	p := PolicyReport{
		Policy:  ReportedPolicy{Type: t.policy.Type, Domain: t.policy.Domain, Strings: t.policy.Strings, MX: t.policy.MX},
		Summary: Summary{t.successful, t.failed},
	}
	for _, d := range t.details {
		p.Failures = append(p.Failures, Detail{
			Type: d.failure, SendingIP: d.local, MX: d.mx, ReceivingIP: d.ip, Count: d.count, Reason: d.reason,
		})
	}
	return p
}

// post is a report on its way to one place.
type post struct {
	message *spool.Message
	rcpts   []spool.Recipient
	draft   *store.Draft
}

// posts drafts a report for each place that can be written to. An error is the store's.
func (r *Reports) posts(rep *Report, domain string, targets []target) (posts []post, err error) {
	packed, err := rep.compressed()
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		rcpts, err := r.recipients(domain, t)
		if err != nil {
			r.cfg.Log.Warn("a TLS report goes to one place less", "domain", domain, "to", t.mail.String(), "err", err)
			continue
		}
		p, err := r.draft(rep, domain, t, packed)
		if err != nil {
			discard(posts)
			return nil, err
		}
		p.rcpts = rcpts
		posts = append(posts, p)
	}
	return posts, nil
}

func discard(posts []post) {
	for _, p := range posts {
		p.draft.Discard()
	}
}

// recipients are whom a report goes to. Nobody hears when it does not arrive.
func (r *Reports) recipients(domain string, t target) (rcpts []spool.Recipient, err error) {
	if t.url != "" {
		rcpts = []spool.Recipient{{Recipient: envelope.Recipient{To: envelope.Address{Local: "tlsrpt", Domain: domain}}, Transport: Transport(t.url)}}
	} else if rcpts, err = r.cfg.Recipients(t.mail); err != nil {
		return nil, err
	}
	for i := range rcpts {
		rcpts[i].Notify = envelope.NotifyNever
	}
	return rcpts, nil
}

// draft writes a report for one place. Failures of TLS do not keep it from its way (RFC 8460, 3).
func (r *Reports) draft(rep *Report, domain string, t target, packed []byte) (p post, err error) {
	from := r.cfg.Contact()
	p.draft = r.cfg.Store.NewDraft()
	p.message = &spool.Message{ID: p.draft.ID(), Envelope: envelope.Envelope{From: from, TLSOptional: true}}
	if t.url != "" {
		_, err = p.draft.Write(packed)
	} else {
		p.message.MessageID = fmt.Sprintf("<%s@%s>", p.draft.ID(), r.cfg.Hostname)
		p.message.Skip, err = r.writeMail(p.draft, rep, domain, t.mail, from, packed)
	}
	if err != nil {
		p.draft.Discard()
		return p, err
	}
	p.message.Size = p.draft.Size()
	return p, nil
}

// writeMail writes a report as a mail (RFC 8460, 5.3), and returns the length of its first field, which only final
// delivery shows.
func (r *Reports) writeMail(w *store.Draft, rep *Report, domain string, to, from envelope.Address, packed []byte) (skip int64, err error) {
	returnPath := "Return-Path: " + from.Path() + "\r\n"
	boundary := "report-" + w.ID().String()
	name := fmt.Sprintf("%s!%s!%d!%d.json.gz", r.cfg.Hostname, domain, rep.Range.Start.Unix(), rep.Range.End.Unix())
	sum := rep.Sum()
	text := returnPath +
		"From: " + (&mail.Address{Name: r.cfg.Organization, Address: from.String()}).String() + "\r\n" +
		"To: <" + to.String() + ">\r\n" +
		"Subject: Report Domain: " + domain + "\r\n Submitter: " + r.cfg.Hostname + "\r\n Report-ID: <" + rep.ID + ">\r\n" +
		"Date: " + r.cfg.Now().Format(dateFormat) + "\r\n" +
		"Message-ID: <" + w.ID().String() + "@" + r.cfg.Hostname + ">\r\n" +
		"TLS-Report-Domain: " + domain + "\r\n" +
		"TLS-Report-Submitter: " + r.cfg.Hostname + "\r\n" +
		"TLS-Required: No\r\n" +
		"Auto-Submitted: auto-generated\r\n" +
		"MIME-Version: 1.0\r\n" +
		"Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"" + boundary + "\"\r\n\r\n" +
		"--" + boundary + "\r\n" +
		"Content-Type: text/plain; charset=us-ascii\r\n\r\n" +
		"This is a TLS report (RFC 8460) by " + r.cfg.Hostname + " about mail to " + domain + " on " + rep.Range.Start.Format(time.DateOnly) + " (UTC).\r\n\r\n" +
		fmt.Sprintf("Sessions with good TLS, as far as the domain asks for it:  %d\r\n", sum.Successful) +
		fmt.Sprintf("Sessions that failed in this:                              %d\r\n\r\n", sum.Failed) +
		"--" + boundary + "\r\n" +
		"Content-Type: application/tlsrpt+gzip\r\n" +
		"Content-Transfer-Encoding: base64\r\n" +
		"Content-Disposition: attachment;\r\n filename=\"" + name + "\"\r\n\r\n" +
		lines(base64.StdEncoding.EncodeToString(packed)) +
		"--" + boundary + "--\r\n"
	_, err = io.WriteString(w, text)
	return int64(len(returnPath)), err
}

// dateFormat is date-time of RFC 5322, 3.3.
const dateFormat = "Mon, 2 Jan 2006 15:04:05 -0700"

// lines breaks base64 into lines of 76 octets (RFC 2045, 6.8).
func lines(encoded string) string {
	var b strings.Builder
	for len(encoded) > 0 {
		n := min(len(encoded), 76)
		b.WriteString(encoded[:n] + "\r\n")
		encoded = encoded[n:]
	}
	return b.String()
}

// commit queues the reports about a domain's day and forgets what they tell, in one transaction: it is what makes sure
// that the domain hears of the day once.
func (r *Reports) commit(d day, domain string, posts []post) error {
	var drafts []*store.Draft
	for _, p := range posts {
		drafts = append(drafts, p.draft)
	}
	return r.cfg.Store.UpdateSoon(func(tx store.Tx) error {
		var keys []store.Key
		for k := range tx.Scan(domainKey(d, domain), domainKey(d, domain).End()) {
			keys = append(keys, append(store.Key(nil), k...))
		}
		for _, k := range keys {
			tx.Delete(k)
		}
		for _, p := range posts {
			if err := r.cfg.Spool.Add(tx, p.message, p.rcpts, trace.Generated); err != nil {
				return err
			}
		}
		return nil
	}, drafts...)
}

// IsReport reports whether a message is a report of ours.
func IsReport(m *spool.Message) bool { return m.Origin.Protocol == "" && m.Envelope.TLSOptional }
