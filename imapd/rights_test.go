package imapd

import (
	"fmt"
	"strings"
	"testing"

	"postroad/internal/mailbox"
)

// A mailboxCommand is a command that names a mailbox, <box>, with the rights on it that it takes: all of need, and one of any.
// Commands that are told nothing by their answer have words of their own for what may not be done.
type mailboxCommand struct {
	text      string
	need, any mailbox.Rights
	silent    bool // who may not see the mailbox gets OK, as if there were none
}

const (
	lookup = mailbox.RightLookup
	read   = mailbox.RightRead
	admin  = mailbox.RightAdmin

	annotating = mailbox.RightRead | mailbox.RightSeen | mailbox.RightWrite | mailbox.RightInsert | mailbox.RightPost
	asking     = lookup | read | mailbox.RightInsert | mailbox.RightCreate | mailbox.RightDelete | admin
)

func mailboxCommands() []mailboxCommand {
	return []mailboxCommand{
		{`SELECT "<box>"`, read, 0, false},
		{`EXAMINE "<box>"`, read, 0, false},
		{`SELECT "<box>" (CONDSTORE)`, read, 0, false},
		{`STATUS "<box>" (MESSAGES UIDNEXT)`, read, 0, false},
		{`APPEND "<box>" {3+}` + "\r\nx\r\n", mailbox.RightInsert, 0, false},
		{`COPY 1 "<box>"`, mailbox.RightInsert, 0, false},
		{`UID COPY 1 "<box>"`, mailbox.RightInsert, 0, false},
		{`UID MOVE * "<box>"`, mailbox.RightInsert, 0, false},
		{`UID REPLACE * "<box>" {3+}` + "\r\nx\r\n", mailbox.RightInsert, 0, false},
		{`CREATE "<box>/below"`, mailbox.RightCreate, 0, false},
		{`DELETE "<box>"`, mailbox.RightDelete, 0, false},
		{`RENAME "<box>" "Other Users/alice@example.test/free/x-<n>"`, mailbox.RightDelete, 0, false},
		{`RENAME "Other Users/alice@example.test/free/movable-<n>" "<box>/y"`, mailbox.RightCreate, 0, false},
		{`GETACL "<box>"`, admin, 0, false},
		{`SETACL "<box>" anyone +p`, admin, 0, false},
		{`SETACL "<box>" anyone -p`, admin, 0, false},
		{`DELETEACL "<box>" anyone`, admin, 0, false},
		{`LISTRIGHTS "<box>" anyone`, admin, 0, false},
		{`MYRIGHTS "<box>"`, 0, asking, false},
		{`GETMETADATA "<box>" /shared/comment`, lookup, annotating, false},
		{`SETMETADATA "<box>" (/private/comment "x")`, lookup, annotating, false},
		{`SETMETADATA "<box>" (/shared/comment "x")`, lookup | mailbox.RightWrite, annotating, false},
		{`GETQUOTAROOT "<box>"`, read, 0, false},
		{`SUBSCRIBE "<box>"`, 0, 0, true},
		{`UNSUBSCRIBE "<box>"`, 0, 0, true},
		{`LIST "" "<box>"`, 0, 0, true},
		{`LIST "" "<box>" RETURN (STATUS (MESSAGES) MYRIGHTS METADATA (/shared/comment))`, 0, 0, true},
		{`NOTIFY SET STATUS (mailboxes "<box>" (MessageNew MessageExpunge))`, 0, 0, true},
		{`ESEARCH IN (mailboxes "<box>") ALL`, 0, 0, true},
		{`ESEARCH IN (subtree "<box>") RETURN (COUNT) ALL`, 0, 0, true},
	}
}

// A shared is alice's house with bob logged in, who has a message in his selected INBOX.
type shared struct {
	*house
	alice *mailbox.Access
	bob   *raw
	n     int
}

func newShared(t *testing.T) *shared {
	h := newHouse(t)
	s := &shared{house: h, alice: h.config.Mailboxes.For(h.owner, Names{h.config.Accounts})}
	h.addAccount("carol@example.test")
	h.owner = h.addAccount("bob@example.test")
	h.deliver("INBOX", "Subject: x\r\n\r\ny\r\n")
	s.make("free", lookup|mailbox.RightCreate)
	s.bob = h.raw()
	s.bob.dialog("< * OK ...\n> l LOGIN bob@example.test \"" + password + "\"\n< l OK ...")
	return s
}

// make makes one of alice's mailboxes, with rights for bob.
func (s *shared) make(name string, rights mailbox.Rights) {
	s.t.Helper()
	_, err := s.alice.Create(name, "")
	s.must(err)
	s.must(s.alice.SetACL(name, "bob@example.test", 0, rights))
}

// say has bob give a command, and returns all that he is told: the last line is the tagged one.
func (s *shared) say(text, name string) (told []string) {
	s.t.Helper()
	if s.n++; strings.Contains(text, "movable") {
		s.make(fmt.Sprintf("free/movable-%d", s.n), lookup|mailbox.RightDelete)
	}
	s.bob.send("p APPEND INBOX {3+}\r\nx\r\n\r\n") // what MOVE and REPLACE take away
	s.await("p ")
	s.bob.dialog("> s SELECT INBOX")
	s.await("s ")
	s.bob.send("a " + strings.NewReplacer("<box>", name, "<n>", fmt.Sprint(s.n)).Replace(text) + "\r\n")
	told = s.await("a ")
	s.bob.dialog("> n NOTIFY NONE")
	s.await("n ")
	return told
}

func (s *shared) await(tag string) (told []string) {
	s.t.Helper()
	for {
		line := s.bob.line()
		if told = append(told, line); strings.HasPrefix(line, tag) {
			return told
		}
	}
}

// What bob has no rights on is in every command's answer as what is not there, octet by octet: a mailbox that is hidden, one
// that was shared and is no longer, one of an account that shares nothing.
func TestHiddenMailboxes(t *testing.T) {
	s := newShared(t)
	for _, c := range mailboxCommands() {
		t.Run(c.text, func(t *testing.T) {
			s.t = t
			hidden := fmt.Sprint("hidden", s.n)
			s.make(hidden, 0)
			revoked := fmt.Sprint("revoke", s.n)
			s.make(revoked, mailbox.AllRights)
			s.must(s.alice.DeleteACL(revoked, "bob@example.test"))
			for _, same := range [][]string{
				{"alice@example.test/absent", "alice@example.test/" + hidden, "alice@example.test/" + revoked},
				{"nobody@example.test/INBOX", "carol@example.test/INBOX"},
			} {
				absent := s.say(c.text, "Other Users/"+same[0])
				for _, name := range same[1:] {
					told := s.say(c.text, "Other Users/"+name)
					got := strings.ReplaceAll(strings.Join(told, "\n"), name, same[0])
					if want := strings.Join(absent, "\n"); got != want {
						t.Errorf("of %s:\n%s\nof what is not there:\n%s", name, got, want)
					}
				}
				want := map[bool]string{false: "a NO [", true: "a OK "}[c.silent]
				if last := absent[len(absent)-1]; !strings.HasPrefix(last, want) {
					t.Errorf("of what is not there: %q", absent)
				}
			}
		})
	}
}

// Every command that names a mailbox, with every right alone, with the right to look it up, and with all but it, is done or refused as
// the rights say.
func TestCommandsByRights(t *testing.T) {
	s := newShared(t)
	for _, c := range mailboxCommands() {
		if c.silent {
			continue
		}
		t.Run(c.text, func(t *testing.T) {
			s.t = t
			for r := mailbox.RightLookup; r <= mailbox.RightAdmin; r <<= 1 {
				for _, has := range []mailbox.Rights{r, r | lookup, mailbox.AllRights &^ r} {
					name := fmt.Sprint("box", s.n)
					s.make(name, has)
					told := s.say(c.text, "Other Users/alice@example.test/"+name)
					got, want := told[len(told)-1], c.verdict(has)
					if !strings.HasPrefix(got, "a "+want) &&
						!(want == "NO [NONEXISTENT]" && strings.HasPrefix(got, "a NO [TRYCREATE]")) {
						t.Errorf("with %s: %q, want %s", has, got, want)
					}
				}
			}
		})
	}
}

func (c *mailboxCommand) verdict(has mailbox.Rights) string {
	switch {
	case has.Has(c.need) && (c.any == 0 || has&c.any != 0):
		return "OK"
	case has.Has(lookup):
		return "NO [NOPERM]"
	}
	return "NO [NONEXISTENT]"
}
