package imapd

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"
	"testing"

	"postroad/internal/mailbox"
)

// Many changes of one mailbox are one event, and too many changes are an overflow. What is not the account's affair is
// not taken down.
func TestNotices(t *testing.T) {
	woken := 0
	n := &notices{own: 1, by: new(mailbox.Access), wake: func() { woken++ }, messages: true, changed: map[mailbox.ID]int{}}
	n.only(map[mailbox.Owner]bool{1: true, 2: true})
	note := func(what mailbox.What, o mailbox.Owner, id mailbox.ID) {
		n.note(mailbox.Event{What: what, Owner: o, Mailbox: mailbox.Mailbox{ID: id}, Arrived: true})
	}
	for range 3 * maxNotices {
		note(mailbox.Messages, 1, 7)
		note(mailbox.Messages, 2, 8)
		note(mailbox.Messages, 3, 9)
	}
	note(mailbox.Granted, 3, 9)
	note(mailbox.Granted, 1, 7)
	note(mailbox.Subscribed, 2, 0)
	note(mailbox.Subscribed, 1, 0)
	n.note(mailbox.Event{What: mailbox.Messages, Owner: 1, Mailbox: mailbox.Mailbox{ID: 7}, Flagged: true})
	list, overflow := n.take()
	if len(list) != 4 || overflow || woken == 0 || !list[0].Flagged || !list[0].Arrived {
		t.Fatalf("taken down: %d events, %t", len(list), overflow)
	}
	for i := range maxNotices {
		note(mailbox.Messages, 1, mailbox.ID(i))
	}
	note(mailbox.Messages, 1, 5)
	if list, overflow := n.take(); len(list) != maxNotices || overflow {
		t.Fatalf("as many as there may be: %d events, %t", len(list), overflow)
	}
	for i := range maxNotices + 1 {
		note(mailbox.Created, 1, mailbox.ID(i))
	}
	note(mailbox.Created, 1, 1)
	if list, overflow := n.take(); len(list) != 0 || !overflow {
		t.Fatalf("more: %d events, %t", len(list), overflow)
	}
}

// A client that is told of more than a session can take down is told that, and of nothing after it.
func TestNotifyOverflow(t *testing.T) {
	h := newHouse(t)
	c := h.loggedIn()
	c.dialog("> a NOTIFY SET (personal (MailboxName))\n< a OK ...")
	ses := h.srv.group.Sessions()[0].(*session)
	ses.mu.Lock() // as long as a command takes
	for i := range maxNotices + 1 {
		ses.notices.note(mailbox.Event{What: mailbox.Created, Owner: h.owner, Mailbox: mailbox.Mailbox{ID: mailbox.ID(i + 1)}})
	}
	ses.mu.Unlock()
	c.dialog("< * OK [NOTIFICATIONOVERFLOW] ...")
	_, err := h.config.Mailboxes.Create(h.owner, "x", "")
	h.must(err)
	c.dialog("> b NOOP\n< b OK ...")
}

// What NOTIFY tells, while several change several mailboxes, is in the end what there is.
func TestNotify(t *testing.T) {
	h := newHouse(t)
	for i := range 4 {
		_, err := h.config.Mailboxes.Create(h.owner, fmt.Sprint("box", i), "")
		h.must(err)
	}
	c := h.loggedIn()
	c.dialog("> a NOTIFY SET (personal (MessageNew MessageExpunge FlagChange MailboxName))\n< a OK ...")
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 10 {
				h.deliver(fmt.Sprint("box", i), "Subject: x\r\n\r\ny\r\n")
				if _, err := h.config.Mailboxes.Create(h.owner, fmt.Sprintf("new%d/%d", i, n), ""); err != nil {
					t.Error(err)
				}
			}
			if err := h.config.Mailboxes.Remove(t.Context(), h.owner, fmt.Sprintf("new%d/0", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	c.send("b NOOP\r\n")
	counts, names := map[string]string{}, map[string]bool{}
	status, list := regexp.MustCompile(`^\* STATUS (\S+) \((.*)\)`), regexp.MustCompile(`^\* LIST \((.*)\) "/" (\S+)`)
	for line := c.line(); !strings.HasPrefix(line, "b OK"); line = c.line() {
		if m := status.FindStringSubmatch(line); m != nil {
			counts[m[1]] = m[2]
		} else if m := list.FindStringSubmatch(line); m != nil {
			names[m[2]] = !strings.Contains(m[1], "NonExistent")
		} else {
			t.Errorf("told: %s", line)
		}
	}
	wantCounts, wantNames := map[string]string{}, map[string]bool{}
	for i := range 4 {
		wantCounts[fmt.Sprint("box", i)] = "MESSAGES 10 UIDNEXT 11"
		wantNames[fmt.Sprint("new", i)] = true
		for n := range 10 {
			wantNames[fmt.Sprintf("new%d/%d", i, n)] = n > 0
		}
	}
	if !maps.Equal(counts, wantCounts) || !maps.Equal(names, wantNames) {
		t.Errorf("told %v %v, want %v %v", counts, names, wantCounts, wantNames)
	}
}
