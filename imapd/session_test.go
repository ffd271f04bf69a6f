package imapd

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postroad/internal/listen/listentest"
	"postroad/internal/mailbox"
	"postroad/internal/store"
)

const hello = "Subject: hi\r\nFrom: <a@b.c>\r\n\r\nhello\r\n"

// Each dialog starts logged in, with three messages in INBOX, which is selected when the name says so.
func TestDialogs(t *testing.T) {
	const selecting = `
		> s SELECT INBOX
		< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft)
		< * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft \*)] ...
		< * 3 EXISTS
		< * 0 RECENT
		< * OK [UNSEEN 1] ...
		< * OK [UIDVALIDITY ...] ...
		< * OK [UIDNEXT 4] ...
		< * OK [HIGHESTMODSEQ ...] ...
		< * OK [MAILBOXID (m...)] ...
		< s OK [READ-WRITE] SELECT completed`
	for _, tt := range []struct{ name, script string }{
		{"capabilities after login", `
			> a CAPABILITY
			< * CAPABILITY IMAP4rev1 IMAP4rev2 ...
			< a OK CAPABILITY completed`},
		{"ID, though not announced", `
			> a ID ("name" "x")
			< * ID ("name" "postroad")
			< a OK ID completed`},
		{"unauthenticate", `
			> a UNAUTHENTICATE
			< a OK ...
			> b SELECT INBOX
			< b BAD ...
			> c LOGIN alice@example.test "correct horse"
			< c OK ...`},
		{"the delimiter", `
			> a LIST "" ""
			< * LIST (\Noselect) "/" ""
			< a OK LIST completed`},
		{"commands in the wrong state", `
			> a FETCH 1 FLAGS
			< a BAD ...
			> b CLOSE
			< b BAD ...
			> c LOGIN a b
			< c BAD ...`},
		{"selected: a rev2 client gets no RECENT but LIST", `
			> a ENABLE IMAP4rev2
			< * ENABLED IMAP4rev2
			< a OK ENABLE completed
			> b EXAMINE inbox
			< * OK [CLOSED] ...
			< * FLAGS ...
			< * OK [PERMANENTFLAGS ()] ...
			< * 3 EXISTS
			< * OK [UIDVALIDITY ...] ...
			< * OK [UIDNEXT 4] ...
			< * OK [HIGHESTMODSEQ ...] ...
			< * OK [MAILBOXID ...] ...
			< * LIST () "/" INBOX
			< b OK [READ-ONLY] EXAMINE completed`},
		{"selected: SELECT of nothing leaves nothing selected", `
			> a SELECT nowhere
			< * OK [CLOSED] ...
			< a NO [NONEXISTENT] ...
			> b FETCH 1 FLAGS
			< b BAD ...`},
		{"selected: store", `
			> a STORE 1 +FLAGS (\Seen $Work)
			< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Work)
			< * OK [PERMANENTFLAGS ...
			< * 1 FETCH (FLAGS ($Work \Seen))
			< a OK STORE completed
			> b UID STORE 1:2 -FLAGS (\Seen)
			< * 1 FETCH (UID 1 FLAGS ($Work))
			< * 2 FETCH (UID 2 FLAGS ())
			< b OK STORE completed
			> c STORE 1:* FLAGS.SILENT \Flagged
			< c OK STORE completed
			> d FETCH 1:3 FLAGS
			< * 1 FETCH (FLAGS (\Flagged))
			< * 2 FETCH (FLAGS (\Flagged))
			< * 3 FETCH (FLAGS (\Flagged))
			< d OK FETCH completed
			> e STORE 4 FLAGS \Seen
			< e BAD ...
			> f STORE 1 +FLAGS (\Recent)
			< f BAD ...
			> g UID STORE 9 +FLAGS (\Seen)
			< g OK STORE completed`},
		{"selected: only BODY without PEEK marks as seen", `
			> a FETCH 1 (BODY.PEEK[TEXT] RFC822.HEADER)
			< * 1 FETCH (BODY[TEXT] {7}
			< hello
			<  RFC822.HEADER {30}
			< Subject: hi
			< From: <a@b.c>
			< 
			< )
			< a OK FETCH completed
			> b FETCH 1:2 BODY[TEXT]<1.3>
			< * 1 FETCH (FLAGS (\Seen) BODY[TEXT]<1> {3}
			< ell)
			< * 2 FETCH (FLAGS (\Seen) BODY[TEXT]<1> {3}
			< ell)
			< b OK FETCH completed
			> c FETCH 1 RFC822.TEXT
			< * 1 FETCH (RFC822.TEXT {7}
			< hello
			< )
			< c OK FETCH completed`},
		{"selected: expunge", `
			> a STORE 1,3 +FLAGS.SILENT \Deleted
			< a OK STORE completed
			> b UID EXPUNGE 2:3
			< * 3 EXPUNGE
			< b OK EXPUNGE completed
			> c EXPUNGE
			< * 1 EXPUNGE
			< c OK EXPUNGE completed
			> d FETCH 1:* UID
			< * 1 FETCH (UID 2)
			< d OK FETCH completed`},
		{"selected: close expunges without a word", `
			> a STORE 1,3 +FLAGS.SILENT \Deleted
			< a OK STORE completed
			> b CLOSE
			< b OK CLOSE completed
			> c STATUS INBOX (MESSAGES)
			< * STATUS INBOX (MESSAGES 1)
			< c OK STATUS completed`},
		{"selected: unselect does not", `
			> a STORE 1,3 +FLAGS.SILENT \Deleted
			< a OK STORE completed
			> b UNSELECT
			< b OK UNSELECT completed
			> c STATUS INBOX (MESSAGES DELETED)
			< * STATUS INBOX (MESSAGES 3 DELETED 2)
			< c OK STATUS completed`},
		{"selected: examine is for looking", `
			> a STORE 2 +FLAGS.SILENT \Deleted
			< a OK STORE completed
			> b EXAMINE INBOX
			< * OK [CLOSED] ...
			< * FLAGS ...
			< * OK [PERMANENTFLAGS ()] ...
			< * 3 EXISTS
			< * 0 RECENT
			< * OK [UNSEEN 1] ...
			< * OK [UIDVALIDITY ...] ...
			< * OK [UIDNEXT 4] ...
			< * OK [HIGHESTMODSEQ ...] ...
			< * OK [MAILBOXID ...] ...
			< b OK [READ-ONLY] EXAMINE completed
			> c STORE 1 +FLAGS \Seen
			< c NO [READ-ONLY] ...
			> d EXPUNGE
			< d NO [READ-ONLY] ...
			> e MOVE 1 Trash
			< e NO [READ-ONLY] ...
			> f FETCH 1 BODY[TEXT]
			< * 1 FETCH (BODY[TEXT] {7}
			< hello
			< )
			< f OK FETCH completed
			> g CLOSE
			< g OK CLOSE completed
			> h STATUS INBOX (MESSAGES UNSEEN)
			< * STATUS INBOX (MESSAGES 3 UNSEEN 3)
			< h OK STATUS completed`},
		{"selected: copy", `
			> a COPY 1,3 Archive
			< a OK [COPYUID ... 1,3 1:2] COPY completed
			> b UID COPY 2:9 nowhere
			< b NO [TRYCREATE] ...
			> c UID COPY 7:9 Archive
			< c OK COPY completed
			> d COPY 2 INBOX
			< * 4 EXISTS
			< d OK [COPYUID ... 2 4] COPY completed`},
		{"selected: move", `
			> a MOVE 1,3 Archive
			< * OK [COPYUID ... 1,3 1:2] moved
			< * 1 EXPUNGE
			< * 2 EXPUNGE
			< a OK MOVE completed
			> b UID MOVE 2 nowhere
			< b NO [TRYCREATE] ...
			> c FETCH 1 UID
			< * 1 FETCH (UID 2)
			< c OK FETCH completed`},
		{"selected: search", `
			> a SEARCH UNSEEN SUBJECT hi
			< * SEARCH 1 2 3
			< a OK SEARCH completed
			> b UID SEARCH RETURN (MIN MAX COUNT ALL) 2:* NOT FLAGGED
			< * ESEARCH (TAG "b") UID MIN 2 MAX 3 ALL 2:3 COUNT 2
			< b OK SEARCH completed
			> c SEARCH RETURN () OR UID 1 3
			< * ESEARCH (TAG "c") ALL 1,3
			< c OK SEARCH completed
			> d SEARCH RETURN (COUNT) SMALLER 10 SINCE 1-Jan-2020
			< * ESEARCH (TAG "d") COUNT 0
			< d OK SEARCH completed
			> e SEARCH SMALLER 38 LARGER 36 SENTSINCE 1-Jan-1990
			< * SEARCH
			< e OK SEARCH completed
			> f SEARCH RECENT
			< * SEARCH
			< f OK SEARCH completed
			> g SEARCH OLD (1:2 (BODY hello) NOT (TEXT nope)) HEADER From a@b
			< * SEARCH 1 2
			< g OK SEARCH completed
			> h SEARCH CHARSET UTF-8 SUBJECT {2}
			< + go on
			> hi
			< * SEARCH 1 2 3
			< h OK SEARCH completed
			> i SEARCH CHARSET X-NONE ALL
			< i NO [BADCHARSET ...
			> j SEARCH 500
			< * SEARCH
			< j OK SEARCH completed
			> k SEARCH NONSENSE
			< k BAD ...
			> l SEARCH SINCE yesterday
			< l BAD ...
			> m SEARCH ON 6-May-2024
			< * SEARCH 1 2 3
			< m OK SEARCH completed`},
		{"selected: the saved result", `
			> a UID SEARCH RETURN (SAVE MIN) UID 2:3
			< * ESEARCH (TAG "a") UID MIN 2
			< a OK SEARCH completed
			> b FETCH $ UID
			< * 2 FETCH (UID 2)
			< b OK FETCH completed
			> c SEARCH NOT $
			< * SEARCH 1 3
			< c OK SEARCH completed
			> c2 SEARCH return (save) 2
			< c2 OK SEARCH completed
			> c3 UID SEARCH RETURN (SAVE) UID 2
			< c3 OK SEARCH completed
			> c4 FETCH $ UID
			< * 2 FETCH (UID 2)
			< c4 OK FETCH completed
			> c5 SEARCH RETURN (SAVE ALL) 2
			< * ESEARCH (TAG "c5") ALL 2
			< c5 OK SEARCH completed
			> c6 SEARCH RETURN () 2
			< * ESEARCH (TAG "c6") ALL 2
			< c6 OK SEARCH completed
			> d UID STORE $ +FLAGS.SILENT \Deleted
			< d OK STORE completed
			> e UID EXPUNGE $
			< * 2 EXPUNGE
			< e OK EXPUNGE completed
			> f UID FETCH $ FLAGS
			< f OK FETCH completed`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			for range 3 {
				h.deliver("INBOX", hello)
			}
			h.loggedIn().open("INBOX") // so that nothing is recent for the client
			c := h.loggedIn()
			if strings.HasPrefix(tt.name, "selected:") {
				c.dialog(selecting)
			}
			c.dialog(tt.script)
		})
	}
}

// An EXPUNGE that another session makes is told only where it cannot shift the numbers of a command under way.
func TestExpungeVisibility(t *testing.T) {
	for _, tt := range []struct{ name, command, answers string }{
		{"not during FETCH", "FETCH 3 UID", "< * 3 FETCH (UID 3)"},
		{"not during STORE", `STORE 3 +FLAGS \Seen`, `< * 3 FETCH (FLAGS (\Seen \Recent))`},
		{"not during SEARCH", "SEARCH UID 3", "< * SEARCH 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			for range 3 {
				h.deliver("INBOX", hello)
			}
			one, other := h.loggedIn(), h.loggedIn()
			one.open("INBOX")
			other.open("INBOX")
			other.dialog(`
				> a UID STORE 1 +FLAGS.SILENT \Deleted
				< a OK ...
				> b EXPUNGE
				< * 1 EXPUNGE
				< b OK ...`)
			h.deliver("INBOX", hello)
			one.dialog("> x " + tt.command + "\n" + tt.answers + "\n< * 4 EXISTS\n< * 4 RECENT\n< x OK ...")
			one.dialog(`
				> f FETCH 1:2 UID
				< * 2 FETCH (UID 2)
				< f NO [EXPUNGEISSUED] ...
				> g FETCH 4 UID
				< * 4 FETCH (UID 4)
				< g OK ...
				> h NOOP
				< * 1 EXPUNGE
				< h OK NOOP completed
				> i FETCH 1:3 UID
				< * 1 FETCH (UID 2)
				< * 2 FETCH (UID 3)
				< * 3 FETCH (UID 4)
				< i OK ...`)
		})
	}
}

// A message has no number before its EXISTS, also when the command fails that found it.
func TestExistsBeforeANewNumber(t *testing.T) {
	h := newHouse(t)
	h.deliver("INBOX", hello)
	h.deliver("INBOX", hello)
	one, two := h.loggedIn(), h.loggedIn()
	one.open("INBOX")
	two.open("INBOX")
	one.dialog(`
		> a STORE 1 +FLAGS.SILENT (\Deleted)
		< a OK ...
		> b EXPUNGE
		< * 1 EXPUNGE
		< b OK ...`)
	h.deliver("INBOX", hello)
	h.deliver("INBOX", hello)
	two.dialog(`
		> a MOVE 1 Trash
		< * 1 EXPUNGE
		< * 3 EXISTS
		< * ... RECENT
		< a NO [EXPUNGEISSUED] ...
		> b FETCH 1:* UID
		< * 1 FETCH (UID 2)
		< * 2 FETCH (UID 3)
		< * 3 FETCH (UID 4)
		< b OK ...`)
}

// What is expunged while it is being fetched is gone, and not damaged.
func TestExpungeDuringFetch(t *testing.T) {
	h := newHouse(t) // whose log must have no errors
	reader, writer := h.loggedIn(), h.loggedIn()
	reader.open("INBOX")
	writer.open("INBOX")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			writer.send("a APPEND INBOX (\\Deleted) {5+}\r\na: b\n\r\nb EXPUNGE\r\n")
			for !strings.HasPrefix(writer.line(), "b OK") {
			}
		}
	}()
	for open := true; open; {
		reader.send("a NOOP\r\nb UID FETCH 1:* (ENVELOPE BODY.PEEK[])\r\n")
		for line := ""; !strings.HasPrefix(line, "b "); {
			if line = reader.line(); strings.HasPrefix(line, "b NO") {
				t.Error(line)
			}
		}
		select {
		case <-done:
			open = false
		default:
		}
	}
}

func TestTwoSessionsSeeFlags(t *testing.T) {
	h := newHouse(t)
	h.deliver("INBOX", hello)
	one, other := h.loggedIn(), h.loggedIn()
	one.open("INBOX")
	other.open("INBOX")
	other.dialog(`
		> a STORE 1 +FLAGS.SILENT (\Seen New)
		< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft New)
		< * OK [PERMANENTFLAGS ...
		< a OK ...`)
	one.dialog(`
		> b NOOP
		< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft New)
		< * OK [PERMANENTFLAGS ...
		< * 1 FETCH (FLAGS (New \Seen \Recent))
		< b OK ...
		> c NOOP
		< c OK ...`)
}

func TestIdle(t *testing.T) {
	h := newHouse(t)
	h.deliver("INBOX", hello)
	one, other := h.loggedIn(), h.loggedIn()
	one.open("INBOX")
	other.open("INBOX")

	h.deliver("INBOX", hello) // between the last poll and IDLE
	one.dialog(`
		> a IDLE
		< + idling
		< * 2 EXISTS
		< * 2 RECENT`)
	h.deliver("INBOX", hello)
	one.dialog("< * 3 EXISTS\n< * 3 RECENT")
	other.dialog(`
		> a UID STORE 1 +FLAGS.SILENT (\Deleted)
		< * 3 EXISTS
		< a OK ...`)
	one.dialog(`< * 1 FETCH (FLAGS (\Deleted \Recent))`)
	other.dialog(`
		> b EXPUNGE
		< * 1 EXPUNGE
		< b OK ...`)
	one.dialog(`
		< * 1 EXPUNGE
		> done
		< a OK IDLE completed
		> b FETCH 1:* UID
		< * 1 FETCH (UID 2)
		< * 2 FETCH (UID 3)
		< b OK ...
		> c IDLE
		< + idling
		> nonsense
		< c BAD ...
		> d NOOP
		< d OK ...`)
}

func TestIdleWithoutMailbox(t *testing.T) {
	c := newHouse(t).loggedIn()
	c.dialog(`
		> a IDLE
		< + idling
		> DONE
		< a OK IDLE completed`)
}

// A client that vanishes from IDLE leaves nothing behind that uses its mailbox.
func TestIdleAndGone(t *testing.T) {
	h := newHouse(t)
	for range 20 {
		c := h.loggedIn()
		c.open("INBOX")
		c.dialog("> a IDLE\n< + idling")
		h.deliver("INBOX", hello)
		c.conn.Close()
	}
}

func TestMailboxRemovedUnderSession(t *testing.T) {
	h := newHouse(t)
	idle, quiet, other := h.loggedIn(), h.loggedIn(), h.loggedIn()
	other.dialog("> a CREATE x\n< a OK ...")
	idle.open("x")
	quiet.open("x")
	idle.dialog("> i IDLE\n< + idling")
	other.dialog("> b DELETE x\n< b OK ...")
	idle.dialog("< * BYE the selected mailbox was removed")
	idle.closed()
	quiet.dialog(`
		> c FETCH 1:* FLAGS
		< c ...
		< * BYE the selected mailbox was removed`)
	quiet.closed()
}

// All sessions on a mailbox are told of each message.
func TestFiftySessions(t *testing.T) {
	h := newHouse(t)
	var sessions []*raw
	for range 50 {
		c := h.loggedIn()
		c.open("INBOX")
		c.dialog("> i IDLE\n< + idling")
		sessions = append(sessions, c)
	}
	const messages = 5
	var wg sync.WaitGroup
	for i, c := range sessions {
		wg.Go(func() {
			for told := 0; told < messages; {
				line := c.line()
				if strings.HasSuffix(line, " RECENT") {
					continue
				}
				var n int
				if _, err := fmt.Sscanf(line, "* %d EXISTS", &n); err != nil || n <= told {
					t.Errorf("session %d: %q after %d", i, line, told)
					return
				}
				told = n
			}
			c.dialog("> DONE\n< i OK ...")
		})
	}
	for range messages {
		h.deliver("INBOX", hello)
	}
	wg.Wait()
}

func TestClientFollowsAnother(t *testing.T) {
	h := newHouse(t)
	exists := make(chan uint32, 10)
	reader := h.client(&imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				exists <- *data.NumMessages
			}
		},
	}})
	if _, err := reader.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	idle, err := reader.Idle()
	if err != nil {
		t.Fatal(err)
	}
	writer := h.client(nil)
	data, err := appendTo(writer, "INBOX", []byte(hello))
	if err != nil || data.UID != 1 {
		t.Fatalf("append: %v, %v", data, err)
	}
	select {
	case n := <-exists:
		if n != 1 {
			t.Errorf("EXISTS %d", n)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was pushed")
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	msgs, err := reader.Fetch(imap.UIDSetNum(data.UID), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{}}}).Collect()
	if err != nil || len(msgs) != 1 || string(msgs[0].BodySection[0].Bytes) != hello {
		t.Errorf("fetch: %v, %v", msgs, err)
	}
}

// A mailbox that has all the keywords that it can have says so: no \* (RFC 9051, 7.1).
func TestKeywordsUsedUp(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Mailboxes = mailbox.New(c.Store, mailbox.Options{Keywords: 2}) })
	h.deliver("INBOX", hello)
	c := h.loggedIn()
	c.open("INBOX")
	c.dialog(`
		> a STORE 1 +FLAGS (one)
		< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft one)
		< * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft one \*)] ...
		< * 1 FETCH ...
		< a OK ...
		> b STORE 1 +FLAGS (two)
		< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft one two)
		< * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft one two)] ...
		< * 1 FETCH ...
		< b OK ...
		> c STORE 1 +FLAGS (three)
		< c NO [LIMIT] that would be more than a mailbox or an account may have: "INBOX" has 2 keywords already, and three would be another`)
}

// What a client is told when the server ends its session, the administrator can read.
func TestByeIsLogged(t *testing.T) {
	var log strings.Builder
	h := buildHouse(t, store.Options{}, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	srv, pipes := NewServer(false, h.config), listentest.NewPipes()
	done := make(chan error, 1)
	go func() { done <- srv.Serve(pipes) }()
	client := pipes.Dial()
	go fmt.Fprint(client, "GET / HTTP/1.0\r\nHost: x\r\n\r\n")
	said, err := io.ReadAll(client)
	h.must(err)
	h.must(srv.Shutdown(t.Context()))
	h.must(<-done)
	if !strings.Contains(string(said), "* BYE "+notIMAP) || !strings.Contains(log.String(), notIMAP) {
		t.Errorf("said: %s\nlogged: %s", said, log.String())
	}
}
