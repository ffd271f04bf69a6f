package delivery

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/event"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/spool"
)

// toldEvent is an event as an application reads it.
type toldEvent struct {
	ID, Type, Message, From, Account, Recipient, Reply, Status string
	EnvelopeID                                                 string `json:"envelope_id"`
	Attempts, Code                                             int
	Next                                                       time.Time
	Local                                                      bool
	Doubtful                                                   bool `json:"possibly_delivered"`
}

// events returns what was told by posts that were answered by 2xx, each with a good signature.
func (a *app) events(t *testing.T) (all []toldEvent) {
	t.Helper()
	for _, p := range a.got() {
		p.check(t)
		var batch struct{ Events []toldEvent }
		if err := json.Unmarshal([]byte(p.body), &batch); err != nil || len(batch.Events) == 0 {
			t.Errorf("%q: %v", p.body, err)
		}
		if p.code/100 == 2 {
			all = append(all, batch.Events...)
		}
	}
	return all
}

func words(events []toldEvent) (all []string) {
	for _, e := range events {
		all = append(all, fmt.Sprintf("%s %s %d", e.Type, e.Recipient, e.Attempts))
	}
	slices.Sort(all)
	return all
}

// webhook adds one, whose application is at app.test.
func (f *fixture) webhook(h event.Hook) *app {
	h.Name = "Orders"
	f.cfg.Webhooks = []Webhook{{Hook: h, URL: "http://hook.test/events", Secret: secret}}
	return f.app("hook.test:80")
}

// sent accepts a letter as a session would.
func (f *fixture) sent(account string, to ...string) store.ID {
	f.t.Helper()
	m := &spool.Message{
		Envelope: envelope.Envelope{From: path("<alice@a.test>"), ID: "env-1"}, MessageID: "<1@x.test>",
		Origin: spool.Origin{Protocol: "ESMTPSA", Account: account},
	}
	rcpts := f.rcpts(to...)
	draft := f.st.NewDraft()
	draft.Write([]byte(letter))
	m.Skip = int64(strings.Index(letter, "\n") + 1)
	err := f.sp.Accept(m, rcpts, draft, func(tx store.Tx) error { f.outbox.Accepted(tx, m, rcpts); return nil })
	if err != nil {
		f.t.Fatal(err)
	}
	return m.ID
}

func TestEvents(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		a := f.webhook(event.Hook{})
		p := f.site("y.test", public(1), &peer{say: map[string]string{
			"RCPT no@y.test": "550 5.1.1 no such user", "RCPT later@y.test": "450 4.2.0 busy",
		}})
		f.start()
		id := f.sent("alice@a.test", "bob@a.test", "one@y.test", "no@y.test", "later@y.test")
		f.pass(time.Second)
		want := []string{
			"accepted bob@a.test 0", "accepted later@y.test 0", "accepted no@y.test 0", "accepted one@y.test 0",
			"bounced no@y.test 1", "deferred later@y.test 1", "delivered bob@a.test 1", "delivered one@y.test 1",
		}
		told := a.events(t)
		if got := words(told); !slices.Equal(got, want) {
			t.Errorf("told\n%q, want\n%q", got, want)
		}
		ids := map[string]bool{}
		for _, e := range told {
			ids[e.ID] = true
			if e.Message != id.String() || e.EnvelopeID != "env-1" || e.Account != "alice@a.test" || e.From != "alice@a.test" {
				t.Errorf("%+v", e)
			}
			if e.Type == "deferred" && (e.Next.IsZero() || e.Code != 450 || e.Status != "4.2.0" || e.Reply != "busy") {
				t.Errorf("%+v", e)
			}
			if e.Local != (e.Recipient == "bob@a.test" && e.Type == "delivered") {
				t.Errorf("%+v", e)
			}
		}
		if len(ids) != len(told) {
			t.Errorf("%d events have %d ids", len(told), len(ids))
		}
		p.answers("RCPT later@y.test", "")
		f.pass(time.Hour)
		f.drained()
		if got := words(a.events(t)); len(got) != 9 || got[8] != "delivered one@y.test 1" || got[6] != "delivered bob@a.test 1" || got[7] != "delivered later@y.test 2" {
			t.Errorf("told %q", got)
		}
		if n := len(a.got()); n > 5 {
			t.Errorf("%d posts for 9 events", n)
		}
	})
}

// A webhook hears what it wants, and nobody hears of what we wrote ourselves.
func TestEventsChosen(t *testing.T) {
	for _, tt := range []struct {
		name string
		hook event.Hook
		want []string
	}{
		{"some kinds", event.Hook{Kinds: []event.Kind{event.Bounced}}, []string{"bounced no@y.test 1"}},
		{"an account", event.Hook{Kinds: []event.Kind{event.Accepted}, Accounts: []string{"ALICE@a.test"}}, []string{"accepted no@y.test 0"}},
		{"a domain", event.Hook{Kinds: []event.Kind{event.Accepted}, Accounts: []string{"@a.test"}}, []string{"accepted no@y.test 0"}},
		{"another account", event.Hook{Accounts: []string{"bob@a.test", "@b.test"}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				a := f.webhook(tt.hook)
				f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "550 5.1.1 no such user"}})
				f.start()
				f.sent("alice@a.test", "no@y.test")
				f.pass(time.Minute)
				f.drained()
				if got := words(a.events(t)); !slices.Equal(got, tt.want) {
					t.Errorf("told %q, want %q", got, tt.want)
				}
				if len(f.mail("alice")) != 1 {
					t.Error("the report is missing")
				}
			})
		})
	}
}

// An application that is away hears of everything when it is back; what it never takes is dropped without a report.
func TestEventsRetried(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		a := f.webhook(event.Hook{})
		a.answers(401, "who are you")
		f.start()
		f.sent("alice@a.test", "bob@a.test")
		f.pass(24 * time.Hour)
		posts := a.got()
		if n := len(posts); n < 10 || n > 100 {
			t.Errorf("%d posts in a day", n)
		}
		bodies := map[string]string{}
		for _, p := range posts {
			if b, ok := bodies[p.header.Get("Webhook-Id")]; ok && b != p.body {
				t.Error("the same id has other octets")
			}
			bodies[p.header.Get("Webhook-Id")] = p.body
		}
		a.answers(200, "")
		f.pass(2 * time.Hour)
		f.drained()
		if got := words(a.events(t)); len(got) != 2 {
			t.Errorf("told %q", got)
		}
		a.answers(500, "")
		f.sent("alice@a.test", "bob@a.test")
		f.pass(4 * 24 * time.Hour)
		f.drained()
		if mail := f.mail("alice"); len(mail) != 0 {
			t.Errorf("alice has %q", mail)
		}
	})
}

// Wherever the server is killed, each event is told, and a repeated one has its id and its batch's.
func TestEventsCrash(t *testing.T) {
	for _, at := range []int{1, 2} {
		bubble(t, func(t *testing.T, f *fixture) {
			a := f.webhook(event.Hook{})
			var mu sync.Mutex // posts come at the same time
			var dir string
			posts := 0
			a.set(func(a *app) {
				a.say = func(http.ResponseWriter, *http.Request, []byte) {
					mu.Lock()
					defer mu.Unlock()
					if posts++; posts == at {
						dir = f.crashed()
					}
				}
			})
			f.start()
			f.sent("alice@a.test", "bob@a.test")
			f.drained()
			if dir == "" {
				return // all came in fewer posts
			}
			f.restart(dir)
			f.start()
			f.pass(time.Minute)
			f.drained()
			seen, batches := map[string]string{}, map[string]string{}
			for _, e := range a.events(t) {
				seen[e.ID] = e.Type
			}
			for _, p := range a.got() {
				if b, ok := batches[p.header.Get("Webhook-Id")]; ok && b != p.body {
					t.Errorf("a batch was %q and is %q", b, p.body)
				}
				batches[p.header.Get("Webhook-Id")] = p.body
			}
			kinds := map[string]int{}
			for _, kind := range seen {
				kinds[kind]++
			}
			if kinds["accepted"] != 1 || kinds["delivered"] < 1 {
				t.Errorf("killed at post %d: told %v", at, kinds)
			}
		})
	}
}

// While the disk has no room for bodies, events wait and none is lost.
func TestEventsFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := storetest.NewFaultFS()
		f := newFixtureOn(t, disk)
		a := f.webhook(event.Hook{Kinds: []event.Kind{event.Delivered}})
		f.start()
		f.halt()
		f.sent("alice@a.test", "bob@a.test", "alice@a.test")
		disk.SetFree(0)
		f.start()
		f.pass(time.Minute)
		if len(a.got()) != 0 || len(f.mail("bob")) != 1 {
			t.Errorf("%d posts; bob has %d", len(a.got()), len(f.mail("bob")))
		}
		disk.SetFree(1 << 40)
		f.pass(time.Minute)
		f.drained()
		if got := words(a.events(t)); !slices.Equal(got, []string{"delivered alice@a.test 1", "delivered bob@a.test 1"}) {
			t.Errorf("told %q", got)
		}
	})
}

// Without webhooks, nothing is written.
func TestNoEvents(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.start()
		f.sent("alice@a.test", "bob@a.test")
		f.drained()
		f.st.View(func(r store.Reader) error {
			for k := range r.Scan(store.NewKey("ev"), store.NewKey("ev").End()) {
				t.Errorf("%q is in the outbox", k)
			}
			return nil
		})
	})
}

// Many events share posts, and each is told once.
func TestEventsBatched(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		a := f.webhook(event.Hook{Kinds: []event.Kind{event.Delivered}})
		f.start()
		f.halt()
		for range 200 {
			f.sent("alice@a.test", "bob@a.test")
		}
		f.start()
		f.pass(time.Minute)
		f.drained()
		ids := map[string]bool{}
		for _, e := range a.events(t) {
			ids[e.ID] = true
		}
		if n := len(a.got()); len(ids) != 200 || len(a.events(t)) != 200 || n > 50 {
			t.Errorf("%d events in %d posts", len(ids), n)
		}
	})
}
