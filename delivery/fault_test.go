package delivery

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/dsn"
	"postroad/internal/event"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/internal/trace"
	"postroad/spool"
)

// faulty is a server whose disk fails while a message goes to every kind of receiver: with marks, a report, an entry on
// the suppression list, and events.
type faulty struct {
	*fixture
	disk  *storetest.FaultFS
	peers map[string]*peer // by domain
	app   *app
	id    store.ID
}

func newFaulty(t *testing.T) *faulty {
	disk := storetest.NewFaultFS()
	w := &faulty{fixture: newFixtureOn(t, disk), disk: disk}
	w.cfg.SuppressFor = 24 * time.Hour
	w.app = w.webhook(event.Hook{})
	w.peers = map[string]*peer{
		"y.test": w.site("y.test", public(1), &peer{say: map[string]string{"RCPT no@y.test": "550 5.1.1 nobody of this name"}}),
		"z.test": w.site("z.test", public(2), &peer{say: map[string]string{"dot": "FIN"}}),
		"g.test": w.site("g.test", public(3), &peer{say: map[string]string{"RCPT": "450 4.7.1 come again"}}),
	}
	w.start() // without an outbox nothing is told of what is accepted
	w.halt()
	w.id = w.sent("alice@a.test", "bob@a.test", "yes@y.test", "no@y.test", "drop@z.test", "grey@g.test")
	return w
}

// fail makes the store refuse all that comes.
func (w *faulty) fail() {
	w.disk.FailAt(len(w.disk.Ops()), storetest.NotDone, true)
	draft := w.st.NewDraft()
	draft.Write([]byte("x"))
	if err := w.sp.Accept(&spool.Message{}, w.rcpts("bob@a.test"), draft, nil); err == nil {
		w.t.Error("the store works")
	}
}

// mend opens the store again, with all receivers well, and lets everything come to its end.
func (w *faulty) mend() {
	w.disk.FailAt(-1, storetest.NotDone, false)
	w.peers["z.test"].answers("dot", "")
	w.peers["g.test"].answers("RCPT", "")
	w.reopen()
	w.start()
	w.pass(6 * time.Hour)
	w.drained()
}

// TestDiskFaults: whatever goes wrong with the disk, and at whatever operation, each recipient is settled once, and the
// receivers, the trace, the sender and the application know the same of it.
func TestDiskFaults(t *testing.T) {
	for _, fault := range storetest.Faults {
		op := 0
		for tripped := true; tripped; op++ {
			t.Run(fmt.Sprintf("%s at operation %d", fault, op), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newFaulty(t)
					w.disk.FailAt(len(w.disk.Ops())+op, fault, false)
					w.start()
					w.pass(2 * time.Second)
					tripped = w.disk.Tripped()
					w.mend()
					w.audit(tripped)
				})
			})
		}
		if op < 6 {
			t.Errorf("%s: only %d operations were there to fail", fault, op-1)
		}
	}
}

// TestStoreFailsInSteps: the same when the store refuses from a step of a conversation on: before the mark, between the mark
// and the reply, when the report and the suppression are due, and when events are told.
func TestStoreFailsInSteps(t *testing.T) {
	for _, domain := range []string{"y.test", "z.test", "g.test"} {
		for _, phase := range []string{"greeting", "EHLO", "MAIL", "RCPT", "DATA", "dot"} {
			if domain == "g.test" && (phase == "DATA" || phase == "dot") {
				continue // it does not come to that
			}
			t.Run(domain+" "+phase, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newFaulty(t)
					failed := false
					w.peers[domain].before = func(at string) {
						if !failed && (at == phase || strings.HasPrefix(at, phase+" ")) {
							failed = true
							w.fail()
						}
					}
					w.start()
					w.pass(2 * time.Second)
					if !failed {
						t.Error("it did not come to that")
					}
					w.mend()
					w.audit(true)
				})
			})
		}
	}
	for post := range 2 {
		t.Run(fmt.Sprint("post ", post), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFaulty(t)
				posts := 0
				w.app.set(func(a *app) {
					a.say = func(http.ResponseWriter, *http.Request, []byte) { // posts of one application come one by one here
						if posts == post {
							w.fail()
						}
						posts++
					}
				})
				w.cfg.Limits.PerDestination = 1
				w.start()
				w.pass(2 * time.Second)
				w.mend()
				w.audit(true)
			})
		})
	}
}

func (w *faulty) audit(tripped bool) {
	w.t.Helper()
	fates := w.fates()
	for to, f := range fates {
		switch fault := f.fault(); {
		case fault != "":
			w.t.Errorf("%s: %s: %+v", to, fault, *f)
		case f.taken > 1 && !tripped && to != "drop@z.test":
			w.t.Errorf("%s was sent twice, and nothing had failed: %+v", to, *f)
		case (f.ends[0] == trace.Bounced) != (to == "no@y.test"):
			w.t.Errorf("%s: %+v", to, *f)
		}
	}
	if len(fates) != 4 || len(w.mail("bob")) != 1 {
		w.t.Errorf("%d recipients have a fate; bob has %d", len(fates), len(w.mail("bob")))
	}
	if left := w.marks(); left != 0 {
		w.t.Errorf("%d marks are left", left)
	}
	w.auditEvents()
	w.auditSuppression()
}

// fates are those of the recipients that are not ours.
func (w *faulty) fates() map[string]*fate {
	fates := map[string]*fate{}
	of := func(_, to string) *fate {
		if fates[to] == nil {
			fates[to] = &fate{}
		}
		return fates[to]
	}
	s := &sim{t: w.t.(*testing.T), f: w.fixture, sent: map[store.ID]simMessage{}}
	s.traced(w.id, of)
	delete(fates, "bob@a.test")
	for _, p := range w.peers {
		for _, m := range p.got() {
			for _, to := range m.to {
				of("", to).taken++
			}
		}
	}
	for _, text := range w.mail("alice") {
		report, err := dsn.Parse(strings.NewReader(text))
		if err != nil {
			w.t.Errorf("alice has %q: %v", text, err)
		}
		for _, r := range report.Recipients {
			of("", r.Final.String()).failures++
		}
	}
	return fates
}

// auditEvents holds what the application has heard against the trace.
func (w *faulty) auditEvents() {
	w.t.Helper()
	want := map[string]int{}
	list, err := trace.New(w.st, trace.Limits{}).Message(w.id)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range list {
		kind := map[trace.Kind]string{trace.Relayed: "delivered", trace.Delivered: "delivered", trace.Bounced: "bounced"}[e.Kind]
		if e.Kind == trace.Attempt && e.Next != "" {
			kind = "deferred"
		}
		for _, to := range e.To {
			if kind != "" {
				want[kind+" "+to]++
			}
		}
	}
	for _, to := range []string{"bob@a.test", "yes@y.test", "no@y.test", "drop@z.test", "grey@g.test"} {
		want["accepted "+to] = 1
	}
	got, said := map[string]int{}, map[string]toldEvent{}
	for _, e := range w.app.events(w.t.(*testing.T)) {
		was, again := said[e.ID]
		if again && was != e {
			w.t.Errorf("an event is %+v and %+v", was, e)
		}
		if said[e.ID] = e; !again && e.Message == w.id.String() {
			got[e.Type+" "+e.Recipient]++
		}
	}
	if !maps.Equal(got, want) {
		w.t.Errorf("told %v, want %v", got, want)
	}
}

// auditSuppression: the address that was refused is not tried once more.
func (w *faulty) auditSuppression() {
	w.t.Helper()
	p := w.peers["y.test"]
	before := count(p.commands(), "RCPT TO:<no@y.test>")
	id := w.sent("alice@a.test", "no@y.test")
	w.pass(time.Minute)
	w.drained()
	if after := count(p.commands(), "RCPT TO:<no@y.test>"); after != before || !slices.ContainsFunc(w.events(id), func(e string) bool { return strings.HasPrefix(e, "suppressed ") }) {
		w.t.Errorf("an address was tried %d times after it was refused: %q", after-before, w.events(id))
	}
}
