package imapd

import (
	"testing"
)

func TestFirst(t *testing.T) {
	h := newHouse(t)
	h.deliver("INBOX", "Subject: hi\r\nFrom: <a@b.c>\r\n\r\nhello\r\n")
	c := h.loggedIn()
	c.dialog(`
		> a SELECT INBOX
		< * 1 EXISTS
		< * 0 RECENT
		< * OK [UIDVALIDITY ...] UIDs valid
		< * OK [UIDNEXT 2] ...
		< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft)
		< * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft \*)] ...
		< a OK [READ-WRITE] SELECT completed
		> b FETCH 1 (FLAGS UID RFC822.SIZE BODY[])
		< * 1 FETCH (UID 1 FLAGS (\Seen) RFC822.SIZE 37 BODY[] {37}
		< Subject: hi
		< From: <a@b.c>
		< 
		< hello
		< )
		< b OK FETCH completed
		> c LOGOUT
		< * BYE ...
		< c OK LOGOUT completed
	`)
	c.closed()
}
