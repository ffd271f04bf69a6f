package delivery

import (
	"fmt"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/spool"
)

// RouteNames lists the routes that a recipient's Transport may name, in the order of the configuration.
func (r *Runner) RouteNames() []string {
	var names []string
	for _, route := range r.cfg.Routes {
		names = append(names, route.withDefaults().Name)
	}
	return names
}

// HasRoute reports whether a recipient's Transport may name a route.
func (r *Runner) HasRoute(name string) bool {
	_, ok := r.routes.named[name]
	return ok
}

// RouteOf returns the route by which a recipient goes out: nil is by MX. It is false when there is no such route.
func (r *Runner) RouteOf(m *spool.Message, rcpt *spool.Recipient) (*Route, bool) {
	return r.route(&spool.Due{Message: m, Recipient: *rcpt})
}

// GoesTo reports whether a recipient goes to a destination: to a domain of this name, in A-labels, or by a route of
// this name. It is how destinations are suspended.
func (r *Runner) GoesTo(m *spool.Message, rcpt *spool.Recipient, name string) bool {
	d := spool.Due{Message: m, Recipient: *rcpt}
	if isLocal(&d) {
		return false
	}
	to, _ := rcpt.To.ASCII()
	route, ok := r.route(&d)
	return to.Domain == name || ok && route != nil && route.Name == name || !ok && rcpt.Transport == name
}

// Suspension returns what keeps a recipient from being tried, if that is the suspension of where it goes.
func (r *Runner) Suspension(m *spool.Message, rcpt *spool.Recipient) (Suspension, bool) {
	d := spool.Due{Message: m, Recipient: *rcpt}
	if isLocal(&d) {
		return Suspension{}, false
	}
	a, _ := r.way(&d)
	return r.cfg.Rules.Suspended(a.suspended)
}

// Forget forgets what was learned of a destination, named as GoesTo has it: the next attempt is as the first.
func (r *Runner) Forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lanes {
		if l.domain != name && (l.route == nil || l.route.Name != name) {
			continue
		}
		r.lives(l)
		l.limit, l.next = newPace(l.limit.most), time.Time{}
		r.roomAgain(l)
		r.giveTurn(l)
		r.forget(l)
	}
	r.schedule()
}

// Recall gives back to the spool what waits in memory for its turn: an administrator has changed what is to become of
// some of it. Attempts under way go on.
func (r *Runner) Recall() {
	r.mu.Lock()
	var back []spool.Due
	for _, l := range r.lanes {
		for c := range spool.Class(spool.Classes) {
			r.waiting.add(c, -len(l.queue[c]))
		}
		all := l.takeAll()
		if len(all) > 0 && l.dead != nil { // it may have been the probe
			l.dead.probing = false
		}
		back = append(back, all...)
		r.roomAgain(l)
		r.forget(l)
	}
	r.mu.Unlock()
	r.cfg.Spool.GiveBack(back...)
}

// shownFormat is how sentences for people name times.
const shownFormat = "2006-01-02 15:04:05 MST"

// Explain says in sentences why a recipient is not yet settled, the most important first. running says whether a server
// is at work on the queue.
func (r *Runner) Explain(m *spool.Message, rcpt *spool.Recipient, running bool) []string {
	e := explanation{r: r, m: m, rcpt: rcpt, now: r.cfg.Now(), running: running}
	e.state()
	e.history()
	e.limits()
	return e.words
}

type explanation struct {
	r       *Runner
	m       *spool.Message
	rcpt    *spool.Recipient
	now     time.Time
	running bool
	words   []string
}

func (e *explanation) say(format string, args ...any) {
	e.words = append(e.words, fmt.Sprintf(format, args...))
}

func shown(t time.Time) string { return t.UTC().Format(shownFormat) }

// state says what the recipient waits for.
func (e *explanation) state() {
	route, known := e.r.RouteOf(e.m, e.rcpt)
	suspension, suspended := e.r.Suspension(e.m, e.rcpt)
	switch {
	case e.rcpt.State == spool.Hold:
		e.say("it is on hold%s; `postroad queue release %s` lets it go", because(e.rcpt.Reason), e.m.ID)
	case !known:
		e.say("its route %q is not in the configuration; it will be put on hold", e.rcpt.Transport)
	case suspended:
		e.say("all mail for %s is suspended since %s by %s%s; `postroad destination resume %s` lets it go",
			suspension.Destination, shown(suspension.Since), suspension.By, because(suspension.Reason), suspension.Destination)
	case e.m.Envelope.Release.After(e.now):
		e.say("its sender has asked that it is not delivered before %s", shown(e.m.Envelope.Release))
	case e.suppressed():
	case e.rcpt.State == spool.Deferred && e.rcpt.Next.After(e.now):
		e.say("the next attempt is due at %s", shown(e.rcpt.Next))
	case !e.running:
		e.say("it is due, and no server runs")
	case e.r.cfg.Spool.Claimed(e.m.ID, e.rcpt.N):
		e.say("it is being tried now, or is about to be: others for the same destination may be before it")
	default:
		e.say("it is due since %s, and waits for its turn among the mail for the same destination", shown(e.rcpt.Next))
	}
	if known && route != nil {
		e.say("it goes %s", e.r.routeWords(route, e.rcpt))
	}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// routeWords say how a route sends.
func (r *Runner) routeWords(route *Route, rcpt *spool.Recipient) string {
	chosen := "by the route " + route.Name
	if rcpt.Transport != "" {
		chosen += ", which an administrator has chosen for it"
	}
	switch {
	case route.Kind == MX:
		return chosen + ", to the hosts that DNS names"
	case route.Kind == Discard:
		return chosen + ", which drops it"
	case route.Kind == Reject:
		return chosen + ", which returns it to its sender"
	case route.Kind == HTTP:
		return chosen + ", as a POST to an application"
	case route.Socket != "":
		return fmt.Sprintf("%s, by LMTP to %s", chosen, route.Socket)
	case route.Kind == LMTP:
		return fmt.Sprintf("%s, by LMTP to %s port %d", chosen, route.Host, route.Port)
	}
	return fmt.Sprintf("%s, to %s port %d", chosen, route.Host, route.Port)
}

// suppressed says so when the recipient is on its sender's suppression list.
func (e *explanation) suppressed() (is bool) {
	d := spool.Due{Message: e.m, Recipient: *e.rcpt}
	_ = e.r.cfg.Store.View(func(tx store.Reader) error { // who cannot read it is told by the others that must
		if s, ok := e.r.suppression(tx, &d); ok {
			e.say("%s", e.r.suppressedReply(&d, &s).Text)
			is = true
		}
		return nil
	})
	return is
}

// history says what happened so far.
func (e *explanation) history() {
	last := e.rcpt.Last
	if last != (envelope.Reply{}) {
		from := ""
		switch {
		case last.From != "" && last.Code != 0:
			from = last.From + " said: "
		case last.From != "": // what was found there, and not said
			from = last.From + ": "
		}
		e.say("the last attempt of %d, at %s: %s%s", max(e.rcpt.Attempts, 1), shown(last.At), from, last)
	}
	if !e.rcpt.Sent.IsZero() {
		e.say("an attempt began to send it at %s, and how that ended is not recorded yet: it may have arrived", shown(e.rcpt.Sent))
	}
	if e.rcpt.Delayed {
		e.say("its sender has been told of the delay")
	}
}

// limits says what ends the waiting, and what it needs.
func (e *explanation) limits() {
	d := spool.Due{Message: e.m, Recipient: *e.rcpt}
	if !isLocal(&d) && e.rcpt.State != spool.Hold {
		e.say("it is given up at %s", shown(e.m.Ready().Add(e.r.scheduleOf(&d).Expire)))
	}
	if by := e.m.Envelope.DeliverBy; !by.Deadline.IsZero() {
		end := "else its sender is told"
		if by.Return {
			end = "else it goes back to its sender"
		}
		e.say("its sender wants it delivered by %s, %s", shown(by.Deadline), end)
	}
	switch {
	case e.m.Envelope.RequireTLS:
		e.say("it goes by verified TLS only (REQUIRETLS)")
	case e.m.Envelope.TLSOptional:
		e.say("what its destination promises of TLS does not matter to it (TLS-Required: No)")
	}
	if p := e.m.Envelope.Priority; p != 0 {
		e.say("its priority is %+d", p)
	}
}
