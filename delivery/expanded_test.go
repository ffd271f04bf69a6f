package delivery

import (
	"strings"
	"testing"

	"postroad/internal/dsn"
	"postroad/internal/envelope"
	"postroad/spool"
)

// An address that led to several: its sender is told that once, whatever comes before and after, and nothing else is done.
func TestExpanded(t *testing.T) {
	for name, notify := range map[string]envelope.Notify{"asked for": envelope.NotifySuccess, "not": envelope.NotifyFailure} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				m := &spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), ID: "id 1"}}
				both := spool.Recipient{Recipient: envelope.Recipient{To: path("<both@a.test>"), Notify: notify, Original: "rfc822;old@a.test"}, Expanded: true}
				id := f.accept(m, letter, append(f.rcpts("bob@a.test"), both)...)
				f.halt()
				f.reopen() // before anything was done
				f.start()
				f.drained()
				mail := f.mail("alice")
				if notify == envelope.NotifyFailure {
					if len(mail) > 0 {
						t.Errorf("told %q", mail)
					}
					return
				}
				if len(mail) != 1 {
					t.Fatalf("%d reports", len(mail))
				}
				r, err := dsn.Parse(strings.NewReader(mail[0]))
				if err != nil || len(r.Recipients) != 1 || r.EnvelopeID != "id 1" {
					t.Fatalf("%+v, %v", r, err)
				}
				if got := r.Recipients[0]; got.Action != dsn.Expanded || got.Final.String() != "both@a.test" || got.Original != "rfc822;old@a.test" || got.Status != "2.1.5" {
					t.Errorf("told %+v", got)
				}
				if !strings.Contains(strings.Join(f.events(id), "\n"), "expanded both@a.test 2.1.5") {
					t.Errorf("the trace has %q", f.events(id))
				}
			})
		})
	}
}
