package imapd

import (
	"log/slog"
	"sync/atomic"
	"testing"

	"postroad/internal/mailbox"
	"postroad/internal/store"
)

// A handler that panics, here within a transaction, ends its session and nothing else: nothing of what it did stays, the
// store works on, and other sessions do.
func TestPanicEndsOneSession(t *testing.T) {
	var log counting
	var panics atomic.Bool
	quota := func(store.Reader, mailbox.Owner) mailbox.Quota {
		if panics.Load() {
			panic("injected")
		}
		return mailbox.Quota{Octets: 1 << 30, Messages: 1 << 30}
	}
	h := newHouse(t, func(c *Config) {
		c.Log = slog.New(&log)
		c.Mailboxes = mailbox.New(c.Store, mailbox.Options{Quota: quota})
	})
	h.deliver("INBOX", hello)
	other, victim := h.loggedIn(), h.loggedIn()
	other.open("INBOX")
	for _, command := range []string{
		"APPEND INBOX {3+}\r\na:b", "APPEND INBOX {3+}\r\na:b {3+}\r\na:b", "COPY 1 Archive", "REPLACE 1 INBOX {3+}\r\na:b",
	} {
		victim.open("INBOX")
		panics.Store(true)
		victim.send("a " + command + "\r\n")
		victim.closed()
		panics.Store(false)
		if log.errors.Swap(0) == 0 {
			t.Errorf("%q: nothing was logged", command)
		}
		other.dialog("> a NOOP\n< a OK ...")
		victim = h.loggedIn()
	}
	other.dialog(`
		> b UID SEARCH ALL
		< * SEARCH 1
		< b OK ...
		> c APPEND INBOX {3+}
		> a:b
		< * 2 EXISTS
		< c OK ...`)
	if err := h.config.Store.Failed(); err != nil {
		t.Error(err)
	}
}
