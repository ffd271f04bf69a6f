package imapd

import (
	"testing"

	"postroad/internal/mailbox"
	"postroad/internal/store"
)

// An administrator sets quotas over IMAP, and everybody who may know is told of them (RFC 9208, 4 and 5).
func TestQuotaCommands(t *testing.T) {
	limits := map[mailbox.Owner]mailbox.Quota{}
	var administrator mailbox.Owner
	h := newHouse(t, func(c *Config) {
		c.Mailboxes = mailbox.New(c.Store, mailbox.Options{
			Quota:    func(_ store.Reader, o mailbox.Owner) mailbox.Quota { return limits[o] },
			SetQuota: func(o mailbox.Owner, q mailbox.Quota) error { limits[o] = q; return nil },
			Admin:    func(_ store.Reader, o mailbox.Owner) bool { return o == administrator },
		})
	})
	bob := h.addAccount("bob@example.test")
	h.deliver("INBOX", "Subject: x\r\n\r\ny\r\n")
	administrator = h.owner
	c := h.loggedIn()
	c.dialog(`
		> a SETQUOTA bob@example.test (STORAGE 10 MESSAGE 3)
		< * QUOTA bob@example.test (STORAGE 0 10 MESSAGE 0 3)
		< a OK SETQUOTA completed
		> b SETQUOTA "alice@example.test" (MESSAGE 1)
		< * QUOTA alice@example.test (MESSAGE 1 1)
		< b OK SETQUOTA completed
		> c SETQUOTA alice@example.test (STORAGE 1 MAILBOX 3)
		< c NO [CANNOT] ...
		> d SETQUOTA alice@example.test (STORAGE 9223372036854775807)
		< d NO [CANNOT] ...
		> e SETQUOTA nobody@example.test (STORAGE 1)
		< e NO [NONEXISTENT] ...
		> f SETQUOTA bob@example.test ()
		< * QUOTA bob@example.test ()
		< f OK SETQUOTA completed
		> g SETQUOTA alice@example.test (STORAGE 5)
		< * QUOTA alice@example.test (STORAGE 1 5)
		< g OK SETQUOTA completed
		> h GETQUOTAROOT Sent
		< * QUOTAROOT Sent alice@example.test
		< * QUOTA alice@example.test (STORAGE 1 5)
		< h OK GETQUOTAROOT completed`)
	if limits[h.owner] != (mailbox.Quota{Octets: 5 << 10}) || limits[bob] != (mailbox.Quota{}) {
		t.Errorf("the limits are %v", limits)
	}
}

// Two places of the same administrator see the server's annotations that one of them sets.
func TestServerMetadata(t *testing.T) {
	h := newHouse(t, func(c *Config) {
		c.Mailboxes = mailbox.New(c.Store, mailbox.Options{Admin: func(store.Reader, mailbox.Owner) bool { return true }})
	})
	h.must(h.config.Mailboxes.SetAdminContact("mailto:root@example.test"))
	other := h.loggedIn()
	other.dialog("> a NOTIFY SET (personal (ServerMetadataChange))\n< a OK NOTIFY completed")
	c := h.loggedIn()
	c.dialog(`
		> a SETMETADATA "" (/shared/comment "welcome")
		< a OK SETMETADATA completed
		> b SETMETADATA "" (/shared/admin "mailto:me@example.test")
		< b NO [NOPERM] ...
		> c GETMETADATA (DEPTH infinity) "" /shared
		< * METADATA "" (/shared/admin "mailto:root@example.test" /shared/comment "welcome")
		< c OK GETMETADATA completed`)
	other.dialog(`< * METADATA "" /shared/comment`)
}
