package postroad_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postroad/internal/control"
	"postroad/internal/dsn"
)

// In TestCrash the trace of each message that was accepted is held against what came to the far site, what the sender was
// told, and what applications heard.

// enterOut says what may become of the recipients of a new message that are far away. mu must be held.
func (c *campaign) enterOut(s *sent) {
	s.change = -1
	if s.broken {
		return
	}
	s.out = map[string]string{}
	for _, to := range s.to {
		if domain := farDomain(to); domain != crashDomain[1:] && domain != farTakes {
			s.out[to] = c.orders.expect(to)
			if domain == farSup && s.hold > 0 { // until then it may be changed
				s.out[to] = "relayed or suppressed"
			}
			if domain == farHold && c.orders.rule && !c.orders.maybe["rule"] {
				s.change = c.orders.change
			}
		}
	}
}

// A crashLife is what is known of one message of the server's that has come to its end.
type crashLife struct {
	id, seq string
	own     bool // written by the server
	from    string
	began   time.Time
	fates   map[string]*crashFate // by recipient
}

// crashFate is what the trace says of one recipient.
type crashFate struct {
	times    int      // it is a recipient: of ours one may be more often, for several mailboxes
	ends     []string // how it was settled: once, we hope
	deferred int
	doubts   int // events that call it possibly delivered
}

// crashEnds are the kinds of events that settle a recipient, and what applications hear.
var crashEnds = map[string]string{
	"delivered": "delivered", "relayed": "delivered", "bounced": "bounced", "expired": "bounced", "suppressed": "suppressed",
	"discarded": "discarded", "removed": "",
}

func newCrashLife(l control.Life) *crashLife {
	life := &crashLife{id: l.ID, own: true, fates: map[string]*crashFate{}}
	for _, e := range l.Events {
		switch e.Kind {
		case "received", "generated":
			life.own, life.from, life.began = e.Kind == "generated", e.From, e.Time
			life.seq = crashSeq(e.MessageID)
		case "saved":
			continue
		}
		for _, to := range e.To {
			life.fate(to).note(e)
		}
	}
	return life
}

func (l *crashLife) fate(to string) *crashFate {
	to = strings.Trim(to, "<>")
	if l.fates[to] == nil {
		l.fates[to] = &crashFate{}
	}
	return l.fates[to]
}

func (f *crashFate) note(e control.Event) {
	if e.Kind == "received" || e.Kind == "generated" {
		f.times++
	}
	if _, end := crashEnds[e.Kind]; end {
		f.ends = append(f.ends, e.Kind)
	}
	if e.Kind == "attempt" && e.Next != "" {
		f.deferred++
	}
	if strings.Contains(e.Reply, "possibly delivered") {
		f.doubts++
	}
}

// lives are the messages that have come to an end since the last audit.
func (c *campaign) lives(admin *control.Client) (ended []*crashLife) {
	c.t.Helper()
	for _, who := range []string{receiver(0), crashOut, crashReader} {
		for l, err := range admin.Trace(c.t.Context(), control.TraceQuery{What: who, Limit: 1_000_000}) {
			if errors.Is(err, control.NotFound) {
				break
			}
			if err != nil {
				c.t.Fatal(err)
			}
			if len(l.Events) == 0 || l.Events[0].Time.Before(c.audited.Add(-2*crashHold)) {
				break // they come newest first
			}
			if life := newCrashLife(l); l.Queue == nil && !c.ended[life.id] && c.isOurs(life) {
				c.ended[life.id] = true
				ended = append(ended, life)
			}
		}
	}
	return ended
}

func (c *campaign) isOurs(l *crashLife) bool { return c.ledger[l.seq] != nil }

// readFar takes what has come to the far site since the last audit.
func (c *campaign) readFar() {
	c.t.Helper()
	for _, m := range c.far.take() {
		id := seqOf(m.text[:min(len(m.text), 4000)])
		box := farBox(m.to)
		c.came[box+" "+id] = append(c.came[box+" "+id], m)
		s := c.ledger[id]
		if s != nil && s.copies[box] == 0 && s.out[m.to] == "" {
			c.t.Errorf("%s: message %s is there, and was for %v", box, id, s.to)
		}
		if s != nil && m.to == crashOut && !forwardedBy(m.from, s.from) {
			c.t.Errorf("%s: message %s of %s came from %s", box, id, s.from, m.from)
		}
		if s == nil || s.out[m.to] == "" {
			if len(c.came[box+" "+id]) == 1 {
				c.found(box, []byte(m.text), time.Now())
			}
			continue
		}
		if !strings.HasSuffix(m.text, string(s.text)) || s.broken {
			c.t.Errorf("%s: message %s came out changed, or had no end", box, id)
		}
	}
}

// forwardedBy reports whether from stands for a sender in what we forward: as it is when it is ours, else rewritten.
func forwardedBy(from, sender string) bool {
	if strings.HasSuffix(sender, crashDomain) {
		return from == sender
	}
	local, _, _ := strings.Cut(sender, "@")
	return strings.HasPrefix(from, "SRS0=") && strings.HasSuffix(from, "="+local+crashDomain)
}

// foundReport takes note of a report that a mailbox has.
func (c *campaign) foundReport(mailbox string, r dsn.Report) {
	c.t.Helper()
	for _, to := range r.Recipients {
		key := r.EnvelopeID + " " + to.Final.String()
		if c.reported[key]++; to.Action != dsn.Failed || c.reported[key] > 1 || c.ledger[r.EnvelopeID] == nil {
			c.t.Errorf("%s: %d reports that message %s for %s was %s", mailbox, c.reported[key], r.EnvelopeID, to.Final, to.Action)
		}
	}
}

// settleFates holds the lives that have ended against everything else.
func (c *campaign) settleFates(lives []*crashLife, drained time.Time) {
	c.t.Helper()
	there := map[string]*crashLife{} // what was submitted, by sequence id
	for _, l := range lives {
		if !l.own {
			there[l.seq] = l
		}
		for to, f := range l.fates {
			if fault := c.fault(l, to, f); fault != "" {
				c.t.Errorf("message %s (%s) for %s: %s: %+v, %d at the far site", l.id, l.seq, to, fault, *f, len(c.came[farBox(to)+" "+l.seq]))
			}
			c.settled++
		}
		if !l.own {
			c.awaitEvents(l)
		}
	}
	for id, s := range c.ledger {
		if l := there[id]; l != nil {
			c.wanted(l, s)
		} else if s.acked && len(s.out) > 0 && !s.until.After(drained) && !s.traced {
			c.t.Errorf("message %s was acknowledged, and the trace does not know its end", id)
		}
	}
	for _, l := range lives {
		for to := range l.fates {
			delete(c.came, farBox(to)+" "+l.seq)
		}
	}
}

// fault is what is wrong with the fate of a recipient, or "".
func (c *campaign) fault(l *crashLife, to string, f *crashFate) string {
	if len(f.ends) != f.times || f.times > 1 && !strings.HasSuffix(to, crashDomain) {
		return "it was not settled once"
	}
	if strings.HasSuffix(to, crashDomain) {
		return ""
	}
	taken, reports := len(c.came[farBox(to)+" "+l.seq]), c.reported[l.seq+" "+to]
	relayed := f.ends[0] == "relayed"
	c.farAgain += max(taken-1, 0)
	c.doubts += f.doubts
	switch {
	case relayed && taken == 0:
		return "nobody has it"
	case relayed && taken > 1+f.doubts, !relayed && taken > f.doubts:
		return "somebody has it, or has it again, and nothing says that this may be"
	case relayed && reports > 0, !relayed && reports != 1:
		return fmt.Sprintf("its sender has %d reports", reports)
	}
	return ""
}

// wanted holds a message's life against what had to become of its recipients.
func (c *campaign) wanted(l *crashLife, s *sent) {
	c.t.Helper()
	s.traced = true
	for to, want := range s.out {
		f := l.fates[to]
		if f == nil || len(f.ends) != 1 {
			c.t.Errorf("message %s (%s) for %s: the trace has %+v", l.id, l.seq, to, f)
		} else if !slices.Contains(strings.Split(want, " or "), f.ends[0]) {
			c.t.Errorf("message %s (%s) for %s was %s, want %s", l.id, l.seq, to, f.ends[0], want)
		}
		c.outcomes[f.ends[0]]++
		c.orders.check(c, l, to, f.ends[0])
	}
}

// awaitEvents wants an event of each thing that the trace says of a message, and no more.
func (c *campaign) awaitEvents(l *crashLife) {
	c.t.Helper()
	for to, f := range l.fates {
		want := map[string]int{"accepted": f.times, "deferred": f.deferred}
		for _, end := range f.ends {
			if kind := crashEnds[end]; kind != "" {
				want[kind]++
			}
		}
		for kind, n := range want {
			c.awaitEvent(l, to, kind, n)
			c.told += n
		}
	}
}

func (c *campaign) awaitEvent(l *crashLife, to, kind string, n int) {
	c.t.Helper()
	give := time.Now().Add(time.Minute)
	for c.far.told(l.id, to, kind) < n && time.Now().Before(give) {
		c.retry()
		<-time.After(2 * time.Millisecond)
	}
	if got := c.far.told(l.id, to, kind); got != n {
		c.t.Errorf("message %s (%s) for %s: applications have heard %d times that it was %s, want %d", l.id, l.seq, to, got, kind, n)
	}
}
