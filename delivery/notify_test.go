package delivery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/spool"
)

// ways are all ways that a recipient can go, with the reports that follow from them in order, and the keyword of NOTIFY
// that asks for each.
var ways = []struct {
	name    string
	to      string
	prepare func(*fixture)
	reports []asked
}{
	{"to a mailbox", "bob@a.test", nil, []asked{{envelope.NotifySuccess, "delivered 2.1.5"}}},
	{"to a list", "news@a.test", func(f *fixture) { f.list("news@a.test", account.PostAnyone, "bob@a.test") },
		[]asked{{envelope.NotifySuccess, "delivered 2.1.5"}}},
	{"to a server", "one@y.test", func(f *fixture) { f.site("y.test", public(1), &peer{}) },
		[]asked{{envelope.NotifySuccess, "relayed 2.0.0"}}},
	{"to a server that reports", "one@y.test", func(f *fixture) { f.site("y.test", public(1), &peer{extensions: []string{"DSN"}}) }, nil},
	{"by LMTP", "one@store.test", func(f *fixture) { f.store(&peer{}) }, []asked{{envelope.NotifySuccess, "delivered 2.1.5"}}},
	{"by LMTP to a full mailbox", "one@store.test",
		func(f *fixture) { f.store(&peer{say: map[string]string{"dot one@store.test": "552 5.2.2 full"}}) },
		[]asked{{envelope.NotifyFailure, "failed 5.2.2"}}},
	{"to an application", "one@app.test", func(f *fixture) { f.httpRoute() }, []asked{{envelope.NotifySuccess, "delivered 2.0.0"}}},
	{"to an application that refuses", "one@app.test", func(f *fixture) { f.httpRoute().answers(422, "no") },
		[]asked{{envelope.NotifyFailure, "failed 5.6.0"}}},
	{"to a server that refuses", "one@y.test",
		func(f *fixture) { f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "550 5.1.1 no"}}) },
		[]asked{{envelope.NotifyFailure, "failed 5.1.1"}}},
	{"to nowhere", "one@gone.test", nil, []asked{{envelope.NotifyFailure, "failed 5.1.2"}}},
	{"to a server that says later", "one@y.test",
		func(f *fixture) {
			f.site("y.test", public(1), &peer{say: map[string]string{"RCPT": "450 4.2.0 later"}})
		},
		[]asked{{envelope.NotifyDelay, "delayed 4.2.0"}, {envelope.NotifyFailure, "failed 4.4.7"}}},
	{"rejected", "one@no.test", func(f *fixture) { f.cfg.Routes = []Route{{Domain: "no.test", Kind: Reject}} },
		[]asked{{envelope.NotifyFailure, "failed 5.7.1"}}},
	{"discarded", "one@void.test", func(f *fixture) { f.cfg.Routes = []Route{{Domain: "void.test", Kind: Discard}} }, nil},
}

// asked is a report and the keyword that asks for it.
type asked struct {
	keyword envelope.Notify
	report  string
}

// store puts a store of mail behind LMTP on a unix socket.
func (f *fixture) store(p *peer) *peer {
	f.cfg.Routes = append(f.cfg.Routes, Route{Domain: "store.test", Kind: LMTP, Socket: "/run/store/lmtp"})
	return f.net.peer("/run/store/lmtp", p)
}

// TestNotifyTable: for each way and each NOTIFY, the sender has exactly the reports that it asked for, with its own names for
// message and recipient in them, and the null sender has none.
func TestNotifyTable(t *testing.T) {
	const s, fl, d = envelope.NotifySuccess, envelope.NotifyFailure, envelope.NotifyDelay
	for _, way := range ways {
		for _, notify := range []envelope.Notify{0, envelope.NotifyNever, s, fl, d, s | fl, s | d, fl | d, s | fl | d} {
			for _, sender := range []string{"<alice@a.test>", "<>"} {
				if sender == "<>" && notify != s|fl|d {
					continue
				}
				t.Run(fmt.Sprintf("%s, NOTIFY=%s from %s", way.name, notify, sender), func(t *testing.T) {
					bubble(t, func(t *testing.T, f *fixture) {
						if way.prepare != nil {
							way.prepare(f)
						}
						f.start()
						rcpts := f.rcpts(way.to)
						rcpts[0].Notify, rcpts[0].Original = notify, "rfc822;known@as.test"
						m := from(sender, spool.Origin{})
						m.Envelope.ID = "order-7"
						f.accept(m, letter, rcpts...)
						for days := 0; days < 6 && len(f.queue()) > 0; days++ {
							f.pass(24 * time.Hour)
						}
						f.pass(5 * time.Hour)
						f.drained()
						var want []string
						for _, a := range way.reports {
							if asks := notify; sender != "<>" && (asks&a.keyword != 0 || asks == 0 && a.keyword != s) {
								want = append(want, a.report)
							}
						}
						if got := f.reports(); !slices.Equal(got, want) {
							t.Errorf("reports %q, want %q", got, want)
						}
						for _, text := range f.mail("alice") {
							if !strings.Contains(text, "\r\nOriginal-Envelope-Id: order-7\r\n") ||
								!strings.Contains(text, "\r\nOriginal-Recipient: rfc822; known@as.test\r\n") ||
								!strings.Contains(text, "\r\nFinal-Recipient: rfc822; "+way.to+"\r\n") {
								t.Errorf("not all is named in %s", text)
							}
						}
					})
				})
			}
		}
	}
}

// TestLMTP: each recipient has a reply of its own to the message, and where replies are missing only those are in doubt.
func TestLMTP(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.store(&peer{say: map[string]string{
			"dot no@store.test": "550 5.1.1 nobody", "dot later@store.test": "452 4.2.2 full", "dot last@store.test": "FIN"}})
		f.start()
		id := f.submit("<alice@a.test>", "yes@store.test", "no@store.test", "later@store.test", "last@store.test")
		f.pass(time.Minute)
		if q := f.queue(); !slices.Equal(q, []string{"later@store.test deferred", "last@store.test deferred"}) {
			t.Errorf("the queue holds %q", q)
		}
		ev := f.events(id)
		if !slices.Contains(ev, "relayed yes@store.test 250 2.1.5 yes@store.test ok") ||
			!slices.Contains(ev, "attempt later@store.test 452 4.2.2 full") ||
			!slices.ContainsFunc(ev, func(e string) bool { return strings.HasPrefix(e, "attempt last@store.test possibly delivered") }) {
			t.Errorf("trace: %q", ev)
		}
		if got := f.reports(); !slices.Equal(got, []string{"failed 5.1.1"}) {
			t.Errorf("reports %q", got)
		}
		p.answers("dot later@store.test", "")
		p.answers("dot last@store.test", "")
		f.pass(time.Hour)
		f.drained()
		if got := p.got(); !slices.Equal(got[len(got)-1].to, []string{"later@store.test", "last@store.test"}) {
			t.Errorf("the store has %q", got)
		}
	})
}

// TestLMTPNeedsNoTLS: a message that must not travel without TLS goes through a socket, where it travels nowhere.
func TestLMTPNeedsNoTLS(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.store(&peer{})
		f.start()
		m := from("<alice@a.test>", spool.Origin{})
		m.Envelope.RequireTLS = true
		f.accept(m, letter, f.rcpts("one@store.test")...)
		f.drained()
		if len(p.got()) != 1 || len(f.mail("alice")) != 0 {
			t.Errorf("the store has %q, alice %q", p.got(), f.mail("alice"))
		}
	})
}

// TestReportNeedsTLSToo: what is said of a message that must not travel in the clear does not either (RFC 8689, 5).
func TestReportNeedsTLSToo(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		home := f.site("s.test", public(2), &peer{})
		f.start()
		m := from("<s@s.test>", spool.Origin{})
		m.Envelope.RequireTLS, m.Envelope.Return = true, envelope.ReturnFull
		f.accept(m, letter, f.rcpts("one@gone.test")...)
		f.pass(time.Hour)
		if got := home.got(); len(got) != 0 {
			t.Errorf("in the clear: %q", got)
		}
		list, err := f.sp.List(t.Context(), spool.Filter{Recipient: "s@s.test"}, 0, 10)
		if err != nil || len(list) != 1 || !list[0].Message.Envelope.RequireTLS {
			t.Fatalf("waiting: %+v, %v", list, err)
		}
		if text := f.body(list[0].Message.ID); !strings.Contains(text, "text/rfc822-headers") || strings.Contains(text, "\r\nbody\r\n") {
			t.Errorf("the message is in it: %s", text)
		}
	})
}
