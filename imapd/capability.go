package imapd

import (
	"fmt"
	"slices"
	"strings"

	"postroad/imapd/wire"
)

// A capability is a name that is announced while it is true of the session that what it stands for is to be had.
type capability struct {
	name string
	now  bool
}

// announced are all capabilities, in the order in which they are announced. One stands here when it is complete.
func (s *session) announced() []capability {
	after := s.owner != 0
	before := !after
	login := before && s.conn.mayLogin()
	list := []capability{
		{"IMAP4rev1", true},
		{"IMAP4rev2", true},
		{"LITERAL+", after},
		{"LITERAL-", before}, // what strangers may send without being asked is bounded (RFC 7888, 5)
		{"ID", true},
		{"ENABLE", true},

		// Before login.
		{"STARTTLS", s.mayStartTLS()},
		{"LOGINDISABLED", before && !login},
		{"SASL-IR", login},

		// After login.
		{"IDLE", after},
		{"UNSELECT", after},
		{"UNAUTHENTICATE", after},
		{"COMPRESS=DEFLATE", after && s.conn.packed == nil},
		{"PREVIEW", after},
		{"UTF8=ACCEPT", after},
		{"UIDONLY", after},

		// Messages and their numbers.
		{"UIDPLUS", after},
		{"MOVE", after},
		{"MULTIAPPEND", after},
		{"CATENATE", after},
		{"URL-PARTIAL", after},
		{"BINARY", after},
		{"REPLACE", after},
		{fmt.Sprintf("APPENDLIMIT=%d", s.srv.Limits.MessageSize), after},
		{fmt.Sprintf("MESSAGELIMIT=%d", s.srv.Limits.Messages), after},
		{"CONDSTORE", after},
		{"QRESYNC", after},
		{"OBJECTID", after},
		{"SAVEDATE", after},

		// Searching.
		{"ESEARCH", after},
		{"SEARCHRES", after},
		{"PARTIAL", after},
		{"WITHIN", after},
		{"I18NLEVEL=1", after},
		{"SEARCH=FUZZY", after},
		{"MULTISEARCH", after},
		{"CONTEXT=SEARCH", after},
		{"SORT", after},
		{"SORT=DISPLAY", after},
		{"ESORT", after},
		{"CONTEXT=SORT", after},
		{"THREAD=ORDEREDSUBJECT", after},
		{"THREAD=REFERENCES", after},
		{"THREAD=REFS", after},
		{"INPROGRESS", after},

		// Mailboxes.
		{"NAMESPACE", after},
		{"CHILDREN", after},
		{"LIST-EXTENDED", after},
		{"LIST-STATUS", after},
		{"LIST-MYRIGHTS", after},
		{"LIST-METADATA", after},
		{"SPECIAL-USE", after},
		{"CREATE-SPECIAL-USE", after},
		{"STATUS=SIZE", after},
		{"QUOTA", after},
		{"QUOTA=RES-STORAGE", after},
		{"QUOTA=RES-MESSAGE", after},
		{"QUOTASET", after},
		{"ACL", after},
		{"RIGHTS=kxte", after},
		{"METADATA", after},
		{"NOTIFY", after},
	}
	if login {
		for _, m := range s.srv.Logins.Mechanisms(s.client()) {
			list = append(list, capability{"AUTH=" + m, true})
		}
	}
	return slices.DeleteFunc(list, func(c capability) bool { return !c.now || s.hidden(c.name) })
}

// hidden reports whether the account's administrator hides a capability from its clients: it is not announced, cannot be
// enabled, and its commands are not known. SORT hides SORT=DISPLAY, too.
func (s *session) hidden(name string) bool {
	name = strings.ToUpper(name)
	return slices.Contains(s.account.Hidden, name) || slices.Contains(s.account.Hidden, stem(name))
}

// extension is the capability that a command belongs to: who hides that hides the command. "" is for what a client may
// always use, and for what is the same command with more words.
func extension(command string) string {
	switch command {
	case "COMPRESS":
		return "COMPRESS=DEFLATE"
	case "CANCELUPDATE":
		return "CONTEXT=SEARCH"
	case "ESEARCH":
		return "MULTISEARCH"
	case "GETACL", "SETACL", "DELETEACL", "LISTRIGHTS", "MYRIGHTS":
		return "ACL"
	case "GETMETADATA", "SETMETADATA":
		return "METADATA"
	case "GETQUOTA", "GETQUOTAROOT", "SETQUOTA":
		return "QUOTA"
	case "ID", "IDLE", "MOVE", "NAMESPACE", "NOTIFY", "REPLACE", "SORT", "THREAD", "UNAUTHENTICATE", "UNSELECT":
		return command
	}
	return ""
}

// stem is a capability without the value behind it.
func stem(name string) string {
	stem, _, _ := strings.Cut(name, "=")
	return stem
}

// Hideable are the names by which capabilities can be hidden from an account's clients: all that a client is told after
// the login, as they are and without their values, but for the protocol itself.
func Hideable() []string {
	var list []string
	for _, c := range (&session{srv: &Server{}, conn: &conn{}, owner: 1}).announced() {
		if name := strings.ToUpper(c.name); name != "IMAP4REV1" {
			list = append(list, name, stem(name))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// capabilities are what is announced now, in one line.
func (s *session) capabilities() string {
	var b strings.Builder
	for i, c := range s.announced() {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(c.name)
	}
	return b.String()
}

// capability is CAPABILITY (RFC 9051, 6.1.1).
func (s *session) capability() reply {
	s.out.Raw("* CAPABILITY ").Raw(s.capabilities()).CRLF()
	return reply{}
}

// withCapabilities is an OK after which the client need not ask for them.
func (s *session) withCapabilities(text string) reply {
	return ok("CAPABILITY "+s.capabilities(), "%s", text)
}

// enableable are the names that ENABLE knows (RFC 5161, RFC 7162, 3.1; RFC 6855, 3; RFC 9586, 3.1; RFC 5464,
// 4.1).
var enableable = map[string]enabled{
	"CONDSTORE":   condStore,
	"QRESYNC":     qresync | condStore,
	"IMAP4REV2":   rev2,
	"UTF8=ACCEPT": utf8Accept,
	"UIDONLY":     uidOnly,
	"METADATA":    metadata,
}

// enable is ENABLE (RFC 9051, 6.3.1). What is not announced is passed over.
func (s *session) enable(c *wire.Enable) reply {
	var now []capability
	follows := false
	for _, can := range s.announced() {
		name := strings.ToUpper(can.name)
		what := enableable[name]
		if what&^s.enabled != 0 && slices.Contains(c.Capabilities, name) {
			follows = follows || what.has(condStore)
			s.enabled |= what &^ condStore
			now = append(now, can)
		}
	}
	if s.enabled.has(metadata) && s.notices == nil {
		if _, err := s.learn(); err != nil {
			return s.refuse("follow annotations", err)
		}
	}
	s.dec.UTF8(s.enabled.has(rev2 | utf8Accept))
	s.out.UTF8(s.enabled.has(rev2 | utf8Accept))
	s.out.Raw("* ENABLED")
	for _, can := range now {
		s.out.SP().Raw(can.name)
	}
	s.out.CRLF()
	if follows {
		s.followModSeqs()
	}
	return reply{}
}

// id is ID (RFC 2971). What the client says of itself goes to the log.
func (s *session) id(c *wire.ID) reply {
	if len(c.Fields) > 0 {
		s.log().Info("client", "id", describe(c.Fields))
	}
	s.out.Raw(`* ID ("name" "postroad")`).CRLF()
	return reply{}
}

// describe writes what a client says of itself, as much of it as a log takes.
func describe(fields []wire.Field) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%q=%q ", f.Name, f.Value)
	}
	const most = 400
	return strings.TrimSpace(b.String()[:min(b.Len(), most)])
}

// noop is NOOP and CHECK: what happened is told at the end of every command.
func (s *session) noop() reply { return reply{} }

// logout is LOGOUT (RFC 9051, 6.1.3).
func (s *session) logout() reply {
	s.out.Raw("* BYE ").Raw(loggedOut).CRLF()
	s.answer(reply{})
	s.left = true
	return reply{status: answered}
}
