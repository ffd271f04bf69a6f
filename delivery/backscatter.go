package delivery

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// A report goes to whom a message names as its sender, and strangers may name anyone. Who is known - an account that was
// logged in, a program on this machine, a list of ours - is always told. A stranger is told only when something shows that
// the message is from there, as far as that can be asked while nobody else waits, and within bounds for each address
// and for all strangers together. What is not sent for such a reason is in the trace.
//
//	rp  day, address   reports to a stranger on that day; the empty address is all of them

const tableReports = "rp"

// Defaults of Limits.
const (
	reportsPerSender   = 10
	reportsToStrangers = 1000
)

// known reports whether we know who has sent a message.
func known(m *spool.Message) bool {
	o := &m.Origin
	if o.Protocol == "" || o.Account != "" {
		return true
	}
	ip, err := netip.ParseAddr(o.Peer)
	near := o.Peer == "local" || err == nil && ip.Unmap().IsLoopback()
	return near && !strings.Contains(o.Protocol, "LMTP") // what comes by LMTP came from somewhere else
}

// unsent returns why the sender of a message is sent no report, or no words. local is whether it is about recipients here,
// where other mail waits for us and no question is asked.
func (r *Runner) unsent(m *spool.Message, local bool) (why string, err error) {
	if known(m) {
		return "", nil
	}
	if why, err = r.unproven(m, local); why != "" || err != nil {
		return why, err
	}
	err = r.cfg.Store.View(func(tx store.Reader) error {
		why = r.exhausted(tx, m.Envelope.From)
		return nil
	})
	return why, err
}

// proofTime bounds the questions about one sender.
const proofTime = 20 * time.Second

// unproven asks whether a stranger is who it says to be. As long as that has no answer the report is sent, within bounds.
func (r *Runner) unproven(m *spool.Message, local bool) (why string, err error) {
	if r.cfg.Proven == nil || local {
		return "", nil
	}
	ctx := r.hard
	if ctx == nil { // Run was not called
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	proven, err := r.cfg.Proven(ctx, m)
	if err != nil {
		r.cfg.Log.Info("a sender is told although nothing shows yet that it is the sender", "id", m.ID, "from", m.Envelope.From.Path(), "err", err)
		return "", nil
	}
	if !proven {
		return "neither SPF nor DKIM shows that the message is from " + m.Envelope.From.Path(), nil
	}
	return "", nil
}

// exhausted returns which bound of today's reports to strangers is reached.
func (r *Runner) exhausted(tx store.Reader, to envelope.Address) string {
	switch day := r.today(); {
	case reportsOn(tx, day, to) >= uint64(r.cfg.Limits.ReportsPerSender):
		return fmt.Sprintf("%s has had %d reports today", to.Path(), r.cfg.Limits.ReportsPerSender)
	case reportsOn(tx, day, envelope.Address{}) >= uint64(r.cfg.Limits.ReportsToStrangers):
		return fmt.Sprintf("strangers have had %d reports today", r.cfg.Limits.ReportsToStrangers)
	}
	return ""
}

// count notes that a stranger is sent a report, and forgets the days before.
func (r *Runner) count(tx store.Tx, to envelope.Address) {
	day := r.today()
	for _, a := range []envelope.Address{to, {}} {
		n := reportsOn(tx, day, a)
		if a.IsZero() && n == 0 {
			forgetReports(tx, day)
		}
		var e store.Encoder
		e.Uint(n + 1)
		tx.Put(reportsKey(day, a), e)
	}
}

func forgetReports(tx store.Tx, before uint64) {
	var old []store.Key
	for k := range tx.Scan(store.NewKey(tableReports), store.NewKey(tableReports).Uint(before)) {
		old = append(old, append(store.Key(nil), k...))
	}
	for _, k := range old {
		tx.Delete(k)
	}
}

// today is the number of the day in UTC.
func (r *Runner) today() uint64 { return uint64(r.cfg.Now().Unix() / (24 * 60 * 60)) }

func reportsKey(day uint64, a envelope.Address) store.Key {
	return store.NewKey(tableReports).Uint(day).Text(a.Canonical().String())
}

func reportsOn(tx store.Reader, day uint64, a envelope.Address) uint64 {
	v := tx.Get(reportsKey(day, a))
	if v == nil {
		return 0
	}
	return store.NewDecoder(v).Uint()
}

// recordUnsent says in the trace that a sender was not told, and why.
func (r *Runner) recordUnsent(tx store.Tx, rep *report) {
	trace.Record(tx, rep.original.ID, trace.Event{Time: r.cfg.Now(), Kind: trace.Unreported, To: rep.about, Reply: rep.unsent})
}
